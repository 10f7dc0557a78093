"""Made-up mail: varied, valid and not so valid, the same for the same seed.  Standard library only."""
import base64
import quopri
import random

WORDS = ("dove cote loft perch egg nest wing feather flight homing ring pair squab grain water dusk dawn north south letter reply "
         "meeting budget minutes agenda draft invoice Grüße Ünïcode naïve 日本語 привет été").split()
NAMES = ["Ann Dove", "Bob", "Carla Loft", "Dörte Müller", "日本 太郎", "\"Quoted, Name\"", "", "O'Neil", "a.b"]
CHARSETS = ["us-ascii", "utf-8", "iso-8859-1", "windows-1252", "koi8-r", "iso-2022-jp"]
TYPES = ["application/octet-stream", "application/pdf", "image/png", "text/csv; charset=utf-8", "text/calendar; method=REQUEST", "audio/wav"]


def text(r, lines):
    return ["".join(r.choice(WORDS) + " " for _ in range(r.randrange(1, 12))).rstrip() for _ in range(lines)]


def encoded_word(r, s):
    charset = r.choice(["utf-8", "UTF-8", "iso-8859-1"])
    data = s.encode(charset, "replace")
    if r.random() < 0.5:
        return "=?%s?B?%s?=" % (charset, base64.b64encode(data).decode())
    return "=?%s?q?%s?=" % (charset, "".join(chr(b) if chr(b).isalnum() and b < 128 else "=%02X" % b for b in data))


def phrase(r, s):
    if all(ord(c) < 128 for c in s):
        return s
    return encoded_word(r, s)


def address(r):
    local = "%s%d" % (r.choice(["ann", "bob", "c.d", "x-y", '"odd one"', "postmaster"]), r.randrange(100))
    if local.startswith('"'):
        local = '"odd one"'
    addr = "%s@%s" % (local, r.choice(["example.org", "sub.example.com", "[192.0.2.1]", "xn--mller-kva.example"]))
    name = phrase(r, r.choice(NAMES))
    k = r.random()
    if k < 0.2 or not name:
        return addr if r.random() < 0.7 else "<%s>" % addr
    if k < 0.3:
        return "%s (%s)" % (addr, "comment")
    return "%s <%s>" % (name, addr)


def addresses(r):
    many = [address(r) for _ in range(r.choice([1, 1, 1, 2, 3, 20]))]
    if r.random() < 0.08:
        return "Team: %s;" % ", ".join(many)
    if r.random() < 0.04:
        return "undisclosed-recipients:;"
    return (",\r\n\t" if r.random() < 0.5 else ", ").join(many)


def date(r):
    return "%s%d %s %d %02d:%02d:%02d %s" % (
        r.choice(["Mon, ", "Tue, ", ""]), r.randrange(1, 29), r.choice("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()),
        r.randrange(1995, 2030), r.randrange(24), r.randrange(60), r.randrange(60), r.choice(["+0000", "-0730", "+0900", "GMT", "EST"]))


def leaf(r, depth):
    """(header lines, body)"""
    kind = r.random()
    n = r.choice([0, 1, 2, 5, 20, 60])
    if kind < 0.3:
        charset = r.choice(CHARSETS)
        head = ["Content-Type: text/%s; charset=%s" % (r.choice(["plain", "html", "enriched"]), charset)]
        data = "\r\n".join(text(r, n)).encode(charset, "replace")
        enc = r.choice(["7bit", "8bit", "quoted-printable", "base64", "Binary"])
    elif kind < 0.6:
        name = r.choice(["file.bin", "Rechnung März.pdf", "a b.txt"])
        head = ["Content-Type: " + r.choice(TYPES)]
        if name.isascii():
            head.append("Content-Disposition: attachment; filename=\"%s\"; size=%d" % (name, r.randrange(10000)))
        else:
            head.append("Content-Disposition: attachment;\r\n filename*=utf-8''%s" % "".join("%%%02X" % b for b in name.encode()))
        if r.random() < 0.3:
            head.append("Content-ID: <%d@example.org>" % r.randrange(10**9))
        if r.random() < 0.2:
            head.append("Content-Description: " + phrase(r, r.choice(WORDS)))
        if r.random() < 0.2:
            head.append("Content-Language: de, en")
        if r.random() < 0.1:
            head.append("Content-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==")
        data = r.randbytes(r.choice([0, 10, 1000, 5000, 40000]))
        enc = "base64"
    elif kind < 0.75 and depth < 4:
        head, data, enc = ["Content-Type: message/rfc822"], message(r, depth + 1), r.choice(["7bit", "8bit"])
        return head, data
    else:
        head = []
        return head, "\r\n".join(text(r, n)).encode() + (b"\r\n" if n else b"")
    head.append("Content-Transfer-Encoding: " + enc)
    if enc == "base64":
        data = base64.encodebytes(data).replace(b"\n", b"\r\n")
    elif enc == "quoted-printable":
        data = quopri.encodestring(data.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
    return head, data


def multipart(r, depth):
    boundary = "=_%x" % r.getrandbits(48) if r.random() < 0.8 else "b ound'ary%d" % r.randrange(1000)
    sub = r.choice(["mixed", "mixed", "alternative", "related", "digest", "report; report-type=delivery-status", "signed"])
    head = ["Content-Type: multipart/%s; boundary=\"%s\"" % (sub, boundary)]
    b = boundary.encode()
    out = [b"This is a multi-part message.\r\n" if r.random() < 0.3 else b""]
    for _ in range(r.choice([1, 2, 2, 3, 6])):
        if sub == "digest":
            h, body = r.choice([[], ["Content-Type: message/rfc822"]]), message(r, depth + 1)
        else:
            h, body = part(r, depth + 1)
        out.append(b"--" + b + r.choice([b"", b"", b" "]) + b"\r\n" + "".join(x + "\r\n" for x in h).encode() + b"\r\n" + body + b"\r\n")
    if r.random() < 0.95:
        out.append(b"--" + b + b"--\r\n")
        if r.random() < 0.1:
            out.append(b"epilogue\r\n")
    return head, b"".join(out)


def part(r, depth):
    if depth < 4 and r.random() < (0.45 if depth == 0 else 0.25):
        return multipart(r, depth)
    return leaf(r, depth)


def message(r, depth=0):
    """Octets with CRLF line ends, the last line ended too."""
    h, body = part(r, depth)
    head = []
    if r.random() < 0.95:
        head.append("From: " + addresses(r).split(",\r\n")[0])
    for name, chance in (("To", 0.9), ("Cc", 0.3), ("Bcc", 0.05), ("Reply-To", 0.1), ("Sender", 0.1)):
        if r.random() < chance:
            head.append("%s: %s" % (name, addresses(r)))
    if r.random() < 0.95:
        head.append("Subject: " + r.choice([phrase(r, s) for s in text(r, 3)] + ["", " ", "Re: [list] folded\r\n subject"]))
    if r.random() < 0.95:
        head.append("Date: " + date(r))
    if r.random() < 0.9:
        head.append("Message-ID: <%x@example.org>" % r.getrandbits(60))
    if r.random() < 0.3:
        head.append("In-Reply-To: <%x@example.org>" % r.getrandbits(60))
        head.append("References: " + "\r\n\t".join("<%x@example.org>" % r.getrandbits(60) for _ in range(r.randrange(1, 8))))
    for _ in range(r.choice([0, 1, 5])):
        head.append("Received: from a (b [192.0.2.%d])\r\n\tby c with ESMTP id %x; %s" % (r.randrange(255), r.getrandbits(32), date(r)))
    if h and r.random() < 0.95:
        head.append("MIME-Version: 1.0")
    head += h
    if r.random() < 0.3:
        r.shuffle(head)
    out = "".join(x + "\r\n" for x in head).encode() + b"\r\n" + body
    if depth == 0:
        if r.random() < 0.03:
            out = out.replace(b"\r\n\r\n", b"\r\n\r\n.\r\n..\r\n", 1)
        if r.random() < 0.01:
            out += b"n\0u\0l\r\n"
        if r.random() < 0.01:
            out += b"x" * r.choice([998, 5000, 200000]) + b"\r\n"
        if not out.endswith(b"\r\n"):
            out += b"\r\n"
    return out


def mailbox(n, seed):
    """n messages; now and then a large one."""
    r = random.Random(seed)
    for i in range(n):
        m = message(r)
        if i % 500 == 499:
            m += (b"%08d " % i + b"0123456789abcdef" * 4 + b"\r\n") * (30000 if i % 1000 == 999 else 4000)
        yield m
