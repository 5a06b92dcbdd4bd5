"""What layers become, found out the slow and plain way.

The whole image is one dictionary of paths.  Symbolic links are followed by rewriting the path's
text until none is left on it, deletion looks at every path there is, and an inode is known
by being the same object.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from tests.corpus.case import BAKED, Is, Tree
from tests.helpers.images import Entry


class Refused(Exception):
    """The image is to be refused."""


@dataclass(eq=False, slots=True)
class _Inode:
    what: Is
    layer: int


_Found = dict[str, _Inode]
_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "device",
}


def model(layers: Sequence[Sequence[Entry]]) -> Tree:
    """Return what LAYERS become; raises Refused."""
    found: _Found = {}
    for number, layer in enumerate(layers):
        below = dict(found)
        reached = _without_replaced_links(found, layer)
        for entry in layer:
            _delete(found, reached, entry)
        for entry in layer:
            if not _base(entry).startswith(".wh."):
                _put(found, below, number, entry)
    return _tree(found)


def _path(name: str | bytes) -> str:
    return "/".join(part for part in os.fsdecode(name).split("/") if part not in ("", "."))


def _base(entry: Entry) -> str:
    return _path(entry.name).rpartition("/")[2]


def _real(found: _Found, path: str) -> str:
    """Return PATH with every symbolic link on it replaced by what it says, again and again."""
    for _ in range(300):
        parts = path.split("/")
        for n in range(len(parts)):
            here, rest = "/".join(parts[: n + 1]), parts[n + 1 :]
            if parts[n] == "..":
                path = "/".join([*parts[: max(n - 1, 0)], *rest])
                break
            if here in found and found[here].what.kind == "symlink":
                target = os.fsdecode(found[here].what.content)
                start = [] if target.startswith("/") else parts[:n]
                path = "/".join([*start, *_path(target).split("/"), *rest]).strip("/")
                path = _path(path)
                break
        else:
            return path
    raise Refused


def _directory_of(found: _Found, path: str) -> str:
    parent = path.rpartition("/")[0]
    return _real(found, parent) if parent else ""


def _within(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def _without_replaced_links(found: _Found, layer: Sequence[Entry]) -> _Found:
    """Return FOUND without the links that entries of LAYER take the places of."""
    left = dict(found)
    for entry in sorted(layer, key=lambda each: _path(each.name).count("/")):
        with suppress(Refused):
            place = _within(_directory_of(left, _path(entry.name)), _base(entry))
            is_link = place in left and left[place].what.kind == "symlink"
            if is_link and not _base(entry).startswith(".wh."):
                del left[place]
    return left


def _delete(found: _Found, reached: _Found, entry: Entry) -> None:
    """Delete what ENTRY, if it is a whiteout, is about; it leads only over what is REACHED."""
    base = _base(entry)
    if not base.startswith(".wh."):
        return
    parent = _directory_of(reached, _path(entry.name))
    if base == ".wh..wh..opq":
        gone = [path for path in found if _is_below(path, parent)]
    else:
        victim = _within(parent, base[4:])
        gone = [path for path in found if path == victim or _is_below(path, victim)]
    for path in gone:
        del found[path]


def _is_below(path: str, directory: str) -> bool:
    return not directory or path.startswith(f"{directory}/")


def _put(found: _Found, below: _Found, number: int, entry: Entry) -> None:
    path = _path(entry.name)
    parent = _directory_of(found, path)
    _make(found, parent, number, literal=parent == path.rpartition("/")[0])
    place = _within(parent, _base(entry))
    if entry.type == tarfile.LNKTYPE:
        inode = _target(found, below, _path(entry.target))
    else:
        inode = _Inode(_what(entry), number)
    old = found.get(place)
    if old is not None and old.what.kind == inode.what.kind == "directory":
        old.what = inode.what
        return
    for inside in [each for each in found if _is_below(each, place)]:
        del found[inside]
    found[place] = inode


def _make(found: _Found, directory: str, number: int, *, literal: bool) -> None:
    """Let DIRECTORY be one; what is in its way must be of a lower layer, and meant LITERALly."""
    parts = directory.split("/") if directory else []
    for n in range(1, len(parts) + 1):
        each = "/".join(parts[:n])
        old = found.get(each)
        if old is not None and old.what.kind == "directory":
            continue
        if old is not None and (old.layer == number or not literal):
            raise Refused
        found[each] = _Inode(Is("directory", 0o755, 0), number)


def _target(found: _Found, below: _Found, target: str) -> _Inode:
    base = target.rpartition("/")[2]
    inode = found.get(_within(_directory_of(found, target), base))
    if inode is None:
        try:
            inode = below.get(_within(_directory_of(below, target), base))
        except Refused:
            inode = None
    if inode is None or inode.what.kind == "directory":
        raise Refused
    return inode


def _what(entry: Entry) -> Is:
    """Return what ENTRY is, under the policy."""
    kind = _KINDS[entry.type]
    mode = entry.mode & 0o1777 | 0o444
    if kind == "directory" or mode & 0o111:
        mode |= 0o111
    if kind == "symlink":
        return Is(kind, 0o777, int(entry.mtime), os.fsencode(entry.target))
    return Is(kind, mode, int(entry.mtime), entry.data)


def _tree(found: _Found) -> Tree:
    tree: Tree = dict(BAKED)
    for path, inode in found.items():
        names = frozenset(p.encode() for p, other in found.items() if other is inode)
        if inode.what.kind != "device":
            several = names if len(names) > 1 else frozenset()
            tree[path.encode()] = replace(inode.what, names=several)
    return tree
