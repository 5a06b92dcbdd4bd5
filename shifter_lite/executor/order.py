"""What a worker and a job say to each other, in a directory that both see.

``jobs/WORKER.NONCE/`` is made by the worker, for one job.  The order goes there by way of
submitit, and the job's statuses come back: ``NNNNNNNNNN.json``, the highest is the newest,
the last one is READY or FAILURE.  A job ends when its directory is gone.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from shifter_lite import durable
from shifter_lite.build.manifest import Manifest
from shifter_lite.config import Site
from shifter_lite.errors import Damaged, ShifterError
from shifter_lite.layout import Layout
from shifter_lite.request import Request, Status

_STATUS = re.compile(r"[0-9]{10}\.json")
_KEEP = 2
_LARGEST_LOG = 65536
_LOG_SECONDS = 9 * 86400
# A directory that could not be removed at once, as its job was just writing.
_REMOVALS = 5
_GONE = re.compile(r"\.(?P<name>.+)")
_FOLDER = re.compile(r"(?P<worker>.+)\.[0-9a-f]{8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """All that a job needs to know to build one image as the worker MASTER would.

    ``root`` is the store's place, ``store`` its id, ``key`` what the build is called in
    ``builds/``.  The site's configuration comes along: the node may have another.
    """

    root: str
    store: str
    master: str
    key: str
    recipe: str
    request: Request
    manifest: Manifest
    site: Site


class Desk:
    """The directory of one job."""

    def __init__(self, path: Path) -> None:
        """Use the directory at PATH."""
        self.path = path
        self._number = 0

    @classmethod
    def new(cls, layout: Layout, worker: str) -> Desk:
        """Name one for a job of WORKER's, which is yet to be made."""
        return cls(layout.jobs / f"{worker}.{os.urandom(4).hex()}")

    def make(self) -> None:
        """Make it; no other user may enter it."""
        self.path.mkdir(mode=0o700)

    def is_there(self) -> bool:
        """Return whether the worker still wants what is done here."""
        return self.path.name in os.listdir(self.path.parent)

    def report(self, status: Status) -> None:
        """Make STATUS the newest; only the job does.  None but the last may fail to appear."""
        self._number += 1
        unfinished, name = self.path / f".{self._number:010d}", self._name(self._number)
        if status.ended:
            durable.write(unfinished, status.to_bytes(), 0o600)
            durable.move(unfinished, name)
            return
        with suppress(OSError):
            unfinished.write_bytes(status.to_bytes())
            unfinished.rename(name)
            self._name(self._number - _KEEP).unlink(missing_ok=True)

    def newest(self) -> Status | None:
        """Return what the job has said last; None if nothing yet."""
        # What was listed may be gone, as a newer has come, or its node have lost power.
        with suppress(FileNotFoundError, Damaged):
            # Listed, and never looked for by a name that may not be there yet.
            names = filter(_STATUS.fullmatch, os.listdir(self.path))
            if newest := max(names, default=""):
                return Status.from_bytes((self.path / newest).read_bytes())
        return None

    def remove(self) -> None:
        """Remove it: if the job is not at its end, this ends it.

        What was begun, and interrupted by a signal, goes on.
        """
        gone = self.path.with_name(f".{self.path.name}")
        with suppress(FileNotFoundError):
            # At once, whatever is being written into it meanwhile.
            self.path.rename(gone)
        for _ in range(_REMOVALS):
            shutil.rmtree(gone, ignore_errors=True)
            if not gone.exists():
                return

    def keep_log(self, layout: Layout, key: str, job: str, why: str) -> Path:
        """Keep what JOB, which was to build KEY and was lost, has said; WHY is what we know."""
        said = b""
        for path in sorted(self.path.glob("*.out")):
            with suppress(OSError), path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _LARGEST_LOG))
                said += file.read()
        kept = layout.jobs / f"{key}.{job}.log"
        with suppress(FileExistsError):
            durable.write(kept, f"{why}\n".encode() + said, 0o600)
        return kept

    def _name(self, number: int) -> Path:
        return self.path / f"{number:010d}.json"


@dataclass(slots=True, eq=False)
class Job:
    """One build, given to Slurm or about to be.

    ``alone`` is what keeps others from building the same.  What the thread finds out is ``id``,
    ``error``, and ``state`` with the time at which it was found ``ended``.
    """

    order: Order
    desk: Desk
    alone: ExitStack
    began: float = field(default_factory=time.monotonic)
    tried: float = float("-inf")
    id: str = ""
    state: str = ""
    ended: float | None = None
    error: ShifterError | None = None
    looked: float = float("-inf")
    is_left: bool = False


class JobLost(Exception):
    """A job has ended without a result: its requests are for somebody to do again."""


def kept_logs(layout: Layout, key: str) -> list[Path]:
    """Return what lost jobs that were to build KEY have said."""
    names = os.listdir(layout.jobs)
    return [layout.jobs / name for name in names if name.startswith(f"{key}.")]


def forget_logs(layout: Layout, key: str) -> None:
    """Begin to count lost jobs anew: KEY is built."""
    for path in kept_logs(layout, key):
        path.unlink(missing_ok=True)


def tidy(layout: Layout, is_dead: Callable[[str], bool]) -> None:
    """Remove the directories of workers that are dead, as IS_DEAD says, and old logs."""
    now = time.time()
    for name in os.listdir(layout.jobs):
        path = layout.jobs / name
        if name.endswith(".log"):
            with suppress(FileNotFoundError):
                if now - path.stat().st_mtime > _LOG_SECONDS:
                    path.unlink()
        elif _GONE.fullmatch(name):
            shutil.rmtree(path, ignore_errors=True)
        elif (match := _FOLDER.fullmatch(name)) and is_dead(match["worker"]):
            Desk(path).remove()
