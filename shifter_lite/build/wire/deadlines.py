"""End connections that take too long, and all of them when the download is given up.

A timeout of a socket is for one piece.  Who sends a piece a second, or a header or
the end of a body without an end, is ended from here.

A thread looks, until ``close``: what waits for the collector to end it waits for ever where
something else keeps it, as urllib3's finalizers keep connections.
"""

from __future__ import annotations

import socket
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread

_TICK = 0.1
_IDLE_SECONDS = 2.0


class Deadlines:
    """The connections of one registry."""

    def __init__(self) -> None:
        self.aborted = Event()
        self._lock = Lock()
        self._live: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._due: dict[socket.socket, float] = {}
        self._closed = Event()
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
            if self._thread is None and not self._closed.is_set():
                self._thread = Thread(target=self._attend, name="deadlines", daemon=True)
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

    def close(self) -> None:
        """Abort, and end the thread: what is still read, in threads left behind, ends as well."""
        self.abort()
        with self._lock:
            self._closed.set()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def _attend(self) -> None:
        """Look, until closed, or until there has been nothing to look at for a while."""
        needed = time.monotonic()
        while not self._closed.wait(_TICK):
            self._look()
            with self._lock:
                if self._due:
                    needed = time.monotonic()
                elif time.monotonic() - needed > _IDLE_SECONDS:
                    self._thread = None
                    return

    def _look(self) -> None:
        """Cut what is late."""
        now = time.monotonic()
        with self._lock:
            late = [end for end, due in self._due.items() if due < now]
            for end in late:
                del self._due[end]
        for end in late:
            _cut(end)


def _cut(end: socket.socket) -> None:
    # The other end may have hung up by itself.  A TLS socket's own method would end
    # its encryption, under the hands of who reads from it.
    with suppress(OSError):
        socket.socket.shutdown(end, socket.SHUT_RDWR)
