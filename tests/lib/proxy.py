#!/usr/bin/env python3
"""A wire that can be cut: a TCP proxy to 127.0.0.1:PORT.  Prints its own port and does what lines on its standard input say, until that ends.

pass        bytes go both ways
refuse      nobody listens, and every connection is reset
stall       nothing moves, and nothing is closed: what was sent arrives later
deaf        requests arrive, answers do not; what was open is reset afterwards
quit        it ends
slow SECS   everything waits so long on its way, both ways
Each line is answered by itself.  Standard library only."""
import asyncio
import subprocess
import sys

MODE = ["pass", 0.0]
pairs = set()


class End(asyncio.Protocol):
    """One side of a connection; `other` is the end of the other side."""

    def __init__(self, client, other=None):
        self.client, self.other, self.transport, self.waiting, self.deaf, self.at = client, other, None, [], False, 0.0

    def connection_made(self, transport):
        self.transport = transport
        pairs.add(self)
        if self.client:
            transport.pause_reading()
            asyncio.get_running_loop().create_task(self.connect())
        if MODE[0] == "stall":
            self.pause(True)

    async def connect(self):
        try:
            _, self.other = await asyncio.get_running_loop().create_connection(lambda: End(False, self), "127.0.0.1", TARGET)
        except OSError:
            return self.kill()
        if MODE[0] != "stall":
            self.pause(False)

    def pause(self, yes):
        if self.transport.is_closing() or (self.client and not self.other and not yes):
            return
        if yes and self.transport.is_reading():
            self.transport.pause_reading()
        elif not yes and not self.transport.is_reading():
            self.transport.resume_reading()

    def data_received(self, data):
        if MODE[0] == "deaf" and not self.client:
            self.deaf = True
        elif MODE[0] == "slow" or self.waiting:
            loop = asyncio.get_running_loop()
            self.at = max(self.at, loop.time() + MODE[1])
            self.waiting.append(data)
            loop.call_at(self.at, self.late)
        elif self.other and not self.deaf:
            self.other.write(data)

    def late(self):
        if self.waiting and self.other:
            self.other.write(self.waiting.pop(0))

    def write(self, data):
        if self.transport and not self.transport.is_closing():
            self.transport.write(data)

    def pause_writing(self):
        if self.other:
            self.other.pause(True)

    def resume_writing(self):
        if self.other and MODE[0] != "stall":
            self.other.pause(False)

    def connection_lost(self, why):
        pairs.discard(self)
        if not self.other or not self.other.transport or MODE[0] == "deaf" or self.deaf:
            return
        if self.waiting:
            asyncio.get_running_loop().call_at(self.at + 0.001, self.other.transport.close)
        else:
            self.other.transport.close()

    def kill(self):
        self.transport.abort()


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: End(True), "127.0.0.1", 0, backlog=256)
    port = server.sockets[0].getsockname()[1]
    print(port, flush=True)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while True:
        words = (await reader.readline()).decode().split()
        if not words or words[0] == "quit":
            return
        was, MODE[:] = MODE[0], [words[0], float(words[1]) if len(words) > 1 else 0.0]
        for e in list(pairs):
            if words[0] == "refuse" or (was == "deaf" and words[0] != "deaf"):
                e.kill()
            elif words[0] == "stall" or was == "stall":
                e.pause(words[0] == "stall")
        if words[0] == "refuse" and server.is_serving():
            server.close()
        elif words[0] != "refuse" and not server.is_serving():
            server = await loop.create_server(lambda: End(True), "127.0.0.1", port, backlog=256)
        print(*words, flush=True)


class Wire:
    """That program, for a test."""

    def __init__(self, port):
        self.proc = subprocess.Popen([sys.executable, __file__, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.url = "http://127.0.0.1:%d" % int(self.proc.stdout.readline())

    def set(self, *words):
        line = " ".join(str(w) for w in words)
        self.proc.stdin.write(line + "\n")
        self.proc.stdin.flush()
        assert self.proc.stdout.readline().split()[0] == words[0]

    def close(self):
        self.proc.stdin.write("quit\n")
        self.proc.stdin.close()
        self.proc.wait(20)


if __name__ == "__main__":
    TARGET = int(sys.argv[1])
    asyncio.run(main())
