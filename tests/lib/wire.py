"""IMAP and LMTP as bytes on a socket: what system tests need beyond imaplib.  Standard library only."""
import re
import socket

from server import TIMEOUT, tls_context


class Closed(Exception):
    """The server closed the connection."""


class Stream:
    """A connection read by lines and counted octets."""

    def __init__(self, port, tls=False, timeout=TIMEOUT, rcvbuf=0):
        self.sock = socket.socket()
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.settimeout(timeout)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buf = bytearray()
        self.pos = 0
        if tls:
            self.start_tls()

    def start_tls(self):
        self.sock = tls_context().wrap_socket(self.sock)
        self.buf, self.pos = bytearray(), 0

    def send(self, data):
        self.sock.sendall(data)

    def fill(self):
        if self.pos > 65536:
            del self.buf[:self.pos]
            self.pos = 0
        try:
            more = self.sock.recv(262144)
        except ConnectionError as e:
            raise Closed(str(e)) from e
        if not more:
            raise Closed("after %r" % bytes(self.buf[self.pos:][:200]))
        self.buf += more

    def line(self):
        """A line with its CRLF."""
        seen = self.pos
        while True:
            end = self.buf.find(b"\n", seen)
            if end >= 0:
                line = bytes(self.buf[self.pos:end + 1])
                self.pos = end + 1
                return line
            seen = len(self.buf) - self.pos
            self.fill()
            seen += self.pos

    def octets(self, n):
        while len(self.buf) - self.pos < n:
            self.fill()
        data = bytes(self.buf[self.pos:self.pos + n])
        self.pos += n
        return data

    def ready(self):
        """Is there more that was read already?"""
        return self.pos < len(self.buf)

    def at_end(self):
        """Reads what comes; True when the server closed the connection."""
        try:
            while True:
                self.pos = len(self.buf)
                self.fill()
        except Closed:
            return True
        except socket.timeout:
            return False

    def close(self):
        self.sock.close()


def value_end(text, pos):
    """Where the IMAP value that starts at pos ends."""
    depth = 0
    while True:
        c = text[pos:pos + 1]
        if c == b"(":
            depth, pos = depth + 1, pos + 1
        elif c == b")":
            depth, pos = depth - 1, pos + 1
        elif c == b'"':
            pos += 1
            while text[pos:pos + 1] != b'"':
                pos += 2 if text[pos:pos + 1] == b"\\" else 1
            pos += 1
        elif c == b"{" or text[pos:pos + 2] == b"~{":
            end = text.index(b"}", pos)
            pos = end + 3 + int(text[pos:end].lstrip(b"~{"))
        elif depth and c == b" ":
            pos += 1
        else:
            while pos < len(text) and text[pos:pos + 1] not in b" )":
                pos += 1
        if depth == 0:
            return pos


def string(value):
    """The octets of an nstring in IMAP syntax."""
    if value == b"NIL":
        return None
    if value[:1] == b'"':
        return re.sub(rb"\\(.)", rb"\1", value[1:-1])
    return value[value.index(b"}") + 3:]


TOKEN = re.compile(rb'([() ])|"((?:[^"\\]|\\.)*)"|\{(\d+)\}\r\n|([^ ()]+)', re.S)


def tree(value):
    """IMAP syntax as nested lists of atoms (bytes) and strings (1-tuples of their octets), so that "a" equals {1}a."""
    pos, stack = 0, [[]]
    while pos < len(value):
        m = TOKEN.match(value, pos)
        pos = m.end()
        mark, quoted, literal, atom = m.groups()
        if mark == b"(":
            stack.append([])
        elif mark == b")":
            done = stack.pop()
            stack[-1].append(done)
        elif quoted is not None:
            stack[-1].append((re.sub(rb"\\(.)", rb"\1", quoted) if b"\\" in quoted else quoted,))
        elif literal is not None:
            stack[-1].append((value[pos:pos + int(literal)],))
            pos += int(literal)
        elif atom is not None:
            stack[-1].append(atom)
    assert len(stack) == 1
    return stack[0][0]


FETCH = re.compile(rb"\* (\d+) FETCH \(")


def fetched(response):
    """(sequence number, {item: value in IMAP syntax}) of an untagged FETCH, else None."""
    m = FETCH.match(response)
    if not m:
        return None
    items, pos = {}, m.end()
    while response[pos:pos + 1] != b")":
        end = response.index(b" ", pos)
        bracket = response.find(b"[", pos, end)
        if bracket > 0:
            end = response.index(b" ", response.index(b"]", bracket))
        name, pos = response[pos:end], end + 1
        end = value_end(response, pos)
        items[name] = response[pos:end]
        pos = end + 1 if response[end:end + 1] == b" " else end
    return int(m.group(1)), items


class Imap(Stream):
    """Responses are bytes with their literals in place and without the last CRLF."""

    def __init__(self, port, user=None, **kw):
        super().__init__(port, **kw)
        self.tags = 0
        self.greeting = self.response()
        if user:
            self.ok(b"LOGIN %s pass" % user.encode())

    def response(self):
        whole = self.line()
        while True:
            m = re.search(rb"\{(\d+)\}\r\n\Z", whole)
            if not m:
                return whole[:-2] if whole.endswith(b"\r\n") else whole
            whole += self.octets(int(m.group(1))) + self.line()

    def begin(self, text):
        self.tags += 1
        tag = b"t%d" % self.tags
        self.send(tag + b" " + text + b"\r\n")
        return tag

    def end(self, tag):
        lines = []
        while True:
            r = self.response()
            if r.startswith(tag + b" "):
                return lines, r[len(tag) + 1:]
            lines.append(r)

    def command(self, text):
        """(untagged responses, the tagged one without its tag)"""
        return self.end(self.begin(text))

    def ok(self, text):
        """The untagged responses of a command that must succeed."""
        lines, status = self.command(text)
        assert status.startswith(b"OK"), (text[:200], status)
        return lines

    def append(self, mailbox, message, flags=b""):
        """UID of the message."""
        _, status = self.command(b"APPEND %s (%s) {%d+}\r\n" % (mailbox, flags, len(message)) + message)
        m = re.match(rb"OK \[APPENDUID \d+ (\d+)\]", status)
        assert m, status
        return int(m.group(1))

    def select(self, mailbox=b"INBOX", verb=b"SELECT"):
        """The number of messages."""
        for r in self.ok(verb + b" " + mailbox):
            m = re.match(rb"\* (\d+) EXISTS", r)
            if m:
                return int(m.group(1))
        raise AssertionError("no EXISTS")

    def logout(self):
        self.command(b"LOGOUT")
        self.close()


class Lmtp(Stream):
    def __init__(self, port, **kw):
        super().__init__(port, **kw)
        assert self.reply().startswith(b"220")
        self.send(b"LHLO test\r\n")
        assert self.reply().startswith(b"250")

    def reply(self):
        """The last line of a reply."""
        while True:
            line = self.line()
            if line[3:4] != b"-":
                return line.rstrip(b"\r\n")

    def deliver(self, rcpts, message, sender=b"sender@example.org"):
        """Pipelined; the replies after the final dot, one for each recipient.  message ends in CRLF."""
        rcpts = [r if isinstance(r, bytes) else r.encode() for r in rcpts]
        self.send(b"MAIL FROM:<%s>\r\n" % sender + b"".join(b"RCPT TO:<%s>\r\n" % r for r in rcpts) + b"DATA\r\n")
        for want in [b"250"] * (1 + len(rcpts)) + [b"354"]:
            reply = self.reply()
            assert reply.startswith(want), reply
        self.send(re.sub(rb"(?:(?<=\r\n)|\A)\.", b"..", message) + b".\r\n")
        return [self.reply() for _ in rcpts]
