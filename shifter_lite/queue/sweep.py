"""Remove what clients and time have left in the spool.

Nothing is removed that anybody could still want: a client that has been writing
for a day and a half is dead, and a request older than requests may be is refused
for its age, so that it need not be remembered that it was answered.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from shifter_lite.errors import RegistryBusy
from shifter_lite.layout import Layout
from shifter_lite.queue import claim
from shifter_lite.queue import status as statuses
from shifter_lite.request import Request, Status, day, is_request_name, request_day

_T = TypeVar("_T")
_LONGEST_SECONDS = 5.0
_WRITING_SECONDS = 36 * 3600
# Its owner waits for it, and removes it when it has read the end.
_UNREAD_SECONDS = 2 * 86400
_REMEMBERED_SECONDS = Request.AGE_LIMIT + 2 * 86400


def sweep(layout: Layout, now: float | None = None) -> None:
    """Remove what is too old from the spool and the statuses of LAYOUT, but not for long.

    NOW is the time by the store's clock.  Anybody can put a million files there.  What is not
    reached is reached another time: the order is another each time.
    """
    now, until = now or time.time(), time.monotonic() + _LONGEST_SECONDS
    hidden = [
        place / name
        for place in (layout.submitted, layout.claimed)
        for name in os.listdir(place)
        if name.startswith(".")
    ]
    for path in _some([*layout.writing.iterdir(), *layout.root.glob(".store.*"), *hidden], until):
        with suppress(OSError):
            status = path.lstat()
            if now - _changed(status) > _WRITING_SECONDS:
                _remove(path, status)
    oldest = day(now - _REMEMBERED_SECONDS)
    for path in (*layout.done.iterdir(), *layout.failed.iterdir()):
        if path.name < oldest:
            _remove_day(path, until)
    _sweep_statuses(layout, now - _UNREAD_SECONDS, until)


def _changed(status: os.stat_result) -> float:
    # Whoever owns it can set one of the two as he likes.
    return min(status.st_mtime, status.st_ctime)


def _some(found: list[_T], until: float) -> Iterator[_T]:
    """Yield FOUND in any order UNTIL the monotonic clock says so."""
    random.shuffle(found)
    for each in found:
        if time.monotonic() > until:
            return
        yield each


def _sweep_statuses(layout: Layout, unread: float, until: float) -> None:
    """Remove statuses of requests answered and made before the time UNREAD, and end younger ones.

    A request that has waited for long may be answered only now, and its owner has not read it: so
    the directory's own time counts too.  What is still claimed or submitted is left alone: listed
    after the statuses, so that none that comes meanwhile is missed.
    """
    names = list(filter(is_request_name, os.listdir(layout.status)))
    waiting = set(os.listdir(layout.submitted))
    claimed = {name for name, _ in claim.claimed(layout)}
    # Twice, because one may have been handed back between the two.
    waiting.update(claimed, os.listdir(layout.submitted))
    for name in _some([name for name in names if name not in waiting], until):
        # What its owner made of it may not be ours to remove.
        with suppress(OSError):
            path = layout.status / name
            if request_day(name) < day(unread) and _changed(path.lstat()) < unread:
                statuses.forget(layout, name, until)
            else:
                _end(layout, name)


def _end(layout: Layout, name: str) -> None:
    """Tell the owner of the request NAME its end, if that was lost, as by a power failure.

    A request that is in no directory, and is to be cancelled, was withdrawn by a client that
    did not hear of it.
    """
    # Nobody else: he could make such a directory once its owner has removed his.
    reporter = statuses.Reporter(layout, name, int(name.split("-")[1]))
    newest = reporter.newest()
    if newest is None or not newest.ended:
        if claim.was_answered(layout, name):
            reporter(_lost(good=claim.was_done(layout, name)))
        elif reporter.cancelled():
            reporter(Status(state="CANCELLED"))
    reporter.close()


def _lost(*, good: bool) -> Status:
    if good:
        return Status(state="READY")
    fact = "the answer was lost, as by a power failure"
    return Status(state="FAILURE", fact=fact, hint="ask again", exit_code=RegistryBusy.exit_code)


def _remove_day(path: Path, until: float) -> None:
    """Remove the day PATH, which may hold any number of requests, or some of it UNTIL then."""
    with suppress(OSError):
        with os.scandir(path) as entries:
            for entry in entries:
                if time.monotonic() > until:
                    return
                os.unlink(entry.path)
        path.rmdir()


def _remove(path: Path, status: os.stat_result) -> None:
    """Remove PATH; of directories with something in them only our own: others' could be huge."""
    if not stat.S_ISDIR(status.st_mode):
        path.unlink()
    elif status.st_uid == os.geteuid():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.rmdir()
