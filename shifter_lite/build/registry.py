"""Talk to a registry.  The only module that knows oras (and the requests beneath it).

oras gives us sessions and the token dance.  Three things of it are not used:
its retries, which sleep 131 s and hide what happened; its manifests, which are
decoded before anybody can check their digest; and its downloads, which are
checked against nothing.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event
from typing import Any, NoReturn

import requests
import urllib3
from oras.auth import AuthenticationException
from oras.provider import Registry as OrasRegistry

from shifter_lite.build import manifest as documents
from shifter_lite.build.challenge import normal_form
from shifter_lite.build.manifest import Descriptor, ImageConfig, Manifest
from shifter_lite.errors import BadImage, Denied, NotFound, RegistryBusy, ShifterError
from shifter_lite.reference import Reference

_HOSTS = {"docker.io": "registry-1.docker.io"}
_LOOPBACK = re.compile(r"(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?")
# Seconds: to connect, and between two pieces of an answer.
_TIMEOUT = (10.0, 60.0)
_ATTEMPTS = 4
_PASSING = (408, 429, 500, 502, 503, 504)
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 30.0

# oras logs what we report ourselves, with its own words, to the user's terminal.
logging.getLogger("oras").setLevel(logging.CRITICAL)


class _Session(requests.Session):
    """A session that never waits for ever, and sends nobody's password unasked."""

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs.setdefault("timeout", _TIMEOUT)
        # Without an auth of our own, requests would look one up in ~/.netrc.
        kwargs.setdefault("auth", lambda prepared: prepared)
        response = super().request(*args, **kwargs)
        if response.status_code in (401, 403):
            challenge = normal_form(response.headers.get("WWW-Authenticate", ""))
            if not challenge:
                raise AuthenticationException
            response.headers["WWW-Authenticate"] = challenge
        return response


class Registry:
    """One repository of one registry, read only."""

    def __init__(self, reference: Reference) -> None:
        """Talk about the image REFERENCE: https, or http where it is on this host."""
        self._reference = reference
        host = _HOSTS.get(reference.domain, reference.domain)
        plain = _LOOPBACK.fullmatch(reference.domain) is not None
        scheme = "http" if plain else "https"
        self._oras = OrasRegistry(insecure=plain)
        self._oras.session = _Session()
        # What is on this host is not behind a proxy, whatever the environment says.
        self._oras.session.trust_env = not plain
        self._oras.auth.session = self._oras.session
        self.connections: set[socket.socket] = set()
        self.aborted = Event()
        self._base = f"{scheme}://{host}/v2/{reference.path}"

    def manifest(self, platform: str) -> Manifest:
        """Return the image's manifest for PLATFORM, choosing from an index where there is one.

        Raises NotFound, Denied, RegistryBusy or BadImage.
        """
        wanted = self._reference.digest or self._reference.tag
        document, kind, digest = self._document(wanted)
        index_digest = ""
        if kind in documents.INDEXES:
            index_digest = digest
            child = documents.choose(document, platform)
            document, kind, digest = self._document(child.digest)
        if kind not in documents.MANIFESTS:
            raise BadImage(f"not a container image: its manifest is a {kind!r}")
        return documents.read_manifest(document, digest, index_digest)

    def config(self, manifest: Manifest) -> ImageConfig:
        """Return the config of MANIFEST; raises as ``manifest`` does."""
        descriptor = manifest.config
        if descriptor.size > documents.LARGEST_JSON:
            raise BadImage(f"the image config has {descriptor.size} bytes")
        data = b""
        with self.blob(descriptor) as read:
            while len(data) <= descriptor.size and (piece := read(65536)):
                data += piece
        check(data, descriptor.digest, "image config")
        return documents.read_config(documents.parse(data, "image config"), manifest)

    @contextmanager
    def blob(self, descriptor: Descriptor, start: int = 0) -> Iterator[Callable[[int], bytes]]:
        """Open the blob of DESCRIPTOR from byte START on; yields what reads up to so many bytes.

        A connection that is cut is opened again where it was.  The bytes are as they
        came: whoever reads them checks them.
        """
        reader = _BlobReader(self, descriptor, start)
        try:
            yield reader.read
        finally:
            reader.close()

    def abort(self) -> None:
        """Let every read of a blob that is under way fail, for good."""
        self.aborted.set()
        for end in list(self.connections):
            # The registry may have hung up by itself.
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _document(self, wanted: str) -> tuple[dict[str, Any], str, str]:
        """Return the manifest or index WANTED, its media type, and its digest."""
        accept = ", ".join((*documents.MANIFESTS, *documents.INDEXES))
        missing = NotFound(
            f"the registry has no image {str(self._reference)!r}",
            hint="check the name and the tag; a private image looks missing, too",
        )
        with self.get(f"manifests/{wanted}", {"Accept": accept}, missing) as response:
            data = b"".join(iter(lambda: _read(response, 65536, documents.LARGEST_JSON), b""))
            content_type = response.headers.get("Content-Type", "")
            promised = response.headers.get("Docker-Content-Digest", "")
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        for expected in (wanted if ":" in wanted else "", promised):
            if expected.startswith("sha256:"):
                check(data, expected, "manifest")
        document = documents.parse(data, "manifest")
        kind = documents.media_type(document, content_type)
        documents.refuse_schema_1(kind)
        return document, kind, digest

    def get(self, path: str, headers: dict[str, str], missing: ShifterError) -> requests.Response:
        """Return the registry's answer to PATH; raises MISSING if it has no such thing.

        What passes (a reset, "too many requests", "unavailable") is asked again a few
        times; that nobody listens does not pass that soon.
        """
        for attempt in range(_ATTEMPTS):
            try:
                response = self._ask(path, headers)
            except requests.ConnectionError as error:
                if attempt == _ATTEMPTS - 1 or not _is_reset(error):
                    raise self._busy(error) from error
                pause = _pause(attempt, "")
            else:
                if response.status_code in (200, 206):
                    return response
                if attempt == _ATTEMPTS - 1 or response.status_code not in _PASSING:
                    self._refuse(response, missing)
                pause = _pause(attempt, response.headers.get("Retry-After", ""))
                response.close()
            if self.aborted.wait(pause):
                break
        raise RegistryBusy("the download was given up", hint="pull again")

    def _ask(self, path: str, headers: dict[str, str]) -> requests.Response:
        # The undecorated method: oras's token dance without its retries.
        request = OrasRegistry.do_request.__wrapped__
        # Digests are of the bytes as they lie there, not as some proxy packs them.
        headers = {**headers, "Accept-Encoding": "identity"}
        try:
            response: requests.Response = request(
                self._oras, f"{self._base}/{path}", "GET", headers=headers, stream=True
            )
        except requests.ConnectionError:
            raise
        except requests.exceptions.InvalidProxyURL as error:
            raise RegistryBusy(
                f"the proxy in the environment is no address: {error}", hint="see https_proxy"
            ) from error
        except (AuthenticationException, ValueError) as error:
            # oras: it cannot answer the challenge; requests: its realm is no address.
            raise self._denied() from error
        except requests.RequestException as error:
            raise self._busy(error) from error
        return response

    def _refuse(self, response: requests.Response, missing: ShifterError) -> NoReturn:
        with response:
            status = response.status_code
        if status == 404:
            raise missing
        if status in (401, 403):
            raise self._denied()
        if status in (408, 429) or status >= 500:
            raise RegistryBusy(
                f"the registry {self._reference.domain!r} answered {status} {response.reason}",
                hint="try again later",
            )
        raise BadImage(f"the registry {self._reference.domain!r} answered {status}")

    def _busy(self, error: Exception) -> RegistryBusy:
        return RegistryBusy(
            f"the registry {self._reference.domain!r} did not answer: {_cause(error)}",
            hint=_hint(error),
        )

    def _denied(self) -> Denied:
        return Denied(
            f"the registry {self._reference.domain!r} does not let us read "
            f"{self._reference.repository!r}",
            hint="check the name; only public images can be pulled",
        )


class _BlobReader:
    """Reads one blob, over as many connections as it takes."""

    def __init__(self, registry: Registry, descriptor: Descriptor, start: int) -> None:
        self._registry = registry
        self._path = f"blobs/{descriptor.digest}"
        self._missing = BadImage(
            f"the registry has no blob {descriptor.digest}, which the image needs"
        )
        self._at = start
        self._failures = 0
        self._connect()

    def read(self, size: int) -> bytes:
        """Return up to SIZE bytes, none at the end; raises RegistryBusy."""
        while True:
            try:
                data = _read(self._response, size)
            except RegistryBusy:
                # Whoever makes progress may go on; whoever makes none has a few tries.
                self._failures += 1
                if self._failures == _ATTEMPTS or self._registry.aborted.is_set():
                    raise
                self.close()
                self._connect()
                continue
            if data:
                self._at += len(data)
                self._failures = 0
            return data

    def _connect(self) -> None:
        headers = {"Range": f"bytes={self._at}-"} if self._at else {}
        self._response = self._registry.get(self._path, headers, self._missing)
        self._connection = _connection(self._response)
        self._registry.connections.add(self._connection)
        # A registry without ranges begins anew (RFC 9110, 14.2).
        left = self._at if self._response.status_code == 200 else 0
        while left and (data := _read(self._response, min(left, 1 << 20))):
            left -= len(data)

    def close(self) -> None:
        """Let go of the connection."""
        self._registry.connections.discard(self._connection)
        self._connection.close()
        self._response.close()


def _pause(attempt: int, retry_after: str) -> float:
    """Return the seconds to wait after ATTEMPT: what the registry asks for, within reason."""
    if retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after), _LONGEST_PAUSE)
    return float(_FIRST_PAUSE * 2**attempt)


def check(data: bytes, digest: str, what: str) -> None:
    """Raise BadImage unless the bytes DATA, a WHAT, have DIGEST."""
    found = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if found != digest:
        raise BadImage(f"the {what} has the wrong digest: {found}, not {digest}")


def _connection(response: requests.Response) -> socket.socket:
    """Return the connection that RESPONSE comes by, as a socket of our own."""
    try:
        return socket.socket(fileno=os.dup(response.raw.fileno()))
    except AttributeError:
        # http.client has let go of it: the answer has no body.
        return socket.socket()


def _read(response: requests.Response, size: int, limit: int = 0) -> bytes:
    try:
        data: bytes = response.raw.read(size)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise RegistryBusy(
            f"the registry stopped in the middle of an answer: {_cause(error)}",
            hint="try again later",
        ) from error
    if limit and response.raw.tell() > limit:
        raise BadImage(f"a manifest has more than {limit} bytes")
    return data


def _is_reset(error: BaseException) -> bool:
    chain = list(_chain(error))
    return any(isinstance(link, ConnectionResetError | ConnectionAbortedError) for link in chain)


def _hint(error: Exception) -> str:
    if isinstance(error, requests.exceptions.ProxyError):
        return "it was asked through a proxy: see https_proxy and no_proxy"
    if isinstance(error, requests.exceptions.SSLError):
        return "is it a registry, and its certificate known to this host?"
    return "check its name, and that this host reaches it, or try again later"


def _cause(error: BaseException) -> str:
    """Return the innermost reason that a person can read."""
    for link in reversed(list(_chain(error))):
        if isinstance(link, ssl.SSLCertVerificationError):
            return f"its certificate cannot be trusted: {link.verify_message}"
        if isinstance(link, ssl.SSLError):
            return "it does not speak TLS as it should"
        if isinstance(link, urllib3.exceptions.IncompleteRead):
            return "the connection was cut"
        if isinstance(link, socket.gaierror):
            return "no such host"
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
        if isinstance(link, TimeoutError | requests.Timeout | urllib3.exceptions.TimeoutError):
            return "it took too long"
    return str(error).partition("\n")[0]


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    queue: list[object] = [error]
    while queue:
        link = queue.pop(0)
        if isinstance(link, BaseException) and id(link) not in seen:
            seen.add(id(link))
            yield link
            queue += [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]
