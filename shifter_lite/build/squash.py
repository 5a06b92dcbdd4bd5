"""Turn a tar archive into a squashfs image named by its digest.

An image file is the squashfs, padded to 4096 bytes, then a description of the
image (spool/README.md, "An image"), padded again.  Kernel and tools read what
the superblock counts and nothing after it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fcntl import F_SETPIPE_SZ, fcntl
from pathlib import Path
from typing import BinaryIO

from shifter_lite import durable
from shifter_lite.errors import BuildFailed, Damaged, NoTool, StoreFull
from shifter_lite.records import Content, Image

# What a recipe covers: the tool, its options, the merge's policy.  A change in
# what the same layers become must change it, or old images would stand for new.
_POLICY = "root-a+rX-nosuid-nodev-noxattr-1"
_MAGIC = b"shifter-lite image 1\n"
_ALIGNMENT = 4096
# The superblock: magic, and at byte 40 the number of bytes used; see squashfs(5).
_SUPERBLOCK = struct.Struct("<4s36xQ")


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that makes squashfs from tar."""

    path: str
    version: str
    arguments: tuple[str, ...]

    @property
    def recipe(self) -> str:
        """Everything but the layers that an image's bytes follow from."""
        return f"{Path(self.path).name}-{self.version}/zstd-3/128K/{_POLICY}"


_TOOLS = (
    (
        "tar2sqfs",
        (
            "-q",
            "-x",
            "-s",
            "-c",
            "zstd",
            "-X",
            "level=3",
            "-b",
            "131072",
            "-j",
            "{jobs}",
            "{output}",
        ),
    ),
    # Out of the box it would note the present time, and give the root directory mode 0777.
    (
        "mksquashfs",
        (
            "-",
            "{output}",
            "-tar",
            "-comp",
            "zstd",
            "-Xcompression-level",
            "3",
            "-b",
            "131072",
            "-no-xattrs",
            "-no-progress",
            "-quiet",
            "-mkfs-time",
            "0",
            "-processors",
            "{jobs}",
        ),
    ),
)


def find_tool() -> Tool:
    """Return the program to build with; raises NoTool if there is none."""
    for name, arguments in _TOOLS:
        if (path := shutil.which(name)) is not None and (version := _version(path)):
            return Tool(path, version, arguments)
    raise NoTool(
        "there is no program that makes squashfs images: neither tar2sqfs nor mksquashfs 4.5",
        hint="install squashfs-tools-ng (apt install squashfs-tools-ng)",
    )


def _version(path: str) -> str:
    option = "-version" if path.endswith("mksquashfs") else "--version"
    done = subprocess.run([path, option], capture_output=True, text=True, check=False)
    match = re.search(r"([0-9]+)\.([0-9]+)(?:\.[0-9]+)*", done.stdout)
    if match is None or (option == "-version" and (int(match[1]), int(match[2])) < (4, 5)):
        return ""
    return match[0]


def write(
    tool: Tool, feed: Callable[[int], None], content: Content, images: Path, mark: str
) -> Image:
    """Build an image with TOOL from the archive that FEED writes to a descriptor.

    It is described by CONTENT, and put under the directory IMAGES; while it is
    unfinished its name holds MARK, which only this worker uses.  Raises
    BuildFailed, StoreFull, or what FEED raises; then nothing is left.
    """
    unfinished = images / f".building.{mark}"
    try:
        with _running(tool, unfinished) as pipe:
            feed(pipe)
        with unfinished.open("r+b", buffering=0) as file:
            _describe(file, content)
            os.fsync(file.fileno())
            image_id = hashlib.file_digest(file, "sha256").hexdigest() if file.seek(0) == 0 else ""
            size = os.fstat(file.fileno()).st_size
            os.fchmod(file.fileno(), 0o644)
        target = images / image_id[:2] / f"{image_id}.squashfs"
        durable.make_directory(target.parent, 0o755)
        # The same content has the same name: an image that is there is never written over.
        if not target.exists():
            durable.move(unfinished, target)
        return Image(id=image_id, size=size, content=content)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _running(tool: Tool, output: Path) -> Iterator[int]:
    """Run TOOL; yield the descriptor it reads its archive from; check how it ended."""
    words = {"jobs": str(len(os.sched_getaffinity(0))), "output": str(output)}
    command = [tool.path, *(word.format(**words) for word in tool.arguments)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    )
    assert process.stdin is not None
    assert process.stderr is not None
    try:
        with suppress(BrokenPipeError):
            with suppress(PermissionError):
                # More than the user's share of pipe memory, pipe(7); it goes without, too.
                fcntl(process.stdin, F_SETPIPE_SZ, 1 << 20)
            yield process.stdin.fileno()
        process.stdin.close()
        complaint = process.stderr.read().decode(errors="replace")
        status = process.wait()
    except BaseException:
        process.kill()
        process.stdin.close()
        process.wait()
        raise
    finally:
        process.stderr.close()
    if status != 0 or not output.exists():
        raise _failure(tool, status, complaint)


def _failure(tool: Tool, status: int, complaint: str) -> BuildFailed | StoreFull:
    if "No space left" in complaint or "Disk quota exceeded" in complaint:
        return StoreFull(
            "no space left in the store for the image",
            hint="free space or quota on the store's filesystem, then pull again",
        )
    name = Path(tool.path).name
    if status < 0:
        return BuildFailed(
            f"{name} was killed by signal {-status}", hint="was the memory of this node short?"
        )
    last = complaint.strip().rpartition("\n")[2]
    return BuildFailed(f"{name} failed with status {status}: {last!r}")


def _describe(file: BinaryIO, content: Content) -> None:
    """Put CONTENT after the squashfs in FILE."""
    end = _end(file)
    data = _MAGIC + content.to_bytes()
    file.seek(end)
    file.write(data + bytes(-len(data) % _ALIGNMENT))
    file.truncate()


def describe(path: Path) -> Content:
    """Return the description in the image file PATH; raises Damaged."""
    with path.open("rb") as file:
        file.seek(_end(file))
        magic, _, rest = file.read().partition(b"\n")
    if magic + b"\n" != _MAGIC:
        raise Damaged(f"an image has no description: {str(path)!r}")
    return Content.from_bytes(rest.rstrip(b"\0"))


def _end(file: BinaryIO) -> int:
    """Return where the squashfs in FILE ends, padding included."""
    file.seek(0)
    head = file.read(_SUPERBLOCK.size)
    if len(head) < _SUPERBLOCK.size or not head.startswith(b"hsqs"):
        raise BuildFailed("the squashfs tool wrote something that is no squashfs")
    used = int(_SUPERBLOCK.unpack(head)[1])
    return used + -used % _ALIGNMENT
