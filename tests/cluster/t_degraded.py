#!/usr/bin/env python3
"""A store that is down, silent, slow or overloaded: cached mail is read, mail is refused at once, sessions stay, and all goes on by itself.

CULVER_DEGRADED=long: each longer than a TTL"""
import os
import re
import sys
import threading
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", x) for x in ("lib", "system")]
import store  # noqa: E402
from proxy import Wire  # noqa: E402
from server import SANITIZED, SLOW, Line, Server, run_tests, wait_for  # noqa: E402
from wire import Imap, Lmtp, fetched, string  # noqa: E402

BUCKET = store.TestServer()
WIRE = Wire(int(BUCKET.url.rsplit(":", 1)[1]))
S = Server(workers=1, users=6, keeps=BUCKET.section("d", WIRE.url), extra="fscache_size = 64M\n", log_level="info")
ONE = re.sub(b"\n", b"\r\n", b"Subject: one\n\n" + b"0123456789abcdef\n" * 20)
ACKED = {}  # user: messages
AT_ONCE = 0.5 * SLOW  # seconds
KNOWN = 6.5 * SLOW  # until the node knows that its store is away: commit_timeout (5 s) and some
LONG = os.environ.get("CULVER_DEGRADED") == "long"
TTL = 10


def deliver(user, message=ONE):
    """(first three digits of the last reply, seconds)"""
    start = time.monotonic()
    try:
        c = Lmtp(S.lmtp)
        reply = c.deliver([user], message)[0]
        c.close()
    except AssertionError as e:  # a recipient that is refused
        reply = e.args[0]
    if reply.startswith(b"250"):
        ACKED[user] = ACKED.get(user, 0) + 1
    return reply[:3], time.monotonic() - start


def worker():
    return S.pids("worker")[("worker", 0)][0]


def threads():
    with open("/proc/%d/status" % worker()) as f:
        return int(re.search(r"Threads:\s+(\d+)", f.read()).group(1))


def descriptors():
    return len(os.listdir("/proc/%d/fd" % worker()))


def many(n, what):
    """That by n threads at once: their results."""
    out = []
    all_ = [threading.Thread(target=lambda k=k: out.append(what(k))) for k in range(n)]
    for t in all_:
        t.start()
    for t in all_:
        t.join()
    assert len(out) == n
    return out


def reads(c, n):
    """Everything a reader does, of what is here."""
    start = time.monotonic()
    assert c.select() == n
    assert string(fetched(c.ok(b"FETCH 1 (BODY.PEEK[])")[0])[1][b"BODY[]"]).endswith(ONE)
    assert len(c.ok(b"FETCH 1:* (FLAGS ENVELOPE BODYSTRUCTURE)")) == n
    assert c.ok(b"SEARCH SUBJECT one") and c.ok(b'LIST "" *')
    return time.monotonic() - start


class Sessions:
    """Open before the trouble: one reads, one idles."""

    def __init__(self):
        self.n = ACKED["user0"]
        self.c = Imap(S.imap, "user0")
        reads(self.c, self.n)
        self.idle = Line(S.imap)
        self.idle.line()
        self.idle.imap("a", "LOGIN user0 pass")
        self.idle.imap("b", "SELECT INBOX")
        assert self.idle.cmd("c IDLE").startswith("+")

    def still_there(self):
        t = reads(self.c, self.n)
        d = Imap(S.imap, "user0")  # who logs in now reads, too
        t2 = reads(d, self.n)
        d.logout()
        assert max(t, t2) < AT_ONCE, (t, t2)

    def hear(self):
        """News that comes when all is well again."""
        wait_for("a delivery to be taken", lambda: deliver("user0")[0] == b"250", 15 * SLOW)
        while not self.idle.line().endswith("EXISTS"):
            pass
        self.idle.send("DONE\r\n")
        assert self.idle.until("c ")[-1].startswith("c OK")
        self.idle.close()
        self.c.ok(b"NOOP")
        self.c.logout()


def while_it_lasts(s, seconds, knows):
    """(seconds until the node knew, deliveries refused since then, the slowest of them)"""
    start = time.monotonic()
    first = many(30, lambda k: deliver("user%d" % (k % 6)))
    assert all(r == b"451" for r, _ in first), first
    found_out = max(t for _, t in first)
    assert found_out < knows, found_out
    refused, slowest = 0, 0
    while time.monotonic() - start < seconds:
        for reply, t in many(10, lambda k: deliver("user%d" % (k % 6))):
            assert reply == b"451" and t < AT_ONCE, (reply, t)
            refused, slowest = refused + 1, max(slowest, t)
        s.still_there()
        _, status = s.c.command(b"APPEND INBOX {%d+}\r\n" % len(ONE) + ONE)
        assert status.startswith(b"NO [UNAVAILABLE]"), status
        _, status = s.c.command(b"STORE 1 FLAGS (\\Flagged)")
        assert status.startswith((b"NO [UNAVAILABLE]", b"OK")), status
        time.sleep(0.3)
    return found_out, refused, slowest


def trouble(name, begin, end, seconds, knows=KNOWN):
    """The whole of it: what happens in the first moment, while it lasts, and behind it."""
    for u in S.users:
        wait_for("well-being", lambda: deliver(u)[0] == b"250", 15 * SLOW)
    s = Sessions()
    base, fds, log = threads(), descriptors(), len(S.log_text())
    begin()
    try:
        known = while_it_lasts(s, seconds, knows)
        grown = threads() - base, descriptors() - fds
    finally:
        end()
        over = time.monotonic()
    s.hear()
    print("# %s: known after %.2f s, then %d deliveries refused in at most %.3f s each; %d threads and %d descriptors more; mail is taken %.1f s after its end" % (
        name, *known, *grown, time.monotonic() - over), flush=True)
    assert grown[0] <= 40 and grown[1] <= 80, grown
    text = S.log_text(log)
    for line in ("journal cannot be written: nothing is taken until the store answers", "journal is written again"):
        assert text.count(line) == 1, (line, text.count(line))
    errors = [x for x in text.splitlines() if "Z error " in x]
    assert len(errors) < 10, "\n".join(errors[:15])  # not one for each mail


def counts():
    time.sleep(1.2)
    return {u: S.pop3_count(u) for u in S.users}


# --- tests ---

def it_starts():
    S.start()
    for u in S.users:
        assert deliver(u)[0] == b"250"


def a_store_that_refuses_connections():
    trouble("no connections", lambda: WIRE.set("refuse"), lambda: WIRE.set("pass"), TTL + 3 if LONG else 5)


def a_store_that_says_nothing():
    trouble("silent", lambda: WIRE.set("stall"), lambda: WIRE.set("pass"), TTL + 3)


def a_store_whose_answers_take_ten_seconds():
    trouble("ten seconds for an answer", lambda: WIRE.set("slow", 5), lambda: WIRE.set("pass"), 14 if LONG else 7)


def a_store_that_throttles():
    trouble("503 SlowDown", lambda: BUCKET.odd(throttle={"status": 503}), BUCKET.odd, TTL + 3 if LONG else 4, 12 * SLOW)


def a_store_that_fails():
    trouble("500", lambda: BUCKET.odd(error={"status": 500}), BUCKET.odd, TTL + 3 if LONG else 4, 12 * SLOW)


def what_was_acknowledged_is_there():
    there = counts()
    assert all(there[u] >= ACKED[u] for u in S.users), (there, ACKED)
    assert S.stop() == 0
    S.start()
    assert counts() == there
    c = Imap(S.imap, "user0")
    c.select()
    assert len([r for r in c.ok(b"FETCH 1:* (RFC822.SIZE)") if b"FETCH" in r]) == there["user0"]
    c.logout()


def it_stops_without_its_store():
    WIRE.set("refuse")
    start = time.monotonic()
    S.stop()
    print("# stopped in %.1f s" % (time.monotonic() - start))
    WIRE.set("pass")
    S.start()
    assert all(n >= ACKED[u] for u, n in counts().items())
    assert S.stop() == 0
    S.assert_log_is_clean("journal cannot be written|does not answer|could not be given up|process ended")


if __name__ == "__main__":
    try:
        run_tests([it_starts, a_store_that_refuses_connections, a_store_that_says_nothing, a_store_whose_answers_take_ten_seconds, a_store_that_throttles,
                   a_store_that_fails, what_was_acknowledged_is_there, it_stops_without_its_store], limit=90)
    finally:
        if os.environ.get("SHOW"):
            print(S.log_text()[-6000:])
        S.clean()
        WIRE.close()
        BUCKET.close()
