"""Who asked learns how it stands, and can say that he wants it no more."""

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shifter_lite import store as stores
from shifter_lite.errors import Damaged
from shifter_lite.layout import Layout
from shifter_lite.queue import claim, status, submit, sweep
from shifter_lite.queue.status import Reporter
from shifter_lite.reference import Reference
from shifter_lite.request import Request, Status

READY = Status(state="READY", image_id="ab" * 32)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "store")
    stores.create(made, shared=False)
    return made


@pytest.fixture
def asked(layout: Layout) -> str:
    """The name of a request that was submitted."""
    identity = stores.identity(layout)
    image = Reference.parse("debian:12")
    return submit.submit(layout, Request.new(store=identity, image=image, platform="linux/amd64"))


def report(layout: Layout, name: str, *statuses: Status) -> None:
    reporter = Reporter(layout, name, os.geteuid())
    for each in statuses:
        reporter(each)
    reporter.close()


# ----------------------------------------------------------------------------------- submitting


def test_a_worker_may_claim_before_the_client_has_looked_again(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def and_claimed(source: Any, target: Any, **more: Any) -> None:
        rename(source, target, **more)
        if Path(target).parent == layout.submitted:
            rename(target, layout.claimed / f"{Path(target).name}.worker")

    monkeypatch.setattr(os, "rename", and_claimed)
    image = Reference.parse("debian:12")
    asked = Request.new(store=stores.identity(layout), image=image, platform="linux/amd64")
    assert submit.submit(layout, asked) == asked.name
    assert os.listdir(layout.claimed) == [f"{asked.name}.worker"]
    assert os.listdir(layout.status) == [asked.name]


# -------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("lost", [b"", b"\0" * 100])
def test_a_status_that_a_power_loss_emptied_is_skipped(
    layout: Layout, asked: str, lost: bytes
) -> None:
    report(layout, asked, Status(state="PULLING", done=1, total=2))
    (layout.status / asked / "000002.json").write_bytes(lost)
    assert status.read(layout, asked).done == 1
    report(layout, asked, READY)
    assert status.read(layout, asked) == READY


def test_a_status_that_is_not_as_we_write_it_is_damaged(layout: Layout, asked: str) -> None:
    good = READY.to_bytes()
    path = layout.status / asked / "000001.json"
    for bad in (
        b"{}\n",
        b"[" * 50000 + b"}\n",
        good.replace(b'"READY"', b'"ALMOST"'),
        good.replace(b'"exit_code":0', b'"exit_code":"x"'),
        good.replace(b'"done":0', b'"done":1.5'),
        good.replace(b'"fact":""', b'"fact":[]'),
        good.replace(b'"hint":"",', b""),
    ):
        assert bad != good
        path.write_bytes(bad)
        with pytest.raises(Damaged):
            status.read(layout, asked)


def test_what_is_no_plain_file_is_no_status_and_blocks_nobody(layout: Layout, asked: str) -> None:
    report(layout, asked, READY)
    os.mkfifo(layout.status / asked / "000009.json")
    (layout.status / asked / "000008.json").mkdir()
    assert status.read(layout, asked) == READY


def test_statuses_that_go_while_they_are_read_are_never_taken_for_none(
    layout: Layout, asked: str
) -> None:
    report(layout, asked, Status(state="PULLING", done=0, total=1))
    stop = threading.Event()

    def write() -> None:
        done = 0
        while not stop.is_set():
            done += 1
            report(layout, asked, Status(state="PULLING", done=done % 1000, total=1))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            assert status.read(layout, asked).state == "PULLING"
    finally:
        stop.set()
        writer.join()


def test_an_absent_request_and_somebody_elses_are_told_apart(layout: Layout, asked: str) -> None:
    with pytest.raises(FileNotFoundError):
        status.read(layout, "1700000000-0-0123456789abcdef")
    with pytest.raises(PermissionError):
        status.read(layout, asked, os.geteuid() + 1)
    os.symlink(layout.status / asked, layout.status / "link")
    with pytest.raises(NotADirectoryError):
        status.read(layout, "link")


# -------------------------------------------------------------------------------------- waiting


def test_who_follows_a_request_sees_its_end_and_nothing_after_it(
    layout: Layout, asked: str
) -> None:
    seen = []
    for now in status.follow(layout, asked):
        seen.append(now.state)
        report(layout, asked, READY if len(seen) == 3 else Status(state="PULLING"))
    assert seen == ["PENDING", "PULLING", "PULLING", "READY"]


def fail_at(
    monkeypatch: pytest.MonkeyPatch, looks: range, number: int, path: Path
) -> Callable[[], int]:
    """Let opening PATH fail with the error NUMBER at these LOOKS; return what counts them."""
    opened = [0]
    real = os.open

    def instead(name: Any, *arguments: Any, **more: Any) -> int:
        if name == path:
            opened[0] += 1
            if opened[0] in looks:
                raise OSError(number, os.strerror(number), str(path))
        return real(name, *arguments, **more)

    monkeypatch.setattr(os, "open", instead)
    return lambda: opened[0]


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ENOENT])
def test_what_a_filesystem_says_for_a_moment_ends_no_waiting(
    layout: Layout, asked: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    looks = fail_at(monkeypatch, range(3, 6), number, layout.status / asked)
    states = []
    for now in status.follow(layout, asked):
        states.append(now.state)
        if looks() > 5:
            report(layout, asked, READY)
    assert states[-1] == "READY"


def test_a_request_that_is_gone_or_was_never_there_is_not_waited_for(
    layout: Layout, asked: str
) -> None:
    with pytest.raises(FileNotFoundError):
        list(status.follow(layout, "1700000000-0-0123456789abcdef"))
    looks = status.follow(layout, asked)
    assert next(looks).state == "PENDING"
    status.forget(layout, asked)
    with pytest.raises(FileNotFoundError):
        next(looks)


def test_what_may_not_be_read_is_not_waited_for(
    layout: Layout, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, range(3, 1000), errno.EACCES, layout.status / asked)
    with pytest.raises(PermissionError):
        list(status.follow(layout, asked))


# ----------------------------------------------------------------------------------- cancelling


def test_a_request_that_nobody_has_ends_at_once_when_it_is_cancelled(
    layout: Layout, asked: str
) -> None:
    assert submit.cancel(layout, asked)
    assert os.listdir(layout.submitted) == []
    assert status.read(layout, asked).state == "CANCELLED"
    assert [now.state for now in status.follow(layout, asked)] == ["CANCELLED"]


def test_the_worker_that_has_a_request_learns_that_it_is_cancelled(
    layout: Layout, asked: str
) -> None:
    (layout.submitted / asked).rename(layout.claimed / f"{asked}.worker")
    reporter = Reporter(layout, asked, os.geteuid())
    assert not reporter.cancelled()
    for _ in range(2):
        assert not submit.cancel(layout, asked)
        assert reporter.cancelled()
    assert status.read(layout, asked).state == "PENDING"
    status.forget(layout, asked)
    assert not reporter.cancelled()
    reporter.close()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/", path)])
def test_any_kind_of_file_cancels_and_none_is_opened(
    layout: Layout, asked: str, make: Callable[[Path], None]
) -> None:
    reporter = Reporter(layout, asked, os.geteuid())
    make(layout.status / asked / "cancel")
    assert reporter.cancelled()
    reporter.close()


def test_only_its_owner_can_cancel_a_request(layout: Layout, asked: str) -> None:
    other = Reporter(layout, asked, os.geteuid() + 1)
    status.ask_to_stop(layout, asked)
    assert not other.cancelled()
    (layout.status / "elsewhere").mkdir()
    (layout.status / "elsewhere/cancel").touch()
    linked = "1700000000-0-0123456789abcdef"
    (layout.status / linked).symlink_to(layout.status / "elsewhere")
    assert not Reporter(layout, linked, os.geteuid()).cancelled()


def test_what_its_owner_fills_a_status_directory_with_slows_no_worker(
    layout: Layout, asked: str
) -> None:
    for number in range(2000):
        (layout.status / asked / f"x{number}").touch()
    read = []
    real = os.scandir

    class Counted:
        def __init__(self, fd: int) -> None:
            self.entries = real(fd)

        def __enter__(self) -> "Counted":
            return self

        def __exit__(self, *_: object) -> None:
            self.entries.close()

        def __iter__(self) -> "Counted":
            return self

        def __next__(self) -> Any:
            read.append(1)
            return next(self.entries)

    reporter = Reporter(layout, asked, os.geteuid())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", Counted)
        reporter.cancelled()
    reporter.close()
    assert 0 < len(read) <= 100


def test_who_woke_too_late_takes_the_last_word_from_nobody(layout: Layout, asked: str) -> None:
    woken, living = (Reporter(layout, asked, os.geteuid()) for _ in range(2))
    for number in range(5):
        woken(Status(state="PULLING", done=number))
    living(Status(state="PULLING"))
    living(READY)
    assert status.read(layout, asked) == READY
    woken(Status(state="PENDING"))
    woken(Status(state="FAILURE", fact="too late"))
    assert status.read(layout, asked) == READY


# --------------------------------------------------------------------------- no room, and tidying


def full(monkeypatch: pytest.MonkeyPatch, wanted: Callable[[int], bool]) -> None:
    """Let every write fail, cut off, of whose number WANTED is true."""
    written = [0]
    real = os.write

    def instead(fd: int, data: bytes) -> int:
        written[0] += 1
        if not wanted(written[0]):
            return real(fd, data)
        real(fd, data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", instead)


def test_a_status_that_does_not_fit_leaves_nothing_and_no_half_of_it(
    layout: Layout, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(monkeypatch, lambda number: number > 1)
    report(layout, asked, *(Status(state="PULLING", done=n, total=9) for n in range(1, 9)))
    assert status.read(layout, asked).done == 1
    assert os.listdir(layout.status / asked) == ["000001.json"]


def test_the_end_is_tried_again_when_older_statuses_have_made_room(
    layout: Layout, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(monkeypatch, lambda number: number == 3)
    report(layout, asked, Status(state="PULLING"), Status(state="PULLING", done=1), READY)
    assert status.read(layout, asked) == READY


def grow_old(path: Path) -> None:
    """Let PATH have been as it is for five days."""
    long_ago = time.time() - 5 * 86400
    os.utime(path, (long_ago, long_ago), follow_symlinks=False)


def test_an_answer_stays_for_two_days_however_long_it_was_waited_for(layout: Layout) -> None:
    name = f"{int(time.time()) - 5 * 86400}-{os.getuid()}-{0:016x}"
    (layout.status / name).mkdir()
    report(layout, name, READY)
    sweep.sweep(layout)
    assert status.read(layout, name) == READY
    grow_old(layout.status / name)
    sweep.sweep(layout)
    assert os.listdir(layout.status) == []


def test_a_directory_that_its_owner_has_filled_does_not_hold_up_sweeping(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = layout.status / f"{int(time.time()) - 5 * 86400}-{os.getuid()}-{0:016x}"
    old.mkdir()
    for number in range(150):
        (old / f"x{number}").touch()
    grow_old(old)
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "_LONGEST_SECONDS", 0.0)
        sweep.sweep(layout)
    assert len(os.listdir(old)) == 150
    sweep.sweep(layout)
    assert os.listdir(layout.status) == []


def test_a_sweep_while_an_answer_is_forgotten_leaves_nothing_of_it(
    layout: Layout, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = claim.claim(layout, asked, store=stores.identity(layout), worker="worker")
    assert isinstance(found, claim.Claim)
    found.done()
    report(layout, asked, READY)
    unlink = os.unlink
    told: list[Status] = []

    def and_swept(path: Any, **more: Any) -> None:
        unlink(path, **more)
        if not told and path == "000001.json":
            # To the sweep it is a request whose answer a power loss took.
            sweep.sweep(layout)
            told.append(status.read(layout, asked))

    monkeypatch.setattr(os, "unlink", and_swept)
    status.forget(layout, asked)
    assert [each.state for each in told] == ["READY"]
    assert os.listdir(layout.status) == []


def test_sweeping_follows_no_link_that_somebody_put_among_the_statuses(layout: Layout) -> None:
    directory = layout.images / "ab"
    directory.mkdir()
    (directory / "image").write_text("x")
    old = f"{int(time.time()) - 5 * 86400}-4711-{0:016x}"
    (layout.status / old).symlink_to(directory)
    grow_old(layout.status / old)
    sweep.sweep(layout)
    assert os.listdir(directory) == ["image"]
    assert os.listdir(layout.status) == []
