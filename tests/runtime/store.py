"""Stores for the launcher's tests, made from the format's own words (spool/index.md).

Written apart from ``shifter_lite`` on purpose: what the launcher reads is the contract, and a
mistake made alike by our writer and our reader shows here.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

Items = Iterable[tuple[bytes, bytes]]
DIGEST = "sha256:" + "d" * 64


def key_hash(key: bytes) -> int:
    value = 5381
    for byte in key:
        value = (value * 33 & 0xFFFFFFFF) ^ byte
    return value


def cdb(items: Items) -> bytes:
    """Return a constant database."""
    records, tables = bytearray(2048), [[] for _ in range(256)]  # type: ignore[var-annotated]
    for key, value in items:
        tables[key_hash(key) % 256].append((key_hash(key), len(records)))
        records += struct.pack("<II", len(key), len(value)) + key + value
    for number, entries in enumerate(tables):
        slots = [(0, 0)] * (2 * len(entries))
        for hashed, position in entries:
            slot = hashed // 256 % len(slots)
            while slots[slot][1]:
                slot = (slot + 1) % len(slots)
            slots[slot] = (hashed, position)
        struct.pack_into("<II", records, 8 * number, len(records), len(slots))
        records += b"".join(struct.pack("<II", *slot) for slot in slots)
    return bytes(records)


def sealed(key: bytes, fields: Iterable[tuple[str, str]], version: str = "1") -> bytes:
    """Return a value with its checksum."""
    words = [("v", version), *fields]
    body = b"".join(name.encode() + b"=" + text.encode() + b"\0" for name, text in words)
    return body + b"sum=%08x\0" % zlib.crc32(key + b"\0" + body)


def entry(
    key: bytes,
    image_id: str,
    size: int,
    *,
    env: Iterable[str] = (),
    entrypoint: Iterable[str] = (),
    cmd: Iterable[str] = (),
    workdir: str | None = None,
    platform: str | None = None,
    version: str = "1",
) -> bytes:
    """Return the value of an image under KEY."""
    fields = [("id", image_id), ("size", str(size)), ("digest", DIGEST), ("time", "1700000000")]
    fields += [("env", word) for word in env]
    fields += [("entrypoint", word) for word in entrypoint]
    fields += [("cmd", word) for word in cmd]
    if workdir is not None:
        fields.append(("workdir", workdir))
    if platform is not None:
        fields.append(("platform", platform))
    return sealed(key, fields, version)


def write_generation(store: Path, items: Items, number: int = 1) -> Path:
    """Write one generation of STORE's index."""
    path = store / "index" / f"images.{number:010d}.cdb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cdb(items))
    path.chmod(0o644)
    return path


def image_path(store: Path, image_id: str) -> Path:
    return store / "images" / image_id[:2] / f"{image_id}.squashfs"


def add_image(store: Path, image_file: Path) -> tuple[str, int]:
    """Put IMAGE_FILE into STORE; return its id and its size."""
    image_id = hashlib.sha256(image_file.read_bytes()).hexdigest()
    path = image_path(store, image_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image_file, path)
    path.chmod(0o644)
    return image_id, path.stat().st_size


def make_store(
    store: Path,
    image_file: Path,
    name: str = "docker.io/library/test:latest",
    *,
    env: Iterable[str] = (),
    entrypoint: Iterable[str] = (),
    cmd: Iterable[str] = (),
    workdir: str | None = None,
    number: int = 1,
) -> str:
    """Make a store in which NAME, a normalised one, is IMAGE_FILE; return the image's id."""
    image_id, size = add_image(store, image_file)
    keys = (name.encode(), b"id:" + image_id.encode())
    values = [
        entry(key, image_id, size, env=env, entrypoint=entrypoint, cmd=cmd, workdir=workdir)
        for key in keys
    ]
    write_generation(store, zip(keys, values, strict=True), number)
    for directory in (store, *store.rglob("*")):
        if directory.is_dir():
            directory.chmod(0o755)
    return image_id


def described(image: Path, fields: Iterable[tuple[str, str]], path: Path) -> Path:
    """Return IMAGE at PATH, with a description that says FIELDS."""
    data = image.read_bytes()
    used = int.from_bytes(data[40:48], "little")
    said = sealed(b"image", fields)
    end = b"shifter-lite image 1 3 %d\n{}\n%b" % (len(said), said)
    data = data[:used] + bytes(-used % 4096) + end
    path.write_bytes(data + bytes(-len(data) % 4096))
    return path
