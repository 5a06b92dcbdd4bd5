"""Where a worker connects is the site's to say, whatever users, registries and names say."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from shifter_lite import registries
from shifter_lite.build.registry import Registry
from shifter_lite.build.wire.patience import Patience
from shifter_lite.build.wire.reach import Reach, Scope, scope_of
from shifter_lite.errors import Denied, RegistryBusy
from shifter_lite.reference import Reference
from tests.conftest import Runner, User, made_site
from tests.helpers import faulty, images
from tests.helpers.faulty import Answer, Redirect, Token

QUICK = Patience(
    connect=2.0, header=0.4, silence=0.4, attempts=2, first_pause=0.01, longest_pause=1.0, total=4.0
)
IMAGE = images.image([images.layer([images.file("x", os.urandom(10_000))])])
LAYER: str = IMAGE.content["layers"][0]["digest"]
Tables = dict[str, dict[str, Any]]

# What the names of these tests are: in the world, in the site's network, on this host.
WORLD, SITE, HERE = "8.8.8.8", "10.1.2.3", "127.0.0.1"


class Names:
    """What names are looked up as, and by which address they are reached all the same."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[str]] = {}
        self.connected: list[str] = []


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Names that lead to this host, by addresses that do not look like it."""
    names, look_up, connect = Names(), socket.getaddrinfo, socket.socket.connect

    def looked_up(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        found = []
        for each in names.addresses.get(str(host), [host]):
            found += look_up(each, port, *rest, **more)
        return found

    def connected(end: socket.socket, address: Any) -> None:
        names.connected.append(address[0])
        connect(end, (HERE, *address[1:]) if address[0] in (WORLD, SITE) else address)

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    monkeypatch.setattr(socket.socket, "connect", connected)
    return names


@pytest.fixture
def registry() -> Iterator[faulty.Registry]:
    with faulty.serving() as serving:
        serving.add("x", "1", IMAGE)
        yield serving


@pytest.fixture
def other() -> Iterator[faulty.Registry]:
    """What the registry leads to."""
    with faulty.serving() as serving:
        serving.add("x", "1", IMAGE)
        yield serving


def at(served: faulty.Registry, host: str) -> str:
    return served.address.replace("localhost", host)


def pull(name: str, tables: Tables | None = None, *, shared: bool = True) -> None:
    tables = {name.partition("/")[0]: {"insecure": True}} if tables is None else tables
    reference, found = Reference.parse(name), registries.parse(tables)
    with Registry(reference, found, patience=QUICK, shared=shared) as registry:
        manifest = registry.manifest("linux/amd64")
        for each in (manifest.config, *manifest.layers):
            with registry.blob(each) as read:
                while read(50_000):
                    pass


def denied(name: str, words: str, tables: Tables | None = None, *, shared: bool = True) -> str:
    with pytest.raises(Denied, match=words) as caught:
        pull(name, tables, shared=shared)
    return caught.value.hint


# ------------------------------------------------------------------------------------ addresses


@pytest.mark.parametrize(
    ("address", "scope"),
    [
        ("8.8.8.8", Scope.WORLD),
        ("2606:4700::1111", Scope.WORLD),
        ("10.0.0.1", Scope.SITE),
        ("172.31.255.255", Scope.SITE),
        ("192.168.0.1", Scope.SITE),
        ("100.64.0.1", Scope.SITE),
        ("198.18.0.1", Scope.SITE),
        ("192.0.2.1", Scope.SITE),
        ("fd00::1", Scope.SITE),
        ("fc00::1", Scope.SITE),
        ("2001:db8::1", Scope.SITE),
        ("127.0.0.1", Scope.HERE),
        ("127.255.1.2", Scope.HERE),
        ("0.0.0.0", Scope.HERE),
        ("0.1.2.3", Scope.HERE),
        ("169.254.169.254", Scope.HERE),
        ("224.0.0.1", Scope.HERE),
        ("224.0.1.1", Scope.HERE),
        ("240.0.0.1", Scope.HERE),
        ("255.255.255.255", Scope.HERE),
        ("::", Scope.HERE),
        ("::1", Scope.HERE),
        ("fe80::1", Scope.HERE),
        ("fe80::1%eth0", Scope.HERE),
        ("fec0::1", Scope.SITE),
        ("ff02::1", Scope.HERE),
        # An IPv4 address in an IPv6 one is what who connects there reaches.
        ("::ffff:127.0.0.1", Scope.HERE),
        ("::ffff:10.0.0.1", Scope.SITE),
        ("::ffff:8.8.8.8", Scope.WORLD),
        ("::ffff:0:169.254.169.254", Scope.HERE),
        ("::7f00:1", Scope.HERE),
        ("64:ff9b::7f00:1", Scope.HERE),
        ("64:ff9b::a9fe:a9fe", Scope.HERE),
        ("64:ff9b::a00:1", Scope.SITE),
        ("64:ff9b::808:808", Scope.WORLD),
        ("64:ff9b:1::808:808", Scope.SITE),
        ("64:ff9b:1::7f00:1", Scope.HERE),
        ("2002:7f00:1::1", Scope.HERE),
        ("2002:a00:1::1", Scope.SITE),
    ],
)
def test_an_address_is_as_near_as_what_it_reaches(address: str, scope: Scope) -> None:
    assert scope_of(address) is scope


@pytest.mark.parametrize(
    ("tables", "host", "shared", "may"),
    [
        ({}, "a.org", True, False),
        ({}, "a.org", False, True),
        ({"a.org": {}}, "a.org", True, True),
        ({"a.org": {}}, "A.org:0443", True, True),
        ({"a.org": {}}, "a.org:5000", True, False),
        ({"a.org": {"private": False}}, "a.org", True, False),
        ({"a.org": {"private": False}}, "a.org", False, False),
        ({"a.org/x": {}}, "a.org", True, True),
        ({"a.org/x": {"blocked": True}}, "a.org", True, False),
        ({"b.org": {"mirrors": ["https://a.org/x"]}}, "a.org", True, True),
        ({"b.org": {"location": "https://a.org:5000/x"}}, "a.org", True, False),
        ({"*": {"location": "https://a.org/x"}}, "a.org", True, True),
        ({"*": {"private": True}}, "a.org", True, True),
        ({"*": {"private": False}}, "a.org", False, False),
        ({"*": {"private": False}, "a.org": {}}, "a.org", False, True),
        ({"*": {}}, "a.org", True, False),
    ],
)
def test_what_is_not_public_is_asked_where_the_site_names_it(
    tables: Tables, host: str, shared: bool, may: bool
) -> None:
    reach = Reach(registries.parse(tables), shared)
    assert (reach.why_not(host, Scope.SITE, Scope.HERE) == "") is may
    assert reach.why_not(host, Scope.WORLD, Scope.WORLD) == ""


# ------------------------------------------------------------------------- what is asked at first


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f.0.0.1", "0.0.0.0"]
)
def test_on_a_sites_store_no_user_lets_a_worker_ask_its_own_host(
    registry: faulty.Registry, host: str
) -> None:
    name = at(registry, host)
    hint = denied(f"{name}/x:1", "no public address", {"*": {"insecure": True}})
    assert f'[registries."{name}"]' in hint
    assert registry.requests == []


@pytest.mark.parametrize("address", [SITE, "169.254.169.254", "::ffff:7f00:1", HERE])
def test_a_name_is_judged_by_its_address(
    registry: faulty.Registry, names: Names, address: str
) -> None:
    names.addresses["innocent.org"] = [address]
    name = at(registry, "innocent.org")
    denied(f"{name}/x:1", f"'{name}' has no public address", {"*": {"insecure": True}})
    assert names.connected == []


def test_of_several_addresses_only_those_are_tried_that_may_be(
    registry: faulty.Registry, names: Names
) -> None:
    names.addresses["innocent.org"] = [HERE, WORLD]
    pull(f"{at(registry, 'innocent.org')}/x:1", {"*": {"insecure": True}})
    assert set(names.connected) == {WORLD}


def test_a_name_that_changes_its_address_is_connected_where_it_was_judged(
    registry: faulty.Registry, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up, answers = socket.getaddrinfo, iter([WORLD])

    def rebinding(host: Any, *rest: Any, **more: Any) -> Any:
        return look_up(next(answers, HERE) if host == "rebinds.org" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    pull(f"{at(registry, 'rebinds.org')}/x:1", {"*": {"insecure": True}})
    assert set(names.connected) == {WORLD}


def test_a_table_for_it_lets_workers_ask_it(registry: faulty.Registry) -> None:
    pull(f"{registry.address}/x:1", {registry.address: {}})
    pull(f"{registry.address}/x:1", {"*": {"private": True}})
    pull(f"{registry.address}/x:1", {}, shared=False)


# --------------------------------------------------------------------------- where it leads


@pytest.mark.parametrize("what", ["1", LAYER], ids=["manifest", "layer"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("source", "target"), [(WORLD, HERE), (WORLD, SITE), (SITE, HERE)])
def test_no_redirect_leads_nearer(
    registry: faulty.Registry,
    other: faulty.Registry,
    names: Names,
    what: str,
    shared: bool,
    source: str,
    target: str,
) -> None:
    names.addresses.update({"source.org": [source], "target.org": [target]})
    name, led = at(registry, "source.org"), at(other, "target.org")
    registry.fault(what, Redirect(led))
    # Not even where the site names it: it does not name it for this.
    tables: Tables = {name: {"insecure": True}, led: {"insecure": True}}
    hint = denied(f"{name}/x:1", f"leads to '{led}', which is not asked", tables, shared=shared)
    assert f'[registries."{led}"] with private = true' in hint
    assert other.requests == []
    pull(f"{name}/x:1", {**tables, led: {"private": True}}, shared=shared)


def test_a_redirect_from_one_host_of_the_site_to_another_needs_a_table_for_that(
    registry: faulty.Registry, other: faulty.Registry
) -> None:
    registry.fault(LAYER, Redirect(other.address))
    tables: Tables = {registry.address: {}}
    denied(f"{registry.address}/x:1", f"leads to '{other.address}'", tables)
    assert other.requests == []
    pull(f"{registry.address}/x:1", {**tables, other.address: {}})
    pull(f"{registry.address}/x:1", {}, shared=False)


def test_a_connection_that_is_kept_is_judged_again(
    registry: faulty.Registry, other: faulty.Registry, names: Names
) -> None:
    names.addresses["world.org"] = [WORLD]
    registry.fault(LAYER, Redirect(at(other, "world.org")))
    # From there back to the registry, whose connection is still open.
    other.fault(LAYER, Redirect(registry.address))
    denied(f"{registry.address}/x:1", f"leads to '{registry.address}'|not asked", {}, shared=False)
    assert len(registry.asked(LAYER)) == 1


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("source", "target"), [(WORLD, SITE), (WORLD, HERE), (SITE, HERE)])
def test_no_token_service_is_nearer_than_its_registry(
    registry: faulty.Registry,
    other: faulty.Registry,
    names: Names,
    shared: bool,
    source: str,
    target: str,
) -> None:
    names.addresses.update({"source.org": [source], "target.org": [target]})
    name, led = at(registry, "source.org"), at(other, "target.org")
    registry.auth, registry.realm = Token(), f"http://{led}/latest/meta-data?x=1"
    tables: Tables = {name: {"insecure": True}, led: {"insecure": True}}
    denied(f"{name}/x:1", f"leads to '{led}'", tables, shared=shared)
    assert other.requests == []
    assert not any(each.authorization for each in registry.requests)


def test_a_token_service_on_this_host_is_for_a_registry_on_this_host(
    registry: faulty.Registry, other: faulty.Registry, names: Names
) -> None:
    names.addresses["source.org"] = [WORLD]
    other.auth = registry.auth = Token()
    registry.realm = f"http://{other.address}/token"
    name = at(registry, "source.org")
    denied(f"{name}/x:1", "leads to", {name: {"insecure": True}}, shared=False)
    assert other.requests == []
    registry.tokens, registry._uses_left = 1, 99
    pull(f"{registry.address}/x:1", {}, shared=False)


def test_a_token_that_came_by_way_of_another_host_goes_to_nobody(
    registry: faulty.Registry, other: faulty.Registry
) -> None:
    registry.auth = other.auth = Token()
    registry.fault("token", Answer(307, headers={"Location": f"http://{other.address}/token"}))
    denied(f"{registry.address}/x:1", "token service that redirects to another host", shared=False)
    assert other.requests == []
    assert not any("Bearer" in each.authorization for each in registry.requests)


def test_behind_a_proxy_too_what_is_known_not_to_be_public_is_not_asked(
    registry: faulty.Registry, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://{registry.address}")
    names.addresses["inner.org"] = [SITE]
    for host in ("inner.org", "169.254.169.254", "10.0.0.1"):
        denied(f"{host}/x:1", "no public address", {"*": {"insecure": True}})
    assert registry.requests == []


# ------------------------------------------------------------------------------------- blocked


@pytest.mark.parametrize("written", ["{}", "0{}", "00000{}"])
def test_a_port_with_zeros_before_it_is_that_port(registry: faulty.Registry, written: str) -> None:
    port = registry.address.partition(":")[2]
    name = f"localhost:{written.format(port)}/x:1"
    assert str(Reference.parse(name)) == f"{registry.address}/x:1"
    denied(name, "this site blocks", {registry.address: {"blocked": True}}, shared=False)
    assert registries.parse({"evil.org": {"blocked": True}}).find("evil.org:0443/x")[1].blocked


@pytest.mark.parametrize("all_others", [True, False])
@pytest.mark.parametrize("realm", [True, False])
def test_what_is_blocked_is_not_asked_by_a_detour(
    registry: faulty.Registry, other: faulty.Registry, realm: bool, all_others: bool
) -> None:
    if realm:
        registry.auth, registry.realm = Token(), f"http://{other.address}/token"
    else:
        registry.fault(LAYER, Redirect(other.address))
    tables: Tables = {registry.address: {}, "*" if all_others else other.address: {"blocked": True}}
    hint = denied(
        f"{registry.address}/x:1", f"leads to '{other.address}', which this site blocks", tables
    )
    assert f'[registries."{other.address}"]' in hint
    assert other.requests == []


def test_the_sites_own_mirrors_are_asked_where_all_others_are_blocked(
    registry: faulty.Registry, other: faulty.Registry
) -> None:
    mirrors = {"mirrors": [f"http://{registry.address}"]}
    pull("registry.invalid/x:1", {"registry.invalid": mirrors, "*": {"blocked": True}})


# ------------------------------------------------------------------------- as its user sees it


@pytest.fixture
def bare_site(service: User, workdir: Any) -> Runner:
    """A site's store whose configuration says nothing of registries."""
    return made_site(service, workdir, config="")


def test_a_user_learns_what_the_site_has_to_say(
    bare_site: Runner, run: Runner, registry: faulty.Registry
) -> None:
    asker = replace(run, store=bare_site.store)
    request = asker("shifterimg", "pull", "--no-wait", f"{registry.address}/x:1").stdout.split()[0]
    assert bare_site("shifter-worker", "drain").returncode == 0
    done = asker("shifterimg", "wait", request)
    assert done.returncode == 77
    assert f'in shifter_lite.toml: [registries."{registry.address}"]' in done.stderr
    assert registry.requests == []


def test_in_a_store_of_their_own_users_ask_their_own_host(
    run: Runner, registry: faulty.Registry
) -> None:
    assert run("shifterimg", "pull", f"{registry.address}/x:1").returncode == 0


def test_no_status_of_what_a_redirect_found_reaches_a_user(
    registry: faulty.Registry, other: faulty.Registry
) -> None:
    registry.fault(LAYER, Redirect(other.address))
    other.fault(LAYER, Answer(403, b"internal"))
    with pytest.raises(RegistryBusy, match="did not give what was asked for") as caught:
        pull(f"{registry.address}/x:1", {}, shared=False)
    assert "403" not in f"{caught.value} {caught.value.hint}"
