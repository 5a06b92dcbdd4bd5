"""Numbers in headers: sizes, times, modes and owners, however they are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.corpus.between import bad, reads
from tests.corpus.case import Case, holds, is_directory, is_fifo, is_file, is_symlink
from tests.helpers import raw
from tests.helpers.images import directory, fifo, file, symlink
from tests.helpers.raw import base256, header, member, padded

_LATEST = (1 << 32) - 1


def _file(**fields: Any) -> bytes:
    return header("n", **{"size": 4, **fields}) + padded(b"data")


_SIZES = {
    "without a terminator": b"000000000004",
    "after blanks": b"          4 ",
    "before blanks": b"4           ",
    "between NULs": b"\0\0\0\0\x34\0\0\0\0\0\0\0",
    "before a NUL and junk": b"4\0junk\0\0\0\0\0\0",
    "before a blank and a NUL": b"0000000004 \0",
    "in base-256": base256(4, 12),
}
_BAD_SIZES = {
    "with a blank inside": b"4 4        \0",
    "with the digit 8": b"00000000008\0",
    "with a plus": b"+0000000004\0",
    "with a minus": b"-0000000004\0",
    "with an underscore": b"0000000_004\0",
    "in hexadecimal": b"0x4\0",
    "in words": b"four\0",
    "in Arabic digits": "\u0664".encode().ljust(12, b"\0"),
}
_NUMBERS = [
    *(
        reads(f"a size may be written {how}", _file(size=size), n=is_file(b"data"))
        for how, size in _SIZES.items()
    ),
    *(bad(f"a size {how} is damage", _file(size=size), "size") for how, size in _BAD_SIZES.items()),
    bad("a negative size is damage", _file(size=base256(-4, 12)), "negative size"),
    bad("the most negative size is damage", _file(size=base256(-(1 << 63), 12)), "negative size"),
    # It is either too large for the site, or not there.
    bad("a size of a terabyte is damage", _file(size=base256(1 << 40, 12)), "'n'"),
    bad("a size of 2^63-1 is damage", _file(size=base256((1 << 63) - 1, 12)), "'n'"),
    bad("a size of 2^63 is damage", _file(size=base256(1 << 63, 12)), "size beyond 64 bits"),
    bad("a size of 2^90 is damage", _file(size=base256(1 << 90, 12)), "size beyond 64 bits"),
    bad("a size of eight octal gigabytes is damage", _file(size=b"7" * 12), "cut off", "'n'"),
    reads(
        "empty fields are zeros",
        _file(mode=bytes(8), mtime=bytes(12), uid=bytes(8), gid=bytes(8)),
        n=is_file(b"data", mode=0o444, mtime=0),
    ),
    reads(
        "blank fields are zeros",
        _file(mode=b" " * 8, mtime=b" " * 12, uid=b" " * 8, gid=b" " * 8),
        n=is_file(b"data", mode=0o444, mtime=0),
    ),
]

_TIMES = {
    0: 0,
    1: 1,
    (1 << 31) - 1: (1 << 31) - 1,
    1 << 31: 1 << 31,
    (1 << 32) - 1: _LATEST,
    1 << 32: _LATEST,
    (1 << 33) - 1: _LATEST,
    1 << 33: _LATEST,
    1 << 60: _LATEST,
    (1 << 63) - 1: _LATEST,
    -1: 0,
    -(1 << 31): 0,
    -(1 << 63): 0,
}
_TIME_CASES = [
    *(
        reads(f"a time of {said} is {kept}", _file(mtime=said), n=is_file(b"data", mtime=kept))
        for said, kept in _TIMES.items()
    ),
    holds(
        "directories, links and pipes have times of their own",
        [
            directory("d", mtime=5),
            symlink("s", "d", mtime=-7),
            fifo("p", mtime=1 << 40),
            header("e/", b"5", mtime=1 << 33),
        ],
        tree={
            "d": is_directory(mtime=5),
            "s": is_symlink("d", mtime=0),
            "p": is_fifo(mtime=_LATEST),
            "e": is_directory(mtime=_LATEST),
        },
    ),
    bad("a time of 2^63 is damage", _file(mtime=base256(1 << 63, 12)), "mtime beyond 64 bits"),
    bad("a time of -2^90 is damage", _file(mtime=base256(-(1 << 90), 12)), "mtime beyond 64 bits"),
    bad("a time in words is damage", _file(mtime=b"yesterday\0"), "bad mtime"),
]

_MODES: Mapping[int | bytes, tuple[int, int]] = {
    # What is said to what a file and what a directory has.
    0: (0o444, 0o555),
    0o600: (0o644, 0o755),
    0o200: (0o644, 0o755),
    0o100: (0o555, 0o555),
    0o010: (0o455 | 0o100, 0o555),
    0o711: (0o755, 0o755),
    0o640: (0o644, 0o755),
    0o666: (0o666, 0o777),
    0o777: (0o777, 0o777),
    0o1777: (0o1777, 0o1777),
    0o4755: (0o755, 0o755),
    0o2755: (0o755, 0o755),
    0o6711: (0o755, 0o755),
    0o7777: (0o1777, 0o1777),
    0o100644: (0o644, 0o755),
    0o040755: (0o755, 0o755),
    b"7777777\0": (0o1777, 0o1777),
    base256(0o755, 8): (0o755, 0o755),
    base256(-1, 8): (0o1777, 0o1777),
}
_MODE_CASES = [
    *(
        holds(
            f"the mode {oct(mode) if isinstance(mode, int) else mode!r} lets all read, and "
            "nobody become somebody else",
            [member("f", b"1", mode=mode), header("d", b"5", mode=mode)],
            tree={"f": is_file(b"1", mode=for_file), "d": is_directory(mode=for_directory)},
        )
        for mode, (for_file, for_directory) in _MODES.items()
    ),
    holds(
        "a file below a directory that nobody may enter is there",
        [directory("d", mode=0), file("d/x", mode=0)],
        tree={"d": is_directory(mode=0o555), "d/x": is_file(mode=0o444)},
    ),
    holds("a named pipe has a mode", [fifo("p", mode=0o6600)], tree={"p": is_fifo(mode=0o644)}),
    holds(
        "a symbolic link has none",
        [header("s", b"2", link="x", mode=0o600)],
        tree={"s": is_symlink("x")},
    ),
    bad("a mode in words is damage", _file(mode=b"rw-r--r-"), "bad mode"),
]

_GOOD_IDS = (1, 65534, 65536, (1 << 21) - 1, 1 << 21, 1 << 31, (1 << 32) - 1)
_BAD_IDS = (1 << 32, (1 << 32) + 1, 1 << 40, (1 << 48) - 1, -1, -2)
_IDS = [
    *(
        reads(
            f"an owner {number} is as good as any",
            _file(uid=raw.number(number, 8), gid=raw.number(number, 8)),
            n=is_file(b"data"),
        )
        for number in _GOOD_IDS
    ),
    *(
        bad(f"an owner {number} is none", _file(uid=base256(number, 8)), "bad uid", str(number))
        for number in _BAD_IDS
    ),
    *(
        bad(f"a group {number} is none", _file(gid=base256(number, 8)), "bad gid", str(number))
        for number in _BAD_IDS
    ),
    bad("an owner in words is damage", _file(uid=b"root\0\0\0\0"), "bad uid"),
    reads(
        "names of owners are not looked at",
        _file(uname=b"\xff" * 32, gname=b"no" * 16),
        n=is_file(b"data"),
    ),
]


CASES: list[Case] = [*_NUMBERS, *_TIME_CASES, *_MODE_CASES, *_IDS]
