"""JSON that others have written, read field by field: each error says where it is.  Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

from shifter_lite.errors import BadConfig

# What ends a part of a line of udiRoot.conf, or would join it to the next.
_BREAKS = " ;:\\"


class Node:
    """A JSON object, and where it stands; all that is read is checked."""

    def __init__(self, fields: object, where: str, known: str) -> None:
        """Take FIELDS; raises BadConfig if they are not an object of KNOWN fields only."""
        if not isinstance(fields, dict):
            raise BadConfig(f"{where}: not an object")
        for name in fields:
            if name not in known.split():
                raise BadConfig(
                    f"{where}: the field {name!r} is not known",
                    hint=f"known are {', '.join(known.split())}",
                )
        self._fields: dict[str, Any] = fields
        self.where = where

    def text(self, name: str, default: str | None = None) -> str:
        """Return the text NAME; raises BadConfig if there is none and no DEFAULT."""
        value = self._fields.get(name, default)
        if not isinstance(value, str):
            raise BadConfig(f"{self.where}.{name}: not a text")
        return value

    def path(self, name: str, default: str | None = None) -> str:
        """Return the path NAME, absolute and such that a line can hold it."""
        return checked_path(self.text(name, default), f"{self.where}.{name}")

    def texts(self, name: str) -> list[str]:
        """Return the texts NAME, a list; none if it is not there."""
        values = self._fields.get(name) or []
        if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
            raise BadConfig(f"{self.where}.{name}: not a list of texts")
        return values

    def nodes(self, name: str, known: str) -> Iterator[Node]:
        """Yield the objects NAME, a list, of KNOWN fields."""
        values = self._fields.get(name) or []
        if not isinstance(values, list):
            raise BadConfig(f"{self.where}.{name}: not a list")
        for number, each in enumerate(values):
            yield Node(each, f"{self.where}.{name}[{number}]", known)

    def node(self, name: str, known: str) -> Node:
        """Return the object NAME of KNOWN fields; one without any if it is not there."""
        return Node(self._fields.get(name) or {}, f"{self.where}.{name}", known)

    def has(self, name: str) -> bool:
        """Return whether there is anything under NAME."""
        return bool(self._fields.get(name))


def checked_path(text: str, where: str) -> str:
    """Return TEXT, a path from WHERE, in its normal form; raises BadConfig."""
    if not text.startswith("/") or not text.isprintable() or set(_BREAKS) & set(text):
        raise BadConfig(
            f"{where}: not a path that udiRoot.conf can hold: {text!r}",
            hint="it must be absolute, without blanks, ';', ':', '\\' and control characters",
        )
    if ".." in text.split("/"):
        raise BadConfig(f"{where}: a path with '..': {text!r}")
    return posixpath.normpath("/" + text.lstrip("/"))
