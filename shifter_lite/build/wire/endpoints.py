"""Where an image may be had: the mirrors that the site names, and then the registry."""

from __future__ import annotations

import os
from dataclasses import dataclass

from shifter_lite import logins
from shifter_lite.build.wire.credentials import Credentials
from shifter_lite.build.wire.deadlines import Deadlines
from shifter_lite.build.wire.endpoint import Endpoint
from shifter_lite.build.wire.patience import FOR_MIRRORS, Patience
from shifter_lite.build.wire.reach import Reach
from shifter_lite.build.wire.session import Follow, Session
from shifter_lite.build.wire.url import Url
from shifter_lite.errors import BadConfig, BadReference, Denied
from shifter_lite.logins import FindLogin, Login, Unusable
from shifter_lite.reference import Reference
from shifter_lite.registries import Address, Registries, Rules, fault_of_host, is_loopback

_HOSTS = {"docker.io": "registry-1.docker.io"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """One place to ask, before it is asked; LOGIN_FILE belongs to its host and nobody else."""

    who: str
    repository: str
    host: str
    path: str
    schemes: tuple[str, ...]
    login_file: str
    patience: Patience


def endpoints_of(
    reference: Reference,
    reach: Reach,
    find_own: FindLogin | None,
    patience: Patience,
    deadlines: Deadlines,
) -> list[Endpoint]:
    """Return where to ask for REFERENCE, in order, as the site says; nothing beyond REACH.

    Raises Denied if the site blocks it, BadReference if its registry can be nowhere.
    """
    registries = reach.registries
    part, rules = registries.find(reference.repository)
    if rules.blocked:
        raise Denied(
            f"this site blocks {part or reference.domain!r}",
            hint="ask the site which registries may be used",
        )
    rest = reference.repository[len(part) :].lstrip("/")
    places = [_mirror(mirror, rest, registries) for mirror in rules.mirrors]
    if rules.location:
        places.append(_location(rules.location, rest, rules, registries, patience))
    else:
        places.append(_origin(reference, rules, patience))
    return [_endpoint(place, rules, reach, find_own, deadlines) for place in places]


def _mirror(address: Address, rest: str, registries: Registries) -> _Place:
    # The registry's password is not the mirror's.
    login_file = _own_rules(registries, address.repository).login_file
    who = f"the mirror {address.repository!r}"
    return _at(address, rest, who, login_file, FOR_MIRRORS)


def _location(
    address: Address, rest: str, rules: Rules, registries: Registries, patience: Patience
) -> _Place:
    login_file = rules.login_file or _own_rules(registries, address.repository).login_file
    return _at(address, rest, f"the registry {address.host!r}", login_file, patience)


def _at(address: Address, rest: str, who: str, login_file: str, patience: Patience) -> _Place:
    path = "/".join(filter(None, (address.path, rest)))
    if not path:
        raise BadConfig(f"{str(address)!r} names no repository")
    return _Place(
        who=who,
        repository=f"{address.host}/{path}",
        host=address.host,
        path=path,
        schemes=(address.scheme,),
        login_file=login_file,
        patience=patience,
    )


def _origin(reference: Reference, rules: Rules, patience: Patience) -> _Place:
    domain = reference.domain
    if fault := fault_of_host(domain):
        raise BadReference(f"the registry {domain!r} {fault}", hint="write HOST or HOST:PORT")
    # Who names an authority for this host means TLS.
    local = is_loopback(domain) and not rules.ca_file
    plain = local if rules.insecure is None else rules.insecure
    return _Place(
        who=f"the registry {domain!r}",
        repository=reference.repository,
        host=_HOSTS.get(domain, domain),
        path=reference.path,
        schemes=("http", "https") if plain else ("https",),
        login_file=rules.login_file,
        patience=patience,
    )


def _own_rules(registries: Registries, repository: str) -> Rules:
    """Return the rules that are for REPOSITORY and not for every one."""
    part, rules = registries.find(repository)
    return rules if part else Rules()


def _endpoint(
    place: _Place,
    rules: Rules,
    reach: Reach,
    find_own: FindLogin | None,
    deadlines: Deadlines,
) -> Endpoint:
    own = _own_rules(reach.registries, place.repository)

    def find_login() -> Login | Unusable | None:
        # A user's own pull reads the site's configuration, but not its secrets.
        if place.login_file and (find_own is None or os.access(place.login_file, os.R_OK)):
            return logins.read_file(place.login_file, place.repository)
        return find_own(place.repository) if find_own else None

    ca_files = tuple(dict.fromkeys(filter(None, (rules.ca_file, own.ca_file))))
    words = (rules.insecure, own.insecure)
    home = Url.parse(f"{place.schemes[0]}://{place.host}/")
    session = Session(place.who, home, place.patience, deadlines, reach, ca_files)
    return Endpoint(
        session,
        Credentials(session, place.path, find_login, plain=True in words),
        schemes=place.schemes,
        host=place.host,
        path=place.path,
        connections=rules.connections,
        blobs=Follow.TLS if False in words else Follow.ANYWHERE,
    )
