"""Read the challenge of a registry that wants to know who asks; RFC 9110, 11.6.1.  Pure.

Registries write it in every way that the RFC allows, and oras reads only one.
"""

from __future__ import annotations

import re

_SCHEME = re.compile(r"\s*,?\s*([A-Za-z][A-Za-z0-9-]*)(?:\s+|(?=,)|$)")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')


def normal_form(header: str) -> str:
    """Return the first Bearer challenge in HEADER as oras reads it, or nothing.

    It needs a realm, the http address of the token service.  No other scheme can be
    answered without credentials.
    """
    for scheme, parameters in _challenges(header):
        if scheme == "bearer" and re.match("https?://", parameters.get("realm", "")):
            known = (key for key in ("realm", "service", "scope") if parameters.get(key))
            return "Bearer " + ",".join(f'{key}="{parameters[key]}"' for key in known)
    return ""


def _challenges(header: str) -> list[tuple[str, dict[str, str]]]:
    found: list[tuple[str, dict[str, str]]] = []
    at = 0
    while at < len(header):
        parameter = _PARAMETER.match(header, at)
        if parameter and found:
            quoted = parameter[2]
            value = parameter[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            found[-1][1].setdefault(parameter[1].lower(), value.replace('"', ""))
            at = parameter.end()
        elif scheme := _SCHEME.match(header, at):
            found.append((scheme[1].lower(), {}))
            at = scheme.end()
        else:
            break
    return found
