"""A whole culverd in a directory of its own, for system tests.  Standard library only."""
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
import traceback

import store

BUILD = os.environ.get("top_builddir", os.path.join(os.path.dirname(__file__), "..", "..", "build"))
CULVERD = os.environ.get("CULVERD", os.path.join(BUILD, "culverd"))
SANITIZED = b"__asan_init" in open(CULVERD, "rb").read() or b"__tsan_init" in open(CULVERD, "rb").read()
# sha512crypt of "pass" with few rounds, so that the tests do not wait for hashing
HASH = "$6$rounds=1000$culvertest$7xadoDzc4ay2nur9ygBCc2vaKsiq230H0cA6VaCQ3NqxXZRuP9GxWAKEXgFLQnwFcbb/QxeFmWkJGCCYxtSi50"
SLOW = float(os.environ.get("CULVER_SLOW", 1))  # stretches every time-out
TIMEOUT = 30 * SLOW


def free_ports(n):
    """Below the range the kernel takes clients' ports from, so that they are still free after a restart."""
    ports = []
    while len(ports) < n:
        port = random.SystemRandom().randrange(12000, 32000)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def make_cert(directory, name):
    cert, key = os.path.join(directory, name + ".crt"), os.path.join(directory, name + ".key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                    "-subj", "/CN=" + name, "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert], check=True, stderr=subprocess.DEVNULL)
    return cert, key


def tls_context():
    c = ssl.create_default_context()
    c.check_hostname = False
    c.verify_mode = ssl.CERT_NONE
    return c


def wait_for(what, check, timeout=TIMEOUT):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = check()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("waited in vain for " + what)


class Line:
    """A connection that speaks in lines."""

    def __init__(self, port, tls=False, path=None):
        if path:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(path)
        else:
            self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.settimeout(TIMEOUT)
        if tls:
            self.start_tls()
        self.buf = b""

    def start_tls(self):
        self.sock = tls_context().wrap_socket(self.sock)
        self.buf = b""

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode())

    def line(self):
        while b"\n" not in self.buf:
            more = self.sock.recv(65536)
            if not more:
                raise EOFError("connection closed after %r" % self.buf)
            self.buf += more
        line, self.buf = self.buf.split(b"\n", 1)
        return line.rstrip(b"\r").decode("utf-8", "replace")

    def cmd(self, text):
        self.send(text + "\r\n")
        return self.line()

    def until(self, prefix):
        lines = [self.line()]
        while not lines[-1].startswith(prefix):
            lines.append(self.line())
        return lines

    def imap(self, tag, text):
        self.send("%s %s\r\n" % (tag, text))
        return self.until(tag + " ")

    def at_end(self):
        try:
            while True:
                if not self.sock.recv(65536):
                    return True
        except (ConnectionError, ssl.SSLError):
            return True
        except socket.timeout:
            return False

    def close(self):
        self.sock.close()


class Server:
    """keeps: its mail_store section, another server's .keeps to share that one's.  Left out: one of its own where CULVER_TEST_STORE says."""

    def __init__(self, extra="", users=8, workers=2, listen="", keeps=None, log_level="debug"):
        self.dir = tempfile.mkdtemp(prefix="culver")
        self.cert, self.key = make_cert(self.dir, "first")
        self.imap, self.imaps, self.pop3, self.pop3s, self.lmtp = free_ports(5)
        self.workers, self.extra, self.listen, self.log_level = workers, extra, listen, log_level
        self.users = ["user%d" % i for i in range(users)]
        self.conf = os.path.join(self.dir, "culver.conf")
        self.log = os.path.join(self.dir, "log")
        self.state, self.run = os.path.join(self.dir, "state"), os.path.join(self.dir, "run")
        self.proc = None
        self.bucket = store.bucket()
        self.prefix = os.path.basename(self.dir) if self.bucket else ""
        self.keeps = keeps or self.own_store()
        self.write_conf()

    def own_store(self):
        if self.bucket:
            return self.bucket.section(self.prefix)
        return "mail_store { path = %s/store }\n" % self.state

    def write_conf(self):
        with open(self.conf, "w") as f:
            f.write("state_dir = %s\nrun_dir = %s\nhostname = mail.test\nworker_count = %d\n" % (self.state, self.run, self.workers))
            f.write("ssl_cert = %s\nssl_key = %s\nlog_level = %s\n" % (self.cert, self.key, self.log_level))
            if SANITIZED:
                f.write('gate_user = ""\n')  # leaks cannot be looked for in a chroot
            for name in ("imap", "imaps", "pop3", "pop3s"):
                f.write("listen %s { address = 127.0.0.1 port = %d }\n" % (name, getattr(self, name)))
            f.write("listen lmtp { address = {127.0.0.1, lmtp.sock} port = %d }\n" % self.lmtp)
            f.write(self.listen + self.extra)
            if not re.search(r"(?m)^mail_store\b", self.extra):
                f.write(self.keeps)

    def start(self, args=("-f",), env=None):
        out = open(self.log, "a")
        seen = os.path.getsize(self.log)
        self.proc = subprocess.Popen([CULVERD, "-c", self.conf, *args], stderr=out, env=env)
        out.close()

        def ready():
            if self.proc.poll() is not None:
                raise AssertionError("culverd ended with %d:\n%s" % (self.proc.returncode, self.log_text(seen)))
            return "culverd is ready" in self.log_text(seen)
        wait_for("culverd", ready)
        self.add_users(self.users)
        return self

    def add_users(self, names, hash=HASH):
        db = sqlite3.connect(os.path.join(self.state, "users.db"), timeout=10)
        with db:
            for name in names:
                db.execute("INSERT OR REPLACE INTO users VALUES(?, ?, 1, 0, 0)", (name, hash))
        db.close()

    def log_text(self, start=0):
        try:
            with open(self.log, errors="replace") as f:
                f.seek(start)
                return f.read()
        except FileNotFoundError:
            return ""

    def assert_log_is_clean(self, ignore=None):
        """No errors and no reports of sanitizers.  ignore: pattern of lines that are as they should be."""
        bad = [x for x in self.log_text().splitlines() if re.search(r"^\S+Z error |Sanitizer|runtime error:|out of memory|assert", x)]
        bad = [x for x in bad if not (ignore and re.search(ignore, x))]
        assert not bad, "\n".join(bad[:20]) + "\n" + (self.log_text()[-6000:] if "anitizer" in self.log_text() else "")

    def pids(self, role=None):
        """pid by (role, index)"""
        found = {}
        for pid in os.listdir("/proc"):
            if not pid.isdigit():
                continue
            try:
                with open("/proc/%s/stat" % pid) as f:
                    parent = int(f.read().rsplit(")", 1)[1].split()[1])
                with open("/proc/%s/cmdline" % pid) as f:
                    args = f.read().split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent != self.proc.pid or len(args) < 4 or not args[1].startswith("--role="):
                continue
            found.setdefault((args[1][7:], int(args[2][8:])), []).append(int(pid))
        return {k: v for k, v in found.items() if role is None or k[0] == role}

    def reload(self):
        before = self.log_text().count("reloading")
        self.proc.send_signal(signal.SIGHUP)
        wait_for("the reload", lambda: self.log_text().count("reloading") > before)

    def stop(self, sig=signal.SIGTERM):
        if self.proc and self.proc.poll() is None:
            self.proc.send_signal(sig)
            self.proc.wait(60 * SLOW)
        return self.proc.returncode if self.proc else None

    def clean(self):
        if self.proc and self.proc.poll() is None:
            for pids in self.pids().values():
                for pid in pids:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
            self.proc.kill()
            self.proc.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    # --- protocols ---

    def deliver(self, rcpts, message, sender="sender@example.org"):
        """The replies after the final dot, one for each recipient."""
        c = Line(self.lmtp)
        assert c.line().startswith("220 ")
        c.send("LHLO test\r\n")
        c.until("250 ")
        assert c.cmd("MAIL FROM:<%s>" % sender).startswith("250 ")
        for r in rcpts:
            reply = c.cmd("RCPT TO:<%s>" % r)
            assert reply.startswith("250 "), reply
        assert c.cmd("DATA").startswith("354 ")
        if isinstance(message, str):
            message = message.encode()
        c.send(re.sub(rb"(?m)^\.", b"..", message) + b".\r\n")
        replies = [c.line() for _ in rcpts]
        c.send("QUIT\r\n")
        c.close()
        return replies

    def pop3_login(self, user, password="pass", tls=False):
        """A connection dropped a moment ago may still have the mailbox: then it tries again."""
        end = time.monotonic() + 10
        while True:
            c = Line(self.pop3s if tls else self.pop3, tls)
            assert c.line().startswith("+OK")
            assert c.cmd("USER " + user).startswith("+OK")
            reply = c.cmd("PASS " + password)
            if reply.startswith("+OK"):
                return c
            c.close()
            assert reply.startswith("-ERR [IN-USE]") and time.monotonic() < end, reply
            time.sleep(0.02)

    def pop3_count(self, user):
        c = self.pop3_login(user)
        n = int(c.cmd("STAT").split()[1])
        c.cmd("QUIT")
        c.close()
        return n


def retr(c, n):
    """The bytes of message n, dots taken off again."""
    assert c.cmd("RETR %d" % n).startswith("+OK")
    out = []
    while True:
        while b"\r\n" not in c.buf:
            c.buf += c.sock.recv(65536)
        line, c.buf = c.buf.split(b"\r\n", 1)
        if line == b".":
            return b"".join(out)
        out.append((line[1:] if line.startswith(b".") else line) + b"\r\n")


class Skip(Exception):
    """Raised by a test that needs what is not installed here."""


class TooLong(BaseException):
    """A test did not end within its limit."""


def too_long(signum, frame):
    raise TooLong


def run_tests(tests, limit=None):
    """TAP: each test is a function whose name is a claim.  limit: seconds for each, times CULVER_SLOW."""
    wanted = sys.argv[1:]
    tests = [t for t in tests if not wanted or t.__name__ in wanted]
    print("1..%d" % len(tests), flush=True)
    failed = False
    signal.signal(signal.SIGALRM, too_long)
    for n, test in enumerate(tests, 1):
        try:
            signal.setitimer(signal.ITIMER_REAL, limit * SLOW if limit else 0)
            test()
            print("ok %d - %s" % (n, test.__name__.replace("_", " ")), flush=True)
        except Skip as e:
            print("ok %d - %s # SKIP %s" % (n, test.__name__.replace("_", " "), e), flush=True)
        except (Exception, TooLong):
            failed = True
            print("not ok %d - %s" % (n, test.__name__.replace("_", " ")))
            print("\n".join("# " + x for x in traceback.format_exc().splitlines()), flush=True)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    sys.exit(failed)
