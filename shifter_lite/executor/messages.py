"""What a build in a child process says to its worker: one line of JSON each.

    {"say": "status", "status": …}                  how far it is
    {"say": "asked", "manifest": …, "recipe": …}  what the image is; it waits to be told to go on
    {"say": "built", "id": …}                       the image is in the store
    {"say": "failed", "fact": …, "hint": …, "code": …, "busy": …}
    {"say": "refused", "errno": …, "file": …}       a system call failed, which may be the store's

A child reads what anybody may have made.  So its words are data, which are checked: whatever
became of it, its worker goes on.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from dataclasses import asdict, dataclass
from typing import Any

from shifter_lite.build.manifest import Descriptor, Manifest
from shifter_lite.errors import Damaged, RegistryBusy, Reported, ShifterError
from shifter_lite.records import encode_json
from shifter_lite.reference import is_digest, is_id
from shifter_lite.request import Status

# A manifest has at most 4 MiB; as JSON, what is not ASCII in it may become six times as long.
MAX_LINE_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Asked:
    """What the image is; by which ``recipe``, if it is one that is taken as it is."""

    manifest: Manifest
    recipe: str = ""


@dataclass(frozen=True, slots=True)
class Built:
    """The image with the id ``image_id`` is in the store."""

    image_id: str


@dataclass(frozen=True, slots=True)
class Failed:
    """There is no image, because of ``error``."""

    error: ShifterError | OSError


Said = Status | Asked | Built | Failed


def encode(said: Said) -> bytes:
    """Return SAID as one line."""
    match said:
        case Status():
            fields: dict[str, Any] = {"say": "status", "status": {"v": 1, **asdict(said)}}
        case Asked(manifest, recipe):
            fields = {"say": "asked", "manifest": _written(manifest), "recipe": recipe}
        case Built(image_id):
            fields = {"say": "built", "id": image_id}
        case Failed(ShifterError() as error):
            fields = {
                "say": "failed",
                "fact": str(error),
                "hint": error.hint,
                "code": error.exit_code,
                "busy": isinstance(error, RegistryBusy),
            }
        case Failed(OSError() as error):
            name = error.filename
            file = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else ""
            fields = {"say": "refused", "errno": error.errno or 0, "file": file}
    return encode_json(fields)


def decode(line: bytes) -> Said:
    """Read what ``encode`` wrote; raises Damaged."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"a build said what is not JSON: {error}") from error
    match fields:
        case {"say": "status", "status": dict(status)}:
            return Status.from_bytes(encode_json(status))
        case {"say": "asked", "manifest": dict(manifest), "recipe": str(recipe)}:
            return Asked(_read(manifest), recipe)
        case {"say": "built", "id": str(image_id)} if is_id(image_id):
            return Built(image_id)
        case {"say": "failed", "busy": True, "fact": str(fact), "hint": str(hint)}:
            return Failed(RegistryBusy(fact, hint=hint))
        case {"say": "failed", "fact": str(fact), "hint": str(hint), "code": int(code)} if (
            0 < code < 256
        ):
            return Failed(Reported(fact, hint=hint, exit_code=code))
        case {"say": "refused", "errno": int(number), "file": str(file)}:
            return Failed(OSError(number, os.strerror(number), file or None))
    raise Damaged("a build said what means nothing")


def _written(manifest: Manifest) -> dict[str, Any]:
    return {
        "digest": manifest.digest,
        "index_digest": manifest.index_digest,
        "platform": manifest.platform,
        "said": manifest.said,
        "suits": manifest.suits,
        "config": _written_descriptor(manifest.config),
        "layers": [_written_descriptor(layer) for layer in manifest.layers],
    }


def _written_descriptor(descriptor: Descriptor) -> dict[str, Any]:
    data = descriptor.data
    text = None if data is None else base64.b64encode(data).decode()
    return {**asdict(descriptor), "data": text}


def _read(fields: dict[str, Any]) -> Manifest:
    match fields:
        case {
            "digest": str(digest),
            "index_digest": str(index_digest),
            "platform": str(platform),
            "said": str(said),
            "suits": list(suits),
            "config": dict(config),
            "layers": list(layers),
        } if is_digest(digest) and (not index_digest or is_digest(index_digest)):
            if not all(isinstance(each, str) for each in suits):
                raise Damaged("a build named platforms that are none")
            return Manifest(
                digest=digest,
                index_digest=index_digest,
                config=_read_descriptor(config),
                layers=tuple(_read_descriptor(layer) for layer in layers),
                platform=platform,
                said=said,
                suits=tuple(suits),
            )
    raise Damaged("a build named a manifest that is none")


def _read_descriptor(fields: object) -> Descriptor:
    match fields:
        case {
            "media_type": str(media_type),
            "digest": str(digest),
            "size": int(size),
            "data": (None | str()) as text,
            "platform": str(platform),
        } if (not digest or is_digest(digest)) and size >= 0:
            try:
                data = None if text is None else base64.b64decode(text, validate=True)
            except binascii.Error as error:
                raise Damaged("a build named a layer that is none") from error
            return Descriptor(media_type, digest, size, data, platform)
    raise Damaged("a build named a layer that is none")
