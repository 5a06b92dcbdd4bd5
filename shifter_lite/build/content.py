"""The data of an image's files: cut into blocks, compressed on all cores, written in order.

What lies where follows from the order of the files and from nothing else, so that the
same files give the same bytes with any number of threads.  See squashfs(5), "Data blocks
and fragments": a file of at least one block is blocks of its own, a smaller one shares a
block, its *fragment*, with its neighbours; a block of zeros is only counted.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO

from shifter_lite.build.zstd import Block, Compressor, decompress

BLOCK = 1 << 17
# A size word has this bit where the data is stored as it was.
PLAIN = 1 << 24
_HOLE = 0
# So much goes to a thread at once: a thread costs us little, and waits little for others.
_BATCH = 1 << 19
_MANY = 1 << 12
_MOST_THREADS = 16
# How many small files are remembered, to store equal ones once.
_REMEMBERED = 1 << 18
_KEY_LENGTH = 16
# How much of what is to lie last is held until then.
_MOST_LATER = 32 << 20
_COMPARED = 1 << 20
# An image may have one part in so many overwritten.
_MOST_WASTE = 8
_ZEROS = bytes(BLOCK)
# No block that has anything but zeros becomes so small.
_SMALLEST = 64

_Packed = tuple[int, Block]


class Contents:
    """Where the data of each file lies; a file is known by its number, counted from 0.

    ``sizes[n]`` is the file's size.  That of a small one, less than ``BLOCK``, lies in fragment
    ``places[n] >> 32`` from byte ``places[n] & 0xffffffff`` on; that of another from byte
    ``starts[n]`` of the image on, in blocks whose size words are ``words[places[n]:]``.
    ``fragments`` are pairs of position and size word.
    """

    def __init__(self) -> None:
        self.sizes = array("Q")
        self.starts = array("Q")
        self.places = array("Q")
        self.words = array("I")
        self.fragments: list[tuple[int, int]] = []

    def __len__(self) -> int:
        """Return how many files there are."""
        return len(self.sizes)

    def blocks(self, number: int) -> array[int]:
        """Return the size words of the blocks of file NUMBER, which is not small."""
        first = self.places[number]
        return self.words[first : first + block_count(self.sizes[number])]


def block_count(size: int) -> int:
    """Return how many blocks a file of SIZE bytes has."""
    return -(-size // BLOCK)


class Writer:
    """Writes the data of one file after the other to an image."""

    def __init__(self, file: FileIO, compressor: Compressor) -> None:
        """Write to FILE, from where it stands."""
        self.contents = Contents()
        self.position = self._start = file.tell()
        self._file = file
        self._compressor = compressor
        self._fragment: list[Block] = []
        self._later: list[tuple[int, int, list[bytes | None]]] = []
        self._later_size = 0
        self._fragment_size = 0
        self._fragment_count = 0
        self._known: dict[bytes, int] = {}
        self._batch: list[tuple[int, Block | None]] = []
        self._batch_size = 0
        self._out: list[Block] = []
        self._left = 0
        self._large: dict[tuple[int, bytes], int] = {}
        threads = min(len(os.sched_getaffinity(0)), _MOST_THREADS)
        self._pool = ThreadPoolExecutor(threads)
        self._most = 2 * threads + 2
        self._pending: deque[tuple[list[int], Future[list[_Packed]]]] = deque()

    def add(self, size: int, blocks: Iterator[Block | None], rank: int | None = None) -> None:
        """Add a file of SIZE bytes, at least one; None in BLOCKS is a hole.

        One with a RANK lies behind all that have none or a smaller one.
        """
        if rank is not None and self._later_size + size <= _MOST_LATER:
            number = len(self.contents)
            # Views would hold much more than themselves.
            held = [None if block is None else bytes(block) for block in blocks]
            self._later.append((rank, number, held))
            self._later_size += size
            self.skip(size)
        elif size < BLOCK:
            self.small(next(blocks) or bytes(size))
        else:
            self.large(size, blocks)

    def small(self, data: Block) -> None:
        """Add a file of DATA, which is less than a block and not nothing."""
        self.contents.sizes.append(len(data))
        self.contents.starts.append(0)
        self.contents.places.append(self._share_fragment(data))

    def _share_fragment(self, data: Block) -> int:
        size = len(data)
        key = hashlib.sha256(data).digest()[:_KEY_LENGTH]
        place = self._known.get(key)
        if place is None:
            if self._fragment_size + size > BLOCK:
                self._end_fragment()
            place = self._fragment_count << 32 | self._fragment_size
            self._fragment.append(data)
            self._fragment_size += size
            if len(self._known) == _REMEMBERED:
                self._known.clear()
            self._known[key] = place
        return place

    def large(self, size: int, blocks: Iterator[Block | None]) -> None:
        """Add a file of SIZE bytes, at least a block; None in BLOCKS is a hole."""
        number = len(self.contents)
        self.skip(size)
        for block in blocks:
            self._put(number, block)

    def skip(self, size: int) -> None:
        """Count a file of SIZE bytes that nobody wants."""
        contents = self.contents
        contents.sizes.append(size)
        contents.starts.append(0)
        contents.places.append(0)

    def finish(self) -> None:
        """Write all that is not yet written."""
        self._end_fragment()
        self._write_later()
        self._end_fragment()
        self._submit()
        while self._pending:
            self._retire()
        self._pool.shutdown()

    def close(self) -> None:
        """Let no thread go on."""
        self._pool.shutdown(cancel_futures=True)

    def text(self, number: int) -> bytes:
        """Return the data of file NUMBER, a small one, once all is written."""
        fragment, offset = divmod(self.contents.places[number], 1 << 32)
        return self._read_fragment(fragment)[offset : offset + self.contents.sizes[number]]

    def keep(self, live: bytearray) -> None:
        """Let nothing be left of the data of all files but the LIVE ones, once all is written.

        It is overwritten with zeros; if that is much, what is behind moves up.
        """
        if all(live):
            return
        waste = sum(self._blot_blocks(start, end) for start, end in self._dead_blocks(live))
        for fragment, parts in self._dead_parts(live).items():
            waste += self._blot_parts(fragment, parts)
        if waste * _MOST_WASTE > self.position:
            self._compact(live)

    def _compact(self, live: bytearray) -> None:
        """Move all data of LIVE files up, so that nothing is between."""
        contents = self.contents
        lengths = {start: word & ~PLAIN for start, word in contents.fragments}
        for number, size in enumerate(contents.sizes):
            if size >= BLOCK and live[number]:
                length = sum(word & ~PLAIN for word in contents.blocks(number))
                # What is all hole begins where another file does.
                if length:
                    lengths[contents.starts[number]] = length
        places: dict[int, int] = {}
        end = self._start
        for start in sorted(lengths):
            places[start] = end
            self._move(start, end, lengths[start])
            end += lengths[start]
        self.position = end
        contents.fragments = [(places[start], word) for start, word in contents.fragments]
        for number, start in enumerate(contents.starts):
            contents.starts[number] = places.get(start, 0)

    def _move(self, start: int, target: int, length: int) -> None:
        fd = self._file.fileno()
        for at in range(0, length if start != target else 0, _COMPARED):
            data = os.pread(fd, min(_COMPARED, length - at), start + at)
            write(fd, [data], target + at)

    def _dead_blocks(self, live: bytearray) -> list[tuple[int, int]]:
        """Return where data lies that only dead files have; several files may share data."""
        contents = self.contents
        dead: dict[int, int] = {}
        needed: set[int] = set()
        for number, size in enumerate(contents.sizes):
            if size < BLOCK:
                continue
            start = contents.starts[number]
            length = sum(word & ~PLAIN for word in contents.blocks(number))
            # What is all hole begins where another file does.
            if length and live[number]:
                needed.add(start)
            elif length:
                dead[start] = start + length
        return [(start, end) for start, end in dead.items() if start not in needed]

    def _dead_parts(self, live: bytearray) -> dict[int, list[tuple[int, int]]]:
        """Return offset and size of what only dead files have in each fragment."""
        contents = self.contents
        small = [number for number, size in enumerate(contents.sizes) if size < BLOCK]
        dead = {contents.places[number]: number for number in small if not live[number]}
        for number in small:
            if live[number]:
                dead.pop(contents.places[number], None)
        found: dict[int, list[tuple[int, int]]] = {}
        for place, number in dead.items():
            fragment, offset = divmod(place, 1 << 32)
            found.setdefault(fragment, []).append((offset, contents.sizes[number]))
        return found

    def _blot_blocks(self, start: int, end: int) -> int:
        for at in range(start, end, BLOCK):
            write(self._file.fileno(), [_ZEROS[: end - at]], at)
        return end - start

    def _blot_parts(self, fragment: int, parts: list[tuple[int, int]]) -> int:
        start, word = self.contents.fragments[fragment]
        size = word & ~PLAIN
        data = bytearray(self._read_fragment(fragment))
        for offset, length in parts:
            data[offset : offset + length] = bytes(length)
        word, packed = _packed(self._compressor, data, hole=False)
        if len(packed) > size:
            self.contents.fragments[fragment] = self.position, word
            write(self._file.fileno(), [packed], self.position)
            self.position += len(packed)
            return self._blot_blocks(start, start + size)
        self.contents.fragments[fragment] = start, word
        write(self._file.fileno(), [packed, bytes(size - len(packed))], start)
        return size - len(packed)

    def _read_fragment(self, fragment: int) -> bytes:
        start, word = self.contents.fragments[fragment]
        data = os.pread(self._file.fileno(), word & ~PLAIN, start)
        if word & PLAIN:
            return data
        return decompress(data, BLOCK)

    def _write_later(self) -> None:
        sizes = self.contents.sizes
        for _, number, blocks in sorted(self._later, key=lambda each: each[:2]):
            if sizes[number] < BLOCK:
                place = self._share_fragment(blocks[0] or bytes(sizes[number]))
                self.contents.places[number] = place
            else:
                for block in blocks:
                    self._put(number, block)
        self._later = []

    def _end_fragment(self) -> None:
        if self._fragment:
            self._put(-1, b"".join(self._fragment))
            self._fragment = []
            self._fragment_size = 0
            self._fragment_count += 1

    def _put(self, number: int, block: Block | None) -> None:
        self._batch.append((number, block))
        self._batch_size += len(block) if block is not None else 0
        if self._batch_size >= _BATCH or len(self._batch) >= _MANY:
            self._submit()

    def _submit(self) -> None:
        batch, self._batch, self._batch_size = self._batch, [], 0
        numbers = [number for number, _ in batch]
        self._pending.append((numbers, self._pool.submit(_pack, self._compressor, batch)))
        while len(self._pending) > self._most or (self._pending and self._pending[0][1].done()):
            self._retire()

    def _retire(self) -> None:
        numbers, future = self._pending.popleft()
        for number, (word, data) in zip(numbers, future.result(), strict=True):
            if number < 0:
                self.contents.fragments.append((self.position, word))
            else:
                self._begin(number)
                self.contents.words.append(word)
            if data:
                self._out.append(data)
                self.position += len(data)
            if number >= 0:
                self._left -= 1
                if not self._left:
                    self._share(number)
        self._flush()

    def _begin(self, number: int) -> None:
        if not self._left:
            contents = self.contents
            contents.starts[number] = self.position
            contents.places[number] = len(contents.words)
            self._left = block_count(contents.sizes[number])

    def _share(self, number: int) -> None:
        """Take back the data of file NUMBER, just written, if an earlier file has the same."""
        contents = self.contents
        words = contents.blocks(number)
        size, start = contents.sizes[number], contents.starts[number]
        other = self._large.setdefault((size, words.tobytes()), number)
        if other == number or start == self.position:
            return
        self._flush()
        if self._equal(contents.starts[other], start, self.position - start):
            contents.starts[number] = contents.starts[other]
            contents.places[number] = contents.places[other]
            del contents.words[-len(words) :]
            self.position = start

    def _equal(self, one: int, other: int, size: int) -> bool:
        fd = self._file.fileno()
        for at in range(0, size, _COMPARED):
            length = min(_COMPARED, size - at)
            if os.pread(fd, length, one + at) != os.pread(fd, length, other + at):
                return False
        return True

    def _flush(self) -> None:
        write(self._file.fileno(), self._out, self.position - sum(map(len, self._out)))
        self._out = []


def _pack(compressor: Compressor, batch: Sequence[tuple[int, Block | None]]) -> list[_Packed]:
    """Return size word and data of each block of BATCH; those of number -1 are fragments."""
    return [
        (_HOLE, b"") if block is None else _packed(compressor, block, hole=number >= 0)
        for number, block in batch
    ]


def _packed(compressor: Compressor, block: Block, *, hole: bool) -> _Packed:
    data = compressor.compress(block)
    if len(data) >= len(block):
        return len(block) | PLAIN, block
    if hole and len(data) < _SMALLEST and bytes(block) == _ZEROS[: len(block)]:
        return _HOLE, b""
    return len(data), data


def write(fd: int, pieces: list[Block], at: int) -> None:
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
