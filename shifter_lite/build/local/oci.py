"""OCI image layouts: directories, or archives of them.

See image-layout.md of the OCI image-spec.  Names of images are annotations of the
descriptors in ``index.json``, as skopeo, docker and containerd write them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any

from shifter_lite.build import manifest as documents
from shifter_lite.build.local.files import Content, Files
from shifter_lite.build.local.stored import Stored
from shifter_lite.build.local.wanted import Offer, Wanted
from shifter_lite.build.manifest import Descriptor, Manifest
from shifter_lite.errors import BadImage
from shifter_lite.platforms import is_platform

MARK = "oci-layout"
INDEX = "index.json"
_VERSION = "1.0.0"
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_MOST_INDEXES = 64


class Layout(Stored):
    """One image of an OCI layout."""

    def __init__(self, files: Files, wanted: Wanted) -> None:
        """Read the image WANTED from FILES; raises BadImage if they are no layout."""
        super().__init__(files)
        self._wanted = wanted
        self._indexes = 0
        version = documents.parse(self.read_json(MARK), MARK).get("imageLayoutVersion")
        if version != _VERSION:
            raise BadImage(f"the OCI layout is of version {version!r}, not {_VERSION!r}")

    def manifest(self, platform: str) -> Manifest:
        """Return the image's manifest for PLATFORM; raises NotFound, Denied or BadImage."""
        self._indexes = 0
        leaves = list(self._leaves(self._top(), ""))
        chosen = _choose([entry for entry, _ in leaves], platform)
        outer = next(outer for entry, outer in leaves if entry["digest"] == chosen.digest)
        self._check_that_it_is_here(chosen, [entry for entry, _ in leaves], platform)
        document, kind = self._document(chosen)
        if kind not in documents.MANIFESTS:
            raise BadImage(f"not a container image: its manifest is a {kind!r}")
        return documents.read_manifest(document, chosen.digest, outer, platform, chosen.platform)

    def gives(self, manifest: Manifest, platform: str) -> bool:
        """Return whether PLATFORM, too, is given MANIFEST, if its config says nothing else."""
        with suppress(BadImage):
            return self.manifest(platform).digest == manifest.digest
        return False

    def open_blob(self, descriptor: Descriptor, start: int) -> AbstractContextManager[Content]:
        """Open the blob of DESCRIPTOR from START on; raises Denied or BadImage."""
        hint = documents.hint_if_missing(descriptor)
        if hint and not self._has(descriptor):
            raise BadImage(f"{self.files.path!r} has no blob {descriptor.digest}", hint=hint)
        return self.files.open(_file(descriptor), start)

    def _has(self, descriptor: Descriptor) -> bool:
        return self.files.holds(_file(descriptor))

    def _check_that_it_is_here(
        self, chosen: Descriptor, entries: list[dict[str, Any]], platform: str
    ) -> None:
        """Raise BadImage if CHOSEN is not here, but another of ENTRIES, for another platform, is.

        Docker saves the whole index of an image, and of its contents those that it has.
        """
        if self._has(chosen):
            return
        found = [e for e in documents.entries({"manifests": entries}) if self._has(e)]
        here = sorted({each.platform for each in found if is_platform(each.platform)})
        if here:
            raise BadImage(
                f"{self.files.path!r} names an image for {platform!r}, and does not contain it",
                hint=f"take what it contains: --platform {' or '.join(here)}; or save it again "
                f"with: docker save --platform {platform}",
            )

    def _top(self) -> list[dict[str, Any]]:
        """Return the entries of ``index.json`` that are wanted."""
        entries = _entries(documents.parse(self.read_json(INDEX), INDEX))
        offers = [Offer(_names(entry), entry["digest"], entry) for entry in entries]
        meant = self._wanted.among(offers)
        if any(_is_index(each.entry) or each.entry.get("platform") for each in meant):
            return [offer.entry for offer in meant]
        return [self._wanted.one(offers).entry]

    def _leaves(
        self, entries: list[dict[str, Any]], outer: str
    ) -> Iterator[tuple[dict[str, Any], str]]:
        """Yield what ENTRIES lead to that is no index, each with the outermost index above it."""
        for entry in entries:
            if not _is_index(entry):
                yield entry, outer
                continue
            self._indexes += 1
            if self._indexes > _MOST_INDEXES:
                raise BadImage(f"the OCI layout has more than {_MOST_INDEXES} indexes")
            document, _ = self._document(documents.descriptor(entry, "index"))
            yield from self._leaves(_entries(document), outer or entry["digest"])

    def _document(self, descriptor: Descriptor) -> tuple[dict[str, Any], str]:
        """Return the manifest or index that DESCRIPTOR names, and its media type."""
        document = documents.parse(self.read_blob(descriptor, "manifest"), "manifest")
        kind = documents.media_type(document, descriptor.media_type)
        documents.refuse_schema_1(kind)
        return document, kind


def _file(descriptor: Descriptor) -> str:
    return f"blobs/{descriptor.digest.replace(':', '/')}"


def _entries(index: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what INDEX lists, each a proper descriptor; raises BadImage."""
    entries = index.get("manifests")
    if not isinstance(entries, list):
        raise BadImage("the index has no list of manifests")
    for entry in entries:
        documents.descriptor(entry, "index")
    return entries


def _is_index(entry: dict[str, Any]) -> bool:
    return entry["mediaType"] in documents.INDEXES


def _names(entry: dict[str, Any]) -> tuple[str, ...]:
    annotations = entry.get("annotations")
    if not isinstance(annotations, dict):
        return ()
    names = (annotations.get(key) for key in _NAMES)
    return tuple(name for name in names if isinstance(name, str))


def _choose(entries: list[dict[str, Any]], platform: str) -> Descriptor:
    """Return the manifest for PLATFORM of ENTRIES; one alone need not say what it is made for."""
    if len({entry["digest"] for entry in entries}) == 1 and not entries[0].get("platform"):
        return documents.descriptor(entries[0], "index")
    return documents.choose({"manifests": entries}, platform)
