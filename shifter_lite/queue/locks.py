"""Locks that the filesystem itself keeps, and whether it really does.

The only module that uses filelock.  Its locks are flock(2), and never one that outlives
a crash; where there is none, we refuse to work (``probe``).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from shifter_lite import lost_reply
from shifter_lite.errors import BadConfig
from shifter_lite.transient import is_transient, waited_out

_NONE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
# Options of mounts that keep locks from being seen by other nodes: nfs(5), mount.lustre(8).
_LOCAL = {"localflock", "nolock", "local_lock=all", "local_lock=flock"}
_MOUNT_HINT = "mount it with locks that all nodes see (Lustre: -o flock; NFS: without nolock)"


def lock(path: Path, timeout: float = -1) -> FileLock:
    """Return a lock on PATH; entering it waits TIMEOUT seconds at most, or for ever."""
    return FileLock(path, timeout=timeout, mode=0o600, fallback_to_soft=False)


def try_lock(wanted: FileLock) -> bool:
    """Take the lock WANTED; return whether it was free.  BadConfig if there are no locks here."""
    try:
        waited_out(lambda: wanted.acquire(blocking=False))
    except Timeout:
        return False
    except OSError as error:
        if error.errno not in _NONE:
            raise
        raise BadConfig(
            f"the store's filesystem has no locks: {error.strerror}", hint=_MOUNT_HINT
        ) from error
    return True


@contextmanager
def patiently(path: Path, seconds: float) -> Iterator[bool]:
    """Hold the lock on PATH meanwhile, if it can be had in so many SECONDS; yield whether."""
    wanted = lock(path, seconds)
    try:
        waited_out(wanted.acquire)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        wanted.release()


def is_free(path: Path) -> bool:
    """Return whether nobody holds the lock on PATH."""
    if not waited_out(path.exists):
        return True
    probe = lock(path)
    if not try_lock(probe):
        return False
    probe.release()
    return True


def probe(held: Path) -> None:
    """Raise BadConfig unless the lock on HELD, which we have, keeps others out.

    And unless names can be given with link(2).  That other nodes are kept out too cannot be
    tried from here: but it is known of some ways to mount.  Raises FileNotFoundError if somebody
    has removed HELD meanwhile: then there is nothing to try.
    """
    before = waited_out(held.lstat)
    # flock(2) is the open file's, not the process's: our own second one is somebody else.
    free = is_free(held)
    if not os.path.samestat(before, waited_out(held.lstat)):
        raise FileNotFoundError(errno.ENOENT, "the lock was removed", str(held))
    if free:
        raise BadConfig(f"a lock keeps nobody out: {str(held)!r}", hint=_MOUNT_HINT)
    if local := _LOCAL & _mount_options(held):
        raise BadConfig(
            f"locks are local to this node: {str(held)!r} is mounted with {local.pop()!r}",
            hint=_MOUNT_HINT,
        )
    _try_link(held)


def tried_link(held: Path) -> Path:
    """Return what ``probe`` of HELD leaves, if it is killed at the wrong moment."""
    return held.with_name(f".{held.name}.link")


def _try_link(held: Path) -> None:
    second = tried_link(held)
    try:
        lost_reply.link(held, second)
    except OSError as error:
        if is_transient(error):
            raise
        raise BadConfig(
            f"the store's filesystem has no hard links: {error.strerror}",
            hint="put the store on a filesystem that has link(2)",
        ) from error
    finally:
        lost_reply.discard(second)


def _mount_options(path: Path) -> set[str]:
    """Return the options that the filesystem of PATH is mounted with; see proc(5), mountinfo."""
    device = waited_out(path.stat).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    found: set[str] = set()
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split()
        if fields[2] == wanted:
            found.update(fields[5].split(","), fields[-1].split(","))
    return found
