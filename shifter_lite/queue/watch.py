"""Wake when a request may have come.

inotify sees only what this host does, on every shared filesystem measured: there
the pause between two looks is what counts, and the event only hastens a local submission.
"""

from __future__ import annotations

import os
import select
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer


class Watch(FileSystemEventHandler):
    """Waits for names to appear in one directory."""

    def __init__(self, directory: Path) -> None:
        """Watch DIRECTORY."""
        self._changed = threading.Event()
        self._woken, self._waking = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waking, False)
        self._observer = Observer()
        self._observer.schedule(self, str(directory))

    def __enter__(self) -> Self:
        """Start to watch; where inotify(7) is at its limits, nothing is seen."""
        with suppress(OSError):
            self._observer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Watch no more."""
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()
        os.close(self._woken)
        os.close(self._waking)

    def fileno(self) -> int:
        """Return what can be read once a name may have come, until ``clear``."""
        return self._woken

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Wake; which event it was does not matter, as the spool is read anew."""
        if event.event_type in ("created", "moved") and not self._changed.is_set():
            self._changed.set()
            os.write(self._waking, b".")

    def has_seen(self) -> bool:
        """Return whether a name may have come since ``clear``."""
        return self._changed.is_set()

    def clear(self) -> None:
        """Forget what was seen: the directory is about to be listed."""
        if self._changed.is_set():
            self._changed.clear()
            with suppress(BlockingIOError):
                os.read(self._woken, select.PIPE_BUF)
