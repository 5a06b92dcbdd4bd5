"""Read a gzip file from any point on, without a place to unpack it to.

While the content goes by once, the inflater is copied every few megabytes; whoever
wants bytes from the middle goes on from the copy before them.  This is zlib, since
ISA-L, several times as fast, has no such copies.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from shifter_lite.build.local.access import File, Read
from shifter_lite.errors import BadImage

MAGIC = b"\x1f\x8b"
# A gzip file with its header, RFC 1952; see zlib.decompressobj.
_WBITS = 31
_PIECE = 1 << 16
_FIRST = 1 << 11
_INFLATED = 1 << 20
# Each copy has the last 32 KiB that it inflated.
_SPACING = 32 << 20
# A gigabyte of zeros is a megabyte of gzip.
_LARGEST = 1 << 38


class _Inflater:
    """Content from one point of a file on: ``position`` is how much came before."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._state = zlib.decompressobj(_WBITS)
        # What was read of the file, up to where; of that, up to ``at`` is used.
        self._held, self._read, self._at = b"", 0, 0
        self._step = _FIRST
        self.position = 0

    def copy(self) -> _Inflater:
        other = _Inflater(self._file)
        other._state, other.position = self._state.copy(), self.position
        other._read = self._read - len(self._held) + self._at
        return other

    def piece(self) -> bytes:
        """Return the next bytes, none at the end; raises BadImage."""
        while self._fetch() and self._in_member():
            part = memoryview(self._held)[self._at : self._at + self._step]
            try:
                piece = self._state.decompress(part, _INFLATED)
            except zlib.error as error:
                raise BadImage(f"its gzip data is damaged: {error}") from error
            left = self._state.unused_data if self._state.eof else self._state.unconsumed_tail
            self._at += len(part) - len(left)
            self._step = min(4 * self._step, _PIECE)
            self.position += len(piece)
            if piece:
                return piece
        if not self._state.eof:
            raise BadImage("its gzip data is cut off")
        return b""

    def _fetch(self) -> bool:
        """Return whether anything is left of the file."""
        if self._at == len(self._held):
            self._held, self._at = self._file.reader(self._read)(_PIECE), 0
            self._read += len(self._held)
        return bool(self._held)

    def _in_member(self) -> bool:
        """Go on with the next member after one that has ended; zeros may end a file."""
        if not self._state.eof:
            return True
        if self._held.startswith(MAGIC[:1], self._at):
            self._state = zlib.decompressobj(_WBITS)
            # What lies behind a member's end is copied: of a small member not much.
            self._step = _FIRST
            return True
        while self._fetch():
            if self._held[self._at :].strip(b"\0"):
                raise BadImage("something follows its gzip data")
            self._at = len(self._held)
        return False


class Gunzipped:
    """The content of a gzip file."""

    def __init__(self, file: File) -> None:
        """Read FILE."""
        self._file = file
        self._points: list[_Inflater] = [_Inflater(file)]

    def pieces(self) -> Iterator[bytes]:
        """Yield all of it, and note points to go on from; raises BadImage."""
        inflater = self._points[0].copy()
        while piece := inflater.piece():
            if inflater.position > _LARGEST:
                raise BadImage(f"its gzip data inflates to more than {_LARGEST} bytes")
            if inflater.position - self._points[-1].position >= _SPACING:
                self._points.append(inflater.copy())
            yield piece

    def reader(self, start: int = 0) -> Read:
        """Return a function that reads on from START, at most one of the points noted is before."""
        inflater = next(p for p in reversed(self._points) if p.position <= start).copy()
        rest = memoryview(b"")

        def read(size: int) -> bytes:
            nonlocal rest
            while not rest and (piece := inflater.piece()):
                rest = memoryview(piece)[max(0, start - inflater.position + len(piece)) :]
            data, rest = bytes(rest[:size]), rest[size:]
            return data

        return read

    def check(self) -> None:
        """Raise BadImage if the file is not what it was when it was opened."""
        self._file.check()
