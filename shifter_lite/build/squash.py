"""Make image files: a squashfs and its description, named by the digest of both.

An image file is the squashfs, padded to 4096 bytes, then a description of the
image (spool/README.md, "An image"), padded again.  Kernel and tools read what
the superblock counts and nothing after it.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from shifter_lite import durable, lost_reply
from shifter_lite.build import press, squashfs
from shifter_lite.build.convert import Converted
from shifter_lite.build.keep import read_small
from shifter_lite.build.press import BLOCK
from shifter_lite.build.zstd import Compressor
from shifter_lite.config import Policy
from shifter_lite.errors import Damaged
from shifter_lite.records import Content, Image, seal

# What a recipe covers: our writer, its compressor, the merge's policy.  A change in
# what the same layers become must change it, or old images would stand for new.
_WRITER = "shifter-lite-3"
_MAGIC = b"shifter-lite image 1"
_ALIGNMENT = 4096
# What filesystems allocate at least.
_BLOCK = 4096
_ZEROS = bytes(_BLOCK)
_LARGEST_ACCOUNT = 65536
_LARGEST_LIBRARIES = 1 << 17
# The superblock: magic, and at byte 40 the number of bytes used; see squashfs(5).
_SUPERBLOCK = struct.Struct("<4s36xQ")

Fields = Sequence[tuple[str, bytes]]


def recipe(compressor: Compressor, policy: Policy) -> str:
    """Return everything but the layers that an image's bytes follow from."""
    return f"{_WRITER}/{compressor.version}/{BLOCK >> 10}K/{policy}"


@contextmanager
def unfinished(images: Path, mark: str) -> Iterator[FileIO]:
    """Yield a new file under IMAGES, whose name holds MARK; it is gone in the end."""
    path = images / f".building.{mark}"
    try:
        with FileIO(path, "r+b", opener=lambda *_: lost_reply.create(path)) as file:
            yield file
    finally:
        lost_reply.discard(path)


def finish(file: FileIO, made: Converted, content: Content, compressor: Compressor) -> Image:
    """Make of FILE, which has the data of what was MADE, an image of that; return its record.

    CONTENT describes it.  It is whole and on disk, but has no name yet.
    """
    squashfs.write(file, made.end, made.tree, made.contents, compressor)
    libraries = [("libs", name) for name in sorted(made.libraries)]
    if sum(len(name) for _, name in libraries) > _LARGEST_LIBRARIES:
        # A launch reads all of the description, and this is no image that anybody made to run.
        libraries = []
    return _seal(file, content, [*_texts(file, made), *libraries])


def adopt(file: FileIO, pieces: Iterable[bytes], content: Content) -> Image:
    """Make of FILE, which is empty, an image of PIECES, a squashfs that was not built here.

    Whoever reads the launcher's fields knows it by one of them.
    """
    at = 0
    for piece in pieces:
        for start, end in _filled(piece):
            press.write(file.fileno(), [piece[start:end]], at + start)
        at += len(piece)
    file.truncate(at)
    return _seal(file, content, [("imported", b"yes")])


def _filled(piece: bytes) -> Iterator[tuple[int, int]]:
    """Yield beginning and end of each run of blocks in PIECE that are not zeros.

    What is a hole in its owner's file must not take room in the store.
    """
    begin = None
    for at in range(0, len(piece), _BLOCK):
        if piece[at : at + _BLOCK] != _ZEROS[: len(piece) - at]:
            begin = at if begin is None else begin
        elif begin is not None:
            yield begin, at
            begin = None
    if begin is not None:
        yield begin, len(piece)


def place(file: FileIO, image: Image, path: Path) -> None:
    """Give FILE, which holds IMAGE, its name PATH."""
    durable.make_directory(path.parent, 0o755)
    # The same content has the same name: an image that is there is not written again.
    if durable.has_size(path, image.size):
        return
    try:
        durable.link(Path(os.fsdecode(file.name)), path)
    except FileExistsError:
        if not durable.has_size(path, image.size):
            # Cut off by whatever it was: nobody can use it as it is.
            durable.move(Path(os.fsdecode(file.name)), path)


def _texts(file: FileIO, made: Converted) -> Fields:
    """Return the image's passwd and group, empty where it has none.

    One is missing if it is too large, or no text.
    """
    texts = []
    for name in ("group", "passwd"):
        node = made.tree.file(f"etc/{name}".encode())
        if node is None or node.content < 0:
            texts.append((name, b""))
        elif made.contents.sizes[node.content] <= _LARGEST_ACCOUNT:
            text = read_small(file, made.contents, node.content)
            if b"\0" not in text:
                texts.append((name, text))
    return texts


def _seal(file: FileIO, content: Content, fields: Fields) -> Image:
    """Describe the squashfs in FILE, and bring it to disk; return its record."""
    _describe(file, content, fields)
    os.fchmod(file.fileno(), 0o644)
    size = file.seek(0, os.SEEK_END)
    return Image(id=_sync(file), size=size, content=content)


def _sync(file: FileIO) -> str:
    """Bring FILE to disk, and return its SHA-256, which is reckoned meanwhile."""
    file.seek(0)
    with ThreadPoolExecutor(1) as pool:
        synced = pool.submit(os.fsync, file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        synced.result()
    return digest


def _describe(file: FileIO, content: Content, fields: Fields) -> None:
    """Put CONTENT, and FIELDS for the launcher, after the squashfs in FILE."""
    text = content.to_bytes()
    words = [(name, value.decode(errors="surrogateescape")) for name, value in fields]
    sealed = seal(b"image", words)
    data = b"%b %d %d\n%b%b" % (_MAGIC, len(text), len(sealed), text, sealed)
    end = _end(file)
    # Not by one write, which a disk that becomes full cuts off without an error.
    press.write(file.fileno(), [data, bytes(-len(data) % _ALIGNMENT)], end)
    file.truncate(end + len(data) + -len(data) % _ALIGNMENT)


def describe(path: Path) -> Content:
    """Return the description in the image file PATH; raises Damaged."""
    with path.open("rb", buffering=0) as file:
        file.seek(_end(file))
        head, _, rest = file.read().partition(b"\n")
    magic, _, sizes = head.rpartition(b" ")[0].rpartition(b" ")
    if magic != _MAGIC or not sizes.isdigit():
        raise Damaged(f"an image has no description: {str(path)!r}")
    return Content.from_bytes(rest[: int(sizes)])


def _end(file: FileIO) -> int:
    """Return where the squashfs in FILE ends, padding included."""
    file.seek(0)
    head = file.read(_SUPERBLOCK.size)
    if len(head) < _SUPERBLOCK.size or not head.startswith(b"hsqs"):
        raise Damaged(f"it is no squashfs: {file.name!r}")
    used = int(_SUPERBLOCK.unpack(head)[1])
    return used + -used % _ALIGNMENT
