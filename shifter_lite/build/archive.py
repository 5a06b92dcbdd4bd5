"""Write a plan as one clean tar archive: numeric ids, plain names, no duplicates.

Each layer's data is read once and goes from the inflater to the pipe without
being copied in between; nothing is unpacked to disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Protocol

from shifter_lite.build import tar
from shifter_lite.build.ahead import ahead
from shifter_lite.build.merge import Node, Plan
from shifter_lite.errors import Damaged

_ENOUGH = 1 << 18
# Fewer than IOV_MAX (1024) of writev(2), as a file adds three.
_MANY = 1000
_LONGEST_FIELD = 100
_OCTAL_LIMIT = 1 << 33
_PADDING = bytes(tar.BLOCK)
_ZEROS = memoryview(bytes(1 << 18))
_LARGEST_ACCOUNT = 65536


class Source(Protocol):
    """One layer's content, as ``blobs.Blob`` has it."""

    def check(self) -> Iterator[bytes]:
        """Yield the content, uncompressed; raises Damaged if it is not what it was."""

    def spoilt(self) -> Damaged:
        """Drop the content; return the error that says so."""


def write(
    plan: Plan, layers: Sequence[Source], fd: int, progress: Callable[[int], None]
) -> dict[str, bytes]:
    """Write PLAN to FD, with its files' data from LAYERS; PROGRESS is told of bytes written.

    Returns the contents of the plan's accounts, each empty where the image has none,
    and missing where it is too large or no text.  Raises Damaged, or BrokenPipeError
    if the reader has gone.
    """
    sink = _Sink(fd, progress)
    kept: dict[Node, bytes] = {}
    for node in plan.accounts.values():
        if node.size <= _LARGEST_ACCOUNT:
            kept[node] = b""
    for node in plan.bare:
        sink.put(_header(node.path, node))
    for nodes, layer in zip(plan.files, layers, strict=True):
        if nodes:
            _copy(nodes, layer, sink, kept)
    for path, node in plan.links:
        sink.put(_header(path, node, hard=True))
    sink.put(bytes(2 * tar.BLOCK))
    sink.flush()
    texts = {name: kept.get(node) for name, node in plan.accounts.items()}
    empty = dict.fromkeys({"passwd", "group"} - texts.keys(), b"")
    return empty | {name: text for name, text in texts.items() if text and b"\0" not in text}


def _copy(nodes: list[Node], layer: Source, sink: _Sink, kept: dict[Node, bytes]) -> None:
    with closing(ahead(layer.check())) as pieces:
        _copy_from(tar.Stream(pieces), nodes, layer, sink, kept)


def _copy_from(
    stream: tar.Stream, nodes: list[Node], layer: Source, sink: _Sink, kept: dict[Node, bytes]
) -> None:
    for node in nodes:
        stream.skip(node.offset - stream.position)
        sink.put(_header(node.path, node))
        for piece in _content(stream, node, layer):
            sink.put(piece)
            if node in kept:
                kept[node] += piece
        sink.put(_PADDING[: -node.size % tar.BLOCK])
    stream.drain()


def _content(stream: tar.Stream, node: Node, layer: Source) -> Iterator[memoryview]:
    """Yield the content of the file NODE, which is next in STREAM, its holes filled."""
    segments = ((0, node.size),) if node.segments is None else node.segments
    end = 0
    for offset, length in (*segments, (node.size, 0)):
        for at in range(end, offset, len(_ZEROS)):
            yield _ZEROS[: offset - at]
        left = length
        for piece in stream.copy(length):
            yield piece
            left -= len(piece)
        if left:
            raise layer.spoilt()
        end = offset + length


class _Sink:
    """Gathers pieces and writes many of them with one writev(2)."""

    def __init__(self, fd: int, progress: Callable[[int], None]) -> None:
        self._fd = fd
        self._progress = progress
        self._pieces: list[bytes | memoryview] = []
        self._size = 0

    def put(self, piece: bytes | memoryview) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= _ENOUGH or len(self._pieces) >= _MANY:
            self.flush()

    def flush(self) -> None:
        self._progress(self._size)
        while self._pieces:
            written = os.writev(self._fd, self._pieces)
            if written == self._size:
                self._pieces.clear()
                break
            self._size -= written
            self._drop(written)
        self._size = 0

    def _drop(self, written: int) -> None:
        gone = 0
        while written >= len(self._pieces[gone]):
            written -= len(self._pieces[gone])
            gone += 1
        self._pieces[gone] = memoryview(self._pieces[gone])[written:]
        del self._pieces[:gone]


def _header(path: bytes, node: Node, *, hard: bool = False) -> bytes:
    """Return the header of NODE under the name PATH, GNU's dialect; see tar(5)."""
    kind = tar.LINK if hard else node.type
    link = node.path if hard else node.link
    long = b""
    if len(path) > _LONGEST_FIELD:
        long += _long(b"L", path)
    if len(link) > _LONGEST_FIELD:
        long += _long(b"K", link)
    size = node.size if kind == tar.FILE else 0
    return long + _block(path[:100], node.mode, size, node.mtime, kind, link[:100])


def _long(kind: bytes, name: bytes) -> bytes:
    data = name + b"\0"
    return (
        _block(b"././@LongLink", 0o644, len(data), 0, kind[0], b"")
        + data
        + bytes(-len(data) % tar.BLOCK)
    )


def _block(name: bytes, mode: int, size: int, mtime: int, kind: int, link: bytes) -> bytes:
    octal = b"%011o\0" % size if size < _OCTAL_LIMIT else (size | 1 << 95).to_bytes(12, "big")
    block = b"%b%07o\0000000000\0000000000\0%b%011o\0        %c%bustar  \0" % (
        name.ljust(100, b"\0"),
        mode,
        octal,
        mtime,
        kind,
        link.ljust(100, b"\0"),
    )
    return block[:148] + b"%06o\0 " % tar.checksum(block) + block[156:].ljust(356, b"\0")
