"""Image names, read exactly as docker reads them; see spool/index.md, "Names".

A name has one normal form, which is its key in the index.  The launcher has the
same grammar in C; ``spool/vectors/references`` keeps the two alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from shifter_lite.errors import BadReference

_HINT = "write NAME:TAG or REGISTRY/NAME:TAG, for example ubuntu:24.04"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
# What is no host may still be written like a component: ``my_registry.org``.
_DOMAIN = re.compile(rf"{_HOST}|{_COMPONENT}")
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_OTHER_DIGEST = re.compile(r"(sha384|sha512):[0-9a-f]+")
_ID = re.compile(r"[0-9a-f]{64}")
# So much of an id may stand for it, where it is that of one image only.
_ID_PREFIX = re.compile(r"id:[0-9a-f]{4,63}")
# One port has one name: what is said of the one holds for the others.
_ZEROS_OF_PORT = re.compile(r":0+(?=[0-9]+\Z)")
# Of a path, and of a domain.
_LONGEST = 255


def is_digest(text: str) -> bool:
    """Return whether TEXT is a digest of the one algorithm that we use."""
    return _DIGEST.fullmatch(text) is not None


def is_id(text: str) -> bool:
    """Return whether TEXT is the id of an image: 64 lower-case hex digits."""
    return _ID.fullmatch(text) is not None


def is_id_prefix(key: str) -> bool:
    """Return whether KEY, one of the index's, is the beginning of an image's."""
    return _ID_PREFIX.fullmatch(key) is not None


def is_domain(text: str) -> bool:
    """Return whether TEXT is written like a registry's name, perhaps with a port."""
    return len(text) <= _LONGEST and _DOMAIN.fullmatch(text) is not None


def is_path(text: str) -> bool:
    """Return whether TEXT is written like a repository's name within its registry."""
    return len(text) <= _LONGEST and _PATH.fullmatch(text) is not None


def hint_on_digest(text: str) -> str:
    """Return what to tell somebody of TEXT, which is no digest that we use."""
    if other := _OTHER_DIGEST.fullmatch(text):
        return f"digests of the kind {other[1]} are not known here, only sha256"
    return "a digest is sha256: and 64 lower-case hex digits"


@dataclass(frozen=True, slots=True)
class Reference:
    """The name of an image in a registry, normalised.

    ``tag`` is empty exactly when ``digest`` is not.
    """

    domain: str
    path: str
    tag: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read TEXT as docker would; Shifter's ``docker:`` before it is allowed.

        Raises BadReference, with TEXT quoted, for everything else.
        """
        rest = _without_type(text)
        if _ID.fullmatch(rest):
            raise _bad(text, "an image id is written with id: before it")
        rest, at, digest = rest.partition("@")
        if at and not is_digest(digest):
            raise _bad(text, hint_on_digest(digest))
        domain, path = _split_domain(rest)
        path, colon, tag = path.partition(":")
        if colon and not _TAG.fullmatch(tag):
            raise _bad(text)
        if domain == "docker.io" and "/" not in path:
            path = f"library/{path}"
        _check(text, domain, path)
        domain = _ZEROS_OF_PORT.sub(":", domain)
        return cls(domain, path, "" if digest else tag or "latest", digest)

    @property
    def repository(self) -> str:
        """The name without its tag or digest."""
        return f"{self.domain}/{self.path}"

    @property
    def short(self) -> str:
        """The name as docker shows it: ``ubuntu:22.04``; it always means the same again."""
        name = str(self).removeprefix("docker.io/").removeprefix("library/")
        try:
            return (
                name if self.domain == "docker.io" and Reference.parse(name) == self else str(self)
            )
        except BadReference:
            # Alone it is one of Shifter's words, as ``local:1``.
            return str(self)

    def by_digest(self, digest: str) -> str:
        """Return the key of this repository's image with DIGEST."""
        return f"{self.repository}@{digest}"

    def __str__(self) -> str:
        """Return the normal form: the key in the index."""
        return self.by_digest(self.digest) if self.digest else f"{self.repository}:{self.tag}"


def index_key(text: str) -> str:
    """Return the key in the index for TEXT, a name or ``id:`` and an image id, or its beginning."""
    if is_id_prefix(text) or (text.startswith("id:") and is_id(text[3:])):
        return text
    if text.startswith("id:"):
        raise _bad(text, "an image id has 64 digits 0-9a-f; its first 4 may be enough")
    return str(Reference.parse(text))


def _without_type(text: str) -> str:
    """Drop Shifter's ``docker:``, where what follows cannot be a tag."""
    kind, colon, rest = text.partition(":")
    if colon and kind in ("custom", "local"):
        raise _bad(text, f"images of Shifter's type {kind!r} do not exist here")
    if (scheme := text.find("://")) >= 0:
        raise _bad(text, f"write {text[scheme + 3 :]!r}, without // in front")
    if colon and kind == "id":
        raise _bad(text, "here the image's name is needed; see 'shifterimg images'")
    if colon and kind == "docker" and re.search("[:/@]", rest):
        return rest
    return text


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    is_domain = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if not slash or not is_domain:
        return "docker.io", text
    return ("docker.io" if first == "index.docker.io" else first), rest


def _check(text: str, domain: str, path: str) -> None:
    if not _DOMAIN.fullmatch(domain) or not _PATH.fullmatch(path):
        raise _bad(text)
    if len(path) > _LONGEST or len(domain) > _LONGEST:
        raise _bad(text, f"a path, and a registry's name, have at most {_LONGEST} characters")


def _bad(text: str, hint: str = _HINT) -> BadReference:
    return BadReference(f"not an image name: {text!r}", hint=hint)
