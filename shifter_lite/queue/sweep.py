"""Remove what clients and time have left in the spool.

Nothing is removed that anybody could still want: a client that has been writing
for a day and a half is dead, and a request older than requests may be is refused
for its age, so that it need not be remembered that it was answered.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

from shifter_lite.layout import Layout
from shifter_lite.queue import status
from shifter_lite.request import Request, day, is_request_name, request_day

_WRITING_SECONDS = 36 * 3600
# Its owner waits for it, and removes it when it has read the end.
_UNREAD_SECONDS = 2 * 86400
_REMEMBERED_SECONDS = Request.AGE_LIMIT + 2 * 86400


def sweep(layout: Layout) -> None:
    """Remove what is too old from the spool and the statuses of LAYOUT."""
    now = time.time()
    oldest, unread = day(now - _REMEMBERED_SECONDS), day(now - _UNREAD_SECONDS)
    for path in (*layout.writing.iterdir(), *layout.root.glob(".store.*")):
        with suppress(FileNotFoundError):
            if now - path.lstat().st_mtime > _WRITING_SECONDS:
                _remove(path)
    for place in (layout.done, layout.failed):
        for path in place.iterdir():
            if path.name < oldest:
                _remove(path)
    for path in layout.status.iterdir():
        if _is_forgotten(layout, path.name, unread):
            # What its owner made of it may not be ours to remove.
            with suppress(OSError):
                status.forget(layout, path.name)


def _is_forgotten(layout: Layout, name: str, unread: str) -> bool:
    """Return whether the request NAME was answered, and made before the day UNREAD."""
    if not is_request_name(name) or request_day(name) >= unread:
        return False
    return not (layout.submitted / name).exists() and not any(layout.claimed.glob(f"{name}.*"))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
