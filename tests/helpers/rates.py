"""How fast a worker claims, and whether a look at the spool takes longer the more was answered."""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import median

from shifter_lite import store as stores
from shifter_lite.layout import Layout
from shifter_lite.queue.batch import Batch
from shifter_lite.queue.worker import Worker
from shifter_lite.request import Status, day
from tests.helpers import spool

_LOOKS = 30
_WAITING = 100
_USERS = 50


def claims(place: Path, number: int, images: int) -> float:
    """Return how many requests one worker claims in a second, of NUMBER for so many IMAGES."""
    layout, identity = _waiting(place / "claims", number, images)
    seconds, claimed = 0.0, 0
    with Worker(layout, identity) as worker:
        while claimed < number:
            started = time.monotonic()
            worker.backlog.refresh()
            batch = worker.next()
            seconds += time.monotonic() - started
            assert isinstance(batch, Batch)
            claimed += len(batch.requests)
            batch.end(Status(state="READY"))
    return number / seconds


def looks(place: Path, answered: int) -> tuple[float, float]:
    """Return how many seconds a look takes with nothing answered, and with so many ANSWERED."""
    layout, identity = _waiting(place / "looks", _WAITING, _WAITING)
    before = _look(layout, identity)
    for number in range(answered):
        when = int(time.time()) - number * 7 * 86400 // answered
        directory = layout.done / day(when)
        directory.mkdir(exist_ok=True)
        os.close(os.open(directory / f"{when}-70000-{number:016x}", os.O_CREAT | os.O_WRONLY))
    return before, _look(layout, identity)


def _look(layout: Layout, identity: str) -> float:
    """Return how many seconds a worker needs to see all, to claim one, and to put it back."""
    found = []
    for _ in range(_LOOKS):
        with Worker(layout, identity) as worker:
            started = time.monotonic()
            worker.backlog.refresh(now=True)
            batch = worker.next()
            found.append(time.monotonic() - started)
            assert isinstance(batch, Batch)
            batch.hand_back()
    return median(found)


def _waiting(root: Path, number: int, images: int) -> tuple[Layout, str]:
    """Make a store at ROOT in which so many requests wait."""
    layout = Layout(root)
    identity = stores.create(layout, shared=True)
    for each in range(number):
        image = f"localhost:1/rate:{each % images}"
        spool.submit(root, spool.write(root, identity, 70000 + each % _USERS, image))
    return layout, identity


def figures(place: Path, answered: int) -> list[str]:
    """Return what is worth saying of rates in stores in the directory PLACE, in lines."""
    one, many = claims(place / "each", 5000, 5000), claims(place / "equal", 10_000, 100)
    before, after = looks(place, answered)
    return [
        f"one worker claims {one:.0f} a second, each another image; "
        f"{many:.0f} a second, 100 equal ones at a time",
        f"a look at {_WAITING} waiting requests, and a claim: {before * 1000:.1f} ms; "
        f"beside {answered} answered ones {after * 1000:.1f} ms",
    ]
