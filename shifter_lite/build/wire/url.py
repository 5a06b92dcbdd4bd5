"""Addresses of http, as they were received: what one asks for is never rewritten.

Libraries normalise (``%7E`` becomes ``~``, ``%2f`` becomes ``%2F``, an empty query goes), and a
store that signs its addresses as text then answers 403.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from typing import Self
from urllib.parse import quote, urljoin

_ABSOLUTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_AUTHORITY = re.compile(r"//([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]*))?(.*)", re.DOTALL)
_PORTS = {"http": 80, "https": 443}
_HIGHEST_PORT = 65535
# What may stand in the first line of a request; all else is escaped, byte by byte.
_KEPT = bytes(range(0x21, 0x7F))


@dataclass(frozen=True, slots=True)
class Url:
    """``SCHEME://HOST:PORT`` and the TARGET of a request: its path and query, in ASCII.

    HOST is in lower case, an IPv6 address in brackets.
    """

    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the absolute TEXT, bytes as Latin-1; raises ValueError unless it is of http(s)."""
        match = _ABSOLUTE.fullmatch(text)
        scheme = match[1].lower() if match else ""
        parts = _AUTHORITY.fullmatch(match[2]) if match else None
        if scheme not in _PORTS or parts is None or (parts[3] and parts[3][0] not in "/?#"):
            raise ValueError("no address of http")
        host = parts[1].lower().removesuffix(".")
        if host.startswith("["):
            host = f"[{IPv6Address(host[1:-1])}]"
        port = int(parts[2]) if parts[2] else _PORTS[scheme]
        if not host or not 0 < port <= _HIGHEST_PORT:
            raise ValueError("no host or port")
        return cls(scheme, host, port, _target(parts[3]))

    def join(self, reference: str) -> Url:
        """Return what REFERENCE, of an answer from here, means; raises ValueError; RFC 3986, 5."""
        if _ABSOLUTE.match(reference):
            return Url.parse(reference)
        if reference.startswith("//"):
            return Url.parse(f"{self.scheme}:{reference}")
        if reference.startswith("/"):
            return replace(self, target=_target(reference))
        here = self.target.partition("?")[0]
        path, mark, query = reference.partition("?")
        return replace(self, target=_target(f"{urljoin(here, path)}{mark}{query}"))

    @property
    def authority(self) -> str:
        """Host and port, as a registry's name has them."""
        return self.host if self.port == _PORTS[self.scheme] else f"{self.host}:{self.port}"

    @property
    def origin(self) -> str:
        """The address without what is asked for."""
        return f"{self.scheme}://{self.authority}"

    @property
    def name(self) -> str:
        """The host as it is looked up, without brackets."""
        return self.host.strip("[]")

    def is_same_server(self, other: Url) -> bool:
        """Return whether OTHER is where this is, or where this is by https; never without."""
        if self.host != other.host or (self.scheme, other.scheme) == ("https", "http"):
            return False
        ports = (self.port, other.port)
        return self.port == other.port or (*ports, other.scheme) == (80, 443, "https")


def scheme_of(reference: str) -> str:
    """Return the scheme that REFERENCE begins with, in lower case, or nothing."""
    match = _ABSOLUTE.match(reference)
    return match[1].lower() if match else ""


def _target(text: str) -> str:
    """Return the path and query TEXT, Latin-1, as a request has it."""
    text = text.partition("#")[0]
    if not text.startswith("/"):
        text = f"/{text}"
    return quote(text.encode("latin-1"), safe=_KEPT)
