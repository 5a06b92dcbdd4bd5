"""The catalog on a service node's disk, which all of its workers open."""

import multiprocessing
import sqlite3
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from shifter_lite.catalog import schema
from shifter_lite.catalog.images import Catalog
from shifter_lite.reference import Reference
from shifter_lite.request import Request

WORKERS = 4


def record(path: Path, number: int, start: Barrier) -> None:
    request = Request(
        name=f"1700000000-0-{number:016x}",
        store="0123456789abcdef" * 2,
        uid=0,
        time=1_700_000_000,
        image=Reference.parse("debian:12"),
        platform="linux/amd64",
    )
    start.wait()
    with Catalog(path) as catalog:
        catalog.record_pulls([request], "a" * 64, 1_700_000_000, built=True)


@pytest.mark.parametrize("old", [False, True])
def test_workers_that_make_the_catalog_at_once_lose_nothing_of_each_other(
    tmp_path: Path, old: bool
) -> None:
    context = multiprocessing.get_context("fork")
    for number in range(20):
        path = tmp_path / f"{number}.sqlite"
        if old:
            with closing(sqlite3.connect(path)) as database:
                database.execute("create table images (old)")
                database.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
        start = context.Barrier(WORKERS)
        workers = [context.Process(target=record, args=(path, n, start)) for n in range(WORKERS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("select count(*) from pulls").fetchone() == (WORKERS,)
