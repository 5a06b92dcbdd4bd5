"""Get an image from its registry: its manifest, its config, its layers.

Where that is, is for the site to say: mirrors are asked first, in order, and what
one of them lacks, or does not answer, the next one gives.  How each of them is asked
is the affair of ``build/wire``.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any, Self, TypeVar

from shifter_lite.build import manifest as documents
from shifter_lite.build.digest import digest_of
from shifter_lite.build.manifest import Descriptor, ImageConfig, Manifest
from shifter_lite.build.wire import words
from shifter_lite.build.wire.deadlines import Deadlines
from shifter_lite.build.wire.download import Download
from shifter_lite.build.wire.endpoint import Endpoint, Found
from shifter_lite.build.wire.endpoints import endpoints_of
from shifter_lite.build.wire.patience import Patience
from shifter_lite.build.wire.reach import Reach
from shifter_lite.errors import BadImage, Denied, NotFound, RegistryBusy, ShifterError
from shifter_lite.logins import FindLogin
from shifter_lite.reference import Reference
from shifter_lite.registries import Registries

_ACCEPT = ", ".join((*documents.MANIFESTS, *documents.INDEXES))
# How deep indexes may lie in one another, and how many of them are read.
_DEEPEST, _MOST = 4, 16
_PIECE = 65536

T = TypeVar("T")
# What a document is: itself, its media type, its digest.
Document = tuple[dict[str, Any], str, str]


class Registry:
    """One repository of one registry, read only.

    It has connections and a thread until it is closed, which leaving its context does.
    """

    def __init__(
        self,
        reference: Reference,
        registries: Registries | None = None,
        find_own: FindLogin | None = None,
        patience: Patience | None = None,
        *,
        shared: bool = False,
    ) -> None:
        """Talk about the image REFERENCE, as REGISTRIES say; FIND_OWN gives the user's logins.

        SHARED is whether the request may be of a user who could not connect where we can.
        Raises Denied if the site blocks the registry, BadReference if it can be nowhere.
        """
        self._reference = reference
        self._again = partial(Registry, reference, registries, find_own, patience, shared=shared)
        self._deadlines = Deadlines()
        self._documents: dict[tuple[str, str], Document] = {}
        self._endpoints = endpoints_of(
            reference,
            Reach(registries or Registries(), shared),
            find_own,
            patience or Patience(),
            self._deadlines,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up what is under way, and let go of all connections."""
        self._deadlines.close()
        for endpoint in self._endpoints:
            endpoint.session.close()

    @property
    def connections(self) -> int:
        """How many layers may be brought at once."""
        return self._endpoints[-1].connections

    def manifest(self, platform: str) -> Manifest:
        """Return the image's manifest for PLATFORM, choosing from an index where there is one.

        Raises NotFound, Denied, RegistryBusy or BadImage.
        """
        return self._from_first(lambda endpoint: self._manifest(endpoint, platform))

    def gives(self, manifest: Manifest, platform: str) -> bool:
        """Return whether PLATFORM, too, is given MANIFEST, if its config says nothing else."""
        if not manifest.index_digest:
            return True
        # No trouble with another's manifest is worth this image.
        with suppress(NotFound, Denied, RegistryBusy, BadImage):
            return self.manifest(platform).digest == manifest.digest
        return False

    def config(self, manifest: Manifest) -> ImageConfig:
        """Return the config of MANIFEST; raises as ``manifest`` does."""
        descriptor = manifest.config
        if descriptor.size > documents.LARGEST_JSON:
            raise BadImage(f"the image config has {descriptor.size} bytes")
        data = descriptor.data
        if data is None:
            data = self._from_first(lambda endpoint: self._config(endpoint, descriptor))
        return documents.read_config(documents.parse(data, "image config"), manifest)

    @contextmanager
    def blob(self, descriptor: Descriptor, start: int = 0) -> Iterator[Callable[[int], bytes]]:
        """Open the blob of DESCRIPTOR; yields a function that reads up to so many bytes.

        The bytes are those from START on, as they came: whoever reads them checks them.
        A connection that is cut is opened again where it was.  Reading raises
        RegistryBusy, Denied or BadImage.
        """
        if descriptor.data is not None:
            yield io.BytesIO(descriptor.data[start:]).read
            return
        download = Download(self._usable(), descriptor, start)
        try:
            yield download.read
        finally:
            download.close()

    def sample(self, descriptor: Descriptor, start: int, size: int) -> bytes:
        """Return SIZE bytes of the blob of DESCRIPTOR from START on, or fewer; raises as blob."""
        if descriptor.data is not None:
            return descriptor.data[start : start + size]
        data = bytearray()
        with closing(Download(self._usable(), descriptor, start, start + size)) as download:
            while len(data) < size and (piece := download.read(size - len(data))):
                data += piece
        return bytes(data)

    def without_mirrors(self) -> Registry | None:
        """Return the registry itself, for who got something wrong from here; None if that is it."""
        if len(self._endpoints) == 1:
            return None
        alone = self._again()
        del alone._endpoints[:-1]
        return alone

    def afresh(self) -> Registry:
        """Return the same, for who has aborted this one and begins again."""
        again = self._again()
        del again._endpoints[: -len(self._endpoints)]
        return again

    def abort(self) -> None:
        """Let everything that is under way fail, for good."""
        self._deadlines.abort()

    def _usable(self) -> list[Endpoint]:
        return [each for each in self._endpoints[:-1] if not each.down] + self._endpoints[-1:]

    def _from_first(self, ask: Callable[[Endpoint], T]) -> T:
        """Return what the first endpoint gives that gives it; raises what the last one does."""
        *mirrors, last = self._usable()
        for mirror in mirrors:
            try:
                return ask(mirror)
            except (NotFound, Denied, BadImage, RegistryBusy) as error:
                mirror.give_up(error)
        return ask(last)

    def _manifest(self, endpoint: Endpoint, platform: str) -> Manifest:
        wanted = self._reference.digest or self._reference.tag
        document, kind, digest = self._document(endpoint, wanted)
        if kind not in documents.INDEXES:
            return _read_manifest((document, kind, digest), "", platform, "")
        left = [_MOST]
        found = self._from_index(endpoint, document, platform, left, _DEEPEST)
        if found is None:
            raise documents.not_made_for(document, platform)
        descriptor, chosen = found
        return _read_manifest(chosen, digest, platform, descriptor.platform)

    def _from_index(
        self, endpoint: Endpoint, index: dict[str, Any], platform: str, left: list[int], depth: int
    ) -> tuple[Descriptor, Document] | None:
        """Return what INDEX, or an index in it, has for PLATFORM; LEFT is how many to read."""
        for child in documents.candidates(index, platform):
            left[0] -= 1
            if not depth or left[0] < 0:
                raise BadImage("the index has too many indexes within it")
            document = self._document(endpoint, child.digest, child)
            if document[1] not in documents.INDEXES:
                return child, document
            if found := self._from_index(endpoint, document[0], platform, left, depth - 1):
                return found
        return None

    def _config(self, endpoint: Endpoint, descriptor: Descriptor) -> bytes:
        download = Download([endpoint], descriptor, 0)
        data = bytearray()
        with closing(download):
            while len(data) <= descriptor.size and (piece := download.read(_PIECE)):
                data += piece
        check(bytes(data), descriptor.digest, descriptor.size, "image config")
        return bytes(data)

    def _document(
        self, endpoint: Endpoint, wanted: str, expected: Descriptor | None = None
    ) -> Document:
        """Return the manifest or index WANTED, which should be what EXPECTED says.

        Who chooses once more chooses from the same, whatever a tag means by now.
        """
        key = (endpoint.who, wanted)
        if key not in self._documents:
            self._documents[key] = self._get(endpoint, wanted, expected)
        return self._documents[key]

    def _get(self, endpoint: Endpoint, wanted: str, expected: Descriptor | None) -> Document:
        missing: ShifterError = NotFound(
            f"{endpoint.who} has no image {str(self._reference)!r}",
            hint="check the name and the tag; a private image looks missing, too",
        )
        if expected:
            missing = BadImage(f"{endpoint.who} has no manifest {wanted}, which the index lists")
        found = endpoint.document(
            f"manifests/{wanted}", {"Accept": _ACCEPT}, documents.LARGEST_JSON, missing
        )
        try:
            return self._read(endpoint, found, wanted, expected)
        except (BadImage, RegistryBusy) as error:
            if not found.host:
                raise
            # What it is instead is not for the user.
            raise words.elsewhere(endpoint.who, found.host, error).error from error

    def _read(
        self, endpoint: Endpoint, found: Found, wanted: str, expected: Descriptor | None
    ) -> Document:
        """Return the document that was FOUND; raises BadImage unless it is the one WANTED."""
        data, headers = found.data, found.headers
        if len(data) > documents.LARGEST_JSON:
            raise BadImage(f"a manifest has more than {documents.LARGEST_JSON} bytes")
        digest = digest_of(data)
        self._check(endpoint, data, wanted, headers, expected)
        document = documents.parse(data, "manifest")
        kind = documents.media_type(document, headers.get("Content-Type", ""))
        documents.refuse_schema_1(kind)
        if found.host and kind not in (*documents.INDEXES, *documents.MANIFESTS):
            raise BadImage(f"not a container image: its manifest is a {kind!r}")
        said = expected.media_type if expected else kind
        if (said in documents.INDEXES) != (kind in documents.INDEXES):
            raise BadImage(f"the index calls {said!r} what calls itself {kind!r}")
        return document, kind, digest

    def _check(
        self,
        endpoint: Endpoint,
        data: bytes,
        wanted: str,
        headers: Mapping[str, str],
        expected: Descriptor | None,
    ) -> None:
        """Raise BadImage unless the document DATA is the one WANTED, or RegistryBusy."""
        content_type = headers.get("Content-Type", "").lower()
        if content_type.startswith("text/html") or data.lstrip()[:1] == b"<":
            raise RegistryBusy(
                f"{endpoint.who} answered with a web page",
                hint="is it a registry? the network may want you to log in first",
            )
        promised = headers.get("Docker-Content-Digest", "")
        for digest in (wanted if ":" in wanted else "", promised):
            if digest.startswith("sha256:"):
                check(data, digest, expected.size if expected else len(data), "manifest")


def _read_manifest(document: Document, index_digest: str, platform: str, said: str) -> Manifest:
    content, kind, digest = document
    if kind not in documents.MANIFESTS:
        raise BadImage(f"not a container image: its manifest is a {kind!r}")
    return documents.read_manifest(content, digest, index_digest, platform, said)


def check(data: bytes, digest: str, size: int, what: str) -> None:
    """Raise BadImage unless the bytes DATA, a WHAT, have DIGEST and SIZE."""
    # What it has instead is not for the user: it may have come from where a redirect led.
    if digest_of(data) != digest:
        raise BadImage(f"the {what} has the wrong digest: it should be {digest}")
    if len(data) != size:
        raise BadImage(f"the {what} has the wrong size: it should be {size} bytes")
