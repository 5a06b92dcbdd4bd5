"""Clients to whom the filesystem lies: never told of a failure that was none, nor of a success."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shifter_lite import durable
from shifter_lite.layout import Layout
from shifter_lite.queue import status, submit
from shifter_lite.reference import Reference
from shifter_lite.request import Request, Status
from tests.conftest import Runner, installed
from tests.helpers import images, spool
from tests.helpers.lying import Liar, Lie

NEW = "*/spool/new/*"


@pytest.fixture(scope="session")
def image(registry: str) -> str:
    """The name of a small image."""
    images.push(registry, "lost", "1", images.image([images.layer([images.file("x", b"x")])]))
    return f"{registry}/lost:1"


@pytest.fixture
def working(site: Runner) -> Iterator[None]:
    """A worker of the site."""
    worker = subprocess.Popen(
        [*site.user.prefix, installed("shifter-worker"), "run"],
        env=site.environment,
        cwd=site.home,
        stderr=subprocess.DEVNULL,
    )
    yield
    worker.terminate()
    worker.wait(60)


def left(store: Path) -> list[str]:
    """Return what is left of requests, but for answered ones."""
    places = ("spool/tmp", "spool/new", "spool/work", "status")
    return [f"{place}/{name}" for place in places for name in os.listdir(store / place)]


SUBMISSIONS = [
    Lie("rename", NEW),
    Lie("rename", NEW, "after", errno.EIO),
    Lie("rename", NEW, "after", errno.ESTALE, most=3),
    Lie("rename", NEW, "before", errno.ETIMEDOUT, most=2),
    Lie("mkdir", "*/status/*"),
    Lie("mkdir", "*/status/*", "after", errno.ENOTCONN),
    Lie("create", "*/spool/tmp/*", most=2),
    Lie("create", "*/spool/tmp/*", "after", errno.EIO),
    Lie("chmod,fsync,write,stat,open", "*/spool/*", "before", errno.EIO, most=2),
]


@pytest.mark.parametrize("lie", SUBMISSIONS, ids=lambda lie: str(lie).strip())
def test_a_request_is_accepted_once_whatever_is_said_of_its_submission(
    asker: Runner, liar: Liar, image: str, lie: Lie
) -> None:
    liar.says(lie)
    done = liar.to(asker)("shifterimg", "pull", "--no-wait", image)
    assert done.returncode == 0, (done.stderr, liar.lies())
    assert liar.lies()
    name = done.stdout.strip()
    assert sorted(left(asker.store)) == [f"spool/new/{name}", f"status/{name}"]


@pytest.mark.parametrize(
    "lies",
    [
        [Lie("rename", NEW)],
        [Lie("open", "*/status/*", "before", errno.ENOTCONN, most=6)],
        [Lie("unlink,rmdir", "*/status/*", most=4)],
        [Lie("unlink,rmdir", "*/status/*", "before", errno.EIO, most=2)],
        [Lie("readdir", "*/status/*", "before", errno.EACCES, most=2)],
    ],
    ids=["submission", "open", "removal-lost", "removal", "EACCES"],
)
def test_a_pull_ends_as_it_ended_and_leaves_nothing(
    asker: Runner, working: None, liar: Liar, image: str, lies: list[Lie]
) -> None:
    liar.says(*lies)
    done = liar.to(asker)("shifterimg", "pull", "--refresh", image)
    assert done.returncode == 0, (done.stderr, liar.lies())
    assert "READY" in done.stdout
    assert liar.lies()
    assert left(asker.store) == []


@pytest.mark.parametrize(
    "lie",
    [
        Lie("rename", NEW),
        Lie("rename", NEW, "after", errno.EIO),
        Lie("unlink", "*/spool/tmp/*"),
        Lie("link", "*/status/*"),
        Lie("create,link", "*/status/*", "before", errno.EIO, most=4),
    ],
    ids=lambda lie: str(lie).strip(),
)
def test_a_request_that_is_cancelled_is_nowhere_and_says_so(
    asker: Runner, liar: Liar, image: str, lie: Lie
) -> None:
    name = asker("shifterimg", "pull", "--no-wait", image).stdout.strip()
    liar.says(lie)
    done = liar.to(asker)("shifterimg", "cancel", name)
    assert done.returncode == 0, (done.stderr, liar.lies())
    assert liar.lies()
    assert left(asker.store) == [f"status/{name}"]
    assert spool.answer(asker.store, name).state == "CANCELLED"
    assert asker("shifterimg", "wait", name).returncode == 79


def test_what_a_dead_client_had_taken_back_the_next_one_cancels(asker: Runner, image: str) -> None:
    name = asker("shifterimg", "pull", "--no-wait", image).stdout.strip()
    (asker.store / "spool/new" / name).rename(asker.store / "spool/tmp" / name)
    assert asker("shifterimg", "cancel", name).returncode == 0
    assert left(asker.store) == [f"status/{name}"]
    assert spool.answer(asker.store, name).state == "CANCELLED"


def asked(layout: Layout) -> Request:
    return Request.new(
        store="0" * 32, image=Reference.parse("localhost/x:1"), platform="linux/amd64"
    )


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A spool."""
    made = Layout(tmp_path / "store")
    for path in (made.writing, made.submitted, made.claimed, made.status):
        path.mkdir(parents=True)
    return made


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(143)])
def test_an_interrupted_submission_that_a_worker_has_is_cancelled(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    request = asked(layout)

    def drop(source: Path, target: Path) -> None:
        source.rename(target)
        target.rename(layout.claimed / f"{request.name}.worker")
        status.Reporter(layout, request.name, os.geteuid())(Status(state="PULLING"))
        raise end

    monkeypatch.setattr(durable, "drop", drop)
    with pytest.raises(type(end)):
        submit.submit(layout, request)
    assert status.CANCEL in os.listdir(layout.status / request.name)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOENT, errno.EDQUOT])
def test_a_submission_that_fails_after_a_worker_has_the_request_has_not_failed(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    request = asked(layout)

    def drop(source: Path, target: Path) -> None:
        source.rename(layout.claimed / f"{request.name}.worker")
        raise OSError(number, "trouble")

    monkeypatch.setattr(durable, "drop", drop)
    assert submit.submit(layout, request) == request.name
    assert os.listdir(layout.status) == [request.name]


def test_a_submission_that_failed_leaves_nothing(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drop(source: Path, target: Path) -> None:
        raise OSError(errno.EDQUOT, "no quota")

    monkeypatch.setattr(durable, "drop", drop)
    with pytest.raises(OSError, match="no quota"):
        submit.submit(layout, asked(layout))
    assert [*layout.writing.iterdir(), *layout.submitted.iterdir(), *layout.status.iterdir()] == []


def test_a_status_that_cannot_be_read_for_long_is_no_end(
    asker: Runner, liar: Liar, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = asker("shifterimg", "pull", "--no-wait", image).stdout.strip()
    liar.says(Lie("readdir", "*/status/*", "before", errno.EREMOTEIO, most=-1))
    program = (
        "from shifter_lite.queue import status; from shifter_lite import transient;"
        "transient.PATIENCE_SECONDS = 0.1; status._PASSING.update({121: 0.2});"
        "import sys; sys.argv = ['shifterimg', 'status', sys.argv[1]];"
        "from shifter_lite.cli.shifterimg import main; main()"
    )
    done = subprocess.run(
        [*liar.command, *asker.user.prefix, installed("python"), "-c", program, name],
        env=asker.environment,
        cwd=asker.home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 75, done.stderr
    assert "trouble" in done.stderr
    assert f"spool/new/{name}" in left(asker.store)


@pytest.mark.parametrize(
    "lie",
    [
        Lie("link", "*/store/locks/*"),
        Lie("unlink", "*/store/locks/*", most=3),
        Lie("create", "*/store/workers/*", most=2),
        Lie("unlink", "*/store/workers/*"),
        Lie("create,link,unlink", "*/store/locks/*", "after", errno.EIO, most=3),
        Lie("open,flock,stat,readdir", "*/store/locks*", "before", errno.EIO, most=6),
        Lie("rename", "*/store/workers/*", most=2),
    ],
    ids=lambda lie: str(lie).strip(),
)
def test_a_worker_starts_and_ends_whatever_is_said_of_its_lock_and_heart(
    site: Runner, liar: Liar, lie: Lie
) -> None:
    liar.says(lie)
    done = liar.to(site)("shifter-worker", "drain")
    assert done.returncode == 0, (done.stderr, liar.lies())
    assert liar.lies() or "rename" in lie.operations
    for place in ("locks", "workers", "builds"):
        assert [name for name in os.listdir(site.store / place) if "worker" in name] == []


def test_what_a_worker_left_that_died_as_it_came_to_life_is_removed(site: Runner) -> None:
    tried = site.store / "locks/.worker.elsewhere.1.0123abcd.lock.link"
    tried.touch()
    assert site("shifter-worker", "drain").returncode == 0
    assert not tried.exists()


def answered(site: Runner, asker: Runner, liar: Liar, image: str) -> tuple[str, str]:
    """Return how the request of ASKER's for IMAGE ends, as a worker is lied to, and what was left.

    Another worker, which is not lied to, comes after it.
    """
    (name,) = spool.ask(site.store, asker.user, [image]).values()
    liar.to(site)("shifter-worker", "drain")
    done = site("shifter-worker", "drain")
    assert done.returncode == 0, done.stderr
    # What is beside a status goes with it.
    hidden = [path for path in site.store.rglob(".*") if "status" not in path.parts]
    places = ("spool/tmp", "spool/new", "spool/work", "workers", "builds")
    found = [path for place in places for path in (site.store / place).iterdir()]
    return spool.answer(site.store, name).state, " ".join(map(str, (*hidden, *found)))


WORKED_ON = [
    Lie("unlink", "*/index/*"),
    Lie("link", "*/index/*"),
    Lie("link", "*/index/*", "after", errno.EIO),
    Lie("fsync", "*/index", "before", errno.EIO),
    Lie("create", "*/index/*", "before", errno.EIO),
    Lie("readdir", "*/index", "before", errno.ESTALE, most=3),
    Lie("unlink,rename,link,create,mkdir", "*/images/*", most=6),
    Lie("unlink,rename,link,create,mkdir", "*/images/*", "after", errno.ETIMEDOUT, most=6),
    Lie("rename,unlink,create,mkdir", "*/cache/blobs/*", most=6),
    Lie("rename,unlink,create,mkdir", "*/cache/blobs/*", "after", errno.EIO, most=6),
    Lie("open,stat,readdir", "*/cache/blobs*", "before", errno.EIO, most=3),
    Lie("open,flock", "*/locks/*.lock", "before", errno.EIO, most=6),
    Lie("rename", "*/workers/*", "before", errno.EIO, most=4),
    Lie("rename", "*/workers/*", most=4),
    Lie("rename", "*/spool/work/*", most=2),
    Lie("rename", "*/spool/work/*", "after", errno.EIO, most=2),
    Lie("rename,open,readdir,stat,fsync", "*/spool/work*", "before", errno.EIO, most=4),
    Lie("create,unlink,readdir", "*/builds*", "before", errno.EIO, most=3),
    Lie("unlink", "*/builds/*", most=3),
]


@pytest.mark.parametrize("lie", WORKED_ON, ids=lambda lie: str(lie).strip())
def test_a_request_is_ready_and_nothing_is_left_whatever_a_worker_is_told(
    site: Runner, asker: Runner, liar: Liar, image: str, lie: Lie
) -> None:
    liar.says(lie)
    state, left_over = answered(site, asker, liar, image)
    assert liar.lies()
    assert (state, left_over) == ("READY", ""), liar.lies()
    assert asker("shifterimg", "lookup", image).returncode == 0


def test_a_filesystem_that_stays_unwell_asks_to_ask_again(
    site: Runner, asker: Runner, liar: Liar, image: str
) -> None:
    liar.says(Lie("fsync", "*/images/*", "before", errno.EIO, most=-1))
    (name,) = spool.ask(site.store, asker.user, [image]).values()
    liar.to(site)("shifter-worker", "drain")
    answer = spool.answer(site.store, name)
    assert (answer.state, answer.exit_code) == ("FAILURE", 75)
    assert "filesystem of the store is in trouble" in answer.fact
    assert asker("shifterimg", "lookup", image).returncode == 66
