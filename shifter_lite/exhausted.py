"""Descriptors, memory and threads that a process runs out of.

One build may need more than there is: that is told to who asked for it.  But a process that has
none left when the build is over can answer nobody: it must end, so that another takes its place.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import ExitStack
from threading import Event, Thread

from shifter_lite.errors import Exhausted

_LACKS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
# CPython has no other sign for it.
_NO_THREAD = "can't start new thread"
# What the next build needs, at least.
_ENOUGH_DESCRIPTORS = 64
_ENOUGH_THREADS = 8
_ENOUGH_BYTES = 1 << 26


def check(error: BaseException) -> None:
    """Raise Exhausted if ERROR came of a lack that lasts."""
    for each in _causes(error):
        if _is_lack(each) and (lack := _lasting()) is not None:
            raise _exhausted(lack) from error


def check_now() -> None:
    """Raise Exhausted if there is a lack, as after an error that does not say what it came of."""
    if (lack := _lasting()) is not None:
        raise _exhausted(lack) from lack


def _exhausted(lack: BaseException) -> Exhausted:
    return Exhausted(f"this worker can work no more: {lack}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield ERROR, and what it came of: libraries wrap what the system says."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_lack(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _LACKS
    return isinstance(error, MemoryError) or str(error) == _NO_THREAD


def _lasting() -> BaseException | None:
    """Return what stands in the way of taking what a build needs; None if all is there."""
    try:
        _take_all()
    except (OSError, MemoryError, RuntimeError) as error:
        return error
    return None


def _take_all() -> None:
    """Take what a build needs, and give it back."""
    with ExitStack() as taken:
        for _ in range(_ENOUGH_DESCRIPTORS):
            taken.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        taken.enter_context(mmap.mmap(-1, _ENOUGH_BYTES))
        over = Event()
        taken.callback(over.set)
        for _ in range(_ENOUGH_THREADS):
            thread = Thread(target=over.wait, daemon=True)
            thread.start()
