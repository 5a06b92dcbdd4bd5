"""Files' data: sizes around a block's, zeros, data that is there twice, data that goes."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.corpus.case import IMPLIED, Case, Is, holds, is_directory, is_file, same_as
from tests.helpers.images import directory, file, hardlink, layer, opaque, whiteout
from tests.helpers.raw import sparse_old

_BLOCK = 131072
_SIZES = (1, 511, 512, 513, 4096, 65536, _BLOCK - 1, _BLOCK, _BLOCK + 1, 2 * _BLOCK, 400_000)
_CHANCE = random.Random(7).randbytes(400_000)
_TEXT = b"".join(b"line %d of a text\n" % n for n in range(25_000))[:400_000]
_KINDS = {"noise": _CHANCE, "text": _TEXT, "zeros": bytes(400_000)}
# What a start reads first lies elsewhere in the image.
_FIRST = ("bin/sh", "usr/bin/python3", "lib64/ld-linux-x86-64.so.2", "usr/lib/libc.so.6")


def _one_each() -> Iterator[Case]:
    for kind, data in _KINDS.items():
        for size in _SIZES:
            tree = {"a": is_file(data[:size])}
            yield holds(f"{size} bytes of {kind} are kept", [file("a", data[:size])], tree=tree)


def _all_together() -> list[tuple[str, bytes]]:
    return [(f"{kind}-{size}", data[:size]) for kind, data in _KINDS.items() for size in _SIZES]


_ALL = _all_together()
_FILES = [file(name, data) for name, data in _ALL]
_TREE = {name: is_file(data) for name, data in _ALL}


def _without(names: list[str]) -> dict[str, Is]:
    return {name: what for name, what in _TREE.items() if name not in names}


def _every(step: int, first: int = 0) -> list[str]:
    return [name for name, _ in _ALL[first::step]]


_HOLES = [(0, b"A" * 100), (_BLOCK, b"B" * _BLOCK), (3 * _BLOCK + 7, b"C" * 9)]
_HOLLOW = bytearray(5 * _BLOCK + 11)
for _at, _data in _HOLES:
    _HOLLOW[_at : _at + len(_data)] = _data

_GOING = [
    holds(
        f"what is deleted of every {step} files takes nothing else with it",
        _FILES,
        [whiteout(name) for name in _every(step)],
        tree=_without(_every(step)),
    )
    for step in (2, 3, 7)
] + [
    holds(
        "what is replaced is replaced, whatever it was",
        _FILES,
        [file(name, b"new " + name.encode()) for name in _every(2)],
        tree={**_TREE, **{name: is_file(b"new " + name.encode()) for name in _every(2)}},
    ),
    holds(
        "what is made larger or smaller has its new data",
        _FILES,
        [file(name, _CHANCE[-len(data) * 2 :]) for name, data in _ALL[::3]],
        [file(name, data[: len(data) // 2]) for name, data in _ALL[1::3]],
        tree={
            **_TREE,
            **{name: is_file(_CHANCE[-len(data) * 2 :]) for name, data in _ALL[::3]},
            **{name: is_file(data[: len(data) // 2]) for name, data in _ALL[1::3]},
        },
    ),
    holds("of all that is deleted, nothing is left", _FILES, [opaque()], tree={}),
    holds(
        "of all that is deleted but one file, that is left",
        _FILES,
        [opaque()],
        [file("a", _CHANCE)],
        tree={"a": is_file(_CHANCE)},
    ),
    holds(
        "what was deleted and comes again is whole",
        layer(_FILES),
        layer([opaque()]),
        layer(_FILES),
        tree=_TREE,
    ),
    holds(
        "what is deleted under one name is whole under the other",
        [*_FILES, *(hardlink(f"l/{name}", name) for name in _every(3))],
        [whiteout(name) for name in _every(3)],
        tree={
            **_without(_every(3)),
            "l": IMPLIED,
            **{f"l/{name}": _TREE[name] for name in _every(3)},
        },
    ),
    holds(
        "equal files go one by one",
        [file(f"{n}/{name}", data) for n in range(3) for name, data in _ALL],
        [whiteout("0"), *(whiteout(f"1/{name}") for name in _every(2))],
        tree={
            "1": IMPLIED,
            "2": IMPLIED,
            **{f"2/{name}": what for name, what in _TREE.items()},
            **{f"1/{name}": what for name, what in _without(_every(2)).items()},
        },
    ),
    holds(
        "one layer of two has the same files, and goes",
        [directory("a"), *(file(f"a/{name}", data) for name, data in _ALL)],
        [directory("b"), *(file(f"b/{name}", data) for name, data in _ALL)],
        [whiteout("a")],
        tree={"b": is_directory(), **{f"b/{name}": what for name, what in _TREE.items()}},
    ),
]
_OTHERS = [
    *_one_each(),
    holds("many files together are kept", _FILES, tree=_TREE),
    holds(
        "files that a start reads first are kept",
        [file(name, data) for name, data in zip(_FIRST, _KINDS.values(), strict=False)],
        _FILES,
        [file(_FIRST[0], b"other"), whiteout(_FIRST[1]), *_FILES[::2]],
        tree={
            **_TREE,
            "bin": IMPLIED,
            _FIRST[0]: is_file(b"other"),
            "usr": IMPLIED,
            "usr/bin": IMPLIED,
            "lib64": IMPLIED,
            _FIRST[2]: is_file(_KINDS["zeros"]),
        },
    ),
    holds(
        "a file with holes of whole blocks is kept",
        [sparse_old("a", _HOLES, len(_HOLLOW)), hardlink("b", "a"), file("c", b"c")],
        [file("c", _TEXT)],
        tree={"a": is_file(bytes(_HOLLOW)), "b": same_as("a"), "c": is_file(_TEXT)},
    ),
    holds(
        "a thousand small files are kept",
        [file(f"{n}", b"%d" % n * n) for n in range(1000)],
        [whiteout(f"{n}") for n in range(0, 1000, 2)],
        tree={f"{n}": is_file(b"%d" % n * n) for n in range(1, 1000, 2)},
    ),
]

CASES: list[Case] = [*_OTHERS, *_GOING]
