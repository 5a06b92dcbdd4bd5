"""Whatever workers and users do, in whatever order: a request is in one state, and answered once.

Hypothesis chooses who does what; the modules are the real ones, on a real directory.  What is not
real is the clock, and that a worker's heart beats when the test says so, or does not.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shifter_lite import request as requests
from shifter_lite import store as stores
from shifter_lite.index import publish, resolve
from shifter_lite.layout import TREE, Layout
from shifter_lite.queue import (
    attendant,
    backlog,
    claim,
    marks,
    presence,
    status,
    submit,
    sweep,
)
from shifter_lite.queue import (
    batch as batches,
)
from shifter_lite.queue import (
    worker as workers,
)
from shifter_lite.queue.batch import Batch
from shifter_lite.queue.marks import Elsewhere
from shifter_lite.queue.presence import Lost
from shifter_lite.queue.worker import Worker
from shifter_lite.records import Config, Entry
from shifter_lite.reference import Reference
from shifter_lite.request import ENDED, Request, Status

CONTRACT = (Path(__file__).parent.parent / "spool/README.md").read_text(encoding="utf-8")
PLACES = ("tmp", "new", "work", "done", "failed", "status")
DAY = 86400
# Others' uids only root can give.
UIDS = (0, 4001, 4002, 4003) if os.geteuid() == 0 else (os.geteuid(),)
_MOST_WORKERS = 4
_EXAMPLES = int(os.environ.get("SHIFTER_TEST_EXAMPLES", "60"))


def table(heading: str) -> list[list[str]]:
    """Return the rows of the table below HEADING of the contract, without its first two."""
    below = CONTRACT.partition(f"### {heading}")[2].partition("\n### ")[0]
    rows = [line.strip("|").split("|") for line in below.splitlines() if line.startswith("|")]
    return [[cell.strip().replace("**", "") for cell in row] for row in rows[2:]]


STATES = {row[0].split()[0]: row[1:7] for row in table("Every state, as a row of files")}
# A client's, before its request is accepted.
UNBORN = ("S1", "S2")


def test_the_contracts_states_are_the_directories_of_the_spool() -> None:
    header = CONTRACT.partition("| state |")[2].splitlines()[0]
    columns = [cell.strip() for cell in header.split("|")][:6]
    assert tuple(columns) == PLACES
    spool = {place.path.removeprefix("spool/") for place in TREE if place.path.startswith("spool/")}
    assert spool == set(PLACES) - {"status"}
    assert set("".join(cell for row in STATES.values() for cell in row)) == set("+-?")


def test_the_contracts_transitions_are_between_its_states_and_none_is_left_out() -> None:
    rows = table("Every transition, and its commit point")
    assert {state for row in rows for state in row[:2]} | {"S1"} == set(STATES)
    # Where the code says what its directories are.
    known = set(re.findall(r"^    (\w+)/", claim.__doc__ or "", re.MULTILINE))
    assert known == set(PLACES) - {"status"}


class Clock:
    """The time, as the modules of the queue are told it."""

    def __init__(self) -> None:
        self.passed = 0.0
        self._started = time.time()

    def time(self) -> float:
        return self._started + self.passed

    def monotonic(self) -> float:
        return self.passed


TOLD = (requests, attendant, backlog, batches, claim, presence, status, sweep, workers)


def told(module: ModuleType, clock: Clock) -> None:
    fake = SimpleNamespace(**vars(time))
    fake.time, fake.monotonic = clock.time, clock.monotonic
    module.time = fake  # type: ignore[attr-defined]


@dataclass(eq=False)
class Hand:
    """A worker: ``runs``, or hangs, or is dead; what it has, and whether it builds that."""

    worker: Worker
    runs: bool = True
    dead: bool = False
    batch: Batch | None = None
    # Its mark in builds/, while it builds.
    mark: ExitStack = field(default_factory=ExitStack)
    builds: str = ""

    def drop(self) -> None:
        """Stop to build, and have nothing any more."""
        self.mark.close()
        self.builds, self.batch = "", None


@dataclass
class Asked:
    """A request that was accepted, and the ends that its owner was told."""

    request: Request
    withdrawn: bool = False
    swept: bool = False
    ends: dict[int, str] = field(default_factory=dict)


class Queue(RuleBasedStateMachine):
    """Users, workers, and what lies in the spool."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="shifter-lite-queue-"))
        self.layout = Layout(self.place / "store")
        self.store = stores.create(self.layout, shared=True)
        self.clock = Clock()
        self.attend: Any = attendant.Attendant._attend
        attendant.Attendant._attend = lambda self: None  # type: ignore[method-assign]
        self.signal = signal.getsignal(signal.SIGUSR1)
        for module in TOLD:
            told(module, self.clock)
        self.hands: list[Hand] = []
        self.asked: dict[str, Asked] = {}
        self.published: dict[str, int] = {}
        self.count = 0
        # What nobody closes.
        self.graves: list[ExitStack] = []

    def teardown(self) -> None:
        for hand in self.hands:
            with suppress(Lost):
                hand.drop()
            if not hand.dead:
                hand.worker.presence._lock.release(force=True)
        for module in TOLD:
            module.time = time  # type: ignore[attr-defined]
        attendant.Attendant._attend = self.attend  # type: ignore[method-assign]
        signal.signal(signal.SIGUSR1, self.signal)
        shutil.rmtree(self.place)

    # ------------------------------------------------------------------------------ users

    names = Bundle("names")

    @initialize(target=names, uids=st.lists(st.sampled_from(UIDS), min_size=2, max_size=8))
    def begin(self, uids: list[int]) -> MultipleResults[str]:
        self.start()
        self.start()
        return multiple(*(self.ask(uid, number % 2) for number, uid in enumerate(uids)))

    @rule(target=names, uid=st.sampled_from(UIDS), image=st.integers(0, 1))
    def ask_for_more(self, uid: int, image: int) -> str:
        return self.ask(uid, image)

    def ask(self, uid: int, image: int) -> str:
        self.count += 1
        now = int(self.clock.time())
        # Users want images of their own, so that whose turn it was can be seen.
        request = Request(
            name=f"{now}-{uid}-{self.count:016x}",
            store=self.store,
            uid=uid,
            time=now,
            image=Reference.parse(f"localhost:5000/of/{uid}:{image}"),
            platform="linux/amd64",
        )
        submit.submit(self.layout, request)
        for place in (self.layout.submitted, self.layout.status):
            os.chown(place / request.name, uid, -1)
        self.asked[request.name] = Asked(request)
        return request.name

    @rule(name=names)
    def withdraw(self, name: str) -> None:
        waited = "S3" in self.states(name)
        assert submit.withdraw(self.layout, name) == waited
        self.asked[name].withdrawn |= waited

    @rule(name=names)
    def cancel(self, name: str) -> None:
        with suppress(FileNotFoundError):
            (self.layout.status / name / "cancel").touch()

    @rule(name=names)
    def replay(self, name: str) -> None:
        """Submit a request once more that was answered."""
        if "S5" in self.states(name) or "S6" in self.states(name):
            path = self.layout.submitted / name
            path.write_bytes(self.asked[name].request.to_bytes())
            path.chmod(0o640)
            os.chown(path, self.asked[name].request.uid, -1)
            self.clear_away_what_is_none()

    def clear_away_what_is_none(self) -> None:
        # Only a worker does; and until one does, two files have this name.
        self.start()
        hand = self.hands[-1]
        hand.worker.backlog.refresh(now=True)
        before = {name for name in self.asked if "S3" in self.states(name)}
        assert all(not isinstance(each, claim.Claim) for each in hand.worker.rejections())
        while (found := hand.worker.next()) is not None:
            if isinstance(found, Batch):
                found.hand_back()
        assert before <= {name for name in self.asked if "S3" in self.states(name)}
        self.end_worker(hand)

    # ---------------------------------------------------------------------------- workers

    def running(self) -> list[Hand]:
        return [hand for hand in self.hands if hand.runs]

    def idle(self) -> list[Hand]:
        return [hand for hand in self.running() if hand.batch is None]

    def busy(self) -> list[Hand]:
        return [hand for hand in self.running() if hand.batch is not None]

    def hung(self) -> list[Hand]:
        return [hand for hand in self.hands if not hand.runs and not hand.dead]

    @precondition(lambda self: len(self.hands) < _MOST_WORKERS)
    @rule()
    def start(self) -> None:
        worker = Worker(self.layout, self.store)
        worker.__enter__()
        self.hands.append(Hand(worker))

    @precondition(lambda self: self.idle())
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        self.claimed_by(data.draw(st.sampled_from(self.idle())))

    @precondition(lambda self: self.idle())
    @rule(data=st.data())
    def claim_and_build(self, data: st.DataObject) -> None:
        hand = data.draw(st.sampled_from(self.idle()))
        self.claimed_by(hand)
        self.built_by(hand)

    @precondition(lambda self: len(self.idle()) > 1)
    @rule()
    def claim_and_build_all(self) -> None:
        for hand in self.idle():
            self.claimed_by(hand)
            self.built_by(hand)

    def claimed_by(self, hand: Hand) -> None:
        worker = hand.worker
        worker.backlog.refresh(now=True)
        # What others have is known as it was half a second ago at most.
        worker._counted = float("-inf")
        waiting = [name for name in self.asked if "S3" in self.states(name)]
        running = Counter(
            each.batch.request.uid for each in self.hands if each.batch and self.has(each)
        )
        try:
            found = worker.next()
        except Lost:
            self.bury(hand)
            return
        if found is None:
            return
        assert isinstance(found, Batch)
        assert {request.name for request in found.requests} <= set(waiting)
        # Nobody waits while another gets a turn who has more under work.
        least = min(running[self.asked[name].request.uid] for name in waiting)
        assert running[found.request.uid] == least
        assert len({(each.image, each.platform) for each in found.requests}) == 1
        worker.take(found, lambda _: None)
        found.settle_ended()
        hand.batch = found

    def has(self, hand: Hand) -> bool:
        """Return whether what HAND has is still its own, as the spool says."""
        return any(name.endswith(hand.worker.name) for name in os.listdir(self.layout.claimed))

    @precondition(lambda self: any(not hand.builds for hand in self.busy()))
    @rule(data=st.data())
    def build(self, data: st.DataObject) -> None:
        self.built_by(data.draw(st.sampled_from([h for h in self.busy() if not h.builds])))

    def built_by(self, hand: Hand) -> None:
        if hand.batch is None:
            return
        key = str(hand.batch.request.image).encode().hex()
        worker = hand.worker
        with suppress(Elsewhere):
            hand.mark.enter_context(marks.building(self.layout, key, worker.name, worker.census))
            hand.builds = key

    @precondition(lambda self: self.busy())
    @rule(data=st.data(), done=st.integers(0, 9))
    def report(self, data: st.DataObject, done: int) -> None:
        hand = data.draw(st.sampled_from(self.busy()))
        assert hand.batch is not None
        hand.batch.report(Status(state="PULLING", done=done, total=9))

    @precondition(lambda self: any(hand.builds for hand in self.busy()))
    @rule(data=st.data(), good=st.booleans(), checks=st.booleans())
    def finish(self, data: st.DataObject, good: bool, checks: bool) -> None:
        """End a build; one whose heart has beaten just now need not ask once more."""
        hand = data.draw(st.sampled_from([hand for hand in self.busy() if hand.builds]))
        batch = hand.batch
        assert batch is not None
        names = [request.name for request in batch.requests]
        lost = not self.has_beat(hand)
        try:
            if good:
                self.publish(hand)
            if checks or lost:
                hand.worker.presence.renew()
            batch.end(Status(state="READY" if good else "FAILURE", exit_code=0 if good else 66))
        except Lost:
            assert lost
            self.bury(hand)
        else:
            assert not lost
            assert all(self.states(name) <= {"S5", "S6"} for name in names)
            self.let_go(hand)

    def publish(self, hand: Hand, renew: Any = None) -> None:
        assert hand.batch is not None
        key, now = str(hand.batch.request.image), int(self.clock.time())
        entry = Entry(id="ab" * 32, size=1, digest=f"sha256:{'cd' * 32}", time=now, config=Config())
        published = publish.publish(
            self.layout.index,
            {key: entry},
            store=self.store,
            mark=hand.worker.name,
            renew=renew or hand.worker.presence.renew,
        )
        self.published[key] = published.generation

    def let_go(self, hand: Hand) -> None:
        assert hand.batch is not None
        hand.worker.leave(hand.batch)
        hand.drop()

    @precondition(lambda self: self.busy())
    @rule(data=st.data())
    def hand_back(self, data: st.DataObject) -> None:
        hand = data.draw(st.sampled_from(self.busy()))
        assert hand.batch is not None
        hand.batch.hand_back()
        self.let_go(hand)

    @precondition(lambda self: self.busy())
    @rule(data=st.data())
    def look_for_cancelled(self, data: st.DataObject) -> None:
        hand = data.draw(st.sampled_from(self.busy()))
        assert hand.batch is not None
        hand.batch.go_round()
        if not hand.batch.wanted():
            self.let_go(hand)

    @precondition(lambda self: self.idle() and len(self.hands) > 2)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.end_worker(data.draw(st.sampled_from(self.idle())))

    def end_worker(self, hand: Hand) -> None:
        hand.worker.__exit__()
        hand.dead, hand.runs = True, False
        self.hands.remove(hand)

    # ------------------------------------------------------------------------- misfortunes

    @precondition(lambda self: len(self.running()) > 1)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        self.killed(data.draw(st.sampled_from(self.running())))

    @precondition(lambda self: self.busy() and len(self.running()) > 1)
    @rule(data=st.data(), good=st.booleans())
    def kill_before_the_answer_is_noted(self, data: st.DataObject, good: bool) -> None:
        hand = data.draw(st.sampled_from(self.busy()))
        assert hand.batch is not None
        for member in hand.batch._members if self.has_beat(hand) else ():
            member.reporter(Status(state="READY" if good else "FAILURE"))
        self.killed(hand)

    def killed(self, hand: Hand) -> None:
        # The kernel does this much.
        hand.worker.presence._lock.release(force=True)
        hand.runs, hand.dead = False, True
        # And that it had begun to build is for others to see.
        self.graves.append(hand.mark.pop_all())
        hand.builds, hand.batch = "", None

    @precondition(lambda self: len(self.running()) > 1)
    @rule(data=st.data())
    def hang(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.running())).runs = False

    @precondition(lambda self: self.hung())
    @rule(data=st.data())
    def wake(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.hung())).runs = True

    @precondition(lambda self: self.running())
    @rule(seconds=st.sampled_from((2, 8, 70)))
    def time_passes(self, seconds: int) -> None:
        for _ in range(0, seconds, 2):
            self.clock.passed += 2
            for hand in self.running():
                hand.worker.attendant._renew()
            for hand in self.running():
                hand.worker.census.look()

    @precondition(lambda self: len(self.hands) > len(self.running()) > 0)
    @rule(data=st.data(), seconds=st.sampled_from((0, 8, 70)))
    def recover(self, data: st.DataObject, seconds: int) -> None:
        self.time_passes(seconds)
        hand = data.draw(st.sampled_from(self.running()))
        if self.has_beat(hand):
            self.recovered_by(hand)

    def recovered_by(self, hand: Hand) -> None:
        fence = partial(publish.fence, self.layout.index, store=self.store, mark=hand.worker.name)
        hand.worker.recover(fence)
        hand.worker.bury_idle(fence)

    @precondition(lambda self: any(h.builds for h in self.busy()) and len(self.running()) > 1)
    @rule(data=st.data(), after=st.booleans())
    def stop_while_publishing(self, data: st.DataObject, after: bool) -> None:
        """Be stopped for long just before or AFTER asking whether one may publish, and wake."""
        hand = data.draw(st.sampled_from([hand for hand in self.busy() if hand.builds]))
        other = data.draw(st.sampled_from([each for each in self.running() if each is not hand]))
        if not self.has_beat(hand) or not self.has_beat(other):
            return
        stopped: list[bool] = []

        def renew() -> None:
            if after or stopped:
                hand.worker.presence.renew()
            if not stopped:
                stopped.append(True)
                hand.runs = False
                self.time_passes(70)
                self.recovered_by(other)
                hand.runs = True
            if not after:
                hand.worker.presence.renew()

        before = set(self.published)
        try:
            self.publish(hand, renew)
        except Lost:
            assert set(self.published) == before
            self.bury(hand)
        else:
            # Only who had nothing to lose, or nothing to say, is not stopped.
            assert self.has_beat(hand) or set(self.published) == before

    @precondition(lambda self: self.busy() and len(self.idle()) > 0)
    @rule(data=st.data(), good=st.booleans(), reports=st.integers(-1, 4))
    def stop_before_the_end(self, data: st.DataObject, good: bool, reports: int) -> None:
        """Be stopped for long just before an answer is told, while another may begin anew."""
        hand = data.draw(st.sampled_from(self.busy()))
        other = data.draw(st.sampled_from(self.idle()))
        if not self.has_beat(hand) or not self.has_beat(other):
            return
        batch = hand.batch
        assert batch is not None
        hand.runs = False
        self.time_passes(70)
        self.recovered_by(other)
        if reports >= 0:
            self.claimed_by(other)
        for number in range(reports if other.batch else 0):
            assert other.batch is not None
            other.batch.report(Status(state="PULLING", done=number, total=9))
            self.clock.passed += 1
        hand.runs = True
        try:
            batch.end(Status(state="READY" if good else "FAILURE", exit_code=0 if good else 66))
        except Lost:
            self.bury(hand)
        else:
            # All of it was cancelled meanwhile.
            assert not batch.wanted()
            self.let_go(hand)

    def has_beat(self, hand: Hand) -> bool:
        """Return whether HAND was not buried."""
        names = os.listdir(self.layout.workers)
        return any(name.startswith(f"{hand.worker.name}.") for name in names)

    def bury(self, hand: Hand) -> None:
        """Note that HAND knows that it was buried: it drops all, and ends."""
        assert not self.has_beat(hand)
        with suppress(Lost):
            if hand.batch is not None:
                self.let_go(hand)
            hand.worker.__exit__()
        hand.runs, hand.dead = False, True
        self.hands.remove(hand)

    @rule(days=st.sampled_from((0, 0, 0, 1, 3, 10)))
    def sweep(self, days: int) -> None:
        """Tidy up after so many days in which nobody asked, answered or lived."""
        before = self.clock.passed
        self.clock.passed += days * DAY
        sweep.sweep(self.layout)
        self.clock.passed = before
        for name, asked in self.asked.items():
            asked.swept |= days == 10 and not self.states(name) & {"S3", "S4"}

    # --------------------------------------------------------------------------- invariants

    def states(self, name: str) -> set[str]:
        """Return the states that NAME is in, by the contract's table."""
        there = {
            "tmp": (self.layout.writing / name).exists(),
            "new": (self.layout.submitted / name).exists(),
            "work": any(each.startswith(f"{name}.") for each in os.listdir(self.layout.claimed)),
            "done": any(self.layout.done.glob(f"*/{name}")),
            "failed": any(self.layout.failed.glob(f"*/{name}")),
            "status": (self.layout.status / name).exists(),
        }
        cells = ["+" if there[place] else "-" for place in PLACES]
        return {
            state
            for state, row in STATES.items()
            if all(want in ("?", cell) for want, cell in zip(row, cells, strict=True))
        }

    @invariant()
    def each_request_is_in_one_state(self) -> None:
        for name, asked in self.asked.items():
            states = self.states(name) - set(UNBORN)
            if asked.withdrawn or asked.swept:
                assert states <= {"S7"}, name
            else:
                assert len(states) == 1, (name, states)
                assert states != {"S7"}, f"{name} is lost"

    @invariant()
    def nothing_lies_in_the_spool_that_no_state_explains(self) -> None:
        found = [*os.listdir(self.layout.writing), *os.listdir(self.layout.submitted)]
        found += [name.partition(".")[0] for name in os.listdir(self.layout.claimed)]
        found += [path.name for place in ("done", "failed") for path in self.lying(place)]
        assert set(found) <= set(self.asked)
        # Each in one place only, and claimed by one.
        assert len(found) == len(set(found))

    def lying(self, place: str) -> Iterator[Path]:
        return (self.layout.root / "spool" / place).glob("*/*")

    @invariant()
    def who_is_gone_has_left_nothing_that_nobody_clears_away(self) -> None:
        known = {hand.worker.name for hand in self.hands}
        for path in (*self.layout.workers.iterdir(), *self.layout.builds.iterdir()):
            assert any(name in path.name for name in known), path
        for name in os.listdir(self.layout.claimed):
            assert name.partition(".")[2] in known

    @invariant()
    def who_was_answered_was_told_so_once_and_rightly(self) -> None:
        for name, asked in self.asked.items():
            with suppress(FileNotFoundError):
                # The newest only: one who wakes up may fill a gap among those before it.
                path = max((self.layout.status / name).glob("[0-9]*.json"), default=None)
                told = Status.from_bytes(path.read_bytes()) if path else None
                if (path and told and told.ended) or (asked.ends and path):
                    asked.ends[int(path.stem)] = told.state if told else ""
            assert len(asked.ends) <= 1, (name, asked.ends, os.listdir(self.layout.status / name))
            states = self.states(name)
            if not asked.swept and not asked.withdrawn and states & {"S5", "S6"}:
                (end,) = asked.ends.values()
                assert end in ENDED
                assert ("S5" in states) == (end == "READY"), name

    @invariant()
    def no_two_that_may_publish_build_the_same(self) -> None:
        building = Counter(
            hand.builds for hand in self.hands if hand.builds and self.has_beat(hand)
        )
        assert all(count == 1 for count in building.values())

    @invariant()
    def what_was_published_stays_published(self) -> None:
        with resolve.newest(self.layout.index) as index:
            names = {key.decode() for key, _ in index.items()} if index else set()
        assert set(self.published) <= names


# If it finds something, it takes its time to find the shortest way there.
@pytest.mark.timeout(1800)
def test_each_request_is_in_one_state_and_answered_once_whatever_happens() -> None:
    run_state_machine_as_test(
        Queue,
        settings=settings(
            max_examples=_EXAMPLES,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
