"""Random load whose every acknowledgement is remembered, and the check that none of it was lost.

What is known for certain after any number of crashes:
  - a message acknowledged by LMTP or APPEND is in one of the user's mailboxes, unless somebody
    was told to expunge it;
  - what an acknowledged COPY or MOVE put into "Copies" or "Moved" is there under the UID of COPYUID;
  - what an acknowledged MOVE or EXPUNGE removed is not back;
  - an acknowledged mailbox exists;
  - under one UIDVALIDITY a UID names the same message for ever.
"""
import hashlib
import imaplib
import random
import re
import socket
import ssl
import threading
import time

GONE = (OSError, EOFError, imaplib.IMAP4.abort, ssl.SSLError, AssertionError)


class Ledger:
    def __init__(self):
        self.lock = threading.Lock()
        self.acked = {}         # (user, id) -> sha256 of the message as sent
        self.doomed = set()     # (user, id): an expunge was asked for
        self.expunged = set()   # (user, mailbox, uidvalidity, uid): acknowledged
        self.placed = {}        # (user, mailbox, uidvalidity, uid) -> id: acknowledged for ever
        self.meaning = {}       # the same key -> id: ever seen
        self.boxes = set()      # (user, name)
        self.wrong = []
        self.n = 0
        self.counts = {}

    def count(self, what):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def new_id(self):
        with self.lock:
            self.n += 1
            return "m%06d" % self.n

    def seen(self, user, box, validity, uid, ident):
        key = (user, box, validity, uid)
        with self.lock:
            was = self.meaning.setdefault(key, ident)
            if was != ident:
                self.wrong.append("UID %d of %s/%s (UIDVALIDITY %d) was %s and is %s" % (uid, user, box, validity, was, ident))


def make_message(ident, rng):
    body = "".join("line %d of %s %s\r\n" % (i, ident, "x" * rng.randrange(60)) for i in range(rng.choice((1, 5, 40, 200))))
    if rng.random() < 0.02:
        body += "big\r\n" * 80000      # too large for the journal: its object is put by itself
    return ("X-Id: %s\r\nSubject: crash %s\r\n\r\n%s" % (ident, ident, body)).encode()


class Deliverer(threading.Thread):
    def __init__(self, server, ledger, seed):
        super().__init__(daemon=True)
        self.server, self.ledger, self.rng, self.stop = server, ledger, random.Random(seed), False

    def run(self):
        while not self.stop:
            try:
                self.once()
            except GONE:
                time.sleep(0.05)

    def once(self):
        ident, users = self.ledger.new_id(), self.rng.sample(self.server.users, self.rng.randint(1, 3))
        text = make_message(ident, self.rng)
        for user, reply in zip(users, self.server.deliver(users, text)):
            if reply.startswith("250"):
                with self.ledger.lock:
                    self.ledger.acked[user, ident] = hashlib.sha256(text).hexdigest()
                self.ledger.count("delivered")


def uid_list(text):
    out = []
    for part in text.split(","):
        a, _, b = part.partition(":")
        out.extend(range(int(a), int(b or a) + 1))
    return out


class Reader(threading.Thread):
    """One IMAP client of one user; the only one that removes anything from that user's INBOX."""

    def __init__(self, server, ledger, user, seed):
        super().__init__(daemon=True)
        self.server, self.ledger, self.user, self.rng, self.stop = server, ledger, user, random.Random(seed), False

    def run(self):
        while not self.stop:
            try:
                self.session()
            except GONE:
                time.sleep(0.05)
            except imaplib.IMAP4.error as e:
                if "UNAVAILABLE" not in str(e):
                    self.ledger.wrong.append("%s: %s" % (self.user, e))
                time.sleep(0.05)

    def ok(self, answer):
        if answer[0] != "OK":
            raise EOFError(answer)
        return answer[1]

    def session(self):
        c = imaplib.IMAP4("127.0.0.1", self.server.imap, timeout=30)
        try:
            self.ok(c.login(self.user, "pass"))
            for name in ("Copies", "Moved"):
                c.create(name)
            self.ok(c.select("INBOX"))
            self.validity = int(c.untagged_responses["UIDVALIDITY"][0])
            for _ in range(self.rng.randint(2, 12)):
                if self.stop:
                    break
                self.step(c)
            c.logout()
        finally:
            c.shutdown()

    def known(self, c):
        out = {}
        for item in self.ok(c.uid("FETCH", "1:*", "(UID BODY.PEEK[HEADER.FIELDS (X-ID)])")):
            if not isinstance(item, tuple):
                continue
            uid = int(re.search(rb"UID (\d+)", item[0]).group(1))
            ident = re.search(rb"X-Id: (\S+)", item[1])
            if ident:
                out[uid] = ident.group(1).decode()
                self.ledger.seen(self.user, "INBOX", self.validity, uid, out[uid])
        return out

    def step(self, c):
        act = self.rng.choice(("copy", "move", "expunge", "append", "flags", "create", "look"))
        msgs = self.known(c)
        some = self.rng.sample(sorted(msgs), min(len(msgs), self.rng.randint(1, 6)))
        if act == "append":
            ident = self.ledger.new_id()
            text = make_message(ident, self.rng)
            self.ok(c.append("INBOX", "(\\Seen)", None, text))
            with self.ledger.lock:
                self.ledger.acked[self.user, ident] = hashlib.sha256(text).hexdigest()
        elif act == "create":
            name = "box-%s" % self.ledger.new_id()
            self.ok(c.create(name))
            with self.ledger.lock:
                self.ledger.boxes.add((self.user, name))
        elif act == "flags" and some:
            self.ok(c.uid("STORE", ",".join(map(str, some)), "+FLAGS", "(\\Flagged work)"))
        elif act in ("copy", "move") and some:
            self.copy(c, act, some, msgs)
        elif act == "expunge" and some:
            self.expunge(c, some[:2], msgs)
        self.ledger.count(act)

    def copy(self, c, act, some, msgs):
        box = "Copies" if act == "copy" else "Moved"
        answer = self.ok(c.uid(act.upper(), ",".join(map(str, some)), box))
        code = c.untagged_responses.pop("COPYUID", None) or answer
        m = re.search(rb"(\d+) ([\d,:]+) ([\d,:]+)", b" ".join(x for x in code if x))
        if not m:
            return
        src, dst = uid_list(m.group(2).decode()), uid_list(m.group(3).decode())
        with self.ledger.lock:
            for a, b in zip(src, dst):
                self.ledger.placed[self.user, box, int(m.group(1)), b] = msgs[a]
                if act == "move":
                    self.ledger.expunged.add((self.user, "INBOX", self.validity, a))

    def expunge(self, c, some, msgs):
        with self.ledger.lock:
            self.ledger.doomed.update((self.user, msgs[u]) for u in some)
        uids = ",".join(map(str, some))
        self.ok(c.uid("STORE", uids, "+FLAGS.SILENT", "(\\Deleted)"))
        self.ok(c.uid("EXPUNGE", uids))
        with self.ledger.lock:
            self.ledger.expunged.update((self.user, "INBOX", self.validity, u) for u in some)


def body_of(raw):
    """Without the lines delivery puts before a message."""
    return re.sub(rb"\A(Return-Path|Delivered-To): [^\r]*\r\n", b"", re.sub(rb"\A(Return-Path|Delivered-To): [^\r]*\r\n", b"", raw))


def look_at(server, ledger, user):
    """Everything of one user, as (mailbox, uidvalidity, uid) -> id; bodies against what was sent."""
    c = imaplib.IMAP4("127.0.0.1", server.imap, timeout=60)
    found, names = {}, set()
    assert c.login(user, "pass")[0] == "OK"
    for line in c.list()[1]:
        names.add(line.decode().rsplit(" ", 1)[1].strip('"'))
    for name in sorted(names):
        if c.select('"%s"' % name, readonly=True)[0] != "OK":
            ledger.wrong.append("%s: mailbox %s cannot be selected" % (user, name))
            continue
        validity = int(c.untagged_responses["UIDVALIDITY"][0])
        typ, data = c.uid("FETCH", "1:*", "(UID BODY.PEEK[])")
        if typ != "OK":
            ledger.wrong.append("%s/%s: fetch says %r" % (user, name, data))
        for item in data:
            if not isinstance(item, tuple):
                continue
            uid = int(re.search(rb"UID (\d+)", item[0]).group(1))
            raw = body_of(item[1])
            ident = re.search(rb"X-Id: (\S+)", raw).group(1).decode()
            found[name, validity, uid] = ident
            ledger.seen(user, name, validity, uid, ident)
            want = ledger.acked.get((user, ident))
            if want and want != hashlib.sha256(raw).hexdigest():
                ledger.wrong.append("%s/%s UID %d: %s has other bytes" % (user, name, uid, ident))
    c.logout()
    return found, names


def check(server, ledger):
    for user in server.users:
        found, names = look_at(server, ledger, user)
        there = set(found.values())
        for (u, ident) in ledger.acked:
            if u == user and ident not in there and (u, ident) not in ledger.doomed:
                ledger.wrong.append("%s: acknowledged message %s is lost" % (user, ident))
        for (u, box, validity, uid), ident in ledger.placed.items():
            if u == user and found.get((box, validity, uid)) != ident:
                ledger.wrong.append("%s/%s UID %d should be %s and is %s" % (user, box, uid, ident, found.get((box, validity, uid))))
        for (u, box, validity, uid) in ledger.expunged:
            if u == user and (box, validity, uid) in found:
                ledger.wrong.append("%s/%s UID %d was expunged and is back" % (user, box, uid))
        for (u, name) in ledger.boxes:
            if u == user and name not in names:
                ledger.wrong.append("%s: acknowledged mailbox %s is lost" % (user, name))
    return ledger.wrong
