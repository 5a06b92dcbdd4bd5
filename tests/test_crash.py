"""A pull killed before any of its changes to the filesystem loses nothing and leaves nothing."""

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import Runner, installed
from tests.helpers import images, users
from tests.test_pull import left_over

# Every call that gives or takes a name, or makes one last.
CALLS = "rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,fsync,fchmod"


@pytest.fixture
def mine(run: Runner) -> Runner:
    """What runs programs as ourselves: an ordinary user may not trace where root's python lies."""
    return replace(run, user=users.ourselves())


def straced(run: Runner, *options: str, name: str) -> subprocess.CompletedProcess[str]:
    tracer = ["strace", "-f", "-qq", "-e", f"trace={CALLS}", "-e", "signal=none", *options]
    return subprocess.run(
        [*tracer, installed("shifterimg"), "pull", name],
        env=run.environment,
        cwd=run.home,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(900)
def test_killed_before_any_change_the_next_pull_goes_on(mine: Runner, registry: str) -> None:
    run = mine
    layers = [images.layer([images.file(f"f{n}", os.urandom(1000))]) for n in range(2)]
    images.push(registry, "crash", "1", images.image(layers))
    name = f"{registry}/crash:1"
    log = run.home / "trace"
    counted = straced(run, "-o", str(log), name=name)
    assert counted.returncode == 0, counted.stderr
    points = len(re.findall(r"^\d+ +\w+\(", log.read_text(), re.MULTILINE))
    assert points > 40
    image_id = run("shifterimg", "lookup", name).stdout
    for number in range(1, points + 1):
        subprocess.run(["rm", "-rf", run.store], check=True)
        kill = f"inject={CALLS}:signal=KILL:when={number}"
        killed = straced(run, "-o", "/dev/null", "-e", kill, name=name)
        check_nothing_is_half(run, killed_at=number)
        if killed.returncode == 0:
            continue
        done = run("shifterimg", "pull", name)
        assert done.returncode == 0, f"killed at {number}: {done.stderr}"
        assert run("shifterimg", "lookup", name).stdout == image_id, f"killed at {number}"
        assert run("shifter-admin", "verify").returncode == 0, f"killed at {number}"
        check_nothing_is_left(run.store, killed_at=number)


def check_nothing_is_half(run: Runner, killed_at: int) -> None:
    """Check that whatever is visible right after the death is whole."""
    if (run.store / "store.json").exists():
        done = run("shifter-admin", "verify")
        assert done.returncode == 0, f"killed at {killed_at}: {done.stderr}"


def check_nothing_is_left(store: Path, killed_at: int) -> None:
    """Check that nothing stays but what is swept with time: what the dead client was writing."""
    swept = [str(path) for path in (store / "status").iterdir()]
    left = [
        name
        for name in left_over(store)
        if name not in swept and not name.startswith(("spool/tmp/", "status/"))
    ]
    assert left == [], f"killed at {killed_at}"
    assert os.listdir(store / "spool/new") == os.listdir(store / "spool/work") == []
