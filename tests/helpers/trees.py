"""The tree in a directory, or in an image: what is there, with all its attributes."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.corpus.case import ROOT, Is, Tree

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
}


def of_image(path: Path, scratch: Path) -> Tree:
    """Return the tree of the squashfs file PATH, unpacked in SCRATCH for a while."""
    into = scratch / "unpacked"
    command: list[str | Path] = ["unsquashfs", "-q", "-n", "-p", "1", "-d", into, path]
    subprocess.run(command, check=True, capture_output=True, umask=0)
    try:
        return of_directory(into)
    finally:
        remove(into)


def remove(top: Path) -> None:
    """Remove the directory TOP, whose own directories may be closed even to their owner."""
    subprocess.run(["chmod", "-R", "u+rwx", top], check=True)
    shutil.rmtree(top)


def of_mounted(path: Path, scratch: Path) -> Tree:
    """Return the tree of the squashfs file PATH as the kernel has it, mounted in SCRATCH."""
    into = scratch / "mounted"
    into.mkdir()
    subprocess.run(["mount", "-t", "squashfs", "-o", "loop,ro", path, into], check=True)
    try:
        return of_directory(into)
    finally:
        subprocess.run(["umount", into], check=True)


def of_directory(top: Path) -> Tree:
    """Return the tree in the directory TOP."""
    found: Tree = {}
    inodes: dict[tuple[int, int], set[bytes]] = {}
    for path, status, content in _walk(top):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        found[path] = Is(kind, stat.S_IMODE(status.st_mode), int(status.st_mtime), content)
        if status.st_nlink > 1 and kind != "directory":
            inodes.setdefault((status.st_dev, status.st_ino), set()).add(path)
    for names in inodes.values():
        for path in names:
            found[path] = replace(found[path], names=frozenset(names))
    return found


def _walk(top: Path) -> Iterator[tuple[bytes, os.stat_result, bytes]]:
    """Yield every path below TOP, its status, and a file's data or a link's target."""
    yield ROOT, os.stat(top), b""
    # By descriptors, so that no path is too long.
    todo = [(b"", os.open(top, os.O_RDONLY))]
    while todo:
        prefix, fd = todo.pop()
        for name in os.listdir(fd):
            path = prefix + os.fsencode(name)
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            yield path, status, _content(name, fd, status.st_mode)
            if stat.S_ISDIR(status.st_mode):
                todo.append((path + b"/", os.open(name, os.O_RDONLY, dir_fd=fd)))
        os.close(fd)


def _content(name: str, fd: int, mode: int) -> bytes:
    if stat.S_ISLNK(mode):
        return os.fsencode(os.readlink(name, dir_fd=fd))
    if not stat.S_ISREG(mode):
        return b""
    with open(os.open(name, os.O_RDONLY, dir_fd=fd), "rb") as file:
        return file.read()
