"""Names: of any bytes, written in any way, as long as Linux takes them, but never climbing."""

from __future__ import annotations

from collections.abc import Iterator

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
from tests.helpers.images import directory, fifo, file, symlink

_ODD = {
    "a newline": "new\nline",
    "a newline at its end": "line\n",
    "control characters": "\x01\x07\x08\x1b[31m\x7f",
    "a tab and a carriage return": "tab\tcr\r",
    "only a blank": " ",
    "blanks at both ends": "  x  ",
    "a backslash": "back\\slash",
    "an escaped digit": "\\101",
    "a backslash at its end": "end\\",
    "quotes": "'\"`",
    "a dollar": "$HOME$(id)",
    "a dash before it": "-rf",
    "wild cards": "*?[a-z]",
    "a hash": "#comment",
    "a colon": "c:d",
    "an equals sign": "a=b",
    "Latin-1": "caf\udce9",
    "bytes that are never UTF-8": "\udcff\udcfe",
    "half a UTF-8 character": "caf\udcc3",
    "a surrogate in UTF-8": "\udced\udca0\udc80",
    "Chinese": "\u4e2d\u6587",
    "an emoji": "\U0001f600",
    "text from right to left": "\u202eexe.txt",
    "a zero-width joiner": "a\u200db",
    "a byte order mark": "\ufeffa",
    "three dots": "...",
    "two dots before it": "..a",
    "two dots after it": "a..",
    "two dots inside": "a..b",
    "a dot before it": ".a",
    "a dot after it": "a.",
    "the name of a PC's device": "CON",
    "GNU's name for long names": "././@LongLink",
    "pax's name for headers": "PaxHeaders.0",
}


def _odd() -> Iterator[Case]:
    for what, name in _ODD.items():
        path = name.removeprefix("././")
        yield holds(
            f"a name with {what} is a name of a file, a directory and a symbolic link",
            [
                file(f"f/{name}", b"1"),
                directory(f"d/{name}"),
                file(f"d/{name}/x", b"2"),
                symlink(f"s/{name}", name),
            ],
            tree={
                "f": IMPLIED,
                f"f/{path}": is_file(b"1"),
                "d": IMPLIED,
                f"d/{path}": is_directory(),
                f"d/{path}/x": is_file(b"2"),
                "s": IMPLIED,
                f"s/{path}": is_symlink(name),
            },
        )


_PLAIN = {"a": IMPLIED, "a/b": is_file(b"1")}
_WRITTEN = [
    holds(f"{name!r} is a/b", [file(name, b"1")], tree=_PLAIN)
    for name in ("./a/b", "/a/b", "//a//b", "a/./b", ".//./a/.///b", "a/b/.", "/./a/b")
]
_SLASHES = [
    holds(
        "a directory may be written with slashes at its end",
        [directory("a//"), directory("b/./")],
        tree={"a": is_directory(), "b": is_directory()},
    ),
    holds(
        "a file of type 0 may have a slash at its end, as docker has it",
        [raw.member("a/", b"data"), file("z")],
        tree={"a": is_file(b"data"), "z": is_file()},
    ),
    holds(
        "a symbolic link may have a slash at its end",
        [symlink("a/", "x")],
        tree={"a": is_symlink("x")},
    ),
    holds("a named pipe may have a slash at its end", [fifo("a/")], tree={"a": is_fifo()}),
    holds(
        "names that differ in case only are two",
        [file("A", b"1"), file("a", b"2")],
        tree={"A": is_file(b"1"), "a": is_file(b"2")},
    ),
    holds(
        "names that differ in their Unicode form only are two",
        [file("caf\u00e9", b"1"), file("cafe\u0301", b"2")],
        tree={"caf\u00e9": is_file(b"1"), "cafe\u0301": is_file(b"2")},
    ),
    holds(
        "names that differ in a blank only are two",
        [file("a", b"1"), file("a ", b"2")],
        tree={"a": is_file(b"1"), "a ": is_file(b"2")},
    ),
]

_CLIMBING = ("..", "../x", "a/../b", "a/..", "/../x", "a/../../x", "./../x", "a/b/../../../x")
_CLIMBS = [
    *(
        refused(
            f"{name!r} climbs",
            [file("a/b"), raw.member(name, b"1")],
            because=["layer 1", repr(name), "climbs"],
        )
        for name in _CLIMBING
    ),
    refused(
        "a name climbs that would write over the terminal",
        [file("../\x1b[31m\r\n\u202e\udcff")],
        because=["layer 1", r"'../\x1b[31m\r\n\u202e\\xff'", "climbs"],
    ),
    refused("a directory climbs", [directory("../d")], because=["layer 1", "'../d/'", "climbs"]),
    refused(
        "a symbolic link climbs by its name",
        [symlink("../s", "x")],
        because=["layer 1", "'../s'", "climbs"],
    ),
    refused(
        "a name climbs in the highest layer",
        [file("a")],
        [],
        [file("../../etc/passwd")],
        because=["layer 3", "'../../etc/passwd'", "climbs"],
    ),
    holds(
        "a symbolic link's target may climb: it is only text",
        [symlink("a", "../../../../etc/passwd"), symlink("b/c", "../..")],
        tree={"a": is_symlink("../../../../etc/passwd"), "b": IMPLIED, "b/c": is_symlink("../..")},
    ),
]

_TARGETS = [
    "//x//./y/",
    "/",
    ".",
    "..",
    "new\nline",
    "a" * 255 + "/" + "b" * 255,
    "x" * 4095,
    "/proc/self/root/../..",
    " ",
    "caf\udce9",
    "-> x",
]
_LINKS = [
    *(
        holds(
            f"a symbolic link to {target[:30]!r} is kept as it is",
            [symlink("a", target)],
            tree={"a": is_symlink(target)},
        )
        for target in _TARGETS
    ),
    refused(
        "a symbolic link to nothing at all is refused",
        [raw.member("a", kind=b"2")],
        because=["layer 1", "'a'", "symbolic link to nothing"],
    ),
    refused(
        "a symbolic link of 4096 bytes is refused",
        [symlink("a", "x" * 4096)],
        because=["layer 1", "'a'", "too long"],
    ),
]


def _nested(length: int) -> dict[str, Is]:
    """Return the tree of one file whose path has LENGTH bytes."""
    parts = ["d" * 99] * (length // 100)
    tree: dict[str, Is] = {"/".join(parts[: n + 1]): IMPLIED for n in range(len(parts))}
    return {**tree, "/".join([*parts, "x" * (length % 100 or 1)]): is_file(b"deep")}


_LONG = [
    *(
        holds(f"a path of {length} bytes is a path", [file(max(tree, key=len), b"deep")], tree=tree)
        for length in (99, 101, 155, 256, 257, 1001, 4001, 4095)
        for tree in [_nested(length)]
    ),
    *(
        refused(
            f"a path of {length} bytes is refused",
            [file(max(_nested(length), key=len))],
            because=["layer 1", "'ddd", "too long"],
        )
        for length in (4096, 5001, 70_000)
    ),
    holds(
        "a path that is written with 5000 slashes is as long as it is without them",
        [file("a" + "/" * 5000 + "b", b"deep")],
        tree={"a": IMPLIED, "a/b": is_file(b"deep")},
    ),
    holds(
        "a path of 500 directories is a path",
        [file("/".join("d" * 500), b"deep")],
        tree={
            **{"/".join("d" * n): IMPLIED for n in range(1, 500)},
            "/".join("d" * 500): is_file(b"deep"),
        },
    ),
    holds(
        "a name may have 255 bytes",
        [file("x" * 255), directory("y" * 255), symlink("z" * 255, "t")],
        tree={"x" * 255: is_file(), "y" * 255: is_directory(), "z" * 255: is_symlink("t")},
    ),
    holds(
        "a name of 255 bytes may be of 127 characters",
        [file("\u00e9" * 127)],
        tree={"\u00e9" * 127: is_file()},
    ),
    refused("a name of 256 bytes is refused", [file("x" * 256)], because=["layer 1", "too long"]),
    refused(
        "a name of 256 bytes in 128 characters is refused",
        [file("\u00e9" * 128)],
        because=["layer 1", "too long"],
    ),
    refused(
        "a directory's name of 256 bytes is refused",
        [file("x" * 256 + "/a")],
        because=["layer 1", "too long"],
    ),
    refused(
        "a directory's name of 256 bytes is refused where a symbolic link says it",
        [symlink("s", "x" * 256), file("s/a")],
        because=["layer 1", "'s/a'", "too long"],
    ),
    refused(
        "a directory's name of 259 bytes is refused, even if it is named as a whiteout",
        [file(".wh." + "x" * 255 + "/a")],
        because=["layer 1", "too long"],
    ),
]

CASES: list[Case] = [*_odd(), *_WRITTEN, *_SLASHES, *_CLIMBS, *_LINKS, *_LONG]
