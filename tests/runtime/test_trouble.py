"""Launches while the filesystem of the store is in trouble: for a moment, or for good."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from shifter_lite.transient import TRANSIENT
from tests.helpers.lying import Liar, Lie
from tests.runtime.conftest import Launcher

WELL = "is the filesystem of the store well on this node?"
# What a launch does to the store, until the image is served.
READS = [
    ("open", "*/index"),
    ("readdir", "*/index"),
    ("open", "*/index/images.*"),
    ("stat,fstat", "*/index/images.*"),
    ("read", "*/index/images.*"),
    ("open", "*.squashfs"),
    ("stat,fstat", "*.squashfs"),
    ("read", "*.squashfs"),
]


@pytest.fixture
def lied_to(shifter: Launcher, built_traceable: Path) -> Launcher:
    """The launcher, whose server can be lied to as well."""
    return replace(shifter, program=built_traceable / "shifter")


@pytest.fixture
def liar(liar_program: Path, playground: Path) -> Liar:
    """What lies, in a directory of the caller's."""
    playground.chmod(0o777)
    made = Liar(liar_program, playground)
    (playground / "lies.log").chmod(0o666)
    return made


@pytest.mark.parametrize(("operation", "pattern"), READS)
def test_a_launch_waits_for_what_passes(
    lied_to: Launcher, liar: Liar, operation: str, pattern: str
) -> None:
    pattern = f"{lied_to.store}{pattern}"
    errors = (errno.ETIMEDOUT, errno.ENOTCONN, errno.EIO, errno.EHOSTDOWN)
    liar.says(*(Lie(operation, pattern, "before", error) for error in errors))
    done = lied_to.run("--image=test", "/bin/cat", "/etc/motd", before=liar.command)
    assert (done.returncode, done.stderr) == (0, ""), liar.lies()
    assert liar.lies()


def test_a_launch_waits_for_every_error_that_may_pass(lied_to: Launcher, liar: Liar) -> None:
    for error in sorted(TRANSIENT):
        liar.says(Lie("readdir", f"{lied_to.store}/index", "before", error))
        done = lied_to.run("--image=test", "/bin/true", before=liar.command)
        assert (done.returncode, done.stderr) == (0, ""), error
    assert len(liar.lies()) == len(TRANSIENT)


@pytest.mark.parametrize(
    ("operation", "pattern", "what"),
    [
        ("readdir", "/index", "cannot read the index of the store"),
        ("open", "/images/*.squashfs", "cannot open the image"),
    ],
)
def test_a_launch_says_that_the_filesystem_is_not_well_if_that_lasts(
    lied_to: Launcher, liar: Liar, operation: str, pattern: str, what: str
) -> None:
    liar.says(Lie(operation, f"{lied_to.store}{pattern}", "before", errno.ENOTCONN, most=-1))
    done = lied_to.run("--image=test", "/bin/true", before=liar.command)
    assert done.returncode == 125
    assert what in done.stderr
    assert "not connected" in done.stderr
    assert WELL in done.stderr


def test_a_launch_never_goes_without_what_the_image_says_of_itself(
    lied_to: Launcher, liar: Liar
) -> None:
    liar.says(Lie("read", f"{lied_to.store}/images/*", "before", errno.EIO, most=-1))
    done = lied_to.run("--image=test", "/bin/true", before=liar.command)
    assert done.returncode == 125
    assert "cannot read the image" in done.stderr
