"""What time it is where the store lies: by a file just made there, not by this host's clock.

A node that boots before it has heard of the time would refuse all requests for their age; and
those who ask have clocks of their own, which the store's is as near to as any.
"""

from __future__ import annotations

import os
import time

from shifter_lite.layout import Layout

# So often a file is made.  Between, this host's monotonic clock goes on, which never jumps.
_FRESH_SECONDS = 60.0


class StoreClock:
    """The clock of the store at LAYOUT, for the worker MARK."""

    def __init__(self, layout: Layout, mark: str) -> None:
        self._path = layout.claimed / f".clock.{mark}"
        self._measured = float("-inf")
        self._ahead = 0.0

    def now(self) -> float:
        """Return the time in seconds since 1970; raises OSError if no file can be made."""
        if time.monotonic() - self._measured > _FRESH_SECONDS:
            self._ahead = self._measure() - time.monotonic()
            self._measured = time.monotonic()
        return time.monotonic() + self._ahead

    def _measure(self) -> float:
        # One that a lost reply left is as good, once it is new.
        self._path.unlink(missing_ok=True)
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            return os.fstat(fd).st_mtime
        finally:
            os.close(fd)
            self._path.unlink(missing_ok=True)
