#!/usr/bin/env python3
"""kill -9 of any process at any moment under load: nothing acknowledged is lost, no UID changes its meaning.

CULVER_CRASH_KILLS=500 CULVER_POWER_LOSSES=50 for the long run; CULVER_CRASH_SEED to repeat one."""
import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

here = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [here, os.path.join(here, "..", "lib")]
from load import Deliverer, Ledger, Reader, check  # noqa: E402
from server import BUILD, SANITIZED, Server, run_tests, wait_for  # noqa: E402
import store  # noqa: E402

KILLS = int(os.environ.get("CULVER_CRASH_KILLS", "25"))
LOSSES = int(os.environ.get("CULVER_POWER_LOSSES", "5"))
SEED = int(os.environ.get("CULVER_CRASH_SEED", "1"))


def kill_all(s):
    pids = [p for ps in s.pids().values() for p in ps]
    s.proc.kill()
    s.proc.wait()
    for p in pids:
        try:
            os.kill(p, signal.SIGKILL)
        except ProcessLookupError:
            pass


def run_load(s, rng, kills, between):
    ledger = Ledger()
    threads = [Deliverer(s, ledger, rng.random()) for _ in range(3)] + [Reader(s, ledger, u, rng.random()) for u in s.users[:5]]
    for t in threads:
        t.start()
    for n in range(kills):
        time.sleep(rng.uniform(0.02, 0.5))
        between(n)
    time.sleep(1)
    for t in threads:
        t.stop = True
    for t in threads:
        t.join(60)
    return ledger


def report(ledger, extra=""):
    print("# seed %d: %s%s" % (SEED, ", ".join("%d %s" % (v, k) for k, v in sorted(ledger.counts.items())), extra), flush=True)


def killed_processes_lose_nothing_acknowledged():
    rng = random.Random(SEED)
    s = Server(users=6)
    killed = {}
    try:
        s.start()

        def strike(n):
            role, index = rng.choice([("worker", 0), ("worker", 1), ("worker", 0), ("worker", 1), ("gate", 0), ("auth", 0), ("all", 0)])
            killed[role] = killed.get(role, 0) + 1
            if role == "all":
                kill_all(s)
                s.start()
                return
            for pid in s.pids(role).get((role, index), []):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        ledger = run_load(s, rng, KILLS, strike)
        wait_for("all workers", lambda: len(s.pids("worker")) == 2)
        wrong = check(s, ledger)
        report(ledger, "; killed %r" % killed)
        assert ledger.counts.get("delivered", 0) > KILLS, "the load did not get through"
        assert not wrong, "\n".join(wrong[:20])
        assert s.stop() == 0
        s.start()       # and once more from the store alone
        wrong = check(s, ledger)
        assert not wrong, "after a clean restart:\n" + "\n".join(wrong[:20])
        s.stop()
        done = subprocess.run([os.path.join(BUILD, "culverctl"), "-c", s.conf, "check", "--all", "--bodies"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        s.clean()


class Moment:
    """What was known when the power failed."""

    def __init__(self, s, ledger, shadow, where):
        with ledger.lock:
            self.acked, self.expunged = dict(ledger.acked), set(ledger.expunged)
            self.placed, self.boxes, self.meaning = dict(ledger.placed), set(ledger.boxes), dict(ledger.meaning)
        with open(os.path.join(shadow, "lock"), "w") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            shutil.copytree(os.path.join(shadow, "tree"), where)
        with ledger.lock:
            self.doomed = set(ledger.doomed)
        self.where, self.wrong, self.lock, self.counts = where, [], threading.Lock(), {}

    seen = Ledger.seen


def a_power_loss_leaves_everything_acknowledged():
    rng = random.Random(SEED)
    shadow = tempfile.mkdtemp(prefix="culvershadow")
    os.mkdir(os.path.join(shadow, "tree"))
    os.mkdir(os.path.join(shadow, "ino"))
    s, moments = Server(users=6), []
    env = dict(os.environ, LD_PRELOAD=os.path.join(BUILD, "tests/crash/powerloss.so"), CULVER_STATE=s.state, CULVER_SHADOW=shadow)
    try:
        s.start(env=env)
        ledger = Ledger()
        threads = [Deliverer(s, ledger, rng.random()) for _ in range(2)] + [Reader(s, ledger, u, rng.random()) for u in s.users[:5]]
        for t in threads:
            t.start()
        for n in range(LOSSES):
            time.sleep(rng.uniform(0.3, 2.0))
            moments.append(Moment(s, ledger, shadow, os.path.join(shadow, "loss%d" % n)))
            if n % 3 == 1:      # some in the middle of a restart's recovery
                kill_all(s)
                s.start(env=env)
        for t in threads:
            t.stop = True
        for t in threads:
            t.join(60)
        report(ledger, "; %d power losses" % len(moments))
        assert len(ledger.acked) > LOSSES, "the load did not get through"
        s.stop()
        for n, m in enumerate(moments):
            after = Server(users=6)
            try:
                shutil.copytree(m.where, after.state)
                after.start()
                wrong = check(after, m)
                assert not wrong, "power loss %d (%s):\n" % (n, m.where) + "\n".join(wrong[:20])
                after.stop()
            finally:
                after.clean()
    finally:
        s.clean()
        shutil.rmtree(shadow, ignore_errors=True)


# a sanitizer's runtime must come first, so nothing can be preloaded there
# on a bucket the state folder holds nothing that a power loss could take
run_tests([killed_processes_lose_nothing_acknowledged] + ([] if SANITIZED or store.bucket() else [a_power_loss_leaves_everything_acknowledged]))
