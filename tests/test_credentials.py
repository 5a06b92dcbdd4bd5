"""Tokens and passwords: asked for, renewed, and sent nowhere but where they belong."""

import base64
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shifter_lite import registries
from shifter_lite.build.registry import Registry
from shifter_lite.build.wire.patience import Patience
from shifter_lite.errors import BadConfig, Denied, RegistryBusy, ShifterError
from shifter_lite.logins import Login, Unusable
from shifter_lite.reference import Reference
from tests.conftest import Runner
from tests.helpers import certificates, etc, faulty, images
from tests.helpers.faulty import Answer, Basic, Cut, Raw, Redirect, Stall, Token

QUICK = Patience(
    connect=2.0,
    header=0.35,
    silence=0.35,
    attempts=3,
    first_pause=0.01,
    longest_pause=1.0,
    total=5.0,
)
USER, PASSWORD = "bob", 'pw with-odd:chars%"é'
IMAGE = images.image(
    [images.layer([images.file(name, os.urandom(100_000))]) for name in ("a", "b", "c")]
)


@pytest.fixture
def served(faulty_registry: faulty.Registry) -> faulty.Registry:
    """A registry that has the image ``x:1``."""
    faulty_registry.add("x", "1", IMAGE)
    return faulty_registry


def own(_: str) -> Login | Unusable | None:
    return Login(USER, PASSWORD)


def pull(
    served: faulty.Registry, tables: dict[str, Any] | None = None, **more: Any
) -> dict[str, bytes]:
    reference = Reference.parse(f"{served.address}/x:1")
    registry = Registry(reference, registries.parse(tables or {}), patience=QUICK, **more)
    manifest = registry.manifest("linux/amd64")
    registry.config(manifest)
    found = {}
    for each in (manifest.config, *manifest.layers):
        with registry.blob(each) as read:
            pieces = []
            while piece := read(50_000):
                pieces.append(piece)
            found[each.digest] = b"".join(pieces)
    return found


def refused(served: faulty.Registry, kind: type[ShifterError], words: str, **more: Any) -> str:
    started = time.monotonic()
    with pytest.raises(kind, match=words) as caught:
        pull(served, **more)
    assert time.monotonic() - started < 6
    return f"{caught.value} {caught.value.hint}"


@pytest.fixture(autouse=True)
def _no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No secret is in any log, however much is logged."""
    caplog.set_level(logging.DEBUG)
    yield
    assert PASSWORD not in caplog.text
    assert "a-token-of-the-service" not in caplog.text


# ---------------------------------------------------------------------------------------- tokens


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "bearer realm={realm}, service=faulty",
        'Bearer scope="{scope}",service="faulty",realm="{realm}"',
        'Bearer realm="{realm}?service=faulty"',
        'Negotiate, Basic realm="x", Bearer realm="{realm}",service="faulty"',
        'Bearer realm="{realm}",service="faulty",scope="{scope} repository:y:pull,push"',
        'Bearer realm="{realm}",service="faulty",scope="{scope}",error="insufficient_scope"',
    ],
)
@pytest.mark.parametrize("key", ["token", "access_token"])
def test_a_token_is_fetched_once_and_used(
    served: faulty.Registry, challenge: str, key: str
) -> None:
    served.auth = Token(challenge=challenge, key=key)
    assert pull(served) == IMAGE.blobs
    assert served.tokens == 1
    (asked,) = [each for each in served.requests if "/token" in each.path]
    assert "scope=repository%3Ax%3Apull" in asked.path
    assert asked.path.count("scope=") == (2 if "pull,push" in challenge else 1)
    assert asked.authorization == ""


@pytest.mark.parametrize("uses", [1, 2, 3])
def test_a_token_that_runs_out_is_renewed(served: faulty.Registry, uses: int) -> None:
    served.auth = Token(uses=uses)
    assert pull(served) == IMAGE.blobs
    assert served.tokens == -(-6 // uses)


def test_a_token_that_runs_out_while_a_blob_is_cut_is_renewed(served: faulty.Registry) -> None:
    served.auth = Token(uses=1)
    for digest in IMAGE.blobs:
        served.fault(digest, Cut(70_000), times=1)
    assert pull(served) == IMAGE.blobs


def test_a_token_that_is_forbidden_is_renewed(served: faulty.Registry) -> None:
    served.auth = Token()
    for digest in IMAGE.blobs:
        served.fault(digest, Answer(403), times=1)
    assert pull(served) == IMAGE.blobs
    assert served.tokens == 1 + len(IMAGE.blobs)


def test_a_registry_that_takes_no_token_denies(served: faulty.Registry) -> None:
    served.auth = Token(uses=0)
    refused(served, Denied, "401 Unauthorized")
    assert served.tokens == 1


def test_who_gets_no_token_without_a_login_is_denied(served: faulty.Registry) -> None:
    served.auth = Token(login="alice:x")
    told = refused(served, Denied, "does not let us read 'x'")
    assert "takes a login" in told


TROUBLE = {
    "429": Answer(429),
    "500": Answer(500),
    "503": Answer(503, headers={"Retry-After": "0"}),
    "hangs up": Raw(b""),
    "resets": Raw(b"", "reset"),
    "is silent": Raw(b"", "stall"),
    "drips": Raw(b"HTTP/1.1 200 OK\r\n\r\n{", "drip"),
    "stalls": Stall(5),
    "is cut": Cut(5),
}


@pytest.mark.parametrize("fault", TROUBLE.values(), ids=TROUBLE.keys())
def test_a_token_service_in_trouble_is_asked_again_and_then_busy(
    served: faulty.Registry, fault: faulty.Fault
) -> None:
    served.auth = Token()
    served.fault("token", fault, times=1)
    assert pull(served) == IMAGE.blobs
    served.fault("token", fault)
    refused(served, RegistryBusy, served.address)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_token_service_that_refuses_denies(served: faulty.Registry, status: int) -> None:
    served.auth = Token()
    served.fault("token", Answer(status, b"{}"))
    refused(served, Denied, "does not let us read")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"5",
        b"null",
        b'"token"',
        b'{"token": 5}',
        b'{"token": ["a"]}',
        b'{"token": "a\\r\\nX-Evil: 1"}',
        b'{"token": "a b"}',
        b'{"token": "\\u00e9"}',
        b'{"token": "' + b"x" * 70_000 + b'"}',
        b"[" * 60_000,
        b'{"token": "a"' + b" " * 99_999 + b"}",
        b"\xff\xfe{",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_a_token_that_is_none_is_busy_and_shown_to_nobody(
    served: faulty.Registry, body: bytes
) -> None:
    served.auth = Token()
    served.fault("token", Answer(200, body))
    told = refused(served, RegistryBusy, "answered something that is no token")
    assert "X-Evil" not in told


@pytest.mark.parametrize("body", [b"{}", b'{"token": ""}', b'{"token": null}'])
def test_no_token_at_all_denies(served: faulty.Registry, body: bytes) -> None:
    served.auth = Token()
    served.fault("token", Answer(200, body))
    refused(served, Denied, "does not let us read")


# ------------------------------------------------------------------------------------- passwords


def test_a_login_is_for_the_token_service_and_not_for_the_registry(
    served: faulty.Registry,
) -> None:
    served.auth = Token(login=f"{USER}:{PASSWORD}")
    assert pull(served, find_own=own) == IMAGE.blobs
    for asked in served.requests:
        scheme = asked.authorization.partition(" ")[0]
        assert scheme == ("Basic" if "/token" in asked.path else "Bearer") or not scheme


def test_a_login_is_given_where_it_is_asked_for(served: faulty.Registry) -> None:
    served.auth = Basic(f"{USER}:{PASSWORD}")
    assert pull(served, find_own=own) == IMAGE.blobs
    assert [each.authorization for each in served.requests].count("") == 1


def test_a_password_that_is_no_utf_8_is_sent_as_it_stands(
    served: faulty.Registry, tmp_path: Path
) -> None:
    coded = base64.b64encode(b"bob:p\xe9").decode()
    served.auth = Basic("bob:never")
    path = login_file(tmp_path / "auth", json.dumps({"auths": {served.address: {"auth": coded}}}))
    refused(served, Denied, "401", tables={served.address: {"login_file": path}})
    assert served.requests[-1].authorization == f"Basic {coded}"


def test_nobody_is_asked_for_a_login_that_the_registry_does_not_want(
    served: faulty.Registry,
) -> None:
    assert pull(served, find_own=lambda _: pytest.fail("asked")) == IMAGE.blobs
    assert {each.authorization for each in served.requests} == {""}


@pytest.mark.parametrize("auth", [Basic("bob:right"), Token(login="bob:right")], ids=str)
def test_a_wrong_login_denies(served: faulty.Registry, auth: Basic | Token) -> None:
    served.auth = auth
    told = refused(served, Denied, "401 Unauthorized", find_own=own)
    assert "login for it is not accepted" in told
    assert PASSWORD not in told


def test_a_login_that_we_cannot_get_at_is_told_who_is_denied(served: faulty.Registry) -> None:
    served.auth = Basic()
    told = refused(served, Denied, "401", find_own=lambda _: Unusable("kept by 'pass'"))
    assert "kept by 'pass'" in told


def test_a_login_follows_no_redirect(served: faulty.Registry) -> None:
    with faulty.serving() as other:
        other.add("x", "1", IMAGE)
        other.auth = Basic(f"{USER}:{PASSWORD}")
        served.auth = Basic(f"{USER}:{PASSWORD}")
        for digest in IMAGE.blobs:
            served.fault(digest, Redirect(other.address))
        told = refused(served, RegistryBusy, f"leads to {other.address!r}", find_own=own)
        # It is not the registry's login that is missing.
        assert "login" not in told
        assert other.requests
        assert {each.authorization for each in other.requests} == {""}


def test_a_login_follows_no_redirect_of_the_token_service(served: faulty.Registry) -> None:
    with faulty.serving() as other:
        # Its first token is as good as the first of the service that it stands in for.
        other.auth = Token()
        served.auth = Token(login=f"{USER}:{PASSWORD}")
        location = {"Location": f"http://{other.address}/token?service=faulty"}
        served.fault("token", Answer(307, headers=location))
        refused(served, Denied, "redirects to another host", find_own=own)
        assert other.requests == []


def test_a_redirect_of_the_token_service_to_itself_is_followed(served: faulty.Registry) -> None:
    served.auth = Token(login=f"{USER}:{PASSWORD}")
    served.fault("token", Answer(307, headers={"Location": "/token?service=faulty"}), times=1)
    assert pull(served, find_own=own) == IMAGE.blobs


def test_a_token_service_may_be_elsewhere(served: faulty.Registry) -> None:
    with faulty.serving() as service:
        service.auth = served.auth = Token(login=f"{USER}:{PASSWORD}")
        served.realm = f"http://{service.address}/token?x=y"
        served.tokens, served._uses_left = 1, 99
        assert pull(served, find_own=own) == IMAGE.blobs
        assert [each.path.partition("&")[0] for each in service.requests] == ["/token?x=y"]


def test_a_token_service_without_tls_is_not_told_a_password(
    served: faulty.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **more: real(
            "127.0.0.1" if str(host).endswith(".test") else host, *rest, **more
        ),
    )
    address = served.address.replace("localhost", "tokens.test")
    served.auth = Token(login=f"{USER}:{PASSWORD}")
    served.realm = f"http://{address}/token"
    told = refused(served, Denied, "token service without TLS", find_own=own)
    assert f"'{address}'" in told
    assert not [each for each in served.requests if "/token" in each.path]
    assert pull(served, {served.address: {"insecure": True}}, find_own=own) == IMAGE.blobs


def test_a_registry_with_tls_may_not_have_tokens_without(tmp_path: Path) -> None:
    authority = certificates.authority(tmp_path)
    with faulty.serving(authority.serve("localhost")) as tls:
        tls.add("x", "1", IMAGE)
        tls.auth = Token(login=f"{USER}:{PASSWORD}")
        tables = {tls.address: {"ca_file": str(authority.path)}}
        assert pull(tls, tables, find_own=own) == IMAGE.blobs
        tls.realm = "http://registry.example.org/token"
        refused(tls, Denied, "without TLS", tables=tables, find_own=own)


# -------------------------------------------------------------------------- the site's login files


def login_file(path: Path, text: str = f"{USER}:{PASSWORD}\n") -> str:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return str(path)


def test_the_sites_login_is_used(served: faulty.Registry, tmp_path: Path) -> None:
    tables = {served.address: {"login_file": login_file(tmp_path / "login")}}
    for auth in (Basic(f"{USER}:{PASSWORD}"), Token(login=f"{USER}:{PASSWORD}")):
        served.auth = auth
        assert pull(served, tables) == IMAGE.blobs


def test_the_sites_login_is_not_the_mirrors(served: faulty.Registry, tmp_path: Path) -> None:
    served.auth = Basic(f"{USER}:{PASSWORD}")
    table = {
        "mirrors": [f"http://{served.address}"],
        "login_file": login_file(tmp_path / "login"),
    }
    with faulty.serving() as registry:
        registry.add("x", "1", IMAGE)
        assert pull(registry, {registry.address: table}) == IMAGE.blobs
        assert {each.authorization for each in served.requests} == {""}
        own_table = {"login_file": login_file(tmp_path / "own")}
        tables = {registry.address: table, served.address: own_table}
        registry.requests.clear()
        assert pull(registry, tables) == IMAGE.blobs
        assert registry.requests == []


def test_the_sites_login_is_for_what_is_asked_in_its_place(
    served: faulty.Registry, tmp_path: Path
) -> None:
    served.auth = Basic(f"{USER}:{PASSWORD}")
    path = login_file(tmp_path / "login")
    table = {"location": f"http://{served.address}", "login_file": path}
    registry = Registry(Reference.parse("a.invalid/x:1"), registries.parse({"a.invalid": table}))
    assert registry.manifest("linux/amd64").digest == IMAGE.digest


def test_a_login_file_that_others_can_read_is_refused_when_it_is_needed(
    served: faulty.Registry, tmp_path: Path
) -> None:
    path = login_file(tmp_path / "login")
    os.chmod(path, 0o644)
    tables = {served.address: {"login_file": path}}
    assert pull(served, tables) == IMAGE.blobs
    served.auth = Basic(f"{USER}:{PASSWORD}")
    told = refused(served, BadConfig, "its mode is 0644", tables=tables)
    assert PASSWORD not in told


# --------------------------------------------------------------------------- as its user sees it


def test_a_users_own_login_is_used_for_his_own_pull(
    run: Runner, faulty_registry: faulty.Registry
) -> None:
    faulty_registry.auth = Token(login="alice:secret")
    name = faulty_registry.add("x", "1", images.image([images.layer([images.file("a")])]))
    config = run.home / ".docker/config.json"
    config.parent.mkdir()
    entry = {"username": "alice", "password": "wrong"}
    config.write_text(json.dumps({"auths": {faulty_registry.address: entry}}))
    done = run("shifterimg", "pull", name)
    assert done.returncode == 77
    assert "login for it is not accepted" in done.stderr
    assert "wrong" not in done.stderr
    entry["password"] = "secret"
    config.write_text(json.dumps({"auths": {faulty_registry.address: entry}}))
    assert run("shifterimg", "pull", name).returncode == 0


def test_a_users_own_login_brings_nothing_into_a_store_of_others(
    run: Runner, faulty_registry: faulty.Registry
) -> None:
    faulty_registry.auth = Basic("alice:secret")
    name = faulty_registry.add("x", "1", images.image([images.layer([images.file("a")])]))
    prefix = (*etc.over(run.home / "etc", etc.ASKS_THIS_HOST), *run.user.prefix)
    run = replace(run, user=replace(run.user, prefix=prefix))
    assert run("shifter-admin", "init").returncode == 0
    config = run.home / "auth.json"
    entry = {"username": "alice", "password": "secret"}
    config.write_text(json.dumps({"auths": {faulty_registry.address: entry}}))
    env = {"REGISTRY_AUTH_FILE": str(config)}
    done = run("shifterimg", "pull", name, env=env)
    assert done.returncode == 77
    assert "takes a login" in done.stderr
