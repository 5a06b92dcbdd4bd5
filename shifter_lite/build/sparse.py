"""Where the data of a sparse file in a tar archive belongs.

GNU tar has had four ways of saying it: in the header (type "S"), and in pax records as
versions 0.0, 0.1 and 1.0; see "Storing Sparse Files" in its manual.  Each gives pairs of
offset and length; what lies between is zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from shifter_lite.errors import BadImage

_BLOCK = 512
# A gigabyte of alternating 4 KiB has half as many.
_MOST_SEGMENTS = 1 << 18
_LONGEST_NUMBER = 20

Segments = tuple[tuple[int, int], ...]
Number = Callable[[bytes], int]
Read = Callable[[int], bytes]
Copy = Callable[[int], Iterator[memoryview]]


def checked(pairs: Iterable[tuple[int, int]], size: int, stored: int) -> Segments:
    """Return PAIRS of a file of SIZE bytes, STORED of which are in the archive; raises BadImage."""
    segments = tuple(pairs)
    if size < 0:
        raise BadImage("a sparse file has a negative size")
    end = 0
    for offset, length in segments:
        if offset < end or length < 0 or offset + length > size:
            raise BadImage("a sparse file's map is out of order, or out of the file")
        end = offset + length
    if sum(length for _, length in segments) != stored:
        raise BadImage("a sparse file's map is not of the data that is stored")
    return segments


def in_headers(header: bytes, read: Read, number: Number) -> tuple[list[tuple[int, int]], int]:
    """Return the map in a HEADER of type "S" and in the blocks that follow it, and the real size.

    READ gives the next bytes of the archive, NUMBER reads a header's number.
    """
    pairs = _pairs(header[386:482], number)
    extended = header[482]
    while extended:
        block = read(_BLOCK)
        if len(block) < _BLOCK:
            raise BadImage("the archive is cut off in a sparse file's map")
        pairs += _pairs(block[:504], number)
        extended = block[504]
        if len(pairs) > _MOST_SEGMENTS:
            raise BadImage(f"a sparse file has more than {_MOST_SEGMENTS} segments")
    return pairs, number(header[483:495])


def _pairs(field: bytes, number: Number) -> list[tuple[int, int]]:
    found = []
    for at in range(0, len(field), 24):
        # An unused pair is all NULs; one of length 0 marks the end of the file.
        if field[at]:
            found.append((number(field[at : at + 12]), number(field[at + 12 : at + 24])))
    return found


def in_records(records: Mapping[bytes, bytes]) -> list[tuple[int, int]]:
    """Return the map in pax RECORDS of version 0.0 or 0.1."""
    text = records.get(b"GNU.sparse.map", b"")
    pairs = _paired([_decimal(word) for word in text.split(b",")] if text else [])
    count = records.get(b"GNU.sparse.numblocks")
    if count is not None and _decimal(count) != len(pairs):
        raise BadImage(f"a sparse file's map has {len(pairs)} pairs, not {count[:64]!r}")
    return pairs


def in_data(read: Read) -> tuple[list[tuple[int, int]], int]:
    """Return the map at the beginning of a version 1.0 file's data, and how long it is.

    It is decimal numbers, each with a newline, their count first, padded to whole blocks.
    """
    numbers: list[int] = []
    text, taken, wanted = b"", 0, 1
    while len(numbers) < wanted:
        line, newline, rest = text.partition(b"\n")
        if newline:
            numbers.append(_decimal(line))
            text = rest
            if len(numbers) == 1:
                wanted += 2 * numbers[0]
                if numbers[0] > _MOST_SEGMENTS:
                    raise BadImage(f"a sparse file has more than {_MOST_SEGMENTS} segments")
            continue
        block = read(_BLOCK)
        taken += len(block)
        if len(block) < _BLOCK or len(text) > _LONGEST_NUMBER:
            raise BadImage("a sparse file's map is malformed")
        text += block
    return _paired(numbers[1:]), taken


def blocks(copy: Copy, segments: Segments, size: int, length: int) -> Iterator[bytes | None]:
    """Yield a file of SIZE bytes in blocks of LENGTH; None is one that is all hole.

    COPY gives the next bytes of the archive, which are those of SEGMENTS; they may be too few.
    """
    index = 0
    for start in range(0, size, length):
        end = min(start + length, size)
        block: bytearray | None = None
        while index < len(segments) and segments[index][0] < end:
            offset, count = segments[index]
            low, high = max(offset, start), min(offset + count, end)
            if low < high:
                block = bytearray(end - start) if block is None else block
                at = low - start
                for piece in copy(high - low):
                    block[at : at + len(piece)] = piece
                    at += len(piece)
                if at < high - start:
                    raise BadImage("the archive is cut off in a sparse file")
            if offset + count > end:
                break
            index += 1
        yield None if block is None else bytes(block)


def _paired(numbers: list[int]) -> list[tuple[int, int]]:
    if len(numbers) % 2 or len(numbers) > 2 * _MOST_SEGMENTS:
        raise BadImage("a sparse file's map is malformed")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > _LONGEST_NUMBER:
        raise BadImage(f"a sparse file's map has a bad number: {text[:64]!r}")
    return int(text)
