"""Compressed bytes in, bytes out, in bounded memory.  Only here are isal and zstandard known.

What a layer is compressed with is seen from its first bytes, as docker does:
media types lie.  The end of the input is checked where the format can tell;
that nothing is missing is for the layer's diff_id to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import IO, cast
from zlib import crc32

import zstandard
from isal import igzip_lib

from shifter_lite.errors import BadImage

# Its type stub does not say that it is an exception.
_IsalError = cast("type[Exception]", igzip_lib.error)
_PIECE = 1 << 18
_INFLATED = 1 << 20
_MAGIC_LENGTH = 8
_GZIP = b"\x1f\x8b"
# A member of the one method that there is; and what its fourth byte says, RFC 1952, 2.3.
_DEFLATED = _GZIP + b"\x08"
_CHECKED, _EXTRA, _NAME, _COMMENT = 2, 4, 8, 16
_SHORTEST_HEADER = 10
# Extra fields have at most 64 KiB; who names files by more than a few hundred bytes is unknown.
_LARGEST_HEADER = 1 << 18
_FIRST = 1 << 11
_ZSTD = b"\x28\xb5\x2f\xfd"
_LAST_WORDS = b"so it ends"
_LAST_FRAME = zstandard.ZstdCompressor().compress(_LAST_WORDS)
_REFUSED = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip", b"\x04\x22\x4d\x18": "lz4"}


def inflate(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the content of PIECES, none of which is empty, uncompressed; raises BadImage."""
    first = next(pieces, b"")
    while 0 < len(first) < _MAGIC_LENGTH and (more := next(pieces, b"")):
        first += more
    whole = chain([first] if first else [], pieces)
    if first.startswith(_GZIP):
        yield from _gunzip(whole)
    elif first.startswith(_ZSTD) or _is_skippable(first):
        yield from _unzstd(whole)
    else:
        for magic, name in _REFUSED.items():
            if first.startswith(magic):
                raise BadImage(f"it is compressed with {name}; layers are gzip, zstd or plain")
        yield from whole


def _gunzip(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Inflate the members of a gzip file, RFC 1952; zeros may pad it."""
    held: list[bytes] = []
    size = 0
    # An image chooses how small its members are, and each piece has its price in every thread.
    for chunk in _Members(pieces).chunks():
        held.append(chunk)
        size += len(chunk)
        if size and (not chunk or size >= _INFLATED):
            yield b"".join(held)
            held, size = [], 0
    if size:
        yield b"".join(held)


class _Members:
    """The members of a gzip file, of which PIECES come."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._data = b""
        # Up to here it is used.
        self._at = 0

    def chunks(self) -> Iterator[bytes]:
        """Yield the content; b"" whenever more input is about to be waited for."""
        yield from self._member()
        while self._begins_member():
            found = self._small_members()
            yield from found or self._member()

    def _small_members(self) -> list[bytes]:
        """Return the content of those that begin here, as far as they are small and all here."""
        found: list[bytes] = []
        size = 0
        while size < _INFLATED and self._data.startswith(_DEFLATED, self._at):
            if (begin := _header_end(self._data, self._at)) < 0:
                break
            member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP_NO_HDR_VER)
            part = self._data[begin : begin + _FIRST]
            content = _inflate(member, part)
            if not member.eof:
                break
            self._at = begin + len(part) - len(member.unused_data)
            found.append(content)
            size += len(content)
        return found

    def _begins_member(self) -> bool:
        if self._at == len(self._data) and not self._fetch(1):
            return False
        if self._data[self._at] == _GZIP[0]:
            return True
        while not self._data[self._at :].strip(b"\0"):
            self._at = len(self._data)
            if not self._fetch(1):
                return False
        raise BadImage("something follows its gzip data")

    def _member(self) -> Iterator[bytes]:
        """Yield the content of the member that begins here."""
        self._pass_header()
        member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP_NO_HDR_VER)
        # What lies behind a member's end is copied: of a small member that should not be much.
        size = _FIRST
        while not member.eof:
            if self._at == len(self._data):
                yield b""
                if not self._fetch(1):
                    raise _cut_off()
            part = memoryview(self._data)[self._at : self._at + size]
            self._at += len(part)
            size = min(4 * size, _PIECE)
            yield from _inflated(member, part)
        self._at -= len(member.unused_data)

    def _pass_header(self) -> None:
        # ISA-L loses its place if it gets some of a header's optional fields in parts.
        while (end := _header_end(self._data, self._at)) < 0:
            size = len(self._data) - self._at
            if size > _LARGEST_HEADER:
                raise BadImage(f"its gzip data has a header of more than {_LARGEST_HEADER} bytes")
            if not self._fetch(max(_SHORTEST_HEADER, size)):
                raise _cut_off()
        self._at = end

    def _fetch(self, size: int) -> bool:
        """Have SIZE more bytes, as far as there are any; return whether there are some."""
        more: list[bytes] = []
        while size > 0 and (piece := next(self._pieces, b"")):
            more.append(piece)
            size -= len(piece)
        self._data = b"".join([self._data[self._at :], *more])
        self._at = 0
        return bool(more)


def _header_end(data: bytes, at: int) -> int:
    """Return where the header of a gzip member ends that begins at AT of DATA; -1 if later."""
    end = at + _SHORTEST_HEADER
    if len(data) < end:
        return -1
    if not data.startswith(_DEFLATED, at):
        raise BadImage("its gzip data is damaged: it has no proper header")
    if flags := data[at + 3]:
        end = _fields_end(data, end, flags)
    if end > len(data):
        return -1
    if flags & _CHECKED and crc32(data[at : end - 2]) & 0xFFFF != _number(data[end - 2 : end]):
        raise BadImage("its gzip data is damaged: a header has another checksum")
    return end


def _fields_end(data: bytes, at: int, flags: int) -> int:
    """Return where the optional fields end that FLAGS name, AT of DATA; beyond DATA, if later."""
    end = at
    if flags & _EXTRA:
        end += 2 + _number(data[end : end + 2])
    for text in (_NAME, _COMMENT):
        if flags & text:
            end = data.find(0, end) + 1 or len(data) + 1
    return end + 2 if flags & _CHECKED else end


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _cut_off() -> BadImage:
    return BadImage("its gzip data is cut off")


def _inflated(member: igzip_lib.IgzipDecompressor, data: bytes | memoryview) -> Iterator[bytes]:
    yield _inflate(member, data)
    while not member.eof and not member.needs_input:
        yield _inflate(member, b"")


def _inflate(member: igzip_lib.IgzipDecompressor, data: bytes | memoryview) -> bytes:
    try:
        return member.decompress(data, _INFLATED)
    except (_IsalError, EOFError) as error:
        raise BadImage(f"its gzip data is damaged: {error}") from error


def _unzstd(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Inflate the frames of a zstd file, RFC 8878; skippable ones are skipped.

    zstandard takes a frame that is cut off for one that ends.  So we let another frame
    follow, which a frame that is not at its end swallows or stumbles over.
    """
    # In two pieces: libzstd takes a piece that is a frame for one, even in the middle of another.
    source = cast("IO[bytes]", _Source(chain(pieces, [_LAST_FRAME[:1], _LAST_FRAME[1:]])))
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
        source, read_size=_PIECE, read_across_frames=True
    )
    held = b""
    while data := _read(reader):
        # Only at the end it is less than we asked for.
        if len(data) < len(_LAST_WORDS):
            held += data
        else:
            yield held
            held = data
    if not held.endswith(_LAST_WORDS):
        raise BadImage("its zstd data is cut off")
    yield held[: -len(_LAST_WORDS)]


def _read(reader: zstandard.ZstdDecompressionReader) -> bytes:
    try:
        return reader.read(_INFLATED)
    except zstandard.ZstdError as error:
        raise BadImage(f"its zstd data is damaged: {error}") from error


def _is_skippable(data: bytes) -> bool:
    return data[1:4] == b"\x2a\x4d\x18" and data[:1] != b"" and 0x50 <= data[0] <= 0x5F


class _Source:
    """Pieces as the file object that zstandard wants; it asks for more than one piece holds."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read(self, _size: int = -1) -> bytes:
        return next(self._pieces, b"")
