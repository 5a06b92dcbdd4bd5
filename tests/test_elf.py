"""What a program needs of others is what readelf(1) says."""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shifter_lite.build import elf

BLOCK = 1 << 17


def in_blocks(data: bytes) -> frozenset[bytes]:
    found: list[frozenset[bytes]] = []
    blocks: Iterator[bytes] = (data[at : at + BLOCK] for at in range(0, len(data), BLOCK))
    assert b"".join(block or b"" for block in elf.watched(blocks, found.append)) == data
    assert len(found) <= 1
    return found[0] if found else frozenset()


def by_readelf(path: Path) -> frozenset[bytes]:
    done = subprocess.run(["readelf", "-dW", path], capture_output=True, check=False)
    return frozenset(re.findall(rb"\(NEEDED\)\s+Shared library: \[(.*)\]", done.stdout))


def programs() -> list[Path]:
    found = [path for path in Path("/usr/bin").iterdir() if path.is_file()]
    found += Path("/usr/lib").glob("*-linux-*/*.so*")
    return [path for path in sorted(found) if path.is_file() and not path.is_symlink()][::9]


def test_programs_and_libraries_of_this_machine_need_what_readelf_says() -> None:
    some = 0
    for path in programs():
        data = path.read_bytes()
        wanted = by_readelf(path) if data.startswith(elf.MAGIC) else frozenset()
        assert in_blocks(data) == wanted, path
        assert elf.needed(data) == wanted, path
        some += bool(wanted)
    assert some > 10


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("distance", [0, 3 * BLOCK, 70 * BLOCK])
def test_every_class_and_byte_order_is_read(wide: bool, order: str, distance: int) -> None:
    data = made(wide, order, [b"libmpi.so.12", b"libc.so.6"], distance)
    expected = {b"libmpi.so.12", b"libc.so.6"}
    assert in_blocks(data) == expected
    assert elf.needed(data) == expected


def made(wide: bool, order: str, names: list[bytes], distance: int) -> bytes:
    """Return a library whose strings lie at 512, and whose dynamic section DISTANCE behind."""
    strings, places = b"\0", []
    for name in names:
        places.append(len(strings))
        strings += name + b"\0"
    dynamic = 512 + len(strings) + distance
    entry = struct.Struct(f"{order}{'qQ' if wide else 'iI'}")
    entries = [(1, place) for place in places] + [(5, 0x10200), (10, len(strings)), (0, 0)]
    section = b"".join(entry.pack(*each) for each in entries)
    if wide:
        header = struct.pack(f"{order}QQQIHHH", 0, 64, 0, 0, 64, 56, 2)
        loads = struct.pack(f"{order}IIQQQQQQ", 1, 4, 0, 0x10000, 0, dynamic, dynamic, 1)
        loads += struct.pack(f"{order}IIQQQQQQ", 2, 4, dynamic, 0, 0, len(section), 0, 1)
    else:
        header = struct.pack(f"{order}IIIIHHH", 0, 52, 0, 0, 52, 32, 2)
        loads = struct.pack(f"{order}IIIIIIII", 1, 0, 0x10000, 0, dynamic, dynamic, 4, 1)
        loads += struct.pack(f"{order}IIIIIIII", 2, dynamic, 0, 0, len(section), 0, 4, 1)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    head = ident + struct.pack(f"{order}HHI", 3, 62, 1) + header
    start = (head.ljust(64 if wide else 52, b"\0") + loads).ljust(512, b"\0")
    return start + strings + bytes(distance) + section


@given(
    st.binary(max_size=200),
    st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=9),
)
def test_whatever_else_is_there_needs_nothing_and_breaks_nothing(
    tail: bytes, changes: list[tuple[int, int]]
) -> None:
    in_blocks(elf.MAGIC + tail)
    data = bytearray(made(True, "<", [b"libc.so.6"], 0))
    for at, value in changes:
        data[at % len(data)] = value
    in_blocks(bytes(data))
