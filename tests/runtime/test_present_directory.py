"""A command starts in the directory in which it was launched, by whatever links it was reached."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime import squash
from tests.runtime.conftest import GID, UID, Launcher
from tests.runtime.store import make_store

SHELL = ("/bin/bash", "-c", 'cd "$0" && exec "$@"')


def owned(path: Path) -> Path:
    """Make the directory PATH of the caller's."""
    path.mkdir(parents=True)
    os.chown(path, UID, GID)
    return path


def run_from(
    shifter: Launcher, way: Path | str, script: str, *options: str, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run SCRIPT from a shell that went WAY, with links in it, and so calls its directory."""
    command = ("-i", "test", *options, "/bin/sh", "-c", script)
    return shifter.run(*command, before=(*SHELL, str(way)), env=env)


def result_of(shifter: Launcher, way: Path, *options: str, **env: str) -> str:
    """Launch a command that leaves a result in the present directory; return what it prints."""
    script = "echo x > result && readlink -f . && cd $PWD && ls result"
    done = run_from(shifter, way, script, *options, **env)
    assert (done.returncode, done.stderr) == (0, "")
    assert (way / "result").exists()
    (way / "result").unlink()
    return done.stdout


# ----------------------------------------------------------------------------------- links


@pytest.fixture
def home(playground: Path) -> Path:
    return owned(playground / "home")


@pytest.fixture
def scratch(playground: Path) -> Path:
    return owned(playground / "scratch" / "real" / "me")


@pytest.mark.parametrize("options", [(), ("--writable",)])
def test_a_link_in_the_home_leads_to_the_results(
    shifter: Launcher, home: Path, scratch: Path, options: tuple[str, ...]
) -> None:
    (home / "scr").symlink_to(scratch)
    out = result_of(shifter, home / "scr", *options, HOME=str(home))
    assert out == f"{scratch}\nresult\n"


def test_a_relative_link_and_a_chain_of_links_lead_to_the_results(
    shifter: Launcher, home: Path, scratch: Path, playground: Path
) -> None:
    (playground / "scratch" / "lnk").symlink_to("real/me")
    (playground / "near").symlink_to("scratch/lnk")
    (home / "far").symlink_to("../near")
    for way in (playground / "scratch/lnk", playground / "near", home / "far"):
        out = result_of(shifter, way, HOME=str(home))
        assert out == f"{scratch}\nresult\n"


def test_the_caller_s_words_for_the_directory_are_valid_in_the_container(
    shifter: Launcher, playground: Path, scratch: Path
) -> None:
    link = playground / "scratch" / "lnk"
    link.symlink_to("real/me")
    (scratch / "s.sh").write_text("#!/bin/sh\necho run\n")
    (scratch / "s.sh").chmod(0o755)
    done = run_from(shifter, link, f"{link}/s.sh; pwd; cd ..; pwd")
    assert done.stdout == f"run\n{link}\n{link.parent}\n"
    assert done.stderr == ""


def test_a_link_below_a_link_is_made_too(
    shifter: Launcher, playground: Path, scratch: Path
) -> None:
    (playground / "one").symlink_to("two")
    (playground / "two").symlink_to("scratch/real")
    done = run_from(shifter, playground / "one" / "me", "echo $PWD; cd $PWD && pwd")
    assert done.stdout == f"{playground}/one/me\n" * 2


def test_a_home_that_is_a_link_is_the_home(shifter: Launcher, playground: Path, home: Path) -> None:
    (home / "mine").write_text("at home\n")
    link = playground / "linked"
    link.symlink_to(home)
    done = run_from(shifter, link, "cat ~/mine mine; pwd", HOME=str(link))
    assert done.stdout == f"at home\nat home\n{link}\n"


@pytest.fixture
def site(shifter: Launcher, playground: Path) -> Callable[[str], None]:
    """Write what the site has in its udiRoot.conf."""
    path = playground / "udiRoot.conf"
    shifter.env["SHIFTER_CONFIG"] = str(path)

    def write(text: str) -> None:
        path.write_text(text + "\n")

    return write


def test_a_home_behind_a_link_in_a_mount_of_the_site_is_shown(
    shifter: Launcher, playground: Path, home: Path, site: Callable[[str], None]
) -> None:
    (home / "mine").write_text("at home\n")
    homes = owned(playground / "homes")
    (homes / "me").symlink_to(home)
    site(f"siteFs={homes}")
    done = run_from(shifter, homes / "me", "cat ~/mine mine", HOME=str(homes / "me"))
    assert (done.stdout, done.stderr) == ("at home\nat home\n", "")


def test_a_mount_of_the_site_that_shows_the_directory_is_enough(
    shifter: Launcher, playground: Path, scratch: Path, site: Callable[[str], None]
) -> None:
    site(f"siteFs={playground}/scratch")
    (playground / "lnk").symlink_to(scratch)
    done = shifter.run("--dry-run", "-i", "test", before=(*SHELL, str(playground / "lnk")))
    assert "working directory" not in done.stdout
    assert result_of(shifter, playground / "lnk") == f"{scratch}\nresult\n"


def test_a_link_that_a_mount_of_the_site_shows_leads_to_a_directory_that_none_shows(
    shifter: Launcher, playground: Path, scratch: Path, site: Callable[[str], None]
) -> None:
    users = owned(playground / "users")
    (users / "work").symlink_to(scratch)
    site(f"siteFs={users}")
    assert result_of(shifter, users / "work") == f"{scratch}\nresult\n"


def image_with(shifter: Launcher, store: Path, place: Path) -> None:
    """Let the image have a directory of the same name as PLACE, with a file in it."""
    name = str(place).lstrip("/")
    above = {str(p).lstrip("/"): 0o755 for p in reversed(place.parents) if str(p) != "/"}
    tree = {**squash.BUSYBOX, **above, name: 0o755, f"{name}/of-the-image": "x"}
    make_store(store, squash.make(store / "image", tree), env=["PATH=/bin"])


def test_no_link_is_made_where_the_image_has_something(
    shifter: Launcher, store: Path, playground: Path, scratch: Path
) -> None:
    link = playground / "lnk"
    link.symlink_to(scratch)
    image_with(shifter, store, link)
    done = run_from(shifter, link, f"ls {link}; readlink -f .; echo $PWD")
    assert done.stdout == f"of-the-image\n{scratch}\n{scratch}\n"


# ------------------------------------------------------------------------------- PWD


@pytest.mark.parametrize(
    ("options", "pwd"),
    [
        (("--workdir=/bin",), "/bin"),
        (("--workdir",), "/work"),
        (("--volume={0}:/given", "--workdir=/given"), "/given"),
        (("--workdir=/bin", "--env=PWD=/mine"), "/mine"),
        (("--workdir=/absent", "--lenient-workdir"), "/"),
    ],
)
def test_pwd_names_the_working_directory(
    shifter: Launcher, playground: Path, options: tuple[str, ...], pwd: str
) -> None:
    chosen = [option.format(playground) for option in options]
    done = shifter.run("-i", "test", *chosen, "env", cwd=playground, env={"PWD": str(playground)})
    assert [line for line in done.stdout.splitlines() if line.startswith("PWD=")] == [f"PWD={pwd}"]


def test_pwd_is_not_set_where_the_caller_has_none(shifter: Launcher) -> None:
    done = shifter.run("-i", "test", "--workdir=/bin", "env", env={"PWD": None})
    assert "PWD=" not in done.stdout


# ------------------------------------------------------------------------------- errors


def cannot_start(shifter: Launcher, *, said: str, **more: object) -> None:
    """Check that a launch ends with an error, or starts elsewhere if that is allowed."""
    done = shifter.run("-i", "test", "pwd", **more)  # type: ignore[arg-type]
    assert (done.returncode, done.stdout) == (125, "")
    assert said in done.stderr
    assert "--lenient-workdir" in done.stderr
    done = shifter.run("-i", "test", "--lenient-workdir", "pwd", **more)  # type: ignore[arg-type]
    assert (done.returncode, done.stdout) == (0, "/work\n")
    assert "starting in '/work'" in done.stderr


def test_a_present_directory_that_cannot_be_shown_is_an_error(shifter: Launcher) -> None:
    cannot_start(shifter, said="'/etc/security'", cwd="/etc/security")


def test_a_present_directory_that_was_removed_is_an_error(
    shifter: Launcher, playground: Path
) -> None:
    gone = owned(playground / "gone")
    remove = ("/bin/sh", "-c", 'mkdir -p "$0" && cd "$0" && rmdir "$0" && exec "$@"', str(gone))
    cannot_start(shifter, said="was removed", before=remove)


def test_a_present_directory_of_too_long_a_path_is_an_error(
    shifter: Launcher, playground: Path
) -> None:
    part = "d" * 200
    script = f'cd "$0"; for i in $(seq 25); do mkdir -p {part}; cd -P {part}; done; exec "$@"'
    deep = ("/bin/bash", "-c", script, str(playground))
    cannot_start(shifter, said="longer than 4095 bytes", before=deep)


def test_the_site_may_be_lenient(shifter: Launcher, site: Callable[[str], None]) -> None:
    site("lenientWorkdir=1")
    done = shifter.run("-i", "test", "pwd", cwd="/etc/security")
    assert (done.returncode, done.stdout) == (0, "/work\n")


def test_a_directory_of_the_image_of_the_same_name_is_named(
    shifter: Launcher, store: Path, playground: Path
) -> None:
    # As in Shifter the image's directory stays; but the caller is told.
    here = owned(playground / "here")
    image_with(shifter, store, here)
    done = shifter.run("-i", "test", "ls", cwd=here)
    assert (done.returncode, done.stdout) == (0, "of-the-image\n")
    assert done.stderr == (
        f"shifter: '{here}' in the container is the image's directory, not this node's\n"
    )


def test_the_root_is_no_place_to_start_from(shifter: Launcher) -> None:
    done = shifter.run("-i", "test", "pwd", cwd="/")
    assert (done.stdout, done.stderr) == ("/work\n", "")
