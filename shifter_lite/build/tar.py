"""Read tar archives as they come, in bounded memory, and never guess.

Understood: V7, ustar, GNU (long names, base-256 numbers, sparse files) and pax, mixed at will;
see tar(5) of libarchive, and pax in POSIX.1-2017.  Anything that is not a proper
member or a proper end is an error: a reader that takes damage for the end of the
archive loses files while every digest is right.

Python's own tarfile does just that, and takes 30 microseconds an entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final, NamedTuple
from zlib import adler32

from shifter_lite.build import pax, sparse
from shifter_lite.build.pax import Xattrs as Xattrs
from shifter_lite.build.sparse import Segments
from shifter_lite.build.stream import Stream as Stream
from shifter_lite.errors import BadImage

BLOCK: Final = 512
FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0123456"
_FILE_TYPES = b"\x0007S"
_ZERO_BLOCK = bytes(BLOCK)
# Longest name that Linux takes is 4096 bytes; xattrs of a file are at most 64 KiB.
_LARGEST_EXTENSION = 1 << 20
_LARGEST_ID = (1 << 32) - 1
_LARGEST_NUMBER = (1 << 63) - 1


class Member(NamedTuple):
    """One entry of an archive.

    ``type`` is one of the constants above, ``size`` that of the file, ``offset`` the
    place of its ``stored`` bytes in the uncompressed archive.  Those are all of the file,
    or, if it is sparse, what belongs to its ``segments``.  What a hard link has as its size
    means nothing.  Of extended attributes only ``user.*`` are told.
    """

    name: bytes
    type: int
    mode: int
    mtime: int
    size: int
    offset: int
    link: bytes
    stored: int
    segments: Segments = ()
    xattrs: Xattrs = ()


class _Announced(NamedTuple):
    """What extension headers say of the next member; GNU's long name and link beat pax's."""

    records: pax.Records
    name: bytes
    link: bytes


_NOTHING = _Announced({}, b"", b"")


def members(stream: Stream) -> Iterator[Member]:
    """Yield the members of the archive that STREAM begins with; raises BadImage."""
    announced = _NOTHING
    carried = 0
    while True:
        header = _next_header(stream, carried)
        carried = 0
        if header == _ZERO_BLOCK or not header:
            if announced is not _NOTHING:
                raise BadImage("the archive ends after a header that announces a member")
            _check_end(stream, header)
            return
        _check_header(header, stream.position - len(header))
        kind = header[156]
        if kind in b"xgLK":
            announced = _extend(announced, kind, header, stream)
            continue
        member = _member(header, kind, announced, stream)
        announced = _NOTHING
        yield member
        # Whoever wanted the data has read it; the last block need not be filled.
        left = member.offset + member.stored - stream.position
        if stream.skip(left + -member.stored % BLOCK) < left:
            raise BadImage(f"the archive is cut off in {shown(member.name)}")
        if member.type == LINK:
            carried = member.size


def _next_header(stream: Stream, carried: int) -> bytes:
    """Return the next header, past the CARRIED bytes of data that the last member may have.

    POSIX lets pax give a hard link the data of its file.  But others wrote a size
    and no data, so that what looks like a header is one.
    """
    header = stream.read(BLOCK)
    if carried and len(header) == BLOCK and header != _ZERO_BLOCK and not _is_header(header):
        left = carried + -carried % BLOCK - BLOCK
        if stream.skip(left) < left:
            raise BadImage("the archive is cut off in the data of a hard link")
        header = stream.read(BLOCK)
    return header


def _check_end(stream: Stream, header: bytes) -> None:
    """Accept two blocks of zeros, or the end of the file; see tar(5), "General Format"."""
    if header and stream.read(BLOCK) not in (_ZERO_BLOCK, b""):
        raise BadImage(f"the archive has a lone block of zeros before byte {stream.position}")


def _check_header(header: bytes, position: int) -> None:
    if len(header) < BLOCK:
        raise BadImage(f"the archive is cut off in a header at byte {position}")
    if not _is_header(header):
        raise BadImage(f"the archive has no proper header at byte {position}")


def _is_header(block: bytes) -> bool:
    blanked = block[:148] + b"        " + block[156:]
    try:
        said = _number(block[148:156], "checksum", 0)
    except BadImage:
        return False
    # The sum of signed bytes is slow to reckon, and almost never wanted.
    return said == checksum(blanked) or said == _signed_checksum(blanked)


def checksum(blanked: bytes) -> int:
    """Return the sum of the bytes of a header whose own checksum field is blanks."""
    # adler32's low half is 1 plus the sum of the bytes, as long as that is below
    # 65521: so for each half of a header.  It is forty times as fast as sum().
    return (adler32(blanked[:256]) & 0xFFFF) + (adler32(blanked[256:]) & 0xFFFF) - 2


def _signed_checksum(blanked: bytes) -> int:
    """Return the checksum as some old Unixes had it, with signed bytes."""
    return sum(byte - 256 if byte > 127 else byte for byte in blanked)


def _number(field: bytes, what: str, position: int) -> int:
    """Return the number in FIELD: octal, or base-256 as GNU writes what is too large."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = 8 * len(field)
        # The first bit says "base-256", the next is the sign.
        value -= 1 << bits if field[0] & 0x40 else 1 << bits - 1
        if not -_LARGEST_NUMBER - 1 <= value <= _LARGEST_NUMBER:
            raise BadImage(f"a header has a {what} beyond 64 bits at byte {position}: {value}")
        return value
    digits = field.strip(b" \0").partition(b"\0")[0].rstrip(b" ")
    if not digits:
        return 0
    try:
        if digits.isdigit():
            return int(digits, 8)
    except ValueError:
        pass
    raise BadImage(f"a header has a bad {what} at byte {position}: {field!r}")


def _text(field: bytes) -> bytes:
    end = field.find(0)
    return field if end < 0 else field[:end]


def _member(header: bytes, kind: int, announced: _Announced, stream: Stream) -> Member:
    position = stream.position
    records = announced.records
    name = announced.name or records.get(b"path") or _header_name(header)
    link = announced.link or records.get(b"linkpath") or _text(header[157:257])
    _check_ids(header, records, position)
    kind = _type(kind, name)
    size = _size(header, records, position)
    mode = _number(header[100:108], "mode", position) & 0o7777
    mtime = _mtime(header, records, position)
    xattrs = pax.user_xattrs(records) if records else ()
    if kind not in (FILE, LINK):
        return Member(name, kind, mode, mtime, 0, position, link, 0, (), xattrs)
    if size < 0:
        raise BadImage(f"a header has a negative size at byte {position}")
    if kind == LINK:
        return Member(name, kind, mode, mtime, size, position, link, 0, (), xattrs)
    member = Member(name, kind, mode, mtime, size, position, link, size, (), xattrs)
    if header[156] == ord("S") or any(key.startswith(b"GNU.sparse.") for key in records):
        try:
            return _sparse(member, header, records, stream)
        except BadImage as error:
            raise BadImage(f"{shown(name)}: {error}") from error
    return member


def _type(kind: int, name: bytes) -> int:
    """Return the type of the member NAME whose header says KIND; raises BadImage."""
    if kind == 0 and name.endswith(b"/"):
        # Before ustar, a directory was a file with a name that ends so.
        return DIRECTORY
    if kind in _FILE_TYPES:
        return FILE
    if kind not in b"123456":
        raise BadImage(f"{shown(name)} has an unknown type: {chr(kind)!r}")
    return kind


def _sparse(member: Member, header: bytes, records: pax.Records, stream: Stream) -> Member:
    """Return MEMBER with its real size, its real name, and its data where it belongs."""
    stored = member.size
    if header[156] == ord("S"):
        read = partial(_number, what="sparse map", position=member.offset)
        pairs, size = sparse.in_headers(header, stream.read, read)
    else:
        if records.get(b"GNU.sparse.major") == b"1":
            pairs, taken = sparse.in_data(stream.read)
            stored -= taken
        else:
            pairs = sparse.in_records(records)
        said = records.keys() & {b"GNU.sparse.realsize", b"GNU.sparse.size"}
        size = pax.natural(records, max(said)) if said else member.size
    return member._replace(
        name=records.get(b"GNU.sparse.name", member.name),
        size=size,
        offset=stream.position,
        stored=stored,
        segments=sparse.checked(pairs, size, stored),
    )


def _header_name(header: bytes) -> bytes:
    name = _text(header[:100])
    if header[345] and (prefix := _prefix(header)):
        return prefix + b"/" + name
    return name


def _prefix(header: bytes) -> bytes:
    """Return the first part of a long name, where POSIX keeps it and GNU keeps times."""
    magic = header[257:265]
    if magic.startswith(b"ustar\0"):
        # Schilling's star ends its header so, and keeps times in the last bytes of the prefix.
        return _text(header[345 : 476 if header.endswith(b"tar\0") else 500])
    if magic == b"ustar  \0":
        try:
            _number(header[345:357], "time", 0)
            _number(header[357:369], "time", 0)
        except BadImage:
            # docker wrote so when Go was young, and all that is written in Go reads it.
            prefix = _text(header[345:500])
            return prefix if prefix.isascii() else b""
    return b""


def _size(header: bytes, records: pax.Records, position: int) -> int:
    if b"size" in records:
        return pax.natural(records, b"size")
    return _number(header[124:136], "size", position)


def _check_ids(header: bytes, records: pax.Records, position: int) -> None:
    """Refuse owners that Linux does not have; cut to 32 bits they could become root."""
    for key, field_ in ((b"uid", header[108:116]), (b"gid", header[116:124])):
        value = (
            pax.natural(records, key) if key in records else _number(field_, key.decode(), position)
        )
        if not 0 <= value <= _LARGEST_ID:
            raise BadImage(f"a header has a bad {key.decode()} at byte {position}: {value}")


def _mtime(header: bytes, records: pax.Records, position: int) -> int:
    """Return the time of last change in whole seconds, rounded down as Linux does."""
    if b"mtime" in records:
        return pax.seconds(records, b"mtime")
    return _number(header[136:148], "mtime", position)


def _extend(announced: _Announced, kind: int, header: bytes, stream: Stream) -> _Announced:
    """Return what is ANNOUNCED of the next member, with what this extension header says."""
    size = _number(header[124:136], "size", stream.position)
    if not 0 <= size <= _LARGEST_EXTENSION:
        raise BadImage(f"an extended header has {size} bytes")
    data = stream.read(size)
    padding = -size % BLOCK
    if len(data) < size or stream.skip(padding) < padding:
        raise BadImage("the archive is cut off in an extended header")
    # Of several of a kind the last one counts, as in GNU tar and in Go.
    if kind == ord("L"):
        return announced._replace(name=_text(data))
    if kind == ord("K"):
        return announced._replace(link=_text(data))
    records = pax.records(data)
    if kind == ord("x"):
        return announced._replace(records=records)
    # Global headers hold comments (git archive); one that renames every file is no layer.
    if records.keys() & {b"path", b"linkpath", b"size"}:
        raise BadImage("a global pax header names one file")
    return announced


def shown(name: bytes) -> str:
    """Return NAME as messages quote it."""
    return repr(name.decode(errors="backslashreplace"))
