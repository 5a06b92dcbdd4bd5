"""The cache of layers: each is downloaded once, checked while it streams, and indexed.

A blob has its final name only when its size and digest were right.  It is not
synced to disk: what a power loss leaves of it is found out, as every blob that
was not downloaded by this very pull is checked again while its data is read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Semaphore, Thread
from typing import Protocol

from shifter_lite import durable
from shifter_lite.build import tar, toc
from shifter_lite.build.ahead import ahead
from shifter_lite.build.inflate import inflate
from shifter_lite.build.manifest import Descriptor
from shifter_lite.errors import BadImage, Damaged

_AT_ONCE = 4
_PIECE = 1 << 18
# Seconds that a thread which was told to stop has for it, before it is left behind.
_LAST_WORDS = 2.0
_PATIENCE = 0.1
_ON_THE_WAY = "it was changed where it lies, or on the way: try again, or tell who keeps it"

Progress = Callable[[int], None]
# Reads up to so many bytes; none at the end.
Read = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Blob:
    """One layer in the cache.

    ``number`` counts from 1, lowest first; ``fresh`` is whether this pull brought it.
    """

    number: int
    digest: str
    path: Path
    toc: Path
    diff_id: str
    fresh: bool

    def check(self) -> Iterator[bytes]:
        """Yield the blob's content, uncompressed; raises Damaged if the cache has spoiled it."""
        hashed = hashlib.sha256()
        with self.path.open("rb", buffering=0) as file:
            pieces = iter(partial(file.read, _PIECE), b"")
            try:
                yield from inflate(pieces if self.fresh else _hashing(pieces, hashed.update))
            except BadImage as error:
                raise self.spoilt() from error
        if not self.fresh and f"sha256:{hashed.hexdigest()}" != self.digest:
            raise self.spoilt()

    def spoilt(self) -> Damaged:
        """Drop the blob from the cache; return the error that says so."""
        self.remove()
        return Damaged(
            f"the cached layer {self.digest} was damaged and is dropped",
            hint="pull again: it will be downloaded anew",
        )

    def remove(self) -> None:
        """Drop the blob from the cache."""
        self.toc.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


class Source(Protocol):
    """Where blobs come from, as ``registry.Registry``."""

    def blob(self, descriptor: Descriptor) -> AbstractContextManager[Read]:
        """Open the blob of DESCRIPTOR."""

    def abort(self) -> None:
        """Let every read that is under way fail."""


def fetch(
    layers: Sequence[Descriptor], source: Source, cache: Path, progress: Progress, mark: str
) -> list[Blob]:
    """Return LAYERS as blobs in the directory CACHE, downloaded from SOURCE where they lack.

    PROGRESS is told of every piece's size in bytes.  While a blob is unfinished its name
    ends with MARK, which only this worker uses.  Raises BadImage, naming the
    layer, or what SOURCE raises; then nothing unfinished is left in CACHE.
    """
    unique = {layer.digest: (number, layer) for number, layer in enumerate(layers, 1)}
    fetched = _Fetch(list(unique.values()), source, cache, progress, mark).run()
    return [fetched[layer.digest] for layer in layers]


class _Fetch:
    """Several layers at once; the first failure, or an interrupt, ends all."""

    def __init__(
        self,
        layers: list[tuple[int, Descriptor]],
        source: Source,
        cache: Path,
        progress: Progress,
        mark: str,
    ) -> None:
        self._todo = layers[::-1]
        self._source, self._cache, self._progress = source, cache, progress
        self._mark = mark
        self._fetched: dict[str, Blob] = {}
        self._failed: list[BaseException] = []
        self._ended = Semaphore(0)

    def run(self) -> dict[str, Blob]:
        # Daemons: a thread that waits for a silent registry must not hold up the end.
        threads = [Thread(target=self._work, daemon=True) for _ in self._todo[:_AT_ONCE]]
        running = len(threads)
        try:
            for thread in threads:
                thread.start()
            while running and not self._failed:
                running -= self._ended.acquire(timeout=_PATIENCE)
        finally:
            if running:
                self._stop(running)
        if self._failed:
            raise self._failed[0]
        return self._fetched

    def _stop(self, running: int) -> None:
        self._todo.clear()
        self._source.abort()
        # Not by Thread.join: CPython takes a thread for ended when a signal interrupts that.
        while running and self._ended.acquire(timeout=_LAST_WORDS):
            running -= 1
        for path in self._cache.glob(f"??/.*.{self._mark}"):
            path.unlink(missing_ok=True)

    def _work(self) -> None:
        try:
            while (taken := self._take()) is not None:
                number, layer = taken
                self._fetched[layer.digest] = self._one(number, layer)
        except BaseException as error:  # noqa: BLE001  # raised again by run
            self._failed.append(error)
        finally:
            self._ended.release()

    def _take(self) -> tuple[int, Descriptor] | None:
        try:
            return self._todo.pop()
        except IndexError:
            return None

    def _one(self, number: int, layer: Descriptor) -> Blob:
        name = layer.digest.removeprefix("sha256:")
        path = self._cache / name[:2] / name
        table = path.with_suffix(".toc")
        path.parent.mkdir(exist_ok=True)
        try:
            known = toc.diff_id(table, layer.digest)
            if known is not None and durable.has_size(path, layer.size):
                self._progress(layer.size)
                os.utime(path)
                return Blob(number, layer.digest, path, table, known, fresh=False)
            with self._source.blob(layer) as read:
                diff_id = _download(layer, read, path, table, self._mark, self._progress)
        except (BadImage, Damaged) as error:
            raise BadImage(f"layer {number} ({layer.digest}): {error}", hint=error.hint) from error
        return Blob(number, layer.digest, path, table, diff_id, fresh=True)


def _hashing(pieces: Iterator[bytes], update: Callable[[bytes], None]) -> Iterator[bytes]:
    for piece in pieces:
        update(piece)
        yield piece


def _download(
    layer: Descriptor, read: Read, path: Path, table: Path, mark: str, progress: Progress
) -> str:
    """Bring LAYER from READ to PATH and its contents to TABLE; return its diff_id."""
    part, table_part = (target.with_name(f".{target.name}.{mark}") for target in (path, table))
    try:
        with part.open("xb", buffering=0) as file:
            checked = _Checked(layer, read, file.write, progress)
            try:
                blob = iter(partial(checked.read, _PIECE), b"")
                with closing(ahead(inflate(blob))) as pieces:
                    stream = tar.Stream(pieces, hashed=True)
                    toc.write(table_part, tar.members(stream), layer.digest)
                    diff_id = stream.drain()
            except BadImage:
                # Most damage is damage on the way: then the digest is the reason to give.
                checked.drain()
                raise
            checked.drain()
        part.rename(path)
        toc.finish(table_part, table, diff_id)
    finally:
        for left in (part, table_part):
            with suppress(FileNotFoundError):
                left.unlink()
    return diff_id


class _Checked:
    """Reads a blob, keeps what it reads, and checks it against its descriptor."""

    def __init__(
        self,
        layer: Descriptor,
        read: Read,
        keep: Callable[[bytes | memoryview], int],
        progress: Progress,
    ) -> None:
        self._layer, self._read, self._keep, self._progress = layer, read, keep, progress
        self._hash = hashlib.sha256()
        self._size = 0

    def read(self, size: int) -> bytes:
        data = self._read(size)
        self._size += len(data)
        if self._size > self._layer.size:
            fact = f"it has more than the {self._layer.size} bytes that it should have"
            raise BadImage(fact, hint=_ON_THE_WAY)
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[self._keep(view) :]
        self._progress(len(data))
        return data

    def drain(self) -> None:
        """Read to the end; raises BadImage unless size and digest are right."""
        while self.read(_PIECE):
            pass
        if self._size != self._layer.size:
            fact = f"it has {self._size} bytes, not {self._layer.size}"
            raise BadImage(fact, hint=_ON_THE_WAY)
        found = f"sha256:{self._hash.hexdigest()}"
        if found != self._layer.digest:
            raise BadImage(f"it has the wrong digest: {found}", hint=_ON_THE_WAY)


def evict(cache: Path, limit: int) -> None:
    """Drop the blobs least recently used until those in CACHE have at most LIMIT bytes."""
    found = []
    for path in cache.glob("??/*"):
        with suppress(FileNotFoundError):
            status = path.stat()
            if path.suffix != ".toc" and not path.name.startswith("."):
                found.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= limit:
            return
        path.with_suffix(".toc").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        total -= size
