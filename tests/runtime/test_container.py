"""Launches that want the same on one node share one container, and nothing of it is left."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runtime.conftest import UID, Launcher
from tests.runtime.store import add_image, entry, make_store, write_generation
from tests.runtime.test_errors import changed_node

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
NAMESPACES = "readlink /proc/self/ns/user; readlink /proc/self/ns/mnt"
# What waits for more ranks by itself must not be what these tests see.
LONG = {"SHIFTER_LINGER": "30"}


def node_directory(uid: int = UID) -> Path:
    return Path(f"/dev/shm/shifter_lite.{uid}")


@contextmanager
def rank(shifter: Launcher, *options: str, **env: str | None) -> Iterator[tuple[list[str], int]]:
    """Run a rank that lives until the end of the block; yield its namespaces and its pid."""
    with _rank(shifter, options, env, {0}) as found:
        yield found


@contextmanager
def doomed(shifter: Launcher, **env: str | None) -> Iterator[tuple[list[str], int]]:
    """Run one whose server will be killed: what is not in memory yet it cannot read any more."""
    with _rank(shifter, (), env, {0, -signal.SIGBUS}) as found:
        yield found


@contextmanager
def _rank(
    shifter: Launcher,
    options: Sequence[str],
    env: Mapping[str, str | None],
    ends: set[int],
    before: Sequence[str] = (),
) -> Iterator[tuple[list[str], int]]:
    command = ("-i", "test", *options, "sh", "-c", f"{NAMESPACES}; read -r line; exit 0")
    pipe = subprocess.PIPE
    with shifter.popen(*command, before=before, env=env, stdin=pipe, stdout=pipe) as process:
        assert process.stdin
        assert process.stdout
        yield [process.stdout.readline() for _ in range(2)], process.pid
        process.stdin.close()
        assert process.wait(10) in ends


def name_of(pid: int) -> str:
    """Return what the kernel calls the process; nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def servers(shifter: Launcher) -> list[int]:
    """Return the processes that serve an image of our stores."""
    names = ("shifter-server", "squashfuse", "squashfuse_ll")
    return [pid for pid in shifter.processes() if name_of(pid) in names]


def keepers(shifter: Launcher) -> list[int]:
    """Return the processes that keep a container of ours."""
    return [pid for pid in shifter.processes() if name_of(pid) == "shifter-keeper"]


def until(what: str, holds: object) -> None:
    """Wait until HOLDS() is true."""
    deadline = time.monotonic() + 20
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


# ---------------------------------------------------------------------------- who shares


def test_ranks_at_once_share_one_container(shifter: Launcher) -> None:
    with ExitStack() as stack:
        found = {tuple(stack.enter_context(rank(shifter))[0]) for _ in range(8)}
        assert len(found) == 1
        assert len(servers(shifter)) == 1
        assert len(keepers(shifter)) == 1


def test_a_rank_that_comes_when_the_first_has_long_been_alone_joins_it(shifter: Launcher) -> None:
    with rank(shifter) as (first, _):
        time.sleep(0.3)
        with rank(shifter) as (second, _):
            assert second == first


def test_a_rank_joins_what_is_left_of_others(shifter: Launcher) -> None:
    with ExitStack() as stack:
        with rank(shifter) as (first, _):
            second, _ = stack.enter_context(rank(shifter))
        time.sleep(0.1)
        third, _ = stack.enter_context(rank(shifter))
        assert first == second == third


@pytest.mark.parametrize(
    "env",
    [
        {"SLURM_JOB_ID": "1"},
        {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "1"},
        {"PBS_JOBID": "1.host"},
        {"ALPS_APP_ID": "7"},
        {"XDG_SESSION_ID": "3"},
    ],
)
def test_another_job_step_or_session_has_another_container(
    shifter: Launcher, env: dict[str, str]
) -> None:
    other = dict.fromkeys([*env][-1:], "2")
    with rank(shifter, **env) as (first, _), rank(shifter, **{**env, **other}) as (second, _):
        assert not set(first) & set(second)
        with rank(shifter, **env) as (third, _):
            assert third == first


def test_sessions_of_one_job_share(shifter: Launcher) -> None:
    job = {"SLURM_JOB_ID": "1"}
    first, second = ({**job, "XDG_SESSION_ID": number} for number in "12")
    with rank(shifter, **first) as (one, _), rank(shifter, **second) as (other, _):
        assert one == other


def test_another_image_has_another_container_and_another_name_of_the_same_has_not(
    shifter: Launcher, store: Path, image: Path, tmp_path: Path
) -> None:
    padded = tmp_path / "other.squashfs"
    padded.write_bytes(image.read_bytes() + bytes(4096))
    ids = [add_image(store, file) for file in (image, padded)]
    items = []
    for name, (image_id, size) in zip(("test", "other", "test2"), (*ids, ids[0]), strict=True):
        key = f"docker.io/library/{name}:latest".encode()
        items.append((key, entry(key, image_id, size)))
    write_generation(store, items)
    with (
        rank(shifter) as (first, _),
        rank(shifter, "-i", "other") as (second, _),
        rank(shifter, "-i", "test2") as (third, _),
    ):
        assert not set(first) & set(second)
        assert first == third


@needs_root
def test_users_and_groups_do_not_share(shifter: Launcher) -> None:
    other = replace(shifter, uid=UID + 1, gid=UID + 1)
    third = replace(shifter, gid=UID + 1)
    with rank(shifter) as (a, _), rank(other) as (b, _), rank(third) as (c, _):
        assert not set(a) & set(b)
        assert not set(a) & set(c)
        assert not set(b) & set(c)


def test_a_name_that_means_another_image_by_now_has_another_container(
    shifter: Launcher, store: Path, image: Path, tmp_path: Path
) -> None:
    make_store(store, image, number=1)
    with rank(shifter) as (first, _):
        padded = tmp_path / "other.squashfs"
        padded.write_bytes(image.read_bytes() + bytes(4096))
        make_store(store, image, number=2)
        with rank(shifter) as (second, _):
            assert second == first
        make_store(store, padded, number=3)
        with rank(shifter) as (third, _):
            assert not set(third) & set(first)


def test_who_sees_another_host_does_not_share(shifter: Launcher) -> None:
    elsewhere = ("unshare", "--user", "--map-current-user", "--mount")
    command = ("-i", "test", "sh", "-c", NAMESPACES)
    with rank(shifter) as (first, _):
        there = shifter.run(*command, before=elsewhere).stdout.splitlines(keepends=True)
        assert len(there) == 2
        assert not set(there) & set(first)


# ------------------------------------------------------------------- what is each rank's own


def test_environment_directory_umask_and_command_are_each_ranks_own(shifter: Launcher) -> None:
    with rank(shifter, env=None):
        script = "echo $MINE; pwd; umask; echo $0"
        before = ["/bin/sh", "-c", 'umask 027; exec "$@"', "sh"]
        out = shifter.inside(script, cwd=shifter.home, before=before, env={"MINE": "x"})
        assert out == f"x\n{shifter.home}\n0027\n/bin/sh\n"


def test_who_lets_nobody_read_his_files_shares_his_container_all_the_same(
    shifter: Launcher,
) -> None:
    before = ["/bin/sh", "-c", 'umask 0777; exec "$@"', "sh"]
    with _rank(shifter, (), {}, {0}, before) as (first, _):
        assert shifter.inside(f"{NAMESPACES}; umask") == "".join(first) + "0022\n"
        assert shifter.inside(f"{NAMESPACES}; umask", before=before) == "".join(first) + "0777\n"
    until("nothing is left on the node", lambda: not node_directory().exists())


def test_who_joins_has_no_privilege_and_no_descriptor_of_ours(shifter: Launcher) -> None:
    with rank(shifter) as (first, _):
        out = shifter.inside(f"{NAMESPACES}; cat /proc/self/status; ls /proc/self/fd")
        assert out.splitlines(keepends=True)[:2] == first
        fields = dict(line.split(":", 1) for line in out.splitlines() if ":" in line)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(fields[name], 16) == 0, name
        assert fields["NoNewPrivs"].strip() == "1"
        assert out.splitlines()[-4:] == ["0", "1", "2", "3"]


def test_ranks_can_read_each_others_memory(shifter: Launcher) -> None:
    with rank(shifter, MARK="here") as (_, pid):
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        (stack,) = (line for line in lines if "[stack]" in line)
        page = int(stack.split("-")[1].split()[0], 16) // 4096 - 1
        # What PTRACE_MODE_ATTACH allows, process_vm_readv(2) may, too.
        read = (
            f"dd if=/proc/{pid}/mem bs=4096 skip={page} count=1 2>/dev/null | strings | grep ^MARK="
        )
        assert shifter.inside(read, env={"MARK": ""}) == "MARK=here\n"


def test_ranks_share_memory(shifter: Launcher) -> None:
    name = f"/dev/shm/shifter-test-{os.getpid()}"
    with rank(shifter):
        shifter.inside(f"echo through memory > {name}")
        assert shifter.inside(f"cat {name}; rm {name}") == "through memory\n"


# --------------------------------------------------------------------- how it comes about


def delayed(shifter: Launcher, trace: Path) -> subprocess.Popen[str]:
    """Start a founder that stays at the change of its root until its process group is killed."""
    strace = ["strace", "-o", str(trace), "-e", "inject=pivot_root:delay_enter=20s"]
    process = shifter.popen("-i", "test", "true", before=strace, process_group=0)
    until("the founder is not so far", lambda: trace.exists() and "pivot" in trace.read_text())
    return process


def test_who_comes_while_it_is_made_sleeps(shifter: Launcher, playground: Path) -> None:
    with (
        delayed(shifter, playground / "trace") as founder,
        shifter.popen("-i", "test", "true", stderr=subprocess.DEVNULL) as waiting,
    ):
        time.sleep(0.5)
        assert waiting.poll() is None
        fields = Path(f"/proc/{waiting.pid}/stat").read_text().rpartition(")")[2].split()
        assert fields[0] == "S"
        # In ticks of 10 ms.
        assert int(fields[11]) + int(fields[12]) <= 3
        os.killpg(founder.pid, signal.SIGKILL)
        assert waiting.wait(10) == 0


def test_a_founder_that_is_killed_half_way_is_replaced(shifter: Launcher, playground: Path) -> None:
    with ExitStack() as stack:
        founder = stack.enter_context(delayed(shifter, playground / "trace"))
        command = ("-i", "test", "sh", "-c", f"{NAMESPACES}; sleep 0.3")
        waiting = [
            stack.enter_context(shifter.popen(*command, stdout=subprocess.PIPE)) for _ in range(5)
        ]
        time.sleep(0.2)
        os.killpg(founder.pid, signal.SIGKILL)
        out = {process.communicate(timeout=20)[0] for process in waiting}
        assert len(out) == 1
        assert out.pop().count("\n") == 2


def test_the_founder_has_looked_for_its_command_when_it_lets_others_in(
    shifter: Launcher, playground: Path
) -> None:
    trace = playground / "trace"
    before = ["strace", "-o", str(trace), "-e", "trace=stat,newfstatat,write", "-s", "4000"]
    assert shifter.run("-i", "test", "true", before=before).returncode == 0
    calls = trace.read_text().splitlines()
    (ready,) = (at for at, call in enumerate(calls) if "write(" in call and "ready" in call)
    assert any('"/bin/true"' in call for call in calls[:ready])


def test_a_launch_that_fails_hinders_no_other(shifter: Launcher, store: Path, image: Path) -> None:
    image_id = make_store(store, image)
    path = store / "images" / image_id[:2] / f"{image_id}.squashfs"
    good = path.read_bytes()
    path.write_bytes(bytes(len(good)))
    assert shifter.run("-i", "test", "true").returncode == 125
    path.write_bytes(good)
    assert shifter.run("-i", "test", "true").returncode == 0


def test_many_ranks_of_no_life_time_all_run(shifter: Launcher) -> None:
    started = [shifter.popen("-i", "test", "true") for _ in range(64)]
    assert [process.wait(60) for process in started] == [0] * 64


def test_who_joins_opens_one_file_of_the_store(shifter: Launcher, playground: Path) -> None:
    trace = playground / "trace"
    with rank(shifter):
        done = shifter.run("-i", "test", "true", before=["strace", "-y", "-o", str(trace)])
        assert done.returncode == 0
    named = [line for line in trace.read_text().splitlines() if str(shifter.store) in line]
    assert len([line for line in named if line.startswith(("open", "openat"))]) == 1
    assert len([line for line in named if f'"{shifter.store}' in line]) == 1


def test_who_joins_by_an_id_opens_nothing_of_the_store(shifter: Launcher, playground: Path) -> None:
    image_id = shifter.inside("echo $SHIFTER_IMAGE").strip()
    trace = playground / "trace"
    with rank(shifter, "-i", f"id:{image_id}"):
        before = ["strace", "-y", "-o", str(trace)]
        assert shifter.run("-i", f"id:{image_id}", "true", before=before).returncode == 0
    opened = re.findall(rf'^open.*"{shifter.store}.*$', trace.read_text(), re.MULTILINE)
    assert opened == []


# --------------------------------------------------------------------- what becomes of it


def test_for_a_while_ranks_that_come_late_find_it_still_there(shifter: Launcher) -> None:
    command = ("-i", "test", "sh", "-c", NAMESPACES)
    first = shifter.run(*command, env=LONG).stdout
    assert shifter.run(*command, env=LONG).stdout == first
    for keeper in keepers(shifter):
        os.kill(keeper, signal.SIGKILL)


def test_a_duration_that_is_none_is_refused(shifter: Launcher) -> None:
    for text in ("x", "-1", "61", "nan", "1s", "inf"):
        done = shifter.run("-i", "test", "true", env={"SHIFTER_LINGER": text})
        assert done.returncode == 125
        assert f"SHIFTER_LINGER is not a duration: '{text}'" in done.stderr


def test_when_the_last_has_gone_nothing_is_left_on_the_node(shifter: Launcher) -> None:
    with rank(shifter), rank(shifter):
        (file,) = node_directory().glob("c.*")
        assert file.stat().st_mode & 0o777 == 0o600
        assert node_directory().stat().st_mode & 0o777 == 0o700
    shifter.wait_until_gone()
    assert not node_directory().exists()


def test_what_runs_in_the_background_keeps_the_container(shifter: Launcher) -> None:
    with shifter.popen("-i", "test", "sh", "-c", "sleep 1 &", stdout=subprocess.DEVNULL):
        pass
    time.sleep(0.2)
    assert len(servers(shifter)) == 1
    shifter.wait_until_gone(10)
    assert not node_directory().exists()


@pytest.mark.parametrize("job", [{"SLURM_JOB_ID": "1"}, {}])
def test_the_server_of_a_job_is_bound_to_no_processor_of_one_rank(
    shifter: Launcher, job: dict[str, str]
) -> None:
    one = str(min(os.sched_getaffinity(0)))
    bound = ("taskset", "-c", one)
    with _rank(shifter, (), job, {0}, bound) as (_, pid):
        (server,) = servers(shifter)
        assert os.sched_getaffinity(pid) == {int(one)}
        expected = os.sched_getaffinity(0) if job else {int(one)}
        assert os.sched_getaffinity(server) == expected


def test_a_dead_server_ends_the_container_for_those_who_come(shifter: Launcher) -> None:
    with doomed(shifter, **LONG) as (first, pid):
        for server in servers(shifter):
            os.kill(server, signal.SIGKILL)
        until("the keeper is still there", lambda: not keepers(shifter))
        with rank(shifter) as (second, _):
            assert not set(first) & set(second)
        os.kill(pid, signal.SIGCONT)


def test_nobody_joins_where_keeper_and_server_are_dead(shifter: Launcher) -> None:
    with doomed(shifter, **LONG) as (first, _):
        for pid in (*keepers(shifter), *servers(shifter)):
            os.kill(pid, signal.SIGKILL)
        until("they are still there", lambda: not keepers(shifter) and not servers(shifter))
        with rank(shifter) as (second, _):
            assert not set(first) & set(second)


def test_a_killed_keeper_takes_nothing_along(shifter: Launcher) -> None:
    with rank(shifter, **LONG) as (first, _):
        for keeper in keepers(shifter):
            os.kill(keeper, signal.SIGKILL)
        until("the keeper is still there", lambda: not keepers(shifter))
        with rank(shifter) as (second, _):
            assert second == first
    # Whoever founds the next container, of whatever, removes the file.
    assert len(list(node_directory().glob("c.*"))) == 1
    shifter.run("-i", "test", "true", env={"SLURM_JOB_ID": "1"})
    shifter.wait_until_gone()
    assert not node_directory().exists()


def test_all_killed_at_once_the_next_launch_is_as_the_first(shifter: Launcher) -> None:
    for _ in range(3):
        with shifter.popen("-i", "test", "sleep", "60", env=LONG) as process:
            until("it does not run", lambda: servers(shifter) and keepers(shifter))
            for pid in (*shifter.processes(), process.pid):
                os.kill(pid, signal.SIGKILL)
        assert shifter.run("-i", "test", "true").returncode == 0


def test_the_keeper_holds_nothing_of_the_callers(shifter: Launcher, playground: Path) -> None:
    reader, writer = os.pipe()
    with shifter.popen(
        "-i", "test", "cat", cwd=playground, env=LONG, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, pass_fds=[writer],
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        process.stdin.write("ready\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        (keeper,) = keepers(shifter)
        proc = Path(f"/proc/{keeper}")
        assert os.readlink(proc / "cwd") == "/"
        files = {os.readlink(fd) for fd in (proc / "fd").iterdir()}
        inherited = {os.readlink(f"/proc/self/fd/{fd}") for fd in (reader, writer)}
        assert not inherited & files
        assert not [path for path in files if path.startswith(str(shifter.base))]
        assert os.readlink(proc / "ns/mnt") == os.readlink("/proc/self/ns/mnt")
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        assert int(status["SigBlk"], 16) == 0
        assert int(status["CapEff"], 16) == 0
        os.kill(keeper, signal.SIGKILL)
        process.communicate(timeout=10)
    os.close(reader)
    os.close(writer)


# ----------------------------------------------------------------------------- hostile nodes


@pytest.fixture
def taken() -> Iterator[list[Path]]:
    """Directories of the caller's name, but of somebody else's."""
    paths = [node_directory(), Path(f"/tmp/shifter_lite.{UID}")]
    remove(paths)
    yield paths
    remove(paths)


def remove(paths: list[Path]) -> None:
    for path in paths:
        if path.is_symlink() or path.is_file():
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)


@needs_root
@pytest.mark.parametrize("kind", ["directory", "open", "link", "file"])
def test_somebody_who_takes_the_directory_of_another_stops_nobody(
    shifter: Launcher, taken: list[Path], playground: Path, kind: str
) -> None:
    for path in taken:
        if kind == "link":
            path.symlink_to(playground)
        elif kind == "file":
            path.touch()
        else:
            path.mkdir(mode=0o700)
            if kind == "open":
                os.chown(path, UID, UID)
                path.chmod(0o777)
    done = shifter.run("-i", "test", "true")
    assert done.returncode == 0
    assert done.stderr == (
        f"shifter: '/tmp/shifter_lite.{UID}' is not yours: this process shares no container\n"
    )
    assert list(playground.iterdir()) == []


@needs_root
def test_one_directory_that_is_taken_leaves_the_other(shifter: Launcher, taken: list[Path]) -> None:
    taken[0].mkdir(mode=0o700)
    with rank(shifter) as (first, _), rank(shifter) as (second, _):
        assert first == second


@pytest.mark.parametrize("text", ["", "x", "shifter container 1\n", "shifter container 2\nready\n"])
def test_a_file_that_is_no_containers_is_replaced(shifter: Launcher, text: str) -> None:
    with rank(shifter, **LONG):
        (file,) = node_directory().glob("c.*")
        for keeper in keepers(shifter):
            os.kill(keeper, signal.SIGKILL)
    file.write_text(text)
    with rank(shifter) as (first, _), rank(shifter) as (second, _):
        assert first == second


def test_a_pid_of_another_is_not_believed(shifter: Launcher) -> None:
    with rank(shifter, **LONG):
        (file,) = node_directory().glob("c.*")
        text = file.read_text()
        for keeper in keepers(shifter):
            os.kill(keeper, signal.SIGKILL)
    ready = text.index("ready\n") + len("ready\n")
    file.write_text(text[:ready] + f"1\n2\nkeeper {os.getpid()} 0 1 0\n")
    assert shifter.run("-i", "test", "true").returncode == 0


def test_many_who_came_and_went_are_not_asked_for_by_the_next(
    shifter: Launcher, playground: Path
) -> None:
    """A keeper holds a container for a while only; then it is found by who lives."""
    with rank(shifter) as (namespaces, pid):
        (file,) = node_directory().glob("c.*")
        lines = file.read_text().splitlines(keepends=True)
        founder = f"{pid}\n"
        assert lines.count(founder) == 1
        lines.remove(founder)
        # All are dead but the last.
        gone = [f"{number}\n" for number in range(2**30, 2**30 + 20_000)]
        with file.open("w") as kept:
            kept.writelines([*lines, *gone, founder])
        trace = playground / "trace"
        before = ("strace", "-o", str(trace), "-e", "trace=/open|stat")
        done = shifter.run("-i", "test", "sh", "-c", NAMESPACES, before=before)
        assert done.stdout == "".join(namespaces)
        asked = [line for line in trace.read_text().splitlines() if "/proc/10" in line]
        assert len(asked) < 5, asked[:9]


@pytest.mark.parametrize("lines_before", [0, 5_000, 150_000])
def test_of_a_container_of_many_ranks_little_is_read(
    shifter: Launcher, playground: Path, lines_before: int
) -> None:
    # The one rank that lives stands between many that have ended.
    with rank(shifter) as (namespaces, pid):
        (file,) = node_directory().glob("c.*")
        lines = file.read_text().splitlines(keepends=True)
        lines.remove(f"{pid}\n")
        ended = [f"{number}\n" for number in range(2**30, 2**30 + 150_000)]
        with file.open("w") as kept:
            kept.writelines([*lines, *ended[:lines_before], f"{pid}\n", *ended])
        trace = playground / "trace"
        for attempt in range(3):
            before = ("strace", "-o", str(trace), "-e", "trace=pread64")
            done = shifter.run("-i", "test", "sh", "-c", NAMESPACES, before=before)
            assert done.stdout == "".join(namespaces)
            read = sum(
                map(int, re.findall(r"^pread64.* = (\d+)$", trace.read_text(), re.MULTILINE))
            )
            # Once all lines are read; then the living one is among the last.
            assert read < 100_000 or (attempt == 0 and lines_before > 0)


def test_launches_in_another_pid_namespace_share_nothing(shifter: Launcher) -> None:
    # A pid of one namespace names another process in the other, or none.
    apart = ("unshare", "-Urpf", "--mount-proc", "--map-user", str(UID), "--map-group", str(UID))
    with rank(shifter) as (first, _):
        files = list(node_directory().glob("c.*"))
        done = shifter.run("-i", "test", "sh", "-c", NAMESPACES, before=apart)
        assert done.returncode == 0, done.stderr
        assert done.stdout != "".join(first)
        assert list(node_directory().glob("c.*")) == files
        with rank(shifter) as (second, _):
            assert second == first


def test_a_late_keeper_writes_into_no_file_of_another_container(
    traceable: Launcher, foreign: Launcher
) -> None:
    # Its founder does not wait for it, ends, and another launch makes the container anew meanwhile.
    # Its second write is the answer to its founder.
    late = ("strace", "-D", "-f", "-b", "execve", "-o", "/dev/null",
            "-e", "inject=write:delay_enter=2s:when=2")  # fmt: skip
    # The tracer lives as long as the keeper, and so holds its output open.
    with traceable.popen("-i", "test", "true", before=late, stdout=subprocess.DEVNULL) as founder:
        assert founder.wait(20) == 0
    (slow,) = keepers(traceable)
    with rank(foreign) as (namespaces, _):
        (file,) = node_directory().glob("c.*")
        until("the first keeper is still there", lambda: not Path(f"/proc/{slow}").exists())
        known = re.findall("^keeper .*", file.read_text(), re.MULTILINE)
        assert len(known) == 1
        assert not known[0].startswith(f"keeper {slow} ")
        assert foreign.inside(NAMESPACES) == "".join(namespaces)


@needs_root
def test_a_node_without_room_runs_a_container_that_is_not_shared(shifter: Launcher) -> None:
    # Files can be made there, but have no room; the server's death is said all the same.
    change = (
        "mount -t tmpfs -o size=4k,mode=1777 none /dev/shm && head -c 4096 /dev/zero > /dev/shm/x"
    )
    script = "echo begun; read -r line; cat /bin/busybox > /dev/null; ls /dev/shm/*/c.* >&2"
    identity = {"user": 0, "group": 0, "extra_groups": []}
    pipe = subprocess.PIPE
    with shifter.popen("-i", "test", "sh", "-c", script, before=changed_node(shifter, change),
                       stdin=pipe, stdout=pipe, stderr=pipe, **identity) as process:  # type: ignore[arg-type]  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        until("there is no keeper", lambda: servers(shifter) and keepers(shifter))
        (server,) = servers(shifter)
        os.kill(server, signal.SIGKILL)
        said = process.communicate("go\n", timeout=10)[1].splitlines()
    assert "this container is not shared: no room" in said[0]
    assert "has died" in said[1]
