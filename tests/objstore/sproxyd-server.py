#!/usr/bin/env python3
"""A small sproxyd: Scality's REST proxy as its public clients see it, oddities included.  Standard library only; objects in memory.

Usage: sproxyd-server.py [CONNECTORS]   Prints the port of each connector (they share one ring) and runs until its standard input ends.

POST /-/odd takes a JSON object of oddities (merged into those in force; {"reset": true} forgets all, {"empty": true} the objects), GET /-/seen gives
the requests so far.  An oddity is true/false, a number, or {"method": "PUT", "key": "part of it", "connector": 0, ...} with "n": times, "skip": first
ones spared, "every": each so-many'th.

What is always so: keys are checked (40 upper-case digits, replica 0, dispersion, service id; class 2 for arc), DELETE of what is absent is 404 by key
and 200 by path, If-None-Match: * and If-Match: * are atomic, X-Scal-Usermd is given back as it came, X-Scal-Ring-Key tells the key."""
import base64
import collections
import email.utils
import hashlib
import http.server
import json
import re
import socket
import struct
import sys
import threading
import time
import urllib.parse
import zlib

lock = threading.RLock()
objects, ghosts, touched, seen, odd = {}, {}, {}, collections.deque(maxlen=20000), {}
counts = collections.Counter()
serial = [0]


class Refuse(Exception):
    def __init__(self, status, ring="", headers=None):
        super().__init__(status)
        self.status, self.headers = status, dict(headers or {})
        if ring:
            self.headers["X-Scal-Ring-Status"] = ring


def strange(name, method, key, connector):
    """The oddity of that name if it applies to this request; one that counts is used up."""
    with lock:
        o = odd.get(name)
        if not o or not isinstance(o, dict):
            return {"always": o} if o else None
        if o.get("method", method) != method or o.get("key", "") not in key or o.get("connector", connector) != connector or o.get("n", 1) <= 0:
            return None
        if o.get("skip", 0) > 0:
            o["skip"] -= 1
            return None
        if "every" in o:
            counts[name] += 1
            if counts[name] % o["every"]:
                return None
        if "n" in o:
            o["n"] -= 1
        return o


def listed(name, connector):
    return connector in odd.get(name, [])


def check_key(profile, key):
    if not re.fullmatch(r"[0-9A-F]{40}", key):
        raise Refuse(400, "not a key")
    raw = bytes.fromhex(key)
    digest = hashlib.md5(bytes(reversed(raw[3:19]))).digest()
    if raw[:3] != bytes(reversed(digest[:3])):
        raise Refuse(400, "bad dispersion")
    if raw[15] <= 0xC0 or raw[15] == 0xC3 or raw[19] & 0x0F or raw[19] >> 4 > 5:
        raise Refuse(400, "bad service id, class or replica")
    if profile == "arc" and raw[19] >> 4 != 2:
        raise Refuse(400, "arc wants class 2")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65536

    def log_message(self, *args):
        pass

    def setup(self):
        self.timeout = odd.get("idle_seconds", 25)
        super().setup()

    # --- answers ---

    def answer(self, status, body=b"", headers=None, length=None):
        if self.mute:
            return
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def vanish(self):
        """No answer: the connection is reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        try:
            self.connection.close()
        except OSError:
            pass

    # --- one request ---

    def handle_any(self):
        self.mute = False
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = urllib.parse.unquote(self.path.partition("?")[0])
        if path.startswith("/-/"):
            return self.special(path, body)
        self.connector = self.server.connector
        _, _, rest = path.partition("/proxy/")
        self.profile, _, self.key = rest.partition("/")
        with lock:
            serial[0] += 1
            seen.append({"method": self.command, "profile": self.profile, "key": self.key, "connector": self.connector, "port": self.client_address[1],
                         "headers": {k.lower(): v for k, v in self.headers.items()}})
        try:
            self.one(body)
        except Refuse as e:
            self.mute = False
            self.answer(e.status, b"", e.headers)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_any

    def one(self, body):
        m, k, c = self.command, self.key, self.connector
        if listed("dead", c):
            return self.vanish()
        if k == ".conf":
            if listed("conf_fails", c) or listed("down", c):
                raise Refuse(500, "conf")
            return self.answer(200, json.dumps({"split_threshold": 67108864, "conn_idle_timeout_s": 25, "consistent_reads": not odd.get("lag_ms")}).encode())
        if listed("down", c):
            raise Refuse(503, "connector is down")
        o = strange("slow", m, k, c)
        if o:
            time.sleep(o["seconds"])
        if strange("drop_before", m, k, c):
            return self.vanish()
        o = strange("error", m, k, c)
        if o:
            raise Refuse(o.get("status", 500), "as ordered")
        o = strange("ring_error", m, k, c)
        if o and not o.get("done"):
            raise Refuse(422, "RING_TRY_AGAIN as ordered")
        if self.profile not in ("chord", "arc", "bpchord", "bparc"):
            raise Refuse(404, "no such profile")
        after = strange("drop_after", m, k, c)
        late = strange("error_after", m, k, c)
        self.mute = bool(after or late or o)
        self.carry_out(body)
        self.mute = False
        if o:
            raise Refuse(422, "RING_TRY_AGAIN but done")
        if late:
            raise Refuse(late.get("status", 500), "done all the same")
        if after:
            self.vanish()

    def carry_out(self, body):
        if self.command == "POST":
            return self.batch(body)
        if not self.profile.startswith("bp"):
            check_key(self.profile, self.key)
        if odd.get("collide"):
            self.key = "C" * 40
        m = self.command
        if strange("locked", m, self.key, self.connector):
            raise Refuse(423, "LOCKED")
        with lock:
            recent = time.time() - touched.get(self.key, 0) < odd.get("locked_ms", 0) / 1000
            if m == "DELETE" and recent:
                raise Refuse(423, "LOCKED by what was done a moment ago")
            touched[self.key] = time.time()
        if m == "PUT":
            return self.put(body)
        return self.delete() if m == "DELETE" else self.get()

    def put(self, body):
        h = self.headers
        if len(h.get("x-scal-usermd", "")) > 2732:
            raise Refuse(400, "user metadata too long")
        with lock:
            old = objects.get(self.key)
            if h.get("if-none-match") == "*" and old:
                raise Refuse(412)
            if h.get("if-match") == "*" and not old:
                raise Refuse(412)
            objects[self.key] = {"data": body, "usermd": h.get("x-scal-usermd"), "time": time.time(), "old": old and dict(old, old=None),
                                 "version": (old["version"] if old else 0) + 1}
            ghosts.pop(self.key, None)
        self.answer(200, b"", {"X-Scal-Ring-Key": self.key, "X-Scal-Version": str((old["version"] if old else 0) + 1)})

    def now(self):
        """What a replica has: with lag the state of before, unless replicas that agree are asked for."""
        with lock:
            o = objects.get(self.key)
            lag = odd.get("lag_ms", 0) / 1000
            if lag and self.headers.get("x-scal-replica-policy") != "consistent" and o and time.time() - o["time"] < lag:
                return o["old"]
            return o

    def get(self):
        o = self.now()
        if not o:
            with lock:
                g = ghosts.get(self.key)
            if g and odd.get("ghosts"):
                return self.answer(200, b"", {"X-Scal-Attr-Is-Deleted": "True", "X-Scal-Ring-Key": self.key})
            raise Refuse(404)
        data, status = o["data"], 200
        split = len(data) > odd.get("split_threshold", 67108864)
        h = {"X-Scal-Ring-Key": self.key, "X-Scal-Size": str(len(data)), "X-Scal-Version": str(o["version"]), "X-Scal-Crc32": "0x%08x" % zlib.crc32(data),
             "X-Scal-Mtime": str(int(o["time"])), "Last-Modified": email.utils.formatdate(o["time"], usegmt=True),
             "X-Scal-Attr-Is-Split": str(split), "X-Scal-Attr-Is-Deleted": "False", "X-Scal-Attr-Object-Id": self.key[6:22]}
        if o["usermd"] is not None:
            h["X-Scal-Usermd"] = o["usermd"]
        m = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if m and self.command == "GET" and not odd.get("no_ranges"):
            first, last = int(m[1]), int(m[2]) if m[2] else len(data) - 1
            if first >= len(data):
                raise Refuse(416)
            last = min(last, len(data) - 1)
            h["Content-Range"] = "bytes %d-%d/%d" % (first, last, len(data))
            data, status = data[first:last + 1], 206
        if self.command == "HEAD":
            return self.answer(status, b"", h, 4096 if split else len(data))  # of a split object it is the map's length
        if strange("truncate", "GET", self.key, self.connector) and data:
            self.send_response(status)
            for name, value in h.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:len(data) // 2])
            self.wfile.flush()
            return self.vanish()
        self.answer(status, data, h)

    def delete(self):
        with lock:
            gone = objects.pop(self.key, None)
            if gone:
                ghosts[self.key] = gone
        if not gone and not self.profile.startswith("bp"):
            raise Refuse(404)
        self.answer(200)

    def batch(self, body):
        if self.key != ".batch_delete":
            raise Refuse(405)
        if odd.get("no_batch"):
            raise Refuse(odd["no_batch"], "no batches")
        keys = json.loads(body)["keys"]
        if len(keys) > 1000:
            raise Refuse(400, "too many")
        failed = []
        for k in keys:
            check_key(self.profile, k)
            o = strange("key_error", "POST", k, self.connector)
            if o:
                failed.append({"key": k, "status": o.get("status", 423)})
                continue
            with lock:
                gone = objects.pop(k, None)
                if gone:
                    ghosts[k] = gone
        self.answer(200, json.dumps({"keys": failed}).encode() if failed else b"", {"Content-Type": "application/json"})

    # --- not sproxyd ---

    def special(self, path, body):
        if path == "/-/odd":
            new = json.loads(body)
            with lock:
                if new.pop("reset", None):
                    odd.clear()
                    counts.clear()
                    seen.clear()
                if new.pop("empty", None):
                    objects.clear()
                    ghosts.clear()
                    touched.clear()
                odd.update(new)
            return self.answer(200)
        if path == "/-/plant":  # an object another program put there
            new = json.loads(body)
            with lock:
                objects[new["key"]] = {"data": new["data"].encode(), "usermd": new.get("usermd"), "time": time.time(), "old": None, "version": 1}
            return self.answer(200)
        with lock:
            return self.answer(200, json.dumps({"requests": list(seen), "objects": {k: base64.b64encode(o["data"][:64]).decode() for k, o in objects.items()}}).encode())


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    connector = 0

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def main():
    ports = []
    for i in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1):
        server = Server(("127.0.0.1", 0), Handler)
        server.connector = i
        ports.append(str(server.server_address[1]))
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(" ".join(ports), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
