"""Builds on the worker's own node, each in a child process that can hurt only itself.

The worker starts a child as soon as it has claimed a request, and never waits for one: the child
asks the registry, says what the image is (``Asked``), and goes on only when it is told to.  So an
image that is there already is answered while others are built, and a registry that does not
answer holds up nobody else's request.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from select import select
from typing import Protocol, Self

from shifter_lite import steps
from shifter_lite.errors import Damaged
from shifter_lite.executor import builder, messages
from shifter_lite.executor.forks import Forks
from shifter_lite.executor.messages import Failed, Said
from shifter_lite.executor.pace import Pace
from shifter_lite.request import Request, Status
from shifter_lite.steps import Bench

_PIECE_BYTES = 1 << 16
_MOST_BUILDS = 8
# Where many users share the processors: of the further builds of a user, and of long ones.
_FURTHER_NICENESS = _LATER_NICENESS = 10


class HasFileno(Protocol):
    """What select(2) can wait for."""

    def fileno(self) -> int:
        """Return its number."""


@dataclass(frozen=True, slots=True)
class Died:
    """A child has ended, and not said why; ``reason`` is what is known."""

    reason: str


class Build:
    """One child, from the worker's point of view."""

    def __init__(self, request: Request, number: int, channel: socket.socket, pace: Pace) -> None:
        """Have the child NUMBER build for REQUEST; it talks through CHANNEL."""
        self.request, self.number = request, number
        self.channel, self.pace = channel, pace
        self.going = False
        self._unread = bytearray()
        self._searched = 0

    def next_line(self) -> bytes | None:
        """Return what the child has said next, if anything; raises EOFError if it has ended."""
        while (end := self._unread.find(b"\n", self._searched)) < 0:
            self._searched = len(self._unread)
            if self._searched > messages.MAX_LINE_BYTES:
                raise EOFError
            try:
                data = self.channel.recv(_PIECE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError
            self._unread += data
        line = bytes(self._unread[:end])
        del self._unread[: end + 1]
        self._searched = 0
        return line


class Builds:
    """All children of one worker."""

    def __init__(self, bench: Bench, *, shared: bool) -> None:
        """Have builds as BENCH says; SHARED is whether the store's users are several."""
        self._bench, self._shared = bench, shared
        self._most = bench.site.executor.builds or usual_builds()
        self._forks = Forks(partial(builder.run, bench))
        self._builds: list[Build] = []
        self._ending: list[Build] = []

    def __enter__(self) -> Self:
        """Fork what forks: before the worker has threads, and locks."""
        self._forks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Kill all builds, and remove what they leave."""
        self._forks.__exit__(*error)
        for build in (*self._builds, *self._ending):
            self._close(build)
        self._builds.clear()
        self._ending.clear()

    @property
    def at_once(self) -> int:
        """How many build at a time."""
        return self._most

    def __len__(self) -> int:
        """How many there are: those that build, and those that ask, or wait to build."""
        return len(self._builds)

    def may_go(self) -> bool:
        """Return whether one more may build."""
        return sum(build.going for build in self._builds) < self._most

    def start(self, request: Request) -> Build:
        """Start to ask what the image of REQUEST is."""
        number, channel = self._forks.start()
        pace = Pace(
            time.monotonic(), self._bench.site.limits.build_seconds, remote=not request.path
        )
        build = Build(request, number, channel, pace)
        self._builds.append(build)
        # A child that is dead already is noticed when it is listened to.
        with suppress(BrokenPipeError, ConnectionResetError):
            channel.sendall(builder.order(request, self.mark(build)))
        return build

    def go(self, build: Build) -> None:
        """Let BUILD, which has said what the image is, go on."""
        uid = build.request.uid
        further = any(each.going and each.request.uid == uid for each in self._builds)
        now = _FURTHER_NICENESS if self._shared and further else 0
        later = _LATER_NICENESS if self._shared else 0
        build.going = True
        build.pace.go(time.monotonic())
        with suppress(BrokenPipeError, ConnectionResetError):
            build.channel.sendall(builder.go(now, later))

    def listen(self, build: Build) -> Said | Died | None:
        """Return what BUILD says next, or that it has died; None if it says nothing yet."""
        try:
            line = build.next_line()
        except EOFError:
            return self._death(build)
        if line is None:
            fault = build.pace.fault(time.monotonic())
            return None if fault is None else Failed(fault)
        try:
            said = messages.decode(line)
        except Damaged as error:
            return Failed(error)
        if isinstance(said, Status):
            build.pace.note(said)
        return said

    def end(self, build: Build) -> None:
        """Have BUILD no more: kill it, unless it has ended."""
        if build in self._builds:
            self._builds.remove(build)
            self._ending.append(build)
            self._forks.kill(build.number)

    def tidy(self) -> None:
        """Remove what builds leave that were killed, and have ended."""
        self._forks.hear()
        for build in list(self._ending):
            if self._forks.ended(build.number) is not None:
                self._ending.remove(build)
                self._close(build)

    def wait(self, seconds: float, *others: HasFileno) -> None:
        """Wait until a build says something, or OTHERS can be read, but not more than SECONDS."""
        files: list[HasFileno] = [self._forks, *(build.channel for build in self._builds), *others]
        select(files, [], [], seconds)

    def _death(self, build: Build) -> Died | None:
        """Return how BUILD ended, which says no more, as soon as that is known."""
        code = self._forks.ended(build.number)
        if code is None:
            return None
        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Died(f"the process that built it ended by {reason}")

    def _close(self, build: Build) -> None:
        build.channel.close()
        self._forks.forget(build.number)
        if build.going:
            with suppress(OSError):
                steps.clear(self._bench.layout, self.mark(build))

    def mark(self, build: Build) -> str:
        """Return what ends the names of BUILD's own files; no other build ever has it."""
        # It ends as the worker's own, so that it is known whose files these are.
        return f"{build.number}.{self._bench.worker.name}"


def usual_builds() -> int:
    """Return how many builds a worker has at a time, if the site does not say."""
    return min(max(2, len(os.sched_getaffinity(0))), _MOST_BUILDS)
