"""Write a squashfs 4.0 image: superblock, data, inodes, listings, tables; see squashfs(5).

The same tree and contents give the same bytes.  All belongs to root, and the image
itself was made in 1970.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from io import FileIO

from shifter_lite.build import press
from shifter_lite.build.content import Contents
from shifter_lite.build.merge import Tree
from shifter_lite.build.metadata import NOWHERE, Inodes, Xattrs, lookup_table
from shifter_lite.build.press import BLOCK
from shifter_lite.build.tree import Directory, Node, nodes
from shifter_lite.build.zstd import Block, Compressor

_SUPERBLOCK = struct.Struct("<4sIIIIHHHHHHQQQQQQQQ")
_MAGIC = b"hsqs"
_ZSTD = 6
_NO_XATTRS, _DUPLICATES = 0x200, 0x40
_FRAGMENT = struct.Struct("<QII")
HEADER_SIZE = _SUPERBLOCK.size


def write(
    file: FileIO,
    at: int,
    tree: Tree,
    contents: Contents,
    compressor: Compressor,
) -> None:
    """Make FILE, whose data of CONTENTS ends at byte AT, an image of TREE."""
    xattrs = Xattrs(tree.xattrs, compressor)
    inodes = Inodes(contents, _names(tree.root, tree.linked), xattrs, compressor)
    reference = inodes.write(tree.root)
    fragments = b"".join(_FRAGMENT.pack(*place, 0) for place in contents.fragments)
    pieces: list[Block] = []
    end = at

    def put(more: Iterable[bytes]) -> int:
        nonlocal end
        start = end
        for piece in more:
            pieces.append(piece)
            end += len(piece)
        return start

    inode_table = put(inodes.inodes.pieces())
    listing_table = put(inodes.listings.pieces())
    data, fragment_table = lookup_table(fragments, compressor, end)
    put([data])
    # The one owner, root.
    data, id_table = lookup_table(struct.pack("<I", 0), compressor, end)
    put([data])
    # Its end must be the image's.
    xattr_table = NOWHERE
    if xattrs.count:
        data, offset = xattrs.table(end)
        xattr_table = put([data]) + offset
    press.write(file.fileno(), pieces, at)
    superblock = _SUPERBLOCK.pack(
        _MAGIC,
        inodes.count,
        0,
        BLOCK,
        len(contents.fragments),
        _ZSTD,
        BLOCK.bit_length() - 1,
        (0 if xattrs.count else _NO_XATTRS) | _DUPLICATES,
        1,
        4,
        0,
        reference,
        end,
        id_table,
        xattr_table,
        inode_table,
        listing_table,
        fragment_table,
        NOWHERE,
    )
    os.pwrite(file.fileno(), superblock, 0)
    # Data that was taken back may lie there.
    os.ftruncate(file.fileno(), end)


def _names(root: Directory, linked: Iterable[Node]) -> dict[Node, int]:
    """Return how many names each node has that has several."""
    found = dict.fromkeys(linked, 0)
    if found:
        for node in nodes(root):
            if node in found:
                found[node] += 1
    return {node: count for node, count in found.items() if count > 1}
