"""What SECURITY.md says of the launcher, by those who would have it otherwise."""

from __future__ import annotations

import os
import subprocess
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
