"""Several culverd on one bucket, each behind a wire of its own, and what can happen to them.  Standard library only."""
import os
import random
import shutil
import signal
import sqlite3
import tempfile

import store
from proxy import Wire
from server import Server

TTL = 10  # seconds; metacache's
EXTRA = "hostname = n%d.test\njournal = store\nflag_commit_delay = %dms\nlisten node { address = 127.0.0.1 }\n"
FLAG_DELAY = 1.0


class Node:
    """A server and its wire to the store.  Without a bucket there is no wire."""

    def __init__(self, cluster, n):
        self.cluster, self.name, self.up = cluster, "n%d" % n, False
        self.wire = Wire(int(cluster.bucket.url.rsplit(":", 1)[1])) if cluster.bucket else None
        keeps = cluster.bucket.section(cluster.prefix, self.wire.url) if self.wire else "mail_store { path = %s/store }\n" % cluster.dir
        self.s = Server(extra=EXTRA % (n, FLAG_DELAY * 1000), workers=2, users=0, keeps=keeps, log_level=os.environ.get("CULVER_CLUSTER_LOG", "info"))

    def start(self):
        if not os.path.exists(os.path.join(self.s.state, "keys")):
            self.furnish()
        self.s.start()
        self.up = True

    def furnish(self):
        """What an administrator gives a new server: the deployment's key and its users."""
        os.makedirs(self.s.state, 0o700, exist_ok=True)
        if os.path.exists(self.cluster.keys):
            shutil.copytree(self.cluster.keys, os.path.join(self.s.state, "keys"))
            shutil.copy(self.cluster.users_db, os.path.join(self.s.state, "users.db"))

    def all_pids(self):
        return [p for ps in self.s.pids().values() for p in ps] + [self.s.proc.pid]

    def signal(self, sig, pids=None):
        for pid in pids or self.all_pids():
            try:
                os.kill(pid, sig)
            except ProcessLookupError:
                pass

    def kill(self):
        """Everything at once, as a machine that loses its power."""
        self.up = False
        pids = self.all_pids()
        self.signal(signal.SIGSTOP, pids)  # so that none sees another's end
        self.signal(signal.SIGKILL, pids)
        self.s.proc.wait()

    def stop(self):
        self.up = False
        return self.s.stop()

    def wipe(self):
        shutil.rmtree(self.s.state)

    def cut(self, *how):
        self.wire.set(*how)

    def close(self):
        if self.wire:
            self.wire.set("pass")
        if self.s.proc and self.s.proc.poll() is None:
            self.signal(signal.SIGCONT)
        self.s.clean()
        if self.wire:
            self.wire.close()


class Cluster:
    def __init__(self, n, users):
        self.bucket = store.bucket() if store.KIND != "posix" else None
        self.dir = tempfile.mkdtemp(prefix="culvercluster")
        self.prefix = os.path.basename(self.dir)
        self.keys, self.users_db = os.path.join(self.dir, "keys"), os.path.join(self.dir, "users.db")
        self.users = users
        self.nodes = [Node(self, i) for i in range(n)]
        self.faults = []  # of [kind, node, start, end or None]

    def start(self):
        first = self.nodes[0].s
        self.nodes[0].start()
        first.add_users(self.users)
        shutil.copytree(os.path.join(first.state, "keys"), self.keys)
        with sqlite3.connect(os.path.join(first.state, "users.db")) as a, sqlite3.connect(self.users_db) as b:
            a.backup(b)
        for node in self.nodes[1:]:
            node.start()

    def alive(self):
        return [n for n in self.nodes if n.up]

    def close(self):
        for node in self.nodes:
            node.close()
        shutil.rmtree(self.dir, ignore_errors=True)


class Anywhere:
    """Looks like one server; every look at a port is that of a random node."""

    def __init__(self, cluster, users, seed):
        self.cluster, self.users, self.rng = cluster, users, random.Random(seed)

    def __getattr__(self, name):
        if name in ("imap", "imaps", "pop3", "pop3s", "lmtp"):
            return getattr(self.rng.choice(self.cluster.nodes).s, name)
        raise AttributeError(name)

    def deliver(self, rcpts, message, sender="sender@example.org"):
        return self.rng.choice(self.cluster.nodes).s.deliver(rcpts, message, sender)
