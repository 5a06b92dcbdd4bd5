"""Programs that run beside a test."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.conftest import Runner, installed

_PATIENCE = 60.0


def until(condition: Callable[[], bool], patience: float = _PATIENCE) -> None:
    """Wait until CONDITION holds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.02)


@contextmanager
def running(runner: Runner, *command: str) -> Iterator[subprocess.Popen[str]]:
    """Run COMMAND, and end it."""
    program, *arguments = command
    process = subprocess.Popen(
        [*runner.user.prefix, installed(program), *arguments],
        env=runner.environment,
        cwd=runner.home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
