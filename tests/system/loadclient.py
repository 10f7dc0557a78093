"""One IMAP client under load: does random things, and believes nothing that its Mailbox model does not bear out.  Standard library only."""
import collections
import random
import re
import select
import time

from model import Entry, Mailbox, as_set, members, message, need
from wire import Closed, Imap, fetched

SHARED = ("INBOX", "A", "B")
TEMPORARY = "Tmp"  # is deleted and made again now and then
FLAGS = [b"\\Seen", b"\\Answered", b"\\Flagged", b"\\Draft", b"$One", b"$Two", b"three"]
FULL = 120  # messages: then some are expunged
KINDS = ("plain", "condstore", "qresync", "rev2", "qresync+rev2")


class Bye(Exception):
    """The server said goodbye for a good reason."""


class LoadClient:
    def __init__(self, server, number, seed, users):
        self.server, self.number = server, number
        self.r = random.Random("%d/%d" % (seed, number))
        self.user = users[number % len(users)]
        self.kind = KINDS[number // len(users) % len(KINDS)]
        self.condstore = self.kind != "plain" and self.kind != "rev2"
        self.tls = number % 7 == 0
        self.c = self.sel = None
        self.was = None  # mailbox that the server last heard was selected
        self.made = self.commands = 0
        self.saved = {}  # mailbox: (uidvalidity, modseq, entries) at the end of its last session
        self.least = {}  # mailbox, uidvalidity: UIDNEXT and HIGHESTMODSEQ can only grow
        self.stored = set()  # names of messages that the server took
        self.doomed = set()  # names of those that may be gone
        self.uids = {}  # (mailbox, uidvalidity, uid): name
        self.log = collections.deque(maxlen=80)
        self.steps = [
            (10, self.noop), (6, self.idle), (12, self.fetch_flags), (10, self.fetch_bodies), (14, self.store), (6, self.search),
            (6, self.copy), (4, self.move), (8, self.append), (5, self.expunge), (4, self.select_other), (2, self.leave), (3, self.status),
            (6, self.learn), (4, self.pipeline), (1, self.reconnect), (1, self.vanish), (1, self.temporary), (2, self.store_unchanged), (2, self.saved_result)]

    # --- the connection ---

    def connect(self):
        self.c = Imap(self.server.imaps if self.tls else self.server.imap, self.user, tls=self.tls)
        self.sel = self.was = None
        if "qresync" in self.kind:
            self.c.ok(b"ENABLE QRESYNC")
        elif self.condstore:
            self.c.ok(b"ENABLE CONDSTORE")
        if "rev2" in self.kind:
            self.c.ok(b"ENABLE IMAP4rev2")
        self.select(self.r.choice(SHARED))

    def reconnect(self):
        self.save()
        if self.r.random() < 0.5:
            self.c.logout()
        self.c.close()
        self.connect()

    def vanish(self):
        """Goes away in the middle of an answer."""
        self.save()
        self.c.begin(b"FETCH 1:* (FLAGS BODY.PEEK[])" if self.sel and self.sel.entries else b"LIST \"\" *")
        if self.r.random() < 0.5:
            self.c.line()
        self.c.close()
        self.connect()

    def run(self, until):
        weights = [w for w, _ in self.steps]
        while time.monotonic() < until:
            step = self.r.choices(self.steps, weights)[0][1]
            try:
                if not self.c:
                    self.connect()
                if self.sel and len(self.sel.entries) > FULL and self.r.random() < 0.3:
                    step = self.expunge
                step()
                self.commands += 1
            except (Bye, Closed, OSError) as e:
                if not isinstance(e, Bye) and self.was != TEMPORARY:
                    raise
                self.sel = None
                self.c.close()
                self.c = None

    def settle(self):
        """All is quiet: hears of what is new and gives its picture of the mailbox."""
        while True:
            try:
                if not self.c:
                    self.connect()
                if not self.sel or self.sel.name == TEMPORARY:
                    self.select(self.r.choice(SHARED))
                self.do("NOOP")
                return {"mailbox": self.sel.name, "uidvalidity": self.sel.uidvalidity,
                        "entries": [(e.uid, e.flags, e.name) for e in self.sel.entries]}
            except Bye:
                self.c.close()
                self.c = None

    # --- commands and answers ---

    def do(self, *commands):
        """Sends commands at once; their tagged answers."""
        commands = [c.encode() if isinstance(c, str) else c for c in commands]
        tags = []
        for text in commands:
            self.c.tags += 1
            tags.append(b"t%d" % self.c.tags)
            self.log.append(b"C: %s %s" % (tags[-1], text[:150]))
        self.c.send(b"".join(b"%s %s\r\n" % x for x in zip(tags, commands)))
        return [self.answer(tag, text.split(b" ", 1)[0].decode()) for tag, text in zip(tags, commands)]

    def one(self, text):
        return self.do(text)[0]

    def good(self, text, *allowed):
        """The answer, which is OK or NO with one of the response codes."""
        status = self.one(text)
        ok = status.startswith(b"OK") or any(status.startswith((b"NO [%s]" % a.encode(), b"NO [%s " % a.encode())) for a in allowed)
        ok = ok or (self.was == TEMPORARY and status.startswith(b"NO "))  # it may just have been deleted
        need(ok, text[:120], "->", status)
        return status

    def answer(self, tag, verb):
        while True:
            r = self.response()
            if r.startswith(tag + b" "):
                m = re.match(rb"OK \[HIGHESTMODSEQ (\d+)\]", r[len(tag) + 1:])
                if m and self.sel:
                    need(int(m.group(1)) >= self.sel.told_modseq, "HIGHESTMODSEQ falls to", m.group(1))
                    self.sel.told_modseq = int(m.group(1))
                return r[len(tag) + 1:]
            self.untagged(r, verb)

    def response(self):
        r = self.c.response()
        self.log.append(b"S: " + r[:200])
        if r.startswith(b"* BYE"):
            need(b"selected mailbox was deleted" in r and self.was == TEMPORARY, "goodbye", r)
            raise Bye
        return r

    def untagged(self, r, running):
        m = re.match(rb"\* (?:(\d+) (EXISTS|EXPUNGE|RECENT)\Z|VANISHED ([\d:,]+)\Z|SEARCH([ \d]*)|ESEARCH .*? (?:ALL|UID ALL) ([\d:,]+))", r)
        if m and m.group(2) and m.group(2) != b"RECENT":
            need(self.sel, "no mailbox is selected:", r)
            if m.group(2) == b"EXISTS":
                self.sel.exists(int(m.group(1)))
            else:
                need("qresync" not in self.kind, "EXPUNGE to a client with QRESYNC")
                self.sel.expunge(int(m.group(1)), running)
        elif m and m.group(3):
            need("qresync" in self.kind and self.sel, "unasked for:", r)
            self.sel.vanished(members(m.group(3)), running)
        elif m and running == "SEARCH":
            found = members(m.group(5)) if m.group(5) else [int(x) for x in (m.group(4) or b"").split()]
            need(all(0 < x <= len(self.sel.entries) for x in found), "SEARCH finds", found[-3:], "of", len(self.sel.entries))
            need(found == sorted(set(found)), "SEARCH answers", found)
        else:
            f = fetched(r)
            if f:
                need(self.sel, "no mailbox is selected:", r[:100])
                self.sel.fetch(*f)
                self.note(self.sel.entries[f[0] - 1])

    def note(self, e):
        if e.uid is not None and e.name is not None:
            self.name(self.sel.name, self.sel.uidvalidity, e.uid, e.name)

    def name(self, mailbox, uidvalidity, uid, name):
        was = self.uids.setdefault((mailbox, uidvalidity, uid), name)
        need(was == name, "UID", uid, "of", mailbox, "was", was, "and is", name)

    # --- the mailbox ---

    def save(self):
        s, self.sel = self.sel, None
        if s and self.condstore:
            self.saved[s.name] = (s.uidvalidity, s.told_modseq, s.known())

    def select(self, name, verb=None):
        had, old = self.sel is not None, None
        self.save()
        verb = verb or self.r.choice(["SELECT"] * 5 + ["EXAMINE"])
        text = "%s %s" % (verb, name)
        if "qresync" in self.kind and name in self.saved and self.r.random() < 0.8:
            old = self.saved[name]
            text += self.qresync(*old)
        elif self.condstore and self.r.random() < 0.5:
            text += " (CONDSTORE)"
        lines = self.collect(text)
        status = lines.pop()
        need(not had or any(b"[CLOSED]" in x for x in lines), "no CLOSED")
        self.was = None
        if name == TEMPORARY and status.startswith(b"NO [NONEXISTENT]"):
            return False
        need(status.startswith(b"OK"), text, "->", status)
        self.opened(name, verb, lines, old)
        return True

    def qresync(self, uidvalidity, modseq, entries):
        text = " (QRESYNC (%d %d" % (uidvalidity, modseq)
        if entries and self.r.random() < 0.6:
            text += " " + as_set([e.uid for e in entries]).decode()
        if entries and self.r.random() < 0.4:
            at = sorted(self.r.sample(range(len(entries)), min(len(entries), 4)))
            text += " (%s %s)" % (as_set([i + 1 for i in at]).decode(), as_set([entries[i].uid for i in at]).decode())
        return text + "))"

    def collect(self, text):
        tag = self.c.begin(text.encode())
        self.log.append(b"C: " + tag + b" " + text[:150].encode())
        lines = []
        while True:
            r = self.response()
            if r.startswith(tag + b" "):
                return lines + [r[len(tag) + 1:]]
            lines.append(r)

    def opened(self, name, verb, lines, old):
        s = Mailbox(self.user, name, verb == "EXAMINE")
        number = {}
        for r in lines:
            m = re.match(rb"\* (?:OK \[(UIDVALIDITY|UIDNEXT|HIGHESTMODSEQ) (\d+)\]|(\d+) EXISTS)", r)
            if m:
                number[m.group(1) or b"EXISTS"] = int(m.group(2) or m.group(3))
        s.uidvalidity, s.told_modseq = number[b"UIDVALIDITY"], number[b"HIGHESTMODSEQ"]
        self.grows(name, s.uidvalidity, uidnext=number[b"UIDNEXT"], modseq=s.told_modseq)
        if old and old[0] == s.uidvalidity:
            self.resynchronised(s, lines, old[2])
        s.exists(number[b"EXISTS"])
        s.uidnext = number[b"UIDNEXT"]
        self.sel, self.was = s, name
        for r in lines:
            f = fetched(r)
            if f:
                need(old, "FETCH from SELECT")
                s.fetch(*f)
        s.settled = s.told_modseq if self.condstore else 0
        if s.entries:
            self.one("UID FETCH 1:* (FLAGS%s BODY.PEEK[HEADER.FIELDS (X-ID)])" % (" MODSEQ" if self.condstore else ""))
            need(all(e.uid is None or e.above or e.uid < s.uidnext for e in s.entries), "UIDNEXT is", s.uidnext)
        s.settled = 0

    @staticmethod
    def resynchronised(s, lines, entries):
        gone = set()
        for r in lines:
            m = re.match(rb"\* VANISHED \(EARLIER\) ([\d:,]+)\Z", r)
            if m:
                gone.update(members(m.group(1)))
        for old in entries:
            if old.uid not in gone:
                e = Entry()
                e.uid, e.flags, e.modseq, e.pair, e.name = old.uid, old.flags, old.modseq, old.pair, old.name
                s.entries.append(e)
                s.top = e.uid

    def grows(self, mailbox, uidvalidity, **values):
        for key, value in values.items():
            least = self.least.get((mailbox, uidvalidity, key), 0)
            need(value >= least, key, "of", mailbox, "falls from", least, "to", value)
            self.least[mailbox, uidvalidity, key] = value

    def have(self):
        """Is there a mailbox with messages?"""
        if not self.sel:
            self.select(self.r.choice(SHARED))
        return bool(self.sel.entries)

    def seqs(self, most=20):
        n = len(self.sel.entries)
        lo = self.r.randrange(1, n + 1)
        return range(lo, min(n, lo + self.r.randrange(most)) + 1)

    def some(self, most=20, named=False):
        """(verb prefix, set, its entries): by number or by UID."""
        seqs = self.seqs(most)
        entries = [self.sel.entries[n - 1] for n in seqs]
        if named or self.r.random() < 0.5:
            entries = [e for e in entries if e.uid is not None and (e.name or not named)]
            return "UID ", as_set([e.uid for e in entries]).decode(), entries
        return "", "%d:%d" % (seqs[0], seqs[-1]), entries

    # --- what it does ---

    def noop(self):
        self.good(self.r.choice(["NOOP", "CHECK"] if self.sel else ["NOOP"]))

    def idle(self):
        tag = self.c.begin(b"IDLE")
        self.log.append(b"C: " + tag + b" IDLE")
        end = time.monotonic() + self.r.random() * 0.3
        seen = False
        while True:
            pending = self.c.ready() or (self.tls and self.c.sock.pending())
            left = end - time.monotonic()
            if not pending and not (left > 0 and select.select([self.c.sock], [], [], left)[0]):
                break
            r = self.response()
            if r.startswith(b"+"):
                seen = True
            else:
                self.untagged(r, "IDLE")
        while not seen:
            r = self.response()
            seen = r.startswith(b"+")
            if not seen:
                self.untagged(r, "IDLE")
        self.c.send(b"DONE\r\n")
        status = self.answer(tag, "IDLE")
        need(status.startswith(b"OK"), "IDLE ->", status)

    def learn(self):
        """Asks for what is not known of new messages."""
        if self.have():
            new = [n for n, e in enumerate(self.sel.entries, 1) if e.uid is None or e.flags is None or e.name is None]
            if new:
                self.good("FETCH %s (UID FLAGS%s BODY.PEEK[HEADER.FIELDS (X-ID)])" % (
                    as_set(new).decode(), " MODSEQ" if self.condstore else ""), "EXPUNGEISSUED")

    def fetch_flags(self):
        if self.have():
            uid, numbers, _ = self.some()
            if numbers:
                items = self.r.choice(["FLAGS", "(UID FLAGS)", "(UID FLAGS INTERNALDATE RFC822.SIZE)", "ALL", "(UID BODYSTRUCTURE)"])
                if self.condstore and self.r.random() < 0.7:
                    items = "(UID FLAGS MODSEQ)"
                text = "%sFETCH %s %s" % (uid, numbers, items)
                if self.condstore and self.r.random() < 0.2:
                    text += " (CHANGEDSINCE %d)" % max(1, self.sel.told_modseq)
                self.good(text, "EXPUNGEISSUED")

    def fetch_bodies(self):
        if self.have():
            uid, numbers, _ = self.some(6)
            if numbers:
                items = self.r.choice(["(UID BODY.PEEK[])", "(FLAGS BODY[])", "(UID BODY.PEEK[TEXT]<0.100> RFC822.SIZE)"])
                self.good("%sFETCH %s %s" % (uid, numbers, items), "EXPUNGEISSUED")

    def flag_change(self, entries, silent):
        how = self.r.choice(["+", "+", "-", ""])
        flags = self.r.sample(FLAGS, self.r.randrange(1, 4))
        for e in entries:
            if silent and e.flags is not None:
                now = frozenset(flags)
                e.flags = e.flags | now if how == "+" else e.flags - now if how == "-" else now
                e.modseq = 0
        return "%sFLAGS%s (%s)" % (how, ".SILENT" if silent else "", b" ".join(flags).decode())

    def store(self):
        if not self.have():
            return
        uid, numbers, entries = self.some()
        if numbers:
            silent = self.r.random() < 0.3 and not self.sel.read_only
            self.good("%sSTORE %s %s" % (uid, numbers, self.flag_change(entries, silent)), "EXPUNGEISSUED", "READ-ONLY")

    def store_unchanged(self):
        if not self.condstore or not self.have():
            return
        uid, numbers, entries = self.some()
        known = max((e.modseq for e in entries), default=0)
        if numbers and known:
            status = self.good("%sSTORE %s (UNCHANGEDSINCE %d) %s" % (uid, numbers, known, self.flag_change(entries, False)), "EXPUNGEISSUED", "READ-ONLY", "MODIFIED")
            m = re.search(rb"\[MODIFIED ([\d:,]+)\]", status)
            if m:
                wanted = [e.uid for e in entries] if uid else members(numbers.encode())
                need(set(members(m.group(1))) <= set(wanted), "MODIFIED", m.group(1), "of", numbers)

    def search(self):
        if self.have():
            key = self.r.choice(["ALL", "UNSEEN", "FLAGGED", "KEYWORD $One", "NOT DELETED", "SUBJECT -1", "SMALLER 2000", "1:%d" % len(self.sel.entries)])
            self.good("%sSEARCH %s" % (self.r.choice(["", "UID "]), key))

    def saved_result(self):
        """SEARCHRES: what "$" names may have gone, and nothing else comes."""
        if self.have():
            self.good("SEARCH RETURN (SAVE) %s" % self.r.choice(["FLAGGED", "UNSEEN", "ALL"]))
            before = {e.uid for e in self.sel.entries}
            self.good("FETCH $ (UID FLAGS%s)" % (" MODSEQ" if self.condstore else ""), "EXPUNGEISSUED")
            need(None in before or {e.uid for e in self.sel.entries} - {None} <= before, "FETCH $ shows others than", before)

    def target(self):
        return self.r.choice([m for m in SHARED + (TEMPORARY,) if m != self.sel.name])

    def copied(self, text, entries, target):
        """COPYUID and what it says of the copies."""
        known = {e.uid: e.name for e in entries}
        tag = self.c.begin(text.encode())
        self.log.append(b"C: " + tag + b" " + text[:150].encode())
        code = None
        while True:
            r = self.response()
            m = re.search(rb"\[COPYUID (\d+) ([\d:,]+) ([\d:,]+)\]", r[:4000])
            code = m or code
            if r.startswith(tag + b" "):
                break
            if not m:
                self.untagged(r, text.split(" ", 1)[0])
        status = r[len(tag) + 1:]
        need(status.startswith((b"OK", b"NO [EXPUNGEISSUED]", b"NO [TRYCREATE]", b"NO [READ-ONLY]")) or self.was == TEMPORARY, text, "->", status)
        if code and status.startswith(b"OK"):
            src, dst = members(code.group(2)), members(code.group(3))
            need(len(src) == len(dst) and dst == sorted(set(dst)), code.group(0))
            need(None in known or set(src) <= set(known), "COPYUID", src, "of", known)
            for a, b in zip(src, dst):
                if known.get(a):
                    self.name(target, int(code.group(1)), b, known[a])
        return status.startswith(b"OK")

    def copy(self):
        if self.have():
            uid, numbers, entries = self.some(5)
            if numbers:
                target = self.target()
                self.copied("%sCOPY %s %s" % (uid, numbers, target), entries, target)

    def move(self):
        if self.have():
            target = self.target()
            uid, numbers, entries = self.some(5, named=target == TEMPORARY)
            if numbers:
                if target == TEMPORARY:
                    self.doomed.update(e.name for e in entries)
                self.copied("%sMOVE %s %s" % (uid, numbers, target), entries, target)

    def append(self):
        target = self.r.choice(SHARED + (TEMPORARY,))
        names = []
        text = b"APPEND %s" % target.encode()
        for _ in range(self.r.choice([1, 1, 1, 3])):
            self.made += 1
            names.append("c%d-%d" % (self.number, self.made))
            m = message(names[-1])
            text += b" (%s) {%d+}\r\n%s" % (b" ".join(self.r.sample(FLAGS, self.r.randrange(3))), len(m), m)
        status = self.one(text)
        if target == TEMPORARY and status.startswith(b"NO [TRYCREATE]"):
            return
        m = re.match(rb"OK \[APPENDUID (\d+) ([\d:,]+)\]", status)
        need(m and len(members(m.group(2))) == len(names), "APPEND ->", status)
        for uid, name in zip(members(m.group(2)), names):
            self.name(target, int(m.group(1)), uid, name)
        if target != TEMPORARY:
            self.stored.update(names)

    def expunge(self):
        if not self.have():
            return
        _, numbers, entries = self.some(60 if len(self.sel.entries) > FULL else 3, named=True)
        if not numbers:
            return
        self.doomed.update(e.name for e in entries)
        status = self.good("UID STORE %s +FLAGS%s (\\Deleted)" % (numbers, self.r.choice(["", ".SILENT"])), "READ-ONLY")
        if status.startswith(b"OK"):
            for e in entries:
                e.flags = None  # may be silent; asked for again by learn
                e.modseq = 0
            self.good(self.r.choice(["EXPUNGE", "UID EXPUNGE " + numbers]))

    def select_other(self):
        self.select(self.r.choice(SHARED + (TEMPORARY,)))

    def leave(self):
        if self.sel:
            self.save()
            self.good(self.r.choice(["CLOSE", "UNSELECT"]))

    def status(self):
        name = self.r.choice(SHARED)
        lines = self.collect("STATUS %s (MESSAGES UIDNEXT UIDVALIDITY%s)" % (name, " HIGHESTMODSEQ" if self.condstore else ""))
        need(lines.pop().startswith(b"OK"), "STATUS")
        for r in lines:
            m = re.match(rb"\* STATUS .*\((.*)\)", r)
            if not m:
                self.untagged(r, "STATUS")
                continue
            words = m.group(1).split()
            v = {words[i]: int(words[i + 1]) for i in range(0, len(words), 2)}
            self.grows(name, v[b"UIDVALIDITY"], uidnext=v[b"UIDNEXT"])
            if b"HIGHESTMODSEQ" in v:
                self.grows(name, v[b"UIDVALIDITY"], modseq=v[b"HIGHESTMODSEQ"])

    def pipeline(self):
        """Commands that cannot make numbers mean something else, sent together."""
        if self.have():
            a, b = self.seqs(), self.seqs()
            for status in self.do("STORE %d:%d +FLAGS (%s)" % (a[0], a[-1], self.r.choice(FLAGS).decode()), "SEARCH ALL",
                                  "FETCH %d:%d (UID FLAGS%s)" % (b[0], b[-1], " MODSEQ" if self.condstore else ""), "NOOP"):
                need(status.startswith((b"OK", b"NO [EXPUNGEISSUED]", b"NO [READ-ONLY]")) or self.was == TEMPORARY, status)

    def temporary(self):
        if self.sel and self.sel.name == TEMPORARY:
            self.select("INBOX")
        if self.r.random() < 0.3:
            self.good("RENAME %s %s2" % (TEMPORARY, TEMPORARY), "NONEXISTENT", "ALREADYEXISTS")
            self.good("DELETE %s2" % TEMPORARY, "NONEXISTENT")
        self.good("DELETE " + TEMPORARY, "NONEXISTENT")
        self.good("CREATE " + TEMPORARY, "ALREADYEXISTS")
