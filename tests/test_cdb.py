"""The index is a proper cdb, and a damaged one is noticed."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shifter_lite.errors import Damaged
from shifter_lite.index import cdb

pairs = st.dictionaries(st.binary(min_size=1, max_size=40), st.binary(max_size=100), max_size=60)


def reader(data: bytes) -> cdb.Pread:
    return lambda length, offset: data[offset : offset + length]


@given(pairs)
def test_every_key_is_found_and_no_other(items: dict[bytes, bytes]) -> None:
    data = cdb.encode(items.items())
    for key, value in items.items():
        assert cdb.find(reader(data), len(data), key) == value
    for key in (b"", b"\0", b"absent" * 9):
        if key not in items:
            assert cdb.find(reader(data), len(data), key) is None


@given(pairs)
def test_all_items_come_back_in_order(items: dict[bytes, bytes]) -> None:
    assert list(cdb.items(cdb.encode(items.items()))) == list(items.items())


def test_tinycdb_reads_what_we_write_and_we_read_what_it_writes(tmp_path: Path) -> None:
    items = {f"docker.io/library/x:{n}".encode(): os.urandom(n % 50) for n in range(500)}
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_bytes(cdb.encode(items.items()))
    for key, value in list(items.items())[:50]:
        found = subprocess.run(["cdb", "-q", ours, key], capture_output=True, check=True)
        assert found.stdout == value
    lines = b"".join(
        b"+%d,%d:%b->%b\n" % (len(key), len(value), key, value) for key, value in items.items()
    )
    subprocess.run(["cdb", "-c", theirs], input=lines + b"\n", check=True)
    data = theirs.read_bytes()
    assert dict(cdb.items(data)) == items
    for key, value in items.items():
        assert cdb.find(reader(data), len(data), key) == value


@given(st.data())
def test_a_file_cut_anywhere_is_damaged_or_still_right(data: st.DataObject) -> None:
    items = {b"key%d" % n: b"value" * n for n in range(20)}
    whole = cdb.encode(items.items())
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    for key, value in items.items():
        try:
            assert cdb.find(reader(cut), len(cut), key) in (value, None)
        except Damaged:
            continue


@given(st.data())
def test_bytes_changed_anywhere_never_lead_outside_the_file(data: st.DataObject) -> None:
    items = {b"key%d" % n: b"value" * n for n in range(20)}
    spoilt = bytearray(cdb.encode(items.items()))
    for _ in range(data.draw(st.integers(1, 8))):
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))

    def pread(length: int, offset: int) -> bytes:
        assert 0 <= offset <= offset + length <= len(spoilt)
        return bytes(spoilt[offset : offset + length])

    for key in items:
        try:
            cdb.find(pread, len(spoilt), key)
        except Damaged:
            continue
    with suppress(Damaged):
        list(cdb.items(bytes(spoilt)))


def test_a_table_without_a_free_slot_ends_the_search() -> None:
    hashed = cdb.hash_key(b"absent")
    table = 2048
    data = bytearray(table + 16)
    data[8 * (hashed % 256) : 8 * (hashed % 256) + 8] = (table).to_bytes(4, "little") + (
        2
    ).to_bytes(4, "little")
    data[table:] = (b"\xff\xff\xff\xff" + (table).to_bytes(4, "little")) * 2
    assert cdb.find(reader(bytes(data)), len(data), b"absent") is None


def test_a_value_larger_than_a_mebibyte_is_damage() -> None:
    data = cdb.encode([(b"key", bytes((1 << 20) + 1))])
    with pytest.raises(Damaged, match="1048577 bytes"):
        cdb.find(reader(data), len(data), b"key")
