"""A private Dovecot 2.3 in a pipe: no daemon, no port, its mail in a temporary folder.

Gives what another server says of a message, to compare with our own words."""
import os
import shutil
import subprocess
import tempfile

CONFIG = """protocols = imap
ssl = no
log_path = {dir}/log
base_dir = {dir}/run
state_dir = {dir}/state
mail_location = sdbox:{dir}/mail
mail_uid = {uid}
mail_gid = {gid}
first_valid_uid = 1
mail_fsync = never
namespace inbox {{
  inbox = yes
  separator = /
}}
"""


class Unavailable(Exception):
    pass


class Dovecot:
    def __init__(self):
        if not shutil.which("doveadm"):
            raise Unavailable("Dovecot is not installed")
        self.dir = tempfile.mkdtemp(prefix="culver-mime-")
        uid, gid = os.getuid(), os.getgid()
        if uid == 0:
            uid = gid = 65534
            os.chmod(self.dir, 0o755)
        for name in ("mail", "run", "state"):
            os.mkdir(self.dir + "/" + name)
            if os.getuid() == 0:
                os.chown(self.dir + "/" + name, uid, gid)
        self.conf = self.dir + "/dovecot.conf"
        with open(self.conf, "w") as f:
            f.write(CONFIG.format(dir=self.dir, uid=uid, gid=gid))
        env = dict(os.environ, USER="test", HOME=self.dir + "/mail")
        self.child = subprocess.Popen(["doveadm", "-c", self.conf, "exec", "imap"], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
        self.tag = 0
        greeting = self.child.stdout.readline()
        if not greeting.startswith(b"* PREAUTH"):
            self.close()
            raise Unavailable("Dovecot does not start here: %r" % greeting)
        self.command(b"SELECT INBOX")

    def close(self):
        self.child.stdin.close()
        self.child.wait(timeout=10)
        shutil.rmtree(self.dir, ignore_errors=True)

    def response(self):
        """One response with its literals left in place."""
        whole = b""
        while True:
            line = self.child.stdout.readline()
            if not line:
                raise Unavailable("Dovecot went away")
            whole += line
            if not line.endswith(b"}\r\n"):
                return whole
            n = int(line[line.rindex(b"{") + 1:-3])
            whole += self.child.stdout.read(n)

    def command(self, text):
        """Sends one command; gives the untagged responses, and raises on NO and BAD."""
        self.tag += 1
        tag = b"t%d " % self.tag
        self.child.stdin.write(tag + text + b"\r\n")
        self.child.stdin.flush()
        lines = []
        while True:
            r = self.response()
            if r.startswith(tag):
                if not r.startswith(tag + b"OK"):
                    raise RuntimeError("%r: %r" % (text[:80], r))
                return lines
            lines.append(r)

    def append(self, message):
        self.command(b"APPEND INBOX {%d+}\r\n" % len(message) + message)

    def fetch(self, seq, items):
        """The text between "FETCH (" and ")"."""
        for r in self.command(b"FETCH %d (%s)" % (seq, items)):
            head = b"* %d FETCH (" % seq
            if r.startswith(head):
                return r[len(head):-3]
        raise RuntimeError("no answer for %d" % seq)


def split_items(text):
    """FETCH data as a list of (name, value) in bytes; values stay IMAP syntax."""
    pos = 0
    items = []
    while pos < len(text):
        end = text.index(b" ", pos)
        if b"[" in text[pos:end]:
            end = text.index(b"] ", pos) + 1
        name = text[pos:end]
        pos = end + 1
        end = skip_value(text, pos)
        items.append((name, text[pos:end]))
        pos = end + 1
    return items


def skip_value(text, pos):
    """Where the IMAP value that starts at pos ends."""
    c = text[pos:pos + 1]
    if c == b"(":
        pos += 1
        while text[pos:pos + 1] != b")":
            if text[pos:pos + 1] == b" ":
                pos += 1
            else:
                pos = skip_value(text, pos)
        return pos + 1
    if c == b'"':
        pos += 1
        while text[pos:pos + 1] != b'"':
            pos += 2 if text[pos:pos + 1] == b"\\" else 1
        return pos + 1
    if c == b"{":
        end = text.index(b"}", pos)
        return end + 3 + int(text[pos + 1:end])
    while pos < len(text) and text[pos:pos + 1] not in b" )":
        pos += 1
    return pos


def string_value(text):
    """The bytes of an IMAP nstring, None for NIL."""
    if text == b"NIL":
        return None
    if text.startswith(b"{"):
        return text[text.index(b"}") + 3:]
    out = b""
    pos = 1
    while pos < len(text) - 1:
        if text[pos:pos + 1] == b"\\":
            pos += 1
        out += text[pos:pos + 1]
        pos += 1
    return out
