"""``shifter-admin identity``: the program, on a store that all may ask."""

import os
from pathlib import Path

import pytest

from shifter_lite import identity
from shifter_lite.index import resolve
from tests.conftest import Runner
from tests.helpers import images
from tests.test_identity import GROUP, PASSWD
from tests.test_worker import small


@pytest.fixture
def files(site: Runner) -> list[str]:
    """The options that name a passwd and a group file, which the service account can read."""
    options = []
    for name, data in (("passwd", PASSWD), ("group", GROUP)):
        path = site.home / name
        path.write_bytes(data)
        path.chmod(0o644)
        options += [f"--{name}", str(path)]
    return options


def published(store: Path) -> dict[bytes, bytes]:
    with resolve.newest(store / "index") as index:
        assert index is not None
        return {key: value for key, value in index.items() if identity.is_key(key)}


def test_users_are_published_once_and_stay_when_workers_publish_images(
    site: Runner, asker: Runner, registry: str, files: list[str]
) -> None:
    done = site("shifter-admin", "identity", *files)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "2 users and 6 groups are now in generation 1 of the index\n"
    done = site("shifter-admin", "identity", *files)
    assert done.stdout == "2 users and 6 groups are already in generation 1 of the index\n"
    before = published(site.store)
    images.push(registry, "users", "1", small())
    assert asker("shifterimg", "pull", "--no-wait", f"{registry}/users:1").returncode == 0
    assert site("shifter-worker", "drain").returncode == 0
    assert asker("shifterimg", "lookup", f"{registry}/users:1").returncode == 0
    assert published(site.store) == before
    assert site("shifter-admin", "rebuild").returncode == 0
    assert site("shifter-admin", "verify").stdout.startswith("1 images under ")
    # Who publishes is a worker while it does, and nothing of it is left.
    for name in ("workers", "builds", "spool/work"):
        assert os.listdir(site.store / name) == []


def test_a_bad_line_publishes_nothing_unless_it_may_be_left_out(
    site: Runner, files: list[str]
) -> None:
    with Path(files[1]).open("ab") as passwd:
        passwd.write(b"zoe:x:1005:100::/home/zoe:/bin/sh\ncut off:x:10")
    done = site("shifter-admin", "identity", *files)
    assert done.returncode == 78
    told = done.stderr.splitlines()
    assert told[0] == (
        f"shifter-admin: '{files[1]}', line 8: not an entry of passwd: 'cut off:x:10'"
    )
    assert told[1].startswith("shifter-admin: 1 faults ")
    assert "--keep-going" in told[2]
    assert os.listdir(site.store / "index") == []
    done = site("shifter-admin", "identity", "--keep-going", *files)
    assert done.returncode == 0
    assert "line 8" in done.stderr
    assert b"\0u1005" in published(site.store)


def test_very_many_bad_lines_are_counted(site: Runner, files: list[str]) -> None:
    Path(files[1]).write_bytes(b"\x1b[2J\n" * 100)
    done = site("shifter-admin", "identity", *files)
    assert done.returncode != 0
    assert "\x1b" not in done.stderr
    assert len(done.stderr.splitlines()) < 25


def test_options_that_contradict_each_other_and_files_that_are_not_there_are_told(
    site: Runner, files: list[str]
) -> None:
    assert site("shifter-admin", "identity", *files, "--users-from", "x").returncode == 2
    done = site("shifter-admin", "identity", "--passwd", "/absent", *files[2:])
    assert done.returncode == 78
    assert "'/absent'" in done.stderr


def test_the_systems_users_are_taken_where_none_are_named(site: Runner) -> None:
    done = site("shifter-admin", "identity", "--lowest-uid", "0", "--keep-going")
    assert done.returncode == 0, done.stderr
    assert b"\0u0" in published(site.store)


def test_who_may_not_publish_images_publishes_no_users(asker: Runner, files: list[str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("we are the service account")
    done = asker("shifter-admin", "identity", *files)
    assert done.returncode == 77
    assert os.listdir(asker.store / "index") == []


def test_a_damaged_entry_is_found_by_verify(site: Runner, files: list[str]) -> None:
    assert site("shifter-admin", "identity", *files).returncode == 0
    (path,) = (site.store / "index").iterdir()
    path.write_bytes(path.read_bytes().replace(b"name=ann", b"name=ANN", 1))
    done = site("shifter-admin", "verify")
    assert done.returncode == 70
    assert "checksum" in done.stderr
