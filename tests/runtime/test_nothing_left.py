"""However a launch ends, nothing of it is left: no process, no mount."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.runtime.conftest import Launcher
from tests.runtime.test_container import node_directory, servers


def test_forty_launches_in_a_row_leave_nothing(shifter: Launcher) -> None:
    times = []
    for _ in range(40):
        assert shifter.run("-i", "test", "true").returncode == 0
        times.append(shifter.wait_until_gone())
    assert sorted(times)[20] < 0.5


def test_sixteen_launches_at_once_leave_nothing(shifter: Launcher) -> None:
    started = [
        shifter.popen("-i", "test", "sh", "-c", "cat /etc/motd; sleep 0.2", stdout=subprocess.PIPE)
        for _ in range(16)
    ]
    for process in started:
        with process:
            assert process.communicate(timeout=30)[0] == "from the image\n"
            assert process.returncode == 0


def test_a_background_child_keeps_the_image_until_it_ends(
    shifter: Launcher, playground: Path
) -> None:
    script = "{ sleep 1; cat /etc/motd > out.new; /bin/busybox mv out.new out; } & exit 3"
    done = shifter.run(
        "-i", "test", "sh", "-c", script, cwd=playground,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 3
    assert len(shifter.processes()) >= 1
    deadline = time.monotonic() + 10
    while not (playground / "out").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (playground / "out").read_text() == "from the image\n"


def test_the_server_holds_nothing_of_the_callers(shifter: Launcher, playground: Path) -> None:
    reader, writer = os.pipe()
    with shifter.popen(
        "-i", "test", "cat", cwd=playground, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, pass_fds=[writer],
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        process.stdin.write("ready\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        (server,) = servers(shifter)
        proc = Path(f"/proc/{server}")
        assert os.readlink(proc / "cwd") == "/"
        files = {int(fd.name): os.readlink(fd) for fd in (proc / "fd").iterdir()}
        assert files[0] == files[1] == "/dev/null"
        assert files[3] == "/dev/fuse"
        assert files[2].startswith("pipe:")
        inherited = {os.readlink(f"/proc/self/fd/{fd}") for fd in (reader, writer)}
        assert not inherited & set(files.values())
        assert os.readlink(proc / "ns/mnt") == os.readlink("/proc/self/ns/mnt")
        assert os.getsid(server) == server
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        assert int(status["SigBlk"], 16) == 0
        assert int(status["CapEff"], 16) == 0
        process.communicate(timeout=10)
    os.close(reader)
    os.close(writer)


def test_interrupting_the_application_does_not_interrupt_the_server(shifter: Launcher) -> None:
    script = "trap 'cat /etc/motd; exit 7' INT; echo ready; read line"
    with shifter.popen(
        "-i", "test", "sh", "-c", script, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        process_group=0,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate(timeout=10)[0] == "from the image\n"
        assert process.returncode == 7


def test_a_killed_application_leaves_nothing(shifter: Launcher) -> None:
    with shifter.popen("-i", "test", "sh", "-c", "echo ready; sleep 100", stdout=subprocess.PIPE,
                       process_group=0) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGKILL)
    assert shifter.wait_until_gone() < 2


def test_a_dead_server_is_an_error_and_no_hang(shifter: Launcher) -> None:
    script = "echo ready; read line; cat /etc/motd || echo failed"
    with shifter.popen(
        "-i", "test", "/bin/busybox", "sh", "-c", script, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        for pid in shifter.processes():
            if pid != process.pid:
                os.kill(pid, signal.SIGKILL)
        out, err = process.communicate("go\n", timeout=10)
        assert "failed" in out or process.returncode != 0, (out, err)


ALONE, WITH_CHILDREN = (), ("-f", "-b", "execve")


def system_calls(trace: Path) -> list[tuple[str, int]]:
    """Return each system call of a trace with which of its process's calls of that name it is."""
    seen: Counter[tuple[str, str]] = Counter()
    calls: dict[tuple[str, int], None] = {}
    for line in trace.read_text().splitlines():
        if match := re.match(r"(\d+ +)?(\w+)\(", line):
            seen[match[1], match[2]] += 1
            calls[match[2], seen[match[1], match[2]]] = None
    return list(calls)


WANTED = ("--writable", "-V/usr:/x;/any:/cache:perNodeCache=size=1M")


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        # Each process dies at its own call of that name and number.
        pytest.param(WITH_CHILDREN, (), id="the launcher and its children"),
        pytest.param(ALONE, WANTED, id="a launcher of whom much is wanted"),
    ],
)
def test_dying_at_any_system_call_leaves_nothing(
    traceable: Launcher, playground: Path, options: tuple[str, ...], wanted: tuple[str, ...]
) -> None:
    shifter = traceable
    trace = playground / "trace"
    command = ("-i", "test", *wanted, "true")
    shifter.run(*command, before=["strace", *options, "-o", str(trace)])
    calls = system_calls(trace)
    killed = 0
    for name, number in calls:
        inject = f"inject={name}:signal=KILL:when={number}"
        strace = ["strace", *options, "-o", "/dev/null", "-e", inject]
        done = shifter.run(*command, before=strace)
        assert done.returncode in (0, 125, -signal.SIGKILL), (inject, done)
        killed += done.returncode != 0
        shifter.wait_until_gone()
    # Who dies before there is a keeper leaves a file of no bytes, for the next one to remove.
    assert shifter.run("-i", "test", "true").returncode == 0
    shifter.wait_until_gone()
    assert not node_directory().exists()
    assert len(calls) > 150
    assert killed > 0.9 * len(calls)


@pytest.mark.parametrize(
    "words",
    [
        ("-i", "absent", "true"),
        ("-i", "test", "-V", "/absent:/v", "true"),
        ("-i", "test", "--store=/absent", "true"),
        ("-i", "id:" + "0" * 64, "true"),
        ("-i", "test", "-V", "/srv:/etc", "true"),
        ("-i", "test", "--workdir=/absent", "true"),
        ("-i", "test", "absent"),
    ],
)
def test_a_launch_that_fails_leaves_no_directory_on_the_node(
    shifter: Launcher, words: tuple[str, ...]
) -> None:
    assert shifter.run(*words).returncode in (125, 127)
    shifter.wait_until_gone()
    assert not node_directory().exists()
