"""What is for the workers alone, their group does not give to users."""

import os
import re
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shifter_lite import groups, logins, registries
from shifter_lite.errors import BadConfig
from shifter_lite.layout import TREE
from tests.conftest import Runner, User, made_site
from tests.helpers import images

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root may give files to groups")


def in_group(user: User, gid: int, *more: int) -> User:
    """Return USER with the primary group GID, and MORE groups."""
    others = f"--groups={','.join(map(str, more))}" if more else "--clear-groups"
    ids = (f"--reuid={user.uid}", f"--regid={gid}", others)
    return replace(user, gid=gid, prefix=("/usr/bin/setpriv", *ids, "--"))


@pytest.fixture
def careless(run: Runner, service: User, user: User, workdir: Path) -> Runner:
    """The service account, with the primary group of a user."""
    workdir.chmod(0o755)
    os.chown(run.home, service.uid, user.gid)
    return replace(run, user=in_group(service, user.gid), store=run.home / "store")


@pytest.fixture
def joined(service: User, user: User) -> Iterator[None]:
    """While this is there, the user is a member of the service account's group."""
    subprocess.run(["gpasswd", "-a", user.name, service.name], check=True, capture_output=True)
    yield
    subprocess.run(["gpasswd", "-d", user.name, service.name], check=True, capture_output=True)


def test_no_shared_store_is_made_with_a_users_group(careless: Runner, user: User) -> None:
    store = careless.store
    done = careless("shifter-admin", "init")
    assert done.returncode == 78
    assert f"the group '{user.name}' of the store '{store}'" in done.stderr
    assert f"'{user.name}'" in done.stderr
    assert "--group GROUP" in done.stderr
    assert not store.exists()
    assert careless("shifter-admin", "init", "--private").returncode == 0


@pytest.mark.usefixtures("joined")
def test_no_shared_store_is_made_with_a_group_that_users_are_in(
    service: User, workdir: Path
) -> None:
    with pytest.raises(AssertionError, match="is that of other users, too"):
        made_site(service, workdir)


def test_a_shared_store_has_the_group_that_init_is_told(
    careless: Runner, service: User, user: User
) -> None:
    store = careless.store
    alone = replace(careless, user=in_group(service, user.gid, service.gid))
    for group in (service.name, str(service.gid)):
        assert alone("shifter-admin", "init", "--group", group).returncode == 0
    modes = {each.path: (store / each.path).stat() for each in TREE}
    assert {found.st_gid for found in modes.values()} == {service.gid}
    assert all(stat.S_IMODE(modes[each.path].st_mode) == each.mode for each in TREE)
    assert alone("shifter-worker", "drain").returncode == 0
    done = alone("shifter-admin", "--store", str(store) + "2", "init", "--group", "no-such-group")
    assert done.returncode == 78
    assert "there is no group 'no-such-group'" in done.stderr


@pytest.mark.parametrize("place", ["spool/work", "status", "cache/blobs"])
@pytest.mark.parametrize("command", ["run", "drain"])
def test_no_worker_works_on_a_shared_store_whose_group_has_a_user(
    site: Runner, user: User, place: str, command: str
) -> None:
    os.chown(site.store / place, -1, user.gid)
    done = site("shifter-worker", command)
    assert done.returncode == 78
    assert f"the group '{user.name}' of the store" in done.stderr
    assert f"chgrp -R GROUP {site.store}" in done.stderr
    assert site("shifter-admin", "init").returncode == 78


@pytest.mark.usefixtures("joined")
def test_a_user_who_joins_the_group_of_a_store_later_ends_its_workers(
    service: User, user: User
) -> None:
    assert groups.others_in(service.gid, (service.uid,)) == [user.name]
    assert groups.others_in(service.gid, (service.uid, user.uid)) == []


def test_accounts_of_the_system_are_no_users() -> None:
    assert groups.others_in(65534, ()) == []
    assert groups.others_in(4_000_000_000, ()) == []
    assert groups.name_of(4_000_000_000) == "4000000000"


def test_nobody_else_may_enter_a_store_of_ones_own(
    run: Runner, service: User, registry: str, store: Path
) -> None:
    images.push(registry, "own", "1", images.image([images.layer([images.file("x")])]))
    store.mkdir(mode=0o755)
    os.chown(store, run.user.uid, run.user.gid)
    assert run("shifterimg", "pull", f"{registry}/own:1").returncode == 0
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    done = run("shifterimg", "images", user=service)
    assert done.returncode != 0
    assert run("shifterimg", "images").returncode == 0


def test_root_makes_no_store_where_none_is_named(run: Runner, tmp_path: Path) -> None:
    root = replace(run, user=User(name="root", uid=0, gid=0), home=tmp_path)
    done = root("shifter-admin", "init", env={"SHIFTER_STORE": ""})
    assert done.returncode == 78
    assert "no store is named" in done.stderr
    assert "--store DIR init" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert root("shifter-admin", "--store", str(tmp_path / "s"), "init").returncode == 0


# ------------------------------------------------------------------------------ login files


def test_a_login_file_is_for_its_owner_or_a_group_without_users(
    tmp_path: Path, service: User, user: User
) -> None:
    path = tmp_path / "login"
    path.write_text("bob:pw\n")
    found = registries.parse({"a.org": {"login_file": str(path)}, "b.org": {}})
    path.chmod(0o640)
    os.chown(path, 0, user.gid)
    with pytest.raises(BadConfig, match=f"the group '{user.name}', in which '{user.name}'") as told:
        logins.check_files(found)
    assert "chmod 0600" in told.value.hint
    with pytest.raises(BadConfig, match="may be read by the group"):
        logins.read_file(str(path), "a.org/x")
    path.chmod(0o600)
    logins.check_files(found)
    path.chmod(0o640)
    os.chown(path, user.uid, user.gid)
    logins.check_files(found)
    path.chmod(0o644)
    with pytest.raises(BadConfig, match="its mode is 0644"):
        logins.check_files(found)


@pytest.mark.parametrize("kind", ["missing", "readable"])
def test_a_worker_does_not_start_with_a_login_file_that_it_cannot_use(
    service: User, workdir: Path, registry: str, kind: str
) -> None:
    path = workdir / "login"
    config = f'[registries."{registry}"]\nlogin_file = "{path}"\n'
    site = made_site(service, workdir, config)
    if kind == "readable":
        path.write_text("bob:pw\n")
        path.chmod(0o644)
    done = site("shifter-worker", "drain")
    assert done.returncode == 78
    assert str(path) in done.stderr
    path.write_text("bob:pw\n")
    path.chmod(0o640)
    os.chown(path, 0, service.gid)
    assert site("shifter-worker", "drain").returncode == 0


# -------------------------------------------------------------------------------- examples


def test_what_a_worker_makes_is_for_all_whatever_its_umask(
    site: Runner, asker: Runner, registry: str
) -> None:
    images.push(registry, "umask", "1", images.image([images.layer([images.file("x")])]))
    name = f"{registry}/umask:1"
    request = asker("shifterimg", "pull", "--no-wait", name).stdout.split()[0]
    prefix = (*site.user.prefix, "sh", "-c", 'umask 077; exec "$@"', "sh")
    narrow = replace(site, user=replace(site.user, prefix=prefix))
    assert narrow("shifter-worker", "drain").returncode == 0
    assert asker("shifterimg", "wait", request).returncode == 0
    path = asker("shifterimg", "path", name)
    assert path.returncode == 0
    read = ["head", "-c", "4", path.stdout.strip()]
    assert subprocess.run([*asker.user.prefix, *read], capture_output=True).stdout == b"hsqs"


def test_the_examples_show_logs_to_nobody_and_bound_what_a_worker_takes() -> None:
    examples = Path(__file__).parent.parent / "docs/examples"
    for line in (examples / "shifter-worker.cron").read_text().splitlines():
        if ">>" in line:
            assert re.search(r" shifter umask 077; ", line)
    unit = (examples / "shifter-worker.service").read_text()
    for setting in ("MemoryMax", "TasksMax", "LimitCORE=0"):
        assert re.search(f"^{setting}", unit, re.MULTILINE)
