"""Which proxy an address is asked by: the environment's words, as curl and Go read them."""

from __future__ import annotations

import ipaddress
import re
import urllib.request
from ipaddress import IPv4Address, IPv6Address

from shifter_lite.build.wire.url import Url
from shifter_lite.registries import is_loopback

_BRACKETED = re.compile(r"\[([0-9a-f:.]+)\](?::([0-9]+))?")


def proxy_for(url: Url) -> str:
    """Return the proxy that the environment has for URL; empty if it is to be asked directly."""
    # What is on this host is not behind a proxy, whatever the environment says.
    if is_loopback(url.host):
        return ""
    found = urllib.request.getproxies_environment()
    proxy = found.get(url.scheme) or found.get("all") or ""
    return "" if proxy and _is_direct(url, found.get("no", "")) else proxy


def _is_direct(url: Url, no_proxy: str) -> bool:
    """Return whether the words of NO_PROXY name the host of URL."""
    entries = re.split(r"[\s,]+", no_proxy.lower())
    return any(_names(entry, url) for entry in entries if entry)


def _names(entry: str, url: Url) -> bool:
    if entry == "*":
        return True
    address = _address(url.name)
    if "/" in entry:
        return address is not None and _is_in(address, entry)
    host, port = _split(entry)
    if port and port != str(url.port):
        return False
    named = _address(host)
    if named is not None or address is not None:
        return named is not None and named == address
    # *.example.org and .example.org name example.org, too, to curl; to Go the last one does not.
    host = host.removeprefix("*.").removeprefix(".").removesuffix(".")
    return bool(host) and (url.host == host or url.host.endswith(f".{host}"))


def _split(entry: str) -> tuple[str, str]:
    """Return the host and the port of ENTRY, each perhaps empty."""
    if match := _BRACKETED.fullmatch(entry):
        return match[1], match[2] or ""
    if entry.count(":") == 1:
        host, _, port = entry.partition(":")
        return host, port.lstrip("0") if port.isdecimal() else port
    return entry, ""


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (found.ipv4_mapped if isinstance(found, IPv6Address) else None) or found


def _is_in(address: IPv4Address | IPv6Address, network: str) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
