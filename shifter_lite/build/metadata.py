"""What a squashfs knows of its files: inodes, directories and tables.

See squashfs(5) and Documentation/filesystems/squashfs.rst of Linux.  All of it
lies in *metadata blocks* of 8192 bytes before compression; a *reference* is where such a
block begins in its table, shifted by 16 bits, and the offset in the block once uncompressed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from shifter_lite.build import tar
from shifter_lite.build.content import Contents
from shifter_lite.build.press import BLOCK
from shifter_lite.build.tree import Directory, Fifo, File, Node, Symlink
from shifter_lite.build.zstd import Compressor

METADATA = 8192
_UNCOMPRESSED = 0x8000
NOWHERE = (1 << 64) - 1
_NO_FRAGMENT = (1 << 32) - 1
_NO_XATTRS = (1 << 32) - 1
_SMALL_LIMIT = 1 << 32
# The kernel takes no more entries after one header, nor a greater distance of inode numbers.
_MOST_ENTRIES = 256
_FARTHEST = 32767
# Two bytes say how long an index is; what lies behind the last entry is searched from there on.
_MOST_INDEXES = (1 << 16) - 1
# What a directory's size counts beyond its listing: "." and "..", as the kernel makes them.
_DOTS = 3

# The types of inodes, basic and extended; those of directory entries are the basic ones.
_DIRECTORY, _FILE, _SYMLINK, _FIFO, _EXTENDED = 1, 2, 3, 6, 7

_HEAD = struct.Struct("<HHHHII")  # type, mode, uid, gid, mtime, number
_BASIC_DIRECTORY = struct.Struct("<IIHHI")  # block, links, size, offset, parent
_BIG_DIRECTORY = struct.Struct("<IIIIHHI")  # links, size, block, parent, indexes, offset, xattr
_BASIC_FILE = struct.Struct("<IIII")  # start, fragment, offset, size
_BIG_FILE = struct.Struct("<QQQIIII")  # start, size, holes, links, fragment, offset, xattr
_LINKS = struct.Struct("<I")
_TARGET = struct.Struct("<II")  # links, length
_LISTING = struct.Struct("<III")  # entries - 1, block of inodes, number that others count from
_ENTRY = struct.Struct("<HhHH")  # offset, number, type, length of name - 1
_XATTR_LIST = struct.Struct("<QII")  # reference of the first, how many, bytes
_USER = 0  # the type of attributes named user.*
_INDEX = struct.Struct("<III")  # offset in the listing, block, length of name - 1


class Table:
    """Bytes in metadata blocks."""

    def __init__(self, compressor: Compressor) -> None:
        """Compress with COMPRESSOR."""
        self._compressor = compressor
        self._pieces: list[bytes] = []
        self._buffer = bytearray()
        # Where the next byte will be: the place of its block, and its offset there.
        self.block = 0

    @property
    def offset(self) -> int:
        """Where in its block the next byte will be."""
        return len(self._buffer)

    def put(self, data: bytes | bytearray) -> None:
        """Add DATA."""
        self._buffer += data
        while len(self._buffer) >= METADATA:
            self._end_block()

    def _end_block(self) -> None:
        data = bytes(self._buffer[:METADATA])
        del self._buffer[:METADATA]
        packed = self._compressor.compress(data)
        if len(packed) < len(data):
            piece = struct.pack("<H", len(packed)) + packed
        else:
            piece = struct.pack("<H", len(data) | _UNCOMPRESSED) + data
        self._pieces.append(piece)
        self.block += len(piece)

    def pieces(self) -> list[bytes]:
        """Return the table's blocks as they lie in the image."""
        if self._buffer:
            self._end_block()
        return self._pieces


def lookup_table(records: bytes, compressor: Compressor, at: int) -> tuple[bytes, int]:
    """Return RECORDS in metadata blocks from byte AT on with the list of their places after them.

    And where that list begins, which is what the superblock names.
    """
    pieces: list[bytes] = []
    places: list[int] = []
    for first in range(0, len(records), METADATA):
        places.append(at)
        table = Table(compressor)
        table.put(records[first : first + METADATA])
        pieces += table.pieces()
        at += len(pieces[-1])
    return b"".join(pieces) + struct.pack(f"<{len(places)}Q", *places), at


class Xattrs:
    """The extended attributes of nodes; equal ones are written once."""

    def __init__(self, given: dict[Node, tar.Xattrs], compressor: Compressor) -> None:
        """Take those that are GIVEN, all of them ``user.*``."""
        self.count = 0
        self._given = given
        self._compressor = compressor
        self._numbers: dict[tar.Xattrs, int] = {}
        self._pairs = Table(compressor)
        self._lists = bytearray()

    def number(self, node: Node) -> int:
        """Return by which number an inode names the attributes of NODE."""
        given = self._given.get(node)
        if not given:
            return _NO_XATTRS
        if given not in self._numbers:
            self._numbers[given] = self.count
            self.count += 1
            data = b"".join(_pair(name, value) for name, value in given)
            place = self._pairs.block << 16 | self._pairs.offset
            self._lists += _XATTR_LIST.pack(place, len(given), len(data))
            self._pairs.put(data)
        return self._numbers[given]

    def table(self, at: int) -> tuple[bytes, int]:
        """Return all of them as they lie from byte AT on, and where in it their header is."""
        pairs = b"".join(self._pairs.pieces())
        lists, index = lookup_table(bytes(self._lists), self._compressor, at + len(pairs))
        index -= at + len(pairs)
        header = struct.pack("<QII", at, self.count, 0)
        return pairs + lists[:index] + header + lists[index:], len(pairs) + index


def _pair(name: bytes, value: bytes) -> bytes:
    short = name.removeprefix(b"user.")
    return struct.pack("<HH", _USER, len(short)) + short + struct.pack("<I", len(value)) + value


@dataclass(slots=True)
class _Entry:
    """One name in a directory, once its inode is written."""

    name: bytes
    type: int
    number: int
    block: int
    offset: int


@dataclass(slots=True)
class _Open:
    """A directory whose children are being written.

    ``inodes`` are those of its subdirectories, by name, until their turn comes.
    """

    directory: Directory
    number: int
    parent: int
    names: list[bytes]
    numbers: list[int]
    inodes: dict[bytes, bytes]
    next: int = 0


class Inodes:
    """Writes the inodes and listings of a tree, each directory after all below it."""

    def __init__(
        self,
        contents: Contents,
        names: dict[Node, int],
        xattrs: Xattrs,
        compressor: Compressor,
    ) -> None:
        """Take data from CONTENTS; NAMES says how many names each node with several has."""
        self._xattrs = xattrs
        self.inodes = Table(compressor)
        self.listings = Table(compressor)
        self.count = 0
        self._contents = contents
        self._names = names
        self._linked: dict[Node, _Entry] = {}
        self._numbers: dict[Node, int] = {}

    def write(self, root: Directory) -> int:
        """Write the tree at ROOT; return the reference of its inode."""
        self.count = 1
        stack = [self._open(root, 1, 0)]
        while True:
            top = stack[-1]
            while top.next < len(top.names):
                name = top.names[top.next]
                child = top.directory.children[name]
                if isinstance(child, Directory):
                    stack.append(self._open(child, top.numbers[top.next], top.number))
                    top.next += 1
                    break
                top.next += 1
            else:
                stack.pop()
                inode = self._close(top, self.count + 1 if not stack else top.parent)
                if not stack:
                    reference = self.inodes.block << 16 | self.inodes.offset
                    self.inodes.put(inode)
                    return reference
                below = stack[-1]
                below.inodes[below.names[below.next - 1]] = inode

    def _open(self, directory: Directory, number: int, parent: int) -> _Open:
        names = sorted(directory.children)
        numbers = []
        for name in names:
            child = directory.children[name]
            known = self._numbers.get(child) if self._names else None
            if known is None:
                self.count += 1
                known = self.count
                if child in self._names:
                    self._numbers[child] = known
            numbers.append(known)
        return _Open(directory, number, parent, names, numbers, {})

    def _close(self, done: _Open, parent: int) -> bytes:
        """Write what is in the directory DONE; return its inode."""
        directories = len(done.inodes)
        entries = []
        for name, number in zip(done.names, done.numbers, strict=True):
            child = done.directory.children[name]
            entries.append(self._entry(name, child, number, done.inodes.pop(name, b"")))
        block, offset = self.listings.block, self.listings.offset
        size, index = self._list(entries)
        node = done.directory
        size += _DOTS
        links = directories + 2
        xattr = self._xattrs.number(node)
        if size < 1 << 16 and not index and xattr == _NO_XATTRS:
            return _HEAD.pack(
                _DIRECTORY, node.mode, 0, 0, node.mtime, done.number
            ) + _BASIC_DIRECTORY.pack(block, links, size, offset, parent)
        return (
            _HEAD.pack(_DIRECTORY + _EXTENDED, node.mode, 0, 0, node.mtime, done.number)
            + _BIG_DIRECTORY.pack(links, size, block, parent, len(index), offset, xattr)
            + b"".join(index)
        )

    def _entry(self, name: bytes, child: Node, number: int, inode: bytes) -> _Entry:
        """Write the inode of CHILD, unless it was written under another name."""
        written = self._linked.get(child) if self._names else None
        if written is not None:
            return _Entry(name, written.type, written.number, written.block, written.offset)
        links = self._names.get(child, 1) if self._names else 1
        kind = _DIRECTORY
        block, offset = self.inodes.block, self.inodes.offset
        if isinstance(child, File):
            kind, inode = _FILE, self._file(child, number, links)
        elif isinstance(child, Symlink):
            kind = _SYMLINK
            inode = (
                _HEAD.pack(kind, child.mode, 0, 0, child.mtime, number)
                + _TARGET.pack(links, len(child.target))
                + child.target
            )
        elif isinstance(child, Fifo):
            kind = _FIFO
            inode = _HEAD.pack(kind, child.mode, 0, 0, child.mtime, number) + _LINKS.pack(links)
        self.inodes.put(inode)
        entry = _Entry(name, kind, number, block, offset)
        if links > 1:
            self._linked[child] = entry
        return entry

    def _file(self, node: File, number: int, links: int) -> bytes:
        size = start = offset = holes = 0
        fragment = _NO_FRAGMENT
        words = b""
        if node.content >= 0:
            contents = self._contents
            size = contents.sizes[node.content]
            if size < BLOCK:
                fragment, offset = divmod(contents.places[node.content], 1 << 32)
            else:
                start = contents.starts[node.content]
                sizes = contents.blocks(node.content)
                words = sizes.tobytes()
                holes = _holes(size, sizes)
        xattr = self._xattrs.number(node)
        if start < _SMALL_LIMIT > size and links == 1 and not holes and xattr == _NO_XATTRS:
            return (
                _HEAD.pack(_FILE, node.mode, 0, 0, node.mtime, number)
                + _BASIC_FILE.pack(start, fragment, offset, size)
                + words
            )
        return (
            _HEAD.pack(_FILE + _EXTENDED, node.mode, 0, 0, node.mtime, number)
            + _BIG_FILE.pack(start, size, holes, links, fragment, offset, xattr)
            + words
        )

    def _list(self, entries: Sequence[_Entry]) -> tuple[int, list[bytes]]:
        """Write the listing of ENTRIES; return its size, and its index if it is long.

        Entries follow a header as long as their inodes lie in one block.  A header that is the
        first of its metadata block gets into the index, by which the kernel finds a name
        without reading all before it.
        """
        table = self.listings
        index: list[bytes] = []
        size = 0
        first = 0
        indexed = table.block
        while first < len(entries):
            head = entries[first]
            if table.block != indexed and len(index) < _MOST_INDEXES:
                indexed = table.block
                index.append(_INDEX.pack(size, table.block, len(head.name) - 1) + head.name)
            run = _run(entries, first, METADATA - table.offset)
            data = bytearray(_LISTING.pack(len(run) - 1, head.block, head.number))
            for entry in run:
                data += _ENTRY.pack(
                    entry.offset, entry.number - head.number, entry.type, len(entry.name) - 1
                )
                data += entry.name
            table.put(data)
            size += len(data)
            first += len(run)
        return size, index


def _run(entries: Sequence[_Entry], first: int, room: int) -> list[_Entry]:
    """Return the entries from FIRST on that share a header; ROOM is left in the metadata block."""
    head = entries[first]
    run = [head]
    room -= _LISTING.size + _ENTRY.size + len(head.name)
    for entry in entries[first + 1 : first + _MOST_ENTRIES]:
        far = abs(entry.number - head.number) > _FARTHEST
        if entry.block != head.block or far or room <= 0:
            break
        run.append(entry)
        room -= _ENTRY.size + len(entry.name)
    return run


def _holes(size: int, words: Sequence[int]) -> int:
    """Return how many of the SIZE bytes of a file in blocks of WORDS are only counted."""
    empty = sum(1 for word in words if not word)
    last = size % BLOCK
    if last and not words[-1]:
        return (empty - 1) * BLOCK + last
    return empty * BLOCK
