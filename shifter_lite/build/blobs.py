"""The cache of layers: each is downloaded once, checked while it comes, and read meanwhile.

A blob has its final name only when its size and digest were right.  Until then it is
``DIGEST.part``, which one worker at a time, the one that has the blob's lock, makes
longer; the next one that has the lock goes on where a killed one ended.  A worker that
brings a blob too slowly is not waited for: then the blob is brought once more, under a name
of one's own.  What the cache has counts only for a source that has shown that it has the same.

Nothing here is synced to disk: what a power loss leaves is found out, as every blob that
this very pull did not download is checked again while it is read.  ``Damaged`` is raised
then, and who brings the same again brings it anew.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from io import FileIO
from pathlib import Path
from threading import Condition, Event, Semaphore, Thread
from typing import Protocol

from shifter_lite import lost_reply
from shifter_lite.build.digest import digest_in
from shifter_lite.build.eviction import Abandoned as Abandoned
from shifter_lite.build.eviction import Lock as Lock
from shifter_lite.build.eviction import Room as Room
from shifter_lite.build.eviction import evict as evict
from shifter_lite.build.manifest import Descriptor
from shifter_lite.errors import BadImage, Damaged, RegistryBusy
from shifter_lite.transient import waited_out

_PIECE = 1 << 18
# Seconds that a thread which was told to stop has for it, before it is left behind.
_LAST_WORDS = 2.0
_PATIENCE = 0.1
# A blob that another worker brings is waited for as long as that many bytes a second come, ...
_LEAST_RATE_BYTES = 1 << 20
_RATE_SECONDS = 5.0
# ... and in all no longer than it would take at a good rate, and a little more.
_GOOD_RATE_BYTES = 8 << 20
_LONGEST_WAIT_SECONDS = 10.0
# What a source must know of a blob: so many bytes at a place that it cannot foresee.  Of some
# places the one is taken that is least like zeros, or like anything else that can be guessed.
_SAMPLE_BYTES = 1024
_SAMPLES = 8
_chance = random.SystemRandom()
_NO_LIMIT = 1 << 62
# How many blobs come at once that want room.
_AT_ONCE = 4
_ON_THE_WAY = "it was changed where it lies, or on the way: try again, or tell who keeps it"

Progress = Callable[[int], None]
# Reads up to so many bytes; none at the end.
Read = Callable[[int], bytes]


class Source(Protocol):
    """Where blobs come from, as ``registry.Registry``."""

    def blob(self, descriptor: Descriptor, start: int = 0) -> AbstractContextManager[Read]:
        """Open the blob of DESCRIPTOR, from byte START on."""

    def sample(self, descriptor: Descriptor, start: int, size: int) -> bytes:
        """Return SIZE bytes of the blob of DESCRIPTOR from START on, or fewer at its end."""

    def abort(self) -> None:
        """Let every read that is under way fail."""


class _News:
    """What those who bring layers tell those who read them; the first error is everybody's.

    ``unread`` are those that nobody has read yet, in the order in which they will be read, and
    ``ahead`` is how many bytes are brought of those that will still be read.
    """

    def __init__(self, limit: int) -> None:
        self.changed = Condition()
        self.error: BaseException | None = None
        self.unread: list[Blob] = []
        self._ahead, self._limit = 0, limit

    def begin(self, blob: Blob) -> None:
        """Wait until there is room for BLOB beside what else is brought; raises ``error``."""
        size = blob.layer.size
        with self.changed:
            # The one that is read next must come, however large it is.
            while self._ahead + size > self._limit and self.unread[:1] != [blob]:
                if self.error is not None:
                    raise self.error
                self.changed.wait()
            self._ahead += size

    def end(self, size: int) -> None:
        """Note that nobody reads a blob of SIZE bytes any more."""
        with self.changed:
            self._ahead -= size
            self.changed.notify_all()

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
        self.reads = 1
        self._begun = False
        self._is_own = False
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
            piece = self._read(min(_PIECE, end - at), at)
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

    def _read(self, size: int, at: int) -> bytes:
        assert self._file is not None
        return _pread(self._file, size, at)

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
            lost_reply.unlink(path)

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
                    lost_reply.unlink(self.part)

    def leave(self) -> None:
        """Say that it was read once more; let go of it if that was the last time."""
        self.reads -= 1
        with self._news.changed:
            if self in self._news.unread:
                self._news.unread.remove(self)
            self._news.changed.notify_all()
        if not self.reads:
            self.close()
            if self._begun:
                self._news.end(self.layer.size)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def bring(
        self, source: Source, lock: Lock, progress: Progress, stop: Event, room: Room
    ) -> None:
        """Bring the blob from SOURCE, unless it is here; tell PROGRESS of every piece's size.

        LOCK, STOP and ROOM are those of all blobs.
        """
        error: BaseException | None = None
        try:
            if not self._found(source, progress):
                self._news.begin(self)
                self._begun = True
                waited_out(lambda: self.path.parent.mkdir(exist_ok=True))
                self._bring_alone(source, lock, progress, stop, room)
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

    def _found(self, source: Source, progress: Progress) -> bool:
        """Take the blob from the cache, if it is there and SOURCE has it, too."""
        try:
            file = waited_out(lambda: FileIO(self.path))
        except FileNotFoundError:
            return False
        try:
            # From here on it does not matter that others may evict it.
            if not self._is_shown(file, source):
                file.close()
                return False
        except BaseException:
            file.close()
            raise
        self._file = file
        waited_out(lambda: os.utime(file.fileno()))
        self._come(self.layer.size, progress)
        return True

    def _is_shown(self, file: FileIO, source: Source) -> bool:
        """Return whether SOURCE shows that it has what is in FILE, and that it is the blob."""
        size = self.layer.size
        if waited_out(lambda: os.fstat(file.fileno())).st_size != size:
            return False
        start, sample = _sample(file, size)
        return source.sample(self.layer, start, len(sample)) == sample

    def _come(self, size: int, progress: Progress) -> None:
        with self._news.changed:
            self._available += size
            self._news.changed.notify_all()
        progress(size)

    def _bring_alone(
        self, source: Source, lock: Lock, progress: Progress, stop: Event, room: Room
    ) -> None:
        """Bring the blob unless another worker does; one that gets no further is not waited for."""
        try:
            taken = self._await(lock, stop)
        except Abandoned:
            # It may be stopped, or slow, or its host may be gone: then this is for ourselves.
            self.part = self.part.with_name(f".{self.part.name}.{self._mark}")
            self._is_own = True
            taken = nullcontext()
        with taken:
            # The worker that had the lock before may have brought it.
            if not self._found(source, progress):
                self.fresh = True
                self._download(source, progress, room)

    def _await(self, lock: Lock, stop: Event) -> AbstractContextManager[object]:
        """Take LOCK; raises Abandoned if it takes too long, or RegistryBusy on STOP."""
        begun = since = time.monotonic()
        size = self._part_size()
        longest = _LONGEST_WAIT_SECONDS + self.layer.size / _GOOD_RATE_BYTES
        while (taken := lock(self.layer.digest)) is None:
            if stop.wait(_PATIENCE):
                raise RegistryBusy("the download was given up", hint="pull again")
            now = time.monotonic()
            # The lock is others' as well: another worker may have brought it without.
            if now - begun > longest or waited_out(self.path.exists):
                raise Abandoned
            if now - since > _RATE_SECONDS:
                grown = self._part_size()
                if grown - size < _LEAST_RATE_BYTES * (now - since):
                    raise Abandoned
                size, since = grown, now
        return taken

    def _part_size(self) -> int:
        try:
            return waited_out(self.part.stat).st_size
        except FileNotFoundError:
            return 0

    def _download(self, source: Source, progress: Progress, room: Room) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._file = FileIO(waited_out(lambda: os.open(self.part, flags, 0o644)), "r+")
        left, due = self.layer.size, 0

        def come(size: int) -> None:
            nonlocal left, due
            left, due = left - size, due - size
            if due <= 0 < left:
                due = room.step
                room.make(min(left, due) * _AT_ONCE)
            self._come(size, progress)

        come(0)
        try:
            _Download(self.layer, self._file, come).run(source)
        except (BadImage, Damaged, OSError):
            # Of the last, the most likely is no room, which a part takes from others.
            lost_reply.discard(self.part)
            raise
        except BaseException:
            if self._is_own:
                lost_reply.discard(self.part)
            raise
        lost_reply.rename(self.part, self.path)


def _pread(file: FileIO, size: int, at: int) -> bytes:
    return waited_out(lambda: os.pread(file.fileno(), size, at))


def _sample(file: FileIO, size: int) -> tuple[int, bytes]:
    """Return a place in FILE, which has SIZE bytes, and what is there: hard to guess."""
    found, last = [], max(0, size - _SAMPLE_BYTES)
    for _ in range(_SAMPLES):
        start = _chance.randint(min(1, last), last)
        data = _pread(file, _SAMPLE_BYTES, start)
        found.append((len(zlib.compress(data)), start, data))
    _, start, data = max(found)
    return start, data


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
            fact = f"it has fewer than the {self._layer.size} bytes that it should have"
            raise BadImage(fact, hint=_ON_THE_WAY)
        if not self._right():
            if begun:
                raise Damaged(
                    f"the unfinished layer {self._layer.digest} was damaged and is dropped",
                    hint="pull again: it will be downloaded anew",
                )
            # Not which it has: it may be a secret of where a redirect led.
            raise BadImage("it has the wrong digest", hint=_ON_THE_WAY)

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


def _unique(layers: Sequence[Descriptor], cache: Path, mark: str, news: _News) -> dict[str, Blob]:
    """Return the blobs that LAYERS are, by digest; one may be several layers."""
    unique: dict[str, Blob] = {}
    for number, layer in enumerate(layers, 1):
        if layer.digest in unique:
            unique[layer.digest].reads += 1
        else:
            unique[layer.digest] = Blob(number, layer, cache, mark, news)
    news.unread = list(unique.values())
    return unique


@contextmanager
def fetching(
    layers: Sequence[Descriptor],
    source: Source,
    cache: Path,
    mark: str,
    lock: Lock,
    progress: Progress,
    at_once: int,
    limit: int = _NO_LIMIT,
) -> Iterator[list[Blob]]:
    """Yield LAYERS as blobs in the directory CACHE, which come from SOURCE while they are read.

    AT_ONCE are under way at a time.  PROGRESS is told of every piece's size in bytes.  Names of
    files that only this worker uses end with MARK.  The cache is kept within LIMIT bytes, and
    no more of them than that are brought ahead; but a larger layer comes all the same.
    """
    news, room = _News(limit), Room(cache, limit, lock)
    unique = _unique(layers, cache, mark, news)
    todo = list(reversed(unique.values()))
    stop = Event()
    ended = Semaphore(0)

    def work() -> None:
        with suppress(IndexError):
            while not stop.is_set():
                todo.pop().bring(source, lock, progress, stop, room)
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
