#!/usr/bin/env python3
"""Compares ENVELOPE, BODY, BODYSTRUCTURE and the bytes of every part with
Dovecot's, for every message of tests/corpus.  TAP on standard output.

Intended differences are read from docs/dovecot-differences.md: lines
"| `message` | ITEM | ..." are the ones that must differ, all others must not."""
import glob
import os
import re
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import dovecot  # noqa: E402

TOP = os.environ.get("top_srcdir") or os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get("top_builddir") or "."
DUMP = os.path.join(BUILD, "tests/mime/mime_dump")


def crlf(data):
    return re.sub(rb"\r?\n", b"\r\n", data)


def messages():
    """(name, bytes) of every message, line ends as a client would send them."""
    for path in sorted(glob.glob(TOP + "/tests/corpus/messages/*.eml")):
        with open(path, "rb") as f:
            yield os.path.basename(path), crlf(f.read())
    for path in sorted(glob.glob(TOP + "/tests/corpus/mbox/*.mbox")):
        with open(path, "rb") as f:
            text = crlf(f.read())
        for i, m in enumerate(re.split(rb"(?:\A|\r\n\r\n)From [^\r\n]*\r\n", text)[1:]):
            yield "%s:%d" % (os.path.basename(path), i + 1), m


def read_dump(out):
    """One file's answer of mime_dump -s."""
    d = {"PART": []}
    while True:
        line = out.readline()
        if not line:
            raise RuntimeError("mime_dump ended")
        word, _, rest = line.rstrip(b"\n").partition(b" ")
        word = word.decode()
        if word == "END":
            return d
        if word in ("FILE", "FLAGS", "SUMMARY"):
            d[word] = rest
            continue
        value = out.read(int(rest))
        out.read(1)
        if word == "PART":
            d["PART"].append(value)
        else:
            d[word] = value


def tree(text, pos=0):
    """An IMAP value as nested lists of byte strings, so that "a" equals {1}a."""
    end = dovecot.skip_value(text, pos)
    if text[pos:pos + 1] != b"(":
        raw = text[pos:end]
        return raw if raw[:1] not in (b'"', b"{") else [b"str", dovecot.string_value(raw)]
    items = []
    pos += 1
    while pos < end - 1:
        if text[pos:pos + 1] == b" ":
            pos += 1
            continue
        items.append(tree(text, pos))
        pos = dovecot.skip_value(text, pos)
    return items


def differences():
    known = {}
    with open(TOP + "/docs/dovecot-differences.md", encoding="utf-8") as f:
        for line in f:
            m = re.match(r"\| `([^`]+)` \| (\S+) \|", line)
            if m:
                known[(m.group(1), m.group(2))] = line
    return known


def sections(ours):
    """What to fetch, and which bytes of the message that has to be."""
    want = []
    for line in ours["PART"]:
        f = line.split(b" ")
        if f[1] == b"DISAGREES":
            raise RuntimeError("mime_summary_part and each_leaf disagree: %r" % line)
        hoff, hlen, boff, blen = (int(x) for x in f[1:5])
        want.append((b"BODY[" + f[0] + b"]", boff, blen))
        want.append((b"BODY[" + f[0] + b".MIME]", hoff, hlen))
    return want


def compare(dc, seq, data, ours):
    """The items that differ: {item: (dovecot's, ours)}."""
    want = sections(ours)
    items = b" ".join([b"ENVELOPE BODY BODYSTRUCTURE"] + [b"BODY.PEEK" + w[0][4:] for w in want])
    got = dict(dovecot.split_items(dc.fetch(seq, items)))
    bad = {}
    for item in ("ENVELOPE", "BODY", "BODYSTRUCTURE"):
        theirs = got[item.encode()]
        if tree(theirs) != tree(ours[item]):
            bad[item] = (theirs, ours[item])
    if ours["ENVELOPE2"] != ours["ENVELOPE"]:
        bad["mime_envelope"] = (ours["ENVELOPE"], ours["ENVELOPE2"])
    for name, off, length in want:
        theirs = dovecot.string_value(got[name]) or b""
        if theirs != data[off:off + length]:
            bad[name.decode()] = (theirs, data[off:off + length])
    return bad


def main():
    try:
        dc = dovecot.Dovecot()
    except dovecot.Unavailable as e:
        print("1..0 # SKIP %s" % e)
        return 77
    known = differences()
    everything = list(messages())
    print("1..%d" % len(everything))
    failed = 0
    child = subprocess.Popen([DUMP, "-s"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with tempfile.NamedTemporaryFile() as f:
        for n, (name, data) in enumerate(everything, 1):
            f.seek(0)
            f.truncate()
            f.write(data)
            f.flush()
            child.stdin.write(f.name.encode() + b"\n")
            child.stdin.flush()
            ours = read_dump(child.stdout)
            dc.append(data)
            bad = compare(dc, n, data, ours)
            expected = {item for (message, item) in known if message == name}
            ok = set(bad) == expected
            print("%sok %d - %s%s" % ("" if ok else "not ", n, name, " (%d intended differences)" % len(bad) if ok and bad else ""))
            if ok:
                continue
            failed += 1
            for item in expected - set(bad):
                print("# %s: no longer differs" % item)
            for item in set(bad) - expected:
                print("# %s\n#   Dovecot %r\n#   ours    %r" % ((item,) + bad[item]))
    child.stdin.close()
    child.wait()
    dc.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
