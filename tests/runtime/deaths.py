"""Launches that are killed all the time: who fails that was not itself killed, and what is left.

Ranks, founders, keepers and servers are killed at random.  A rank says which user namespace it is
in, and the container's file which server that has; who was in the container of a server that was
killed is excused, and nobody else.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.runtime.conftest import Launcher
from tests.runtime.test_container import node_directory

_SCRIPTS = (
    "readlink /proc/self/ns/user",
    "readlink /proc/self/ns/user; cat /etc/motd > /dev/null",
    "readlink /proc/self/ns/user; sleep 0.05",
)
_UNSEEN_SECONDS = 0.05
# What a killed child of ours, or a child of ours' child, ends with.
_KILLED = {-signal.SIGKILL, 128 + signal.SIGKILL}


@dataclass
class Launch:
    """One launch: when it was begun, and what came of it."""

    process: subprocess.Popen[str]
    job: int
    begun: float
    ended: float = 0.0
    out: str = ""
    err: str = ""
    killed: bool = False


@dataclass
class Result:
    """What happened: how many of what were killed, and which launches failed without a reason."""

    launches: int
    killed: Counter[str] = field(default_factory=Counter)
    excused: int = 0
    failed: list[str] = field(default_factory=list)


def rage(shifter: Launcher, launches: int, *, at_once: int, pause: float, seed: int) -> Result:
    """Run so many LAUNCHES, AT_ONCE at a time, and kill one process every PAUSE seconds."""
    chance = random.Random(seed)
    result = Result(launches)
    running: dict[int, Launch] = {}
    servers: list[tuple[str, float]] = []
    done: list[Launch] = []
    begun, next_kill = 0, time.monotonic()
    while begun < launches or running:
        while begun < launches and len(running) < at_once:
            launch = _start(shifter, chance, begun)
            running[launch.process.pid] = launch
            begun += 1
        if time.monotonic() > next_kill:
            next_kill = time.monotonic() + pause * 2 * chance.random()
            _kill_one(shifter, chance, running, result, servers)
        for pid in [pid for pid, each in running.items() if each.process.poll() is not None]:
            launch = running.pop(pid)
            launch.ended = time.monotonic()
            launch.out, launch.err = launch.process.communicate()
            done.append(launch)
        time.sleep(0.001)
    _judge(done, servers, result)
    return result


def _start(shifter: Launcher, chance: random.Random, number: int) -> Launch:
    job = chance.randrange(3)
    pipe = subprocess.PIPE
    # Without it linger is what it is for users.
    environment = {"SLURM_JOB_ID": str(job), "SHIFTER_LINGER": "0.05" if number % 2 else "0"}
    script = chance.choice(_SCRIPTS)
    process = shifter.popen(
        "-i", "test", "/bin/sh", "-c", script, env=environment, stdout=pipe, stderr=pipe
    )
    return Launch(process, job, time.monotonic())


def _processes(shifter: Launcher) -> Iterator[tuple[int, str]]:
    """Yield all processes of the caller's, with what each is."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        try:
            if entry.stat().st_uid != shifter.uid:
                continue
            program = os.readlink(entry / "exe")
            name = (entry / "comm").read_text().strip()
        except OSError:
            continue
        if name in ("shifter-server", "shifter-keeper"):
            yield pid, name.removeprefix("shifter-")
        else:
            yield pid, "launcher" if program == str(shifter.program) else "rank"


def _container_of(shifter: Launcher, server: int) -> str:
    """Return the user namespace of the container that SERVER serves; nothing if nobody says it."""
    for path in node_directory(shifter.uid).glob("c.*"):
        text = path.read_text()
        served = re.search(rf"^keeper \d+ \d+ \d+ {server}$", text, re.MULTILINE)
        namespace = re.search(r"^user (\d+)$", text, re.MULTILINE)
        if served and namespace:
            return f"user:[{namespace[1]}]"
    return ""


def _kill_one(
    shifter: Launcher,
    chance: random.Random,
    running: dict[int, Launch],
    result: Result,
    servers: list[tuple[str, float]],
) -> None:
    found = list(_processes(shifter))
    if not found:
        return
    # A launcher is there for milliseconds: of what is there, mostly the kind that was killed least.
    kinds = sorted({kind for _, kind in found})
    kind = min(kinds, key=lambda each: result.killed[each]) if chance.random() < 0.7 else ""
    kind = kind or chance.choice(kinds)
    pid = chance.choice([pid for pid, each in found if each == kind])
    try:
        namespace = _container_of(shifter, pid)
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return
    result.killed[kind] += 1
    if pid in running:
        running[pid].killed = True
    if kind == "server":
        servers.append((namespace, time.monotonic()))


def _judge(done: list[Launch], servers: list[tuple[str, float]], result: Result) -> None:
    for each in done:
        code = each.process.returncode
        if code == 0 or each.killed or code in _KILLED:
            continue
        lines = each.out.splitlines()
        # Who could not even begin says nothing: then a server must have died meanwhile, or so
        # shortly before that its keeper had not seen it yet.
        since = each.begun - _UNSEEN_SECONDS
        dead = {where for where, when in servers if since < when < each.ended}
        if dead & {lines[0], ""} if lines else dead:
            result.excused += 1
        else:
            result.failed.append(f"{code}: {each.out!r} {each.err!r}")
