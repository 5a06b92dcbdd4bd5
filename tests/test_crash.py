"""A pull that is killed in the midst of its work loses nothing, and leaves nothing behind.

Here it has much to do, and is killed at moments; tests/test_kill.py does it before system calls.
"""

import os
import subprocess
import time

import pytest

from tests.conftest import Runner, installed
from tests.helpers import images
from tests.test_pull import left_over

MOMENTS = 12


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
    # What was published before the death would be answered from the index, without a worker.
    done = run("shifterimg", "pull", "--refresh", name)
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
