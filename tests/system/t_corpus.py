#!/usr/bin/env python3
"""Mail comes back as it was sent: all of tests/corpus and a made-up mailbox (CULVER_MAILBOX messages, seed CULVER_SEED), whole, by part,
by range and by POP3; ENVELOPE and BODYSTRUCTURE are Dovecot's when it is installed."""
import hashlib
import os
import random
import re
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "mime"), HERE]
import compare_dovecot  # noqa: E402
import dovecot  # noqa: E402
import mailgen  # noqa: E402
import mimewalk  # noqa: E402
from server import Server, Skip, run_tests  # noqa: E402
from wire import FETCH, Imap, Lmtp, Stream, fetched, string, tree  # noqa: E402

COUNT = int(os.environ.get("CULVER_MAILBOX", 1500))
SEED = int(os.environ.get("CULVER_SEED", 1))
SENDER = b"sender@example.org"
S = Server(workers=2)
S.users = ["corpus", "raw", "made"]
GROUP = 64  # commands in flight


def added(user):
    return b"Return-Path: <%s>\r\nDelivered-To: %s\r\n" % (SENDER, user.encode())


def corpus(ends):
    """(name, message with its last line ended); ends: line ends made CRLF as a client would."""
    if ends:
        found = list(compare_dovecot.messages())
    else:
        found = []
        top = os.path.join(HERE, "..", "corpus", "messages")
        for name in sorted(os.listdir(top)):
            with open(os.path.join(top, name), "rb") as f:
                found.append((name, f.read()))
    return [(n, m if m.endswith(b"\r\n") else m + b"\r\n") for n, m in found]


def deliver(user, messages):
    """Delivers them in order."""
    c = Lmtp(S.lmtp)
    start, octets, n = time.monotonic(), 0, 0
    for n, (name, m) in enumerate(messages, 1):
        reply = c.deliver([user], m, SENDER)[0]
        assert reply.startswith(b"250"), (name, reply)
        octets += len(m)
    c.close()
    took = time.monotonic() - start
    print("# %s: %d messages, %.1f MB in %.1f s by one LMTP session (%.0f a second)" % (
        user, n, octets / 1e6, took, n / max(took, 0.001)))


def sent(user):
    if user == "made":
        return (("made:%d" % n, added(user) + m) for n, m in enumerate(mailgen.mailbox(COUNT, SEED), 1))
    return ((n, added(user) + m) for n, m in corpus(user == "corpus"))


def lmtp_takes_all_messages():
    S.start()
    deliver("corpus", corpus(True))
    deliver("raw", corpus(False))
    deliver("made", (("made:%d" % n, m) for n, m in enumerate(mailgen.mailbox(COUNT, SEED), 1)))


def session(user):
    c = Imap(S.imap, user)
    c.select(verb=b"EXAMINE")
    return c


def same(name, got, want, what):
    if got == want:
        return
    at = next((i for i, (a, b) in enumerate(zip(got or b"", want)) if a != b), min(len(got or b""), len(want)))
    raise AssertionError("%s, %s: %s octets, not %d; they part at %d: %r, not %r" % (
        name, what, len(got) if got is not None else None, len(want), at, (got or b"")[at:at + 60], want[at:at + 60]))


def whole(user):
    c = session(user)
    tag = c.begin(b"FETCH 1:* (UID RFC822.SIZE BODY.PEEK[])")
    start, octets, n = time.monotonic(), 0, 0
    for name, want in sent(user):
        seq, items = fetched(c.response())
        n += 1
        got = string(items[b"BODY[]"])
        assert (seq, items[b"UID"], items[b"RFC822.SIZE"]) == (n, b"%d" % n, b"%d" % len(want)), (name, seq, items[b"UID"], items[b"RFC822.SIZE"])
        if hashlib.sha256(got).digest() != hashlib.sha256(want).digest():
            same(name, got, want, "whole")
        octets += len(got)
    lines, status = c.end(tag)
    assert not lines and status.startswith(b"OK"), (lines, status)
    print("# %s: %d messages, %.1f MB in %.1f s by one FETCH" % (user, n, octets / 1e6, time.monotonic() - start))
    c.logout()


def every_message_comes_back_by_imap_as_it_was_sent():
    for user in S.users:
        whole(user)


def by_pop3(user):
    c = Stream(S.pop3s, tls=True)
    c.line()
    c.send(b"USER %s\r\nPASS pass\r\nLIST\r\n" % user.encode())
    assert c.line().startswith(b"+OK") and c.line().startswith(b"+OK") and c.line().startswith(b"+OK")
    sizes = [c.line()]
    while sizes[-1] != b".\r\n":
        sizes.append(c.line())
    total, asked = len(sizes) - 1, 0
    for n, (name, want) in enumerate(sent(user), 1):
        assert sizes[n - 1] == b"%d %d\r\n" % (n, len(want)), (name, sizes[n - 1], len(want))
        if asked < n:
            c.send(b"".join(b"RETR %d\r\n" % k for k in range(n, min(n + GROUP, total + 1))))
            asked = min(n + GROUP - 1, total)
        assert c.line().startswith(b"+OK")
        got = []
        while True:
            line = c.line()
            if line == b".\r\n":
                break
            got.append(line[1:] if line.startswith(b".") else line)
        same(name, b"".join(got), want, "POP3")
    assert n == total
    c.send(b"QUIT\r\n")
    assert c.line().startswith(b"+OK")
    c.close()


def every_message_comes_back_by_pop3_as_it_was_sent():
    for user in S.users:
        by_pop3(user)


def ask(c, commands):
    """Items of the one FETCH answer to each command, GROUP of them in flight; commands: (key, text)."""
    waiting = []
    for key, text in commands:
        waiting.append((key, c.begin(text)))
        if len(waiting) >= GROUP:
            yield answer(c, *waiting.pop(0))
    for key, tag in waiting:
        yield answer(c, key, tag)


def answer(c, key, tag):
    lines, status = c.end(tag)
    lines = [x for x in lines if FETCH.match(x)]
    assert status.startswith(b"OK") and len(lines) == 1, ("%.300r" % (key,), ["%.300r" % x for x in lines], status)
    return key, fetched(lines[0])[1]


def ranges(r, length):
    """Of a section with so many octets: its ends, both sides of its end, pieces of chunk size."""
    for off in {0, max(0, length - 1), length, r.randrange(length + 1), r.randrange(length + 1) // 4096 * 4096}:
        yield off, r.choice([1, 2, 100, 4096, 65536, 2 ** 32 - 1])


def partial(user):
    c, r = session(user), random.Random(SEED)

    def commands():
        for n, (name, want) in enumerate(sent(user), 1):
            cuts = {}
            for section, octets in (b"", want), (b"TEXT", want[mimewalk.header_end(want, 0, len(want)):]):
                for off, length in ranges(r, len(octets)):
                    cuts[b"[%s]<%d" % (section, off)] = (length, octets[off:off + length])
            if user != "made":  # its header ends where the server says; only the whole is sure
                cuts = {k: v for k, v in cuts.items() if b"TEXT" not in k}
            yield (name, cuts), b"FETCH %d (%s)" % (n, b" ".join(b"BODY.PEEK%s.%d>" % (k, v[0]) for k, v in cuts.items()))
    for (name, cuts), items in ask(c, commands()):
        for key, (_, want) in cuts.items():
            same(name, string(items[b"BODY" + key + b">"]), want, key.decode())
    c.logout()


def every_range_is_cut_right():
    for user in S.users:
        partial(user)


def every_part_of_made_up_messages_is_where_an_own_walk_finds_it():
    c, r, n_parts = session("made"), random.Random(SEED), 0

    def commands():
        for n, (name, m) in enumerate(sent("made"), 1):
            for want in split(mimewalk.sections(m)[1:], 40):  # a FETCH has at most 100 items
                yield (name, want), b"FETCH %d (%s)" % (n, b" ".join(b"BODY.PEEK[%s] BODY.PEEK[%s]<3.50>" % (s, s) for s, _ in want))
    for (name, want), items in ask(c, commands()):
        for section, octets in want:
            same(name, string(items[b"BODY[%s]" % section]), octets, section.decode())
            same(name, string(items[b"BODY[%s]<3>" % section]), octets[3:53], section.decode() + "<3.50>")
            n_parts += 1
    c.logout()
    print("# %d sections" % n_parts)


def split(items, n):
    return [items[i:i + n] for i in range(0, len(items), n)]


def parts_of(structure, prefix=b""):
    """Section numbers of a BODYSTRUCTURE."""
    kids = structure[:[isinstance(x, list) for x in structure].index(False)] or [structure]
    for n, kid in enumerate(kids, 1):
        yield prefix + b"%d" % n
        if isinstance(kid[0], list):
            yield from parts_of(kid, prefix + b"%d." % n)
        elif kid[0][0].lower() == b"message" and kid[1][0].lower() in (b"rfc822", b"global"):
            yield from parts_of(kid[8], prefix + b"%d." % n)


def same_part(ours, theirs):
    """Dovecot counts the line end before a delimiter to the part when that ends in a delimiter of its own, and shows no NUL."""
    ours = ours.replace(b"\0", b"\x80")
    return ours == theirs or (ours + b"\r\n" == theirs and re.search(rb"--\Z", ours))


def differing(ours, theirs):
    """Items of two FETCH answers that are not the same."""
    bad = []
    for item in set(ours) | set(theirs):
        a, b = ours.get(item), theirs.get(item)
        if item in (b"ENVELOPE", b"BODY", b"BODYSTRUCTURE"):
            if a != b and tree(a) != tree(b):
                bad.append((item.decode(), a, b))
        elif not same_part(string(a) or b"", string(b) or b""):
            bad.append((item.decode(), a, b))
    return bad


def compare(user, dc, known):
    c, failed, met = session(user), [], set()
    for n, (name, m) in enumerate(sent(user), 1):
        dc.append(m)
        _, ours = answer(c, name, c.begin(b"FETCH %d (ENVELOPE BODY BODYSTRUCTURE)" % n))
        theirs = {}
        sections = [b"HEADER", b"TEXT"] + list(parts_of(tree(ours[b"BODYSTRUCTURE"])))
        for few in split(sections, 90):
            items = b" ".join(b"BODY.PEEK[%s]" % s for s in few)
            ours.update(answer(c, name, c.begin(b"FETCH %d (%s)" % (n, items)))[1])
            theirs.update(fetched(b"* 1 FETCH (%s)" % dc.fetch(1, items))[1])
        theirs.update(fetched(b"* 1 FETCH (%s)" % dc.fetch(1, b"ENVELOPE BODY BODYSTRUCTURE"))[1])
        for item, a, b in differing(ours, theirs):
            if (name, item) in known:
                met.add((name, item))
            elif (name, "BODYSTRUCTURE") in known and string(a) + b"\r\n" == string(b):
                pass  # the part whose size is the difference
            else:
                failed.append("%s %s\n   ours    %r\n   Dovecot %r" % (name, item, a[:600], b[:600]))
        dc.command(b"STORE 1 +FLAGS.SILENT \\Deleted")
        dc.command(b"EXPUNGE")
    c.logout()
    assert not failed, "%d differences\n%s" % (len(failed), "\n".join(failed[:10]))
    return met


def envelopes_and_structures_are_those_of_dovecot():
    try:
        dc = dovecot.Dovecot()
    except dovecot.Unavailable as e:
        raise Skip(str(e))
    known = compare_dovecot.differences()
    try:
        met = compare("corpus", dc, known)
        assert met == set(known), ("no longer differs", set(known) - met)
        compare("made", dc, {})
    finally:
        dc.close()


def all_of_it_is_the_same_after_a_restart():
    assert S.stop() == 0
    S.start()
    for user in S.users:
        whole(user)


def the_log_has_no_errors_and_the_server_stops():
    assert S.stop() == 0
    S.assert_log_is_clean()


TESTS = [
    lmtp_takes_all_messages,
    every_message_comes_back_by_imap_as_it_was_sent,
    every_message_comes_back_by_pop3_as_it_was_sent,
    every_range_is_cut_right,
    every_part_of_made_up_messages_is_where_an_own_walk_finds_it,
    envelopes_and_structures_are_those_of_dovecot,
    all_of_it_is_the_same_after_a_restart,
    the_log_has_no_errors_and_the_server_stops,
]

if __name__ == "__main__":
    try:
        run_tests(TESTS, limit=60 + COUNT / 20)
    finally:
        S.clean()
