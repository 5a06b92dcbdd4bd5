"""Logins are found where users and sites leave them, and shown to nobody."""

import base64
import json
import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shifter_lite import logins
from shifter_lite.errors import BadConfig
from shifter_lite.logins import Login, Unusable

SECRET = 'pw with-odd:chars%"é'


def auth(user: str = "bob", password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def written(path: Path, content: object, mode: int = 0o600) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    path.chmod(mode)
    return str(path)


def test_a_file_holds_user_and_password(tmp_path: Path) -> None:
    for end in ("", "\n", "\r\n"):
        path = written(tmp_path / "login", f"bob:{SECRET}{end}")
        assert logins.read_file(path, "x.org/y") == Login("bob", SECRET)


@pytest.mark.parametrize(
    ("key", "repository", "there"),
    [
        ("quay.io", "quay.io/a/b", True),
        ("quay.io/a", "quay.io/a/b", True),
        ("quay.io/a/b", "quay.io/a/b", True),
        ("quay.io/a/b", "quay.io/a/bc", False),
        ("quay.io/", "quay.io/a", True),
        ("https://quay.io", "quay.io/a", True),
        ("https://quay.io/v2/", "quay.io:443/a", True),
        ("http://localhost:5000/v2/", "localhost:5000/a", True),
        ("localhost:5000", "localhost:5001/a", False),
        ("https://index.docker.io/v1/", "docker.io/library/x", True),
        ("docker.io", "docker.io/library/x", True),
        ("registry-1.docker.io", "docker.io/library/x", True),
        ("Quay.io", "quay.io/a", True),
        ("quay.io.evil.org", "quay.io/a", False),
        ("quay", "quay.io/a", False),
    ],
)
def test_a_file_of_dockers_holds_logins_by_registry(
    tmp_path: Path, key: str, repository: str, there: bool
) -> None:
    path = written(tmp_path / "config.json", {"auths": {key: auth()}})
    if there:
        assert logins.read_file(path, repository) == Login("bob", SECRET)
    else:
        with pytest.raises(BadConfig, match="has no login for"):
            logins.read_file(path, repository)


def test_the_longest_name_counts(tmp_path: Path) -> None:
    auths = {"quay.io": auth("all"), "quay.io/a": auth("one"), "quay.io/a/b": {}}
    path = written(tmp_path / "config.json", {"auths": auths})
    assert logins.read_file(path, "quay.io/a/b") == Login("one", SECRET)
    assert logins.read_file(path, "quay.io/b") == Login("all", SECRET)


def test_user_and_password_may_stand_by_themselves(tmp_path: Path) -> None:
    entry = {"username": "bob", "password": SECRET}
    path = written(tmp_path / "config.json", {"auths": {"a.org": entry}})
    assert logins.read_file(path, "a.org/x") == Login("bob", SECRET)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o602, 0o666, 0o777])
def test_a_file_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path / "login", f"bob:{SECRET}", mode)
    with pytest.raises(BadConfig, match=f"its mode is {mode:04o}") as caught:
        logins.read_file(path, "x.org/y")
    assert "chmod 0600" in caught.value.hint
    for right in (0o600, 0o400, 0o640, 0o440):
        os.chmod(path, right)
        assert logins.read_file(path, "x.org/y").user == "bob"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "bob",
        ":",
        ":pw",
        "bob:p\x00w",
        "bob:pw\nalice:pw",
        "{",
        '{"auths": 5}',
        '{"auths": {"x.org": 7}}',
        "x" * (2 << 20),
        '{"a":' * 99999,
    ],
    ids=lambda content: content[:30],
)
def test_a_file_that_is_no_login_is_refused_without_showing_it(
    tmp_path: Path, content: str
) -> None:
    path = written(tmp_path / "login", content)
    with pytest.raises(BadConfig) as caught:
        logins.read_file(path, "x.org/y")
    assert path in str(caught.value)
    assert caught.value.hint or "config.json" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="there is no login file"):
        logins.read_file(str(tmp_path / "x"), "x.org/y")
    with pytest.raises(BadConfig, match="cannot be read"):
        logins.read_file(str(tmp_path), "x.org/y")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"auths": {"a.org": {}}, "credsStore": "pass"}, "the helper 'pass'"),
        ({"credHelpers": {"a.org": "gcloud"}}, "the helper 'gcloud'"),
        ({"auths": {"a.org": {"identitytoken": "x"}}}, "identity token"),
    ],
)
def test_a_login_that_we_cannot_get_at_is_named(
    tmp_path: Path, content: dict[str, Any], words: str
) -> None:
    path = written(tmp_path / "config.json", content)
    with pytest.raises(BadConfig) as caught:
        logins.read_file(path, "a.org/x")
    assert words in caught.value.hint
    found = logins.own({"REGISTRY_AUTH_FILE": path}, "a.org/x")
    assert isinstance(found, Unusable)
    assert words in found.why
    assert logins.own({"REGISTRY_AUTH_FILE": path}, "b.org/x") is None


def test_the_users_own_logins_are_where_podman_and_docker_leave_them(tmp_path: Path) -> None:
    environ = {
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "HOME": str(tmp_path / "home"),
    }
    assert logins.own(environ, "a.org/x") is None
    places = ["home/.docker/config.json", "home/.config/containers/auth.json"]
    for place in (*places, "run/containers/auth.json"):
        # The one found last is looked at first.
        written(tmp_path / place, {"auths": {"a.org": auth(place)}}, 0o644)
        assert logins.own(environ, "a.org/x") == Login(place, SECRET)
    written(tmp_path / "run/containers/auth.json", {"auths": {}})
    assert logins.own(environ, "a.org/x") == Login(places[1], SECRET)
    for variable, place in (
        ("XDG_CONFIG_HOME", "etc/containers/auth.json"),
        ("REGISTRY_AUTH_FILE", "auth.json"),
    ):
        directory = tmp_path / ("auth.json" if variable == "REGISTRY_AUTH_FILE" else "etc")
        written(tmp_path / place, {"auths": {"a.org": auth(variable)}})
        environ[variable] = str(directory)
        assert logins.own(environ, "a.org/x") == Login(variable, SECRET)
    written(tmp_path / "d/config.json", {"auths": {"a.org": auth("docker")}})
    assert logins.own({"DOCKER_CONFIG": str(tmp_path / "d")}, "a.org/x") == Login("docker", SECRET)


def test_a_file_of_the_users_that_is_broken_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "auth.json", "{" + SECRET)
    with pytest.raises(BadConfig, match=r"is not a config\.json") as caught:
        logins.own({"REGISTRY_AUTH_FILE": path}, "a.org/x")
    assert SECRET not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_no_repr_shows_a_password() -> None:
    assert SECRET not in repr(Login("bob", SECRET))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["auths", "a.org", "auth", "credHelpers", "credsStore", "username"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_holds_a_login_or_none_or_a_broken_one(content: object) -> None:
    content = {"auths": content, "credHelpers": content, "credsStore": content}
    with suppress(ValueError):
        found = logins.find(content, "a.org/x")
        assert found is None or isinstance(found, Login | Unusable)


def encoded(login: bytes) -> str:
    return base64.b64encode(login).decode()


WRAPPED = encoded(b"bob:" + b"x" * 100)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_login_in_lines_is_read_as_podman_reads_it(tmp_path: Path, end: str) -> None:
    entry = {"auth": f"{WRAPPED[:76]}{end}{WRAPPED[76:]}{end}"}
    path = written(tmp_path / "auth.json", {"auths": {"a.org": entry}})
    assert logins.own({"REGISTRY_AUTH_FILE": path}, "a.org/x") == Login("bob", "x" * 100)
    assert logins.read_file(path, "a.org/x") == Login("bob", "x" * 100)


@pytest.mark.parametrize(
    "auth",
    [
        "ghp_abcdef123",
        "Ym9i",
        encoded(b":secret"),
        WRAPPED[:-1],
        f" {WRAPPED}",
        "%%%",
        "é",
        "=" * 9,
    ],
)
@pytest.mark.parametrize("name", ["a.org", "https://a.org/v1/", "a.org/x"])
def test_a_login_that_cannot_be_decoded_is_an_error_that_names_file_and_entry(
    tmp_path: Path, auth: str, name: str
) -> None:
    # What another file has is not taken in its place, as podman does not.
    written(tmp_path / ".docker/config.json", {"auths": {"a.org": {"auth": WRAPPED}}})
    content = {"auths": {name: {"auth": auth}, "b.org": {"auth": WRAPPED}}}
    path = written(tmp_path / ".config/containers/auth.json", content)
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    for read in (partial(logins.own, environ), partial(logins.read_file, path)):
        with pytest.raises(BadConfig, match="cannot be decoded") as caught:
            read("a.org/x")
        assert f"{path!r}: the login of the entry {name!r}" in str(caught.value)
        assert f"podman login {name}" in caught.value.hint
        assert caught.value.__cause__ is None
        assert auth not in f"{caught.value} {caught.value.hint}".replace(name, "")
        assert read("b.org/x") == Login("bob", "x" * 100)
