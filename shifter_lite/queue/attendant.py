"""Look after a worker while it builds: a thread that lets its heart beat, and looks around.

What the thread finds out must stop the main thread wherever it waits, for a registry for
instance: so it sends it a signal, whose handler raises there.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from shifter_lite import logs
from shifter_lite.queue.presence import BEAT_SECONDS, Census, Lost, Presence

_LOOK_SECONDS = 1.0
# How long what was raised may take to arrive, before it is raised once more.  Python drops what
# comes while it runs a finalizer, and says so: that is not waited for.
_ARRIVAL_SECONDS = 30.0
# Nobody else's: SIGTERM and its like mean something to whoever started us.
_SIGNAL = signal.SIGUSR1


class Unwanted(BaseException):
    """Nobody wants any more what is being built.

    Not an Exception, because it comes over whatever is being done.
    """


class Attendant:
    """The thread, and what it may interrupt."""

    def __init__(self, presence: Presence, census: Census) -> None:
        """Look after PRESENCE, and keep CENSUS of the others."""
        self._presence, self._census = presence, census
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._attend, name="attendant", daemon=True)
        self._main = threading.main_thread()
        # Errors are made where they are raised, and none is kept: its traceback would keep all
        # that was being done.
        self._is_lost = False
        self._guarded: Callable[[], bool] | None = None
        self._unwanted: Callable[[], bool] | None = None
        self._sent = float("-inf")
        self._dropped: Any = None
        self._rounds: dict[object, Callable[[], None]] = {}
        self._before: Any = None
        self._renewed = self._looked = float("-inf")

    def __enter__(self) -> Attendant:
        """Begin.  Only in the main thread can anything be interrupted."""
        if threading.current_thread() is self._main:
            self._before = signal.signal(_SIGNAL, self._raise)
            self._dropped, sys.unraisablehook = sys.unraisablehook, self._drop
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stop.set()
        self._thread.join()
        if self._before is not None:
            signal.signal(_SIGNAL, self._before)
            sys.unraisablehook = self._dropped

    def every_round(self, key: object, look: Callable[[], None]) -> None:
        """Call LOOK about every second, in the thread, until ``no_more`` with the same KEY."""
        self._rounds = {**self._rounds, key: look}

    def no_more(self, key: object) -> None:
        """Call no more what was given with KEY, though it may be running yet."""
        self._rounds = {each: look for each, look in self._rounds.items() if each is not key}

    def check(self) -> None:
        """Raise Lost if we were taken for dead."""
        if self._is_lost:
            raise Lost(self._presence.name)

    @contextmanager
    def guarding(self, wanted: Callable[[], bool]) -> Iterator[None]:
        """Raise Lost or Unwanted meanwhile, as soon as we are, or WANTED is false."""
        self.check()
        self._sent = float("-inf")
        self._guarded = wanted
        try:
            yield
        finally:
            self._guarded = self._unwanted = None

    def _raise(self, _number: int, _frame: FrameType | None) -> None:
        # Runs between two bytecodes of the main thread: what it finds cannot change meanwhile.
        if self._guarded is None:
            return
        if self._is_lost:
            raise Lost(self._presence.name)
        if self._unwanted is self._guarded:
            raise Unwanted

    def _drop(self, unraisable: Any) -> None:
        """Note that Python has dropped what was raised, as in a finalizer."""
        if isinstance(unraisable.exc_value, Lost | Unwanted):
            self._sent = float("-inf")
        else:
            self._dropped(unraisable)

    def _attend(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            for look in (*self._rounds.values(), self._interrupt):
                # Between any two: a thousand batches on a slow filesystem take minutes.
                self._live()
                self._try(look)

    def _live(self) -> None:
        """Let the heart beat, and look at the others, if it is time."""
        now = time.monotonic()
        if now - self._renewed >= BEAT_SECONDS - _LOOK_SECONDS / 2:
            self._renewed = now
            self._renew()
        if now - self._looked >= BEAT_SECONDS - _LOOK_SECONDS / 2:
            self._looked = now
            # The next look will do.
            with suppress(OSError):
                self._census.look()

    def _try(self, look: Callable[[], None]) -> None:
        try:
            look()
        except Lost:
            self._is_lost = True
        except OSError:
            # The next one will do.
            pass
        except Exception as error:  # noqa: BLE001  # whatever it is, our heart must go on
            logs.error("bug", error)

    def _renew(self) -> None:
        try:
            self._presence.renew()
        except Lost:
            self._is_lost = True
        except OSError as error:
            # If it lasts, others will bury us, and then we shall know.
            logs.warning("the heart missed a beat", reason=error)

    def _interrupt(self) -> None:
        wanted = self._guarded
        if wanted is None:
            return
        if not wanted():
            self._unwanted = wanted
        elif not self._is_lost:
            return
        if time.monotonic() - self._sent > _ARRIVAL_SECONDS and self._main.ident:
            self._sent = time.monotonic()
            signal.pthread_kill(self._main.ident, _SIGNAL)
