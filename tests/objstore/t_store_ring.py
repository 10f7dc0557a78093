#!/usr/bin/env python3
"""culverd and culverctl with mail on sproxyd and on a store that knows Signature V2 only, the index in a directory.  TAP."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "lib"))
from server import BUILD, Line, Server, Skip, run_tests  # noqa: E402

HAVE_LIBS3 = "#define HAVE_LIBS3 1" in open(os.path.join(BUILD, "config.h")).read()
MESSAGE = "From: a@example.org\r\nSubject: on a ring\r\n\r\n" + "line\r\n" * 5000
BAD_DAY = {"locked_ms": 50, "lag_ms": 200, "ghosts": True, "dead": [1], "ring_error": {"every": 7}, "error": {"every": 23},
           "drop_after": {"every": 19, "method": "PUT"}, "locked": {"every": 9}}


class Store:
    def __init__(self, script, *args):
        self.p = subprocess.Popen([sys.executable, os.path.join(here, script), *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.urls = ["http://127.0.0.1:%d" % int(p) for p in self.p.stdout.readline().split()]

    def ask(self, path, **kw):
        return subprocess.run(["curl", "-sf", *(["-d", json.dumps(kw)] if kw else []), self.urls[0] + path], check=True, capture_output=True).stdout

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.p.stdin.close()
        self.p.wait(20)


def ctl(d, *args, expect=0, stdin=None):
    done = subprocess.run([os.path.join(BUILD, "culverctl"), "-c", d.conf, *args], input=stdin, capture_output=True, timeout=120)
    out = done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
    assert done.returncode == expect, "%s: %d: %s" % (args, done.returncode, out)
    return out


def mail_lives_there(d):
    for again in (False, True):  # the second time after a stop
        d.start()
        if not again:
            for i in range(4):
                assert all(r.startswith("250 ") for r in d.deliver(["user0", "user1"], MESSAGE))
        c = Line(d.imap)
        assert c.line().startswith("* OK")
        assert c.imap("a", "LOGIN user0 pass")[-1].startswith("a OK")
        assert "* %d EXISTS" % (3 if again else 4) in c.imap("b", "SELECT INBOX")
        assert "Subject: on a ring" in c.imap("c", "FETCH 2 (FLAGS RFC822.SIZE BODY[HEADER.FIELDS (SUBJECT)])")
        if not again:
            c.imap("d", "STORE 1 +FLAGS (\\Deleted)")
            assert c.imap("e", "EXPUNGE")[-1].startswith("e OK")
        c.close()
        out = ctl(d, "check", "user0", "--bodies")
        assert "0 damaged, 0 missing, 0 orphans" in out, out
        assert d.stop() == 0


def with_sproxyd():
    with Store("sproxyd-server.py", "3") as ring:
        section = "mail_store {\n\tdriver = sproxyd\n\turl = {%s}\n\tprefix = srv\n\ttimeout = 10s\n}\nindex_store { driver = posix }\n" % ", ".join(ring.urls)
        d = Server(users=2, workers=2, extra=section)
        try:
            ring.ask("/-/odd", reset=True, **BAD_DAY)
            mail_lives_there(d)
            ring.ask("/-/odd", reset=True)
            assert "mail_store: can be used" in ctl(d, "store", "probe")
            tools_say_what_cannot_be(d)
            stored = json.loads(ring.ask("/-/seen"))["objects"]
            ctl(d, "gc", "user0", "--now")
            left = json.loads(ring.ask("/-/seen"))["objects"]
            assert len(left) == len(stored) - 1, (len(stored), len(left))
            assert "/s" in ctl(d, "store", "bench", "--count", "20", "--size", "1K")
            assert json.loads(ring.ask("/-/seen"))["objects"] == left  # the bench has cleaned up though it cannot list
        finally:
            d.clean()


def tools_say_what_cannot_be(d):
    for command in (["check", "user0", "--repair"], ["scrub", "--all", "--bodies"]):
        out = ctl(d, *command)
        assert "cannot list" in out and ("0 orphans" in out or "0 of nobody" in out), out
    assert "user1" in ctl(d, "check", "--all")
    assert "cannot list" in ctl(d, "rebuild", "user0", "--force", expect=1)
    assert "cannot list" in ctl(d, "store", "list", expect=1)
    assert "0 damaged, 0 missing" in ctl(d, "check", "user0", "--bodies")


def a_ring_is_no_index():
    d = Server(users=1, extra="mail_store {\n\tdriver = sproxyd\n\turl = http://127.0.0.1:1\n}\n")
    try:
        out = ctl(d, "check", "--all", expect=2)
        assert "messages only" in out and "index_store" in out, out
    finally:
        d.clean()


def with_signature_v2():
    if not HAVE_LIBS3:
        raise Skip("built without libs3")
    with Store("s3server.py") as s3:
        section = ("mail_store {\n\tdriver = libs3\n\tendpoint = %s\n\tbucket = testbucket\n\taccess_key = AKIDTEST\n\tsecret_key = \"testSecret/Key+0123456789\"\n"
                   "\tprefix = srv\n}\nindex_store { driver = posix }\n" % s3.urls[0])
        d = Server(users=2, workers=2, extra=section)
        s3.ask("/-/odd", v2_only=True)
        try:
            mail_lives_there(d)
            assert "/m/" in ctl(d, "store", "list", "srv/")
            ctl(d, "rebuild", "user0", "--force")
            assert "0 damaged, 0 missing" in ctl(d, "check", "user0", "--bodies")
        finally:
            d.clean()


def with_signature_v2_on_ceph():
    if not HAVE_LIBS3:
        raise Skip("built without libs3")
    script, work = os.path.join(here, "..", "lib", "ceph-rgw"), tempfile.mkdtemp(prefix="t_ring.")
    try:
        p = subprocess.run([script, "up", work], capture_output=True, text=True, timeout=300)
        if p.returncode == 77:
            raise Skip(p.stderr.strip())
        assert p.returncode == 0, p.stderr
        s = dict(x.split("=", 1) for x in p.stdout.split())
        section = "mail_store {\n\tdriver = libs3\n\tprefix = srv\n%s}\nindex_store { driver = posix }\n" % "".join(
            '\t%s = "%s"\n' % (k, s[k]) for k in ("endpoint", "bucket", "access_key", "secret_key"))
        d = Server(users=2, workers=2, extra=section)
        try:
            mail_lives_there(d)
            out = ctl(d, "store", "probe")
            assert "mail_store: can be used" in out, out
            ctl(d, "rebuild", "user0", "--force")
            assert "0 damaged, 0 missing" in ctl(d, "check", "user0", "--bodies")
            print("# " + ctl(d, "store", "bench", "--count", "200", "--size", "16K", "--concurrency", "8").replace("\n", "\n# "))
        finally:
            d.clean()
    finally:
        subprocess.run([script, "down", work], timeout=100)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    run_tests([with_sproxyd, a_ring_is_no_index, with_signature_v2, with_signature_v2_on_ceph])
