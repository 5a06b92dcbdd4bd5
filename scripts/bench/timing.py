"""Run commands in an empty directory, and say what they cost."""

from __future__ import annotations

import os
import pwd
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = os.getuid() == 0
# Makes a command root's, if only among the ids of an ordinary user, with mounts of its own.
AS_ROOT = ["unshare", "--mount", *([] if ROOT else ["--map-root-user", "--map-auto"])]

# Debian's own programs, and for them Debian's own Python.
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_PATIENCE = 3600.0
_LAST_LINES = 5


class FailedError(Exception):
    """A command that was to be timed failed; this says how."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What was spent: seconds by the clock, and seconds of processors."""

    seconds: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.cpu + other.cpu)


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield an empty directory on a disk."""
    place = Path(tempfile.mkdtemp(prefix="bench-", dir="/var/tmp"))
    try:
        yield place
    finally:
        subprocess.run([*AS_ROOT, "rm", "-rf", place], check=True)


def environment(place: Path) -> Mapping[str, str]:
    """Return what programs may know that shall write below PLACE only."""
    for name in ("home", "run", "tmp"):
        (place / name).mkdir(mode=0o700, exist_ok=True)
    return {
        "PATH": _PATH,
        "LANG": "C.UTF-8",
        "USER": pwd.getpwuid(os.getuid()).pw_name,
        "HOME": str(place / "home"),
        "XDG_RUNTIME_DIR": str(place / "run"),
        "TMPDIR": str(place / "tmp"),
        "SHIFTER_STORE": str(place / "store"),
        "CONTAINERS_CONF": str(Path(__file__).with_name("containers.conf")),
        "CH_IMAGE_STORAGE": str(place / "charliecloud"),
    }


def forget() -> bool:
    """Write out what is not on the disk yet and empty the page cache; say whether we could."""
    os.sync()
    with suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3")
        return True
    return False


def run(command: Sequence[str], place: Path) -> Cost:
    """Run COMMAND in PLACE; raise FailedError if it fails."""
    log = place / "log"
    began, cpu = time.monotonic(), _cpu()
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                command,
                cwd=place,
                env=environment(place),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=_PATIENCE,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FailedError(str(error)) from error
    cost = Cost(time.monotonic() - began, _cpu() - cpu)
    if done.returncode != 0:
        said = log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        raise FailedError(f"{command[0]} ended with {done.returncode}: {' / '.join(said)}")
    return cost


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
