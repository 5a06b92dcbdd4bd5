"""Whiteouts that no tool should write, and those of aufs, which it did write."""

from __future__ import annotations

from tests.corpus.case import (
    IMPLIED,
    Case,
    holds,
    is_directory,
    is_file,
    is_symlink,
    refused,
    same_as,
)
from tests.helpers.images import (
    device,
    directory,
    fifo,
    file,
    hardlink,
    opaque,
    symlink,
    whiteout,
)

_LOWER = [file("a", b"a"), file("b", b"b")]
_B = {"b": is_file(b"b")}
_LOOP = [symlink("s", "t"), symlink("t", "s")]

_TYPES = [
    holds("a whiteout may be a directory", _LOWER, [directory(".wh.a")], tree=_B),
    holds("a whiteout may be a symbolic link", _LOWER, [symlink(".wh.a", "b")], tree=_B),
    holds(
        "a whiteout may be a device, as overlayfs has it", _LOWER, [device(".wh.a", 0, 0)], tree=_B
    ),
    holds("a whiteout may be a named pipe", _LOWER, [fifo(".wh.a")], tree=_B),
    holds(
        "a whiteout may be a hard link to another whiteout, as aufs has it",
        _LOWER,
        [file(".wh.b"), hardlink(".wh.a", ".wh.b")],
        tree={},
    ),
    holds(
        "a whiteout may have data, which belongs to nothing",
        _LOWER,
        [file(".wh.a", b"data" * 500), file("c", b"c")],
        tree={**_B, "c": is_file(b"c")},
    ),
    holds(
        "an opaque mark may have data, which belongs to nothing",
        [directory("d"), file("d/x")],
        [file("d/.wh..wh..opq", b"data" * 500), file("d/c", b"c")],
        tree={"d": is_directory(), "d/c": is_file(b"c")},
    ),
    holds(
        "an opaque mark may be a directory",
        [directory("d"), file("d/x")],
        [directory("d/.wh..wh..opq")],
        tree={"d": is_directory()},
    ),
]

_LINKED = [directory("r"), file("r/o", b"o"), symlink("s", "r")]
_KEPT = {"r": is_directory(), "r/o": is_file(b"o"), "s": is_directory()}
_NEW = {**_KEPT, "s/n": is_file(b"n")}

_REPLACED = [
    holds(
        "an opaque mark below a directory that replaces a link leaves the link's target",
        _LINKED,
        [directory("s"), opaque("s"), file("s/n", b"n")],
        tree=_NEW,
    ),
    holds(
        "nor does it matter that the mark stands before the directory",
        _LINKED,
        [opaque("s"), file("s/n", b"n"), directory("s")],
        tree=_KEPT | {"r/n": is_file(b"n")},
    ),
    holds(
        "a whiteout below a directory that replaces a link leaves the link's target",
        _LINKED,
        [whiteout("s/o"), directory("s"), file("s/n", b"n")],
        tree=_NEW,
    ),
    holds(
        "a whiteout below a file that replaces a link leaves the link's target",
        _LINKED,
        [whiteout("s/o"), file("s", b"s")],
        tree={**_KEPT, "s": is_file(b"s")},
    ),
    holds(
        "a mark below a name in a link's target that is replaced leaves what that leads to",
        [*_LINKED, directory("d"), symlink("d/s", "../r"), symlink("e", "d")],
        [opaque("e/s"), directory("d/s")],
        tree={
            **_KEPT,
            "s": is_symlink(b"r"),
            "d": is_directory(),
            "d/s": is_directory(),
            "e": is_symlink(b"d"),
        },
    ),
    holds(
        "a whiteout below a link that stays is about the link's target",
        _LINKED,
        [whiteout("s/o"), file("t", b"t")],
        tree={"r": is_directory(), "s": is_symlink(b"r"), "t": is_file(b"t")},
    ),
]

_PLACES = [
    holds("a whiteout of nothing deletes nothing", [*_LOWER[1:], whiteout("a")], tree=_B),
    holds("a whiteout in the lowest layer deletes nothing", [*_LOWER[1:], whiteout("b")], tree=_B),
    holds("a whiteout below nothing makes nothing", _LOWER[1:], [whiteout("none/a")], tree=_B),
    holds("an opaque mark below nothing makes nothing", _LOWER[1:], [opaque("none")], tree=_B),
    holds("a whiteout below a file leaves the file", _LOWER[1:], [whiteout("b/a")], tree=_B),
    holds("an opaque mark below a file leaves the file", _LOWER[1:], [opaque("b")], tree=_B),
    holds("a whiteout's name may begin with ./", _LOWER, [file("./.wh.a")], tree=_B),
    holds("a whiteout's name may begin with /", _LOWER, [file("/.wh.a")], tree=_B),
    holds("a whiteout's name may begin with .// /./", _LOWER, [file(".///./.wh.a")], tree=_B),
    holds(
        "a whiteout's name may have a slash at its end",
        [directory("a"), file("a/x"), *_LOWER[1:]],
        [directory(".wh.a/")],
        tree=_B,
    ),
    holds("an opaque mark of the root empties the image", _LOWER, [opaque()], tree={}),
    holds(
        "an opaque mark of the root may be written with ./",
        [*_LOWER, file("d/x")],
        [file("z", b"z"), file("./.wh..wh..opq")],
        tree={"z": is_file(b"z")},
    ),
    holds(
        "an opaque mark of the root may be written with /",
        [*_LOWER, file("d/x")],
        [file("/.wh..wh..opq"), file("z", b"z")],
        tree={"z": is_file(b"z")},
    ),
    holds(
        "an opaque mark in the lowest layer spares it",
        [file("d/x"), opaque("d"), file("d/y")],
        tree={"d": IMPLIED, "d/x": is_file(), "d/y": is_file()},
    ),
    holds(
        "two opaque marks are as good as one",
        [directory("d"), file("d/x")],
        [opaque("d"), file("d/a"), opaque("d"), file("d/b")],
        tree={"d": is_directory(), "d/a": is_file(), "d/b": is_file()},
    ),
    holds(
        "an opaque mark deeper down leaves what is above it",
        [file("d/e/x"), file("d/y")],
        [opaque("d/e"), file("d/e/z")],
        tree={"d": IMPLIED, "d/y": is_file(), "d/e": IMPLIED, "d/e/z": is_file()},
    ),
    holds(
        "an opaque mark within an opaque directory changes nothing",
        [file("d/e/x"), file("d/y")],
        [opaque("d"), opaque("d/e"), file("d/e/z")],
        tree={"d": IMPLIED, "d/e": IMPLIED, "d/e/z": is_file()},
    ),
    holds(
        "an opaque directory without an entry keeps the lower one's attributes",
        [directory("d", mode=0o1777, mtime=5), file("d/x")],
        [opaque("d")],
        tree={"d": is_directory(mode=0o1777, mtime=5)},
    ),
    holds(
        "a whiteout within an opaque directory changes nothing",
        [file("d/e/x"), file("d/y")],
        [opaque("d"), whiteout("d/y"), file("d/y", b"2")],
        tree={"d": IMPLIED, "d/y": is_file(b"2")},
    ),
    holds(
        "a whiteout within what is whited out changes nothing",
        [file("d/x"), file("d/y"), *_LOWER[1:]],
        [whiteout("d"), whiteout("d/x")],
        tree=_B,
    ),
    holds(
        "a whiteout around another one deletes all, and what comes after it is new",
        [file("d/x"), file("d/y")],
        [whiteout("d/x"), whiteout("d"), file("d/z")],
        tree={"d": IMPLIED, "d/z": is_file()},
    ),
    holds(
        "what one layer deletes and the next makes again is new",
        [directory("d", mode=0o1777), file("d/x")],
        [whiteout("d")],
        [file("d/y")],
        tree={"d": IMPLIED, "d/y": is_file()},
    ),
    holds(
        "an opaque mark spares what is above, in layers that come after",
        [file("d/x")],
        [opaque("d"), file("d/y")],
        [file("d/x", b"new")],
        tree={"d": IMPLIED, "d/x": is_file(b"new"), "d/y": is_file()},
    ),
    holds(
        "a whiteout deletes what an earlier layer deleted and made again",
        [file("a")],
        [whiteout("a"), file("a", b"2")],
        [whiteout("a")],
        tree={},
    ),
    holds(
        "what has to be there can be deleted like anything, and is there again",
        [directory("dev", mtime=5), file("dev/x"), directory("tmp", mode=0o700), file("tmp/x")],
        [whiteout("dev"), whiteout("tmp")],
        tree={},
    ),
]

_THROUGH_LINKS = [
    holds(
        "a whiteout acts through a symbolic link to a directory",
        [file("d/x"), symlink("s", "d")],
        [whiteout("s/x")],
        tree={"d": IMPLIED, "s": is_symlink("d")},
    ),
    holds(
        "a whiteout acts through an absolute symbolic link",
        [file("d/x"), symlink("s", "/d")],
        [whiteout("s/x")],
        tree={"d": IMPLIED, "s": is_symlink("/d")},
    ),
    holds(
        "a whiteout through a link that climbs stays in the image",
        [file("etc/x"), file("x"), symlink("s", "../../etc")],
        [whiteout("s/x")],
        tree={"etc": IMPLIED, "x": is_file(), "s": is_symlink("../../etc")},
    ),
    holds(
        "an opaque mark acts through a symbolic link",
        [file("d/x"), symlink("s", "d")],
        [opaque("s"), file("s/y")],
        tree={"d": IMPLIED, "d/y": is_file(), "s": is_symlink("d")},
    ),
    holds(
        "what is below a symbolic link that the same layer deletes is in a new directory",
        [file("d/x"), symlink("s", "d")],
        [whiteout("s"), file("s/y")],
        tree={"d": IMPLIED, "d/x": is_file(), "s": IMPLIED, "s/y": is_file()},
    ),
    refused(
        "a whiteout through symbolic links in a circle is refused",
        _LOOP,
        [whiteout("s/x")],
        because=["layer 2", "too many symbolic links", "'s'"],
    ),
]

_NAMES = [
    refused(
        "a whiteout of no name is refused",
        _LOWER,
        [file(".wh.")],
        because=["layer 2", "'.wh.'", "malformed whiteout"],
    ),
    refused(
        "a whiteout of no name in a directory is refused",
        [file("d/x")],
        [file("d/.wh.")],
        because=["layer 2", "'d/.wh.'", "malformed whiteout"],
    ),
    refused(
        "a whiteout of . is refused",
        _LOWER,
        [file(".wh..")],
        because=["layer 2", "'.wh..'", "malformed whiteout"],
    ),
    refused(
        "a whiteout of .. is refused",
        [file("d/x")],
        [file("d/.wh...")],
        because=["layer 2", "'d/.wh...'", "malformed whiteout"],
    ),
    refused(
        "a whiteout that climbs is refused",
        _LOWER,
        [whiteout("../a")],
        because=["layer 2", "'../.wh.a'", "climbs"],
    ),
    holds(
        "a whiteout deletes a file named ...",
        [file("d/..."), *_LOWER[1:]],
        [file("d/.wh....")],
        tree={**_B, "d": IMPLIED},
    ),
    holds(
        "a whiteout deletes a name of 255 bytes",
        [file("x" * 255), *_LOWER[1:]],
        [whiteout("x" * 255)],
        tree=_B,
    ),
    refused(
        "a whiteout of a name of 256 bytes is refused",
        _LOWER,
        [whiteout("x" * 256)],
        because=["layer 2", "too long"],
    ),
    holds(
        "a name with .wh. inside is a name",
        [file("a.wh.b"), file("d.wh./x"), file(".wh", b"1")],
        tree={"a.wh.b": is_file(), "d.wh.": IMPLIED, "d.wh./x": is_file(), ".wh": is_file(b"1")},
    ),
    holds(
        "a name with .wh. inside can be whited out",
        [file("a.wh.b"), *_LOWER[1:]],
        [whiteout("a.wh.b")],
        tree=_B,
    ),
    holds(
        "a name like a whiteout in capitals is a name",
        [file("a")],
        [file(".WH.a")],
        tree={"a": is_file(), ".WH.a": is_file()},
    ),
    holds(
        "a whiteout deletes a name with a newline",
        [file("new\nline"), *_LOWER[1:]],
        [whiteout("new\nline")],
        tree=_B,
    ),
    holds(
        "a whiteout deletes a name that is no UTF-8",
        [file(b"\xff\xfe"), *_LOWER[1:]],
        [file(b".wh.\xff\xfe")],
        tree=_B,
    ),
    holds(
        "a name below a directory that is named as a whiteout is a name, as docker has it",
        [file("a/x")],
        [file(".wh.a/y", b"y")],
        tree={"a": IMPLIED, "a/x": is_file(), ".wh.a": IMPLIED, ".wh.a/y": is_file(b"y")},
    ),
]

_AUFS = [
    holds(
        "the books that aufs kept are no part of the image",
        [
            *_LOWER[1:],
            directory(".wh..wh.plnk"),
            file(".wh..wh.plnk/1.2", b"data"),
            directory(".wh..wh.orph"),
            file(".wh..wh.aufs"),
        ],
        tree=_B,
    ),
    holds(
        "hard links to what aufs kept in its books are files",
        [
            directory(".wh..wh.plnk"),
            file(".wh..wh.plnk/1.2", b"data"),
            hardlink("x", ".wh..wh.plnk/1.2"),
            hardlink("d/y", "/.wh..wh.plnk/1.2"),
        ],
        tree={"x": is_file(b"data"), "d": IMPLIED, "d/y": same_as("x")},
    ),
    refused(
        "hard links to books of aufs in another layer are refused",
        [directory(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", b"data")],
        [hardlink("x", ".wh..wh.plnk/1.2")],
        because=["layer 2", "'x'", "'.wh..wh.plnk/1.2'", "missing"],
    ),
    holds(
        "a whiteout of a whiteout deletes nothing",
        [file("d/x")],
        [file("d/.wh..wh.x"), file("d/.wh..wh..opx")],
        tree={"d": IMPLIED, "d/x": is_file()},
    ),
]

CASES: list[Case] = [*_TYPES, *_REPLACED, *_PLACES, *_THROUGH_LINKS, *_NAMES, *_AUFS]
