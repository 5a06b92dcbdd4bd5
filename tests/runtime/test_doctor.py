"""--doctor says of a node what a launch says there."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runtime.conftest import GID, UID, Launcher
from tests.runtime.store import DIGEST, cdb
from tests.runtime.test_errors import changed_node, needs_root

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
Before = tuple[str, ...]


def injected(call: str) -> Before:
    return ("strace", "-f", "-b", "execve", "-o", "/dev/null", "-e", f"inject={call}")


def asked(shifter: Launcher, *args: str, **more: object) -> tuple[int, dict[str, str], str]:
    """Return the exit code, the text of each line by its name, and everything."""
    done = shifter.run("--doctor", *args, **more)  # type: ignore[arg-type]
    assert done.stderr == ""
    found = re.findall(r"^(ok|note|WRONG|-) +([^:\n]+)", done.stdout, re.MULTILINE)
    return done.returncode, {what: verdict for verdict, what in found}, done.stdout


def test_on_a_good_node_all_is_well_and_nothing_is_left(shifter: Launcher) -> None:
    code, verdicts, text = asked(shifter, "--image=test")
    assert (code, set(verdicts.values())) == (0, {"ok"}), text
    assert text.endswith("images can be run here\n")
    assert not shifter.processes()
    assert not [path for path in ("/dev/shm", "/tmp") if Path(path, f"shifter_lite.{UID}").exists()]
    assert re.search(r"^ok    image: 'test' is [0-9a-f]{64}$", text, re.MULTILINE)
    assert f"'{shifter.store}': generation 1, 2 entries" in text


@needs_root
@pytest.mark.parametrize(
    ("count", "says"),
    [(1, "1 other group is"), (3, "3 other groups are")],
)
def test_it_says_how_many_groups_have_no_number_in_containers(
    shifter: Launcher, count: int, says: str
) -> None:
    line = "ok    users and groups: one of each in a container (docs/differences.md)\n"
    assert f"{line}ok " in asked(shifter)[2]
    # The primary group may be among them.
    shifter.groups = [GID, *range(GID + 1, GID + 1 + count)]
    assert f"{line}      {says} of yours in force there, and shown as nogroup" in asked(shifter)[2]


def test_it_needs_no_image(shifter: Launcher) -> None:
    assert asked(shifter)[0] == 0


def test_what_belongs_to_a_container_of_ranks_is_left_to_them(shifter: Launcher) -> None:
    with shifter.popen(
        "-i", "test", "sh", "-c", "echo ready; read line", stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as rank:  # fmt: skip
        assert rank.stdout
        rank.stdout.readline()
        own = Path(f"/dev/shm/shifter_lite.{UID}")
        before = sorted(path.name for path in own.iterdir())
        assert asked(shifter)[0] == 0
        assert sorted(path.name for path in own.iterdir()) == before
        rank.communicate("end\n", timeout=10)


SAME = [
    (injected("unshare:error=EPERM"), "user namespaces"),
    (injected("pivot_root:error=EPERM"), "containers"),
    (injected("umount2:error=EINVAL"), "containers"),
]


@pytest.mark.parametrize(("before", "what"), SAME)
def test_it_says_what_a_launch_says(traceable: Launcher, before: Before, what: str) -> None:
    holds_the_same(traceable, before, what)


def holds_the_same(shifter: Launcher, before: Before, what: str, **more: object) -> None:
    code, verdicts, text = asked(shifter, before=before, **more)
    launch = shifter.run("-i", "test", "true", before=before, **more)  # type: ignore[arg-type]
    assert launch.returncode == 125
    assert (code, verdicts[what]) == (1, "WRONG")
    fact, *hints = launch.stderr.removeprefix("shifter: ").splitlines()
    for line in (f"WRONG {what}: {fact}", *hints):
        assert line in text
    assert text.endswith("images cannot be run here\n")


@needs_root
@pytest.mark.parametrize(
    "change",
    ["mount -t tmpfs none /dev", "mount -t tmpfs none /dev && mknod -m 600 /dev/fuse c 10 229"],
)
def test_of_a_node_without_fuse_too(shifter: Launcher, change: str) -> None:
    before = changed_node(shifter, f"{change} && mknod -m 666 /dev/null c 1 3")
    holds_the_same(shifter, tuple(before), "FUSE", user=0, group=0)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ("echo 0 > /proc/sys/user/max_user_namespaces", "sysctl user.max_user_namespaces"),
        ("echo 0 > /proc/sys/user/max_mnt_namespaces", "user.max_mnt_namespaces"),
    ],
)
def test_limits_of_namespaces_are_named(shifter: Launcher, change: str, hint: str) -> None:
    before = ("unshare", "-Ur", "/bin/sh", "-c", f'{change} && exec "$@"', "sh")
    code, _, text = asked(shifter, before=before)
    assert code == 1
    assert "No space left on device" in text
    assert hint in text


def test_a_limit_of_watches_is_a_note(shifter: Launcher) -> None:
    script = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"'
    code, verdicts, text = asked(shifter, before=("unshare", "-Ur", "/bin/sh", "-c", script, "sh"))
    assert (code, verdicts["inotify"]) == (0, "note"), text
    assert "sysctl fs.inotify.max_user_instances" in text


@needs_root
def test_a_chroot_is_named(shifter: Launcher, base: Path) -> None:
    jail = base / "jail"
    for directory in ("proc", "dev", "etc"):
        (jail / directory).mkdir(parents=True)
    jail.joinpath("shifter").write_bytes(shifter.program.read_bytes())
    (jail / "shifter").chmod(0o755)
    mounts = f"mount -t proc proc {jail}/proc && mount --bind /dev {jail}/dev"
    enter = f"exec chroot --userspec={UID}:{UID} {jail} /shifter"
    done = subprocess.run(
        ["unshare", "-m", "/bin/sh", "-c", f"{mounts} && {enter} --doctor"],
        capture_output=True, text=True, env={"HOME": "/"},
    )  # fmt: skip
    assert "WRONG user namespaces: cannot create a user namespace: Operation not permitted" in (
        done.stdout
    )
    assert "hint: users in a chroot get no user namespaces" in done.stdout


@pytest.mark.parametrize(
    ("call", "what"),
    [
        ("openat2:error=ENOSYS", "newer calls"),
        ("mount_setattr:error=ENOSYS", "newer calls"),
        ("close_range:error=EPERM", "newer calls"),
        ("mount:error=EPERM:when=4", "containers"),
    ],
)
def test_what_is_worked_around_is_a_note(traceable: Launcher, call: str, what: str) -> None:
    code, verdicts, text = asked(traceable, before=injected(call))
    assert (code, verdicts[what]) == (0, "note"), text
    assert traceable.run("-i", "test", "true", before=injected(call)).returncode == 0


def test_who_cannot_join_is_told(traceable: Launcher) -> None:
    code, verdicts, text = asked(traceable, before=injected("setns:error=EPERM"))
    assert (code, verdicts["joining"]) == (1, "WRONG")
    assert "cannot join the container's user namespace: Operation not permitted" in text


def test_a_probe_that_is_killed_is_no_end_of_the_others(traceable: Launcher) -> None:
    code, verdicts, text = asked(traceable, before=injected("pivot_root:signal=SYS"))
    assert code == 1
    assert "WRONG containers: ended by signal 31" in text
    assert (verdicts["writable root"], verdicts["store"]) == ("-", "ok")


@needs_root
def test_a_name_that_somebody_has_taken_is_a_note(shifter: Launcher) -> None:
    taken = [Path(place, f"shifter_lite.{UID}") for place in ("/dev/shm", "/tmp")]
    for path in taken:
        path.mkdir(mode=0o755)
    try:
        code, verdicts, text = asked(shifter)
        assert (code, verdicts["node directory"]) == (0, "note")
        assert "is not yours: this process shares no container" in text
        taken[1].rmdir()
        assert f"name: '{taken[1]}' is" in asked(shifter)[2]
    finally:
        for path in taken:
            if path.exists():
                path.rmdir()


def test_stores_that_are_none(shifter: Launcher, playground: Path) -> None:
    empty = replace(shifter, store=playground / "absent")
    holds_the_same(empty, (), "store")
    index = playground / "damaged" / "index"
    index.mkdir(parents=True, mode=0o755)
    (index / "images.0000000001.cdb").write_bytes(b"x")
    code, _, text = asked(replace(shifter, store=index.parent))
    assert code == 1
    assert "WRONG store: cannot read the index of the store" in text
    (index / "images.0000000002.cdb").write_bytes(cdb([(b"x", DIGEST.encode())]))
    assert "generation 2, 1 entries" in asked(replace(shifter, store=index.parent))[2]


def test_an_image_that_is_none(shifter: Launcher) -> None:
    code, verdicts, text = asked(shifter, "--image=absent")
    assert (code, verdicts["image"], verdicts["store"]) == (1, "WRONG", "ok")
    assert "hint: get it with: shifterimg pull absent" in text


def test_a_configuration_with_a_mistake(shifter: Launcher, playground: Path) -> None:
    path = playground / "udiRoot.conf"
    path.write_text("imagePah=/x\n")
    holds_the_same(replace(shifter, env={"SHIFTER_CONFIG": str(path)}), (), "udiRoot.conf")


def test_what_the_site_mounts_is_tried(shifter: Launcher, playground: Path) -> None:
    path = playground / "udiRoot.conf"
    path.write_text("siteFs=/no/such/place:/scratch\n")
    holds_the_same(replace(shifter, env={"SHIFTER_CONFIG": str(path)}), (), "containers")


def test_the_batch_job_is_recognised(shifter: Launcher) -> None:
    env = {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0"}
    text = asked(shifter, env=env)[2]
    assert "ok    batch job: SLURM_JOB_ID=12\n      SLURM_STEP_ID=0\n      a step of it" in text


def test_the_profile_for_apparmor_can_be_read(tmp_path: Path) -> None:
    profile = (EXAMPLES / "apparmor-shifter").read_text(encoding="utf-8")
    parser = "/usr/sbin/apparmor_parser"
    if not os.access(parser, os.X_OK):
        pytest.skip("needs apparmor_parser (apt install apparmor)")
    version = subprocess.run([parser, "--version"], capture_output=True, text=True).stdout
    if re.search(r"version [0-3]\.", version):
        # Which knows neither that rule nor that abi.
        profile = profile.replace("abi/4.0", "abi/3.0").replace("  userns,\n", "")
    path = tmp_path / "shifter"
    path.write_text(profile)
    done = subprocess.run([parser, "-Q", "-K", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
