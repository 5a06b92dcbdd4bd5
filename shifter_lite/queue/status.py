"""Tell the owner of a request how it stands, and let him say that he wants it no more.

``status/NAME/`` is made by the client, ``2770`` with the worker's group: its
owner reads, the worker writes, nobody else enters.  Each status is a file of its
own, ``NNNNNN.json``, the highest is the newest; the owner's file ``cancel`` asks
the worker to stop.  All who look list the directory, opened by its name each time:
NFS remembers that a name was missing, and what a directory held that stays open.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from shifter_lite import durable
from shifter_lite.errors import Damaged
from shifter_lite.layout import Layout
from shifter_lite.queue import modes
from shifter_lite.request import Status
from shifter_lite.transient import TRANSIENT, waited_out

CANCEL = "cancel"
CANCELLED = Status(state="CANCELLED")
CANCELLED_FOR_THEM = Status(
    state="CANCELLED", fact="the request was cancelled by the administrator of the store"
)
_NAME = re.compile(r"[0-9]{6}\.json")
_KEEP = 2
_LARGEST = 65536
# What its owner puts beside them must not keep a worker busy.
_MOST_NAMES = 64
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
_LOOKS = 20
# For how many seconds a filesystem may say this of what was there, and mean it not: whoever waits
# for a build can wait for a server.  GlusterFS says EACCES while one of its bricks is away.
_PASSING = dict.fromkeys(TRANSIENT | {errno.EACCES}, 60.0) | {errno.ENOENT: 2.0}


class Reporter:
    """Writes the statuses of one request, as its owner's directory allows.

    The directory is opened anew each time: a worker may have a thousand requests, but few files
    open.
    """

    def __init__(self, layout: Layout, name: str, uid: int) -> None:
        """Report on the request NAME of UID; silently nowhere, if its directory is not UID's."""
        self._path, self._uid = layout.status / name, uid
        self._silent = self._closed = False
        # Whether somebody else has reported meanwhile, so that what we say is not the last word.
        self.overtaken = False
        self._number = 0
        # Once: what another says later, who took us for dead, is not ours to go on with.
        with suppress(OSError), _opened(self._path, self._uid) as fd:
            self._number = _highest(fd)

    def __call__(self, status: Status) -> bool:
        """Make STATUS the newest; return False if the filesystem does not let us.

        The owner may have removed the directory, or closed it to us, and another may have told
        the end: then there is nothing to tell.
        """
        if self._closed or (self._silent and not status.ended):
            return True
        try:
            with _opened(self._path, self._uid) as fd:
                if status.ended:
                    self._end(fd, status)
                else:
                    self._write(fd, status)
        except OSError:
            return self._is_shut()
        return True

    def _is_shut(self) -> bool:
        """Return whether the owner has made of the directory what we cannot write to."""
        if modes.is_mounted(self._path):
            return True
        try:
            found = self._path.lstat()
        except OSError as error:
            return error.errno == errno.ENOENT
        open_to_us = modes.allows(found, modes.READ | modes.WRITE | modes.ENTER)
        return found.st_uid != self._uid or not stat.S_ISDIR(found.st_mode) or not open_to_us

    def _end(self, fd: int, status: Status) -> None:
        """Tell STATUS, the end, unless another has told one."""
        for _ in range(_LOOKS):
            if self._has_ended_meanwhile(fd):
                return
            try:
                told = self._write(fd, status)
            except OSError:
                # Who waits must not do so for ever: what is older may leave room.
                self._make_room(fd)
                told = self._write(fd, status)
            if told:
                return
        # Its owner has filled it with what looks like statuses: then nothing more can be done.

    def _has_ended_meanwhile(self, fd: int) -> bool:
        """Count on from what another has said meanwhile; return whether that was the end.

        Else one who wakes up too late, and says that he is at work, would have the last word.
        """
        highest = _highest(fd)
        if highest <= self._number:
            return False
        self._number, self.overtaken = highest, True
        with suppress(Damaged):
            newest = _newest(fd)
            return newest is not None and newest.ended
        return False

    def _write(self, fd: int, status: Status) -> bool:
        """Make STATUS the next; return False if there is one of that number."""
        self._number += 1
        name = f"{self._number:06d}.json"
        hidden = durable.unfinished_name(Path(name), os.urandom(4).hex()).name
        try:
            _write_at(fd, hidden, status.to_bytes(), last=status.ended)
            # Exclusive, as rename is not: nobody's last word is ever overwritten.  And never to
            # what its owner may have made ours a symbolic link to.
            os.link(hidden, name, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
        except FileExistsError:
            if not _is_same(fd, hidden, name):
                # Somebody else reports on this request, who took us for dead, or its owner does.
                self._silent = self.overtaken = True
                self._number -= 1
                return False
        finally:
            with suppress(OSError):
                os.unlink(hidden, dir_fd=fd)
        if self._number > _KEEP:
            with suppress(OSError):
                os.unlink(f"{self._number - _KEEP:06d}.json", dir_fd=fd)
        return True

    def _make_room(self, fd: int) -> None:
        with suppress(OSError):
            for name in _statuses(fd):
                os.unlink(name, dir_fd=fd)

    def newest(self) -> Status | None:
        """Return the newest status, perhaps of a worker before us; None if there is none."""
        with suppress(OSError, Damaged), _opened(self._path, self._uid) as fd:
            return _newest(fd)
        return None

    def cancelled(self) -> Status | None:
        """Return how the request ends if its owner, or an administrator, has asked to stop.

        Any thread may call this, at any time.
        """
        with suppress(OSError), _opened(self._path, self._uid) as fd:
            if CANCEL in _names(fd):
                asked_by = os.stat(CANCEL, dir_fd=fd, follow_symlinks=False).st_uid
                return CANCELLED if asked_by == self._uid else CANCELLED_FOR_THEM
        return None

    def close(self) -> None:
        """Report no more."""
        self._closed = True


def read(layout: Layout, name: str, uid: int | None = None) -> Status:
    """Return the newest status of the request NAME of UID, by default ours; PENDING without any.

    One that is cut off, as a power loss leaves it, is none.  Raises Damaged, FileNotFoundError
    if there is no such request, or PermissionError if it is somebody else's.
    """
    for _ in range(_LOOKS):
        # What was just listed may be gone: newer ones have come.
        with suppress(FileNotFoundError):
            return waited_out(lambda: _read(layout.status / name, uid))
    return _read(layout.status / name, uid)


def _read(path: Path, uid: int | None) -> Status:
    with _opened(path, os.geteuid() if uid is None else uid) as fd:
        return _newest(fd) or Status(state="PENDING")


def follow(layout: Layout, name: str, *, seen: bool = False) -> Iterator[Status]:
    """Yield the newest status of our request NAME, again and again, the last when it has ended.

    Pauses grow with the time that is waited.  What the filesystem says is borne for a
    while, if it may pass; raises what ``read`` raises otherwise.  Of a request that was never
    SEEN, the first error is believed.
    """
    started = well = time.monotonic()
    while True:
        try:
            status = read(layout, name)
        except OSError as error:
            patience = _PASSING.get(error.errno or 0, 0.0)
            # Of what was never there, there is nothing to wait for.
            absent = error.errno in (errno.ENOENT, errno.EACCES) and not seen
            if absent or time.monotonic() - well > patience:
                raise
        else:
            seen, well = True, time.monotonic()
            yield status
            if status.ended:
                return
        waited = (time.monotonic() - started) / 10
        time.sleep(min(max(waited, _SHORTEST_PAUSE), _LONGEST_PAUSE))


def ask_to_stop(layout: Layout, name: str, uid: int | None = None) -> None:
    """Tell the worker that has the request NAME of UID, by default ours, that nobody wants it.

    Raises what ``read`` does.
    """
    owner = os.geteuid() if uid is None else uid

    def ask() -> None:
        with _opened(layout.status / name, owner) as fd, suppress(FileExistsError):
            _write_at(fd, CANCEL, b"", last=False)

    waited_out(ask)


def forget(layout: Layout, name: str, until: float = float("inf")) -> None:
    """Remove the statuses of the request NAME: its owner has read them, or never will.

    What is not removed UNTIL the monotonic clock says so stays for another time.  Raises OSError
    if there is more in the way than files.
    """
    for left in reversed(range(_LOOKS)):
        try:
            waited_out(lambda: _forget(layout.status / name, until))
        except OSError as error:
            # A worker that sweeps saw no answer any more, and took it for lost.
            filled = error.errno in (errno.ENOTEMPTY, errno.EEXIST)
            if not filled or not left or time.monotonic() > until:
                raise
        else:
            return


def _forget(path: Path, until: float) -> None:
    try:
        fd = _open(path)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        # Anybody may put anything there; what a link leads to is not ours to touch.
        path.unlink(missing_ok=True)
        return
    try:
        _empty(fd, until)
    finally:
        os.close(fd)
    with suppress(FileNotFoundError):
        path.rmdir()


def _empty(directory: int, until: float) -> None:
    with os.scandir(directory) as entries:
        for entry in entries:
            if time.monotonic() > until:
                return
            # The worker removes old ones itself.
            with suppress(FileNotFoundError):
                os.unlink(entry.name, dir_fd=directory)


def _is_same(directory: int, name: str, other: str) -> bool:
    """Return whether NAME and OTHER are one file: the answer to the link may have been lost."""
    try:
        one, two = (
            os.stat(each, dir_fd=directory, follow_symlinks=False) for each in (name, other)
        )
    except FileNotFoundError:
        return False
    return os.path.samestat(one, two)


@contextmanager
def _opened(path: Path, uid: int) -> Iterator[int]:
    fd = _open_owned(path, uid)
    try:
        yield fd
    finally:
        os.close(fd)


def _open_owned(path: Path, uid: int) -> int:
    fd = _open(path)
    if os.fstat(fd).st_uid != uid:
        os.close(fd)
        raise PermissionError(errno.EACCES, "it is somebody else's", str(path))
    return fd


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK)


def _names(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in islice(entries, _MOST_NAMES)]


def _statuses(directory: int) -> list[str]:
    return sorted(filter(_NAME.fullmatch, _names(directory)), reverse=True)


def _highest(directory: int) -> int:
    return max((int(name[:6]) for name in _statuses(directory)), default=0)


def _newest(directory: int) -> Status | None:
    """Return the newest status in DIRECTORY; raises OSError if one that was listed is gone."""
    for name in _statuses(directory):
        data = _read_at(directory, name)
        # Without having been synced, a file comes out of a power loss empty, cut off, or as zeros.
        if data.endswith(b"}\n"):
            return Status.from_bytes(data)
    return None


def _write_at(directory: int, name: str, data: bytes, *, last: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    fd = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        # The directory is what keeps others out; its owner is not the worker.
        os.fchmod(fd, 0o644)
        while data:
            data = data[os.write(fd, data) :]
        if last:
            # No other comes after it, not even after a power loss: the request is answered.
            os.fsync(fd)
    except OSError:
        with suppress(OSError):
            os.unlink(name, dir_fd=directory)
        raise
    finally:
        os.close(fd)


def _read_at(directory: int, name: str) -> bytes:
    """Return what NAME holds; nothing, if its owner has made it what cannot be read."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(name, flags, dir_fd=directory)
    except OSError:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode) and modes.allows(found, modes.READ):
            raise
        return b""
    try:
        return os.read(fd, _LARGEST) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)
