"""A name means what the site's machines are given, whatever users pull for others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shifter_lite import keys, platforms
from shifter_lite.config import Site
from shifter_lite.index import resolve
from shifter_lite.index.upgrade import with_platforms
from shifter_lite.records import Config, Entry
from tests.conftest import Runner, made_site
from tests.helpers import etc, faulty, hosts, images, users
from tests.helpers.users import User

AMD64 = "linux/amd64"
SEVERAL = (
    "linux/arm/v6",
    "linux/arm64",
    "linux/386",
    "linux/amd64/v3",
    "linux/amd64",
    "linux/arm/v7",
)


def one(platform: str) -> images.Image:
    layer = images.layer([images.file("platform", platform.encode())])
    return images.image([layer], platform="/".join(platform.split("/")[:2]))


# ------------------------------------------------------------------------- an attack, again


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
def test_no_users_platform_moves_a_name_or_the_digest_of_an_index(
    service: User, workdir: Path, run: Runner, faulty_registry: faulty.Registry
) -> None:
    worker = made_site(service, workdir, f"platform = 'amd64'\n{etc.ASKS_THIS_HOST}")
    asker = replace(run, store=worker.store)
    several = images.index({platform: one(platform) for platform in SEVERAL})
    name = faulty_registry.add("x", "1", several)
    by_digest = f"{name.rpartition(':')[0]}@{several.digest}"
    with users.ordinary("attacker") as attacker:
        attack = _attack(asker, attacker, worker, [name, by_digest])
        # Where nothing is pulled yet, nothing is there.
        others = [platform for platform in SEVERAL if platform != AMD64]
        attack(others)
        for each in (name, by_digest):
            assert asker("shifterimg", "lookup", each).returncode == 66
        attack([])
        before = [asker("shifterimg", "lookup", each).stdout for each in (name, by_digest)]
        attack(others)
        assert [asker("shifterimg", "lookup", each).stdout for each in (name, by_digest)] == before
    given = {
        platform: asker("shifterimg", "lookup", "--platform", platform, name).stdout
        for platform in SEVERAL
    }
    assert len(set(given.values())) == len(SEVERAL)
    assert given[AMD64] == before[0] == before[1]
    _check_nodes(worker, given)


def _attack(
    asker: Runner, attacker: User, worker: Runner, names: list[str]
) -> Callable[[list[str]], None]:
    def attack(asked_for: list[str]) -> None:
        """Pull NAMES as the attacker for each platform, or as others do if there is none."""
        who = attacker if asked_for else asker.user
        home = {"HOME": "/nonexistent"}
        for name in names:
            for options in [["--platform", each] for each in asked_for] or [[]]:
                command = ("shifterimg", "pull", "--no-wait", *options, name)
                assert asker(*command, user=who, env=home).returncode == 0
        assert worker("shifter-worker", "drain").returncode == 0

    return attack


def _check_nodes(site: Runner, given: dict[str, str]) -> None:
    """Nodes of machines that the site does not list are given what is for all of them."""
    with resolve.newest(site.store / "index") as index:
        assert index is not None
        entries = dict(index.entries())
    for machine, platform in (("arm", "linux/arm/v7"), ("arm64", "linux/arm64")):
        (found,) = (entry.id for key, entry in entries.items() if key.endswith(f"x:1 {machine}"))
        assert f"{found}\n" == given[platform]


def test_asking_for_less_than_the_site_has_is_the_same_where_there_is_but_one(
    run: Runner, faulty_registry: faulty.Registry
) -> None:
    own = {"linux/amd64": one("linux/amd64")}
    name = faulty_registry.add("x", "1", images.index(own))
    on = hosts.on_host(run, "host", run.store, config="platform = 'linux/amd64/v3'")
    for platform in ("linux/amd64", "linux/amd64/v4"):
        assert on("shifterimg", "pull", "--platform", platform, name).returncode == 0
        assert on("shifterimg", "lookup", name).returncode == 0
        assert on("shifterimg", "lookup", "--platform", platform, name).returncode == 0
    assert on("shifterimg", "lookup", "--platform", "linux/386", name).returncode == 66


# --------------------------------------------------------------------- one name, several machines


def test_one_name_serves_all_machines_that_the_site_lists(
    run: Runner, faulty_registry: faulty.Registry
) -> None:
    own = platforms.parse(os.uname().machine)
    other = "linux/arm64" if own != "linux/arm64" else AMD64
    busybox = Path("/bin/busybox").read_bytes()
    layer = images.layer([images.directory("bin"), images.file("bin/busybox", busybox, mode=0o755)])
    both = {own: images.image([layer], platform=own), other: one(other)}
    name = faulty_registry.add("x", "1", images.index(both))
    on = hosts.on_host(run, "host", run.store, config=f"platform = [{other!r}, {own!r}]")
    assert on("shifterimg", "pull", name).returncode == 0
    said = on("shifter", f"--image={name}", "/bin/busybox", "true")
    assert said.returncode == 125
    assert (
        f"hint: get it for this node with: shifterimg pull --platform {own} {name}" in said.stderr
    )
    assert on("shifterimg", "pull", "--platform", own, name).returncode == 0
    done = on("shifter", f"--image={name}", "/bin/busybox", "echo", "here")
    assert (done.stdout, done.stderr) == ("here\n", "")
    # What the name means without a machine is the first's, for all who list and look it up.
    rows = json.loads(on("shifterimg", "images", "--json").stdout)
    assert {(row["name"], row["platform"]) for row in rows} == {(name, own), (name, other)}
    row = json.loads(on("shifterimg", "lookup", "--json", name).stdout)
    assert row["platform"] == other
    for platform in (own, other):
        (row,) = json.loads(on("shifterimg", "images", "--json", "--platform", platform).stdout)
        found = on("shifterimg", "lookup", "--platform", platform, name).stdout.strip()
        assert (row["id"], row["platform"]) == (found, platform)
    assert on("shifter-admin", "verify").returncode == 0
    assert " under 10 names, " in on("shifter-admin", "rebuild").stdout


# ------------------------------------------------------------------------------------ of before

SITE = Site(platform=AMD64, state_dir="/nowhere")
MADE_FOR = {"1" * 64: "linux/amd64", "2" * 64: "linux/arm64", "3" * 64: "linux/386", "4" * 64: ""}


def of_before(*named: tuple[str, int]) -> dict[bytes, bytes]:
    """Return an index in which no entry says a platform."""
    return {
        name.encode(): Entry(
            id=f"{number}" * 64,
            size=1,
            digest=f"sha256:{number}" + "0" * 63,
            time=1,
            config=Config(env=("A=b",)),
        ).to_bytes(name.encode())
        for name, number in named
    }


def upgraded(items: dict[bytes, bytes], site: Site = SITE) -> dict[str, Entry]:
    new = with_platforms(items, site, MADE_FOR.__getitem__)
    assert with_platforms(new, site, lambda _: pytest.fail("it is upgraded")) == new
    return {
        key.decode(): Entry.from_bytes(key, value)
        for key, value in new.items()
        if keys.is_name(key)
    }


def test_an_index_of_before_is_told_the_platforms_and_keeps_all_else() -> None:
    old = of_before(("x:1", 1), ("id:" + "1" * 64, 1), ("y:1", 4), ("z:1", 3))
    others = {b"\0u1000": b"a user", b"damaged:1": b"x"}
    everything = with_platforms(old | others, SITE, MADE_FOR.__getitem__)
    assert {key: everything[key] for key in others} == others
    new = upgraded(old)
    assert {key: entry.platform for key, entry in new.items()} == {
        "x:1": "linux/amd64",
        f"id:{'1' * 64}": "linux/amd64",
        "y:1": "",
        "z:1": "linux/386",
    }
    for key, value in old.items():
        kept = replace(Entry.from_bytes(key, value), platform=new[key.decode()].platform)
        assert kept == new[key.decode()]


def test_a_name_of_before_for_another_machine_is_given_to_that_machine_alone() -> None:
    exact = f"x@sha256:2{'0' * 63}"
    by_index = f"x@sha256:{'9' * 64}"
    old = of_before(("x:1", 2), (by_index, 2), (exact, 2), ("id:" + "2" * 64, 2))
    new = upgraded(old)
    assert set(new) == {
        keys.of_machine("x:1", "linux/arm64"),
        keys.of_machine(by_index, "linux/arm64"),
        exact,
        f"id:{'2' * 64}",
    }
    arm = replace(SITE, platform="linux/arm64", further_platforms=(AMD64,))
    assert set(upgraded(of_before(("x:1", 2), ("y:1", 1)), arm)) == {
        "x:1",
        keys.of_machine("y:1", AMD64),
    }


def test_the_first_publication_upgrades_a_store_and_its_images_still_run(
    run: Runner, faulty_registry: faulty.Registry
) -> None:
    names = [faulty_registry.add("x", tag, one(AMD64)) for tag in ("old", "new")]
    arm = faulty_registry.add("x", "arm", one("linux/arm64"))
    assert run("shifterimg", "pull", names[0]).returncode == 0
    assert run("shifterimg", "pull", "--platform", "linux/arm64", arm).returncode == 0
    _make_old(run.store / "index", arm)
    row = json.loads(run("shifterimg", "lookup", "--json", names[0]).stdout)
    assert row["platform"] is None
    assert run("shifterimg", "lookup", "--platform", AMD64, names[0]).returncode == 0
    assert run("shifterimg", "pull", names[1]).returncode == 0
    for name in names:
        row = json.loads(run("shifterimg", "lookup", "--json", name).stdout)
        assert row["platform"] == AMD64
    assert run("shifterimg", "lookup", arm).returncode == 66
    assert run("shifterimg", "lookup", "--platform", "linux/arm64", arm).returncode == 0


def _make_old(index: Path, moved: str) -> None:
    """Make of the newest generation in INDEX one of before, in which MOVED is as it was pulled."""
    from shifter_lite.index import cdb  # noqa: PLC0415

    with resolve.newest(index) as opened:
        assert opened is not None
        items, path = dict(opened.items()), index / resolve.generation_name(opened.generation)
    made: dict[bytes, bytes] = {}
    for key, value in items.items():
        if key == keys.ALL_SAY_PLATFORMS:
            continue
        plain = moved.encode() if key == keys.of_machine(moved, "linux/arm64").encode() else key
        made[plain] = value
        if keys.is_name(plain):
            made[plain] = replace(Entry.from_bytes(key, value), platform="").to_bytes(plain)
    path.write_bytes(cdb.encode(sorted(made.items())))
