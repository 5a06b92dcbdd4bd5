"""Operations whose replies are lost, or that fail for a moment: what is there counts."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shifter_lite import lost_reply, transient
from shifter_lite.errors import StoreTrouble, from_oserror
from tests.helpers.lying import Liar, Lie

RUNTIME = Path(__file__).parents[1] / "runtime"
# One of each kind, in a directory of its own.  Each is lied to once.
OPERATIONS = """\
import os, sys
from pathlib import Path
from shifter_lite import durable, lost_reply
from shifter_lite.transient import waited_out

here = Path(sys.argv[1])
lost_reply.mkdir(here / "made")
os.close(lost_reply.create(here / "made/created"))
lost_reply.rename(here / "made/created", here / "made/renamed")
lost_reply.link(here / "made/renamed", here / "linked")
lost_reply.give(here / "made/renamed", here / "given")
lost_reply.rmdir(here / "made")
lost_reply.unlink(here / "given")
durable.publish(b"whole", here / "published", "host.1.a", 0o644)
durable.write(here / "written", b"text", 0o600)
durable.move(here / "written", here / "moved")
texts = [waited_out((here / name).read_text) for name in ("published", "moved")]
print(*sorted(waited_out(lambda: os.listdir(here))), *texts)
"""
NAMES = "create,rename,link,unlink,mkdir,rmdir,fsync,open,stat,readdir"


@pytest.mark.parametrize(
    "lies",
    [
        [Lie(each, "*") for each in ("mkdir", "create", "rename", "link", "rmdir", "unlink")],
        [Lie(each, "*", most=4) for each in ("mkdir", "create", "rename", "link", "rmdir")],
        [Lie(each, "*", "after", errno.EIO, most=2) for each in NAMES.split(",")],
        [Lie(each, "*", "before", errno.EIO, most=2) for each in NAMES.split(",")],
        [Lie(each, "*", "before", errno.ESTALE) for each in NAMES.split(",")],
        [Lie(each, "*", "after", errno.ENOTCONN) for each in NAMES.split(",")],
    ],
    ids=["lost", "lost-often", "EIO-though-done", "EIO", "ESTALE", "ENOTCONN-though-done"],
)
def test_what_was_done_is_done_once_whatever_the_filesystem_says(
    liar: Liar, workdir: Path, lies: list[Lie]
) -> None:
    here = workdir / "here"
    here.mkdir()
    liar.says(*(Lie(e.operations, f"{here}*", e.when, e.error, most=e.most) for e in lies))
    done = subprocess.run(
        [*liar.command, sys.executable, "-c", OPERATIONS, here],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stderr, liar.lies())
    assert done.stdout == "linked moved published whole text\n"
    assert len(liar.lies()) >= 6


@pytest.mark.parametrize("operation", ["link", "rename", "create", "mkdir"])
def test_what_others_have_done_is_not_taken_for_ours(tmp_path: Path, operation: str) -> None:
    ours, others = tmp_path / "ours", tmp_path / "others"
    ours.write_text("ours")
    others.symlink_to("ours")
    if operation == "link":
        with pytest.raises(FileExistsError):
            lost_reply.link(ours, others)
    elif operation == "rename":
        with pytest.raises(FileNotFoundError):
            lost_reply.rename(tmp_path / "gone", tmp_path / "target")
    elif operation == "create":
        with pytest.raises(FileExistsError):
            lost_reply.create(others)
    else:
        with pytest.raises(FileExistsError):
            lost_reply.mkdir(others)
    assert ours.read_text() == "ours"


def test_the_launcher_and_the_service_wait_for_the_same_errors() -> None:
    table = re.search(r"TRANSIENT\[\] = \{(.*?)\}", (RUNTIME / "transient.c").read_text(), re.S)
    assert table
    names = re.findall(r"E[A-Z]+", table[1])
    assert {getattr(errno, name) for name in names} == transient.TRANSIENT


def test_the_launcher_and_the_service_wait_equally_long() -> None:
    found = re.search(r"PATIENCE_MS = ([0-9]+)", (RUNTIME / "transient.c").read_text())
    assert found
    assert int(found[1]) == transient.PATIENCE_SECONDS * 1000


@pytest.mark.parametrize("number", sorted(transient.TRANSIENT))
def test_what_may_pass_and_lasts_asks_to_ask_again(number: int) -> None:
    error = from_oserror(OSError(number, "trouble", "/store/index"))
    assert isinstance(error, StoreTrouble)
    assert error.exit_code == 75
    assert "'/store/index'" in str(error)
