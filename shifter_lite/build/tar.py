"""Read tar archives as they come, in bounded memory, and never guess.

Understood: V7, ustar, GNU (long names, base-256 numbers, sparse files) and pax, mixed at will;
see tar(5) of libarchive, and pax in POSIX.1-2017.  Anything that is not a proper
member or a proper end is an error: a reader that takes damage for the end of the
archive loses files while every digest is right.

Python's own tarfile does just that, and takes 30 microseconds an entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from typing import Final, NamedTuple
from zlib import adler32

from shifter_lite.build import sparse
from shifter_lite.build.sparse import Segments
from shifter_lite.errors import BadImage

BLOCK: Final = 512
FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0123456"
_FILE_TYPES = b"\x0007S"
_ZERO_BLOCK = bytes(BLOCK)
# Longest name that Linux takes is 4096 bytes; xattrs of a file are at most 64 KiB.
_LARGEST_EXTENSION = 1 << 20
_USER_XATTR = b"SCHILY.xattr.user."
# XATTR_NAME_MAX and XATTR_SIZE_MAX of Linux.
_LONGEST_XATTR_NAME = 255
_LARGEST_XATTR = 1 << 16
_LARGEST_ID = (1 << 32) - 1


# Names and values.
Xattrs = tuple[tuple[bytes, bytes], ...]


class Member(NamedTuple):
    """One entry of an archive.

    ``type`` is one of the constants above, ``size`` that of the file, ``offset`` the
    place of its ``stored`` bytes in the uncompressed archive.  Those are all of the file,
    or, if it is sparse, what belongs to its ``segments``.  Of extended attributes only
    ``user.*`` are told.
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


class Stream:
    """Bytes that come in pieces, read in order, every one of them hashed if HASHED."""

    def __init__(self, pieces: Iterator[bytes], *, hashed: bool = False) -> None:
        """Read PIECES."""
        self._pieces = pieces
        self._hash = hashlib.sha256() if hashed else None
        self._piece = b""
        self._at = 0
        self._before = 0

    @property
    def position(self) -> int:
        """How many bytes were read or skipped."""
        return self._before + self._at

    def read(self, size: int) -> bytes:
        """Return the next SIZE bytes, or fewer at the end."""
        end = self._at + size
        if end <= len(self._piece):
            data = self._piece[self._at : end]
            self._at = end
            return data
        return b"".join(self.copy(size))

    def view(self, size: int) -> bytes | memoryview:
        """Return the next SIZE bytes, or fewer at the end, without copying them if that can be."""
        end = self._at + size
        if end <= len(self._piece):
            data = memoryview(self._piece)[self._at : end]
            self._at = end
            return data
        return b"".join(self.copy(size))

    def copy(self, size: int) -> Iterator[memoryview]:
        """Yield the next SIZE bytes in pieces, fewer at the end."""
        while size > 0 and (self._at < len(self._piece) or self._next()):
            take = min(size, len(self._piece) - self._at)
            yield memoryview(self._piece)[self._at : self._at + take]
            self._at += take
            size -= take

    def skip(self, size: int) -> int:
        """Pass over the next SIZE bytes; return how many there were."""
        start = self.position
        left = size - (len(self._piece) - self._at)
        while left > 0:
            self._at = len(self._piece)
            if not self._next():
                return self.position - start
            left -= len(self._piece)
        self._at = len(self._piece) + left
        return size

    def drain(self) -> str:
        """Read to the end; return the digest of everything that ever came, if it was hashed."""
        self._at = len(self._piece)
        while self._next():
            self._at = len(self._piece)
        return f"sha256:{self._hash.hexdigest()}" if self._hash else ""

    def _next(self) -> bool:
        self._before += len(self._piece)
        self._at = 0
        for piece in self._pieces:
            if piece:
                if self._hash:
                    self._hash.update(piece)
                self._piece = piece
                return True
        self._piece = b""
        return False


def members(stream: Stream) -> Iterator[Member]:
    """Yield the members of the archive that STREAM begins with; raises BadImage."""
    extensions: dict[bytes, bytes] = {}
    while True:
        header = stream.read(BLOCK)
        if header == _ZERO_BLOCK or not header:
            if extensions:
                raise BadImage("the archive ends after a header that announces a member")
            _check_end(stream, header)
            return
        _check_header(header, stream.position - BLOCK)
        kind = header[156]
        if kind in b"xgLK":
            _extend(extensions, kind, header, stream)
            continue
        member = _member(header, kind, extensions, stream)
        extensions = {}
        end = member.offset + member.stored + -member.stored % BLOCK
        yield member
        # Whoever wanted the data has read it.
        left = end - stream.position
        if stream.skip(left) < left:
            raise BadImage(f"the archive is cut off in {shown(member.name)}")


def _check_end(stream: Stream, header: bytes) -> None:
    """Accept two blocks of zeros, or the end of the file; see tar(5), "General Format"."""
    if header and stream.read(BLOCK) not in (_ZERO_BLOCK, b""):
        raise BadImage(f"the archive has a lone block of zeros before byte {stream.position}")


def _check_header(header: bytes, position: int) -> None:
    if len(header) < BLOCK:
        raise BadImage(f"the archive is cut off in a header at byte {position}")
    blanked = header[:148] + b"        " + header[156:]
    said = _number(header[148:156], "checksum", position)
    if said != checksum(blanked) and said != _signed_checksum(blanked):
        raise BadImage(f"the archive has no proper header at byte {position}")


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
        return value - (1 << bits) if field[0] & 0x40 else value - (1 << bits - 1)
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


def _member(header: bytes, kind: int, extensions: dict[bytes, bytes], stream: Stream) -> Member:
    position = stream.position
    name = extensions.get(b"path") or _header_name(header)
    link = extensions.get(b"linkpath") or _text(header[157:257])
    size = _size(header, extensions, position)
    _check_ids(header, extensions, position)
    if kind in _FILE_TYPES:
        # Before ustar, a directory was a file with a name that ends so.
        kind = DIRECTORY if name.endswith(b"/") and kind != 0x37 else FILE
    elif kind not in b"123456":
        raise BadImage(f"{shown(name)} has an unknown type: {chr(kind)!r}")
    mode = _number(header[100:108], "mode", position) & 0o7777
    mtime = _mtime(header, extensions, position)
    xattrs = _xattrs(extensions) if extensions else ()
    if kind != FILE:
        return Member(name, kind, mode, mtime, 0, position, link, 0, (), xattrs)
    member = Member(name, kind, mode, mtime, size, position, link, size, (), xattrs)
    if header[156] == ord("S") or any(key.startswith(b"GNU.sparse.") for key in extensions):
        try:
            return _sparse(member, header, extensions, stream)
        except BadImage as error:
            raise BadImage(f"{shown(name)}: {error}") from error
    return member


def _xattrs(extensions: dict[bytes, bytes]) -> Xattrs:
    found = []
    for key, value in sorted(extensions.items()):
        if key.startswith(_USER_XATTR):
            name = key.removeprefix(b"SCHILY.xattr.")
            if len(name) > _LONGEST_XATTR_NAME or len(value) > _LARGEST_XATTR or b"\0" in name:
                raise BadImage(f"an extended attribute is too large: {shown(name[:64])}")
            found.append((name, value))
    return tuple(found)


def _sparse(
    member: Member, header: bytes, extensions: dict[bytes, bytes], stream: Stream
) -> Member:
    """Return MEMBER with its real size, its real name, and its data where it belongs."""
    stored = member.size
    if header[156] == ord("S"):
        read = partial(_number, what="sparse map", position=member.offset)
        pairs, size = sparse.in_headers(header, stream.read, read)
    else:
        if extensions.get(b"GNU.sparse.major") == b"1":
            pairs, taken = sparse.in_data(stream.read)
            stored -= taken
        else:
            pairs = sparse.in_records(extensions)
        key = next(
            k for k in (b"GNU.sparse.realsize", b"GNU.sparse.size", b"") if not k or k in extensions
        )
        size = _decimal(extensions, key) if key else member.size
    return member._replace(
        name=extensions.get(b"GNU.sparse.name", member.name),
        size=size,
        offset=stream.position,
        stored=stored,
        segments=sparse.checked(pairs, size, stored),
    )


def _header_name(header: bytes) -> bytes:
    name = _text(header[:100])
    # GNU's magic is "ustar  ", and it keeps times where POSIX keeps the prefix.
    if header[257:263] == b"ustar\0" and header[345]:
        return _text(header[345:500]) + b"/" + name
    return name


def _size(header: bytes, extensions: dict[bytes, bytes], position: int) -> int:
    if b"size" in extensions:
        return _decimal(extensions, b"size")
    size = _number(header[124:136], "size", position)
    if size < 0:
        raise BadImage(f"a header has a negative size at byte {position}")
    return size


def _check_ids(header: bytes, extensions: dict[bytes, bytes], position: int) -> None:
    """Refuse owners that Linux does not have; cut to 32 bits they could become root."""
    for key, field in ((b"uid", header[108:116]), (b"gid", header[116:124])):
        value = (
            _decimal(extensions, key)
            if key in extensions
            else _number(field, key.decode(), position)
        )
        if not 0 <= value <= _LARGEST_ID:
            raise BadImage(f"a header has a bad {key.decode()} at byte {position}: {value}")


def _mtime(header: bytes, extensions: dict[bytes, bytes], position: int) -> int:
    """Return the time of last change in whole seconds, rounded down as Linux does."""
    if b"mtime" not in extensions:
        return _number(header[136:148], "mtime", position)
    text = extensions[b"mtime"]
    whole, _, fraction = text.partition(b".")
    digits = whole.removeprefix(b"-")
    if not digits.isdigit() or (fraction and not fraction.isdigit()) or len(digits) > 18:
        raise BadImage(f"a pax header has a bad mtime: {text[:64]!r}")
    value = int(whole)
    return value - 1 if whole.startswith(b"-") and fraction.strip(b"0") else value


def _decimal(extensions: dict[bytes, bytes], key: bytes) -> int:
    text = extensions[key]
    if not text.isdigit() or len(text) > 18:
        raise BadImage(f"a pax header has a bad {key.decode()}: {text[:64]!r}")
    return int(text)


def _extend(extensions: dict[bytes, bytes], kind: int, header: bytes, stream: Stream) -> None:
    """Add what an extension header says of the next member to EXTENSIONS."""
    size = _number(header[124:136], "size", stream.position)
    if not 0 <= size <= _LARGEST_EXTENSION:
        raise BadImage(f"an extended header has {size} bytes")
    data = stream.read(size)
    padding = -size % BLOCK
    if len(data) < size or stream.skip(padding) < padding:
        raise BadImage("the archive is cut off in an extended header")
    if kind in b"LK":
        # The last long name wins, as in GNU tar.
        extensions[b"path" if kind == ord("L") else b"linkpath"] = _text(data)
        return
    records: dict[bytes, bytes] = {}
    for key, value in _pax_records(data):
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            # Version 0.0 repeats them; 0.1 has the same numbers in one record.
            records[b"GNU.sparse.map"] = records.get(b"GNU.sparse.map", b"") + value + b","
        else:
            records[key] = value
    if kind == ord("g"):
        # Global headers hold comments (git archive); one that renames every file is no layer.
        if records.keys() & {b"path", b"linkpath", b"size"}:
            raise BadImage("a global pax header names one file")
        return
    extensions |= records


def _pax_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the records of a pax header: ``LENGTH KEY=VALUE`` and a newline."""
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        digits = data[at:space] if space > at else b""
        end = at + int(digits) if digits.isdigit() else 0
        record = data[space + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if end > len(data) or not record.endswith(b"\n") or not equals or not key:
            raise BadImage("a pax header has a malformed record")
        if b"\0" in value and key in (b"path", b"linkpath"):
            raise BadImage("a pax header has a name with a NUL")
        yield key, value
        at = end


def shown(name: bytes) -> str:
    """Return NAME as messages quote it."""
    return repr(name.decode(errors="backslashreplace"))
