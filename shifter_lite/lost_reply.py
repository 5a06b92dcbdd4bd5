"""Change names in a directory where a server's answer may get lost.

A shared filesystem may do what was asked and say that it failed: the reply is lost, the client
asks again, and hears that the source is gone (ENOENT) or the target is there (EEXIST); or it
gives up, and says EIO.  So no error of such an operation says what has happened.  Here each is
followed by a look at what is there: our own name, our own file.  What may pass is tried again
meanwhile, as everywhere (``transient``).

A look is a listing where that is allowed: on NFS a name that was missing once stays missing for
half a minute for those who ask for it by name (decision 0024).
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from shifter_lite.transient import is_transient, pauses, waited_out

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def is_there(path: Path) -> bool:
    """Return whether there is anything at PATH, whatever a cache remembers of the name."""
    try:
        waited_out(path.lstat)
    except FileNotFoundError:
        return _is_listed(path)
    return True


def _is_listed(path: Path) -> bool:
    # Users may not list the spool; and what is not there has no names in it.
    with suppress(PermissionError, FileNotFoundError, NotADirectoryError):
        return path.name in waited_out(lambda: os.listdir(path.parent))
    return False


def is_same(one: Path, other: Path) -> bool:
    """Return whether ONE and OTHER are names of one file, and no link to it."""
    try:
        first, second = waited_out(one.lstat), waited_out(other.lstat)
    except FileNotFoundError:
        return False
    return os.path.samestat(first, second)


def rename(source: Path, target: Path) -> None:
    """Rename SOURCE to TARGET, which is there in the end only if we have done that.

    Raises FileNotFoundError if somebody else has taken SOURCE away.
    """
    _insist(lambda: source.rename(target), lambda: is_there(target), FileNotFoundError)


def give(source: Path, target: Path) -> None:
    """Rename our file SOURCE to TARGET, from where others may take it at once.

    Nobody else takes SOURCE away: if it is gone, we have done that.
    """

    def is_given() -> bool:
        # Of a store that is not mounted any more, nothing is there.
        return not is_there(source) and is_there(source.parent)

    _insist(lambda: source.rename(target), is_given, FileNotFoundError)


def link(source: Path, target: Path) -> None:
    """Give our file SOURCE the name TARGET as well; raises FileExistsError if another has it."""
    _insist(lambda: os.link(source, target), lambda: is_same(source, target), FileExistsError)


def unlink(path: Path) -> None:
    """Remove PATH, which need not be there."""
    _insist(lambda: path.unlink(missing_ok=True), lambda: not is_there(path))


def rmdir(path: Path) -> None:
    """Remove the directory PATH, which need not be there; raises OSError if it is not empty."""

    def remove() -> None:
        with suppress(FileNotFoundError):
            path.rmdir()

    _insist(remove, lambda: not is_there(path))


def discard(path: Path) -> None:
    """Remove PATH, if that can be done: what stays is swept, and changes no result."""
    with suppress(OSError):
        unlink(path)


def mkdir(path: Path) -> None:
    """Make the directory PATH, for ourselves, under a name that nobody else would choose.

    Raises FileExistsError if it is somebody else's.
    """
    _insist(lambda: path.mkdir(0o700), lambda: _is_ours(path, stat.S_ISDIR), FileExistsError)


def create(path: Path) -> int:
    """Make a file at PATH, a name that nobody else would choose, and open it for writing.

    One of ours that is there was left by an earlier try, and goes first.  Raises FileExistsError
    if it is somebody else's.
    """
    for pause in pauses():
        try:
            return os.open(path, _NEW, 0o600)
        except FileExistsError:
            if not _is_ours(path, stat.S_ISREG):
                raise
            unlink(path)
        except OSError as error:
            if not is_transient(error):
                raise
        time.sleep(pause)
    return os.open(path, _NEW, 0o600)


def _is_ours(path: Path, is_kind: Callable[[int], bool]) -> bool:
    try:
        status = waited_out(path.lstat)
    except FileNotFoundError:
        return False
    return status.st_uid == os.geteuid() and is_kind(status.st_mode)


def _insist(
    operation: Callable[[], object], is_done: Callable[[], bool], *lost: type[OSError]
) -> None:
    """Do OPERATION, again if its error may pass; raises what it raises, unless it IS_DONE.

    LOST is what is said of an operation that was done before.
    """
    for pause in pauses():
        try:
            operation()
        except OSError as error:
            if isinstance(error, lost) and is_done():
                return
            if not is_transient(error):
                raise
        else:
            return
        time.sleep(pause)
    if not is_done():
        operation()
