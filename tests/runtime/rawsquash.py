"""Squashfs files of shapes that the usual writers make slowly, or never."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HEAD, METADATA = 96, 8192
NO_FRAGMENT = 0xFFFFFFFF
NOTHING = 0xFFFFFFFFFFFFFFFF
PLAIN = 1 << 24
_HEADS = 256
_DIRECTORY, _FILE, _BIG_DIRECTORY, _BIG_FILE = 1, 2, 8, 9


@dataclass(frozen=True)
class File:
    """A file by the words of its blocks, of which each stored one is the next DATA."""

    size: int = 0
    words: Sequence[int] = ()
    data: bytes = b""
    holes: int = 0


class _Table:
    """Metadata, in blocks that are not compressed."""

    def __init__(self) -> None:
        self.bytes = bytearray()

    def here(self) -> tuple[int, int]:
        """Return the present block's place, and the byte in it."""
        at = len(self.bytes)
        return at // METADATA * (METADATA + 2), at % METADATA

    def packed(self) -> bytes:
        """Return the table as it is stored."""
        pieces = [self.bytes[at : at + METADATA] for at in range(0, len(self.bytes), METADATA)]
        return b"".join(struct.pack("<H", len(each) | 0x8000) + each for each in pieces)


_Entry = tuple[bytes, int, int, int]  # name, reference of the inode, its number, its type


def _runs(entries: Sequence[_Entry]) -> Iterator[list[_Entry]]:
    """Yield those that can have a head in common: their inodes are in one block."""
    run: list[_Entry] = []
    for entry in entries:
        if run and (len(run) == _HEADS or entry[1] >> 16 != run[0][1] >> 16):
            yield run
            run = []
        run.append(entry)
    if run:
        yield run


def _listing(table: _Table, entries: Sequence[_Entry]) -> tuple[int, bytes]:
    """Write ENTRIES; return the listing's size, and its index."""
    start, index, count, block = len(table.bytes), bytearray(), 0, table.here()[0]
    for run in _runs(entries):
        name, reference, number, _ = run[0]
        if (place := table.here()[0]) != block:
            block, count = place, count + 1
            index += struct.pack("<III", len(table.bytes) - start, place, len(name) - 1) + name
        table.bytes += struct.pack("<III", len(run) - 1, reference >> 16, number)
        for name, to, its_number, kind in run:
            head = (to & 0xFFFF, its_number - number, kind, len(name) - 1)
            table.bytes += struct.pack("<HhHH", *head) + name
    return len(table.bytes) - start, struct.pack("<H", count) + bytes(index)


class _Writer:
    def __init__(self, block_log: int, *, index: bool) -> None:
        self.block_log, self.index = block_log, index
        self.data = bytearray()
        self.inodes, self.lists = _Table(), _Table()
        self.count = 0

    def _begin(self, kind: int, mode: int) -> tuple[int, int]:
        """Begin an inode; return its reference and number."""
        block, offset = self.inodes.here()
        self.count += 1
        self.inodes.bytes += struct.pack("<HHHHII", kind, mode, 0, 0, 1, self.count)
        return block << 16 | offset, self.count

    def file(self, file: File) -> tuple[int, int]:
        reference, number = self._begin(_BIG_FILE, 0o644)
        self.inodes.bytes += struct.pack(
            "<QQQIIII", HEAD + len(self.data), file.size, file.holes, 1, NO_FRAGMENT, 0, NO_FRAGMENT
        )
        self.inodes.bytes += struct.pack(f"<{len(file.words)}I", *file.words)
        self.data += file.data
        return reference, number

    def directory(self, entries: Sequence[_Entry]) -> tuple[int, int]:
        block, offset = self.lists.here()
        size, index = _listing(self.lists, entries)
        if not self.index:
            index = struct.pack("<H", 0)
        reference, number = self._begin(_BIG_DIRECTORY, 0o755)
        self.inodes.bytes += struct.pack("<IIII", 2, size + 3, block, 1)
        self.inodes.bytes += index[:2] + struct.pack("<HI", offset, NO_FRAGMENT) + index[2:]
        return reference, number

    def finish(self, path: Path, root: int) -> None:
        inodes = HEAD + len(self.data)
        lists = inodes + len(packed := self.inodes.packed())
        packed += self.lists.packed()
        at = inodes + len(packed)
        packed += struct.pack("<HI", 4 | 0x8000, 0) + struct.pack("<Q", at)
        end = inodes + len(packed)
        head = struct.pack(
            "<IIIIIHHHHHHQQQQQQQQ",
            *(0x73717368, self.count, 1, 1 << self.block_log, 0, 6, self.block_log, 0x200, 1, 4, 0),
            *(root, end, end - 8, NOTHING, inodes, lists, NOTHING, NOTHING),
        )
        padding = bytes(-end % 4096)
        path.write_bytes(head + self.data + packed + padding)
        path.chmod(0o644)


def write(
    path: Path,
    files: Mapping[str, File],
    names: Sequence[bytes] = (),
    *,
    index: bool = True,
    block_log: int = 17,
) -> Path:
    """Write the image PATH with FILES, and a directory "many" of NAMES, links to an empty file."""
    writer = _Writer(block_log, index=index)
    empty = writer.file(File())
    many = writer.directory([(name, *empty, _FILE) for name in sorted(names)])
    made = {name: (*writer.file(file), _FILE) for name, file in files.items()}
    made["many"] = (*many, _DIRECTORY)
    root, _ = writer.directory([(name.encode(), *made[name]) for name in sorted(made)])
    writer.finish(path, root)
    return path
