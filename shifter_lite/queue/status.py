"""Tell the owner of a request how it stands.

``status/NAME/`` is made by the client, ``2770`` with the worker's group: its
owner reads, the worker writes, nobody else enters.  Each status is a file of its
own, ``NNNNNN.json``, the highest is the newest, and readers list the directory:
no name is ever looked for before it is there.
"""

from __future__ import annotations

import os
import re
import stat
import time
from contextlib import suppress
from pathlib import Path

from shifter_lite.errors import Damaged
from shifter_lite.layout import Layout
from shifter_lite.request import Status

_NAME = re.compile(r"[0-9]{6}\.json")
_CANCEL = "cancel"
_KEEP = 2
_LARGEST = 65536


class Reporter:
    """Writes the statuses of one request, as its owner's directory allows."""

    def __init__(self, layout: Layout, name: str, uid: int) -> None:
        """Report on the request NAME of UID; silently nowhere, if its directory is not UID's."""
        self._number = 0
        self._silent = False
        self._fd = _open_owned(layout.status / name, uid)
        if self._fd is not None:
            self._number = max((int(n[:6]) for n in _listed(self._fd)), default=0)

    def __call__(self, status: Status) -> None:
        """Make STATUS the newest.

        Room may be short, and the owner may have removed the directory: the
        request goes on all the same.
        """
        if self._fd is None or self._silent:
            return
        self._number += 1
        name, hidden = f"{self._number:06d}.json", f".{self._number:06d}.{os.urandom(4).hex()}"
        with suppress(OSError):
            try:
                _write_at(self._fd, hidden, status.to_bytes())
                self._give(hidden, name)
            finally:
                os.unlink(hidden, dir_fd=self._fd)
            if self._number > _KEEP:
                os.unlink(f"{self._number - _KEEP:06d}.json", dir_fd=self._fd)

    def _give(self, hidden: str, name: str) -> None:
        try:
            # Exclusive, as rename is not: nobody's last word is ever overwritten.
            os.link(hidden, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except FileExistsError:
            # Somebody else reports on this request, who took us for dead, or its owner does.
            self._silent = True

    def newest(self) -> Status | None:
        """Return the newest status, perhaps of a worker before us; None if there is none."""
        if self._fd is None:
            return None
        for name in sorted(_listed(self._fd), reverse=True):
            with suppress(OSError, Damaged):
                return Status.from_bytes(_read_at(self._fd, name))
        return None

    def cancelled(self) -> bool:
        """Return whether the owner does not want it any more: there is a file ``cancel``."""
        if self._fd is None:
            return False
        try:
            return _CANCEL in os.listdir(self._fd)
        except OSError:
            return False

    def close(self) -> None:
        """Report no more."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


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


def forget(layout: Layout, name: str) -> None:
    """Remove the statuses of the request NAME; its owner has read them."""
    directory = layout.status / name
    with suppress(FileNotFoundError):
        for number in os.listdir(directory):
            # The worker removes old ones itself.
            (directory / number).unlink(missing_ok=True)
        directory.rmdir()


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
    return [name for name in os.listdir(directory) if _NAME.fullmatch(name)]


def _write_at(directory: int, name: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    fd = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        # The directory is what keeps others out; its owner is not the worker.
        os.fchmod(fd, 0o644)
        os.write(fd, data)
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
