"""``udiRoot.conf``, read by the rules of the launcher: what it takes, and no more.

The tables and rules are those of runtime/keys.c, settings.c and config.c; tests give the same
files to both.  Of all that the file says our own programs use only what ``UdiRoot`` holds.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from shifter_lite import places
from shifter_lite.errors import BadConfig
from shifter_lite.volumes import BLANKS, Mistake, check_volumes, normal_path, parse_size

# What a key's value must be; those of "text" are anything.
FILE_KEYS = {
    "imagePath": "text",
    "system": "text",
    "siteFs": "volumes",
    "siteEnv": "variables",
    "siteEnvAppend": "variables",
    "siteEnvPrepend": "variables",
    "siteEnvUnset": "names",
    "defaultModules": "text",
    "defaultImageType": "type",
    "optUdiImage": "path",
    "etcPath": "path",
    "populateEtcDynamically": "switch",
    "usersToImport": "text",
    "maxGroupCount": "count",
    "mountPropagationStyle": "propagation",
    "perNodeCacheSizeLimit": "size",
    "perNodeCacheAllowedFsType": "text",
    "perNodeCachePath": "path",
    "lenientWorkdir": "switch",
    "udiMount": "text",
    "sitePreMountHook": "path",
    "sitePreHookMount": "path",
    "sitePostMountHook": "path",
    "loopMount": "text",
    "rootfsType": "text",
    "udiRootPath": "text",
    "modprobePath": "text",
    "insmodPath": "text",
    "cpPath": "text",
    "mvPath": "text",
    "chmodPath": "text",
    "ddPath": "text",
    "mkfsXfsPath": "text",
    "imageGateway": "text",
    "gatewayTimeout": "text",
    "siteResources": "text",
    "mountCmd": "text",
    "allowLocalChroot": "text",
    "allowLibcPwdCalls": "text",
    "mountUdiRootWritable": "text",
    "batchType": "text",
    "nodeContextPrefix": "text",
    "autoLoadKernelModule": "text",
    "kmodBasePath": "text",
    "kmodCacheFile": "text",
    "optionalSshdAsRoot": "text",
}
MODULE_KEYS = {
    "siteFs": "volumes",
    "siteEnv": "variables",
    "siteEnvAppend": "variables",
    "siteEnvPrepend": "variables",
    "siteEnvUnset": "names",
    "copyPath": "path",
    "conflict": "text",
    "userhook": "path",
    "enabled": "switch",
    "requires": "text",
    "roothook": "path",
}
_NAME = "udiRoot.conf"
_LARGEST = 1 << 20
# The launcher's complaints have room for so many bytes, less one.
_ROOM = 767
_SHOWN = 200
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class UdiRoot:
    """What a file says that is for us; a text that it does not give is empty."""

    image_path: str = ""
    system: str = ""


def read(environ: Mapping[str, str], directory: Path) -> UdiRoot:
    """Return what the file says that the launcher would read; raises BadConfig as it would fail.

    It is the one that ``SHIFTER_CONFIG`` in ENVIRON names, else that in DIRECTORY, else the
    user's own.
    """
    if chosen := environ.get("SHIFTER_CONFIG"):
        return _read(Path(chosen), missing=()) or UdiRoot()
    absent = (FileNotFoundError, NotADirectoryError)
    found = _read(directory / _NAME, missing=absent)
    if found is None and (base := places.own(environ, "XDG_CONFIG_HOME", ".config")):
        found = _read(base / _NAME, missing=(*absent, PermissionError))
    return found or UdiRoot()


def _read(path: Path, *, missing: tuple[type[OSError], ...]) -> UdiRoot | None:
    """Return what the file PATH says, or None if it is MISSING."""
    try:
        text = _bytes_of(path)
    except missing:
        return None
    except OSError as error:
        raise BadConfig(f"cannot read {str(path)!r}: {error.strerror}") from error
    if b"\0" in text:
        raise BadConfig(f"{str(path)!r} is no text")
    try:
        return parse(text)
    except Wrong as error:
        hint = error.hint
        raise BadConfig(f"{str(path)!r} line {error.line}: {error}", hint=hint) from error


def _bytes_of(path: Path) -> bytes:
    """Return what is in PATH, a regular file."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "it is no regular file")
        text = file.read(_LARGEST)
    if len(text) == _LARGEST:
        raise OSError(0, "File too large")
    return text


class Wrong(Exception):
    """The first mistake of a file: its line, the fact, and a hint."""

    def __init__(self, line: int, mistake: Mistake) -> None:
        super().__init__(_shown(str(mistake)))
        self.line = line
        self.hint = _shown(mistake.hint)


def parse(text: bytes) -> UdiRoot:
    """Return what TEXT says; raises Wrong."""
    given = {"imagePath": "", "system": ""}
    for number, line in _lines(text.decode("latin-1")):
        try:
            name, value = _read_line(line)
        except Mistake as mistake:
            raise Wrong(number, mistake) from None
        if name in given:
            given[name] = _shown(value, len(value))
    return UdiRoot(image_path=given["imagePath"], system=given["system"])


def _shown(text: str, room: int = _ROOM) -> str:
    """Return the first bytes of TEXT, for which there is ROOM, as what they mean."""
    return text[:room].encode("latin-1").decode(errors="surrogateescape")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line that says something, and the number of its first one.

    A backslash at the end joins a line to the next, by blanks, but not a comment.
    """
    physical = text.split("\n")
    at = 0
    while at < len(physical):
        first, line = at, physical[at]
        is_comment = line.lstrip(" \t").startswith("#")
        while line.endswith("\\") and not is_comment and at + 1 < len(physical):
            at += 1
            line = f"{line[:-1]}  {physical[at]}"
        at += 1
        line = line.strip(BLANKS)
        if line and not line.startswith("#"):
            yield first + 1, line


def _read_line(line: str) -> tuple[str, str]:
    """Return the key of the file and the value that LINE gives; a module's key is no such key."""
    name, equals, value = line.partition("=")
    if not equals:
        fact = f"no '=' in the line: '{line[:_SHOWN]}'"
        raise Mistake(fact, "write KEY=VALUE; a comment begins with '#'")
    name, value, before, keys = name.strip(BLANKS), value.strip(BLANKS), "", FILE_KEYS
    if name.startswith("module_"):
        before, name, keys = *_split_module(name), MODULE_KEYS
    key = _find(keys, name)
    if key is None:
        hint = f"did you mean '{before}{_nearest(keys, name)}'?"
        raise Mistake(f"unknown key: '{before}{name[:_SHOWN]}'", hint[:255])
    _RULES[keys[key]](key, value)
    return before + key, value


def _split_module(name: str) -> tuple[str, str]:
    """Return ``module_NAME_`` and the key that follows."""
    module, underscore, key = name.removeprefix("module_").partition("_")
    if not underscore:
        raise Mistake(f"unknown key: '{name[:_SHOWN]}'", "write module_NAME_KEY=VALUE")
    is_odd = not module or module.startswith(".") or set(module) & set("/,; \t")
    if is_odd or module.lower() == "none" or len(module) > _LONGEST_NAME:
        raise Mistake(
            f"no name of a module: '{module[:_SHOWN]}'",
            "a name has neither '_' nor '/', '.' in front, nor blanks",
        )
    return f"module_{module}_", key


def _find(keys: Mapping[str, str], name: str) -> str | None:
    """Return the key that NAME means; of a module, letters may be in the other case."""
    if name in keys or keys is FILE_KEYS:
        return name if name in keys else None
    return next((key for key in keys if key.lower() == name.lower()), None)


def _nearest(keys: Mapping[str, str], name: str) -> str:
    return min(keys, key=lambda key: _distance(key.lower(), _lower(name)))


def _lower(text: str) -> str:
    """Return TEXT with the letters of ASCII in lower case, as tolower(3) has them."""
    return text.encode("latin-1").lower().decode("latin-1")


def _distance(one: str, other: str) -> int:
    """Return how many letters must be changed, added or left out to make one of the other."""
    row = list(range(len(other[:63]) + 1))
    for letter in one[:63]:
        above, row[0] = row[0], row[0] + 1
        for at, against in enumerate(other[:63], 1):
            above, row[at] = row[at], min(above + (letter != against), row[at - 1] + 1, row[at] + 1)
    return row[-1]


def _check_variables(key: str, value: str) -> None:
    for word in _words(value):
        if "=" not in word or word.startswith("="):
            raise Mistake(f"'{key}' holds '{word[:_SHOWN]}'", "write NAME=VALUE")


def _check_names(key: str, value: str) -> None:
    for word in _words(value):
        if word.startswith("="):
            raise Mistake(f"'{key}' holds '{word[:_SHOWN]}'", "write NAME")


def _words(value: str) -> list[str]:
    return [word for word in value.replace("\t", " ").replace("\r", " ").split(" ") if word]


def _check_path(key: str, value: str) -> None:
    try:
        if value:
            normal_path(value)
    except ValueError as error:
        fact = f"'{key}' is {error}: '{value[:_SHOWN]}'"
        raise Mistake(fact, "write a path that begins with '/'") from None


def _check_switch(key: str, value: str) -> None:
    if value not in ("0", "1"):
        raise Mistake(f"'{key}' is neither 0 nor 1: '{value[:_SHOWN]}'", "write 0 or 1")


def _check_count(key: str, value: str) -> None:
    is_number = value.isascii() and value.isdigit() and len(value) <= len("999999999")
    if not is_number:
        fact = f"'{key}' is no number: '{value[:_SHOWN]}'"
        raise Mistake(fact, "write a number, or 0 for all")


def _check_size(key: str, value: str) -> None:
    if value != "0" and parse_size(value) is None:
        fact = f"'{key}' is no size: '{value[:_SHOWN]}'"
        raise Mistake(fact, "write a number of bytes, or one with K, M, G, T, P or E: 1.5T")


def _check_propagation(key: str, value: str) -> None:
    if value not in ("private", "slave"):
        fact = f"'{key}' is neither private nor slave: '{value[:_SHOWN]}'"
        raise Mistake(fact, "write private or slave")


def _check_type(key: str, value: str) -> None:
    if value != "docker":
        fact = f"there are no images of the type '{value[:_SHOWN]}'"
        raise Mistake(fact, f"write {key}=docker")


_RULES: dict[str, Callable[[str, str], None]] = {
    "count": _check_count,
    "names": _check_names,
    "path": _check_path,
    "propagation": _check_propagation,
    "size": _check_size,
    "switch": _check_switch,
    "text": lambda key, value: None,
    "type": _check_type,
    "variables": _check_variables,
    "volumes": lambda key, value: check_volumes(value),
}
