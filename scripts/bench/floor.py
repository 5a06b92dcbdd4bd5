"""What a pull cannot do without: inflate and hash each layer, compress each file of the image.

All of it from memory, and with nothing else done beside it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import zstandard
from isal import isal_zlib

from tests.helpers.images import Image

CORES = len(os.sched_getaffinity(0))

_GZIP = 31
_INPUT = 128 << 10
_BATCH = 64 << 20
_BLOCK = 128 << 10
_RUN = 8 * _BLOCK


@dataclass(slots=True)
class Floor:
    """Seconds: INFLATE and HASH on one core, COMPRESS on all; and of how much."""

    inflate: float = 0.0
    hash: float = 0.0
    compress: float = 0.0
    inflated: int = 0
    entries: int = 0
    content: int = 0

    @property
    def streaming(self) -> float:
        """What takes longer, if the rest is done beside it at no cost."""
        return max(self.inflate, self.compress)

    @property
    def work(self) -> float:
        """All of it, on all cores evenly."""
        return (self.inflate + self.hash) / CORES + self.compress


def measure(image: Image, squashfs: Path) -> Floor:
    """Return the floor of IMAGE, whose layers are gzip's, and which became SQUASHFS."""
    floor = Floor()
    for layer in image.content["layers"]:
        _read(floor, image.blobs[layer["digest"]])
    with ThreadPoolExecutor(CORES) as pool:
        for batch in _batches(_contents(floor, squashfs)):
            floor.compress += _timed(_compress, pool, batch)
            floor.content += len(batch)
    return floor


def _read(floor: Floor, blob: bytes) -> None:
    """Add what it takes to read BLOB."""
    floor.hash += _timed(hashlib.sha256, blob)
    digest, inflater = hashlib.sha256(), isal_zlib.decompressobj(wbits=_GZIP)
    for start in range(0, len(blob), _INPUT):
        began = time.perf_counter()
        piece = inflater.decompress(blob[start : start + _INPUT])
        floor.inflate += time.perf_counter() - began
        floor.hash += _timed(digest.update, piece)
        floor.inflated += len(piece)


def _timed(work: Callable[..., object], *arguments: object) -> float:
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def _contents(floor: Floor, squashfs: Path) -> Iterator[bytes]:
    """Give what the files in SQUASHFS hold, in pieces; of equal files one."""
    seen = set()
    command = ["sqfs2tar", str(squashfs)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as unpacking,
        tarfile.open(fileobj=unpacking.stdout, mode="r|") as archive,
    ):
        for member in archive:
            floor.entries += 1
            content = archive.extractfile(member) if member.isreg() else None
            while content and (piece := content.read(_BATCH)):
                digest = hashlib.sha256(piece).digest()
                if digest not in seen:
                    seen.add(digest)
                    yield piece
    if unpacking.returncode != 0:
        raise subprocess.CalledProcessError(unpacking.returncode, command)


def _batches(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join PIECES, so that neither all of them are in memory nor each is timed by itself."""
    batch, length = [], 0
    for piece in pieces:
        batch.append(piece)
        length += len(piece)
        if length >= _BATCH:
            yield b"".join(batch)
            batch, length = [], 0
    yield b"".join(batch)


_own = threading.local()


def _compress(pool: ThreadPoolExecutor, batch: bytes) -> None:
    view = memoryview(batch)
    runs = [view[start : start + _RUN] for start in range(0, len(view), _RUN)]
    list(pool.map(_compress_run, runs))


def _compress_run(run: memoryview) -> None:
    if not hasattr(_own, "compressor"):
        _own.compressor = zstandard.ZstdCompressor(level=3)
    for start in range(0, len(run), _BLOCK):
        _own.compressor.compress(run[start : start + _BLOCK])
