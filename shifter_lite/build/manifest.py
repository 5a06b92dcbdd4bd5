"""Manifests, indexes and image configs: JSON that anybody may have written.  Pure.

Media types and fields are those of the OCI image-spec and of docker's image
manifest version 2, schema 2.  What is not an image is refused with a sentence.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from shifter_lite import platforms
from shifter_lite.build import settings
from shifter_lite.build.digest import digest_of
from shifter_lite.errors import BadImage
from shifter_lite.platforms import is_platform
from shifter_lite.records import Config
from shifter_lite.reference import hint_on_digest, is_digest

INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_CONFIGS = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
_LAYERS = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
)
# Whether a registry may distribute it is its owner's affair: where it is, it is had.
_FOREIGN = (
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
)
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"
# What old versions of docker called a config; only in manifests of docker's.
_OLD_CONFIGS = ("application/octet-stream", "application/json", "text/html", "")
_ATTESTATION = "vnd.docker.reference.type"
_LARGEST_SIZE = (1 << 63) - 1
# Nothing real comes near: a manifest of 127 layers has about 20 KB, a config about 100 KB.
LARGEST_JSON = 4 << 20


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Where content lies: its media type, digest and size in bytes.

    ``data`` is the content itself where the descriptor holds it; ``platform`` is what
    an index says that it is made for.
    """

    media_type: str
    digest: str
    size: int
    data: bytes | None = None
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image for one platform: its config and its layers, lowest first.

    ``digest`` is that of the manifest itself; ``index_digest`` that of the index
    it was chosen from, or empty.  ``platform`` is what the config should be made for,
    if no index has said that it is; ``said`` is what an index has said.  ``suits`` are the
    platforms of the site's nodes that would be given it.
    """

    digest: str
    index_digest: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    platform: str = ""
    said: str = ""
    suits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The image's config: how to run it, where, and the digests of its layers uncompressed."""

    config: Config
    platform: str
    diff_ids: tuple[str, ...]


def media_type(document: dict[str, Any], content_type: str) -> str:
    """Return what DOCUMENT is: by its own word, else by the registry's, else by its shape.

    Raises BadImage if these contradict each other: else it would be one thing to us
    and another thing to others.
    """
    said = document.get("mediaType")
    if said is not None and not isinstance(said, str):
        raise BadImage("the manifest's media type is no text")
    told = content_type.partition(";")[0].strip().lower()
    kind = next((each for each in (said, told) if each and _is_known(each)), "")
    if not kind and "schemaVersion" in document and document["schemaVersion"] == 1:
        return f"{_SCHEMA_1}json"
    kind = kind or said or (INDEXES if "manifests" in document else MANIFESTS)[0]
    if _is_known(told) and (told in INDEXES) != (kind in INDEXES):
        raise BadImage(f"the registry calls {told!r} what calls itself {kind!r}")
    strange = ("layers", "config", "fsLayers") if kind in INDEXES else ("manifests", "fsLayers")
    if _is_known(kind) and not kind.startswith(_SCHEMA_1):
        for key in strange:
            if key in document:
                raise BadImage(f"a {kind!r} has no {key!r}, but this one has")
    return kind


def _is_known(kind: str) -> bool:
    return kind in (*INDEXES, *MANIFESTS) or kind.startswith(_SCHEMA_1)


def parse(data: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object DATA, which is a WHAT; raises BadImage.

    Of a key that is there twice the last counts, as for everybody else.
    """
    try:
        # Not left to json, which takes UTF-16 and byte order marks for JSON as well.
        document = json.loads(data.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadImage(f"the {what} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadImage(f"the {what} is not a JSON object")
    return document


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def candidates(index: dict[str, Any], platform: str) -> list[Descriptor]:
    """Return what of INDEX to look at for PLATFORM, in order; raises BadImage.

    That is the manifest that suits best; else the indexes in it; else the first
    manifest of which it does not say what it is made for.
    """
    listed = entries(index)
    wanted = platforms.runnable(platform)
    suiting = [entry for entry in listed if entry.platform in wanted]
    if suiting:
        # Of equals, the first.
        return [min(suiting, key=lambda entry: wanted.index(entry.platform))]
    unsaid = [entry for entry in listed if not entry.platform]
    return [entry for entry in unsaid if entry.media_type in INDEXES] or unsaid[:1]


def choose(index: dict[str, Any], platform: str) -> Descriptor:
    """Return what of INDEX, in which there are no others, is for PLATFORM; raises BadImage."""
    for found in candidates(index, platform):
        return found
    raise not_made_for(index, platform)


def not_made_for(index: dict[str, Any], platform: str) -> BadImage:
    """Return the error that INDEX has nothing for PLATFORM."""
    known = sorted({each.platform for each in entries(index) if is_platform(each.platform)})
    made_for = f"it is made for: {', '.join(known)}" if known else "it is made for no platform"
    return BadImage(f"the image is not made for {platform!r}", hint=made_for)


def entries(index: dict[str, Any]) -> list[Descriptor]:
    """Return what INDEX lists that may be an image, each with its platform."""
    found = []
    for entry in _list(index, "manifests", "index"):
        if not isinstance(entry, dict):
            raise BadImage("the index lists something that is no manifest")
        platform = _platform(entry.get("platform"))
        kind, annotations = entry.get("mediaType"), entry.get("annotations")
        about_another = isinstance(annotations, dict) and _ATTESTATION in annotations
        if platform.startswith("unknown/") or about_another:
            continue
        if isinstance(kind, str) and not _is_known(kind):
            continue
        found.append(replace(descriptor(entry, "index"), platform=platform))
    return found


def _platform(value: object) -> str:
    """Return the platform VALUE of an entry in its normal form, or nothing."""
    if value is None:
        return ""
    words = []
    for key in ("os", "architecture", "variant"):
        word = value.get(key) if isinstance(value, dict) else 0
        if word is not None and not isinstance(word, str):
            raise BadImage("the index has a platform that is none")
        words.append(word or "")
    return platforms.normal_form(*words)


def read_manifest(
    document: dict[str, Any], digest: str, index_digest: str, platform: str = "", said: str = ""
) -> Manifest:
    """Return the manifest DOCUMENT, whose bytes have DIGEST, chosen for PLATFORM.

    What an index has SAID that it is made for counts; only where it says nothing, the config's
    own word does.  Raises BadImage.
    """
    config = descriptor(document.get("config"), "manifest's config")
    of_docker = document.get("mediaType") == MANIFESTS[1]
    if config.media_type not in (*_CONFIGS, *_OLD_CONFIGS * of_docker):
        raise BadImage(
            f"not a container image: its config is a {config.media_type!r}",
            hint="helm charts, attestations and other artifacts cannot be run",
        )
    # Programs in Go write no layers so.
    none = "layers" in document and document["layers"] is None
    listed = [] if none else _list(document, "layers", "manifest")
    layers = [descriptor(layer, "layer") for layer in listed]
    for number, layer in enumerate(layers, 1):
        _check_layer(layer, number)
    expected = "" if said else platform
    return Manifest(digest, index_digest, config, tuple(layers), expected, said)


def _check_layer(layer: Descriptor, number: int) -> None:
    kind = layer.media_type
    if kind in (*_LAYERS, *_FOREIGN):
        return
    if "nondistributable" in kind or "foreign" in kind:
        raise BadImage(
            f"layer {number} is foreign: {kind!r}",
            hint="its content may not be distributed by registries",
        )
    hint = "it may be of a newer kind, or no layer: skopeo inspect --raw shows what it is"
    if kind.endswith("+encrypted"):
        hint = "it is encrypted: who has its key can copy it: skopeo copy --decryption-key"
    raise BadImage(f"layer {number} has an unknown media type: {kind!r}", hint=hint)


def hint_if_missing(blob: Descriptor) -> str:
    """Return what to tell somebody whose image lacks BLOB; nothing if it should be there."""
    if blob.media_type in _FOREIGN:
        return "the layer is nondistributable: push the image where that is allowed, with it"
    return ""


def refuse_schema_1(kind: str) -> None:
    """Raise BadImage if KIND, a media type, is docker's image manifest schema 1."""
    if kind.startswith(_SCHEMA_1):
        raise BadImage(
            "the image has a docker schema 1 manifest, which nobody makes any more",
            hint="push it again with a current docker or podman",
        )


def descriptor(value: object, what: str) -> Descriptor:
    """Return the descriptor VALUE, of a WHAT; raises BadImage."""
    match value:
        case {"digest": str(digest)} if not is_digest(digest):
            raise BadImage(f"the {what} has a bad digest: {digest!r}", hint=hint_on_digest(digest))
        case {"mediaType": str(kind), "digest": str(digest), "size": int(size), **more} if (
            0 <= size <= _LARGEST_SIZE and not isinstance(size, bool)
        ):
            return Descriptor(kind, digest, size, _data(more.get("data"), digest, size, what))
    raise BadImage(f"the {what} has no proper media type, sha256 digest and size")


def _data(encoded: object, digest: str, size: int, what: str) -> bytes | None:
    """Return the content that a descriptor itself holds, if it does: OCI image-spec 1.1."""
    if encoded is None:
        return None
    try:
        data = base64.b64decode(str(encoded), validate=True)
    except ValueError as error:
        raise BadImage(f"the {what}'s data is not base64") from error
    if len(data) != size or digest_of(data) != digest:
        raise BadImage(f"the {what}'s data has not the digest and size that it should have")
    return data


def _list(document: dict[str, Any], key: str, what: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise BadImage(f"the {what} has no list of {key}")
    return value


def read_config(document: dict[str, Any], manifest: Manifest) -> ImageConfig:
    """Return the image config DOCUMENT, of MANIFEST; raises BadImage."""
    rootfs = document.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    diff_ids = [] if diff_ids is None and not manifest.layers else diff_ids
    if not isinstance(diff_ids, list) or not all(
        isinstance(digest, str) and is_digest(digest) for digest in diff_ids
    ):
        raise BadImage("the image config has no proper list of diff_ids")
    if len(diff_ids) != len(manifest.layers):
        raise BadImage(f"the image has {len(manifest.layers)} layers but {len(diff_ids)} diff_ids")
    config = settings.read(document.get("config"))
    words = [settings.text(document.get(key), key) for key in ("os", "architecture", "variant")]
    platform = "/".join(filter(None, words)) if words[0] and words[1] else ""
    check_platform(platform, manifest.platform)
    return ImageConfig(config, platform, tuple(diff_ids))


def check_platform(made_for: str, wanted: str) -> None:
    """Raise BadImage if what runs WANTED does not run what is MADE_FOR, as far as both are said."""
    words = made_for.split("/", 2)
    if made_for and wanted and platforms.normal_form(*words) not in platforms.runnable(wanted):
        raise BadImage(
            f"the image is made for {made_for!r}, not for {wanted!r}",
            hint="to have it all the same, name the platform that it is made for: --platform",
        )
