#!/usr/bin/env python3
"""What operators do with two servers on one store: see the nodes, move users, empty a server, take over a dead one."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from server import BUILD, SLOW, Line, Server, free_ports, run_tests, wait_for  # noqa: E402

ENV = dict(os.environ, TSAN_OPTIONS="detect_deadlocks=0")
PORT_A, PORT_B = free_ports(2)
NODE = "journal = store\nlisten node { address = 127.0.0.1 port = %d }\n"
A = Server(extra=NODE % PORT_A + "hostname = a.test\n", workers=1, users=40)
B = Server(extra=NODE % PORT_B + "hostname = b.test\nmail_store { path = %s/store }\n" % A.state, workers=1, users=40)
MESSAGE = b"From: a@example.org\r\nSubject: number %d\r\n\r\nbody %d\r\n"
EXPECTED = ("to the user's node|link to another node broke|link to the user's node broke|cannot be reached|could not be stored|handed to its node"
            "|process was killed|master process is gone|refused at the node port|this node was taken over|has taken this one's users over|process ended")


def ctl(s, *args, status=0, text=None):
    p = subprocess.run([os.path.join(BUILD, "culverctl"), "-c", s.conf, *args], capture_output=True, text=True, input=text, env=ENV)
    assert p.returncode == status, (args, p.returncode, p.stdout, p.stderr)
    return p.stdout if status == 0 else p.stderr


def ctl_json(s, *args):
    return [json.loads(x) for x in ctl(s, "--json", *args).splitlines()]


def nodes(s=A):
    return {n["address"]: n for n in ctl_json(s, "node", "list")}


def node(server):
    return nodes()["127.0.0.1:%d" % (PORT_A if server is A else PORT_B)]


def where(user, s=A):
    return ctl_json(s, "user", "where", user)[0]


def login(user, server):
    c = Line(server.imap)
    c.line()
    assert c.imap("a", "LOGIN %s pass" % user)[-1].startswith("a OK")
    return c


def give(server, user, n=1, first=1):
    """The user is the server's, with n messages."""
    login(user, server).close()
    for i in range(first, first + n):
        assert server.deliver([user], MESSAGE % (i, i))[0].startswith("250 ")
    return user


def subjects(server, user):
    c = login(user, server)
    c.imap("b", "SELECT INBOX")
    lines = c.imap("c", "FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
    c.close()
    return [int(m.group(1)) for m in (re.match(r"Subject: number (\d+)", x) for x in lines) if m]


def both_start_and_are_listed():
    A.start(env=ENV)
    os.makedirs(B.state, 0o700, exist_ok=True)
    shutil.copytree(os.path.join(A.state, "keys"), os.path.join(B.state, "keys"))
    B.start(env=ENV)
    give(B, "user1")
    for s in (A, B):
        found = nodes(s)
        assert set(found) == {"127.0.0.1:%d" % PORT_A, "127.0.0.1:%d" % PORT_B}, found
        for n in found.values():
            assert n["state"] == "live" and 0 <= n["heartbeat_age"] < 9 and n["ttl_ms"] == 10000 and n["version"], n
            assert n["journal_floor"] >= 1 and len(n["incarnation"]) == 16
    wait_for("the load", lambda: node(B)["users"] == 1 and node(B)["journal_objects"] >= 1, 15 * SLOW)
    text = ctl(A, "node", "list")
    assert len(text.splitlines()) == 2 and all(" live " in x and " beat " in x and " users " in x for x in text.splitlines()), text


def where_a_user_is_can_be_asked_anywhere():
    give(B, "user2", 2)
    seen = [where("user2", s) for s in (A, B)]
    for w in seen:
        assert w["node"] == node(B)["node"] and w["state"] == "live" and w["address"].endswith(":%d" % PORT_B), w
        assert w["loaded"] and w["cached_bytes"] > 1000 and w["tail_bytes"] > 0 and w["epoch"] == 1, w
    assert seen[0]["incarnation"] == seen[1]["incarnation"] == node(B)["incarnation"]
    assert "user2: node %s (live) at 127.0.0.1:%d" % (node(B)["node"], PORT_B) in ctl(A, "user", "where", "user2")
    assert "no mail" in ctl(A, "user", "where", "nobody", status=3)
    assert "nobody" not in ctl(A, "dump", "nodes")


def admin_commands_work_on_any_backend():
    user = give(B, "user3", 3)
    assert "INBOX" in ctl(A, "mailbox", "list", user)
    ctl(A, "mailbox", "create", user, "Made/There")
    assert any(x["mailbox"] == "Made/There" for x in ctl_json(B, "mailbox", "list", user))
    assert "Subject: number 2" in ctl(A, "fetch", user, "INBOX", "2")
    big = os.path.join(A.dir, "big.eml")
    with open(big, "wb") as f:
        f.write(b"Subject: big\r\n\r\n" + b"0123456789abcdef" * 64 * 1024 * 3)
    ctl(A, "import", user, big, "--mailbox", "Made/There", "--format", "eml", "--exact")
    out = os.path.join(A.dir, "out")
    ctl(A, "export", user, out, "--mailbox", "Made/There", "--format", "maildir")
    files = [os.path.join(d, x) for d, _, names in os.walk(out) for x in names]
    with open(big, "rb") as f:
        want = f.read().replace(b"\r\n", b"\n")
    assert any(open(x, "rb").read() == want for x in files), files
    assert "4 messages, 0 damaged" in ctl(A, "check", user, "--bodies")
    c = login(user, B)
    c.imap("b", "SELECT INBOX")
    c.imap("c", "STORE 1 +FLAGS (\\Deleted)")
    assert c.imap("d", "EXPUNGE")[-1].startswith("d OK")
    assert "1 messages are back" in ctl(A, "undelete", user)
    c.close()
    assert sorted(subjects(A, user)) == [1, 2, 3]
    assert "record" in ctl(A, "log", "show", user) or ctl(A, "log", "show", user)
    assert ctl(A, "mailbox", "status", user, "nowhere", status=3)
    assert where(user)["node"] == node(B)["node"]


def a_user_moves_with_a_goodbye_to_its_sessions():
    user = give(B, "user4", 2)
    direct, passed_on = login(user, B), login(user, A)
    for c in (direct, passed_on):
        c.imap("b", "SELECT INBOX")
        c.cmd("c IDLE")
    before = where(user)
    assert node(A)["node"] in ctl(B, "user", "move", user, node(A)["node"])
    for c in (direct, passed_on):
        assert "* BYE [UNAVAILABLE]" in "\n".join(c.until("* BYE"))
        assert c.at_end()
    after = where(user)
    assert after["node"] == node(A)["node"] and after["epoch"] > before["epoch"], after
    assert subjects(B, user) == subjects(A, user) == [1, 2]
    assert where(user)["node"] == node(A)["node"]
    ctl(A, "user", "move", user, node(A)["node"])  # it is there
    assert where(user)["epoch"] == after["epoch"]
    ctl(A, "user", "move", user, node(B)["node"])  # away from here
    assert where(user)["node"] == node(B)["node"] and subjects(A, user) == [1, 2]
    assert "there is no node" in ctl(A, "user", "move", user, "nowhere", status=3)
    new = "user30"  # nobody's yet
    ctl(A, "user", "move", new, node(B)["node"])
    assert where(new)["node"] == node(B)["node"]


def flush_and_evict_reach_the_owner():
    user = give(B, "user5", 2)
    assert where(user)["tail_bytes"] > 0
    ctl(A, "user", "flush", user)
    assert where(user)["tail_bytes"] == 0 and where(user)["log_segment"] >= 1
    c = login(user, B)
    assert "sessions" in ctl(A, "user", "evict", user, status=5)
    c.close()
    wait_for("the session's end", lambda: where(user)["opened"] == 0)
    ctl(A, "user", "evict", user)
    assert where(user)["state"] == "released" and node(B)["state"] == "live"
    assert "nobody serves it" in ctl(A, "user", "where", user)
    ctl(A, "user", "evict", user)  # nobody has it
    give(B, "user9")
    ctl(B, "user", "flush", "--all")
    assert "left" in ctl(B, "user", "evict", "--all")
    assert where("user9")["state"] == "released"
    assert subjects(A, user) == [1, 2] and where(user)["node"] == node(A)["node"]


def objects_of_nodes_are_readable():
    give(B, "user6")
    name = node(B)["node"]
    d = ctl_json(A, "dump", "node/" + name)[0]
    assert d["kind"] == "node" and d["node"] == name and d["state"] == "live" and d["address"].endswith(str(PORT_B)) and d["journal_floor"] >= 1, d
    assert "state: live" in ctl(A, "dump", "node/" + name)
    ring = ctl_json(A, "dump", "nodes")
    assert ring[0] == {"kind": "ring", "nodes": 2} and {x["node"] for x in ring[1:]} == {node(A)["node"], node(B)["node"]}
    keys = [x["key"] for x in ctl_json(A, "store", "list", "journal/" + name + "/")]
    texts, pieces = [], []
    for k in keys:  # those below the floor go at the next heartbeat
        p = subprocess.run([os.path.join(BUILD, "culverctl"), "-c", A.conf, "--json", "dump", k], capture_output=True, text=True)
        if p.returncode == 3:
            continue
        pieces.append([json.loads(x) for x in p.stdout.splitlines()])
        texts.append(k)
    assert all(p[0]["kind"] == "journal" and p[0]["records"] == len(p) - 1 for p in pieces), pieces
    assert any(x.get("user") == "user6" and "change" in x for p in pieces for x in p[1:]), pieces
    assert "user6 epoch 1 record" in ctl(A, "dump", texts[-1])


def a_drained_server_has_no_users_and_gets_none():
    users = [give(B, "user%d" % i, 2) for i in range(10, 20)]
    sessions = [login(u, B) for u in users[:4]] + [login(u, A) for u in users[4:6]]
    for c in sessions:
        c.cmd("b IDLE")
    out = ctl(A, "node", "drain", node(B)["node"])
    assert "is drained" in out and "can be stopped" in out, out
    for c in sessions:
        assert "[UNAVAILABLE]" in c.until("* BYE")[-1]
    n = node(B)
    assert n["state"] == "draining" and n["users"] == 0, n
    for u in users[:5]:
        assert subjects(B, u) == [1, 2]  # through B, at A
        assert where(u)["node"] == node(A)["node"]
    assert B.deliver(users, MESSAGE % (3, 3)) and B.deliver(["user31"], MESSAGE % (1, 1))[0].startswith("250 ")
    for u in users + ["user31"]:
        assert where(u)["node"] == node(A)["node"], where(u)
    assert "INBOX" in ctl(B, "mailbox", "list", "user32") and where("user32")["node"] == node(A)["node"]
    assert node(B)["users"] == 0
    assert "draining" in ctl(A, "user", "move", "user31", node(B)["node"], status=1)
    assert "no other node" in ctl(A, "node", "drain", status=5) and node(A)["state"] == "live"
    start = time.monotonic()
    assert B.stop() == 0 and time.monotonic() - start < 3 * SLOW, time.monotonic() - start
    assert set(nodes()) == {"127.0.0.1:%d" % PORT_A}
    B.start(env=ENV)
    assert node(B)["state"] == "live"  # a new life takes users
    assert "is drained" in ctl(B, "node", "drain") and node(B)["state"] == "draining"
    assert "takes users again" in ctl(B, "node", "drain", "--undo") and node(B)["state"] == "live"
    give(B, "user33")
    assert where("user33")["node"] == node(B)["node"]


def while_stopped(server, run):
    """For less than its TTL, so that nobody takes it over."""
    wait_for("a heartbeat", lambda: node(server)["heartbeat_age"] <= 2, 15 * SLOW)
    pids = [p for ids in server.pids("worker").values() for p in ids]
    for p in pids:
        os.kill(p, signal.SIGSTOP)
    try:
        return run()
    finally:
        for p in pids:
            os.kill(p, signal.SIGCONT)


def an_owner_that_cannot_be_reached_is_named():
    user, name = give(B, "user20"), node(B)["node"]
    err = while_stopped(B, lambda: ctl(A, "mailbox", "list", user, status=5))
    assert name in err and "cannot be reached at 127.0.0.1:%d" % PORT_B in err and "node adopt" in err, err
    w = while_stopped(B, lambda: where(user))
    assert w["unreachable"] and w["node"] == name, w
    assert "INBOX" in ctl(A, "mailbox", "list", user)


def a_live_node_is_adopted_only_by_force_and_then_fenced():
    user = give(B, "user21", 3)
    name, life = node(B)["node"], node(B)["incarnation"]
    assert "lives" in ctl(A, "node", "adopt", name, status=5)
    assert node(B)["incarnation"] == life and where(user)["node"] == name
    start = time.monotonic()
    ctl(A, "node", "adopt", name, "--force")
    print("# fenced and taken over in %.1f s" % (time.monotonic() - start))
    wait_for("its new life", lambda: any(n["node"] == name and n["incarnation"] != life and n["state"] == "live" for n in nodes().values()), 30 * SLOW)
    assert subjects(A, user) == [1, 2, 3]
    assert "no node" in ctl(A, "node", "adopt", "nowhere", status=3) and "this very node" in ctl(A, "node", "adopt", node(A)["node"], status=1)


def a_dead_node_is_adopted_at_once():
    users = [give(B, "user%d" % i, 2) for i in range(22, 28)]
    name = node(B)["node"]
    for p in [p for l in B.pids().values() for p in l]:
        os.kill(p, signal.SIGKILL)
    B.proc.kill()
    B.proc.wait()
    start = time.monotonic()
    out = ctl(A, "node", "adopt", name)
    took = time.monotonic() - start
    print("# taken over %.1f s after its death" % took)
    assert took < 20 * SLOW and "is taken over" in out, out
    for u in users:
        assert subjects(A, u) == [1, 2], u
    assert set(nodes()) == {"127.0.0.1:%d" % PORT_A}
    assert "has ended" in ctl(A, "node", "adopt", name)


def one_address_does_not_take_all_places_of_strangers():
    socks = [socket.create_connection(("127.0.0.1", PORT_A)) for _ in range(40)]
    time.sleep(0.5 * SLOW)
    closed = 0
    for s in socks:
        s.setblocking(False)
        try:
            closed += s.recv(1) == b""
        except BlockingIOError:
            pass
        except ConnectionError:
            closed += 1
    assert closed == 8, closed
    for s in socks:
        s.close()
    assert "from one address" in A.log_text()


def without_a_server_the_nodes_are_listed_and_none_is_made():
    assert A.stop() == 0
    before = ctl_json(A, "store", "list", "node/")
    assert ctl_json(A, "node", "list") == [] and "No node" in subprocess.run([os.path.join(BUILD, "culverctl"), "-c", A.conf, "node", "list"], capture_output=True, text=True).stderr
    assert [x["key"] for x in ctl_json(A, "store", "list", "node/")] == [x["key"] for x in before]
    assert where("user22")["state"] == "released"
    A.assert_log_is_clean(EXPECTED)
    B.assert_log_is_clean(EXPECTED)


if __name__ == "__main__":
    try:
        run_tests([
            both_start_and_are_listed,
            where_a_user_is_can_be_asked_anywhere,
            admin_commands_work_on_any_backend,
            a_user_moves_with_a_goodbye_to_its_sessions,
            flush_and_evict_reach_the_owner,
            objects_of_nodes_are_readable,
            a_drained_server_has_no_users_and_gets_none,
            an_owner_that_cannot_be_reached_is_named,
            a_live_node_is_adopted_only_by_force_and_then_fenced,
            a_dead_node_is_adopted_at_once,
            one_address_does_not_take_all_places_of_strangers,
            without_a_server_the_nodes_are_listed_and_none_is_made,
        ], limit=90)
    finally:
        A.clean()
        B.clean()
