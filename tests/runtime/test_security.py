"""What SECURITY.md says of the launcher, by those who would have it otherwise."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.runtime import squash
from tests.runtime.conftest import GID, UID, Launcher
from tests.runtime.store import make_store
from tests.runtime.test_container import keepers, rank, servers
from tests.runtime.test_errors import changed_node, needs_root

# What of other processes leads to what they see.
WAYS = (
    "for p in /proc/[0-9]*; do for way in root cwd exe fd/0 ns/mnt; do "
    "readlink $p/$way > /dev/null && echo $p $way; done; done; true"
)


def reachable(shifter: Launcher, *options: str, **more: object) -> set[tuple[int, str]]:
    """Return the processes, and the ways into them, that are open to one in the container."""
    lines = shifter.inside(WAYS, *options, **more).splitlines()
    return {(int(line.split()[0].removeprefix("/proc/")), line.split()[1]) for line in lines}


def use(shifter: Launcher, store: Path, tree: squash.Tree) -> None:
    """Let the launcher's image be TREE."""
    make_store(store, squash.make(store / "image", tree), env=["PATH=/bin"])


# ------------------------------------------------------------- the host's root


@pytest.mark.parametrize("options", [(), ("--writable",)])
def test_no_process_of_ours_leads_to_the_hosts_root(
    shifter: Launcher, options: tuple[str, ...]
) -> None:
    with rank(shifter, *options):
        ours = set(keepers(shifter)) | set(servers(shifter))
        assert ours
        # The keeper stands back before it begins.
        found = {pid for pid, _ in reachable(shifter, *options)}
        assert not found & ours, (found, ours)


def test_no_process_of_the_users_outside_leads_to_the_hosts_root(shifter: Launcher) -> None:
    with subprocess.Popen(["sleep", "100"], **shifter.identity()) as outside:  # type: ignore[call-overload]
        try:
            found = {pid for pid, _ in reachable(shifter)}
            assert outside.pid not in found
        finally:
            outside.kill()


def test_no_other_container_of_the_users_can_be_reached(shifter: Launcher) -> None:
    with rank(shifter, SLURM_JOB_ID="1") as (_, pid):
        others = {pid, *keepers(shifter), *servers(shifter)}
        assert len(others) == 3
        found = {pid for pid, _ in reachable(shifter, env={"SLURM_JOB_ID": "2"})}
        assert not found & others


def test_the_user_may_enter_and_trace_from_outside(shifter: Launcher) -> None:
    with rank(shifter) as (_, pid):
        enter = [
            "nsenter",
            "-U",
            "-m",
            "--preserve-credentials",
            "-t",
            str(pid),
            "cat",
            "/etc/motd",
        ]
        identity = shifter.identity()
        entered = subprocess.run(enter, capture_output=True, text=True, **identity)  # type: ignore[call-overload]
        assert entered.stdout == "from the image\n", entered.stderr
        strace = ["strace", "-o", "/dev/null", "-p", str(pid)]
        with subprocess.Popen(strace, stderr=subprocess.PIPE, text=True, **identity) as tracer:  # type: ignore[call-overload]
            assert "attached" in tracer.stderr.readline()
            tracer.terminate()


def test_a_launch_within_a_launch_has_a_container_of_its_own(
    shifter: Launcher, store: Path
) -> None:
    make_store(store, squash.make(store / "image", squash.BUSYBOX, "zstd"), env=["PATH=/bin"])
    done = shifter.run(
        "-i", "test", f"-V{shifter.base}:/shifter", "/shifter/built/shifter", "-i", "test",
        f"--store=/shifter/{store.name}", "sh", "-c", "id -u; cat /etc/motd; ls /shifter",
    )  # fmt: skip
    assert done.stdout == f"{UID}\nfrom the image\n", done.stderr


@needs_root
def test_the_hosts_root_is_known_by_any_name(shifter: Launcher, playground: Path) -> None:
    place = playground / "root"
    place.mkdir()
    before = changed_node(shifter, f"mount --bind / {place}")
    said = shifter.run("-i", "test", f"-V{place}:/x", "true", before=before, user=0, group=0)
    assert said.returncode == 125
    assert "the host's root must not be reachable" in said.stderr
    script = f"ls {place}"
    home = shifter.run(
        "-i", "test", "sh", "-c", script, before=before, env={"HOME": str(place)}, user=0, group=0
    )
    assert home.stdout == ""


def test_no_descriptor_of_ours_is_open_when_what_others_wrote_runs(
    shifter: Launcher, playground: Path
) -> None:
    hook = "ls /proc/$PPID/fd"
    (playground / "hook").write_text(hook)
    path = playground / "udiRoot.conf"
    path.write_text(f"optUdiImage={playground}\nmodule_m_userhook=/opt/udiImage/hook\n")
    env = {"SHIFTER_CONFIG": str(path), "SHIFTER_MODULE": "m", "SHIFTER_LINGER": "1"}
    first = shifter.run("-i", "test", "true", env=env)
    joined = shifter.run("-i", "test", "true", env=env)
    for done in (first, joined):
        assert done.stdout.split() == ["0", "1", "2"], done


# ------------------------------------------------------------- neighbours on the node


@needs_root
@pytest.mark.parametrize("place", ["/dev/shm", "/tmp"])
def test_a_filesystem_of_somebody_elses_is_no_node_directory(shifter: Launcher, place: str) -> None:
    # As whoever mounts one with FUSE for all users can: it says of itself what it likes.
    path = f"{place}/shifter_lite.{UID}"
    options = f"mode=0700,uid={UID},gid={GID}"
    hide = "mount -t tmpfs -o mode=755 none /dev/shm && " if place == "/tmp" else ""
    change = f"{hide}mkdir {path} && mount -t tmpfs -o {options} hostile {path}"
    try:
        done = shifter.run(
            "-i", "test", "sh", "-c", f"ls -a {path}",
            before=changed_node(shifter, change), user=0, group=0,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() in ([".", ".."], []), done
    finally:
        os.rmdir(path)


def test_a_container_that_nobody_shares_leaves_nothing_on_the_node(shifter: Launcher) -> None:
    assert shifter.run("-i", "test", "--writable", "true").returncode == 0
    shifter.wait_until_gone()
    assert not Path(f"/dev/shm/shifter_lite.{UID}").exists()


# ------------------------------------------------------------- hostile images

LINKS = ["/", "/proc/self/root/etc", "/proc/1/root", "../../../../../..", "/proc/self/cwd",
         "/dev/shm", "/tmp", "/etc", "/proc/self/fd/3", "."]  # fmt: skip
HOSTILE: dict[str, squash.Tree] = {
    **{f"{name} -> {link}": {name: Path(link)}
       for name in ("etc", "proc", "dev", "tmp", "sys") for link in LINKS},
    **{f"/{name} is a file": {name: "x"} for name in ("etc", "proc", "dev", "tmp", "sys")},
    "/proc is a pipe": {"proc": squash.special(tarfile.FIFOTYPE)},
    "/etc is a device": {"etc": squash.special(tarfile.CHRTYPE, 1, 5)},
    "/etc/passwd is a pipe": {"etc": 0o755, "etc/passwd": squash.special(tarfile.FIFOTYPE)},
    "/etc/group is /dev/zero": {"etc": 0o755, "etc/group": squash.special(tarfile.CHRTYPE, 1, 5)},
    "/etc/passwd is a link to secrets": {"etc": 0o755, "etc/passwd": Path("/proc/self/environ")},
    "/etc/hosts is a directory": {"etc": 0o755, "etc/hosts": 0o755},
    "/etc cannot be entered": {"etc": 0o000},
    "links in a ring": {"etc": Path("a"), "a": Path("b"), "b": Path("etc")},
    "names that are lines": {"etc": 0o755, "x\n1 1 0:1 / /proc rw - proc": 0o755,
                             "a\\040b": 0o755, "\x1b[2J": "x", "etc/\n": "x"},
    "the launcher's own names": {"image": Path("/"), "skeleton": Path("/etc"), "root": Path("/")},
}  # fmt: skip
REMOVED = ("etc", "proc", "dev", "tmp", "sys")
LOOK = "cat /proc/self/mountinfo; ls /proc/self/root{base} 2>&1; ls {base} 2>&1; echo end"


def held(shifter: Launcher, *options: str, **more: object) -> bool:
    """Run in a hostile image; return whether that was possible at all."""
    script = LOOK.format(base=shifter.store)
    done = shifter.run("-i", "test", *options, "sh", "-c", script, timeout=20, **more)  # type: ignore[arg-type]
    assert "index" not in done.stdout
    if done.returncode == 125:
        assert done.stderr.startswith("shifter: cannot ")
        assert "\x1b" not in done.stderr
        return False
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "end"), done
    with open("/proc/self/mountinfo") as host:
        [root] = [line.split() for line in host if line.split()[4] == "/"]
    seen = [line.split() for line in done.stdout.splitlines() if " - " in line]
    assert not [fields for fields in seen if fields[2] == root[2] and fields[3] in ("/", "/etc")]
    assert "/proc" in [fields[4] for fields in seen]
    return True


@pytest.mark.parametrize("name", HOSTILE)
def test_an_image_leads_a_launch_nowhere(shifter: Launcher, store: Path, name: str) -> None:
    hostile = HOSTILE[name]
    use(
        shifter,
        store,
        {**squash.without(squash.BUSYBOX, *(set(hostile) & set(REMOVED))), **hostile},
    )
    # Kernels before 5.11 have no overlayfs for users.
    older = ("strace", "-o", "/dev/null", "-e", "inject=mount:error=EPERM:when=4")
    is_led = " -> " in name or "ring" in name
    for options, before in (((), ()), (("--writable",), ()), ((), older))[: 1 if is_led else 3]:
        assert held(shifter, *options, before=before) is not is_led


def test_a_working_directory_of_an_image_is_not_the_hosts(
    shifter: Launcher, store: Path, playground: Path
) -> None:
    path = squash.make(store / "image", {**squash.BUSYBOX, "here": Path("/proc/self/fd/9")})
    (playground / "udiRoot.conf").write_text("")
    passed = os.open(playground, os.O_RDONLY | os.O_DIRECTORY)
    for number in (*range(3, 20), passed):
        make_store(store, path, env=["PATH=/bin"], workdir=f"/proc/self/fd/{number}")
        for options in (("-w",), ("-w/here",), ()):
            done = shifter.run(
                "-i", "test", *options, "sh", "-c", "pwd -P; ls -d ../../../../image ../..",
                pass_fds=[passed],
            )  # fmt: skip
            where = (number, options, done)
            assert done.returncode in ((125, 1) if options else (1,)), where
            assert done.stdout.split() == (["/", "../.."] if done.returncode == 1 else []), where
    os.close(passed)


def test_an_image_gives_nobody_rights_or_devices(shifter: Launcher, store: Path) -> None:
    tree: squash.Tree = {
        **squash.BUSYBOX,
        # Which says so if it is another user's than who started it.
        "bin/of-root": (0o6755, shifter.program.read_bytes()),
        "zero": squash.special(tarfile.CHRTYPE, 1, 5),
        "disk": squash.special(tarfile.BLKTYPE, 7, 0),
    }
    use(shifter, store, tree)
    for options in ((), ("--writable",)):
        script = "ls -l /bin/of-root; /bin/of-root --version; head -c1 /zero; head -c1 /disk"
        done = shifter.run("-i", "test", *options, "sh", "-c", script)
        assert done.stdout.startswith("-rwsr-sr-x")
        assert "\nshifter " in done.stdout, done.stderr
        assert done.stderr.count("Permission denied") == 2, done.stderr


@pytest.mark.parametrize("options", [(), ("--writable",)])
def test_mounts_of_a_container_are_its_own(shifter: Launcher, options: tuple[str, ...]) -> None:
    # Not even for who is root in a namespace of his own.
    script = "umount /tmp || umount /proc || mount -o remount,rw,suid,dev / || echo kept"
    for command in (["sh"], ["/bin/busybox", "unshare", "-Urm", "sh"]):
        done = shifter.run("-i", "test", *options, *command, "-c", script)
        assert done.stdout == "kept\n", done
    for line in shifter.inside("cat /proc/self/mountinfo", *options).splitlines():
        fields = line.split()
        if fields[4] in ("/", "/tmp", str(shifter.home)):
            assert {"nosuid", "nodev"} <= set(fields[5].split(",")), line


# ------------------------------------------------------------- what there is not


def test_what_is_not_separated(shifter: Launcher) -> None:
    kinds = ("net", "pid", "ipc", "uts", "cgroup")
    script = f"for kind in {' '.join(kinds)}; do readlink /proc/self/ns/$kind; done"
    assert shifter.inside(script).split() == [os.readlink(f"/proc/self/ns/{x}") for x in kinds]
    own = re.search(r"^Seccomp:.*", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert own
    assert own[0] in shifter.inside("cat /proc/self/status")


def test_every_test_that_is_named_is_there() -> None:
    text = (Path(__file__).parents[2] / "SECURITY.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    tests = "".join(path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py"))
    assert named
    assert not [name for name in named if f"def {name}(" not in tests]
