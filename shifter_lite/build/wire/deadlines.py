"""End connections that take too long, and all of them when the download is given up.

A timeout of a socket is for one piece.  Who sends a piece a second, or a header or
the end of a body without an end, is ended from here.
"""

from __future__ import annotations

import socket
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread

_TICK = 0.1


class Deadlines:
    """The connections of one registry."""

    def __init__(self) -> None:
        self.aborted = Event()
        self._lock = Lock()
        self._live: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._due: dict[socket.socket, float] = {}
        self._thread: Thread | None = None

    def add(self, end: socket.socket) -> None:
        """Take note of the connection END."""
        with self._lock:
            self._live.add(end)
        if self.aborted.is_set():
            _cut(end)

    @contextmanager
    def within(self, end: socket.socket, seconds: float) -> Iterator[None]:
        """Cut END if what is done meanwhile takes more than SECONDS; then raise TimeoutError."""
        with self._lock:
            self._due[end] = time.monotonic() + seconds
            if self._thread is None:
                # It knows us weakly, so that it ends with us.
                self._thread = Thread(target=_look, args=(weakref.ref(self),), daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                late = self._due.pop(end, None) is None
            if late:
                raise TimeoutError

    def abort(self) -> None:
        """Let everything that is under way fail, for good."""
        self.aborted.set()
        with self._lock:
            ends = list(self._live)
        for end in ends:
            _cut(end)

    def look(self) -> None:
        """Cut what is late."""
        now = time.monotonic()
        with self._lock:
            late = [end for end, due in self._due.items() if due < now]
            for end in late:
                del self._due[end]
        for end in late:
            _cut(end)


def _look(reference: weakref.ref[Deadlines]) -> None:
    while (deadlines := reference()) is not None:
        deadlines.look()
        del deadlines
        time.sleep(_TICK)


def _cut(end: socket.socket) -> None:
    # The other end may have hung up by itself.  A TLS socket's own method would end
    # its encryption, under the hands of who reads from it.
    with suppress(OSError):
        socket.socket.shutdown(end, socket.SHUT_RDWR)
