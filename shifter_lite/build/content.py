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
from collections.abc import Iterator, Sequence
from io import FileIO

from shifter_lite.build.press import BLOCK, Packed, Press, write
from shifter_lite.build.zstd import Block, Compressor

# How many small files are remembered, to store equal ones once.
_REMEMBERED = 1 << 18
_KEY_LENGTH = 16
# How much of what is to lie last is held until then.
_MOST_LATER = 32 << 20
_COMPARED = 1 << 20


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
        self.position = file.tell()
        self._file = file
        self._fragment: list[Block] = []
        self._later: list[tuple[int, int, list[bytes | None]]] = []
        self._later_size = 0
        self._fragment_size = 0
        self._fragment_count = 0
        self._known: dict[bytes, int] = {}
        self._out: list[Block] = []
        self._left = 0
        self._large: dict[tuple[int, bytes], int] = {}
        self._press = Press(compressor, self._take)

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
            self._count(size)
        elif size < BLOCK:
            # To their end: who watches them reports there.
            for block in blocks:
                self.small(block or bytes(size))
        else:
            self.large(size, blocks)

    def small(self, data: Block) -> None:
        """Add a file of DATA, which is less than a block and not nothing."""
        self._count(len(data), self._share_fragment(data))

    def _count(self, size: int, place: int = 0) -> None:
        """Count a file of SIZE bytes; without its PLACE, that is known once it is written."""
        contents = self.contents
        contents.sizes.append(size)
        contents.starts.append(0)
        contents.places.append(place)

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
        self._count(size)
        for block in blocks:
            self._press.put(number, block)

    def finish(self) -> None:
        """Write all that is not yet written."""
        self._end_fragment()
        self._write_later()
        self._end_fragment()
        self._press.finish()

    def close(self) -> None:
        """Let no thread go on."""
        self._press.close()

    def _write_later(self) -> None:
        sizes = self.contents.sizes
        for _, number, blocks in sorted(self._later, key=lambda each: each[:2]):
            if sizes[number] < BLOCK:
                place = self._share_fragment(blocks[0] or bytes(sizes[number]))
                self.contents.places[number] = place
            else:
                for block in blocks:
                    self._press.put(number, block)
        self._later = []

    def _end_fragment(self) -> None:
        if self._fragment:
            self._press.put(-1, b"".join(self._fragment))
            self._fragment = []
            self._fragment_size = 0
            self._fragment_count += 1

    def _take(self, numbers: Sequence[int], blocks: Sequence[Packed]) -> None:
        """Write BLOCKS, which belong to the files with NUMBERS, or to fragments if negative."""
        for number, (word, data) in zip(numbers, blocks, strict=True):
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
