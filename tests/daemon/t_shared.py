#!/usr/bin/env python3
"""Two servers on one store: any of them takes any user, whoever has the user serves, and one that dies is replaced."""
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from server import BUILD, SLOW, Line, Server, run_tests, wait_for  # noqa: E402

COMMON = "journal = store\nlisten node { address = 127.0.0.1 }\n"
A = Server(extra=COMMON + "hostname = a.test\n", workers=2, users=40)
B = Server(extra=COMMON + "hostname = b.test\n", workers=1, users=40, keeps=A.keeps)
EXPECTED = "to the user's node|link to another node broke|link to the user's node broke|cannot be reached|could not be stored|handed to its node|process was killed|master process is gone"


def who(s):
    out = subprocess.run([os.path.join(BUILD, "culverctl"), "-c", s.conf, "who"], capture_output=True, text=True, check=True).stdout
    return [x for x in out.splitlines() if " imap " in x or " pop3 " in x]


def login(server, user):
    c = Line(server.imap)
    c.line()
    lines = c.imap("a", "LOGIN %s pass" % user)
    assert lines[-1].startswith("a OK"), lines
    return c


def exists(c):
    return next(int(x.split()[1]) for x in c.imap("s", "SELECT INBOX") if x.endswith(" EXISTS"))


def both_start_on_one_store():
    A.start()
    os.makedirs(B.state, 0o700, exist_ok=True)
    shutil.copytree(os.path.join(A.state, "keys"), os.path.join(B.state, "keys"))
    B.start()


def whoever_is_first_has_the_user_and_the_other_passes_on():
    for first, second, user in ((A, B, "user1"), (B, A, "user2")):
        c = login(first, user)
        d = login(second, user)
        assert len(who(first)) == 2 and " from " in "".join(who(first)), who(first)
        assert len(who(second)) == 1 and " to " in who(second)[0], who(second)
        exists(d)
        assert d.cmd("i IDLE").startswith("+")
        assert second.deliver([user], b"Subject: x\r\n\r\n")[0].startswith("250 ")
        assert d.until("* 1 EXISTS")
        assert exists(c) == 1
        c.close()
        d.close()
        wait_for("the end of sessions", lambda: not who(A) and not who(B))


def mail_given_to_both_at_once_is_all_there():
    failed = []

    def work(server, k):
        for i in range(20):
            users = ["user%d" % ((i + k) % 10 + 10), "user%d" % ((i + k) % 10 + 20)]
            r = server.deliver(users, b"Subject: %d %d\r\n\r\n" % (k, i) + b"x\r\n" * 3000)
            failed.extend(x for x in r if not x.startswith("250 "))
    threads = [threading.Thread(target=work, args=(s, k)) for k, s in enumerate((A, B, A, B))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed, failed
    assert sum(exists(login(s, "user%d" % n)) for n in range(10, 20) for s in (A, B)) == 160
    assert sum(exists(login(B, "user%d" % n)) for n in range(20, 30)) == 80


def a_server_that_dies_is_replaced_by_the_other():
    user = "user3"
    c = login(A, user)
    kept = 0
    for i in range(10):
        kept += A.deliver([user], b"Subject: %d\r\n\r\n" % i)[0].startswith("250 ")
    for pids in A.pids().values():
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    A.proc.kill()
    A.proc.wait()
    c.close()
    start = time.monotonic()
    while True:
        d = Line(B.imap)
        d.sock.settimeout(40 * SLOW)
        d.line()
        if d.imap("a", "LOGIN %s pass" % user)[-1].startswith("a OK"):
            break
        assert time.monotonic() - start < 60 * SLOW
    print("# B serves the user of A %.1f s after A's death" % (time.monotonic() - start))
    assert exists(d) == kept
    assert B.deliver([user], b"Subject: more\r\n\r\n")[0].startswith("250 ")
    A.start()
    e = login(A, user)
    assert exists(e) == kept + 1 and " to " in who(A)[0]
    e.close()
    d.close()


def a_server_that_stops_gives_its_users_to_the_other():
    user = "user4"
    c = login(A, user)
    A.deliver([user], b"Subject: x\r\n\r\n")
    assert A.stop() == 0
    c.close()
    start = time.monotonic()
    d = login(B, user)
    print("# login after the other's stop: %.2f s" % (time.monotonic() - start))
    assert exists(d) == 1
    d.close()
    A.start()


def both_stop_cleanly():
    assert A.stop() == 0 and B.stop() == 0
    A.assert_log_is_clean(EXPECTED)
    B.assert_log_is_clean(EXPECTED)


if __name__ == "__main__":
    try:
        run_tests([both_start_on_one_store, whoever_is_first_has_the_user_and_the_other_passes_on, mail_given_to_both_at_once_is_all_there,
                   a_server_that_dies_is_replaced_by_the_other, a_server_that_stops_gives_its_users_to_the_other, both_stop_cleanly], limit=90)
    finally:
        if os.environ.get("SHOW"):
            print(A.log_text()[-3500:], "--- B\n", B.log_text()[-3500:])
        A.clean()
        B.clean()
