"""Images as OCI layouts on disk, for tools that want them so."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.images import OCI_INDEX, Image, descriptor, encode, sha256


def write(path: Path, image: Image, tag: str) -> None:
    """Write IMAGE, a manifest, as the OCI layout PATH, which is not there yet, under TAG."""
    place = path / "blobs/sha256"
    place.mkdir(parents=True)
    for data in (*image.blobs.values(), image.document):
        (place / sha256(data).removeprefix("sha256:")).write_bytes(data)
    named = {"annotations": {"org.opencontainers.image.ref.name": tag}}
    manifest = {**descriptor(image.document, image.media_type), **named}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [manifest]}
    (path / "index.json").write_bytes(encode(index))
    (path / "oci-layout").write_bytes(encode({"imageLayoutVersion": "1.0.0"}))
