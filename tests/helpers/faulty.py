"""A registry that misbehaves as it is told.

    with faulty.serving() as registry:
        name = registry.add("demo", "1", image)              localhost:PORT/demo:1
        registry.fault(image.digest, Cut(after=100))         every answer about it
        registry.fault("1", Answer(503), times=2)            the first two
        registry.auth = Token()                              401, and a token service

    registry.fault("token", Answer(503))                 the token service's answers

A fault is told by the last part of the path: a digest or a tag.  ``requests``
is what clients asked, in order, so that a test can see what came along.
``serving(tls=context)`` speaks TLS.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Literal, cast
from urllib.parse import parse_qs, urlsplit

from tests.helpers import images
from tests.helpers.images import Image

SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"


@dataclass(frozen=True, slots=True)
class Answer:
    """Another answer: ``Answer(429, headers={"Retry-After": "1"})``."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Body:
    """Other bytes, with their own length: wrong, short or long ones."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """The right answer with a false header, ``Docker-Content-Digest`` for example."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection ends AFTER so many bytes of the body that was promised."""

    after: int


@dataclass(frozen=True, slots=True)
class Stall:
    """Nothing comes AFTER so many bytes, until the registry is closed or SECONDS are over."""

    after: int
    seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class Drip:
    """AFTER so many bytes of the body, one every SECONDS."""

    after: int
    seconds: float = 0.1


@dataclass(frozen=True, slots=True)
class Raw:
    """These bytes instead of any answer; then the end, as THEN says.

    With ``{body}`` in them, the right body stands there.
    """

    data: bytes
    then: Literal["close", "reset", "stall", "drip"] = "close"


@dataclass(frozen=True, slots=True)
class Redirect:
    """A redirect to the same path of the registry at the address HOST."""

    host: str
    status: int = 307


Fault = Answer | Body | Header | Cut | Stall | Drip | Raw | Redirect


@dataclass(frozen=True, slots=True)
class Token:
    """Bearer authentication by a token service of our own.

    ``key`` is what the service calls the token in its answer.  With a ``login``,
    ``user:password``, only that user gets one; without it, anybody.  A token is good
    for so many ``uses``; each is another.  ``challenge`` is asked, if it is given, in
    the place of the usual one, with ``{realm}`` in it.
    """

    key: str = "token"
    token: str = "a-token-of-the-service"
    login: str = ""
    uses: int = 1_000_000
    challenge: str = ""


@dataclass(frozen=True, slots=True)
class Basic:
    """Basic authentication; LOGIN is ``user:password``."""

    login: str = "alice:secret"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def authorization(self) -> str:
        """The header of that name, or nothing."""
        return self.headers.get("Authorization", "")


@dataclass(slots=True)
class _Planned:
    fault: Fault
    times: int | None


class Registry:
    """What is served, what goes wrong, and what was asked."""

    def __init__(self) -> None:
        self.address = ""
        self.auth: Token | Basic | None = None
        self.scheme = "http"
        # Where the token service is; by default, here.
        self.realm = ""
        # How stores of objects are that take two ways to say who one is for an attack.
        self.refuses_authorization = False
        self.ranges = True
        self.tokens = 0
        self._uses_left = 0
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._manifests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self._blobs: dict[str, bytes] = {}
        self._planned: dict[str, _Planned] = {}

    def add(self, name: str, tag: str, image: Image) -> str:
        """Serve IMAGE as NAME:TAG; return the name to pull."""
        self.add_manifest(name, tag, image.document, image.media_type)
        self._blobs.update(image.blobs)
        for child in image.children:
            self.add(name, child.digest, child)
        return f"{self.address}/{name}:{tag}"

    def add_manifest(self, name: str, tag: str, document: bytes, media_type: str) -> str:
        """Serve DOCUMENT, whatever it is, as NAME:TAG; return the name to pull."""
        for key in (tag, images.sha256(document)):
            self._manifests[name, key] = document, media_type
        return f"{self.address}/{name}:{tag}"

    def add_schema_1(self, name: str, tag: str) -> str:
        """Serve a manifest as docker made them before 2016; return the name to pull."""
        document = {"schemaVersion": 1, "name": name, "tag": tag, "fsLayers": [], "history": []}
        return self.add_manifest(name, tag, images.encode(document), SCHEMA_1)

    def fault(self, what: str, fault: Fault, times: int | None = None) -> None:
        """Let FAULT happen whenever WHAT, a digest or a tag, is asked for, or so many TIMES."""
        self._planned[what] = _Planned(fault, times)

    def new_token(self, auth: Token) -> str:
        """Return a token of its own."""
        with self._lock:
            self.tokens += 1
            self._uses_left = auth.uses
            return f"{auth.token}-{self.tokens}"

    def takes_token(self, auth: Token, given: str) -> bool:
        """Return whether the header GIVEN holds the last token, and that is not used up."""
        with self._lock:
            if given != f"Bearer {auth.token}-{self.tokens}" or self._uses_left == 0:
                return False
            self._uses_left -= 1
            return True

    def heal(self) -> None:
        """Forget all faults."""
        self._planned.clear()

    def asked(self, what: str) -> list[Request]:
        """Return the requests for WHAT, a digest or a tag."""
        return [each for each in self.requests if each.path.endswith(f"/{what}")]

    def fetched(self, what: str) -> list[Request]:
        """Return the requests for WHAT up to its end: not those for a few bytes of it."""
        return [each for each in self.asked(what) if each.headers.get("Range", "-").endswith("-")]

    def take_fault(self, path: str) -> Fault | None:
        """Return what goes wrong with this request for PATH."""
        with self._lock:
            planned = self._planned.get(path.rpartition("/")[2])
            if planned is None or planned.times == 0:
                return None
            if planned.times is not None:
                planned.times -= 1
            return planned.fault

    def find(self, path: str) -> Answer:
        """Return the right answer to a request for PATH."""
        if path == "/v2/":
            return Answer(200, b"{}", {"Content-Type": "application/json"})
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/]+)", path)
        if match and match[2] == "blobs" and match[3] in self._blobs:
            return _found(self._blobs[match[3]], "application/octet-stream")
        if match and match[2] == "manifests" and (match[1], match[3]) in self._manifests:
            return _found(*self._manifests[match[1], match[3]])
        return Answer(404, _error("NAME_UNKNOWN"))


def _found(data: bytes, media_type: str) -> Answer:
    headers = {"Content-Type": media_type, "Docker-Content-Digest": images.sha256(data)}
    return Answer(200, data, headers)


def _error(code: str) -> bytes:
    return images.encode({"errors": [{"code": code, "message": code.lower()}]})


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Registry]:
    """Run a faulty registry on a free port of the loopback."""
    registry = Registry()
    server = _Server(registry, tls)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield registry
    finally:
        registry.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, registry: Registry, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        registry.address = f"localhost:{self.server_port}"
        registry.scheme = "https" if tls else "http"
        self.registry, self._tls = registry, tls

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Greet by TLS, in the thread of the request: who does not greet back holds up nobody."""
        if self._tls:
            with self._tls.wrap_socket(request, server_side=True) as greeted:
                super().finish_request(greeted, client_address)
        else:
            super().finish_request(request, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that hang up are what tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes: the second does not wait for an answer to the first.
    disable_nagle_algorithm: ClassVar[bool] = True
    # A client that keeps its connection does not keep our thread.
    timeout: ClassVar[float] = 60.0

    @property
    def _registry(self) -> Registry:
        return cast(_Server, self.server).registry

    def do_GET(self) -> None:  # the name is http.server's
        registry = self._registry
        registry.requests.append(
            Request(method=self.command, path=self.path, headers=dict(self.headers.items()))
        )
        path = urlsplit(self.path).path
        if path == "/token":
            self._misbehave(self._token(), registry.take_fault(path))
        elif registry.refuses_authorization and "Authorization" in self.headers:
            self._send(Answer(400))
        elif not self._let_in():
            self._send(self._challenge())
        else:
            self._misbehave(self._ranged(registry.find(path)), registry.take_fault(path))

    do_HEAD = do_GET  # the name is http.server's

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: ``requests`` is the log."""

    def _misbehave(self, right: Answer, fault: Fault | None) -> None:
        match fault:
            case None:
                self._send(right)
            case Answer():
                self._send(fault)
            case Body(body):
                self._send(replace(right, body=body))
            case Header(name, value):
                self._send(replace(right, headers={**right.headers, name: value}))
            case Redirect(host, status):
                self._send(Answer(status, headers={"Location": f"http://{host}{self.path}"}))
            case _:
                self._break_off(right, fault)

    def _break_off(self, right: Answer, fault: Cut | Stall | Drip | Raw) -> None:
        match fault:
            case Cut(after):
                self._send(right, after)
            case Stall(after, seconds):
                self._send(right, after, seconds)
            case Drip(after, seconds):
                self._send(right, after, close=False)
                self._drip(right.body[after:], seconds)
            case Raw(data, then):
                self._send_raw(data.replace(b"{body}", right.body), then)

    def _send_raw(self, data: bytes, then: str) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.wfile.write(data)
            self.wfile.flush()
            if then == "reset":
                # Nothing is sent any more, and the other end hears of it: socket(7), SO_LINGER.
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()
            elif then == "stall":
                self._registry.closing.wait(3600)
            elif then == "drip":
                self._drip(b"X" * 3600, 0.1)

    def _drip(self, data: bytes, seconds: float) -> None:
        self.close_connection = True
        with suppress(OSError):
            for byte in data:
                if self._registry.closing.wait(seconds):
                    break
                self.wfile.write(bytes([byte]))
                self.wfile.flush()

    def _send(
        self, answer: Answer, after: int | None = None, pause: float = 0.0, *, close: bool = True
    ) -> None:
        """Send ANSWER; if AFTER is given, only so much of it, then PAUSE, then CLOSE."""
        self.send_response(answer.status)
        headers = {"Content-Length": str(len(answer.body)), **answer.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        with suppress(ConnectionError):
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body[:after])
        if after is not None and close:
            self.wfile.flush()
            self._registry.closing.wait(pause)
            self.close_connection = True

    def _ranged(self, right: Answer) -> Answer:
        """Return the part of the RIGHT answer that was asked for."""
        match = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", self.headers.get("Range", ""))
        if match is None or right.status != 200 or not self._registry.ranges:
            return right
        size = len(right.body)
        first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
        if first >= size:
            return Answer(416, headers={"Content-Range": f"bytes */{size}"})
        headers = {**right.headers, "Content-Range": f"bytes {first}-{last}/{size}"}
        return Answer(206, right.body[first : last + 1], headers)

    def _let_in(self) -> bool:
        given = self.headers.get("Authorization", "")
        match self._registry.auth:
            case Token() as auth:
                return self._registry.takes_token(auth, given)
            case Basic(login):
                return given == _basic(login)
        return True

    def _challenge(self) -> Answer:
        challenge = 'Basic realm="faulty"'
        if isinstance(self._registry.auth, Token):
            here = f"{self._registry.scheme}://{self._registry.address}/token"
            realm = self._registry.realm or here
            name = urlsplit(self.path).path.removeprefix("/v2/").rpartition("/")[0]
            scope = f"repository:{name.rpartition('/')[0]}:pull"
            usual = 'Bearer realm="{realm}",service="faulty",scope="{scope}"'
            challenge = self._registry.auth.challenge or usual
            challenge = challenge.replace("{realm}", realm).replace("{scope}", scope)
        return Answer(401, _error("UNAUTHORIZED"), {"WWW-Authenticate": challenge})

    def _token(self) -> Answer:
        auth = self._registry.auth
        query = parse_qs(urlsplit(self.path).query)
        if not isinstance(auth, Token) or query.get("service") not in (None, ["faulty"]):
            return Answer(400)
        if auth.login and self.headers.get("Authorization") != _basic(auth.login):
            return Answer(401, _error("UNAUTHORIZED"))
        body = json.dumps({auth.key: self._registry.new_token(auth), "expires_in": 300}).encode()
        return Answer(200, body, {"Content-Type": "application/json"})


def _basic(login: str) -> str:
    return f"Basic {base64.b64encode(login.encode()).decode()}"
