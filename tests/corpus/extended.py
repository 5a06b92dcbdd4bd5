"""Headers about other members: what pax ones say besides, global ones, and GNU's long names."""

from __future__ import annotations

from tests.corpus.between import bad, reads
from tests.corpus.case import Case, is_directory, is_file, is_symlink, refused
from tests.helpers.raw import base256, header, long_link, long_name, member, padded, pax, record

_N = member("n", b"data")
_DATA = is_file(b"data")


def _body(body: bytes, kind: bytes = b"x") -> bytes:
    return member("PaxHeaders/x", body, kind)


_XATTRS = {
    "SCHILY.xattr.user.x": b"\0\xff\n=\0",
    "SCHILY.xattr.security.capability": b"\1\0\0\2\0\4\0\0" + bytes(12),
    "SCHILY.xattr.trusted.overlay.opaque": b"y",
    "SCHILY.xattr.system.posix_acl_access": b"\2\0\0\0",
    "SCHILY.xattr.security.selinux": b"system_u:object_r:bin_t:s0",
    "SCHILY.xattr.nonsense": b"x" * 70000,
    "SCHILY.acl.access": b"user::rwx",
    "LIBARCHIVE.xattr.user.x": b"AAAA",
    "RHT.security.selinux": b"x",
}
_OTHER = [
    *(
        reads(f"{key} is left out", pax({key: value}) + _N, {"n": _DATA})
        for key, value in _XATTRS.items()
    ),
    reads("all of them together are left out", pax(_XATTRS) + _N, {"n": _DATA}),
    reads(
        "an opaque directory of overlayfs is just a directory",
        pax({"SCHILY.xattr.trusted.overlay.opaque": "y"}) + header("n/", b"5"),
        {"n": is_directory()},
    ),
    reads("a comment is no name", pax({"comment": "path=m"}) + _N, {"n": _DATA}),
    reads(
        "what star keeps is not looked at",
        pax({"SCHILY.dev": "1", "SCHILY.ino": "2", "SCHILY.nlink": "3", "VENDOR.x": "y"}) + _N,
        {"n": _DATA},
    ),
    reads("a header without records says nothing", _body(b"") + _N, {"n": _DATA}),
    reads("a comment may be long", pax({"comment": "x" * 900_000}) + _N, {"n": _DATA}),
    reads(
        "there may be ten thousand records",
        pax([(f"VENDOR.{n}", "x") for n in range(10_000)] + [("path", "m")]) + _N,
        {"m": _DATA},
    ),
    bad(
        "an extended header of a megabyte is too much",
        pax({"comment": "x" * (1 << 20)}) + _N,
        "extended header has 1048593 bytes",
    ),
    reads("a record may be as short as can be", _body(b"5 a=\n") + _N, {"n": _DATA}),
    reads("a record's length may have a zero before it", _body(b"011 path=m\n") + _N, {"m": _DATA}),
    *(
        bad(f"a record with {what} is damage", _body(body) + _N, "malformed record")
        for what, body in {
            "no length": b"path=m\n",
            "a length of 0": b"0 path=m\n",
            "a length too short": b"4 a=\n",
            "a length too long": b"99 path=m\n",
            "a length one too long": b"11 path=m\n",
            "a length one too short": b"8 path=m\n",
            "a negative length": b"-9 path=m\n",
            "a length in words": b"xx path=m\n",
            "a length in hexadecimal": b"0x9 path=m\n",
            "a blank first": b" 10 path=m\n",
            "no newline": b"8 path=m",
            "no equals sign": b"8 path m\n",
            "no key": b"8 =abcd\n",
            "a NUL in its key": record(b"pa\0th", "m"),
            "NULs after it": b"9 path=m\n\0\0\0",
            "a length of thirty digits": b"9" * 30 + b" path=m\n",
            "a tab for the blank": b"9\tpath=m\n",
        }.items()
    ),
]

_GLOBAL = [
    reads("a global comment is a comment", pax({"comment": "c" * 40}, b"g") + _N, {"n": _DATA}),
    reads("a global header without records says nothing", _body(b"", b"g") + _N, {"n": _DATA}),
    reads(
        "a global time is not looked at, as docker has it",
        pax({"mtime": "5", "uid": "7"}, b"g") + _N,
        {"n": _DATA},
    ),
    reads(
        "a global header may come before a member's own",
        pax({"comment": "c"}, b"g") + pax({"path": "m"}) + _N,
        {"m": _DATA},
    ),
    reads(
        "a global header between a member and its own header changes nothing",
        pax({"path": "m"}) + pax({"comment": "c"}, b"g") + _N,
        {"m": _DATA},
    ),
    *(
        bad(f"a global {key} is refused", pax({key: "4"}, b"g") + _N, "global pax header")
        for key in ("path", "linkpath", "size")
    ),
    bad("a malformed global header is damage", _body(b"nonsense", b"g") + _N, "malformed record"),
]

_LINK = header("n", b"2", link="t")
_GNU = [
    reads("GNU gives a long name", long_name("m" * 150) + _N, {"m" * 150: _DATA}),
    reads("GNU gives a long target", long_link("t" * 150) + _LINK, {"n": is_symlink("t" * 150)}),
    reads(
        "GNU gives a name, then a target",
        long_name("m" * 150) + long_link("t" * 150) + _LINK,
        {"m" * 150: is_symlink("t" * 150)},
    ),
    reads(
        "GNU gives a target, then a name",
        long_link("t" * 150) + long_name("m" * 150) + _LINK,
        {"m" * 150: is_symlink("t" * 150)},
    ),
    reads(
        "of two long names the second counts",
        long_name("first") + long_name("second") + _N,
        {"second": _DATA},
    ),
    reads(
        "of two long targets the second counts",
        long_link("first") + long_link("second") + _LINK,
        {"n": is_symlink("second")},
    ),
    reads("a long target is nothing to a file", long_link("t" * 150) + _N, {"n": _DATA}),
    reads("a long name needs no NUL", member("L", b"m" * 150, b"L") + _N, {"m" * 150: _DATA}),
    reads("an empty long name is none", member("L", b"", b"L") + _N, {"n": _DATA}),
    reads("a long name of one NUL is none", member("L", b"\0", b"L") + _N, {"n": _DATA}),
    reads(
        "what follows a long name's NUL is not looked at",
        member("L", b"m\0junk\0", b"L") + _N,
        {"m": _DATA},
    ),
    reads(
        "a long name's slash at the end is not a directory's",
        long_name("m" * 150 + "/") + _N,
        {"m" * 150: _DATA},
    ),
    reads(
        "a long name's slash makes an old directory",
        long_name("m" * 150 + "/") + header("n", b"\0"),
        {"m" * 150: is_directory()},
    ),
    reads(
        "a long name beats a ustar prefix",
        long_name("m") + member("n", b"data", prefix=b"p"),
        {"m": _DATA},
    ),
    reads(
        "GNU's name beats pax's that follows it, as docker has it",
        long_name("gnu") + pax({"path": "pax"}) + _N,
        {"gnu": _DATA},
    ),
    reads(
        "GNU's name beats pax's before it",
        pax({"path": "pax"}) + long_name("gnu") + _N,
        {"gnu": _DATA},
    ),
    reads(
        "GNU's target beats pax's",
        long_link("gnu") + pax({"linkpath": "pax"}) + _LINK,
        {"n": is_symlink("gnu")},
    ),
    reads(
        "GNU's name leaves pax its time",
        pax({"mtime": "5"}) + long_name("gnu") + _N,
        {"gnu": is_file(b"data", mtime=5)},
    ),
    reads(
        "a long name counts for one member only",
        long_name("m") + _N + member("o", b"data"),
        {"m": _DATA, "o": _DATA},
    ),
    bad(
        "a long name of a megabyte is too much",
        long_name("x/" * (1 << 19)) + _N,
        "extended header has 1048577 bytes",
    ),
    bad(
        "a long name of negative length is damage",
        header("L", b"L", size=base256(-1, 12)) + _N,
        "extended header has -1 bytes",
    ),
    bad("a long name that climbs is refused", long_name("../m") + _N, "'../m'", "climbs"),
    refused(
        "a long name that swallows its member announces nothing",
        header("L", b"L", size=1500) + padded(b"m" * 500) + _N,
        because=["layer 1", "announces a member"],
    ),
]

CASES: list[Case] = [*_OTHER, *_GLOBAL, *_GNU]
