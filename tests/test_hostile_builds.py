"""What a user may have built, or not: nobody else waits for it, and no worker dies of it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import Runner
from tests.helpers import etc, faulty, images
from tests.helpers.processes import running, until
from tests.helpers.users import User

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")

_PATIENCE = 60.0


@pytest.fixture
def villain(asker: Runner, villain_user: User, workdir: Path) -> Runner:
    """What runs programs as another ordinary user."""
    home = workdir / "villain"
    home.mkdir()
    os.chown(home, villain_user.uid, villain_user.gid)
    return replace(asker, user=villain_user, home=home)


@pytest.fixture
def configured(site: Runner, workdir: Path) -> Callable[[str], Runner]:
    """What gives the site another ``shifter_lite.toml``."""

    def configure(config: str) -> Runner:
        path = workdir / "etc/shifter/shifter_lite.toml"
        assert path.exists()
        path.write_text(f"{config}\n{etc.ASKS_THIS_HOST}")
        return site

    return configure


def image(size: int = 16) -> images.Image:
    return images.image([images.layer([images.file("x", os.urandom(size))])])


def layer_of(made: images.Image) -> str:
    digest: str = made.content["layers"][0]["digest"]
    return digest


def slow(registry: faulty.Registry, name: str) -> str:
    """Put an image into REGISTRY whose layer never comes; return its name."""
    made = image(100_000)
    registry.fault(layer_of(made), faulty.Stall(1000))
    return registry.add(name, "1", made)


def builders(site: Runner) -> list[int]:
    """Return the processes of the service account's that build now, or wait to."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            rest = (path / "stat").read_text().rpartition(")")[2].split()
            status = (path / "status").read_text()
            # Its group is its own, and a zombie builds nothing.
            leads = rest[2] == path.name and rest[0] not in "ZX"
            if leads and f"\nUid:\t{site.user.uid}\t" in status:
                found.append(int(path.name))
    return found


def test_one_worker_answers_others_while_a_users_registry_sends_nothing(
    site: Runner, asker: Runner, villain: Runner, faulty_registry: faulty.Registry
) -> None:
    names = [slow(faulty_registry, f"slow{n}") for n in range(12)]
    ready, new = (
        faulty_registry.add("ready", "1", image()),
        faulty_registry.add("new", "1", image()),
    )
    with running(site, "shifter-worker", "run"):
        assert asker("shifterimg", "pull", ready).returncode == 0
        for name in names:
            assert villain("shifterimg", "pull", "--no-wait", name).returncode == 0
        until(lambda: bool(os.listdir(site.store / "builds")))
        for name in (ready, new):
            done = asker("shifterimg", "pull", name, timeout=_PATIENCE)
            assert done.returncode == 0, done.stderr
        assert len(os.listdir(site.store / "spool/new")) > 0


def test_one_worker_answers_others_while_a_users_registry_says_nothing(
    site: Runner, asker: Runner, villain: Runner, faulty_registry: faulty.Registry
) -> None:
    with faulty.serving() as silent, running(site, "shifter-worker", "run"):
        for n in range(6):
            made = image()
            name = silent.add(f"silent{n}", "1", made)
            silent.fault("1", faulty.Stall(0))
            assert villain("shifterimg", "pull", "--no-wait", name).returncode == 0
        until(lambda: bool(os.listdir(site.store / "spool/work")))
        done = asker("shifterimg", "pull", faulty_registry.add("new", "1", image()))
        assert done.returncode == 0, done.stderr


def test_a_build_that_takes_longer_than_the_site_allows_ends(
    configured: Callable[[str], Runner], asker: Runner, faulty_registry: faulty.Registry
) -> None:
    name = slow(faulty_registry, "slow")
    site = configured("[limits]\nbuild_seconds = 2\n")
    with running(site, "shifter-worker", "run"):
        done = asker("shifterimg", "pull", name)
        assert done.returncode == 71
        assert "limits.build_seconds" in done.stderr
        assert asker("shifterimg", "pull", faulty_registry.add("ok", "1", image())).returncode == 0
    assert not [path for path in (site.store / "images").rglob(".*") if path.is_file()]


def test_an_image_that_wants_too_much_memory_ends_its_build_and_not_the_worker(
    configured: Callable[[str], Runner], asker: Runner, registry: str
) -> None:
    links = [images.symlink(f"{n:06d}", os.urandom(2000).hex()) for n in range(60_000)]
    images.push(registry, "bomb", "1", images.image([images.layer(links)]))
    images.push(registry, "ok", "1", image())
    site = configured("[limits]\nmemory_bytes = 150000000\n")
    with running(site, "shifter-worker", "run") as worker:
        done = asker("shifterimg", "pull", f"{registry}/bomb:1")
        assert done.returncode == 65, done.stderr
        assert "limits.memory_bytes" in done.stderr
        assert asker("shifterimg", "pull", f"{registry}/ok:1").returncode == 0
        assert worker.poll() is None


def test_a_build_that_is_killed_is_tried_again_but_not_for_ever(
    site: Runner, asker: Runner, faulty_registry: faulty.Registry
) -> None:
    name = slow(faulty_registry, "killed")
    with (
        running(site, "shifter-worker", "run") as worker,
        running(asker, "shifterimg", "pull", name) as pull,
    ):
        killed = 0
        while pull.poll() is None:
            (mark,) = os.listdir(site.store / "builds") or ("",)
            for pid in builders(site) if mark else ():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed = max(killed, len(os.listdir(site.store / "deaths")))
        _, errors = pull.communicate(timeout=_PATIENCE)
        assert pull.returncode == 71, errors
        assert re.search("3 builds of the image ended without a result: .*signal 9", errors)
        assert worker.poll() is None
        faulty_registry.heal()
        assert asker("shifterimg", "pull", name).returncode == 0
    assert killed >= 2
    assert os.listdir(site.store / "deaths") == os.listdir(site.store / "builds") == []


def is_built(site: Runner, request: str, worker: int) -> bool:
    """Return whether the process WORKER builds for REQUEST."""
    with suppress(FileNotFoundError):
        marks = (site.store / "builds").glob(f"*.{worker}.*")
        return any(request in mark.read_text() for mark in marks)
    return False


def test_a_request_whose_workers_die_is_tried_again_after_others_but_not_for_ever(
    site: Runner, asker: Runner, villain: Runner, faulty_registry: faulty.Registry
) -> None:
    name = slow(faulty_registry, "kills")
    (request,) = villain("shifterimg", "pull", "--no-wait", name).stdout.split()
    with running(site, "shifter-worker", "run") as worker:
        until(lambda: is_built(site, request, worker.pid))
        worker.kill()
    other = faulty_registry.add("other", "1", image())
    with running(site, "shifter-worker", "run"):
        assert asker("shifterimg", "pull", other).returncode == 0
        until(lambda: len(os.listdir(site.store / "deaths")) == 1)
    for number in range(19):
        (site.store / "deaths" / f"{request}.host.{number}.0123abcd").touch()
    done = site("shifter-worker", "drain")
    assert done.returncode == 0, done.stderr
    (failed,) = (line for line in done.stderr.splitlines() if " failed " in line)
    assert request in failed
    assert "builds of the image ended without a result" in failed
    assert os.listdir(site.store / "deaths") == []


def test_a_build_that_nobody_wants_any_more_ends_at_once(
    site: Runner, asker: Runner, faulty_registry: faulty.Registry
) -> None:
    name = slow(faulty_registry, "unwanted")
    with running(site, "shifter-worker", "run"):
        (request,) = asker("shifterimg", "pull", "--no-wait", name).stdout.split()
        until(lambda: bool(os.listdir(site.store / "builds")))
        assert asker("shifterimg", "cancel", request).returncode == 0
        until(lambda: not os.listdir(site.store / "builds"))
        until(lambda: not [path for path in (site.store / "images").rglob(".*") if path.is_file()])


def test_no_build_outlives_its_worker(
    site: Runner, asker: Runner, faulty_registry: faulty.Registry
) -> None:
    name = slow(faulty_registry, "orphan")
    before = set(builders(site))
    with running(site, "shifter-worker", "run") as worker:
        assert asker("shifterimg", "pull", "--no-wait", name).returncode == 0
        until(lambda: bool(os.listdir(site.store / "builds")))
        assert set(builders(site)) - before
        worker.kill()
        worker.wait()
        until(lambda: not set(builders(site)) - before)


def test_an_administrator_cancels_any_request_and_its_user_hears_who_it_was(
    site: Runner, asker: Runner, villain: Runner, faulty_registry: faulty.Registry
) -> None:
    name = slow(faulty_registry, "long")
    (waits,) = villain("shifterimg", "pull", "--no-wait", name).stdout.split()
    told = site("shifter-admin", "cancel", waits)
    assert (told.returncode, told.stdout) == (0, f"{waits} CANCELLED\n")
    (runs,) = villain("shifterimg", "pull", "--no-wait", name).stdout.split()
    denied = asker("shifter-admin", "cancel", runs)
    assert denied.returncode == 77, denied.stderr
    with running(site, "shifter-worker", "run"):
        until(lambda: bool(os.listdir(site.store / "builds")))
        assert site("shifter-admin", "cancel", runs).returncode == 0
        until(lambda: not os.listdir(site.store / "spool/work"))
    for request in (waits, runs):
        ended = villain("shifterimg", "wait", request)
        assert ended.returncode == 79
        assert "cancelled by the administrator" in ended.stderr
    missing = site("shifter-admin", "cancel", runs)
    assert missing.returncode == 66
    assert site("shifter-admin", "cancel", "debian:12").returncode == 66
