"""The image's server and the keeper outlive what is meant for the application they serve."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.runtime.conftest import Launcher
from tests.runtime.test_container import keepers, name_of, rank, servers, until

# All that a process can ignore, with the real-time signals that a libc keeps for itself.
CATCHABLE = sorted(set(range(1, 65)) - {signal.SIGKILL, signal.SIGSTOP})


def words_of(pid: int) -> str:
    """Return the command line of PID as pgrep(1) shows it."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().rstrip()


@contextmanager
def reader(
    launcher: Launcher, before: Sequence[str] = (), stderr: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run an application that reads a file of the image for each line of its input."""
    command = ("-i", "test", "sh", "-c", "while read -r line; do cat /etc/motd || exit 9; done")
    pipe = subprocess.PIPE
    with launcher.popen(*command, before=before, stdin=pipe, stdout=pipe, stderr=stderr) as process:
        read_once(process)
        yield process
        assert process.stdin
        process.stdin.close()
        process.wait(10)


def read_once(process: subprocess.Popen[str]) -> None:
    """Let the application read the image once."""
    assert process.stdin
    assert process.stdout
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "from the image\n"


@pytest.fixture
def launcher(request: pytest.FixtureRequest) -> Launcher:
    found: Launcher = request.getfixturevalue(request.param)
    return found


SIGNALS = int(os.environ.get("SHIFTER_TEST_SIGNALS", "2000"))
both_servers = pytest.mark.parametrize("launcher", ["shifter", "foreign"], indirect=True)


# --------------------------------------------------------------------------------- signals


@both_servers
def test_no_catchable_signal_ends_a_helper(launcher: Launcher) -> None:
    with reader(launcher) as process:
        helpers = [*servers(launcher), *keepers(launcher)]
        assert len(helpers) == 2
        for number in CATCHABLE:
            for pid in helpers:
                os.kill(pid, number)
        read_once(process)
        assert [*servers(launcher), *keepers(launcher)] == helpers
    assert process.returncode == 0


@both_servers
def test_a_container_of_its_own_has_helpers_that_no_signal_ends(launcher: Launcher) -> None:
    # Without a step nothing is shared where the root is written.
    script = "trap '' TERM; echo begun; read -r line; cat /etc/motd"
    pipe = subprocess.PIPE
    with launcher.popen(
        "-i", "test", "--writable", "sh", "-c", script, stdin=pipe, stdout=pipe
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        for pid in (*servers(launcher), *keepers(launcher)):
            for number in CATCHABLE:
                os.kill(pid, number)
        assert process.communicate("go\n", timeout=10)[0] == "from the image\n"


def test_helpers_do_not_look_like_the_application(shifter: Launcher) -> None:
    words = "the-words-of-the-first-rank"
    with shifter.popen("-i", "test", "sh", "-c", "echo begun; read -r line", words,
                       stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        until("there is no helper", lambda: servers(shifter) and keepers(shifter))
        found = {name_of(pid): words_of(pid) for pid in shifter.processes() if pid != process.pid}
        process.communicate("", timeout=10)
    assert sorted(found) == ["shifter-keeper", "shifter-server"]
    for name, line in found.items():
        assert line.split()[0] == name
        assert len(line.split()) == 2
        assert words not in line


@pytest.mark.parametrize("named", ["test", "docker.io/library/test:latest"])
def test_a_helper_has_its_whole_name_whatever_the_caller_wrote(
    shifter: Launcher, named: str
) -> None:
    # With few words the name does not fit into their place, with many it does not fill it.
    env = {"SHIFTER_IMAGE": named}
    for more in ((), ("-c", "read -r line", "x" * 5000)):
        with shifter.popen("sh", *more, env=env, stdin=subprocess.PIPE) as process:
            until("there is no helper", lambda: servers(shifter) and keepers(shifter))
            for pid in (*servers(shifter), *keepers(shifter)):
                assert len(words_of(pid)) == len("shifter-server 0123456789ab")
            process.communicate("", timeout=10)
        shifter.wait_until_gone()


def test_a_helper_has_its_whole_name_however_long_the_caller_s_words_are(
    shifter: Launcher,
) -> None:
    env = {"SHIFTER_IMAGE": "test"}
    for more in range(20):
        command = ("sh", "-c", "read l #" + "x" * more)
        short = ("/bin/bash", "-c", 'exec -a s "$@"', "bash")
        with shifter.popen(*command, before=short, env=env, stdin=subprocess.PIPE) as process:
            until("there is no helper", lambda: servers(shifter) and keepers(shifter))
            for pid in (*servers(shifter), *keepers(shifter)):
                assert re.fullmatch("shifter-(server|keeper) [0-9a-f]{12}", words_of(pid)), more
            process.communicate("", timeout=10)
        shifter.wait_until_gone()


def test_a_signal_to_all_processes_of_the_user_leaves_the_image_readable(shifter: Launcher) -> None:
    script = "kill -TERM -1; cat /etc/motd"
    done = shifter.run("-i", "test", "sh", "-c", script)
    assert done.stdout == "from the image\n"
    assert done.returncode == 0


@both_servers
def test_signals_of_all_kinds_under_load_reach_no_application(launcher: Launcher) -> None:
    chance = random.Random(SIGNALS)
    script = "i=0; while [ $i -lt 300 ]; do cat /etc/motd /bin/busybox; i=$((i + 1)); done | wc -c"
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                launcher.popen("-i", "test", "sh", "-c", script, stdout=pipe, stderr=pipe)
            )
            for _ in range(4)
        ]
        until("there is no helper", lambda: servers(launcher) and keepers(launcher))
        helpers = [*servers(launcher), *keepers(launcher)]
        for _ in range(SIGNALS):
            os.kill(chance.choice(helpers), chance.choice(CATCHABLE))
        ends = [process.communicate(timeout=120) for process in started]
    assert {error for _, error in ends} == {""}
    assert len({out for out, _ in ends}) == 1


# ---------------------------------------------------------------------------------- limits


def limited(limits: str) -> tuple[str, ...]:
    """Return what runs the rest of a command under LIMITS, options of ulimit."""
    return ("/bin/bash", "-c", f'ulimit {limits}; exec "$@"', "bash")


def limits_of(pid: int) -> dict[str, tuple[str, str]]:
    """Return the soft and hard limits of PID by their names in proc_pid_limits(5)."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:25].strip(): (line[26:46].strip(), line[47:67].strip()) for line in lines}


@both_servers
def test_soft_limits_of_the_first_rank_are_not_the_helpers(launcher: Launcher) -> None:
    limits = "-S -t 1 -d 20000 -v 400000 -n 64 -u 500 -f 7"
    with reader(launcher, before=limited(limits)) as process:
        mine = limits_of(process.pid)
        assert mine["Max cpu time"][0] == "1"
        assert mine["Max open files"][0] == "64"
        assert mine["Max file size"][0] == str(7 * 1024)
        for pid in (*servers(launcher), *keepers(launcher)):
            for name, (soft, hard) in limits_of(pid).items():
                if name not in ("Max core file size", "Max stack size"):
                    assert soft == hard, name


def test_the_server_has_the_ordinary_scheduling_class(shifter: Launcher) -> None:
    with reader(shifter, before=("/usr/bin/chrt", "--batch", "0")) as process:
        assert os.sched_getscheduler(process.pid) == os.SCHED_BATCH
        for pid in (*servers(shifter), *keepers(shifter)):
            assert os.sched_getscheduler(pid) == os.SCHED_OTHER


@pytest.mark.parametrize(
    "other", [limited("-t 1"), limited("-d 50000"), ("nice", "-n", "5"), ("chrt", "--idle", "0")]
)
def test_ranks_with_what_a_server_cannot_undo_have_one_of_their_own(
    shifter: Launcher, other: tuple[str, ...]
) -> None:
    with reader(shifter, other, subprocess.DEVNULL), reader(shifter), reader(shifter):
        assert len(servers(shifter)) == 2


@pytest.mark.parametrize(
    ("limit", "option"), [("-t 5", "-t"), ("-d 60000", "-d"), ("-v 90000", "-v")]
)
def test_a_hard_limit_that_may_end_the_server_is_named_before_the_command_starts(
    shifter: Launcher, limit: str, option: str
) -> None:
    done = shifter.run("-i", "test", "sh", "-c", "echo begun >&2", before=limited(limit))
    first, last = done.stderr.splitlines()
    assert f"(ulimit {option})" in first
    assert last == "begun"


def test_a_limit_that_ends_no_server_is_not_spoken_of(shifter: Launcher) -> None:
    done = shifter.run("-i", "test", "true", before=limited("-t 100000 -n 256 -f 100000 -s 1024"))
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize("descriptors", range(12, 28, 2))
def test_too_few_descriptors_are_not_called_damage(shifter: Launcher, descriptors: int) -> None:
    done = shifter.run("-i", "test", "true", before=limited(f"-n {descriptors}"))
    if done.returncode != 0:
        assert done.returncode == 125
        assert "damaged" not in done.stderr
        assert "descriptor" in done.stderr or "Too many open files" in done.stderr
    soft = shifter.run("-i", "test", "true", before=limited(f"-S -n {descriptors}"))
    assert soft.returncode == 0


def test_a_limit_of_file_sizes_is_an_error_with_words(shifter: Launcher) -> None:
    done = shifter.run("-i", "test", "true", before=limited("-f 0"))
    assert done.returncode == 125
    assert "File too large" in done.stderr


def test_the_application_has_the_callers_limits(shifter: Launcher) -> None:
    before = limited("-S -n 100 -f 50")
    script = "grep -E '^Max (open files|file size)' /proc/self/limits"
    for _ in range(2):
        with rank(shifter):
            done = shifter.run("-i", "test", "sh", "-c", script, before=before)
        size, files = done.stdout.splitlines()
        assert files.split()[3] == "100"
        assert size.split()[3] == str(50 * 1024)


# ---------------------------------------------------------------------------------- deaths


@both_servers
def test_the_death_of_a_server_is_said_before_the_command_fails(launcher: Launcher) -> None:
    script = "echo begun; read -r line; cat /bin/busybox >/dev/null; echo after >&2"
    pipe = subprocess.PIPE
    with launcher.popen(
        "-i", "test", "sh", "-c", script, stdin=pipe, stdout=pipe, stderr=pipe
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        (server,) = servers(launcher)
        os.kill(server, signal.SIGKILL)
        said = process.communicate("go\n", timeout=10)[1].splitlines()
    told = [line for line in said if line.startswith("shifter: the server of the image 'test'")]
    assert told == said[:1]
    assert "killed by signal 9" in told[0]


def test_a_death_is_said_once_to_ranks_that_share_their_errors(
    shifter: Launcher, tmp_path: Path
) -> None:
    path = tmp_path / "errors"
    path.write_text("what was there before\n")
    with path.open("a") as errors:
        processes = [
            shifter.popen("-i", "test", "sh", "-c", "echo begun; read -r line; exit 0",
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
            for _ in range(8)
        ]  # fmt: skip
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "begun\n"
        (server,) = servers(shifter)
        os.kill(server, signal.SIGKILL)
        until("nothing is said", lambda: "has died" in path.read_text())
        for process in processes:
            process.communicate("", timeout=10)
    lines = path.read_text().splitlines()
    assert lines[0] == "what was there before"
    assert len([line for line in lines if "has died" in line]) == 1


def test_what_is_written_after_a_death_overwrites_nothing(
    shifter: Launcher, tmp_path: Path
) -> None:
    path = tmp_path / "errors"
    script = "echo one >&2; echo begun; read -r line; echo two >&2"
    with path.open("w") as errors, shifter.popen(
        "-i", "test", "sh", "-c", script, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=errors,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        (server,) = servers(shifter)
        os.kill(server, signal.SIGKILL)
        until("nothing is said", lambda: "has died" in path.read_text())
        process.communicate("go\n", timeout=10)
    first, told, last = path.read_text().splitlines()
    assert (first, last) == ("one", "two")
    assert "has died" in told


# Reads past the page cache, so that each read is work for the server.
READ_ALWAYS = """
import mmap, os, sys
fd, buffer = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, 1 << 20)
while os.preadv(fd, [buffer], 0):
    pass
"""


def test_a_server_that_has_used_its_processor_time_is_said_to_have(shifter: Launcher) -> None:
    script = "echo begun; read -r line; exit 0"
    pipe = subprocess.PIPE
    with shifter.popen("-i", "test", "sh", "-c", script, before=limited("-t 1"),
                       stdin=pipe, stdout=pipe, stderr=pipe) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        command = ["python3", "-c", READ_ALWAYS, f"/proc/{process.pid}/root/bin/busybox"]
        user = shifter.identity()
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, **user)  # type: ignore[call-overload]
        assert "Error" in done.stderr
        until("the server lives", lambda: not servers(shifter))
        said = process.communicate("", timeout=10)[1]
    assert "it has used the 1 s of processor time" in said.splitlines()[-1]


def test_nothing_is_said_when_a_container_ends(shifter: Launcher) -> None:
    for _ in range(20):
        done = shifter.run("-i", "test", "sh", "-c", "sleep 0 & cat /etc/motd")
        assert done.stderr == ""
