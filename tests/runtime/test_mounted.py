"""Random images, served, are what the kernel's own squashfs shows of them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime import rawsquash
from tests.runtime.kernel import command

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount by the kernel")

OPTIONS = ("-comp", "zstd", "-no-xattrs", "-quiet", "-no-progress", "-noappend", "-all-root")


@pytest.fixture(scope="session", params=["serve_at", "serve_at_threads"])
def server(built: Path, request: pytest.FixtureRequest) -> Path:
    """The server, with checks of memory, or of threads."""
    return built / "obj" / str(request.param)


@contextlib.contextmanager
def served(server: Path, image: Path, at: Path) -> Iterator[Path]:
    """Mount IMAGE, served by SERVER, at AT."""
    at.mkdir()
    options = {"ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "halt_on_error=1"}
    run = [*command(server), str(image), str(at)]
    with subprocess.Popen(run, env={**os.environ, **options}) as process:
        try:
            while not os.path.ismount(at) and process.poll() is None:
                time.sleep(0.01)
            yield at
        finally:
            subprocess.run(["umount", at], check=False)
            status = process.wait(30)
    assert status == 0


@contextlib.contextmanager
def looped(image: Path, at: Path) -> Iterator[Path]:
    """Mount IMAGE by the kernel at AT."""
    at.mkdir()
    subprocess.run(["mount", "-o", "loop,ro", image, at], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)


def make_file(path: Path, chance: random.Random, block: int) -> None:
    """Write a file of data and holes, of a length near a multiple of BLOCK or not."""
    size = max(0, chance.randrange(6) * block + chance.choice([-1, 0, 1, chance.randrange(block)]))
    with path.open("wb") as file:
        for at in range(0, size, block):
            if chance.random() < 0.5:
                file.seek(at)
                file.write(chance.randbytes(min(block, size - at)))
        file.truncate(size)


def make_tree(tree: Path, chance: random.Random, block: int) -> None:
    """Fill TREE with directories of any size, and what is read before anybody asks."""
    (tree / "lib64").mkdir(parents=True)
    make_file(tree / "lib64/libc.so.6", chance, block)
    for number in range(3):
        place = tree / f"directory-{number}"
        place.mkdir(parents=True)
        for _ in range(chance.choice([0, 1, 10, 300, 3000])):
            (place / f"{chance.randrange(10**9)}{'n' * chance.randrange(60)}").touch()
        for each in range(chance.randrange(8)):
            make_file(place / f"file-{each}", chance, block)
        (place / "link").symlink_to("t" * chance.randrange(1, 4000))
        os.mkfifo(place / "fifo")


def known(path: Path) -> tuple[object, ...]:
    """Return what is known of PATH."""
    status = path.lstat()
    is_file, is_link = stat.S_ISREG(status.st_mode), stat.S_ISLNK(status.st_mode)
    content = hashlib.sha256(path.read_bytes()).hexdigest() if is_file else None
    link = os.readlink(path) if is_link else None
    numbers = (status.st_mode, status.st_nlink, status.st_size, status.st_blocks, status.st_mtime)
    return (str(path.name), status.st_ino, *numbers, content, link)


def everything(top: Path) -> list[tuple[object, ...]]:
    """Return what is known of all beneath TOP, as it is listed."""
    found = [known(top)[1:]]
    for directory, names, files in os.walk(top):
        found += [known(Path(directory, name)) for name in (*names, *files)]
    return found


def holes(path: Path) -> list[tuple[int, int]]:
    """Return where the holes of PATH begin and end."""
    found, at = [], 0
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while at < size:
            start = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            if start >= size:
                break
            try:
                at = os.lseek(file.fileno(), start, os.SEEK_DATA)
            except OSError:
                at = size
            found.append((start, at))
    return found


def zeros(path: Path, block: int) -> list[tuple[int, int]]:
    """Return the holes that PATH has if each block of zeros is one."""
    data, found = path.read_bytes(), list[tuple[int, int]]()
    # The end of a file may be stored with those of others.
    for at in range(0, len(data) // block * block, block):
        if not any(data[at : at + block]):
            start = found.pop()[0] if found and found[-1][1] == at else at
            found.append((start, at + block))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_random_image_is_what_the_kernel_shows(server: Path, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    block = chance.choice([4096, 131072])
    make_tree(tmp_path / "tree", chance, block)
    image = tmp_path / "image"
    # With -always-use-fragments mksquashfs 4.5.1 at times writes one block over another.
    more = chance.choice([(), ("-no-fragments",), ("-noI", "-noD")])
    pack = ["mksquashfs", f"{tmp_path}/tree", str(image), *OPTIONS, "-b", str(block), *more]
    subprocess.run(pack, check=True)
    with looped(image, tmp_path / "loop") as loop, served(server, image, tmp_path / "fuse") as fuse:
        assert everything(fuse) == everything(loop)
        for path in (fuse / "lib64/libc.so.6", *fuse.rglob("file-*")):
            # The kernel itself has none.  An end of zeros may be one, or be stored.
            whole = path.stat().st_size // block * block
            found = [(start, min(end, whole)) for start, end in holes(path) if start < whole]
            assert found == zeros(path, block), path


def test_a_copy_keeps_holes(server: Path, tmp_path: Path) -> None:
    block = 1 << 17
    noise = random.Random(1).randbytes(block)
    words = [0] * 400 + [rawsquash.PLAIN | block] + [0] * 600
    file = rawsquash.File(1001 * block, words, noise, 1000 * block)
    image = rawsquash.write(tmp_path / "image", {"file": file})
    with served(server, image, tmp_path / "fuse") as fuse:
        assert (fuse / "file").stat().st_blocks == block // 512
        copy = tmp_path / "copy"
        subprocess.run(["cp", "--sparse=auto", fuse / "file", copy], check=True)
        assert subprocess.run(["cmp", fuse / "file", copy], check=False).returncode == 0
        assert copy.stat().st_blocks < 4 * block // 512
        du = subprocess.run(["du", "-k", fuse / "file"], check=True, capture_output=True)
        assert int(du.stdout.split()[0]) == block // 1024


# Seeks as seekdir(3) does, to cookies in any order, and expects what came behind each.
SEEKER = """
import ctypes, os, random, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
chance = random.Random(int(sys.argv[2]))
directory = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
buffer = ctypes.create_string_buffer(8192)
def read(size):
    length = libc.syscall(int(sys.argv[3]), directory, buffer, size)
    assert length >= 0, ctypes.get_errno()
    at, found = 0, []
    while at < length:
        _, cookie, record = struct.unpack_from("<QqH", buffer, at)
        found.append((cookie, buffer.raw[at + 19 : at + record].split(b"\\0")[0]))
        at += record
    return found
everything = []
while more := read(8192):
    everything += more
assert len(everything) == int(sys.argv[4]) + 2, len(everything)
assert all(0 < cookie < 1 << 31 for cookie, _ in everything)
for _ in range(400):
    at = chance.randrange(len(everything) - 1)
    if chance.random() < 0.1:
        os.lseek(directory, 0, os.SEEK_SET)
        assert read(1024)[0] == everything[0]
    os.lseek(directory, everything[at][0], os.SEEK_SET)
    got = read(1024)
    assert got and got == everything[at + 1 : at + 1 + len(got)], (at, got[:2])
os.lseek(directory, everything[-1][0], os.SEEK_SET)
assert read(8192) == []
"""
GETDENTS64 = {"x86_64": 217, "aarch64": 61, "ppc64le": 202}


@pytest.mark.parametrize("index", [True, False])
def test_programs_seek_in_directories_at_once(server: Path, tmp_path: Path, index: bool) -> None:
    names = [b"name-%d" % number for number in range(20_000)]
    image = rawsquash.write(tmp_path / "image", {}, names, index=index)
    call = GETDENTS64[os.uname().machine]
    with served(server, image, tmp_path / "fuse") as fuse:
        seekers = [
            subprocess.Popen(
                [sys.executable, "-c", SEEKER, fuse / "many", str(seed), str(call), str(len(names))]
            )
            for seed in range(4)
        ]
        assert [each.wait() for each in seekers] == [0] * 4


READER = """
import os, random, sys
chance = random.Random(int(sys.argv[2]))
os.chdir(sys.argv[1])
files = [os.open(name, os.O_RDONLY) for name in os.listdir(".") if name != "many"]
for _ in range(1500):
    file = chance.choice(files)
    size = os.fstat(file).st_size
    at = chance.randrange(size // 4096) * 4096
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    got = os.pread(file, 4096, at)
    assert got == (bytes(4096) if at // 4096 % 7 else bytes([at // 4096 % 251 + 1]) * 4096), at
    data = os.lseek(file, at, os.SEEK_DATA)
    assert data // 4096 % 7 == 0 and at <= data < at + 7 * 4096
"""


def test_programs_read_many_large_files_at_once(server: Path, tmp_path: Path) -> None:
    block, count = 4096, 3 * 7 * 251 + 1
    words = [0 if at % 7 else rawsquash.PLAIN | block for at in range(count)]
    data = b"".join(bytes([at % 251 + 1]) * block for at in range(0, count, 7))
    file = rawsquash.File(count * block, words, data, (count - count // 7 - 1) * block)
    image = rawsquash.write(
        tmp_path / "image", {f"{number}": file for number in range(40)}, block_log=12
    )
    with served(server, image, tmp_path / "fuse") as fuse:
        readers = [
            subprocess.Popen([sys.executable, "-c", READER, fuse, str(seed)]) for seed in range(4)
        ]
        assert [each.wait() for each in readers] == [0] * 4
