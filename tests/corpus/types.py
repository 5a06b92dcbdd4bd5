"""Every kind of entry over every other, across layers and within one."""

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
    same_as,
)
from tests.helpers.images import Entry, device, directory, fifo, file, hardlink, symlink

KINDS = ("file", "directory", "symlink", "hard link", "fifo", "device")
_OTHER = file("other", b"other")


def _entries(kind: str, *, upper: bool) -> list[Entry]:
    """Return what makes ``a`` a KIND, in the lower or in the upper layer."""
    number = "2" if upper else "1"
    made = {
        "file": [file("a", number.encode(), mode=0o640)],
        "directory": [directory("a", mode=0o700), file(f"a/{number}", number.encode())],
        "symlink": [symlink("a", f"to-{number}")],
        "hard link": [hardlink("a", "other")],
        "fifo": [fifo("a")],
        "device": [device("a", 1, 3)],
    }
    return made[kind]


def _expected(kind: str, *, upper: bool) -> dict[str, Is]:
    number = "2" if upper else "1"
    made: dict[str, dict[str, Is]] = {
        "file": {"a": is_file(number.encode())},
        "directory": {"a": is_directory(), f"a/{number}": is_file(number.encode())},
        "symlink": {"a": is_symlink(f"to-{number}")},
        "hard link": {"a": same_as("other")},
        "fifo": {"a": is_fifo()},
        # Devices are not for images; but what they replace is gone.
        "device": {},
    }
    return made[kind]


def _over(old: str, new: str) -> dict[str, Is]:
    tree = _expected(new, upper=True)
    if old == new == "directory":
        tree = {**_expected(old, upper=False), **tree}
    return {"other": is_file(b"other"), **tree}


def _replacements() -> Iterator[Case]:
    for old in KINDS:
        for new in KINDS:
            lower, upper = _entries(old, upper=False), _entries(new, upper=True)
            tree = _over(old, new)
            claim = f"a {new} over a {old} of a lower layer is a {new}"
            yield holds(claim, [_OTHER, *lower], upper, tree=tree)
            claim = f"a {new} over a {old} of the same layer is a {new}"
            yield holds(claim, [_OTHER, *lower, *upper], tree=tree)
            claim = f"a {new} over a {old} two layers below is a {new}"
            yield holds(claim, [_OTHER, *lower], [], upper, tree=tree)


CASES = [
    *_replacements(),
    holds(
        "a device leaves nothing, and a directory that is only for devices is empty",
        [directory("d"), device("d/null", 1, 3), device("zero", 1, 5)],
        tree={"d": is_directory()},
    ),
    holds(
        "a device of an upper layer takes a whole directory away",
        [directory("d"), file("d/x"), file("e")],
        [device("d", 0, 0)],
        tree={"e": is_file()},
    ),
    holds(
        "a name below what was a device is in a directory",
        [device("d", 1, 3)],
        [file("d/x")],
        tree={"d": IMPLIED, "d/x": is_file()},
    ),
    holds(
        "a hard link to a device is left out as the device is",
        [device("null", 1, 3), hardlink("zero", "null"), file("a")],
        tree={"a": is_file()},
    ),
    holds(
        "a hard link to a device of a lower layer is left out as well",
        [device("null", 1, 3)],
        [hardlink("zero", "null"), file("a")],
        tree={"a": is_file()},
    ),
    holds(
        "a hard link to a device replaces what had its name",
        [file("zero"), device("null", 1, 3)],
        [hardlink("zero", "null")],
        tree={},
    ),
    holds(
        "a hard link to a named pipe is another name of it",
        [fifo("p"), hardlink("q", "p")],
        tree={"p": is_fifo(), "q": same_as("p")},
    ),
    holds(
        "of three layers the highest wins",
        [file("a", b"1")],
        [file("a", b"2")],
        [file("a", b"3")],
        tree={"a": is_file(b"3")},
    ),
    holds(
        "the last of three entries of one name wins",
        [file("a", b"1"), file("a", b"2"), file("b", b"b"), file("a", b"3")],
        tree={"a": is_file(b"3"), "b": is_file(b"b")},
    ),
    holds(
        "of two equal entries the second's attributes count",
        [file("a", b"1", mode=0o755, mtime=5), file("a", b"1", mode=0o644, mtime=6)],
        tree={"a": is_file(b"1", mtime=6)},
    ),
    holds(
        "a directory given twice has the attributes given last, and keeps its content",
        [
            directory("d", mode=0o700, mtime=5),
            file("d/x"),
            directory("d", mode=0o1777, mtime=6),
        ],
        tree={"d": is_directory(mode=0o1777, mtime=6), "d/x": is_file()},
    ),
    holds(
        "a directory whose entry comes after its content has the attributes of that entry",
        [file("d/e/x"), directory("d/e", mode=0o1777, mtime=7), directory("d", mtime=8)],
        tree={
            "d": is_directory(mtime=8),
            "d/e": is_directory(mode=0o1777, mtime=7),
            "d/e/x": is_file(),
        },
    ),
    holds(
        "a directory of an upper layer gives the lower one its attributes",
        [directory("d", mode=0o1777, mtime=5), file("d/x")],
        [directory("d", mode=0o755, mtime=6)],
        tree={"d": is_directory(mtime=6), "d/x": is_file()},
    ),
    holds(
        "a file below a directory of a lower layer leaves that directory as it is",
        [directory("d", mode=0o1777, mtime=5)],
        [file("d/x")],
        tree={"d": is_directory(mode=0o1777, mtime=5), "d/x": is_file()},
    ),
    holds(
        "a file of an upper layer replaces a deep tree",
        [file("d/e/f/g/h"), file("d/i")],
        [file("d", b"flat")],
        tree={"d": is_file(b"flat")},
    ),
    holds(
        "a tree made flat and made deep again holds nothing of the old one",
        [file("d/e/old")],
        [file("d")],
        [file("d/e/new")],
        tree={"d": IMPLIED, "d/e": IMPLIED, "d/e/new": is_file()},
    ),
]
