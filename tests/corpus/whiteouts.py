"""Whiteouts and opaque directories; layer.md of the OCI image-spec, "Whiteouts"."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

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
from tests.helpers.images import (
    Entry,
    device,
    directory,
    fifo,
    file,
    hardlink,
    opaque,
    symlink,
    whiteout,
)

_LOWER: dict[str, list[Entry]] = {
    "file": [file("a", b"1")],
    "empty directory": [directory("a")],
    "directory": [directory("a"), file("a/x"), file("a/b/y")],
    "directory without an entry of its own": [file("a/b/y")],
    "symbolic link": [symlink("a", "keep")],
    "dangling symbolic link": [symlink("a", "nowhere")],
    "symbolic link to a directory": [directory("keep/d"), symlink("a", "keep/d")],
    "named pipe": [fifo("a")],
    "device": [device("a", 1, 3)],
    "first name of a file": [file("a", b"1"), hardlink("b", "a")],
    "second name of a file": [file("b", b"1"), hardlink("a", "b")],
}
_LEFT: dict[str, dict[str, Is]] = {
    "symbolic link to a directory": {"keep/d": is_directory()},
    "first name of a file": {"b": is_file(b"1")},
    "second name of a file": {"b": is_file(b"1")},
}
_KEPT: dict[str, Is] = {"keep": IMPLIED, "keep/me": is_file(b"me")}


def _deletions() -> Iterator[Case]:
    for kind, lower in _LOWER.items():
        tree = {**_KEPT, **_LEFT.get(kind, {})}
        layer = [*lower, file("keep/me", b"me")]
        yield holds(f"a whiteout deletes a {kind}", layer, [whiteout("a")], tree=tree)
        claim = f"a whiteout two layers up deletes a {kind}"
        yield holds(claim, layer, [file("keep/me", b"me")], [whiteout("a")], tree=tree)
        claim = f"a whiteout in its own layer spares a {kind}"
        with_it, alone = [*layer, whiteout("a")], [whiteout("a"), *layer]
        for order, entries in (("before", alone), ("after", with_it)):
            plain = _tree_of(kind, tree)
            yield holds(f"{claim}, {order} it", entries, tree=plain)


def _tree_of(kind: str, left: dict[str, Is]) -> dict[str, Is]:
    a: dict[str, dict[str, Is]] = {
        "file": {"a": is_file(b"1")},
        "empty directory": {"a": is_directory()},
        "directory": {
            "a": is_directory(),
            "a/x": is_file(),
            "a/b": IMPLIED,
            "a/b/y": is_file(),
        },
        "directory without an entry of its own": {"a": IMPLIED, "a/b": IMPLIED, "a/b/y": is_file()},
        "symbolic link": {"a": is_symlink("keep")},
        "dangling symbolic link": {"a": is_symlink("nowhere")},
        "symbolic link to a directory": {"a": is_symlink("keep/d")},
        "named pipe": {"a": is_fifo()},
        "device": {},
        "first name of a file": {"a": is_file(b"1"), "b": same_as("a")},
        "second name of a file": {"b": is_file(b"1"), "a": same_as("b")},
    }
    return {**{key: value for key, value in left.items() if key != "b"}, **a[kind]}


_AGAIN: dict[str, tuple[list[Entry], dict[str, Is]]] = {
    "file": ([file("a", b"2")], {"a": is_file(b"2")}),
    "directory": (
        [directory("a", mtime=9), file("a/new")],
        {"a": is_directory(mtime=9), "a/new": is_file()},
    ),
    "empty directory": ([directory("a", mtime=9)], {"a": is_directory(mtime=9)}),
    "directory without an entry": ([file("a/new")], {"a": IMPLIED, "a/new": is_file()}),
    "symbolic link": ([symlink("a", "new")], {"a": is_symlink("new")}),
    "named pipe": ([fifo("a")], {"a": is_fifo()}),
}


def _recreations() -> Iterator[Case]:
    """What is deleted and made again in one layer is new, whatever the order."""
    for old in ("file", "directory", "symbolic link to a directory"):
        lower = _LOWER[old]
        for new, (entries, tree) in _AGAIN.items():
            for order, upper in (
                ("before", [whiteout("a"), *entries]),
                ("after", [*entries, whiteout("a")]),
            ):
                left = (
                    {
                        "keep": IMPLIED,
                        **_LEFT.get(old, {}),
                    }
                    if old.startswith("symbolic")
                    else {}
                )
                claim = f"a {new} in place of a {old} is new, the whiteout {order} it"
                yield holds(claim, lower, upper, tree={**left, **tree})


def _opaque_orders() -> Iterator[Case]:
    """An opaque mark hides what is below wherever it stands among its layer's entries."""
    lower = [directory("d", mtime=5), file("d/old"), file("d/both", b"1"), file("d/e/old")]
    upper = [opaque("d"), directory("d", mtime=6), file("d/both", b"2"), file("d/e/new")]
    tree = {
        "d": is_directory(mtime=6),
        "d/both": is_file(b"2"),
        "d/e": IMPLIED,
        "d/e/new": is_file(),
    }
    for number, order in enumerate(permutations(upper)):
        claim = f"an opaque mark works at any place in its layer, order {number + 1} of 24"
        yield holds(claim, lower, order, tree=tree)


CASES = [
    *_deletions(),
    *_recreations(),
    *_opaque_orders(),
]
