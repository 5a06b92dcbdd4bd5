"""What our writer writes, everybody reads alike: unsquashfs, squashfuse and the kernel."""

from __future__ import annotations

import os
import random
import resource
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shifter_lite.build import metadata, squash, squashfs
from shifter_lite.build.content import Writer
from shifter_lite.build.merge import Tree
from shifter_lite.build.press import BLOCK
from shifter_lite.build.tree import Directory, Fifo, File, Node, Symlink
from shifter_lite.build.zstd import Compressor
from shifter_lite.config import Policy
from shifter_lite.records import Config, Content

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")

# A tree: path to content, to "-> target", to None for a directory, to "= path" for a hard link.
Listing = dict[str, bytes | str | None]
Found = dict[bytes, tuple[object, ...]]


def write(path: Path, listing: Listing, *, start: int = squashfs.HEADER_SIZE) -> Tree:
    """Write an image of LISTING to PATH, its data from byte START on; return the tree."""
    tree = Tree(Policy())
    with path.open("x+b", buffering=0) as file:
        add(file, tree, listing, start)
    return tree


def add(file: FileIO, tree: Tree, listing: Listing, start: int) -> None:
    file.seek(start)
    compressor = Compressor(3)
    writer = Writer(file, compressor)
    nodes: dict[str, Node] = {}
    for name, what in listing.items():
        parent: Directory = tree.root
        *above, last = os.fsencode(name).split(b"/")
        for part in above:
            child = parent.children.setdefault(part, Directory(0o755, 7))
            assert isinstance(child, Directory)
            parent = child
        node = nodes[name] = make(what, writer, nodes)
        if isinstance(what, str) and what.startswith("= "):
            tree.linked.add(node)
        else:
            node.mode, node.mtime = 0o755, 1_000_000_000
        parent.children[last] = node
    writer.finish()
    squashfs.write(file, writer.position, tree, writer.contents, compressor)
    os.ftruncate(file.fileno(), os.fstat(file.fileno()).st_size + 4096)


def make(what: bytes | str | None, writer: Writer, nodes: dict[str, Node]) -> Node:
    match what:
        case None:
            return Directory()
        case "fifo":
            return Fifo()
        case str() if what.startswith("-> "):
            return Symlink(os.fsencode(what[3:]))
        case str():
            return nodes[what[2:]]
    if not what:
        return File()
    number = len(writer.contents)
    if len(what) < BLOCK:
        writer.small(what)
    else:
        writer.large(len(what), (what[at : at + BLOCK] for at in range(0, len(what), BLOCK)))
    return File(number)


# --------------------------------------------------------------------------------- three readers


def found_in(root: Path) -> Found:
    """Return what is at and below ROOT, whose names share inodes where they should."""
    links: dict[int, list[bytes]] = {}
    found: Found = {}
    for directory, names, files in os.walk(os.fsencode(root)):
        for name in [b"."] if not found else [*names, *files]:
            path = os.path.normpath(os.path.join(directory, name))
            add_found(found, path, os.path.relpath(path, os.fsencode(root)), links)
            if name == b".":
                for each in [*names, *files]:
                    path = os.path.join(directory, each)
                    add_found(found, path, each, links)
    for group in links.values():
        for path in group:
            found[path] = (*found[path], tuple(sorted(group)))
    return found


def add_found(found: Found, path: bytes, name: bytes, links: dict[int, list[bytes]]) -> None:
    status = os.lstat(path)
    content: object = None
    if stat.S_ISREG(status.st_mode):
        content = Path(os.fsdecode(path)).read_bytes()
        if status.st_nlink > 1:
            links.setdefault(status.st_ino, []).append(name)
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)
    found[name] = (*mode, int(status.st_mtime), content, status.st_uid, status.st_gid)


@contextmanager
def unsquashed(image: Path) -> Iterator[Path]:
    target = image.with_suffix(".unsquashed")
    subprocess.run(["unsquashfs", "-q", "-n", "-d", target, image], check=True, capture_output=True)
    yield target


@contextmanager
def fused(image: Path) -> Iterator[Path]:
    target = image.with_suffix(".fused")
    target.mkdir()
    subprocess.run(["squashfuse", image, target], check=True, capture_output=True)
    try:
        yield target
    finally:
        subprocess.run(["fusermount", "-u", target], check=True)


@contextmanager
def mounted(image: Path) -> Iterator[Path]:
    target = image.with_suffix(".mounted")
    target.mkdir()
    subprocess.run(["mount", "-t", "squashfs", "-o", "loop,ro", image, target], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)


READERS = [
    pytest.param(unsquashed, marks=needs_root),
    fused,
    pytest.param(mounted, marks=needs_root),
]
Reader = Callable[[Path], AbstractContextManager[Path]]


def expected(listing: Listing) -> dict[bytes, object]:
    """Return path to content of what LISTING has."""
    found: dict[bytes, object] = {}
    for name, what in listing.items():
        match what:
            case str() if what.startswith("= "):
                found[os.fsencode(name)] = found[os.fsencode(what[2:])]
            case str() if what.startswith("-> "):
                found[os.fsencode(name)] = os.fsencode(what[3:])
            case str():
                found[os.fsencode(name)] = None
            case _:
                found[os.fsencode(name)] = what
    return found


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


ODD: Listing = {
    "empty": b"",
    "one": b"1",
    "text": b"some text\n" * 1000,
    "just below a block": noise(BLOCK - 1),
    "a block": noise(BLOCK),
    "just above": noise(BLOCK + 1),
    "packs well": b"abc" * BLOCK,
    "zeros": bytes(3 * BLOCK + 5),
    "small zeros": bytes(100),
    "a hole inside": noise(BLOCK) + bytes(2 * BLOCK) + noise(77),
    "ends in a hole": noise(BLOCK) + bytes(BLOCK // 2),
    "twice/a": noise(2 * BLOCK, 3),
    "twice/b": noise(2 * BLOCK, 3),
    "almost/a": noise(2 * BLOCK, 4) + b"x",
    "almost/b": noise(2 * BLOCK, 4) + b"y",
    "small/twice/a": b"equal",
    "small/twice/b": b"equal",
    "links/first": noise(200_000, 5),
    "links/second": "= links/first",
    "links/far/third": "= links/first",
    "links/small": b"small",
    "links/small too": "= links/small",
    "links/to link": "-> ../one",
    "links/the same link": "= links/to link",
    "directory": None,
    "fifo": "fifo",
    "dangling": "-> /nowhere at all",
    "long target": "-> " + "x/" * 2000,
    "new\nline": b"n",
    "latin-\udce9": b"l",
    "x" * 255: b"longest name",
    "/".join(["deep"] * 400): b"bottom",
}


@pytest.mark.parametrize("reader", READERS)
def test_odd_files_are_read_back_as_they_were(reader: Reader, tmp_path: Path) -> None:
    write(tmp_path / "image", ODD)
    with reader(tmp_path / "image") as root:
        found = found_in(root)
    for name, what in expected(ODD).items():
        assert found[name][3] == what, name
        assert found[name][2] == 1_000_000_000
        if reader is not unsquashed or os.getuid() == 0:
            assert found[name][4:6] == (0, 0)
    links = (b"links/far/third", b"links/first", b"links/second")
    # squashfuse gives each name a number of its own.
    assert reader is fused or all(found[name][-1] == links for name in links)


@pytest.mark.parametrize("reader", READERS)
def test_a_directory_of_30000_names_is_listed_and_every_name_is_found(
    reader: Reader, tmp_path: Path
) -> None:
    names = [f"{'name' * (number % 50)}{number}" for number in range(30_000)]
    write(tmp_path / "image", {f"d/{name}": b"%d" % number for number, name in enumerate(names)})
    with reader(tmp_path / "image") as root:
        assert sorted(os.listdir(root / "d")) == sorted(names)
        for number in random.Random(7).sample(range(30_000), 500):
            assert (root / "d" / names[number]).read_bytes() == b"%d" % number
        assert not (root / "d" / "nobody").exists()
        assert not (root / "d" / "zzz").exists()


@pytest.mark.parametrize("reader", READERS)
def test_data_beyond_four_gigabytes_is_found(reader: Reader, tmp_path: Path) -> None:
    listing: Listing = {"large": noise(300_000), "small": b"small", "d/text": b"text" * 50_000}
    # Sparse: what lies before is never written.
    write(tmp_path / "image", listing, start=5 << 30)
    with reader(tmp_path / "image") as root:
        for name, what in listing.items():
            assert (root / name).read_bytes() == what


@pytest.mark.parametrize("reader", READERS)
def test_many_names_of_one_file_in_many_directories(reader: Reader, tmp_path: Path) -> None:
    listing: Listing = {"first": b"content"}
    listing |= {f"{number % 70}/{number}": "= first" for number in range(5000)}
    write(tmp_path / "image", listing)
    with reader(tmp_path / "image") as root:
        assert (root / "first").stat().st_nlink == 5001 or reader is fused
        assert (root / "69/4969").read_bytes() == b"content"


@pytest.mark.parametrize("reader", READERS)
def test_an_image_of_nothing_is_an_empty_root(reader: Reader, tmp_path: Path) -> None:
    write(tmp_path / "image", {})
    with reader(tmp_path / "image") as root:
        assert os.listdir(root) == []


@pytest.mark.parametrize("reader", READERS)
def test_a_directory_counts_its_subdirectories(reader: Reader, tmp_path: Path) -> None:
    write(tmp_path / "image", {"d/a": None, "d/b": None, "d/f": b"", "d/c/e": None})
    with reader(tmp_path / "image") as root:
        assert (root / "d").stat().st_nlink == 5


@needs_root
def test_extended_attributes_of_users_are_kept_on_request(tmp_path: Path) -> None:
    listing: Listing = {"f": b"x", "g": b"y", "large": noise(BLOCK), "d": None, "plain": b"z"}
    listing |= {f"many/{number}": b"" for number in range(2000)}
    tree = Tree(Policy(user_xattrs=True))
    with (tmp_path / "image").open("x+b", buffering=0) as file:
        file.seek(squashfs.HEADER_SIZE)
        writer = Writer(file, Compressor(3))
        nodes: dict[str, Node] = {}
        many = Directory(0o755)
        tree.root.children[b"many"] = many
        for name, what in listing.items():
            node = nodes[name] = make(what, writer, nodes)
            node.mode = 0o755
            parent = many if name.startswith("many/") else tree.root
            parent.children[name.removeprefix("many/").encode()] = node
            if name != "plain":
                value = name.encode() if name in ("f", "d") else b"\0\xff" * 300
                tree.xattrs[node] = ((b"user.empty", b""), (b"user.name", value))
        writer.finish()
        squashfs.write(file, writer.position, tree, writer.contents, Compressor(3))
        file.truncate(file.seek(0, os.SEEK_END) + 4096)
    for reader in (mounted, unsquashed):
        with reader(tmp_path / "image") as root:
            assert os.getxattr(root / "f", "user.name") == b"f"
            assert os.getxattr(root / "d", "user.name") == b"d"
            assert os.getxattr(root / "large", "user.name") == b"\0\xff" * 300
            assert os.getxattr(root / "many/1999", "user.empty") == b""
            assert os.listxattr(root / "plain") == []


@pytest.mark.parametrize("processors", [1, 2])
def test_the_bytes_do_not_depend_on_the_processors(
    processors: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "usual", ODD)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    write(tmp_path / "other", ODD)
    assert (tmp_path / "usual").read_bytes() == (tmp_path / "other").read_bytes()


def test_equal_files_are_stored_once(tmp_path: Path) -> None:
    large, small = noise(5 * BLOCK), noise(1000)
    write(tmp_path / "one", {"a": large, "b": small})
    write(tmp_path / "two", {"a": large, "b": small, "c": large, "d": small})
    grown = (tmp_path / "two").stat().st_size - (tmp_path / "one").stat().st_size
    assert grown < 4096


NAME = st.sampled_from(["a", "b", "a/c", "b/c/d", "e", "f/g", "f/h", "\udcff"])
DATA = st.one_of(
    st.binary(max_size=50),
    st.tuples(st.integers(1, 3 * BLOCK), st.integers(0, 3)).map(lambda pair: noise(*pair)),
    st.integers(1, 3 * BLOCK).map(bytes),
)


@pytest.mark.skipif(os.getuid() != 0, reason="unsquashfs gives files to root only as root")
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(listing=st.dictionaries(NAME, DATA))
def test_any_tree_is_read_back_as_it_was(
    listing: Listing, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # A file cannot be a directory as well.
    kept = {
        name: what
        for name, what in listing.items()
        if not any(other.startswith(f"{name}/") for other in listing)
    }
    directory = tmp_path_factory.mktemp("any")
    write(directory / "image", kept)
    with unsquashed(directory / "image") as root:
        for name, what in kept.items():
            assert (root / name).read_bytes() == what


@pytest.mark.parametrize("reader", READERS)
def test_a_directory_too_large_for_its_index_is_found_in_all_the_same(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Sixteen bits count the index: more than 500 MB of names.
    monkeypatch.setattr(metadata, "_MOST_INDEXES", 2)
    names = [f"d/{n:04}{'n' * 200}" for n in range(1000)]
    write(tmp_path / "image", dict.fromkeys(names, b"x"))
    with reader(tmp_path / "image") as root:
        assert len(os.listdir(root / "d")) == 1000
        assert all((root / name).stat().st_size == 1 for name in names)


def test_a_description_that_a_full_disk_cuts_off_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "given", {"f": b"x"})
    given = (tmp_path / "given").read_bytes()
    content = Content(
        digest="sha256:" + 64 * "0", platform="", recipe="", layers=(), config=Config()
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (tmp_path / "image").open("x+b", buffering=0) as file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(given) + 100, hard))
        try:
            with pytest.raises(OSError, match="too large"):
                squash.adopt(file, [given], content)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
