#!/usr/bin/env python3
"""Clients that are broken, slow or malicious: each gets the protocol's own answer, at bounded cost, and others are served."""
import os
import random
import re
import socket
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib"), HERE]
from server import SANITIZED, SLOW, Server, Skip, run_tests, wait_for  # noqa: E402
from wire import Closed, Imap, Lmtp, Stream, fetched, string  # noqa: E402

LIMITS = "limits { message_size = 2M imap_command_size = 64K failure_delay_max = 300ms prelogin_timeout = %ds lmtp_recipients = 100 }\n" % (4 * SLOW)
S = Server(workers=2, extra=LIMITS)
S.users = ["good", "bad", "pop", "slow", "half", "full"]
MESSAGE = b"Subject: hello\r\nX-Id: 1\r\n\r\n" + b"text\r\n" * 10
STATE = {}  # old: a session from the beginning to the end


def others_are_served():
    """Somebody else logs in, reads and delivers at once; a session that was there before goes on."""
    start = time.monotonic()
    c = Imap(S.imap, "good")
    assert c.select() >= 1
    _, items = fetched(c.ok(b"FETCH 1 (BODY.PEEK[])")[0])
    assert string(items[b"BODY[]"]) == MESSAGE
    c.logout()
    if "old" in STATE:
        STATE["old"].ok(b"NOOP")
    assert time.monotonic() - start < 5 * SLOW, "others waited %.1f s" % (time.monotonic() - start)


def largest_worker():
    return max(rss(pid) for pids in S.pids("worker").values() for pid in pids)


def rss(pid):
    with open("/proc/%d/status" % pid) as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def culverd_starts():
    S.start()
    c = Imap(S.imap, "good")
    c.append(b"INBOX", MESSAGE)
    c.logout()
    STATE["old"] = Imap(S.imap, "good")
    STATE["old"].select()


def bad(c, line, want=b"BAD"):
    """A line sent as it is gets an answer of that kind, and the connection stays in step."""
    c.send(line + b"\r\n")
    reply = c.response()
    word = reply.split(b" ")[1]
    assert word == want, (line[:100], reply)
    c.ok(b"NOOP")
    return reply


def commands_that_are_none_get_bad():
    c = Imap(S.imap, "bad")
    for line in (b"", b" ", b"*", b"* OK hello", b"+ x", b"a", b"a ", b"a  NOOP", b"a NO\0OP", b"a(b NOOP", b"a%b NOOP", b"\xff\xfe NOOP", b"a NOSUCH",
                 b"a NOOP x", b"a UID", b"a UID NOOP", b"a LOGIN bad pass", b"a STARTTLS", b"a \"NOOP\"", b"a FETCH", b"a SELECT", b"a {5}x",
                 b"a " + b"x" * 2000):
        bad(c, line)
    for line in (b"a FETCH 1 FLAGS", b"a STORE 1 FLAGS ()", b"a EXPUNGE", b"a CLOSE"):
        bad(c, line)  # nothing is selected
    c.select()
    for line in (b"a FETCH 1 (", b"a FETCH 1 FLAGS)", b"a FETCH 0 FLAGS", b"a FETCH -1 FLAGS", b"a FETCH 4294967296 FLAGS", b"a FETCH 1 BODY[",
                 b"a FETCH 1 BODY[]<1>", b"a FETCH 1 BODY[]<0.0>", b"a FETCH 1 BODY[0]", b"a FETCH 1 BODY[1.0.1]", b"a FETCH 1 BODY[HEADER.FIELDS ()]",
                 b"a FETCH 1 BODY[MIME]", b"a STORE 1 FLAGS (\\Nonsense", b"a STORE 1 +FLAGS.LOUD ()", b"a SEARCH", b"a SEARCH NOSUCH", b"a SEARCH OR ALL",
                 b"a SEARCH ON 31-Feb-99999", b"a APPEND INBOX", b"a APPEND INBOX (\\Seen {5}", b"a COPY 1", b"a ID (\"a\")", b"a ENABLE", b"a IDLE now"):
        bad(c, line)
    c.logout()


def twenty_bad_commands_in_a_row_end_the_session():
    c = Imap(S.imap, "bad")
    c.send(b"a NOSUCH\r\n" * 30)
    n = 0
    while True:
        r = c.response()
        if r.startswith(b"* BYE"):
            break
        assert r.startswith(b"a BAD"), r
        n += 1
    assert n == 20 and c.at_end()
    c = Imap(S.imap)
    c.send(b"a NOSUCH\r\n" * 200)
    assert c.at_end()


def bare_line_feeds_end_lines():
    c = Imap(S.imap)
    c.send(b"a LOGIN bad pass\nb NOOP\nc STATUS INBOX (MESSAGES)\nd LOGOUT\n")
    replies = [c.response() for _ in range(6)]
    assert [r.split(b" ")[0] for r in replies] == [b"a", b"b", b"*", b"c", b"*", b"d"], replies


def literals_that_never_end_store_nothing():
    for begin in (b"a APPEND INBOX {1000+}\r\nSubject: x", b"a APPEND INBOX {1000}\r\n", b"a APPEND INBOX {0", b"a SEARCH SUBJECT {500+}\r\nabc"):
        c = Imap(S.imap, "bad")
        c.select()
        c.send(begin)
        time.sleep(0.05)
        c.sock.shutdown(socket.SHUT_WR)
        assert c.at_end()
        c.close()
    c = Imap(S.imap, "bad")
    c.send(b"a APPEND INBOX {1000+}\r\nSubject: x")
    c.close()  # the other way: everything at once
    c = Imap(S.imap, "bad")
    assert c.select() == 0
    c.logout()


def literals_beyond_the_limits_are_refused_and_skipped():
    c = Imap(S.imap, "bad")
    c.send(b"a APPEND INBOX {%d}\r\n" % (2 * 2**20 + 1))
    assert re.match(rb"a NO \[(TOOBIG|LIMIT)\]", c.response())
    c.ok(b"NOOP")
    c.send(b"a APPEND INBOX {%d+}\r\n" % (3 * 2**20) + b"x" * (3 * 2**20) + b"\r\n")
    assert re.match(rb"a NO \[(TOOBIG|LIMIT)\]", c.response())
    c.ok(b"NOOP")
    for announced in (b"99999999999999999999", b"18446744073709551616", b"4294967296000"):
        bad(c, b"a APPEND INBOX {%s}" % announced, b"NO" if announced[:1] == b"4" else b"BAD")
    c.select()
    c.send(b"a SEARCH SUBJECT {100000}\r\n")
    assert c.response().startswith(b"a BAD [TOOBIG]")
    c.send(b"a SEARCH SUBJECT {100000+}\r\n" + b"y" * 100000 + b"\r\n")
    assert c.response().startswith(b"a BAD [TOOBIG]")
    c.ok(b"NOOP")
    c.send(b"a APPEND INBOX {4294967296000+}\r\n")
    assert c.response().startswith(b"* BYE [TOOBIG]")
    assert c.at_end()
    c = Imap(S.imap)
    c.send(b"a LOGIN {99999}\r\n")
    assert c.response().startswith(b"* BYE") and c.at_end()


def command_lines_of_a_megabyte_are_refused():
    c = Imap(S.imap, "bad")
    for _ in range(3):
        c.send(b"a SEARCH SUBJECT " + b"x" * 1000000 + b"\r\n")
        assert c.response().startswith(b"a BAD [TOOBIG]")
        c.ok(b"NOOP")
    c.send(b"x" * 1000000 + b"\r\n")
    assert b"BAD" in c.response()
    c.ok(b"NOOP")
    c.logout()
    c = Imap(S.imap)
    try:
        c.send(b"a LOGIN " + b"x" * 1000000 + b"\r\n")
        assert c.response().startswith(b"* BYE")
    except (OSError, Closed):
        pass  # it was closed before all was sent
    assert c.at_end()
    for port in (S.pop3, S.lmtp):
        c = Stream(port)
        c.line()
        try:
            c.send(b"NOOP " + b"x" * 1000000 + b"\r\nNOOP\r\nQUIT\r\n")
            reply = c.line()
            assert reply.startswith((b"-ERR", b"500", b"421")), reply
        except (OSError, Closed):
            pass
        assert c.at_end()


def nesting_is_limited():
    c = Imap(S.imap, "bad")
    c.append(b"INBOX", MESSAGE)
    c.select()
    for text in (b"SEARCH " + b"(" * 5000 + b"ALL" + b")" * 5000, b"SEARCH " + b"NOT " * 5000 + b"ALL", b"SEARCH " + b"OR ALL " * 5000 + b"ALL",
                 b"FETCH 1 " + b"(" * 5000, b"STORE 1 FLAGS " + b"(" * 5000, b"FETCH 1 (" + b"FLAGS " * 5000 + b"FLAGS)",
                 b"SEARCH " + b"ALL " * 5000 + b"ALL", b"LIST (" + b"(" * 5000, b"LIST \"\" (" + b"% " * 2000 + b"%)",
                 b"FETCH 1 (BODY[HEADER.FIELDS (" + b"x " * 5000 + b"x)])", b"STORE 1 FLAGS (" + b" ".join(b"k%d" % n for n in range(5000)) + b")"):
        start = time.monotonic()
        _, status = c.command(text)
        assert status.startswith((b"BAD", b"NO")), (text[:40], status)
        assert time.monotonic() - start < 2 * SLOW
    lines, status = c.command(b"FETCH 1 (BODY.PEEK[" + b".".join([b"1"] * 5000) + b"])")
    assert status.startswith((b"OK", b"BAD")), status
    lines, status = c.command(b"FETCH " + b",".join(b"1" for _ in range(30000)) + b" FLAGS")
    assert status.startswith(b"OK") and len(lines) == 1, (len(lines), status)
    c.logout()
    c = Imap(S.imap, "bad")
    for text in (b"CREATE " + b"/".join([b"d"] * 2000), b"CREATE " + b"n" * 3000, b"CREATE \"" + b"a/" * 5000 + b"\""):
        _, status = c.command(text)
        assert status.startswith(b"NO"), (text[:40], status)
    _, status = c.command(b"LIST \"\" " + b"%*" * 4000 + b"x")
    assert status.startswith((b"OK", b"BAD", b"NO")), status
    c.logout()


def deeply_nested_messages_are_borne():
    c = Imap(S.imap, "bad")
    c.select()
    multi = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(3000)) + b"\r\nend\r\n"
    inner = b"Content-Type: message/rfc822\r\n\r\n" * 3000 + b"\r\nend\r\n"
    many = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 20000 + b"--b--\r\n"
    header = b"".join(b"X-%d: y\r\n" % n for n in range(50000)) + b"\r\nx\r\n"
    folded = b"To: " + b"a@b,\r\n " * 100000 + b"c@d\r\n\r\nx\r\n"
    comment = b"To: " + b"(" * 100000 + b")" * 100000 + b" a@b\r\n\r\nx\r\n"
    for m in (multi, inner, many, header, folded, comment):
        start = time.monotonic()
        uid = c.append(b"INBOX", m)
        _, items = fetched(c.ok(b"UID FETCH %d (UID ENVELOPE BODYSTRUCTURE BODY.PEEK[] PREVIEW)" % uid)[-1])
        assert string(items[b"BODY[]"]) == m
        assert len(items[b"BODYSTRUCTURE"]) < 10 * len(m) + 100000
        c.ok(b"SEARCH BODY nosuch TEXT nosuch")
        assert time.monotonic() - start < 10 * SLOW, (m[:40], time.monotonic() - start)
    c.logout()


def names_that_are_no_utf_7_are_refused():
    c = Imap(S.imap, "bad")
    for name in (b"&", b"a&", b"&A", b"&AA-", b"&!!-", b"&AAAAAA-", b"&2AA-", b"&3AA-", b"&2ADYAA-", b"&AGE-", b"&AOQ", b"&AOQ-&AOQ-", b"&AAA-", b"&AOR-",
                 b"a//b", b"/a", b"a\\b%"):
        _, status = c.command(b'CREATE "%s"' % name)
        assert status.startswith((b"NO [CANNOT]", b"BAD")), (name, status)
    for name in (b"\xe4", b"\xff\xff", b"a\x01b", b"a\x7fb"):
        _, status = c.command(b"CREATE {%d+}\r\n%s" % (len(name), name))
        assert status.startswith((b"NO", b"BAD")), (name, status)
    _, status = c.command(b"CREATE {3+}\r\na\0b")
    assert status.startswith((b"NO", b"BAD")), status
    c.ok(b"ENABLE IMAP4rev2")
    for name in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf8\x88\x80\x80\x80", b"a\xe2\x80", b"\xff\xfe"):
        _, status = c.command(b"CREATE {%d+}\r\n%s" % (len(name), name))
        assert status.startswith((b"NO", b"BAD")), (name, status)
    listed = c.ok(b'LIST "" *')
    assert len(listed) == 1 and b"INBOX" in listed[0], listed
    c.logout()


def garbage_behind_starttls_is_discarded():
    junk = random.Random(1).randbytes(2000).replace(b"\r", b"").replace(b"\n", b"")
    for behind in (b"b LOGIN bad pass\r\nc SELECT INBOX\r\n", junk, b"b LOGIN {5}\r\n"):
        c = Imap(S.imap)
        c.send(b"a STARTTLS\r\n" + behind)
        assert c.response().startswith(b"a OK") and not c.ready()
        c.start_tls()
        lines, status = c.command(b"CAPABILITY")
        assert len(lines) == 1 and status.startswith(b"OK"), (lines, status)
        _, status = c.command(b"SELECT INBOX")
        assert status.startswith(b"BAD"), status  # nobody is logged in
        c.close()
    c = Stream(S.pop3)
    c.line()
    c.send(b"STLS\r\nUSER pop\r\nPASS pass\r\n")
    assert c.line().startswith(b"+OK") and not c.ready()
    c.start_tls()
    c.send(b"STAT\r\n")
    assert c.line().startswith(b"-ERR")
    c.close()


def what_is_not_tls_ends_on_tls_ports():
    for port in (S.imaps, S.pop3s):
        for data in (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 70000, b"\0" * 10, b"\x80\x2e\x01\x00\x02"):
            c = Stream(port)
            try:
                c.send(data)
                c.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            assert c.at_end()
            c.close()


def a_half_closed_connection_gets_all_its_answers():
    c = Imap(S.imap, "half")
    big = b"Subject: big\r\n\r\n" + b"0123456789abcde\r\n" * 100000
    for _ in range(3):
        c.append(b"INBOX", big)
    c.logout()
    for tls in (False, True):
        c = Imap(S.imaps if tls else S.imap, tls=tls)
        c.send(b"a LOGIN half pass\r\nb SELECT INBOX\r\nc FETCH 1:3 (BODY.PEEK[])\r\nd NOOP\r\ne FETCH 1")
        (socket.socket if tls else c.sock).shutdown(*((c.sock, socket.SHUT_WR) if tls else (socket.SHUT_WR,)))
        got = []
        try:
            while True:
                got.append(c.response())
        except Closed:
            pass
        bodies = [fetched(r)[1][b"BODY[]"] for r in got if b"BODY[]" in r[:100]]
        assert [string(b) for b in bodies] == [big] * 3, (tls, len(bodies))
        assert got[-1].startswith(b"d OK"), (tls, got[-1])
        c.close()
    c = Stream(S.pop3)
    c.send(b"USER half\r\nPASS pass\r\nRETR 2\r\nDELE 1\r\n")
    c.sock.shutdown(socket.SHUT_WR)
    assert [c.line()[:3] for _ in range(4)] == [b"+OK"] * 4
    octets = b""
    parts = []
    while True:
        line = c.line()
        if line == b".\r\n":
            break
        parts.append(line)
    octets = b"".join(parts)
    assert octets == big
    assert c.line().startswith(b"+OK") and c.at_end()
    c.close()
    c = Imap(S.imap, "half")
    assert c.select() == 3  # without QUIT nothing is deleted
    c.logout()
    c = Stream(S.lmtp)
    c.send(b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<half>\r\nDATA\r\nSubject: half\r\n\r\nnot all")
    c.sock.shutdown(socket.SHUT_WR)
    while True:
        try:
            assert not c.line().startswith(b"250 2.0.0 <"), "half a message was taken"
        except Closed:
            break
    c = Imap(S.imap, "half")
    assert c.select() == 3
    c.logout()


def slow_readers_cost_buffers_only():
    c = Imap(S.imap, "slow")
    body = b"Subject: large\r\n\r\n" + (b"x" * 76 + b"\r\n") * 20000
    for _ in range(10):
        c.append(b"INBOX", body)
    c.logout()
    before = largest_worker()
    slow = []
    for n in range(40):
        s = Imap(S.imaps if n % 4 == 0 else S.imap, "slow", tls=n % 4 == 0, rcvbuf=4096)
        s.select()
        s.begin(b"FETCH 1:* (BODY.PEEK[])")
        slow.append(s)
    time.sleep(1)
    others_are_served()
    after = largest_worker()
    print("# worker with 40 readers of 15 MB that do not read: %d kB more" % (after - before))
    assert after - before < 40 * 700 or SANITIZED
    _, items = fetched(slow[-1].response())
    assert string(items[b"BODY[]"]) == body
    for s in slow:
        s.close()


def many_silent_connections_are_borne_and_closed_in_time():
    socks = []
    for n in range(600):
        s = socket.create_connection(("127.0.0.1", (S.imap, S.imaps, S.pop3, S.pop3s)[n % 4]))
        socks.append(s)
        if n % 4 in (1, 3) and n % 8 < 4:
            s.send(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a handshake
        elif n % 4 in (0, 2) and n % 8 < 4:
            s.send(b"a LOG")
    for n in range(100):
        s = Imap(S.imap, "bad") if n % 2 else Lmtp(S.lmtp)
        socks.append(s.sock)
    others_are_served()
    start = time.monotonic()
    for s in socks[:600]:
        s.settimeout(20 * SLOW)
        try:
            while s.recv(4096):
                pass
        except ConnectionError:
            pass
    assert time.monotonic() - start < 15 * SLOW
    for s in socks[600:]:
        s.setblocking(False)
        try:
            assert s.recv(100), "a logged-in session was closed"
        except BlockingIOError:
            pass
    for s in socks:
        s.close()


def pop3(user, tls=False):
    c = Stream(S.pop3s if tls else S.pop3, tls=tls)
    c.send(b"USER %s\r\nPASS pass\r\n" % user)
    c.line(), c.line()
    return c, c.line()


def the_second_of_two_pop3_sessions_is_told():
    c = Lmtp(S.lmtp)
    for _ in range(3):
        assert c.deliver([b"pop"], MESSAGE)[0].startswith(b"250")
    c.close()
    first, reply = pop3(b"pop")
    assert reply.startswith(b"+OK"), reply
    for tls in (False, True):
        second, reply = pop3(b"pop", tls)
        assert reply.startswith(b"-ERR [IN-USE]"), reply
        second.close()
    first.send(b"STAT\r\nDELE 1\r\nQUIT\r\n")
    assert first.line().startswith(b"+OK 3 ") and first.line().startswith(b"+OK") and first.line().startswith(b"+OK")
    second, reply = pop3(b"pop")
    assert reply.startswith(b"+OK"), reply
    # expunged by IMAP meanwhile: the session's mailbox stays as it was, its mail is kept for some days
    c = Imap(S.imap, "pop")
    c.select()
    c.ok(b"STORE 1 +FLAGS.SILENT (\\Deleted)")
    c.ok(b"EXPUNGE")
    c.logout()
    second.send(b"STAT\r\nRETR 1\r\n")
    assert second.line().startswith(b"+OK 2 ") and second.line().startswith(b"+OK")
    octets = second.line()
    while not octets.endswith(b"\r\n.\r\n"):
        octets += second.line()
    assert octets.endswith(MESSAGE + b".\r\n")
    second.close()


def pop3_nonsense_gets_err():
    def session():
        c, reply = pop3(b"pop")  # the one before may still hold the mailbox
        return c if reply.startswith(b"+OK") else None
    c = wait_for("the mailbox", session)
    for line in (b"", b" ", b"NOSUCH", b"RETR", b"RETR 0", b"RETR 99", b"RETR 1x", b"RETR -1", b"RETR 18446744073709551617", b"RETR 1 2", b"LIST 7", b"UIDL 0",
                 b"TOP 1", b"TOP 1 -1", b"TOP 1 x", b"DELE", b"DELE 4294967297", b"USER pop", b"PASS pass", b"RE\0TR 1", b"\xff\xfe", b"x" * 300):
        c.send(line + b"\r\n")
        reply = c.line()
        assert reply.startswith(b"-ERR"), (line[:50], reply)
    c.send(b"NOOP\r\n")
    assert c.line().startswith(b"+OK")
    c.close()


def lmtp_nonsense_gets_its_code():
    c = Stream(S.lmtp)
    c.line()
    for line, code in ((b"", b"500"), (b"HELO x", b"500"), (b"MAIL FROM:<>", b"503"), (b"DATA", b"503"), (b"LHLO", b"501"), (b"NOSUCH", b"500"),
                       (b"NO\0OP", b"500"), (b"x" * 5000, b"500")):
        c.send(line + b"\r\n")
        reply = c.line()
        assert reply.startswith(code), (line[:50], reply)
    c.close()
    c = Lmtp(S.lmtp)
    for line, code in ((b"RCPT TO:<good>", b"503"), (b"MAIL TO:<x>", b"501"), (b"MAIL FROM:x", b"501"), (b"MAIL FROM:<x", b"501"), (b"MAIL FROM:<x> SIZE=x", b"501"),
                       (b"MAIL FROM:<x> SIZE=999999999", b"552"), (b"MAIL FROM:<x> NOSUCH=1", b"555")):
        c.send(line + b"\r\n")
        reply = c.reply()
        assert reply.startswith(code), (line, reply)
    c.close()


def lmtp_takes_so_many_recipients_and_octets_as_it_says():
    c = Lmtp(S.lmtp)
    c.send(b"MAIL FROM:<x@y>\r\n" + b"RCPT TO:<bad>\r\n" * 105)
    assert c.reply().startswith(b"250")
    codes = [c.reply()[:3] for _ in range(105)]
    assert codes == [b"250"] * 100 + [b"452"] * 5, codes
    c.send(b"DATA\r\n")
    assert c.reply().startswith(b"354")
    c.send(b"x" * 78 + b"\r\n")
    try:
        for _ in range(3 * 2**20 // 80):
            c.send(b"x" * 78 + b"\r\n")
        c.send(b".\r\n")
    except OSError:
        raise AssertionError("the connection ended before the message") from None
    assert all(c.reply().startswith(b"552") for _ in range(100))
    assert c.deliver([b"good"], MESSAGE)[0].startswith(b"250")
    c.close()


def only_crlf_dot_crlf_ends_a_message():
    c = Lmtp(S.lmtp)
    m = b"Subject: smuggled\r\n\r\nx\n.\nMAIL FROM:<evil@x>\nRCPT TO:<good>\nDATA\nx\r.\r\n.\n\r\ny\r\n"
    assert c.deliver([b"full"], m)[0].startswith(b"250")
    c.send(b"NOOP\r\n")
    assert c.reply().startswith(b"250")
    c.close()
    c = Imap(S.imap, "full")
    assert c.select() == 1
    _, items = fetched(c.ok(b"FETCH 1 BODY.PEEK[]")[0])
    assert string(items[b"BODY[]"]).endswith(m), items
    c.logout()


def random_octets_never_stop_a_process():
    r = random.Random(7)
    words = [b"a", b"LOGIN", b"bad", b"pass", b"SELECT", b"INBOX", b"FETCH", b"1:*", b"(", b")", b"BODY[", b"]", b"{3+}\r\nabc", b"\r\n", b"\"", b"\\", b"*", b"%", b"&",
             b"UID", b"SEARCH", b"OR", b"NOT", b"STORE", b"+FLAGS", b"APPEND", b"{5}", b"USER", b"PASS", b"LIST", b"RETR", b"MAIL FROM:<>", b"RCPT TO:<bad>", b"DATA", b".", b"\0", b"\xff"]
    pids = {k: v for k, v in S.pids().items()}
    for n in range(150):
        port = (S.imap, S.pop3, S.lmtp, S.imaps)[n % 4]
        c = Stream(port, timeout=5 * SLOW)
        text = b" ".join(r.choice(words) if r.random() < 0.9 else r.randbytes(r.randrange(20)) for _ in range(r.randrange(200)))
        try:
            if n % 3 == 0:
                c.send({S.imap: b"a LOGIN bad pass\r\n", S.pop3: b"USER bad\r\nPASS pass\r\n", S.lmtp: b"LHLO x\r\n"}.get(port, b""))
            c.send(text + b"\r\n")
            c.sock.shutdown(socket.SHUT_WR)
            assert c.at_end()
        except OSError:
            pass
        c.close()
    assert S.pids() == pids, "a process ended"


def writes_fail(c, lmtp):
    """(status of an APPEND, reply of LMTP)"""
    m = b"Subject: none\r\n\r\n" + os.urandom(300000).hex().encode() + b"\r\n"
    tag = c.begin(b"APPEND INBOX {%d+}\r\n" % len(m) + m)
    return c.end(tag)[1], lmtp.deliver([b"full"], m)[0]


def fill(path):
    """Takes the rest of the file system."""
    with open(path, "wb", buffering=0) as f:
        for size in (65536, 4096, 1):
            try:
                while True:
                    f.write(b"\0" * size)
            except OSError:
                pass


def a_full_disk_refuses_mail_and_loses_none():
    if os.getuid() != 0:
        raise Skip("only root can mount a small file system")
    full = Server(workers=1)
    full.users = ["full"]
    os.mkdir(full.state)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", full.state], stderr=subprocess.DEVNULL).returncode:
        full.clean()
        raise Skip("cannot mount a small file system here")
    try:
        full.start()
        c, lmtp = Imap(full.imap, "full"), Lmtp(full.lmtp)
        for n in range(5):
            c.append(b"INBOX", MESSAGE + b"%d\r\n" % n)
        c.select()
        filler = os.path.join(full.state, "filler")
        fill(filler)
        status, reply = writes_fail(c, lmtp)
        if full.bucket:  # only caches are there
            assert status.startswith(b"OK [") and reply.startswith(b"250 "), (status, reply)
            c.ok(b"NOOP")
            for n in b"6", b"7":
                _, items = fetched(c.ok(b"FETCH %s (RFC822.SIZE)" % n)[-1])
                assert int(items[b"RFC822.SIZE"]) > 600000
        else:
            assert status.startswith(b"NO [") and reply.startswith((b"451", b"452")), (status, reply)
        _, created = c.command(b"CREATE more")  # so little may still fit
        assert created.startswith((b"NO [", b"OK")), created
        for n in range(5):  # reading goes on
            _, items = fetched(c.ok(b"FETCH %d (BODY.PEEK[])" % (n + 1))[0])
            assert string(items[b"BODY[]"]) == MESSAGE + b"%d\r\n" % n
        second = Imap(full.imap, "full")
        assert second.select() == (7 if full.bucket else 5)
        second.command(b"STORE 1 +FLAGS (\\Flagged)")
        second.logout()
        os.unlink(filler)

        def again():
            _, status = c.command(b"APPEND INBOX {%d+}\r\n" % len(MESSAGE) + MESSAGE)
            return status.startswith(b"OK")
        wait_for("mail to be taken again", again)
        assert lmtp.deliver([b"full"], MESSAGE)[0].startswith(b"250")
        c.ok(b"STORE 2 +FLAGS (\\Answered)")
        c.ok(b"NOOP")
        n = 9 if full.bucket else 7  # what was taken meanwhile
        assert c.select() == n
        time.sleep(1.2)
        want = c.ok(b"FETCH 1:* (UID FLAGS BODY.PEEK[])")
        c.logout()
        assert full.stop() == 0
        full.start()
        c = Imap(full.imap, "full")
        assert c.select() == n
        assert c.ok(b"FETCH 1:* (UID FLAGS BODY.PEEK[])") == want
        assert len(c.ok(b'LIST "" more')) == created.startswith(b"OK")
        c.logout()
        assert full.stop() == 0
        full.assert_log_is_clean(ignore="No space left|ENOSPC|\"imap command failed\"")
    finally:
        if full.proc and full.proc.poll() is None:
            full.stop()
        subprocess.run(["umount", full.state])
        full.clean()


def the_log_has_no_errors_and_the_server_stops():
    assert S.stop() == 0
    S.assert_log_is_clean()


TESTS = [
    commands_that_are_none_get_bad,
    twenty_bad_commands_in_a_row_end_the_session,
    bare_line_feeds_end_lines,
    literals_that_never_end_store_nothing,
    literals_beyond_the_limits_are_refused_and_skipped,
    command_lines_of_a_megabyte_are_refused,
    nesting_is_limited,
    deeply_nested_messages_are_borne,
    names_that_are_no_utf_7_are_refused,
    garbage_behind_starttls_is_discarded,
    what_is_not_tls_ends_on_tls_ports,
    a_half_closed_connection_gets_all_its_answers,
    slow_readers_cost_buffers_only,
    many_silent_connections_are_borne_and_closed_in_time,
    the_second_of_two_pop3_sessions_is_told,
    pop3_nonsense_gets_err,
    lmtp_nonsense_gets_its_code,
    lmtp_takes_so_many_recipients_and_octets_as_it_says,
    only_crlf_dot_crlf_ends_a_message,
    random_octets_never_stop_a_process,
    a_full_disk_refuses_mail_and_loses_none,
]


def and_others_are_served(test):
    def both():
        test()
        others_are_served()
    both.__name__ = test.__name__
    return both


if __name__ == "__main__":
    try:
        run_tests([culverd_starts] + [and_others_are_served(t) for t in TESTS] + [the_log_has_no_errors_and_the_server_stops], limit=60)
    finally:
        S.clean()
