"""Requests are submitted, claimed and answered by renames, and none is lost."""

import errno
import fcntl
import multiprocessing
import os
import select
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import pytest

from shifter_lite import lost_reply, transient
from shifter_lite import store as stores
from shifter_lite.errors import BadConfig, Damaged, NoStore
from shifter_lite.layout import TREE, Layout
from shifter_lite.queue import claim, locks, marks, presence, status, submit, sweep
from shifter_lite.queue.backlog import Backlog
from shifter_lite.queue.batch import Batch
from shifter_lite.queue.claim import Claim, Rejected
from shifter_lite.queue.presence import Census, Lost, Presence
from shifter_lite.queue.turns import Fairness, Turns
from shifter_lite.queue.watch import Watch
from shifter_lite.queue.worker import Worker
from shifter_lite.reference import Reference
from shifter_lite.request import Request, Status, day, request_day


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "store")
    stores.create(made, shared=False)
    return made


def request(layout: Layout, image: str = "debian:12") -> Request:
    return Request.new(
        store=stores.identity(layout), image=Reference.parse(image), platform="linux/amd64"
    )


def put(layout: Layout, image: str = "debian:12") -> Request:
    made = request(layout, image)
    submit.submit(layout, made)
    return made


@pytest.fixture
def worker(layout: Layout) -> Iterator[Worker]:
    with Worker(layout, stores.identity(layout)) as living:
        yield living


def claims(worker: Worker) -> list[Batch | Rejected]:
    """Claim all that is there, each as a batch or rejected."""
    worker.backlog.refresh(now=True)
    found: list[Batch | Rejected] = []
    while (batch := worker.next()) is not None:
        if isinstance(batch, Batch):
            worker.take(batch, lambda _: None)
        found.append(batch)
    return [*found, *(each for each in worker.rejections() if isinstance(each, Rejected))]


def batches(worker: Worker) -> list[Batch]:
    found = claims(worker)
    assert all(isinstance(each, Batch) for each in found)
    return [each for each in found if isinstance(each, Batch)]


def end(batch: Batch, state: str = "READY") -> None:
    batch.end(Status(state=state))


# ---------------------------------------------------------------------------------- the store


def test_a_shared_store_takes_requests_from_all_and_a_private_one_from_its_owner(
    tmp_path: Path,
) -> None:
    old = os.umask(0o077)
    try:
        for shared in (True, False):
            stores.create(Layout(tmp_path / str(shared)), shared=shared)
    finally:
        os.umask(old)
    assert (tmp_path / "True").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "False").stat().st_mode & 0o7777 == 0o700
    for shared in (True, False):
        made = Layout(tmp_path / str(shared))
        for place in TREE:
            mode = (made.root / place.path).stat().st_mode & 0o7777
            closed = not shared and place.writer == "anyone"
            assert mode == (0o700 if closed else place.mode), place.path


def test_a_store_is_made_once_and_keeps_its_identity(layout: Layout) -> None:
    assert stores.create(layout, shared=True) == stores.identity(layout)


def test_a_store_half_made_is_made_whole(tmp_path: Path) -> None:
    made = Layout(tmp_path / "store")
    (made.root / "spool").mkdir(parents=True)
    (made.root / ".store.1.abc").write_text("{")
    assert stores.create(made, shared=False) == stores.identity(made)


def test_no_store_and_a_damaged_one_are_told_apart(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(NoStore):
        stores.identity(Layout(tmp_path / "nowhere"))
    layout.identity.write_text('{"v":1,"id":"x"}')
    with pytest.raises(Damaged):
        stores.identity(layout)


# -------------------------------------------------------------------------------- submitting


def test_a_submitted_request_is_claimed_as_it_was_written(layout: Layout, worker: Worker) -> None:
    asked = put(layout)
    (claimed,) = batches(worker)
    assert claimed.request == asked


class Killed(BaseException):
    """The process dies here."""


@contextmanager
def killed_before_call(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Die before the system call NUMBER of those that change the filesystem."""
    left = [number]

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*arguments: Any, **named: Any) -> Any:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return call(*arguments, **named)

        return instead

    with monkeypatch.context() as patch:
        for name in ("open", "fsync", "fchmod", "chmod", "rename", "mkdir", "close"):
            patch.setattr(os, name, dying(getattr(os, name)))
        # Who is dead does not tidy up.
        for name in ("unlink", "rmdir"):
            patch.setattr(os, name, dying(getattr(os, name)))
        yield


def test_dying_at_any_call_leaves_no_partial_request(
    layout: Layout, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        asked = request(layout)
        try:
            with killed_before_call(number, monkeypatch):
                submit.submit(layout, asked)
            break
        except Killed:
            pass
        for found in claims(worker):
            assert isinstance(found, Batch), f"died at call {number}"
            assert found.request == asked
            end(found)
            worker.leave(found)
    assert 5 < number < 100, "the loop never reached a clean run"


def test_a_request_that_cannot_be_written_leaves_nothing(layout: Layout) -> None:
    layout.submitted.rename(layout.submitted.with_name("gone"))
    with pytest.raises(FileNotFoundError):
        put(layout)
    assert os.listdir(layout.writing) == []
    assert os.listdir(layout.status) == []


def test_a_request_can_be_withdrawn_until_it_is_claimed(layout: Layout, worker: Worker) -> None:
    asked = put(layout)
    assert submit.withdraw(layout, asked.name)
    assert not submit.withdraw(layout, asked.name)
    assert claims(worker) == []


# ---------------------------------------------------------------------------------- claiming


def test_the_oldest_request_is_claimed_first(layout: Layout, worker: Worker) -> None:
    names = []
    for seconds in (30, 10, 20):
        made = request(layout)
        older = made.time - seconds
        name = f"{older}-{made.uid}-{seconds:016x}"
        again = Request(
            name=name,
            store=made.store,
            uid=made.uid,
            time=older,
            image=Reference.parse(f"debian:{seconds}"),
            platform=made.platform,
        )
        submit.submit(layout, again)
        names.append(name)
    found = [each.request.name for each in batches(worker)]
    assert found == sorted(names)


def _claim_all(layout: Layout, results: "SimpleQueue[list[str]]") -> None:
    with Worker(layout, stores.identity(layout)) as worker:
        found = batches(worker)
        results.put([request.name for batch in found for request in batch.requests])
        for batch in found:
            end(batch)
            worker.leave(batch)


def test_of_many_workers_exactly_one_wins_each_request(layout: Layout) -> None:
    asked = {put(layout, f"debian:{number}").name for number in range(200)}
    context = multiprocessing.get_context("fork")
    results: SimpleQueue[list[str]] = context.SimpleQueue()
    workers = [context.Process(target=_claim_all, args=(layout, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    won = [name for _ in workers for name in results.get()]
    for worker in workers:
        worker.join()
    assert len(won) == 200
    assert set(won) == asked


def test_what_is_answered_lies_in_its_day_and_is_never_answered_again(
    layout: Layout, worker: Worker
) -> None:
    for state, place in (("READY", "done"), ("FAILURE", "failed"), ("CANCELLED", "failed")):
        asked = put(layout)
        (claimed,) = batches(worker)
        end(claimed, state)
        worker.leave(claimed)
        lies = layout.root / "spool" / place / request_day(asked.name) / asked.name
        assert lies.exists()
        replayed = layout.submitted / asked.name
        replayed.write_bytes(asked.to_bytes())
        replayed.chmod(0o640)
        (refused,) = claims(worker)
        assert isinstance(refused, Rejected)
        assert "answered before" in str(refused.error)
        assert os.listdir(layout.claimed) == os.listdir(layout.submitted) == []


def test_what_is_handed_back_is_claimed_again(layout: Layout, worker: Worker) -> None:
    asked = put(layout)
    for _ in range(3):
        (claimed,) = batches(worker)
        assert claimed.request == asked
        claimed.hand_back()
        worker.leave(claimed)
        assert status.read(layout, asked.name) == Status(state="PENDING")


def test_what_was_told_its_end_is_not_told_that_it_waits_when_it_is_handed_back(
    layout: Layout, worker: Worker
) -> None:
    asked = put(layout)
    # By a worker that died before it could move the request.
    reporter = status.Reporter(layout, asked.name, os.geteuid())
    reporter(Status(state="READY"))
    (batch,) = batches(worker)
    batch.hand_back()
    assert status.read(layout, asked.name).state == "READY"
    assert os.listdir(layout.submitted) == [asked.name]


def test_a_request_goes_where_its_owner_was_told_that_it_went(
    layout: Layout, worker: Worker
) -> None:
    asked = put(layout)
    (batch,) = batches(worker)
    # By a worker that was taken for dead, and woke just before it told the end.
    reporter = status.Reporter(layout, asked.name, os.geteuid())
    reporter(Status(state="READY"))
    end(batch, "FAILURE")
    assert status.read(layout, asked.name).state == "READY"
    assert [path.name for path in layout.done.glob("*/*")] == [asked.name]


def test_who_was_told_that_it_is_cancelled_is_told_nothing_else(
    layout: Layout, worker: Worker
) -> None:
    asked = put(layout)
    (batch,) = batches(worker)
    (layout.status / asked.name / "cancel").touch()
    # Others took us for dead, and we do not know it yet.
    claim.return_claim(layout, asked.name, worker.name)
    batch.go_round()
    batch.report(Status(state="PULLING"))
    assert status.read(layout, asked.name).state == "CANCELLED"


def test_a_worker_that_ends_hands_back_what_it_has(layout: Layout) -> None:
    asked = put(layout)
    with Worker(layout, stores.identity(layout)) as worker:
        batches(worker)
        assert os.listdir(layout.submitted) == []
    assert os.listdir(layout.submitted) == [asked.name]
    for place in (layout.claimed, layout.workers, layout.locks, layout.builds):
        assert os.listdir(place) == []


def test_equal_requests_are_one_batch_and_each_has_its_own_status(
    layout: Layout, worker: Worker
) -> None:
    asked = [put(layout, "debian:12") for _ in range(5)]
    other = put(layout, "debian:13")
    first, second = sorted(batches(worker), key=lambda batch: -len(batch.requests))
    assert {each.name for each in first.requests} == {each.name for each in asked}
    assert [each.name for each in second.requests] == [other.name]
    first.report(Status(state="PULLING", done=1, total=2))
    assert first.go_round() == []
    assert all(status.read(layout, each.name).total == 2 for each in asked)
    assert status.read(layout, other.name) == Status(state="PENDING")
    (layout.status / asked[2].name / "cancel").touch()
    assert [each.name for each in first.go_round()] == [asked[2].name]
    assert status.read(layout, asked[2].name).state == "CANCELLED"
    end(first)
    ended = [status.read(layout, each.name).state for each in asked]
    assert ended == ["READY", "READY", "CANCELLED", "READY", "READY"]
    assert first.wanted() is False
    assert second.wanted() is True


def test_the_first_answers_of_a_day_are_given_at_once_and_none_is_taken_for_lost(
    layout: Layout, worker: Worker
) -> None:
    for number in range(10):
        asked = [put(layout, f"debian:{number}") for _ in range(8)]
        (batch,) = batches(worker)
        for path in layout.done.glob("*"):
            shutil.rmtree(path)
        end(batch)
        assert len(list(layout.done.glob("*/*"))) == len(asked)


def test_a_worker_claims_few_at_first_and_twice_as_many_each_time(
    layout: Layout, worker: Worker
) -> None:
    for _ in range(100):
        put(layout, "debian:12")
    sizes = []
    worker.backlog.refresh(now=True)
    while batch := worker.next():
        assert isinstance(batch, Batch)
        worker.take(batch, lambda _: None)
        sizes.append(len(batch.requests))
        end(batch)
        worker.leave(batch)
    assert sizes == [8, 16, 32, 44]


def test_what_is_soon_over_is_told_to_few_and_the_end_to_all(
    layout: Layout, worker: Worker
) -> None:
    asked = [put(layout, "debian:12") for _ in range(8)]
    (batch,) = batches(worker)
    for state in ("PULLING", "CONVERSION", "PUBLISHING"):
        batch.report(Status(state=state))
    told = Counter(status.read(layout, each.name).state for each in asked)
    assert told == {"PUBLISHING": 4, "PENDING": 4}
    end(batch)
    assert {status.read(layout, each.name).state for each in asked} == {"READY"}


def test_files_that_are_no_requests_are_answered_with_a_reason_or_left_alone(
    layout: Layout, worker: Worker, tmp_path: Path
) -> None:
    now = int(time.time())
    (tmp_path / "victim").write_text("secret")
    name = iter(f"{now}-0-{n:016x}" for n in range(9))
    (layout.submitted / next(name)).symlink_to(tmp_path / "victim")
    (layout.submitted / next(name)).mkdir()
    os.mkfifo(layout.submitted / next(name))
    (layout.submitted / next(name)).write_bytes(b"\0" * 100)
    (layout.submitted / next(name)).write_bytes(b"[" * 50000)
    os.link(tmp_path / "victim", layout.submitted / next(name))
    (layout.submitted / "not a request\n").write_text("x")
    (layout.submitted / ".hidden").write_text("x")
    found = claims(worker)
    assert len(found) == 7
    assert all(isinstance(each, Rejected) for each in found)
    # A directory has only got a name with a dot: its owner may close it whenever he likes.
    assert len(list(layout.failed.glob("*/*"))) == 6
    assert len(list(layout.claimed.glob(".rejected.*"))) == 1
    assert sorted(os.listdir(layout.submitted)) == [".hidden"]
    assert (tmp_path / "victim").read_text() == "secret"


# ---------------------------------------------------------------------------------- recovery


def _claim_and_die(layout: Layout) -> None:
    worker = Worker(layout, stores.identity(layout))
    worker.__enter__()
    batches(worker)
    os._exit(9)


def test_a_dead_workers_claim_is_handed_back_and_its_files_removed(layout: Layout) -> None:
    asked = put(layout)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_claim_and_die, args=(layout,))
    process.start()
    process.join()
    assert not presence.anybody_alive(Census(layout, 60))
    assert len(os.listdir(layout.claimed)) == len(os.listdir(layout.workers)) == 1
    fences = []
    with Worker(layout, stores.identity(layout)) as worker:
        assert worker.recover(lambda: fences.append(os.listdir(layout.claimed))) == 1
        # Fenced while it still had its claim, but could not believe any more that it lives.
        assert len(fences[0]) == 1
        (claimed,) = batches(worker)
        assert claimed.request == asked
        assert os.listdir(layout.locks) == [f"worker.{worker.name}.lock"]
        end(claimed)
    assert os.listdir(layout.locks) == os.listdir(layout.workers) == []


def test_a_directory_where_a_claim_goes_back_to_holds_up_nobody(layout: Layout) -> None:
    asked = put(layout)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_claim_and_die, args=(layout,))
    process.start()
    process.join()
    obstacle = layout.submitted / asked.name
    obstacle.mkdir()
    (obstacle / "x").touch()
    with Worker(layout, stores.identity(layout)) as worker:
        assert worker.recover(lambda: None) == 1
        (claimed,) = batches(worker)
        assert claimed.request == asked
        obstacle.mkdir()
    assert obstacle.is_file()
    assert os.listdir(layout.claimed) == []


def test_what_cannot_go_back_now_goes_back_once_it_can(layout: Layout, worker: Worker) -> None:
    for _ in range(2):
        put(layout)
    (claimed,) = batches(worker)
    away = layout.submitted.rename(layout.submitted.with_name("away"))
    layout.submitted.touch()
    claimed.hand_back()
    worker.leave(claimed)
    layout.submitted.unlink()
    away.rename(layout.submitted)
    assert worker.recover(pytest.fail) == 2
    assert len(os.listdir(layout.submitted)) == 2


def test_a_living_workers_claim_is_left_alone(layout: Layout) -> None:
    asked = put(layout)
    identity = stores.identity(layout)
    with Worker(layout, identity) as first, Worker(layout, identity) as second:
        (claimed,) = batches(first)
        assert second.recover(pytest.fail) == 0
        assert claims(second) == []
        assert second.living() == {first.name, second.name}
        end(claimed)
    assert not presence.anybody_alive(Census(layout, 60))
    assert (layout.done / request_day(asked.name) / asked.name).exists()


def test_who_was_buried_can_neither_renew_nor_answer_nor_claim(layout: Layout) -> None:
    asked = put(layout)
    with Worker(layout, stores.identity(layout)) as worker:
        (claimed,) = batches(worker)
        worker.presence.renew()
        presence.remove_beats(layout, worker.name)
        os.rename(layout.claimed / f"{asked.name}.{worker.name}", layout.submitted / asked.name)
        for _ in range(2):
            with pytest.raises(Lost):
                worker.presence.renew()
        with pytest.raises(Lost):
            end(claimed)
    assert os.listdir(layout.submitted) == [asked.name]


def test_who_was_buried_believes_no_cache_that_still_shows_its_heartbeat(
    layout: Layout, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.presence.renew()
    shown = os.listdir(layout.workers)
    presence.remove_beats(layout, worker.name)
    monkeypatch.setattr(os, "listdir", lambda _: shown)
    with pytest.raises(Lost):
        worker.presence.renew()


def test_nobody_is_alive_at_a_store_of_before_there_were_heartbeats(layout: Layout) -> None:
    layout.workers.rmdir()
    assert not presence.anybody_alive(Census(layout, 60))
    census = Census(layout, 60)
    census.look()
    assert census.workers() == []


def test_a_heart_beats_on_whatever_goes_wrong_beside_it(layout: Layout, worker: Worker) -> None:
    rounds = []

    def wrong() -> None:
        rounds.append(os.listdir(layout.workers))
        raise ValueError("shown by a test")

    worker.attendant.every_round(wrong, wrong)
    until = time.monotonic() + 60
    while len({*map(tuple, rounds)}) < 3 and time.monotonic() < until:
        time.sleep(0.1)
    assert len({*map(tuple, rounds)}) == 3


def test_a_heart_beats_between_looks_that_take_long(layout: Layout, worker: Worker) -> None:
    beats = []

    def look() -> None:
        time.sleep(0.5)
        beats.extend(os.listdir(layout.workers))

    for number in range(12):
        worker.attendant.every_round(number, look)
    until = time.monotonic() + 60
    while len(beats) < 10 and time.monotonic() < until:
        time.sleep(0.1)
    # Within one round over all.
    assert len({*beats[:10]}) >= 3


class Clock:
    """The observer's own clock, which tests move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def look(self, census: Census, seconds: float) -> None:
        """Let SECONDS go by, and look every second of them."""
        for _ in range(int(seconds)):
            self.now += 1
            census.look()


def strange(layout: Layout, host: str = "elsewhere") -> str:
    """Make what there is of a worker on another host; return its name."""
    name = f"{host}.1.0123abcd"
    presence.lock_path(layout, name).touch()
    presence.beat_path(layout, name, 7).touch()
    return name


def test_of_another_host_who_is_silent_without_its_lock_is_dead_soon_and_with_it_later(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    free = strange(layout, "free")
    held = strange(layout, "held")
    with locks.lock(presence.lock_path(layout, held)):
        census = Census(layout, 60)
        clock.look(census, 4)
        assert [census.dead(free), census.dead(held)] == [False, False]
        assert [census.undecided(free), census.undecided(held)] == [True, True]
        clock.look(census, 4)
        assert [census.dead(free), census.dead(held)] == [True, False]
        clock.look(census, 50)
        assert census.dead(held) is False
        clock.look(census, 5)
        assert census.dead(held) is True


def test_whose_heart_beats_now_and_then_lives_whatever_its_lock_says(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    name = strange(layout)
    census = Census(layout, 60)
    for number in range(7, 30):
        clock.look(census, 5)
        assert census.dead(name) is False
        presence.beat_path(layout, name, number).rename(
            presence.beat_path(layout, name, number + 1)
        )
    assert census.undecided(name) is False


def test_a_filesystem_that_stood_still_for_an_hour_makes_nobody_dead(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    name = strange(layout)
    census = Census(layout, 60)
    census.look()
    clock.now += 3600
    census.look()
    assert census.dead(name) is False


def test_who_ended_long_ago_is_not_remembered(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    census = Census(layout, 60)
    for _ in range(3):
        name = strange(layout)
        clock.look(census, 5)
        presence.remove_beats(layout, name)
        presence.remove_lock(layout, name)
        clock.look(census, 70)
        assert census.dead(name) is True
        assert census.workers() == []
    name = strange(layout)
    clock.look(census, 70)
    presence.remove_beats(layout, name)
    clock.look(census, 70)
    assert census.dead(name) is True
    presence.remove_lock(layout, name)
    clock.look(census, 1)
    assert census._sights == {}  # memory is what it is about


def test_a_heart_that_beats_while_it_is_buried_is_not_buried(
    layout: Layout, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Worker(layout, stores.identity(layout)) as sleeper:
        census = Census(layout, 60)
        census.look()
        listed = os.listdir

        def wakes(path: Path) -> list[str]:
            names = listed(path)
            monkeypatch.setattr(os, "listdir", listed)
            sleeper.presence.renew()
            return names

        monkeypatch.setattr(os, "listdir", wakes)
        assert census.stop(sleeper.name) is False
        sleeper.presence.renew()
        assert census.stop("elsewhere.1.0123abcd") is True


def test_what_a_worker_that_lives_has_claimed_is_not_taken_from_it_as_it_wakes(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(layout)
    store = stores.identity(layout)
    with Worker(layout, store) as sleeper, Worker(layout, store) as other:
        (claimed,) = batches(sleeper)
        monkeypatch.setattr(other.census, "dead", lambda worker: worker == sleeper.name)
        removing = lost_reply.unlink

        def wakes(path: Path) -> None:
            monkeypatch.setattr(lost_reply, "unlink", removing)
            sleeper.presence.renew()
            removing(path)

        monkeypatch.setattr(lost_reply, "unlink", wakes)
        assert other.recover(pytest.fail) == 0
        end(claimed)


@pytest.mark.parametrize("moment", ["probe", "create"])
def test_who_is_buried_while_it_comes_to_life_is_born_again(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    module = locks if moment == "probe" else lost_reply
    done = getattr(module, moment)

    def bury_before(path: Path) -> object:
        monkeypatch.setattr(module, moment, done)
        presence.remove_lock(layout, born.name)
        return done(path)

    monkeypatch.setattr(module, moment, bury_before)
    born = Presence(layout)
    with born:
        assert presence.lock_path(layout, born.name).exists()
        assert not locks.is_free(presence.lock_path(layout, born.name))
        born.renew()
    assert [*layout.locks.iterdir(), *layout.workers.iterdir()] == []


def test_a_cancelled_request_that_is_in_no_directory_ends(layout: Layout) -> None:
    asked = put(layout)
    (layout.submitted / asked.name).unlink()
    status.ask_to_stop(layout, asked.name)
    sweep.sweep(layout)
    assert status.read(layout, asked.name).state == "CANCELLED"


def test_who_ended_and_left_nothing_is_dead_at_once(layout: Layout) -> None:
    assert Census(layout, 60).dead("elsewhere.1.0123abcd") is True


def test_what_a_dead_worker_left_without_a_claim_is_cleared_away(layout: Layout) -> None:
    host = presence.host_name()
    # The kernel gives no process so high a number.
    gone = f"{host}.4999999.0123abcd"
    presence.lock_path(layout, gone).touch()
    presence.beat_path(layout, gone, 3).touch()
    (layout.builds / f"0123.{gone}").touch()
    with Worker(layout, stores.identity(layout)) as worker:
        worker.bury_idle(lambda: None)
        assert os.listdir(layout.locks) == [f"worker.{worker.name}.lock"]
        assert os.listdir(layout.builds) == []
        assert len(os.listdir(layout.workers)) == 1


# -------------------------------------------------------------------------------- one build


def test_only_one_worker_builds_an_image_at_a_time(layout: Layout) -> None:
    identity = stores.identity(layout)
    with Worker(layout, identity) as first, Worker(layout, identity) as second:
        with marks.building(layout, "k1", first.name, first.census):
            with (
                pytest.raises(marks.Elsewhere),
                marks.building(layout, "k1", second.name, second.census),
            ):
                pytest.fail("both build")
            with marks.building(layout, "k2", second.name, second.census):
                pass
            assert marks.is_built(layout, "k1", second.census, by_others_than=second.name)
        with marks.building(layout, "k1", second.name, second.census):
            pass
    assert os.listdir(layout.builds) == []


def test_a_mark_of_a_dead_worker_keeps_nobody_from_building(layout: Layout) -> None:
    (layout.builds / "k1.elsewhere.1.0123abcd").touch()
    with (
        Worker(layout, stores.identity(layout)) as worker,
        marks.building(layout, "k1", worker.name, worker.census),
    ):
        pass


# ----------------------------------------------------------------------------------- locks


def test_a_store_without_locks_or_links_is_refused(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = stores.identity(layout)
    # A manager of locks may be starting again; for good it is told from none after a while.
    monkeypatch.setattr(transient, "PATIENCE_SECONDS", 0.1)

    def none(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", none)
        with pytest.raises(BadConfig, match="no locks"), Worker(layout, identity):
            pass
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", lambda *_: None)
        with pytest.raises(BadConfig, match="keeps nobody out"), Worker(layout, identity):
            pass
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refused)
        with pytest.raises(BadConfig, match="no hard links"), Worker(layout, identity):
            pass
    assert os.listdir(layout.locks) == os.listdir(layout.workers) == []


# ---------------------------------------------------------------------------------- statuses


def test_the_newest_status_is_read_and_two_are_kept(layout: Layout) -> None:
    asked = put(layout)
    assert status.read(layout, asked.name) == Status(state="PENDING")
    reporter = status.Reporter(layout, asked.name, os.getuid())
    for done in range(20):
        reporter(Status(state="PULLING", done=done, total=20))
        assert status.read(layout, asked.name).done == done
    reporter.close()
    assert sorted(os.listdir(layout.status / asked.name)) == ["000019.json", "000020.json"]
    status.forget(layout, asked.name)
    assert os.listdir(layout.status) == []


def test_another_worker_goes_on_counting(layout: Layout) -> None:
    asked = put(layout)
    for state in ("PULLING", "PUBLISHING", "READY"):
        reporter = status.Reporter(layout, asked.name, os.getuid())
        reporter(Status(state=state))
        reporter.close()
    assert status.read(layout, asked.name).ended


def test_a_status_goes_nowhere_that_is_not_its_owners(layout: Layout, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    asked = put(layout)
    (layout.status / asked.name).rmdir()
    (layout.status / asked.name).symlink_to(elsewhere)
    for uid in (os.getuid(), 4711):
        reporter = status.Reporter(layout, asked.name, uid)
        reporter(Status(state="READY"))
        reporter.close()
    assert os.listdir(elsewhere) == []


def test_what_its_owner_put_into_a_status_directory_is_not_written_through(
    layout: Layout, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("secret")
    asked = put(layout)
    for name in (".000001", "000001.json", ".000002"):
        (layout.status / asked.name / name).symlink_to(victim)
    reporter = status.Reporter(layout, asked.name, os.getuid())
    for _ in range(3):
        reporter(Status(state="READY"))
    reporter.close()
    assert victim.read_text() == "secret"


# ---------------------------------------------------------------------------------- sweeping


def test_only_what_is_old_is_swept(layout: Layout) -> None:
    asked = put(layout)
    young, old = layout.writing / "young", layout.writing / "old"
    for path in (young, old):
        path.write_text("x")
    long_ago = time.time() - 37 * 3600
    os.utime(old, (long_ago, long_ago))
    for number in (1, 20):
        when = int(time.time()) - number * 86400
        (layout.done / day(when)).mkdir()
        (layout.done / day(when) / "x").write_text("x")
        told = layout.status / f"{when}-0-{number:016x}"
        told.mkdir()
        os.utime(told, (when, when))
    sweep.sweep(layout)
    assert os.listdir(layout.writing) == ["young"]
    assert len(os.listdir(layout.done)) == 1
    assert len(os.listdir(layout.status)) == 2
    assert os.listdir(layout.submitted) == [asked.name]


def test_who_lost_the_answer_in_a_power_failure_is_told_that_there_was_one(
    layout: Layout, worker: Worker
) -> None:
    for state, told in (("READY", "READY"), ("FAILURE", "FAILURE")):
        asked, waits = put(layout), put(layout, "debian:13")
        first, second = sorted(batches(worker), key=lambda batch: batch.request.name != asked.name)
        end(first, state)
        # The answer's file was not synced: it may be empty afterwards.
        newest = max((layout.status / asked.name).glob("*.json"))
        newest.write_bytes(b"")
        sweep.sweep(layout)
        assert status.read(layout, asked.name).state == told
        assert status.read(layout, waits.name) == Status(state="PENDING")
        end(second)
        sweep.sweep(layout)
        assert status.read(layout, waits.name) == Status(state="READY")


def test_what_was_put_out_of_the_way_is_swept(layout: Layout) -> None:
    young, old = layout.submitted / ".rejected.1", layout.submitted / ".rejected.2"
    for path in (young, old):
        path.mkdir()
        (path / "x").touch()
    long_ago = time.time() - 37 * 3600
    os.utime(old, (long_ago, long_ago))
    sweep.sweep(layout)
    assert os.listdir(layout.submitted) == [young.name]


# ------------------------------------------------------------------------------ watching


def test_a_worker_wakes_when_a_request_comes(layout: Layout) -> None:

    with Watch(layout.submitted) as watch:
        submitter = subprocess.Popen(
            [sys.executable, "-c", _SUBMIT, str(layout.root)], cwd=Path(__file__).parent.parent
        )
        while not os.listdir(layout.submitted):
            assert select.select([watch], [], [], 60)[0]
            assert watch.has_seen()
            watch.clear()
            assert not select.select([watch], [], [], 0)[0] or watch.has_seen()
        assert submitter.wait() == 0


_SUBMIT = """
import sys
from pathlib import Path
from shifter_lite import store
from shifter_lite.layout import Layout
from shifter_lite.queue.submit import submit
from shifter_lite.request import Request
from shifter_lite.reference import Reference
layout = Layout(Path(sys.argv[1]))
identity = store.identity(layout)
image = Reference.parse("debian:12")
submit(layout, Request.new(store=identity, image=image, platform="linux/amd64"))
"""


def test_a_worker_wakes_where_the_kernel_watches_no_more(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(_: object) -> None:
        raise OSError(errno.ENOSPC, "inotify watch limit reached")

    monkeypatch.setattr("watchdog.observers.api.BaseObserver.start", no_more)
    with Watch(layout.submitted) as watch:
        (layout.submitted / "x").touch()
        assert not select.select([watch], [], [], 0.01)[0]
        assert not watch.has_seen()


# --------------------------------------------------------------------------------- fairness


def write(layout: Layout, uid: int, number: int, image: str, owner: int | None = None) -> str:
    """Put a request of UID's into the spool, NUMBER seconds ago; return its name."""
    when = int(time.time()) - number
    made = Request(
        name=f"{when}-{uid}-{number:016x}",
        store=stores.identity(layout),
        uid=uid,
        time=when,
        image=Reference.parse(image),
        platform="linux/amd64",
    )
    path = layout.submitted / made.name
    path.write_bytes(made.to_bytes())
    os.chown(path, uid if owner is None else owner, -1)
    path.chmod(0o640)
    return made.name


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be several users")


@needs_root
def test_users_are_served_in_turn_however_much_one_asks_for(layout: Layout, worker: Worker) -> None:
    for number in range(20):
        write(layout, 70001, 1000 - number, f"one:{number}")
    for number in range(3):
        write(layout, 70002, 100 - number, f"two:{number}")
        write(layout, 70003, 90 - number, f"three:{number}")
    worker.backlog.refresh(now=True)
    served = []
    while isinstance(batch := worker.next(), Batch):
        worker.take(batch, lambda _: None)
        served.append(batch.request.uid)
        end(batch)
        worker.leave(batch)
    assert served[:9] == [70001, 70002, 70003] * 3
    assert served[9:] == [70001] * 17


@needs_root
def test_an_admins_request_goes_before_all(layout: Layout) -> None:
    for number in range(5):
        write(layout, 70001, 1000 - number, f"one:{number}")
    write(layout, 70002, 5, "admin:1")
    fairness = Fairness(admins=frozenset({70002}))
    with Worker(layout, stores.identity(layout), fairness=fairness) as worker:
        assert [batch.request.uid for batch in batches(worker)] == [70002] + [70001] * 5


@needs_root
def test_no_more_builds_of_one_user_and_of_all_run_than_the_site_allows(layout: Layout) -> None:
    for number in range(5):
        for uid in (70001, 70002, 70003):
            write(layout, uid, 1000 - number, f"i{uid}:{number}")
    identity = stores.identity(layout)
    fairness = Fairness(running_per_user=1, running=2)
    with (
        Worker(layout, identity, fairness=fairness) as first,
        Worker(layout, identity, fairness=fairness) as second,
    ):
        (mine,) = batches(first)[:1]
        assert len(os.listdir(layout.claimed)) == 2
        assert batches(second) == []
        end(mine)
        first.leave(mine)
        # What others have claimed is not counted at every look.
        while not (found := batches(second)):
            time.sleep(0.05)
        assert [batch.request.uid for batch in found] == [70003]
        assert len(os.listdir(layout.claimed)) == 2


@needs_root
def test_what_took_its_worker_with_it_comes_after_what_others_ask_for(layout: Layout) -> None:
    identity = stores.identity(layout)
    deadly = write(layout, 70001, 1000, "deadly:1")
    with Worker(layout, identity) as first:
        (batch,) = batches(first)
        key = "0" * 32
        with marks.marked(layout, key, first.name, batch.names):
            first.presence.__exit__()
            others = [write(layout, uid, 100, f"i{uid}:1") for uid in (70001, 70002)]
            with Worker(layout, identity) as second:
                assert second.recover(lambda: None) == 1
                assert [batch.request.name for batch in batches(second)] == [*others, deadly]
                # Whoever buries it once more counts no second death.
                second.recover(lambda: None)
                assert os.listdir(layout.deaths) == [f"{deadly}.{first.name}"]


@needs_root
def test_files_with_a_victims_uid_in_their_names_take_nothing_from_the_victim(
    layout: Layout,
) -> None:
    forged = [write(layout, 70001, 5000 - n, f"x:{n}", owner=70666) for n in range(1500)]
    asked = write(layout, 70001, 1, "victim:1")
    identity = stores.identity(layout)
    with Worker(layout, identity, waiting_per_user=100) as worker:
        worker.backlog.refresh(now=True)
        # What is no request is looked at for a while only, so that others get their turns.
        while (batch := worker.next()) is None:
            assert worker.backlog
        assert isinstance(batch, Batch)
        assert batch.request.name == asked
        rejected: set[str] = set()
        while worker.backlog:
            rejected |= {each.name for each in worker.rejections() if isinstance(each, Rejected)}
            assert worker.next() is None
    assert rejected == set(forged)


@needs_root
def test_a_file_with_a_victims_uid_in_its_name_is_not_even_opened(layout: Layout) -> None:
    when = int(time.time()) - 5000
    for number in range(2000):
        forged = layout.submitted / f"{when}-70001-{number:016x}"
        os.close(os.open(forged, os.O_CREAT | os.O_WRONLY))
        os.chown(forged, 70666, 70666)
    asked = [write(layout, uid, 1, "asked:1") for uid in (70001, 70002)]
    opened = []

    def look(name: str) -> Request:
        opened.append(name)
        return claim.look(layout, name, store=stores.identity(layout))

    backlog = Backlog(layout, look, Turns(Fairness()), 100_000)
    backlog.refresh(now=True)
    while not (names := backlog.next({})):
        assert backlog
    assert names[0] in asked
    while len(opened) < 2:
        backlog.next({})
    assert sorted(opened) == sorted(asked)


@needs_root
def test_of_one_user_only_so_many_requests_may_wait(layout: Layout) -> None:
    asked = [write(layout, 70001, 1000 - number, f"one:{number}") for number in range(30)]
    with Worker(layout, stores.identity(layout), waiting_per_user=20) as worker:
        worker.backlog.refresh(now=True)
        first = worker.next()
        assert isinstance(first, Batch)
        assert first.request.name == asked[0]
        refused = [each for each in worker.rejections() if isinstance(each, Claim)]
        assert sorted(each.request.name for each in refused) == asked[20:]


def test_a_request_that_cannot_be_counted_now_is_counted_later(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {put(layout).name for _ in range(3)}
    with Worker(layout, stores.identity(layout), waiting_per_user=1) as worker:
        real = Path.lstat

        def failing(path: Path) -> os.stat_result:
            if path.parent == layout.submitted:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return real(path)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "lstat", failing)
            worker.backlog.refresh(now=True)
            with suppress(OSError):
                worker.next()
        worker.backlog.refresh(now=True)
        first = worker.next()
        assert isinstance(first, Batch)
        worker.take(first, lambda _: None)
        refused = {each.request.name for each in worker.rejections() if isinstance(each, Claim)}
        assert {*first.names, *refused} == asked
