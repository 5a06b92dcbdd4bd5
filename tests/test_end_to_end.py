"""The whole way as its user goes it: pull a real image, run it, leave nothing."""

import os
import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Runner
from tests.helpers import images

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def alive(run: Runner) -> list[str]:
    """Return the processes of the user, but for those that are dead and wait for init."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = (entry / "status").read_text()
        except OSError:
            continue
        ours = re.search(rf"^Uid:\t{run.user.uid}\t", status, re.MULTILINE)
        if ours and not re.search(r"^State:\tZ", status, re.MULTILINE):
            found.append(status.partition("\n")[0])
    return found


def wait_until_nothing_runs(run: Runner) -> None:
    deadline = time.monotonic() + 5
    while left := alive(run):
        assert time.monotonic() < deadline, left
        time.sleep(0.005)


@pytest.fixture
def ready(run: Runner, debian_image: str) -> str:
    """The real image, pulled."""
    assert run("shifterimg", "pull", debian_image).returncode == 0
    return f"--image={debian_image}"


def left(run: Runner) -> list[str]:
    """Return what there is of the user and of the store on this node.

    Other tests run at the same time, as other users, on other stores.
    """
    lines = Path("/proc/mounts").read_text().splitlines()
    ours = (str(run.store), f"user_id={run.user.uid},")
    mounts = [line for line in lines if any(word in line for word in ours)]
    backing = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    loops = [path for path in backing if path.startswith(str(run.store))]
    temporary = [path for place in ("/tmp", "/var/tmp", "/dev/shm") for path in of_user(run, place)]
    return sorted([*mounts, *loops, *temporary])


def of_user(run: Runner, place: str) -> list[str]:
    """Return the paths in PLACE that the user owns."""
    found = []
    for entry in os.scandir(place):
        with suppress(FileNotFoundError):
            if entry.stat(follow_symlinks=False).st_uid == run.user.uid:
                found.append(entry.path)
    return found


def test_a_pulled_image_runs_as_its_user_and_leaves_nothing(run: Runner, ready: str) -> None:
    before = left(run)
    for _ in range(5):
        done = run("shifter", ready, "cat", "/etc/os-release")
        assert (done.returncode, done.stderr) == (0, "")
        assert "ID=debian\n" in done.stdout
    if os.getuid() == 0:
        wait_until_nothing_runs(run)
    assert left(run) == before


def test_the_container_knows_its_user_and_the_images_own(run: Runner, ready: str) -> None:
    done = run(
        "shifter", ready, "sh", "-c", "id -un; getent passwd _apt; getent group nogroup; pwd"
    )
    name, apt, nogroup, cwd = done.stdout.splitlines()
    assert name == run.user.name
    assert apt.startswith("_apt:x:42:")
    assert nogroup == "nogroup:x:65534:"
    assert cwd == str(run.home)


def test_an_image_without_accounts_of_its_own_gets_the_users(run: Runner, registry: str) -> None:
    busybox = Path("/bin/busybox").read_bytes()
    layer = images.layer([images.directory("bin"), images.file("bin/busybox", busybox, mode=0o755)])
    images.push(registry, "bare", "1", images.image([layer]))
    assert run("shifterimg", "pull", f"{registry}/bare:1").returncode == 0
    command = ["/bin/busybox", "cat", "/etc/passwd"]
    done = run("shifter", f"--image={registry}/bare:1", *command)
    assert done.stdout.startswith(f"{run.user.name}:x:{run.user.uid}:")
    assert len(done.stdout.splitlines()) == 1


def test_accounts_are_found_behind_symbolic_links_of_the_image(run: Runner, registry: str) -> None:
    busybox = Path("/bin/busybox").read_bytes()
    line = b"service:x:777:777::/:/bin/false\n"
    for tag, entries in {
        "etc": [images.symlink("etc", "usr/etc"), images.file("usr/etc/passwd", line)],
        "file": [images.symlink("etc/passwd", "../p"), images.file("p", line)],
        "large": [images.file("etc/passwd", line * 3000)],
        "loop": [images.symlink("etc/passwd", "passwd")],
    }.items():
        layer = images.layer([*entries, images.file("bin/busybox", busybox, mode=0o755)])
        images.push(registry, "links", tag, images.image([layer]))
        name = f"{registry}/links:{tag}"
        done = run("shifterimg", "pull", name)
        assert done.returncode == 0, done.stderr
        done = run("shifter", f"--image={name}", "/bin/busybox", "cat", "/etc/passwd")
        assert done.returncode == 0, done.stderr
        assert f"{run.user.name}:x:{run.user.uid}:" in done.stdout
        assert (line.decode() in done.stdout) == (tag != "loop")


def test_what_the_image_says_of_its_environment_is_the_commands(run: Runner, registry: str) -> None:
    busybox = Path("/bin/busybox").read_bytes()
    layer = images.layer([images.file("bin/sh", busybox, mode=0o755), images.directory("w")])
    settings = {"Env": ["PATH=/bin", "A=b=c", "N=two\nlines", "E="], "WorkingDir": "/w"}
    images.push(registry, "env", "e", images.image([layer], settings=settings))
    name = f"{registry}/env:e"
    assert run("shifterimg", "pull", name).returncode == 0
    script = 'echo "$PATH|$A|$N|${E-unset}|$MINE"; pwd'
    done = run(
        "shifter", f"--image={name}", "-w", "sh", "-c", script, env={"MINE": "kept", "A": "x"}
    )
    assert done.stdout == "/bin|b=c|two\nlines||kept\n/w\n"


def test_other_programs_read_an_image_despite_its_description(
    run: Runner, ready: str, tmp_path: Path
) -> None:
    path = run("shifterimg", "path", ready.partition("=")[2]).stdout.strip()
    commands: list[list[str | Path]] = [
        ["unsquashfs", "-s", path],
        ["unsquashfs", "-q", "-d", tmp_path / "u", path],
    ]
    if os.getuid() == 0:
        (tmp_path / "m").mkdir()
        commands += [["mount", "-o", "loop,ro", path, tmp_path / "m"], ["ls", tmp_path / "m/etc"]]
        commands += [["umount", tmp_path / "m"]]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_readmes_first_steps_work_as_written(run: Runner, debian_image: str) -> None:
    (block,) = re.findall(r"```sh\n(python3 -m venv (?:(?!```).*\n)*)```", README)
    steps = [line for line in block.splitlines() if line.startswith("shifter")]
    assert len(steps) == 2
    for step in steps:
        program, *arguments = step.split()
        replaced = [
            re.sub(r"docker.io/library/debian:12|(?<==)debian:12", debian_image, word)
            for word in arguments
        ]
        assert replaced != arguments
        done = run(program, *replaced)
        assert done.returncode == 0, done.stderr


def test_who_the_user_is_the_site_says(run: Runner, registry: str) -> None:
    busybox = Path("/bin/busybox").read_bytes()
    layer = images.layer([images.directory("bin"), images.file("bin/busybox", busybox, mode=0o755)])
    images.push(registry, "known", "1", images.image([layer]))
    assert run("shifterimg", "pull", f"{registry}/known:1").returncode == 0
    line = f"ann:x:{run.user.uid}:{run.user.gid}:Änne,,,:/home/ann:/bin/zsh\n"
    (run.home / "passwd").write_text(line)
    (run.home / "group").write_text(f"users:x:{run.user.gid}:\n")
    files = ("--passwd", run.home / "passwd", "--group", run.home / "group")
    assert run("shifter-admin", "identity", "--lowest-uid", "0", *files).returncode == 0
    command = ["/bin/busybox", "cat", "/etc/passwd", "/etc/group"]
    done = run("shifter", f"--image={registry}/known:1", *command)
    assert done.stdout == f"{line}users:x:{run.user.gid}:\n"
