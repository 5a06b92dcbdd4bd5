"""Container images from descriptions, as deterministic bytes, and their way into a registry.

    layer([file("etc/motd", b"hello"), whiteout("etc/issue")])    one layer
    image([lower, upper], settings={"Env": ["A=1"]})              a manifest, and what it needs
    index({"linux/amd64": one, "linux/arm64": other})             a choice of them
    push(registry, "demo", "1", image)                            returns its digest

For broken ones: bytes stand in a layer as they are, ``patch`` falsifies a tar
header, and ``seal`` makes an image of any document.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import requests
import zstandard

Compression = Literal["none", "gzip", "zstd"]
# One of tarfile's: USTAR_FORMAT, GNU_FORMAT, PAX_FORMAT.
Dialect = Literal[0, 1, 2]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

MTIME = 1_700_000_000
_BLOCK = 512
_CHECKSUM = slice(148, 156)
_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One member of a layer; ``type`` is tar's type flag."""

    name: str | bytes
    type: bytes
    mode: int
    data: bytes = b""
    target: str | bytes = ""
    uid: int = 0
    gid: int = 0
    mtime: float = MTIME
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, str] = field(default_factory=dict)


def file(name: str | bytes, data: bytes = b"", *, mode: int = 0o644, **more: Any) -> Entry:
    """Return a regular file."""
    return Entry(name=name, type=tarfile.REGTYPE, mode=mode, data=data, **more)


def directory(name: str | bytes, *, mode: int = 0o755, **more: Any) -> Entry:
    """Return a directory."""
    return Entry(name=name, type=tarfile.DIRTYPE, mode=mode, **more)


def symlink(name: str | bytes, target: str | bytes, **more: Any) -> Entry:
    """Return a symbolic link to TARGET."""
    return Entry(name=name, type=tarfile.SYMTYPE, mode=0o777, target=target, **more)


def hardlink(name: str | bytes, target: str | bytes, *, mode: int = 0o644, **more: Any) -> Entry:
    """Return a further name of the member TARGET."""
    return Entry(name=name, type=tarfile.LNKTYPE, mode=mode, target=target, **more)


def fifo(name: str | bytes, *, mode: int = 0o644, **more: Any) -> Entry:
    """Return a named pipe."""
    return Entry(name=name, type=tarfile.FIFOTYPE, mode=mode, **more)


def device(name: str | bytes, major: int, minor: int, *, mode: int = 0o666, **more: Any) -> Entry:
    """Return a character device."""
    return Entry(name=name, type=tarfile.CHRTYPE, mode=mode, device=(major, minor), **more)


def whiteout(path: str, **more: Any) -> Entry:
    """Return the mark that PATH of the layers below is gone."""
    parent, slash, name = path.rpartition("/")
    return file(f"{parent}{slash}.wh.{name}", **more)


def opaque(path: str = "", **more: Any) -> Entry:
    """Return the mark that the directory PATH of the layers below is emptied."""
    return file(f"{path}/.wh..wh..opq" if path else ".wh..wh..opq", **more)


def member(entry: Entry, dialect: Dialect = tarfile.PAX_FORMAT) -> bytes:
    """Return ENTRY as it stands in a tar archive, its data included."""
    info = tarfile.TarInfo(os.fsdecode(entry.name))
    info.type, info.mode, info.linkname = entry.type, entry.mode, os.fsdecode(entry.target)
    info.uid, info.gid, info.mtime = entry.uid, entry.gid, entry.mtime
    info.devmajor, info.devminor = entry.device
    info.size = len(entry.data)
    info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in entry.xattrs.items()}
    header = info.tobuf(dialect, "utf-8", "surrogateescape")
    return header + entry.data + bytes(-len(entry.data) % _BLOCK)


def patch(archive: bytes, offset: int, value: bytes) -> bytes:
    """Return ARCHIVE with VALUE at OFFSET of its first header, and the right checksum again."""
    header = bytearray(archive[:_BLOCK])
    header[offset : offset + len(value)] = value
    header[_CHECKSUM] = b" " * 8
    header[_CHECKSUM] = b"%06o\0 " % sum(header)
    return bytes(header) + archive[_BLOCK:]


def tar(entries: Iterable[Entry | bytes], dialect: Dialect = tarfile.PAX_FORMAT) -> bytes:
    """Return an archive of ENTRIES; bytes stand in it as they are."""
    members = (each if isinstance(each, bytes) else member(each, dialect) for each in entries)
    return b"".join(members) + bytes(2 * _BLOCK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer's blob, and the digest of the archive in it."""

    blob: bytes
    compression: Compression
    diff_id: str


def layer(entries: Iterable[Entry | bytes], compression: Compression = "gzip") -> Layer:
    """Return a layer of ENTRIES."""
    return packed(tar(entries), compression)


def packed(archive: bytes, compression: Compression = "gzip") -> Layer:
    """Return ARCHIVE as a layer."""
    blob = archive
    if compression == "gzip":
        buffer = io.BytesIO()
        with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=6, mtime=0) as output:
            output.write(archive)
        blob = buffer.getvalue()
    elif compression == "zstd":
        blob = zstandard.ZstdCompressor(level=3).compress(archive)
    return Layer(blob=blob, compression=compression, diff_id=sha256(archive))


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A manifest or an index, with all that it names."""

    document: bytes
    media_type: str
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    children: Sequence[Image] = ()

    @property
    def digest(self) -> str:
        """The digest of the document."""
        return sha256(self.document)

    @property
    def content(self) -> dict[str, Any]:
        """The document, to falsify it and ``seal`` it again."""
        decoded: dict[str, Any] = json.loads(self.document)
        return decoded


def image(
    layers: Sequence[Layer],
    *,
    settings: Mapping[str, Any] | None = None,
    platform: str = "linux/amd64",
    docker: bool = False,
    config: bytes | None = None,
) -> Image:
    """Return an image of LAYERS; SETTINGS are Env, Cmd and so on; CONFIG replaces the whole."""
    system, _, architecture = platform.partition("/")
    if config is None:
        config = encode(
            {
                "architecture": architecture,
                "os": system,
                "config": dict(settings or {}),
                "rootfs": {"type": "layers", "diff_ids": [each.diff_id for each in layers]},
            }
        )
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
        "config": descriptor(config, DOCKER_CONFIG if docker else OCI_CONFIG),
        "layers": [descriptor(each.blob, _layer_type(each, docker)) for each in layers],
    }
    blobs = {sha256(data): data for data in (config, *(each.blob for each in layers))}
    return seal(document, blobs)


def _layer_type(each: Layer, docker: bool) -> str:
    suffix = "" if each.compression == "none" else each.compression
    # Docker's types put a dot where OCI's put a plus.
    separator = ("." if docker else "+") if suffix else ""
    return (DOCKER_LAYER if docker else OCI_LAYER) + separator + suffix


def index(images: Mapping[str, Image], *, docker: bool = False) -> Image:
    """Return an index of IMAGES by their platforms, like ``linux/arm64/v8``."""
    manifests = []
    for platform, each in images.items():
        names = zip(("os", "architecture", "variant"), platform.split("/"), strict=False)
        entry = descriptor(each.document, each.media_type)
        manifests.append({**entry, "platform": dict(names)})
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_INDEX if docker else OCI_INDEX,
        "manifests": manifests,
    }
    return replace(seal(document), children=tuple(images.values()))


def seal(document: Mapping[str, Any], blobs: Mapping[str, bytes] | None = None) -> Image:
    """Return DOCUMENT, a manifest with its BLOBS, as it is."""
    return Image(
        document=encode(document), media_type=str(document["mediaType"]), blobs=blobs or {}
    )


def descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    """Return what names DATA in a document."""
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}


def encode(document: Mapping[str, Any]) -> bytes:
    """Return DOCUMENT as JSON."""
    return json.dumps(document, separators=(",", ":")).encode()


def sha256(data: bytes) -> str:
    """Return the digest of DATA."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def push(registry: str, name: str, tag: str, pushed: Image) -> str:
    """Put PUSHED as NAME:TAG into the registry at the address REGISTRY; return its digest."""
    base = f"http://{registry}/v2/{name}"
    with requests.Session() as session:
        # Neither a proxy nor anybody's password has a place between us and the loopback.
        session.trust_env = False
        for digest, data in pushed.blobs.items():
            _push_blob(session, base, digest, data)
        for child in pushed.children:
            push(registry, name, child.digest, child)
        headers = {"Content-Type": pushed.media_type}
        url = f"{base}/manifests/{tag}"
        answer = session.put(url, data=pushed.document, headers=headers, timeout=_TIMEOUT)
        _expect(answer, 201)
    return pushed.digest


def _push_blob(session: requests.Session, base: str, digest: str, data: bytes) -> None:
    started = session.post(f"{base}/blobs/uploads/", timeout=_TIMEOUT)
    _expect(started, 202)
    headers = {"Content-Type": "application/octet-stream"}
    place, query = started.headers["Location"], {"digest": digest}
    _expect(session.put(place, params=query, data=data, headers=headers, timeout=_TIMEOUT), 201)


def _expect(answer: requests.Response, status: int) -> None:
    if answer.status_code != status:
        raise RuntimeError(f"the registry answered {answer.status_code}: {answer.text}")
