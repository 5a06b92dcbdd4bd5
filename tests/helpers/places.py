"""Try many things with one store each, as many at a time as there are processors."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Queue
from typing import TypeVar

from shifter_lite.errors import ShifterError
from tests.conftest import Runner
from tests.helpers import forking
from tests.helpers.forking import Programs

_AT_ONCE = len(os.sched_getaffinity(0))

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Place:
    """A directory with one store, and the catalog of a worker of its owner's."""

    runner: Runner
    programs: Programs

    @property
    def root(self) -> Path:
        """The directory, in which there is nothing else."""
        return self.runner.store.parent

    @property
    def store(self) -> Path:
        """The store."""
        return self.runner.store

    @property
    def state(self) -> Path:
        """The directory of the catalog."""
        return self.root / "state"

    def clear(self, template: Path | None = None) -> None:
        """Empty it; or make the store a copy of TEMPLATE, of which no catalog knows."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        os.chown(self.root, self.runner.user.uid, self.runner.user.gid)
        if template:
            subprocess.run(["cp", "-a", template, self.store], check=True)

    def succeed(self, *command: str) -> None:
        """Run COMMAND, one of our programs, which must succeed."""
        done = self.programs(self.runner.environment, self.runner.home, *command)
        assert done.returncode == 0, done.stderr


def place(runner: Runner, root: Path, programs: Programs) -> Place:
    """Return a place at ROOT for the user of RUNNER."""
    extra = {**runner.extra, "XDG_STATE_HOME": str(root / "state")}
    return Place(replace(runner, store=root / "store", extra=extra), programs)


@contextmanager
def places(runner: Runner, workdir: Path) -> Iterator[Queue[Place]]:
    """Yield places in WORKDIR for the user of RUNNER, all of them free."""
    free: Queue[Place] = Queue()
    with ExitStack() as stack:
        for number in range(_AT_ONCE):
            programs = stack.enter_context(forking.programs(runner.user))
            free.put(place(runner, workdir / f"place{number}", programs))
        yield free


def tried(free: Queue[Place], points: Sequence[T], one: Callable[[Place, T], R]) -> list[R]:
    """Try ONE with each of POINTS in a FREE place; return what it returned if all went well."""
    failed: list[str] = []

    def safely(point: T) -> list[R]:
        place = free.get()
        try:
            return [one(place, point)]
        except (AssertionError, OSError, ShifterError, ValueError) as error:
            failed.append(f"{point}: {error!r}"[:500])
            return []
        finally:
            free.put(place)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        ended = [each for found in pool.map(safely, points) for each in found]
    assert not failed, "\n".join([f"{len(failed)} of {len(points)} went wrong:", *failed[:50]])
    return ended
