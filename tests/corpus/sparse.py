"""Sparse files, in GNU tar's four ways; "Storing Sparse Files" in its manual."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.corpus.between import bad, reads
from tests.corpus.case import IMPLIED, Case, holds, is_directory, is_file, is_symlink
from tests.helpers.images import file, hardlink
from tests.helpers.raw import (
    POSIX,
    Segments,
    base256,
    header,
    long_name,
    member,
    octal,
    padded,
    patched,
    pax,
    sparse_old,
    sparse_pax,
)

_WAYS = ("old", "0.0", "0.1", "1.0")
_KEY = "GNU.sparse."


def _sparse(way: str, name: str, segments: Segments, size: int) -> bytes:
    if way == "old":
        return sparse_old(name, segments, size)
    return sparse_pax(name, segments, size, way)


def _content(segments: Segments, size: int) -> bytes:
    content = bytearray(size)
    for at, data in segments:
        content[at : at + len(data)] = data
    return bytes(content)


# What is in the file, and its size.
_GOOD: Mapping[str, tuple[Segments, int]] = {
    "with holes between": ([(0, b"A" * 512), (4096, b"B" * 100), (9000, b"C" * 700)], 9700),
    "with a hole at its end": ([(0, b"A" * 512)], 20000),
    "with a hole at its beginning": ([(8192, b"x" * 512)], 8704),
    "with holes at both ends": ([(4096, b"x" * 512)], 8192),
    "whose end is an empty segment": ([(0, b"A" * 512), (20000, b"")], 20000),
    "that is one hole": ([(5000, b"")], 5000),
    "of one hole without any segment": ([], 5000),
    "without a hole": ([(0, b"A" * 1000)], 1000),
    "of nothing": ([], 0),
    "of nothing with an empty segment": ([(0, b"")], 0),
    "of adjoining segments": ([(0, b"A" * 512), (512, b"B" * 512)], 1024),
    "of segments that fill no blocks": ([(3, b"A" * 5), (9, b"B")], 11),
    "with an empty segment inside": ([(0, b"A" * 512), (1024, b""), (2048, b"B")], 4096),
    "of five segments": ([(n * 1000, b"%d" % n * 7) for n in range(5)], 6000),
    "of 25 segments": ([(n * 1000, b"%d" % n * 7) for n in range(25)], 26000),
    "of 26 segments": ([(n * 1000, b"%d" % n * 7) for n in range(26)], 26000),
    "of 200 segments": ([(n * 1000, b"%d" % n * 7) for n in range(200)], 200_000),
    "of a hole of four megabytes": ([(1 << 22, b"end")], (1 << 22) + 3),
}
_BAD: Mapping[str, tuple[Segments, int]] = {
    "that overlap": ([(0, b"A" * 600), (512, b"B" * 100)], 20000),
    "out of order": ([(4096, b"A" * 600), (0, b"B" * 100)], 20000),
    "beyond the end": ([(0, b"A" * 600)], 599),
    "that begin beyond the end": ([(700, b"A" * 600)], 600),
}


def _all_ways() -> Iterator[Case]:
    for way in _WAYS:
        for what, (segments, size) in _GOOD.items():
            tree = {"d": IMPLIED, "d/n": is_file(_content(segments, size))}
            yield reads(f"a sparse file {what}, {way}", _sparse(way, "d/n", segments, size), tree)
        for what, (segments, size) in _BAD.items():
            odd = _sparse(way, "d/n", segments, size)
            yield bad(f"segments {what}, {way}, are damage", odd, "n'", "out of order, or out of")
        long = "n" * 200
        odd = (long_name(long) if way in ("old", "0.0") else b"") + _sparse(way, long, [], 7)
        yield reads(f"a sparse file with a long name, {way}", odd, {long: is_file(bytes(7))})
        yield holds(
            f"a sparse file may be linked to, replaced and deleted, {way}",
            [_sparse(way, "a", [(4096, b"x")], 5000), hardlink("b", "a"), file("c", b"c")],
            [file("a", b"2"), _sparse(way, "c", [(1, b"y")], 3)],
            tree={
                "a": is_file(b"2"),
                "b": is_file(_content([(4096, b"x")], 5000)),
                "c": is_file(b"\0y\0"),
            },
        )


_HEAD = sparse_old("n", [(0, b"A" * 600)], 2000)
_MANY = sparse_old("n", _GOOD["of 200 segments"][0], 200_000)
_OLD_DATA = is_file(_content([(0, b"A" * 600)], 2000))
_OLD = [
    reads(
        "numbers of old may be in base-256",
        patched(_HEAD, {398: base256(600, 12), 483: base256(2000, 12)}),
        n=_OLD_DATA,
    ),
    reads("the old way may come with ustar's magic", patched(_HEAD, {257: POSIX}), n=_OLD_DATA),
    reads(
        "the old map may go on in an empty block",
        patched(_HEAD[:512], {482: b"\1"}) + bytes(512) + _HEAD[512:],
        n=_OLD_DATA,
    ),
    bad(
        "an old size below zero is damage",
        patched(sparse_old("n", [], 0), {483: base256(-5, 12)}),
        "'n'",
        "negative size",
    ),
    bad(
        "an old size beyond 64 bits is damage",
        patched(_HEAD, {483: base256(1 << 63, 12)}),
        "'n'",
        "beyond 64 bits",
    ),
    bad(
        "an old offset below zero is damage",
        patched(_HEAD, {386: base256(-5, 12)}),
        "'n'",
        "out of order, or out of",
    ),
    bad(
        "an old length below zero is damage",
        patched(_HEAD, {398: base256(-5, 12)}),
        "'n'",
        "out of order, or out of",
    ),
    bad("an old number in words is damage", patched(_HEAD, {386: b"nowhere"}), "'n'", "sparse map"),
    bad(
        "an old map of less than is stored is damage",
        patched(_HEAD, {398: octal(100, 12)}),
        "'n'",
        "not of the data",
    ),
    bad(
        "an old map of more than is stored is damage",
        patched(_HEAD, {398: octal(700, 12)}),
        "'n'",
        "not of the data",
    ),
    bad(
        "an old map of nothing is damage, if there is data",
        member("n", b"data", b"S"),
        "'n'",
        "not of the data",
    ),
    bad("an old map whose next block is a header is damage", _MANY[:512], "'n'", "sparse map"),
]

_M = member("n", b"A" * 600)
_SIZE = {"GNU.sparse.name": "m", "GNU.sparse.size": "2000"}
_ONE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "2000"}
_ONE_M = {**_ONE, "GNU.sparse.name": "m"}
_MAP = padded(b"1\n0\n600\n") + b"A" * 600
_M_DATA = {"m": _OLD_DATA}
_PAX = [
    reads("0.1 needs no count", pax({**_SIZE, _KEY + "map": "0,600"}) + _M, _M_DATA),
    reads(
        "0.1 without a name has the header's",
        pax({_KEY + "size": "2000", _KEY + "map": "0,600"}) + _M,
        n=_OLD_DATA,
    ),
    reads(
        "0.1 without a size has the header's",
        pax({_KEY + "map": "0,600"}) + _M,
        n=is_file(b"A" * 600),
    ),
    *(
        bad(
            f"0.1 with the map {text!r} is damage",
            pax({**_SIZE, _KEY + "numblocks": "1", _KEY + "map": text}) + _M,
            "'n'",
            "map",
        )
        for text in (
            "0",
            "0,600,5",
            "0,600,",
            ",0,600",
            "0,x",
            "0, 600",
            "0,-600",
            "-1,600",
            "0,599",
            "0,601",
            "0;600",
            "0,600,700,0",
            "9" * 40 + ",600",
            "0x0,0x258",
            "\n",
        )
    ),
    bad(
        "0.1 with a false count is damage",
        pax({**_SIZE, _KEY + "numblocks": "2", _KEY + "map": "0,600"}) + _M,
        "'n'",
        "1 pairs",
    ),
    bad(
        "0.1 with a size below zero is damage",
        pax({_KEY + "size": "-5", _KEY + "map": "0,600"}) + _M,
        "'n'",
        "bad GNU.sparse.size",
    ),
    bad(
        "0.0 with an offset but no length is damage",
        pax([*_SIZE.items(), (_KEY + "offset", "0")]) + _M,
        "'n'",
        "map",
    ),
    bad(
        "0.0 with length and offset exchanged is damage",
        pax([*_SIZE.items(), (_KEY + "numbytes", "600"), (_KEY + "offset", "0")]) + _M,
        "'n'",
        "map",
    ),
    bad(
        "0.0 with two numbers in one record is damage",
        pax([*_SIZE.items(), (_KEY + "offset", "0,600"), (_KEY + "numbytes", "")]) + _M,
        "'n'",
        "map",
    ),
    reads(
        "1.0 without a size has the header's",
        pax({_KEY + "major": "1", _KEY + "minor": "0"})
        + member("n", padded(b"1\n0\n5\n") + b"A" * 5),
        n=is_file(b"A" * 5 + bytes(512)),
    ),
    reads(
        "1.0's name beats pax's and GNU's",
        long_name("gnu") + pax({**_ONE_M, "path": "p"}) + member("n", _MAP),
        _M_DATA,
    ),
    reads(
        "1.0's stored size may stand in its pax header",
        pax({**_ONE_M, "size": str(len(_MAP))}) + member("n", _MAP, size=0),
        _M_DATA,
    ),
    reads(
        "1.0's numbers may have zeros before them",
        pax(_ONE_M) + member("n", padded(b"001\n000\n0600\n") + b"A" * 600),
        _M_DATA,
    ),
    *(
        bad(
            f"1.0 with the map {text!r} is damage",
            pax(_ONE) + member("n", padded(text) + b"A" * 600),
            "'n'",
            "sparse file",
        )
        for text in (
            b"",
            b"\n",
            b"x\n0\n600\n",
            b"1\n-1\n600\n",
            b"1\n0\n",
            b"2\n0\n600\n",
            b"1 0 600",
            b"99999999999\n0\n600\n",
            b"-1\n",
            b"1\n0\n601\n",
            b"0\n",
            b"1" * 2000,
            b"1\n0\n" + b"0" * 600 + b"\n",
        )
    ),
    bad(
        "1.0 with less data than its map is damage",
        pax(_ONE) + member("n", _MAP, size=100),
        "'n'",
        "sparse file",
    ),
    bad("1.1 is no version", pax({**_ONE, _KEY + "minor": "1"}) + _M, "'n'", "sparse file"),
    bad("2.0 is no version", pax({**_ONE, _KEY + "major": "2"}) + _M, "'n'", "sparse file"),
    *(
        bad(
            f"{key} alone makes no sparse file",
            pax({_KEY + key: "2000"}) + _M,
            "'n'",
            "sparse file",
        )
        for key in ("size", "realsize", "numblocks", "major")
    ),
    reads(
        "empty records make no sparse file",
        pax({_KEY + "major": "", _KEY + "minor": "", _KEY + "map": ""}) + _M,
        n=is_file(b"A" * 600),
    ),
    reads("a directory is not sparse", pax(_ONE_M) + header("n/", b"5"), n=is_directory()),
    reads(
        "a symbolic link is not sparse",
        pax(_ONE_M) + header("n", b"2", link="t"),
        n=is_symlink("t"),
    ),
    bad(
        "a sparse file's name that climbs is refused",
        pax({**_ONE, _KEY + "name": "../m"}) + member("n", _MAP),
        "'../m'",
        "climbs",
    ),
    holds(
        "a sparse whiteout is a whiteout",
        [file("m")],
        [pax({**_ONE, _KEY + "name": ".wh.m"}) + member("n", _MAP)],
        tree={},
    ),
]

CASES: list[Case] = [*_all_ways(), *_OLD, *_PAX]
