#!/usr/bin/env python3
"""A small S3 server that verifies signatures and can be made as odd as real ones.  Standard library only; objects in memory.

Prints its port and runs until its standard input ends.  POST /-/odd takes a JSON object of oddities (merged into those in force;
{"reset": true} alone forgets all), GET /-/seen gives the requests so far.  An oddity is true/false, a number, or {"n": times, "method": "PUT",
"key": "part of it", ...}; those with n count down.

It also plays instance metadata (/latest/...) and STS (POST / with Action=AssumeRoleWithWebIdentity)."""
import base64
import collections
import email.utils
import hashlib
import hmac
import http.server
import json
import re
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.parse
from xml.sax.saxutils import escape

SECRETS = {"AKIDTEST": "testSecret/Key+0123456789", "ASIATEMP": "tempSecret", "ASIAROLE": "roleSecret", "AKIDFILE": "fileSecret"}
TOKENS = {"ASIATEMP": "temp-token/+=", "ASIAROLE": "role-token"}
BUCKET = "testbucket"
lock = threading.RLock()
objects, uploads, odd = {}, {}, {}
seen = collections.deque(maxlen=20000)
serial = [0]


class Refuse(Exception):
    def __init__(self, status, code, message="", headers=None):
        super().__init__(code)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}


def strange(name, method, key):
    """The oddity of that name if it applies to this request; one that counts is used up."""
    with lock:
        o = odd.get(name)
        if not o:
            return None
        if not isinstance(o, dict):
            return o
        if o.get("method", method) != method or o.get("key", "") not in key or o.get("n", 1) <= 0:
            return None
        if o.get("skip", 0) > 0:
            o["skip"] -= 1
            return None
        if "n" in o:
            o["n"] -= 1
        return o


def quote(text, safe=""):
    return urllib.parse.quote(text, safe="-._~" + safe)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65536

    def log_message(self, *args):
        pass

    def handle_expect_100(self):
        done = super().handle_expect_100()
        if not odd.get("no_continue"):
            self.wfile.flush()
        return done

    # --- signature ---

    def verify_v2(self, raw, body):
        """Signature Version 2, as old appliances know it (and with "v2_only" nothing else)."""
        m = re.fullmatch(r"AWS ([^:]+):([A-Za-z0-9+/=]{28})", raw)
        if not m or m[1] not in SECRETS:
            raise Refuse(403, "InvalidAccessKeyId", "unknown")
        h, path = self.headers, self.path.partition("?")[0]
        amz = "".join("%s:%s\n" % (n, " ".join(h[n].split())) for n in sorted({n.lower() for n in h if n.lower().startswith("x-amz-")}))
        date = "" if "x-amz-date" in h else h.get("date", "")
        sub = "&".join(sorted(p for p in self.path.partition("?")[2].split("&") if p.partition("=")[0] in ("acl", "delete", "location", "uploads", "uploadId", "partNumber")))
        if h.get("host", "").startswith(BUCKET + "."):
            path = "/" + BUCKET + path
        text = "\n".join([self.command, h.get("content-md5", ""), h.get("content-type", ""), date, amz + path + ("?" + sub if sub else "")])
        want = base64.b64encode(hmac.new(SECRETS[m[1]].encode(), text.encode(), hashlib.sha1).digest()).decode()
        if not hmac.compare_digest(want, m[2]):
            raise Refuse(403, "SignatureDoesNotMatch", text)
        sent = email.utils.parsedate_to_datetime(h.get("x-amz-date") or h.get("date")).timestamp()
        if abs(sent - self.clock()) > 900:
            raise Refuse(403, "RequestTimeTooSkewed", "clocks differ")
        if "content-md5" in h and base64.b64encode(hashlib.md5(body).digest()).decode() != h["content-md5"]:
            raise Refuse(400, "BadDigest", "content-md5")

    def verify(self, body):
        raw = self.headers.get("authorization", "")
        if raw.startswith("AWS "):
            return self.verify_v2(raw, body)
        if odd.get("v2_only"):
            raise Refuse(400, "InvalidRequest", "the authorization mechanism is not supported")
        m = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})", raw)
        if not m:
            raise Refuse(403, "AccessDenied", "no signature")
        access, day, region, names, signature = m.groups()
        if access not in SECRETS:
            raise Refuse(403, "InvalidAccessKeyId", "unknown " + access)
        if odd.get("expired") == access:
            raise Refuse(403, "ExpiredToken", "the token is too old")
        if self.headers.get("x-amz-security-token", "") != TOKENS.get(access, ""):
            raise Refuse(403, "InvalidToken", "wrong token")
        path, _, query = self.path.partition("?")
        pairs = sorted(query.split("&")) if query else []
        for p in pairs:
            n, _, v = p.partition("=")
            if quote(urllib.parse.unquote(n)) != n or quote(urllib.parse.unquote(v)) != v:
                raise Refuse(403, "SignatureDoesNotMatch", "query is not canonical: " + p)
        names = names.split(";")
        if names != sorted(names) or any(h.lower() not in names for h in self.headers if h.lower().startswith("x-amz-")) or "host" not in names:
            raise Refuse(403, "AccessDenied", "headers are not signed")
        head = "".join("%s:%s\n" % (n, " ".join(self.headers.get(n, "").split())) for n in names)
        sha = self.headers.get("x-amz-content-sha256", "")
        date = self.headers.get("x-amz-date", "")
        canonical = "\n".join([self.command, path, "&".join(pairs), head, ";".join(names), sha])
        scope = "/".join([day, region, "s3", "aws4_request"])
        text = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        k = ("AWS4" + SECRETS[access]).encode()
        for part in (day, region, "s3", "aws4_request", text):
            k = hmac.new(k, part.encode(), hashlib.sha256).digest()
        if not hmac.compare_digest(k.hex(), signature):
            raise Refuse(403, "SignatureDoesNotMatch", canonical)
        if odd.get("region") and odd["region"] != region:
            raise Refuse(400, "AuthorizationHeaderMalformed", "the region is wrong", {"region": odd["region"]})
        sent = time.mktime(time.strptime(date, "%Y%m%dT%H%M%SZ")) - time.timezone
        if abs(sent - self.clock()) > 900:
            raise Refuse(403, "RequestTimeTooSkewed", "clocks differ")
        if hashlib.sha256(body).hexdigest() != sha:
            raise Refuse(400, "XAmzContentSHA256Mismatch", "the body is not what was signed")
        for name, algorithm in (("content-md5", "md5"), ("x-amz-checksum-sha256", "sha256")):
            if name in self.headers and base64.b64encode(hashlib.new(algorithm, body).digest()).decode() != self.headers[name]:
                raise Refuse(400, "BadDigest", name)

    def clock(self):
        return time.time() + odd.get("skew", 0)

    def date_time_string(self, timestamp=None):
        return super().date_time_string(self.clock() if timestamp is None else timestamp)

    # --- answers ---

    def answer(self, status, body=b"", headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("x-amz-request-id", "REQ%06d" % self.serial)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            if strange("split_body", self.command, self.key):  # head and body in two packets
                self.wfile.flush()
            self.wfile.write(body)

    def refuse(self, e):
        region = "<Region>%s</Region>" % e.headers.pop("region") if "region" in e.headers else ""
        self.answer(e.status, ('<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>%s</Code><Message>%s</Message>%s<RequestId>REQ%06d</RequestId></Error>'
                               % (e.code, escape(e.message), region, self.serial)).encode(), e.headers)

    def vanish(self, reset=False):
        """No answer: the connection ends."""
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR) if not reset else self.connection.close()
        except OSError:
            pass

    # --- one request ---

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.startswith("http://"):  # as a proxy for itself
            self.path = "/" + self.path.split("/", 3)[3]
        if odd.get("nagle"):
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        path, _, query = self.path.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        host = self.headers.get("host", "")
        full = urllib.parse.unquote(path)
        if path.startswith("/-/") or path.startswith("/latest/") or b"AssumeRoleWithWebIdentity" in body[:200]:
            self.key, self.serial = "", 0
            if not path.startswith("/-/"):
                with lock:
                    seen.append({"path": path})
            return self.special(path, body)
        if host.startswith(BUCKET + "."):
            full = "/" + BUCKET + full
        bucket, _, self.key = full[1:].partition("/")
        with lock:
            serial[0] += 1
            self.serial = serial[0]
            seen.append({"method": self.command, "key": self.key, "query": self.query, "connection": self.client_address[1],
                         "headers": {k.lower(): v for k, v in self.headers.items()}})
        try:
            self.one(bucket, body)
        except Refuse as e:
            self.refuse(e)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_any

    def one(self, bucket, body):
        m, k = self.command, self.key
        o = strange("slow", m, k)
        if o:
            time.sleep(o["seconds"])
        if strange("rst", m, k) or strange("drop_before", m, k):
            return self.vanish(True)
        o = strange("throttle", m, k)
        if o:
            raise Refuse(o.get("status", 503), "SlowDown", "please", {"Retry-After": str(o["retry_after"])} if "retry_after" in o else {})
        o = strange("error", m, k)
        if o and o is not True and o.get("silent"):  # without a body
            return self.answer(o.get("status", 500))
        if o:
            raise Refuse(o.get("status", 500), o.get("code", "InternalError"), "as ordered")
        self.verify(body)
        if bucket != BUCKET:
            raise Refuse(404, "NoSuchBucket", bucket)
        after = strange("drop_after", m, k)
        error = strange("error_after", m, k)
        if after or error:
            self.answer_, self.answer = self.answer, lambda *a, **kw: None
        try:
            self.carry_out(body)
        finally:
            if after or error:
                self.answer = self.answer_
        if error:
            raise Refuse(error.get("status", 500), error.get("code", "UnknownError"), "done all the same")
        if after:
            self.vanish(True)

    def carry_out(self, body):
        q = self.query
        if self.command == "PUT":
            if "uploadId" in q:
                return self.put_part(body)
            return self.copy() if "x-amz-copy-source" in self.headers else self.put(body)
        if self.command == "POST":
            if "delete" in q:
                return self.delete_many(body)
            return self.initiate() if "uploads" in q else self.complete(body)
        if self.command == "DELETE":
            if "uploadId" in q:
                with lock:
                    uploads.pop(q["uploadId"], None)
            else:
                with lock:
                    objects.pop(self.key, None)
            return self.answer(204)
        return self.list() if not self.key else self.get()

    def conditions(self):
        h = self.headers
        if "if-none-match" not in h and "if-match" not in h:
            return
        if odd.get("no_conditions"):
            raise Refuse(501, "NotImplemented", "no conditions here")
        if strange("conflict", self.command, self.key):
            raise Refuse(409, "ConditionalRequestConflict", "try again")
        if odd.get("ignore_conditions"):
            return
        now = objects.get(self.key)
        if h.get("if-none-match") == "*" and now:
            raise Refuse(412, "PreconditionFailed")
        if "if-match" in h:
            if not now:
                raise Refuse(404, "NoSuchKey")
            if h["if-match"] != (now["etag"].strip('"') if odd.get("unquoted") else now["etag"]):
                raise Refuse(odd.get("lost_cas_status", 412), "PreconditionFailed")

    def store(self, data, etag=None):
        etag = etag or '"%s"' % hashlib.md5(data).hexdigest()
        objects[self.key] = {"data": data, "etag": etag, "time": time.time(), "headers": {k.lower(): v for k, v in self.headers.items()}}
        return etag

    def put(self, body):
        if odd.get("not_atomic"):
            with lock:
                self.conditions()
            time.sleep(0.02)
            with lock:
                etag = self.store(body)
        else:
            with lock:
                self.conditions()
                etag = self.store(body)
        self.answer(200, b"", {"ETag": etag})

    def copy(self):
        source = urllib.parse.unquote(self.headers["x-amz-copy-source"]).partition("/" + BUCKET + "/")[2]
        if strange("error_in_200", self.command, self.key):
            return self.answer(200, b"<Error><Code>InternalError</Code></Error>")
        with lock:
            if source not in objects:
                raise Refuse(404, "NoSuchKey")
            self.conditions()
            etag = self.store(objects[source]["data"])
        self.answer(200, ("<CopyObjectResult><ETag>%s</ETag></CopyObjectResult>" % escape(etag)).encode())

    def get(self):
        with lock:
            o = objects.get(self.key)
        if not o:
            raise Refuse(404, "NoSuchKey", self.key)
        data, status = o["data"], 200
        h = {"ETag": o["etag"], "Last-Modified": self.date_time_string(o["time"])}
        if not odd.get("no_metadata"):
            h.update((n, v) for n, v in o["headers"].items() if n.startswith("x-amz-meta-"))
        if self.headers.get("x-amz-checksum-mode") == "ENABLED" and "x-amz-checksum-sha256" in o["headers"]:
            h["x-amz-checksum-sha256"] = o["headers"]["x-amz-checksum-sha256"]
        m = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if m and not odd.get("no_ranges"):
            first, last = int(m[1]), int(m[2]) if m[2] else len(data) - 1
            if first >= len(data):
                raise Refuse(416, "InvalidRange")
            last = min(last, len(data) - 1)
            h["Content-Range"] = "bytes %d-%d/%d" % (first, last, len(data))
            data, status = data[first:last + 1], 206
        if strange("flip", self.command, self.key) and data:
            data = bytes([data[0] ^ 1]) + data[1:]
        if strange("truncate", self.command, self.key):
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:len(data) // 2])
            self.wfile.flush()
            return self.vanish()
        self.answer(status, data, h)

    def list(self):
        q = self.query
        limit = min(int(q.get("max-keys", 1000)), odd.get("page", 1000))
        with lock:
            keys = sorted(k for k in objects if k.startswith(q.get("prefix", "")) and k > q.get("start-after", q.get("marker", "")))
            items = [(k, len(objects[k]["data"]), objects[k]["time"]) for k in keys[:limit]]
        enc = quote if q.get("encoding-type") == "url" else escape
        out = ['<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>%s</Name>' % BUCKET]
        for k, size, t in items:
            out.append("<Contents><Key>%s</Key><LastModified>%s</LastModified><Size>%d</Size></Contents>"
                       % (enc(k, "/") if enc is quote else enc(k), time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(t)), size))
        out.append("<EncodingType>url</EncodingType>" if enc is quote else "")
        out.append("<IsTruncated>%s</IsTruncated></ListBucketResult>" % ("true" if len(keys) > limit else "false"))
        self.answer(200, "".join(out).encode(), {"Content-Type": "application/xml"})

    def delete_many(self, body):
        if odd.get("no_multi_delete"):
            raise Refuse(501, "NotImplemented")
        if "content-md5" not in self.headers:
            raise Refuse(400, "InvalidRequest", "Content-MD5 is missing")
        out = []
        for k in re.findall(r"<Key>(.*?)</Key>", body.decode()):
            o = strange("key_error", "POST", k)
            if o:
                out.append("<Error><Key>%s</Key><Code>%s</Code><Message>no</Message></Error>" % (escape(k), o.get("code", "InternalError")))
            else:
                with lock:
                    objects.pop(k.replace("&amp;", "&"), None)
        self.answer(200, ("<DeleteResult>" + "".join(out) + "</DeleteResult>").encode())

    # --- multipart ---

    def initiate(self):
        with lock:
            upload = "up/+%d" % len(uploads)
            uploads[upload] = {}
        self.answer(200, ("<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>" % upload).encode())

    def put_part(self, body):
        with lock:
            if self.query["uploadId"] not in uploads:
                raise Refuse(404, "NoSuchUpload")
            etag = '"%s"' % hashlib.md5(body).hexdigest()
            uploads[self.query["uploadId"]][int(self.query["partNumber"])] = (etag, body)
        self.answer(200, b"", {"ETag": etag})

    def complete(self, body):
        with lock:
            parts = uploads.get(self.query["uploadId"])
            if parts is None:
                raise Refuse(404, "NoSuchUpload")
            asked = re.findall(r"<PartNumber>(\d+)</PartNumber><ETag>(.*?)</ETag>", body.decode())
            if [(n, parts[n][0]) for n in sorted(parts)] != [(int(n), e.replace("&quot;", '"')) for n, e in asked]:
                raise Refuse(400, "InvalidPart")
            data = b"".join(parts[n][1] for n in sorted(parts))
            etag = self.store(data, '"%s-%d"' % (hashlib.md5(data).hexdigest(), len(parts)))
            del uploads[self.query["uploadId"]]
        self.answer(200, ("  \n\n<?xml version='1.0'?><CompleteMultipartUploadResult><ETag>%s</ETag></CompleteMultipartUploadResult>" % ("" if odd.get("no_complete_etag") else escape(etag))).encode())

    # --- not S3 ---

    def special(self, path, body):
        if path == "/-/odd":
            new = json.loads(body)
            with lock:
                if new.pop("reset", None):
                    odd.clear()
                    seen.clear()
                if new.pop("empty", None):
                    objects.clear()
                    uploads.clear()
                odd.update(new)
            return self.answer(200)
        if path == "/-/seen":
            with lock:
                return self.answer(200, json.dumps({"requests": list(seen), "uploads": len(uploads), "objects": {k: v["headers"] for k, v in objects.items()}}).encode())
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + odd.get("lifetime", 3600)))
        if path == "/latest/api/token":
            if self.command != "PUT" or "x-aws-ec2-metadata-token-ttl-seconds" not in self.headers:
                return self.answer(405)
            return self.answer(200, b"imds-token")
        if path.startswith("/latest/"):
            if self.headers.get("x-aws-ec2-metadata-token") != "imds-token":
                return self.answer(401)
            if path.endswith("security-credentials/"):
                return self.answer(200, b"mail-role\n")
            if odd.get("expired") == "ASIATEMP":  # asked again: others
                return self.answer(200, json.dumps({"Code": "Success", "AccessKeyId": "ASIAROLE", "SecretAccessKey": SECRETS["ASIAROLE"], "Token": TOKENS["ASIAROLE"], "Expiration": expires}).encode())
            return self.answer(200, json.dumps({"Code": "Success", "AccessKeyId": "ASIATEMP", "SecretAccessKey": SECRETS["ASIATEMP"], "Token": TOKENS["ASIATEMP"], "Expiration": expires}).encode())
        form = dict(urllib.parse.parse_qsl(body.decode()))
        if form.get("WebIdentityToken") != "web/identity+token" or form.get("RoleArn") != "arn:aws:iam::1:role/mail":
            return self.answer(403, b'<ErrorResponse><Error><Code>AccessDenied</Code><Message>not you</Message></Error></ErrorResponse>')
        self.answer(200, ("<AssumeRoleWithWebIdentityResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><AssumeRoleWithWebIdentityResult><Credentials>"
                          "<AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration>"
                          "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>" % (SECRETS["ASIAROLE"], TOKENS["ASIAROLE"], expires)).encode())


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def main():
    server = Server(("127.0.0.1", 0), Handler)
    if len(sys.argv) > 2:  # certificate, key [, CA of the clients]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1], sys.argv[2])
        if len(sys.argv) > 3:
            context.load_verify_locations(sys.argv[3])
            context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
