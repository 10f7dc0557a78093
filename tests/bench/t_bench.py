#!/usr/bin/env python3
"""culverbench against a culverd: every measurement runs without errors and counts what really happened."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from server import BUILD, Line, Server, run_tests  # noqa: E402

TOOL = os.path.join(BUILD, "bench", "culverbench")
S = Server(users=9)


def bench(*args, status=0):
    cmd = [TOOL, args[0], "--imap", str(S.imap), "--pop3", str(S.pop3), "--lmtp", str(S.lmtp), "--pid", str(S.proc.pid), "--user", "user%", "--first-user", "1"]
    r = subprocess.run(cmd + [str(x) for x in args[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert r.returncode == status, (r.returncode, r.stderr)
    return json.loads(r.stdout) if r.stdout else r.stderr


def messages(user):
    c = Line(S.imap)
    c.line()
    assert " OK " in c.imap("a", "LOGIN %s pass" % user)[-1]
    n = [x for x in c.imap("b", "STATUS INBOX (MESSAGES)") if "MESSAGES" in x]
    c.close()
    return int(n[0].split("MESSAGES")[1].strip(" )"))


def logins_are_counted():
    r = bench("login", "--users", 3, "--conns", 2, "--repeat", 4)
    assert r["n"] == 8 and r["errors"] == 0 and r["rate"] > 0, r


def every_delivery_that_is_counted_is_there():
    r = bench("lmtp", "--users", 3, "--conns", 4, "--size", 3000, "--repeat", 6)
    assert r["n"] == 24 and r["errors"] == 0, r
    assert sum(messages("user%d" % i) for i in (1, 2, 3)) == 24


def a_fill_has_the_words_to_be_found():
    r = bench("fill", "--first-user", 4, "--msgs", 80, "--multi", 25)
    assert r["n"] == 80 and r["errors"] == 0, r
    assert messages("user4") == 80
    r = bench("cmd", "--first-user", 4, "--repeat", 3, "--fresh", "FETCH 1:* (ENVELOPE)")
    assert r["n"] == 3 and r["untagged"] == 80 and r["errors"] == 0, r
    r = bench("cmd", "--first-user", 4, "SEARCH RETURN (COUNT) SUBJECT needle")
    c = Line(S.imap)
    c.line()
    c.imap("a", "LOGIN user4 pass")
    c.imap("b", "SELECT INBOX")
    assert "COUNT 1" in "".join(c.imap("c", "SEARCH RETURN (COUNT) SUBJECT needle")), "the 78th message has it"
    c.close()


def a_command_that_fails_is_an_error():
    r = bench("cmd", "--first-user", 4, "COPY 1:2 nowhere", status=1)
    assert r["errors"] == 1, r


def pop3_fetches_every_message():
    r = bench("pop3", "--first-user", 4)
    assert r["n"] == 80 and r["mb_s"] > 0, r


def notifications_arrive():
    r = bench("notify", "--first-user", 5, "--repeat", 3, "--settle", 0.05)
    assert r["n"] == 3 and r["errors"] == 0, r


def idle_memory_is_that_of_the_processes():
    r = bench("idle", "--first-user", 1, "--users", 8, "--conns", 8, "--settle", 0.1)
    assert r["n"] == 8 and r["processes_after"] >= 4 and r["pss_after"] > 1 << 20, r


def a_server_that_is_not_there_is_status_2():
    assert "connect" in bench("login", "--imap", 1, status=2)


TESTS = [logins_are_counted, every_delivery_that_is_counted_is_there, a_fill_has_the_words_to_be_found, a_command_that_fails_is_an_error,
         pop3_fetches_every_message, notifications_arrive, idle_memory_is_that_of_the_processes, a_server_that_is_not_there_is_status_2]

if __name__ == "__main__":
    try:
        S.start()
        run_tests(TESTS)
    finally:
        S.clean()
