"""Where a worker may connect, decided by the address that a name has: decision 0029.  Pure.

A user chooses what a worker asks for: by a name, or by a registry of the user's own that
redirects.  A worker reaches what the user does not: services of its own host, of its network,
of its cloud.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from shifter_lite.registries import Registries

# Networks of IPv6 whose last 32 bits are an address of IPv4 that is reached by them: mapped,
# compatible, translated (RFC 2765), NAT64 (RFC 6052 and 8215).
_LAST_BITS = tuple(map(IPv6Network, ("::ffff:0:0/96", "::/96", "::ffff:0:0:0/96", "64:ff9b::/96")))
# All that IPv6 has for hosts of the world (RFC 4291, 2.4).
_UNICAST = IPv6Network("2000::/3")
_NAT64_OF_SITES = IPv6Network("64:ff9b:1::/48")


class Scope(IntEnum):
    """From how far away an address can be reached; what nobody should connect to is nearest."""

    HERE = 0  # this host, its links, and what is the address of no host
    SITE = 1  # private networks
    WORLD = 2


def scope_of(address: str) -> Scope:
    """Return the scope of ADDRESS, as ``getaddrinfo`` has it."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address) and (inner := _embedded(found)) is not None:
        return min(_of(inner), Scope.SITE if found in _NAT64_OF_SITES else Scope.WORLD)
    return _of(found)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """Return the address of IPv4 that who connects to ADDRESS reaches."""
    if address.is_loopback or address.is_unspecified:
        return None
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64_OF_SITES or any(address in network for network in _LAST_BITS):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _of(address: IPv4Address | IPv6Address) -> Scope:
    near = (
        address.is_loopback,
        address.is_link_local,
        address.is_multicast,
        address.is_unspecified,
        address.is_reserved,
        isinstance(address, IPv4Address) and address.packed[0] == 0,
    )
    if any(near):
        return Scope.HERE
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return Scope.SITE
    return Scope.WORLD if address.is_global else Scope.SITE


@dataclass(frozen=True, slots=True)
class Reach:
    """What REGISTRIES, the site's configuration, lets workers connect to.

    SHARED is whether anybody may ask them; else who asks could connect as well.
    """

    registries: Registries
    shared: bool

    def why_not(self, host: str, scope: Scope, least: Scope) -> str:
        """Return what would let us connect to HOST, whose address is of SCOPE; empty if we may.

        LEAST is the scope of what led there.
        """
        if scope is Scope.WORLD:
            return ""
        rules = self.registries.of_host(host)
        if scope < least and not (rules and rules.private):
            # Not even to a host that the site names: what is public must not steer what is not.
            return f'[registries."{host}"] with private = true'
        word = (rules or self.registries.of_all()).private
        allowed = (rules is not None or not self.shared) if word is None else word
        return "" if allowed else f'[registries."{host}"]'
