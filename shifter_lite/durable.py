"""Write, move and sync: the only place where files of a store come into being.

The order of every publication is: data, fsync, a name never used before, fsync
of the directory.  Nothing is ever changed in place (decision 0002).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from shifter_lite import lost_reply
from shifter_lite.transient import waited_out


def sync_directory(path: Path) -> None:
    """Make the names in PATH survive a power loss; see fsync(2), NOTES."""
    waited_out(lambda: _sync_directory(path))


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write(path: Path, data: bytes, mode: int) -> None:
    """Make the file PATH, which nobody else would choose, hold exactly DATA, on disk.

    Raises FileExistsError if somebody else has made it; on any error nothing is left of ours.
    """
    waited_out(lambda: _write(path, data, mode))


def _write(path: Path, data: bytes, mode: int) -> None:
    fd = lost_reply.create(path)
    try:
        with open(fd, "wb", buffering=0) as file:
            os.fchmod(fd, mode)
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            # What could not be synced is written anew, as another file: a second fsync(2) of this
            # one says that all is well.
            os.fsync(fd)
    except BaseException:
        lost_reply.discard(path)
        raise


def move(source: Path, target: Path) -> None:
    """Rename SOURCE to TARGET, and make both names survive a power loss."""
    lost_reply.rename(source, target)
    sync_directory(target.parent)
    if source.parent != target.parent:
        sync_directory(source.parent)


def drop(source: Path, target: Path) -> None:
    """Rename our file SOURCE to TARGET, in a directory that we may write but not read.

    Such a directory cannot be opened to be synced.  But the rename has changed the
    file's inode as well, so that journaling filesystems commit it with the file.
    """
    # Opened before: from the rename on, somebody else may move it on.
    fd = waited_out(lambda: os.open(source, os.O_RDONLY | os.O_NOFOLLOW))
    try:
        lost_reply.give(source, target)
        # It is given, whatever a power loss will do; its data is on disk.
        with suppress(OSError):
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
    write(unfinished, data, mode)
    try:
        link(unfinished, target)
    finally:
        lost_reply.discard(unfinished)


def link(source: Path, target: Path) -> None:
    """Give our file SOURCE the name TARGET as well, on disk; raises FileExistsError."""
    lost_reply.link(source, target)
    sync_directory(target.parent)


def has_size(path: Path, size: int) -> bool:
    """Return whether there is a file at PATH, whole as far as its SIZE tells."""
    try:
        return waited_out(path.stat).st_size == size
    except FileNotFoundError:
        return False


def make_directory(path: Path, mode: int) -> None:
    """Make the directory PATH with exactly MODE, whatever the umask; keep one that is in use.

    One that is empty may be what somebody left who was killed before it had its mode.
    """
    try:
        waited_out(lambda: path.mkdir(0o700))
    except FileExistsError:
        if not waited_out(lambda: os.listdir(path)):
            # Another account may have made it.
            with suppress(PermissionError):
                waited_out(lambda: path.chmod(mode))
    else:
        waited_out(lambda: path.chmod(mode))
