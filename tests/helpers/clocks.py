"""Clocks that go wrong."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock.c")


def ahead(seconds: int, scratch: Path) -> tuple[str, ...]:
    """Return what makes a command's clock so many SECONDS ahead; SCRATCH is a directory for it."""
    if not seconds:
        return ()
    library = scratch / "clock.so"
    if not library.exists():
        build = ["gcc", "-std=c11", "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)]
        subprocess.run(build, check=True)
    return ("env", f"LD_PRELOAD={library}", f"CLOCK_AHEAD={seconds}")
