"""Compressed bytes in, bytes out, in bounded memory.  Only here are isal and zstandard known.

What a layer is compressed with is seen from its first bytes, as docker does:
media types lie.  The end of the input is checked where the format can tell;
that nothing is missing is for the layer's diff_id to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import IO, cast

import zstandard
from isal import igzip_lib

from shifter_lite.errors import BadImage

# Its type stub does not say that it is an exception.
_IsalError = cast("type[Exception]", igzip_lib.error)
_PIECE = 1 << 18
_INFLATED = 1 << 20
_MAGIC_LENGTH = 8
_GZIP = b"\x1f\x8b"
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
    member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    started = True
    for piece in pieces:
        rest = piece
        while rest:
            if not started:
                rest = _next_member(rest)
                if not rest:
                    break
                member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
                started = True
            yield from _inflated(member, rest)
            rest = member.unused_data if member.eof else b""
            started = not member.eof
    if started:
        raise BadImage("its gzip data is cut off")


def _inflated(member: igzip_lib.IgzipDecompressor, data: bytes) -> Iterator[bytes]:
    try:
        yield member.decompress(data, _INFLATED)
        while not member.eof and not member.needs_input:
            yield member.decompress(b"", _INFLATED)
    except (_IsalError, EOFError) as error:
        raise BadImage(f"its gzip data is damaged: {error}") from error


def _next_member(data: bytes) -> bytes:
    if data[:1] == _GZIP[:1]:
        return data
    if data.strip(b"\0"):
        raise BadImage("something follows its gzip data")
    return b""


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
