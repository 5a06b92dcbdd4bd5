"""Submit a request: write ``tmp/NAME``, then rename it to ``new/NAME``.

At the rename the request is accepted.  It must be a rename: a hard link into
the spool could give the request an owner who did not ask.

It is taken back by the rename in the other direction: if its reply is lost, the request lies
where nobody else puts it.  After an unlink, it might as well be with a worker.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress

from shifter_lite import durable, lost_reply
from shifter_lite.errors import StoreTrouble, Unanswered
from shifter_lite.layout import Layout
from shifter_lite.queue import claim, status
from shifter_lite.request import Request, Status, request_uid
from shifter_lite.transient import pauses, waited_out


def submit(layout: Layout, request: Request) -> str:
    """Put REQUEST into the spool, and return its name, by which its status is asked for.

    Raises Unanswered if it cannot be known whether it is there.
    """
    try:
        _write(layout, request)
    except BaseException:
        _clear(layout, request.name)
        raise
    try:
        durable.drop(layout.writing / request.name, layout.submitted / request.name)
    except BaseException as error:
        if not _is_accepted_after(error, layout, request.name):
            raise
    return request.name


def _write(layout: Layout, request: Request) -> None:
    # Made before the request, and by its owner: a name that a client has once
    # looked for in vain stays missing for it for 29 seconds on NFS, and the
    # setgid bit of the parent gives the worker's group the right to fill it.
    answers = layout.status / request.name
    lost_reply.mkdir(answers)
    waited_out(lambda: answers.chmod(0o2770))
    durable.write(layout.writing / request.name, request.to_bytes(), 0o640)


def _clear(layout: Layout, name: str) -> None:
    """Remove what belongs to the request NAME, which no worker has; what stays is swept."""
    lost_reply.discard(layout.writing / name)
    with suppress(OSError):
        lost_reply.rmdir(layout.status / name)


def _is_accepted_after(error: BaseException, layout: Layout, name: str) -> bool:
    """Return whether a worker has the request NAME, though submitting it ended with ERROR.

    What came over us, as Ctrl-C, cancels it then.
    """
    try:
        if withdraw(layout, name):
            _clear(layout, name)
            return False
    except OSError as trouble:
        raise Unanswered(
            f"it is not known whether the request {name!r} was accepted: {trouble.strerror}",
            hint=f"ask once the filesystem is well: shifterimg wait {name}",
        ) from error
    if isinstance(error, Exception):
        return True
    with suppress(OSError):
        status.ask_to_stop(layout, name)
    return False


def withdraw(layout: Layout, name: str) -> bool:
    """Take back the request NAME, as if it had never been made; False if a worker has it."""
    if not _take_back(layout, name):
        return False
    lost_reply.discard(layout.writing / name)
    return True


def _take_back(layout: Layout, name: str) -> bool:
    try:
        lost_reply.rename(layout.submitted / name, layout.writing / name)
    except FileNotFoundError:
        return False
    return True


def cancel(layout: Layout, name: str) -> bool:
    """Say that nobody wants our request NAME any more.

    Returns True if no worker had it: it has ended, and who waits for it can read so.
    Returns False if the worker that has it is asked to stop: then it will end soon.
    Raises what ``status.read`` raises, or StoreTrouble if no end can be written.
    """
    if not _take_back(layout, name):
        status.ask_to_stop(layout, name)
        return False
    _say_cancelled(layout, name, os.geteuid(), status.CANCELLED)
    # Only now: if we die before, the next who cancels it finds that it was taken back.
    lost_reply.discard(layout.writing / name)
    return True


def cancel_for(layout: Layout, name: str) -> bool:
    """Cancel the request NAME of any user, as the account that the store belongs to.

    Returns what ``cancel`` does.  Raises FileNotFoundError if there is no such request.
    """
    uid = request_uid(name)
    if not _take_back(layout, name):
        if not any(name == claimed for claimed, _ in claim.claimed(layout)):
            raise FileNotFoundError(errno.ENOENT, "there is no such request", name)
        status.ask_to_stop(layout, name, uid)
        return False
    _say_cancelled(layout, name, uid, status.CANCELLED_FOR_THEM)
    lost_reply.discard(layout.writing / name)
    return True


def _say_cancelled(layout: Layout, name: str, uid: int, end: Status) -> None:
    for pause in pauses():
        reporter = status.Reporter(layout, name, uid)
        reporter(end)
        reporter.close()
        if status.read(layout, name, uid).ended:
            return
        time.sleep(pause)
    raise StoreTrouble(f"it cannot be written that the request {name!r} is cancelled")
