"""The store is found where the user, the environment or the site says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shifter_lite import config
from shifter_lite.errors import BadConfig
from tests.runtime.store import make_store


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(config, "_DIRECTORY", tmp_path)
    return tmp_path


def root(option: str | None = None, **environ: str) -> str:
    return str(config.store_layout(option, environ).root)


def test_the_option_rules_over_the_variable_and_that_over_the_site(directory: Path) -> None:
    (directory / "udiRoot.conf").write_text("# x\nsystem=a\n imagePath = /site/a\\\n\n")
    assert root("/o", SHIFTER_STORE="/v") == "/o"
    assert root(None, SHIFTER_STORE="/v") == "/v"
    assert root(None, SHIFTER_STORE="", HOME="/h") == "/site/a"


def test_the_launchers_other_places_of_udiroot_conf_count_too(directory: Path) -> None:
    home = directory / "home"
    own = home / ".config" / "shifter-lite" / "udiRoot.conf"
    own.parent.mkdir(parents=True)
    own.write_text("# imagePath=/no \\\nimagePath=/own\n")
    chosen = directory / "chosen"
    chosen.write_text("imagePath \\\n = /chosen\n")
    assert root(HOME=str(home)) == "/own"
    assert root(HOME="/h", XDG_CONFIG_HOME=str(home / ".config")) == "/own"
    assert root(HOME=str(home), SHIFTER_CONFIG=str(chosen)) == "/chosen"
    (directory / "udiRoot.conf").write_text("system=x\n")
    assert root(HOME=str(home)) == f"{home}/.local/share/shifter-lite"


def test_what_ends_every_launch_ends_shifterimg_too(directory: Path) -> None:
    file = directory / "udiRoot.conf"
    file.write_text("system=x\nsiteFs=/a:/b:rw\n")
    words = f"'{file}' line 2: no flag of a volume: 'rw'"
    with pytest.raises(BadConfig, match=re.escape(words)) as raised:
        root(HOME="/h")
    assert raised.value.hint.startswith("write siteFs=/FROM")
    # Workers and administrators may name the store, and go on.
    assert root("/o") == root(SHIFTER_STORE="/o") == "/o"
    with pytest.raises(BadConfig, match=re.escape(words)):
        config.store_layout("/o", {}, check=True)
    file.write_text("imagePath=/a\n")
    assert str(config.store_layout("/o", {}, check=True).root) == "/o"


def test_a_file_that_the_launcher_cannot_read_is_an_error(directory: Path) -> None:
    chosen = directory / "chosen"
    for text, words in (
        (None, "No such file"),
        (b"a=\0", "is no text"),
        (b"#" * 2**20, "too large"),
    ):
        if text is not None:
            chosen.write_bytes(text)
        with pytest.raises(BadConfig, match=words):
            root(SHIFTER_CONFIG=str(chosen))
    chosen.unlink()
    chosen.mkdir()
    with pytest.raises(BadConfig, match="cannot read"):
        root(SHIFTER_CONFIG=str(chosen))
    with pytest.raises(BadConfig, match="cannot read '/dev/null'"):
        root(SHIFTER_CONFIG="/dev/null")


def test_the_machine_is_called_what_the_site_says(directory: Path) -> None:
    assert config.system_name({"HOME": "/h"}) == os.uname().nodename.partition(".")[0]
    (directory / "udiRoot.conf").write_text("system = blue waters\n")
    assert config.system_name({"HOME": "/h"}) == "blue waters"
    (directory / "shifter_lite.toml").write_text("system = 'other'")
    assert config.system_name({"HOME": "/h"}) == "other"


@pytest.mark.parametrize("command", ["images", "lookup", "path", "pull", "queue"])
def test_shifterimg_says_of_a_wrong_file_what_the_launcher_says(
    directory: Path, command: str
) -> None:
    file = directory / "chosen"
    file.write_text("sitefs=/a\n")
    arguments = [command] if command in ("images", "queue") else [command, "x"]
    done = subprocess.run(
        [Path(sys.executable).parent / "shifterimg", "--store", directory, *arguments],
        capture_output=True,
        text=True,
        env={"SHIFTER_CONFIG": str(file), "HOME": str(directory)},
    )
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == (
        f"shifterimg: '{file}' line 1: unknown key: 'sitefs'\n  hint: did you mean 'siteFs'?\n"
    )


def test_help_is_shown_whatever_the_file_says(directory: Path) -> None:
    (directory / "chosen").write_text("sitefs=/a\n")
    done = subprocess.run(
        [Path(sys.executable).parent / "shifterimg", "pull", "--help"],
        capture_output=True,
        env={"SHIFTER_CONFIG": str(directory / "chosen")},
    )
    assert done.returncode == 0


def test_images_are_listed_under_the_name_of_the_machine(directory: Path) -> None:
    (directory / "image").write_bytes(b"x")
    make_store(directory / "store", directory / "image")
    (directory / "chosen").write_text(f"system=mycluster\nimagePath={directory}/store\n")
    done = subprocess.run(
        [Path(sys.executable).parent / "shifterimg", "images"],
        capture_output=True,
        text=True,
        env={"SHIFTER_CONFIG": str(directory / "chosen"), "HOME": str(directory)},
    )
    assert done.stdout.split()[:3] == ["mycluster", "docker", "READY"], done.stderr


def test_without_a_site_the_store_is_at_home(directory: Path) -> None:
    assert root(HOME="/h") == "/h/.local/share/shifter-lite"
    assert root(HOME="/h", XDG_DATA_HOME="/d") == "/d/shifter-lite"
    assert root(HOME="/h", XDG_DATA_HOME="relative") == "/h/.local/share/shifter-lite"
    with pytest.raises(BadConfig, match="HOME"):
        root(HOME="")


def test_a_relative_store_is_of_the_working_directory(directory: Path) -> None:
    assert root("x") == str(Path.cwd() / "x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sytem = 'x'", "unknown key 'sytem'"),
        ("cache_bytes = 'many'", "cache_bytes = 'many'"),
        ("poll_seconds = true", "poll_seconds = True"),
        ("system = ", "shifter_lite.toml"),
        ("platform = 'linux'", "shifter_lite.toml: not a platform: 'linux'"),
        ("platform = ['linux/amd64', 'linux']", "shifter_lite.toml: not a platform: 'linux'"),
        ("platform = []", "names no platform"),
        ("platform = 5", "names no platform"),
        ("platform = [5]", "names no platform"),
        ("platform = ['amd64', 'linux/amd64/v3']", "an architecture twice"),
        ("further_platforms = ['linux/arm64']", "unknown key 'further_platforms'"),
        ("[executor]\nkind = 'pbs'", "executor.kind = 'pbs'"),
        ("[executor]\njobs = 0", "executor.jobs = 0 is too low"),
        ("[executor]\npartition = 'a b'", "executor.partition = 'a b'"),
        ("[executor]\nmemory = '8 GB'", "executor.memory = '8 GB'"),
        ("[executor]\nextra = ['--qos=low']", "executor.extra: '--qos=low' is no option"),
        ("[executor]\nextra = ['comment=$(id)']", "is no option"),
        ("[executor]\nextra = ['comment=a\\nb']", "is no option"),
        ("[executor]\nextra = ['output=/tmp/x']", "executor.extra: 'output' is not for the site"),
        ("[executor]\nextra = ['requeue']", "executor.extra: 'requeue' is not for the site"),
        ("registries = 5", "shifter_lite.toml: registries is not a table"),
        ("[registries.docker.io]\nblocked = true", "'docker' is no registry"),
        ("[registries.'docker.io']\nblockd = true", "unknown key 'blockd'"),
    ],
)
def test_a_wrong_key_or_value_is_named(directory: Path, text: str, words: str) -> None:
    (directory / "shifter_lite.toml").write_text(text)
    with pytest.raises(BadConfig, match=words):
        config.read_site({"HOME": "/h"})


def test_a_site_needs_no_file(directory: Path) -> None:
    site = config.read_site({"HOME": "/h"})
    assert site.state_dir == "/h/.local/state/shifter-lite"
    assert site.platform.startswith("linux/")


def test_a_site_of_several_machines_lists_their_platforms(directory: Path) -> None:
    (directory / "shifter_lite.toml").write_text("platform = ['x86_64', 'linux/arm64/v9']")
    site = config.read_site({"HOME": "/h"})
    assert (site.platform, site.further_platforms) == ("linux/amd64", ("linux/arm64/v9",))
    assert site.platforms_for("linux/arm64") == ("linux/amd64", "linux/arm64/v9")
    # Nodes of another machine may be there all the same, and are Linux.
    for asked in ("linux/arm/v6", "windows/arm/v6"):
        assert site.platforms_for(asked) == ("linux/amd64", "linux/arm64/v9", "linux/arm/v7")


@pytest.mark.parametrize(
    ("machine", "flags", "meant"),
    [
        ("x86_64", "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3", "linux/amd64/v2"),
        ("x86_64", "", "linux/amd64"),
        ("aarch64", "", "linux/arm64"),
    ],
)
def test_without_a_word_the_platform_is_this_hosts_with_its_level(
    monkeypatch: pytest.MonkeyPatch, directory: Path, machine: str, flags: str, meant: str
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(config, "_host_flags", lambda: frozenset(flags.split()))
    site = config.read_site({"HOME": "/h"})
    assert (site.platform, site.is_platform_given) == (meant, False)


def test_a_site_may_write_its_platform_as_uname_does(directory: Path) -> None:
    (directory / "shifter_lite.toml").write_text("platform = 'linux/aarch64'")
    assert config.read_site({"HOME": "/h"}).platform == "linux/arm64"


def test_a_site_says_how_registries_are_asked(directory: Path) -> None:
    (directory / "shifter_lite.toml").write_text("[registries.'*']\nblocked = true")
    assert config.read_site({"HOME": "/h"}).registries.find("quay.io/x")[1].blocked
