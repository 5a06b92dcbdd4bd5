"""Images that root mounts before a job, in its prologue, and unmounts in its epilogue."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runtime.conftest import GID, UID, Launcher
from tests.runtime.store import described, image_path, make_store
from tests.runtime.test_container import keepers, servers

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
JOBS = Path("/run/shifter_lite/jobs")
JOB = {"SLURM_JOB_ID": "7"}


def set_up(
    site: Launcher, *arguments: str, uid: int = UID, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run setupRoot for the caller's job, as a prologue does."""
    words = arguments or ("-u", "name", "-J", "7", "docker", "test")
    command = [str(site.program.with_name("setupRoot")), "-U", str(uid), "-G", str(GID), *words]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def mounted() -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines if f" {JOBS}/{UID}/" in line]


def test_what_root_has_mounted_needs_no_server(site: Launcher) -> None:
    done = set_up(site)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(mounted()) == 1
    with site.popen(
        "-i", "test", "sh", "-c", "cat /etc/motd; cat", env=JOB, stdin=-1, stdout=-1
    ) as rank:
        assert rank.stdout
        assert rank.stdin
        assert rank.stdout.readline() == "from the image\n"
        assert servers(site) == []
        assert len(keepers(site)) == 1
        again = site.run("-i", "test", "cat", "/etc/motd", env=JOB)
        assert again.stdout == "from the image\n"
        rank.stdin.close()
    site.wait_until_gone()


def test_a_writable_root_lies_over_an_image_of_the_callers_own(site: Launcher) -> None:
    set_up(site)
    command = ("-i", "test", "--writable", "sh", "-c", "echo more >> /etc/motd; cat /etc/motd; cat")
    with site.popen(*command, env=JOB, stdin=-1, stdout=-1) as rank:
        assert rank.stdout
        assert rank.stdin
        assert [rank.stdout.readline() for _ in range(2)] == ["from the image\n", "more\n"]
        assert len(servers(site)) == 1
        rank.stdin.close()
    site.wait_until_gone()


def test_the_end_of_the_container_is_noticed_without_a_server(site: Launcher) -> None:
    set_up(site)
    assert site.run("-i", "test", "true", env=JOB).returncode == 0
    site.wait_until_gone()
    assert not list(Path("/dev/shm").glob(f"shifter_lite.{UID}"))


def test_a_keeper_that_comes_when_the_founder_has_gone_keeps_the_container(
    site: Launcher, built_traceable: Path
) -> None:
    set_up(site)
    # Nobody serves this image: only the keeper leaves the founder's session.
    slow = replace(site, program=built_traceable / "shifter")
    late = ["strace", "-D", "-f", "-b", "execve", "-o", "/dev/null"]
    late += ["-e", "inject=setsid:delay_enter=700ms"]
    env = {**JOB, "SHIFTER_LINGER": "30"}
    where = "readlink /proc/self/ns/user"
    first = ("-i", "test", "sh", "-c", f"{where}; sleep 0.3")
    other = ("-i", "test", "sh", "-c", "sleep 1.5")
    with slow.popen(*first, before=late, env=env, stdout=-1) as founder:
        assert founder.stdout
        namespace = founder.stdout.readline()
        rank = slow.popen(*other, env=env)
    # Waited for by now: a zombie's user namespace can still be looked at.
    assert rank.wait(60) == 0
    assert slow.inside(where, env=env) == namespace
    for keeper in keepers(slow):
        os.kill(keeper, signal.SIGKILL)


def test_another_job_is_not_helped_by_it(site: Launcher) -> None:
    set_up(site)
    for job in ({"SLURM_JOB_ID": "8"}, {}, {"SLURM_JOB_ID": "../7"}, {"SLURM_JOB_ID": "."}):
        command = ("-i", "test", "sh", "-c", "echo ready; cat")
        with site.popen(*command, env=job, stdin=-1, stdout=-1) as rank:
            assert rank.stdout
            assert rank.stdin
            assert rank.stdout.readline() == "ready\n"
            assert len(servers(site)) == 1
            rank.stdin.close()
        site.wait_until_gone()


def test_only_the_jobs_user_may_enter(site: Launcher) -> None:
    set_up(site)
    (path,) = mounted()
    for uid, may in ((UID, True), (UID + 1, False)):
        done = subprocess.run(
            ["ls", path], user=uid, group=UID + 1, extra_groups=[], capture_output=True, check=False
        )
        assert (done.returncode == 0) is may


def test_what_the_user_may_not_read_is_not_mounted_for_him(site: Launcher) -> None:
    (path,) = site.store.glob("images/??/*.squashfs")
    path.chmod(0o600)
    done = set_up(site)
    assert done.returncode == 0
    assert done.stderr.startswith("setupRoot: cannot open the image")
    assert mounted() == []


def test_what_a_user_has_made_is_not_mounted(site: Launcher, playground: Path) -> None:
    plain = playground / "plain.squashfs"
    theirs = described(plain, [("imported", "yes")], playground / "theirs.squashfs")
    for number, path in enumerate((plain, theirs), 2):
        make_store(site.store, path, number=number)
        done = set_up(site)
        assert done.returncode == 0
        assert "was made by a user: the kernel must not read it" in done.stderr
        assert site.run("-i", "test", "true", env=JOB).returncode == 0
    assert mounted() == []


def test_a_job_brings_nothing_along_that_root_would_follow(
    site: Launcher, playground: Path
) -> None:
    other = playground / "udiRoot.conf"
    other.write_text(f"imagePath={playground}\n")
    done = set_up(site, SHIFTER_CONFIG=str(other), SHIFTER_STORE=str(playground), HOME="/")
    assert done.returncode == 0, done.stderr
    assert len(mounted()) == 1


def test_a_configuration_that_others_can_write_is_not_followed(
    site: Launcher, config: Path
) -> None:
    config.chmod(0o666)
    done = set_up(site)
    config.chmod(0o644)
    assert done.returncode == 125
    assert "can be written by others than root" in done.stderr


def test_twice_is_once_and_the_epilogue_leaves_nothing(site: Launcher) -> None:
    assert [set_up(site).returncode for _ in range(3)] == [0, 0, 0]
    assert len(mounted()) == 1
    loops = subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True).stdout
    assert loops.count(str(site.store)) == 1
    undo = [str(site.program.with_name("unsetupRoot")), "-U", str(UID), "-J", "7"]
    for _ in range(2):
        assert subprocess.run(undo, check=False).returncode == 0
    assert mounted() == []
    assert not (JOBS / str(UID) / "7").exists()
    loops = subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True).stdout
    assert str(site.store) not in loops


def test_an_epilogue_does_not_wait_for_who_still_runs(site: Launcher) -> None:
    set_up(site)
    with site.popen("-i", "test", "cat", env=JOB, stdin=-1) as rank:
        deadline = time.monotonic() + 10
        while not keepers(site):
            assert time.monotonic() < deadline
        undo = [str(site.program.with_name("unsetupRoot")), "-U", str(UID), "-J", "7"]
        assert subprocess.run(undo, check=False).returncode == 0
        assert mounted() == []
        assert rank.stdin
        rank.stdin.close()


CACHE = "/nothing:/cache:perNodeCache=size=400M"
# xfs needs 300 MB, and not every kernel has it.
TYPES = [kind for kind in ("xfs", "ext4") if f"\t{kind}\n" in Path("/proc/filesystems").read_text()]


def loops_left(where: Path, seconds: float = 5) -> list[str]:
    """Return what is still attached of WHERE: the kernel detaches a device after its last close."""
    end = time.monotonic() + seconds
    while (left := loops(where)) and time.monotonic() < end:
        time.sleep(0.01)
    return left


def loops(where: Path) -> list[str]:
    listed = subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(where) in line]


def test_there_is_a_filesystem_to_make_a_cache_of() -> None:
    assert "ext4" in TYPES


@pytest.mark.parametrize("kind", TYPES)
def test_a_cache_that_root_has_made_is_one_of_the_node_and_the_job(
    site: Launcher, caching: Path, kind: str
) -> None:
    wanted = f"{CACHE},fs={kind}"
    words = ("-J", "7", "-v", f"/a:/b;{wanted}", "docker", "test")
    for _ in range(2):
        assert set_up(site, *words).stderr == ""
    assert len(mounted()) == 2
    assert list(caching.iterdir()) == []
    assert len(loops(caching)) == 1
    volume = f"--volume={wanted}"
    says = site.inside(
        "stat -f -c %T /cache; ls -A /cache; id -u > /cache/f; cat /cache/f", volume, env=JOB
    )
    assert says.split() == [{"ext4": "ext2/ext3"}.get(kind, kind), str(UID)]
    # Another container of the job, on the same node.
    assert site.inside("cat /cache/f", volume, "--writable", env=JOB) == f"{UID}\n"
    # More than it has memory to spare, and no more than was asked for.
    fill = (
        "dd if=/dev/zero of=/cache/g bs=1M count=500 2>&1 | tail -1 >/dev/null; stat -c %s /cache/g"
    )
    assert 300 << 20 < int(site.inside(fill, volume, env=JOB)) < 400 << 20
    flags = site.inside("grep ' /cache ' /proc/mounts", volume, env=JOB).split()[3].split(",")
    assert {"rw", "nosuid", "nodev"} <= set(flags)
    for job, place in (({}, "/cache"), ({"SLURM_JOB_ID": "8"}, "/cache"), (JOB, "/other")):
        other = f"--volume={wanted.replace('/cache', place)}"
        assert site.inside(f"stat -f -c %T {place}; ls {place}", other, env=job) == "tmpfs\n"
    undo = [str(site.program.with_name("unsetupRoot")), "-U", str(UID), "-J", "7"]
    assert subprocess.run(undo, check=False).returncode == 0
    assert mounted() == []
    assert loops_left(caching) == []


def test_without_a_place_for_files_a_cache_is_memory(site: Launcher) -> None:
    assert set_up(site, "-J", "7", "-v", CACHE, "docker", "test").returncode == 0
    assert site.inside("stat -f -c %T /cache", f"--volume={CACHE}", env=JOB) == "tmpfs\n"


def test_only_root_can(site: Launcher) -> None:
    for program in ("setupRoot", "unsetupRoot"):
        command = [str(site.program.with_name(program)), "-U", str(UID), "docker", "test"]
        done = subprocess.run(command, user=UID, group=GID, capture_output=True, check=False)
        assert done.returncode == 125
        assert b"only root can" in done.stderr


def test_the_image_is_where_the_store_says(site: Launcher) -> None:
    set_up(site)
    (path,) = mounted()
    assert image_path(site.store, Path(path).name).exists()
