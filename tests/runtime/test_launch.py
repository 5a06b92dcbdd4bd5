"""What an application finds when shifter has started it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.runtime.conftest import GID, RUNTIME, UID, Launcher
from tests.runtime.store import make_store


def test_a_command_runs_in_the_image(shifter: Launcher) -> None:
    assert shifter.inside("cat /etc/motd") == "from the image\n"


@pytest.mark.parametrize(
    "options",
    [
        ["--image=test"],
        ["--image", "test"],
        ["-i", "test"],
        ["-itest"],
        ["-i", "test:latest", "--"],
        ["--image=docker:library/test"],
        ["--image=other", "-i", "test"],
    ],
)
def test_an_image_is_named_in_any_usual_way(shifter: Launcher, options: list[str]) -> None:
    assert shifter.run(*options, "cat", "/etc/motd").stdout == "from the image\n"


def test_an_image_is_named_by_the_environment_or_by_its_id(shifter: Launcher, image: Path) -> None:
    assert shifter.run("echo", "hi", env={"SHIFTER_IMAGE": "test"}).stdout == "hi\n"
    image_id = shifter.inside("echo $SHIFTER_IMAGE").strip()
    assert shifter.run("echo", "hi", env={"SHIFTER_IMAGE": f"id:{image_id}"}).stdout == "hi\n"
    assert shifter.run("-i", "test", "echo", "hi", env={"SHIFTER_IMAGE": "X X"}).stdout == "hi\n"


def test_options_end_at_the_command(shifter: Launcher) -> None:
    assert shifter.run("-i", "test", "echo", "--image=x", "-w").stdout == "--image=x -w\n"
    assert shifter.run("-i", "test", "--", "echo", "-w").stdout == "-w\n"


def test_help_and_version_need_no_image(shifter: Launcher) -> None:
    for option in ("--help", "-h"):
        done = shifter.run(option)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("usage: shifter ")
    version = shifter.run("--version")
    assert (version.returncode, version.stderr) == (0, "")
    about = RUNTIME.parent / "shifter_lite" / "__about__.py"
    assert version.stdout.split()[0] == "shifter"
    assert version.stdout.split()[1] in about.read_text()


def test_without_a_command_a_shell_runs(shifter: Launcher) -> None:
    show = "readlink /proc/$$/exe; echo $0\n"
    assert shifter.run("-i", "test", input=show).stdout == "/bin/busybox\n/bin/sh\n"
    shell = {"SHELL": "/no/such/shell"}
    assert shifter.run("-i", "test", input=show, env=shell).stdout == "/bin/busybox\n/bin/sh\n"
    chosen = shifter.run("-i", "test", input="chosen", env={"SHELL": "/bin/cat"})
    assert chosen.stdout == "chosen"


def test_the_exit_code_is_the_applications(shifter: Launcher) -> None:
    assert shifter.run("-i", "test", "sh", "-c", "exit 42").returncode == 42
    assert shifter.run("-i", "test", "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM


def test_standard_streams_are_the_callers(shifter: Launcher) -> None:
    text = "line\n" * 100_000
    done = shifter.run("-i", "test", "sh", "-c", "cat; echo problem >&2", input=text)
    assert (done.stdout, done.stderr) == (text, "problem\n")


def test_the_application_takes_the_launchers_place(shifter: Launcher) -> None:
    script = "echo $$ $PPID; read children < /proc/$$/task/$$/children; echo [$children]"
    with shifter.popen("-i", "test", "sh", "-c", script, stdout=subprocess.PIPE) as process:
        out, _ = process.communicate(timeout=30)
    assert out == f"{process.pid} {os.getpid()}\n[]\n"


def test_umask_limits_and_descriptors_are_kept(shifter: Launcher) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"through a descriptor of the caller's\n")
    os.close(writer)
    before = ["/bin/sh", "-c", 'umask 027; ulimit -n 123; exec "$@"', "sh"]
    script = f"umask; ulimit -n; cat <&{reader}; ls /proc/self/fd | tr '\\n' ' '"
    done = shifter.run("-i", "test", "sh", "-c", script, before=before, pass_fds=[reader])
    os.close(reader)
    mask, files, text, descriptors = done.stdout.splitlines()
    assert (mask, files) == ("0027", "123")
    assert text == "through a descriptor of the caller's"
    # The last is ls's own: nothing of the launcher's is left.
    assert len(descriptors.split()) == 5, descriptors
    assert str(reader) in descriptors.split()


def test_signals_are_left_as_they_were(shifter: Launcher) -> None:
    before = ["env", "--ignore-signal=USR1,CHLD", "--block-signal=CHLD,USR2"]
    show = ["/bin/grep", "-E", "^(SigPnd|ShdPnd|SigBlk|SigIgn)", "/proc/self/status"]
    outside = subprocess.run(
        [*before, *show],
        capture_output=True,
        text=True,
        check=True,
        **shifter.identity(),  # type: ignore[call-overload]
    )
    assert outside.stdout.count("0000000000000000") == 2
    inside = shifter.run("-i", "test", *show, before=before)
    assert inside.stdout == outside.stdout


def test_closed_standard_streams_stay_closed(shifter: Launcher) -> None:
    out = shifter.home / "descriptors"
    script = f'exec 0<&- 2>&-; exec "$@" > {out}'
    before = ["/bin/sh", "-c", script, "sh"]
    done = shifter.run("-i", "test", "ls", "/proc/self/fd", before=before)
    assert done.returncode == 0
    # ls puts its directory where standard input was.
    assert out.read_text().split() == ["0", "1"]
    out.unlink()


def test_the_environment_is_the_callers_with_the_images_over_it(shifter: Launcher) -> None:
    out = shifter.inside("env", env={"COLOUR": "red", "MINE": "1"})
    env = dict(line.split("=", 1) for line in out.splitlines())
    assert env["COLOUR"] == "blue"
    assert env["MINE"] == "1"
    assert env["PATH"] == "/bin"
    assert env["HOME"] == str(shifter.home)
    assert env["SHIFTER_IMAGEREQUEST"] == "test"
    assert len(env["SHIFTER_IMAGE"]) == 64


def test_the_command_is_sought_on_the_containers_path(
    shifter: Launcher, store: Path, image: Path
) -> None:
    make_store(store, image, env=["PATH=/nowhere"])
    assert shifter.run("-i", "test", "true").returncode == 127
    assert shifter.run("-i", "test", "/bin/true").returncode == 0
    make_store(store, image, number=2)
    assert shifter.run("-i", "test", "true").returncode == 0
    assert shifter.run("-i", "test", "true", env={"PATH": None}).returncode == 0


def test_the_caller_has_a_name_and_groups(shifter: Launcher) -> None:
    done = shifter.inside("id -un; id -gn; cat /etc/passwd; cat /etc/group", env={"USER": "zoe"})
    assert done.splitlines()[0] == "zoe"
    assert f"zoe:x:{UID}:{GID}::{shifter.home}:/bin/sh\n" in done
    assert "root:x:0:0:root:/root:/bin/sh\n" in done
    assert f":x:{GID}:\n" in done


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give itself groups")
def test_supplementary_groups_are_named_and_in_force(shifter: Launcher, playground: Path) -> None:
    shifter.groups = [GID + 7]
    shared = playground / "shared"
    shared.write_text("for the group\n")
    os.chown(shared, 0, GID + 7)
    shared.chmod(0o040)
    out = shifter.inside(f"cat shared; grep g{GID + 7} /etc/group", cwd=playground)
    assert out == f"for the group\ng{GID + 7}:x:{GID + 7}:u{UID}\n"


def test_no_privilege_is_left(shifter: Launcher) -> None:
    status = shifter.inside("cat /proc/self/status")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[name], 16) == 0, name
    assert fields["NoNewPrivs"].strip() == "1"
    assert shifter.run("-i", "test", "umount", "/tmp").returncode != 0
    assert shifter.run("-i", "test", "mount", "-o", "remount,rw", "/").returncode != 0


def test_the_image_cannot_be_written(shifter: Launcher) -> None:
    for path in ("/new", "/etc/new", "/work/new", "/etc/passwd"):
        done = shifter.run("-i", "test", "touch", path)
        assert done.returncode == 1
        assert "Read-only file system" in done.stderr or "Permission denied" in done.stderr


@pytest.mark.parametrize("server", ["shifter", "foreign"])
@pytest.mark.parametrize("options", [(), ("--writable",)])
def test_root_files_of_an_image_belong_to_the_caller(
    server: str, options: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    # ssh(1), zsh and others refuse files whose owner is neither root nor the caller.
    launcher: Launcher = request.getfixturevalue(server)
    files = "/etc/motd /bin/busybox /etc /secret/file"
    owners = launcher.inside(f"stat -c '%u %g' {files}", *options)
    assert set(owners.splitlines()) == {f"{UID} {GID}"}


def test_a_file_that_only_root_may_read_can_be_read_by_the_caller(shifter: Launcher) -> None:
    # The file system of the image is readable for the caller, so its modes protect nothing.
    assert shifter.inside("cat /secret/file") == "not for others\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="this is about root")
def test_root_has_no_privilege_inside_either(shifter: Launcher) -> None:
    shifter.uid = shifter.gid = 0
    status = shifter.inside("id -u; cat /proc/self/status", env={"HOME": "/root"})
    assert status.startswith("0\n")
    fields = dict(line.split(":", 1) for line in status.splitlines()[1:])
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[name], 16) == 0, name


def test_a_launch_opens_three_files_of_the_store_and_no_socket(
    shifter: Launcher, playground: Path
) -> None:
    trace = playground / "trace"
    done = shifter.run("-i", "test", "true", before=["strace", "-y", "-o", str(trace)])
    assert done.returncode == 0
    lines = trace.read_text().splitlines()
    named = [line for line in lines if str(shifter.store) in line]
    opens = [line for line in named if line.startswith(("open", "openat", "readlink"))]
    assert len(opens) == 3, json.dumps(opens, indent=1)
    by_path = [line for line in named if f'"{shifter.store}' in line]
    assert len(by_path) == 2, json.dumps(by_path, indent=1)
    assert not [line for line in lines if line.startswith(("socket", "connect"))]


def test_a_launch_can_be_traced_with_all_its_children(shifter: Launcher, playground: Path) -> None:
    trace = playground / "trace"
    for _ in range(10):
        done = shifter.run(
            "-i", "test", "sh", "-c", "ls /bin | wc -l", before=["strace", "-f", "-o", str(trace)]
        )
        assert done.returncode == 0
    assert not re.findall(r" (?:socket|connect)\(", trace.read_text())
