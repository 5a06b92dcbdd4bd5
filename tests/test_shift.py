"""A worker's turns go on, whatever the filesystem does to one of them."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from shifter_lite import config, durable, steps, worker
from shifter_lite import store as stores
from shifter_lite.errors import Damaged
from shifter_lite.executor.local import Builds
from shifter_lite.layout import Layout
from shifter_lite.queue import submit
from shifter_lite.queue.status import Reporter
from shifter_lite.reference import Reference
from shifter_lite.request import Request, Status, request_day
from shifter_lite.shift import Shift
from shifter_lite.steps import Bench

_PATIENCE = 60.0


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[Bench, Builds]]:
    layout = Layout(tmp_path / "store")
    identity = stores.create(layout, shared=False)
    with worker.building(layout, identity, config.read_site({"HOME": str(tmp_path)})) as made:
        yield made


@pytest.fixture
def bench(made: tuple[Bench, Builds]) -> Bench:
    return made[0]


@pytest.fixture
def builds(made: tuple[Bench, Builds]) -> Builds:
    return made[1]


def ask(bench: Bench) -> str:
    image = Reference.parse("debian:12")
    asked = Request.new(store=bench.store, image=image, platform="linux/amd64")
    return submit.submit(bench.layout, asked)


def never(*_: object) -> NoReturn:
    pytest.fail("there is nothing to build")


def turn_until(shift: Shift, wanted: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE
    while not wanted() and time.monotonic() < until:
        shift.turn()
        time.sleep(0.05)
    assert wanted()


def test_what_cannot_be_moved_away_now_though_it_is_answered_is_moved_later(
    bench: Bench, builds: Builds
) -> None:
    name = ask(bench)
    Reporter(bench.layout, name, os.geteuid())(Status(state="READY"))
    done = bench.layout.done / request_day(name)
    done.touch()
    with Shift(bench, builds, never) as shift:
        with pytest.raises(NotADirectoryError):
            shift.turn()
        done.unlink()
        turn_until(shift, (done / name).exists)


def test_a_mark_that_an_interrupted_build_left_keeps_nobody_from_building(
    bench: Bench, builds: Builds
) -> None:
    (bench.layout.builds / f"key.{bench.worker.name}").touch()
    with Shift(bench, builds, never) as shift:
        turn_until(shift, lambda: not os.listdir(bench.layout.builds))


def test_a_damaged_store_ends_no_worker(
    bench: Bench, builds: Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[BaseException] = [KeyboardInterrupt(), Damaged("the index is damaged")]

    def turn(_: Shift) -> bool:
        raise turns.pop()

    monkeypatch.setattr(Shift, "turn", turn)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        worker.run(bench, builds)


def test_what_is_left_of_an_interrupted_publication_is_no_obstacle(bench: Bench) -> None:
    published = bench.layout.index / "images.0000000001.cdb"
    durable.unfinished_name(published, bench.worker.name).touch()
    steps.fence(bench)
    assert os.listdir(bench.layout.index) == [published.name]
