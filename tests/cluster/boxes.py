"""The ledger's reader (tests/crash/load.py) with mailboxes that are renamed and deleted, too.  Standard library only."""
from load import Reader


class ClusterReader(Reader):
    gone = None  # (user, name): acknowledged as deleted or renamed

    def step(self, c):
        if self.rng.random() < 0.2:
            self.change_a_box(c)
        else:
            super().step(c)

    def change_a_box(self, c):
        with self.ledger.lock:
            mine = sorted(n for u, n in self.ledger.boxes if u == self.user)
            name = self.rng.choice(mine) if mine else None
            if name:
                self.ledger.boxes.discard((self.user, name))  # until it is answered nobody knows
        if not name:
            return
        if self.rng.random() < 0.5:
            self.ok(c.delete(name))
            new, what = None, "delete"
        else:
            new, what = "renamed-%s" % self.ledger.new_id(), "rename"
            self.ok(c.rename(name, new))
        with self.ledger.lock:
            self.gone.add((self.user, name))
            if new:
                self.ledger.boxes.add((self.user, new))
        self.ledger.count(what)
