"""The words that the corpus is written with.

    holds("a whiteout deletes a file", [file("a"), file("b")], [whiteout("a")],
          tree={"b": is_file()})
    refused("a name climbs", [file("../a")], because=["layer 1", "'../a'", "climbs"])

A tree says everything about an image, but for what every image has; in its names, bytes that
are no UTF-8 are written as Python has them in file names.  Layers are lists of entries, whole
archives as bytes, or ``images.Layer`` where the blob itself is what is odd.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tests.helpers import images
from tests.helpers.images import MTIME, Entry, Image, Layer
from tests.helpers.raw import as_bytes

Entries = Sequence[Entry | bytes]


@dataclass(frozen=True, slots=True)
class Is:
    """One inode: what it is, and all names that it has, if they are several.

    ``content`` is a file's data or a symbolic link's target.
    """

    kind: str
    mode: int
    mtime: int
    content: bytes = b""
    names: frozenset[bytes] = frozenset()


Tree = dict[bytes, Is]
_SAME = "same"


def is_file(data: bytes = b"", *, mode: int = 0o644, mtime: int = MTIME) -> Is:
    """Return a regular file with DATA."""
    return Is("file", mode, mtime, data)


def is_directory(*, mode: int = 0o755, mtime: int = MTIME) -> Is:
    """Return a directory."""
    return Is("directory", mode, mtime)


def is_symlink(target: str | bytes, *, mtime: int = MTIME) -> Is:
    """Return a symbolic link, whose mode means nothing."""
    return Is("symlink", 0o777, mtime, as_bytes(target))


def is_fifo(*, mode: int = 0o644, mtime: int = MTIME) -> Is:
    """Return a named pipe."""
    return Is("fifo", mode, mtime)


def same_as(path: str) -> Is:
    """Return what is at PATH, by another name."""
    return Is(_SAME, 0, 0, as_bytes(path))


# A directory that no entry is about.
IMPLIED = is_directory(mtime=0)
ROOT = b"."
# What a container needs to have mounted over it is there, whatever the layers say.
BAKED: Tree = {
    ROOT: IMPLIED,
    **dict.fromkeys((b"dev", b"proc", b"sys"), IMPLIED),
    b"tmp": is_directory(mode=0o1777, mtime=0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An image and what becomes of it: TREE, or a refusal that says every word of BECAUSE."""

    claim: str
    layers: tuple[Layer, ...]
    tree: Tree | None = None
    because: tuple[str, ...] = ()
    # Overrides for what is not in the layers.
    made: Image | None = None

    @property
    def image(self) -> Image:
        """What a registry serves."""
        return self.made or images.image(self.layers)


def holds(
    claim: str,
    *layers: Entries | bytes | Layer,
    tree: Mapping[str, Is],
    made: Image | None = None,
) -> Case:
    """Return the case that an image of LAYERS has TREE."""
    return Case(claim=claim, layers=_packed(layers), tree=_whole(tree), made=made)


def refused(
    claim: str,
    *layers: Entries | bytes | Layer,
    because: Iterable[str],
    made: Image | None = None,
) -> Case:
    """Return the case that an image of LAYERS is refused, with a reason that has these words."""
    return Case(claim=claim, layers=_packed(layers), because=tuple(because), made=made)


def _packed(layers: Iterable[Entries | bytes | Layer]) -> tuple[Layer, ...]:
    return tuple(_layer(each) for each in layers)


def _layer(each: Entries | bytes | Layer) -> Layer:
    if isinstance(each, Layer):
        return each
    return images.packed(each) if isinstance(each, bytes) else images.layer(each)


def _whole(expected: Mapping[str, Is]) -> Tree:
    """Return EXPECTED with what every image has, and with each inode knowing its names."""
    given = {as_bytes(path): what for path, what in expected.items()}
    first = {path: what.content if what.kind == _SAME else path for path, what in given.items()}
    tree: Tree = dict(BAKED)
    for path in given:
        names = frozenset(name for name in given if first[name] == first[path])
        inode = given[first[path]]
        assert inode.kind != _SAME
        tree[path] = replace(inode, names=names) if len(names) > 1 else inode
    return tree
