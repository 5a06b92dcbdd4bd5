"""Hard links whose target is replaced or deleted: the content stays with the other names."""

from __future__ import annotations

from tests.corpus.case import IMPLIED, Case, holds, is_directory, is_file, is_symlink, same_as
from tests.helpers.images import directory, file, hardlink, opaque, symlink, whiteout

_A = file("a", b"1")

CASES: list[Case] = [
    holds(
        "a file keeps its content under its other name when the first is deleted",
        [_A, hardlink("b", "a")],
        [whiteout("a")],
        tree={"b": is_file(b"1")},
    ),
    holds(
        "a file keeps its content under its first name when the other is deleted",
        [_A, hardlink("b", "a")],
        [whiteout("b")],
        tree={"a": is_file(b"1")},
    ),
    holds(
        "a file keeps its content under its other name when the first is replaced",
        [_A, hardlink("b", "a")],
        [file("a", b"2")],
        tree={"a": is_file(b"2"), "b": is_file(b"1")},
    ),
    holds(
        "a file keeps its content when the first name becomes a directory",
        [_A, hardlink("b", "a")],
        [directory("a"), file("a/x")],
        tree={"a": is_directory(), "a/x": is_file(), "b": is_file(b"1")},
    ),
    holds(
        "a file keeps its content when the directory of its first name is deleted",
        [file("d/a", b"1"), hardlink("b", "d/a")],
        [whiteout("d")],
        tree={"b": is_file(b"1")},
    ),
    holds(
        "a file keeps its content when the directory of its first name becomes opaque",
        [file("d/a", b"1"), hardlink("b", "d/a")],
        [opaque("d")],
        tree={"d": IMPLIED, "b": is_file(b"1")},
    ),
    holds(
        "both names are replaced together by a layer that has both",
        [_A, hardlink("b", "a")],
        [file("a", b"2"), hardlink("b", "a")],
        tree={"a": is_file(b"2"), "b": same_as("a")},
    ),
    holds(
        "a link made after its target was replaced has the new content",
        [_A],
        [file("a", b"2"), hardlink("b", "a")],
        tree={"a": is_file(b"2"), "b": same_as("a")},
    ),
    holds(
        "a link made before its target is replaced has the old content",
        [_A],
        [hardlink("b", "a"), file("a", b"2")],
        tree={"a": is_file(b"2"), "b": is_file(b"1")},
    ),
    holds(
        "links before and after a second entry of their target are different files",
        [_A, hardlink("b", "a"), file("a", b"2"), hardlink("c", "a")],
        tree={"a": is_file(b"2"), "b": is_file(b"1"), "c": same_as("a")},
    ),
    holds(
        "a chain holds when its middle is deleted",
        [_A, hardlink("b", "a"), hardlink("c", "b")],
        [whiteout("b")],
        tree={"a": is_file(b"1"), "c": same_as("a")},
    ),
    holds(
        "a chain over layers holds when its beginning is deleted",
        [_A],
        [hardlink("b", "a")],
        [whiteout("a"), hardlink("c", "b")],
        tree={"b": is_file(b"1"), "c": same_as("b")},
    ),
    holds(
        "a link to what its own layer deletes keeps the content, the whiteout first",
        [_A],
        [whiteout("a"), hardlink("b", "a")],
        tree={"b": is_file(b"1")},
    ),
    holds(
        "a link to what its own layer deletes keeps the content, the whiteout last",
        [_A],
        [hardlink("b", "a"), whiteout("a")],
        tree={"b": is_file(b"1")},
    ),
    holds(
        "a link to what its own layer hides keeps the content",
        [file("d/a", b"1")],
        [opaque("d"), hardlink("b", "d/a")],
        tree={"d": IMPLIED, "b": is_file(b"1")},
    ),
    holds(
        "a link to what its own layer deletes and makes again has the new content",
        [_A],
        [whiteout("a"), file("a", b"2"), hardlink("b", "a")],
        tree={"a": is_file(b"2"), "b": same_as("a")},
    ),
    holds(
        "a link may replace a whole directory",
        [_A, directory("d"), file("d/x"), hardlink("d", "a")],
        tree={"a": is_file(b"1"), "d": same_as("a")},
    ),
    holds(
        "a link may replace the lower directory that its target is in",
        [file("d/x", b"1"), file("d/y")],
        [hardlink("d", "d/x")],
        tree={"d": is_file(b"1")},
    ),
    holds(
        "a link's target that becomes a directory after it leaves it the file",
        [_A],
        [hardlink("b", "a"), directory("a")],
        tree={"a": is_directory(), "b": is_file(b"1")},
    ),
    holds(
        "a link's target may be behind what was a circle in the lower layer",
        [symlink("s", "t"), symlink("t", "s")],
        [directory("s"), file("s/a", b"1"), hardlink("b", "s/a")],
        tree={"s": is_directory(), "t": is_symlink("s"), "s/a": is_file(b"1"), "b": same_as("s/a")},
    ),
]
