"""What went wrong on the way to a registry, in words that a person can use.

None of them are the registry's own: what it sends may hold what must not be shown,
a token for example, or what a terminal obeys.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator

import requests
import urllib3

from shifter_lite import logs
from shifter_lite.build.wire.patience import Fault, retry_after
from shifter_lite.errors import Denied, RegistryBusy

# Whatever a request can end with that is not our own mistake.
ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError)
_TIMEOUTS = (TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError)
_RESETS = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
_CUT = (urllib3.exceptions.IncompleteRead, http.client.IncompleteRead)
_TLS_CUT = (ssl.SSLEOFError, ssl.SSLZeroReturnError)

# The first that fits counts.
_WORDS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    (_CUT, "the connection was cut"),
    ((ssl.SSLError,), "it does not speak TLS as it should"),
    ((socket.gaierror, UnicodeError), "no such host"),
    (_TIMEOUTS, "it took too long"),
    ((http.client.RemoteDisconnected,), "it hung up"),
)
# What passes; from 520 on, something before the registry waits for it in vain.
_BUSY = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)


def no_answer(who: str, error: Exception) -> Fault:
    """Return the fault that ERROR is: WHO did not answer."""
    fact = f"{who} did not answer: {_cause(error)}"
    return Fault(RegistryBusy(fact, hint=_hint(error)), again=_passes(error))


def stopped(who: str, cause: Exception | str) -> Fault:
    """Return the fault that CAUSE is: WHO stopped answering."""
    reason = cause if isinstance(cause, str) else _cause(cause)
    fact = f"{who} stopped in the middle of an answer: {reason}"
    return Fault(RegistryBusy(fact, hint="try again later"), again=True)


def busy(who: str, response: requests.Response, answer: str = "") -> Fault | None:
    """Return the fault that RESPONSE is, if WHO says by it that another time is better.

    ANSWER is what it says, in words.
    """
    status = response.status_code
    if status not in _BUSY and status < 500:
        return None
    wait = retry_after(response.headers.get("Retry-After", ""))
    error = RegistryBusy(f"{who} answered {answer or in_words(status)}", hint="try again later")
    return Fault(error, again=status in _BUSY, wait=wait)


def in_words(status: int) -> str:
    """Return the number STATUS and what it means; not what the registry says it means."""
    return f"{status} {http.client.responses.get(status, '')}".rstrip()


def elsewhere(who: str, host: str, reason: object) -> Fault:
    """Return the fault that HOST, to which WHO leads, did not give what was asked for.

    REASON is for the log: what is found at another host is not for the user, who chose it.
    """
    logs.info("another host gave nothing", registry=who, host=host, reason=reason)
    fact = f"{who} leads to {host!r}, which did not give what was asked for"
    hint = "check that this host reaches it, or try again later; the worker's log says why"
    # A store's address expires, and the registry gives another: whatever it was, it may pass.
    return Fault(RegistryBusy(fact, hint=hint), again=True)


def forbidden(who: str, what: str, hint: str) -> Fault:
    """Return the fault that the site does not let workers ask WHO, since WHAT."""
    return Fault(Denied(f"{who} {what}", hint=hint), again=False)


def nonsense(who: str, what: str) -> Fault:
    """Return the fault that it is for WHO to do WHAT, which no registry does."""
    hint = "is it a registry? something on the way may answer in its place"
    return Fault(RegistryBusy(f"{who} {what}", hint=hint), again=False)


def speaks_tls(error: BaseException) -> bool:
    """Return whether ERROR, or what caused it, is about a certificate: so there is one."""
    return any(isinstance(link, ssl.SSLCertVerificationError) for link in chain_of(error))


def speaks_no_http(error: BaseException) -> bool:
    """Return whether ERROR is what plain http meets where TLS is spoken."""
    kinds = (http.client.BadStatusLine, ConnectionResetError)
    return any(isinstance(link, kinds) for link in chain_of(error))


def _passes(error: BaseException) -> bool:
    """Return whether ERROR may pass soon; that nobody is there, or not the right one, does not."""
    chain = list(chain_of(error))
    if any(isinstance(link, requests.ConnectTimeout) for link in chain):
        return False
    if any(isinstance(link, ssl.SSLError) for link in chain):
        return any(isinstance(link, _TLS_CUT) for link in chain)
    return any(isinstance(link, (*_RESETS, *_CUT, *_TIMEOUTS)) for link in chain)


def _hint(error: BaseException) -> str:
    chain = list(chain_of(error))
    if any(isinstance(link, requests.exceptions.ProxyError) for link in chain):
        return "it was asked through a proxy: see https_proxy and no_proxy"
    if any(isinstance(link, ssl.SSLError) for link in chain):
        return "is it a registry, and its certificate known to this host?"
    return "check its name, and that this host reaches it, or try again later"


def _cause(error: BaseException) -> str:
    """Return the innermost reason that a person can read."""
    for link in reversed(list(chain_of(error))):
        if words := _in_words(link):
            return words
    return "it does not speak HTTP as it should"


def _in_words(link: BaseException) -> str:
    if isinstance(link, ssl.SSLCertVerificationError):
        return f"its certificate cannot be trusted: {link.verify_message}"
    for kinds, words in _WORDS:
        if isinstance(link, kinds):
            return words
    return link.strerror or "" if isinstance(link, OSError) else ""


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield ERROR and all that caused it, outermost first."""
    seen: set[int] = set()
    queue: list[object] = [error]
    while queue:
        link = queue.pop(0)
        if isinstance(link, BaseException) and id(link) not in seen:
            seen.add(id(link))
            yield link
            queue += [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]
