#!/usr/bin/env python3
"""Mixed random load, every client checking the protocol stream against its own picture of the mailbox (model.py).

CULVER_LOAD_SECONDS (15), CULVER_LOAD_CLIENTS (50), CULVER_SEED (1)."""
import multiprocessing
import os
import random
import re
import sys
import threading
import time
import traceback

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib"), HERE]
from loadclient import SHARED, TEMPORARY, LoadClient  # noqa: E402
from model import Mailbox, Violation, expected, message, need  # noqa: E402
from server import SLOW, TIMEOUT, Server, run_tests  # noqa: E402
from wire import Closed, Imap, Lmtp, Stream, fetched, string  # noqa: E402

SECONDS = float(os.environ.get("CULVER_LOAD_SECONDS", 15))
CLIENTS = int(os.environ.get("CULVER_LOAD_CLIENTS", 50))
SEED = int(os.environ.get("CULVER_SEED", 1))
PROCESSES = 5
S = Server(workers=2)
S.users = ["ada", "grace", "mary"]
RESULTS = []


# --- the checker itself ---

def stream(*events):
    """A mailbox of three messages after those events."""
    m = Mailbox("ada", "INBOX")
    m.exists(3)
    m.uidnext = 8
    for n, uid in ((1, b"2"), (2, b"5"), (3, b"7")):
        m.fetch(n, {b"UID": uid, b"FLAGS": b"(\\Seen)", b"MODSEQ": b"(10)"})
    for name, *args in events:
        getattr(m, name)(*args)
    return m


def the_checker_takes_a_stream_that_can_be_true():
    m = stream(("exists", 4), ("fetch", 4, {b"UID": b"9"}), ("expunge", 1, "NOOP"), ("fetch", 1, {b"UID": b"5", b"FLAGS": b"()", b"MODSEQ": b"(12)"}),
               ("vanished", [7], "UID"), ("exists", 3))
    assert [e.uid for e in m.entries] == [5, 9, None]
    m = stream(("exists", 5), ("fetch", 4, {b"FLAGS": b"(\\Seen)"}), ("vanished", [9], "NOOP"), ("fetch", 4, {b"UID": b"11", b"FLAGS": b"()"}))
    assert [(e.uid, e.flags) for e in m.entries[3:]] == [(11, frozenset())]


def the_checker_finds_what_cannot_be_true():
    body = b"{%d}\r\n" % len(message("x1"))
    for wrong in (
            [("exists", 2)],
            [("expunge", 4, "NOOP")],
            [("expunge", 1, "FETCH")],
            [("vanished", [5], "STORE")],
            [("vanished", [6], "NOOP")],
            [("fetch", 4, {b"FLAGS": b"()"})],
            [("fetch", 1, {b"UID": b"3"})],
            [("exists", 4), ("fetch", 4, {b"UID": b"7"})],
            [("exists", 4), ("fetch", 4, {b"UID": b"6"})],
            [("exists", 5), ("fetch", 4, {b"UID": b"9"}), ("fetch", 5, {b"UID": b"8"})],
            [("fetch", 1, {b"FLAGS": b"()", b"MODSEQ": b"(9)"})],
            [("fetch", 1, {b"FLAGS": b"()", b"MODSEQ": b"(10)"})],
            [("fetch", 1, {b"BODY[]": body + message("x1")}), ("fetch", 1, {b"BODY[]": body + message("x2")})],
            [("fetch", 1, {b"BODY[]": body + message("x1")[:-3] + b"!\r\n"})]):
        try:
            stream(*wrong)
        except Violation:
            continue
        raise AssertionError("not found: %r" % wrong)


# --- load ---

class Deliveries:
    """LMTP: one session, many transactions."""

    def __init__(self, number):
        self.number, self.r, self.log = number, random.Random("%d/l%d" % (SEED, number)), []
        self.user, self.kind, self.commands = None, "lmtp", 0
        self.stored = set()  # (user, name)
        self.doomed, self.uids = set(), {}

    def run(self, until):
        c = Lmtp(S.lmtp)
        while time.monotonic() < until:
            name = "l%d-%d" % (self.number, self.commands)
            rcpts = self.r.sample(S.users, self.r.choice([1, 1, 2, 3]))
            replies = c.deliver(rcpts, message(name), b"load@example.org")
            need(all(x.startswith(b"250") for x in replies), replies)
            self.stored.update((u, name) for u in rcpts)
            self.commands += 1
            time.sleep(self.r.random() * 0.1)
        c.close()


class Downloads:
    """POP3: reads a few messages, deletes some of them."""

    def __init__(self, number):
        self.number, self.r, self.log = number, random.Random("%d/p%d" % (SEED, number)), []
        self.user, self.kind, self.commands = S.users[number % len(S.users)], "pop3", 0
        self.stored, self.doomed, self.uids = set(), set(), {}

    def run(self, until):
        while time.monotonic() < until:
            self.session()
            time.sleep(self.r.random() * 0.3)

    def session(self):
        c = Stream(S.pop3)
        c.line()
        c.send(b"USER %s\r\nPASS pass\r\nLIST\r\n" % self.user.encode())
        for _ in range(3):
            line = c.line()
            need(line.startswith(b"+OK"), "POP3", line)
        sizes = {}
        while True:
            line = c.line()
            if line == b".\r\n":
                break
            n, size = line.split()
            sizes[int(n)] = int(size)
        for n in self.r.sample(sorted(sizes), min(len(sizes), 4)):
            self.retrieve(c, n, sizes[n])
        c.send(b"QUIT\r\n")
        line = c.line()
        need(line.startswith(b"+OK"), "QUIT", line)
        c.close()

    def retrieve(self, c, n, size):
        self.commands += 1
        c.send(b"RETR %d\r\n" % n)
        line = c.line()
        if line.startswith(b"-ERR"):  # expunged by IMAP meanwhile
            return
        got = []
        while not got or got[-1] != b".\r\n":
            got.append(c.line())
        octets = b"".join(got[:-1])  # no line of it starts with a dot
        name = re.search(rb"(?m)^X-Id: (\S+)\r$", octets).group(1).decode()
        need(octets == expected(self.user, name) and len(octets) == size, "POP3:", name, len(octets), size)
        if self.r.random() < 0.3:
            self.doomed.add(name)
            c.send(b"DELE %d\r\n" % n)
            need(c.line().startswith(b"+OK"), "DELE")


def guarded(work, failures, client):
    try:
        return work()
    except Exception:
        log = b"\n".join(x[:200] for x in client.log).decode("utf-8", "replace")
        failures.append("client %d (%s, %s, mailbox %s):\n%s\n%s" % (
            client.number, client.kind, client.user, getattr(getattr(client, "sel", None), "name", None), traceback.format_exc(), log))


def group(clients, until, barrier, out):
    """A process of its own: its clients in threads, then, when all is quiet, their pictures."""
    failures, pictures = [], []
    threads = [threading.Thread(target=guarded, args=(lambda c=c: c.run(until), failures, c)) for c in clients]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    barrier.wait()
    for c in clients:
        if isinstance(c, LoadClient) and not failures:
            picture = guarded(c.settle, failures, c)
            if picture:
                pictures.append((c.number, c.kind, c.user, picture))
    out.send({"failures": failures, "pictures": pictures, "clients": [(c.kind, c.user, c.commands, c.stored, c.doomed, c.uids) for c in clients]})


def fifty_clients_see_nothing_that_cannot_be_true():
    S.start()
    for user in S.users:
        c = Imap(S.imap, user)
        for name in SHARED[1:] + (TEMPORARY,):
            c.ok(b"CREATE " + name.encode())
        for n in range(10):
            c.append(SHARED[n % 3].encode(), message("s%d" % n))
        c.logout()
    until = time.monotonic() + SECONDS
    clients = [LoadClient(S, n, SEED, S.users) for n in range(CLIENTS)]
    clients += [Deliveries(n) for n in range(3)] + [Downloads(n) for n in range(len(S.users))]
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(PROCESSES)
    groups = []
    for n in range(PROCESSES):
        here, there = context.Pipe()
        p = context.Process(target=group, args=(clients[n::PROCESSES], until, barrier, there), daemon=True)
        p.start()
        there.close()
        groups.append((p, here))
    for p, here in groups:
        left = until - time.monotonic() + 4 * TIMEOUT
        assert here.poll(max(left, 1)), "a group of clients does not end"
        RESULTS.append(here.recv())
        p.join()
    failures = [f for r in RESULTS for f in r["failures"]]
    done = {}
    for r in RESULTS:
        for kind, _, commands, *_ in r["clients"]:
            done[kind] = done.get(kind, 0) + commands
    print("# commands in %g s: %s" % (SECONDS, ", ".join("%s %d" % x for x in sorted(done.items()))))
    assert not failures, "%d clients failed\n%s" % (len(failures), "\n".join(failures[:3]))


def fresh(user, mailbox):
    """What a new session sees: (uidvalidity, [(uid, flags, name)])"""
    c = Imap(S.imap, user)
    lines = c.ok(b"EXAMINE " + mailbox.encode())
    uidvalidity = next(int(m.group(1)) for m in (re.match(rb"\* OK \[UIDVALIDITY (\d+)", x) for x in lines) if m)
    found = []
    for r in c.ok(b"FETCH 1:* (UID FLAGS BODY.PEEK[])") if b"* 0 EXISTS" not in lines else []:
        n, items = fetched(r)
        octets = string(items[b"BODY[]"])
        name = re.search(rb"(?m)^X-Id: (\S+)\r$", octets).group(1).decode()
        assert n == len(found) + 1 and octets == expected(user, name), (mailbox, n, name)
        found.append((int(items[b"UID"]), frozenset(items[b"FLAGS"][1:-1].split()), name))
    c.logout()
    return uidvalidity, found


VIEWS = {}


def every_picture_equals_a_fresh_view():
    for user in S.users:
        for mailbox in SHARED:
            VIEWS[user, mailbox] = fresh(user, mailbox)
    n = 0
    for r in RESULTS:
        for number, kind, user, picture in r["pictures"]:
            uidvalidity, view = VIEWS[user, picture["mailbox"]]
            who = "client %d (%s, %s %s)" % (number, kind, user, picture["mailbox"])
            assert picture["uidvalidity"] == uidvalidity, who
            assert len(picture["entries"]) == len(view), (who, len(picture["entries"]), len(view))
            for seq, ((uid, flags, name), real) in enumerate(zip(picture["entries"], view), 1):
                assert uid in (None, real[0]) and flags in (None, real[1]) and name in (None, real[2]), (who, seq, (uid, flags, name), real)
                n += flags is not None
    print("# %d flags of messages in %d pictures" % (n, sum(len(r["pictures"]) for r in RESULTS)))


def a_uid_means_one_message_to_all_clients():
    meaning = {}
    for r in RESULTS:
        for kind, user, _, _, _, uids in r["clients"]:
            for key, name in uids.items():
                assert meaning.setdefault((user, *key), name) == name, (user, key, name, meaning[user, *key])
    for (user, mailbox), (uidvalidity, view) in VIEWS.items():
        for uid, _, name in view:
            assert meaning.get((user, mailbox, uidvalidity, uid), name) == name, (user, mailbox, uid)
    print("# %d UIDs" % len(meaning))


def what_was_acknowledged_is_there():
    doomed, stored = set(), set()
    for r in RESULTS:
        for kind, user, _, took, gone, _ in r["clients"]:
            stored |= took if kind == "lmtp" else {(user, name) for name in took}
            doomed |= {(user, name) for name in gone}
    there = {(user, name) for (user, _), (_, view) in VIEWS.items() for _, _, name in view}
    there |= {(user, name) for user in S.users for _, _, name in fresh(user, TEMPORARY)[1]}
    lost = stored - doomed - there
    print("# %d messages acknowledged, %d of them may be gone" % (len(stored), len(stored & doomed)))
    assert not lost, sorted(lost)[:20]


def a_restart_changes_nothing():
    time.sleep(1.5)  # flags are durable within a second
    assert S.stop() == 0
    S.start()
    for (user, mailbox), view in VIEWS.items():
        assert fresh(user, mailbox) == view, (user, mailbox)


def the_log_has_no_errors_and_the_server_stops():
    assert S.stop() == 0
    S.assert_log_is_clean()


TESTS = [
    the_checker_takes_a_stream_that_can_be_true,
    the_checker_finds_what_cannot_be_true,
    fifty_clients_see_nothing_that_cannot_be_true,
    every_picture_equals_a_fresh_view,
    a_uid_means_one_message_to_all_clients,
    what_was_acknowledged_is_there,
    a_restart_changes_nothing,
    the_log_has_no_errors_and_the_server_stops,
]

if __name__ == "__main__":
    try:
        run_tests(TESTS, limit=60 + (SECONDS + 120) / min(SLOW, 4))
    finally:
        S.clean()
