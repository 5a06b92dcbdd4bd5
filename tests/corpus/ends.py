"""Where archives end: properly, in the middle, or not at all."""

from __future__ import annotations

from tests.corpus.case import Case, holds, is_file, refused
from tests.helpers.images import file
from tests.helpers.raw import BLOCK, END, header, long_name, member, padded, pax, record

_BODY = member("a", b"a") + member("z", b"z" * 600)
_TREE = {"a": is_file(b"a"), "z": is_file(b"z" * 600)}
_ZERO = bytes(BLOCK)
_UNFILLED = member("a", b"a") + header("z", size=600) + b"z" * 600

_GOOD = {
    "two blocks of zeros": _BODY + END,
    "one block of zeros": _BODY + _ZERO,
    "nothing": _BODY,
    "three blocks of zeros": _BODY + END + _ZERO,
    "blocks of zeros up to ten kilobytes": _BODY.ljust(10240, b"\0"),
    "a megabyte of zeros": _BODY + bytes(1 << 20),
    "zeros that fill no block": _BODY + END + bytes(100),
    "garbage after its end": _BODY + END + b"garbage" * 99,
    "another archive after its end": _BODY + END + member("evil", b"evil") + END,
    "a header of damage after its end": _BODY + END + header("evil", checksum=b"bad") + END,
    "a file's last byte": _UNFILLED,
    "a file's last byte and a few zeros": _UNFILLED + bytes(50),
}
_EMPTY = {
    "of two blocks of zeros": END,
    "of one block of zeros": _ZERO,
    "of no bytes": b"",
    "of a megabyte of zeros": bytes(1 << 20),
    "of garbage after its end": END + b"garbage" * 99,
}
_LONE = "lone block of zeros"
_BAD = {
    "a hundred zeros": (_BODY + bytes(100), "cut off in a header at byte 2560"),
    "a block and a half of zeros": (_BODY + bytes(768), _LONE),
    "one zero": (_BODY + b"\0", "cut off in a header at byte 2560"),
    "a lone block of zeros, then members": (
        member("a") + _ZERO + member("b") + END,
        _LONE,
    ),
    "a lone block of zeros, then garbage": (_BODY + _ZERO + b"x" * BLOCK, _LONE),
    "a lone block of zeros, then a bit of garbage": (_BODY + _ZERO + b"x" * 10, _LONE),
    "the middle of a header": (_BODY[:1324], "cut off in a header at byte 1024"),
    "a header without its data": (_BODY[:1536], "cut off in 'z'"),
    "the middle of data": (_BODY[: 1536 + 300], "cut off in 'z'"),
    "the last byte but one of data": (_BODY[: 1536 + 599], "cut off in 'z'"),
    "half a header of pax": (_BODY + pax({"path": "b"})[:100], "cut off in a header"),
    "a header of pax without its records": (
        _BODY + pax({"path": "b"})[:BLOCK],
        "cut off in an extended header",
    ),
    "records of pax that fill no block": (
        _BODY + header("x", b"x", size=9) + record("path", "b"),
        "cut off in an extended header",
    ),
    "a header of pax about nothing": (_BODY + pax({"path": "b"}), "announces a member"),
    "a header of pax, then a proper end": (_BODY + pax({"path": "b"}) + END, "announces a member"),
    "an empty header of pax about nothing": (_BODY + pax({}) + END, "announces a member"),
    "a long name of nothing": (_BODY + long_name("b" * 200) + END, "announces a member"),
    "a long name without its end": (
        _BODY + long_name("b" * 2000)[:1024],
        "cut off in an extended header",
    ),
    "the middle of a sparse file's map": (
        pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})
        + header("z", size=2048)
        + padded(b"200\n0\n1\n"),
        "'z': a sparse file's map is malformed",
    ),
}
_GARBAGE = {
    "a byte": b"x",
    "a hundred bytes": b"x" * 100,
    "a block": b"x" * BLOCK,
    "two blocks": b"x" * 2 * BLOCK,
    "an HTML page": b"<!doctype html><title>502 Bad Gateway</title>".ljust(3000),
    "a JSON object": b'{"errors":[{"code":"DENIED"}]}'.ljust(700),
    "a zero, and then garbage": b"\0".ljust(BLOCK, b"x"),
    "text in UTF-16": "archive".encode("utf-16").ljust(BLOCK, b" "),
}

CASES: list[Case] = [
    *(holds(f"an archive may end with {end}", data, tree=_TREE) for end, data in _GOOD.items()),
    *(holds(f"an archive {what} is empty", data, tree={}) for what, data in _EMPTY.items()),
    *(
        holds(f"a layer {what} changes nothing", [file("a", b"a")], data, tree={"a": is_file(b"a")})
        for what, data in _EMPTY.items()
    ),
    *(
        refused(f"an archive that ends with {end} is damage", data, because=["layer 1", *because])
        for end, (data, *because) in _BAD.items()
    ),
    *(
        refused(
            f"a layer that is {what} is damage", [file("a")], data, because=["layer 2", "header"]
        )
        for what, data in _GARBAGE.items()
    ),
]
