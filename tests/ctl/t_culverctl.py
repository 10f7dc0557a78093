#!/usr/bin/env python3
"""culverctl, with culverd running and without: every command, its JSON and its exit status."""
import glob
import imaplib
import json
import os
import pty
import re
import shutil
import subprocess
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "lib"))
from server import BUILD, Server, run_tests  # noqa: E402

CORPUS = os.path.join(os.environ.get("top_srcdir", os.path.join(here, "..", "..")), "tests", "corpus")
S = Server(users=3)


def ctl(*args, expect=0, stdin=None):
    done = subprocess.run([os.path.join(BUILD, "culverctl"), "-c", S.conf, *args], input=stdin, capture_output=True, timeout=120)
    assert done.returncode == expect, "culverctl %s: %d\n%s%s" % (" ".join(args), done.returncode, done.stdout.decode("utf-8", "replace")[-2000:],
                                                                 done.stderr.decode("utf-8", "replace"))
    return done.stdout


def lines(*args):
    return [json.loads(x) for x in ctl("--json", *args).splitlines()]


def lines_of(*args, expect):
    return [json.loads(x) for x in ctl("--json", *args, expect=expect).splitlines()]


def keys():
    """The names of all objects of users."""
    return [x["key"] for x in lines("store", "list", S.prefix) if "u/" in x["key"]]


def files(directory):
    out = {}
    for path in glob.glob(os.path.join(directory, "**", "cur", "*"), recursive=True) + glob.glob(os.path.join(directory, ".*", "cur", "*")):
        with open(path, "rb") as f:
            out.setdefault(os.path.relpath(os.path.dirname(path), directory), []).append((os.path.basename(path).split(":2,")[1], f.read()))
    return {k: sorted(v) for k, v in out.items()}


def users_are_added_listed_and_removed():
    S.start()
    ctl("user", "add", "New.User", "--password-stdin", stdin=b"secret\n")
    assert "new.user" in [u["user"] for u in lines("user", "list")]
    ctl("user", "add", "new.user", "--password-stdin", stdin=b"x\n", expect=1)
    assert imaplib.IMAP4("127.0.0.1", S.imap).login("new.user", "secret")[0] == "OK"
    ctl("user", "passwd", "new.user", "--password-stdin", stdin=b"other\n")
    assert imaplib.IMAP4("127.0.0.1", S.imap).login("new.user", "other")[0] == "OK"
    ctl("user", "delete", "new.user")
    ctl("user", "delete", "new.user", expect=3)
    ctl("user", "passwd", "nobody", "--password-stdin", stdin=b"x\n", expect=3)


def wrong_usage_is_said():
    for args in ((), ("nonsense",), ("mailbox", "list"), ("fetch", "x"), ("check",), ("undelete", "user0", "--since", "yesterdayish"), ("who", "x")):
        ctl(*args, expect=2)
    ctl("mailbox", "status", "user0", "none", expect=3)
    ctl("fetch", "user0", "INBOX", "999", expect=3)
    ctl("dump", "u/000/none/root", expect=3)


def mailboxes_are_managed():
    ctl("mailbox", "create", "user0", "Work/Täglich", "--special-use", "Archive")
    ctl("mailbox", "create", "user0", "Work/Täglich", expect=1)
    boxes = {m["mailbox"]: m for m in lines("mailbox", "list", "user0")}
    assert set(boxes) == {"INBOX", "Work", "Work/Täglich"} and boxes["Work/Täglich"]["special_use"] == ["\\Archive"]
    ctl("mailbox", "rename", "user0", "Work", "Old")
    ctl("mailbox", "subscribe", "user0", "Old")
    assert {m["mailbox"]: m for m in lines("mailbox", "list", "user0")}["Old"]["subscribed"]
    ctl("mailbox", "delete", "user0", "Old/Täglich")
    assert lines("mailbox", "status", "user0", "Old")[0]["messages"] == 0
    ctl("mailbox", "delete", "user0", "INBOX", expect=1)


def make_maildir(top):
    for folder in ("", ".Entw&APw-rfe", ".a.b"):
        for sub in ("cur", "new", "tmp"):
            os.makedirs(os.path.join(top, folder, sub))
    def put(folder, name, text):
        with open(os.path.join(top, folder, "cur", name), "wb") as f:
            f.write(text)
    put("", "1.a:2,S", b"Subject: one\n\nseen\n")
    put("", "2.a:2,FRab", b"Subject: two\n\nflags and keywords\n")
    put(".a.b", "3.a:2,DT", b"Subject: three\r\n\r\ncrlf\r\n")
    with open(os.path.join(top, "dovecot-keywords"), "w") as f:
        f.write("0 $Label1\n1 work\n")


def a_maildir_goes_in_and_comes_out_the_same():
    src, out = os.path.join(S.dir, "maildir"), os.path.join(S.dir, "maildir.out")
    make_maildir(src)
    assert lines("import", "user1", src)[-1]["messages"] == 3
    boxes = {m["mailbox"]: m for m in lines("mailbox", "list", "user1")}
    assert set(boxes) == {"INBOX", "Entwürfe", "a", "a/b"} and boxes["INBOX"]["messages"] == 2, boxes
    msgs = {tuple(m["flags"]): m for m in lines("fetch", "user1", "INBOX")}
    assert msgs["\\Answered", "\\Flagged"]["keywords"] == ["$Label1", "work"], msgs
    assert ctl("fetch", "user1", "INBOX", "1") == b"Subject: one\r\n\r\nseen\r\n"
    ctl("export", "user1", out, "--format", "maildir")
    want = files(src)
    want[".a.b/cur"] = [(f, b.replace(b"\r\n", b"\n")) for f, b in want[".a.b/cur"]]
    assert files(out) == want, (files(out), want)


def an_mbox_goes_in_and_comes_out_the_same():
    path, first, second = (os.path.join(S.dir, n) for n in ("in.mbox", "first.mbox", "second.mbox"))
    with open(path, "w") as f:
        f.write("From a@b Sat Jan  3 01:05:34 1996\nSubject: 1\nStatus: RO\nX-Status: F\n\n>From the start\n>>From deeper\n\n"
                "From a@b Sat Jan  3 01:05:35 1996\nSubject: 2\n\nno end of line")
    assert lines("import", "user1", path, "--mailbox", "mbox")[-1]["messages"] == 2
    msgs = lines("fetch", "user1", "mbox")
    assert msgs[0]["flags"] == ["\\Flagged", "\\Seen"] and msgs[0]["date"] == 820631134, msgs
    assert ctl("fetch", "user1", "mbox", "1").endswith(b"\r\n\r\nFrom the start\r\n>From deeper\r\n")
    ctl("export", "user1", first, "--mailbox", "mbox")
    assert lines("import", "user1", first, "--mailbox", "again")[-1]["messages"] == 2
    for name in sorted(os.listdir(os.path.join(CORPUS, "mbox"))):
        ctl("import", "user1", os.path.join(CORPUS, "mbox", name), "--mailbox", "corpus", "--format", "mbox")
    assert len(lines("fetch", "user1", "corpus")) >= 4
    ctl("export", "user1", first, "--mailbox", "mbox", expect=1)      # nothing is overwritten


def parts_and_information():
    S.deliver(["user2"], b"Subject: =?utf-8?q?gr=C3=BCn?=\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\ntext\r\n--x\r\n"
              b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC/w==\r\n--x--\r\n")
    assert ctl("fetch", "user2", "INBOX", "1", "--part", "1") == b"text"
    assert ctl("fetch", "user2", "INBOX", "1", "--part", "2", "--decode") == b"\0\1\2\xff"
    ctl("fetch", "user2", "INBOX", "1", "--part", "3", expect=3)
    info = lines("fetch", "user2", "INBOX", "1")[0]
    assert ["Subject", "grün"] in info["headers"] and info["saved_as"]["envelope_to"] == "user2", info


def who_is_logged_in():
    c = imaplib.IMAP4("127.0.0.1", S.imap)
    c.login("user2", "pass")
    assert [w["user"] for w in lines("who") if w["protocol"] == "imap" and w["user"]].count("user2") == 1
    c.logout()


def expunged_mail_comes_back():
    c = imaplib.IMAP4("127.0.0.1", S.imap)
    c.login("user2", "pass")
    c.select()
    c.store("1:*", "+FLAGS", "\\Deleted")
    c.expunge()
    c.logout()
    assert [m["uid"] for m in lines("undelete", "user2", "--list")] == [1]
    assert lines("undelete", "user2", "--since", "1h")[0]["messages"] == 1
    assert [m["uid"] for m in lines("fetch", "user2", "INBOX")] == [2]


def check_and_gc_find_all_well():
    for u in ("user0", "user1", "user2"):
        assert lines("check", u, "--bodies")[-1]["damaged"] == 0
    ctl("check", "--all")
    ctl("gc", "--all", "--now")
    ctl("flush", "--all")
    ctl("check", "--all", "--bodies")


def a_scrub_takes_nobody_over_and_finds_all_well():
    def roots():
        return [ctl("dump", k) for k in keys() if k.endswith("/root")]
    epochs = roots()
    out = lines("scrub", "--all", "--bodies")
    for u in S.users:
        want = sum(m["messages"] for m in lines("mailbox", "list", u) if m["exists"])
        assert [x["messages"] for x in out if x["user"] == u] == [want], (u, want, out)
    assert not any(u[k] for u in out for k in ("missing", "damaged", "orphans", "bundles"))
    assert epochs == roots()


def a_scrub_goes_on_where_it_was_stopped():
    order = [u["user"] for u in lines("scrub", "--all")]
    resume = os.path.join(S.dir, "scrub.resume")
    with open(resume, "w") as f:
        f.write(order[0] + "\n")
    assert [u["user"] for u in lines("scrub", "--all", "--resume", resume)] == order[1:]
    assert not os.path.exists(resume)      # all done: the next run begins anew


def the_log_is_shown():
    records = [x for x in lines("log", "show", "user0") if "kind" not in x]
    assert records, "no records"
    assert b"segment" in ctl("log", "show", "user0")
    ctl("log", "show", expect=2)


def every_object_can_be_dumped():
    there = keys()
    assert any("/idx/user/" in k for k in there) and any("/m/" in k for k in there)
    for k in there:
        assert len(ctl("dump", k)) > 20
        for line in ctl("--json", "dump", k).splitlines():
            json.loads(line)


def the_same_without_culverd():
    assert S.stop() == 0
    assert {m["mailbox"] for m in lines("mailbox", "list", "user1")} >= {"INBOX", "mbox", "corpus"}
    ctl("who", expect=5)
    ctl("mailbox", "create", "user0", "Offline")
    ctl("check", "--all", "--bodies")
    S.start()
    assert "Offline" in [m["mailbox"] for m in lines("mailbox", "list", "user0")]


def message_objects_alone_bring_everything_back():
    before = {u: {(m["mailbox"], i["uid"], i["size"]) for m in lines("mailbox", "list", u) if m["exists"] for i in lines("fetch", u, m["mailbox"])}
              for u in ("user1", "user2")}
    S.stop()
    ctl("store", "delete", *[k for k in keys() if "/m/" not in k])
    shutil.rmtree(os.path.join(S.state, "nodes"), ignore_errors=True)
    ctl("rebuild", "--all")
    S.start()
    for u in before:
        after = {(m["mailbox"], i["uid"], i["size"]) for m in lines("mailbox", "list", u) if m["exists"] for i in lines("fetch", u, m["mailbox"])}
        moved = {x for x in before[u] if x not in after}
        assert not moved or u == "user2", (u, moved)    # user2's message has been undeleted: its object knows the UID it was saved under
        assert len(after) == len(before[u])
    ctl("check", "--all", "--bodies")
    ctl("rebuild", "user1", expect=1)       # there is a readable root
    S.stop()


def damage_is_found_and_named():
    path = sorted(glob.glob(os.path.join(S.state, "store", "u", "*", "user1", "m", "*")))[0]
    data = bytearray(open(path, "rb").read())
    data[-5] ^= 1
    open(path, "wb").write(data)
    for command in ("check", "scrub"):
        out = ctl(command, "user1", "--bodies", expect=4).decode()
        assert "user1" in out and "UID" in out and "damage" in out, out
    extra = os.path.join(os.path.dirname(path), "000000ff-00000002")
    shutil.copy(path, extra)
    os.utime(extra, (1, 1))
    out = lines_of("check", "user1", "--bodies", "--repair", expect=4)[-1]      # a repaired orphan does not make up for damage
    assert (out["damaged"], out["orphans"], out["repaired"], out["forgotten"]) == (1, 1, 1, 0) and not os.path.exists(extra), out
    orphan = os.path.join(os.path.dirname(path), "000000ff-00000001")
    os.rename(path, orphan)
    for command in ("check", "scrub"):
        out = ctl(command, "user1", expect=4).decode()
        assert "missing" in out and "of nobody" not in out.replace("0 of nobody", ""), out
    os.utime(orphan, (1, 1))
    assert [u["orphans"] for u in lines_of("scrub", "user1", expect=4) if "orphans" in u] == [1]
    out = lines("scrub", "user1", "--repair")[-1]
    assert (out["missing"], out["forgotten"], out["orphans"], out["repaired"]) == (1, 1, 1, 2), out
    assert not os.path.exists(orphan)
    assert not any(lines("scrub", "user1")[-1][k] for k in ("missing", "damaged", "orphans", "bundles"))
    index = sorted(glob.glob(os.path.join(S.state, "store", "u", "*", "user1", "idx", "user", "*")))[-1]
    os.rename(index, index + ".away")
    out = ctl("scrub", "user1", expect=4).decode()
    assert "culverctl rebuild user1" in out, out
    os.rename(index + ".away", index)
    ctl("check", "user1")


def message_keys(user):
    return [k for k in keys() if "/%s/m/" % user in k]


def a_scrub_names_all_that_is_lost_and_repairs_what_it_may():
    """While culverd serves the user."""
    if S.proc.poll() is not None:
        S.start()
    mail = b"From: a@example.org\r\nSubject: %d\r\n\r\nto be lost\r\n"
    old = message_keys("user0")
    c = imaplib.IMAP4("127.0.0.1", S.imap)
    c.login("user0", "pass")
    for name in ("lossy", "lossy2"):
        c.create(name)
    c.append("lossy", None, None, mail % 1)
    first = [k for k in message_keys("user0") if k not in old]
    c.append("lossy", None, None, mail % 2)
    second = [k for k in message_keys("user0") if k not in old + first]
    assert len(first) == len(second) == 1
    c.select("lossy")
    assert c.copy("1:2", "lossy2")[0] == "OK"
    ctl("flush", "user0")
    assert not lines("scrub", "user0", "--bodies")[-1]["missing"]
    ctl("store", "delete", *first)
    ctl("store", "put", *second, stdin=b"noise" * 100)
    found = [x["finding"] for x in lines_of("scrub", "user0", "--bodies", expect=4) if x.get("damage")]
    for mailbox in ("lossy", "lossy2"):
        for uid, key, what in ((1, first[0], "is missing"), (2, second[0], "is damaged: ")):
            want = "user user0 mailbox %s UID %d: object %s %s" % (mailbox, uid, key, what)
            assert sum(x.startswith(want) for x in found) == 1, (want, found)
    assert len(found) == 4, found
    out = ctl("scrub", "user0", "--bodies", "--repair", expect=4).decode()      # what is damaged stays, and is told
    assert "2 messages whose objects are gone were forgotten" in out and "2 missing, 2 damaged" in out, out
    last = lines_of("scrub", "user0", "--bodies", expect=4)[-1]
    assert (last["missing"], last["damaged"]) == (0, 2), last
    for mailbox in ("lossy", "lossy2"):
        c.select(mailbox)
        assert c.uid("SEARCH", "ALL")[1] == [b"2"], mailbox
        c.uid("STORE", "2", "+FLAGS", "(\\Deleted)")
        c.expunge()
    c.logout()
    ctl("flush", "user0")
    out = ctl("scrub", "user0", "--bodies", "--repair").decode()
    assert "0 missing, 0 damaged" in out, out


def orphans_of_a_served_user_are_deleted_by_who_serves():
    key = message_keys("user0")[0]
    orphan = os.path.join(S.state, "store", os.path.dirname(key), "000000ff-00000001")
    shutil.copy(os.path.join(S.state, "store", key), orphan)
    os.utime(orphan, (1, 1))
    c = imaplib.IMAP4("127.0.0.1", S.imap)
    c.login("user0", "pass")
    c.select("INBOX")
    out = ctl("scrub", "user0", "--repair").decode()
    assert "is served by node" in out and "1 objects of no message deleted" in out and not os.path.exists(orphan), out
    c.logout()


def on_a_terminal(*args):
    """(what the terminal on standard error showed, standard output)"""
    master, slave = pty.openpty()
    p = subprocess.Popen([os.path.join(BUILD, "culverctl"), "-c", S.conf, *args], stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    shown = b""
    while True:
        try:
            more = os.read(master, 65536)
        except OSError:     # the other side was closed
            break
        if not more:
            break
        shown += more
    os.close(master)
    out = p.stdout.read()
    assert p.wait(60) == 0, (shown, out)
    return shown.decode(), out.decode()


def users_in(out):
    return [x["user"] for x in map(json.loads, out) if "user" in x]     # findings have lines of their own


def a_scrub_that_is_killed_goes_on_and_shows_how_far_it_is():
    names = ["many%03d" % i for i in range(60 if S.bucket else 200)]     # a directory is faster
    S.add_users(names)
    for i in range(0, len(names), 20):
        assert all(r.startswith("250 ") for r in S.deliver(names[i:i + 20], "From: a@example.org\r\nSubject: one\r\n\r\nx\r\n"))
    ctl("flush", "--all")
    order = users_in(ctl("--json", "scrub", "--all").splitlines())
    assert set(names) <= set(order)
    resume, command = os.path.join(S.dir, "scrub.resume"), [os.path.join(BUILD, "culverctl"), "-c", S.conf, "--json", "scrub", "--all", "--bodies", "--resume"]
    seen, kills = [], 0
    while kills < 5:
        before = open(resume).read().strip() if os.path.exists(resume) else ""
        at = order.index(before) + 1 if before else 0
        if len(order) - at < 15:
            break
        p = subprocess.Popen([*command, resume], stdout=subprocess.PIPE)
        out = [p.stdout.readline() for _ in range(10)]
        p.kill()
        got = users_in(out + [x for x in p.stdout.read().splitlines() if x.endswith(b"}")])
        p.wait()
        if not os.path.exists(resume):
            assert got == order[at:]        # it was faster
            break
        assert got == order[at:at + len(got)], (before, got)
        kept = open(resume).read().strip()
        assert kept in got or kept == before, (kept, got)
        seen += got
        kills += 1
    assert kills > 0
    kept = open(resume).read().strip() if os.path.exists(resume) else ""
    rest = users_in(ctl("--json", "scrub", "--all", "--bodies", "--resume", resume).splitlines())
    assert rest == order[order.index(kept) + 1 if kept else 0:] and set(seen + rest) == set(order)
    assert not os.path.exists(resume)
    shown, out = on_a_terminal("scrub", "--all", "--bodies")
    bars = re.findall(r"\rusers \[(#*\.*)\] (\d+)/(\d+) \x1b\[K", shown)
    assert bars and all(len(b) == 40 and int(total) == len(order) for b, _, total in bars), shown
    done = [int(n) for _, n, _ in bars]
    assert done == sorted(done) and done[0] < len(order), done
    assert shown.endswith("\r\x1b[K") and "%d users" % len(order) in out and "\r" not in out, (shown[-200:], out)
    shown, out = on_a_terminal("--quiet", "scrub", "--all")
    assert not shown, shown
    p = subprocess.run([os.path.join(BUILD, "culverctl"), "-c", S.conf, "scrub", "--all"], capture_output=True, timeout=120)
    assert p.returncode == 0 and not p.stderr, p.stderr     # and not where it is no terminal


def the_settings_are_printed():
    assert b"worker_count" in ctl("config")


if __name__ == "__main__":
    try:
        run_tests([
            users_are_added_listed_and_removed, wrong_usage_is_said, mailboxes_are_managed, a_maildir_goes_in_and_comes_out_the_same,
            an_mbox_goes_in_and_comes_out_the_same, parts_and_information, who_is_logged_in, expunged_mail_comes_back,
            check_and_gc_find_all_well, a_scrub_takes_nobody_over_and_finds_all_well, a_scrub_goes_on_where_it_was_stopped, the_log_is_shown, every_object_can_be_dumped, the_same_without_culverd, message_objects_alone_bring_everything_back,
            *([] if S.bucket else [damage_is_found_and_named]),  # it changes files and their times
            a_scrub_names_all_that_is_lost_and_repairs_what_it_may, *([] if S.bucket else [orphans_of_a_served_user_are_deleted_by_who_serves]),
            a_scrub_that_is_killed_goes_on_and_shows_how_far_it_is,
            the_settings_are_printed,
        ])
    finally:
        S.clean()
