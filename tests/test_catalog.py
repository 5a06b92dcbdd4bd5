"""The catalog follows from the store: whatever becomes of it, it can be made anew."""

import json
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from shifter_lite.catalog import schema
from shifter_lite.catalog.images import Catalog
from shifter_lite.reference import Reference
from shifter_lite.request import Request
from tests.conftest import Runner
from tests.helpers import images, layouts
from tests.helpers.processes import running
from tests.test_worker import small, spool

_PATIENCE = 60.0


def catalog_of(run: Runner, state: Path | None = None) -> Path:
    (path,) = (state or run.home / ".local/state/shifter-lite").glob("*.sqlite")
    return path


def told(path: Path, *tables: str) -> dict[str, list[tuple[object, ...]]]:
    """Return the rows of TABLES of the catalog at PATH."""
    with closing(sqlite3.connect(path)) as database:
        return {each: sorted(database.execute(f"select * from {each}")) for each in tables}


def derived(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return all that a catalog has from the store."""
    return told(path, "images", "names", "seen")


def live(run: Runner, registry: str) -> str:
    """Let the store of RUN live through everything; return the name of an image that moved."""
    name = f"{registry}/lived"
    for number, tag in enumerate(["1", "2", "1"]):
        images.push(registry, "lived", tag, small(b"%d" % number))
        assert run("shifterimg", "pull", "--refresh", f"{name}:{tag}").returncode == 0
    several = images.index({"linux/amd64": small(b"a"), "linux/arm64": small(b"b")})
    images.push(registry, "lived", "index", several)
    assert run("shifterimg", "pull", f"{name}:index").returncode == 0
    assert run("shifterimg", "pull", f"{name}:none").returncode == 66
    layouts.write(run.home / "layout", small(b"imported"), "it")
    subprocess.run(["chmod", "-R", "a+rX", run.home / "layout"], check=True)
    done = run("shifterimg", "import", run.home / "layout", "localhost/it:1")
    assert done.returncode == 0, done.stderr
    return f"{name}:1"


# ------------------------------------------------------------------------------- made anew


def test_a_catalog_made_anew_equals_one_that_lived_through_everything(
    run: Runner, registry: str, workdir: Path
) -> None:
    live(run, registry)
    lived = catalog_of(run)
    before, pulls = derived(lived), told(lived, "pulls")
    assert [len(before[each]) for each in ("images", "seen")] == [5, 1]
    for state in (None, workdir / "another"):
        env = {} if state is None else {"XDG_STATE_HOME": str(state)}
        if state:
            state.mkdir()
            os.chown(state, run.user.uid, run.user.gid)
        done = run("shifter-admin", "rebuild", env=env)
        assert done.returncode == 0, done.stderr
        path = catalog_of(run, state and state / "shifter-lite")
        names = len(before["names"])
        assert done.stdout.startswith(f"{path}: 5 images under {names} names, ")
        assert derived(path) == before
    assert told(lived, "pulls") == pulls


def test_a_catalog_made_anew_has_the_pulls_of_which_their_images_are_known(
    run: Runner, registry: str
) -> None:
    moved = live(run, registry)
    path = catalog_of(run)
    lived = told(path, "pulls")["pulls"]
    path.unlink()
    assert run("shifter-admin", "rebuild").returncode == 0
    recovered = told(path, "pulls")["pulls"]
    # Without when exactly, and whether it was built.
    known = {row[:4] for row in lived}
    assert {row[:4] for row in recovered} <= known
    lost = {row[2] for row in known - {row[:4] for row in recovered}}
    # What the name meant before it moved, nobody knows; the moment decides about the others.
    assert lost <= {moved}


def test_what_users_write_into_answered_requests_makes_no_pull(
    site: Runner, asker: Runner, registry: str
) -> None:
    images.push(registry, "kept", "1", small())
    with running(asker, "shifterimg", "pull", f"{registry}/kept:1") as pull:
        while pull.poll() is None:
            assert site("shifter-worker", "drain").returncode == 0
    (name,) = spool(site.store, "done")
    (path,) = (site.store / "spool/done").rglob(name)
    good = json.loads(path.read_bytes())
    other = f"{name[:-16]}{0:016x}"
    secret = site.home / "secret"
    secret.write_text(json.dumps({**good, "name": f"{name[:-16]}{9:016x}"}))
    bad: list[Callable[[Path], object]] = [
        lambda at: at.write_text(json.dumps({**good, "uid": 0})),
        lambda at: at.write_text(json.dumps({**good, "store": "0" * 32})),
        lambda at: at.write_text(json.dumps(good)),
        lambda at: at.write_text("[" * 50_000),
        lambda at: at.write_text("\0" * 100_000),
        os.mkfifo,
        os.mkdir,
        lambda at: at.symlink_to(secret),
        lambda at: os.link(secret, at),
    ]
    for number, make in enumerate(bad):
        at = path.with_name(f"{other[:-1]}{number + 1}")
        make(at)
        if at.is_file() and not at.is_symlink():
            os.chown(at, asker.user.uid, asker.user.gid)
    path.with_name("no request").write_text("x")
    done = site("shifter-admin", "rebuild")
    assert done.returncode == 0, done.stderr
    (pull_kept,) = told(catalog_of(site), "pulls")["pulls"]
    assert pull_kept[:3] == (name, asker.user.uid, f"{registry}/kept:1")


def test_images_without_a_record_are_known_from_themselves_and_lost_ones_not(
    run: Runner, registry: str
) -> None:
    live(run, registry)
    before = derived(catalog_of(run))
    records = sorted((run.store / "images").rglob("*.json"))
    records[0].unlink()
    records[1].write_text("{")
    assert run("shifter-admin", "rebuild").returncode == 0
    assert derived(catalog_of(run)) == before
    shutil.rmtree(records[0].parent)
    done = run("shifter-admin", "rebuild")
    assert done.returncode == 0
    left = derived(catalog_of(run))
    gone = {records[0].stem}
    assert {row[0] for row in before["images"]} - {row[0] for row in left["images"]} == gone
    assert left["names"] == [row for row in before["names"] if row[1] not in gone]


# ---------------------------------------------------------------------------------- damaged


def _overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def _execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(statement)
        database.commit()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "garbage": lambda path: path.write_bytes(b"\xa5" * 50_000),
    "text": lambda path: path.write_text("this is no database\n" * 100),
    "zeros within": lambda path: _overwrite(path, 4096, bytes(path.stat().st_size - 4096)),
    "garbage within": lambda path: _overwrite(path, 4096, b"\xa5" * (path.stat().st_size - 4096)),
    "no table": lambda path: _execute(path, "drop table names"),
    "no row": lambda path: _execute(path, "delete from seen"),
    "a journal of something else": lambda path: [
        path.write_bytes(b"x" * 5000),
        path.with_name(path.name + "-journal").write_bytes(b"y" * 5000),
    ],
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("command", ["pull", "rebuild"])
def test_a_damaged_catalog_is_put_aside_and_made_anew(
    run: Runner, registry: str, damage: str, command: str
) -> None:
    images.push(registry, "damaged", "1", small())
    images.push(registry, "damaged", "2", small(b"2"))
    assert run("shifterimg", "pull", f"{registry}/damaged:1").returncode == 0
    path = catalog_of(run)
    DAMAGE[damage](path)
    for each in path.parent.iterdir():
        os.chown(each, run.user.uid, run.user.gid)
    spoilt = path.read_bytes()
    if command == "pull":
        done = run("shifterimg", "pull", f"{registry}/damaged:2")
    else:
        done = run("shifter-admin", "rebuild")
    assert done.returncode == 0, done.stderr
    fresh = derived(path)
    assert len(fresh["images"]) == (2 if command == "pull" else 1)
    aside = [each for each in path.parent.iterdir() if ".damaged." in each.name]
    assert spoilt in [each.read_bytes() for each in aside]
    assert len(aside) == 1
    assert run("shifter-admin", "rebuild").returncode == 0
    assert derived(path) == fresh
    assert len([each for each in path.parent.iterdir() if ".damaged." in each.name]) == len(aside)


def test_of_many_who_find_it_damaged_one_puts_it_aside(run: Runner, registry: str) -> None:
    live(run, registry)
    path = catalog_of(run)
    before = derived(path)
    path.write_bytes(b"\xa5" * 50_000)
    rebuilding = [running(run, "shifter-admin", "rebuild") for _ in range(4)]
    started = [each.__enter__() for each in rebuilding]
    errors = [each.communicate(timeout=_PATIENCE)[1] for each in started]
    for each in rebuilding:
        each.__exit__(None, None, None)
    assert [each.returncode for each in started] == [0] * 4, errors
    assert len([each for each in path.parent.iterdir() if ".damaged." in each.name]) == 1
    assert derived(path) == before


def test_a_worker_with_nothing_to_answer_completes_the_catalog_that_a_dead_one_left(
    run: Runner, registry: str
) -> None:
    images.push(registry, "completed", "1", small(b"1"))
    assert run("shifterimg", "pull", f"{registry}/completed:1").returncode == 0
    path = catalog_of(run)
    old = path.read_bytes()
    images.push(registry, "completed", "2", small(b"2"))
    assert run("shifterimg", "pull", f"{registry}/completed:2").returncode == 0
    right = derived(path)
    path.write_bytes(old)
    assert derived(path) != right
    assert run("shifter-worker", "drain").returncode == 0
    assert derived(path) == right
    path.unlink()
    assert run("shifter-worker", "drain").returncode == 0
    assert derived(path) == right


def test_a_catalog_that_cannot_be_made_is_told_and_stops_no_pull(
    run: Runner, registry: str
) -> None:
    images.push(registry, "unwritable", "1", small())
    state = run.home / "state"
    state.mkdir()
    state.chmod(0o555)
    env = {"XDG_STATE_HOME": str(state)}
    assert run("shifterimg", "pull", f"{registry}/unwritable:1", env=env).returncode == 0
    done = run("shifter-admin", "rebuild", env=env)
    assert done.returncode == 77
    (state / "shifter-lite").mkdir(mode=0o555)
    done = run("shifter-admin", "rebuild", env=env)
    assert done.returncode in (71, 77)
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------- several hosts


def test_each_hosts_catalog_catches_up_with_what_others_have_published(
    run: Runner, registry: str, workdir: Path
) -> None:
    states = [workdir / "one", workdir / "two"]
    for state in states:
        state.mkdir()
        os.chown(state, run.user.uid, run.user.gid)
    for number in range(6):
        images.push(registry, "hosts", str(number % 4), small(b"%d" % number))
        env = {"XDG_STATE_HOME": str(states[number % 3 % 2])}
        name = f"{registry}/hosts:{number % 4}"
        done = run("shifterimg", "pull", "--refresh", name, env=env)
        assert done.returncode == 0, done.stderr
    for state in states:
        env = {"XDG_STATE_HOME": str(state)}
        done = run("shifterimg", "pull", "--refresh", f"{registry}/hosts:0", env=env)
        assert done.returncode == 0, done.stderr
    one, two = (catalog_of(run, state / "shifter-lite") for state in states)
    for key in ("images", "names", "seen"):
        assert set(derived(one)[key]) ^ set(derived(two)[key]) == set(), key
    assert len(derived(one)["images"]) == 6
    assert len(told(one, "pulls")["pulls"] + told(two, "pulls")["pulls"]) == 8


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
    for number in range(8):
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
