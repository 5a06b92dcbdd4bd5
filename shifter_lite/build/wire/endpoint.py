"""One place where a repository is: a registry, a mirror of it, or what is asked in its stead."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import BoundedSemaphore

import requests

from shifter_lite import logs
from shifter_lite.build.wire import words
from shifter_lite.build.wire.body import Body
from shifter_lite.build.wire.credentials import Credentials
from shifter_lite.build.wire.patience import Effort, Fault
from shifter_lite.build.wire.session import Follow, Session
from shifter_lite.build.wire.url import Url
from shifter_lite.errors import BadImage, Denied, RegistryBusy, ShifterError

_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,59}")
_MISSING, _DENIED = (404, 410), (401, 403, 451)
# What nothing but a rule of theirs says, in whatever words: payment, a precondition, a lock.
_BY_RULE = (402, 412, 423)
_OF_PROXY = 407
_ERROR_BYTES = 65536
_PATIENCE = 0.1


@dataclass(frozen=True, slots=True)
class Found:
    """A document and its headers; HOST is where a redirect led for it, if one did."""

    data: bytes
    headers: Mapping[str, str]
    host: str


class Endpoint:
    """A repository at one address, read only; any number of threads may ask.

    ``down`` is whether it is given up.
    """

    def __init__(
        self,
        session: Session,
        credentials: Credentials,
        *,
        schemes: tuple[str, ...],
        host: str,
        path: str,
        connections: int,
        blobs: Follow,
    ) -> None:
        """Ask at HOST for what lies at PATH; of SCHEMES, use the first that is spoken there.

        At most CONNECTIONS are ``kept`` at once.  BLOBS is where redirects of blobs may lead.
        """
        self.session, self.who = session, session.who
        self.down, self.connections = False, connections
        self._credentials, self._host, self._path = credentials, host, path
        self._schemes, self._blobs = schemes, blobs
        self._free = BoundedSemaphore(connections)

    def give_up(self, error: ShifterError) -> None:
        """Let the next one be asked, because of ERROR; who is busy stays ``down``."""
        logs.info("passed over", registry=self.who, reason=error)
        self.down = isinstance(error, RegistryBusy)

    def effort(self) -> Effort:
        """Return what counts the attempts at one thing here."""
        return Effort(self.session.patience, self.session.deadlines.aborted)

    def document(
        self, path: str, headers: Mapping[str, str], limit: int, missing: ShifterError
    ) -> Found:
        """Return what lies at PATH, or more than LIMIT bytes of it.

        What passes (a reset, "too many requests", "unavailable") is asked again a few
        times; that nobody listens does not pass that soon.  Raises MISSING if there is
        no such thing, else Denied, RegistryBusy or BadImage.
        """
        effort = self.effort()
        while True:
            try:
                response = self.attempt(path, headers, missing)
                with response:
                    data = Body(self.session, response).all(limit)
                    host = "" if self._is_ours(response) else Url.parse(response.url).authority
                    return Found(data, response.headers, host)
            except Fault as fault:
                effort.wait_after(fault)

    def attempt(
        self,
        path: str,
        headers: Mapping[str, str],
        missing: ShifterError,
        accepted: tuple[int, ...] = (200,),
    ) -> requests.Response:
        """Return the answer to PATH, if its status is ACCEPTED, its body unread; raises Fault."""
        response = self._ask(path, headers)
        if response.status_code in accepted:
            return response
        said = self._drain(response)
        challenged = response.status_code in (401, 403) and self._is_ours(response)
        if challenged and self._credentials.answer(response):
            response = self._ask(path, headers)
            if response.status_code in accepted:
                return response
            said = self._drain(response)
        raise self._fault(response, said, missing)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Wait until one more connection is allowed; keep it meanwhile."""
        while not self._free.acquire(timeout=_PATIENCE):
            if self.session.deadlines.aborted.is_set():
                raise RegistryBusy("the download was given up", hint="pull again")
        try:
            yield
        finally:
            self._free.release()

    def _ask(self, path: str, headers: Mapping[str, str]) -> requests.Response:
        """Return the answer to PATH, whatever it is; find out whether TLS is spoken here."""
        headers = {**headers, **self._credentials.header()}
        follow = self._blobs if path.startswith("blobs/") else Follow.TLS
        try:
            response = self.session.fetch(self._url(path), headers, follow)
        except Fault as fault:
            if not (self._undecided() and words.speaks_no_http(fault) and self._speaks_tls()):
                raise
        else:
            # That is what servers answer to plain http where they speak TLS.
            if not (response.status_code == 400 and self._undecided() and self._speaks_tls()):
                self._schemes = self._schemes[:1]
                return response
            response.close()
        self._schemes = self._schemes[1:]
        return self.session.fetch(self._url(path), headers, follow)

    def _url(self, path: str) -> Url:
        return Url.parse(f"{self._schemes[0]}://{self._host}/v2/{self._path}/{path}")

    def _undecided(self) -> bool:
        return len(self._schemes) > 1

    def _speaks_tls(self) -> bool:
        try:
            self.session.fetch(Url.parse(f"https://{self._host}/v2/"), {}).close()
        except Fault as fault:
            return words.speaks_tls(fault)
        return True

    def _is_ours(self, response: requests.Response) -> bool:
        return self.session.is_home(Url.parse(response.url))

    def _drain(self, response: requests.Response) -> bytes:
        """Return the body of RESPONSE, which is an error's; let go of its connection."""
        with response, suppress(Fault):
            return Body(self.session, response).all(_ERROR_BYTES)
        return b""

    def _fault(self, response: requests.Response, said: bytes, missing: ShifterError) -> Fault:
        """Return what the error RESPONSE, which SAID so much, means."""
        status, who, code = response.status_code, self.who, _error_code(said)
        answer = words.in_words(status) + (f" ({code})" if code else "")
        if not self._is_ours(response):
            return words.elsewhere(who, Url.parse(response.url).authority, answer)
        if fault := words.busy(who, response, answer):
            return fault
        if status in _MISSING:
            return Fault(missing, again=False)
        if status in _DENIED:
            fact = f"{who} does not let us read {self._path!r}: it answered {answer}"
            return Fault(Denied(fact, hint=self._credentials.hint()), again=False)
        if 400 <= status < 500:
            return Fault(self._refused(status, answer, code), again=False)
        return words.nonsense(who, f"answered {answer}")

    def _refused(self, status: int, answer: str, code: str | None) -> ShifterError:
        """Return what an ANSWER with STATUS 4xx means; with an error CODE it is a registry's."""
        if status == _OF_PROXY:
            fact = f"{self.who} cannot be asked: the proxy answered {answer}"
            return Denied(fact, hint="the proxy in the environment wants a login: see https_proxy")
        if code is None and status not in _BY_RULE:
            return BadImage(f"{self.who} answered {answer}", hint="is it a registry?")
        fact = f"{self.who} refuses {self._path!r}: it answered {answer}"
        return Denied(fact, hint="the registry's own rules say so: ask its administrators")


def _error_code(said: bytes) -> str | None:
    """Return the code of the first error in what a registry SAID; empty if it has none to show.

    None if this is no error as the specification of registries has it.
    """
    try:
        content = json.loads(said)
    except (ValueError, RecursionError):
        return None
    match content:
        case {"errors": [{"code": str(code)}, *_]} if _CODE.fullmatch(code):
            return code
        case {"errors": [dict(), *_]}:
            return ""
    return None
