r"""Tables of contents: the headers of a layer, kept beside its blob in the cache.

They are made while the layer is downloaded, so that all layers can be planned
before any data is read.  A file is::

    "shifter-lite toc 5\n"  blob's digest "\n"  diff_id "\n"
    records                  type mode mtime size offset stored, lengths of name and link,
                             numbers of segments and xattrs, name, link, segments, xattrs
    one record of type 0     whose size is the number of records before it,
                             and its offset the CRC-32 of them, the diff_id and that number

It has no business outside the cache: one that has changed, as it may after a power loss, is
made again.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from shifter_lite import lost_reply
from shifter_lite.build.sparse import Segments
from shifter_lite.build.tar import Member
from shifter_lite.errors import Damaged
from shifter_lite.transient import waited_out

_MAGIC = b"shifter-lite toc 5\n"
_RECORD = struct.Struct("<BHqQQQIIII")
_XATTR = struct.Struct("<II")
_SEGMENT = struct.Struct("<QQ")
_DIGEST_LENGTH = len("sha256:") + 64
_HEAD = len(_MAGIC) + 2 * (_DIGEST_LENGTH + 1)
_END = 0
_PIECE = 1 << 18


class Table:
    """A table of contents that is being made; ``diff_id`` is known last."""

    def __init__(self, file: BinaryIO) -> None:
        """Write records to FILE."""
        self.diff_id = ""
        self.count = 0
        self._crc = 0
        self._write = file.write

    def put(self, member: Member) -> None:
        """Add MEMBER."""
        name, kind, mode, mtime, size, offset, link, stored, segments, xattrs = member
        lengths = (len(name), len(link), len(segments), len(xattrs))
        data = _RECORD.pack(kind, mode, mtime, size, offset, stored, *lengths) + name + link
        if segments or xattrs:
            more = [_SEGMENT.pack(*segment) for segment in segments]
            more += [_XATTR.pack(len(key), len(value)) + key + value for key, value in xattrs]
            data = b"".join([data, *more])
        self._crc = crc32(data, self._crc)
        self._write(data)
        self.count += 1

    def end(self) -> None:
        """Add the last record."""
        self._write(_last(self.count, self.diff_id.encode(), self._crc))


def _last(count: int, diff_id: bytes, crc: int) -> bytes:
    """Return the record after COUNT others, whose CRC-32 is CRC."""
    crc = crc32(b"%b %d" % (diff_id, count), crc)
    return _RECORD.pack(_END, 0, 0, count, crc, 0, 0, 0, 0, 0)


@contextmanager
def writing(unfinished: Path, path: Path, digest: str) -> Iterator[Table]:
    """Yield a table for the blob with DIGEST, which in the end is PATH; before, UNFINISHED."""
    try:
        fd = lost_reply.create(unfinished)
        with open(fd, "wb", buffering=1 << 16) as file:
            table = Table(file)
            file.write(_MAGIC + digest.encode() + b"\n" + bytes(_DIGEST_LENGTH) + b"\n")
            yield table
            table.end()
            file.seek(len(_MAGIC) + _DIGEST_LENGTH + 1)
            file.write(table.diff_id.encode())
        lost_reply.rename(unfinished, path)
    finally:
        lost_reply.discard(unfinished)


def opened(path: Path) -> BinaryIO | None:
    """Open the table at PATH, or return None if there is none; others may remove it then."""
    try:
        return waited_out(lambda: path.open("rb", buffering=1 << 18))
    except FileNotFoundError:
        return None


def diff_id(file: BinaryIO, digest: str) -> str | None:
    """Return the diff_id that the table FILE, of the blob with DIGEST, has; None if unusable."""
    file.seek(0)
    head = file.read(_HEAD)
    left = os.fstat(file.fileno()).st_size - _HEAD - _RECORD.size
    if left < 0 or not head.startswith(_MAGIC + digest.encode() + b"\n"):
        return None
    found, crc = head[-_DIGEST_LENGTH - 1 : -1], 0
    while left and (piece := file.read(min(left, _PIECE))):
        crc = crc32(piece, crc)
        left -= len(piece)
    last = file.read(_RECORD.size)
    if head.endswith(b"\n") and last == _last(_RECORD.unpack(last)[3], found, crc):
        return found.decode("ascii", "replace")
    return None


def read(file: BinaryIO) -> Iterator[Member]:
    """Yield the members in the table FILE; raises Damaged."""
    size = _RECORD.size
    unpack = _RECORD.unpack
    count = 0
    file.seek(_HEAD)
    while len(head := file.read(size)) == size:
        kind, mode, mtime, length, offset, stored, *lengths = unpack(head)
        if kind == _END and length == count:
            return
        name, link = file.read(lengths[0]), file.read(lengths[1])
        segments: Segments = ()
        if lengths[2]:
            segments = tuple(_SEGMENT.iter_unpack(file.read(lengths[2] * _SEGMENT.size)))
        xattrs = tuple(_read_xattr(file) for _ in range(lengths[3])) if lengths[3] else ()
        yield Member(name, kind, mode, mtime, length, offset, link, stored, segments, xattrs)
        count += 1
    raise Damaged(f"a table of contents is cut off: {file.name!r}")


def _read_xattr(file: BinaryIO) -> tuple[bytes, bytes]:
    name, value = _XATTR.unpack(file.read(_XATTR.size))
    return file.read(name), file.read(value)
