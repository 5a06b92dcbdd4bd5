"""One request, and where it leads: redirects, proxies, deadlines.

requests gives us connections that are kept, proxies and TLS.  What it would do by
itself is not left to it: look for passwords in ~/.netrc, follow a redirect
anywhere, rewrite its address, wait for as long as bytes dribble.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from threading import local
from typing import cast
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import requests
import urllib3

from shifter_lite import __version__
from shifter_lite.build.wire import proxies, trust, words
from shifter_lite.build.wire.connection import Adapter
from shifter_lite.build.wire.deadlines import Deadlines
from shifter_lite.build.wire.patience import Fault, Patience
from shifter_lite.build.wire.reach import Reach, Scope, scope_of
from shifter_lite.build.wire.url import Url, scheme_of
from shifter_lite.errors import RegistryBusy

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_HOPS = 10
# Digests are of the bytes as they lie there, not as something packs them on the way.
_USUAL_HEADERS = {"User-Agent": f"shifter_lite/{__version__}", "Accept-Encoding": "identity"}
_TOKEN_HINT = "a token is taken from the server that the registry names, and from no other"  # noqa: S105
_PLAIN_HINT = "only layers may come without TLS, and not where the site says insecure = false"

# They log what we report ourselves, and addresses that hold secrets.
for _talker in ("oras", "urllib3", "requests"):
    logging.getLogger(_talker).setLevel(logging.CRITICAL)


class Follow(Enum):
    """Where a redirect may lead."""

    HERE = "to the same server"
    TLS = "anywhere, but never out of TLS"
    ANYWHERE = "anywhere: what comes is known by its digest"


@dataclass(frozen=True, slots=True)
class _Asking:
    """What a thread asks for just now; LEAST is the scope of what led there."""

    url: Url
    least: Scope


class Session:
    """Requests to one registry and to where it leads; any number of threads may use it."""

    def __init__(
        self,
        who: str,
        home: Url,
        patience: Patience,
        deadlines: Deadlines,
        reach: Reach,
        ca_files: tuple[str, ...],
    ) -> None:
        """Ask WHO, which is how messages call it, at HOME, trusting CA_FILES beside the system's.

        Nothing is asked that REACH forbids.
        """
        self.who, self.patience, self.deadlines, self.reach = who, patience, deadlines, reach
        self.sockets: WeakKeyDictionary[object, socket.socket] = WeakKeyDictionary()
        self.scopes: WeakKeyDictionary[object, Scope] = WeakKeyDictionary()
        self._home, self._ca_files = home, ca_files
        self._thread = local()
        self._adapter: Adapter | None = Adapter(self)

    @cached_property
    def context(self) -> ssl.SSLContext:
        """Whom we trust; raises BadConfig.  It takes a while to read: only who needs it does."""
        return trust.context(self._ca_files)

    @property
    def asking(self) -> _Asking:
        """What this thread asks for just now."""
        return cast(_Asking, self._thread.asking)

    def close(self) -> None:
        """Close all connections, and let go of what only the collector could free else."""
        if self._adapter is not None:
            self._adapter.close()
        self._adapter = None
        self.__dict__.pop("context", None)

    def fetch(
        self,
        url: Url,
        headers: Mapping[str, str],
        follow: Follow = Follow.TLS,
        least: Scope = Scope.HERE,
    ) -> requests.Response:
        """Return the answer to GET URL, its body unread; raises Fault.

        Redirects are followed as FOLLOW says.  What comes after one to another host gets no
        Authorization.  LEAST is the scope of what led to URL.
        """
        for _ in range(_MOST_HOPS):
            self._check_blocked(url)
            response = self._ask(url, headers, least)
            if response.status_code not in _REDIRECTS:
                return response
            location, least = response.headers.get("Location", ""), self.scope(response)
            response.close()
            target = self._target(url, location, follow)
            if not url.is_same_server(target):
                headers = {key: headers[key] for key in headers if key != "Authorization"}
            url = target
        raise words.nonsense(self.who, "redirects without end")

    def read(self, response: requests.Response, size: int) -> bytes:
        """Return up to SIZE bytes of the body of RESPONSE, none at its end; raises Fault."""
        raw = cast(urllib3.HTTPResponse, response.raw)
        try:
            with self.deadlines.within(self.sockets[raw], self.patience.silence):
                data = raw.read1(size) or b""
        except words.ERRORS as error:
            raise words.stopped(self.who, error) from error
        if not data and self.deadlines.aborted.is_set():
            raise Fault(RegistryBusy("the download was given up", hint="pull again"), again=False)
        return data

    def scope(self, response: requests.Response) -> Scope:
        """Return the scope of the address that RESPONSE came from."""
        return self.scopes.get(response.raw, Scope.WORLD)

    def is_home(self, url: Url) -> bool:
        """Return whether URL is at the registry itself."""
        return self._home.is_same_server(url)

    def _ask(self, url: Url, headers: Mapping[str, str], least: Scope) -> requests.Response:
        proxy = self._proxy(url)
        scope = self._scope_behind_proxy(url, least) if proxy else None
        self._thread.asking = _Asking(url, least)
        if self._adapter is None:
            raise Fault(RegistryBusy("the download was given up", hint="pull again"), again=False)
        try:
            response = self._adapter.send(
                _prepared(url, headers),
                stream=True,
                timeout=(self.patience.connect, self.patience.header),
                proxies={url.scheme: proxy} if proxy else {},
            )
        except words.ERRORS as error:
            fault = words.no_answer(self.who, error)
            if not self.is_home(url):
                fault = words.elsewhere(self.who, url.authority, fault)
            raise fault from error
        if scope is not None:
            self.scopes[response.raw] = scope
        return response

    def _proxy(self, url: Url) -> str:
        """Return the proxy that the environment has for URL, perhaps none; raises Fault."""
        proxy = proxies.proxy_for(url)
        if not proxy:
            return ""
        try:
            parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            # It may hold a password: it is not shown.
            error = RegistryBusy(
                f"{self.who} cannot be asked: the proxy in the environment is no http proxy",
                hint="see https_proxy, http_proxy and no_proxy",
            )
            raise Fault(error, again=False)
        return proxy

    def _scope_behind_proxy(self, url: Url, least: Scope) -> Scope:
        """Return the scope of URL as far as this host knows it; raises Fault if it is forbidden.

        What only the proxy can look up is for the proxy to forbid.
        """
        try:
            found = socket.getaddrinfo(url.name, url.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return Scope.WORLD
        scope = min((scope_of(str(entry[4][0])) for entry in found), default=Scope.WORLD)
        self.check_reach(url, scope, least)
        return scope

    def check_reach(self, url: Url, scope: Scope, least: Scope) -> None:
        """Raise Fault unless URL, whose address is of SCOPE, may be asked."""
        if allowed_by := self.reach.why_not(url.authority, scope, least):
            what = f"is not asked: {url.authority!r} has no public address"
            if not self.is_home(url):
                what = f"leads to {url.authority!r}, which is not asked: it has no public address"
            hint = f"the site allows it by this in shifter_lite.toml: {allowed_by}"
            raise words.forbidden(self.who, what, hint)

    def _check_blocked(self, url: Url) -> None:
        if not self.is_home(url) and self.reach.registries.blocks(url.authority):
            what = f"leads to {url.authority!r}, which this site blocks"
            hint = (
                f'the site allows it by this in shifter_lite.toml: [registries."{url.authority}"]'
            )
            raise words.forbidden(self.who, what, hint)

    def _target(self, url: Url, location: str, follow: Follow) -> Url:
        """Return where the header LOCATION of an answer from URL leads to; raises Fault."""
        try:
            target = url.join(location.strip()) if location.strip() else None
        except ValueError:
            target = None
        scheme = scheme_of(location)
        if target is None:
            if scheme not in ("", "http", "https"):
                raise words.nonsense(self.who, f"redirects from {url.scheme} to {scheme[:8]!r}")
            raise words.nonsense(self.who, "redirects to nowhere")
        if follow is Follow.HERE and not url.is_same_server(target):
            raise words.forbidden(
                self.who, "has a token service that redirects to another host", _TOKEN_HINT
            )
        if (url.scheme, target.scheme) == ("https", "http") and follow is not Follow.ANYWHERE:
            raise words.forbidden(self.who, "redirects from https to 'http'", _PLAIN_HINT)
        return target


def _prepared(url: Url, headers: Mapping[str, str]) -> requests.PreparedRequest:
    """Return a request for URL; what it asks for there is put in by the connection."""
    request = requests.PreparedRequest()
    request.method, request.url, request.body = "GET", f"{url.origin}/", None
    request.headers = requests.structures.CaseInsensitiveDict({**_USUAL_HEADERS, **headers})
    return request
