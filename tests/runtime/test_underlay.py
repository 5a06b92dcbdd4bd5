"""Nodes whose kernel has no overlayfs for users."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime import squash
from tests.runtime.conftest import UID, Launcher
from tests.runtime.store import make_store
from tests.runtime.test_errors import fails

OVERLAY = 4  # which of the launcher's calls of mount(2) it is


def without_overlay(error: str = "ENODEV") -> tuple[str, ...]:
    return ("strace", "-o", "/dev/null", "-e", f"inject=mount:error={error}:when={OVERLAY}")


@pytest.mark.parametrize("error", ["ENODEV", "EPERM", "EINVAL"])
def test_what_the_image_lacks_is_there(
    shifter: Launcher, store: Path, image: Path, playground: Path, error: str
) -> None:
    tree: dict[str, squash.Entry] = {
        **squash.without(squash.BUSYBOX, "proc", "tmp"),
        "etc/sub": 0o750,
        "etc/sub/x": "x",
        "etc/link": Path("motd"),
        "etc/sp ace\n": "odd\n",
        "var": 0o711,
        "var/own": "own\n",
        "top": "top\n",
    }
    make_store(store, squash.make(store / "image", tree), env=["PATH=/bin"])
    options = (f"-V{playground}:/new/place", "-V/usr:/work", f"-V{store}/image:/var/file")
    out = shifter.inside(
        "pwd; id -un; cat /etc/motd /etc/link '/etc/sp ace\n' /var/own /top; stat -c %a /var /etc; "
        "ls -d /new/place /work/share /var/file /etc/hosts; cat ~/mine; grep -c / /proc/mounts",
        *options, cwd=playground, before=without_overlay(error),
    )  # fmt: skip
    assert out.startswith(
        f"{playground}\nu{UID}\nfrom the image\nfrom the image\nodd\nown\ntop\n711\n755\n"
        "/etc/hosts\n/new/place\n/var/file\n/work/share\nat home\n"
    )


def test_nothing_can_be_written(shifter: Launcher) -> None:
    for path in (
        "/new",
        "/etc/new",
        "/work/new",
        "/etc/passwd",
        "/bin/new",
        "/etc/motd",
        "/secret/x",
    ):
        done = shifter.run("-i", "test", "sh", "-c", f"echo > {path}", before=without_overlay())
        assert done.returncode == 1
        assert "Read-only file system" in done.stderr or "Permission denied" in done.stderr


def test_nothing_of_the_hosts_root_is_reachable_there_either(shifter: Launcher) -> None:
    out = shifter.inside("ls /; cat /proc/self/mountinfo", before=without_overlay())
    assert not {"image", "skeleton", "root"} & set(out.split("\n")[:20])
    with open("/proc/self/mountinfo") as host:
        [root] = [line.split() for line in host if line.split()[4] == "/"]
    for line in out.splitlines():
        fields = line.split()
        assert fields[2:4] != root[2:4]


def test_a_writable_root_needs_overlayfs(shifter: Launcher) -> None:
    inject = f"inject=mount:error=ENODEV:when={OVERLAY + 1}"
    before = ("strace", "-o", "/dev/null", "-e", inject)
    said = fails(shifter, "-i", "test", "--writable", "true", before=before)
    assert "cannot make the root writable" in said
    assert "Linux 5.11 or newer" in said
