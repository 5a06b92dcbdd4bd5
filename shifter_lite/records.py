"""What lies in the store of an image: its description, its record, its entries in the index.

Each reads itself from bytes that anybody may have written, and trusts nothing.
Formats: spool/README.md and spool/index.md.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from shifter_lite.errors import Damaged
from shifter_lite.reference import is_digest, is_id

# Numbers in the index have at most 18 digits.
_TOO_LARGE = 10**18


def encode_json(value: object) -> bytes:
    """Return VALUE as one line of JSON, its keys sorted: equal values are equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What an image says about how to run it; ``Env``, ``Cmd`` … of the OCI image config."""

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What an image is: everything that its bytes follow from.

    It is the last part of every image file, so that the file's digest, which is
    the image's id, covers it, and the file says by itself what it holds.
    """

    digest: str
    platform: str
    recipe: str
    layers: tuple[str, ...]
    config: Config

    def to_bytes(self) -> bytes:
        """Return the same bytes for the same image, on every machine."""
        return encode_json({"v": 1, **asdict(self)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what ``to_bytes`` wrote; raises Damaged."""
        fields = read_json(data, "image")
        try:
            return cls._from_fields(fields)
        except (KeyError, TypeError) as error:
            raise Damaged(f"an image's description lacks a field: {error}") from error

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> Self:
        config = fields["config"]
        if not is_digest(_text(fields["digest"])):
            raise Damaged("an image's description has no digest")
        return cls(
            digest=fields["digest"],
            platform=_text(fields["platform"]),
            recipe=_text(fields["recipe"]),
            layers=_texts(fields["layers"]),
            config=Config(
                env=_texts(config["env"]),
                entrypoint=_texts(config["entrypoint"]),
                cmd=_texts(config["cmd"]),
                workdir=_text(config["workdir"]),
                user=_text(config["user"]),
                labels=_labels(config["labels"]),
            ),
        )


def _labels(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Damaged("an image's description has labels that are none")
    return {_text(key): _text(word) for key, word in value.items()}


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise Damaged("an image's description has something else where a list belongs")
    return tuple(_text(word) for word in value)


def _text(value: object) -> str:
    """Return VALUE, if it is a text that an entry of the index can hold; raises Damaged."""
    if not isinstance(value, str) or "\0" in value:
        raise Damaged("an image's description has something else where a text belongs")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Damaged("an image's description has a text that is not Unicode") from error
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image in the store: its record, ``images/AA/ID.json``."""

    id: str
    size: int
    content: Content

    def to_bytes(self) -> bytes:
        """Return what lies beside the image file."""
        content = json.loads(self.content.to_bytes())
        return encode_json({"v": 1, "id": self.id, "size": self.size, "content": content})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a record; raises Damaged."""
        match read_json(data, "record"):
            case {"id": str(image_id), "size": int(size), "content": dict(content)} if (
                is_id(image_id) and type(size) is int and 0 <= size < _TOO_LARGE
            ):
                return cls(id=image_id, size=size, content=Content.from_bytes(encode_json(content)))
        raise Damaged("an image's record lacks a field")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the index says of one name.

    ``platform`` is what the image is made for, in normal form; empty where that is not known.
    ``asked`` is whether users have named a digest, which otherwise came with a tag.
    """

    id: str
    size: int
    digest: str
    time: int
    config: Config
    platform: str = ""
    asked: bool = False

    @classmethod
    def of(cls, image: Image, when: int, platform: str = "") -> Self:
        """Return the entry of a name for IMAGE, made for PLATFORM, pulled at WHEN.

        WHEN is in seconds since 1970.
        """
        content = image.content
        return cls(
            id=image.id,
            size=image.size,
            digest=content.digest,
            time=when,
            config=content.config,
            platform=platform,
        )

    def to_bytes(self, key: bytes) -> bytes:
        """Return the value under KEY."""
        config = self.config
        fields = [
            ("id", self.id),
            ("size", str(self.size)),
            ("digest", self.digest),
            ("time", str(self.time)),
            *([("platform", self.platform)] if self.platform else []),
            *([("asked", "yes")] if self.asked else []),
            *(("env", word) for word in config.env),
            *(("entrypoint", word) for word in config.entrypoint),
            *(("cmd", word) for word in config.cmd),
            *([("workdir", config.workdir)] if config.workdir else []),
            *([("user", config.user)] if config.user else []),
        ]
        return seal(key, fields)

    @classmethod
    def from_bytes(cls, key: bytes, value: bytes) -> Self:
        """Read the value under KEY; raises Damaged."""
        fields = unseal(key, value)
        entry = cls(
            id=_one(fields, "id"),
            size=_number(_one(fields, "size")),
            digest=_one(fields, "digest"),
            time=_number(_one(fields, "time")),
            config=Config(
                env=_all(fields, "env"),
                entrypoint=_all(fields, "entrypoint"),
                cmd=_all(fields, "cmd"),
                workdir=_at_most_one(fields, "workdir"),
                user=_at_most_one(fields, "user"),
            ),
            platform=_at_most_one(fields, "platform"),
            asked=bool(_at_most_one(fields, "asked")),
        )
        if not is_id(entry.id) or not is_digest(entry.digest):
            raise Damaged("an entry of the index has no image id")
        return entry


Fields = list[tuple[str, str]]
# A field may hold any byte but NUL.
_ANY_BYTE = "surrogateescape"


def seal(key: bytes, fields: Iterable[tuple[str, str]]) -> bytes:
    """Return the value of the index that holds FIELDS under KEY; see spool/index.md."""
    words = (f"{name}={text}".encode(errors=_ANY_BYTE) for name, text in (("v", "1"), *fields))
    body = b"".join(word + b"\0" for word in words)
    return body + b"sum=%08x\0" % zlib.crc32(body, zlib.crc32(key + b"\0"))


def unseal(key: bytes, value: bytes) -> Fields:
    """Return the fields of VALUE, found under KEY; raises Damaged."""
    body, tail = value[:-13], value[-13:]
    if tail != b"sum=%08x\0" % zlib.crc32(body, zlib.crc32(key + b"\0")):
        raise Damaged("an entry of the index has a wrong checksum")
    if not body.startswith(b"v=") or not body.endswith(b"\0"):
        raise Damaged("an entry of the index has no version")
    if not body.startswith(b"v=1\0"):
        raise Damaged("the index was made by a newer version", hint="install a newer shifter_lite")
    words = body.decode(errors=_ANY_BYTE).split("\0")[:-1]
    if not all("=" in word for word in words):
        raise Damaged("an entry of the index has a field without a value")
    return [(name, text) for name, _, text in (word.partition("=") for word in words)]


def _all(fields: Fields, name: str) -> tuple[str, ...]:
    return tuple(text for key, text in fields if key == name)


def _one(fields: Fields, name: str) -> str:
    match _all(fields, name):
        case (text,):
            return text
    raise Damaged(f"an entry of the index has not one {name!r}")


def _at_most_one(fields: Fields, name: str) -> str:
    match _all(fields, name):
        case ():
            return ""
        case (text,):
            return text
    raise Damaged(f"an entry of the index has {name!r} twice")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Damaged(f"an entry of the index has a bad number: {text!r}")
    return int(text)


def read_json(data: bytes, what: str) -> dict[str, Any]:
    """Return the fields of DATA, a WHAT of version 1; raises Damaged."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"a {what} is not JSON: {error}") from error
    if not isinstance(fields, dict) or fields.get("v") is True or fields.get("v") != 1:
        raise Damaged(f"a {what} is not version 1")
    return fields
