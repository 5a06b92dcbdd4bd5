"""Time ``shifter`` beside Charliecloud's ``ch-run``: the same squashfs file, an ordinary user."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.helpers import debian, registry, users

_PROGRAMS = Path(sys.executable).parent


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    with (
        registry.serving() as address,
        users.ordinary() as user,
        users.directory(user) as home,
    ):
        name = debian.push(address)
        with users.acting_as(user):
            os.chdir(home)
            measure(Site(home=home, name=name), rounds)
            os.chdir("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An ordinary user's home with a store in it, and an image's name."""

    home: Path
    name: str

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.home),
            "USER": str(os.getuid()),
            "SHIFTER_STORE": str(self.home / "store"),
        }

    def run(self, *command: str) -> str:
        """Run COMMAND; return what it prints."""
        done = subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            sys.exit(f"launch: {' '.join(command)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def time(self, *command: str) -> float:
        """Return how many milliseconds COMMAND takes."""
        started = time.monotonic()
        self.run(*command)
        return 1000 * (time.monotonic() - started)


def measure(site: Site, rounds: int) -> None:
    shifterimg = str(_PROGRAMS / "shifterimg")
    site.run(shifterimg, "pull", site.name)
    file = site.run(shifterimg, "path", site.name).strip()
    mountpoint = site.home / "mountpoint"
    mountpoint.mkdir()
    ours = (str(_PROGRAMS / "shifter"), f"--image={site.name}", "true")
    theirs = ("ch-run", f"--mount={mountpoint}", file, "--", "true")
    site.time(*ours)
    site.time(*theirs)
    pairs = [(site.time(*ours), site.time(*theirs)) for _ in range(rounds)]
    a, b = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"A  shifter --image=... true    {a:6.1f} ms, median of {rounds}")
    print(f"B  ch-run IMAGE.sqsh -- true   {b:6.1f} ms")
    print(f"A / B: {a / b:.2f}")
    print_calls(site, ours)


def print_calls(site: Site, command: tuple[str, ...]) -> None:
    """Say what one launch asks of the store's filesystem, and of the network."""
    log = site.home / "trace"
    calls = "trace=open,openat,openat2,socket"
    site.run("strace", "-f", "-y", "-qq", "-e", calls, "-o", str(log), *command)
    lines = log.read_text(errors="replace").splitlines()
    store = re.compile(rf"= [0-9]+<{re.escape(str(site.home / 'store'))}(/.*)?>$")
    opened = [match[1] or "/" for line in lines if (match := store.search(line))]
    sockets = sum("socket(" in line for line in lines)
    print(f"one launch opens {len(opened)} times in the store, and makes {sockets} sockets:")
    for path in opened:
        print(f"    {path}")


if __name__ == "__main__":
    main()
