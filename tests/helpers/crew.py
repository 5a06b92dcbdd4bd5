"""Workers that are killed and replaced."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

from tests.conftest import Runner, installed


class Crew:
    """Workers, some on each of the hosts, each with its log in a file of its own."""

    def __init__(self, hosts: Sequence[Runner], logs: Path) -> None:
        self._hosts, self._logs = cycle(hosts), logs
        self._living: list[subprocess.Popen[bytes]] = []
        self._started = 0
        self.killed = 0

    def start(self) -> None:
        """Start another worker, on the next host."""
        host = next(self._hosts)
        self._started += 1
        with (self._logs / f"{self._started:04d}.log").open("wb") as log:
            process = subprocess.Popen(
                [*host.user.prefix, installed("shifter-worker"), "run"],
                env=host.environment,
                cwd=host.home,
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        self._living.append(process)

    def kill_one(self) -> None:
        """Kill the oldest worker, and start another."""
        victim = self._living.pop(0)
        victim.kill()
        victim.wait()
        self.killed += 1
        self.start()

    def stop(self) -> None:
        """Tell all to stop, and see that they do."""
        for process in self._living:
            process.send_signal(signal.SIGTERM)
        for process in self._living:
            process.wait(60)
        self._living.clear()

    def end(self) -> None:
        """Kill all that are left."""
        for process in self._living:
            process.kill()
            process.wait()


@contextmanager
def crewed(hosts: Sequence[Runner], logs: Path, number: int) -> Iterator[Crew]:
    """Yield so many workers on HOSTS, whose logs are in LOGS."""
    made = Crew(hosts, logs)
    try:
        for _ in range(number):
            made.start()
        yield made
    finally:
        made.end()
