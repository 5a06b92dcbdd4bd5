"""Let nothing be left in an image of files that no name is left of.

Their data was written before anybody knew.  It is overwritten with zeros: nobody must find
in an image what a layer deleted.  If that is much, what lies behind moves up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import FileIO

from shifter_lite.build.content import Contents
from shifter_lite.build.press import BLOCK, PLAIN, packed, write
from shifter_lite.build.zstd import Compressor, decompress

# An image may have one part in so many overwritten.
_MOST_WASTE = 8
_MOVED = 1 << 20
_ZEROS = bytes(BLOCK)


def keep(
    file: FileIO, begin: int, end: int, contents: Contents, live: bytearray, compressor: Compressor
) -> int:
    """Overwrite the data of all files of CONTENTS but the LIVE ones.

    It lies in FILE from BEGIN to END, all of it written.  CONTENTS says afterwards where it lies
    then.  Returns the new end.
    """
    if all(live):
        return end
    keeper = _Keeper(file, end, contents, compressor)
    waste = sum(keeper.blot(start, stop) for start, stop in _dead_blocks(contents, live))
    needed = _needed_fragments(contents, live)
    for fragment, parts in _dead_parts(contents, live).items():
        if fragment in needed:
            waste += keeper.blot_parts(fragment, parts)
        else:
            start, word = contents.fragments[fragment]
            waste += keeper.blot(start, start + (word & ~PLAIN))
    if len(needed) < len(contents.fragments):
        _renumber_fragments(contents, needed)
    if waste * _MOST_WASTE > keeper.end:
        keeper.compact(begin, live)
    return keeper.end


def read_small(file: FileIO, contents: Contents, number: int) -> bytes:
    """Return the data of file NUMBER, a small one, that lies in FILE."""
    fragment, offset = divmod(contents.places[number], 1 << 32)
    data = _read_fragment(file, contents, fragment)
    return data[offset : offset + contents.sizes[number]]


def _read_fragment(file: FileIO, contents: Contents, fragment: int) -> bytes:
    start, word = contents.fragments[fragment]
    data = os.pread(file.fileno(), word & ~PLAIN, start)
    return data if word & PLAIN else decompress(data, BLOCK)


def _large(contents: Contents) -> Iterator[tuple[int, int, int]]:
    """Yield number, place and length of the data of each file that has blocks of its own."""
    for number, size in enumerate(contents.sizes):
        if size >= BLOCK:
            length = sum(word & ~PLAIN for word in contents.blocks(number))
            # What is all hole begins where another file does.
            if length:
                yield number, contents.starts[number], length


def _dead_blocks(contents: Contents, live: bytearray) -> Iterator[tuple[int, int]]:
    """Yield where data lies that only dead files have; several files may share data."""
    dead: dict[int, int] = {}
    needed: set[int] = set()
    for number, start, length in _large(contents):
        if live[number]:
            needed.add(start)
        else:
            dead[start] = start + length
    yield from ((start, end) for start, end in dead.items() if start not in needed)


def _dead_parts(contents: Contents, live: bytearray) -> dict[int, list[tuple[int, int]]]:
    """Return offset and size of what only dead files have in each fragment."""
    dead: dict[int, int] = {}
    for number, size in enumerate(contents.sizes):
        if size < BLOCK and not live[number]:
            dead[contents.places[number]] = size
    for number, size in enumerate(contents.sizes):
        if size < BLOCK and live[number]:
            dead.pop(contents.places[number], None)
    found: dict[int, list[tuple[int, int]]] = {}
    for place, size in dead.items():
        fragment, offset = divmod(place, 1 << 32)
        found.setdefault(fragment, []).append((offset, size))
    return found


def _needed_fragments(contents: Contents, live: bytearray) -> set[int]:
    """Return the numbers of the fragments that live files are in."""
    return {
        contents.places[number] >> 32
        for number, size in enumerate(contents.sizes)
        if size < BLOCK and live[number]
    }


def _renumber_fragments(contents: Contents, needed: set[int]) -> None:
    """Count NEEDED fragments only: tools refuse an image with more fragments than inodes."""
    numbers = {old: new for new, old in enumerate(sorted(needed))}
    contents.fragments = [contents.fragments[old] for old in numbers]
    for number, size in enumerate(contents.sizes):
        if size < BLOCK:
            fragment, offset = divmod(contents.places[number], 1 << 32)
            contents.places[number] = numbers.get(fragment, 0) << 32 | offset


class _Keeper:
    def __init__(self, file: FileIO, end: int, contents: Contents, compressor: Compressor) -> None:
        self.end = end
        self._file = file
        self._contents = contents
        self._compressor = compressor

    def blot(self, start: int, end: int) -> int:
        """Overwrite the bytes from START to END; return how many these are."""
        for at in range(start, end, BLOCK):
            write(self._file.fileno(), [_ZEROS[: end - at]], at)
        return end - start

    def blot_parts(self, fragment: int, parts: list[tuple[int, int]]) -> int:
        """Overwrite PARTS, offsets and sizes, of FRAGMENT; return how much smaller it became."""
        start, word = self._contents.fragments[fragment]
        size = word & ~PLAIN
        data = bytearray(_read_fragment(self._file, self._contents, fragment))
        for offset, length in parts:
            data[offset : offset + length] = bytes(length)
        word, smaller = packed(self._compressor, data, hole=False)
        if len(smaller) > size:
            # Unlikely, but nothing says that it cannot be.
            self._contents.fragments[fragment] = self.end, word
            write(self._file.fileno(), [smaller], self.end)
            self.end += len(smaller)
            return self.blot(start, start + size)
        self._contents.fragments[fragment] = start, word
        write(self._file.fileno(), [smaller, bytes(size - len(smaller))], start)
        return size - len(smaller)

    def compact(self, begin: int, live: bytearray) -> None:
        """Move all data of LIVE files up, to BEGIN, so that nothing is between."""
        contents = self._contents
        lengths = {start: word & ~PLAIN for start, word in contents.fragments}
        for number, start, length in _large(contents):
            if live[number]:
                lengths[start] = length
        places: dict[int, int] = {}
        self.end = begin
        for start in sorted(lengths):
            places[start] = self.end
            self._move(start, lengths[start])
        contents.fragments = [(places[start], word) for start, word in contents.fragments]
        for number, start in enumerate(contents.starts):
            contents.starts[number] = places.get(start, 0)

    def _move(self, start: int, length: int) -> None:
        """Move LENGTH bytes at START to the end."""
        fd = self._file.fileno()
        for at in range(0, length if start != self.end else 0, _MOVED):
            data = os.pread(fd, min(_MOVED, length - at), start + at)
            write(fd, [data], self.end + at)
        self.end += length
