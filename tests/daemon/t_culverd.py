#!/usr/bin/env python3
"""A whole server: delivery and reading, TLS, logins, crashes, reload, stop."""
import base64
import imaplib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from server import CULVERD, SANITIZED, Line, Server, make_cert, retr, run_tests, tls_context, wait_for  # noqa: E402

S = Server(extra="limits { failure_delay_max = 300ms login_attempts = 3 }\n")


def worker_of(user, n=2):
    h = 14695981039346656037
    for b in user.encode():
        h = ((h ^ b) * 1099511628211) % 2**64
    return (h ^ h >> 32) % n


def one_of(worker):
    return next(u for u in S.users if worker_of(u) == worker)


def it_starts_and_says_where_it_listens():
    S.start()
    log = S.log_text()
    for proto, port in (("imap", S.imap), ("imaps", S.imaps), ("pop3", S.pop3), ("pop3s", S.pop3s), ("lmtp", S.lmtp)):
        assert "protocol=%s address=127.0.0.1:%d" % (proto, port) in log, log
    assert sorted(S.pids()) == [("auth", 0), ("gate", 0), ("worker", 0), ("worker", 1)]


def mail_to_users_of_all_workers_comes_back_as_it_was():
    text = b"Subject: dots\r\n\r\n.\r\n..two\r\nbare\nlf and \0 nul\r\n\r\n.end\r\n"
    rcpts = S.users + ["User0+detail@any.example"]
    replies = S.deliver(rcpts, text)
    assert len(replies) == len(rcpts) and all(r.startswith("250 2.0.0 ") for r in replies), replies
    for tls in (False, True):
        for user in S.users:
            c = S.pop3_login(user, tls=tls)
            assert c.cmd("STAT").split()[1] == ("2" if user == "user0" else "1")
            got = [retr(c, n + 1) for n in range(2 if user == "user0" else 1)]
            want = [b"Return-Path: <sender@example.org>\r\nDelivered-To: " + r.encode() + b"\r\n" + text
                    for r in rcpts if r.lower().split("+")[0] == user]
            assert sorted(got) == sorted(want), (got, want)
            assert c.cmd("QUIT").startswith("+OK")
            c.close()


def unknown_users_are_refused_at_rcpt():
    c = Line(0, path=S.run + "/lmtp.sock")
    c.line()
    c.send("LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<nobody@x>\r\nRCPT TO:<user1>\r\nDATA\r\n")
    c.until("250 SIZE")
    assert [c.line()[:9] for _ in range(4)] == ["250 2.1.0", "550 5.1.1", "250 2.1.5", "354 Send "]
    c.send("x\r\n.\r\nQUIT\r\n")
    assert [c.line()[:9] for _ in range(2)] == ["250 2.0.0", "221 2.0.0"]
    assert c.at_end()


def what_is_sent_behind_starttls_is_forgotten():
    c = Line(S.imap)
    assert "STARTTLS" in c.line()
    c.send("a STARTTLS\r\nb NOOP\r\nc LOGIN user1 pass\r\n")
    assert c.line().startswith("a OK")
    assert not c.buf
    c.start_tls()
    c.send("d CAPABILITY\r\n")
    lines = c.until("d ")
    assert lines[0].startswith("* CAPABILITY") and len(lines) == 2, lines
    assert "STARTTLS" not in lines[0] and "AUTH=PLAIN" in lines[0]
    c.close()
    c = Line(S.pop3)
    c.line()
    c.send("STLS\r\nUSER user1\r\n")
    assert c.line().startswith("+OK")
    c.start_tls()
    assert c.cmd("PASS pass").startswith("-ERR USER first")
    c.send("CAPA\r\n")
    capa = c.until(".")
    assert "STLS" not in capa and "SASL PLAIN" in capa, capa
    c.close()


def imap_speaks_before_the_login():
    c = Line(S.imap)
    greeting = c.line()
    assert greeting.startswith("* OK [CAPABILITY IMAP4rev1 ") and "AUTH=PLAIN" in greeting, greeting
    assert c.imap("a", "capability")[0].startswith("* CAPABILITY")
    assert c.imap("b", 'ID ("name" "test")')[0].startswith('* ID ("name" "Culver"')
    assert c.imap("c", "NOOP") == ["c OK Done"]
    assert c.imap("d", "ENABLE CONDSTORE")[-1].startswith("d BAD")
    assert c.imap("e", "SELECT INBOX")[-1].startswith("e BAD")
    assert c.cmd("nonsense").startswith("* BAD")
    assert c.cmd("f AUTHENTICATE PLAIN") == "+ "
    assert c.cmd("*").startswith("f BAD")
    assert c.cmd("g AUTHENTICATE PLAIN !!!").startswith("g BAD")
    assert c.cmd("h AUTHENTICATE CRAM-MD5").startswith("h NO")
    assert c.cmd('i LOGIN "user1"').startswith("i BAD")
    assert c.cmd("j LOGIN {9999}").startswith("* BYE")
    assert c.at_end()
    c = Line(S.imap)
    c.line()
    assert c.cmd("k LOGIN {5}") == "+ Go on"
    assert c.cmd("user1 {5+}\r\nwrong").startswith("k NO [AUTHENTICATIONFAILED]")
    assert c.imap("l", "LOGOUT") == ["* BYE Goodbye", "l OK Done"]
    assert c.at_end()


def imap_reads_what_lmtp_stored_with_and_without_tls():
    for tls in (False, True):
        c = imaplib.IMAP4_SSL("127.0.0.1", S.imaps, ssl_context=tls_context()) if tls else imaplib.IMAP4("127.0.0.1", S.imap)
        assert c.login("USER7", "pass")[0] == "OK"
        n = int(c.select("INBOX")[1][0])
        assert n > 0
        data = c.fetch("1", "(RFC822.SIZE BODY.PEEK[])")[1][0]
        assert data[1].startswith(b"Return-Path: <sender@example.org>\r\nDelivered-To: user7\r\n")
        big = b"Subject: big\r\n\r\n" + b"0123456789abcdef" * 65536 + b"\r\n"
        assert c.append("INBOX", None, None, big)[0] == "OK"
        c.noop()
        assert c.fetch(str(n + 1), "(BODY.PEEK[])")[1][0][1] == big
        assert c.logout()[0] == "BYE"
    assert imaplib.IMAP4("127.0.0.1", S.imap).authenticate("PLAIN", lambda _: b"\0user7\0pass")[0] == "OK"


def commands_pipelined_behind_the_login_reach_the_worker():
    c = Line(S.imap)
    c.line()
    c.send("a LOGIN user7 {4+}\r\npass\r\nb SELECT INBOX\r\nc LOGOUT\r\n")
    assert c.until("a ")[-1].startswith("a OK")
    assert c.until("b ")[-1].startswith("b OK")
    assert c.until("c ")[-1].startswith("c OK")
    assert c.at_end()


def idle_hears_of_a_delivery_at_once():
    c = Line(S.imaps, tls=True)
    c.line()
    c.imap("a", "LOGIN user6 pass")
    c.imap("b", "SELECT INBOX")
    assert c.cmd("c IDLE").startswith("+")
    start = time.monotonic()
    S.deliver(["user6"], "Subject: x\r\n\r\n")
    assert c.until("* ")[-1].endswith("EXISTS")
    print("# from the start of the delivery to EXISTS: %d ms" % ((time.monotonic() - start) * 1000))
    c.send("DONE\r\n")
    assert c.until("c ")[-1].startswith("c OK")
    c.close()


def pop3_takes_sasl():
    c = Line(S.pop3)
    c.line()
    assert c.cmd("AUTH PLAIN") == "+ "
    assert c.cmd(base64.b64encode(b"\0user1\0pass").decode()).startswith("+OK")
    assert c.cmd("QUIT").startswith("+OK")
    c = Line(S.pop3)
    c.line()
    assert c.cmd("AUTH PLAIN " + base64.b64encode(b"user2\0user1\0pass").decode()).startswith("-ERR [AUTH]")
    assert c.cmd("AUTH PLAIN " + base64.b64encode(b"user1\0user1\0pass").decode()).startswith("+OK")
    c.close()


def a_second_pop3_session_is_told_that_the_mailbox_is_in_use():
    a = S.pop3_login("user1")
    b = Line(S.pop3)
    b.line()
    b.cmd("USER user1")
    assert b.cmd("PASS pass").startswith("-ERR [IN-USE]")
    a.close()
    assert try_login("user1")


def after_quit_the_mailbox_is_free_at_once():
    for _ in range(40):
        c = Line(S.pop3)
        c.line()
        c.cmd("USER user3")
        reply = c.cmd("PASS pass")
        assert reply.startswith("+OK"), reply
        assert c.cmd("QUIT").startswith("+OK")
        c.close()


def try_login(user):
    try:
        S.pop3_login(user).close()
        return True
    except AssertionError:
        return False


def dele_counts_at_quit_only():
    S.deliver(["user3"] * 3, "Subject: x\r\n\r\n")
    before = S.pop3_count("user3")
    c = S.pop3_login("user3")
    assert c.cmd("DELE 1").startswith("+OK") and c.cmd("DELE 1").startswith("-ERR") and c.cmd("DELE 99").startswith("-ERR")
    c.close()
    c = S.pop3_login("user3")
    assert c.cmd("STAT").split()[1] == str(before)
    assert c.cmd("DELE 2").startswith("+OK") and c.cmd("RSET").startswith("+OK") and c.cmd("DELE 1").startswith("+OK")
    assert c.cmd("QUIT").startswith("+OK")
    assert c.at_end()
    assert S.pop3_count("user3") == before - 1


def wrong_passwords_are_answered_late_and_end_the_connection():
    c = Line(S.pop3)
    c.line()
    start = time.monotonic()
    for _ in range(3):
        c.cmd("USER user1")
        assert c.cmd("PASS wrong").startswith("-ERR [AUTH]")
    assert time.monotonic() - start > 0.8
    assert c.line().startswith("-ERR")
    assert c.at_end()


def a_changed_password_counts_at_once():
    assert try_login("user4")
    db = sqlite3.connect(S.state + "/users.db")
    with db:
        db.execute("UPDATE users SET hash = '*' WHERE name = 'user4'")
    assert not try_login("user4")
    S.add_users(["user4"])
    assert try_login("user4")
    with db:
        db.execute("UPDATE users SET enabled = 0 WHERE name = 'user4'")
    assert not try_login("user4")
    S.add_users(["user4"])
    db.close()


def descriptors(pid):
    found = {}
    for fd in os.listdir("/proc/%d/fd" % pid):
        try:
            found[int(fd)] = os.readlink("/proc/%d/fd/%s" % (pid, fd))
        except FileNotFoundError:
            pass
    return found


def listening_inodes():
    inodes = set()
    with open("/proc/net/tcp") as f:
        for row in f.readlines()[1:]:
            cols = row.split()
            if cols[3] == "0A" and int(cols[1].split(":")[1], 16) in (S.imap, S.imaps, S.pop3, S.pop3s, S.lmtp):
                inodes.add("socket:[%s]" % cols[9])
    return inodes


def no_process_has_descriptors_it_should_not():
    listening = listening_inodes()
    assert len(listening) == 5
    lock = os.path.join(S.state, "culverd.lock")
    for (role, index), (pid,) in S.pids().items():
        fds = descriptors(pid)
        others = [x for x in fds.values() if not x.startswith(("socket:", "anon_inode:"))]
        assert lock not in others, (role, others)
        assert (listening & set(fds.values()) == listening) == (role == "gate"), (role, fds)
        assert not any("memfd" in x for x in others), (role, others)
        if role == "gate":
            assert all(x == "/dev/null" or x == S.log or "/urandom" in x for x in others), others
    with open("/proc/%d/status" % S.pids("gate")[("gate", 0)][0]) as f:
        status = f.read()
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status or SANITIZED
    if os.geteuid() == 0 and not SANITIZED:
        assert "Uid:\t0" not in status
    before = {pid: len(descriptors(pid)) for pids in S.pids().values() for pid in pids}
    for n in range(150):
        c = S.pop3_login(S.users[n % 8], tls=n % 2 == 0)
        c.cmd("QUIT")
        assert c.at_end()
        c.close()
        S.deliver([S.users[n % 8]], "x\r\n") if n % 10 == 0 else None
    wait_for("descriptors to be closed", lambda: all(len(descriptors(p)) <= n + 4 for p, n in before.items()))


def two_thousand_silent_connections_are_borne():
    socks = []
    try:
        for n in range(2000):
            socks.append(socket.create_connection(("127.0.0.1", S.imap if n % 2 else S.imaps)))
        assert try_login("user0")
        gate = S.pids("gate")[("gate", 0)][0]
        rss = next(int(line.split()[1]) for line in open("/proc/%d/status" % gate) if line.startswith("VmRSS"))
        print("# gate with 2000 silent connections, half of them to the TLS port: %d KB" % rss)
        assert rss < 100000 or SANITIZED
    finally:
        for s in socks:
            s.close()


def a_slow_reader_of_a_large_message_costs_a_buffer():
    body = b"Subject: large\r\n\r\n" + (b"x" * 76 + b"\r\n") * 400000
    assert S.deliver(["user5"], body)[0].startswith("250 ")
    pid = S.pids("worker")[("worker", worker_of("user5"))][0]

    def rss():
        return next(int(line.split()[1]) for line in open("/proc/%d/status" % pid) if line.startswith("VmRSS"))
    for tls in (False, True):
        before = rss()
        c = S.pop3_login("user5", tls=tls)
        n = int(c.cmd("STAT").split()[1])
        c.send("RETR %d\r\n" % n)
        time.sleep(0.5)
        assert rss() - before < 8000, (before, rss())
        c.buf = b""
        c.line()
        size = len(c.buf)
        while not c.buf.endswith(b"\r\n.\r\n"):
            more = c.sock.recv(65536)
            size += len(more)
            c.buf = (c.buf + more)[-5:]
        assert size > len(body)
        c.cmd("QUIT")
        assert c.at_end()


def alive(pid):
    try:
        os.kill(pid, 0)
        return open("/proc/%d/stat" % pid).read().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def kill(role, index):
    pid = wait_for("a " + role, lambda: S.pids(role).get((role, index)))[0]
    os.kill(pid, signal.SIGKILL)
    wait_for("the end of %s" % role, lambda: not alive(pid))
    return wait_for("a new " + role, lambda: [p for p in S.pids(role).get((role, index), []) if p != pid])


def a_killed_worker_loses_no_mail_and_no_other_workers_sessions():
    victim, other = one_of(0), one_of(1)
    before = S.pop3_count(victim)
    for _ in range(10):
        assert S.deliver([victim, other], "Subject: x\r\n\r\n")[0].startswith("250 ")
    survivor = S.pop3_login(other)
    lost = S.pop3_login(victim)
    kill("worker", 0)
    assert lost.at_end()
    assert survivor.cmd("STAT").startswith("+OK")
    survivor.cmd("QUIT")
    survivor.close()
    assert S.deliver([victim], "Subject: x\r\n\r\n")[0].startswith("250 ")
    assert S.pop3_count(victim) == before + 11


def no_acknowledged_mail_is_lost_while_workers_are_killed():
    before = {u: S.pop3_count(u) for u in S.users}
    acked, sent, stop = {u: 0 for u in S.users}, {u: 0 for u in S.users}, threading.Event()

    def send(users):
        n = 0
        while not stop.is_set():
            n += 1
            rcpts = [users[n % len(users)], users[(n + 1) % len(users)]]
            for r in rcpts:
                sent[r] += 1
            try:
                for r, reply in zip(rcpts, S.deliver(rcpts, "Subject: %d\r\n\r\n" % n)):
                    acked[r] += reply.startswith("250 ")
            except (AssertionError, OSError, EOFError):
                pass
    threads = [threading.Thread(target=send, args=(S.users[i * 2:i * 2 + 2],)) for i in range(4)]
    for t in threads:
        t.start()
    try:
        for n in range(6):
            time.sleep(0.3)
            kill("worker", n % 2)
        time.sleep(0.3)
    finally:
        stop.set()
        for t in threads:
            t.join()
    after = {u: S.pop3_count(u) for u in S.users}
    print("# acknowledged %d of %d while workers were killed" % (sum(acked.values()), sum(sent.values())))
    assert sum(acked.values()) > 20
    for u in S.users:
        assert acked[u] <= after[u] - before[u] <= sent[u], (u, acked[u], sent[u], after[u] - before[u])


def a_killed_auth_process_comes_back():
    kill("auth", 0)
    assert wait_for("a login", lambda: try_login("user0"))
    assert S.deliver(["user0"], "x\r\n")[0].startswith("250 ")


def a_recipient_is_found_by_a_server_that_was_asleep():
    """More than the ten seconds that auth has for an answer; asleep is what a suspended machine is."""
    c = Line(S.lmtp)
    c.line()
    c.send("LHLO x\r\nMAIL FROM:<>\r\n")
    c.until("250 2.1.0")
    auth, workers = S.pids("auth")[("auth", 0)], [p for ps in S.pids("worker").values() for p in ps]
    for p in auth:
        os.kill(p, signal.SIGSTOP)
    c.send("RCPT TO:<user3>\r\n")
    time.sleep(0.5)
    for p in workers:
        os.kill(p, signal.SIGSTOP)
    time.sleep(10)
    for p in workers + auth:
        os.kill(p, signal.SIGCONT)
    assert c.line().startswith("250 2.1.5")
    c.cmd("QUIT")


def a_killed_gate_comes_back_and_plain_sessions_go_on():
    c = S.pop3_login("user2")
    kill("gate", 0)
    assert c.cmd("STAT").startswith("+OK")
    c.cmd("QUIT")
    assert wait_for("a login", lambda: connects() and try_login("user2"))


def connects():
    try:
        socket.create_connection(("127.0.0.1", S.pop3)).close()
        return True
    except ConnectionError:
        return False


def peer_cert():
    with tls_context().wrap_socket(socket.create_connection(("127.0.0.1", S.pop3s))) as s:
        return s.getpeercert(True)


def a_reload_brings_a_new_certificate_and_keeps_sessions():
    plain, secure = S.pop3_login("user1"), S.pop3_login("user2", tls=True)
    half = Line(S.pop3)
    half.line()
    half.cmd("USER user6")
    old, old_gate = peer_cert(), S.pids("gate")[("gate", 0)][0]
    S.cert, S.key = make_cert(S.dir, "second")
    S.write_conf()
    S.reload()
    wait_for("the new certificate", lambda: peer_cert() != old)
    assert plain.cmd("STAT").startswith("+OK") and secure.cmd("STAT").startswith("+OK")
    assert half.cmd("PASS pass").startswith("+OK")
    for c in (plain, secure, half):
        assert c.cmd("QUIT").startswith("+OK")
        assert c.at_end()
    wait_for("the old gate to end", lambda: not alive(old_gate))
    wait_for("one of each", lambda: all(len(p) == 1 for p in S.pids().values()) and len(S.pids()) == 4)
    assert try_login("user1")


def a_reload_with_mistakes_changes_nothing():
    with open(S.conf, "a") as f:
        f.write("wroker_count = 3\n")
    S.reload()
    wait_for("the complaint", lambda: "did you mean \\\"worker_count\\\"" in S.log_text())
    assert try_login("user1")
    S.write_conf()


def a_second_master_on_the_same_state_is_refused():
    r = subprocess.run([CULVERD, "-c", S.conf, "-f"], stderr=subprocess.PIPE, timeout=20)
    assert r.returncode == 1 and b"in use by another culverd" in r.stderr, r.stderr


def an_address_still_held_by_a_dying_process_is_waited_for():
    """A master that was killed is started again while its gate still has the sockets."""
    assert S.stop() == 0
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", S.imap))
    holder.listen()
    threading.Timer(1.0, holder.close).start()
    S.start()
    assert "address is in use: waiting" in S.log_text() and try_login("user1")


def a_stop_says_goodbye_and_loses_nothing():
    plain, secure, fresh = S.pop3_login("user1"), S.pop3_login("user2", tls=True), Line(S.imap)
    fresh.line()
    counts = {u: S.pop3_count(u) for u in S.users if u not in ("user1", "user2")}
    assert S.stop() == 0
    assert plain.line().startswith("-ERR [SYS/TEMP]") and secure.line().startswith("-ERR [SYS/TEMP]")
    assert fresh.line().startswith("* BYE")
    assert not os.path.exists(S.run + "/culverd.pid") and not os.path.exists(S.run + "/lmtp.sock")
    assert "killing them" not in S.log_text() and "cutting them off" not in S.log_text()
    S.workers = 3
    S.write_conf()
    S.start()
    assert {u: S.pop3_count(u) for u in counts} == counts


def mail_survives_a_crash_of_everything_and_fewer_workers():
    counts = {u: S.pop3_count(u) for u in S.users}
    for u in S.users:
        assert S.deliver([u], "Subject: last\r\n\r\n")[0].startswith("250 ")
    pids = [p for ps in S.pids().values() for p in ps]
    for p in [S.proc.pid] + pids:
        os.kill(p, signal.SIGKILL)
    S.proc.wait()
    wait_for("the end of all", lambda: not any(alive(p) for p in pids))
    S.workers = 1
    S.write_conf()
    S.start()
    assert {u: S.pop3_count(u) for u in S.users} == {u: n + 1 for u, n in counts.items()}


def children_end_when_their_master_is_killed():
    pids = [p for ps in S.pids().values() for p in ps]
    S.proc.kill()
    S.proc.wait()
    wait_for("the children", lambda: not any(alive(p) for p in pids))


def in_the_background_the_parent_waits_until_it_is_ready():
    r = subprocess.run([CULVERD, "-c", S.conf], stderr=open(S.log, "a"), timeout=60)
    assert r.returncode == 0
    pid = int(open(S.run + "/culverd.pid").read())
    assert try_login("user0")
    os.kill(pid, signal.SIGTERM)
    wait_for("the end", lambda: not alive(pid))


def systemd_is_told():
    path = S.dir + "/notify"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(path)
    sock.settimeout(20)
    S.start(env=dict(os.environ, NOTIFY_SOCKET=path))
    assert b"READY=1" in sock.recv(4096)
    assert S.stop() == 0
    assert b"STOPPING=1" in sock.recv(4096)


def without_tls_passwords_are_not_taken_when_they_must_not_be():
    S.extra += "auth { allow_plaintext = nowhere }\n"
    S.write_conf()
    S.start()
    c = Line(S.imap)
    assert "LOGINDISABLED" in c.line()
    assert c.cmd("a LOGIN user1 pass").startswith("a NO [PRIVACYREQUIRED]")
    assert c.cmd("b AUTHENTICATE PLAIN").startswith("b NO [PRIVACYREQUIRED]")
    p = Line(S.pop3)
    p.line()
    assert p.cmd("USER user1").startswith("-ERR") and p.cmd("AUTH PLAIN").startswith("-ERR")
    s = S.pop3_login("user1", tls=True)
    s.cmd("QUIT")
    S.stop()


def mistakes_in_the_settings_stop_the_start():
    with open(S.conf, "a") as f:
        f.write("limits {\n  messagesize = 3\n}\n")
    lines = sum(1 for _ in open(S.conf))
    r = subprocess.run([CULVERD, "-c", S.conf, "-f"], stderr=subprocess.PIPE, timeout=20)
    assert r.returncode == 1
    assert ("%s:%d: " % (S.conf, lines - 1)).encode() in r.stderr and b'did you mean "message_size"' in r.stderr, r.stderr


def a_start_that_cannot_work_ends_with_the_reason():
    S.write_conf()
    with open(S.conf, "a") as f:
        f.write("auth { database = %s }\n" % S.run)
    r = subprocess.run([CULVERD, "-c", S.conf, "-f"], stderr=subprocess.PIPE, timeout=60)
    assert r.returncode == 1 and b"auth cannot start" in r.stderr, r.stderr


def the_log_has_no_reports_of_sanitizers():
    log = S.log_text()
    for word in ("Sanitizer", "runtime error:", "culver: out of memory"):
        assert word not in log, log[max(0, log.index(word) - 200):][:3000]


TESTS = [
    it_starts_and_says_where_it_listens,
    mail_to_users_of_all_workers_comes_back_as_it_was,
    unknown_users_are_refused_at_rcpt,
    what_is_sent_behind_starttls_is_forgotten,
    imap_speaks_before_the_login,
    imap_reads_what_lmtp_stored_with_and_without_tls,
    commands_pipelined_behind_the_login_reach_the_worker,
    idle_hears_of_a_delivery_at_once,
    pop3_takes_sasl,
    a_second_pop3_session_is_told_that_the_mailbox_is_in_use,
    after_quit_the_mailbox_is_free_at_once,
    dele_counts_at_quit_only,
    wrong_passwords_are_answered_late_and_end_the_connection,
    a_changed_password_counts_at_once,
    no_process_has_descriptors_it_should_not,
    two_thousand_silent_connections_are_borne,
    a_slow_reader_of_a_large_message_costs_a_buffer,
    a_killed_worker_loses_no_mail_and_no_other_workers_sessions,
    no_acknowledged_mail_is_lost_while_workers_are_killed,
    a_killed_auth_process_comes_back,
    a_recipient_is_found_by_a_server_that_was_asleep,
    a_killed_gate_comes_back_and_plain_sessions_go_on,
    a_reload_brings_a_new_certificate_and_keeps_sessions,
    a_reload_with_mistakes_changes_nothing,
    a_second_master_on_the_same_state_is_refused,
    an_address_still_held_by_a_dying_process_is_waited_for,
    a_stop_says_goodbye_and_loses_nothing,
    mail_survives_a_crash_of_everything_and_fewer_workers,
    children_end_when_their_master_is_killed,
    in_the_background_the_parent_waits_until_it_is_ready,
    systemd_is_told,
    without_tls_passwords_are_not_taken_when_they_must_not_be,
    mistakes_in_the_settings_stop_the_start,
    a_start_that_cannot_work_ends_with_the_reason,
    the_log_has_no_reports_of_sanitizers,
]

if __name__ == "__main__":
    try:
        run_tests(TESTS)
    finally:
        S.clean()
