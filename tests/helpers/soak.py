"""Answers of all kinds from one worker, and what it holds meanwhile.

    for sample in soak(site, registry, answers=10_000):
        print(sample)

Requests are written by the contract in spool/README.md, a few at a time.  What the worker holds
is looked at when nothing is asked for.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

from tests.conftest import Runner
from tests.helpers import images, spool
from tests.helpers.processes import running, until

# Of users that no passwd file knows.
_FIRST_UID, _USERS = 70000, 5
_IMAGES = 20
_AT_ONCE = 6
_LOOK_SECONDS = 0.02
_PATIENCE_SECONDS = 300.0
# RSS may grow by so much, for what the allocator keeps.
_SPARE_KB = 4096
# Of so many answers, how many are of which kind.
_OF = 200
_SHARES = {"new": 8, "failed": 40, "rejected": 20, "cancelled": 1}
_ENDS = {
    "ready": ("READY", 0),
    "new": ("READY", 0),
    "failed": ("FAILURE", 66),
    "rejected": ("FAILURE", 65),
    "cancelled": ("CANCELLED", 0),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """What a worker holds after so many ``answers``."""

    answers: int
    seconds: float
    descriptors: int
    threads: int
    rss_kb: int

    def __str__(self) -> str:
        return (
            f"{self.answers:6d} answers  {self.seconds:6.0f} s  {self.descriptors:4d} descriptors"
            f"  {self.threads:4d} threads  {self.rss_kb / 1024:7.1f} MB"
        )


@dataclass(slots=True)
class _Asked:
    kind: str
    began: float = field(default_factory=time.monotonic)


def soak(
    site: Runner, registry: str, answers: int, every: int, kinds: Counter[str] | None = None
) -> Iterator[Sample]:
    """Yield what a worker of SITE holds EVERY so many ANSWERS; count them by their KINDS.

    Images are pushed to REGISTRY.  An answer that is not right is an AssertionError.
    """
    for number in range(_IMAGES):
        images.push(registry, "soak", str(number), _image(number))
    began = time.monotonic()
    with _silent() as silent, running(site, "shifter-worker", "run") as worker:
        # What it says would fill the pipe.
        assert worker.stderr is not None
        os.set_blocking(worker.stderr.fileno(), False)
        asking = _Asking(site.store, registry, silent, partial(_drop, worker.stderr.fileno()))
        for done in range(0, answers, every):
            asking.answer(done, min(every, answers - done))
            held = _held(worker.pid)
            yield Sample(done + every, time.monotonic() - began, *held)
            assert worker.poll() is None
        if kinds is not None:
            kinds.update(asking.kinds)


class _Asking:
    """Asks, and sees that answers are right."""

    def __init__(self, store: Path, registry: str, silent: str, tick: Callable[[], None]) -> None:
        self._store, self._registry, self._silent, self._tick = store, registry, silent, tick
        self._identity = spool.identity_of(store)
        self._open: dict[str, _Asked] = {}
        self.kinds: Counter[str] = Counter()

    def answer(self, first: int, number: int) -> None:
        """Have NUMBER requests answered, of which the FIRST is one of all."""
        for each in range(first, first + number):
            while len(self._open) >= _AT_ONCE:
                self._look()
            self._ask(each)
        while self._open:
            self._look()

    def _ask(self, number: int) -> None:
        kind = _kind(number)
        name = self._write(number, self._image(number, kind))
        if kind == "rejected":
            (self._store / "spool/tmp" / name).write_text("{")
        spool.submit(self._store, name)
        self._open[name] = _Asked(kind)

    def _image(self, number: int, kind: str) -> str:
        if kind == "cancelled":
            return f"{self._silent}/silent:{number}"
        if kind == "failed":
            return f"{self._registry}/soak:none{number}"
        if kind == "new":
            images.push(self._registry, "soak", f"new{number}", _image(number))
            return f"{self._registry}/soak:new{number}"
        return f"{self._registry}/soak:{number % _IMAGES}"

    def _write(self, number: int, image: str) -> str:
        uid = _FIRST_UID + number % _USERS if os.getuid() == 0 else os.getuid()
        return spool.write(self._store, self._identity, uid, image)

    def _look(self) -> None:
        self._tick()
        time.sleep(_LOOK_SECONDS)
        for name, asked in list(self._open.items()):
            found = spool.statuses(self._store, name)
            newest = found[-1] if found else {"state": "PENDING"}
            if newest["state"] == "PULLING" and asked.kind == "cancelled":
                (self._store / "status" / name / "cancel").touch()
            if newest["state"] in ("READY", "FAILURE", "CANCELLED"):
                assert (newest["state"], newest["exit_code"]) == _ENDS[asked.kind], newest
                # The worker may be removing its own yet.
                until(partial(_removed, self._store / "status" / name))
                self.kinds[asked.kind] += 1
                del self._open[name]
            assert time.monotonic() - asked.began < _PATIENCE_SECONDS, (name, asked, newest)


def _removed(path: Path) -> bool:
    shutil.rmtree(path, ignore_errors=True)
    return not path.exists()


def _kind(number: int) -> str:
    # A stride that has no factor in common with the whole visits all of it, mixed.
    place = number * 77 % _OF
    for kind, share in _SHARES.items():
        if place < share:
            return kind
        place -= share
    return "ready"


def _image(number: int) -> images.Image:
    return images.image([images.layer([images.file("number", b"%d" % number * 500)])])


@contextmanager
def _silent() -> Iterator[str]:
    """Yield the address of a registry that never says anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as server:
        yield f"localhost:{server.getsockname()[1]}"


def _drop(descriptor: int) -> None:
    with suppress(BlockingIOError):
        os.read(descriptor, 1 << 20)


def _held(pid: int) -> tuple[int, int, int]:
    """Return how many descriptors and threads PID has, and its RSS in KB, once it is at rest."""
    held = [_look(pid)]

    def rests() -> bool:
        time.sleep(0.3)
        held.append(_look(pid))
        return held[-1][:2] == held[-2][:2]

    until(rests)
    return held[-1]


def _look(pid: int) -> tuple[int, int, int]:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    return descriptors, int(status["Threads"]), int(status["VmRSS"].split()[0])


def growth(samples: Sequence[Sample]) -> list[str]:
    """Return what has grown over SAMPLES, but for their first fifth, in which all is first used."""
    warm = samples[len(samples) // 5 :]
    third = max(1, len(warm) // 3)
    early, late = warm[:third], warm[-third:]
    grown = []
    for what in ("descriptors", "threads", "rss_kb"):
        before = median(getattr(each, what) for each in early)
        after = median(getattr(each, what) for each in late)
        if after > before + (_SPARE_KB if what == "rss_kb" else 0):
            grown.append(f"{what}: {before:.0f} -> {after:.0f}")
    return grown
