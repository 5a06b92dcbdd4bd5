"""Write, move and sync: the only place where files of a store come into being.

The order of every publication is: data, fsync, a name never used before, fsync
of the directory.  Nothing is ever changed in place (decision 0002).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def sync_directory(path: Path) -> None:
    """Make the names in PATH survive a power loss; see fsync(2), NOTES."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write(path: Path, data: bytes, mode: int) -> None:
    """Make the file PATH hold exactly DATA, on disk.  It must not exist.

    Raises FileExistsError; on any error nothing is left at PATH.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "wb", buffering=0) as file:
            os.fchmod(fd, mode)
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            os.fsync(fd)
    except BaseException:
        with suppress(FileNotFoundError):
            path.unlink()
        raise


def move(source: Path, target: Path) -> None:
    """Rename SOURCE to TARGET, and make both names survive a power loss."""
    source.rename(target)
    sync_directory(target.parent)
    if source.parent != target.parent:
        sync_directory(source.parent)


def drop(source: Path, target: Path) -> None:
    """Rename our file SOURCE to TARGET, in a directory that we may write but not read.

    Such a directory cannot be opened to be synced.  But the rename has changed the
    file's inode as well, so that journaling filesystems commit it with the file.
    """
    # Opened before: from the rename on, somebody else may move it on.
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        source.rename(target)
        os.fsync(fd)
    finally:
        os.close(fd)


def unfinished_name(target: Path, owner: str) -> Path:
    """Return the name that TARGET has until OWNER, a worker's name, has finished it.

    GlusterFS puts a file named ``.NAME.SUFFIX``, where SUFFIX has no dot, on the brick where NAME
    belongs (the option ``rsync-hash-regex``).  ``link`` is exclusive among files on one brick only:
    of two on different bricks, each can become TARGET, and one of them is lost.
    """
    return target.with_name(f".{target.name}.{owner.replace('.', '+')}")


def publish(data: bytes, target: Path, owner: str, mode: int) -> None:
    """Make DATA appear, whole and on disk, as TARGET, which no other worker may have made.

    ``link`` is what makes the name exclusive on every shared filesystem measured; the name of the
    unfinished file is unique to OWNER.  Raises FileExistsError.
    """
    unfinished = unfinished_name(target, owner)
    try:
        write(unfinished, data, mode)
    except FileExistsError:
        # We were interrupted before, or could not remove it.
        unfinished.unlink(missing_ok=True)
        write(unfinished, data, mode)
    try:
        link(unfinished, target)
    finally:
        unfinished.unlink()


def link(source: Path, target: Path) -> None:
    """Give our file SOURCE the name TARGET as well, on disk; raises FileExistsError."""
    os.link(source, target)
    sync_directory(target.parent)


def has_size(path: Path, size: int) -> bool:
    """Return whether there is a file at PATH, whole as far as its SIZE tells."""
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def make_directory(path: Path, mode: int) -> None:
    """Make the directory PATH with exactly MODE, whatever the umask; keep one that is in use.

    One that is empty may be what somebody left who was killed before it had its mode.
    """
    try:
        path.mkdir(0o700)
    except FileExistsError:
        if not os.listdir(path):
            # Another account may have made it.
            with suppress(PermissionError):
                path.chmod(mode)
    else:
        path.chmod(mode)
