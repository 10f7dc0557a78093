#!/usr/bin/env python3
"""Real clients read and write mail: curl, mbsync, mutt, fetchmail, Python's imaplib and poplib."""
import hashlib
import imaplib
import os
import poplib
import pty
import random
import re
import select
import shutil
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib"), HERE]
import mailgen  # noqa: E402
from server import SLOW, TIMEOUT, Line, Server, Skip, run_tests, wait_for  # noqa: E402
from wire import Imap, Lmtp  # noqa: E402

S = Server()
S.users = ["curl", "syncer", "mutt", "fetch-imap", "fetch-pop", "lib", "pop", "quiet"]
WORK = os.path.join(S.dir, "clients")
ENV = dict(os.environ, HOME=WORK, LC_ALL="C.UTF-8", TERM="vt100", FETCHMAILHOME=WORK, TMPDIR=WORK)
SIMPLE = b"From: ann@example.org\r\nTo: bob@example.org\r\nSubject: %s\r\nDate: Mon, 6 Jul 2026 10:00:00 +0000\r\nMessage-ID: <%s@example.org>\r\n\r\nHello %s\r\n.\r\n..dots\r\n"


def simple(name):
    name = name.encode()
    return SIMPLE % (name, name, name)


def run(args, ok=(0,), stdin=None):
    """Output of a program that ends well."""
    if not shutil.which(args[0]):
        raise Skip(args[0] + " is not installed")
    p = subprocess.run(args, input=stdin, stdin=subprocess.DEVNULL if stdin is None else None, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, env=ENV, cwd=WORK, timeout=60 * SLOW)
    assert p.returncode in ok, "%r ended with %d: %s" % (args, p.returncode, p.stdout.decode(errors="replace")[-3000:])
    return p.stdout


def run_on_terminal(args, until=None):
    """What a program shows on a terminal until it ends well; "x" is typed once until() is true."""
    if not shutil.which(args[0]):
        raise Skip(args[0] + " is not installed")
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(WORK)
        os.execvpe(args[0], args, ENV)
    screen, end = b"", time.monotonic() + TIMEOUT
    try:
        while True:
            assert time.monotonic() < end, "%s does not end: %r" % (args[0], screen[-2000:])
            if select.select([fd], [], [], 0.1)[0]:
                try:
                    screen += os.read(fd, 65536)
                except OSError:
                    break
            if until and until():
                os.write(fd, b"x")
                until = None
    except BaseException:
        os.kill(pid, 9)
        raise
    finally:
        os.close(fd)
        status = os.waitpid(pid, 0)[1]
    assert status == 0, (args, status, screen[-2000:])
    return screen


def write(name, data, mode=0o600):
    path = os.path.join(WORK, name)
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())
    os.chmod(path, mode)
    return path


def deliver(user, messages):
    c = Lmtp(S.lmtp)
    for m in messages:
        assert c.deliver([user], m)[0].startswith(b"250")
    c.close()


def added(user):
    return b"Return-Path: <sender@example.org>\r\nDelivered-To: %s\r\n" % user.encode()


def stored(user, mailbox=b"INBOX"):
    """{uid: (flags, message)}"""
    c = Imap(S.imap, user)
    found = {}
    if c.select(mailbox, b"EXAMINE"):
        for r in c.ok(b"UID FETCH 1:* (FLAGS BODY.PEEK[])"):
            m = re.match(rb"\* \d+ FETCH \(UID (\d+) FLAGS \((.*?)\) BODY\[\] \{(\d+)\}\r\n", r)
            if m:
                found[int(m.group(1))] = (set(m.group(2).split()), r[m.end():-1])
    c.logout()
    return found


def sha(data):
    return hashlib.sha256(data).hexdigest()


def culverd_starts():
    S.start()
    os.mkdir(WORK)


# --- curl ---

def curl(url, *args):
    return run(["curl", "-sS", "-4", "--fail", "--max-time", "%d" % (30 * SLOW), "--cacert", S.cert, "-u", "curl:pass", *args, url])


def imap_urls():
    return ("imaps://localhost:%d" % S.imaps, []), ("imap://localhost:%d" % S.imap, ["--ssl-reqd"]), ("imap://localhost:%d" % S.imap, [])


def curl_uploads_and_reads_back_over_imap_imaps_and_starttls():
    for n, (url, opts) in enumerate(imap_urls()):
        m = simple("upload%d" % n)
        curl(url + "/INBOX", *opts, "-T", write("up.eml", m))
        assert curl(url + "/INBOX;MAILINDEX=%d" % (n + 1), *opts) == m
        assert curl(url + "/INBOX;UID=%d" % (n + 1), *opts) == m
        assert curl(url + "/INBOX;UID=%d;SECTION=TEXT" % (n + 1), *opts) == m[m.index(b"\r\n\r\n") + 4:]
        assert curl(url + "/INBOX;MAILINDEX=%d;SECTION=HEADER.FIELDS%%20(SUBJECT)" % (n + 1), *opts) == b"Subject: upload%d\r\n\r\n" % n


def curl_lists_searches_and_sets_flags():
    for url, opts in imap_urls():
        out = curl(url + "/", *opts)
        assert re.search(rb'^\* LIST \(.*\) "/" "?INBOX"?\r\n', out, re.M), out
        assert curl(url + "/INBOX?SUBJECT%20upload1", *opts) == b"* SEARCH 2\r\n"
        assert b"MESSAGES 3" in curl(url + "/", *opts, "-X", "STATUS INBOX (MESSAGES UIDNEXT)")
        assert b"\\Flagged" in curl(url + "/INBOX", *opts, "-X", "STORE 2 +FLAGS (\\Flagged)")
        assert curl(url + "/INBOX?FLAGGED", *opts) == b"* SEARCH 2\r\n"


def curl_reads_and_deletes_over_pop3_pop3s_and_stls():
    sent = [simple("upload%d" % n) for n in range(3)]
    for url, opts in (("pop3s://localhost:%d" % S.pop3s, []), ("pop3://localhost:%d" % S.pop3, ["--ssl-reqd"]), ("pop3://localhost:%d" % S.pop3, [])):
        assert curl(url + "/", *opts) == b"".join(b"%d %d\r\n" % (n + 1, len(m)) for n, m in enumerate(sent))
        for n, m in enumerate(sent):
            assert curl(url + "/%d" % (n + 1), *opts) == m
        uidl = curl(url + "/", *opts, "-X", "UIDL").split(b"\r\n")
        assert len(uidl) == len(sent) + 1 and len(set(uidl)) == len(sent) + 1
        assert curl(url + "/", *opts, "-X", "TOP 1 0").startswith(sent[0][:sent[0].index(b"\r\n\r\n") + 4])
        curl(url + "/1", *opts, "-I", "-X", "DELE")
        sent = sent[1:]
        wait_for("the deletion", lambda: len(stored("curl")) == len(sent))


def curl_is_told_of_a_wrong_password():
    args = ["curl", "-sS", "-4", "--cacert", S.cert, "-u", "curl:wrong", "imaps://localhost:%d/INBOX" % S.imaps]
    assert b"Login denied" in run(args, ok=(67,))


# --- mbsync ---

MBSYNCRC = """IMAPAccount a
Host localhost
Port %d
User syncer
Pass pass
SSLType %s
CertificateFile %s
AuthMechs LOGIN
Timeout %d

IMAPStore far
Account a

MaildirStore near
Path %s/
Inbox %s/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
Sync All
SyncState *
"""
NOTHING = b"+0 *0 #0"


def mbsync(starttls=False):
    """Counts of changes "+new *flags #gone" on the far and the near side."""
    maildir = os.path.join(WORK, "Maildir")
    os.makedirs(maildir, exist_ok=True)
    conf = write("mbsyncrc", MBSYNCRC % (S.imap if starttls else S.imaps, "STARTTLS" if starttls else "IMAPS", S.cert, 60 * SLOW, maildir, maildir))
    screen = run_on_terminal(["mbsync", "-c", conf, "all"])  # the totals are for terminals only
    # C: 1/1  B: 3/3  F: +0/0 *0/0 #0/0  N: +3/3 *0/0 #0/0
    m = re.findall(rb"C: 1/1  B: (\d+)/\1  F: \+(\d+)/\2 \*(\d+)/\3 #(\d+)/\4  N: \+(\d+)/\5 \*(\d+)/\6 #(\d+)/\7", screen)
    assert m, screen
    return b"+%s *%s #%s" % m[-1][1:4], b"+%s *%s #%s" % m[-1][4:7]


def maildir_messages(folder):
    """{path: bytes with CRLF, without mbsync's own X-TUID}"""
    found = {}
    for sub in ("cur", "new"):
        d = os.path.join(WORK, "Maildir", folder, sub)
        for name in os.listdir(d):
            with open(os.path.join(d, name), "rb") as f:
                data = f.read().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            found[os.path.join(d, name)] = re.sub(rb"(?m)^X-TUID: [^\r]*\r\n", b"", data, count=1)
    return found


def mbsync_pulls_everything_and_then_nothing():
    r = random.Random(4)
    texts = [m for m in (mailgen.message(r) for _ in range(60)) if b"\0" not in m and m[:1] != b"\r"]
    deliver("syncer", texts[:20])
    c = Imap(S.imap, "syncer")
    for name, part in ((b"Work/Project", texts[20:40]), (b"Entw&APw-rfe", texts[40:])):
        c.ok(b"CREATE " + name)
        for m in part:
            c.append(name, m, b"\\Seen" if len(m) % 2 else b"")
    c.logout()
    far, near = mbsync()
    assert (far, near) == (NOTHING, b"+%d *0 #0" % len(texts)), (far, near)
    assert mbsync() == (NOTHING, NOTHING)
    assert mbsync(starttls=True) == (NOTHING, NOTHING)
    for folder, part, head in (("INBOX", texts[:20], added("syncer")), ("Work/Project", texts[20:40], b""), ("Entw&APw-rfe", texts[40:], b"")):
        want = sorted(sha(head + m) for m in part)
        assert sorted(sha(m) for m in maildir_messages(folder).values()) == want, folder
        for path, m in maildir_messages(folder).items():
            seen = "S" in path.rsplit(":2,", 1)[-1] if ":2," in path else False
            assert seen == (not head and len(m) % 2 == 1), path


def retag(path, flags):
    d, name = os.path.split(path)
    new = os.path.join(os.path.dirname(d), "cur", name.split(":2,")[0] + ":2," + flags)
    os.rename(path, new)


def mbsync_carries_changes_both_ways_and_then_nothing():
    inbox = sorted(maildir_messages("INBOX").items())
    before = stored("syncer")
    retag(inbox[0][0], "FS")
    retag(inbox[1][0], "ST")
    new = simple("from-maildir")
    os.makedirs(os.path.join(WORK, "Maildir", "Local", "new"))
    os.makedirs(os.path.join(WORK, "Maildir", "Local", "cur"))
    os.makedirs(os.path.join(WORK, "Maildir", "Local", "tmp"))
    for folder in ("INBOX", "Local"):
        write("Maildir/%s/new/1784000000.%s.host" % (folder, folder), new.replace(b"\r\n", b"\n"))
    # meanwhile at the server: one flagged, one expunged, one delivered
    untouched = [uid for uid, (_, m) in before.items() if m not in (inbox[0][1], inbox[1][1])]
    c = Imap(S.imap, "syncer")
    c.select()
    c.ok(b"UID STORE %d +FLAGS (\\Answered)" % untouched[0])
    c.ok(b"UID STORE %d +FLAGS (\\Deleted)" % untouched[1])
    c.ok(b"UID EXPUNGE %d" % untouched[1])
    c.logout()
    deliver("syncer", [simple("from-server")])
    far, near = mbsync()
    # one that goes counts as a change of flags
    assert far == b"+2 *2 #0" and near == b"+1 *2 #0", (far, near)
    assert mbsync() == (NOTHING, NOTHING)
    after = stored("syncer")
    assert len(after) == len(before) - 2 + 2
    assert set(before) - set(after) == {untouched[1]} | {u for u, (_, m) in before.items() if m == inbox[1][1]}
    assert [f for f, m in after.values() if m == inbox[0][1]] == [{b"\\Flagged", b"\\Seen"}]
    assert all(re.sub(rb"X-TUID: [^\r]*\r\n", b"", m) == new for _, m in stored("syncer", b"Local").values())
    assert sorted(sha(re.sub(rb"(?m)^X-TUID: [^\r]*\r\n", b"", m)) for _, m in after.values()) == sorted(sha(m) for m in maildir_messages("INBOX").values())
    answered = [p for p, m in maildir_messages("INBOX").items() if m == before[untouched[0]][1]]
    assert len(answered) == 1 and answered[0].endswith(":2,R"), answered


# --- mutt ---

MUTTRC = """set imap_user=mutt imap_pass=pass ssl_starttls=yes ssl_force_tls=yes certificate_file=%s
set folder="%s" spoolfile="%s" record="" postponed="" header_cache=""
set confirmappend=no confirmcreate=no copy=no delete=yes quit=yes resolve=no wait_key=no sleep_time=0 mark_old=no pipe_decode=no
set mail_check=1 timeout=2 imap_idle=%s
"""


def mutt(url, keys, idle="no", until=None):
    """Runs mutt on a terminal with keys pushed; until(): when to push quit ourselves."""
    rc = write("muttrc", MUTTRC % (S.cert, url, url + "/INBOX", idle))
    return run_on_terminal(["mutt", "-n", "-F", rc, "-f", url + "/INBOX", "-e", "push '%s'" % keys], until)


def mutt_reads_a_message_and_saves_copies_here_and_there():
    sent = [simple("mutt%d" % n) for n in range(3)]
    deliver("mutt", sent)
    for n, url in enumerate(("imaps://localhost:%d" % S.imaps, "imap://localhost:%d" % S.imap)):
        out, box, folder = os.path.join(WORK, "piped%d" % n), os.path.join(WORK, "box%d" % n), "Kept%d" % n
        keys = "<first-entry><next-entry><display-message><pipe-message>cat > %s<enter><exit>" % out
        keys += "<copy-message>%s<enter>" % box
        keys += "<copy-message>=%s<enter><enter>" % folder
        keys += "<flag-message><quit>"
        mutt(url, keys)
        want = added("mutt") + sent[1]
        with open(out, "rb") as f:
            assert f.read() == want.replace(b"\r\n", b"\n")
        with open(box, "rb") as f:
            saved = f.read()
        assert saved.startswith(b"From ") and b"Subject: mutt1\n" in saved and b"\nHello mutt1\n" in saved, saved
        kept = list(stored("mutt", folder.encode()).values())
        assert [m for _, m in kept] == [want], kept
        flags = [f for f, _ in stored("mutt").values()]
        assert b"\\Seen" in flags[1] and (b"\\Flagged" in flags[1]) == (n == 0) and flags[0] == flags[2] == set(), flags


def mutt_moves_and_deletes():
    url = "imaps://localhost:%d" % S.imaps
    mutt(url, "<first-entry><save-message>=Moved<enter><last-entry><delete-message><quit>")
    assert [m for _, m in stored("mutt", b"Moved").values()] == [added("mutt") + simple("mutt0")]
    assert [m for _, m in stored("mutt").values()] == [added("mutt") + simple("mutt1")]


def mutt_hears_of_mail_that_comes_while_it_idles():
    state = {"sent": False}

    def until():
        if not state["sent"] and re.search(r"user=\"?mutt", S.log_text()) is not None:
            state["sent"] = True
            state["at"] = time.monotonic()
            deliver("mutt", [simple("while-idle")])
        return state["sent"] and time.monotonic() > state["at"] + 4
    screen = mutt("imaps://localhost:%d" % S.imaps, "<refresh>", idle="yes", until=until)
    assert b"while-idle" in screen, screen[-3000:]


# --- fetchmail ---

def fetchmail(proto, port, user, options, ok=(0,)):
    out = os.path.join(WORK, "fetched-" + user)
    mda = write("mda-" + user, "#!/bin/sh\nf=$(mktemp %s.XXXXXX) && exec cat >$f\n" % out, 0o700)
    rc = write("fetchmailrc", "set invisible\npoll localhost service %d protocol %s %s user \"%s\" password \"pass\" mda \"%s\" sslcertfile \"%s\" %s\n" % (
        port, proto, "uidl" if "uidl" in options else "", user, mda, S.cert, options.replace("uidl", "")))
    run(["fetchmail", "-f", rc, "-i", os.path.join(WORK, "ids"), "--pidfile", os.path.join(WORK, "fm.pid"), "-N", "-v"], ok)
    found = []
    for name in sorted(os.listdir(WORK)):
        if name.startswith("fetched-" + user + "."):
            with open(os.path.join(WORK, name), "rb") as f:
                found.append(f.read())
            os.unlink(os.path.join(WORK, name))
    return found


def check_fetched(user, got, sent):
    # fetchmail takes Return-Path and makes its own; bodies and the other fields stay as they were
    want = sorted(m.replace(b"\r\n", b"\n") for m in sent)
    got = sorted(re.sub(rb"\A(?:Return-Path: [^\n]*\n|Delivered-To: [^\n]*\n)*", b"", m) for m in got)
    assert got == want, (got[:2], want[:2])


def fetchmail_fetches_by_pop3():
    sent = [simple("fp%d" % n) for n in range(8)]
    deliver("fetch-pop", sent)
    check_fetched("fetch-pop", fetchmail("POP3", S.pop3s, "fetch-pop", "ssl uidl keep"), sent)
    assert fetchmail("POP3", S.pop3s, "fetch-pop", "ssl uidl keep", ok=(1,)) == []
    deliver("fetch-pop", [simple("later")])
    check_fetched("fetch-pop", fetchmail("POP3", S.pop3, "fetch-pop", 'sslproto "TLS1.2+" uidl keep'), [simple("later")])
    check_fetched("fetch-pop", fetchmail("POP3", S.pop3, "fetch-pop", 'sslproto "" fetchall no keep'), sent + [simple("later")])
    assert stored("fetch-pop") == {}


def fetchmail_fetches_by_imap():
    sent = [simple("fi%d" % n) for n in range(8)]
    deliver("fetch-imap", sent)
    check_fetched("fetch-imap", fetchmail("IMAP", S.imaps, "fetch-imap", "ssl keep"), sent)
    assert fetchmail("IMAP", S.imaps, "fetch-imap", "ssl keep", ok=(1,)) == []
    assert all(b"\\Seen" in f for f, _ in stored("fetch-imap").values())
    deliver("fetch-imap", [simple("later")])
    check_fetched("fetch-imap", fetchmail("IMAP", S.imap, "fetch-imap", 'sslproto "TLS1.2+" no keep'), [simple("later")])
    check_fetched("fetch-imap", fetchmail("IMAP", S.imap, "fetch-imap", 'sslproto "" fetchall no keep'), sent)
    assert stored("fetch-imap") == {}


# --- imaplib ---

def lib():
    c = imaplib.IMAP4("127.0.0.1", S.imap)
    assert c.login("lib", "pass")[0] == "OK"
    return c


def good(answer):
    assert answer[0] == "OK", answer
    return answer[1]


def imaplib_appends_searches_fetches_copies_and_moves():
    c = lib()
    for n in range(6):
        data = good(c.append("INBOX", "(\\Flagged $Label)" if n == 2 else None, imaplib.Time2Internaldate(1.0e9 + n * 86400), simple("lib%d" % n)))
        assert re.match(rb"\[APPENDUID \d+ %d\]" % (n + 1), data[0]), data
    assert good(c.select("INBOX")) == [b"6"]
    assert good(c.search(None, "SUBJECT", '"lib3"')) == [b"4"]
    assert good(c.search("UTF-8", "BODY", "Hello", "UNFLAGGED")) == [b"1 2 4 5 6"]
    assert good(c.search(None, "KEYWORD", "$Label")) == [b"3"]
    assert good(c.uid("SEARCH", "SINCE", "11-Sep-2001")) == [b"3 4 5 6"]
    for n in range(6):
        data = good(c.fetch(str(n + 1), "(UID RFC822.SIZE INTERNALDATE BODY.PEEK[])"))
        assert data[0][1] == simple("lib%d" % n) and b"RFC822.SIZE %d" % len(data[0][1]) in data[0][0]
        assert abs(time.mktime(imaplib.Internaldate2tuple(data[0][0])) - (1.0e9 + n * 86400)) < 2, data[0][0]
    good(c.create("Copies"))
    assert b"COPYUID" in good(c.copy("2:3", "Copies"))[0]
    assert c.copy("1", "Nowhere")[0] == "NO"
    good(c.uid("MOVE", "5:6", "Copies"))
    good(c.noop())
    assert good(c.search(None, "ALL")) == [b"1 2 3 4"]
    c.response("EXPUNGE")
    good(c.store("1", "+FLAGS", "\\Deleted"))
    assert good(c.expunge()) == [b"1"]
    assert good(c.select("Copies", readonly=True)) == [b"4"]
    assert [good(c.fetch(str(n + 1), "(BODY[])"))[0][1] for n in range(4)] == [simple("lib%d" % n) for n in (1, 2, 4, 5)]
    assert b"$Label" in good(c.fetch("2", "(FLAGS)"))[0]
    c.logout()
    assert [m for _, m in stored("lib").values()] == [simple("lib%d" % n) for n in (1, 2, 3)]


def imaplib_idles_by_hand():
    c = lib()
    count = int(good(c.select("INBOX"))[0])
    tag = c._new_tag()
    c.send(tag + b" IDLE\r\n")
    assert c.readline().startswith(b"+")
    deliver("lib", [simple("idle")])
    assert c.readline() == b"* %d EXISTS\r\n" % (count + 1)
    other = lib()
    good(other.select("INBOX"))
    good(other.store(str(count + 1), "+FLAGS", "\\Seen \\Deleted"))
    line = c.readline()
    while b"FETCH" not in line:  # RECENT
        line = c.readline()
    assert line.startswith(b"* %d FETCH (" % (count + 1)) and b"\\Seen" in line, line
    good(other.expunge())
    assert c.readline() == b"* %d EXPUNGE\r\n" % (count + 1)
    c.send(b"DONE\r\n")
    assert c.readline().startswith(tag + b" OK")
    good(c.noop())
    other.logout()
    c.logout()


def names_in_utf_7_and_as_literals_mean_the_same():
    c = lib()
    name = "Entwürfe & 日本/Ça"
    utf7 = b"Entw&APw-rfe &- &ZeVnLA-/&AMc-a"
    good(c.create('"%s"' % utf7.decode()))
    for lit in (b"{%d+}", b"{%d}"):
        tag = c._new_tag()
        c.send(tag + b" STATUS " + lit % len(utf7) + b"\r\n")
        if b"+" not in lit:
            assert c.readline().startswith(b"+")
        c.send(utf7 + b" (MESSAGES)\r\n")
        line = c.readline()
        assert utf7 in line and b"MESSAGES 0" in line, line
        assert c.readline().startswith(tag + b" OK")
    listed = good(c.list('""', '"Entw*"'))
    assert [x.split(b'"/" ')[1].strip(b'"') for x in listed] == [b"Entw&APw-rfe &- &ZeVnLA-", utf7], listed
    good(c.subscribe('"%s"' % utf7.decode()))
    assert utf7 in good(c.lsub('""', "*"))[0]
    good(c.append('"%s"' % utf7.decode(), None, None, simple("deep")))
    good(c.enable("IMAP4rev2"))
    tag = c._new_tag()
    raw = name.encode()
    c.send(tag + b" EXAMINE {%d+}\r\n" % len(raw) + raw + b"\r\n")
    lines = [c.readline()]
    while not lines[-1].startswith(tag):
        lines.append(c.readline())
    assert lines[-1].startswith(tag + b" OK") and b"* 1 EXISTS\r\n" in lines, lines
    assert any(x.startswith(b"* LIST") and raw in x for x in lines), lines
    c.logout()
    c = lib()
    assert c.create("not&utf7")[0] == "NO" and c.create("&AGE-")[0] == "NO"  # not UTF-7; a letter in disguise
    good(c.delete('"%s"' % utf7.decode()))
    c.logout()


# --- poplib ---

def poplib_lists_tops_and_deletes():
    sent = [simple("pop%d" % n) for n in range(5)]
    deliver("pop", sent)
    want = [added("pop") + m for m in sent]
    c = poplib.POP3("127.0.0.1", S.pop3)
    assert b"Culver" in c.getwelcome() or c.getwelcome().startswith(b"+OK")
    caps = c.capa()
    assert {"TOP", "UIDL", "STLS", "USER", "SASL", "PIPELINING", "RESP-CODES"} <= set(caps), caps
    c.stls(tls())
    c.user("pop")
    c.pass_("pass")
    assert c.stat() == (5, sum(len(m) for m in want))
    assert c.list()[1] == [b"%d %d" % (n + 1, len(m)) for n, m in enumerate(want)]
    uidl = c.uidl()[1]
    assert len({x.split()[1] for x in uidl}) == 5
    for n, m in enumerate(want):
        assert b"\r\n".join(c.retr(n + 1)[1]) + b"\r\n" == m
        head, _, body = m.partition(b"\r\n\r\n")
        assert c.top(n + 1, 2)[1] == head.split(b"\r\n") + [b""] + body.split(b"\r\n")[:2]
    c.dele(2)
    c.dele(4)
    try:
        c.retr(2)
        raise AssertionError("a deleted message can be read")
    except poplib.error_proto:
        pass
    assert c.stat()[0] == 3
    c.rset()
    assert c.stat()[0] == 5
    c.dele(2)
    c.quit()
    c = poplib.POP3_SSL("127.0.0.1", S.pop3s, context=tls())
    c.user("pop")
    c.pass_("pass")
    assert [x.split()[1] for x in c.uidl()[1]] == [x.split()[1] for x in uidl[:1] + uidl[2:]]
    c.quit()
    assert [m for _, m in stored("pop").values()] == want[:1] + want[2:]


def tls():
    import ssl
    return ssl.create_default_context(cafile=S.cert)


def the_log_has_no_errors_and_the_server_stops():
    assert Line(S.imap).line().startswith("* OK")
    assert S.stop() == 0
    S.assert_log_is_clean()


TESTS = [
    culverd_starts,
    curl_uploads_and_reads_back_over_imap_imaps_and_starttls,
    curl_lists_searches_and_sets_flags,
    curl_reads_and_deletes_over_pop3_pop3s_and_stls,
    curl_is_told_of_a_wrong_password,
    mbsync_pulls_everything_and_then_nothing,
    mbsync_carries_changes_both_ways_and_then_nothing,
    mutt_reads_a_message_and_saves_copies_here_and_there,
    mutt_moves_and_deletes,
    mutt_hears_of_mail_that_comes_while_it_idles,
    fetchmail_fetches_by_pop3,
    fetchmail_fetches_by_imap,
    imaplib_appends_searches_fetches_copies_and_moves,
    imaplib_idles_by_hand,
    names_in_utf_7_and_as_literals_mean_the_same,
    poplib_lists_tops_and_deletes,
    the_log_has_no_errors_and_the_server_stops,
]

if __name__ == "__main__":
    try:
        run_tests(TESTS, limit=60)
    finally:
        S.clean()
