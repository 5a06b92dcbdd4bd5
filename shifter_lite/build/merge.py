"""Turn the tables of contents of an image's layers into a plan of one tree.  Pure.

Layers are applied lowest first to a tree in memory, as the OCI image-spec says
(layer.md, "Applying Changesets"); nothing is resolved against a real filesystem,
so nothing can escape.  Of each layer, first its whiteouts act on what lies below,
wherever they stand in it; then its entries, in their order, the last one of a
name winning.  Hard links are names of one inode, so that a name's deletion or
replacement leaves the others their content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from shifter_lite.build import tar
from shifter_lite.build.tar import Member, Xattrs, shown
from shifter_lite.build.tree import Device, Directory, Fifo, File, Node, Symlink
from shifter_lite.config import Policy
from shifter_lite.errors import BadImage

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."
_LONGEST_COMPONENT = 255
_LONGEST_TARGET = 4095
# PATH_MAX of Linux, without the NUL: what is longer, nobody can open by its name.
_LONGEST_PATH = 4095
# A name may be written with slashes and dots that mean nothing.
_LONGEST_WRITTEN = 65536
# As many as docker and containerd follow.
_MOST_SYMLINKS = 255
# And so many bytes of their targets, or each of a million entries could take a tenth of a second.
_MOST_FOLLOWED = 1 << 15
# And all entries of an image together so many; a link counts as some bytes more than its target.
_MOST_FOLLOWED_BY_ALL = 1 << 29
_LINK_COST = 16
_LATEST = (1 << 32) - 1
# What a container needs to have mounted over it; a read-only image cannot be given it later.
_MOUNT_POINTS = ((b"dev", 0o755), (b"proc", 0o755), (b"sys", 0o755), (b"tmp", 0o1777))

Members = Callable[[], Iterable[Member]]


class Tree:
    """An image's tree while layers are applied to it.

    ``linked`` are the nodes that were given a further name at some time, ``xattrs`` the extended
    attributes of those that have some.  ``files`` counts the files with data of all layers,
    by which their data is known.  ``devices`` is where devices were put, and ``implied`` counts
    the directories that were made only because something is below them.
    """

    def __init__(self, policy: Policy, limit: int = 5_000_000) -> None:
        """Keep of the layers what POLICY says; make at most LIMIT directories that none names."""
        self.policy = policy
        self._limit, self.implied, self._followed = limit, 0, 0
        self.root = Directory(0o755)
        self.linked: set[Node] = set()
        self.xattrs: dict[Node, Xattrs] = {}
        self.files = 0
        self.devices: list[tuple[Directory, bytes]] = []
        self._layers = 0

    def apply(self, members: Members, *, plain: bool = False) -> None:
        """Apply the next layer, whose members MEMBERS yields each time it is called.

        PLAIN says that none of them concerns what is below: then it is called once.
        Raises BadImage, naming the layer and the entry.
        """
        self._layers += 1
        layer = _Layer(self)
        try:
            if not plain:
                layer.delete(members)
            layer.add(members())
        except BadImage as error:
            raise BadImage(f"layer {self._layers}: {error}", hint=error.hint) from error

    def count(self, directories: int) -> None:
        """Count DIRECTORIES made only because something is below them; raises BadImage."""
        self.implied += directories
        if self.implied > self._limit:
            # A name of a megabyte has half a million of them.
            raise BadImage(
                f"the image has more than {self._limit} directories without an entry",
                hint="the site allows no more: limits.entries in shifter_lite.toml",
            )

    def follow(self, target: bytes) -> None:
        """Count that a symbolic link to TARGET is followed; raises BadImage."""
        self._followed += _LINK_COST + len(target)
        if self._followed > _MOST_FOLLOWED_BY_ALL:
            raise BadImage(
                "the image has too many entries below symbolic links",
                hint="the image is broken, or made to slow builders down",
            )

    def finish(self) -> None:
        """Add what must be there for a container to be mounted on, and drop devices."""
        for directory, name in self.devices:
            # Devices are not for images; but what they replaced is gone.
            if isinstance(directory.children.get(name), Device):
                del directory.children[name]
        for name, mode in _MOUNT_POINTS:
            self.root.children.setdefault(name, Directory(mode))
        layer = _Layer(self)
        for path in self.policy.baked_mount_points:
            layer.make(path.encode(errors="surrogateescape"))

    def file(self, path: bytes) -> File | None:
        """Return the file that opening PATH in the image would open, or None."""
        return _Layer(self).file(path.split(b"/"))


def is_plain(member: Member) -> bool:
    """Return whether MEMBER neither deletes nor links to what lies below."""
    return member.type != tar.LINK and _WHITEOUT not in member.name


class _Layer:
    """The application of one layer to the tree below it."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._root = tree.root
        # What links of this layer may mean that is not, or not any more, in the tree.
        self._below: dict[bytes, Node] = {}
        self._begun = tree.files
        self._bare: set[Node] = set()
        # Links that are not followed any more.
        self._replaced: set[tuple[Directory, bytes]] = set()

    def delete(self, members: Members) -> None:
        """Apply the whiteouts, once hard links to what they may delete are looked up."""
        whiteouts: list[list[bytes]] = []
        for member in members():
            # Whatever its type: aufs had its whiteouts as hard links to one file.
            if parts := _whiteout(member):
                _check_whiteout(parts[-1], member)
                whiteouts.append(parts)
            elif member.type == tar.LINK:
                self._remember(_components(member.link, member.name))
        if any(self._is_behind_a_link(parts[:-1]) for parts in whiteouts):
            self._find_replaced(members())
        for parts in whiteouts:
            self._delete(parts[:-1], parts[-1])
        self._replaced.clear()

    def _is_behind_a_link(self, parents: list[bytes]) -> bool:
        with suppress(BadImage):
            return self._walk(parents)[2]
        return False

    def _find_replaced(self, members: Iterable[Member]) -> None:
        """Find the links below that an entry of this layer takes the place of.

        What is below such a name is the layer's own: no whiteout there is about the link's target.
        """
        own = [
            parts
            for member in members
            if not _whiteout(member)
            and (parts := _components(member.name, member.name))
            and self._link_at(parts)
        ]
        # What is below a link that is replaced replaces nothing behind it.
        for parts in sorted(own, key=len):
            if place := self._link_at(parts):
                self._replaced.add(place)

    def _link_at(self, parts: list[bytes]) -> tuple[Directory, bytes] | None:
        """Return the place of the symbolic link at PARTS; None if there is none."""
        with suppress(BadImage):
            directory, missing, _ = self._walk(parts[:-1])
            if not missing and isinstance(directory.children.get(parts[-1]), Symlink):
                return directory, parts[-1]
        return None

    def file(self, parts: Sequence[bytes]) -> File | None:
        """Return the file that opening PARTS would open, or None."""
        try:
            directory, rest, _ = self._walk(parts)
        except BadImage:
            return None
        node = directory.children.get(rest[0]) if len(rest) == 1 else None
        return node if isinstance(node, File) else None

    def make(self, path: bytes) -> None:
        """Make the directory PATH, as far as nothing else is there."""
        node, missing, _ = self._walk(path.split(b"/")[1:])
        if missing and missing[0] not in node.children:
            self._directory(path.split(b"/")[1:], path)

    def _remember(self, target: list[bytes]) -> None:
        # What leads nowhere below, may lead somewhere once this layer is there.
        with suppress(BadImage):
            if (node := self._find(target)) is not None:
                self._below[b"/".join(target)] = node

    def _delete(self, parents: list[bytes], name: bytes) -> None:
        directory = self._find(parents, follow=True)
        if not isinstance(directory, Directory):
            return
        if name == _OPAQUE:
            directory.children.clear()
        elif not name.startswith(_AUFS):
            directory.children.pop(name[len(_WHITEOUT) :], None)

    def add(self, members: Iterable[Member]) -> None:
        """Apply everything else, in order."""
        for member in members:
            content = -1
            if member.type == tar.FILE and member.size:
                content = self._tree.files
                self._tree.files += 1
            parts = _components(member.name, member.name)
            if not parts:
                self._set_root(member)
            elif parts[0].startswith(_AUFS):
                self._keep_aside(parts, member, content)
            elif not parts[-1].startswith(_WHITEOUT):
                self._add(parts, member, content)

    def _keep_aside(self, parts: list[bytes], member: Member, content: int) -> None:
        """Leave out what aufs kept its own books in, but for links to what lies there."""
        if member.type == tar.FILE:
            self._below[b"/".join(parts)] = self._inode(member, content)

    def _set_root(self, member: Member) -> None:
        if member.type != tar.DIRECTORY:
            raise BadImage(f"{shown(member.name)} would replace the root directory")
        self._set_attributes(self._root, member)

    def _add(self, parts: list[bytes], member: Member, content: int) -> None:
        directory = self._directory(parts[:-1], member.name)
        children, name = directory.children, parts[-1]
        if member.type == tar.DIRECTORY:
            old = children.get(name)
            if not isinstance(old, Directory):
                old = children[name] = Directory()
            self._set_attributes(old, member)
        elif member.type == tar.LINK:
            children[name] = self._linked(member)
        else:
            children[name] = self._inode(member, content)
        if isinstance(children[name], Device):
            self._tree.devices.append((directory, name))

    def _inode(self, member: Member, content: int) -> Node:
        node = _node(member, content)
        self._set_attributes(node, member)
        if content < 0:
            self._bare.add(node)
        return node

    def _set_attributes(self, node: Node, member: Member) -> None:
        """Give NODE the attributes of MEMBER, as far as the policy keeps them; never setuid."""
        mode = member.mode & 0o1777
        if self._tree.policy.readable:
            mode |= 0o444
            if member.type == tar.DIRECTORY or mode & 0o111:
                mode |= 0o111
        # Nobody asks for a symbolic link's mode, and Linux gives it this one.
        node.mode = 0o777 if member.type == tar.SYMLINK else mode
        node.mtime = min(max(member.mtime, 0), _LATEST)
        if self._tree.policy.user_xattrs:
            self._tree.xattrs.pop(node, None)
            # user.* is for files and directories only, xattr(7).
            if member.xattrs and member.type in (tar.FILE, tar.DIRECTORY):
                self._tree.xattrs[node] = member.xattrs

    def _linked(self, member: Member) -> Node:
        target = _components(member.link, member.name)
        node = self._find(target) or self._below.get(b"/".join(target))
        if node is None:
            raise BadImage(
                f"{shown(member.name)} is a link to {shown(member.link)}, which is missing"
            )
        if isinstance(node, Directory):
            raise BadImage(f"{shown(member.name)} is a hard link to a directory")
        self._tree.linked.add(node)
        return node

    def _find(self, parts: Sequence[bytes], *, follow: bool = False) -> Node | None:
        """Return the node at PARTS; a symbolic link at its end is followed if FOLLOW."""
        found, missing, _ = self._walk(parts if follow else parts[:-1])
        if missing:
            return None
        if follow or not parts:
            return found
        return found.children.get(parts[-1])

    def _directory(self, parts: Sequence[bytes], what: bytes) -> Directory:
        """Return the directory at PARTS, made where it is missing or something else."""
        node, missing, followed = self._walk(parts)
        if missing:
            self._tree.count(len(missing))
        for part in missing:
            if len(part) > _LONGEST_COMPONENT:
                raise BadImage(f"{shown(what)} has a name that is too long")
            old = node.children.get(part)
            # A directory may well replace a lower layer's file; but that file has to be meant.
            if old is not None and (followed or self._is_own(old)):
                raise BadImage(f"{shown(what)} is below what is no directory: {shown(part)}")
            child = node.children[part] = Directory(0o755)
            node = child
        return node

    def _is_own(self, node: Node) -> bool:
        """Return whether NODE, no directory, came with this layer."""
        return node in self._bare or (isinstance(node, File) and node.content >= self._begun)

    def _reached(self, directory: Directory, name: bytes) -> Node | None:
        if self._replaced and (directory, name) in self._replaced:
            return None
        return directory.children.get(name)

    def _walk(self, parts: Sequence[bytes]) -> tuple[Directory, list[bytes], bool]:
        """Follow PARTS from the root, as if chrooted.

        Returns the directory to which it went, what is missing below it, without any
        ``..``, and whether a symbolic link was followed.
        """
        path = [self._root]
        todo = list(reversed(parts))
        missing: list[bytes] = []
        followed = steps = 0
        while todo:
            part = todo.pop()
            if part == b"..":
                if missing:
                    missing.pop()
                else:
                    del path[max(1, len(path) - 1) :]
                continue
            node = None if missing else self._reached(path[-1], part)
            if isinstance(node, Symlink):
                followed += 1
                steps += len(node.target)
                self._tree.follow(node.target)
                if followed > _MOST_SYMLINKS or steps > _MOST_FOLLOWED:
                    raise BadImage(f"too many symbolic links at {shown(b'/'.join(parts))}")
                if node.target.startswith(b"/"):
                    del path[1:]
                todo += reversed([p for p in node.target.split(b"/") if p not in (b"", b".")])
            elif isinstance(node, Directory):
                path.append(node)
            else:
                missing.append(part)
        return path[-1], missing, followed > 0


def _components(name: bytes, what: bytes) -> list[bytes]:
    """Return the components of NAME, of the entry WHAT; raises BadImage for what climbs."""
    if len(name) > _LONGEST_WRITTEN:
        raise BadImage(f"{shown(what[:_LONGEST_COMPONENT])} … has a name that is too long")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if len(name) > _LONGEST_PATH and sum(map(len, parts)) + len(parts) > _LONGEST_PATH + 1:
        raise BadImage(f"{shown(what[:_LONGEST_COMPONENT])} … has a name that is too long")
    for part in parts:
        if part == b"..":
            raise BadImage(f"{shown(what)} climbs out of its directory")
        if len(part.removeprefix(_WHITEOUT)) > _LONGEST_COMPONENT:
            raise BadImage(f"{shown(what)} has a name that is too long")
        if b"\0" in part:
            raise BadImage(f"{shown(what)} has a name with a NUL")
    return parts


def _whiteout(member: Member) -> list[bytes]:
    """Return the components of the name of MEMBER if that is a whiteout's, else none."""
    if _WHITEOUT not in member.name:
        return []
    parts = _components(member.name, member.name)
    return parts if parts and parts[-1].startswith(_WHITEOUT) else []


def _check_whiteout(name: bytes, member: Member) -> None:
    if name.removeprefix(_WHITEOUT) in (b"", b".", b".."):
        raise BadImage(f"{shown(member.name)} is a malformed whiteout")


def _node(member: Member, content: int) -> Node:
    if member.type == tar.FILE:
        return File(content)
    if member.type == tar.FIFO:
        return Fifo()
    if member.type in (tar.CHARACTER, tar.BLOCK_DEVICE):
        return Device()
    if not member.link:
        raise BadImage(f"{shown(member.name)} is a symbolic link to nothing")
    if len(member.link) > _LONGEST_TARGET:
        raise BadImage(f"{shown(member.name)} is a symbolic link that is too long")
    return Symlink(member.link)
