"""Only the owner of a store works on it, whatever the filesystem lets others do."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from shifter_lite.request import is_request_name
from tests.conftest import Runner
from tests.helpers import images
from tests.helpers.processes import running, until
from tests.helpers.users import User

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root is refused what root may do")
ROOT = User(name="root", uid=0, gid=0)


@pytest.fixture
def root(site: Runner, tmp_path: Path) -> Runner:
    """What runs programs as root, on the site's store."""
    return replace(site, user=ROOT, home=tmp_path)


def not_theirs(site: Runner) -> list[Path]:
    """Return what of the store is not its owner's, but for requests and what they are told."""
    return [
        path
        for path in (site.store, *site.store.rglob("*"))
        if path.lstat().st_uid != site.user.uid and not is_request_name(path.name)
    ]


def test_roots_pull_waits_for_a_worker_like_everybodys(
    site: Runner, asker: Runner, root: Runner, registry: str
) -> None:
    images.push(registry, "owner", "1", images.image([images.layer([images.file("x", b"x")])]))
    with running(root, "shifterimg", "pull", f"{registry}/owner:1") as pull:
        until(lambda: bool(os.listdir(site.store / "spool/new")))
        assert site("shifter-worker", "drain").returncode == 0
        assert pull.wait(60) == 0
    assert not_theirs(site) == []
    with running(site, "shifter-worker", "run"):
        assert asker("shifterimg", "pull", f"{registry}/owner:1").returncode == 0


@pytest.mark.parametrize(
    "command",
    [
        ("shifter-worker", "run"),
        ("shifter-worker", "drain"),
        ("shifter-admin", "identity"),
        ("shifter-admin", "rebuild"),
    ],
    ids="_".join,
)
def test_root_is_told_whose_work_it_is(
    site: Runner, root: Runner, command: tuple[str, ...]
) -> None:
    done = root(*command)
    assert done.returncode == 77, done.stderr
    owner = site.user.name
    assert f"the store '{site.store}' belongs to {owner}, and this program runs as root" in (
        done.stderr
    )
    assert f"hint: run it as {owner}: sudo -u {owner}" in done.stderr
    assert not_theirs(site) == []


def test_what_only_reads_a_store_is_for_root_as_well(site: Runner, root: Runner) -> None:
    for command in ("queue", "verify"):
        assert root("shifter-admin", command).returncode == 0
    assert not_theirs(site) == []
