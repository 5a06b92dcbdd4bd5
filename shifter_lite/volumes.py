"""What a site may write behind ``siteFs=``: the rules of runtime/volumes.c.  Pure.

Texts are bytes of a file, decoded as Latin-1, so that they are cut where the launcher cuts them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

BLANKS = " \t\r\n\v\f"
_SITE_HINT = "write siteFs=/FROM[:/TO][:FLAG]; flags are ro, rec, slave, private, optional"
_USER_HINT = "write --volume=/FROM:/TO[:ro] or :perNodeCache=size=10G"
_SIZE_HINT = "write a number of bytes, or one with K, M, G, T, P or E, as in perNodeCache=size=10G"
_SEPARATOR_HINT = "put ';' between volumes"
_LONGEST_PATH = 4096
_DIGITS = 18
_UNITS = "BKMGTPE"
_LARGEST = (1 << 63) - 1
_FLAGS = ("ro", "rec", "slave", "private", "optional")
_OWN = "it is the container's own"
# Where a site may mount nothing, and whether that holds for what is beneath.
_FORBIDDEN = (
    ("/proc", True, "there are the kernel's own files"),
    ("/etc", False, "files of the container's own are in it"),
    ("/etc/passwd", True, _OWN),
    ("/etc/group", True, _OWN),
    ("/etc/nsswitch.conf", True, _OWN),
    ("/etc/mtab", True, _OWN),
    ("/opt", False, "the site's /opt/udiImage is in it"),
    ("/var", False, "only directories in it may be replaced"),
)


class Mistake(Exception):
    """What is wrong with a text, and what to write instead."""

    def __init__(self, fact: str, hint: str) -> None:
        super().__init__(fact)
        self.hint = hint


def check_volumes(text: str) -> None:
    """Raise Mistake if TEXT is no list of volumes of a site."""
    for entry in _without_quotes(text).split(";"):
        if entry.strip(BLANKS):
            _check_volume(entry)


def parse_size(text: str) -> int | None:
    """Return how many bytes TEXT means, or None if it is no size."""
    match = re.fullmatch(r"([0-9]*)(?:\.([0-9]*))?(\D*)", text, re.ASCII | re.DOTALL)
    if match is None:
        return None
    whole, part, unit = match[1], match[2] or "", match[3]
    bits = _unit_bits(unit)
    if bits is None or not whole + part:
        return None
    if len(whole) > _DIGITS or len(part) > _DIGITS:
        return None
    size = (int(whole or "0") << bits) + (int(part or "0") << bits) // 10 ** len(part)
    return size if 0 < size <= _LARGEST else None


def normal_path(path: str) -> str:
    """Return PATH without what says nothing; raises ValueError, which says why it cannot be."""
    if not path.startswith("/"):
        raise ValueError("not an absolute path")
    parts = path.split("/")
    if ".." in parts:
        raise ValueError("a path with '..' in it")
    if len(path) >= _LONGEST_PATH:
        raise ValueError("too long a path")
    return "/" + "/".join(part for part in parts if part not in ("", "."))


def _unit_bits(unit: str) -> int | None:
    if not unit:
        return 0
    place = _UNITS.find(unit[0].upper())
    rest = unit[1:]
    if place > 0 and rest[:1].upper() == "B":
        rest = rest[1:]
    return 10 * place if place >= 0 and not rest else None


def _ends(text: str) -> bool:
    """Return whether a field ends where TEXT begins."""
    rest = text.lstrip(BLANKS)
    return not rest or rest[0] in ":;,"


def _is_closed(text: str) -> bool:
    return any(
        character == text[0] and _ends(text[at + 1 :])
        for at, character in enumerate(text)
        if at > 0
    )


def _without_quotes(text: str) -> str:
    """Return TEXT without quotes around fields, volumes or all of it."""
    kept, quote, begins = "", "", True
    for at, character in enumerate(text):
        if not quote and begins and character in "\"'" and _is_closed(text[at:]):
            quote = character
        elif character == quote and _ends(text[at + 1 :]):
            quote = ""
        else:
            begins = character in ":;," or (begins and character in BLANKS)
            kept += character
    return kept


def _check_volume(text: str) -> None:
    source, colon, rest = text.partition(":")
    source = source.strip(BLANKS)
    if not source:
        raise Mistake("a volume without a source", _SITE_HINT)
    source = target = _path(source)
    if colon and rest.lstrip(BLANKS).startswith("/"):
        where, colon, rest = rest.partition(":")
        target = _path(where.strip(BLANKS))
    if reason := _forbidden(target):
        fact = f"nothing may be mounted at '{target}': {reason}"
        raise Mistake(fact, "mount it somewhere else in the container")
    flags = _Flags()
    for flag in _fields(rest) if colon else ():
        flags.read(flag)
    flags.check(source, target)


def _fields(text: str) -> Iterator[str]:
    for field in text.replace(",", ":").split(":"):
        if flag := field.strip(BLANKS):
            yield flag


def _path(text: str) -> str:
    try:
        path = normal_path(text)
    except ValueError as error:
        raise Mistake(f"{error}: '{text}'", _SITE_HINT) from None
    if any(part.rstrip(BLANKS) != part for part in path.split("/")[:-1]):
        raise Mistake(f"blanks between volumes: '{path}'", _SEPARATOR_HINT)
    return path


def _forbidden(path: str) -> str:
    if path == "/":
        return "it is the image"
    for place, beneath_too, reason in _FORBIDDEN:
        if path == place or (beneath_too and path.startswith(f"{place}/")):
            return reason
    return ""


class _Flags:
    """What stands behind the paths of one volume."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._is_cache = False

    def read(self, flag: str) -> None:
        """Take FLAG."""
        if flag.lower() in _FLAGS:
            self._once(flag.lower(), flag)
        elif not self._is_of_cache(flag):
            hint = _SEPARATOR_HINT if flag.startswith("/") else _SITE_HINT
            raise Mistake(f"no flag of a volume: '{flag[:200]}'", hint)

    def check(self, source: str, target: str) -> None:
        """Raise Mistake if they do not go together."""
        if not self._is_cache and source == "/":
            fact = "the host's root '/' is no volume: nothing of it may be reachable"
            raise Mistake(fact, "name a directory in it")
        if {"slave", "private"} <= self._seen:
            raise Mistake("the flags 'slave' and 'private' exclude each other", _SITE_HINT)
        if self._is_cache and "size" not in self._seen:
            raise Mistake(f"a perNodeCache needs a size: '{target}'", _USER_HINT)

    def _once(self, name: str, flag: str) -> None:
        if name in self._seen:
            raise Mistake(f"a flag that stands twice: '{flag[:200]}'", "write each flag once")
        self._seen.add(name)

    def _is_of_cache(self, flag: str) -> bool:
        name, equals, value = flag.partition("=")
        if name.lower() == "pernodecache":
            self._once("cache", flag)
            self._is_cache = True
            flag = value.strip(BLANKS)
            name, equals, value = flag.partition("=")
        if not self._is_cache or not flag:
            return self._is_cache
        return self._is_setting(name.lower() if equals else "", value, flag)

    def _is_setting(self, name: str, value: str, flag: str) -> bool:
        if name in ("size", "fs"):
            self._once(name, flag)
        if name in ("size", "bs") and parse_size(value) is None:
            raise Mistake(f"no size: '{value[:200]}'", _SIZE_HINT)
        if name == "fs" and not value:
            raise Mistake("no type of a filesystem: ''", _USER_HINT)
        return name in ("size", "bs", "fs") or flag.lower() == "method=loop"
