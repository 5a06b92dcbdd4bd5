"""Manifests, indexes and image configs: JSON that anybody may have written.  Pure.

Media types and fields are those of the OCI image-spec and of docker's image
manifest version 2, schema 2.  What is not an image is refused with a sentence.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shifter_lite.errors import BadImage
from shifter_lite.records import Config
from shifter_lite.reference import is_digest

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
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"
_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7"}
# Nothing real comes near: a manifest of 127 layers has about 20 KB, a config about 100 KB.
LARGEST_JSON = 4 << 20
# Every launch reads it, and execve(2) takes little more.
_LARGEST_ENVIRONMENT = 128 << 10


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Where content lies: its media type, digest and size in bytes."""

    media_type: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image for one platform: its config and its layers, lowest first.

    ``digest`` is that of the manifest itself; ``index_digest`` that of the index
    it was chosen from, or empty.
    """

    digest: str
    index_digest: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The image's config: how to run it, where, and the digests of its layers uncompressed."""

    config: Config
    platform: str
    diff_ids: tuple[str, ...]


def media_type(document: dict[str, Any], content_type: str) -> str:
    """Return what DOCUMENT is: by its own word, else by the registry's, else by its shape."""
    for said in (document.get("mediaType"), content_type.partition(";")[0].strip()):
        if said in (*INDEXES, *MANIFESTS):
            return str(said)
        if isinstance(said, str) and said.startswith(_SCHEMA_1):
            return said
    if "schemaVersion" in document and document["schemaVersion"] == 1:
        return f"{_SCHEMA_1}json"
    if "manifests" in document:
        return INDEXES[0]
    return str(document.get("mediaType") or MANIFESTS[0])


def parse(data: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object DATA, which is a WHAT; raises BadImage."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadImage(f"the {what} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadImage(f"the {what} is not a JSON object")
    return document


def choose(index: dict[str, Any], platform: str) -> Descriptor:
    """Return the manifest of INDEX for PLATFORM, like ``linux/amd64``; raises BadImage."""
    offered = []
    for entry in _list(index, "manifests", "index"):
        if not isinstance(entry, dict):
            raise BadImage("the index lists something that is no manifest")
        name = _platform(entry.get("platform"))
        if _suits(name, platform):
            return descriptor(entry, "index")
        offered.append(name)
    known = ", ".join(sorted({name for name in offered if not name.startswith("unknown")}))
    raise BadImage(
        f"the image is not made for {platform!r}",
        hint=f"it is made for: {known}" if known else "it is made for no platform at all",
    )


def _platform(value: object) -> str:
    if value is None:
        return "unknown/unknown"
    if not isinstance(value, dict):
        raise BadImage("the index has a platform that is no object")
    words = [value.get("os"), value.get("architecture"), value.get("variant") or None]
    return "/".join(word for word in words if isinstance(word, str))


def _suits(offered: str, wanted: str) -> bool:
    return _with_variant(offered) == _with_variant(wanted)


def _with_variant(platform: str) -> str:
    system, _, rest = platform.partition("/")
    architecture, _, variant = rest.partition("/")
    if not variant:
        variant = _DEFAULT_VARIANTS.get(architecture, "")
    return f"{system}/{architecture}/{variant}"


def read_manifest(document: dict[str, Any], digest: str, index_digest: str) -> Manifest:
    """Return the manifest DOCUMENT, whose bytes have DIGEST; raises BadImage."""
    config = descriptor(document.get("config"), "manifest's config")
    if config.media_type not in _CONFIGS:
        raise BadImage(
            f"not a container image: its config is a {config.media_type!r}",
            hint="helm charts, attestations and other artifacts cannot be run",
        )
    layers = [descriptor(layer, "layer") for layer in _list(document, "layers", "manifest")]
    for number, layer in enumerate(layers, 1):
        _check_layer(layer, number)
    return Manifest(digest, index_digest, config, tuple(layers))


def _check_layer(layer: Descriptor, number: int) -> None:
    if layer.media_type in _LAYERS:
        return
    if "nondistributable" in layer.media_type or "foreign" in layer.media_type:
        raise BadImage(
            f"layer {number} is foreign: {layer.media_type!r}",
            hint="its content may not be distributed by registries",
        )
    raise BadImage(f"layer {number} has an unknown media type: {layer.media_type!r}")


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
        case {"mediaType": str(kind), "digest": str(digest), "size": int(size)} if (
            is_digest(digest) and size >= 0 and not isinstance(size, bool)
        ):
            return Descriptor(kind, digest, size)
    raise BadImage(f"the {what} has no proper media type, sha256 digest and size")


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
    run = document.get("config")
    run = {} if run is None else run
    if not isinstance(run, dict):
        raise BadImage("the image config's 'config' is not an object")
    config = _run_config(run)
    size = sum(map(len, (*config.env, *config.entrypoint, *config.cmd)))
    if size > _LARGEST_ENVIRONMENT:
        raise BadImage(
            f"the image's environment and commands have {size} characters, "
            f"more than {_LARGEST_ENVIRONMENT}"
        )
    words = (_text(document.get(key), key) for key in ("os", "architecture", "variant"))
    return ImageConfig(config, "/".join(filter(None, words)), tuple(diff_ids))


def _run_config(run: dict[str, Any]) -> Config:
    env = _words(run, "Env")
    for word in env:
        if "=" not in word or word.startswith("="):
            raise BadImage(f"the image config has a bad Env: {word!r}")
    return Config(
        env=env,
        entrypoint=_words(run, "Entrypoint"),
        cmd=_words(run, "Cmd"),
        workdir=_text(run.get("WorkingDir"), "WorkingDir"),
        user=_text(run.get("User"), "User"),
        labels=_labels(run.get("Labels")),
    )


def _words(run: dict[str, Any], key: str) -> tuple[str, ...]:
    value: Sequence[object] = run.get(key) or []
    # A string where a list belongs: docker wrote Entrypoint so, long ago.
    if isinstance(value, str) or not isinstance(value, list):
        raise BadImage(f"the image config's {key} is not a list")
    return tuple(_text(word, key) for word in value)


def _labels(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadImage("the image config's Labels are not an object")
    return {_text(key, "Labels"): _text(text, "Labels") for key, text in value.items()}


def _text(value: object, key: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadImage(f"the image config's {key} holds something that is no text")
    try:
        encoded = value.encode()
    except UnicodeEncodeError as error:
        raise BadImage(f"the image config's {key} is not Unicode") from error
    if b"\0" in encoded:
        raise BadImage(f"the image config's {key} holds a NUL")
    return value
