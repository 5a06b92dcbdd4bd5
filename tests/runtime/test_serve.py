"""Images are served as they are, whatever is in them."""

from __future__ import annotations

import hashlib
import os
import platform
import random
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.runtime import squash
from tests.runtime.conftest import Launcher
from tests.runtime.store import make_store

ZSTD = ("-comp", "zstd", "-b", "128K")


def pack(shifter: Launcher, store: Path, tree: Path, *options: str, top: bool = False) -> None:
    """Make the one image of STORE of TREE, in its root if TOP, and busybox."""
    path = squash.make(store / "base.squashfs", squash.BUSYBOX)
    made = store / "made"
    subprocess.run(["unsquashfs", "-q", "-n", "-d", made, path], check=True, capture_output=True)
    subprocess.run(
        ["cp", "-a", *([f"{tree}/.", made] if top else [tree, made / "tree"])], check=True
    )
    image = store / "image.squashfs"
    fixed = ("-noappend", "-quiet", "-no-progress", "-all-root")
    command = ["mksquashfs", str(made), str(image), *fixed]
    subprocess.run([*command, *(options or (*ZSTD, "-no-xattrs"))], check=True)
    make_store(store, image)
    shutil.rmtree(made)


def sums(tree: Path) -> str:
    # As the shell sorts them.
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  /tree/{path.relative_to(tree)}\n"
        for path in files
    )


SUMS = "find /tree -type f | sort | while read -r each; do busybox sha256sum $each; done"


@pytest.fixture
def tree(playground: Path) -> Path:
    path = playground / "tree"
    path.mkdir()
    return path


def small(tree: Path) -> None:
    for number in range(50):
        (tree / f"{number}").write_bytes(b"x" * number)


def large(tree: Path) -> None:
    (tree / "noise").write_bytes(random.Random(1).randbytes(3_000_001))
    (tree / "whole").write_bytes(b"block" * 26214 + b"xy")
    (tree / "empty").touch()


def holes(tree: Path) -> None:
    with (tree / "hole").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
    with (tree / "only").open("wb") as file:
        file.truncate(1_000_000)


def links(tree: Path) -> None:
    (tree / "a").write_bytes(os.urandom(200_000))
    os.link(tree / "a", tree / "b")
    (tree / "to").symlink_to("a")
    (tree / ("n" * 255)).symlink_to("/" + "t/" * 1500)


def many(tree: Path) -> None:
    for number in range(1500):
        (tree / f"some-file-with-a-name-that-is-long-{number}").touch()


def deep(tree: Path) -> None:
    at = tree
    for number in range(60):
        at = at / f"directory-{number}"
        at.mkdir()
        (at / "file").write_text(str(number))


PLAIN = (*ZSTD, "-no-xattrs", "-no-fragments", "-noI", "-noD")
BLOCKS = {size: ("-comp", "zstd", "-b", size, "-no-xattrs") for size in ("4K", "1M")}
GZIP = ("-comp", "gzip", "-no-xattrs")


@pytest.mark.parametrize(
    ("fill", "options"),
    [
        *((fill, (*ZSTD, "-no-xattrs")) for fill in (small, large, holes, links, many, deep)),
        *((fill, PLAIN) for fill in (large, holes, many)),
        *((fill, options) for fill in (large, holes) for options in BLOCKS.values()),
        (large, GZIP),
    ],
)
def test_files_are_what_they_were(
    shifter: Launcher,
    store: Path,
    tree: Path,
    fill: Callable[[Path], None],
    options: Sequence[str],
) -> None:
    fill(tree)
    pack(shifter, store, tree, *options)
    assert shifter.inside(SUMS) == sums(tree)


def test_everything_is_listed_once_and_found(shifter: Launcher, store: Path, tree: Path) -> None:
    many(tree)
    pack(shifter, store, tree)
    listed = shifter.inside("ls -a /tree").splitlines()
    assert sorted(listed) == sorted([".", "..", *os.listdir(tree)])
    found = "for each in $(ls /tree); do test -e /tree/$each && echo $each; done | wc -l"
    assert int(shifter.inside(found)) == len(os.listdir(tree))
    assert (
        shifter.inside("ls /tree/nothing || ls /tree/some || echo none", stderr=subprocess.DEVNULL)
        == "none\n"
    )


def test_what_a_file_is_besides_its_bytes(shifter: Launcher, store: Path, tree: Path) -> None:
    links(tree)
    (tree / "private").write_text("x")
    (tree / "private").chmod(0o604)
    os.utime(tree / "private", (1_500_000_000, 1_500_000_000))
    os.mkfifo(tree / "fifo")
    pack(shifter, store, tree)
    show = "cd /tree; stat -c '%F %a %s %h %Y' private a fifo; readlink to; readlink n*"
    lines = shifter.inside(show).splitlines()
    assert lines[0] == "regular file 604 1 1 1500000000"
    assert lines[1].startswith("regular file ")
    assert lines[1].split()[4] == "2"
    assert lines[2].startswith("fifo ")
    assert lines[3:] == ["a", "/" + "t/" * 1500]
    assert shifter.inside("stat -c %i /tree/a") == shifter.inside("stat -c %i /tree/b")


def test_a_sparse_file_has_its_holes_in_a_container(
    shifter: Launcher, store: Path, tree: Path
) -> None:
    holes(tree)
    pack(shifter, store, tree)
    # 128 KiB may be stored of each.
    for name in ("hole", "only"):
        assert int(shifter.inside(f"stat -c %b /tree/{name}")) <= 256


def test_many_who_read_at_once_read_the_same(shifter: Launcher, store: Path, tree: Path) -> None:
    large(tree)
    pack(shifter, store, tree)
    wanted = hashlib.sha256((tree / "noise").read_bytes()).hexdigest()
    each = (
        "(for n in 1 2 3 4 5 6 7 8; do busybox sha256sum /tree/noise & done; wait) | cut -d' ' -f1"
    )
    assert shifter.inside(each).split() == [wanted] * 8


LIBRARIES = f"usr/lib/{platform.machine()}-linux-gnu".replace("ppc64le", "powerpc64le")
LOADERS = {
    "x86_64": "ld-linux-x86-64.so.2",
    "aarch64": "ld-linux-aarch64.so.1",
    "ppc64le": "ld64.so.2",
}


def libraries(tree: Path) -> None:
    """Put into TREE what is read before anybody asks: more than a libc has, and a link."""
    place = tree / LIBRARIES
    place.mkdir(parents=True)
    noise = random.Random(2)
    (place / "libc.so.6").write_bytes(bytes(noise.choices(b"few letters", k=4_000_000)))
    (place / "loader").write_bytes(noise.randbytes(300_001))
    (place / LOADERS[platform.machine()]).symlink_to("loader")


def test_what_is_read_before_anybody_asks_is_what_it_was(
    shifter: Launcher, store: Path, tree: Path
) -> None:
    libraries(tree)
    pack(shifter, store, tree, top=True)
    wanted = [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in (tree / LIBRARIES).iterdir()
    ]
    # In another order each time, for who asks first reads it himself.
    for number in range(8):
        pause = f"busybox usleep {500 * number}"
        names = " ".join(f"/{LIBRARIES}/{path.name}" for path in (tree / LIBRARIES).iterdir())
        read = f"{pause}; busybox sha256sum {names} | cut -d' ' -f1"
        assert shifter.inside(read).split() == wanted


def test_damage_in_a_file_is_an_error_for_who_reads_it(
    shifter: Launcher, store: Path, tree: Path
) -> None:
    (tree / "noise").write_bytes(b"word" * 500_000)
    pack(shifter, store, tree, "-comp", "zstd", "-no-xattrs", "-no-fragments")
    (image,) = store.glob("images/??/*.squashfs")
    data = bytearray(image.read_bytes())
    # Files' data comes first, and busybox is the larger part of it.
    at = data.index(b"\x28\xb5\x2f\xfd", 96)
    blocks = [n for n in range(at, len(data) - 4) if data[n : n + 4] == b"\x28\xb5\x2f\xfd"]
    for n in (n for n in blocks if data[n:].find(b"word", 0, 40) > 0):
        data[n : n + 4] = b"\xff\xff\xff\xff"
    image.write_bytes(data)
    done = shifter.run("-i", "test", "sh", "-c", "cat /tree/noise > /dev/null || echo went on")
    assert (done.returncode, done.stdout) == (0, "went on\n")
    assert "Input/output error" in done.stderr


def test_attributes_are_left_to_squashfuse(shifter: Launcher, store: Path, tree: Path) -> None:
    (tree / "file").write_text("x")
    os.setxattr(tree / "file", "user.colour", b"blue")
    pack(shifter, store, tree, *ZSTD, "-xattrs")
    assert shifter.inside("cat /tree/file") == "x"


def test_no_damage_is_read_out_of_bounds(
    built: Path, tree: Path, playground: Path, store: Path, shifter: Launcher
) -> None:
    for fill in (small, holes, links):
        fill(tree)
    libraries(tree)
    (tree / "many").mkdir()
    many(tree / "many")
    image = playground / "image"
    command = ["mksquashfs", str(tree), str(image), *ZSTD, "-no-xattrs", "-quiet", "-no-progress"]
    subprocess.run(command, check=True)
    driver = [str(built / "obj/serve_fuzz"), str(image), "1000"]
    environment = {"ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(driver, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
