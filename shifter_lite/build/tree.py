"""The tree of an image in memory.  Pure."""

from __future__ import annotations

from collections.abc import Iterator


class Node:
    """One inode: its permissions, and its time of last change in seconds since 1970.

    There may be a million of them: every byte counts.
    """

    __slots__ = ("mode", "mtime")

    def __init__(self, mode: int = 0, mtime: int = 0) -> None:
        self.mode = mode
        self.mtime = mtime


class Directory(Node):
    """A directory and what is in it, by name."""

    __slots__ = ("children",)

    def __init__(self, mode: int = 0, mtime: int = 0) -> None:
        super().__init__(mode, mtime)
        self.children: dict[bytes, Node] = {}


class File(Node):
    """A regular file; ``content`` is the number of its data, -1 if it has none."""

    __slots__ = ("content",)

    def __init__(self, content: int = -1) -> None:
        super().__init__()
        self.content = content


class Symlink(Node):
    """A symbolic link to ``target``."""

    __slots__ = ("target",)

    def __init__(self, target: bytes) -> None:
        super().__init__()
        self.target = target


class Fifo(Node):
    """A named pipe."""

    __slots__ = ()


class Device(Node):
    """A device, which holds its place until all layers are applied."""

    __slots__ = ()


def walk(root: Directory) -> Iterator[tuple[bytes, Node]]:
    """Yield every path below ROOT and its node, sorted, parents first; the root's is empty."""
    todo: list[tuple[bytes, Node]] = [(b"", root)]
    while todo:
        path, node = todo.pop()
        yield path, node
        if isinstance(node, Directory):
            prefix = path + b"/" if path else b""
            todo += [
                (prefix + name, node.children[name]) for name in sorted(node.children, reverse=True)
            ]


def nodes(root: Directory) -> Iterator[Node]:
    """Yield the node of every name at and below ROOT, in no order that means anything."""
    todo = [root]
    yield root
    while todo:
        for child in todo.pop().children.values():
            yield child
            if isinstance(child, Directory):
                todo.append(child)
