"""Compress blocks on all cores, and have them back in their order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from shifter_lite.build.zstd import Block, Compressor

BLOCK = 1 << 17
# A size word has this bit where the data is stored as it was.
PLAIN = 1 << 24
_HOLE = 0
# So much goes to a thread at once: a thread costs us little, and waits little for others.
_BATCH = 1 << 19
# Holes have no size, but they are counted.
_MANY = 1 << 12
_MOST_THREADS = 16
_ZEROS = bytes(BLOCK)
# No block that has anything but zeros becomes so small.
_SMALLEST = 64

# A size word, as squashfs has it, and the data.
Packed = tuple[int, Block]
# Takes blocks, and by which numbers they were put.
Take = Callable[[Sequence[int], Sequence[Packed]], None]


class Press:
    """Threads that compress; whoever puts blocks gets those that are done meanwhile."""

    def __init__(self, compressor: Compressor, take: Take) -> None:
        """Give what COMPRESSOR has compressed to TAKE, in order."""
        self._compressor = compressor
        self._take = take
        threads = min(len(os.sched_getaffinity(0)), _MOST_THREADS)
        self._pool = ThreadPoolExecutor(threads)
        self._most = 2 * threads + 2
        self._pending: deque[tuple[list[int], Future[list[Packed]]]] = deque()
        self._batch: list[tuple[int, Block | None]] = []
        self._size = 0

    def put(self, number: int, block: Block | None) -> None:
        """Compress BLOCK; None is a hole, which one with a negative NUMBER must not become."""
        self._batch.append((number, block))
        self._size += len(block) if block is not None else 0
        if self._size >= _BATCH or len(self._batch) >= _MANY:
            self._submit()

    def finish(self) -> None:
        """Give back all that is left."""
        self._submit()
        while self._pending:
            self._retire()

    def close(self) -> None:
        """Let no thread go on."""
        self._pool.shutdown(cancel_futures=True)

    def _submit(self) -> None:
        batch, self._batch, self._size = self._batch, [], 0
        numbers = [number for number, _ in batch]
        self._pending.append((numbers, self._pool.submit(_pack, self._compressor, batch)))
        while len(self._pending) > self._most or (self._pending and self._pending[0][1].done()):
            self._retire()

    def _retire(self) -> None:
        numbers, future = self._pending.popleft()
        self._take(numbers, future.result())


def _pack(compressor: Compressor, batch: Sequence[tuple[int, Block | None]]) -> list[Packed]:
    """Return size word and data of each block of BATCH; those of number -1 are fragments."""
    return [
        (_HOLE, b"") if block is None else packed(compressor, block, hole=number >= 0)
        for number, block in batch
    ]


def packed(compressor: Compressor, block: Block, *, hole: bool) -> Packed:
    """Return size word and data of BLOCK; one of zeros is only counted if it may be a HOLE."""
    data = compressor.compress(block)
    if len(data) >= len(block):
        return len(block) | PLAIN, block
    if hole and len(data) < _SMALLEST and bytes(block) == _ZEROS[: len(block)]:
        return _HOLE, b""
    return len(data), data


def write(fd: int, pieces: Sequence[Block], at: int) -> None:
    """Write PIECES one after the other to FD, from byte AT on."""
    # IOV_MAX of writev(2) is 1024.
    for first in range(0, len(pieces), 1024):
        part = pieces[first : first + 1024]
        size = sum(map(len, part))
        written = os.pwritev(fd, part, at)
        if written < size:
            rest = memoryview(b"".join(part))[written:]
            while rest:
                written += (more := os.pwrite(fd, rest, at + written))
                rest = rest[more:]
        at += size
