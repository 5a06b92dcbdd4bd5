"""Many requests at once, for workers that are killed all the time: what comes of them, in figures.

    plan = Plan(requests=400, users=10, images=10, workers=3, kill_seconds=0.5)
    result = rage(plan, ends, hosts, names, logs)

Requests are written by the contract in spool/README.md, each owned by its user, and then all of
them are submitted while the workers wait.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import cycle
from multiprocessing import get_context
from operator import attrgetter
from pathlib import Path
from statistics import mean
from typing import Self

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from tests.conftest import Runner
from tests.helpers import images, spool
from tests.helpers.crew import Crew, crewed
from tests.helpers.ends import Ends

# Of users that no passwd file knows.
_FIRST_UID = 70000
_WRITERS = 4
_LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many of what; every ``kill_seconds`` a worker is killed, and another one started.

    The first user asks for a share ``greed`` of all, the others for the rest in equal parts.
    """

    requests: int = 10_000
    users: int = 50
    images: int = 100
    workers: int = 4
    kill_seconds: float = 1.0
    greed: float = 0.0
    patience: float = 900.0

    def askers(self) -> list[int]:
        """Return whose each request is, in the order in which they are made."""
        greedy = round(self.greed * self.requests)
        others = range(1 if greedy else 0, self.users)
        rest = cycle(others) if others else cycle([0])
        return [0] * greedy + [next(rest) for _ in range(self.requests - greedy)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a storm left: figures, and what should not be.

    ``places`` are, of each user, the places of his answers among all, in their order.
    ``builds`` says of each image how often it was built to its end, and ``begun`` how many builds
    there were of all.
    """

    seconds: float
    killed: int
    states: Mapping[str, int]
    not_once: Sequence[str]
    places: Mapping[int, Sequence[int]]
    builds: Mapping[str, int]
    begun: int
    generations: int
    left: Sequence[str]


def pushed(registry: str, number: int) -> list[str]:
    """Put so many small images into REGISTRY; return their names."""
    for each in range(number):
        layer = images.layer([images.file("number", b"%d" % each)])
        images.push(registry, "storm", str(each), images.image([layer]))
    return [f"{registry}/storm:{each}" for each in range(number)]


def prepare(plan: Plan, store: Path, names: Sequence[str]) -> list[str]:
    """Write the requests of PLAN for images called NAMES, not yet submitted; return their names."""
    identity = spool.identity_of(store)
    chance = random.Random(1)
    asked = [
        (_FIRST_UID + user if os.getuid() == 0 else os.getuid(), chance.choice(names))
        for user in plan.askers()
    ]
    parts = [asked[number::_WRITERS] for number in range(_WRITERS)]
    with ProcessPoolExecutor(_WRITERS, mp_context=get_context("fork")) as pool:
        found = [pool.submit(_write, store, identity, part) for part in parts]
        return [name for each in found for name in each.result()]


def _write(store: Path, identity: str, asked: Sequence[tuple[int, str]]) -> list[str]:
    return [spool.write(store, identity, uid, image) for uid, image in asked]


def submit(store: Path, requests: Sequence[str]) -> None:
    """Submit the written REQUESTS, as fast as it goes."""
    for name in requests:
        spool.submit(store, name)


def rage(
    plan: Plan, ends: Ends, hosts: Sequence[Runner], names: Sequence[str], logs: Path
) -> Result:
    """Let the storm of PLAN, for images called NAMES, come over workers on HOSTS."""
    store = hosts[0].store
    requests = prepare(plan, store, names)
    with crewed(hosts, logs, plan.workers) as crew, builds_seen(ends) as begun:
        _until_working(store, plan.workers)
        started = time.monotonic()
        submit(store, requests)
        _kill_until_answered(plan, ends, crew, started)
        seconds = time.monotonic() - started
        crew.stop()
    # Another worker, as each host has one sooner or later, tidies up behind its dead.
    for host in hosts:
        done = host("shifter-worker", "drain")
        assert done.returncode == 0, done.stderr
    answers = [_Answer.read(store, name) for name in requests]
    return Result(
        seconds=seconds,
        killed=crew.killed,
        states=Counter(answer.state for answer in answers),
        not_once=[answer.name for answer in answers if answer.ends != 1],
        places=_places(answers),
        builds=builds(hosts),
        begun=len(begun),
        generations=max(int(path.name.split(".")[1]) for path in (store / "index").glob("*.cdb")),
        left=left_over(store),
    )


def _until_working(store: Path, number: int) -> None:
    while len(list((store / "locks").glob("worker.*.lock"))) < number:
        time.sleep(0.02)


def _kill_until_answered(plan: Plan, ends: Ends, crew: Crew, started: float) -> None:
    next_kill = started + plan.kill_seconds
    while not _all_answered(ends, plan.requests):
        now = time.monotonic()
        if now - started > plan.patience:
            raise TimeoutError(f"after {plan.patience:.0f} s there are unanswered requests")
        if now > next_kill:
            next_kill += plan.kill_seconds
            crew.kill_one()
        time.sleep(_LOOK_SECONDS)


def _all_answered(ends: Ends, number: int) -> bool:
    """Look whether all is answered, where the files really lie: clients have enough to do."""
    if _lying(ends, "new") or _lying(ends, "work"):
        return False
    # What moves between the two meanwhile is in neither.
    return len(_lying(ends, "done") | _lying(ends, "failed")) == number


def _lying(ends: Ends, place: str) -> set[str]:
    return {name for disk in ends.disks for name in spool.lying(disk, place)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What became of the request NAME, when, and how often it ended."""

    name: str
    state: str
    time: int
    ends: int

    @classmethod
    def read(cls, store: Path, name: str) -> Self:
        """Read it from the statuses that are left."""
        paths = sorted((store / "status" / name).glob("*.json"))
        states = [json.loads(path.read_bytes())["state"] for path in paths]
        ends = [state for state in states if state in ("READY", "FAILURE", "CANCELLED")]
        when = paths[-1].stat().st_mtime_ns if paths else 0
        return cls(name=name, state=states[-1] if states else "", time=when, ends=len(ends))


def _places(answers: Sequence[_Answer]) -> dict[int, list[int]]:
    found: defaultdict[int, list[int]] = defaultdict(list)
    for place, answer in enumerate(sorted(answers, key=attrgetter("time"))):
        found[int(answer.name.split("-")[1])].append(place)
    return dict(found)


def jain(places: Mapping[int, Sequence[int]]) -> float:
    """Return how evenly the first half of all answers went to users, 1 at best (Jain's index)."""
    half = sum(map(len, places.values())) // 2
    shares = [sum(place < half for place in own) for own in places.values()]
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


def distances(places: Mapping[int, Sequence[int]]) -> tuple[float, int]:
    """Return how far answers are from where a round robin would place them: mean and largest."""
    ideal = _round_robin({user: len(own) for user, own in places.items()})
    found = [
        abs(place - wanted)
        for user, own in places.items()
        for place, wanted in zip(own, ideal[user], strict=True)
    ]
    return mean(found), max(found)


def _round_robin(numbers: Mapping[int, int]) -> dict[int, list[int]]:
    """Return the places of each user's answers, if all users who still wait take turns."""
    ideal: dict[int, list[int]] = {user: [] for user in numbers}
    place = 0
    for turn in range(max(numbers.values())):
        for user in (user for user, number in numbers.items() if turn < number):
            ideal[user].append(place)
            place += 1
    return ideal


@contextmanager
def builds_seen(ends: Ends) -> Iterator[list[str]]:
    """Yield a list that grows by a path whenever a build begins in the store at ENDS."""
    begun: list[str] = []

    class Seen(FileSystemEventHandler):
        def on_created(self, event: FileSystemEvent) -> None:
            if "/.building." in str(event.src_path):
                begun.append(str(event.src_path))

    observer = Observer()
    for disk in ends.disks:
        observer.schedule(Seen(), str(disk / "images"))
    observer.start()
    try:
        yield begun
    finally:
        observer.stop()
        observer.join()


def builds(hosts: Sequence[Runner]) -> dict[str, int]:
    """Return how often each image was built, as the catalogs of HOSTS have it."""
    found: Counter[str] = Counter()
    for home in {host.home for host in hosts}:
        for path in (home / ".local/state/shifter-lite").glob("*.sqlite"):
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as catalog:
                rows = catalog.execute("select name, sum(built) from pulls group by name")
                found.update({name: int(number) for name, number in rows})
    return dict(found)


def left_over(store: Path) -> list[str]:
    """Return what should not be in STORE any more, when all is answered and nobody works."""
    places = ("spool/tmp", "spool/new", "spool/work", "workers", "builds")
    found = [str(path) for place in places for path in (store / place).glob("*")]
    # What is beside a status goes with it: its owner removes it, or time.
    hidden = (path for path in store.rglob(".*") if "status" not in path.parts)
    found += [str(path) for path in hidden]
    return found + [str(path) for path in (store / "locks").glob("worker.*")]


def figures(plan: Plan, result: Result) -> list[str]:
    """Return what is worth saying of RESULT of PLAN, in lines."""
    average, largest = distances(result.places)
    built = Counter(result.builds.values())
    return [
        f"{plan.requests} requests of {plan.users} users for {plan.images} images, "
        f"{plan.workers} workers, {result.killed} killed",
        f"answered in {result.seconds:.1f} s, {plan.requests / result.seconds:.0f} a second: "
        + ", ".join(f"{number} {state or 'none'}" for state, number in result.states.items()),
        f"not answered once: {len(result.not_once)}",
        f"builds begun: {result.begun}; catalogs know of "
        + ", ".join(f"{number} images built {times} times" for times, number in built.items()),
        f"from a round robin: {average:.0f} places on average, {largest} at most; "
        f"Jain's index of the first half: {jain(result.places):.4f}",
        f"generations of the index: {result.generations}",
        f"left over: {len(result.left)}",
        *result.left[:5],
    ]


def is_right(plan: Plan, result: Result) -> bool:
    """Return whether RESULT of PLAN is as it should be."""
    states = result.states == {"READY": plan.requests}
    once = not result.not_once and max(result.builds.values()) == 1
    return states and once and not result.left
