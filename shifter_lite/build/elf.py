"""What a program or library needs of others, read from an ELF file as it comes by.  Pure.

See elf(5): the dynamic section names libraries by their places in a table of strings.  That
table lies near the beginning of most files, the section near the end, so the first blocks
are held until it has come.  A file that is not as elf(5) says needs nothing: nobody
runs it, and what is wrong with it is not ours to say.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from shifter_lite.build.zstd import Block

MAGIC = b"\x7fELF"
# The strings of nearly every library begin within so many bytes; more are not held.
_HELD = 8 << 20
_MOST_HEADERS = 128
_LARGEST_SECTION = 1 << 16
_LONGEST_NAME = 255
_NAME = re.compile(rb"[!-.0-~]{1,255}")
_LOAD, _DYNAMIC = 1, 2
_END, _NEEDED, _STRINGS, _STRINGS_SIZE = 0, 1, 5, 10

Report = Callable[[frozenset[bytes]], None]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things lie in a file: its dynamic section, and what is loaded where."""

    order: str
    wide: bool
    dynamic: int
    size: int
    # Address, offset and size.
    loads: tuple[tuple[int, int, int], ...]

    def offset(self, address: int) -> int:
        """Return where in the file that lies which is loaded at ADDRESS; -1 if nothing is."""
        for start, offset, size in self.loads:
            if start <= address < start + size:
                return address - start + offset
        return -1


def needed(data: Block) -> frozenset[bytes]:
    """Return the names of the libraries that the file with DATA needs."""
    found: list[frozenset[bytes]] = []
    for _ in watched(iter([data]), found.append):
        pass
    return found[0] if found else frozenset()


def watched(blocks: Iterator[Block | None], report: Report) -> Iterator[Block | None]:
    """Yield BLOCKS of one file, None for a hole; REPORT what it needs, if it is an ELF file."""
    first = next(blocks, None)
    yield first
    layout = _layout(bytes(first[:16384])) if first and first[:4] == MAGIC else None
    if layout is None or first is None:
        yield from blocks
        return
    held = {0: first}
    at = len(first)
    end = layout.dynamic + layout.size
    for block in blocks:
        yield block
        if block is None:
            # No program has a hole of a whole block.
            yield from blocks
            return
        if at < _HELD or (at < end and at + len(block) > layout.dynamic):
            held[at] = block
        at += len(block)
    if names := _names(layout, _Held(held)):
        report(names)


class _Held:
    """What is held of a file, by where it begins."""

    def __init__(self, blocks: dict[int, Block]) -> None:
        self._blocks = blocks

    def read(self, offset: int, size: int) -> bytes:
        """Return SIZE bytes from OFFSET on, or fewer if they are not held."""
        data = b""
        for start, block in self._blocks.items():
            if start <= offset < start + len(block):
                data += bytes(block[offset - start : offset - start + size - len(data)])
                offset = start + len(block)
                if len(data) == size:
                    break
        return data


def _layout(head: bytes) -> _Layout | None:
    if len(head) < 64 or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    table = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", head, 32 if wide else 28)[0]
    size, count = struct.unpack_from(f"{order}HH", head, 54 if wide else 42)
    form = struct.Struct(f"{order}IIQQQQ" if wide else f"{order}IIIII")
    if size < form.size or count > _MOST_HEADERS or table + size * count > len(head):
        return None
    dynamic = (0, 0)
    loads = []
    for number in range(count):
        fields = form.unpack_from(head, table + number * size)
        # Type, flags if wide, offset, address, physical address, size in the file.
        kind, offset, address, _, stored = (fields[0], *fields[2:]) if wide else fields
        if kind == _LOAD:
            loads.append((address, offset, stored))
        elif kind == _DYNAMIC:
            dynamic = (offset, min(stored, _LARGEST_SECTION))
    return _Layout(order, wide, *dynamic, tuple(loads)) if dynamic[1] else None


def _names(layout: _Layout, held: _Held) -> frozenset[bytes]:
    entry = struct.Struct(f"{layout.order}{'qQ' if layout.wide else 'iI'}")
    section = held.read(layout.dynamic, layout.size)
    places: list[int] = []
    strings = size = 0
    for tag, value in entry.iter_unpack(section[: len(section) // entry.size * entry.size]):
        if tag == _END:
            break
        if tag == _NEEDED:
            places.append(value)
        elif tag == _STRINGS:
            strings = value
        elif tag == _STRINGS_SIZE:
            size = value
    table = layout.offset(strings)
    if table < 0:
        return frozenset()
    names = (
        held.read(table + place, min(_LONGEST_NAME + 1, size - place)).partition(b"\0")
        for place in places
        if place < size
    )
    return frozenset(name for name, end, _ in names if end and _NAME.fullmatch(name))
