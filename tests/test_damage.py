"""Whatever is damaged, or made to harm, is a bad image: no other error, no end of memory."""

import gzip
import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from shifter_lite.build import manifest, merge, tar, toc
from shifter_lite.build.inflate import inflate
from shifter_lite.config import Policy
from shifter_lite.errors import BadImage
from tests.corpus.every import CASES
from tests.helpers import images

_BLOCK = 512
_MEGABYTE = 1 << 20
_BLOBS = [layer.blob for case in CASES for layer in case.layers if 0 < len(layer.blob) < 30_000]


def _archives() -> list[bytes]:
    found = []
    for blob in _BLOBS:
        with suppress(BadImage):
            found.append(b"".join(inflate(iter([blob])))[:40_000])
    return found


_ARCHIVES = _archives()
_ODD = st.one_of(
    st.binary(max_size=24),
    st.sampled_from((b"\0", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"7" * 12, b"-1", b"../", b"/")),
    st.integers(0, 600).map(bytes),
)


@st.composite
def damaged(draw: st.DrawFn, wholes: list[bytes]) -> bytes:
    """Return one of WHOLES with some bytes changed, cut out, put in, or taken from another."""
    data = bytearray(draw(st.sampled_from(wholes)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        gone = draw(st.sampled_from((0, 1, 12, _BLOCK, 5000)))
        if draw(st.booleans()):
            new = draw(_ODD)
            gone = min(gone, len(new))
        else:
            other = draw(st.sampled_from(wholes))
            begin = draw(st.integers(0, len(other) // _BLOCK)) * _BLOCK
            new = other[begin : begin + draw(st.sampled_from((0, _BLOCK, 2048)))]
        data[at : at + gone] = new
    return bytes(data)


def _summed(archive: bytes) -> bytes:
    """Return ARCHIVE with a right checksum wherever a header may be."""
    data = bytearray(archive)
    for at in range(0, len(data) - _BLOCK + 1, _BLOCK):
        if any(data[at : at + _BLOCK]):
            data[at : at + _BLOCK] = images.patch(bytes(data[at : at + _BLOCK]), 0, b"")
    return bytes(data)


@settings(max_examples=600, deadline=None)
@given(damaged(_ARCHIVES), st.booleans(), st.integers(1, 3000))
def test_a_damaged_archive_is_read_or_a_bad_image(archive: bytes, summed: bool, piece: int) -> None:
    data = _summed(archive) if summed else archive
    pieces = (data[at : at + piece] for at in range(0, len(data), piece))
    tree, table = merge.Tree(Policy()), toc.Table(BytesIO())
    with suppress(BadImage):
        members = list(tar.members(tar.Stream(pieces)))
        for member in members:
            table.put(member)
        tree.apply(lambda: members)
        tree.finish()


@settings(max_examples=400, deadline=None)
@given(damaged(_BLOBS), st.integers(1, 3000))
def test_a_damaged_blob_is_inflated_or_a_bad_image(blob: bytes, piece: int) -> None:
    pieces = (blob[at : at + piece] for at in range(0, len(blob), piece))
    with suppress(BadImage):
        for each in inflate(pieces):
            assert len(each) <= 2 * _MEGABYTE


def _zeros(count: int, pack: Callable[[bytes], bytes]) -> bytes:
    return pack(bytes(_MEGABYTE)) * count


@pytest.mark.parametrize(
    "bomb",
    [
        _zeros(200, lambda data: gzip.compress(data, 9)),
        gzip.compress(bytes(200 * _MEGABYTE), 1),
        _zeros(200, zstandard.ZstdCompressor(19).compress),
        zstandard.ZstdCompressor(3).compress(bytes(200 * _MEGABYTE)),
    ],
    ids=["gzip members", "one gzip member", "zstd frames", "one zstd frame"],
)
def test_a_bomb_is_inflated_in_small_pieces(bomb: bytes) -> None:
    pieces = [bomb[at : at + 65536] for at in range(0, len(bomb), 65536)]
    tracemalloc.start()
    try:
        assert sum(map(len, inflate(iter(pieces)))) == 200 * _MEGABYTE
        assert tracemalloc.get_traced_memory()[1] < 8 * _MEGABYTE
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------------------------- JSON

_IMAGE = images.image([images.layer([images.file("a")])], settings={"Env": ["A=b"], "Cmd": ["c"]})
_CONFIG = json.loads(_IMAGE.blobs[_IMAGE.content["config"]["digest"]])
_DOCUMENTS = (_IMAGE.content, _CONFIG, images.index({"linux/amd64": _IMAGE}).content)
_ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.sampled_from(("", "sha256:", "sha256:" + "0" * 64, "linux", "a/b", "\0", "\udc80")),
    ),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=8,
)


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every object or list within DOCUMENT, with each of its keys."""
    keys = range(len(document)) if isinstance(document, list) else list(document)
    for key in keys:
        yield document, key
        if isinstance(document[key], dict | list):
            yield from _places(document[key])


@st.composite
def spoilt(draw: st.DrawFn) -> dict[str, Any]:
    """Return a document in which some things are something else, or missing."""
    document: dict[str, Any] = json.loads(json.dumps(draw(st.sampled_from(_DOCUMENTS))))
    for _ in range(draw(st.integers(1, 3))):
        place, key = draw(st.sampled_from(list(_places(document)) or [(document, "x")]))
        if draw(st.booleans()) and isinstance(place, dict):
            place.pop(key, None)
        else:
            place[key] = draw(_ANYTHING)
    return document


@settings(max_examples=500, deadline=None)
@given(spoilt(), st.text())
def test_a_spoilt_document_is_understood_or_a_bad_image(
    document: dict[str, Any], content_type: str
) -> None:
    right = manifest.read_manifest(_IMAGE.content, _IMAGE.digest, "")
    data = json.dumps(document).encode()
    for read in (
        lambda: manifest.media_type(document, content_type),
        lambda: manifest.read_manifest(manifest.parse(data, "manifest"), _IMAGE.digest, ""),
        lambda: manifest.choose(document, "linux/amd64"),
        lambda: manifest.read_config(document, right),
    ):
        with suppress(BadImage):
            read()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_document_or_a_bad_image(data: bytes) -> None:
    with suppress(BadImage):
        assert isinstance(manifest.parse(data, "manifest"), dict)
