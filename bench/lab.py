"""What bench/run, bench/requests and bench/latency share: servers in a directory of their own, started and stopped by pid."""
import http.client
import json
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(HERE)


class Stop(Exception):
    pass


def free_ports(n):
    """Below the range from which the kernel takes clients' ports, so that they are still free after a restart."""
    ports = []
    while len(ports) < n:
        port = random.SystemRandom().randrange(12000, 32000)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def wait_for_port(port, proc, log):
    end = time.time() + 20
    while time.time() < end:
        if proc.poll() is not None:
            raise Stop("server ended with status %d; see %s" % (proc.returncode, log))
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise Stop("nothing answers on port %d; see %s" % (port, log))


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3\n")


class Server:
    """A server that is started in the foreground and stopped by its pid."""

    def __init__(self, base, build):
        self.dir, self.build = os.path.join(base, self.name), build
        self.proc = None
        self.imap, self.pop3, self.lmtp = free_ports(3)
        os.makedirs(self.dir, exist_ok=True)
        os.chmod(self.dir, 0o755)
        self.log = os.path.join(self.dir, "log")
        self.configure()

    def start(self):
        with open(self.log + ".stderr", "a") as err:
            self.proc = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=err, stderr=err)
        for port in (self.imap, self.pop3, self.lmtp):
            wait_for_port(port, self.proc, self.log)

    def stop(self):
        if not self.proc:
            return
        self.proc.send_signal(signal.SIGTERM)
        try:
            self.proc.wait(60)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()
        self.proc = None

    def restart(self):
        self.stop()
        self.start()

    def bench(self, args):
        cmd = [os.path.join(self.build, "bench/culverbench"), args[0], "--label", self.name, "--imap", str(self.imap), "--pop3", str(self.pop3), "--lmtp", str(self.lmtp),
               "--pid", str(self.proc.pid)] + [str(x) for x in args[1:]]
        r = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if r.stderr:
            print("  %s: %s" % (self.name, r.stderr.strip()[:500]), file=sys.stderr)
        if r.returncode == 2 or not r.stdout.strip():
            raise Stop("culverbench %s against %s failed" % (args[0], self.name))
        return json.loads(r.stdout.splitlines()[-1])


class Culver(Server):
    def __init__(self, base, build, name="culver", extra=""):
        self.name, self.extra = name, extra
        super().__init__(base, build)

    def configure(self):
        self.bin = os.path.join(self.build, "culverd")
        self.ctl = os.path.join(self.build, "culverctl")
        self.conf = os.path.join(self.dir, "culver.conf")
        with open(self.conf, "w") as f:
            f.write('state_dir = "%s/state"\nrun_dir = "%s/run"\nlog = "%s"\n' % (self.dir, self.dir, self.log))
            for proto, port in (("imap", self.imap), ("pop3", self.pop3), ("lmtp", self.lmtp)):
                f.write('listen %s { address = "127.0.0.1" port = %d }\n' % (proto, port))
            f.write(self.extra)
        os.makedirs(os.path.join(self.dir, "state"), exist_ok=True)

    def command(self):
        return [self.bin, "-c", self.conf, "-f"]

    def add_users(self, names):
        """One argon2 hash for all of them; each is verified once and then cached, as in daily life."""
        db = os.path.join(self.dir, "state", "users.db")
        ctl = [self.ctl, "-c", self.conf, "user", "add"]
        have = set()
        if not os.path.exists(db):
            subprocess.run(ctl + [names[0], "--password-stdin"], input="pass\n", text=True, check=True)
        with sqlite3.connect(db) as c:
            rows = c.execute("SELECT name, hash FROM users").fetchall()
        have = {r[0] for r in rows}
        for n in names:
            if n not in have:
                subprocess.run(ctl + [n, "--hash", rows[0][1]], check=True, stdout=subprocess.DEVNULL)

    def culverctl(self, *args):
        r = subprocess.run([self.ctl, "-c", self.conf] + [str(a) for a in args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if r.returncode != 0:
            raise Stop("culverctl %s: %s" % (" ".join(str(a) for a in args), r.stderr.strip()))
        return r.stdout

    def cold(self):
        self.stop()
        drop_caches()
        self.start()

    def version(self):
        v = subprocess.run([self.bin, "--version"], stdout=subprocess.PIPE, text=True).stdout.split("\n")[0]
        r = subprocess.run(["git", "-C", TOP, "describe", "--always", "--dirty"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return (v + " " + r.stdout).strip()


class S3Mem:
    """bench/s3mem: a store in memory that answers after a set time and counts."""

    def __init__(self, build, delay_ms=0):
        tool = os.path.join(build, "bench/s3mem")
        if not os.path.exists(tool):
            raise Stop("%s is not built: it needs libmicrohttpd (Debian: libmicrohttpd-dev)" % tool)
        self.proc = subprocess.Popen([tool, "--delay", str(delay_ms)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.proc.stdout.readline())

    def settings(self, section="mail_store"):
        """libmicrohttpd 0.9.75 loses sight of connections when 128 or more become ready at once: somewhat fewer than culverd's 128."""
        return '%s { driver = s3 endpoint = "http://127.0.0.1:%d" bucket = bench access_key = bench secret_key = bench concurrency = 100 }\n' % (section, self.port)

    def ask(self, method, what):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        c.request(method, "/-/" + what)
        r = json.loads(c.getresponse().read())
        c.close()
        return r

    def counts(self):
        return self.ask("GET", "counts")

    def delay(self, ms):
        self.ask("PUT", "delay?ms=%d" % ms)

    def stop(self):
        self.proc.stdin.close()
        self.proc.wait()


def machine():
    with open("/proc/cpuinfo") as f:
        model = re.search(r"model name\s*:\s*(.*)", f.read())
    return "%s, %d cores, Linux %s" % (model.group(1) if model else "?", os.cpu_count(), os.uname().release)
