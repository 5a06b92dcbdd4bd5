"""What goes wrong in weeks: clocks, records, limits, leftovers; and is set right."""

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shifter_lite import store as stores
from shifter_lite.layout import Layout
from shifter_lite.queue import status, sweep
from shifter_lite.queue.batch import Batch
from shifter_lite.queue.claim import Rejected
from shifter_lite.queue.turns import Fairness
from shifter_lite.queue.worker import Worker
from shifter_lite.request import Status, day
from tests.conftest import Runner, installed
from tests.helpers import images
from tests.test_queue import put


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "store")
    stores.create(made, shared=False)
    return made


@pytest.fixture
def worker(layout: Layout) -> Iterator[Worker]:
    with Worker(layout, stores.identity(layout)) as living:
        yield living


def taken(worker: Worker) -> list[Batch]:
    """Take all that may be begun."""
    worker.backlog.refresh(now=True)
    found = []
    while isinstance(batch := worker.next(), Batch):
        worker.take(batch, lambda _: None)
        found.append(batch)
    return found


def small(text: bytes) -> images.Image:
    return images.image([images.layer([images.file("x", text)])])


# ------------------------------------------------------------------------------------- limits


def test_limits_hold_for_builds_though_one_worker_has_many(layout: Layout) -> None:
    for number in range(12):
        put(layout, f"debian:{number}")
    fairness = Fairness(running=4, running_per_user=4)
    identity = stores.identity(layout)
    with (
        Worker(layout, identity, fairness=fairness) as one,
        Worker(layout, identity, fairness=fairness) as two,
    ):
        # Another takes equal requests: one build.
        for _ in range(3):
            put(layout, "debian:0")
        assert [len(taken(one)), len(taken(two))] == [4, 0]
        (first, *_) = one._batches
        first.hand_back()
        one.leave(first)
        two._counted = float("-inf")
        assert len(taken(two)) == 1


def test_a_drain_that_may_take_nothing_has_nothing_left_to_do(layout: Layout) -> None:
    fairness = Fairness(running=1)
    identity = stores.identity(layout)
    put(layout, "debian:1")
    put(layout, "debian:2")
    with (
        Worker(layout, identity, fairness=fairness) as one,
        Worker(layout, identity, fairness=fairness) as two,
    ):
        assert two.may_begin()
        (batch,) = taken(one)
        assert not two.may_begin()
        batch.hand_back()
        one.leave(batch)
        assert two.may_begin()


def test_what_was_handed_back_is_its_users_first_again(layout: Layout, worker: Worker) -> None:
    asked = sorted((put(layout, f"debian:{number}") for number in range(4)), key=lambda a: a.name)
    found = taken(worker)
    assert [batch.request.name for batch in found] == [each.name for each in asked]
    for batch in reversed(found):
        batch.hand_back()
        worker.leave(batch)
        worker.backlog.refresh(now=True)
    assert [batch.request.name for batch in taken(worker)] == [each.name for each in asked]


def test_one_that_is_rejected_among_equals_is_told_so(layout: Layout, worker: Worker) -> None:
    first, second = put(layout), put(layout)
    worker.backlog.refresh(now=True)
    names = worker.backlog.next({})
    assert sorted(names) == sorted([first.name, second.name])
    # Since it was looked at.
    (layout.submitted / names[1]).write_text("{")
    batch = worker.next()
    assert isinstance(batch, Batch)
    assert [each.name for each in batch.requests] == [names[0]]
    (rejected,) = worker.rejections()
    assert isinstance(rejected, Rejected)
    assert rejected.name == names[1]
    assert list(worker.rejections()) == []


def test_equal_requests_that_come_during_a_build_are_answered_with_it(
    layout: Layout, worker: Worker
) -> None:
    first = put(layout)
    (batch,) = taken(worker)
    batch.report(Status(state="PULLING"))
    later = [put(layout) for _ in range(3)]
    other = put(layout, "debian:13")
    assert [each.request for each in taken(worker)] == [other]
    assert {each.name for each in batch.requests} == {each.name for each in [first, *later]}
    assert status.read(layout, later[0].name).state == "PULLING"
    batch.end(Status(state="READY"))
    worker.leave(batch)
    for each in (first, *later):
        assert status.read(layout, each.name).state == "READY"
    # What comes after the end is asked anew.
    assert put(layout) in [each.request for each in taken(worker)]


# ------------------------------------------------------------------------------------- clocks


@pytest.mark.parametrize("ahead", [-30 * 86400, -86400, 8 * 86400, 3000 * 86400])
def test_a_host_with_a_wrong_clock_judges_by_that_of_the_store(
    layout: Layout, worker: Worker, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    asked = put(layout)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    (batch,) = taken(worker)
    assert batch.request == asked
    assert not [name for name in os.listdir(layout.claimed) if name.startswith(".")]


def test_a_day_with_too_much_is_swept_a_part_at_a_time(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = layout.done / day(time.time() - 20 * 86400)
    old.mkdir()
    for number in range(50):
        (old / str(number)).touch()
    monkeypatch.setattr(sweep, "_LONGEST_SECONDS", -1.0)
    sweep.sweep(layout)
    assert old.exists()
    monkeypatch.setattr(sweep, "_LONGEST_SECONDS", 5.0)
    sweep.sweep(layout)
    assert not old.exists()


# ------------------------------------------------------------------------------------ records


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\0" * 100], ids=repr)
def test_a_record_that_is_lost_or_damaged_is_made_again(
    run: Runner, registry: str, content: bytes | None
) -> None:
    images.push(registry, "record", "1", small(b"record"))
    name = f"{registry}/record:1"
    assert run("shifterimg", "pull", name).returncode == 0
    (record,) = (run.store / "images").rglob("*.json")
    before = record.read_bytes()
    record.unlink()
    if content is not None:
        record.write_bytes(content)
        record.chmod(0o644)
        os.chown(record, run.user.uid, run.user.gid)
    verified = run("shifter-admin", "verify")
    assert verified.returncode == 70
    assert f"'{record}'" in verified.stderr
    done = run("shifterimg", "pull", "--refresh", name)
    assert done.returncode == 0, done.stderr
    assert record.read_bytes() == before
    assert run("shifter-admin", "verify").returncode == 0


# --------------------------------------------------------------------------------- environment


def test_who_has_no_home_can_ask(run: Runner, registry: str) -> None:
    images.push(registry, "home", "1", small(b"home"))
    homeless = replace(run, extra={"HOME": ""})
    for command in (("pull", f"{registry}/home:1"), ("images",), ("lookup", f"{registry}/home:1")):
        done = homeless("shifterimg", *command)
        assert done.returncode == 0, done.stderr
    done = homeless("shifter-worker", "drain")
    assert done.returncode == 78
    assert "there is no place for this host's catalog" in done.stderr


def test_a_path_that_is_no_text_is_printed_as_it_is(run: Runner, registry: str) -> None:
    images.push(registry, "bytes", "1", small(b"bytes"))
    odd = replace(run, store=run.home / os.fsdecode(b"st\xf6re"))
    strict = {"PYTHONIOENCODING": "utf-8:strict"}
    assert odd("shifterimg", "pull", f"{registry}/bytes:1", env=strict).returncode == 0
    command = [*odd.user.prefix, str(installed("shifterimg")), "path", f"{registry}/bytes:1"]
    done = subprocess.run(
        command, env={**odd.environment, **strict}, cwd=odd.home, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert os.fsencode(odd.store) in done.stdout
