"""What follows an answer neither holds it up nor changes it."""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.conftest import Runner
from tests.helpers import images
from tests.helpers.processes import running, until


def small(text: bytes) -> images.Image:
    return images.image([images.layer([images.file("x", text)])])


def catalog(site: Runner) -> Path:
    until(lambda: bool(list(site.home.rglob("*.sqlite"))))
    (found,) = site.home.rglob("*.sqlite")
    return found


@contextmanager
def _database(path: Path) -> Iterator[None]:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    yield
    database.close()


@contextmanager
def _file(path: Path) -> Iterator[None]:
    """Keep the lock under which the file is changed, and let it need a change."""
    path.rename(f"{path}.away")
    fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    fcntl.flock(fd, fcntl.LOCK_EX)
    yield
    os.close(fd)


@pytest.mark.parametrize("locked", [_database, _file], ids=["database", "file"])
def test_a_locked_catalog_holds_up_no_answer(
    site: Runner,
    asker: Runner,
    registry: str,
    locked: Callable[[Path], AbstractContextManager[None]],
) -> None:
    images.push(registry, "locked", "1", small(b"locked"))
    with running(site, "shifter-worker", "run"):
        assert asker("shifterimg", "pull", f"{registry}/locked:1").returncode == 0
        until(lambda: _knows(catalog(site), f"{registry}/locked:1"))
        with locked(catalog(site)):
            images.push(registry, "locked", "2", small(b"other"))
            for tag in ("1", "2", "none"):
                code = 66 if tag == "none" else 0
                # Well below what an answer took that waited for the catalog.
                done = asker("shifterimg", "pull", f"{registry}/locked:{tag}", timeout=20)
                assert done.returncode == code, done.stderr
        until(lambda: _knows(catalog(site), f"{registry}/locked:2"))


def _knows(path: Path, name: str) -> bool:
    try:
        with sqlite3.connect(path) as database:
            return (name,) in database.execute("select name from names").fetchall()
    except sqlite3.Error:
        # It is being made.
        return False


def test_housekeeping_that_fails_is_no_failure_of_the_request(
    site: Runner, asker: Runner, registry: str
) -> None:
    images.push(registry, "keep", "1", small(b"keep"))
    # What the worker can neither remove nor look into.
    foreign = site.store / "cache/blobs/zz"
    foreign.mkdir()
    (foreign / "old.toc").touch()
    foreign.chmod(0o555)
    with running(asker, "shifterimg", "pull", f"{registry}/keep:1") as pull:
        until(lambda: bool(os.listdir(site.store / "spool/new")))
        done = site("shifter-worker", "drain")
        assert done.returncode == 0
        _, errors = pull.communicate(timeout=60)
        assert pull.returncode == 0, errors
    assert "INFO ready" in done.stderr
