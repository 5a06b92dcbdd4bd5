"""One request, and where it leads: redirects, proxies, deadlines.

requests gives us connections that are kept, proxies and TLS.  What it would do by
itself is not left to it: look for passwords in ~/.netrc, follow a redirect
anywhere, wait for as long as bytes dribble.
"""

from __future__ import annotations

import http.client
import io
import logging
import socket
import ssl
from collections.abc import Mapping
from functools import cached_property, partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any, cast
from urllib.parse import SplitResult, urljoin, urlsplit
from weakref import WeakKeyDictionary

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, requote_uri, select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from shifter_lite import __version__
from shifter_lite.build.wire import trust, words
from shifter_lite.build.wire.deadlines import Deadlines
from shifter_lite.build.wire.patience import Fault, Patience
from shifter_lite.errors import RegistryBusy
from shifter_lite.registries import is_loopback

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_HOPS = 10

# They log what we report ourselves, and addresses that hold secrets.
for _talker in ("oras", "urllib3", "requests"):
    logging.getLogger(_talker).setLevel(logging.CRITICAL)


class Session(requests.Session):
    """Requests to one registry and to where it leads; any number of threads may use it."""

    def __init__(
        self, who: str, patience: Patience, deadlines: Deadlines, ca_files: tuple[str, ...]
    ) -> None:
        """Ask WHO, which is how messages call it, trusting CA_FILES beside the system's."""
        super().__init__()
        self.who, self.patience, self.deadlines = who, patience, deadlines
        self.trust_env = False
        # Some registries take who sends cookies back for a browser.
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # Digests are of the bytes as they lie there, not as something packs them on the way.
        self.headers = requests.structures.CaseInsensitiveDict(
            {"User-Agent": f"shifter_lite/{__version__}", "Accept-Encoding": "identity"}
        )
        self.sockets: WeakKeyDictionary[object, socket.socket] = WeakKeyDictionary()
        self._ca_files = ca_files
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(self))

    @cached_property
    def context(self) -> ssl.SSLContext:
        """Whom we trust; raises BadConfig.  It takes a while to read: only who needs it does."""
        return trust.context(self._ca_files)

    def close(self) -> None:
        """Close all connections, and let go of what only the collector could free else."""
        super().close()
        self.adapters.clear()
        self.__dict__.pop("context", None)

    def fetch(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        """Return the answer to GET URL, its body unread; raises Fault.

        What comes after a redirect to another host gets no Authorization.
        """
        for _ in range(_MOST_HOPS):
            response = self._ask(url, headers)
            if response.status_code not in _REDIRECTS:
                return response
            response.close()
            target = self._target(url, response.headers.get("Location", ""))
            if not same_server(url, target):
                headers = {key: headers[key] for key in headers if key != "Authorization"}
            url = target
        raise words.nonsense(self.who, "redirects without end")

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Let requests see none: it would read the body of a redirect, however long."""

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

    def _ask(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        proxies = self._proxies(url)
        try:
            return self.request(
                "GET",
                url,
                headers=headers,
                stream=True,
                allow_redirects=False,
                proxies=proxies,
                timeout=(self.patience.connect, self.patience.header),
            )
        except words.ERRORS as error:
            raise words.no_answer(self.who, error) from error

    def _proxies(self, url: str) -> dict[str, str]:
        """Return the proxies that the environment has for URL; raises Fault."""
        # What is on this host is not behind a proxy, whatever the environment says.
        if is_loopback(urlsplit(url).netloc):
            return {}
        proxies = get_environ_proxies(url)
        if proxy := select_proxy(url, proxies):
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
        return proxies

    def _target(self, url: str, location: str) -> str:
        """Return where the header LOCATION of an answer from URL leads to; raises Fault."""
        here = urlsplit(url).scheme
        try:
            target = urljoin(url, requote_uri(location))
            parts = urlsplit(target)
            usable = bool(location) and parts.port != 0 and parts.username is None
        except (ValueError, requests.exceptions.InvalidURL):
            usable = False
        if not usable:
            raise words.nonsense(self.who, "redirects to nowhere")
        if parts.scheme not in ("https", here):
            raise words.nonsense(self.who, f"redirects from {here} to {parts.scheme[:8]!r}")
        return target


def same_server(url: str, other: str) -> bool:
    """Return whether OTHER is where URL is, or where it is by https."""
    one, two = urlsplit(url), urlsplit(other)
    if one.hostname != two.hostname:
        return False
    return _port(one) == _port(two) or (_port(one), _port(two), two.scheme) == (80, 443, "https")


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


class _Adapter(HTTPAdapter):
    """What gives requests its connections: ours."""

    def __init__(self, session: Session) -> None:
        self._session = session
        # No classes made here: a class refers to itself, and would keep all that it knows.
        self._pools = {
            "http": partial(_HttpPool, session),
            "https": partial(_HttpsPool, session),
        }
        super().__init__()

    def close(self) -> None:
        """Close the pools as well: urllib3 leaves that to the collector."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118  # it is no mapping that can be iterated
                if (pool := manager.pools.get(key)) is not None:
                    pool.close()
        super().close()

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **more: Any) -> Any:
        manager = super().proxy_manager_for(*args, **more)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def build_connection_pool_key_attributes(self, request: Any, *args: Any, **more: Any) -> Any:
        host, pool = super().build_connection_pool_key_attributes(request, *args, **more)
        if request.url.startswith("https:"):
            pool["ssl_context"] = self._session.context
        return host, pool

    def cert_verify(self, conn: Any, *_: Any, **__: Any) -> None:
        """Leave it to the context, which always does, instead of to requests' own list."""
        conn.cert_reqs = "CERT_REQUIRED"


class _HttpPool(HTTPConnectionPool):
    """A pool of connections of SESSION's."""

    def __init__(self, session: Session, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.ConnectionCls = partial(_Connection, session)  # type: ignore[assignment]  # is called


class _HttpsPool(HTTPSConnectionPool):
    """The same with TLS."""

    def __init__(self, session: Session, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.ConnectionCls = partial(_TlsConnection, session)  # type: ignore[assignment]  # likewise


class _Response(http.client.HTTPResponse):
    """An answer whose head has an end: to http.client, a connection that is cut is one."""

    def begin(self, *arguments: Any, **more: Any) -> None:
        head = self.fp
        lines = _Lines(head)
        self.fp = lines  # type: ignore[assignment]  # as far as it is used for a head
        try:
            super().begin(*arguments, **more)
        finally:
            # Where it has been closed, it stays so.
            if self.fp is not None:
                self.fp = head
        if lines.last not in (b"\r\n", b"\n"):
            raise http.client.IncompleteRead(lines.last)


class _Lines:
    """The lines of FILE, of which we see the last."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file, self.last = file, b""

    def readline(self, limit: int) -> bytes:
        self.last = self._file.readline(limit)
        return self.last

    def close(self) -> None:
        self._file.close()


class _Connection(HTTPConnection):
    """A connection that is cut if the head of an answer takes too long."""

    response_class = _Response

    def __init__(self, session: Session, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.session = session

    def connect(self) -> None:
        super().connect()
        assert self.sock is not None
        self.session.deadlines.add(self.sock)

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as urllib3 has it
        end, patience = self.sock, self.session.patience
        assert end is not None
        with self.session.deadlines.within(end, patience.header):
            response = super().getresponse()
        end.settimeout(patience.silence)
        self.session.sockets[response] = end
        return response


class _TlsConnection(_Connection, HTTPSConnection):
    """The same with TLS."""
