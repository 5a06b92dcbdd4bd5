"""Tar archives byte by byte: what no ordinary tool writes, but a registry may serve.

    header("a", size=base256(-1, 12))                 one block, its checksum right
    member("a", b"data", magic=GNU)                   a header, data, padding
    pax({"path": "b"}) + member("a")                  extended headers come before the member
    sparse_old("a", [(4096, b"data")], 1 << 20)       GNU tar's four ways of sparse files

Each field of a header may be given as bytes, which then stand there as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.helpers.images import MTIME, patch

BLOCK = 512
END = bytes(2 * BLOCK)
POSIX, GNU, V7 = b"ustar\x0000", b"ustar  \0", bytes(8)
# Name to offset and width, of POSIX's header; see pax(1), "ustar Interchange Format".
FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "gid": (116, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "checksum": (148, 8),
    "type": (156, 1),
    "link": (157, 100),
    "magic": (257, 8),
    "uname": (265, 32),
    "gname": (297, 32),
    "major": (329, 8),
    "minor": (337, 8),
    "prefix": (345, 155),
    "rest": (345, 167),
}
Segments = Sequence[tuple[int, bytes]]


def octal(number: int, width: int) -> bytes:
    """Return NUMBER as POSIX has it in a field of WIDTH bytes."""
    return b"%0*o\0" % (width - 1, number)


def base256(number: int, width: int) -> bytes:
    """Return NUMBER as GNU has it where octal digits do not do, below zero for example."""
    data = bytearray((number % (1 << 8 * width)).to_bytes(width, "big"))
    data[0] |= 0x80
    return bytes(data)


def as_bytes(text: str | bytes) -> bytes:
    """Return TEXT as it stands in an archive."""
    return text.encode(errors="surrogateescape") if isinstance(text, str) else text


def number(value: int | bytes, width: int) -> bytes:
    """Return VALUE for a field of WIDTH bytes, in base-256 if its octal digits are too many."""
    if isinstance(value, bytes):
        return value
    return octal(value, width) if 0 <= value < 8 ** (width - 1) else base256(value, width)


def header(
    name: str | bytes,
    kind: bytes = b"0",
    *,
    size: int | bytes = 0,
    mode: int | bytes = 0o644,
    mtime: int | bytes = MTIME,
    link: str | bytes = b"",
    **fields: bytes,
) -> bytes:
    """Return the header of the member NAME; FIELDS, as they are called above, stand as given."""
    values = {
        "name": as_bytes(name)[:100],
        "mode": number(mode, 8),
        "uid": octal(0, 8),
        "gid": octal(0, 8),
        "size": number(size, 12),
        "mtime": number(mtime, 12),
        "checksum": b" " * 8,
        "type": kind,
        "link": as_bytes(link)[:100],
        "magic": POSIX,
        **fields,
    }
    block = bytearray(BLOCK)
    for key, value in values.items():
        offset, width = FIELDS[key]
        assert len(value) <= width, key
        block[offset : offset + len(value)] = value
    if "checksum" not in fields:
        block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    """Return DATA, filled up to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def member(
    name: str | bytes,
    data: bytes = b"",
    kind: bytes = b"0",
    *,
    size: int | bytes | None = None,
    mode: int | bytes = 0o644,
    mtime: int | bytes = MTIME,
    link: str | bytes = b"",
    **fields: bytes,
) -> bytes:
    """Return a header, by which the data has SIZE, if given, and DATA, filled up.

    A long name or link is cut: ``long_name``, ``long_link`` and ``pax`` have room for it.
    """
    said = len(data) if size is None else size
    head = header(name, kind, size=said, mode=mode, mtime=mtime, link=link, **fields)
    return head + padded(data)


def long_name(name: str | bytes, kind: bytes = b"L") -> bytes:
    """Return what gives the next member NAME, as GNU tar does it; with kind K, a link target."""
    return member("././@LongLink", as_bytes(name) + b"\0", kind, magic=GNU, mtime=0)


def long_link(target: str | bytes) -> bytes:
    """Return what gives the next member the link target TARGET, as GNU tar does it."""
    return long_name(target, b"K")


def record(key: str | bytes, value: str | bytes) -> bytes:
    """Return one record of a pax header; its length counts itself."""
    body = b" %b=%b\n" % (as_bytes(key), as_bytes(value))
    length = len(body)
    while length != len(body) + len(b"%d" % length):
        length = len(body) + len(b"%d" % length)
    return b"%d%b" % (length, body)


def pax(records: Mapping[str, Any] | Iterable[tuple[str, Any]], kind: bytes = b"x") -> bytes:
    """Return a pax header of RECORDS for the next member; with kind g, for all that follow."""
    pairs = records.items() if isinstance(records, Mapping) else records
    return member("PaxHeaders/x", b"".join(record(*pair) for pair in pairs), kind)


def sparse_old(name: str, segments: Segments, size: int, *, after: int = 4) -> bytes:
    """Return a sparse file in GNU's old way; the map goes on in blocks AFTER so many segments."""
    pairs = [octal(at, 12) + octal(len(data), 12) for at, data in segments]
    first, rest = pairs[:after], pairs[after:]
    area = bytes(41) + b"".join(first).ljust(96, b"\0") + bytes([bool(rest)]) + octal(size, 12)
    stored = b"".join(data for _, data in segments)
    blocks = b""
    while rest:
        block, rest = rest[:21], rest[21:]
        blocks += (b"".join(block).ljust(504, b"\0") + bytes([bool(rest)])).ljust(BLOCK, b"\0")
    head = header(name, b"S", size=len(stored), magic=GNU, rest=area)
    return head + blocks + padded(stored)


def sparse_pax(name: str, segments: Segments, size: int, version: str) -> bytes:
    """Return a sparse file in GNU's pax way; VERSION is 0.0, 0.1 or 1.0."""
    pairs = [(at, len(data)) for at, data in segments]
    stored = b"".join(data for _, data in segments)
    inner, records = f"GNUSparseFile.0/{name.rpartition('/')[2]}", {"GNU.sparse.name": name}
    if version == "1.0":
        numbers = [len(pairs), *(number for pair in pairs for number in pair)]
        stored = padded(b"".join(b"%d\n" % number for number in numbers)) + stored
        records |= {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        return pax({**records, "GNU.sparse.realsize": str(size)}) + member(inner, stored)
    counts = {"GNU.sparse.size": str(size), "GNU.sparse.numblocks": str(len(pairs))}
    if version == "0.1":
        counts |= {"GNU.sparse.map": ",".join(f"{at},{length}" for at, length in pairs)}
        return pax({**records, **counts}) + member(inner, stored)
    each = [(("GNU.sparse.offset", str(a)), ("GNU.sparse.numbytes", str(n))) for a, n in pairs]
    return pax([*counts.items(), *(pair for two in each for pair in two)]) + member(name, stored)


def patched(archive: bytes, changes: Mapping[int, bytes]) -> bytes:
    """Return ARCHIVE with CHANGES in its first header, by offset, and the checksum right again."""
    for offset, value in changes.items():
        archive = patch(archive, offset, value)
    return archive
