#!/usr/bin/env python3
"""Several servers on one store that are killed, frozen, cut off and wiped under load: no client ever sees what cannot be true, nothing
acknowledged is lost, and service comes back by itself.  README.md says what is checked.

CULVER_TEST_STORE (s3), CULVER_CLUSTER_SECONDS (20), CULVER_CLUSTER_NODES (2), CULVER_CLUSTER_SEED (1), CULVER_CLUSTER_CLIENTS (15),
CULVER_CLUSTER_FAULTS (all: names of faults, separated by commas)"""
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import traceback

sys.dont_write_bytecode = True
os.environ.setdefault("CULVER_TEST_STORE", "s3")
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE] + [os.path.join(HERE, "..", x) for x in ("lib", "system", "crash")]
from boxes import ClusterReader  # noqa: E402
from clients import ClusterClient, Counter, Deliveries, Downloads  # noqa: E402
from load import Deliverer, Ledger, check  # noqa: E402
from loadclient import SHARED, TEMPORARY  # noqa: E402
from model import expected, message  # noqa: E402
from nodes import FLAG_DELAY, TTL, Anywhere, Cluster  # noqa: E402
from server import BUILD, SANITIZED, SLOW, run_tests, wait_for  # noqa: E402
from wire import Closed, Imap, fetched, string  # noqa: E402

SECONDS = float(os.environ.get("CULVER_CLUSTER_SECONDS", 20))
SEED = int(os.environ.get("CULVER_CLUSTER_SEED", 1))
NODES = int(os.environ.get("CULVER_CLUSTER_NODES", 2))
CLIENTS = int(os.environ.get("CULVER_CLUSTER_CLIENTS", 5 if SANITIZED else 15))
PROCESSES = 2
STREAM, POPPED = ["ada", "grace", "mary"], ["pop0", "pop1"]
LEDGER, COUNTED = ["led%d" % i for i in range(4)], ["cnt%d" % i for i in range(3)]
PROBES = ["probe%d" % i for i in range(600)]
C = Cluster(NODES, STREAM + POPPED + LEDGER + COUNTED + PROBES)
R = random.Random(SEED)
SUSPECT = multiprocessing.Value("d", 0.0)  # until when a session may be with a node that was taken over and does not know
DOUBT = 8 * SLOW
RESULTS, SERVED, NOTES, RUNNING = [], {}, [], []
LED = Ledger()
COUNTERS, READERS = [], []


# --- load ---

def guarded(work, failures, client):
    try:
        return work()
    except Exception:
        log = b"\n".join(x[:200] for x in client.log).decode("utf-8", "replace")
        failures.append("client %d (%s, %s, mailbox %s) at %.3f, session since %.3f, in doubt until %.3f:\n%s\n%s" % (
            client.number, client.kind, client.user, getattr(getattr(client, "sel", None), "name", None), time.monotonic(),
            getattr(client, "since", 0), SUSPECT.value, traceback.format_exc(), log))


def group(clients, until, ready, out):
    """A process of its own.  ready: the nodes are well again."""
    failures, pictures = [], []
    threads = [threading.Thread(target=guarded, args=(lambda c=c: c.run(until), failures, c)) for c in clients]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    out.send("quiet")
    ready.wait()
    for c in clients:
        if isinstance(c, ClusterClient) and not failures:
            picture = guarded(c.settle, failures, c)
            if picture:
                pictures.append((c.number, c.kind, c.user, picture))
    out.send({"failures": failures, "pictures": pictures,
              "clients": [(c.kind, c.user, c.commands, c.stored, c.doomed, c.uids, c.interruptions, c.refusals) for c in clients],
              "deleted": [(c.user, c.deleted) for c in clients if isinstance(c, Downloads)], "slowest": max([c.slowest for c in clients if isinstance(c, Deliveries)] or [0])})


# --- what happens to nodes ---

class fault:
    """From when to when."""

    def __init__(self, kind, node, stale=False):
        self.record, self.stale = [kind, node.name, 0, None], stale

    def __enter__(self):
        self.record[2] = time.monotonic()
        C.faults.append(self.record)
        if self.stale:
            SUSPECT.value = float("inf")
        return self

    def __exit__(self, *args):
        self.record[3] = time.monotonic()
        if self.stale and not any(f[0] in ("freeze", "cut") and f[3] is None for f in C.faults):
            SUSPECT.value = self.record[3] + DOUBT


def own_by(node, users):
    """These users of nobody come to that node."""
    def taken(u):
        try:
            return node.s.deliver([u], message("l-" + u), "load@example.org")[0].startswith("250 ")
        except (OSError, EOFError, AssertionError):  # it is still at its last trouble
            return False
    for u in users:
        wait_for("mail at " + node.name, lambda: taken(u), 40 * SLOW)


def serve_again(what, users, others, start):
    """Measures until others give each user's mail and take more; in threads, because a login waits."""
    def one(user):
        while True:
            try:
                c = Imap(R.choice(others).s.imap, timeout=40 * SLOW)
                _, status = c.command(b"LOGIN %s pass" % user.encode())
                if status.startswith(b"OK"):
                    assert c.select() >= 1, user  # a delivery that was not acknowledged may be there twice
                    assert string(fetched(c.ok(b"FETCH 1 BODY.PEEK[]")[0])[1][b"BODY[]"]) == expected(user, "l-" + user)
                    c.append(b"INBOX", message("x"))
                    SERVED.setdefault(what, []).append(time.monotonic() - start)
                    c.close()
                    return
                c.close()
            except (OSError, Closed, AssertionError) as e:
                NOTES.append("%s: %r" % (user, e))
            assert time.monotonic() - start < 60 * SLOW, user
            time.sleep(0.05)
    threads = [threading.Thread(target=one, args=(u,)) for u in users]
    for t in threads:
        t.start()
    return threads


def probes(n=3):
    return [PROBES.pop() for _ in range(n)]


def others_of(node):
    return [n for n in C.alive() if n is not node]


def kill_node(node, r, alone):
    """With its whole state folder gone half of the time."""
    users = probes() if alone else []
    own_by(node, users)
    with fault("kill", node):
        node.kill()
    start = time.monotonic()
    away = r.uniform(0, 3) if r.random() < 0.3 else r.uniform(TTL + 3, TTL + 6)
    threads = serve_again("killed" if away > TTL else "killed and soon back", users, others_of(node), start)
    if r.random() < 0.5:
        node.wipe()
    time.sleep(max(0, start + away - time.monotonic()))
    node.start()
    for t in threads:
        t.join()


def kill_process(node, r, alone):
    role, index = r.choice([("worker", 0), ("worker", 1), ("worker", 0), ("worker", 1), ("gate", 0), ("auth", 0)])
    with fault("kill", node):
        node.signal(signal.SIGKILL, node.s.pids(role).get((role, index)) or [])
        wait_for("the process again", lambda: len(node.s.pids("worker")) == 2, 30 * SLOW)
    time.sleep(r.uniform(0.2, 2))


def freeze(node, r, alone):
    """Past the TTL: others take its users, and then it wakes."""
    users = probes() if alone else []
    own_by(node, users)
    pids = node.all_pids() if r.random() < 0.5 else [p for ps in node.s.pids("worker").values() for p in ps]
    with fault("freeze", node, stale=True):
        node.signal(signal.SIGSTOP, pids)
        start = time.monotonic()
        threads = serve_again("frozen", users, others_of(node), start)
        time.sleep(r.choice([r.uniform(1, 5), r.uniform(TTL + 2, TTL + 5), r.uniform(TTL + 2, TTL + 5)]))
        node.signal(signal.SIGCONT, pids)
    for t in threads:
        t.join()


def cut(node, r, alone):
    users = probes() if alone else []
    own_by(node, users)
    with fault("cut", node, stale=True):
        node.cut(r.choice(["refuse", "stall", "deaf"]))
        start = time.monotonic()
        long = r.random() < 0.5
        time.sleep(r.uniform(TTL + 2, TTL + 6) if long else r.uniform(0.5, 6))
        node.cut("pass")
    end = time.monotonic()
    threads = serve_again("cut off, after the cut's end", users, [node], end)
    for t in threads:
        t.join()
    assert time.monotonic() - start < 90 * SLOW


def restart(node, r, alone):
    with fault("stop", node):
        assert node.stop() == 0
    time.sleep(r.uniform(0, 2))
    if r.random() < 0.3:
        node.wipe()
    node.start()


FAULTS = {f.__name__: (w, f) for w, f in ((4, kill_node), (4, kill_process), (3, freeze), (3, cut), (1, restart))}


def one_fault(r, node, alone):
    names = os.environ.get("CULVER_CLUSTER_FAULTS", "").split(",")
    names = [n for n in names if n] or list(FAULTS)
    name = r.choices(names, [FAULTS[n][0] for n in names])[0]
    FAULTS[name][1](node, r, alone)


def drive(until):
    n, wrong = 0, []

    def run(r, node, alone):
        try:
            one_fault(r, node, alone)
        except BaseException:
            wrong.append(traceback.format_exc())
    while time.monotonic() < until and not wrong:
        time.sleep(R.uniform(0.5, 3))
        both = NODES > 2 and R.random() < 0.3
        threads = [threading.Thread(target=run, args=(random.Random(R.random()), node, not both)) for node in R.sample(C.nodes, 2 if both else 1)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        n += len(threads)
    return n, wrong


# --- tests ---

def the_nodes_start():
    C.start()
    for user in STREAM:
        c = Imap(R.choice(C.nodes).s.imap, user)
        for name in SHARED[1:] + (TEMPORARY,):
            c.ok(b"CREATE " + name.encode())
        for n in range(10):
            c.append(SHARED[n % 3].encode(), message("s%d" % n))
        c.logout()


def local_load():
    """Clients of this process; they know the faults."""
    any_ = Anywhere(C, LEDGER, SEED)
    gone = set()
    out = [Deliverer(any_, LED, R.random()) for _ in range(2)]
    for u in LEDGER:
        READERS.append(ClusterReader(any_, LED, u, R.random()))
        READERS[-1].gone = gone
    for u in COUNTED:
        COUNTERS.append(Counter(Anywhere(C, [u], "%d%s" % (SEED, u)), u, SEED, C.faults, SUSPECT, FLAG_DELAY, 0.7 * SLOW))
    return out + READERS + COUNTERS


def clients_at_random_nodes_see_nothing_that_cannot_be_true_while_nodes_fail():
    until = time.monotonic() + SECONDS
    every = [ClusterClient(Anywhere(C, STREAM, "%d/%d" % (SEED, n)), n, SEED, STREAM, SUSPECT) for n in range(CLIENTS)]
    every += [Deliveries(Anywhere(C, [], "%d/l%d" % (SEED, n)), n, SEED, STREAM + POPPED) for n in range(2)]
    every += [Downloads(Anywhere(C, [], "%d/p%d" % (SEED, n)), n, SEED, u, SUSPECT) for n, u in enumerate(POPPED)]
    context = multiprocessing.get_context("fork")
    ready, groups = context.Event(), []
    for n in range(PROCESSES):
        here, there = context.Pipe()
        p = context.Process(target=group, args=(every[n::PROCESSES], until, ready, there), daemon=True)
        p.start()
        there.close()
        groups.append((p, here))
        RUNNING.append(p)
    local = local_load()
    for t in local:
        t.start()
    n, wrong = drive(until)
    print("".join("# " + x + "\n" for w in wrong for x in w.splitlines()), end="", flush=True)
    for t in local:
        t.stop = True
    for t in local:
        t.join(60 * SLOW)
    for _, here in groups:
        assert here.poll(max(0, until - time.monotonic()) + 120 * SLOW), "a group of clients does not end"
        assert here.recv() == "quiet"
    SUSPECT.value = max(SUSPECT.value if SUSPECT.value != float("inf") else 0, 0)
    time.sleep(max(0, SUSPECT.value - time.monotonic()))
    ready.set()
    for p, here in groups:
        assert here.poll(200 * SLOW), "a group of clients does not settle"
        RESULTS.append(here.recv())
        p.join()
    tell(n)
    failures = wrong + [f for r in RESULTS for f in r["failures"]] + ["\n".join(c.wrong) for c in COUNTERS if c.wrong] + slow_takeovers()
    assert not failures, "%d failed\n%s\n%r" % (len(failures), "\n".join(failures[:4]), C.faults)


def slow_takeovers():
    return ["served again after %.1f s by others when a node was %s" % (t, what) for what in ("killed", "frozen") for t in SERVED.get(what, []) if t > (TTL + 2) * max(1, SLOW)]


def tell(n):
    done, kinds = {}, {}
    broken = refused = 0
    for r in RESULTS:
        for kind, _, commands, _, _, _, a, b in r["clients"]:
            done[kind] = done.get(kind, 0) + commands
            broken, refused = broken + a, refused + b
    for f in C.faults:
        kinds[f[0]] = kinds.get(f[0], 0) + 1
    print("# %d nodes, seed %d: %d faults (%s) in %g s" % (NODES, SEED, n, ", ".join("%s %d" % x for x in sorted(kinds.items())), SECONDS))
    print("# commands: %s; sessions broken %d, refused for a time %d; slowest delivery %.1f s" % (
        ", ".join("%s %d" % x for x in sorted(done.items())), broken, refused, max(r["slowest"] for r in RESULTS)))
    for what, times in sorted(SERVED.items()):
        print("# users of a node that was %s are served after: median %.1f s, max %.1f s (%d)" % (what, sorted(times)[len(times) // 2], max(times), len(times)))
    print("# flag changes: %d acknowledged, %d lost with a node" % (sum(c.told for c in COUNTERS), sum(c.lost for c in COUNTERS)))
    print("# ledger: %s" % ", ".join("%d %s" % (v, k) for k, v in sorted(LED.counts.items())), flush=True)


def fresh(user, mailbox, node=None):
    """What a new session sees: (uidvalidity, [(uid, flags, name)])"""
    c = Imap((node or R.choice(C.nodes)).s.imap, user)
    lines = c.ok(b"EXAMINE " + mailbox.encode())
    uidvalidity = next(int(m.group(1)) for m in (re.match(rb"\* OK \[UIDVALIDITY (\d+)", x) for x in lines) if m)
    found = []
    for r in c.ok(b"FETCH 1:* (UID FLAGS BODY.PEEK[])") if b"* 0 EXISTS" not in lines else []:
        n, items = fetched(r)
        octets = string(items[b"BODY[]"])
        name = re.search(rb"(?m)^X-Id: (\S+)\r$", octets).group(1).decode()
        assert n == len(found) + 1 and octets == expected(user, name), (mailbox, n, name)
        found.append((int(items[b"UID"]), frozenset(items[b"FLAGS"][1:-1].split()), name))
    c.logout()
    return uidvalidity, found


VIEWS = {}


def every_picture_equals_a_fresh_view_through_every_node():
    for user in STREAM + POPPED:
        for mailbox in SHARED if user in STREAM else ("INBOX",):
            views = [fresh(user, mailbox, node) for node in C.nodes]
            assert all(v == views[0] for v in views), (user, mailbox)
            VIEWS[user, mailbox] = views[0]
    for r in RESULTS:
        for number, kind, user, picture in r["pictures"]:
            uidvalidity, view = VIEWS[user, picture["mailbox"]]
            who = "client %d (%s, %s %s)" % (number, kind, user, picture["mailbox"])
            assert picture["uidvalidity"] == uidvalidity, who
            assert len(picture["entries"]) == len(view), (who, len(picture["entries"]), len(view))
            for seq, ((uid, flags, name), real) in enumerate(zip(picture["entries"], view), 1):
                assert uid in (None, real[0]) and flags in (None, real[1]) and name in (None, real[2]), (who, seq, (uid, flags, name), real)
    assert sum(len(r["pictures"]) for r in RESULTS) == CLIENTS


def a_uid_means_one_message_to_all_clients():
    meaning = {}
    for r in RESULTS:
        for _, user, _, _, _, uids, *_ in r["clients"]:
            for key, name in uids.items():
                assert meaning.setdefault((user, *key), name) == name, (user, key, name, meaning[user, *key])
    for (user, mailbox), (uidvalidity, view) in VIEWS.items():
        for uid, _, name in view:
            assert meaning.get((user, mailbox, uidvalidity, uid), name) == name, (user, mailbox, uid)
    print("# %d UIDs" % len(meaning))


def nothing_acknowledged_is_lost():
    doomed, stored = set(), set()
    for r in RESULTS:
        for kind, user, _, took, gone, *_ in r["clients"]:
            stored |= took if kind == "lmtp" else {(user, name) for name in took}
            doomed |= {(user, name) for name in gone}
    there = {(user, name) for (user, _), (_, view) in VIEWS.items() for _, _, name in view}
    for user in STREAM:  # whoever made it anew may have been interrupted
        c = Imap(R.choice(C.nodes).s.imap, user)
        if c.command(b"EXAMINE " + TEMPORARY.encode())[1].startswith(b"OK"):
            there |= {(user, name) for _, _, name in fresh(user, TEMPORARY)[1]}
        c.logout()
    lost = stored - doomed - there
    print("# %d messages acknowledged, %d of them may be gone" % (len(stored), len(stored & doomed)))
    assert stored and not lost, sorted(lost)[:20]
    wrong = check(Anywhere(C, LEDGER, SEED), LED) + boxes_back()
    assert not wrong, "\n".join(wrong[:20])


def boxes_back():
    out = []
    for user in LEDGER:
        c = Imap(R.choice(C.nodes).s.imap, user)
        names = {x.split()[-1].strip(b'"').decode() for x in c.ok(b'LIST "" *')}
        out += ["%s: %s was deleted or renamed and is back" % (user, n) for u, n in READERS[0].gone if u == user and n in names]
        c.logout()
    return out


def one_node_with_nothing_but_the_store_shows_the_same():
    time.sleep(1.5)
    for node in C.nodes:
        assert node.stop() == 0
        node.wipe()
    C.nodes[-1].start()
    C.nodes[:-1], rest = [], C.nodes[:-1]
    try:
        for (user, mailbox), view in VIEWS.items():
            assert fresh(user, mailbox) == view, (user, mailbox)
        assert not check(Anywhere(C, LEDGER, SEED), LED)
        assert C.nodes[0].stop() == 0
        done = subprocess.run([os.path.join(BUILD, "culverctl"), "-c", C.nodes[0].s.conf, "check", "--all", "--bodies"], capture_output=True, text=True, timeout=300 + 2 * SECONDS)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    finally:
        C.nodes[:0] = rest


# what nodes say of each other's ends, and of a store that is away
EXPECTED = "|".join((
    "process was killed", "master process is gone", "journal cannot be written: nothing is taken until the store answers", "this node was taken over by another", "another node took this user",
    "process ended", "the object store does not answer: requests pause", "mail could not be stored", "user cannot be opened", "the mailbox cannot be opened", "a message cannot be read.*does not answer", "has taken this one.s users over", "messages could not be deleted"))


def the_log_tells_of_nothing_else():
    for node in C.nodes:
        node.s.assert_log_is_clean(EXPECTED)


TESTS = [the_nodes_start, clients_at_random_nodes_see_nothing_that_cannot_be_true_while_nodes_fail, every_picture_equals_a_fresh_view_through_every_node,
         a_uid_means_one_message_to_all_clients, nothing_acknowledged_is_lost, one_node_with_nothing_but_the_store_shows_the_same, the_log_tells_of_nothing_else]

if __name__ == "__main__":
    try:
        run_tests(TESTS, limit=300 + 3 * SECONDS / min(SLOW, 4))
    finally:
        for p in RUNNING:
            p.terminate()
        if os.environ.get("CULVER_KEEP"):
            os.makedirs(os.environ["CULVER_KEEP"], exist_ok=True)
            for node in C.nodes:
                subprocess.run(["cp", node.s.log, os.path.join(os.environ["CULVER_KEEP"], node.name + ".log")])
        C.close()
