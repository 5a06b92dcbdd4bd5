"""Tell the owner of a request how it stands.

``status/NAME/`` is made by the client, ``2770`` with the worker's group: its
owner reads, the worker writes, nobody else enters.  Each status is a file of its
own, ``NNNNNN.json``, the highest is the newest, and readers list the directory:
no name is ever looked for before it is there.
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

from shifter_lite.errors import Damaged
from shifter_lite.layout import Layout
from shifter_lite.request import Status

_NAME = re.compile(r"[0-9]{6}\.json")
_CANCEL = "cancel"
_KEEP = 2
_LARGEST = 65536
# A directory of statuses holds some four names.
_MOST = 100


class Reporter:
    """Writes the statuses of one request, as its owner's directory allows.

    The directory is opened anew each time: a worker may have thousands of requests, but few files
    open.
    """

    def __init__(self, layout: Layout, name: str, uid: int) -> None:
        """Report on the request NAME of UID; silently nowhere, if its directory is not UID's."""
        self._path, self._uid = layout.status / name, uid
        self._silent = False
        self._number = 0
        with self._opened() as fd, suppress(OSError):
            if fd is not None:
                # Once: what another says later, who took us for dead, is not ours to go on with.
                self._number = max((int(n[:6]) for n in _listed(fd)), default=0)

    def __call__(self, status: Status) -> None:
        """Make STATUS the newest.

        Room may be short, and the owner may have removed the directory: the
        request goes on all the same.
        """
        with self._opened() as fd, suppress(OSError):
            if fd is None:
                return
            self._number += 1
            self._give(fd, status.to_bytes())
            if self._number > _KEEP:
                os.unlink(f"{self._number - _KEEP:06d}.json", dir_fd=fd)

    def _give(self, fd: int, data: bytes) -> None:
        name, hidden = f"{self._number:06d}.json", f".{self._number:06d}.{os.urandom(4).hex()}"
        try:
            _write_at(fd, hidden, data)
            # Exclusive, as rename is not: nobody's last word is ever overwritten.  And never to
            # what its owner may have made ours a symbolic link to.
            os.link(hidden, name, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
        except FileExistsError:
            # Somebody else reports on this request, who took us for dead, or its owner does.
            self._silent = True
        finally:
            os.unlink(hidden, dir_fd=fd)

    def newest(self) -> Status | None:
        """Return the newest status, perhaps of a worker before us; None if there is none."""
        with self._opened() as fd, suppress(OSError):
            if fd is None:
                return None
            for name in sorted(_listed(fd), reverse=True):
                with suppress(OSError, Damaged):
                    return Status.from_bytes(_read_at(fd, name))
        return None

    def cancelled(self) -> bool:
        """Return whether the owner does not want it any more: there is a file ``cancel``."""
        with self._opened() as fd, suppress(OSError):
            return fd is not None and _CANCEL in _names(fd)
        return False

    def close(self) -> None:
        """Report no more."""
        self._silent = True

    @contextmanager
    def _opened(self) -> Iterator[int | None]:
        """Yield the directory, open; None if nothing can or shall be said there."""
        fd = None if self._silent else _open_owned(self._path, self._uid)
        try:
            yield fd
        finally:
            if fd is not None:
                os.close(fd)


def read(layout: Layout, name: str) -> Status:
    """Return the newest status of the request NAME; PENDING if there is none.

    Raises Damaged, or FileNotFoundError if there is no such request.
    """
    directory = layout.status / name
    for number in sorted(_listed(directory), reverse=True):
        # The one just listed may be gone: a newer has come.
        with suppress(FileNotFoundError):
            return Status.from_bytes(_read(directory / number))
    return Status(state="PENDING")


def wait_for_change(layout: Layout, name: str, last: Status, *, pause: float) -> Status:
    """Return the newest status of NAME: at once if it is not LAST, else after PAUSE seconds."""
    now = read(layout, name)
    if now == last:
        time.sleep(pause)
        now = read(layout, name)
    return now


def forget(layout: Layout, name: str, until: float = float("inf")) -> None:
    """Remove the statuses of the request NAME: its owner has read them, or never will.

    What remains UNTIL the monotonic clock says so stays for another time.
    """
    directory = layout.status / name
    with suppress(FileNotFoundError):
        # Not by its path: its owner may put a link into its place, and what we remove is ours.
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            _empty(fd, until)
        finally:
            os.close(fd)
        directory.rmdir()


def _empty(directory: int, until: float) -> None:
    with os.scandir(directory) as entries:
        for entry in entries:
            if time.monotonic() > until:
                return
            # The worker removes old ones itself.
            with suppress(FileNotFoundError):
                os.unlink(entry.name, dir_fd=directory)


def _open_owned(path: Path, uid: int) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    status = os.fstat(fd)
    if status.st_uid != uid or not stat.S_ISDIR(status.st_mode):
        os.close(fd)
        return None
    return fd


def _listed(directory: int | Path) -> list[str]:
    return [name for name in _names(directory) if _NAME.fullmatch(name)]


def _names(directory: int | Path) -> list[str]:
    """Return what is in DIRECTORY; nothing if it holds more than we and its owner could mean.

    Else one user could have a worker list a million names, again and again.
    """
    with os.scandir(directory) as entries:
        names = [entry.name for entry in islice(entries, _MOST + 1)]
    return names if len(names) <= _MOST else []


def _write_at(directory: int, name: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    fd = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        # The directory is what keeps others out; its owner is not the worker.
        os.fchmod(fd, 0o644)
        if os.write(fd, data) != len(data):
            # A full disk takes what it can.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)


def _read_at(directory: int, name: str) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    try:
        return os.read(fd, _LARGEST)
    finally:
        os.close(fd)


def _read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        data = os.read(fd, _LARGEST)
    finally:
        os.close(fd)
    if not data:
        raise Damaged(f"a status is empty: {str(path)!r}")
    return data
