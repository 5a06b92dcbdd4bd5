"""See all requests that are not answered yet, as the account that works on them.

Users' files are looked at as a worker does: nothing is followed, nothing blocks, and what
is no request is shown as far as its name and its owner go.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shifter_lite.errors import BadRequest, Damaged
from shifter_lite.layout import Layout
from shifter_lite.queue import status
from shifter_lite.request import Request, Status, is_request_name
from shifter_lite.transient import waited_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """A request that is not answered yet.

    ``request`` is None if it is none, ``worker`` is empty if nobody has it.
    """

    name: str
    uid: int
    worker: str
    request: Request | None
    status: Status


def open_requests(layout: Layout, store: str) -> Iterator[Open]:
    """Yield all that wait or are worked on in the spool of STORE, oldest first."""
    # Those that wait first: a request that is claimed meanwhile is seen twice, not missed.
    waiting = {name: "" for name in os.listdir(layout.submitted) if is_request_name(name)}
    split = (name.partition(".") for name in os.listdir(layout.claimed))
    claimed = {name: worker for name, _, worker in split if is_request_name(name)}
    for name, worker in sorted({**waiting, **claimed}.items()):
        path = layout.claimed / f"{name}.{worker}" if worker else layout.submitted / name
        # Answered, claimed or handed back since.
        with suppress(FileNotFoundError):
            yield _open(layout, path, name, worker, store)


def is_open(layout: Layout, name: str) -> bool:
    """Return whether the request NAME waits or is worked on."""
    waiting = layout.submitted / name
    if waited_out(waiting.exists):
        return True
    names = waited_out(lambda: os.listdir(layout.claimed))
    # It may have been handed back meanwhile.
    return any(each.startswith(f"{name}.") for each in names) or waited_out(waiting.exists)


def _open(layout: Layout, path: Path, name: str, worker: str, store: str) -> Open:
    uid = path.lstat().st_uid
    now = Status(state="PENDING")
    if worker:
        with suppress(OSError, Damaged):
            now = status.read(layout, name, uid)
    return Open(name=name, uid=uid, worker=worker, request=_read(path, name, store), status=now)


def _read(path: Path, name: str, store: str) -> Request | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError:
        return None
    try:
        return Request.read(fd, name=name, store=store, now=time.time())
    except BadRequest:
        return None
    finally:
        os.close(fd)
