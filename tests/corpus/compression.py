"""Blobs: what they are compressed with, whatever their media type says of it."""

from __future__ import annotations

import bz2
import lzma
import random
import zlib

import zstandard

from tests.corpus.case import Case, holds, is_file, refused
from tests.helpers import images
from tests.helpers.images import Compression, Layer, sha256
from tests.helpers.raw import END, member

# Not compressible, so that every cut is a cut in the middle.
_DATA = random.Random(1).randbytes(3000)
_ARCHIVE = member("a", b"a") + member("z", _DATA) + END
_TREE = {"a": is_file(b"a"), "z": is_file(_DATA)}
_HALF = 1700


def _layer(blob: bytes, compression: Compression = "gzip", archive: bytes = _ARCHIVE) -> Layer:
    return Layer(blob=blob, compression=compression, diff_id=sha256(archive))


def _gzip(
    data: bytes, *, level: int = 6, flags: int = 0, fields: bytes = b"", checked: bool = False
) -> bytes:
    """Return one gzip member, RFC 1952, with FLAGS of what FIELDS hold."""
    head = b"\x1f\x8b\x08" + bytes([flags | 2 * checked]) + bytes(4) + b"\0\xff" + fields
    if checked:
        head += (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little")
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    body = packer.compress(data) + packer.flush()
    return head + body + b"".join(n.to_bytes(4, "little") for n in (zlib.crc32(data), len(data)))


def _zstd(data: bytes, *, checksum: bool = False, size: bool = True) -> bytes:
    packer = zstandard.ZstdCompressor(level=3, write_checksum=checksum, write_content_size=size)
    return packer.compress(data)


def _skippable(size: int, number: int = 0) -> bytes:
    return b"".join(n.to_bytes(4, "little") for n in (0x184D2A50 + number, size)) + b"\xfd" * size


def _window(log: int) -> bytes:
    """Return a frame that wants a window of 2 to the LOG bytes, of raw blocks."""
    head = b"\x28\xb5\x2f\xfd\x00" + bytes([(log - 10) << 3])
    return head + (len(_ARCHIVE) << 3 | 1).to_bytes(3, "little") + _ARCHIVE


_ONE, _TWO = _ARCHIVE[:_HALF], _ARCHIVE[_HALF:]
_G, _Z, _ZC = _gzip(_ARCHIVE), _zstd(_ARCHIVE), _zstd(_ARCHIVE, checksum=True)
_EXTRA = (6).to_bytes(2, "little") + b"SG\2\0ab"
_GZIP = {
    "one member": _G,
    "two members": _gzip(_ONE) + _gzip(_TWO),
    "a member for every 97 bytes": b"".join(
        _gzip(_ARCHIVE[at : at + 97]) for at in range(0, len(_ARCHIVE), 97)
    ),
    "an empty member first": _gzip(b"") + _G,
    "an empty member last": _G + _gzip(b""),
    "empty members between": _gzip(_ONE) + 3 * _gzip(b"") + _gzip(_TWO),
    "a name": _gzip(_ARCHIVE, flags=8, fields=b"layer.tar\0"),
    "a name of a hundred kilobytes": _gzip(_ARCHIVE, flags=8, fields=b"n" * 100_000 + b"\0"),
    "a comment": _gzip(_ARCHIVE, flags=16, fields=b"comment\0"),
    "an extra field": _gzip(_ARCHIVE, flags=4, fields=_EXTRA),
    "an extra field of 65535 bytes": _gzip(_ARCHIVE, flags=4, fields=b"\xff\xff" + b"e" * 65535),
    "a checksum of its header": _gzip(_ARCHIVE, checked=True),
    "all that a header can have": _gzip(
        _ARCHIVE, flags=28, fields=_EXTRA + b"n\0c\0", checked=True
    ),
    "blocks that are stored": _gzip(_ARCHIVE, level=0),
    "zeros after it": _G + bytes(100),
    "a megabyte of zeros after it": _G + bytes(1 << 20),
    "a member for each entry and a table at the end, as estargz": b"".join(
        (_gzip(_ONE[:1024]), _gzip(_ARCHIVE[1024:]), _gzip(b"", flags=4, fields=_EXTRA))
    ),
}
_CUT = "gzip data is cut off"
_DAMAGED = "gzip data is damaged"
_GZIP_BAD = {
    **{f"cut off {left} bytes before its end": (_G[:-left], _CUT) for left in (1, 4, 8, 9, 100)},
    "cut off after its magic": (_G[:2], _CUT),
    "cut off in its header": (_G[:7], _CUT),
    "with a second member cut off": (_gzip(_ONE) + _gzip(_TWO)[:-1], _CUT),
    "with an empty member cut off": (_G + _gzip(b"")[:12], _CUT),
    "with the beginning of a member after it": (_G + b"\x1f", _CUT),
    "with garbage after it": (_G + b"garbage", "something follows"),
    "with zeros and garbage after it": (_G + bytes(64) + b"x", "something follows"),
    "with zeros between its members": (_gzip(_ONE) + bytes(9) + _gzip(_TWO), "something follows"),
    "with zstd after it": (_gzip(_ONE) + _zstd(_TWO), "something follows"),
    "with a wrong checksum": (_G[:-8] + bytes([_G[-8] ^ 1]) + _G[-7:], _DAMAGED),
    "with a wrong size": (_G[:-4] + bytes([_G[-4] ^ 1]) + _G[-3:], _DAMAGED),
    "with a wrong checksum of its header": (
        _gzip(_ARCHIVE, flags=10, fields=b"n\0xx"),
        _DAMAGED,
    ),
    "of an unknown method": (_G[:2] + b"\x07" + _G[3:], _DAMAGED),
    "with a bit changed": (_G[:1000] + bytes([_G[1000] ^ 16]) + _G[1001:], ""),
    "within gzip": (_gzip(_G), "no proper header"),
}
_ZSTD = {
    "one frame": _Z,
    "a checksum": _ZC,
    "no size in its header": _zstd(_ARCHIVE, size=False),
    "two frames": _zstd(_ONE) + _zstd(_TWO),
    "frames with and without a checksum": _zstd(_ONE, checksum=True) + _zstd(_TWO),
    "a frame for every 97 bytes": b"".join(
        _zstd(_ARCHIVE[at : at + 97]) for at in range(0, len(_ARCHIVE), 97)
    ),
    "an empty frame first": _zstd(b"") + _Z,
    "an empty frame last": _Z + _zstd(b""),
    "a skippable frame first": _skippable(100) + _Z,
    "a skippable frame last": _Z + _skippable(50, 5),
    "skippable frames of every kind between": _zstd(_ONE)
    + b"".join(_skippable(kind, kind) for kind in range(16))
    + _zstd(_TWO),
    "a large skippable frame": _skippable(300_000) + _Z,
    "a table and a footer to skip, as zstd:chunked": _zstd(_ONE)
    + _zstd(_TWO)
    + _skippable(200)
    + _skippable(64),
    "a window of 128 megabytes": _window(27),
    "a block that is raw": _window(20),
}
_ZCUT = "zstd data is cut off"
_ZDAMAGED = "zstd data is damaged"
_ZSTD_BAD = {
    **{f"cut off {left} bytes before its end": (_Z[:-left], "zstd data is") for left in (1, 9, 99)},
    "cut off in its checksum": (_ZC[:-1], "zstd data is"),
    "cut off before its checksum": (_ZC[:-4], "zstd data is"),
    "cut off after its magic": (_Z[:4], "zstd data is"),
    "cut off in its header": (_Z[:5], "zstd data is"),
    "with a second frame cut off": (_zstd(_ONE) + _zstd(_TWO)[:-2], "zstd data is"),
    "with a skippable frame cut off": (_Z + _skippable(50)[:20], _ZCUT),
    "with a skippable frame's header cut off": (_Z + _skippable(50)[:6], "zstd data is"),
    "with the beginning of a frame after it": (_Z + _Z[:3], "zstd data is"),
    "with an empty frame cut off": (_Z + _zstd(b"")[:-1], "zstd data is"),
    "with a wrong checksum": (_ZC[:-1] + bytes([_ZC[-1] ^ 1]), _ZDAMAGED),
    "with garbage after it": (_Z + b"garbage!", _ZDAMAGED),
    "with zeros after it": (_Z + bytes(64), _ZDAMAGED),
    "with gzip after it": (_zstd(_ONE) + _gzip(_TWO), _ZDAMAGED),
    "with a window of 256 megabytes": (_window(28), _ZDAMAGED),
    "with a window of two terabytes": (_window(41), _ZDAMAGED),
    "with a reserved block": (_window(20)[:6] + b"\x07" + _window(20)[7:], _ZDAMAGED),
}
_OTHERS = {
    "bzip2": (bz2.compress(_ARCHIVE), "bzip2"),
    "xz": (lzma.compress(_ARCHIVE), "xz"),
    "zip": (b"PK\x03\x04" + _ARCHIVE, "zip"),
    "lz4": (b"\x04\x22\x4d\x18" + _ARCHIVE, "lz4"),
    "lzma": (lzma.compress(_ARCHIVE, format=lzma.FORMAT_ALONE), "header"),
    "compress": (b"\x1f\x9d\x90" + _ARCHIVE, "header"),
    "zlib": (zlib.compress(_ARCHIVE), "header"),
    "raw deflate": (zlib.compress(_ARCHIVE)[2:-4], "header"),
}
_TYPES: tuple[Compression, ...] = ("gzip", "zstd", "none")
_EMPTY: dict[str, bytes] = {
    "no bytes": b"",
    "an empty gzip member": _gzip(b""),
    "three empty gzip members": 3 * _gzip(b""),
    "an empty zstd frame": _zstd(b""),
    "a skippable zstd frame": _skippable(30),
    "an empty archive in gzip": _gzip(END),
}

CASES: list[Case] = [
    *(holds(f"gzip may have {what}", _layer(blob), tree=_TREE) for what, blob in _GZIP.items()),
    *(
        holds(f"zstd may have {what}", _layer(blob, "zstd"), tree=_TREE)
        for what, blob in _ZSTD.items()
    ),
    *(
        refused(f"gzip {what} is damage", _layer(blob), because=["layer 1", because])
        for what, (blob, because) in _GZIP_BAD.items()
    ),
    *(
        refused(f"zstd {what} is damage", _layer(blob, "zstd"), because=["layer 1", because])
        for what, (blob, because) in _ZSTD_BAD.items()
    ),
    *(
        refused(
            f"{name} is none of a layer's, said to be {said}",
            _layer(blob, said),
            because=["layer 1", because],
        )
        for name, (blob, because) in _OTHERS.items()
        for said in (_TYPES if because == name else _TYPES[-1:])
    ),
    *(
        holds(f"a layer said to be {said} may be {really}", _layer(blob, said), tree=_TREE)
        for said in _TYPES
        for really, blob in (("gzip", _G), ("zstd", _Z), ("none", _ARCHIVE))
        if said != really
    ),
    *(
        holds(
            f"a layer of {what} is empty",
            _layer(blob, "gzip", END if "archive" in what else b""),
            tree={},
        )
        for what, blob in _EMPTY.items()
    ),
    holds(
        "each layer may be compressed in its own way",
        *(
            images.layer([images.file(how, b"x"), images.file("last", how.encode())], how)
            for how in _TYPES
        ),
        tree={"last": is_file(b"none"), **{how: is_file(b"x") for how in _TYPES}},
    ),
]
