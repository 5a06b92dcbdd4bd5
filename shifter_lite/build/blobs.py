"""The cache of layers: each is downloaded once, checked while it comes, and read meanwhile.

A blob has its final name only when its size and digest were right.  Until then it is
``DIGEST.part``, which one worker at a time, the one that has the blob's lock, makes
longer; whoever has the lock next goes on where a killed one ended.  Nothing here is
synced to disk: what a power loss leaves is found out, as every blob that this very
pull did not download is checked again while it is read.  ``Damaged`` is raised then,
and who brings the same again brings it anew.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from io import FileIO
from pathlib import Path
from threading import Condition, Event, Semaphore, Thread
from typing import Protocol

from shifter_lite.build.digest import digest_in
from shifter_lite.build.manifest import Descriptor
from shifter_lite.errors import BadImage, Damaged, RegistryBusy

_PIECE = 1 << 18
# Seconds that a thread which was told to stop has for it, before it is left behind.
_LAST_WORDS = 2.0
_PATIENCE = 0.1
# Seconds without a byte after which another worker is not waited for any more.
_LONGEST_STALL = 90.0
# Nobody comes back for what nobody has continued for a day.
_LONGEST_PART = 86400.0
_ON_THE_WAY = "it was changed where it lies, or on the way: try again, or tell who keeps it"

Progress = Callable[[int], None]
# Reads up to so many bytes; none at the end.
Read = Callable[[int], bytes]
# Takes what keeps others from the blob with this digest, or returns None if another has it;
# raises Abandoned if nobody who lives has it.
Lock = Callable[[str], AbstractContextManager[object] | None]


class Abandoned(Exception):
    """Something is locked by nobody who lives: a node that hangs keeps its locks."""


class Source(Protocol):
    """Where blobs come from, as ``registry.Registry``."""

    def blob(self, descriptor: Descriptor, start: int = 0) -> AbstractContextManager[Read]:
        """Open the blob of DESCRIPTOR, from byte START on."""

    def abort(self) -> None:
        """Let every read that is under way fail."""


class _News:
    """What those who bring layers tell those who read them; the first error is everybody's."""

    def __init__(self) -> None:
        self.changed = Condition()
        self.error: BaseException | None = None

    def fail(self, error: BaseException | None) -> None:
        """Note ERROR, unless there is one already."""
        with self.changed:
            self.error = self.error or error
            self.changed.notify_all()


class Blob:
    """One layer in the cache, or on its way there.

    ``number`` counts from 1, lowest first; ``fresh`` is whether this pull brought it;
    ``over`` whether it is there, or never will be.
    """

    def __init__(self, number: int, layer: Descriptor, cache: Path, mark: str, news: _News) -> None:
        """Make what stands for LAYER of the image; nothing is read."""
        name = layer.digest.removeprefix("sha256:")
        self.number = number
        self.layer = layer
        self.path = cache / name[:2] / name
        self.toc = self.path.with_suffix(".toc")
        self.part = self.path.with_suffix(".part")
        self.fresh = False
        self._file: FileIO | None = None
        self._available = 0
        self.over = False
        self._mark = mark
        self._news = news

    def pieces(self) -> Iterator[bytes]:
        """Yield the blob's bytes, as they come.

        The last is yielded only once all were right; raises what bringing them raised, and Damaged
        if the cache has spoiled them.
        """
        hashed = hashlib.sha256()
        at = 0
        while (end := self._wait(at)) > at:
            assert self._file is not None
            piece = os.pread(self._file.fileno(), min(_PIECE, end - at), at)
            if not piece:
                raise self.spoilt()
            at += len(piece)
            if not self.fresh:
                hashed.update(piece)
                if at == self.layer.size and self.layer.digest != digest_in(hashed):
                    raise self.spoilt()
            elif at == self.layer.size:
                self.check()
            yield piece
        self.check()

    def check(self) -> None:
        """Wait until the blob is there; raises what bringing it, or another, raised."""
        news = self._news
        with news.changed:
            while not self.over and news.error is None:
                news.changed.wait()
            if news.error is not None:
                raise news.error

    def judge(self) -> None:
        """Raise what is wrong with the blob itself, if anything, once its content looks wrong."""
        self.check()
        if not self.fresh:
            # Not by its name, which others may have evicted meanwhile.
            assert self._file is not None
            self._file.seek(0)
            found = hashlib.file_digest(self._file, "sha256")
            if self.layer.digest != digest_in(found):
                raise self.spoilt()

    def spoilt(self) -> Damaged:
        """Drop the blob from the cache; return the error that says so."""
        self.remove()
        return Damaged(
            f"the cached layer {self.layer.digest} was damaged and is dropped",
            hint="pull again: it will be downloaded anew",
        )

    def remove(self) -> None:
        """Drop the blob from the cache; a part of it is for whoever has its lock."""
        for path in (self.toc, self.path):
            path.unlink(missing_ok=True)

    def give_up(self, lock: Lock) -> None:
        """Drop the blob from the cache, and its part unless another worker has its LOCK."""
        self.remove()
        self._drop_part(lock)

    def distrust(self, lock: Lock) -> None:
        """Drop what the cache has of the blob, unless it is whole and right; LOCK as above."""
        if not self.fresh and not self._is_right():
            self.remove()
        self._drop_part(lock)

    def _is_right(self) -> bool:
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            return self.layer.digest == digest_in(hashlib.file_digest(file, "sha256"))
        return False

    def _drop_part(self, lock: Lock) -> None:
        with suppress(Abandoned):
            if (taken := lock(self.layer.digest)) is not None:
                with taken:
                    self.part.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def bring(self, source: Source, lock: Lock, progress: Progress, stop: Event) -> None:
        """Bring the blob from SOURCE, unless it is here; tell PROGRESS of every piece's size."""
        error: BaseException | None = None
        try:
            if not self._found(progress):
                self.path.parent.mkdir(exist_ok=True)
                self._bring_alone(source, lock, progress, stop)
        except BadImage as bad:
            error = BadImage(f"layer {self.number} ({self.layer.digest}): {bad}", hint=bad.hint)
            error.__cause__ = bad
        except BaseException as other:  # noqa: BLE001  # raised again by who reads
            error = other
        # At once: who sees that it is over must see why.
        with self._news.changed:
            self.over = True
            self._news.fail(error)

    def _wait(self, at: int) -> int:
        """Return how many bytes are there, more than AT unless there will be none."""
        news = self._news
        with news.changed:
            while self._available <= at and not self.over and news.error is None:
                news.changed.wait()
            if news.error is not None:
                raise news.error
            return self._available

    def _found(self, progress: Progress) -> bool:
        """Take the blob from the cache, if it is there; note that it is used."""
        try:
            file = FileIO(self.path)
        except FileNotFoundError:
            return False
        # From here on it does not matter that others may evict it.
        if os.fstat(file.fileno()).st_size != self.layer.size:
            file.close()
            return False
        self._file = file
        os.utime(file.fileno())
        self._come(self.layer.size, progress)
        return True

    def _come(self, size: int, progress: Progress) -> None:
        with self._news.changed:
            self._available += size
            self._news.changed.notify_all()
        progress(size)

    def _bring_alone(self, source: Source, lock: Lock, progress: Progress, stop: Event) -> None:
        """Bring the blob unless another worker does; who gets no further is not waited for."""
        try:
            taken = self._await(lock, stop)
        except Abandoned:
            # It may be stopped, or its host may be gone: then this is for ourselves.
            self.part = self.part.with_name(f".{self.part.name}.{self._mark}")
            taken = nullcontext()
        with taken:
            # Whoever had the lock before may have brought it.
            if not self._found(progress):
                self.fresh = True
                self._download(source, progress)

    def _await(self, lock: Lock, stop: Event) -> AbstractContextManager[object]:
        """Take LOCK; raises Abandoned if who has it gets no further, or RegistryBusy on STOP."""
        size, since = -1, time.monotonic()
        while (taken := lock(self.layer.digest)) is None:
            if stop.wait(_PATIENCE):
                raise RegistryBusy("the download was given up", hint="pull again")
            with suppress(FileNotFoundError):
                now = self.part.stat().st_size
                if now != size:
                    size, since = now, time.monotonic()
            if time.monotonic() - since > _LONGEST_STALL:
                raise Abandoned
        return taken

    def _download(self, source: Source, progress: Progress) -> None:
        self._file = FileIO(os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+")
        try:
            _Download(self.layer, self._file, partial(self._come, progress=progress)).run(source)
        except (BadImage, Damaged, OSError):
            # Of the last, the most likely is no room, which a part takes from others.
            self.part.unlink(missing_ok=True)
            raise
        self.part.rename(self.path)


class _Download:
    """Makes one file hold a blob; what it already holds is taken for the blob's beginning."""

    def __init__(self, layer: Descriptor, file: FileIO, come: Progress) -> None:
        self._layer, self._file, self._come = layer, file, come
        self._hash = hashlib.sha256()
        self._size = 0

    def run(self, source: Source) -> None:
        """Bring the rest from SOURCE; raises BadImage if the whole is not the blob."""
        self._resume()
        # A whole that needs only its name came from a worker killed at the last moment.
        if self._size == self._layer.size and self._right():
            self._come(self._size)
            return
        begun = self._size
        if begun == self._layer.size:
            begun = 0
            self._restart()
        self._come(begun)
        with source.blob(self._layer, begun) as read:
            while data := read(_PIECE):
                self._take(data)
        if self._size != self._layer.size:
            fact = f"it has {self._size} bytes, not {self._layer.size}"
            raise BadImage(fact, hint=_ON_THE_WAY)
        if not self._right():
            if begun:
                raise Damaged(
                    f"the unfinished layer {self._layer.digest} was damaged and is dropped",
                    hint="pull again: it will be downloaded anew",
                )
            found = digest_in(self._hash)
            raise BadImage(f"it has the wrong digest: {found}", hint=_ON_THE_WAY)

    def _resume(self) -> None:
        if os.fstat(self._file.fileno()).st_size > self._layer.size:
            self._restart()
        while data := self._file.read(_PIECE):
            self._hash.update(data)
            self._size += len(data)

    def _restart(self) -> None:
        self._file.truncate(0)
        self._file.seek(0)
        self._hash = hashlib.sha256()
        self._size = 0

    def _right(self) -> bool:
        return digest_in(self._hash) == self._layer.digest

    def _take(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._layer.size:
            fact = f"it has more than the {self._layer.size} bytes that it should have"
            raise BadImage(fact, hint=_ON_THE_WAY)
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._come(len(data))


@contextmanager
def fetching(
    layers: Sequence[Descriptor],
    source: Source,
    cache: Path,
    mark: str,
    lock: Lock,
    progress: Progress,
    at_once: int,
) -> Iterator[list[Blob]]:
    """Yield LAYERS as blobs in the directory CACHE, which come from SOURCE while they are read.

    AT_ONCE are under way at a time.  PROGRESS is told of every piece's size in bytes.  Names of
    files that only this worker uses end with MARK.
    """
    news = _News()
    unique = {
        layer.digest: Blob(number, layer, cache, mark, news)
        for number, layer in enumerate(layers, 1)
    }
    todo = list(reversed(unique.values()))
    stop = Event()
    ended = Semaphore(0)

    def work() -> None:
        with suppress(IndexError):
            while not stop.is_set():
                todo.pop().bring(source, lock, progress, stop)
        ended.release()

    running = 0
    try:
        for _ in range(min(at_once, len(todo))):
            # Daemons: a thread that waits for a silent registry must not hold up the end.
            Thread(target=work, daemon=True).start()
            running += 1
        yield [unique[layer.digest] for layer in layers]
    finally:
        stop.set()
        if not all(blob.over for blob in unique.values()):
            source.abort()
            news.fail(RegistryBusy("the download was given up", hint="pull again"))
        # Not by Thread.join: CPython takes a thread for ended when a signal interrupts that.
        while running and ended.acquire(timeout=_LAST_WORDS):
            running -= 1
        if not running:
            for blob in unique.values():
                blob.close()


def evict(cache: Path, limit: int) -> None:
    """Drop the blobs least recently used until CACHE has at most LIMIT bytes.

    Tables of contents count with their blobs.  Those without one are dropped, and
    parts that nobody has continued for a day.
    """
    found = []
    now = time.time()
    for path in cache.glob("??/*"):
        with suppress(FileNotFoundError):
            status = path.stat()
            old = path.suffix == ".part" and status.st_mtime < now - _LONGEST_PART
            if old or (path.suffix == ".toc" and not path.with_suffix("").exists()):
                path.unlink()
            elif not path.suffix and not path.name.startswith("."):
                size = status.st_size + _size(path.with_suffix(".toc"))
                found.append((status.st_mtime, size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= limit:
            return
        path.with_suffix(".toc").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        total -= size


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
