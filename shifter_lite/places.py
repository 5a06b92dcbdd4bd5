"""Where a user's programs look: the udiRoot.conf that names the store, and places of his own."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path


def image_path(environ: Mapping[str, str], directory: Path) -> str:
    """Return ``imagePath`` of the udiRoot.conf that the launcher would read, or nothing.

    It is the one that ``SHIFTER_CONFIG`` in ENVIRON names, else that in DIRECTORY, else the
    user's own.
    """
    if chosen := environ.get("SHIFTER_CONFIG"):
        return _read_image_path(Path(chosen)) or ""
    found = _read_image_path(directory / "udiRoot.conf")
    if found is None and (base := own(environ, "XDG_CONFIG_HOME", ".config")):
        try:
            found = _read_image_path(base / "udiRoot.conf")
        except PermissionError:
            found = None
    return found or ""


def _read_image_path(path: Path) -> str | None:
    """Return ``imagePath`` of the file PATH, or nothing if there is no such file.

    Lines are ``key=value``; ``#`` in front makes a comment, and a backslash at the end of
    any other line joins it to the next (docs/udiRoot.conf.md).
    """
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return None
    text = re.sub(r"^[ \t]*#.*$", "", text, flags=re.MULTILINE)
    found = ""
    for line in text.replace("\\\n", " ").split("\n"):
        key, equals, value = line.partition("=")
        if equals and key.strip() == "imagePath":
            found = value.strip()
    return found


def own(environ: Mapping[str, str], variable: str, default: str) -> Path | None:
    """Return our directory below the one that VARIABLE names, or DEFAULT at home, if any."""
    base = environ.get(variable, "")
    # The specification of these variables says that relative ones are void.
    if os.path.isabs(base):
        return Path(base) / "shifter-lite"
    home = environ.get("HOME", "")
    return Path(home) / default / "shifter-lite" if os.path.isabs(home) else None
