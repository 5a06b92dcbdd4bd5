"""How long a registry is waited for, and how often it is asked again.  Pure but for the clock."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event

from shifter_lite.errors import RegistryBusy, ShifterError

_DAY = 86400.0


class Fault(Exception):
    """A request that came to nothing.

    ``error`` is what it means to a user.  ``again`` is whether it may pass soon;
    ``wait`` is the pause that the registry asks for, in seconds.
    """

    def __init__(self, error: ShifterError, *, again: bool, wait: float | None = None) -> None:
        super().__init__(str(error))
        self.error, self.again, self.wait = error, again, wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How much of it there is; all in seconds but ``attempts`` and ``least``.

    ``connect`` is for a connection with all its greetings, ``header`` for the head of
    an answer: a registry that fetches from elsewhere first needs a while.  ``silence``
    is between two pieces of a body.  A body that for ``silence`` brings fewer than
    ``least`` bytes a second has stopped as well: at that rate a layer takes weeks,
    and nobody sees that nothing goes on.  ``attempts`` in a row may fail, and
    ``total`` be spent on them, before a registry is busy.
    """

    connect: float = 10.0
    header: float = 60.0
    silence: float = 30.0
    least: int = 1024
    attempts: int = 4
    first_pause: float = 0.25
    longest_pause: float = 30.0
    total: float = 120.0


# A mirror in trouble is not worth waiting for: the registry is asked next.
FOR_MIRRORS = Patience(connect=5.0, attempts=2, longest_pause=2.0, total=60.0)


class Effort:
    """The attempts at one thing."""

    def __init__(self, patience: Patience, aborted: Event) -> None:
        """Begin; ABORTED ends all waiting."""
        self._patience, self._aborted = patience, aborted
        self.renew()

    def renew(self) -> None:
        """Begin anew: there was progress."""
        self._failed = 0
        self._ends = time.monotonic() + self._patience.total

    def wait_after(self, fault: Fault) -> None:
        """Wait until it is time to try again after FAULT; raises its error if there is no use."""
        self._failed += 1
        if not fault.again or self._failed >= self._patience.attempts or self._aborted.is_set():
            raise fault.error from fault
        pause = self._pause() if fault.wait is None else fault.wait
        left = self._ends - time.monotonic()
        if fault.wait is not None and pause > min(self._patience.longest_pause, left):
            fault.error.hint = f"it asks for a pause of {_in_words(pause)}"
            raise fault.error from fault
        if pause > left:
            raise fault.error from fault
        if self._aborted.wait(pause):
            raise RegistryBusy("the download was given up", hint="pull again")

    def _pause(self) -> float:
        # Not all who were turned away together come back together.
        chance = random.uniform(0.75, 1.25)  # noqa: S311  # nothing secret depends on it
        usual = self._patience.first_pause * 2.0 ** (self._failed - 1)
        return min(usual, self._patience.longest_pause) * chance


def retry_after(header: str) -> float | None:
    """Return the seconds that a Retry-After HEADER asks for; RFC 9110, 10.2.3.

    None if it asks for nothing that can be meant: what is past, or further off than a day.
    """
    text = header.strip()
    seconds = -1.0
    if text.isascii() and text.isdigit():
        seconds = float(text[:20])
    else:
        try:
            date = parsedate_to_datetime(text)
            date = date if date.tzinfo else date.replace(tzinfo=UTC)
            seconds = (date - datetime.now(UTC)).total_seconds()
        except (ValueError, IndexError, OverflowError):
            pass
    return seconds if 0 <= seconds <= _DAY else None


def _in_words(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
