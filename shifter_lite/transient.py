"""Errors of a shared filesystem that pass, and how long they are waited for.

The launcher has the same table: runtime/transient.c.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

# What clients of NFS, Lustre, GPFS and GlusterFS say while a server is away, fails over, or has
# forgotten them; and what says nothing of the file.  No permission is among these, and no lack of
# room: both last.
TRANSIENT = frozenset(
    {
        errno.ESTALE,  # the server forgot a file, or this node remembers one that is gone
        errno.EIO,  # soft mounts, evicted clients
        errno.ETIMEDOUT,
        errno.ENOTCONN,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENETRESET,
        errno.EREMOTEIO,
        errno.ESHUTDOWN,
        errno.EKEYEXPIRED,  # a ticket that is renewed
        errno.ENOLCK,  # a manager of locks that starts again
        errno.EAGAIN,
        errno.EINTR,
    }
)
PATIENCE_SECONDS = 5.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.02, 1.0


def is_transient(error: OSError) -> bool:
    """Return whether what ERROR says may pass."""
    return error.errno in TRANSIENT


def pauses() -> Iterator[float]:
    """Yield how many seconds to wait before each further try, until patience is over."""
    waited, pause = 0.0, _FIRST_PAUSE_SECONDS
    while waited < PATIENCE_SECONDS:
        yield pause
        waited += pause
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def waited_out(work: Callable[[], T]) -> T:
    """Return what WORK returns, which changes nothing, once the filesystem is well.

    Raises what it raises if that lasts, or never passes.
    """
    for pause in pauses():
        try:
            return work()
        except OSError as error:
            if not is_transient(error):
                raise
        time.sleep(pause)
    return work()
