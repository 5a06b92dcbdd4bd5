"""Whoever is killed, nobody else fails, and nothing is left."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.runtime import deaths
from tests.runtime.conftest import Launcher
from tests.runtime.test_container import node_directory

# ``scripts/deaths`` asks for ten thousand.
LAUNCHES = int(os.environ.get("SHIFTER_TEST_DEATHS", "600"))


def test_who_is_killed_takes_nobody_along_and_nothing_is_left(shifter: Launcher) -> None:
    result = deaths.rage(shifter, LAUNCHES, at_once=12, pause=0.02, seed=LAUNCHES)
    print(result)  # noqa: T201  # shown if it fails
    assert result.failed == []
    assert set(result.killed) == {"keeper", "launcher", "rank", "server"}
    # What the last dead has left, the next launch finds.
    for job in ("0", "1", "2", "last"):
        assert shifter.run("-i", "test", "true", env={"SLURM_JOB_ID": job}).returncode == 0
    shifter.wait_until_gone(10)
    deadline = time.monotonic() + 5
    while node_directory().exists():
        left = list(node_directory().iterdir()) if node_directory().exists() else []
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
    # Other tests mount their own, at the same time.
    sources = [line.split()[0] for line in Path("/proc/self/mounts").read_text().splitlines()]
    assert not [source for source in sources if "shifter" in source]
