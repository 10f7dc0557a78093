"""Where the parts of a message lie: a reader of its own for well-formed mail (RFC 2045, 2046), to check section numbers and offsets.

It knows nothing of how the server or another library does it.  Standard library only."""
import re


def header_end(data, start, end):
    """Offset behind the empty line that ends the header."""
    if data.startswith(b"\r\n", start, end):
        return start + 2
    at = data.find(b"\r\n\r\n", start, end)
    return end if at < 0 else at + 4


def content_type(header, default):
    """(type, boundary) in lower case and as it is."""
    header = re.sub(rb"\r\n(?=[ \t])", b"", header)
    m = re.search(rb"(?im)^content-type[ \t]*:[ \t]*([^;\r\n]*)(.*)$", header)
    if not m:
        return default, None
    b = re.search(rb'(?i);\s*boundary\s*=\s*(?:"([^"]*)"|([^\s;]+))', m.group(2))
    return m.group(1).strip().lower(), (b.group(1) or b.group(2)) if b else None


def pieces(data, start, end, boundary):
    """(start, end) of each body part of a multipart."""
    delimiter = re.compile(rb"(?:(?<=\r\n)|\A)--" + re.escape(boundary) + rb"(--)?[ \t]*(?:\r\n|\Z)")
    body = data[start:end]
    found, at = [], None
    for m in delimiter.finditer(body):
        if at is not None:
            found.append((start + at, start + max(at, m.start() - 2)))
        at = None if m.group(1) else m.end()
        if m.group(1):
            break
    if at is not None:
        found.append((start + at, end))
    return found


def entity(data, start, end, section, default, out):
    """Adds (section, octets) of what a body part at start..end and those in it are made of."""
    head = header_end(data, start, end)
    out.append((section + b".MIME", data[start:head]))
    out.append((section, data[head:end]))
    kind, boundary = content_type(data[start:head], default)
    if kind == b"message/rfc822":
        out.append((section + b".HEADER", data[head:header_end(data, head, end)]))
        out.append((section + b".TEXT", data[header_end(data, head, end):end]))
        inside(data, head, end, section + b".", out)
    elif kind.startswith(b"multipart/") and boundary:
        children(data, head, end, section + b".", kind, boundary, out)


def children(data, start, end, prefix, kind, boundary, out):
    default = b"message/rfc822" if kind == b"multipart/digest" else b"text/plain"
    for n, (a, b) in enumerate(pieces(data, start, end, boundary), 1):
        entity(data, a, b, prefix + b"%d" % n, default, out)


def inside(data, start, end, prefix, out):
    """The parts of a whole message at start..end."""
    head = header_end(data, start, end)
    kind, boundary = content_type(data[start:head], b"text/plain")
    if kind.startswith(b"multipart/") and boundary:
        children(data, head, end, prefix, kind, boundary, out)
        return
    out.append((prefix + b"1", data[head:end]))
    if kind == b"message/rfc822":
        out.append((prefix + b"1.HEADER", data[head:header_end(data, head, end)]))
        out.append((prefix + b"1.TEXT", data[header_end(data, head, end):end]))
        inside(data, head, end, prefix + b"1.", out)


def sections(data):
    """[(section, octets)] of everything FETCH BODY[section] can name."""
    head = header_end(data, 0, len(data))
    out = [(b"", data), (b"HEADER", data[:head]), (b"TEXT", data[head:])]
    inside(data, 0, len(data), b"", out)
    return out
