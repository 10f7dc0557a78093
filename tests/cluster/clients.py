"""Clients of tests/system for servers that die: the same stream checker, sessions that may end at any time, nodes taken at random.

Standard library only."""
import random
import re
import threading
import time

from loadclient import SHARED, Bye, LoadClient
from model import Entry, expected, members, message, need
from server import SLOW
from wire import Closed, Imap, Lmtp, Stream, fetched

PATIENCE = 8 * SLOW  # seconds; then a client goes elsewhere
GONE = (Bye, Closed, OSError, EOFError)
TEMPORARILY = re.compile(rb"t\d+ NO \[(UNAVAILABLE|INUSE)\]")


class Refused(Bye):
    pass


class ClusterClient(LoadClient):
    """suspect: until when a session may be with a node that does not know yet that others have its users."""

    def __init__(self, anywhere, number, seed, users, suspect):
        super().__init__(anywhere, number, seed, users)
        self.suspect = suspect
        self.interruptions = self.refusals = 0
        self.since = 0
        self.complete = {}  # mailbox: were the UIDs of all its messages known?
        self.limited = False  # the last resynchronisation was asked for known UIDs only: new ones come behind them

    def stale(self):
        return self.suspect.value > self.since

    def connect(self):
        self.since = time.monotonic()
        self.sel = self.was = None
        self.c = None
        c = Imap(self.server.imaps if self.tls else self.server.imap, tls=self.tls, timeout=PATIENCE)
        try:
            self.login(c)
        except BaseException:
            c.close()
            raise
        self.c = c
        self.select(self.r.choice(SHARED))

    def login(self, c):
        if not c.greeting.startswith(b"* OK"):
            raise Bye
        for text in [b"LOGIN %s pass" % self.user.encode()] + [b"ENABLE " + x for x in self.enables()]:
            _, status = c.command(text)
            if re.match(rb"NO \[(UNAVAILABLE|INUSE)\]", status):
                raise Refused
            need(status.startswith(b"OK"), text, "->", status)

    def enables(self):
        if "qresync" in self.kind:
            yield b"QRESYNC"
        elif self.condstore:
            yield b"CONDSTORE"
        if "rev2" in self.kind:
            yield b"IMAP4rev2"

    def response(self):
        r = self.c.response()
        self.log.append(b"S: " + r[:200])
        if r.startswith(b"* BYE"):
            raise Bye
        if TEMPORARILY.match(r):
            raise Refused
        return r

    def run(self, until):
        weights = [w for w, _ in self.steps]
        while time.monotonic() < until:
            step = self.r.choices(self.steps, weights)[0][1]
            try:
                if not self.c:
                    self.connect()
                if self.sel and len(self.sel.entries) > 120 and self.r.random() < 0.3:
                    step = self.expunge
                step()
                self.commands += 1
            except GONE as e:
                self.interrupted(e)
                time.sleep(0.1 + 0.4 * self.r.random())

    def interrupted(self, e):
        self.log.append(b"-- " + repr(e).encode()[:150])
        if isinstance(e, Refused):
            self.refusals += 1
        else:
            self.interruptions += 1
        self.save()
        if self.c:
            self.c.close()
        self.c = None

    def settle(self):
        end = time.monotonic() + 60 * SLOW
        while True:
            try:
                return super().settle()
            except GONE as e:
                if time.monotonic() > end:
                    raise
                self.interrupted(e)
                time.sleep(0.3)

    # --- what several nodes make different ---

    def save(self):
        s, self.sel = self.sel, None
        if s and self.condstore:
            entries = [e for e in s.entries if e.uid is not None]
            for e in entries:
                if e.modseq > s.told_modseq:  # news after the point a client may name: it asks for them again
                    e.flags, e.pair, e.modseq = None, None, 0
            self.saved[s.name] = (s.uidvalidity, s.told_modseq, entries)
            self.complete[s.name] = len(entries) == len(s.entries)

    def select(self, name, verb=None):
        if self.stale():
            self.saved.pop(name, None)  # a node behind the times cannot continue what a newer one told
        return super().select(name, verb)

    def grows(self, mailbox, uidvalidity, **values):
        if not self.stale():
            super().grows(mailbox, uidvalidity, **values)

    def qresync(self, uidvalidity, modseq, entries):
        text = super().qresync(uidvalidity, modseq, entries)
        self.limited = re.match(r" \(QRESYNC \(\d+ \d+ [\d]", text) is not None
        return text

    def resynchronised(self, s, lines, entries):
        """By UID: flags that a dead node told and never stored leave an earlier MODSEQ."""
        gone, known = set(), {}
        for r in lines:
            m = re.match(rb"\* VANISHED \(EARLIER\) ([\d:,]+)\Z", r)
            if m:
                gone.update(members(m.group(1)))
        for old in entries:
            if old.uid not in gone:
                e = known[old.uid] = Entry()
                e.uid, e.flags, e.modseq, e.pair, e.name = old.uid, old.flags, old.modseq, old.pair, old.name
        for r in lines:
            f = fetched(r)
            if f and b"UID" in f[1]:
                e = known.setdefault(int(f[1][b"UID"]), Entry())
                e.uid, e.modseq = int(f[1][b"UID"]), 0  # told anew
        exists = next(int(m.group(1)) for m in (re.match(rb"\* (\d+) EXISTS", r) for r in lines) if m)
        if not self.complete[s.name]:
            known = {}
        need(len(known) <= exists and (not known or self.limited or len(known) == exists),
             "resynchronisation of %s leaves %d messages, %d are there" % (s.name, len(known), exists))
        s.entries = [known[uid] for uid in sorted(known)]
        s.top = max(known, default=0)

class Deliveries:
    """LMTP: one session, many transactions, at a random node each time one broke."""

    def __init__(self, anywhere, number, seed, users):
        self.server, self.number, self.users = anywhere, number, users
        self.r, self.log = random.Random("%d/l%d" % (seed, number)), []
        self.user, self.kind, self.commands = None, "lmtp", 0
        self.stored, self.doomed, self.uids = set(), set(), {}
        self.interruptions = self.refusals = 0
        self.slowest = 0

    def run(self, until):
        while time.monotonic() < until:
            try:
                c = Lmtp(self.server.lmtp, timeout=40 * SLOW)
                while time.monotonic() < until:
                    self.once(c)
                    time.sleep(self.r.random() * 0.1)
                c.close()
            except (OSError, Closed, AssertionError):  # a reply other than 250 before the dot: 451 or 421
                self.interruptions += 1
                time.sleep(0.2)

    def once(self, c):
        name = "l%d-%d" % (self.number, self.commands)
        self.commands += 1
        rcpts = self.r.sample(self.users, self.r.choice([1, 1, 2, 3]))
        start = time.monotonic()
        for user, reply in zip(rcpts, c.deliver(rcpts, message(name), b"load@example.org")):
            need(reply[:3] in (b"250", b"451", b"421"), "LMTP", reply)
            if reply.startswith(b"250"):
                self.stored.add((user, name))
            else:
                self.refusals += 1
        self.slowest = max(self.slowest, time.monotonic() - start)


class Downloads:
    """POP3: reads and deletes; what a QUIT with +OK deleted never comes back."""

    def __init__(self, anywhere, number, seed, user, suspect):
        self.server, self.number, self.user, self.suspect = anywhere, number, user, suspect
        self.r, self.log = random.Random("%d/p%d" % (seed, number)), []
        self.kind, self.commands = "pop3", 0
        self.stored, self.doomed, self.uids = set(), set(), {}
        self.deleted = set()  # UIDLs
        self.meaning = {}
        self.interruptions = self.refusals = 0

    def run(self, until):
        while time.monotonic() < until:
            c = None
            try:
                since = time.monotonic()
                c = Stream(self.server.pop3, timeout=PATIENCE)
                self.session(c, since)
            except GONE:
                self.interruptions += 1
            finally:
                if c:
                    c.close()
            time.sleep(self.r.random() * 0.3)

    def ok(self, c, text):
        c.send(text + b"\r\n")
        line = c.line()
        if line.startswith((b"-ERR [SYS/TEMP]", b"-ERR [IN-USE]")):
            raise Refused
        need(line.startswith(b"+OK"), text, line)

    def lines(self, c):
        got = []
        while not got or got[-1] != b".\r\n":
            got.append(c.line())
        return got[:-1]

    def session(self, c, since):
        c.line()
        for text in (b"USER " + self.user.encode(), b"PASS pass", b"UIDL"):
            self.ok(c, text)
        ids = {int(a): b for a, b in (x.split() for x in self.lines(c))}
        back = self.deleted & set(ids.values())
        need(not back or self.suspect.value > since, "POP3: deleted and back:", back)
        gone = []
        for n in self.r.sample(sorted(ids), min(len(ids), 4)):
            name = self.retrieve(c, n)
            need(self.meaning.setdefault(ids[n], name) == name, "UIDL", ids[n], "was", self.meaning[ids[n]], "and is", name)
            if self.r.random() < 0.4:
                self.doomed.add(name)
                self.ok(c, b"DELE %d" % n)
                gone.append(ids[n])
        self.ok(c, b"QUIT")
        self.deleted.update(gone)

    def retrieve(self, c, n):
        self.commands += 1
        self.ok(c, b"RETR %d" % n)
        octets = b"".join(self.lines(c))  # no line of it starts with a dot
        name = re.search(rb"(?m)^X-Id: (\S+)\r$", octets).group(1).decode()
        need(octets == expected(self.user, name), "POP3:", name, len(octets))
        return name


class Counter(threading.Thread):
    """A number in the keywords of one message, counted up: tells how much of acknowledged flag changes is lost.

    faults: of the cluster; delay: flag_commit_delay; slack: what timing on a busy machine may add, seconds."""
    BITS = 20

    def __init__(self, anywhere, user, seed, faults, suspect, delay, slack):
        super().__init__(daemon=True)
        self.server, self.user, self.faults, self.suspect, self.delay, self.slack = anywhere, user, faults, suspect, delay, slack
        self.r, self.stop, self.n, self.wrong = random.Random("%d/n%s" % (seed, user)), False, 0, []
        self.acked, self.maybe = [(0, 0)], set()  # (time, number); sent without an answer
        self.told = self.lost = 0

    def run(self):
        while not self.stop:
            try:
                self.session()
            except GONE:
                pass
            except AssertionError as e:
                if "UNAVAILABLE" not in str(e):
                    self.wrong.append("counter of %s: %s" % (self.user, e))
            time.sleep(0.1 + 0.2 * self.r.random())

    def session(self):
        since = time.monotonic()
        c = Imap(self.server.imap, timeout=PATIENCE)
        try:
            c.ok(b"LOGIN %s pass" % self.user.encode())
            if not c.select():
                c.append(b"INBOX", message("n0"))
                c.ok(b"NOOP")
            self.look(c, since)
            for _ in range(self.r.randrange(1, 40)):
                if self.stop:
                    break
                self.count(c)
                time.sleep(self.r.random() * 0.15)
        finally:
            c.close()

    def look(self, c, since):
        flags = fetched([r for r in c.ok(b"FETCH 1 (FLAGS)") if b"FETCH" in r][0])[1][b"FLAGS"]
        value = sum(1 << int(x) for x in re.findall(rb"\bb(\d+)\b", flags))
        if self.suspect.value > since:
            return
        if value not in self.maybe and value not in [n for _, n in self.acked]:
            self.wrong.append("counter of %s: %d was never the last, of %r" % (self.user, value, self.acked[-5:]))
        self.judge([(t, n) for t, n in self.acked if n > value], value)
        # what is seen may be lost again within the delay, and then one of those before it is the last
        self.acked = [(t, n) for t, n in self.acked if n < value][-200:] + ([x for x in self.acked if x[1] == value] or [(time.monotonic(), value)])

    def judge(self, lost, value):
        self.lost += len(lost)
        for t, n in lost:
            if not any(start - self.delay - self.slack <= t <= (start if kind != "cut" else start + self.delay) + self.slack or
                       (kind == "freeze" and end and end - self.slack <= t <= end + self.delay + self.slack) for kind, _, start, end in self.faults):
                self.wrong.append("counter of %s: %d is lost, acknowledged at %.3f; now %d; faults %r" % (
                    self.user, n, t, value, [f for f in self.faults if f[2] > t - 60]))
                return

    def count(self, c):
        self.n = (self.n + 1) % (1 << self.BITS)
        self.maybe.add(self.n)
        c.ok(b"STORE 1 FLAGS.SILENT (%s)" % b" ".join(b"b%d" % i for i in range(self.BITS) if self.n >> i & 1))
        self.maybe.discard(self.n)
        self.acked.append((time.monotonic(), self.n))
        self.told += 1
