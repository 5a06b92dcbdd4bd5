"""Registries are asked as the site says: mirrors first, others in their place, some not at all."""

import os
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shifter_lite import registries
from shifter_lite import store as stores
from shifter_lite.build.manifest import Descriptor
from shifter_lite.build.registry import Registry
from shifter_lite.build.wire.patience import Patience
from shifter_lite.build.zstd import Compressor
from shifter_lite.config import Site
from shifter_lite.errors import BadConfig, Denied, NotFound, RegistryBusy, ShifterError
from shifter_lite.layout import Layout
from shifter_lite.reference import Reference
from shifter_lite.registries import Address, Rules
from shifter_lite.steps import Bench, make_image
from tests.conftest import Runner
from tests.helpers import certificates, faulty, images
from tests.helpers import proxy as proxies
from tests.helpers.certificates import Authority

QUICK = Patience(
    connect=0.8, header=0.4, silence=0.4, attempts=2, first_pause=0.01, longest_pause=1.0, total=5.0
)
DATA = os.urandom(200_000)
IMAGE = images.image([images.layer([images.file("big", DATA)])])
OTHER = images.image([images.layer([images.file("other", b"x")])])
LAYER: str = IMAGE.content["layers"][0]["digest"]


def pull(name: str, tables: dict[str, dict[str, Any]] | None = None) -> dict[str, bytes]:
    """Return all of the image NAME, by digest, asked for as TABLES say."""
    registry = Registry(Reference.parse(name), registries.parse(tables or {}), patience=QUICK)
    manifest = registry.manifest("linux/amd64")
    registry.config(manifest)
    found = {}
    for each in (manifest.config, *manifest.layers):
        found[each.digest] = read_all(registry, each)
    return found


def read_all(registry: Registry, descriptor: Descriptor) -> bytes:
    with registry.blob(descriptor) as read:
        return b"".join(iter(partial(read, 50_000), b""))


@pytest.fixture
def mirror() -> Iterator[faulty.Registry]:
    """A mirror that has ``x:1`` under the path ``cache``."""
    with faulty.serving() as serving:
        serving.add("cache/x", "1", IMAGE)
        yield serving


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names in ``.test`` are this host, so that there are some that do not look like it."""
    real = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **more: Any) -> Any:
        here = isinstance(host, str) and host.endswith(".test")
        return real("127.0.0.1" if here else host, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


def named(served: faulty.Registry, host: str) -> str:
    """Return the address of SERVED under the name HOST."""
    return served.address.replace("localhost", host)


# ---------------------------------------------------------------------------------- the tables


def test_a_table_says_how_its_registry_is_asked() -> None:
    tables = {
        "docker.io": {
            "mirrors": ["https://mirror.site/v2-cache", "http://localhost:5000/"],
            "ca_file": "/etc/ca.pem",
            "insecure": False,
            "login_file": "/etc/login",
            "connections": 2,
        },
        "docker.io/library": {"location": "https://harbor.site:8443/a/b"},
        "*": {"blocked": True},
    }
    found = registries.parse(tables)
    assert found.tables["docker.io"] == Rules(
        mirrors=(
            Address("https", "mirror.site", "v2-cache"),
            Address("http", "localhost:5000", ""),
        ),
        ca_file="/etc/ca.pem",
        insecure=False,
        login_file="/etc/login",
        connections=2,
    )
    location = Address("https", "harbor.site:8443", "a/b")
    assert found.find("docker.io/library/x") == ("docker.io/library", Rules(location=location))
    assert found.find("quay.io/x") == ("", Rules(blocked=True))


@pytest.mark.parametrize(
    ("repository", "part"),
    [
        ("docker.io/a/b", "docker.io/a"),
        ("docker.io/a", "docker.io/a"),
        ("docker.io/ab", "docker.io"),
        ("Docker.IO/a/b", "Docker.IO/a"),
        ("docker.io:443/a/b", "docker.io:443/a"),
        ("registry-1.docker.io/a/b", "registry-1.docker.io/a"),
        ("index.docker.io:443/c", "index.docker.io:443"),
        ("quay.io/docker.io/a", ""),
        ("localhost:5000/a", "localhost:5000"),
        ("localhost:5001/a", ""),
        ("localhost/a", ""),
    ],
)
def test_the_longest_name_counts_however_the_registry_is_written(
    repository: str, part: str
) -> None:
    found = registries.parse({"docker.io": {}, "docker.io/a": {}, "localhost:5000": {}})
    assert found.find(repository) == (part, Rules())


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ([], "registries is not a table"),
        ({"docker.io": 5}, 'registries."docker.io" is not a table'),
        ({"docker": {"io": {"blocked": True}}}, "'docker' is no registry"),
        ({"library/x": {}}, "'library' is no registry"),
        ({"docker.io/": {}}, "is no registry"),
        ({"docker.io/UP": {}}, "is no registry"),
        ({"https://docker.io": {}}, "is no registry"),
        ({"": {}}, "is no registry"),
        ({"Docker.io": {}}, "the table's name is 'docker.io'"),
        ({"index.docker.io": {}}, "the table's name is 'docker.io'"),
        ({"quay.io:443/x": {}}, "the table's name is 'quay.io/x'"),
        ({"x.org": {"mirors": []}}, "unknown key 'mirors'"),
        ({"x.org": {"mirrors": "https://a.org"}}, "mirrors = 'https://a.org' is not a list"),
        ({"x.org": {"mirrors": []}}, r"mirrors = \[\] is not a list"),
        ({"x.org": {"mirrors": [5]}}, "is not a list of addresses"),
        ({"x.org": {"mirrors": ["a.org"]}}, "'a.org' is no address"),
        ({"x.org": {"mirrors": ["ftp://a.org"]}}, "is no address"),
        ({"x.org": {"mirrors": ["https://joe:pw@a.org"]}}, "is no address"),
        ({"x.org": {"mirrors": ["https://a.org/x?y"]}}, "is no address"),
        ({"x.org": {"mirrors": ["https://a.org//x"]}}, "is no address"),
        ({"x.org": {"mirrors": ["https://a.org:99999"]}}, "proper address or port"),
        ({"x.org": {"mirrors": ["https://a.org/v2/x"]}}, "leave it out"),
        ({"x.org": {"mirrors": ["https://a.org/v2/"]}}, "leave it out"),
        ({"x.org": {"mirrors": ["http://a.org/x"]}}, "'http://a.org/x' is plain http"),
        ({"x.org": {"location": ["https://a.org"]}}, "is not an address"),
        ({"x.org": {"location": "http://a.org"}}, "is plain http"),
        ({"x.org": {"blocked": "yes"}}, "blocked = 'yes' is not true or false"),
        ({"x.org": {"insecure": 1}}, "insecure = 1 is not true or false"),
        ({"x.org": {"ca_file": "ca.pem"}}, "ca_file = 'ca.pem' is not an absolute path"),
        ({"x.org": {"login_file": 7}}, "login_file = 7 is not an absolute path"),
        ({"x.org": {"connections": 0}}, "connections = 0 is not a number from 1 to 64"),
        ({"x.org": {"connections": True}}, "is not a number"),
        ({"x.org": {"connections": 2.0}}, "is not a number"),
        ({"*": {"login_file": "/x"}}, "would go to whatever registry users name"),
    ],
)
def test_what_is_wrong_in_a_table_is_named(tables: object, words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        registries.parse(tables)


# --------------------------------------------------------------------------------- where to ask


def test_a_mirror_that_has_it_is_asked_alone(mirror: faulty.Registry) -> None:
    tables = {"registry.invalid": {"mirrors": [f"http://{mirror.address}/cache"]}}
    assert pull("registry.invalid/x:1", tables) == IMAGE.blobs
    assert all(asked.path.startswith("/v2/cache/x/") for asked in mirror.requests)


def test_mirrors_are_asked_in_order_and_the_registry_last(
    faulty_registry: faulty.Registry, mirror: faulty.Registry
) -> None:
    faulty_registry.add("x", "1", OTHER)
    with faulty.serving() as lacking:
        addresses = [f"http://{each.address}/cache" for each in (lacking, mirror)]
        tables = {"localhost": {}, faulty_registry.address: {"mirrors": addresses}}
        assert pull(f"{faulty_registry.address}/x:1", tables) == IMAGE.blobs
        assert len(lacking.asked("1")) == 1
        assert faulty_registry.requests == []


FAULTS = {
    "lacks it": faulty.Answer(404),
    "is busy": faulty.Answer(503),
    "denies": faulty.Answer(403),
    "is a web page": faulty.Answer(200, b"<html>", {"Content-Type": "text/html"}),
    "hangs up": faulty.Raw(b""),
    "has another": faulty.Header("Docker-Content-Digest", images.sha256(b"")),
    "is no registry": faulty.Answer(400),
    "leads nowhere": faulty.Answer(302),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_what_a_mirror_does_not_give_the_registry_gives(
    faulty_registry: faulty.Registry,
    mirror: faulty.Registry,
    fault: faulty.Fault,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    name = faulty_registry.add("x", "1", IMAGE)
    mirror.fault("1", fault)
    tables = {faulty_registry.address: {"mirrors": [f"http://{mirror.address}/cache"]}}
    assert pull(name, tables) == IMAGE.blobs
    assert faulty_registry.asked("1")
    (record,) = caplog.records
    assert record.getMessage() == "passed over"
    assert vars(record)["fields"]["registry"] == f"the mirror '{mirror.address}/cache'"


def test_a_mirror_that_is_down_is_not_asked_again(faulty_registry: faulty.Registry) -> None:
    name = faulty_registry.add("x", "1", IMAGE)
    tables = {faulty_registry.address: {"mirrors": ["http://localhost:1"]}}
    assert pull(name, tables) == IMAGE.blobs


@pytest.mark.parametrize(
    "fault", [faulty.Answer(404), faulty.Answer(503), faulty.Cut(90_000), faulty.Cut(10)], ids=str
)
def test_a_layer_that_a_mirror_does_not_give_whole_the_registry_gives_from_there(
    faulty_registry: faulty.Registry, mirror: faulty.Registry, fault: faulty.Fault
) -> None:
    name = faulty_registry.add("x", "1", IMAGE)
    mirror.fault(LAYER, fault, times=1 if fault == faulty.Cut(90_000) else None)
    tables = {faulty_registry.address: {"mirrors": [f"http://{mirror.address}/cache"]}}
    assert pull(name, tables) == IMAGE.blobs


def test_a_digest_stays_checked_at_a_mirror(
    faulty_registry: faulty.Registry, mirror: faulty.Registry
) -> None:
    faulty_registry.add("x", "1", IMAGE)
    mirror.fault(IMAGE.digest, faulty.Body(OTHER.document))
    tables = {faulty_registry.address: {"mirrors": [f"http://{mirror.address}/cache"]}}
    assert pull(f"{faulty_registry.address}/x@{IMAGE.digest}", tables) == IMAGE.blobs


def test_a_config_that_a_mirror_has_spoilt_the_registry_gives(
    faulty_registry: faulty.Registry, mirror: faulty.Registry
) -> None:
    name = faulty_registry.add("x", "1", IMAGE)
    mirror.fault(IMAGE.content["config"]["digest"], faulty.Body(b"{}"))
    tables = {faulty_registry.address: {"mirrors": [f"http://{mirror.address}/cache"]}}
    registry = Registry(Reference.parse(name), registries.parse(tables), patience=QUICK)
    assert registry.config(registry.manifest("linux/amd64")).platform == "linux/amd64"


def test_who_got_something_wrong_from_a_mirror_can_ask_the_registry(
    faulty_registry: faulty.Registry, mirror: faulty.Registry
) -> None:
    name = faulty_registry.add("x", "1", IMAGE)
    tables = {faulty_registry.address: {"mirrors": [f"http://{mirror.address}/cache"]}}
    registry = Registry(Reference.parse(name), registries.parse(tables), patience=QUICK)
    registry.abort()
    alone = registry.without_mirrors()
    assert alone is not None
    assert alone.manifest("linux/amd64").digest == IMAGE.digest
    assert mirror.requests == []
    assert alone.without_mirrors() is None


def test_a_layer_that_a_mirror_has_spoilt_the_registry_gives(
    faulty_registry: faulty.Registry, mirror: faulty.Registry, tmp_path: Path
) -> None:
    name = faulty_registry.add("x", "1", IMAGE)
    mirror.fault(LAYER, faulty.Body(bytes(len(IMAGE.blobs[LAYER]))))
    tables = {faulty_registry.address: {"mirrors": [f"http://{mirror.address}/cache"]}}
    registry = Registry(Reference.parse(name), registries.parse(tables), patience=QUICK)
    manifest = registry.manifest("linux/amd64")
    layout = Layout(tmp_path)
    stores.create(layout, shared=False)
    worker: Any = SimpleNamespace(name="host.1.x", mark="host.1.x")
    site = Site(system="", platform="", state_dir="")
    bench = Bench(layout, "", site, Compressor(3), worker)
    config = registry.config(manifest)
    image = make_image(bench, registry, manifest, config, lambda _: None)
    assert DATA[:1000] in layout.image(image.id).read_bytes()
    assert len(mirror.asked(LAYER)) == len(faulty_registry.asked(LAYER)) == 1


def test_where_nobody_has_it_the_registry_has_the_last_word(
    faulty_registry: faulty.Registry, mirror: faulty.Registry
) -> None:
    mirror.fault("2", faulty.Answer(503))
    tables = {faulty_registry.address: {"mirrors": [f"http://{mirror.address}/cache"]}}
    with pytest.raises(NotFound, match=f"the registry '{faulty_registry.address}'"):
        pull(f"{faulty_registry.address}/x:2", tables)


@pytest.mark.parametrize(
    ("table", "path"),
    [
        ("docker.io", "proxy/library/x"),
        ("docker.io/library", "proxy/x"),
        ("*", "proxy/docker.io/library/x"),
    ],
)
def test_another_registry_is_asked_in_the_place_of_one(
    mirror: faulty.Registry, table: str, path: str
) -> None:
    mirror.add(path, "1", IMAGE)
    tables = {table: {"location": f"http://{mirror.address}/proxy"}}
    assert pull("x:1", tables) == IMAGE.blobs
    with pytest.raises(NotFound, match=r"'docker.io/library/x:2'"):
        pull("x:2", tables)


def test_the_whole_of_a_repository_may_be_elsewhere(mirror: faulty.Registry) -> None:
    tables = {"docker.io/library/x": {"location": f"http://{mirror.address}/cache/x"}}
    assert pull("x:1", tables) == IMAGE.blobs
    tables = {"docker.io/library/x": {"location": f"http://{mirror.address}"}}
    with pytest.raises(BadConfig, match="names no repository"):
        pull("x:1", tables)


@pytest.mark.parametrize(
    "name", ["debian", "Docker.IO/library/debian", "registry-1.docker.io/library/debian"]
)
def test_a_blocked_registry_is_denied_unasked(name: str) -> None:
    with pytest.raises(Denied, match="this site blocks") as caught:
        Registry(Reference.parse(name), registries.parse({"docker.io": {"blocked": True}}))
    assert caught.value.hint


def test_a_site_can_allow_a_few_registries_only(faulty_registry: faulty.Registry) -> None:
    name = faulty_registry.add("x", "1", IMAGE)
    tables = {"*": {"blocked": True}, faulty_registry.address: {}}
    assert pull(name, tables) == IMAGE.blobs
    with pytest.raises(Denied, match=r"this site blocks 'quay\.io'"):
        pull("quay.io/x", tables)


# --------------------------------------------------------------------------- TLS, and without it


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that only those know who are told of it."""
    return certificates.authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def tls(authority: Authority) -> Iterator[faulty.Registry]:
    """A registry ``registry.test`` that has ``x:1``, by TLS."""
    with faulty.serving(authority.serve("registry.test")) as serving:
        serving.add("x", "1", IMAGE)
        yield serving


def test_an_authority_of_the_sites_own_is_trusted_whatever_the_environment_says(
    tls: faulty.Registry, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = named(tls, "registry.test")
    tables = {address: {"ca_file": str(authority.path)}}
    assert pull(f"{address}/x:1", tables) == IMAGE.blobs
    other = certificates.authority(tmp_path, "other")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(other.path))
        assert pull(f"{address}/x:1", tables) == IMAGE.blobs
    monkeypatch.setenv("SSL_CERT_DIR", "/nowhere")
    assert pull(f"{address}/x:1", tables) == IMAGE.blobs


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_without_one_the_environments_is_trusted(
    tls: faulty.Registry, authority: Authority, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(authority.path))
    assert pull(f"{named(tls, 'registry.test')}/x:1") == IMAGE.blobs


def test_an_authority_that_is_no_file_is_named(
    tls: faulty.Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = named(tls, "registry.test")
    (tmp_path / "empty").touch()
    for path in (tmp_path / "missing", tmp_path / "empty"):
        with pytest.raises(BadConfig, match=f"ca_file = '{path}'"):
            pull(f"{address}/x:1", {address: {"ca_file": str(path)}})
        monkeypatch.setenv("CURL_CA_BUNDLE", str(path))
        with pytest.raises(BadConfig, match="CURL_CA_BUNDLE"):
            pull(f"{address}/x:1")
        monkeypatch.delenv("CURL_CA_BUNDLE")


@pytest.mark.parametrize(
    ("more", "host", "words"),
    [
        ({"self_signed": True}, "registry.test", "self-signed certificate"),
        ({"days": -1}, "registry.test", "certificate has expired"),
        ({}, "other.test", "Hostname mismatch"),
    ],
)
def test_a_certificate_that_is_not_right_is_busy_and_asked_for_once(
    authority: Authority, more: dict[str, Any], host: str, words: str
) -> None:
    with faulty.serving(authority.serve("registry.test", **more)) as tls:
        address = named(tls, host)
        with pytest.raises(RegistryBusy, match=f"cannot be trusted: {words}") as caught:
            pull(f"{address}/x:1", {address: {"ca_file": str(authority.path)}})
        assert "certificate" in caught.value.hint
        assert tls.requests == []


def test_a_registry_elsewhere_is_not_asked_without_tls(faulty_registry: faulty.Registry) -> None:
    faulty_registry.add("x", "1", IMAGE)
    address = named(faulty_registry, "registry.test")
    with pytest.raises(RegistryBusy, match="does not speak TLS"):
        pull(f"{address}/x:1")
    assert faulty_registry.requests == []
    assert pull(f"{address}/x:1", {address: {"insecure": True}}) == IMAGE.blobs
    with pytest.raises(RegistryBusy, match="does not speak TLS"):
        pull(f"{faulty_registry.address}/x:1", {faulty_registry.address: {"insecure": False}})


def test_where_plain_http_will_do_tls_does_as_well(
    authority: Authority, tls: faulty.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    address = named(tls, "registry.test")
    assert pull(f"{address}/x:1", {address: {"insecure": True}}) == IMAGE.blobs
    with faulty.serving(authority.serve("localhost")) as local:
        assert pull(local.add("x", "1", IMAGE)) == IMAGE.blobs
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(RegistryBusy, match="cannot be trusted"):
            pull(f"{local.address}/x:1")


@pytest.mark.parametrize("words", ["Client sent an HTTP request to an HTTPS server.", ""])
def test_a_server_that_speaks_no_tls_is_believed_its_400(
    faulty_registry: faulty.Registry, words: str
) -> None:
    name = faulty_registry.add("x", "1", IMAGE)
    faulty_registry.fault("1", faulty.Answer(400, words.encode()), times=1)
    with pytest.raises(ShifterError, match="400 Bad Request"):
        pull(name)


def test_a_layer_that_its_digest_proves_may_come_without_tls_unless_the_site_forbids_it(
    authority: Authority, tls: faulty.Registry, faulty_registry: faulty.Registry
) -> None:
    faulty_registry.add("x", "1", IMAGE)
    tls.auth = faulty.Token()
    tls.realm = f"https://{named(tls, 'registry.test')}/token"
    for digest in IMAGE.blobs:
        tls.fault(digest, faulty.Redirect(faulty_registry.address))
    address = named(tls, "registry.test")
    table = {"ca_file": str(authority.path)}
    with pytest.raises(Denied, match="redirects from https to 'http'") as caught:
        pull(f"{address}/x:1", {address: {**table, "insecure": False}})
    assert "insecure = false" in caught.value.hint
    assert faulty_registry.requests == []
    assert pull(f"{address}/x:1", {address: table}) == IMAGE.blobs
    assert {each.authorization for each in faulty_registry.requests} == {""}


def test_a_port_without_tls_is_another_server_than_the_same_port_with_tls(
    authority: Authority, tls: faulty.Registry
) -> None:
    tls.auth = faulty.Token()
    address = named(tls, "registry.test")
    tls.realm = f"https://{address}/token"
    tls.fault(LAYER, faulty.Redirect(address))
    with pytest.raises(RegistryBusy, match="leads to"):
        pull(f"{address}/x:1", {address: {"ca_file": str(authority.path)}})


@pytest.mark.parametrize("insecure", [None, True, False])
@pytest.mark.parametrize("what", ["1", "token"])
def test_manifests_and_tokens_never_come_out_of_tls(
    authority: Authority,
    tls: faulty.Registry,
    faulty_registry: faulty.Registry,
    what: str,
    insecure: bool | None,
) -> None:
    faulty_registry.add("x", "1", IMAGE)
    address = named(tls, "registry.test")
    tls.auth, tls.realm = faulty.Token(), f"https://{address}/token"
    tls.fault(what, faulty.Redirect(faulty_registry.address))
    table: dict[str, Any] = {"ca_file": str(authority.path)}
    if insecure is not None:
        table["insecure"] = insecure
    with pytest.raises(Denied, match="redirects"):
        pull(f"{address}/x:1", {address: table})
    assert faulty_registry.requests == []


@pytest.mark.parametrize(
    "fault",
    [
        faulty.Stall(90_000),
        faulty.Drip(90_000),
        faulty.Raw(b"", "stall"),
        faulty.Raw(b"HTTP/1.1 200 OK\r\nX: ", "drip"),
    ],
    ids=str,
)
def test_by_tls_too_what_stops_is_gone_on_with_or_given_up(
    authority: Authority, tls: faulty.Registry, fault: faulty.Fault
) -> None:
    address = named(tls, "registry.test")
    tables = {address: {"ca_file": str(authority.path)}}
    tls.fault(LAYER, fault, times=1)
    assert pull(f"{address}/x:1", tables) == IMAGE.blobs
    tls.fault(LAYER, fault)
    registry = Registry(Reference.parse(f"{address}/x:1"), registries.parse(tables))
    (layer,) = registry.manifest("linux/amd64").layers
    timer = threading.Timer(0.3, registry.abort)
    timer.start()
    with pytest.raises(RegistryBusy):
        read_all(registry, layer)
    timer.join()


def test_who_does_not_greet_by_tls_is_not_waited_for(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"registry.test:{mute.getsockname()[1]}"
        with pytest.raises(RegistryBusy, match="took too long"):
            pull(f"{address}/x:1", {address: {"ca_file": str(authority.path)}})


def test_a_mirror_has_its_own_authority_or_the_registrys(
    authority: Authority, tls: faulty.Registry
) -> None:
    address = named(tls, "registry.test")
    mirrors = {"mirrors": [f"https://{address}"]}
    own: dict[str, dict[str, Any]] = {
        "a.invalid": mirrors,
        address: {"ca_file": str(authority.path)},
    }
    assert pull("a.invalid/x:1", own) == IMAGE.blobs
    registrys = {"a.invalid": {**mirrors, "ca_file": str(authority.path)}}
    assert pull("a.invalid/x:1", registrys) == IMAGE.blobs


# -------------------------------------------------------------------------------------- proxies


def test_a_proxy_is_asked_for_what_is_elsewhere(
    faulty_registry: faulty.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty_registry.add("x", "1", IMAGE)
    with proxies.serving(faulty_registry.address) as proxy:
        monkeypatch.setenv("http_proxy", f"http://joe:pw@{proxy.address}")
        tables = {"registry.invalid": {"insecure": True}}
        assert pull("registry.invalid/x:1", tables) == IMAGE.blobs
        assert proxy.asked[0] == (
            "GET http://registry.invalid/v2/x/manifests/1",
            "Basic am9lOnB3",
        )
        monkeypatch.setenv("no_proxy", ".invalid")
        count = len(proxy.asked)
        with pytest.raises(RegistryBusy, match="no such host"):
            pull("registry.invalid/x:1", tables)
        assert len(proxy.asked) == count


def test_a_proxy_sees_nothing_of_what_goes_by_tls(
    authority: Authority, tls: faulty.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls.auth = faulty.Token()
    tls.realm = "https://registry.test/token"
    with proxies.serving(tls.address) as proxy:
        monkeypatch.setenv("https_proxy", proxy.address)
        tables = {"registry.test": {"ca_file": str(authority.path)}}
        assert pull("registry.test/x:1", tables) == IMAGE.blobs
        assert {line for line, _ in proxy.asked} == {"CONNECT registry.test:443"}


# ------------------------------------------------------------------------- as its user sees it


def test_an_image_for_another_machine_is_had_by_its_platform_alone(
    run: Runner, faulty_registry: faulty.Registry
) -> None:
    layers = [images.layer([images.file("x", b"x")])]
    name = faulty_registry.add("x", "1", images.image(layers, platform="linux/arm64"))
    for _ in range(2):
        done = run("shifterimg", "pull", "--platform", "linux/amd64", name)
        assert done.returncode == 65
        assert "made for 'linux/arm64', not for 'linux/amd64'" in done.stderr
        # Nor when it is here already.
        for odd in ("linux/arm64/v8", "Linux/aarch64", "arm64"):
            assert run("shifterimg", "pull", "--platform", odd, name).returncode == 0
    done = run("shifterimg", "pull", "--platform", "nonsense", name)
    assert done.returncode == 64
    assert "not a platform: 'nonsense'" in done.stderr


@pytest.mark.parametrize("port", ["0", "99999"])
def test_a_port_that_is_none_is_a_bad_name_to_users_too(run: Runner, port: str) -> None:
    done = run("shifterimg", "pull", f"localhost:{port}/x")
    assert done.returncode == 64
    assert "port" in done.stderr
