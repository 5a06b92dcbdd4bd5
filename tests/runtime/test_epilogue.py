"""What unsetupRoot takes away, and from whom."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.runtime.conftest import UID, Launcher
from tests.runtime.test_prepared import JOBS

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
OTHER = UID + 1


class Node:
    """A node of its own: a mount namespace with its own /run, so that all may be unmounted."""

    def __init__(self, site: Launcher) -> None:
        self.site = site
        script = "mount -t tmpfs run /run && echo ready && exec cat"
        self.holder = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", script], stdin=-1, stdout=-1, text=True
        )
        assert self.holder.stdout
        assert self.holder.stdout.readline() == "ready\n"

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run COMMAND on it."""
        inside = ["nsenter", "-m", "-t", str(self.holder.pid), *command]
        return subprocess.run(inside, capture_output=True, text=True, check=False)

    def set_up(self, uid: int, job: str) -> None:
        """Mount the image for a job."""
        program = str(self.site.program.with_name("setupRoot"))
        done = self.run(program, "-U", str(uid), "-G", str(uid), "-J", job, "docker", "test")
        assert (done.returncode, done.stderr) == (0, "")

    def epilogue(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run unsetupRoot with WORDS."""
        return self.run(str(self.site.program.with_name("unsetupRoot")), *words)

    def left(self) -> set[tuple[int, str]]:
        """Return users and jobs that something is mounted for."""
        with open(f"/proc/{self.holder.pid}/mounts") as mounts:
            paths = [line.split()[1].split("/") for line in mounts if f" {JOBS}/" in line]
        return {(int(path[4]), path[5]) for path in paths}

    def exists(self, path: Path) -> bool:
        """Say whether there is such a PATH on it."""
        return self.run("test", "-e", str(path)).returncode == 0


@pytest.fixture
def two(site: Launcher) -> Iterator[Node]:
    """A node with images of two users, one of whom has two jobs."""
    node = Node(site)
    for uid, job in sorted(ALL):
        node.set_up(uid, job)
    yield node
    node.holder.communicate()


ALL = {(UID, "7"), (UID, "8"), (OTHER, "9")}


@pytest.mark.parametrize(
    "words",
    [
        ("-U",),
        ("-U", ""),
        ("-J", "7"),
        ("-J", "7", "-U"),
        ("-U", str(UID), "-J"),
        ("-U", str(UID), "-J", ""),
        ("-U", str(UID), "-J", "."),
        ("-U", str(UID), "-J", ".."),
        ("-U", str(UID), "-J", "../9"),
        ("-U", str(UID), "7"),
        ("-U", str(UID), "-U", str(OTHER)),
        ("-U", str(UID), "--all"),
        ("-U", f" {UID}"),
        ("-U", f"+{UID}"),
        ("-U", f"0{UID}"),
        ("-U", hex(UID)),
        ("-U", f"{UID}x"),
        ("-U", "-1"),
        ("-U", "4294967295"),
        ("-U", str(UID + (1 << 32))),
        ("-U", str(UID + (1 << 64))),
        ("-U", "."),
        ("-U", ".."),
        ("-U", "*"),
        ("-h",),
        ("--help",),
        ("-a",),
        ("--al1",),
        ("",),
        ("all",),
        ("--", "7"),
    ],
)
def test_what_is_not_understood_unmounts_nothing(two: Node, words: Sequence[str]) -> None:
    done = two.epilogue(*words)
    assert two.left() == ALL
    assert (done.returncode, "usage: unsetupRoot" in done.stderr + done.stdout) == (
        0 if words == ("--help",) else 125,
        True,
    )


def test_a_job_ends_alone(two: Node) -> None:
    assert two.epilogue("-U", str(UID), "-J", "7").stderr == ""
    assert two.left() == ALL - {(UID, "7")}
    assert two.epilogue("-U", str(UID), "-J", "8").stderr == ""
    assert two.left() == {(OTHER, "9")}
    # Nothing remains of a user without jobs, and a second epilogue is none too many.
    assert not two.exists(JOBS / str(UID))
    assert two.epilogue("-U", str(UID), "-J", "8").returncode == 0


def test_a_user_ends_with_all_jobs(two: Node) -> None:
    assert two.epilogue("-U", str(UID)).stderr == ""
    assert two.left() == {(OTHER, "9")}
    assert not two.exists(JOBS / str(UID))


def test_all_is_said_by_a_word(two: Node) -> None:
    assert two.epilogue("--all").stderr == ""
    assert two.left() == set()
    assert not two.exists(JOBS)


def test_without_a_word_nothing_is_taken_from_users_who_have_processes(two: Node) -> None:
    with subprocess.Popen(["cat"], user=OTHER, group=OTHER, stdin=-1) as job:
        done = two.epilogue()
        assert done.returncode == 0
        assert f"left what is mounted for the user {OTHER}" in done.stderr
        assert two.left() == {(OTHER, "9")}
        assert job.stdin
        job.stdin.close()
    assert two.epilogue().stderr == ""
    assert two.left() == set()


def test_without_a_word_processes_that_are_about_to_end_are_waited_for(two: Node) -> None:
    program = two.site.program.with_name("unsetupRoot")
    with subprocess.Popen(["sleep", "0.7"], user=OTHER, group=OTHER):
        assert two.run(str(program)).stderr == ""
    assert two.left() == set()


def test_mounts_that_lie_on_one_another_all_go(two: Node) -> None:
    path = two.run("sh", "-c", f"echo {JOBS}/{OTHER}/9/*").stdout.strip()
    for _ in range(3):
        assert two.run("mount", "--bind", path, path).returncode == 0
    assert two.epilogue("-U", str(OTHER)).stderr == ""
    assert two.left() == ALL - {(OTHER, "9")}
    assert not two.exists(JOBS / str(OTHER))


def test_an_epilogue_needs_no_standard_streams(two: Node) -> None:
    program = two.site.program.with_name("unsetupRoot")
    shell = f"exec {program} -U {UID} 0<&- 1>&- 2>&-"
    assert two.run("sh", "-c", shell).returncode == 0
    assert two.left() == {(OTHER, "9")}


def test_an_epilogue_does_not_hang(two: Node, playground: Path) -> None:
    program, said = two.site.program.with_name("unsetupRoot"), playground / "said"
    slow = "exec strace -D -f -o /dev/null -e inject=umount2:delay_enter=15s:when=1"
    done = two.run("sh", "-c", f"{slow} {program} -U {UID} </dev/null >{said} 2>&1")
    assert done.returncode == 0
    assert f"unmounting for the user {UID}: not done in time" in said.read_text()
    assert two.epilogue("-U", str(UID)).stderr == ""
    assert two.left() == {(OTHER, "9")}
