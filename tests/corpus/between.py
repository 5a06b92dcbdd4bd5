"""Odd members between plain ones, which show that the reader is still where it should be."""

from __future__ import annotations

from tests.corpus.case import Case, Is, holds, is_file, refused
from tests.helpers.images import file

_BEFORE, _AFTER = file("a", b"a"), file("z", b"z" * 513)
_AROUND = {"a": is_file(b"a"), "z": is_file(b"z" * 513)}


def reads(claim: str, odd: bytes, tree: dict[str, Is] | None = None, /, **plain: Is) -> Case:
    """Return the case that the members ODD are TREE, and what else has PLAIN names."""
    return holds(claim, [_BEFORE, odd, _AFTER], tree={**_AROUND, **(tree or {}), **plain})


def bad(claim: str, odd: bytes, *because: str) -> Case:
    """Return the case that the members ODD are refused."""
    return refused(claim, [_BEFORE, odd, _AFTER], because=["layer 1", *because])
