"""Wake when a request may have come: on a change, and anyway after a while.

inotify sees only what this host does, on every shared filesystem measured: there
the pause is what counts, and the event only hastens a local submission.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer


class Watch(FileSystemEventHandler):
    """Waits for names to appear in one directory."""

    def __init__(self, directory: Path, *, pause: float) -> None:
        """Watch DIRECTORY; wake after PAUSE seconds even if nothing was seen."""
        self._pause = pause
        self._changed = threading.Event()
        self._observer = Observer()
        self._observer.schedule(self, str(directory))

    def __enter__(self) -> Self:
        """Start to watch; where inotify(7) is at its limits, only pause."""
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

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Wake; which event it was does not matter, as the spool is read anew."""
        if event.event_type in ("created", "moved"):
            self._changed.set()

    def wait(self, pause: float | None = None) -> None:
        """Return when a name may have come, and after PAUSE seconds if that is given."""
        self._changed.wait(self._pause if pause is None else min(pause, self._pause))
        self._changed.clear()
