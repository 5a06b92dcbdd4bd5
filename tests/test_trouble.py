"""A store's trouble is waited for, and is never the fault of who asked."""

import errno
import os
import sqlite3
import stat
import subprocess
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from shifter_lite import store as stores
from shifter_lite.layout import Layout
from shifter_lite.queue import claim, status
from shifter_lite.queue.attendant import Unwanted
from shifter_lite.queue.batch import Batch
from shifter_lite.queue.claim import Claim, Rejected
from shifter_lite.queue.worker import Worker
from shifter_lite.request import Status
from tests.conftest import Runner
from tests.helpers import images, storm
from tests.helpers.processes import running, until
from tests.test_queue import put

# What owners have no part in, as far as can be seen: evicted clients, expired tickets, quota,
# permissions of the store.
ERRNOS = [
    "EACCES", "EAGAIN", "EBUSY", "ECONNREFUSED", "EDQUOT", "EINTR", "EIO", "EKEYEXPIRED",
    "ELOOP", "ENETDOWN", "ENODEV", "ENOLCK", "ENOSPC", "ENOTCONN", "ENXIO", "EPERM",
    "EREMOTEIO", "ESHUTDOWN", "EXDEV",
]  # fmt: skip
_PATIENCE = 20.0


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "store")
    stores.create(made, shared=False)
    return made


@pytest.fixture
def worker(layout: Layout) -> Iterator[Worker]:
    with Worker(layout, stores.identity(layout)) as living:
        yield living


def failing_once(call: Callable[..., object], number: int, path: Path) -> Callable[..., object]:
    """Return CALL, which fails the first time that it is to do something with PATH."""
    left = [None]

    def may_fail(first: object, *rest: object, **more: object) -> object:
        if left and str(first) == str(path):
            left.pop()
            raise OSError(number, os.strerror(number), str(path))
        return call(first, *rest, **more)

    return may_fail


def next_of(worker: Worker) -> Batch:
    """Return what is claimed in the end; nothing may be rejected meanwhile."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        worker.backlog.refresh(now=True)
        assert list(worker.rejections()) == []
        found = worker.next()
        assert not isinstance(found, Rejected)
        if found is not None:
            return found
        time.sleep(0.05)
    pytest.fail("it is never claimed")


@pytest.mark.parametrize("name", ERRNOS)
def test_a_request_that_cannot_be_moved_or_read_once_is_claimed_later(
    layout: Layout, worker: Worker, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    number = getattr(errno, name)
    asked = put(layout)
    there = layout.submitted / asked.name
    monkeypatch.setattr(os, "rename", failing_once(os.rename, number, there))
    monkeypatch.setattr(os, "open", failing_once(os.open, number, there))
    batch = next_of(worker)
    assert batch.request == asked
    batch.hand_back()
    claimed = layout.claimed / f"{asked.name}.{worker.name}"
    monkeypatch.setattr(os, "open", failing_once(os.open, number, claimed))
    with pytest.raises(OSError, match=os.strerror(number)):
        claim.claim(layout, asked.name, store=asked.store, worker=worker.name)
    worker.recover(lambda: None)
    assert next_of(worker).request == asked


def test_others_are_answered_while_one_request_cannot_be_moved(
    layout: Layout, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can be two users")
    stuck, asked = put(layout), put(layout, "debian:13")
    name = asked.name.replace("-0-", "-4711-")
    data = (layout.submitted / asked.name).read_text()
    (layout.submitted / asked.name).unlink()
    other = layout.submitted / name
    other.write_text(data.replace(asked.name, name).replace('"uid":0', '"uid":4711'))
    other.chmod(0o640)
    os.chown(other, 4711, -1)
    there = str(layout.submitted / stuck.name)
    rename = os.rename

    def renamed(source: object, *rest: object) -> None:
        if str(source) == there:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(source, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "rename", renamed)
    for _ in range(3):
        batch = next_of(worker)
        assert batch.request.name == name
        batch.hand_back()


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def _socket(path: Path) -> None:
    path.unlink()
    os.mknod(path, stat.S_IFSOCK | 0o600)


@pytest.mark.parametrize(
    "made", [_directory, _pipe, _link, _socket], ids=lambda made: made.__name__
)
def test_what_its_owner_made_no_request_is_his_fault(
    layout: Layout, worker: Worker, made: Callable[[Path], None]
) -> None:
    asked = put(layout)
    made(layout.submitted / asked.name)
    worker.backlog.refresh(now=True)
    found = [*worker.rejections(), worker.next(), *worker.rejections()]
    assert [each.name for each in found if isinstance(each, Rejected)] == [asked.name]
    assert not any(isinstance(each, Claim | Batch) for each in found)


def test_a_store_whose_owner_may_not_write_burns_no_requests(
    site: Runner, asker: Runner, registry: str
) -> None:
    images.push(registry, "burn", "1", images.image([images.layer([images.file("x", b"x")])]))
    work = site.store / "spool/work"
    names = []
    for _ in range(3):
        done = asker("shifterimg", "pull", "--no-wait", f"{registry}/burn:1")
        names.append(done.stdout.strip())
    work.chmod(0o550)
    done = site("shifter-worker", "drain")
    assert done.returncode == 75, done.stderr
    assert f"the filesystem of the store is in trouble: '{site.store}" in done.stderr
    work.chmod(0o750)
    assert sorted(os.listdir(site.store / "spool/new")) == sorted(names)
    assert site("shifter-worker", "drain").returncode == 0
    for name in names:
        done = asker("shifterimg", "wait", name)
        assert done.returncode == 0, done.stderr


def descriptors(pid: int) -> list[str]:
    """Return what the process PID has open."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        # It may be closed meanwhile.
        with suppress(FileNotFoundError):
            found.append(os.readlink(path))
    return found


def is_catalogued(site: Runner) -> bool:
    """Return whether the catalog of SITE tells of any pull."""
    # It may just be made.
    with suppress(sqlite3.OperationalError):
        return storm.builds([site]) != {}
    return False


@pytest.mark.parametrize("left", range(6))
def test_a_worker_that_cannot_open_files_hands_its_work_back_and_ends(
    site: Runner, asker: Runner, registry: str, left: int
) -> None:
    images.push(registry, "few", "1", images.image([images.layer([images.file("x", b"x")])]))
    with running(site, "shifter-worker", "run") as worker:
        until(lambda: any("inotify" in link for link in descriptors(worker.pid)))
        most = len(descriptors(worker.pid)) + left
        # As its owner: more than that takes a capability.
        limit = ["prlimit", f"--pid={worker.pid}", f"--nofile={most}:{most}"]
        subprocess.run([*site.user.prefix, *limit], check=True)
        with running(asker, "shifterimg", "pull", f"{registry}/few:1") as pull:
            # It ends, unless that was enough for all of it: for the answer and the catalog.
            until(lambda: worker.poll() is not None or is_catalogued(site))
            if worker.poll() is None:
                assert left > 0
                worker.terminate()
            else:
                assert worker.returncode == 71
            _, log = worker.communicate(timeout=60)
            assert "Traceback" not in log
            if worker.returncode == 71:
                assert "shifter-worker: this worker can work no more: " in log
            for place in ("workers", "spool/work", "builds"):
                assert os.listdir(site.store / place) == []
            # Either it was answered, or it was handed back.
            answered = " ready request=" in log
            assert left > 0 or not answered
            # It may even have ended before anything was asked.
            until(lambda: answered or len(os.listdir(site.store / "spool/new")) == 1)
            assert answered == (os.listdir(site.store / "spool/new") == [])
            assert site("shifter-worker", "drain").returncode == 0
            _, errors = pull.communicate(timeout=60)
            assert pull.returncode == 0, errors


# ------------------------------------------------------------------------- the end is always told


@pytest.fixture
def ready(asker: Runner, site: Runner, registry: str) -> str:
    """The name of an image that the store has."""
    images.push(registry, "told", "1", images.image([images.layer([images.file("x", b"x")])]))
    asked = asker("shifterimg", "pull", "--no-wait", f"{registry}/told:1")
    assert site("shifter-worker", "drain").returncode == 0
    assert asker("shifterimg", "wait", asked.stdout.strip()).returncode == 0
    return f"{registry}/told:1"


@pytest.mark.parametrize(("tag", "code"), [("1", 0), ("none", 66)])
def test_an_end_that_cannot_be_written_is_written_soon_after(
    site: Runner, asker: Runner, ready: str, tag: str, code: int
) -> None:
    name = asker("shifterimg", "pull", "--no-wait", f"{ready[:-1]}{tag}").stdout.strip()
    statuses = site.store / "status"
    mode = stat.S_IMODE(statuses.stat().st_mode)
    statuses.chmod(0)
    with running(site, "shifter-worker", "run") as worker:
        assert worker.stderr is not None
        assert "the end is not told yet" in next(
            line for line in worker.stderr if "the end" in line
        )
        statuses.chmod(mode)
        # Not only when the worker tidies up.
        done = asker("shifterimg", "wait", name, timeout=30)
        assert done.returncode == code, done.stderr
        until(lambda: os.listdir(site.store / "spool/work") == [])


def test_an_end_that_a_worker_could_not_write_is_found_again_by_the_next(
    site: Runner, asker: Runner, ready: str
) -> None:
    name = asker("shifterimg", "pull", "--no-wait", ready).stdout.strip()
    statuses = site.store / "status"
    mode = stat.S_IMODE(statuses.stat().st_mode)
    statuses.chmod(0)
    with running(site, "shifter-worker", "run") as worker:
        assert worker.stderr is not None
        assert any("the end is not told yet" in line for line in worker.stderr)
        worker.terminate()
        worker.wait(60)
    assert os.listdir(site.store / "spool/new") == [name]
    statuses.chmod(mode)
    assert site("shifter-worker", "drain").returncode == 0
    done = asker("shifterimg", "wait", name)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.ESTALE, errno.EEXIST])
def test_an_end_is_told_in_spite_of_errors_and_lost_replies(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for call in ("link", "unlink", "open", "listdir"):
        asked = put(layout)
        real, left = getattr(os, call), [3]

        def failing(
            *arguments: object,
            real: Callable[..., object] = real,
            left: list[int] = left,
            **more: object,
        ) -> object:
            done = real(*arguments, **more)
            if left[0] and ("dir_fd" in more or "src_dir_fd" in more):
                left[0] -= 1
                # Done, but the answer was lost.
                raise OSError(number, os.strerror(number))
            return done

        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            reporter = status.Reporter(layout, asked.name, os.getuid())
            until(partial(reporter, Status(state="READY")), 5)
        assert status.read(layout, asked.name).state == "READY"


def test_a_status_that_its_owner_has_closed_holds_up_nothing(layout: Layout) -> None:
    asked = put(layout)
    (layout.status / asked.name).rmdir()
    assert status.Reporter(layout, asked.name, os.getuid())(Status(state="READY"))
    (layout.status / asked.name).touch()
    assert status.Reporter(layout, asked.name, os.getuid())(Status(state="READY"))


# ------------------------------------------------------------------- what is interrupted


class _Slow:
    """Something whose finalizer takes a while, in which Python drops what a signal raises."""

    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    def __del__(self) -> None:
        self._seen.append("began")
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            pass
        self._seen.append("ended")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_that_a_finalizer_swallows_is_raised_again(worker: Worker) -> None:
    seen: list[str] = []

    def build() -> None:
        slow = _Slow(seen)
        del slow
        time.sleep(8)
        seen.append("went on")

    with pytest.raises(Unwanted), worker.attendant.guarding(lambda: False):
        build()
    assert seen[0] == "began"
    assert "went on" not in seen


def test_what_was_interrupted_is_not_kept(worker: Worker) -> None:
    class Tree:
        pass

    kept = []

    def build() -> None:
        tree = Tree()
        kept.append(weakref.ref(tree))
        time.sleep(20)

    with suppress(Unwanted), worker.attendant.guarding(lambda: False):
        build()
    assert kept[0]() is None
