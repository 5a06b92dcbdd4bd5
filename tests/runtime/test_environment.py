"""The environment that an application finds, and what goes over what in it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.runtime.conftest import Launcher
from tests.runtime.store import make_store
from tests.runtime.test_errors import fails


def environment(shifter: Launcher, *args: str, **env: str | None) -> dict[str, str]:
    """Return the application's environment."""
    done = shifter.run("-i", "test", *args, "/bin/env", env=env)
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def test_variables_are_set_by_option(shifter: Launcher) -> None:
    env = environment(shifter, "-e", "A=1=2", "--env=B=", "-eC=x y", "--env", "A=3", MINE="1")
    assert (env["A"], env["B"], env["C"], env["MINE"]) == ("3", "", "x y", "1")


def test_a_variable_without_a_value_is_the_callers(shifter: Launcher) -> None:
    env = environment(shifter, "-E", "-e", "MINE", "-e", "ABSENT", MINE="here")
    assert env["MINE"] == "here"
    assert "ABSENT" not in env
    assert "HOME" not in env


def test_options_go_over_files_and_files_over_the_image(
    shifter: Launcher, playground: Path
) -> None:
    file = playground / "variables"
    file.write_text('# a comment\n\n  COLOUR=green \nA="1"\nEMPTY=\nB=2')
    env = environment(shifter, f"--env-file={file}", "-e", "B=3", COLOUR="red")
    assert (env["COLOUR"], env["A"], env["EMPTY"], env["B"]) == ("green", '"1"', "", "3")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A=1\nBAD\n", "line 2: no variable: 'BAD'"),
        ("\n\n=x", "line 3: no variable: '=x'"),
        ("A=1\0", "is no text"),
    ],
)
def test_a_bad_line_of_a_file_is_an_error(
    shifter: Launcher, playground: Path, text: str, words: str
) -> None:
    file = playground / "variables"
    file.write_text(text)
    said = fails(shifter, "-i", "test", f"--env-file={file}", "true")
    assert words in said
    assert str(file) in said
    assert "cannot read the variables of '/absent'" in fails(
        shifter, "-i", "test", "--env-file=/absent", "true"
    )


def test_variables_may_come_out_of_a_pipe(shifter: Launcher) -> None:
    bash = ("bash", "-c", 'exec "$0" --env-file=<(echo A=1; sleep 0.2; echo B=2) "$@"')
    done = shifter.run("-i", "test", "env", before=bash)
    assert {"A=1", "B=2"} <= set(done.stdout.split("\n")), done.stderr
    assert shifter.run("-i", "test", "--env-file=/dev/null", "true").stderr == ""
    said = fails(shifter, "-i", "test", "--env-file=/etc", "true")
    assert said.startswith("shifter: cannot read the variables of '/etc': Is a directory")


def test_clearing_drops_what_is_the_callers_alone(shifter: Launcher) -> None:
    env = environment(shifter, "--clearenv", "-e", "A=1", MINE="1")
    assert "MINE" not in env
    assert (env["A"], env["COLOUR"], env["PATH"]) == ("1", "blue", "/bin")
    assert env["SHIFTER_IMAGEREQUEST"] == "test"


def test_what_leads_to_the_nodes_libraries_is_not_passed_on(shifter: Launcher) -> None:
    env = environment(
        shifter,
        "-e",
        "LD_LIBRARY_PATH=/in/the/image",
        LD_PRELOAD="",
        LD_LIBRARY_PATH="/on/the/node",
        TMPDIR="/node",
        LOCPATH="/node",
        LDFLAGS="stays",
    )
    assert "LD_PRELOAD" not in env
    assert "TMPDIR" not in env
    assert "LOCPATH" not in env
    assert env["LD_LIBRARY_PATH"] == "/in/the/image"
    assert env["LDFLAGS"] == "stays"


def test_empty_values_of_the_image_and_the_caller_stay(
    shifter: Launcher, store: Path, image: Path
) -> None:
    make_store(store, image, env=["PATH=/bin", "FROM_IMAGE="])
    env = environment(shifter, FROM_CALLER="")
    assert (env["FROM_IMAGE"], env["FROM_CALLER"]) == ("", "")


def test_the_image_goes_over_what_shifter_says_and_the_site_over_all(
    shifter: Launcher, store: Path, image: Path, playground: Path
) -> None:
    make_store(store, image, env=["PATH=/bin:/usr/bin", "A=image", "B=image", "C=image"])
    config = playground / "udiRoot.conf"
    config.write_text(
        "module_m_siteEnv=A=m B=m\nmodule_m_siteEnvAppend=PATH=/m\nmodule_m_siteEnvUnset=C\n"
        "siteEnv=B=site SHIFTER_RUNTIME=1\nsiteEnvAppend=PATH=/opt/udiImage/bin NEW=x\n"
        "siteEnvPrepend=PATH=/pre EMPTY=y\nsiteEnvUnset=GONE\n"
    )
    env = environment(
        shifter, "-m", "m", "-e", "A=user", "-e", "EMPTY=", GONE="1", SHIFTER_CONFIG=str(config)
    )
    assert env["PATH"] == "/pre:/bin:/usr/bin:/m:/opt/udiImage/bin"
    assert (env["A"], env["B"], env["NEW"], env["EMPTY"]) == ("m", "site", "x", "y")
    assert env["SHIFTER_RUNTIME"] == "1"
    assert "C" not in env
    assert "GONE" not in env


def test_a_variable_without_a_name_is_an_error(shifter: Launcher) -> None:
    assert "a variable without a name: '=x'" in fails(shifter, "-i", "test", "-e", "=x", "true")


def test_a_variable_that_stands_twice_is_passed_on_once(shifter: Launcher) -> None:
    """No library makes such an environment, but a kernel takes it: programs then differ."""
    twice = (
        "import ctypes, sys; C = ctypes.CDLL(None); A = ctypes.c_char_p;"
        "words = [w.encode() for w in sys.argv[1:]] + [None];"
        "names = [f'{k}={v}'.encode() for k, v in __import__('os').environ.items()];"
        "names += [b'X=first', b'Y=first', b'X=second', b'Y=second', None];"
        "C.execve(words[0], (A * len(words))(*words), (A * len(names))(*names))"
    )
    before = [sys.executable, "-c", twice]
    for options, seen in (([], ["X=first", "Y=first"]), (["-eX=asked"], ["X=asked", "Y=first"])):
        done = shifter.run("-i", "test", *options, "env", before=before)
        assert sorted(line for line in done.stdout.split("\n") if line[:2] in ("X=", "Y=")) == seen


def test_what_is_unset_may_have_a_value_behind_it(shifter: Launcher, playground: Path) -> None:
    config = playground / "udiRoot.conf"
    config.write_text("siteEnvUnset=A=1 B\nmodule_m_siteEnvUnset=C=\n")
    env = environment(shifter, "-mm", A="2", B="2", C="2", D="2", SHIFTER_CONFIG=str(config))
    assert [name for name in "ABCD" if name in env] == ["D"]
