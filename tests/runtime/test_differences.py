"""What differs from a set-uid Shifter, and what to do instead: docs/differences.md is true."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.runtime import squash
from tests.runtime import store as stores
from tests.runtime.conftest import GID, UID, Launcher

PAGE = Path(__file__).parents[2] / "docs" / "differences.md"
PROJECT = GID + 1
ROW = re.compile(
    r"^\| (?P<what>.+?) \| `(?P<command>.+?)` says `(?P<says>.+?)` \| (?P<instead>.+) \|$"
)
USERS = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
GROUPS = "root:x:0:\nnogroup:x:65534:\n"

# The node's programs, as an image: its /usr comes as a volume.
TREE: squash.Tree = {
    **dict.fromkeys(("usr", "etc", "proc", "sys", "dev", "var", "var/lib"), 0o755),
    "tmp": 0o1777,
    **{name: Path("usr", name) for name in ("bin", "sbin", "lib", "lib64")},
    "etc/passwd": f"{USERS}daemon:x:1:1::/:/bin/false\n_apt:x:42:65534::/nonexistent:/bin/false\n",
    "etc/group": GROUPS,
    "etc/motd": "from the image\n",
    "etc/alternatives": 0o755,
    "etc/alternatives/fakeroot": Path("/usr/bin/fakeroot-sysv"),
    "etc/apt": 0o755,
    "etc/apt/sources.list": "deb [trusted=yes] file:/repository ./\n",
    **{f"etc/apt/{name}.d": 0o755 for name in ("apt.conf", "preferences", "sources.list")},
    **{f"var/lib/dpkg{name}": 0o755 for name in ("", "/info", "/triggers", "/updates")},
    "var/lib/dpkg/status": "",
    "var/lib/apt": 0o755,
    "var/lib/apt/lists": 0o755,
    "var/log": 0o755,
    "var/cache": 0o755,
    "var/cache/apt": 0o755,
    "var/cache/apt/archives": 0o755,
}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be a user with groups")


def rows() -> dict[str, re.Match[str]]:
    """Return the lines of the table, by what they are about."""
    table = [line for line in PAGE.read_text().splitlines() if line.startswith("|")][2:]
    found = [ROW.match(line) for line in table]
    assert all(found), table[found.index(None)]
    return {row["what"]: row for row in found if row}


def package(directory: Path) -> Path:
    """Make a package with one program."""
    tree = directory / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    fields = {"Package": "tool", "Version": "1", "Architecture": "all", "Maintainer": "a <a@b.c>"}
    control = "".join(f"{name}: {value}\n" for name, value in fields.items())
    (tree / "DEBIAN/control").write_text(f"{control}Description: a tool\n")
    (tree / "opt/tool").mkdir(parents=True)
    (tree / "opt/tool/file").write_text("a tool\n")
    made = directory / "tool.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", tree, made], check=True, capture_output=True
    )
    data = made.read_bytes()
    (directory / "Packages").write_text(
        f"{control}Description: a tool\nFilename: ./tool.deb\nSize: {len(data)}\n"
        f"SHA256: {hashlib.sha256(data).hexdigest()}\n\n"
    )
    shutil.rmtree(tree)
    return made


class Node:
    """A node on which the user is in another group."""

    def __init__(self, shifter: Launcher, place: Path) -> None:
        self._shifter = shifter
        self.work = place / "work"
        self._place = place
        self._make_files()
        (place / "passwd").write_text(f"{USERS}ann:x:{UID}:{GID}::{shifter.home}:/bin/sh\n")
        (place / "group").write_text(f"{GROUPS}ann:x:{GID}:\nproject:x:{PROJECT}:ann\n")

    def _make_files(self) -> None:
        project = self.work / "project"
        project.mkdir(parents=True)
        package(self.work)
        for name in ("file", "of-root", "project/data"):
            (self.work / name).write_text(f"{name}\n")
        (self.work / "give.py").write_text(
            "import os\nos.chown('file', -1, os.stat('project').st_gid)\n"
        )
        for path in (self.work, *self.work.rglob("*")):
            os.chown(path, UID, GID)
        os.chown(self.work / "of-root", 0, 0)
        os.chown(project, 0, PROJECT)
        os.chown(project / "data", 0, PROJECT)
        project.chmod(0o2770)
        (project / "data").chmod(0o640)
        words = ["tar", "-cf", "unpacked.tar", "--transform=s/project/unpacked/", "project"]
        subprocess.run(words, cwd=self.work, check=True)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a COMMAND of a shell as the user."""
        mounts = " && ".join(
            f"mount --bind {self._place}/{name} /etc/{name}" for name in ("passwd", "group")
        )
        ids = f"--reuid={UID} --regid={GID} --groups={PROJECT}"
        script = f'{mounts} && exec setpriv {ids} sh -c "$1"'
        env = {
            "PATH": f"{self._shifter.program.parent}:/usr/bin:/bin:/usr/sbin:/sbin",
            "SHIFTER_IMAGE": "test",
            "SHIFTER_VOLUME": f"/usr:/usr;{self.work}:/repository",
        }
        return subprocess.run(
            ["unshare", "-m", "sh", "-c", script, "sh", command],
            cwd=self.work,
            env=self._shifter.environment(**env),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="session")
def node_store(base: Path) -> Path:
    store = base / "node-store"
    image = squash.make(base / "node.squashfs", TREE)
    stores.make_store(store, image, env=["PATH=/usr/bin:/usr/sbin"])
    return store


@pytest.fixture
def node(shifter: Launcher, node_store: Path, playground: Path) -> Node:
    shifter.store = node_store
    return Node(shifter, playground)


@pytest.mark.parametrize("what", rows())
def test_a_difference_is_as_the_table_says(node: Node, what: str) -> None:
    row = rows()[what]
    done = node.run(row["command"])
    says = row["says"].replace("UID", str(UID)).replace("GID", str(GID))
    assert says in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("what", "command"),
    [
        (what, command)
        for what, row in rows().items()
        for command in re.findall(r"`(.+?)`", row["instead"])
    ],
)
def test_a_way_round_is_one(node: Node, what: str, command: str) -> None:
    done = node.run(command)
    assert done.returncode == 0, f"{what}: {done}"


def group_of(path: Path) -> int:
    return path.stat().st_gid


def test_a_launch_with_another_group_gives_files_to_it(node: Node) -> None:
    assert node.run("sg project -c 'shifter chgrp project file'").returncode == 0
    assert group_of(node.work / "file") == PROJECT


def test_directories_give_their_group_to_files_and_directories(node: Node) -> None:
    done = node.run("shifter sh -c 'mkdir project/a; echo x > project/a/b; chmod 2750 project/a'")
    assert (done.returncode, done.stderr) == (0, "")
    made = node.work / "project/a"
    assert group_of(made) == group_of(made / "b") == PROJECT
    assert made.stat().st_mode & 0o7777 == 0o2750


def test_what_is_installed_can_be_used_in_the_same_launch(node: Node) -> None:
    script = "unshare -r dpkg -i tool.deb >/dev/null && cat /opt/tool/file"
    assert node.run(f"shifter --writable sh -c '{script}'").stdout == "a tool\n"
    assert node.run("shifter cat /opt/tool/file").returncode == 1


def test_apt_installs_as_root_of_its_own(node: Node) -> None:
    apt = "apt-get -qq -o APT::Sandbox::User=root"
    script = f"{apt} update && {apt} install -y tool >/dev/null && cat /opt/tool/file"
    done = node.run(f"shifter --writable unshare -r sh -c '{script}'")
    assert done.stdout == "a tool\n", done.stderr


def test_fakeroot_believes_in_owners(node: Node) -> None:
    script = "chown daemon file && stat -c %U file"
    done = node.run(f"FAKEROOTDONTTRYCHOWN=1 shifter fakeroot sh -c '{script}'")
    assert done.stdout == "daemon\n", done.stderr
