"""Open files on behalf of somebody else, and only what he could open himself.

A worker may read what the one who asks may not, and what a path means may change
while it is followed.  So each component is opened in turn, never through a symbolic
link, and judged by what fstat(2) says of the thing that is open: a directory must let
everybody pass or belong to who asks, a file must let everybody read or belong to him.
Nothing is opened to be read before it is known to be a plain file: no named pipe is
waited for, no device wakes up.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from types import TracebackType
from typing import Self

from shifter_lite.errors import BadImage, Denied, NotFound

# O_PATH, see open(2): it is there, and nothing has happened to it yet.
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_ALL_ENTER = stat.S_IXGRP | stat.S_IXOTH
_ALL_READ = stat.S_IRGRP | stat.S_IROTH
# Holes cost their owner nothing, and whoever reads them the same as data.
_LARGE = 1 << 30
_SPARSEST = 64

# Reads up to so many bytes; none at the end.
Read = Callable[[int], bytes]


class File:
    """A plain file, open to be read as it was when it was opened."""

    def __init__(self, fd: int, path: str) -> None:
        """Own FD, which is the file PATH."""
        self._fd = fd
        self.path = path
        self._state = _state(fd)
        self.size = self._state[0]

    def reader(self, start: int = 0) -> Read:
        """Return a function that reads on from START; at the end it does what ``check`` does."""
        at = start

        def read(size: int) -> bytes:
            nonlocal at
            data = os.pread(self._fd, max(0, min(size, self.size - at)), at)
            at += len(data)
            if not data:
                self.check()
            return data

        return read

    def check(self) -> None:
        """Raise BadImage if the file is not what it was when it was opened."""
        if _state(self._fd) != self._state:
            raise BadImage(
                f"{self.path!r} changed while it was read", hint="import it when it is complete"
            )

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


def _state(fd: int) -> tuple[int, int, int]:
    status = os.fstat(fd)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


class Place:
    """Something in the filesystem that UID wants read: found, and not yet opened."""

    def __init__(self, fd: int, path: str, uid: int) -> None:
        """Own FD, opened with O_PATH, which is PATH."""
        self._fd, self.path, self._uid = fd, path, uid
        self._status = os.fstat(fd)

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of it."""
        self.close()

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self._status.st_mode)

    def enter(self, name: str, *, directory: bool = False) -> Place:
        """Return NAME in this directory; with DIRECTORY it must be one.

        Raises NotFound, Denied or BadImage.
        """
        path = os.path.join(self.path, name)
        if not self.is_directory:
            raise BadImage(f"{self.path!r} is not a directory", hint="check the path")
        self._permit(_ALL_ENTER, "enter", "x")
        try:
            # With O_DIRECTORY an automounter mounts what belongs there.
            flags = _LOOK | (os.O_DIRECTORY if directory else 0)
            # As requests have names, whatever our locale.
            fd = os.open(name.encode(errors="surrogateescape"), flags, dir_fd=self._fd)
        except OSError as error:
            raise self._refusal(error, path) from error
        place = Place(fd, path, self._uid)
        if stat.S_ISLNK(place._status.st_mode):
            place.close()
            raise BadImage(f"{path!r} is a symbolic link", hint=_NO_LINKS)
        return place

    def _refusal(self, error: OSError, path: str) -> Exception:
        if isinstance(error, PermissionError):
            return _closed(self.path, "enter", "x")
        if isinstance(error, NotADirectoryError):
            return BadImage(f"{path!r} is not a directory, or a symbolic link", hint=_NO_LINKS)
        if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
            return NotFound(
                f"there is no file {path!r}",
                hint="a site's worker must see it, too: put it on a shared filesystem",
            )
        return error

    def file(self) -> File:
        """Open the plain file that this is; raises Denied or BadImage."""
        if not stat.S_ISREG(self._status.st_mode):
            raise BadImage(f"{self.path!r} is not a plain file", hint="check the path")
        self._permit(_ALL_READ, "read", "r")
        self._refuse_holes()
        try:
            # This very inode, whatever its name means by now; see proc(5).
            return File(os.open(f"/proc/self/fd/{self._fd}", _READ), self.path)
        except PermissionError as error:
            raise _closed(self.path, "read", "r") from error

    def _permit(self, bits: int, what: str, letter: str) -> None:
        """Raise Denied unless who asks may do WHAT; of ourselves the kernel knows."""
        if self._uid in (os.geteuid(), self._status.st_uid):
            return
        if self._status.st_mode & bits != bits:
            raise Denied(
                f"{self.path!r} is another user's, and not everybody may {what} it",
                hint=f"its owner can change that: chmod go+{letter}",
            )

    def _refuse_holes(self) -> None:
        size, stored = self._status.st_size, self._status.st_blocks * 512
        # A filesystem that cannot say how much is stored says 0.
        if size > _LARGE and 0 < stored < size // _SPARSEST:
            raise BadImage(
                f"{self.path!r} is {size} bytes of holes, with {stored} bytes of data",
                hint="if it is on tape, read it first; else copy it: cp --sparse=never",
            )


_NO_LINKS = "imports do not follow links: put the thing itself there (cp -L), or name it"


def _closed(path: str, what: str, letter: str) -> Denied:
    return Denied(f"the worker may not {what} {path!r}", hint=f"let it: chmod a+{letter} {path!r}")


def walk(path: str, uid: int) -> Place:
    """Return what PATH, absolute and normal, is for UID; raises NotFound, Denied or BadImage."""
    place = Place(os.open("/", _LOOK), "/", uid)
    names = [name for name in path.split("/") if name]
    for number, name in enumerate(names, 1):
        with place:
            place = place.enter(name, directory=number < len(names))
    return place
