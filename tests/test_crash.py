"""A pull that is killed loses nothing, shows nothing half, and leaves nothing behind."""

import os
import re
import subprocess
import time
from collections import Counter
from dataclasses import replace

import pytest

from tests.conftest import Runner, installed
from tests.helpers import images, users
from tests.test_pull import left_over

# Every call that gives or takes a name, or makes one last.
CALLS = "rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,fsync,fchmod"
MOMENTS = 30


@pytest.fixture
def mine(run: Runner) -> Runner:
    """What runs programs as ourselves: an ordinary user may not trace where root's python lies."""
    return replace(run, user=users.ourselves())


def straced(run: Runner, *options: str, name: str) -> subprocess.CompletedProcess[str]:
    """Pull NAME; only the main thread is traced, as strace counts the calls of each for itself."""
    return subprocess.run(
        ["strace", "-qq", "-e", "signal=none", *options, installed("shifterimg"), "pull", name],
        env=run.environment,
        cwd=run.home,
        capture_output=True,
        text=True,
        check=False,
    )


def points(log: str) -> list[tuple[str, int]]:
    """Return each call in a trace with which of the calls of that name it is."""
    seen: Counter[str] = Counter()
    found = []
    for call in re.findall(r"^(\w+)\(", log, re.MULTILINE):
        seen[call] += 1
        found.append((call, seen[call]))
    return found


@pytest.mark.timeout(900)
def test_killed_before_any_change_the_next_pull_goes_on(mine: Runner, registry: str) -> None:
    layers = [images.layer([images.file(f"f{n}", os.urandom(1000))]) for n in range(2)]
    images.push(registry, "crash", "1", images.image(layers))
    name = f"{registry}/crash:1"
    log = mine.home / "trace"
    counted = straced(mine, "-e", f"trace={CALLS}", "-o", str(log), name=name)
    assert counted.returncode == 0, counted.stderr
    image_id = mine("shifterimg", "lookup", name).stdout
    calls = points(log.read_text())
    assert len(calls) > 60
    killed = 0
    for call, number in calls:
        subprocess.run(["rm", "-rf", mine.store], check=True)
        inject = f"inject={call}:signal=KILL:when={number}"
        done = straced(mine, "-e", f"trace={call}", "-o", "/dev/null", "-e", inject, name=name)
        killed += done.returncode != 0
        check(mine, name, image_id, f"killed at {call} {number}")
    # The first pull of all makes a directory or two that the others find.
    assert killed >= len(calls) - 12


@pytest.mark.timeout(900)
def test_killed_at_any_moment_the_next_pull_goes_on(run: Runner, registry: str) -> None:
    layers = [images.layer([images.file(f"f{n}", os.urandom(4_000_000))]) for n in range(3)]
    images.push(registry, "crash", "2", images.image(layers))
    name = f"{registry}/crash:2"
    whole = min(duration(run, name) for _ in range(3))
    image_id = run("shifterimg", "lookup", name).stdout
    killed = 0
    for number in range(MOMENTS):
        subprocess.run(["rm", "-rf", run.store], check=True)
        process = subprocess.Popen(
            [*run.user.prefix, installed("shifterimg"), "pull", name],
            env=run.environment,
            cwd=run.home,
            stdout=subprocess.DEVNULL,
        )
        try:
            # The first quarter is Python starting.
            process.wait(whole * (0.25 + 0.75 * number / MOMENTS))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
        check(run, name, image_id, f"killed at moment {number}")
    assert killed > MOMENTS / 2


def duration(run: Runner, name: str) -> float:
    """Return how many seconds a pull of NAME into a new store takes."""
    subprocess.run(["rm", "-rf", run.store], check=True)
    started = time.monotonic()
    assert run("shifterimg", "pull", name).returncode == 0
    return time.monotonic() - started


def check(run: Runner, name: str, image_id: str, when: str) -> None:
    """Check that nothing is half, that the next pull succeeds, and that nothing is left then."""
    if (run.store / "store.json").exists():
        done = run("shifter-admin", "verify")
        assert done.returncode == 0, f"{when}: {done.stderr}"
    done = run("shifterimg", "pull", name)
    assert done.returncode == 0, f"{when}: {done.stderr}"
    assert run("shifterimg", "lookup", name).stdout == image_id, when
    assert run("shifter-admin", "verify").returncode == 0, when
    # What the dead client itself was writing is swept with time.
    swept = [str(path) for path in (run.store / "status").iterdir()]
    left = [
        path
        for path in left_over(run.store)
        if path not in swept and not path.startswith(("spool/tmp/", "status/", ".store."))
    ]
    assert left == [], when
    assert os.listdir(run.store / "spool/new") == os.listdir(run.store / "spool/work") == []
