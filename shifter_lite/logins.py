"""Who we are to a registry: the site's login files, and the user's own logins.

Passwords are read when a registry asks for them, and never shown: neither in a
message nor in the repr of what holds them.
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shifter_lite import groups
from shifter_lite.errors import BadConfig
from shifter_lite.registries import Registries, canonical

_LARGEST = 1 << 20
_FORM = "it holds USER:PASSWORD, or is a config.json of docker's"


@dataclass(frozen=True, slots=True)
class Login:
    """A user and a password, which no repr shows."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unusable:
    """There is a login, but not one that we can use; WHY says so."""

    why: str


# Returns what there is for a repository.
FindLogin = Callable[[str], Login | Unusable | None]


def read_file(path: str, repository: str) -> Login:
    """Return the login for REPOSITORY in the site's file at PATH; raises BadConfig."""
    text = _text(Path(path), secret=True)
    if text.lstrip().startswith("{"):
        found = _found(path, text, repository)
        if isinstance(found, Login):
            return found
        why = found.why if found else "it has none"
        raise BadConfig(f"{path!r} has no login for {repository!r}", hint=why)
    user, colon, password = text.rstrip("\r\n").partition(":")
    if not user or not colon or re.search(r"[\x00-\x1f\x7f]", user + password):
        raise BadConfig(f"{path!r} is no login", hint=_FORM)
    return Login(user, password)


def check_files(registries: Registries) -> None:
    """Raise BadConfig unless every login file of REGISTRIES is there, and for our eyes only."""
    for rules in registries.tables.values():
        if rules.login_file:
            _text(Path(rules.login_file), secret=True)


def own(environ: Mapping[str, str], repository: str) -> Login | Unusable | None:
    """Return what the user's own files, of podman and of docker, hold for REPOSITORY.

    The first file that has it counts, in the order of podman; raises BadConfig.
    """
    unusable = None
    for path in _own_files(environ):
        try:
            text = _text(path, secret=False)
        except FileNotFoundError:
            continue
        found = _found(str(path), text, repository)
        if isinstance(found, Login):
            return found
        unusable = unusable or found
    return unusable


def _own_files(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield where ``podman login`` and ``docker login`` keep logins; containers-auth.json(5)."""
    if named := environ.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
        return
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
    yield Path(runtime, "containers/auth.json" if environ.get("XDG_RUNTIME_DIR") else "auth.json")
    home = environ.get("HOME", "")
    if config := environ.get("XDG_CONFIG_HOME") or (home and f"{home}/.config"):
        yield Path(config, "containers/auth.json")
    if docker := environ.get("DOCKER_CONFIG") or (home and f"{home}/.docker"):
        yield Path(docker, "config.json")


def _text(path: Path, *, secret: bool) -> str:
    """Return the text of the file at PATH; if it is SECRET, others must not read or write it."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            data = file.read(_LARGEST + 1)
    except FileNotFoundError:
        if secret:
            raise BadConfig(f"there is no login file {str(path)!r}") from None
        raise
    except OSError as error:
        raise BadConfig(f"{str(path)!r} cannot be read: {error.strerror}") from error
    if secret:
        _check_secret(path, found)
    try:
        if len(data) <= _LARGEST:
            return data.decode()
    except UnicodeDecodeError:
        pass
    raise BadConfig(f"{str(path)!r} is no login", hint=_FORM)


def _check_secret(path: Path, found: os.stat_result) -> None:
    """Raise BadConfig unless the file at PATH, FOUND there, is for its owner and us alone."""
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o027:
        raise BadConfig(
            f"{str(path)!r} may be read or changed by others: its mode is {mode:04o}",
            hint=f"chmod 0600 {path}",
        )
    others = groups.others_in(found.st_gid, (0, found.st_uid, os.geteuid())) if mode & 0o040 else []
    if others:
        raise BadConfig(
            f"{str(path)!r} may be read by the group {groups.name_of(found.st_gid)!r},"
            f" in which {others[0]!r} is, too",
            hint=f"chmod 0600 {path}, or give it a group that only the workers' account has",
        )


class _Undecodable(ValueError):
    """The entry of this name has a login that cannot be decoded."""


def _found(path: str, text: str, repository: str) -> Login | Unusable | None:
    """Return what TEXT, of a file of docker's at PATH, has for REPOSITORY; raises BadConfig."""
    try:
        return find(_json(path, text), repository)
    except _Undecodable as entry:
        # Neither what stands there nor the chain of errors, which quotes it.
        raise BadConfig(
            f"{path!r}: the login of the entry {str(entry)!r} cannot be decoded",
            hint=f"log in again: podman login {entry}; 'auth' is USER:PASSWORD in base64",
        ) from None


def _json(path: str, text: str) -> dict[str, Any]:
    # Neither the words of json nor the chain of its errors: they quote what they stumble over.
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise BadConfig(f"{path!r} is not a config.json of docker's")
    return content


def find(content: dict[str, Any], repository: str) -> Login | Unusable | None:
    """Return the login for REPOSITORY: the entry of the longest name that it begins with.

    Raises ValueError, with the name, if that entry has a login that cannot be decoded.
    """
    entries = {_key(name): (name, entry) for name, entry in _table(content, "auths").items()}
    name = canonical(repository)
    while name:
        if found := _login(*entries.get(name, (name, None))):
            return found
        name = name.rpartition("/")[0]
    domain = canonical(repository).partition("/")[0]
    # docker notes, by an empty entry, what its one helper for everything keeps.
    of_all = content.get("credsStore") if domain in entries else None
    if helper := _table(content, "credHelpers").get(domain, of_all):
        return Unusable(f"the login for {domain!r} is kept by the helper {helper!r}: not supported")
    return None


def _table(content: dict[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _key(name: str) -> str:
    """Return the registry or repository of an entry's NAME, which may be an old address."""
    _, separator, rest = name.partition("://")
    return canonical(rest.partition("/")[0] if separator else name.rstrip("/"))


def _login(name: str, entry: object) -> Login | Unusable | None:
    match entry:
        case {"identitytoken": str(token)} if token:
            return Unusable("the login is an identity token: not supported")
        case {"auth": str(encoded)} if encoded:
            return _decoded(name, encoded)
        case {"username": str(user), "password": str(password)}:
            return Login(user, password) if user else None
    return None


def _decoded(name: str, encoded: str) -> Login:
    """Return the login that the entry NAME has ENCODED, as docker and podman decode it."""
    try:
        # Lines of 76 characters are what base64(1) writes.
        data = base64.b64decode(re.sub(r"[\r\n]", "", encoded), validate=True)
    except ValueError:
        raise _Undecodable(name) from None
    # A password is bytes: what is not UTF-8 is sent as it stands there.
    user, colon, password = data.decode(errors="surrogateescape").partition(":")
    if not user or not colon:
        raise _Undecodable(name)
    # docker once filled the password up with NULs.
    return Login(user, password.rstrip("\0"))
