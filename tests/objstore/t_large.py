#!/usr/bin/env python3
"""A mailbox larger than the caches: their bounds hold at every moment, who else works is not displaced, and nothing a disk does
is seen by a client.  TAP.

CULVER_LARGE_MB        size of the mailbox (48); at 2048 the message cache has 100 MB, in proportion but at least 4 MB otherwise. The
                       store keeps it all in memory.
CULVER_LARGE_MESSAGES  small messages of another mailbox (2000)"""
import base64
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time

TOP = os.environ.get("top_srcdir", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
sys.path.insert(0, os.path.join(TOP, "tests", "lib"))
import server as lib  # noqa: E402  culverd's
import wire  # noqa: E402
from store import MemServer, NotHere  # noqa: E402

MB = 1 << 20
LARGE, MANY = int(os.environ.get("CULVER_LARGE_MB", 48)) * MB, int(os.environ.get("CULVER_LARGE_MESSAGES", 2000))
PART = 384 * 1024
BOUNDS = {"fscache": max(4 * MB, LARGE * 100 // 2048 // 4096 * 4096), "metacache": 5 * MB}
HOT = 48 * 1024             # so large are the messages of one who works all the time; a tenth of the cache of them
SMALL = b"From: a@example.org\r\nSubject: small\r\n\r\nx\r\n"
it = None                   # the one server of all cases


def text_of(seed, size):
    """Cannot be packed but by what base64 adds; the same for the same seed."""
    body = base64.encodebytes(random.Random(seed).randbytes(size * 3 // 4)).replace(b"\n", b"\r\n")
    return b"From: a@example.org\r\nSubject: %d\r\n\r\n" % seed + body


def disk_of(folder):
    """(allocated, apparent) bytes of a folder with all in it; files come and go meanwhile."""
    blocks = size = 0
    for top, _, names in os.walk(folder):
        for name in names:
            try:
                st = os.lstat(os.path.join(top, name))
            except FileNotFoundError:
                continue
            blocks += st.st_blocks * 512
            size += st.st_size
    return blocks, size


class World:
    """culverd with one worker, so that each cache is one directory with all of its bytes."""

    def __init__(self):
        self.store = MemServer(lib.BUILD)
        caches = "".join("%s_size = %d\n" % x for x in BOUNDS.items())
        self.d = lib.Server(users=8, workers=1, extra=self.store.section("large") + caches, log_level="info")
        self.worst, self.samples, self.halt = {x: [0, 0] for x in BOUNDS}, 0, threading.Event()
        self.digests = []                           # of the large messages
        self.watcher = threading.Thread(target=self.watch)
        self.watcher.start()
        self.d.start()

    def watch(self):
        while not self.halt.wait(0.01):
            self.samples += 1
            for place, worst in self.worst.items():
                worst[:] = map(max, worst, disk_of(os.path.join(self.d.state, place)))

    def bounds_hold(self):
        for place, most in BOUNDS.items():
            assert 0 < max(self.worst[place]) <= most, (place, self.worst[place], most)

    def asked(self, group="messages", kinds=("get",)):
        return sum(self.store.counts()[group][k] for k in kinds)

    def close(self):
        self.halt.set()
        self.watcher.join()
        self.d.clean()
        self.store.close()


def fetch(c, uids, item=b"BODY.PEEK[]"):
    """(number, octets) of each, one after the other: they are not kept."""
    tag = c.begin(b"FETCH %s (%s)" % (uids, item))
    while True:
        r = c.response()
        if r.startswith(tag + b" "):
            assert r.startswith(tag + b" OK"), r
            return
        m = re.match(rb"\* (\d+) FETCH \(BODY\[\] \{(\d+)\}\r\n", r)
        if m:
            yield int(m.group(1)), r[m.end():m.end() + int(m.group(2))]


def body_of(raw):
    """Without the fields that delivery puts before."""
    return raw[raw.index(b"From: a@example.org"):]


def hot_mail(name):
    """Reads all of a user's hot mail, compared; returns how often the store was asked for messages."""
    c = wire.Imap(it.d.imap, name)
    n, before = c.select(), it.asked()
    for i, raw in fetch(c, b"1:*"):
        assert body_of(raw) == text_of(1000000 + i, HOT), (name, i)
    after = it.asked()
    c.logout()
    assert n == BOUNDS["fscache"] // 10 // HOT, n
    return after - before


def read_large(numbers):
    c = wire.Imap(it.d.imap, "user0")
    assert c.select() == len(it.digests)
    for n in numbers:
        got = [hashlib.sha256(body_of(raw)).digest() for _, raw in fetch(c, b"%d" % n)]
        assert got == [it.digests[n - 1]], n
    c.logout()


def warm(user):
    """Does an opening ask for root and its swap alone?"""
    before = it.asked("index", ("get", "put", "list", "head"))
    c = wire.Imap(it.d.imap, user)
    assert c.select() == 3
    c.logout()
    return it.asked("index", ("get", "put", "list", "head")) - before == 2


def others_work():
    global it
    it = World()
    m = wire.Lmtp(it.d.lmtp, timeout=lib.TIMEOUT)
    for i in range(1, 6):
        for _ in range(3):
            assert m.deliver(["user%d" % i], SMALL)[0].startswith(b"250")
        c = wire.Imap(it.d.imap, "user%d" % i)
        assert c.select() == 3
        c.logout()
    for i in range(1, 1 + BOUNDS["fscache"] // 10 // HOT):
        assert m.deliver(["user6"], text_of(1000000 + i, HOT))[0].startswith(b"250")
    for _ in range(2):
        hot_mail("user6")
    assert hot_mail("user6") == 0


def a_large_mailbox_is_filled():
    m = wire.Lmtp(it.d.lmtp, timeout=lib.TIMEOUT)
    start = time.monotonic()
    for i in range(1, 1 + LARGE // PART):
        message = text_of(i, PART)
        it.digests.append(hashlib.sha256(message).digest())
        assert m.deliver(["user0"], message)[0].startswith(b"250")
    print("# %d messages, %d MB, in %.0f s" % (len(it.digests), LARGE // MB, time.monotonic() - start))
    it.bounds_hold()


def reading_it_all_displaces_nobody():
    n, before, start = len(it.digests), it.asked(), time.monotonic()
    read_large(range(1, n + 1))
    asked = it.asked() - before
    assert asked >= n - BOUNDS["fscache"] // PART, "it did not go through the store: %d requests" % asked
    again = hot_mail("user6")
    assert again == 0, "user6's mail was displaced: %d requests for it" % again
    it.bounds_hold()
    print("# read once, in order: %d requests, %.0f s" % (asked, time.monotonic() - start))
    chance = random.Random(1)
    read_large(chance.sample(range(1, n + 1), n // 3) + [chance.randrange(1, n + 1) for _ in range(n // 4)])
    again = hot_mail("user6")
    assert again == 0, "user6's mail was displaced: %d requests for it" % again
    it.bounds_hold()


def neither_does_an_index_larger_than_its_cache():
    """Keywords that cannot be packed make indexes large: each mailbox has them all."""
    keywords = [base64.b64encode(os.urandom(150), b"-_") for _ in range(120)]
    c = wire.Imap(it.d.imap, "user0", timeout=lib.TIMEOUT * 4)
    n = c.select()
    for i in range(0, 120, 20):
        c.ok(b"STORE 1 +FLAGS (%s)" % b" ".join(keywords[i:i + 20]))
    for i in range(100):
        c.ok(b"CREATE box%d" % i)
        c.ok(b"COPY 1:* box%d" % i)
    assert sum(b"ENVELOPE" in x for x in c.ok(b"FETCH 1:* (FLAGS ENVELOPE)")) == n
    c.logout()


def nor_do_many_small_messages():
    with tempfile.NamedTemporaryFile(prefix="culver-large", suffix=".mbox") as f:
        for i in range(MANY):
            f.write(b"From a@example.org Thu Jan  1 00:00:00 2026\nFrom: a@example.org\nSubject: %d\n\n%s\n\n" % (i, hashlib.sha256(b"%d" % i).hexdigest().encode() * 8))
        f.flush()
        start = time.monotonic()
        p = subprocess.run([os.path.join(lib.BUILD, "culverctl"), "-c", it.d.conf, "import", "user7", f.name, "--format", "mbox", "--mailbox", "many"], capture_output=True)
        assert p.returncode == 0, p.stderr[-2000:]
    imported, start = time.monotonic() - start, time.monotonic()
    c = wire.Imap(it.d.imap, "user7", timeout=lib.TIMEOUT * 10)
    assert c.select(b"many") == MANY
    seen = 0
    for i, raw in fetch(c, b"1:*"):
        assert hashlib.sha256(b"%d" % (i - 1)).hexdigest().encode() * 8 in raw, i
        seen += 1
    c.logout()
    assert seen == MANY
    again = hot_mail("user6")
    assert again == 0, "user6's mail was displaced: %d requests for it" % again
    it.bounds_hold()
    print("# %d small messages: imported in %.0f s, read in %.0f s" % (MANY, imported, time.monotonic() - start))


def a_restart_finds_all_of_them_warm():
    assert it.d.stop() == 0
    it.d.start()
    for i in range(1, 6):
        assert warm("user%d" % i), "user%d was displaced" % i
    again = hot_mail("user6")
    assert again == 0, "user6's mail was displaced: %d requests for it" % again
    it.bounds_hold()
    assert it.worst["metacache"][0] > MB, it.worst      # a quarter is what one user may have
    print("# %d samples; at most (allocated, apparent): %s of %s" % (it.samples, json.dumps(it.worst), json.dumps(BOUNDS)))


def some_of_it():
    read_large(range(1, len(it.digests) + 1, max(1, len(it.digests) // 100)))
    c = wire.Imap(it.d.imap, "user0", timeout=lib.TIMEOUT * 4)
    assert c.select(b"box3") == len(it.digests)
    c.logout()
    hot_mail("user6")


def flipped_bits_are_survived():
    assert it.d.stop() == 0
    for place in BOUNDS:
        for top, _, names in os.walk(os.path.join(it.d.state, place)):
            for name in names:
                path = os.path.join(top, name)
                if place == "fscache" and not name.startswith("data."):
                    continue                        # without its catalogue all would be forgotten at once
                with open(path, "r+b") as f:        # one in every page but the first
                    for at in range(5000, os.path.getsize(path), 4096):
                        f.seek(at)
                        b = f.read(1)
                        f.seek(at)
                        f.write(bytes([b[0] ^ 16]))
    it.d.start()
    some_of_it()
    p = subprocess.run([os.path.join(lib.BUILD, "culverctl"), "-c", it.d.conf, "--json", "cache", "status"], capture_output=True, check=True)
    assert sum(json.loads(x)["corrupt"] for x in p.stdout.splitlines()) > 0, p.stdout
    it.bounds_hold()


def a_full_disk_and_a_read_only_one_are_survived():
    assert it.d.stop() == 0
    mounted = []
    try:
        for place, most in BOUNDS.items():
            folder = os.path.join(it.d.state, place)
            p = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%d,mode=700" % (most // 3), "tmpfs", folder], capture_output=True, text=True)
            if p.returncode:
                raise lib.Skip("no file systems of their own for the caches: %s" % p.stderr.strip())
            mounted.append(folder)
        it.d.start()
        some_of_it()
        assert it.d.stop() == 0
        for folder in mounted:
            assert disk_of(folder)[0] > 0, folder
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        it.d.start()
        some_of_it()
        m = wire.Lmtp(it.d.lmtp, timeout=lib.TIMEOUT)
        assert m.deliver(["user7"], SMALL)[0].startswith(b"250")
        assert it.d.stop() == 0
    finally:
        it.d.stop()
        for folder in mounted:
            subprocess.run(["umount", folder], check=True)
        it.d.start()
    some_of_it()
    it.bounds_hold()


def it_ends_well():
    assert it.d.stop() == 0
    it.d.assert_log_is_clean()
    it.close()


if __name__ == "__main__":
    try:
        lib.run_tests([others_work, a_large_mailbox_is_filled, reading_it_all_displaces_nobody, neither_does_an_index_larger_than_its_cache, nor_do_many_small_messages,
                       a_restart_finds_all_of_them_warm, flipped_bits_are_survived, a_full_disk_and_a_read_only_one_are_survived, it_ends_well])
    except NotHere as e:
        print("1..0 # SKIP %s" % e)
    finally:
        if it and not it.halt.is_set():
            it.close()
