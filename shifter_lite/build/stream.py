"""Read bytes that come in pieces, in order, without joining them where that is not needed."""

from __future__ import annotations

from collections.abc import Iterator


class Stream:
    """Bytes that come in pieces, read in order."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        """Read PIECES."""
        self._pieces = pieces
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

    def drain(self) -> None:
        """Read to the end."""
        self._at = len(self._piece)
        while self._next():
            self._at = len(self._piece)

    def _next(self) -> bool:
        self._before += len(self._piece)
        self._at = 0
        for piece in self._pieces:
            if piece:
                self._piece = piece
                return True
        self._piece = b""
        return False
