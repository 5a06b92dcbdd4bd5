"""Turn the tables of contents of an image's layers into a plan of one tree.  Pure.

Layers are applied lowest first to a tree in memory, as the OCI image-spec says
(layer.md, "Applying Changesets"); nothing is resolved against a real filesystem,
so nothing can escape.  Of each layer, first its whiteouts act on what lies below,
wherever they stand in it; then its entries, in their order, the last one of a
name winning.  Hard links are names of one inode, so that a name's deletion or
replacement leaves the others their content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from shifter_lite.build import tar
from shifter_lite.build.sparse import Segments
from shifter_lite.build.tar import Member
from shifter_lite.errors import BadImage

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."
_LONGEST_COMPONENT = 255
_LONGEST_TARGET = 4095
_MOST_SYMLINKS = 40
_LATEST = (1 << 32) - 1
# What a container needs to have mounted over it; a read-only image cannot be given it later.
_MOUNT_POINTS = ((b"dev", 0o755), (b"proc", 0o755), (b"sys", 0o755), (b"tmp", 0o1777))

Members = Callable[[], Iterable[Member]]


class Node:
    """One inode of the tree: a directory, a file, a symbolic link or a FIFO."""

    __slots__ = (
        "children",
        "layer",
        "link",
        "mode",
        "mtime",
        "offset",
        "path",
        "segments",
        "size",
        "type",
    )

    def __init__(self, kind: int, mode: int, mtime: int) -> None:
        """Make an inode of KIND, one of tar's types, without content."""
        self.type = kind
        self.mode = mode
        self.mtime = mtime
        self.children: dict[bytes, Node] | None = {} if kind == tar.DIRECTORY else None
        self.layer = self.offset = self.size = 0
        self.link = b""
        self.path = b""
        self.segments: Segments | None = None


@dataclass(slots=True)
class Plan:
    """What an image holds, in the order in which it is to be written.

    ``bare`` are inodes without data, parents before children; ``files[n]`` are
    the inodes whose data lies in layer n, in its order; ``links`` are pairs of a
    further name and its inode.  Each inode's ``path`` is its first name.  ``accounts``
    are the image's passwd and group, where it has them as files.
    """

    bare: list[Node] = field(default_factory=list)
    files: list[list[Node]] = field(default_factory=list)
    links: list[tuple[bytes, Node]] = field(default_factory=list)
    accounts: dict[str, Node] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of data in all files."""
        return sum(node.size for nodes in self.files for node in nodes)


def plan(layers: Sequence[Members]) -> Plan:
    """Return the plan of the image with LAYERS, lowest first.

    Each is a function that yields the layer's members, and is called twice.
    Raises BadImage, naming the layer and the entry.
    """
    root = Node(tar.DIRECTORY, 0o755, 0)
    for number, members in enumerate(layers):
        layer = _Layer(root, number)
        try:
            layer.delete(members())
            layer.add(members())
        except BadImage as error:
            raise BadImage(f"layer {number + 1}: {error}") from error
    for name, mode in _MOUNT_POINTS:
        assert root.children is not None
        root.children.setdefault(name, Node(tar.DIRECTORY, mode, 0))
    result = _ordered(root, len(layers))
    for account in ("passwd", "group"):
        node = _Layer(root, 0).file([b"etc", account.encode()])
        if node is not None:
            result.accounts[account] = node
    return result


class _Layer:
    """The application of one layer to the tree below it."""

    def __init__(self, root: Node, number: int) -> None:
        self._root = root
        self._number = number
        self._below: dict[bytes, Node] = {}

    def delete(self, members: Iterable[Member]) -> None:
        """Apply the whiteouts, once hard links to what they may delete are looked up."""
        whiteouts: list[list[bytes]] = []
        for member in members:
            if member.type == tar.LINK:
                self._remember(_components(member.link, member.name))
            elif _WHITEOUT in member.name:
                parts = _components(member.name, member.name)
                if parts[-1].startswith(_WHITEOUT):
                    whiteouts.append(parts)
        for parts in whiteouts:
            self._delete(parts[:-1], parts[-1])

    def file(self, parts: Sequence[bytes]) -> Node | None:
        """Return the file that opening PARTS would open, or None."""
        try:
            directory, rest = self._walk(parts)
        except BadImage:
            return None
        if len(rest) != 1 or directory.children is None:
            return None
        node = directory.children.get(rest[0])
        return node if node is not None and node.type == tar.FILE else None

    def _remember(self, target: list[bytes]) -> None:
        if (node := self._find(target)) is not None:
            self._below[b"/".join(target)] = node

    def _delete(self, parents: list[bytes], name: bytes) -> None:
        directory = self._find(parents, follow=True)
        if directory is None or directory.children is None:
            return
        if name == _OPAQUE:
            directory.children.clear()
        elif not name.startswith(_AUFS):
            directory.children.pop(name[len(_WHITEOUT) :], None)

    def add(self, members: Iterable[Member]) -> None:
        """Apply everything else, in order."""
        for member in members:
            parts = _components(member.name, member.name)
            if not parts:
                self._set_root(member)
            elif any(part.startswith(_WHITEOUT) for part in parts):
                _check_whiteout(parts, member)
            else:
                self._add(parts, member)

    def _set_root(self, member: Member) -> None:
        if member.type != tar.DIRECTORY:
            raise BadImage(f"{_shown(member.name)} would replace the root directory")
        _set_attributes(self._root, member)

    def _add(self, parts: list[bytes], member: Member) -> None:
        directory = self._directory(parts[:-1], member.name)
        children = directory.children
        assert children is not None
        name = parts[-1]
        old = children.get(name)
        if member.type == tar.DIRECTORY:
            if old is not None and old.type == tar.DIRECTORY:
                _set_attributes(old, member)
                return
            children[name] = node = Node(tar.DIRECTORY, 0, 0)
            _set_attributes(node, member)
        elif member.type == tar.LINK:
            children[name] = self._linked(member)
        elif member.type in (tar.CHARACTER, tar.BLOCK_DEVICE):
            # Devices are not for images; but what they replace is gone.
            children.pop(name, None)
        else:
            children[name] = self._inode(member)

    def _inode(self, member: Member) -> Node:
        node = Node(member.type, 0, 0)
        _set_attributes(node, member)
        if member.type == tar.FILE:
            node.layer, node.offset, node.size = self._number, member.offset, member.size
            if member.stored != member.size:
                node.segments = member.segments
        elif member.type == tar.SYMLINK:
            if not 0 < len(member.link) <= _LONGEST_TARGET:
                raise BadImage(f"{_shown(member.name)} is a symbolic link to nothing")
            node.link = member.link
        return node

    def _linked(self, member: Member) -> Node:
        target = _components(member.link, member.name)
        node = self._find(target) or self._below.get(b"/".join(target))
        if node is None:
            raise BadImage(
                f"{_shown(member.name)} is a link to {_shown(member.link)}, which is missing"
            )
        if node.type == tar.DIRECTORY:
            raise BadImage(f"{_shown(member.name)} is a hard link to a directory")
        return node

    def _find(self, parts: Sequence[bytes], *, follow: bool = False) -> Node | None:
        """Return the node at PARTS; a symbolic link at its end is followed if FOLLOW."""
        found, missing = self._walk(parts if follow else parts[:-1])
        if missing:
            return None
        if follow or not parts:
            return found
        return None if found.children is None else found.children.get(parts[-1])

    def _directory(self, parts: Sequence[bytes], what: bytes) -> Node:
        """Return the directory at PARTS, made where it is missing or something else."""
        node, missing = self._walk(parts)
        for part in missing:
            if len(part) > _LONGEST_COMPONENT:
                raise BadImage(f"{_shown(what)} has a name that is too long")
            assert node.children is not None
            child = node.children[part] = Node(tar.DIRECTORY, 0o755, 0)
            node = child
        return node

    def _walk(self, parts: Sequence[bytes]) -> tuple[Node, list[bytes]]:
        """Follow PARTS from the root, as if chrooted; return how far it went and what is missing.

        The returned node is a directory, and what is missing holds no ``..``.
        """
        path = [self._root]
        todo = list(reversed(parts))
        followed = 0
        while todo:
            part = todo.pop()
            if part == b"..":
                del path[1 if len(path) == 1 else -1 :]
                continue
            here = path[-1].children
            assert here is not None
            node = here.get(part)
            if node is not None and node.type == tar.SYMLINK:
                followed += 1
                if followed > _MOST_SYMLINKS:
                    raise BadImage(f"too many symbolic links at {_shown(b'/'.join(parts))}")
                if node.link.startswith(b"/"):
                    del path[1:]
                todo += reversed([p for p in node.link.split(b"/") if p not in (b"", b".")])
            elif node is None or node.children is None:
                return path[-1], _plain([part, *reversed(todo)], parts)
            else:
                path.append(node)
        return path[-1], []


def _plain(missing: list[bytes], parts: Sequence[bytes]) -> list[bytes]:
    """Refuse ``..`` in what a symbolic link says is missing."""
    if b".." in missing:
        raise BadImage(f"a symbolic link leads nowhere at {_shown(b'/'.join(parts))}")
    return missing


def _components(name: bytes, what: bytes) -> list[bytes]:
    """Return the components of NAME, of the entry WHAT; raises BadImage for what climbs."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    for part in parts:
        if part == b"..":
            raise BadImage(f"{_shown(what)} climbs out of its directory")
        if len(part) > _LONGEST_COMPONENT:
            raise BadImage(f"{_shown(what)} has a name that is too long")
        if b"\0" in part:
            raise BadImage(f"{_shown(what)} has a name with a NUL")
    return parts


def _check_whiteout(parts: list[bytes], member: Member) -> None:
    if parts[-1] == _WHITEOUT or any(part.startswith(_WHITEOUT) for part in parts[:-1]):
        # aufs kept its own books below such directories; nothing of them is the image's.
        if parts[0].startswith(_AUFS):
            return
        raise BadImage(f"{_shown(member.name)} is a malformed whiteout")


def _set_attributes(node: Node, member: Member) -> None:
    """Give NODE the attributes of MEMBER, under the policy: readable by all, never setuid."""
    mode = member.mode & 0o1777 | 0o444
    if member.type == tar.DIRECTORY or mode & 0o111:
        mode |= 0o111
    node.mode = mode
    node.mtime = min(max(member.mtime, 0), _LATEST)


def _ordered(root: Node, layers: int) -> Plan:
    """Return the plan of the tree at ROOT: the same for equal trees, however they came about."""
    result = Plan(files=[[] for _ in range(layers)])
    for path, node in _walk_tree(root):
        if node.path:
            result.links.append((path, node))
            continue
        node.path = path
        if node.type == tar.FILE and node.size:
            result.files[node.layer].append(node)
        else:
            result.bare.append(node)
    for nodes in result.files:
        nodes.sort(key=lambda node: node.offset)
    return result


def _walk_tree(root: Node) -> Iterator[tuple[bytes, Node]]:
    """Yield every name below ROOT and its node, sorted, parents first; the root is ``.``."""
    todo: list[tuple[bytes, Node]] = [(b"./", root)]
    while todo:
        path, node = todo.pop()
        yield path, node
        if node.children:
            prefix = b"" if node is root else path + b"/"
            todo += [
                (prefix + name, node.children[name]) for name in sorted(node.children, reverse=True)
            ]


def _shown(name: bytes) -> str:
    return repr(name.decode(errors="backslashreplace"))
