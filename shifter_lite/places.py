"""Where the programs of a user keep what is the user's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def own(environ: Mapping[str, str], variable: str, default: str) -> Path | None:
    """Return our directory below the one that VARIABLE names, or DEFAULT at home, if any."""
    base = environ.get(variable, "")
    # The specification of these variables says that relative ones are void.
    if os.path.isabs(base):
        return Path(base) / "shifter-lite"
    home = environ.get("HOME", "")
    return Path(home) / default / "shifter-lite" if os.path.isabs(home) else None
