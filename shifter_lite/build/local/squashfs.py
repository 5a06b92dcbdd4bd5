"""Squashfs files that others made: taken as they are, and marked as such.

Only the superblock is checked, as strictly as kernel and squashfuse do.  What is in the
tree is for squashfuse to understand, in a process of the user who runs it: no kernel
may mount such an image (decision 0010).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import NamedTuple

from shifter_lite.build.digest import digest_in
from shifter_lite.build.local.access import File
from shifter_lite.build.manifest import Descriptor, Manifest
from shifter_lite.errors import BadImage
from shifter_lite.records import Config, encode_json

MAGIC = b"hsqs"
# Of versions before 4, on machines that write the other end first.
SWAPPED = b"sqsh"
# The recipe of an image that nobody here built.
_RECIPE = "imported"
# Of how it is to be run.
_NO_WORDS = Config()
_PIECE = 1 << 20
# Those that kernel and squashfuse both know; 2, LZMA, never was in the kernel.
_COMPRESSORS = {1: "gzip", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}
_BLOCK_LOGS = range(12, 21)
_ABSENT = (1 << 64) - 1


class _Superblock(NamedTuple):
    """The first 96 bytes; see squashfs_fs.h and super.c of Linux."""

    magic: bytes
    inodes: int
    made: int
    block_size: int
    fragments: int
    compressor: int
    block_log: int
    flags: int
    ids: int
    major: int
    minor: int
    root: int
    used: int
    id_table: int
    xattr_table: int
    inode_table: int
    directory_table: int
    fragment_table: int
    export_table: int


_LAYOUT = struct.Struct("<4s4I6H8Q")


class Squashfs:
    """A squashfs file of somebody's, up to where it says that it ends."""

    def __init__(self, file: File, config: Config = _NO_WORDS) -> None:
        """Take FILE, which is run as CONFIG says.

        Raises BadImage if it is not a squashfs that could be mounted.
        """
        self._file, self.config = file, config
        head = file.reader()(_LAYOUT.size)
        try:
            block = _superblock(head)
            _check_kind(block)
            _check_tables(block, file.size)
        except BadImage as error:
            raise BadImage(f"{file.path!r} is no proper squashfs: {error}") from error
        self.size = block.used

    @property
    def recipe(self) -> str:
        """Everything but the squashfs that the image's bytes follow from."""
        if self.config == _NO_WORDS:
            return _RECIPE
        return f"{_RECIPE}/{hashlib.sha256(encode_json(asdict(self.config))).hexdigest()[:16]}"

    def manifest(self, platform: str) -> Manifest:
        """Return what stands for a manifest, whatever PLATFORM it is for; raises BadImage.

        Its digest is that of the squashfs itself: what follows it is nobody's word.
        """
        hashed = hashlib.sha256()
        for piece in self._pieces():
            hashed.update(piece)
        return Manifest(digest_in(hashed), "", Descriptor("", "", 0), ())

    def gives(self, manifest: Manifest, platform: str) -> bool:
        """Return that MANIFEST is the only one."""
        return True

    def pieces(self, manifest: Manifest, progress: Callable[[int], None]) -> Iterator[bytes]:
        """Yield the squashfs, which is to be that of MANIFEST; PROGRESS is told of their sizes.

        Raises BadImage if it has changed since.
        """
        hashed = hashlib.sha256()
        for piece in self._pieces():
            hashed.update(piece)
            progress(len(piece))
            yield piece
        if digest_in(hashed) != manifest.digest:
            raise BadImage(f"{self._file.path!r} changed while it was read")

    def _pieces(self) -> Iterator[bytes]:
        read = self._file.reader()
        left = self.size
        while left > 0 and (piece := read(min(left, _PIECE))):
            left -= len(piece)
            yield piece
        self._file.check()


def _superblock(head: bytes) -> _Superblock:
    if len(head) < _LAYOUT.size:
        raise BadImage(f"it has {len(head)} bytes")
    return _Superblock(*_LAYOUT.unpack(head))


def _check_kind(block: _Superblock) -> None:
    if block.magic != MAGIC:
        raise BadImage("it is big-endian, which version 4.0 never is")
    if (block.major, block.minor) != (4, 0):
        raise BadImage(f"it is of version {block.major}.{block.minor}, not 4.0")
    if block.compressor not in _COMPRESSORS:
        known = ", ".join(_COMPRESSORS.values())
        raise BadImage(
            f"its compressor has the number {block.compressor}; known are {known}",
            hint="make it again with mksquashfs -comp zstd",
        )
    if block.block_log not in _BLOCK_LOGS or block.block_size != 1 << block.block_log:
        raise BadImage(f"it has blocks of {block.block_size} bytes, or 2 to the {block.block_log}")
    if not block.inodes or not block.ids:
        raise BadImage("it has no root directory")


def _check_tables(block: _Superblock, size: int) -> None:
    """Refuse tables that are missing, in another order than all tools write, or outside."""
    if not _LAYOUT.size < block.used <= size:
        raise BadImage(f"it has {size} bytes, and says that it uses {block.used}")
    wanted = (block.inode_table, block.directory_table, block.id_table)
    others = (block.fragment_table, block.export_table, block.xattr_table)
    if _ABSENT in wanted:
        raise BadImage("it lacks a table")
    present = [
        at for at in (*wanted[:2], *others[:2], block.id_table, block.xattr_table) if at != _ABSENT
    ]
    if [_LAYOUT.size, *present, block.used - 1] != sorted([_LAYOUT.size, *present, block.used - 1]):
        raise BadImage("its tables lie outside of it, or in disorder")
    if block.inode_table + (block.root >> 16) >= block.directory_table:
        raise BadImage("its root directory lies outside of its inodes")
