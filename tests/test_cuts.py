"""Wherever bytes are cut on their way, they mean the same."""

from __future__ import annotations

import gzip
import itertools
import json
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

import pytest
import requests
import zstandard

from shifter_lite.build import tar
from shifter_lite.build.inflate import inflate
from shifter_lite.build.local.files import Content, Files
from shifter_lite.build.local.stored import Stored
from shifter_lite.build.wire.body import Body
from shifter_lite.build.wire.patience import Patience
from shifter_lite.build.wire.session import Session
from shifter_lite.errors import BadImage
from tests.helpers import images, raw

_DATA = b"hello, world " * 50


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """Yield DATA cut into two at every byte, and into pieces of one, two and three bytes."""
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]
    for size in (1, 2, 3):
        yield [data[at : at + size] for at in range(0, len(data), size)]


# -------------------------------------------------------------------------------------- gzip

_EXTRA, _NAME, _COMMENT = (9).to_bytes(2, "little") + b"extra-bit", b"name\0", b"\0"


def _member(data: bytes, fields: Sequence[bytes | None], *, checked: bool) -> bytes:
    """Return one gzip member, RFC 1952, with those of extra field, name and comment in FIELDS."""
    flags = sum(4 << n for n, field in enumerate(fields) if field is not None) | 2 * checked
    head = b"\x1f\x8b\x08" + bytes([flags]) + bytes(4) + b"\0\xff"
    head += b"".join(field for field in fields if field is not None)
    if checked:
        head += (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little")
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = packer.compress(data) + packer.flush()
    return head + body + b"".join(n.to_bytes(4, "little") for n in (zlib.crc32(data), len(data)))


_HEADERS = list(
    itertools.product(
        itertools.product((None, _EXTRA), (None, _NAME), (None, _COMMENT)), (False, True)
    )
)


@pytest.mark.parametrize(("fields", "checked"), _HEADERS)
def test_a_gzip_file_is_inflated_wherever_its_headers_are_cut(
    fields: Sequence[bytes | None], checked: bool
) -> None:
    member = _member(_DATA, fields, checked=checked)
    for blob, content in (
        (member, _DATA),
        (gzip.compress(b"") + member + bytes(20), _DATA),
        (member * 2, _DATA * 2),
    ):
        for pieces in cuts(blob):
            assert b"".join(inflate(iter(pieces))) == content


@pytest.mark.parametrize(("fields", "checked"), _HEADERS)
def test_a_gzip_file_that_ends_early_is_cut_off_wherever_that_is(
    fields: Sequence[bytes | None], checked: bool
) -> None:
    member = _member(_DATA, fields, checked=checked)
    for end in range(3, len(member)):
        for blob in (member[:end], member + member[:end]):
            with pytest.raises(BadImage, match="cut off"):
                b"".join(inflate(iter([blob])))


def test_what_follows_gzip_data_is_refused_wherever_it_is_cut() -> None:
    for blob in (b"garbage", bytes(9) + b"x", bytes(9) + gzip.compress(b"")):
        for pieces in cuts(gzip.compress(b"data", mtime=0) + blob):
            with pytest.raises(BadImage, match="something follows"):
                b"".join(inflate(iter(pieces)))


def test_a_gzip_header_may_be_large_but_not_without_end() -> None:
    large = _member(_DATA, [b"\xff\xff" + b"x" * 65535, b"n" * 5000 + b"\0", None], checked=True)
    for size in (1000, 65536, len(large)):
        pieces = (large[at : at + size] for at in range(0, len(large), size))
        assert b"".join(inflate(pieces)) == _DATA
    endless = itertools.chain([b"\x1f\x8b\x08\x08" + bytes(6)], itertools.repeat(b"n" * 65536))
    with pytest.raises(BadImage, match="a header of more than"):
        b"".join(inflate(endless))


def test_a_gzip_header_with_a_wrong_checksum_is_damage() -> None:
    member = _member(_DATA, [None, _NAME, None], checked=True).replace(b"name", b"nane")
    for pieces in cuts(member):
        with pytest.raises(BadImage, match="damaged"):
            b"".join(inflate(iter(pieces)))


# -------------------------------------------------------------------------------------- zstd

_FRAME = b"\x28\xb5\x2f\xfd"


def _frame(descriptor: int, fields: bytes, *blocks: bytes, check: bytes = b"") -> bytes:
    return _FRAME + bytes([descriptor]) + fields + b"".join(blocks) + check


def _block(kind: int, size: int, data: bytes, *, last: bool) -> bytes:
    return (size << 3 | kind << 1 | last).to_bytes(3, "little") + data


def _packed(*, size: bool) -> bytes:
    packer = zstandard.ZstdCompressor(level=3, write_checksum=True, write_content_size=size)
    return packer.compress(_DATA)


_RAW = _block(0, len(_DATA), _DATA, last=True)
_TWO = (_block(0, 0, b"", last=False), _block(1, len(_DATA), b"z", last=True))
_SIZE = len(_DATA)
_ZSTD = {
    "a window": _frame(0x00, b"\x58", _RAW),
    "a window and a size of two bytes": _frame(
        0x40, b"\x58" + (_SIZE - 256).to_bytes(2, "little"), _RAW
    ),
    "a size of two bytes": _frame(0x60, (_SIZE - 256).to_bytes(2, "little"), _RAW),
    "a size of four bytes": _frame(0xA0, _SIZE.to_bytes(4, "little"), _RAW),
    "a size of eight bytes": _frame(0xC0, b"\x58" + _SIZE.to_bytes(8, "little"), _RAW),
    "a number of no dictionary": _frame(0x23, bytes(4) + b"\xff", _block(1, 255, b"z", last=True)),
    "blocks of nothing and of one byte": _frame(0x00, b"\x58", *_TWO),
    "a checksum": _packed(size=True),
    "no size": _packed(size=False),
}


@pytest.mark.parametrize("frame", _ZSTD.values(), ids=_ZSTD)
def test_a_zstd_file_is_inflated_wherever_it_is_cut(frame: bytes) -> None:
    skipped = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"_____"
    content = b"".join(inflate(iter([frame])))
    assert len(content) in (255, len(_DATA))
    for blob, expected in ((frame, content), (skipped + frame + skipped + frame, content * 2)):
        for pieces in cuts(blob):
            assert b"".join(inflate(iter(pieces))) == expected


# --------------------------------------------------------------------------------- tar and pax

_SEGMENTS = [(1000 * n, b"x" * n) for n in range(1, 6)]
_LONG = "d/" * 60 + "n" * 100
_ARCHIVES = {
    "a prefix": images.tar(
        [images.file("p" * 100 + "/" + "n" * 50, b"data")], tarfile.USTAR_FORMAT
    ),
    "GNU's long name and link": raw.long_name(_LONG)
    + raw.long_link(_LONG)
    + raw.member("short", b"", kind=b"2")
    + raw.END,
    "records": raw.pax({"path": _LONG, "mtime": "1.5", "uid": "7", "SCHILY.xattr.user.a": "v"})
    + raw.member("short", b"data" * 200)
    + raw.END,
    "a global header": raw.pax({"comment": "c" * 600}, b"g") + raw.member("f", b"data") + raw.END,
    "a link with data": raw.member("f", b"data")
    + raw.header("l", b"1", size=4, link="f")
    + raw.padded(b"data")
    + raw.END,
    "a sparse file in headers": raw.sparse_old("s", _SEGMENTS, 9000, after=2) + raw.END,
    **{
        f"a sparse file of version {version}": raw.sparse_pax("s", _SEGMENTS, 9000, version)
        + raw.END
        for version in ("0.0", "0.1", "1.0")
    },
}


@pytest.mark.parametrize("archive", _ARCHIVES.values(), ids=_ARCHIVES)
def test_an_archive_is_the_same_wherever_it_is_cut(archive: bytes) -> None:
    whole = list(tar.members(tar.Stream(iter([archive]))))
    assert whole
    for pieces in cuts(archive):
        assert list(tar.members(tar.Stream(iter(pieces)))) == whole


# -------------------------------------------------------------------------------------- JSON

_DOCUMENT = json.dumps({"name": "näme ☃ 𝄞", "list": [1, 2.5, None]}, ensure_ascii=False).encode()


class _Image(Stored):
    """A file that comes in PIECES, whatever it is asked for."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        super().__init__(cast("Files", SimpleNamespace(open=self._open, path="/x")))
        self._pieces = pieces

    @contextmanager
    def _open(self, _: str) -> Iterator[Content]:
        left = iter(self._pieces)
        yield Content(sum(map(len, self._pieces)), lambda _: next(left, b""))

    manifest = open_blob = None  # type: ignore[assignment]  # a file only


def _body(pieces: Sequence[bytes], headers: dict[str, str], media_type: str = "") -> Body:
    left = iter(pieces)
    session = SimpleNamespace(
        read=lambda _, __: next(left, b""), patience=Patience(), who="the registry"
    )
    answer = SimpleNamespace(raw=SimpleNamespace(chunked=True), headers=headers)
    return Body(cast("Session", session), cast("requests.Response", answer), media_type)


def test_a_document_in_a_file_is_the_same_wherever_it_is_cut() -> None:
    for pieces in cuts(_DOCUMENT):
        assert _Image(pieces).read_json("x") == _DOCUMENT


def test_a_document_from_a_registry_is_the_same_wherever_it_is_cut() -> None:
    for pieces in cuts(_DOCUMENT):
        assert _body(pieces, {}).all(1 << 20) == _DOCUMENT


@pytest.mark.parametrize(("fields", "checked"), _HEADERS[::3])
def test_a_packed_answer_is_unpacked_wherever_it_is_cut(
    fields: Sequence[bytes | None], checked: bool
) -> None:
    layer = gzip.compress(b"layer", mtime=0)
    encoding = {"Content-Encoding": "gzip"}

    def packed(data: bytes) -> bytes:
        return _member(data, fields, checked=checked)

    for pieces in cuts(packed(_DOCUMENT)):
        assert _body(pieces, encoding).all(1 << 20) == _DOCUMENT
    # A layer that is gzip by itself is sent as it is, and one that was packed once more is not.
    for pieces in cuts(packed(layer)):
        assert _body(pieces, encoding, "tar+gzip").all(1 << 20) == layer
    for pieces in cuts(packed(_DATA)):
        assert _body(pieces, encoding, "tar+gzip").all(1 << 20) == packed(_DATA)
