"""Read the challenge of a registry that wants to know who asks; RFC 9110, 11.6.1.  Pure.

Registries write it in every way that the RFC allows, and oras reads only one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_SCHEME = re.compile(r"[\s,]*([A-Za-z][A-Za-z0-9-]*)(?:\s+|(?=,)|$)")
_PARAMETER = re.compile(r'[\s,]*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to say who one is: ``bearer``, by a token of the service at REALM, or ``basic``."""

    scheme: str
    realm: str = ""
    service: str = ""
    scopes: tuple[str, ...] = ()


def read(header: str) -> list[Challenge]:
    """Return the challenges in a WWW-Authenticate HEADER that can be answered, in order.

    A bearer's realm is the http address of the token service.
    """
    found = []
    for scheme, parameters in _challenges(header):
        realm = parameters.get("realm", "")
        if scheme == "bearer" and _is_address(realm):
            scopes = tuple(parameters.get("scope", "").split())
            found.append(Challenge(scheme, realm, parameters.get("service", ""), scopes))
        elif scheme == "basic":
            found.append(Challenge(scheme))
    return found


def _is_address(realm: str) -> bool:
    try:
        parts = urlsplit(realm)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
    except ValueError:
        return False


def _challenges(header: str) -> list[tuple[str, dict[str, str]]]:
    found: list[tuple[str, dict[str, str]]] = []
    at = 0
    while at < len(header):
        parameter = _PARAMETER.match(header, at)
        if parameter and found:
            quoted = parameter[2]
            value = parameter[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            found[-1][1].setdefault(parameter[1].lower(), value.strip())
            at = parameter.end()
        elif scheme := _SCHEME.match(header, at):
            found.append((scheme[1].lower(), {}))
            at = scheme.end()
        else:
            break
    return found
