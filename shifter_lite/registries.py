"""How the site wants registries to be asked: the ``registries`` of ``shifter_lite.toml``.

One table for each registry, or for a part of one; the longest name that a
repository begins with counts, alone; ``*`` stands for all that have no table.
Parsed and checked once, frozen.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import urlsplit

from shifter_lite.errors import BadConfig
from shifter_lite.reference import is_domain, is_path

EVERY = "*"
_ADDRESS = re.compile(r"(https?)://([^/@?#\\\s]+)(?:/([^?#\\\s]*?))?/?")
_LOOPBACK = re.compile(r"(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?")
_HOST_AND_PORT = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::([0-9]+))?")
# Every way in which inet_aton(3), and so getaddrinfo(3), reads an IPv4 address.
_OLD_IPV4 = re.compile(r"(?:0x[0-9a-f]+|[0-9]+)(?:\.(?:0x[0-9a-f]+|[0-9]+)){0,3}")
# Other names of a registry: what is said of the one holds for the others.
_ALIASES = {"index.docker.io": "docker.io", "registry-1.docker.io": "docker.io"}
_MOST_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Address:
    """Where repositories are: ``https://HOST/PATH``, where PATH may be empty."""

    scheme: str
    host: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read TEXT; raises ValueError, saying what is wrong with it."""
        match = _ADDRESS.fullmatch(text)
        if match is None or not is_domain(match[2]) or (match[3] and not is_path(match[3])):
            raise ValueError("is no address: write it like https://mirror.example.org/path")
        scheme, host, path = match[1], match[2], match[3] or ""
        if fault := fault_of_host(host):
            raise ValueError(fault)
        if path == "v2" or path.startswith("v2/"):
            raise ValueError("has the /v2/ in it that every registry has: leave it out")
        return cls(scheme, host, path)

    @property
    def loopback(self) -> bool:
        """Whether it is on this host."""
        return is_loopback(self.host)

    @property
    def repository(self) -> str:
        """Host and path, as repositories are written."""
        return f"{self.host}/{self.path}" if self.path else self.host

    def __str__(self) -> str:
        """Return the address as it is written."""
        return f"{self.scheme}://{self.repository}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How one registry is asked; every field is a key of its table.

    ``mirrors`` are asked first, in order.  ``location`` is asked in the registry's place.
    ``blocked``: no worker asks it, by redirects neither.  ``ca_file`` is trusted beside the
    system's authorities.  ``insecure`` is whether plain http will do; by default on this host,
    and where a registry redirects for a layer, only.
    ``private`` is whether it may have an address that is not public; by default if it has a table.
    If true in its own table, public registries may redirect there.
    ``login_file`` holds USER:PASSWORD, or is a config.json of docker's.
    ``connections`` is how many layers are brought at once.
    """

    mirrors: tuple[Address, ...] = ()
    location: Address | None = None
    blocked: bool = False
    ca_file: str = ""
    insecure: bool | None = None
    private: bool | None = None
    login_file: str = ""
    connections: int = 4


@dataclass(frozen=True, slots=True)
class Registries:
    """The rules for all registries."""

    tables: Mapping[str, Rules] = field(default_factory=lambda: MappingProxyType({}))

    def find(self, repository: str) -> tuple[str, Rules]:
        """Return the part of REPOSITORY that has a table, the longest, and its rules.

        That part is empty if the rules are those for every registry.
        """
        name = canonical(repository)
        # Of the repository as it was written: what follows the part is asked for elsewhere.
        kept = repository
        while name:
            if name in self.tables:
                return kept, self.tables[name]
            name, kept = name.rpartition("/")[0], kept.rpartition("/")[0]
        return "", self.of_all()

    def of_all(self) -> Rules:
        """Return the rules for all that have no table of their own."""
        return self.tables.get(EVERY, Rules())

    def of_host(self, host: str) -> Rules | None:
        """Return the rules of HOST's table; plain ones if it is named otherwise; else None.

        A table of a part of it names it, unless that is blocked, and so does an address.
        """
        host = canonical(host)
        if host in self.tables:
            return self.tables[host]
        return Rules() if host in self._named() else None

    def blocks(self, host: str) -> bool:
        """Return whether the site forbids to ask HOST for anything."""
        return (self.of_host(host) or self.of_all()).blocked

    def _named(self) -> Iterator[str]:
        """Yield the hosts that the site names without a table for the whole of them."""
        for name, rules in self.tables.items():
            if name != EVERY and not rules.blocked:
                yield name.partition("/")[0]
            for address in (*rules.mirrors, *filter(None, [rules.location])):
                yield canonical(address.host)


def canonical(repository: str) -> str:
    """Return the one name that REPOSITORY has in tables, however its registry is written."""
    domain, slash, path = repository.partition("/")
    domain = _canonical_host(domain.lower())
    return f"{_ALIASES.get(domain, domain)}{slash}{path}"


def _canonical_host(domain: str) -> str:
    match = _HOST_AND_PORT.fullmatch(domain)
    if match is None:
        return domain
    host, port = match[1].removesuffix("."), int(match[2] or 443)
    if host.startswith("["):
        host = _canonical_ipv6(host)
    elif _OLD_IPV4.fullmatch(host):
        try:
            host = str(IPv4Address(socket.inet_aton(host)))
        except OSError:
            return domain
    return host if port == 443 else f"{host}:{port}"


def _canonical_ipv6(host: str) -> str:
    try:
        address = IPv6Address(host[1:-1])
    except ValueError:
        return host
    return str(address.ipv4_mapped) if address.ipv4_mapped else f"[{address}]"


def is_loopback(host: str) -> bool:
    """Return whether HOST, perhaps with a port, is this host."""
    return _LOOPBACK.fullmatch(host) is not None


def fault_of_host(host: str) -> str:
    """Return why nothing can be at HOST, which is written like a registry; empty if it can."""
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port
        if host.startswith("["):
            IPv6Address(parts.hostname or "")
    except ValueError:
        return "has no proper address or port in it"
    return "has the port 0 in it" if port == 0 else ""


def parse(tables: object) -> Registries:
    """Read the ``registries`` of a configuration; raises BadConfig, naming the key."""
    if not isinstance(tables, dict):
        raise BadConfig("registries is not a table", hint='write [registries."docker.io"]')
    return Registries(MappingProxyType({name: _rules(name, tables[name]) for name in tables}))


def _rules(name: str, table: object) -> Rules:
    where = f'registries."{name}"'
    domain, slash, path = name.partition("/")
    if name != EVERY and (not _is_registry(domain) or (slash and not is_path(path))):
        raise BadConfig(
            f"{where}: {domain!r} is no registry",
            hint='names have quotes: [registries."docker.io"], or [registries."*"] for all',
        )
    if name != EVERY and canonical(name) != name:
        raise BadConfig(f"{where}: the table's name is {canonical(name)!r}")
    if not isinstance(table, dict):
        raise BadConfig(f"{where} is not a table")
    known = {entry.name for entry in fields(Rules)}
    for key in table:
        if key not in known:
            hint = f"keys are: {', '.join(sorted(known))}"
            raise BadConfig(f"{where}: unknown key {key!r}", hint=hint)
    rules = Rules(**{key: _value(where, key, value) for key, value in table.items()})
    _check(where, name, rules)
    return rules


def _is_registry(domain: str) -> bool:
    written_as_one = "." in domain or ":" in domain or domain == "localhost"
    return written_as_one and is_domain(domain)


def _value(where: str, key: str, value: Any) -> Any:
    match key, value:
        case "mirrors", [*texts] if texts and all(isinstance(text, str) for text in texts):
            return tuple(_address(where, key, text) for text in texts)
        case "location", str(text):
            return _address(where, key, text)
        case (("blocked" | "insecure" | "private"), bool()):
            return value
        case (("ca_file" | "login_file"), str(path)) if os.path.isabs(path):
            return path
        case "connections", int(number) if 0 < number <= _MOST_CONNECTIONS and number is not True:
            return number
    kinds = {
        "mirrors": "a list of addresses",
        "location": "an address",
        "connections": f"a number from 1 to {_MOST_CONNECTIONS}",
        "blocked": "true or false",
        "insecure": "true or false",
        "private": "true or false",
    }
    raise BadConfig(f"{where}: {key} = {value!r} is not {kinds.get(key, 'an absolute path')}")


def _address(where: str, key: str, text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise BadConfig(f"{where}: {key} = {text!r} {error}") from error


def _check(where: str, name: str, rules: Rules) -> None:
    """Raise BadConfig where RULES would send secrets, or believe what comes, too readily."""
    if name == EVERY and rules.login_file:
        raise BadConfig(
            f"{where}: login_file = {rules.login_file!r} would go to whatever registry users name",
            hint="give each registry that needs a login a table of its own",
        )
    for address in (*rules.mirrors, *filter(None, [rules.location])):
        if address.scheme == "http" and not address.loopback and rules.insecure is not True:
            raise BadConfig(
                f"{where}: {str(address)!r} is plain http",
                hint="use https, or say insecure = true as well",
            )
