"""Whoever is killed, and before whichever system call: the next one goes on, and nothing is lost.

Programs are killed as they are installed, with all their threads, by helpers/killer.c.  Of the
system calls of a pull all are tried that change something in the store or are heard by others,
and a sample of those that do not.  ``scripts/kill`` tries every one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from shifter_lite.errors import ShifterError
from shifter_lite.layout import TREE
from tests.conftest import Runner
from tests.helpers import images, spool, whole
from tests.helpers.killing import Call, Killer
from tests.helpers.places import Place, places, tried

EVERY = os.environ.get("SHIFTER_KILL") == "every"
# How many calls are tried that change nothing, and how many of SQLite's; unless every one is.
SAMPLE, OF_SQLITE = 60, 30
LONG = 36000 if EVERY else 1200


@pytest.fixture(scope="session")
def image(registry: str) -> str:
    """The name of a small image of three layers, the last of which deletes."""
    layers = [images.layer([images.file(f"f{n}", os.urandom(5000))]) for n in range(2)]
    last = images.layer([images.whiteout("f0"), images.file("etc/passwd", b"root:x:0:0::/:\n")])
    images.push(registry, "kill", "1", images.image([*layers, last]))
    return f"{registry}/kill:1"


@dataclass(frozen=True, slots=True)
class Point:
    """Where to kill: before so many calls, of all or of those that change something."""

    number: int
    changes_only: bool = False


@dataclass(slots=True)
class Trial:
    """DYING is killed in copies of the store TEMPLATE; then ``check`` goes on, and looks."""

    dying: Callable[[Place], Killer]
    check: Callable[[Place], object]
    template: Path | None
    ids: set[str] = field(default_factory=set)

    def one(self, place: Place, point: Point) -> Call | None:
        """Kill at POINT, let another go on, and check all; return the call that did not happen."""
        place.clear(self.template)
        call = self.dying(place).kill_before(point.number, changes_only=point.changes_only)
        try:
            # What others saw before the next one came was whole as well.
            self.ids |= set(whole.names(place.store).values())
            self.settle(place)
        except (AssertionError, OSError, ShifterError, ValueError) as error:
            raise AssertionError(f"killed before {call}: {error!r}") from error
        return call

    def settle(self, place: Place) -> None:
        """Let another go on in PLACE, and check that all is as if nobody had been killed."""
        found = self.check(place)
        self.ids |= {*whole.names(place.store).values(), *([str(found)] if found else [])}
        place.succeed("shifter-admin", "verify")
        assert len(self.ids) <= 1


def chosen(calls: list[Call]) -> list[Point]:
    """Return where to kill: at all of CALLS that are of the store, and at some of the others."""
    if EVERY:
        return [Point(call.number) for call in calls]
    changing = [call for call in calls if call.changes]
    ours = [number for number, call in enumerate(changing, 1) if ".sqlite" not in call.about]
    sqlite = [number for number, call in enumerate(changing, 1) if ".sqlite" in call.about]
    others = [call.number for call in calls if not call.changes]
    return [
        *(Point(number, changes_only=True) for number in [*ours, *_spread(sqlite, OF_SQLITE)]),
        *(Point(number) for number in _spread(others, SAMPLE)),
    ]


def _spread(numbers: list[int], count: int) -> list[int]:
    return numbers[:: max(1, len(numbers) // count)]


@pytest.mark.timeout(LONG)
def test_a_worker_killed_before_any_call_of_a_pull_loses_nothing(
    site: Runner, asker: Runner, workdir: Path, killer_program: Path, image: str
) -> None:
    (request,) = spool.ask(site.store, asker.user, [image]).values()

    def dying(place: Place) -> Killer:
        return Killer(killer_program, place.runner, ["shifter-worker", "drain"])

    def check(place: Place) -> str:
        place.succeed("shifter-worker", "drain")
        answer = whole.answered(place.store, request)
        assert whole.names(place.store)[image] == answer
        assert whole.catalogued(place.store, place.state)[image] == answer
        return answer

    trial = Trial(dying, check, site.store)
    with places(site, workdir) as free:
        place = free.get()
        place.clear(site.store)
        calls = dying(place).calls()
        trial.settle(place)
        free.put(place)
        points = chosen(calls)
        killed = [call for call in tried(free, points, trial.one) if call]
    print(f"killed {len(killed)} times, of {len(calls)} calls")  # noqa: T201
    assert sum(point.changes_only for point in points) >= 100 or EVERY
    # Threads take turns as they like: some runs have a few calls less.
    assert len(killed) >= max(200, len(points) * 0.95)


def is_submission(call: Call) -> bool:
    """Return whether CALL makes a request one that is accepted."""
    return call.name == "rename" and "/spool/tmp/" in call.about


@pytest.mark.timeout(LONG)
def test_a_client_killed_before_any_call_has_asked_or_has_not(
    site: Runner, asker: Runner, workdir: Path, killer_program: Path, image: str
) -> None:
    asked, unasked = [], []

    def dying(place: Place) -> Killer:
        # What he noted of earlier requests makes other calls.
        state = workdir / f"{place.root.name}-asker"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir()
        os.chown(state, asker.user.uid, asker.user.gid)
        runner = replace(asker, store=place.store, extra={"XDG_STATE_HOME": str(state)})
        return Killer(killer_program, runner, ["shifterimg", "pull", image])

    def check(place: Place) -> str | None:
        submitted = os.listdir(place.store / "spool/new")
        place.succeed("shifter-worker", "drain")
        if submitted:
            asked.append(submitted)
            return whole.answered(place.store, *submitted)
        unasked.append(place)
        # What the dead one was writing is swept with time.
        left = whole.left_over(place.store)
        assert all(path.startswith("spool/tmp/") for path in left), left
        assert whole.files(place.store, "spool") == left
        return None

    trial = Trial(dying, check, site.store)
    with places(site, workdir) as free:
        place = free.get()
        place.clear(site.store)
        calls = dying(place).calls(at_most=400)
        free.put(place)
        (submitted,) = (call.number for call in calls if is_submission(call))
        # With what makes the request last, and the beginning of waiting.
        points = [Point(number + 1) for number in range(submitted + 15)]
        killed = [call for call in tried(free, points, trial.one) if call]
    assert len(killed) == len(points)
    assert len(asked) >= 10
    assert len(unasked) >= 15


@pytest.mark.timeout(LONG)
def test_a_pull_into_ones_own_store_killed_before_any_call_is_done_by_the_next(
    run: Runner, workdir: Path, killer_program: Path, image: str
) -> None:
    def dying(place: Place) -> Killer:
        return Killer(killer_program, place.runner, ["shifterimg", "pull", image])

    def check(place: Place) -> str:
        place.succeed("shifterimg", "pull", image)
        spools = whole.files(place.store, "spool")
        # What the dead one was writing is swept with time, and so are statuses that it left.
        left = whole.left_over(place.store)
        mine = ("spool/tmp/", "status/", ".store.")
        assert all(path.startswith(mine) for path in left), left
        assert all(path.startswith(("spool/tmp/", "spool/done/")) for path in spools), spools
        return whole.names(place.store)[image]

    trial = Trial(dying, check, None)
    with places(run, workdir) as free:
        place = free.get()
        place.clear()
        calls = dying(place).calls()
        trial.settle(place)
        free.put(place)
        made = [call for call in calls if call.changes]
        (submitted,) = (n for n, call in enumerate(made) if is_submission(call))
        # What comes then is done as a site's worker does it.
        points = [Point(number + 1, changes_only=True) for number in range(submitted + 20)]
        points = chosen(calls) if EVERY else points
        killed = [call for call in tried(free, points, trial.one) if call]
    print(f"killed {len(killed)} times, of {len(calls)} calls")  # noqa: T201
    assert len(killed) >= max(50, len(points) * 0.95)


@pytest.mark.timeout(LONG)
@pytest.mark.parametrize("how", [[], ["--private"]])
def test_a_store_whose_making_was_killed_before_any_call_is_made_right_by_the_next(
    run: Runner, workdir: Path, killer_program: Path, how: list[str]
) -> None:
    command = ["shifter-admin", "init", *how]

    def dying(place: Place) -> Killer:
        return Killer(killer_program, place.runner, command)

    def modes(place: Place) -> dict[str, int]:
        return {each.path: (place.store / each.path).stat().st_mode & 0o7777 for each in TREE}

    with places(run, workdir) as free:
        place = free.get()
        place.clear()
        calls = dying(place).calls()
        right = modes(place)
        free.put(place)

        def check(place: Place) -> None:
            place.succeed(*command)
            assert modes(place) == right
            assert {name.rpartition("/")[0] for name in whole.files(place.store)} == {""}

        trial = Trial(dying, check, None)
        others = [each.number for each in calls if not each.changes]
        numbers = [each.number for each in calls if each.changes]
        # A private one differs in modes only.
        numbers += others if EVERY else _spread(others, SAMPLE) if not how else []
        points = [Point(number) for number in sorted(numbers)]
        killed = tried(free, points, trial.one)
    assert right["spool/new"] == (0o700 if how else 0o3733)
    # How many calls there are differs a little from time to time.
    assert sum(map(bool, killed)) >= len(points) * 0.95
