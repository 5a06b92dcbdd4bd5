"""Remove what clients and time have left in the spool.

Nothing is removed that anybody could still want: a client that has been writing
for a day and a half is dead, and a request older than requests may be is refused
for its age, so that it need not be remembered that it was answered.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from shifter_lite.errors import RegistryBusy
from shifter_lite.layout import Layout
from shifter_lite.queue import claim, status
from shifter_lite.request import Request, Status, day, is_request_name, request_day

_WRITING_SECONDS = 36 * 3600
# Its owner waits for it, and removes it when it has read the end.
_UNREAD_SECONDS = 2 * 86400
_REMEMBERED_SECONDS = Request.AGE_LIMIT + 2 * 86400


def sweep(layout: Layout) -> None:
    """Remove what is too old from the spool and the statuses of LAYOUT."""
    now = time.time()
    oldest = day(now - _REMEMBERED_SECONDS)
    hidden = (path for path in layout.submitted.iterdir() if path.name.startswith("."))
    for path in (*layout.writing.iterdir(), *layout.root.glob(".store.*"), *hidden):
        with suppress(FileNotFoundError):
            if now - path.lstat().st_mtime > _WRITING_SECONDS:
                _remove(path)
    for place in (layout.done, layout.failed):
        for path in place.iterdir():
            if path.name < oldest:
                _remove(path)
    _sweep_statuses(layout, day(now - _UNREAD_SECONDS))


def _sweep_statuses(layout: Layout, unread: str) -> None:
    """Remove statuses of requests answered and made before the day UNREAD, and end younger ones.

    What is still claimed or submitted is left alone: listed after the statuses, so that none
    that comes meanwhile is missed.
    """
    names = list(filter(is_request_name, os.listdir(layout.status)))
    working = {name for name, _ in claim.claimed(layout)} | set(os.listdir(layout.submitted))
    for name in names:
        if name in working:
            continue
        # What its owner made of it may not be ours to remove.
        with suppress(OSError):
            if request_day(name) < unread:
                status.forget(layout, name)
            else:
                _end(layout, name)


def _end(layout: Layout, name: str) -> None:
    """Tell the owner of the request NAME that it was answered, if a power loss took the answer."""
    if not claim.was_answered(layout, name):
        return
    reporter = status.Reporter(layout, name, (layout.status / name).lstat().st_uid)
    newest = reporter.newest()
    if newest is None or not newest.ended:
        reporter(_lost(good=claim.was_done(layout, name)))
    reporter.close()


def _lost(*, good: bool) -> Status:
    if good:
        return Status(state="READY")
    fact = "the answer was lost, as by a power failure"
    return Status(state="FAILURE", fact=fact, hint="ask again", exit_code=RegistryBusy.exit_code)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
