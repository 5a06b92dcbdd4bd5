"""Headers: their checksums, their dialects, and types that are no files."""

from __future__ import annotations

from typing import Any

from tests.corpus.between import bad, reads
from tests.corpus.case import IMPLIED, Case, holds, is_directory, is_fifo, is_file, is_symlink
from tests.helpers.images import file
from tests.helpers.raw import GNU, POSIX, V7, base256, header, member, padded


def _file(**fields: Any) -> bytes:
    return header("n", **{"size": 4, **fields}) + padded(b"data")


def _signed(block: bytes) -> bytes:
    """Return the header BLOCK with the checksum that signed bytes have."""
    blank = block[:148] + b" " * 8 + block[156:]
    total = sum(byte - 256 if byte > 127 else byte for byte in blank)
    return block[:148] + b"%06o\0 " % total + block[156:]


_SUM = sum(header("n", checksum=b" " * 8))
_CHECKSUMS = [
    reads(
        "a checksum over signed bytes is right",
        _signed(header(b"n\xe9\xff")),
        **{"n\udce9\udcff": is_file()},
    ),
    *(
        reads(f"a checksum may be written {how}", header("n", checksum=field), n=is_file())
        for how, field in (
            ("with blanks before it", b"%7o\0" % _SUM),
            ("short", b"%o\0" % _SUM),
            ("with zeros", b"%08o" % _SUM),
            ("with a blank last", b"%06o  " % _SUM),
        )
    ),
    *(
        bad(
            f"a checksum {how} is damage",
            header("n", checksum=field),
            "no proper header",
            "byte 1024",
        )
        for how, field in (
            ("of one too many", b"%06o\0 " % (_SUM + 1)),
            ("of blanks", b" " * 8),
            ("of NULs", bytes(8)),
            ("in words", b"checksum"),
            ("of -1", b"\xff" * 8),
        )
    ),
]

_PREFIX = b"some/prefix"
_UNDER = {"some": IMPLIED, "some/prefix": IMPLIED, "some/prefix/n": is_file(b"data")}
_STAR_TIMES = b"13371337133\0" * 2 + bytes(8) + b"tar\0"
_DIALECTS = [
    reads("ustar has the beginning of a name in its prefix", _file(prefix=_PREFIX), **_UNDER),
    reads("a prefix may have a slash at its end", _file(prefix=_PREFIX + b"/"), **_UNDER),
    reads(
        "a prefix may have 155 bytes",
        _file(prefix=b"p" * 155),
        **{"p" * 155: IMPLIED, "p" * 155 + "/n": is_file(b"data")},
    ),
    reads(
        "a prefix may have the whole name",
        header("", b"5", prefix=_PREFIX),
        **{"some": IMPLIED, "some/prefix": is_directory()},
    ),
    reads("ustar needs no version", _file(magic=b"ustar\0\0\0", prefix=_PREFIX), **_UNDER),
    reads(
        "star has times after a shorter prefix",
        _file(rest=b"p" * 131 + _STAR_TIMES),
        **{"p" * 131: IMPLIED, "p" * 131 + "/n": is_file(b"data")},
    ),
    reads(
        "GNU has times where ustar has a prefix",
        _file(magic=GNU, rest=b"13371337133\0" * 2),
        n=is_file(b"data"),
    ),
    reads(
        "GNU may have times in base-256 there",
        _file(magic=GNU, rest=base256(-5, 12) + base256(1 << 40, 12)),
        n=is_file(b"data"),
    ),
    reads("young Go had GNU's magic and a prefix", _file(magic=GNU, prefix=_PREFIX), **_UNDER),
    reads(
        "what is neither time nor text is no prefix",
        _file(magic=GNU, prefix=b"som\xe9/prefix"),
        n=is_file(b"data"),
    ),
    *(
        reads(
            f"the magic {magic!r} has no prefix",
            _file(magic=magic, prefix=_PREFIX),
            n=is_file(b"data"),
        )
        for magic in (V7, b"junkjunk", b"ustar 00", b"USTAR\x0000")
    ),
    reads("a name may fill its field", header("n" * 100), **{"n" * 100: is_file()}),
    reads("what follows a name's NUL is not looked at", header(b"n\0junk"), n=is_file()),
    reads(
        "a link's target may fill its field",
        header("n", b"2", link="t" * 100),
        n=is_symlink("t" * 100),
    ),
    reads(
        "what follows a target's NUL is not looked at",
        header("n", b"2", link=b"t\0junk"),
        n=is_symlink("t"),
    ),
    reads("a file's link field is not looked at", _file(link="/etc/shadow"), n=is_file(b"data")),
    holds(
        "an archive of four dialects is one archive",
        [
            member("1", b"1", magic=V7, kind=b"\0"),
            member("2", b"2", magic=POSIX),
            member("3", b"3", magic=GNU),
            file("4" * 120, b"4"),
        ],
        tree={"1": is_file(b"1"), "2": is_file(b"2"), "3": is_file(b"3"), "4" * 120: is_file(b"4")},
    ),
]

_NO_DATA = {"directory": b"5", "symbolic link": b"2", "named pipe": b"6"}
_IS = {
    "directory": is_directory(mode=0o755),
    "symbolic link": is_symlink("t"),
    "named pipe": is_fifo(),
}
_TYPES = [
    reads("type 7, a contiguous file, is a file", member("n", b"data", b"7"), n=is_file(b"data")),
    reads("type NUL, of old, is a file", member("n", b"data", b"\0"), n=is_file(b"data")),
    reads(
        "a file of old with a slash at its end is a directory",
        header("n/", b"\0"),
        n=is_directory(),
    ),
    reads("a directory of old may have a size", header("n/", b"\0", size=512), n=is_directory()),
    *(
        reads(
            f"a {kind} may have a size, and has no data",
            header("n", flag, size=4096, link="t"),
            n=_IS[kind],
        )
        for kind, flag in _NO_DATA.items()
    ),
    *(
        reads(
            f"a {kind} may even have a negative size",
            header("n", flag, size=-5, link="t"),
            n=_IS[kind],
        )
        for kind, flag in _NO_DATA.items()
    ),
    *(
        bad(
            f"data after a {kind} is damage",
            member("n", b"data", flag, link="t"),
            "no proper header",
        )
        for kind, flag in _NO_DATA.items()
    ),
    reads(
        "a device of either kind is left out, and may have a size",
        header("n", b"3", size=4096) + header("m", b"4", size=4096),
    ),
    *(
        bad(
            f"type {flag!r} with {len(data)} bytes is none that a layer has",
            member("n", data, flag),
            "'n'",
            "unknown type",
        )
        for flag in (
            b"8",
            b"9",
            b"A",
            b"D",
            b"I",
            b"M",
            b"N",
            b"V",
            b"X",
            b"Z",
            b" ",
            b"\x01",
            b"\x80",
        )
        for data in (b"", b"data")[: 2 if flag in b"DMV" else 1]
    ),
]

CASES: list[Case] = [*_CHECKSUMS, *_DIALECTS, *_TYPES]
