"""Time ``shifter`` beside its peers and beside bare floors: one image, an ordinary user.

The command is ``date``, which prints the clock: what counts is when the last of all ranks that
were released at once is in its program.  Systems take turns, round by round, and medians count.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers import debian, registry, users

_PROGRAMS = Path(sys.executable).parent
_CLOCK = ("date", "+%s.%N")
_HELD = ("sh", "-c", "date +%s.%N; sleep 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A way to run a command in the image: what comes before the command.

    ``most`` is how many ranks at once it is asked for; ``fresh`` that each launch is that of a new
    job, which finds no container; ``lone`` that a launch waits until that of before it has ended.
    """

    name: str
    before: Sequence[str]
    most: int = 1_000_000
    fresh: bool = False
    lone: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11, help="(%(default)s)")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 64], help="(%(default)s)")
    parser.add_argument("--slow", action="store_true", help="podman, too")
    options = parser.parse_args()
    with (
        registry.serving() as address,
        users.ordinary() as user,
        users.directory(user) as home,
    ):
        program = built(home)
        name = debian.push(address)
        with users.acting_as(user), ExitStack() as stack:
            os.chdir(home)
            site = Site(home=home, name=name, program=program)
            measure(site, options.rounds, options.ranks, stack, slow=options.slow)
            print_calls(site)
            os.chdir("/")
        until_gone(user)


def until_gone(user: users.User) -> None:
    """Wait until nothing of the USER's runs any more, who is to be removed."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if subprocess.run(["pgrep", "-u", user.name], capture_output=True, check=False).returncode:
            return
        time.sleep(0.1)


def built(home: Path) -> Path:
    """Build what starts ranks; return it."""
    program = home / "ranks"
    source = Path(__file__).with_name("ranks.c")
    subprocess.run(["cc", "-O2", "-static", "-o", program, source], check=True)
    return program


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An ordinary user's home with a store in it, and an image's name."""

    home: Path
    name: str
    program: Path

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.home),
            "USER": str(os.getuid()),
            "SHIFTER_STORE": str(self.home / "store"),
            "XDG_RUNTIME_DIR": str(self.home),
        }

    def run(self, *command: str, **more: str) -> str:
        """Run COMMAND; return what it prints."""
        done = subprocess.run(
            command,
            env={**self.environment, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise FailedError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def ranks(self, system: System, number: int, command: Sequence[str]) -> float:
        """Return when the last of NUMBER ranks on SYSTEM was in its program, in ms."""
        start = (str(self.program), "start", str(number))
        return float(self.run(*start, *system.before, *command, **system.environment))


class FailedError(Exception):
    """A launch failed; this says how."""


@contextmanager
def held(site: Site, tree: Path) -> Iterator[int]:
    """Hold namespaces with TREE as their root; yield the pid of who does."""
    command = [str(site.program), "hold", str(tree)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout
        yield int(process.stdout.readline())
        process.terminate()


def systems(site: Site, stack: ExitStack, *, slow: bool) -> Iterator[System]:
    """Yield all that are measured."""
    shifterimg, shifter = (str(_PROGRAMS / name) for name in ("shifterimg", "shifter"))
    site.run(shifterimg, "pull", site.name)
    file = site.run(shifterimg, "path", site.name).strip()
    tree, mountpoint = site.home / "tree", site.home / "mountpoint"
    subprocess.run(
        ["unsquashfs", "-q", "-n", "-no-xattrs", "-d", tree, file],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    mountpoint.mkdir()
    yield System(name="native", before=())
    program = str(site.program)
    yield System(name="floor: namespaces, bind, pivot", before=(program, "enter", str(tree)))
    holder = stack.enter_context(held(site, tree))
    yield System(name="floor: join", before=(program, "join", str(holder)))
    image = f"--image={site.name}"
    yield System(name="shifter", before=(shifter, image), fresh=True)
    stack.enter_context(_kept(site, shifter, image))
    environment = {"SLURM_JOB_ID": "1"}
    yield System(name="shifter, joining", before=(shifter, image), environment=environment)
    if os.getresuid()[2] == 0:
        stack.enter_context(_mounted(site))
        environment = {"SLURM_JOB_ID": "mounted", "SHIFTER_LINGER": "0"}
        before = (shifter, image)
        name = "shifter, mounted by root"
        yield System(name=name, before=before, lone=True, environment=environment)
    yield from _peers(file, tree, mountpoint, slow=slow)


def _peers(file: str, tree: Path, mountpoint: Path, *, slow: bool) -> Iterator[System]:
    ch_run = ("ch-run", f"--mount={mountpoint}")
    yield System(name="ch-run IMAGE.sqsh", before=(*ch_run, file, "--"))
    yield System(
        name="ch-run IMAGE.sqsh --join",
        before=(*ch_run, "--join", "--join-ct=RANKS", "--join-tag=bench", file, "--"),
    )
    yield System(name="ch-run DIRECTORY", before=("ch-run", str(tree), "--"))
    if shutil.which("bwrap"):
        binds = ("--bind", str(tree), "/", "--dev-bind", "/dev", "/dev", "--proc", "/proc")
        yield System(name="bwrap DIRECTORY", before=("bwrap", *binds))
    if slow and shutil.which("podman"):
        rootfs = ("podman", "run", "--rm", "--net=host", "--rootfs", str(tree))
        yield System(name="podman run --rootfs", before=rootfs, most=16)


@contextmanager
def _kept(site: Site, shifter: str, image: str) -> Iterator[None]:
    environment = {**site.environment, "SLURM_JOB_ID": "1"}
    process = subprocess.Popen(
        [shifter, image, "sleep", "100000"], env=environment, stdin=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _mounted(site: Site) -> Iterator[None]:
    """Mount the image as a prologue does, for the job "mounted"."""
    runtime = Path(__file__).parents[2] / "runtime"
    job = ["-U", str(os.getuid()), "-J", "mounted"]
    words = [*job, "-G", str(os.getgid()), "docker", site.name]
    with users.being_root_again():
        # Root follows no configuration in a directory that others may write.
        build = Path(tempfile.mkdtemp(prefix="shifter-lite-mounted-"))
        make = ["make", "-s", "-j2", "-C", str(runtime), f"OUT={build}", f"SYSCONFDIR={build}/etc"]
        subprocess.run([*make, "all"], check=True)
        (build / "etc/shifter").mkdir(parents=True)
        (build / "etc/shifter/udiRoot.conf").write_text(f"imagePath={site.home}/store\n")
        subprocess.run([str(build / "setupRoot"), *words], check=True)
    try:
        yield
    finally:
        with users.being_root_again():
            subprocess.run([str(build / "unsetupRoot"), *job], check=True)
            shutil.rmtree(build)


def measure(
    site: Site, rounds: int, numbers: Sequence[int], stack: ExitStack, *, slow: bool
) -> None:
    """Print a table: for each number of ranks, ended at once and held alive."""
    found = list(systems(site, stack, slow=slow))
    columns = [(number, command) for number in numbers for command in (_CLOCK, _HELD)]
    times: dict[tuple[str, int, bool], list[float]] = {}
    failed: dict[str, str] = {}
    jobs = itertools.count(2)
    for turn in range(rounds):
        # What one leaves to be cleaned up must not always slow down the same other.
        for system in random.sample(found, len(found)):
            for number, command in columns:
                if number > system.most or (command is _HELD and number == 1):
                    continue
                if command is _HELD and turn % 3:
                    continue
                turned = _turned(system, number, jobs)
                try:
                    value = site.ranks(turned, number, command)
                except FailedError as error:
                    failed[f"{system.name}, {number} ranks"] = str(error)[-300:]
                    continue
                times.setdefault((system.name, number, command is _HELD), []).append(value)
    _print(found, columns, times, failed)


def _turned(system: System, number: int, jobs: Iterator[int]) -> System:
    """Return SYSTEM for one launch of NUMBER ranks, once that may begin."""
    environment = dict(system.environment)
    if system.lone:
        _until_ended()
    if system.fresh:
        environment["SLURM_JOB_ID"] = str(next(jobs))
    before = [word.replace("RANKS", str(number)) for word in system.before]
    return System(name=system.name, before=before, environment=environment)


def _until_ended() -> None:
    """Wait until no container of ours lingers, but that of the job, nor is being taken down."""
    directory = Path(f"/dev/shm/shifter_lite.{os.getuid()}")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and len(list(directory.glob("c.*"))) > 1:
        time.sleep(0.01)
    time.sleep(0.1)


def _print(
    found: Sequence[System],
    columns: Sequence[tuple[int, Sequence[str]]],
    times: Mapping[tuple[str, int, bool], list[float]],
    failed: Mapping[str, str],
) -> None:
    titles = [f"{n}{' held' if c is _HELD else ''}" for n, c in columns if (n, c) != (1, _HELD)]
    head = "ms until the last rank is in main, medians"
    print(f"{head:44}" + "".join(f"{title:>10}" for title in titles))
    for system in found:
        cells = []
        for number, command in columns:
            if (number, command) == (1, _HELD):
                continue
            values = times.get((system.name, number, command is _HELD))
            cells.append(f"{statistics.median(values):10.1f}" if values else f"{'-':>10}")
        print(f"{system.name:44}" + "".join(cells))
    for name, said in failed.items():
        print(f"FAILED {name}: {said}")


def print_calls(site: Site) -> None:
    """Say what one launch asks of the store's filesystem, and of the network."""
    _until_ended()
    log = site.home / "trace"
    calls = "trace=open,openat,openat2,socket"
    command = (str(_PROGRAMS / "shifter"), f"--image={site.name}", "true")
    site.run("strace", "-f", "-y", "-qq", "-e", calls, "-o", str(log), *command)
    lines = log.read_text(errors="replace").splitlines()
    store = re.compile(rf"= [0-9]+<{re.escape(str(site.home / 'store'))}(/.*)?>$")
    opened = [match[1] or "/" for line in lines if (match := store.search(line))]
    sockets = sum("socket(" in line for line in lines)
    print(f"one launch opens {len(opened)} times in the store, and makes {sockets} sockets:")
    for path in opened:
        print(f"    {path}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
