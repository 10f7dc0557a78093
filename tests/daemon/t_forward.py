#!/usr/bin/env python3
"""Two servers on one store: sessions and mail for a user whom the other one has."""
import hashlib
import imaplib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from server import BUILD, SANITIZED, SLOW, TIMEOUT, Line, Server, free_ports, run_tests, tls_context, wait_for  # noqa: E402

# A node that closes locks all its users at once, more than that detector can count.
ENV = dict(os.environ, TSAN_OPTIONS="detect_deadlocks=0")
PORT_A, PORT_B = free_ports(2)
COMMON = "journal = store\n"
A = Server(extra=COMMON + "hostname = a.test\nlimits { failure_delay_max = 300ms }\nlisten node { address = 127.0.0.1 port = %d }\n" % PORT_A, workers=1, users=600)
B = Server(extra=COMMON + "hostname = b.test\nlisten node { address = 127.0.0.1 port = %d }\n" % PORT_B, workers=1, users=600, keeps=A.keeps)
# Lines that are as they should be once links are cut and servers killed.
EXPECTED = ("to the user's node|link to another node broke|link to the user's node broke|cannot be reached|could not be stored"
            "|handed to its node|process was killed|master process is gone|refused at the node port|mailbox cannot be opened")


def b_has(user):
    """Who is first has the user, until another takes over."""
    c = Line(B.imap)
    c.line()
    assert c.imap("a", "LOGIN %s pass" % user)[-1].startswith("a OK")
    c.close()
    return user


def kill(server):
    for pids in server.pids().values():
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    server.proc.kill()
    server.proc.wait()


def node_of(server):
    """The name its worker has among the nodes."""
    return re.findall(r"node=(\S+-w0) address=127.0.0.1:%d" % (PORT_A if server is A else PORT_B), A.log_text() + B.log_text())[-1]


def who(s):
    out = subprocess.run([os.path.join(BUILD, "culverctl"), "-c", s.conf, "who"], capture_output=True, text=True, check=True).stdout
    return [x for x in out.splitlines() if " imap " in x or " pop3 " in x]


def login(user, server=A, tls=False):
    c = imaplib.IMAP4_SSL("127.0.0.1", server.imaps, ssl_context=tls_context()) if tls else imaplib.IMAP4("127.0.0.1", server.imap)
    c.sock.settimeout(TIMEOUT)
    assert c.login(user, "pass")[0] == "OK"
    return c


def rss(server):
    pid = server.pids("worker")[("worker", 0)][0]
    with open("/proc/%d/smaps_rollup" % pid) as f:
        return int(re.search(r"Rss:\s+(\d+) kB", f.read()).group(1))


def both_start_with_one_key():
    A.start(env=ENV)
    os.makedirs(B.state, 0o700, exist_ok=True)
    shutil.copytree(os.path.join(A.state, "keys"), os.path.join(B.state, "keys"))
    B.start(env=ENV)
    for s, port in ((A, PORT_A), (B, PORT_B)):
        assert "protocol=node address=127.0.0.1:%d" % port in s.log_text()


def imap_is_passed_on_plain_and_with_tls():
    user = b_has("user1")
    for tls in (False, True):
        c = login(user, tls=tls)
        assert c.create("here%d" % tls)[0] == "OK"
        a, b = who(A), who(B)
        assert len(a) == 1 and user in a[0] and a[0].endswith(" to " + node_of(B)), a
        assert len(b) == 1 and user in b[0] and " from " in b[0], b
        assert a[0].split()[0] == b[0].split()[0]  # one session id on both
        assert c.logout()[0] == "BYE"
    wait_for("the sessions' end", lambda: not who(A) and not who(B))
    c = login(user, B)
    assert {x.split()[-1] for x in c.list()[1]} >= {b"here0", b"here1"}
    c.logout()
    c = login("user2")  # not B's
    assert c.list()[0] == "OK" and not who(B)
    c.logout()


def pop3_is_passed_on_and_shares_the_lock():
    user = b_has("user3")
    assert A.deliver([user], b"Subject: one\r\n\r\nx\r\n")[0].startswith("250 ")
    c = A.pop3_login(user, tls=True)
    assert c.cmd("STAT").startswith("+OK 1 ")
    d = Line(B.pop3)
    d.line()
    d.cmd("USER " + user)
    assert d.cmd("PASS pass").startswith("-ERR [IN-USE]")
    d.close()
    assert c.cmd("DELE 1").startswith("+OK") and c.cmd("QUIT").startswith("+OK")
    assert c.at_end()
    assert A.pop3_count(user) == 0


def commands_sent_together_with_the_login_are_answered_in_order():
    c = Line(A.imap)
    c.line()
    user = b_has("user4")
    n = 300
    c.send("a LOGIN %s pass\r\n" % user + "".join("n%d NOOP\r\nc%d CREATE box%d\r\n" % (i, i, i) for i in range(n)) + "z LOGOUT\r\n")
    assert c.line().startswith("a OK")
    for i in range(n):
        assert c.line().startswith("n%d OK" % i)
        assert c.line().startswith("c%d OK" % i)
    assert c.line().startswith("* BYE") and c.line().startswith("z OK")
    assert c.at_end()


def half_a_connection_is_half_there_too():
    user = b_has("user5")
    c = Line(A.imap)
    c.line()
    c.send("a LOGIN %s pass\r\nb LIST \"\" *\r\n" % user)
    c.until("a ")
    c.send("c NOOP\r\n")
    c.sock.shutdown(socket.SHUT_WR)
    assert c.until("c ")[-1].startswith("c OK")
    assert c.at_end()
    wait_for("the session's end", lambda: not who(A) and not who(B))


def idle_tells_of_mail_through_the_link():
    user = b_has("user6")
    c = Line(A.imap)
    c.line()
    c.imap("a", "LOGIN %s pass" % user)
    c.imap("b", "SELECT INBOX")
    assert c.cmd("c IDLE").startswith("+")
    for server in (B, A):
        assert server.deliver([user], b"Subject: news\r\n\r\n")[0].startswith("250 ")
        while not re.match(r"\* \d EXISTS", c.line()):
            pass
    c.send("DONE\r\n")
    assert c.until("c ")[-1].startswith("c OK")
    c.close()


def fifty_megabytes_come_back_as_they_were():
    user = b_has("user7")
    line = os.urandom(500).hex().encode()[:998] + b"\r\n"
    message = b"Subject: big\r\n\r\n" + b"".join(b"%08d" % i + line[8:] for i in range(50 * 1024))
    c = login(user)
    start = time.monotonic()
    assert c.append("INBOX", None, None, message)[0] == "OK"
    up = time.monotonic() - start
    c.select()
    start = time.monotonic()
    got = c.fetch("1", "(BODY.PEEK[])")[1][0][1]
    down = time.monotonic() - start
    assert hashlib.sha256(got).digest() == hashlib.sha256(message).digest()
    print("# 50 MB: APPEND %.2f s, FETCH %.2f s" % (up, down))
    for server, name in ((A, "through"), (B, "directly")):
        d = login(user, server)
        d.select()
        start = time.monotonic()
        d.fetch("1", "(BODY.PEEK[])")
        print("# FETCH %s: %.2f s" % (name, time.monotonic() - start))
        d.logout()
    c.logout()


def a_slow_reader_costs_neither_side_memory():
    user = "user7"
    before = rss(A), rss(B)
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    s.connect(("127.0.0.1", A.imap))
    s.settimeout(TIMEOUT)
    s.sendall(b"a LOGIN %s pass\r\nb SELECT INBOX\r\nc FETCH 1 (BODY.PEEK[])\r\nd FETCH 1 (BODY.PEEK[])\r\n" % user.encode())
    time.sleep(2 * SLOW)
    assert len(who(A)) == 1 and len(who(B)) == 1
    grown = rss(A) - before[0], rss(B) - before[1]
    print("# grown by %d and %d kB" % grown)
    if not SANITIZED:
        assert max(grown) < 12000, grown
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    got, tail = 0, b""
    while b"\r\nd OK" not in tail:
        more = s.recv(1 << 20)
        assert more, tail
        got += len(more)
        tail = (tail + more)[-200:]
    assert got > 2 * 50 * 1024 * 1000
    s.close()
    wait_for("the session's end", lambda: not who(A) and not who(B))


def a_client_that_vanishes_ends_the_session_over_there():
    user = b_has("user8")
    c = Line(A.imap)
    c.line()
    c.imap("a", "LOGIN %s pass" % user)
    c.cmd("b IDLE")
    assert len(who(B)) == 1
    c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
    c.close()
    wait_for("the session's end", lambda: not who(A) and not who(B))


def mail_to_users_here_and_there_is_stored_before_it_is_acknowledged():
    b_has("user9")
    rcpts = ["user9", "user10", "user9+x", "user11"]
    replies = A.deliver(rcpts, b"Subject: both\r\n\r\n.\r\nx\r\n")
    assert len(replies) == 4 and all(r.startswith("250 2.0.0 ") for r in replies), replies
    assert B.pop3_count("user9") == 2 and A.pop3_count("user10") == 1
    big = b"Subject: large\r\n\r\n" + b"0123456789abcdef\r\n" * 500000
    replies = A.deliver(["user9", "user10"], big)
    assert all(r.startswith("250 2.0.0 ") for r in replies), replies
    c = login("user9")
    c.select()
    assert c.fetch("3", "(BODY[])")[1][0][1].endswith(big)
    c.logout()
    assert A.log_text().count("mail stored") >= 3


def many_deliveries_share_one_link():
    users = [b_has("user%d" % i) for i in range(20, 40)]
    links = B.log_text().count("node.")
    failed = []

    def work(k):
        for i in range(10):
            r = A.deliver([users[(k + i) % 20]], b"Subject: %d %d\r\n\r\n" % (k, i) + b"x" * 60000 + b"\r\n")
            if not r[0].startswith("250 "):
                failed.append(r)
    threads = [threading.Thread(target=work, args=(k,)) for k in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed, failed
    assert sum(B.pop3_count(u) for u in users) == 160
    assert B.log_text().count("node.") - links < 5


def when_the_other_server_died_nothing_is_claimed_until_it_is_replaced():
    b_has("user12")
    A.deliver(["user12"], b"Subject: link is up\r\n\r\n")
    kill(B)
    replies = A.deliver(["user12", "user13"], b"Subject: away\r\n\r\n")
    assert replies[0].startswith("451 ") and replies[1].startswith("250 "), replies
    start = time.monotonic()
    c = Line(A.imap)
    c.line()
    c.sock.settimeout(40 * SLOW)
    assert c.imap("a", "LOGIN user12 pass")[-1].startswith("a OK")  # it waited
    print("# a login took %.1f s after the death of the user's server" % (time.monotonic() - start))
    assert "* 1 EXISTS" in c.imap("b", "SELECT INBOX")
    assert A.deliver(["user12"], b"Subject: again\r\n\r\n")[0].startswith("250 ")
    c.close()
    B.start(env=ENV)
    assert B.pop3_count("user12") == 2
    wait_for("the sessions' end", lambda: not who(A) and not who(B))


def a_login_waits_for_a_server_that_comes_back():
    b_has("user14")
    kill(B)
    c = Line(A.imap)
    c.line()
    c.send("a LOGIN user14 pass\r\nb NOOP\r\n")
    time.sleep(1)
    B.start(env=ENV)
    assert c.until("b ")[0].startswith("a OK")
    c.close()


def killing_the_owner_ends_the_session_and_not_the_server():
    user = b_has("user15")
    c = Line(A.imap)
    c.line()
    c.imap("a", "LOGIN %s pass" % user)
    c.cmd("b IDLE")
    pid = B.pids("worker")[("worker", 0)][0]
    os.kill(pid, signal.SIGKILL)
    assert c.at_end()
    wait_for("the worker again", lambda: B.pids("worker").get(("worker", 0), [pid]) != [pid])
    c = login(user)
    assert c.noop()[0] == "OK"
    assert A.deliver([user], b"Subject: after\r\n\r\n")[0].startswith("250 ")
    c.logout()


def killing_the_first_server_ends_the_session_at_the_owner():
    user = b_has("user16")
    c = Line(A.imap)
    c.line()
    c.imap("a", "LOGIN %s pass" % user)
    assert len(who(B)) == 1
    pid = A.pids("worker")[("worker", 0)][0]
    os.kill(pid, signal.SIGKILL)
    wait_for("the session's end", lambda: not who(B))
    wait_for("the worker again", lambda: A.pids("worker").get(("worker", 0), [pid]) != [pid])
    c.close()
    login(user).logout()


def stopping_either_server_says_bye():
    user = b_has("user17")
    for server in (B, A):
        c = Line(A.imap)
        c.line()
        c.imap("a", "LOGIN %s pass" % user)
        c.cmd("b IDLE")
        d = A.pop3_login(b_has("user18"))
        assert A.deliver([user], b"Subject: link is up\r\n\r\n")[0].startswith("250 ")
        start = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - start < 8 * SLOW
        assert any(x.startswith("* BYE [UNAVAILABLE] Server shutting down") for x in c.until("* BYE"))
        assert c.at_end()
        assert d.line().startswith("-ERR [SYS/TEMP]") and d.at_end()
        server.start(env=ENV)


def strangers_at_the_node_port_get_nothing():
    before = B.log_text().count("refused at the node port")
    login(b_has("user19")).logout()
    held = [socket.create_connection(("127.0.0.1", PORT_B)) for _ in range(40)]
    junk = [b"", b"\0", b"GET / HTTP/1.0\r\n\r\n", b"culvern1", b"culvern1" + os.urandom(64), os.urandom(5000), b"\x16\x03\x01" + os.urandom(500),
            b"culvern1" + b"\0" * 64]
    for data in junk * 5:
        s = socket.create_connection(("127.0.0.1", PORT_B))
        s.settimeout(TIMEOUT)
        try:
            s.sendall(data)
            got = s.recv(1) if len(data) > 8 else b""
        except ConnectionError:
            got = b""
        assert got == b""
        s.close()
    for s in held:
        s.settimeout(TIMEOUT)
        try:
            assert s.recv(1) == b""  # after its five seconds
        except ConnectionError:
            pass
        s.close()
    assert B.log_text().count("refused at the node port") - before <= 2
    c = login("user19")
    assert c.noop()[0] == "OK"
    c.logout()
    # More than may be there without a word: the rest is turned away, the server goes on.
    held = [socket.create_connection(("127.0.0.1", PORT_B)) for _ in range(300)]
    time.sleep(0.3)
    assert login("user19", B).noop()[0] == "OK"
    for s in held:
        s.close()
    login("user19").logout()


def idle_sessions_through_a_link_cost_little():
    n = 500
    users = [b_has("user%d" % i) for i in range(100, 100 + n)]

    def conns(server, users):
        out = []
        for u in users:
            c = Line(server.imap)
            c.line()
            c.send("a LOGIN %s pass\r\n" % u)
            out.append(c)
        for c in out:
            assert c.until("a ")[-1].startswith("a OK")
        for c in out:
            c.send("b SELECT INBOX\r\nc IDLE\r\n")
            c.until("+")
        return out
    # the users' own state is loaded by then, so that only the sessions count
    for c in conns(B, users):
        c.close()
    wait_for("the sessions' end", lambda: not who(B))
    for c in conns(A, users):  # and what a burst of logins costs in threads and freed memory is there
        c.close()
    wait_for("the sessions' end", lambda: not who(A) and not who(B))
    before = rss(A), rss(B)
    held = conns(A, users)
    time.sleep(1)
    after = rss(A), rss(B)
    per = [(y - x) / n for x, y in zip(before, after)]
    print("# per idle session: %.1f kB here, %.1f kB at the owner" % tuple(per))
    if not SANITIZED:
        assert per[0] < 12 and per[1] < 18, per
    assert len(who(A)) == n
    for server, how in ((A, "through the link"), (B, "directly")):
        c = Line(server.imap)
        c.line()
        c.imap("a", "LOGIN %s pass" % users[0])
        times = []
        for _ in range(500):
            start = time.monotonic()
            c.imap("b", "NOOP")
            times.append(time.monotonic() - start)
        print("# NOOP %s: %.0f us" % (how, sorted(times)[250] * 1e6))
        c.close()
    for c in held:
        c.close()
    wait_for("the sessions' end", lambda: not who(A) and not who(B))
    before = rss(B)
    held = conns(B, users)
    time.sleep(1)
    print("# per idle session that is not passed on: %.1f kB" % ((rss(B) - before) / n))
    for c in held:
        c.close()
    wait_for("the sessions' end", lambda: not who(B))


def both_stop_cleanly():
    assert A.stop() == 0 and B.stop() == 0
    A.assert_log_is_clean(EXPECTED)
    B.assert_log_is_clean(EXPECTED)


if __name__ == "__main__":
    try:
        run_tests([
            both_start_with_one_key,
            imap_is_passed_on_plain_and_with_tls,
            pop3_is_passed_on_and_shares_the_lock,
            commands_sent_together_with_the_login_are_answered_in_order,
            half_a_connection_is_half_there_too,
            idle_tells_of_mail_through_the_link,
            fifty_megabytes_come_back_as_they_were,
            a_slow_reader_costs_neither_side_memory,
            a_client_that_vanishes_ends_the_session_over_there,
            mail_to_users_here_and_there_is_stored_before_it_is_acknowledged,
            many_deliveries_share_one_link,
            idle_sessions_through_a_link_cost_little,
            strangers_at_the_node_port_get_nothing,
            when_the_other_server_died_nothing_is_claimed_until_it_is_replaced,
            a_login_waits_for_a_server_that_comes_back,
            killing_the_owner_ends_the_session_and_not_the_server,
            killing_the_first_server_ends_the_session_at_the_owner,
            stopping_either_server_says_bye,
            both_stop_cleanly,
        ], limit=90)
    finally:
        A.clean()
        B.clean()
