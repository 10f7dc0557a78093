#!/usr/bin/env python3
"""Other suites on S3 instead of a directory, short: tests/objstore/s3server.py keeps everything.  README.md has the long form."""
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SUITES = ("system/t_stream.py", "system/t_clients.py", "ctl/t_culverctl.py", "crash/t_crash.py")
ENV = dict(os.environ, CULVER_TEST_STORE="s3", CULVER_LOAD_SECONDS="5", CULVER_LOAD_CLIENTS="25", CULVER_CRASH_KILLS="6")


def main():
    n, failed = 0, False
    for suite in SUITES:
        p = subprocess.run([sys.executable, os.path.join(HERE, "..", suite)], env=ENV, stdout=subprocess.PIPE, text=True)
        ended = False
        for line in p.stdout.splitlines():
            m = re.match(r"(not ok|ok) \d+ - (.*)", line)
            if m:
                n += 1
                ended = True
                failed = failed or m[1] == "not ok"
                line = "%s %d - %s: %s" % (m[1], n, suite, m[2])
            if not re.match(r"1\.\.\d", line):
                print(line, flush=True)
        if not ended or (p.returncode and not failed):
            n, failed = n + 1, True
            print("not ok %d - %s ends with status %d" % (n, suite, p.returncode))
    print("1..%d" % n)
    return failed


if __name__ == "__main__":
    sys.exit(main())
