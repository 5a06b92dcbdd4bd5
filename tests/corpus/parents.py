"""What is above an entry: nothing, a symbolic link, a file; and the root itself."""

from __future__ import annotations

from tests.corpus.case import (
    IMPLIED,
    Case,
    Is,
    holds,
    is_directory,
    is_fifo,
    is_file,
    is_symlink,
    refused,
)
from tests.helpers import raw
from tests.helpers.images import device, directory, fifo, file, hardlink, symlink

_X = {"d/x": is_file()}
_D = {"d": is_directory()}


def _ladder(rungs: int) -> list[Case]:
    """A chain of so many symbolic links is followed; of one more than 255, not."""
    links = [symlink(f"l{n}", f"l{n - 1}") for n in range(1, rungs + 1)]
    entries = [directory("l0"), *links, file(f"l{rungs}/x")]
    tree: dict[str, Is] = {"l0": is_directory(), "l0/x": is_file()}
    tree |= {f"l{n}": is_symlink(f"l{n - 1}") for n in range(1, rungs + 1)}
    if rungs <= 255:
        return [holds(f"a chain of {rungs} symbolic links is followed", entries, tree=tree)]
    words = ["layer 1", "too many symbolic links", f"'l{rungs}'"]
    return [refused(f"a chain of {rungs} symbolic links is refused", entries, because=words)]


_LINKS = [
    holds(
        "a file goes where its parent, a symbolic link of its layer, leads",
        [directory("d"), symlink("s", "d"), file("s/x")],
        tree={**_D, **_X, "s": is_symlink("d")},
    ),
    holds(
        "a file goes where its parent, a symbolic link of a lower layer, leads",
        [directory("d"), symlink("s", "d")],
        [file("s/x")],
        tree={**_D, **_X, "s": is_symlink("d")},
    ),
    holds(
        "an absolute symbolic link begins at the image's root",
        [directory("d"), symlink("e/s", "/d"), file("e/s/x")],
        tree={**_D, **_X, "e": IMPLIED, "e/s": is_symlink("/d")},
    ),
    holds(
        "a symbolic link to nothing makes the directory that it leads to",
        [symlink("s", "n/m")],
        [file("s/x")],
        tree={"s": is_symlink("n/m"), "n": IMPLIED, "n/m": IMPLIED, "n/m/x": is_file()},
    ),
    holds(
        "an absolute symbolic link to nothing makes a directory in the image",
        [symlink("s", "/n"), file("s/x")],
        tree={"s": is_symlink("/n"), "n": IMPLIED, "n/x": is_file()},
    ),
    holds(
        "a symbolic link that climbs ends at the image's root",
        [symlink("s", "../../../etc"), file("s/x")],
        tree={"s": is_symlink("../../../etc"), "etc": IMPLIED, "etc/x": is_file()},
    ),
    holds(
        "an absolute symbolic link that climbs ends at the image's root",
        [symlink("s", "/../../etc"), file("s/x")],
        tree={"s": is_symlink("/../../etc"), "etc": IMPLIED, "etc/x": is_file()},
    ),
    holds(
        "a symbolic link to the host's files leads into the image",
        [symlink("s", "/etc"), file("s/passwd", b"mine")],
        tree={"s": is_symlink("/etc"), "etc": IMPLIED, "etc/passwd": is_file(b"mine")},
    ),
    holds(
        "a symbolic link may lead to the root",
        [symlink("s", "/"), file("s/x")],
        tree={"s": is_symlink("/"), "x": is_file()},
    ),
    holds(
        "a symbolic link may lead to where it is",
        [symlink("s", "."), file("s/x")],
        tree={"s": is_symlink("."), "x": is_file()},
    ),
    holds(
        "a symbolic link may lead out of what it leads into",
        [directory("d/e"), symlink("s", "d/e/.."), file("s/x")],
        tree={"d": IMPLIED, "d/e": is_directory(), **_X, "s": is_symlink("d/e/..")},
    ),
    holds(
        "a symbolic link may lead out of what is not there",
        [symlink("s", "n/../d"), file("s/x")],
        tree={"s": is_symlink("n/../d"), "d": IMPLIED, **_X},
    ),
    holds(
        "symbolic links are followed one after the other, each from where it is",
        [
            directory("d"),
            symlink("s", "t"),
            symlink("t", "u/v"),
            symlink("u", "w"),
            directory("w"),
            symlink("w/v", "../d"),
            file("s/x"),
        ],
        tree={
            **_D,
            **_X,
            "s": is_symlink("t"),
            "t": is_symlink("u/v"),
            "u": is_symlink("w"),
            "w": is_directory(),
            "w/v": is_symlink("../d"),
        },
    ),
    holds(
        "a directory goes where its parent leads",
        [directory("d"), symlink("s", "d"), directory("s/e", mode=0o1777, mtime=4)],
        tree={**_D, "s": is_symlink("d"), "d/e": is_directory(mode=0o1777, mtime=4)},
    ),
    holds(
        "a symbolic link goes where its parent leads",
        [directory("d"), symlink("s", "d"), symlink("s/e", "f")],
        tree={**_D, "s": is_symlink("d"), "d/e": is_symlink("f")},
    ),
    holds(
        "a named pipe goes where its parent leads",
        [directory("d"), symlink("s", "d"), fifo("s/p")],
        tree={**_D, "s": is_symlink("d"), "d/p": is_fifo()},
    ),
    holds(
        "a file replaces a file where its parent leads",
        [file("d/x", b"1"), symlink("s", "d")],
        [file("s/x", b"2")],
        tree={"d": IMPLIED, "d/x": is_file(b"2"), "s": is_symlink("d")},
    ),
    holds(
        "a name that is a symbolic link itself is replaced, not followed",
        [file("x", b"1"), symlink("s", "x")],
        [file("s", b"2")],
        tree={"x": is_file(b"1"), "s": is_file(b"2")},
    ),
    holds(
        "a directory's own entry replaces a symbolic link of its layer",
        [directory("d"), file("d/y"), symlink("s", "d"), directory("s"), file("s/x")],
        tree={**_D, "d/y": is_file(), "s": is_directory(), "s/x": is_file()},
    ),
    holds(
        "a directory's own entry replaces a symbolic link of a lower layer",
        [directory("d"), file("d/y"), symlink("s", "d")],
        [directory("s"), file("s/x")],
        tree={**_D, "d/y": is_file(), "s": is_directory(), "s/x": is_file()},
    ),
    holds(
        "a directory's own entry counts from where it stands in its layer",
        [directory("d"), symlink("s", "d")],
        [file("s/x"), directory("s"), file("s/y")],
        tree={**_D, **_X, "s": is_directory(), "s/y": is_file()},
    ),
    holds(
        "a symbolic link in place of a lower directory leads what follows it",
        [directory("s"), file("s/y")],
        [symlink("s", "d"), directory("d"), file("s/x")],
        tree={**_D, **_X, "s": is_symlink("d")},
    ),
    holds(
        "a symbolic link in place of a directory takes what came before it",
        [directory("s"), file("s/y")],
        [file("s/x"), symlink("s", "d"), directory("d")],
        tree={**_D, "s": is_symlink("d")},
    ),
    refused(
        "a symbolic link to itself is no directory",
        [symlink("s", "s"), file("s/x")],
        because=["layer 1", "too many symbolic links", "'s'"],
    ),
    refused(
        "symbolic links in a circle are no directory",
        [symlink("s", "t"), symlink("t", "s")],
        [file("s/x")],
        because=["layer 2", "too many symbolic links", "'s'"],
    ),
    refused(
        "a circle through a directory is no directory",
        [symlink("d/s", "../d/s/e"), file("d/s/x")],
        because=["layer 1", "too many symbolic links"],
    ),
    refused(
        "a symbolic link to a file of the layer is no directory",
        [file("f", b"f"), symlink("s", "f"), file("s/x")],
        because=["layer 1", "'s/x'", "below what is no directory", "'f'"],
    ),
    refused(
        "a symbolic link to a file of a lower layer is no directory",
        [file("f", b"f"), symlink("s", "f")],
        [file("s/x")],
        because=["layer 2", "'s/x'", "below what is no directory", "'f'"],
    ),
    *_ladder(40),
    *_ladder(41),
    *_ladder(255),
    *_ladder(256),
]

_FILES = [
    holds(
        "a file of a lower layer becomes the directory of what is below it",
        [file("f", b"f")],
        [file("f/x")],
        tree={"f": IMPLIED, "f/x": is_file()},
    ),
    holds(
        "a file of a lower layer becomes a directory of directories",
        [file("f", b"f")],
        [directory("f/g/h")],
        tree={"f": IMPLIED, "f/g": IMPLIED, "f/g/h": is_directory()},
    ),
    holds(
        "a named pipe of a lower layer becomes a directory",
        [fifo("f")],
        [file("f/x")],
        tree={"f": IMPLIED, "f/x": is_file()},
    ),
    refused(
        "a name below a file of its own layer is refused",
        [file("f"), file("f/x")],
        because=["layer 1", "'f/x'", "below what is no directory", "'f'"],
    ),
    refused(
        "a name deep below a file of its own layer is refused",
        [directory("d")],
        [file("d/f"), file("d/f/g/x")],
        because=["layer 2", "'d/f/g/x'", "below what is no directory", "'f'"],
    ),
    refused(
        "a name below a named pipe of its own layer is refused",
        [fifo("f"), file("f/x")],
        because=["layer 1", "'f/x'", "below what is no directory", "'f'"],
    ),
    refused(
        "a name below a device of its own layer is refused",
        [device("f", 1, 3), file("f/x")],
        because=["layer 1", "'f/x'", "below what is no directory", "'f'"],
    ),
]

_MISSING = [
    holds(
        "missing parents are there",
        [file("a/b/c/x")],
        tree={"a": IMPLIED, "a/b": IMPLIED, "a/b/c": IMPLIED, "a/b/c/x": is_file()},
    ),
    holds(
        "missing parents are there for what is no file",
        [symlink("a/s", "x"), fifo("b/p"), directory("c/d"), device("e/n", 1, 3)],
        tree={
            "a": IMPLIED,
            "a/s": is_symlink("x"),
            "b": IMPLIED,
            "b/p": is_fifo(),
            "c": IMPLIED,
            "c/d": is_directory(),
            "e": IMPLIED,
        },
    ),
    holds(
        "missing parents leave those that are there as they are",
        [directory("a", mode=0o1777, mtime=9)],
        [file("a/b/x")],
        tree={"a": is_directory(mode=0o1777, mtime=9), "a/b": IMPLIED, "a/b/x": is_file()},
    ),
    holds(
        "a missing parent that a later layer gives attributes has them",
        [file("a/x")],
        [directory("a", mode=0o1777, mtime=9)],
        tree={"a": is_directory(mode=0o1777, mtime=9), "a/x": is_file()},
    ),
    holds(
        "/tmp of a lower layer stays what it is",
        [directory("tmp", mode=0o1777, mtime=9)],
        [file("tmp/x")],
        tree={"tmp": is_directory(mode=0o1777, mtime=9), "tmp/x": is_file()},
    ),
    holds(
        "what has to be there may be something else",
        [symlink("dev", "d"), file("proc"), symlink("tmp", "/var/tmp"), fifo("sys")],
        tree={
            "dev": is_symlink("d"),
            "proc": is_file(),
            "tmp": is_symlink("/var/tmp"),
            "sys": is_fifo(),
        },
    ),
    holds(
        "what has to be there is no device", [device("dev", 1, 3), device("proc", 1, 3)], tree={}
    ),
]

_NEW_ROOT = {".": is_directory(mode=0o1777, mtime=77)}
_ROOT = [
    *(
        holds(
            f"the root has the attributes of its entry {name!r}",
            [directory(name, mode=0o1777, mtime=77), file("x")],
            tree={**_NEW_ROOT, "x": is_file()},
        )
        for name in (".", "./", "/", "//", "./.", ".//")
    ),
    holds(
        "an entry without a name is the root",
        [raw.member("", kind=b"5", mode=0o1777, mtime=77), file("x")],
        tree={**_NEW_ROOT, "x": is_file()},
    ),
    holds(
        "the root has the attributes that the highest layer gives it",
        [directory("./", mode=0o755, mtime=76)],
        [directory("./", mode=0o1777, mtime=77)],
        [],
        tree=_NEW_ROOT,
    ),
    *(
        refused(
            f"the root cannot be a {kind}",
            [file("x"), entry],
            because=["layer 1", "would replace the root directory"],
        )
        for kind, entry in (
            ("file", file("./", b"x")),
            ("symbolic link", symlink(".", "etc")),
            ("hard link", hardlink("/", "x")),
            ("named pipe", fifo("/")),
            ("device", device("/", 1, 3)),
            ("file without a name", raw.member("", b"data")),
        )
    ),
]

CASES: list[Case] = [*_LINKS, *_FILES, *_MISSING, *_ROOT]
