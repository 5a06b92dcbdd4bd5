"""What a pax header says of the next member: its name, its time, its numbers."""

from __future__ import annotations

from tests.corpus.between import bad, reads
from tests.corpus.case import Case, is_directory, is_file, is_symlink
from tests.helpers.raw import header, member, pax

_N = member("n", b"data")
_DATA = is_file(b"data")
_LATEST = (1 << 32) - 1


def _time(said: str) -> bytes:
    return pax({"mtime": said}) + _N


_PAX_NAMES = [
    reads("pax gives a name", pax({"path": "m"}) + _N, {"m": _DATA}),
    reads("pax gives a long name", pax({"path": "m" * 200}) + _N, {"m" * 200: _DATA}),
    reads("pax gives a name with a newline", pax({"path": "new\nline"}) + _N, {"new\nline": _DATA}),
    reads(
        "pax gives a name that is no UTF-8",
        pax({"path": b"\xff\xfe"}) + _N,
        {"\udcff\udcfe": _DATA},
    ),
    reads(
        "pax gives a name in binary",
        pax({"hdrcharset": "BINARY", "path": b"caf\xe9"}) + _N,
        {"caf\udce9": _DATA},
    ),
    reads(
        "pax gives a name in a charset that nobody has",
        pax({"charset": "ISO-IR 8859 1 1998", "path": b"\xe9"}) + _N,
        {"\udce9": _DATA},
    ),
    reads("pax gives a name with an equals sign", pax({"path": "m=n=o"}) + _N, {"m=n=o": _DATA}),
    reads(
        "pax gives a directory's name",
        pax({"path": "m"}) + header("n/", b"5"),
        {"m": is_directory()},
    ),
    reads(
        "pax gives a file's name with a slash at its end", pax({"path": "m/"}) + _N, {"m": _DATA}
    ),
    reads(
        "pax makes an old directory by a slash",
        pax({"path": "m/"}) + header("n", b"\0"),
        {"m": is_directory()},
    ),
    reads(
        "pax gives a link's target",
        pax({"linkpath": "t" * 300}) + header("n", b"2", link="u"),
        {"n": is_symlink("t" * 300)},
    ),
    reads("pax's empty name is none", pax({"path": ""}) + _N, {"n": _DATA}),
    reads(
        "pax's empty target is none",
        pax({"linkpath": ""}) + header("n", b"2", link="t"),
        {"n": is_symlink("t")},
    ),
    reads(
        "of two names in one header the second counts",
        pax([("path", "first"), ("path", "second")]) + _N,
        {"second": _DATA},
    ),
    reads(
        "an empty second name means the header's",
        pax([("path", "first"), ("path", "")]) + _N,
        {"n": _DATA},
    ),
    reads(
        "of two headers the second counts",
        pax({"path": "first"}) + pax({"path": "second"}) + _N,
        {"second": _DATA},
    ),
    reads(
        "of two headers only the second counts",
        pax({"path": "first"}) + pax({"mtime": "5"}) + _N,
        {"n": is_file(b"data", mtime=5)},
    ),
    reads(
        "a name counts for one member only",
        pax({"path": "m"}) + _N + member("o", b"data"),
        {"m": _DATA, "o": _DATA},
    ),
    bad("a name with a NUL is damage", pax({"path": b"m\0n"}) + _N, "name with a NUL"),
    bad(
        "a target with a NUL is damage",
        pax({"linkpath": b"m\0n"}) + header("n", b"2"),
        "name with a NUL",
    ),
    bad("an owner's name with a NUL is damage", pax({"uname": b"m\0n"}) + _N, "name with a NUL"),
    bad("a name from pax that climbs is refused", pax({"path": "../m"}) + _N, "'../m'", "climbs"),
]

_TIMES = {
    "1234567890.999999999": 1234567890,
    "1234567890.000000001": 1234567890,
    "5.": 5,
    "5.0": 5,
    "5." + "1" * 30: 5,
    "+5": 5,
    "0" * 25 + "5": 5,
    "0" * 5000 + "5": 5,
    "0": 0,
    "-0": 0,
    "-0.5": 0,
    "-1.5": 0,
    "4294967295.9": _LATEST,
    "4294967296": _LATEST,
    str(1 << 33): _LATEST,
    str(1 << 60): _LATEST,
    str((1 << 63) - 1): _LATEST,
    str(-(1 << 63)): 0,
}
_BAD_TIMES = (
    "1e9",
    ".5",
    "-",
    "--5",
    "+-5",
    " 5",
    "5 ",
    "5.x",
    "5.-1",
    "5.1.2",
    "0x5",
    "five",
    str(1 << 63),
    "9" * 5000,
    "5\0",
    "\u0665",
)
_PAX_TIMES = [
    *(
        reads(
            f"a time of {said[:30]!r}, {len(said)} long, is {kept}",
            _time(said),
            {"n": is_file(b"data", mtime=kept)},
        )
        for said, kept in _TIMES.items()
    ),
    reads("an empty time is none", _time(""), {"n": _DATA}),
    *(bad(f"a time of {said[:30]!r} is damage", _time(said), "bad mtime") for said in _BAD_TIMES),
    reads(
        "times that nobody keeps are not looked at",
        pax({"atime": "1.5", "ctime": "-1", "LIBARCHIVE.creationtime": "7"}) + _N,
        {"n": _DATA},
    ),
]

_ZERO = member("n", b"data", size=0)
_PAX_NUMBERS = [
    reads("pax gives a size", pax({"size": "4"}) + _ZERO, {"n": _DATA}),
    reads("pax's size beats the header's", pax({"size": "2"}) + _N, {"n": is_file(b"da")}),
    reads("a size may have zeros before it", pax({"size": "0" * 5000 + "4"}) + _ZERO, {"n": _DATA}),
    reads("a size may have a plus", pax({"size": "+4"}) + _ZERO, {"n": _DATA}),
    reads("an empty size is none", pax({"size": ""}) + _N, {"n": _DATA}),
    reads(
        "a directory's size means nothing",
        pax({"size": "4096"}) + header("n/", b"5"),
        {"n": is_directory()},
    ),
    *(
        bad(
            f"a size of {said[:20]!r}, {len(said)} long, is damage",
            pax({"size": said}) + _N,
            "bad size",
        )
        for said in ("-4", "four", "4.0", "0x4", " 4", "9" * 30, str(1 << 63), "9" * 5000, "4\0")
    ),
    *(
        reads(
            f"an owner {number} of pax is as good as any",
            pax({"uid": str(number), "gid": str(number)}) + _N,
            {"n": _DATA},
        )
        for number in (0, 1 << 21, 1 << 31, (1 << 32) - 1)
    ),
    reads("an empty owner is none", pax({"uid": "", "gid": ""}) + _N, {"n": _DATA}),
    *(
        bad(f"a {key} of {said!r} in pax is none", pax({key: said}) + _N, f"bad {key}")
        for key in ("uid", "gid")
        for said in ("4294967296", "-1", "root", "0.0", str(1 << 70))
    ),
]

CASES: list[Case] = [*_PAX_NAMES, *_PAX_TIMES, *_PAX_NUMBERS]
