"""Records of pax headers, which say of a tar archive's next member what its header cannot.

See pax(1) in POSIX.1-2017, "pax Header Block".
"""

from __future__ import annotations

from collections.abc import Iterator

from shifter_lite.errors import BadImage

Records = dict[bytes, bytes]
# Names and values.
Xattrs = tuple[tuple[bytes, bytes], ...]

_LONGEST_NUMBER = 19
_LIMIT = 1 << 63
_USER_XATTR = b"SCHILY.xattr.user."
# XATTR_NAME_MAX and XATTR_SIZE_MAX of Linux.
_LONGEST_XATTR_NAME = 255
_LARGEST_XATTR = 1 << 16
# Version 0.0 of sparse files repeats these; 0.1 has the same numbers in one record.
_REPEATED = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_MAP = b"GNU.sparse.map"
_TEXTS = (b"path", b"linkpath", b"uname", b"gname")


def records(data: bytes) -> Records:
    """Return the records in DATA, the last one of a key; raises BadImage.

    An empty value is as good as none: then the header's own counts.  But an extended
    attribute may well be empty.
    """
    found: Records = {}
    numbers: list[bytes] = []
    for key, value in _each(data):
        if key in _REPEATED:
            numbers.append(value)
        else:
            if key == _MAP:
                numbers.clear()
            found[key] = value
    if numbers:
        before = [found[_MAP]] if _MAP in found else []
        found[_MAP] = b",".join(before + numbers)
    if b"" in found.values():
        return {k: v for k, v in found.items() if v or k.startswith(_USER_XATTR)}
    return found


def _each(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the records of a pax header: ``LENGTH KEY=VALUE`` and a newline."""
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        digits = data[at:space] if space > at else b""
        end = at + int(digits) if digits.isdigit() else 0
        record = data[space + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if end > len(data) or not record.endswith(b"\n") or not equals or not key or b"\0" in key:
            raise BadImage("a pax header has a malformed record")
        if b"\0" in value and key in _TEXTS:
            raise BadImage("a pax header has a name with a NUL")
        yield key, value
        at = end


def natural(said: Records, key: bytes) -> int:
    """Return the number, not below zero, that the records SAID have under KEY; raises BadImage."""
    text = said[key]
    value = _integer(text)
    if value is None or value < 0:
        raise BadImage(f"a pax header has a bad {key.decode()}: {text[:64]!r}")
    return value


def seconds(said: Records, key: bytes) -> int:
    """Return the time that the records SAID have under KEY, rounded down as Linux does.

    Raises BadImage.
    """
    text = said[key]
    whole, _, fraction = text.partition(b".")
    value = _integer(whole)
    if value is None or (fraction and not fraction.isdigit()):
        raise BadImage(f"a pax header has a bad {key.decode()}: {text[:64]!r}")
    return value - 1 if text.startswith(b"-") and fraction.strip(b"0") else value


def user_xattrs(said: Records) -> Xattrs:
    """Return the extended attributes ``user.*`` in the records SAID; raises BadImage."""
    found = []
    for key in sorted(key for key in said if key.startswith(_USER_XATTR)):
        name, value = key.removeprefix(b"SCHILY.xattr."), said[key]
        if len(name) > _LONGEST_XATTR_NAME or len(value) > _LARGEST_XATTR:
            quoted = repr(name[:64].decode(errors="backslashreplace"))
            raise BadImage(f"an extended attribute is too large: {quoted}")
        found.append((name, value))
    return tuple(found)


def _integer(text: bytes) -> int | None:
    """Return the number TEXT, or None if it is none or does not fit 64 bits."""
    if len(text) < _LONGEST_NUMBER and text.isdigit():
        return int(text)
    digits = text[1:] if text[:1] in (b"+", b"-") else text
    # Thousands of leading zeros are too many digits for int().
    significant = digits.lstrip(b"0")
    if not digits.isdigit() or len(significant) > _LONGEST_NUMBER:
        return None
    value = int(significant or b"0")
    value = -value if text.startswith(b"-") else value
    return value if -_LIMIT <= value < _LIMIT else None
