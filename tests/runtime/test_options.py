"""The command line and the environment of Shifter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runtime.conftest import GID, RUNTIME, UID, Launcher
from tests.runtime.store import make_store
from tests.runtime.test_errors import fails

README = RUNTIME.parent / "README.md"


def planned(shifter: Launcher, *args: str, **env: str | None) -> dict[str, object]:
    """Return what --dry-run says."""
    done = shifter.run("--dry-run", *args, env=env)
    assert (done.returncode, done.stderr) == (0, ""), done
    plan: dict[str, object] = json.loads(done.stdout)
    return plan


def test_the_readme_shows_the_help(shifter: Launcher) -> None:
    assert shifter.run("--help").stdout in README.read_text()


def test_letters_may_stand_together(shifter: Launcher) -> None:
    done = shifter.run("-vnEitest", "env")
    assert "SHIFTER_IMAGEREQUEST=test\n" in done.stdout
    assert "HOME=" not in done.stdout
    assert "shifter: store: " in done.stderr
    assert "unknown option: '-x'" in fails(shifter, "-nx", "-i", "test", "true")
    assert "takes no value" in fails(shifter, "-E=1", "-i", "test", "true")


def test_a_long_option_may_be_cut_as_long_as_it_is_no_other(shifter: Launcher) -> None:
    done = shifter.run("--im=test", "--clear", "--envi", "A=1", "env")
    assert "unknown option: '--envi'" in done.stderr
    done = shifter.run("--im=test", "--clear", "--env", "A=1", "--vol", "/usr:/x", "env")
    assert "A=1\n" in done.stdout
    assert "HOME=" not in done.stdout
    assert shifter.run("--im=test", "--env-f=/dev/null", "true").stderr == ""
    for word, one, other in (
        ("--e=A=1", "--env", "--env-file"),
        ("--v", "--volume", "--verbose"),
        ("--w=/", "--workdir", "--writable"),
    ):
        said = fails(shifter, "-i", "test", word, "true")
        assert f"'{word}' may be '{one}' or '{other}'" in said


def test_a_value_that_an_option_may_have_stands_in_the_same_word(shifter: Launcher) -> None:
    """As with getopt_long(3), and so in Shifter: the next word is an option, or the command."""
    done = shifter.run("-i", "test", "--workdir", "/etc")
    assert done.returncode == 126
    assert "'/etc' is a directory" in done.stderr
    for words in (["--workdir=/etc", "pwd"], ["-w/etc", "pwd"], ["-w=/etc", "--", "pwd"]):
        assert shifter.run("-i", "test", *words).stdout == "/etc\n"
    assert shifter.run("-i", "test", "-w", "pwd").stdout == "/work\n"
    said = fails(shifter, "-i", "test", "--entry=/bin/id", "-u")
    assert "unknown option: '-u'" in said
    assert "put -- before a command with its own" in said
    done = shifter.run("-i", "test", "--entry=/bin/id", "--", "-u")
    assert done.stdout == f"{UID}\n"


def test_verbose_says_what_is_done_and_silence_is_the_rule(shifter: Launcher) -> None:
    assert shifter.run("-i", "test", "true").stderr == ""
    said = shifter.run("-v", "-i", "test", "--volume=/usr:/x", "true").stderr
    assert "mount: '/usr' at '/x', asked for by --volume" in said


# ------------------------------------------------------------------ which image


def test_an_image_of_the_environment_has_a_type(shifter: Launcher) -> None:
    image_id = shifter.inside("echo $SHIFTER_IMAGE").strip()
    show = ("/bin/sh", "-c", "echo $SHIFTER_IMAGE $SHIFTER_IMAGEREQUEST")
    for env in (
        {"SHIFTER_IMAGE": image_id, "SHIFTER_IMAGETYPE": "id", "SHIFTER_IMAGEREQUEST": "asked:1"},
        {"SHIFTER_IMAGE": f"id:{image_id}", "SHIFTER_IMAGEREQUEST": "asked:1"},
        {"SHIFTER_IMAGE": image_id, "SHIFTER_IMAGEREQUEST": "asked:1"},
        {"SHIFTER_IMAGE": "test", "SHIFTER_IMAGETYPE": "docker", "SHIFTER_IMAGEREQUEST": "asked:1"},
    ):
        assert shifter.run(*show, env=env).stdout == f"{image_id} asked:1\n"
        twins = {f"SLURM_SPANK_{name}": value for name, value in env.items()}
        assert shifter.run(*show, env=twins).stdout == f"{image_id} asked:1\n"
    assert "no images of the type 'custom'" in fails(
        shifter, "true", SHIFTER_IMAGE="test", SHIFTER_IMAGETYPE="custom"
    )


def test_images_are_sought_in_order(shifter: Launcher) -> None:
    shifter.env |= {"UDI": "torque"}
    assert "library/torque:latest" in fails(shifter, "true")
    shifter.env |= {"SLURM_SPANK_SHIFTER_IMAGE": "spank"}
    assert "library/spank:latest" in fails(shifter, "true")
    assert "library/own:latest" in fails(shifter, "true", SHIFTER_IMAGE="own")
    assert shifter.run("-i", "test", "echo", "hi").stdout == "hi\n"
    del shifter.env["SLURM_SPANK_SHIFTER_IMAGE"]
    for name in ("test", "docker:test:latest"):
        assert shifter.run("echo", "hi", env={"UDI": name}).stdout == "hi\n"


def test_the_type_of_one_image_is_not_that_of_another(shifter: Launcher) -> None:
    pinned = {"SLURM_SPANK_SHIFTER_IMAGE": "0" * 64, "SLURM_SPANK_SHIFTER_IMAGETYPE": "id"}
    assert shifter.run("echo", "hi", env={"SHIFTER_IMAGE": "test", **pinned}).stdout == "hi\n"


def test_an_image_on_the_command_line_is_what_was_requested(shifter: Launcher) -> None:
    env: dict[str, str | None] = {"SHIFTER_IMAGEREQUEST": "before"}
    assert shifter.inside("echo $SHIFTER_IMAGEREQUEST", env=env) == "test\n"


# ------------------------------------------------------------------ which command


@pytest.fixture
def talking(shifter: Launcher, store: Path, image: Path) -> Launcher:
    """An image with an entrypoint and a command."""
    make_store(
        store, image, env=["PATH=/bin"], entrypoint=["echo", "entry"], cmd=["a b", ""], workdir="/w"
    )
    return shifter


@pytest.mark.parametrize(
    ("args", "command"),
    [
        (["echo", "x"], ["echo", "x"]),
        (["--entrypoint"], ["echo", "entry", "a b", ""]),
        (["--entry"], ["echo", "entry", "a b", ""]),
        (["--entrypoint", "--", "x", "y"], ["echo", "entry", "x", "y"]),
        (["--entrypoint=echo more"], ["echo more"]),
        (["--entrypoint=echo", "x"], ["echo", "x"]),
        ([], []),
    ],
)
def test_the_command_is_chosen_as_shifter_does(
    talking: Launcher, args: list[str], command: list[str]
) -> None:
    assert planned(talking, "-i", "test", *args)["command"] == command
    if command and " " not in command[0]:
        done = talking.run("-i", "test", *args)
        assert done.stdout == " ".join(command[1:]) + "\n"


def test_an_image_without_an_entrypoint_runs_its_command(
    shifter: Launcher, store: Path, image: Path
) -> None:
    make_store(store, image, env=["PATH=/bin"], cmd=["echo", "alone"])
    assert shifter.run("-i", "test", "--entrypoint").stdout == "alone\n"
    make_store(store, image, number=2)
    assert "names neither an entrypoint nor a command" in fails(
        shifter, "-i", "test", "--entrypoint"
    )
    assert "no command: '--entrypoint='" in fails(shifter, "-i", "test", "--entrypoint=")


# ------------------------------------------------------------------ writing


def test_a_writable_root_is_the_containers_own(shifter: Launcher) -> None:
    script = "echo mine > /etc/motd; echo new > /bin/new; rm -r /work; cat /etc/motd; ls -d /work"
    done = shifter.run("-i", "test", "--writable", "sh", "-c", script)
    assert done.stdout == "mine\n", done.stderr
    assert shifter.inside("cat /etc/motd; ls -d /work") == "from the image\n/work\n"


def test_a_writable_root_is_limited(shifter: Launcher) -> None:
    out = shifter.inside("cat /proc/self/mountinfo; id -u; echo x > /x", "--writable=1%")
    assert "overlay" in out
    for wrong in ("0", "101", "x", "", "5%%"):
        assert "percent of memory" in fails(shifter, "-i", "test", f"--writable={wrong}", "true")


def test_who_may_write_the_root_is_nobody_more_than_before(
    shifter: Launcher, playground: Path
) -> None:
    options = ("--writable", f"-V{playground}:/x", "-V/y:/cache:perNodeCache=size=1M")
    out = shifter.inside(
        "id -u; id -g; touch ~/w /x/w /cache/w; stat -c %u /x/w /cache /bin/busybox /etc/passwd; "
        "grep -E '^(Cap|NoNew)' /proc/self/status; umount /tmp 2>/dev/null || echo kept",
        *options,
    )
    assert out.split() == [
        str(UID), str(GID), *[str(UID)] * 4,
        *(f"{field}\t{'0' * 16}".split()[number] for field in
          ("CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:") for number in (0, 1)),
        "NoNewPrivs:", "1", "kept",
    ]  # fmt: skip
    (shifter.home / "w").unlink()
    assert (playground / "w").stat().st_uid == UID
    done = shifter.run("-i", "test", "--writable", "/bin/busybox", "unshare", "-Ur", "id", "-u")
    assert done.stdout == "0\n", done.stderr


def test_what_is_written_has_its_limit(shifter: Launcher) -> None:
    size = shifter.inside("grep ' / ' /proc/self/mountinfo; cat /proc/meminfo", "--writable=1")
    assert "upperdir=" in size
    kib = int(size.split("MemTotal:")[1].split()[0])
    script = f"/bin/busybox dd if=/dev/zero of=/big bs=64k count={kib * 11 // 65536 + 1}"
    done = shifter.run("-i", "test", "--writable=1", "sh", "-c", script)
    assert "No space left on device" in done.stderr


# ------------------------------------------------------------------ --dry-run


def test_a_dry_run_says_who_asked_for_what_and_starts_nothing(shifter: Launcher) -> None:
    plan = planned(
        shifter, "-i", "test", "-V", "/usr:/x:ro", "--env=A=\x01é\udc80", "-w", "true", "x"
    )
    assert plan["image"] == {
        "request": "test",
        "id": plan["image"]["id"],  # type: ignore[index]
        "path": str(next((shifter.store / "images").glob("*/*"))),
    }
    assert plan["workdir"] == "/work"
    assert plan["command"] == ["true", "x"]
    mounts: list[dict[str, object]] = plan["mounts"]  # type: ignore[assignment]
    assert mounts[-1] == {
        "kind": "bind",
        "source": "/usr",
        "target": "/x",
        "flags": ["ro", "nosuid", "nodev", "private"],
        "by": "user",
    }
    assert {mount["target"] for mount in mounts if mount["by"] == "standard"} >= {"/proc", "/tmp"}
    variables: list[dict[str, str]] = plan["environment"]  # type: ignore[assignment]
    assert {"name": "COLOUR", "value": "blue", "by": "image"} in variables
    assert {"name": "A", "value": "\x01é\udc80", "by": "--env"} in variables
    assert [each["by"] for each in variables if each["name"] == "HOME"] == ["caller"]
    assert "cannot find '/absent'" in fails(shifter, "--dry-run", "-i", "test", "-V/absent:/x")
