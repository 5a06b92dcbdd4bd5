"""What Shifter's gateway says of an image: ``ID.meta``, beside ``ID.squashfs``.

A line is ``KEY: value``, and goes on after a backslash; a list is written as Python writes one.
Its author is as trusted as that of the squashfs: the image's own words are all that is taken.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

from shifter_lite.build import settings
from shifter_lite.errors import BadImage, Denied
from shifter_lite.records import Config

LARGEST = 1 << 20
# A text of Python, of version 2 as well.
_TEXT = r"""u?('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_WORD = re.compile(_TEXT)
_LIST = re.compile(rf"\[\s*(?:{_TEXT}\s*(?:,\s*|(?=\])))*\]")
_SHOWN = 64
_ACLS = ("USERACL", "GROUPACL")


def read(data: bytes, path: str) -> Config:
    """Return how the image is run, as the file PATH with DATA says; raises BadImage or Denied."""
    if len(data) > LARGEST:
        raise BadImage(f"{path!r} has more than {LARGEST >> 20} MiB", hint=_HINT)
    try:
        lines = list(_lines(data.decode()))
    except UnicodeDecodeError as error:
        raise BadImage(f"{path!r} is no text in UTF-8", hint=_HINT) from error
    said = dict(lines)
    _refuse_private(said, path)
    return settings.read(
        {
            "Env": [value for key, value in lines if key == "ENV" and value],
            "Entrypoint": _words(said.get("ENTRY", ""), path),
            "Cmd": _words(said.get("CMD", ""), path),
            "WorkingDir": said.get("WORKDIR", ""),
            "User": said.get("USER", ""),
        }
    )


def _refuse_private(said: Mapping[str, str], path: str) -> None:
    for key in _ACLS:
        if said.get(key):
            raise Denied(
                f"the image is private: {path!r} has a {key}",
                hint="everybody may read what is imported; if all may, remove that line",
            )


_HINT = "mend it, or put the squashfs file elsewhere, without it"


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Yield each key in TEXT with its value."""
    for line in text.replace("\\\n", " ").split("\n"):
        key, colon, value = line.partition(":")
        if colon and "\0" not in line and not line.startswith("#"):
            yield key.strip(), value.strip()


def _words(value: str, path: str) -> list[str]:
    """Return the words of VALUE, a list, or one word that is none; raises BadImage."""
    if value in ("", "None"):
        return []
    if not value.startswith("["):
        return [value]
    if not _LIST.fullmatch(value):
        raise BadImage(f"{path!r} has a list that is none: {value[:_SHOWN]!r}", hint=_HINT)
    return [_text(match[1], path) for match in _WORD.finditer(value)]


def _text(word: str, path: str) -> str:
    """Return what WORD, a text between quotes, stands for."""
    try:
        return str(ast.literal_eval(word))
    except (ValueError, SyntaxError) as error:
        raise BadImage(
            f"{path!r} has a text that is none: {word[:_SHOWN]!r}", hint=_HINT
        ) from error
