"""A build can hurt only itself: children that die, hang, or want too much."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shifter_lite import store as stores
from shifter_lite.build.manifest import Descriptor, Manifest
from shifter_lite.errors import BadImage, Damaged, RegistryBusy
from shifter_lite.executor import messages
from shifter_lite.executor.forks import Forks, TemplateLost
from shifter_lite.executor.messages import Asked, Built, Failed
from shifter_lite.executor.pace import GRACE_SECONDS, LEAST_BYTES_PER_SECOND, Pace
from shifter_lite.layout import Layout
from shifter_lite.queue import deaths
from shifter_lite.request import Status
from tests.helpers.processes import until

_DIGEST = f"sha256:{'a' * 64}"
_LAYER = Descriptor("application/vnd.oci.image.layer.v1.tar", _DIGEST, 10)

SAID = [
    Status(state="PULLING", done=1, total=2),
    Asked(Manifest(_DIGEST, "", Descriptor("", "", 0), ()), recipe="imported"),
    Asked(
        Manifest(
            _DIGEST,
            _DIGEST,
            Descriptor("x", _DIGEST, 3, b"\xff{}"),
            (_LAYER,),
            "",
            "linux/arm64",
            ("linux/amd64",),
        )
    ),
    Built("0" * 64),
]


# ------------------------------------------------------------------------------- messages


@pytest.mark.parametrize("said", SAID)
def test_what_a_build_says_is_read_as_it_was_meant(said: messages.Said) -> None:
    line = messages.encode(said)
    assert line.count(b"\n") == 1
    assert messages.decode(line) == said


def test_an_error_of_a_build_comes_back_with_its_code_and_hint() -> None:
    said = messages.decode(messages.encode(Failed(BadImage("no image", hint="make one"))))
    assert isinstance(said, Failed)
    assert (str(said.error), said.error.hint, said.error.exit_code) == ("no image", "make one", 65)  # type: ignore[union-attr]


def test_a_refusal_of_the_system_comes_back_as_what_it_was() -> None:
    refused = OSError(errno.ENOSPC, "full", "/store/x")
    said = messages.decode(messages.encode(Failed(refused)))
    assert isinstance(said, Failed)
    assert isinstance(said.error, OSError)
    assert (said.error.errno, said.error.filename) == (errno.ENOSPC, "/store/x")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"say":"built","id":"../../etc"}',
        b'{"say":"failed","fact":"x","hint":"","code":0}',
        b'{"say":"asked","manifest":{"digest":"x"},"recipe":""}',
        b'{"say":"status","status":{"state":"DREAMING"}}',
    ],
)
def test_what_means_nothing_is_an_error_and_no_end_of_the_worker(line: bytes) -> None:
    with pytest.raises(Damaged):
        messages.decode(line)


# ----------------------------------------------------------------------------------- pace


def pulling(pace: Pace, done: int) -> None:
    pace.note(Status(state="PULLING", done=done, total=10**12))


def test_a_trickle_ends_in_minutes_whatever_was_there_before() -> None:
    pace = Pace(0, 10**6, remote=True)
    pace.go(10)
    pulling(pace, 10**10)
    for second in range(10, 300, 10):
        pulling(pace, 10**10 + 1700 * second)
        if pace.fault(second):
            break
    assert isinstance(pace.fault(second), RegistryBusy)
    assert second < 10 + GRACE_SECONDS + 20


def test_what_comes_fast_enough_may_take_hours() -> None:
    pace = Pace(0, 10**6, remote=True)
    pace.go(0)
    for second in range(0, 36000, 100):
        pulling(pace, LEAST_BYTES_PER_SECOND * second)
        assert pace.fault(second) is None
    pace.note(Status(state="PULLING", done=10**12, total=10**12))
    assert pace.fault(10**5) is None


def test_a_registry_that_does_not_say_what_the_image_is_is_given_up() -> None:
    assert isinstance(Pace(0, 10**6, remote=True).fault(301), RegistryBusy)
    assert Pace(0, 10**6, remote=False).fault(301) is None


def test_a_build_has_its_time_and_no_more() -> None:
    pace = Pace(0, 100, remote=False)
    pace.go(50)
    assert pace.fault(149) is None
    assert "build_seconds" in getattr(pace.fault(151), "hint", "")


# ---------------------------------------------------------------------------------- forks


def obey(channel: socket.socket) -> None:
    """Do what the byte says that comes."""
    match channel.recv(1):
        case b"p":
            channel.sendall(b"%d %d" % (os.getpid(), os.getppid()))
            channel.recv(1)
        case b"f":
            channel.sendall(" ".join(os.listdir("/proc/self/fd")).encode())
        case b"k":
            os.kill(os.getpid(), 9)


@pytest.fixture
def forks() -> Iterator[Forks]:
    with Forks(obey) as made:
        yield made


def ended(forks: Forks, number: int) -> int:
    until(lambda: forks.ended(number) is not None)
    code = forks.ended(number)
    assert code is not None
    return code


def runs(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def test_a_child_has_no_file_of_its_worker(tmp_path: Path) -> None:
    with (tmp_path / "held").open("w"), Forks(obey) as forks:
        number, channel = forks.start()
        with channel:
            channel.sendall(b"f")
            # Its standard streams, its socket, and the listing.
            assert len(channel.recv(1000).split()) == 5
        assert ended(forks, number) == 0


def test_how_a_child_ended_is_known(forks: Forks) -> None:
    for _ in range(3):
        number, channel = forks.start()
        with channel:
            channel.sendall(b"k")
            assert channel.recv(1) == b""
        assert ended(forks, number) == -9


def test_no_child_outlives_who_started_it(forks: Forks) -> None:
    _, channel = forks.start()
    with channel:
        channel.sendall(b"p")
        child, template = map(int, channel.recv(100).split())
        # As the kernel does it when the worker is killed, too.
        os.kill(template, 9)
        until(lambda: not runs(child))
    with pytest.raises(TemplateLost):
        ended(forks, 1)


def test_a_child_that_is_not_wanted_is_killed(forks: Forks) -> None:
    number, channel = forks.start()
    with channel:
        channel.sendall(b"p")
        channel.recv(100)
        forks.kill(number)
        assert ended(forks, number) == -9


# --------------------------------------------------------------------------------- deaths


def test_a_death_counts_once_whoever_notes_it(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "store")
    stores.create(layout, shared=False)
    name, other = "1700000000-1000-0123456789abcdef", "1700000000-1000-0123456789abcde0"
    for build in ("1.host.2.0123abcd", "2.host.2.0123abcd", "2.host.2.0123abcd"):
        deaths.note(layout, [name, other], build)
    assert deaths.too_many(layout, [name, other]) == 0
    deaths.note(layout, [name], "3.host.2.0123abcd")
    assert deaths.too_many(layout, [name, other]) == 3
    deaths.forget(layout, [name])
    assert deaths.noted(layout) == {other}
    old = time.time() - 10 * 86400
    for left in layout.deaths.iterdir():
        os.utime(left, (old, old))
    deaths.sweep(layout)
    assert deaths.noted(layout) == set()


def test_workers_may_die_more_often_than_builds_but_not_for_ever(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "store")
    stores.create(layout, shared=False)
    name = "1700000000-1000-0123456789abcdef"
    for number in range(19):
        deaths.note(layout, [name], f"host.{number}.0123abcd")
    assert deaths.too_many(layout, [name]) == 0
    deaths.note(layout, [name], "host.19.0123abcd")
    assert deaths.too_many(layout, [name]) == 20
