"""Docker archives: what ``docker save``, ``podman save`` and skopeo write.

``manifest.json`` names the config and the layers of each image.  There is no manifest
as registries have it; ours is the one that skopeo makes up for such an archive, byte for
byte, so that its digest can be looked up: ``skopeo inspect docker-archive:FILE``.  Each
layer stands in it with its diff_id and is inflated, if it is compressed, as it is read.

See image/spec/v1.2.md of moby, and docker/archive of containers/image.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from shifter_lite.build import manifest as documents
from shifter_lite.build import tar
from shifter_lite.build.digest import digest_of
from shifter_lite.build.inflate import inflate
from shifter_lite.build.local.files import Content, Files
from shifter_lite.build.local.stored import Stored
from shifter_lite.build.local.wanted import Offer, Wanted
from shifter_lite.build.manifest import Descriptor, Manifest
from shifter_lite.errors import BadImage

LIST = "manifest.json"
LEGACY = "repositories"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
# Skopeo says so of each layer, compressed or not.
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_NAMED_BY_DIGEST = re.compile(r"(?:blobs/sha256/)?(?P<digest>[0-9a-f]{64})(?:\.json)?")
_PIECE = 1 << 18
_LARGEST = 1 << 38


@dataclass(frozen=True, slots=True)
class _Part:
    """One blob: the file NAME, or what it inflates to, which has SIZE bytes."""

    name: str
    size: int
    plain: bool


class Saved(Stored):
    """One image of a docker archive."""

    def __init__(self, files: Files, wanted: Wanted) -> None:
        """Read the image WANTED from FILES."""
        super().__init__(files)
        self._wanted = wanted
        self._parts: dict[str, _Part] = {}
        self._total = 0

    def manifest(self, platform: str) -> Manifest:
        """Return the image's only manifest, to be for PLATFORM; raises NotFound or BadImage."""
        entry = self._wanted.one(self._offers()).entry
        name, layers = entry["Config"], entry["Layers"]
        data = self.read_json(name)
        config = Descriptor(_CONFIG, digest_of(data), len(data))
        if _said_digest(name) not in ("", config.digest):
            raise BadImage(f"the image config {name!r} has another digest: {config.digest}")
        self._parts = {config.digest: _Part(name, len(data), plain=True)}
        descriptors = [
            self._layer(number, *each)
            for number, each in enumerate(zip(layers, _diff_ids(data, len(layers)), strict=True), 1)
        ]
        digest = digest_of(_encode(config, descriptors))
        return Manifest(digest, "", config, tuple(descriptors), platform)

    @contextmanager
    def open_blob(self, descriptor: Descriptor, start: int) -> Iterator[Content]:
        """Open the blob of DESCRIPTOR from START on; raises Denied or BadImage."""
        part = self._parts[descriptor.digest]
        with self.files.open(part.name, start if part.plain else 0) as content:
            if part.plain:
                yield content
                return
            stream = tar.Stream(_inflated(content))
            stream.skip(start)
            yield Content(part.size, stream.read)

    def _offers(self) -> list[Offer]:
        try:
            entries = json.loads(self.read_json(LIST))
        except (ValueError, RecursionError) as error:
            raise BadImage(f"{LIST} is not JSON: {error}") from error
        if not isinstance(entries, list) or not entries:
            raise BadImage(f"{LIST} is no list of images")
        return [_offer(entry) for entry in entries]

    def _layer(self, number: int, name: str, diff_id: str) -> Descriptor:
        try:
            with self.files.open(name) as content:
                if diff_id not in self._parts:
                    self._parts[diff_id] = self._part(name, content)
        except BadImage as error:
            raise BadImage(f"layer {number}: {error}", hint=error.hint) from error
        return Descriptor(_LAYER, diff_id, self._parts[diff_id].size)

    def _part(self, name: str, content: Content) -> _Part:
        head = content.read(tar.BLOCK)
        if head[257:262] == b"ustar" or not head.strip(b"\0"):
            return _Part(name, content.size, plain=True)
        size = 0
        with self.files.open(name) as again:
            for piece in _inflated(again):
                size += len(piece)
                if self._total + size > _LARGEST:
                    raise BadImage(f"its layers inflate to more than {_LARGEST} bytes")
        self._total += size
        return _Part(name, size, plain=False)


def _inflated(content: Content) -> Iterator[bytes]:
    return inflate(iter(partial(content.read, _PIECE), b""))


def _offer(entry: object) -> Offer:
    match entry:
        case {"Config": str(config), "Layers": list(layers), **rest} if all(
            isinstance(layer, str) for layer in layers
        ):
            match rest:
                case {"RepoTags": list(tags)}:
                    names = tuple(tag for tag in tags if isinstance(tag, str))
                case _:
                    names = ()
            return Offer(names, _said_digest(config), {"Config": config, "Layers": layers})
    raise BadImage(f"{LIST} has an image without a Config or a list of Layers")


def _said_digest(name: str) -> str:
    """Return the digest that the config's NAME says it has, or nothing."""
    match = _NAMED_BY_DIGEST.fullmatch(name)
    return f"sha256:{match['digest']}" if match else ""


def _diff_ids(config: bytes, count: int) -> tuple[str, ...]:
    """Return the digests of COUNT layers that CONFIG has; raises BadImage."""
    unknown = Descriptor("", "", 0)
    document = documents.parse(config, "image config")
    return documents.read_config(document, Manifest("", "", unknown, (unknown,) * count)).diff_ids


def _encode(config: Descriptor, layers: list[Descriptor]) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _said(config),
        "layers": [_said(layer) for layer in layers],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _said(descriptor: Descriptor) -> dict[str, Any]:
    return {
        "mediaType": descriptor.media_type,
        "size": descriptor.size,
        "digest": descriptor.digest,
    }
