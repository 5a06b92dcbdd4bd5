"""How much memory a process and its descendants need."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from timing import FailedError

_INTERVAL = 0.01


def peak(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Return the megabytes that COMMAND needs: the sum of what each process had at its highest.

    That is no less than what they had together.  Raise FailedError if it fails.
    """
    highest: dict[int, int] = {}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as running:
        while running.poll() is None:
            for pid in _tree(running.pid):
                highest[pid] = max(highest.get(pid, 0), _high_water(pid))
            time.sleep(_INTERVAL)
    if running.returncode != 0:
        raise FailedError(f"{command[0]} ended with {running.returncode}")
    return sum(highest.values()) / 1_000_000


def _tree(pid: int) -> list[int]:
    """Return PID and its descendants."""
    found = [pid]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue  # it ended
    return found


def _high_water(pid: int) -> int:
    """Return the most memory that PID ever had, in bytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    found = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return found[0] * 1024 if found else 0
