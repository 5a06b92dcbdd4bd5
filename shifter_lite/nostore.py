"""What to say of a place where a store should be, and is none.

A site that moves over has images of Shifter there, which no store can lie among.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from shifter_lite.errors import NoStore

# A gateway's image and what it says of it: ID.squashfs and ID.meta.
_OF_SHIFTER = re.compile(r"([0-9a-f]{64})[.](squashfs|meta)")


def no_store(root: Path) -> NoStore:
    """Return the error that there is no store at ROOT, which says what is."""
    if holds_images_of_shifter(root):
        return NoStore(
            f"{str(root)!r} is no store: it has images of Shifter (ID.squashfs and ID.meta)",
            hint="make a store in a new directory (shifter-admin init), and bring each image into "
            "it: shifterimg import ID.squashfs NAME",
        )
    return NoStore(
        f"there is no store at {str(root)!r}",
        hint="set SHIFTER_STORE or --store, or make one: shifterimg pull NAME",
    )


def holds_images_of_shifter(root: Path) -> bool:
    """Return whether images of Shifter's gateway are in ROOT, as far as we may look."""
    with suppress(OSError), os.scandir(root) as entries:
        found: set[str] = set()
        for entry in entries:
            if match := _OF_SHIFTER.fullmatch(entry.name):
                other = "meta" if match[2] == "squashfs" else "squashfs"
                if f"{match[1]}.{other}" in found:
                    return True
                found.add(entry.name)
    return False
