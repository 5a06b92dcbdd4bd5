"""Tell a registry who we are.  The only module that knows oras.

oras knows how a token is asked for.  When that is to be done, and when again, with
which login, and where it may be sent, is decided here.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any
from urllib.parse import urlencode

import requests
from oras.auth.token import TokenAuth
from oras.auth.utils import authHeader

from shifter_lite.build import challenge
from shifter_lite.build.challenge import Challenge
from shifter_lite.build.wire import words
from shifter_lite.build.wire.body import Body
from shifter_lite.build.wire.patience import Fault
from shifter_lite.build.wire.reach import Scope
from shifter_lite.build.wire.session import Follow, Session
from shifter_lite.build.wire.url import Url
from shifter_lite.errors import RegistryBusy
from shifter_lite.logins import Login, Unusable
from shifter_lite.registries import is_loopback

_LARGEST = 65536
_TOKEN = re.compile(r"[\x21-\x7e]{1,60000}")

Find = Callable[[], Login | Unusable | None]


class Credentials(TokenAuth):  # type: ignore[misc]  # oras has no types
    """What we answer to the challenges of one registry; any number of threads may ask."""

    def __init__(self, session: Session, path: str, find_login: Find, *, plain: bool) -> None:
        """Ask for what lies at PATH by SESSION; passwords go by PLAIN http if need be."""
        super().__init__()
        # What oras asks by, and what it says there of certificates, which is ours to say.
        self.session, self._tls_verify = _Service(session), True
        self._session, self._who = session, session.who
        self._unusable = ""
        self._path, self._find_login, self._plain = path, find_login, plain
        self._lock = Lock()
        self._header = ""
        self._known: list[Challenge] = []
        self._looked = False

    def header(self) -> dict[str, str]:
        """Return what to send along: nothing, before the registry has asked for it."""
        return {"Authorization": self._header} if self._header else {}

    def answer(self, response: requests.Response) -> bool:
        """Return whether the registry that answered RESPONSE, a 401 or 403, can be asked again.

        Raises Fault where a token service does not answer.
        """
        sent = response.request.headers.get("Authorization", "")
        with self._lock:
            if sent != self._header:
                # Another thread has renewed the token meanwhile.
                return True
            if found := challenge.read(response.headers.get("WWW-Authenticate", "")):
                self._known = found
                self.session.least = self._session.scope(response)
            elif not sent:
                return False
            self._header = self._new_header(self._known)
            return bool(self._header) and self._header != sent

    def hint(self) -> str:
        """Return what may help who is denied."""
        if self._password:
            return "the login for it is not accepted, or may not read this"
        if self._unusable:
            return self._unusable
        return "check the name; to read what is private takes a login"

    def _new_header(self, challenges: Sequence[Challenge]) -> str:
        self._look_for_login()
        for each in challenges:
            if each.scheme == "bearer" and (token := self._new_token(each)):
                return f"Bearer {token}"
        if self._password and any(each.scheme == "basic" for each in challenges):
            return f"Basic {self._password}"
        return ""

    def _look_for_login(self) -> None:
        # Only now that somebody asks for it.
        if self._looked:
            return
        found = self._find_login()
        self._looked = True
        if isinstance(found, Login):
            both = f"{found.user}:{found.password}".encode(errors="surrogateescape")
            self._basic_auth = base64.b64encode(both).decode()
        elif found:
            self._unusable = found.why

    @property
    def _password(self) -> str:
        return getattr(self, "_basic_auth", "")

    def _new_token(self, asked: Challenge) -> str:
        """Return what the token service that ASKED names gives us, perhaps nothing."""
        realm = self._realm(asked)
        scopes = asked.scopes or (f"repository:{self._path}:pull",)
        wanted = {"realm": realm, "service": asked.service, "scope": list(scopes)}
        token = self.request_token(authHeader(wanted))
        if token is None or token == "":
            return ""
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise _no_token(self._who)
        return token

    def _realm(self, asked: Challenge) -> str:
        """Return the address of the token service that ASKED names; raises Fault."""
        try:
            url = Url.parse(asked.realm)
        except ValueError:
            raise words.nonsense(self._who, "names a token service that is nowhere") from None
        if url.scheme == "http" and not (self._plain or is_loopback(url.authority)):
            what = f"names a token service without TLS: {url.authority[:100]!r}"
            hint = "where that is right: insecure = true in the registry's table"
            raise words.forbidden(self._who, what, hint)
        return asked.realm


class _Service:
    """The token services of a registry, as oras asks them.

    ``least`` is the scope of the address that named them.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.least = Scope.WORLD

    def get(
        self, url: str, *, headers: Mapping[str, str], params: Any, verify: bool
    ) -> requests.Response:
        """Return the answer to URL, which, if it is 200, is a JSON object; raises Fault.

        A redirect to another host is not followed: its token would be that host's.
        """
        between = ("&" if not url.endswith("?") else "") if "?" in url else "?"
        address = Url.parse(f"{url}{between}{urlencode(params, doseq=True)}")
        kept = {key: headers[key] for key in ("Accept", "Authorization") if key in headers}
        response = self._session.fetch(address, kept, Follow.HERE, self.least)
        with response:
            data = Body(self._session, response).all(_LARGEST)
        who = f"the token service of {self._session.who}"
        if fault := words.busy(who, response):
            if not self._session.is_home(address):
                fault = words.elsewhere(self._session.who, address.authority, fault)
            raise fault
        if response.status_code == 200 and not _is_object(data):
            raise _no_token(self._session.who)
        response.raw = io.BytesIO(data)
        return response


def _is_object(data: bytes) -> bool:
    try:
        return len(data) <= _LARGEST and isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        return False


def _no_token(who: str) -> Fault:
    fact = f"the token service of {who} answered something that is no token"
    return Fault(RegistryBusy(fact, hint="is it a token service?"), again=False)
