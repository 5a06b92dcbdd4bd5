"""Submit a request: write ``tmp/NAME``, then rename it to ``new/NAME``.

At the rename the request is accepted.  It must be a rename: a hard link into
the spool could give the request an owner who did not ask.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from shifter_lite import durable
from shifter_lite.layout import Layout
from shifter_lite.queue import status
from shifter_lite.request import Request, Status


def submit(layout: Layout, request: Request) -> str:
    """Put REQUEST into the spool, and return its name, by which its status is asked for."""
    written = layout.writing / request.name
    # Made before the request, and by its owner: a name that a client has once
    # looked for in vain stays missing for it for 29 seconds on NFS, and the
    # setgid bit of the parent gives the worker's group the right to fill it.
    answers = layout.status / request.name
    answers.mkdir()
    try:
        answers.chmod(0o2770)
        durable.write(written, request.to_bytes(), 0o640)
        durable.drop(written, layout.submitted / request.name)
    except BaseException:
        written.unlink(missing_ok=True)
        withdraw(layout, request.name)
        with suppress(FileNotFoundError):
            answers.rmdir()
        raise
    return request.name


def withdraw(layout: Layout, name: str) -> bool:
    """Take back the request NAME; return False if a worker has it already."""
    try:
        (layout.submitted / name).unlink()
    except OSError as error:
        # What a server forgets of a file that was renamed, NFS calls stale.
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise
        return False
    return True


def cancel(layout: Layout, name: str) -> bool:
    """Say that nobody wants our request NAME any more.

    Returns True if no worker had it: it has ended, and who waits for it can read so.
    Returns False if the worker that has it is asked to stop: then it will end soon.
    Raises what ``status.read`` raises.
    """
    if not withdraw(layout, name):
        status.ask_to_stop(layout, name)
        return False
    reporter = status.Reporter(layout, name, os.geteuid())
    reporter(Status(state="CANCELLED"))
    reporter.close()
    return True
