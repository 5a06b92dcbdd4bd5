"""Run a program, and kill it before its N-th system call, with helpers/killer.c."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import Runner, installed

_PATIENCE = 120.0
KILLED = 128 + 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One system call, in the order of all threads; ``about`` is the file or path it is for."""

    number: int
    changes: bool
    name: str
    about: str

    def __str__(self) -> str:
        return f"{self.number}: {self.name} {self.about}"


@dataclass(frozen=True, slots=True)
class Killer:
    """Runs one COMMAND, one of our programs; counts once it has looked whether there is a store."""

    program: Path
    runner: Runner
    command: Sequence[str | Path]

    def calls(self, *, changes_only: bool = False, at_most: int = 0) -> list[Call]:
        """Let it run to its end, or to its call AT_MOST; return the calls that were counted."""
        status, calls = self._run(changes_only, at_most)
        assert status == (KILLED if at_most else 0), calls[-1:]
        return calls

    def kill_before(self, number: int, *, changes_only: bool = False) -> Call | None:
        """Kill it before call NUMBER; return which that was, or None if it ended before."""
        status, calls = self._run(changes_only, number)
        if status != KILLED:
            assert status == 0, f"ended with {status} after {len(calls)} calls"
            return None
        return calls[-1]

    def _run(self, changes_only: bool, number: int) -> tuple[int, list[Call]]:
        runner, log = self.runner, self.runner.store.with_name("calls")
        name, *arguments = self.command
        how: list[str | Path] = ["-f", runner.store / "store.json", "-l", log, "-n", str(number)]
        what: list[str | Path] = [*runner.user.prefix, installed(str(name)), *arguments]
        done = subprocess.run(
            [self.program, *how, *(["-c"] if changes_only else []), *what],
            env=runner.environment,
            cwd=runner.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            # As careful sites have it: then a mode is not right by chance.
            umask=0o077,
            check=False,
        )
        assert done.returncode in (0, KILLED), f"{done.returncode}: {done.stderr}"
        return done.returncode, [_call(line) for line in _lines(log)]


def _lines(log: Path) -> list[str]:
    return log.read_text(errors="surrogateescape").splitlines()


def _call(line: str) -> Call:
    number, changes, name, about = line.split("\t", 3)
    return Call(number=int(number), changes=changes == "c", name=name, about=about)
