"""Images as files: OCI layouts and docker archives, right or as wrong as a test wants them.

    files({"1": image})                     the files of an OCI layout; the keys name the images
    written(directory, files(…))            … as a directory
    packed(path, files(…))                  … as a tar archive
    saved(path, entries(image, ["a:1"]))    a docker archive, as docker wrote it until version 24

``files`` and ``entries`` can be falsified before they are written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.helpers import images
from tests.helpers.images import Entry, Image

MARK = b'{"imageLayoutVersion": "1.0.0"}'
REF = "org.opencontainers.image.ref.name"


def files(named: Mapping[str, Image], **more: Any) -> dict[str, bytes]:
    """Return the files of an OCI layout of the images NAMED; the index says MORE of each."""
    listed = [described(image, name, **more) for name, image in named.items()]
    blobs = {digest: data for image in named.values() for digest, data in content(image).items()}
    return {
        "oci-layout": MARK,
        "index.json": images.encode({"schemaVersion": 2, "manifests": listed}),
        **{blob(digest): data for digest, data in blobs.items()},
    }


def described(image: Image, name: str = "", **more: Any) -> dict[str, Any]:
    """Return what an ``index.json`` says of IMAGE."""
    annotations = {"annotations": {REF: name}} if name else {}
    return {**images.descriptor(image.document, image.media_type), **annotations, **more}


def blob(digest: str) -> str:
    """Return the file of the blob with DIGEST in an OCI layout."""
    return f"blobs/{digest.replace(':', '/')}"


def content(image: Image) -> dict[str, bytes]:
    """Return all blobs of IMAGE, its documents among them."""
    found = {**image.blobs, image.digest: image.document}
    for child in image.children:
        found |= content(child)
    return found


def written(directory: Path, named: Mapping[str, bytes]) -> Path:
    """Write files as NAMED into DIRECTORY, which everybody may read."""
    for name, data in named.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory


def packed(path: Path, named: Mapping[str, bytes], *more: Entry | bytes) -> Path:
    """Make PATH a tar archive of files as NAMED, and of MORE."""
    path.write_bytes(images.tar([*(images.file(*each) for each in named.items()), *more]))
    return path


# What an archive holds of one image, and its entry in manifest.json.
Saved = tuple[list[Entry], dict[str, Any]]


def entries(image: Image, tags: Sequence[str] | None = None) -> Saved:
    """Return what ``docker save`` made of IMAGE, called TAGS; a layer that is twice is a link."""
    document = image.content
    digest = document["config"]["digest"]
    name = f"{digest.removeprefix('sha256:')}.json"
    members, layers = [images.file(name, image.blobs[digest])], []
    first: dict[str, str] = {}
    for number, layer in enumerate(document["layers"]):
        # Docker's ids of layers are digests of something that is not in the archive.
        directory = images.sha256(f"{name} {number}".encode()).removeprefix("sha256:")
        path = f"{directory}/layer.tar"
        members += [images.directory(directory), images.file(f"{directory}/VERSION", b"1.0")]
        if layer["digest"] in first:
            members.append(images.symlink(path, f"../{first[layer['digest']]}"))
        else:
            members.append(images.file(path, image.blobs[layer["digest"]]))
            first[layer["digest"]] = path
        layers.append(path)
    return members, {"Config": name, "RepoTags": tags, "Layers": layers}


def saved(path: Path, *several: Saved) -> Path:
    """Make PATH a docker archive of SEVERAL images."""
    members = [member for each, _ in several for member in each]
    listed = json.dumps([entry for _, entry in several]).encode()
    path.write_bytes(images.tar([*members, images.file("manifest.json", listed)]))
    return path
