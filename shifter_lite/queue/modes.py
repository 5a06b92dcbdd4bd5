"""What a file's owner lets us do, and has done to it: so it is known whose fault an error is."""

from __future__ import annotations

import os
import re
from pathlib import Path

_ESCAPED = re.compile(rb"\\([0-7]{3})")
READ, WRITE, ENTER = 0o4, 0o2, 0o1


def allows(status: os.stat_result, wanted: int) -> bool:
    """Return whether STATUS, of stat(2), lets us do what is WANTED, bits as above."""
    us = os.geteuid()
    if us == 0:
        return True
    if us == status.st_uid:
        return status.st_mode >> 6 & wanted == wanted
    if status.st_gid in {os.getegid(), *os.getgroups()}:
        return status.st_mode >> 3 & wanted == wanted
    return status.st_mode & wanted == wanted


def is_mounted(path: Path) -> bool:
    """Return whether something is mounted on PATH: such a one may not even be looked at."""
    wanted = os.path.realpath(path.parent) + "/" + path.name
    table = Path("/proc/self/mountinfo").read_bytes().splitlines()
    # See proc(5): blanks and the like are written as \040.
    return any(_ESCAPED.sub(_unescape, line.split()[4]) == os.fsencode(wanted) for line in table)


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)])
