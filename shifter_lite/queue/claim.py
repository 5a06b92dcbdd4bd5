"""Claim requests, so that each is worked on by one worker at a time.

A request is a file.  Its directory is its state::

    tmp/NAME             the client is still writing it       not ours
    new/NAME             submitted                            claim it
    work/NAME.WORKER     claimed by WORKER                    leave it alone while WORKER lives
    done/DAY/NAME        answered with an image
    failed/DAY/NAME      answered with a reason

WORKER is host, pid and a nonce; it lives while ``locks/worker.WORKER.lock`` is
locked, and the kernel unlocks what the dead held.  Claiming is rename(2) from
``new/`` to a name that nobody else would choose: with one common target several
workers "win" on GlusterFS and MooseFS.  The losers see ENOENT or ESTALE and go
on.  No other module moves a file between these directories.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from shifter_lite import durable
from shifter_lite.errors import BadConfig, BadRequest
from shifter_lite.layout import Layout
from shifter_lite.request import Request, is_request_name, request_day

_LOST = (errno.ENOENT, errno.ESTALE)
_LOCK = re.compile(r"worker\.(?P<worker>.+)\.lock")


def lock(path: Path) -> FileLock:
    """Return a lock on PATH that the filesystem itself keeps, never one that outlives a crash."""
    return FileLock(path, timeout=-1, mode=0o600, fallback_to_soft=False)


@dataclass(frozen=True, slots=True)
class Claim:
    """One request that this worker, and nobody else, has to answer."""

    layout: Layout
    request: Request
    path: Path

    def done(self) -> None:
        """Note that it was answered with an image."""
        _answered(self.path, self.layout.done, self.request.name)

    def failed(self) -> None:
        """Note that it was answered with a reason."""
        _answered(self.path, self.layout.failed, self.request.name)

    def hand_back(self) -> None:
        """Let another worker have it."""
        durable.move(self.path, self.layout.submitted / self.request.name)


class Worker:
    """The right of this process to claim requests, for as long as it lives."""

    def __init__(self, layout: Layout, store: str) -> None:
        """Work on the spool of STORE, which is at LAYOUT."""
        self._layout, self._store = layout, store
        host = re.sub(r"[^A-Za-z0-9-]", "-", os.uname().nodename)[:64]
        self.name = f"{host}.{os.getpid()}.{os.urandom(4).hex()}"
        self._lock = lock(_lock_path(layout, self.name))

    def __enter__(self) -> Worker:
        """Come to life."""
        path = Path(self._lock.lock_file)
        self._lock.acquire()
        # Somebody who looked before we had the lock took us for dead: be born again.
        while not path.exists():
            self._lock.release()
            self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        """End.  The name is never used again, so its lock file can go."""
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def claims(self) -> Iterator[Claim | BadRequest]:
        """Claim what is submitted, oldest first, until nothing is left.

        What is not a request of its owner's is answered with a reason, here, and
        yielded as its BadRequest.
        """
        while names := sorted(filter(is_request_name, os.listdir(self._layout.submitted))):
            won = 0
            for name in names:
                if (claim := self._claim(name)) is not None:
                    won += 1
                    yield claim
            if not won:
                return

    def _claim(self, name: str) -> Claim | BadRequest | None:
        path = self._layout.claimed / f"{name}.{self.name}"
        try:
            (self._layout.submitted / name).rename(path)
        except OSError as error:
            if error.errno in _LOST:
                return None
            raise
        try:
            return Claim(self._layout, self._read(path, name), path)
        except BadRequest as error:
            self._reject(path, name)
            return error

    def _read(self, path: Path, name: str) -> Request:
        if self._was_answered(name):
            raise BadRequest(f"the request {name!r} was answered before")
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise BadRequest(f"the request {name!r} cannot be read: {error.strerror}") from error
        try:
            return Request.read(fd, name=name, store=self._store, now=time.time())
        finally:
            os.close(fd)

    def _reject(self, path: Path, name: str) -> None:
        if self._was_answered(name):
            path.unlink()
        else:
            _answered(path, self._layout.failed, name)

    def _was_answered(self, name: str) -> bool:
        day = request_day(name)
        places = (self._layout.done, self._layout.failed)
        return any((place / day / name).exists() for place in places)

    def living(self) -> list[str]:
        """Return the names of the workers that live, this one included."""
        return [name for name in _workers(self._layout) if _alive(self._layout, name)]

    def recover(self) -> int:
        """Hand back what dead workers had claimed; return how many requests that were."""
        for worker in _workers(self._layout):
            if worker != self.name:
                _bury_if_dead(self._layout, worker)
        # A worker has its lock before its first claim and until after its last.
        living = _workers(self._layout)
        recovered = 0
        for path in self._layout.claimed.iterdir():
            name, _, worker = path.name.partition(".")
            if worker not in living and is_request_name(name):
                with suppress(FileNotFoundError):
                    durable.move(path, self._layout.submitted / name)
                    recovered += 1
        return recovered


def _answered(path: Path, place: Path, name: str) -> None:
    """Move the request at PATH to its day in PLACE, so that no directory grows for ever."""
    directory = place / request_day(name)
    durable.make_directory(directory, 0o750)
    durable.move(path, directory / name)


def anybody_alive(layout: Layout) -> bool:
    """Return whether any worker, on any host, works on the spool of LAYOUT."""
    return any(_alive(layout, worker) for worker in _workers(layout))


def _workers(layout: Layout) -> list[str]:
    found = (_LOCK.fullmatch(name) for name in os.listdir(layout.locks))
    return [match["worker"] for match in found if match]


def _alive(layout: Layout, worker: str) -> bool:
    probe = lock(_lock_path(layout, worker))
    if not try_lock(probe):
        return True
    probe.release()
    return False


def _bury_if_dead(layout: Layout, worker: str) -> None:
    probe = lock(_lock_path(layout, worker))
    if try_lock(probe):
        # Removed while we hold it, so that a worker just coming to life notices.
        _lock_path(layout, worker).unlink(missing_ok=True)
        probe.release()


def try_lock(probe: FileLock) -> bool:
    """Take the lock PROBE; return whether it was free.  BadConfig if there are no locks here."""
    try:
        probe.acquire(blocking=False)
    except Timeout:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        raise BadConfig(
            f"the store's filesystem has no locks: {error.strerror}",
            hint="mount it with flock (Lustre: -o flock; NFS v3: start statd)",
        ) from error
    return True


def _lock_path(layout: Layout, worker: str) -> Path:
    return layout.locks / f"worker.{worker}.lock"
