"""Keep the cache of layers within its limit; what was used longest ago goes first.

All that lies there counts: layers, their tables of contents, and what is unfinished.  Only the
order of the files' own times matters, and never a clock of ours, which may be another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock as Mutex

from shifter_lite import logs, lost_reply
from shifter_lite.transient import waited_out

# Takes what keeps others from the blob with this digest, or returns None if another has it;
# raises Abandoned if nobody who lives has it.
Lock = Callable[[str], AbstractContextManager[object] | None]

_SMALLEST_STEP_BYTES = 1 << 20
_LARGEST_STEP_BYTES = 64 << 20
_STEPS = 16


class Abandoned(Exception):
    """Something is locked by nobody who lives, or by a worker that gets no further with it."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the cache; SIZE counts its table of contents."""

    used: float
    size: int
    path: Path


class Room:
    """The room in the cache at PATH, which may have LIMIT bytes."""

    def __init__(self, path: Path, limit: int, lock: Lock | None = None) -> None:
        """Evict unfinished layers, too, if LOCK can say that no worker goes on with them."""
        self._path, self.limit, self._lock = path, limit, lock
        self._mutex = Mutex()

    @property
    def step(self) -> int:
        """How many bytes may come before it is time to make room for more."""
        step = min(self.limit // _STEPS, _LARGEST_STEP_BYTES)
        return max(step, _SMALLEST_STEP_BYTES)

    def make(self, size: int) -> None:
        """Evict until SIZE more bytes fit, as far as anything can be evicted."""
        # One of several threads that want room is enough: it makes the same room for all.
        with self._mutex:
            evict(self._path, self.limit - size, self._lock)


def evict(cache: Path, limit: int, lock: Lock | None = None) -> None:
    """Drop what was used longest ago until CACHE has at most LIMIT bytes; LOCK as in ``Room``.

    A table of contents counts with its layer; one without a layer is dropped.
    """
    files = []
    for file in _files(cache):
        if _is_alone(file.path):
            _remove_table(file.path)
        else:
            files.append(file)
    total = sum(file.size for file in files)
    for file in sorted(files, key=lambda each: each.used):
        if total <= limit:
            return
        try:
            if _drop(file.path, lock):
                total -= file.size
        except OSError as error:
            # Another account's: it must not be what a pull fails of.
            logs.warning("a cached layer cannot be removed", reason=error)


def used(cache: Path) -> int:
    """Return how many bytes CACHE has."""
    return sum(file.size for file in _files(cache))


def _files(cache: Path) -> Iterator[_File]:
    for path in waited_out(lambda: list(cache.glob("??/*"))):
        with suppress(FileNotFoundError):
            status = waited_out(path.stat)
            if not _is_table(path) or _is_alone(path):
                table = _size(path.with_suffix(".toc")) if not path.suffix else 0
                yield _File(status.st_mtime, status.st_size + table, path)


def _is_table(path: Path) -> bool:
    return path.suffix == ".toc" and not path.name.startswith(".")


def _is_alone(path: Path) -> bool:
    """Return whether PATH is a table of contents whose layer is gone."""
    return _is_table(path) and not waited_out(path.with_suffix("").exists)


def _remove_table(path: Path) -> None:
    try:
        lost_reply.unlink(path)
    except OSError as error:
        # Another account's, as above.
        logs.warning("a table of contents cannot be removed", reason=error)


def _drop(path: Path, lock: Lock | None) -> bool:
    """Remove what is at PATH; return whether that may be."""
    if path.name.startswith("."):
        # Of a worker that lives, or else for whoever buries it.
        return False
    if path.suffix != ".part":
        lost_reply.unlink(path.with_suffix(".toc"))
        lost_reply.unlink(path)
        return True
    with suppress(Abandoned):
        if lock and (taken := lock(f"sha256:{path.stem}")) is not None:
            with taken:
                lost_reply.unlink(path)
            return True
    return False


def _size(path: Path) -> int:
    try:
        return waited_out(path.stat).st_size
    except FileNotFoundError:
        return 0
