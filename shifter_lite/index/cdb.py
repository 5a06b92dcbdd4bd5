"""The constant database of D. J. Bernstein, <https://cr.yp.to/cdb/cdb.txt>, in bytes.  Pure.

Reads trust no position and no length: each is checked against the size of the
file before it is followed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator

from shifter_lite.errors import Damaged

_TABLES = 256
_HEADER = 8 * _TABLES
_LARGEST_VALUE = 1 << 20
_LARGEST_FILE = (1 << 32) - 1
_PAIR = struct.Struct("<II")

Pread = Callable[[int, int], bytes]


def hash_key(key: bytes) -> int:
    """Return the hash of KEY, 32 bits."""
    value = 5381
    for byte in key:
        value = ((value << 5) + value) & 0xFFFFFFFF ^ byte
    return value


def encode(items: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a cdb file holding ITEMS, pairs of key and value, in their order.

    Raises OverflowError if it would be larger than 4 GiB, which cdb cannot express.
    """
    records = bytearray(_HEADER)
    slots: list[list[tuple[int, int]]] = [[] for _ in range(_TABLES)]
    for key, value in items:
        hashed = hash_key(key)
        slots[hashed % _TABLES].append((hashed, len(records)))
        records += _PAIR.pack(len(key), len(value)) + key + value
    for number, entries in enumerate(slots):
        _PAIR.pack_into(records, 8 * number, len(records), 2 * len(entries))
        records += _table(entries)
    if len(records) > _LARGEST_FILE:
        raise OverflowError("a cdb file is at most 4 GiB")
    return bytes(records)


def _table(entries: list[tuple[int, int]]) -> bytes:
    count = 2 * len(entries)
    table = [(0, 0)] * count
    for hashed, position in entries:
        slot = (hashed // _TABLES) % count
        while table[slot] != (0, 0):
            slot = (slot + 1) % count
        table[slot] = (hashed, position)
    return b"".join(_PAIR.pack(*pair) for pair in table)


def find(pread: Pread, size: int, key: bytes) -> bytes | None:
    """Return the value of KEY in a file of SIZE bytes read by PREAD(length, offset), or None."""
    hashed = hash_key(key)
    table, slots = _pair(pread, size, 8 * (hashed % _TABLES))
    if slots == 0:
        return None
    _check(table, 8 * slots, size)
    start = (hashed // _TABLES) % slots
    for step in range(slots):
        found, position = _pair(pread, size, table + 8 * ((start + step) % slots))
        if position == 0:
            return None
        if found == hashed and (value := _value_if(pread, size, position, key)) is not None:
            return value
    return None


def _value_if(pread: Pread, size: int, position: int, key: bytes) -> bytes | None:
    key_length, value_length = _pair(pread, size, position)
    if key_length != len(key):
        return None
    _check(position + 8, key_length + value_length, size)
    if value_length > _LARGEST_VALUE:
        raise Damaged(f"the index has an entry of {value_length} bytes")
    data = pread(key_length + value_length, position + 8)
    if len(data) != key_length + value_length:
        raise Damaged("the index is cut off")
    return data[key_length:] if data[:key_length] == key else None


def _pair(pread: Pread, size: int, position: int) -> tuple[int, int]:
    _check(position, 8, size)
    data = pread(8, position)
    if len(data) != 8:
        raise Damaged("the index is cut off")
    first, second = _PAIR.unpack(data)
    return first, second


def _check(position: int, length: int, size: int) -> None:
    if position + length > size:
        raise Damaged(f"the index points at byte {position + length} of {size}")


def items(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of the cdb file DATA, in the order they were written."""
    if len(data) < _HEADER:
        raise Damaged("the index is cut off")
    # The records end where the first hash table begins, and tables follow in any order.
    end = min(position for position, _ in _PAIR.iter_unpack(data[:_HEADER]))
    if end > len(data):
        raise Damaged("the index is cut off")
    position = _HEADER
    while position < end:
        key_length, value_length = _pair(lambda n, at: data[at : at + n], end, position)
        position += 8
        _check(position, key_length + value_length, end)
        value = position + key_length
        yield data[position:value], data[value : value + value_length]
        position = value + value_length
