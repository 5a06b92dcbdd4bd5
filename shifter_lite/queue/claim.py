"""Claim requests, so that each is worked on by one worker at a time.

A request is a file.  Its directory is its state::

    tmp/NAME             the client is still writing it       not ours
    new/NAME             submitted                            claim it
    work/NAME.WORKER     claimed by WORKER                    leave it alone while WORKER lives
    done/DAY/NAME        answered with an image
    failed/DAY/NAME      answered with a reason

Claiming is rename(2) from ``new/`` to a name that nobody else would choose: with one
common target several workers "win" on GlusterFS and MooseFS.  The losers see ENOENT or
ESTALE and go on.  No other module moves a file between these directories.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from shifter_lite import durable, lost_reply
from shifter_lite.errors import BadRequest
from shifter_lite.layout import Layout
from shifter_lite.queue import modes
from shifter_lite.queue.presence import Lost
from shifter_lite.request import Request, day, is_request_name, request_day, request_time

# No user has it: chown(2).
_NOBODY = -1
_LOST = (errno.ENOENT, errno.ESTALE)
# What was accepted may be answered some days later.
_EARLIEST = Request.AGE_LIMIT + 2 * 86400
_LATEST = 86400


@dataclass(frozen=True, slots=True)
class Claim:
    """One request that this worker, and nobody else, has to answer."""

    layout: Layout
    request: Request
    path: Path

    def done(self) -> Path:
        """Note that it was answered with an image; return the directory, for ``settle``.

        Raises Lost if it is ours no more, as ``failed`` and ``hand_back`` do.
        """
        return _answered(self.path, self.layout.done, self.request.name)

    def failed(self) -> Path:
        """Note that it was answered with a reason; return the directory, for ``settle``."""
        return _answered(self.path, self.layout.failed, self.request.name)

    def hand_back(self) -> None:
        """Let another worker have it."""
        _put_back(self.layout, self.path, self.request.name)


@dataclass(frozen=True, slots=True)
class Rejected:
    """What was in the spool and is no request, or not its owner's: why, and of whom.

    It is ``stuck`` if it cannot even be renamed, as long as its owner has something mounted there.
    """

    name: str
    uid: int
    error: BadRequest
    stuck: bool = False


def settle(layout: Layout, *answered: Path) -> None:
    """Make what was ANSWERED, directories that ``done`` and ``failed`` returned, last."""
    for directory in {*answered}:
        durable.sync_directory(directory)
    durable.sync_directory(layout.claimed)


def claim(
    layout: Layout, name: str, *, store: str, worker: str, now: float | None = None
) -> Claim | Rejected | None:
    """Claim the request NAME for WORKER; None if somebody else has it.

    What is no request of its owner's, in the spool of STORE, is rejected.  Raises OSError where
    the filesystem has trouble, so that nothing is known of the request.
    """
    path = layout.claimed / f"{name}.{worker}"
    if not is_request_name(name):
        return _put_away(layout, name)
    try:
        (layout.submitted / name).rename(path)
    except OSError as error:
        if error.errno in _LOST:
            # The answer to a rename that was done may get lost.
            if not lost_reply.is_there(path):
                return None
        elif _is_immovable(layout.submitted / name):
            return _quarantine(layout, name, _immovable(name, error))
        else:
            raise
    try:
        return Claim(layout, _read(layout, path, name, store, now), path)
    except BadRequest as error:
        return _reject(layout, path, name, error)


def look(layout: Layout, name: str, *, store: str, now: float | None = None) -> Request:
    """Return the request NAME that waits in the spool of STORE; raises BadRequest or OSError.

    NOW is the time by the store's clock, if that is known.
    """
    return _read_at(layout.submitted / name, name, store, now)


def look_at_claim(layout: Layout, name: str, worker: str, *, store: str) -> Request:
    """Return the request NAME that WORKER has claimed; raises BadRequest or OSError."""
    # It was young enough when it was claimed.
    return _read_at(layout.claimed / f"{name}.{worker}", name, store, request_time(name))


def _read(layout: Layout, path: Path, name: str, store: str, now: float | None) -> Request:
    if was_answered(layout, name):
        raise BadRequest(f"the request {name!r} was answered before")
    return _read_at(path, name, store, now)


def _read_at(path: Path, name: str, store: str, now: float | None) -> Request:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if not _is_unreadable(path):
            raise
        raise BadRequest(f"the request {name!r} cannot be read: {error.strerror}") from error
    try:
        return Request.read(fd, name=name, store=store, now=time.time() if now is None else now)
    finally:
        os.close(fd)


def _reject(layout: Layout, path: Path, name: str, error: BadRequest) -> Rejected:
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode):
        _set_aside(path)
    elif was_answered(layout, name):
        path.unlink()
    else:
        _answered(path, layout.failed, name)
    return Rejected(name, status.st_uid, error)


def _set_aside(path: Path) -> None:
    """Give PATH a name with a dot where it is.

    Another's directory is moved elsewhere or emptied only as long as he lets us.
    """
    path.rename(path.with_name(f".rejected.{os.urandom(8).hex()}"))


def _put_away(layout: Layout, name: str) -> Rejected | None:
    """Reject what has a name that no request has."""
    found = layout.submitted / name
    bad = BadRequest(f"not a request's name: {name!r}")
    try:
        status = found.lstat()
        if stat.S_ISDIR(status.st_mode):
            return _quarantine(layout, name, bad)
        now, uid = int(time.time()), status.st_uid
        _answered(found, layout.failed, f"{now}-{uid}-{os.urandom(8).hex()}")
    except (FileNotFoundError, Lost):
        return None
    except OSError as error:
        if not _is_immovable(found):
            raise
        return _quarantine(layout, name, _immovable(name, error))
    return Rejected(name, uid, bad)


def _immovable(name: str, error: OSError) -> BadRequest:
    return BadRequest(f"the request {name!r} cannot be moved: {error.strerror}")


def _quarantine(layout: Layout, name: str, bad: BadRequest) -> Rejected | None:
    """Get out of the way what cannot be moved elsewhere: a directory of somebody else's."""
    found, uid = layout.submitted / name, _NOBODY
    try:
        uid = found.lstat().st_uid
    except FileNotFoundError:
        return None
    except OSError:
        # A mount of its owner's is nobody else's to look at.
        if not modes.is_mounted(found):
            raise
    try:
        _set_aside(found)
    except OSError:
        if not modes.is_mounted(found):
            raise
        return Rejected(name, uid, bad, stuck=True)
    return Rejected(name, uid, bad)


def _is_immovable(path: Path) -> bool:
    """Return whether the owner of PATH has made it what we cannot move: looked at, not guessed.

    What an error of rename(2) says may be the filesystem's affair as well, and pass.
    """
    if modes.is_mounted(path):
        return True
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _is_unreadable(path: Path) -> bool:
    """Return whether the owner of PATH has made it what we cannot read."""
    if modes.is_mounted(path):
        return True
    try:
        status = path.lstat()
    except OSError:
        return False
    return not stat.S_ISREG(status.st_mode) or not modes.allows(status, modes.READ)


def was_done(layout: Layout, name: str) -> bool:
    """Return whether the request NAME was answered with an image."""
    return (layout.done / _day(name) / name).exists()


def was_answered(layout: Layout, name: str) -> bool:
    """Return whether the request NAME was answered."""
    return any((place / _day(name) / name).exists() for place in (layout.done, layout.failed))


def _answered(path: Path, place: Path, name: str) -> Path:
    """Move the request at PATH to its day in PLACE, so that no directory grows for ever."""
    directory = place / _day(name)
    target = directory / name
    try:
        _move(path, target)
    except Lost:
        # The first of its day, or one of several: whoever makes the directory may be another.
        durable.make_directory(directory, 0o750)
        _move(path, target)
    return directory


def _move(path: Path, target: Path) -> None:
    try:
        lost_reply.rename(path, target)
    except FileNotFoundError as error:
        raise Lost(str(path)) from error


def _put_back(layout: Layout, path: Path, name: str) -> None:
    """Move the claim at PATH back to the submitted requests; raises Lost if it is not there."""
    target = layout.submitted / name
    try:
        _move(path, target)
    except OSError:
        # Anybody can make a directory of that name meanwhile: that must hold up nobody.
        if not _is_immovable(target):
            raise
        try:
            _set_aside(target)
        except OSError:
            if not modes.is_mounted(target):
                raise
            # Who asked hears that the answer was lost.
            _answered(path, layout.failed, name)
        else:
            _move(path, target)


def claimed(layout: Layout) -> list[tuple[str, str]]:
    """Return the name and the worker of every claim."""
    split = (name.partition(".") for name in os.listdir(layout.claimed))
    return [(name, worker) for name, _, worker in split if is_request_name(name)]


def return_claim(layout: Layout, name: str, worker: str) -> bool:
    """Put back the request NAME of WORKER, which is dead; return False if it is back."""
    path = layout.claimed / f"{name}.{worker}"
    try:
        _put_back(layout, path, name)
    except Lost:
        return False
    except OSError:
        if not path.is_dir():
            raise
        _set_aside(path)
        return False
    return True


def _day(name: str) -> str:
    """Return the day of the request NAME; today's, if no request of that day is accepted.

    Else everybody could fill the store with days that never come.
    """
    now = time.time()
    made = request_day(name)
    return made if day(now - _EARLIEST) <= made <= day(now + _LATEST) else day(now)
