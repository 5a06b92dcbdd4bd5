"""Connections that requests and urllib3 keep for us.

Ours is to which address they connect, what they send, and what they read of a head.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from shifter_lite.build.wire.reach import Scope, scope_of

if TYPE_CHECKING:
    from shifter_lite.build.wire.session import Session

# What is read of a head.  Load balancers and caches add hundreds of lines for their own use, of
# which http.client would refuse the 101st.
_READ = re.compile(
    rb"(connection|keep-alive|location|retry-after|www-authenticate|docker-content-digest"
    rb"|content-[a-z]+|transfer-encoding|proxy-[a-z]+)[ \t]*:",
    re.IGNORECASE,
)
_LARGEST_HEAD_BYTES = 1 << 20


class Adapter(HTTPAdapter):
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
        """Make the pools ours."""
        super().init_poolmanager(*args, **more)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **more: Any) -> Any:
        """Make the pools behind a proxy ours."""
        manager = super().proxy_manager_for(*args, **more)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def build_connection_pool_key_attributes(self, request: Any, *args: Any, **more: Any) -> Any:
        """Trust whom the session trusts."""
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
    """Those lines of the head of an answer in FILE that are read; ``last`` is its last one."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file, self.last = file, b""
        self._size, self._begins, self._kept = 0, True, True

    def readline(self, limit: int) -> bytes:
        while True:
            goes_on = not self.last.endswith(b"\n") and not self._begins
            line = self.last = self._file.readline(limit)
            self._size += len(line)
            if self._size > _LARGEST_HEAD_BYTES:
                raise http.client.LineTooLong("head")
            if self._is_kept(line, goes_on):
                return line

    def _is_kept(self, line: bytes, goes_on: bool) -> bool:
        """Return whether LINE is read: it begins or ends a head, or matters; or it GOES_ON."""
        ends = line == b"" or (line in (b"\r\n", b"\n") and not goes_on)
        if self._begins or ends:
            self._begins, self._kept = ends, True
        elif not goes_on and line[:1] not in b" \t":
            self._kept = _READ.match(line) is not None
        return self._kept

    def close(self) -> None:
        self._file.close()


class _Connection(HTTPConnection):
    """A connection to an address that may be asked; cut if the head of an answer takes too long."""

    response_class = _Response

    def __init__(self, session: Session, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.session = session
        self._scope = Scope.WORLD

    def connect(self) -> None:
        super().connect()
        assert self.sock is not None
        self.session.deadlines.add(self.sock)

    def putrequest(self, method: str, url: str, *args: Any, **more: Any) -> None:
        asking = self.session.asking
        if self.proxy is None and self.sock is not None:
            # What was good enough for an earlier request may not be for this one.
            self.session.check_reach(asking.url, self._scope, asking.least)
        # The very bytes that were received, and not what urllib3 has made of them.
        url = asking.url.target
        if self.proxy is not None and self._tunnel_host is None:
            url = f"{asking.url.origin}{url}"
        super().putrequest(method, url, *args, **more)

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as urllib3 has it
        end, patience = self.sock, self.session.patience
        assert end is not None
        with self.session.deadlines.within(end, patience.header):
            response = super().getresponse()
        end.settimeout(patience.silence)
        self.session.sockets[response] = end
        self.session.scopes[response] = self._scope
        return response

    def _new_conn(self) -> socket.socket:
        if self.proxy is not None:
            return super()._new_conn()
        trouble: Exception | None = None
        for address, scope in self._addresses():
            self._scope = scope
            try:
                with self._looked_up_as(address):
                    return super()._new_conn()
            except (urllib3.exceptions.HTTPError, OSError) as error:
                trouble = error
        assert trouble is not None
        raise trouble

    def _addresses(self) -> list[tuple[str, Scope]]:
        """Return the addresses of the host that may be asked; raises Fault if there are none."""
        asking = self.session.asking
        try:
            found = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise urllib3.exceptions.NameResolutionError(
                self.host,
                self,
                error if isinstance(error, socket.gaierror) else socket.gaierror(str(error)),
            ) from error
        scoped = [(_numeric(entry[4]), scope_of(str(entry[4][0]))) for entry in found]
        why_not = partial(self.session.reach.why_not, asking.url.authority, least=asking.least)
        allowed = [(address, scope) for address, scope in scoped if not why_not(scope=scope)]
        if not allowed:
            self.session.check_reach(asking.url, scoped[0][1], asking.least)
        return allowed

    @contextmanager
    def _looked_up_as(self, address: str) -> Iterator[None]:
        """Let ADDRESS stand for the name, which is not looked up again: it may change."""
        name, self._dns_host = self._dns_host, address
        try:
            yield
        finally:
            self._dns_host = name


class _TlsConnection(_Connection, HTTPSConnection):
    """The same with TLS."""


def _numeric(address: tuple[Any, ...]) -> str:
    """Return ADDRESS, as getaddrinfo has it, so that it can be looked up without asking."""
    scoped = len(address) == 4 and address[3]
    return f"{address[0]}%{address[3]}" if scoped else str(address[0])
