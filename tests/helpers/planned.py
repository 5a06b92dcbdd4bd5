"""The tree that layers become, as the merge has it, without making an image.

This is the one place in the tests that reads the merge's tree whole, with the data of its files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from shifter_lite.build import merge, tar
from shifter_lite.build.inflate import inflate
from shifter_lite.build.tar import Member
from shifter_lite.build.tree import Directory, Fifo, File, Node, Symlink, walk
from shifter_lite.config import Policy
from shifter_lite.errors import BadImage
from tests.corpus.case import ROOT, Is, Tree
from tests.helpers.images import Layer

_PIECE = 700


def tree(layers: Sequence[Layer]) -> Tree:
    """Return what an image of LAYERS holds; raises BadImage."""
    result = merge.Tree(Policy())
    contents: list[bytes] = []
    for number, layer in enumerate(layers, 1):
        try:
            archive = b"".join(inflate(_pieces(layer.blob)))
            members = list(tar.members(tar.Stream(_pieces(archive))))
        except BadImage as error:
            raise BadImage(f"layer {number}: {error}") from error
        result.apply(lambda: members)  # noqa: B023  # called at once
        contents += [_content(member, archive) for member in members if _has_data(member)]
    result.finish()
    return _named(result.root, contents)


def _pieces(data: bytes) -> Iterator[bytes]:
    return (data[at : at + _PIECE] for at in range(0, len(data), _PIECE))


def _has_data(member: Member) -> bool:
    return member.type == tar.FILE and member.size > 0


def _content(member: Member, archive: bytes) -> bytes:
    segments = member.segments
    if member.stored == member.size:
        segments = ((0, member.size),)
    content, at = bytearray(member.size), member.offset
    for offset, length in segments:
        content[offset : offset + length] = archive[at : at + length]
        at += length
    return bytes(content)


def _named(root: Directory, contents: Sequence[bytes]) -> Tree:
    names: dict[Node, set[bytes]] = {}
    found: Tree = {}
    for path, node in walk(root):
        path = path or ROOT
        names.setdefault(node, set()).add(path)
        group = names[node] if len(names[node]) > 1 else ()
        for name in group or (path,):
            found[name] = replace(_what(node, contents), names=frozenset(group))
    return found


def _what(node: Node, contents: Sequence[bytes]) -> Is:
    match node:
        case Directory():
            return Is("directory", node.mode, node.mtime)
        case Symlink():
            return Is("symlink", node.mode, node.mtime, node.target)
        case File():
            data = contents[node.content] if node.content >= 0 else b""
            return Is("file", node.mode, node.mtime, data)
        case Fifo():
            return Is("fifo", node.mode, node.mtime)
    return Is("something else", node.mode, node.mtime)
