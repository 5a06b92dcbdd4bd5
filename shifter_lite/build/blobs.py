"""The cache of layers: each is downloaded once, checked while it streams, and indexed.

A blob has its final name only when its size and digest were right.  It is not
synced to disk: what a power loss leaves of it is found out, as every blob that
was not downloaded by this very pull is checked again while its data is read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from shifter_lite.build import tar, toc
from shifter_lite.build.ahead import ahead
from shifter_lite.build.inflate import Read, inflate
from shifter_lite.build.manifest import Descriptor
from shifter_lite.errors import BadImage, Damaged

_AT_ONCE = 4
_PIECE = 1 << 18

Open = Callable[[Descriptor], AbstractContextManager[Read]]
Progress = Callable[[int], None]


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

            def read(size: int) -> bytes:
                data = file.read(size)
                if not self.fresh:
                    hashed.update(data)
                return data

            try:
                yield from inflate(read)
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


class _Stopped(Exception):
    """Another layer of the same image has failed."""


def fetch(
    layers: Sequence[Descriptor], open_blob: Open, cache: Path, progress: Progress
) -> list[Blob]:
    """Return LAYERS as blobs in the directory CACHE, downloaded by OPEN_BLOB where they lack.

    PROGRESS is told of every piece's size in bytes.  Raises BadImage, naming the
    layer, or what OPEN_BLOB raises; then nothing unfinished is left in CACHE.
    """
    stop = Event()
    unique = {layer.digest: (number, layer) for number, layer in enumerate(layers, 1)}
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="layer") as pool:
        tasks = {
            digest: pool.submit(_one, number, layer, open_blob, cache, _until(stop, progress))
            for digest, (number, layer) in unique.items()
        }
        try:
            wait(tasks.values(), return_when=FIRST_EXCEPTION)
        finally:
            stop.set() if any(not task.done() or task.exception() for task in tasks.values()) else 0
    failures = [error for task in tasks.values() if (error := task.exception())]
    for error in sorted(failures, key=lambda error: isinstance(error, _Stopped)):
        raise error
    return [tasks[layer.digest].result() for layer in layers]


def _until(stop: Event, progress: Progress) -> Progress:
    def report(size: int) -> None:
        if stop.is_set():
            raise _Stopped
        progress(size)

    return report


def _one(number: int, layer: Descriptor, open_blob: Open, cache: Path, progress: Progress) -> Blob:
    name = layer.digest.removeprefix("sha256:")
    path = cache / name[:2] / name
    table = path.with_suffix(".toc")
    path.parent.mkdir(exist_ok=True)
    try:
        known = toc.diff_id(table, layer.digest)
        if known is not None and _has_size(path, layer.size):
            progress(layer.size)
            os.utime(path)
            return Blob(number, layer.digest, path, table, known, fresh=False)
        with open_blob(layer) as read:
            diff_id = _download(layer, read, path, table, progress)
    except (BadImage, Damaged) as error:
        raise BadImage(f"layer {number} ({layer.digest}): {error}", hint=error.hint) from error
    return Blob(number, layer.digest, path, table, diff_id, fresh=True)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _download(layer: Descriptor, read: Read, path: Path, table: Path, progress: Progress) -> str:
    """Bring LAYER from READ to PATH and its contents to TABLE; return its diff_id."""
    mark = f"{os.uname().nodename}.{os.getpid()}.{os.urandom(4).hex()}"
    part, table_part = (target.with_name(f".{target.name}.{mark}") for target in (path, table))
    try:
        with part.open("xb", buffering=0) as file:
            checked = _Checked(layer, read, file.write, progress)
            try:
                with closing(ahead(inflate(checked.read))) as pieces:
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
            raise BadImage(f"it has more than the {self._layer.size} bytes that it should have")
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
            raise BadImage(f"it has {self._size} bytes, not {self._layer.size}")
        found = f"sha256:{self._hash.hexdigest()}"
        if found != self._layer.digest:
            raise BadImage(f"it has the wrong digest: {found}")


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
