"""The store below a test's servers.  Standard library only.

CULVER_TEST_STORE   posix (a directory of each server, the default), s3 (tests/objstore/s3server.py) or ceph (tests/lib/ceph-rgw)
CULVER_TEST_BUCKET  settings of a bucket that is there already, as ceph-rgw prints them: endpoint=URL bucket=B access_key=A secret_key=S"""
import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
KIND = os.environ.get("CULVER_TEST_STORE", "posix")
FIELDS = ("endpoint", "bucket", "access_key", "secret_key")


class NotHere(Exception):
    """The store's programs are not installed."""


class Bucket:
    """A bucket of a running S3 server.  settings: those of mail_store that reach it."""

    def __init__(self, settings):
        self.settings = {k: settings[k] for k in FIELDS}
        self.url = self.settings["endpoint"]

    def section(self, prefix="", endpoint="", extra=""):
        """A mail_store section.  endpoint: instead of its own, such as that of a proxy."""
        s = dict(self.settings, prefix=prefix, endpoint=endpoint or self.url)
        return "mail_store {\n\tdriver = s3\n%s%s}\n" % ("".join('\t%s = "%s"\n' % x for x in s.items() if x[1]), extra)

    def close(self):
        pass


class TestServer(Bucket):
    """The project's own S3 server, which can be made odd."""

    def __init__(self):
        self.proc = subprocess.Popen([sys.executable, os.path.join(HERE, "..", "objstore", "s3server.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        url = "http://127.0.0.1:%d" % int(self.proc.stdout.readline())
        super().__init__({"endpoint": url, "bucket": "testbucket", "access_key": "AKIDTEST", "secret_key": "testSecret/Key+0123456789"})

    def ask(self, path, data=None):
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=30) as r:
            return r.read()

    def odd(self, **kw):
        """From now on so (head of s3server.py), and not as before."""
        self.ask("/-/odd", json.dumps(dict(kw, reset=True)).encode())

    def seen(self):
        return json.loads(self.ask("/-/seen"))["requests"]

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.close()

    def close(self):
        self.proc.stdin.close()
        self.proc.wait(20)


class MemServer(Bucket):
    """bench/s3mem: fast, and only counts."""

    def __init__(self, build):
        tool = os.path.join(build, "bench", "s3mem")
        if not os.path.exists(tool):
            raise NotHere("%s is not built: it needs libmicrohttpd" % tool)
        self.proc = subprocess.Popen([tool, "--bucket", "testbucket"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        url = "http://127.0.0.1:%d" % int(self.proc.stdout.readline())
        super().__init__({"endpoint": url, "bucket": "testbucket", "access_key": "any", "secret_key": "any"})

    def counts(self):
        with urllib.request.urlopen(self.url + "/-/counts", timeout=60) as r:
            return json.loads(r.read())

    def close(self):
        self.proc.stdin.close()
        self.proc.wait(60)


class Ceph(Bucket):
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="culverceph")
        p = subprocess.run([os.path.join(HERE, "ceph-rgw"), "up", self.dir], capture_output=True, text=True, timeout=300)
        if p.returncode:
            self.close()
            raise (NotHere if p.returncode == 77 else AssertionError)(p.stderr.strip())
        super().__init__(dict(x.split("=", 1) for x in p.stdout.split()))

    def close(self):
        subprocess.run([os.path.join(HERE, "ceph-rgw"), "down", self.dir], timeout=100)
        shutil.rmtree(self.dir, ignore_errors=True)


def open_bucket(kind):
    given = os.environ.get("CULVER_TEST_BUCKET")
    if given:
        return Bucket(dict(x.split("=", 1) for x in given.split()))
    if kind not in ("s3", "ceph"):
        raise SystemExit("CULVER_TEST_STORE=%s: it is posix, s3 or ceph" % kind)
    bucket = TestServer() if kind == "s3" else Ceph()
    atexit.register(bucket.close)
    return bucket


opened = []


def bucket():
    """That of CULVER_TEST_STORE, started once for all servers of this process; None: a directory."""
    if KIND == "posix":
        return None
    if not opened:
        try:
            opened.append(open_bucket(KIND))
        except NotHere as e:
            print("1..0 # SKIP %s" % e, flush=True)
            os._exit(0)
    return opened[0]
