#!/usr/bin/env python3
"""culverctl store against the test server, and against a real Ceph RGW when Debian's packages are there.  TAP."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback

TOP = os.environ.get("top_srcdir", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
BUILD = os.environ.get("top_builddir", os.path.join(TOP, "build"))
CULVERCTL = os.path.join(BUILD, "culverctl")
sys.path.insert(0, os.path.join(TOP, "tests", "lib"))
import server as lib  # noqa: E402  culverd's
from store import Ceph, NotHere, TestServer  # noqa: E402

work = tempfile.mkdtemp(prefix="t_store.")


def ctl(settings, *args, status=0, data=None):
    conf = os.path.join(work, "culver.conf")
    with open(conf, "w") as f:
        f.write("state_dir = %s\nrun_dir = %s/run\nmail_store {\n\tdriver = s3\n%s}\n" % (work, work, "".join('\t%s = "%s"\n' % i for i in settings.items())))
    p = subprocess.run([CULVERCTL, "-c", conf, *args], input=data, capture_output=True, timeout=240)
    if status is not None:
        assert p.returncode == status, "%s: status %d: %s%s" % (args, p.returncode, p.stdout.decode(errors="replace"), p.stderr.decode())
    return p


def objects_round_trip(s):
    data = os.urandom(300000)
    ctl(s, "store", "put", "rt/a+b", data=data)
    assert ctl(s, "store", "get", "rt/a+b").stdout == data
    ctl(s, "store", "put", "rt/a+b", "--create", status=1, data=b"x")
    ctl(s, "store", "put", "rt/b", "--create", data=b"y")
    lines = [json.loads(x) for x in ctl(s, "--json", "store", "list", "rt/").stdout.splitlines()]
    assert [(x["key"], x["size"]) for x in lines] == [("rt/a+b", 300000), ("rt/b", 1)], lines
    assert b"rt/b" in ctl(s, "store", "list", "rt/", "--after", "rt/a+b").stdout
    ctl(s, "store", "delete", "rt/a+b", "rt/b", "rt/none")
    p = ctl(s, "store", "get", "rt/b", status=3)
    assert b"no such object" in p.stderr


def probe_tells_that_the_store_is_good(s):
    p = ctl(s, "store", "probe")
    assert b"index_store: can be used" in p.stdout and b"NO" not in p.stdout, p.stdout
    kept = json.load(open(os.path.join(work, "probe-mail_store.json")))
    assert kept["checks"]["create-race"]["state"] == "holds" and kept["time"] > 0
    return kept


def bench_tells_figures(s):
    lines = [json.loads(x) for x in ctl(s, "--json", "store", "bench", "--count", "60", "--concurrency", "8").stdout.splitlines()]
    assert [x["verb"] for x in lines] == ["put", "get"] and all(x["failed"] == 0 and x["ops"] > 0 and x["p99_ms"] >= x["p50_ms"] for x in lines), lines
    assert ctl(s, "store", "list", "culver-bench/").stdout == b""


def large_objects(s):
    data = os.urandom(11 << 20)
    s = dict(s, multipart_size="5M", part_size="5M")
    ctl(s, "store", "put", "large", data=data)
    assert ctl(s, "store", "get", "large").stdout == data
    ctl(s, "store", "delete", "large")


def section(settings):
    return "mail_store {\n\tdriver = s3\n%s}\n" % "".join('\t%s = "%s"\n' % i for i in settings.items())


def culverd_keeps_mail_there(s):
    message = "From: a@example.org\r\nSubject: in a bucket\r\n\r\n" + "line\r\n" * 5000
    d = lib.Server(users=2, workers=2, extra=section(dict(s, prefix="srv")))
    try:
        for round in range(2):  # the second time after a stop
            d.start()
            c = lib.Line(d.imap)
            assert c.line().startswith("* OK")
            lines = c.imap("a", "LOGIN user0 pass")
            assert lines[-1].startswith("a OK"), lines
            if round == 0:
                assert all(r.startswith("250 ") for r in d.deliver(["user0", "user1"], message))
            lines = c.imap("b", "SELECT INBOX")
            assert "* 1 EXISTS" in lines, (round, lines)
            lines = c.imap("c", "FETCH 1 (FLAGS RFC822.SIZE BODY[HEADER.FIELDS (SUBJECT)])")
            assert any("RFC822.SIZE 3" in x for x in lines) and "Subject: in a bucket" in lines, lines
            assert ("\\Flagged" in "".join(lines)) == (round == 1), (round, lines)
            assert c.imap("d", "STORE 1 +FLAGS (\\Flagged)")[-1].startswith("d OK")
            c.imap("e", "LOGOUT")
            c.close()
            assert d.stop() == 0
        d.assert_log_is_clean()
        text = ctl(dict(s, prefix="srv"), "store", "list", "srv/").stdout.decode()
        assert "/root" in text and "/m/" in text, text
    finally:
        d.clean()


def cache_of(d):
    p = subprocess.run([CULVERCTL, "-c", d.conf, "--json", "cache", "status"], capture_output=True, timeout=60)
    assert p.returncode == 0, p.stderr
    lines = [json.loads(x) for x in p.stdout.splitlines()]
    assert len(lines) == 2 and all(x["cache"] for x in lines), lines
    return {k: sum(x[k] for x in lines) for k in ("hits", "fetches", "corrupt", "bytes_used", "bytes_disk", "bytes_max")}


def culverd_reads_from_its_cache(s):
    body = "".join("line %d\r\n" % i for i in range(40000))
    message = "From: a@example.org\r\nSubject: cached\r\n\r\n" + body
    d = lib.Server(users=2, workers=2, extra=section(dict(s, prefix="cached")) + "fscache_size = 32M\n")

    def body_is_right():
        c = lib.Line(d.imap)
        c.line()
        for tag, command in (("a", "LOGIN user0 pass"), ("b", "SELECT INBOX")):
            assert c.imap(tag, command)[-1].startswith(tag + " OK")
        assert body.rstrip("\r\n") in "\r\n".join(c.imap("c", "FETCH 1 BODY.PEEK[TEXT]"))
        c.close()
        return cache_of(d)
    try:
        d.start()
        assert all(r.startswith("250 ") for r in d.deliver(["user0"], message))
        st = body_is_right()
        assert st["fetches"] == 0 and st["hits"] > 0, st    # written through
        d.stop()
        d.start()
        st = body_is_right()
        assert st["fetches"] == 0 and st["hits"] > 0, st    # warm after a restart
        assert st["bytes_disk"] <= st["bytes_max"] == 32 << 20, st
        d.stop()
        for top, _, names in os.walk(os.path.join(d.state, "fscache")):
            for name in names:
                path = os.path.join(top, name)
                if "sqlite" in name or "catalogue" in name or os.path.getsize(path) == 0:
                    continue
                with open(path, "r+b") as f:        # a bit in every page
                    for at in range(100, os.path.getsize(path), 4096):
                        f.seek(at)
                        b = f.read(1)
                        f.seek(at)
                        f.write(bytes([b[0] ^ 4]))
        d.start()
        st = body_is_right()
        assert st["corrupt"] > 0 and st["fetches"] > 0, st
        subprocess.run([CULVERCTL, "-c", d.conf, "cache", "clean"], check=True, timeout=60)
        st = cache_of(d)
        assert st["bytes_used"] == 0, st
        body_is_right()
        d.stop()
        d.assert_log_is_clean()
    finally:
        d.clean()


def seen_of(url, user, since=0):
    """What was asked of the server of a user's root: (method, name within it)."""
    raw = subprocess.run(["curl", "-sf", url + "/-/seen"], check=True, capture_output=True).stdout
    return [(x["method"], x["key"].split("/%s/" % user)[1]) for x in json.loads(raw)["requests"] if "/%s/" % user in x.get("key", "")][since:]


def session(d, user, *commands):
    c = lib.Line(d.imap)
    c.line()
    out = []
    for i, command in enumerate(("LOGIN %s pass" % user, "SELECT INBOX") + commands):
        lines = c.imap("a%d" % i, command)
        assert lines[-1].startswith("a%d OK" % i), lines[-3:]
        out += lines
    c.imap("z", "LOGOUT")
    c.close()
    return "\n".join(out)


def disk_of(d, place):
    """Bytes on the disk; files come and go meanwhile."""
    total = 0
    for top, _, names in os.walk(os.path.join(d.state, place)):
        for name in names:
            try:
                total += os.lstat(os.path.join(top, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


def culverd_restarts_warm(s, url):
    d = lib.Server(users=2, workers=2, extra=section(dict(s, prefix="warm")) + "metacache_size = 8M\n")
    small = "From: a@example.org\r\nSubject: one of many\r\n\r\nx\r\n"
    try:
        d.start()
        d.deliver(["user0"] * 20, small)
        assert "* 20 EXISTS" in session(d, "user0", "STORE 1:5 +FLAGS (\\Seen)", "CREATE other", "COPY 1:10 other")
        assert d.stop() == 0
        d.start()
        n = len(seen_of(url, "user0"))
        assert "* 20 EXISTS" in session(d, "user0")
        asked = seen_of(url, "user0", n)
        assert asked == [("GET", "root"), ("PUT", "root")], asked
        # a worker that dies starts anew with what it has on its disk; all of it that matters is checked against root
        d.deliver(["user0"], small)
        for pid in sum(d.pids("worker").values(), []):
            os.kill(pid, 9)
        lib.wait_for("the workers", lambda: len(d.pids("worker")) == 2)

        def there():
            try:
                return "* 21 EXISTS" in session(d, "user0")
            except (AssertionError, OSError):
                return False
        lib.wait_for("the user", there)
        assert d.stop() == 0
        for top, _, names in os.walk(os.path.join(d.state, "metacache")):
            for name in names:
                if name == "metacache.db":
                    with open(os.path.join(top, name), "r+b") as f:
                        data = bytearray(f.read())
                        for at in range(200, len(data), 2000):
                            data[at] ^= 4
                        f.seek(0)
                        f.write(data)
        d.start()
        assert "* 21 EXISTS" in session(d, "user0", "FETCH 1:* FLAGS")
        # cleaned with culverd and without
        subprocess.run([CULVERCTL, "-c", d.conf, "cache", "clean"], check=True, timeout=60)
        lines = [json.loads(x) for x in subprocess.run([CULVERCTL, "-c", d.conf, "--json", "cache", "status"], capture_output=True, check=True, timeout=60).stdout.splitlines()]
        assert len(lines) == 2 and all(x["metacache"]["objects"] == 0 for x in lines), lines
        assert "* 21 EXISTS" in session(d, "user0")
        d.stop()
        p = subprocess.run([CULVERCTL, "-c", d.conf, "cache", "status"], capture_output=True, text=True, check=True, timeout=60)
        assert p.stdout.count("culverd does not run") == 4 and "metacache of worker 1" in p.stdout, p.stdout
        subprocess.run([CULVERCTL, "-c", d.conf, "cache", "clean"], check=True, timeout=60)
        assert disk_of(d, "metacache") == 0 and disk_of(d, "fscache") == 0
        d.assert_log_is_clean(r"child|ended|worker")
    finally:
        d.clean()


def with_the_test_server():
    with TestServer() as server:
        s = server.settings
        objects_round_trip(s)
        probe_tells_that_the_store_is_good(s)
        bench_tells_figures(s)
        large_objects(s)
        culverd_keeps_mail_there(s)
        culverd_reads_from_its_cache(s)
        culverd_restarts_warm(s, server.url)
        server.odd(empty=True, ignore_conditions=True)
        p = ctl(s, "store", "probe", status=1)
        assert b"index_store: refused" in p.stdout and b"mail_store: can be used" in p.stdout, p.stdout
        assert b"Use a store with conditional writes" in p.stderr and b"ignored" in p.stderr, p.stderr
        # nothing starts on such a store
        p = ctl(s, "check", "--all", status=1)
        assert b"index_store" in p.stderr and b"conditional writes" in p.stderr, p.stderr
        server.odd(no_conditions=True)
        assert b"refuse" in ctl(s, "store", "probe", status=1).stderr


def mistakes_are_told():
    p = ctl({"endpoint": "http://127.0.0.1:1", "bucket": "b"}, "store", "frob", status=2)
    assert b"usage" in p.stderr
    p = ctl({"endpoint": "http://127.0.0.1:1"}, "store", "list", status=None)
    assert p.returncode and b"needs bucket" in p.stderr, p.stderr
    p = ctl({"bucket": "bbb", "acess_key": "x"}, "store", "list", status=None)
    assert p.returncode and b'did you mean "access_key"' in p.stderr, p.stderr
    p = ctl({"endpoint": "http://127.0.0.1:1", "bucket": "bbb", "access_key": "a", "secret_key": "b", "timeout": "2s"}, "store", "get", "k", status=5)
    assert b"connect" in p.stderr, p.stderr
    p = ctl({"bucket": "bbb", "access_key": "a", "secret_key": "hush"}, "config")
    assert b"hush" not in p.stdout and b"secret_key" in p.stdout, p.stdout


def with_ceph():
    try:
        ceph = Ceph()
    except NotHere as e:
        return "SKIP %s" % e
    try:
        s = ceph.settings
        kept = probe_tells_that_the_store_is_good(s)
        assert kept["etag_form"] == 2 or "quotes" not in kept["checks"]["match"]["text"], kept
        objects_round_trip(s)
        bench_tells_figures(s)
        large_objects(s)
        culverd_keeps_mail_there(s)
    finally:
        ceph.close()


def main():
    tests = [with_the_test_server, mistakes_are_told, with_ceph]
    print("1..%d" % len(tests))
    failed = 0
    for i, t in enumerate(tests, 1):
        try:
            note = t()
            print("ok %d - %s%s" % (i, t.__name__.replace("_", " "), " # " + note if note else ""), flush=True)
        except Exception:
            failed += 1
            print("not ok %d - %s\n# %s" % (i, t.__name__.replace("_", " "), traceback.format_exc().replace("\n", "\n# ")), flush=True)
    shutil.rmtree(work, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
