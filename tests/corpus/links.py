"""Hard links: further names of one file, wherever its first name has gone."""

from __future__ import annotations

from tests.corpus.case import (
    IMPLIED,
    Case,
    holds,
    is_directory,
    is_fifo,
    is_file,
    is_symlink,
    refused,
    same_as,
)
from tests.helpers import raw
from tests.helpers.images import (
    directory,
    fifo,
    file,
    hardlink,
    symlink,
    whiteout,
)

_A = file("a", b"1")
_TWO = {"a": is_file(b"1"), "b": same_as("a")}

_TARGETS = [
    holds("a hard link is another name of a file", [_A, hardlink("b", "a")], tree=_TWO),
    holds("a hard link to a file of a lower layer is", [_A], [hardlink("b", "a")], tree=_TWO),
    holds("a hard link over three layers is", [_A], [], [hardlink("b", "a")], tree=_TWO),
    holds("a link's target may begin with /", [_A, hardlink("b", "/a")], tree=_TWO),
    holds("a link's target may begin with ./", [_A, hardlink("b", "./a")], tree=_TWO),
    holds("a link's target may have slashes too many", [_A, hardlink("b", ".//a/")], tree=_TWO),
    holds(
        "a link's target is written from the root",
        [file("d/a", b"1"), file("a", b"2"), hardlink("d/b", "a")],
        tree={"d": IMPLIED, "d/a": is_file(b"1"), "a": is_file(b"2"), "d/b": same_as("a")},
    ),
    holds(
        "a hard link may be in another directory",
        [_A, hardlink("d/e/b", "a")],
        tree={"a": is_file(b"1"), "d": IMPLIED, "d/e": IMPLIED, "d/e/b": same_as("a")},
    ),
    holds(
        "a link's target may lie behind a symbolic link",
        [file("d/a", b"1"), symlink("s", "d"), hardlink("b", "s/a")],
        tree={"d": IMPLIED, "d/a": is_file(b"1"), "s": is_symlink("d"), "b": same_as("d/a")},
    ),
    holds(
        "a link's target may lie behind an absolute symbolic link of a lower layer",
        [file("d/a", b"1"), symlink("s", "/d")],
        [hardlink("b", "s/a")],
        tree={"d": IMPLIED, "d/a": is_file(b"1"), "s": is_symlink("/d"), "b": same_as("d/a")},
    ),
    holds(
        "a link's target behind a symbolic link that climbs is in the image",
        [file("etc/a", b"1"), symlink("s", "../../../etc"), hardlink("b", "s/a")],
        tree={
            "etc": IMPLIED,
            "etc/a": is_file(b"1"),
            "s": is_symlink("../../../etc"),
            "b": same_as("etc/a"),
        },
    ),
    holds(
        "a hard link may be named through a symbolic link",
        [file("d/a", b"1"), symlink("s", "d"), hardlink("s/b", "d/a")],
        tree={"d": IMPLIED, "d/a": is_file(b"1"), "s": is_symlink("d"), "d/b": same_as("d/a")},
    ),
    holds(
        "a hard link to a symbolic link is another name of that",
        [_A, symlink("s", "a"), hardlink("b", "s")],
        tree={"a": is_file(b"1"), "s": is_symlink("a"), "b": same_as("s")},
    ),
    holds(
        "a hard link to a symbolic link to nothing is another name of that",
        [symlink("s", "nowhere"), hardlink("b", "s")],
        tree={"s": is_symlink("nowhere"), "b": same_as("s")},
    ),
    holds(
        "a hard link to a symbolic link to a directory is another name of the link",
        [directory("d"), symlink("s", "d"), hardlink("b", "s")],
        tree={"d": is_directory(), "s": is_symlink("d"), "b": same_as("s")},
    ),
    holds(
        "a hard link to a named pipe of a lower layer is another name of it",
        [fifo("p")],
        [hardlink("q", "p")],
        tree={"p": is_fifo(), "q": same_as("p")},
    ),
    holds(
        "a hard link to an empty file is another name of it",
        [file("a"), hardlink("b", "a")],
        tree={"a": is_file(), "b": same_as("a")},
    ),
    holds(
        "hard links may be chained",
        [_A, hardlink("b", "a"), hardlink("c", "b"), hardlink("d", "c")],
        tree={**_TWO, "c": same_as("a"), "d": same_as("a")},
    ),
    holds(
        "a hundred names of one file are names of one file",
        [_A, *(hardlink(f"b{n}", "a") for n in range(99))],
        tree={"a": is_file(b"1"), **{f"b{n}": same_as("a") for n in range(99)}},
    ),
    holds(
        "a link has the attributes of its target, whatever its own header says",
        [file("a", b"1", mode=0o600, mtime=5), hardlink("b", "a", mode=0o755, mtime=9)],
        tree={"a": is_file(b"1", mtime=5), "b": same_as("a")},
    ),
    holds(
        "a hard link to itself is the file that it is",
        [_A, hardlink("a", "a")],
        tree={"a": is_file(b"1")},
    ),
    holds(
        "a hard link to its own other name is the file that it is",
        [_A, hardlink("b", "a"), hardlink("a", "b")],
        tree=_TWO,
    ),
]

_MISSING = "which is missing"
_REFUSALS = [
    refused(
        "a link to nothing is refused",
        [hardlink("b", "a")],
        because=["layer 1", "'b'", "'a'", _MISSING],
    ),
    refused(
        "a link before its target is refused",
        [hardlink("b", "a"), _A],
        because=["layer 1", "'b'", "'a'", _MISSING],
    ),
    refused(
        "a link to what a lower layer has deleted is refused",
        [_A],
        [whiteout("a")],
        [hardlink("b", "a")],
        because=["layer 3", "'b'", "'a'", _MISSING],
    ),
    refused(
        "a link to itself alone is refused",
        [hardlink("a", "a")],
        because=["layer 1", "'a'", _MISSING],
    ),
    refused(
        "links in a circle are refused",
        [hardlink("a", "b"), hardlink("b", "a")],
        because=["layer 1", "'a'", "'b'", _MISSING],
    ),
    refused(
        "a link to a directory is refused",
        [directory("d"), hardlink("b", "d")],
        because=["layer 1", "'b'", "hard link to a directory"],
    ),
    refused(
        "a link to a directory that no entry is about is refused",
        [file("d/x"), hardlink("b", "d")],
        because=["layer 1", "'b'", "hard link to a directory"],
    ),
    refused(
        "a link to the root is refused",
        [hardlink("b", "/")],
        because=["layer 1", "'b'", "hard link to a directory"],
    ),
    refused(
        "a link to no name is refused",
        [hardlink("b", "")],
        because=["layer 1", "'b'", "hard link to a directory"],
    ),
    refused(
        "a link to a lower file that is now a directory is refused",
        [_A],
        [directory("a"), hardlink("b", "a")],
        because=["layer 2", "'b'", "hard link to a directory"],
    ),
    refused(
        "a link's target is not looked for beside the link",
        [file("d/a"), hardlink("d/b", "a")],
        because=["layer 1", "'d/b'", "'a'", _MISSING],
    ),
    refused(
        "a link to a file of the host is refused",
        [hardlink("b", "/etc/hostname")],
        because=["layer 1", "'b'", "'/etc/hostname'", _MISSING],
    ),
    refused(
        "a link whose target climbs is refused",
        [_A, hardlink("b", "../a")],
        because=["layer 1", "'b'", "climbs"],
    ),
    refused(
        "a link whose target climbs within the image is refused",
        [_A, hardlink("b", "d/../a")],
        because=["layer 1", "'b'", "climbs"],
    ),
    refused(
        "a link to a whiteout is refused",
        [file(".wh.a"), hardlink("b", ".wh.a")],
        because=["layer 1", "'b'", "'.wh.a'", _MISSING],
    ),
    refused(
        "a link below its own target is refused",
        [_A, hardlink("a/b", "a")],
        because=["layer 1", "'a/b'", "below what is no directory"],
    ),
]

_C = file("c", b"c")
_SIZES = [
    holds(
        "a link's size without data means nothing",
        [_A, raw.member("b", kind=b"1", link="a", size=700), _C],
        tree={**_TWO, "c": is_file(b"c")},
    ),
    holds(
        "a link's size in a pax header without data means nothing",
        [_A, raw.pax({"size": "700"}), raw.member("b", kind=b"1", link="a"), _C],
        tree={**_TWO, "c": is_file(b"c")},
    ),
    holds(
        "a link's size at the end of the archive means nothing",
        [_A, raw.member("b", kind=b"1", link="a", size=700)],
        tree=_TWO,
    ),
    holds(
        "a link before an extended header keeps its size to itself",
        [_A, raw.member("b", kind=b"1", link="a", size=700), raw.pax({"path": "d"}), _C],
        tree={**_TWO, "d": is_file(b"c")},
    ),
    holds(
        "a link may carry its file's data, as pax lets it",
        [_A, raw.member("b", b"1", b"1", link="a"), _C],
        tree={**_TWO, "c": is_file(b"c")},
    ),
    holds(
        "a link may carry several blocks of data",
        [file("a", b"1" * 1500), raw.member("b", b"1" * 1500, b"1", link="a"), _C],
        tree={"a": is_file(b"1" * 1500), "b": same_as("a"), "c": is_file(b"c")},
    ),
    refused(
        "a link's data that is cut off is damage",
        raw.member("a", b"1" * 1500) + raw.member("b", b"1" * 600, b"1", link="a", size=2000),
        because=["layer 1", "cut off in the data of a hard link"],
    ),
]

CASES: list[Case] = [*_TARGETS, *_REFUSALS, *_SIZES]
