"""What an IMAP client may believe of its selected mailbox, from the protocol stream alone; raises Violation when the stream cannot be true.

RFC 3501 sections 2.3.1 and 7.4, RFC 7162 sections 3.1 and 3.2.  Standard library only."""
import hashlib
import random
import re

from wire import string

X_ID = b"BODY[HEADER.FIELDS (X-ID)]"
# EXPUNGE and VANISHED would change numbers that the client has just used (RFC 3501 section 7.4.1)
NO_EXPUNGE = ("FETCH", "STORE", "SEARCH")


class Violation(Exception):
    """The server said what cannot be."""


def need(truth, *what):
    if not truth:
        raise Violation(" ".join(str(x) for x in what))


def message(name):
    """The message of that name: its octets follow from the name, so whoever reads it can check it."""
    r = random.Random(name)
    lines = r.choice([0, 3, 10, 40] * 12 + [4000])
    body = b"".join(b"%s\r\n" % hashlib.sha256(b"%s %d" % (name.encode(), n)).hexdigest().encode() for n in range(lines))
    return b"From: <%d@example.org>\r\nX-Id: %s\r\nSubject: %s\r\n\r\n%s" % (r.randrange(99), name.encode(), name.encode(), body)


def expected(user, name):
    """A stored message: names that begin with l came by LMTP."""
    head = b"Return-Path: <load@example.org>\r\nDelivered-To: %s\r\n" % user.encode() if name.startswith("l") else b""
    return head + message(name)


def members(text):
    """The numbers of a set like 3:5,9 in its order."""
    found = []
    for part in text.split(b","):
        lo, _, hi = part.partition(b":")
        lo, hi = int(lo), int(hi or lo)
        need(lo > 0 and hi > 0, "a zero in the set", text)
        found += range(lo, hi + 1) if lo <= hi else range(hi, lo + 1)
    return found


def as_set(numbers):
    return ",".join(str(n) for n in numbers).encode()


class Entry:
    __slots__ = ("uid", "flags", "modseq", "pair", "name", "above")

    def __init__(self, above=0):
        self.uid = self.flags = self.name = None
        self.modseq = 0
        self.pair = None  # modseq and flags of one answer
        self.above = above  # its UID is larger than this


class Mailbox:
    """The selected mailbox."""

    def __init__(self, user, name, read_only=False):
        self.user, self.name, self.read_only = user, name, read_only
        self.entries = []
        self.uidvalidity = self.uidnext = self.told_modseq = 0
        self.top = 0  # largest UID that was shown
        self.settled = 0  # until its changes are all told: no change up to this modseq may be news

    def exists(self, n):
        need(n >= len(self.entries), "EXISTS shrinks from", len(self.entries), "to", n)
        above = max(self.top, self.uidnext - 1)
        self.entries += [Entry(above) for _ in range(n - len(self.entries))]

    def expunge(self, n, running):
        need(running not in NO_EXPUNGE, "EXPUNGE during", running)
        need(1 <= n <= len(self.entries), "EXPUNGE", n, "of", len(self.entries))
        del self.entries[n - 1]

    def vanished(self, uids, running):
        need(running not in NO_EXPUNGE, "VANISHED during", running)
        for uid in uids:
            at = next((i for i, e in enumerate(self.entries) if e.uid is not None and e.uid >= uid), len(self.entries))
            if at == len(self.entries) or self.entries[at].uid != uid:
                at -= 1  # one of those just below, whose UIDs were not asked for yet
                need(at >= 0 and self.entries[at].uid is None, "VANISHED", uid, "is not there")
                self.forget_run(at)
            del self.entries[at]

    def forget_run(self, at):
        """One of the entries without UIDs around there goes: what was known of them by number may be that of a neighbour."""
        first, last = at, at
        while first and self.entries[first - 1].uid is None:
            first -= 1
        while last + 1 < len(self.entries) and self.entries[last + 1].uid is None:
            last += 1
        for e in self.entries[first:last + 1]:
            e.flags = e.name = e.pair = None
            e.modseq = 0
            e.above = self.entries[first].above

    def fetch(self, n, items):
        need(1 <= n <= len(self.entries), "FETCH", n, "of", len(self.entries))
        e = self.entries[n - 1]
        if b"UID" in items:
            self.set_uid(n, e, int(items[b"UID"]))
        modseq = int(items[b"MODSEQ"][1:-1]) if b"MODSEQ" in items else 0
        flags = frozenset(items[b"FLAGS"][1:-1].split()) if b"FLAGS" in items else None
        if modseq:
            need(modseq >= e.modseq, "MODSEQ of", e.uid, "falls from", e.modseq, "to", modseq)
            if flags is not None:
                need(not e.pair or e.pair[0] != modseq or e.pair[1] == flags, "flags of", e.uid, "with one MODSEQ:", e.pair, flags)
                e.pair = modseq, flags
            need(not e.modseq or modseq == e.modseq or modseq > self.settled,
                 "change", modseq, "of", e.uid, "was not told by the resynchronisation to", self.settled)
            e.modseq = modseq
        if flags is not None:
            need(len(flags) == len(items[b"FLAGS"][1:-1].split()), "a flag twice", items[b"FLAGS"])
            e.flags = flags
        if X_ID in items:
            self.set_name(e, re.sub(rb"(?i)^x-id:\s*", b"", string(items[X_ID])).strip().decode())
        if b"BODY[]" in items:
            self.check_body(e, string(items[b"BODY[]"]))

    def set_uid(self, n, e, uid):
        need(e.uid in (None, uid), "message", n, "has UID", uid, "and had", e.uid)
        if e.uid is not None:
            return
        need(uid > e.above, "new message has UID", uid, "not above", e.above)
        before = next((x.uid for x in reversed(self.entries[:n - 1]) if x.uid is not None), 0)
        behind = next((x.uid for x in self.entries[n:] if x.uid is not None), 2 ** 32)
        need(before < uid < behind, "UID", uid, "of message", n, "between", before, "and", behind)
        e.uid = uid
        self.top = max(self.top, uid)

    @staticmethod
    def set_name(e, name):
        need(e.name in (None, name), "UID", e.uid, "was message", e.name, "and is", name)
        e.name = name

    def check_body(self, e, octets):
        m = re.search(rb"(?m)^X-Id: (\S+)\r$", octets)
        need(m, "no X-Id in", octets[:200])
        self.set_name(e, m.group(1).decode())
        need(octets == expected(self.user, e.name), "octets of", e.uid, e.name)

    def known(self):
        """Of the entries up to the first whose UID or flags were never asked for."""
        found = []
        for e in self.entries:
            if e.uid is None or e.flags is None or not e.modseq:
                break
            found.append(e)
        return found
