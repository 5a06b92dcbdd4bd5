"""Turn a tar archive into a squashfs image named by its digest.

An image file is the squashfs, padded to 4096 bytes, then a description of the
image (spool/README.md, "An image"), padded again.  Kernel and tools read what
the superblock counts and nothing after it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fcntl import F_SETPIPE_SZ, fcntl
from io import FileIO
from pathlib import Path

from shifter_lite import durable
from shifter_lite.errors import BuildFailed, Damaged, NoTool
from shifter_lite.records import Content, Image, seal

# What a recipe covers: the tool, its options, the merge's policy.  A change in
# what the same layers become must change it, or old images would stand for new.
_POLICY = "root-a+rX-nosuid-nodev-noxattr-1"
_MAGIC = b"shifter-lite image 1"
_ALIGNMENT = 4096
# More than any tool writes at once.
_ROOM = 4 << 20
# The superblock: magic, and at byte 40 the number of bytes used; see squashfs(5).
_SUPERBLOCK = struct.Struct("<4s36xQ")


@dataclass(frozen=True, slots=True)
class Tool:
    """The program that makes squashfs from tar: tar2sqfs of squashfs-tools-ng (decision 0007)."""

    path: str
    version: str

    @property
    def recipe(self) -> str:
        """Everything but the layers that an image's bytes follow from."""
        return f"tar2sqfs-{self.version}/zstd-3/128K/{_POLICY}"

    def command(self, output: Path) -> list[str]:
        """Return how it is called to make OUTPUT, which is there, from its standard input."""
        jobs = len(os.sched_getaffinity(0))
        options = f"-q -f -x -s -c zstd -X level=3 -b 131072 -j {jobs}"
        return [self.path, *options.split(), str(output)]


def find_tool() -> Tool:
    """Return the program to build with; raises NoTool if it is not installed."""
    path = shutil.which("tar2sqfs")
    if path is not None:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if match := re.search(r"[0-9]+\.[0-9]+(\.[0-9]+)*", done.stdout):
            return Tool(path, match[0])
    raise NoTool(
        "tar2sqfs, which makes squashfs images, is not installed",
        hint="install squashfs-tools-ng (apt install squashfs-tools-ng)",
    )


# Writes a tar archive to a descriptor; returns the texts that the launcher wants at hand.
Feed = Callable[[int], dict[str, bytes]]


def write(tool: Tool, feed: Feed, content: Content, images: Path, mark: str) -> Image:
    """Build an image of what FEED writes, described by CONTENT, with TOOL, under IMAGES.

    While the image is unfinished its name holds MARK, which only this worker uses.
    Raises BuildFailed, OSError, or what FEED raises; then nothing is left.
    """
    with _unfinished(images, mark) as file:
        texts = _run(tool.command(Path(file.name)), feed, file)
        return _finish(file, content, texts, images)


def adopt(pieces: Iterable[bytes], content: Content, images: Path, mark: str) -> Image:
    """Make an image of PIECES, a squashfs that was not built here; else as ``write``.

    Whoever reads the launcher's fields knows it by one of them.
    """
    with _unfinished(images, mark) as file:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]
        return _finish(file, content, {"imported": b"yes"}, images)


@contextmanager
def _unfinished(images: Path, mark: str) -> Iterator[FileIO]:
    """Open a new file in IMAGES, which is gone in the end unless it was renamed."""
    unfinished = images / f".building.{mark}"
    try:
        with unfinished.open("x+b", buffering=0) as file:
            yield file
    finally:
        unfinished.unlink(missing_ok=True)


def _finish(file: FileIO, content: Content, texts: dict[str, bytes], images: Path) -> Image:
    """Describe the squashfs in FILE, bring it to disk, and give it its name in IMAGES."""
    _describe(file, content, texts)
    os.fchmod(file.fileno(), 0o644)
    size = file.seek(0, os.SEEK_END)
    image_id = _sync(file)
    target = images / image_id[:2] / f"{image_id}.squashfs"
    durable.make_directory(target.parent, 0o755)
    # The same content has the same name: an image that is there is not written again.
    if not durable.has_size(target, size):
        durable.move(Path(file.name), target)
    return Image(id=image_id, size=size, content=content)


def _sync(file: FileIO) -> str:
    """Bring FILE to disk, and return its SHA-256, which is reckoned meanwhile."""
    file.seek(0)
    with ThreadPoolExecutor(1) as pool:
        synced = pool.submit(os.fsync, file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        synced.result()
    return digest


def _run(command: list[str], feed: Feed, file: FileIO) -> dict[str, bytes]:
    """Run COMMAND with what FEED writes for its input, and its output open as FILE."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    ) as process:
        texts, complaint = _converse(process, feed)
    if process.returncode != 0:
        _check_room(file)
        raise _failure(process.returncode, complaint)
    return texts


def _converse(process: subprocess.Popen[bytes], feed: Feed) -> tuple[dict[str, bytes], str]:
    """Let FEED write to PROCESS; return what it returned, and what the process said."""
    texts: dict[str, bytes] = {}
    assert process.stdin is not None
    assert process.stderr is not None
    try:
        # It closes its end early when it fails, and says why; it says little enough for a pipe.
        with suppress(BrokenPipeError):
            with suppress(PermissionError):
                # More than the user's share of pipe memory, pipe(7): then it is slower.
                fcntl(process.stdin, F_SETPIPE_SZ, 1 << 20)
            texts = feed(process.stdin.fileno())
        process.stdin.close()
        return texts, process.stderr.read().decode(errors="replace")
    except BaseException:
        # Or it would take the end of its input for the end of the archive.
        process.kill()
        raise


def _check_room(file: FileIO) -> None:
    """Raise OSError if there is no room, or no quota, left: the tool only says "I/O error".

    It removes what it wrote, but FILE keeps its room taken until it is closed.
    """
    file.seek(0, os.SEEK_END)
    if file.write(bytes(_ROOM)) < _ROOM:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(file.fileno())


def _failure(status: int, complaint: str) -> BuildFailed:
    if status < 0:
        return BuildFailed(
            f"tar2sqfs was killed by signal {-status}", hint="was the memory of this node short?"
        )
    last = complaint.strip().rpartition("\n")[2]
    return BuildFailed(f"tar2sqfs failed with status {status}: {last!r}")


def _describe(file: FileIO, content: Content, texts: dict[str, bytes]) -> None:
    """Put CONTENT, and TEXTS for the launcher, after the squashfs in FILE."""
    text = content.to_bytes()
    fields = seal(
        b"image",
        [(name, value.decode(errors="surrogateescape")) for name, value in sorted(texts.items())],
    )
    data = b"%b %d %d\n%b%b" % (_MAGIC, len(text), len(fields), text, fields)
    file.seek(_end(file))
    file.write(data + bytes(-len(data) % _ALIGNMENT))
    file.truncate()


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
