"""Images that take long to make: each is made once, and kept.

They are kept in ``$SHIFTER_TEST_CACHE``, else in a directory of ours under
``/var/tmp``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from isal import isal_zlib

from tests.helpers import images
from tests.helpers.images import Image, Layer

_GZIP = 31  # zlib's number for it, with the largest window


def image(name: str, make: Callable[[Path], Image]) -> Image:
    """Return the image kept as NAME; if there is none, MAKE makes it, in a directory for scratch.

    NAME says how it is made: whoever changes that changes NAME.  Its blobs are read when asked for.
    """
    cache = _cache()
    kept = cache / name
    with (cache / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            with TemporaryDirectory(dir=cache, prefix=".making-") as scratch:
                made = Path(scratch, "image")
                made.mkdir()
                _write(_with_history(make(Path(scratch))), made)
                made.rename(kept)
    return _read(kept)


def packed(archive: Iterable[bytes], *, quick: bool = False) -> Layer:
    """Return the pieces of an ARCHIVE as one layer: as docker packs it, or QUICK, 8 % larger."""
    library, level = (isal_zlib, 3) if quick else (zlib, 6)
    pack = library.compressobj(level, zlib.DEFLATED, _GZIP)
    digest, blob = hashlib.sha256(), bytearray()
    for piece in archive:
        digest.update(piece)
        blob += pack.compress(piece)
    blob += pack.flush()
    return Layer(blob=bytes(blob), compression="gzip", diff_id=f"sha256:{digest.hexdigest()}")


def _cache() -> Path:
    default = f"/var/tmp/shifter-lite-tests-{os.getuid()}"
    cache = Path(os.environ.get("SHIFTER_TEST_CACHE") or default)
    cache.mkdir(mode=0o755, parents=True, exist_ok=True)
    # Anybody may make names in /var/tmp.
    if cache.is_symlink() or cache.stat().st_uid != os.getuid():
        raise RuntimeError(f"{cache} is not ours: remove it, or set SHIFTER_TEST_CACHE")
    return cache


def _with_history(made: Image) -> Image:
    """Return MADE with a word about each layer, as docker writes it: ch-image asks for that."""
    document = made.content
    blobs = dict(made.blobs)
    config = json.loads(blobs.pop(document["config"]["digest"]))
    config["history"] = [{"created_by": "made for tests"} for _ in document["layers"]]
    data = images.encode(config)
    document["config"] = images.descriptor(data, document["config"]["mediaType"])
    return images.seal(document, {images.sha256(data): data, **blobs})


def _write(made: Image, directory: Path) -> None:
    for digest, data in made.blobs.items():
        (directory / digest).write_bytes(data)
    (directory / "manifest.json").write_bytes(made.document)


def _read(directory: Path) -> Image:
    document = json.loads((directory / "manifest.json").read_bytes())
    return images.seal(document, _Blobs(directory))


class _Blobs(Mapping[str, bytes]):
    """The blobs of a kept image: one may be larger than what all should take of memory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __getitem__(self, digest: str) -> bytes:
        try:
            return (self._directory / digest).read_bytes()
        except FileNotFoundError as error:
            raise KeyError(digest) from error

    def __iter__(self) -> Iterator[str]:
        return (path.name for path in self._directory.glob("sha256:*"))

    def __len__(self) -> int:
        return sum(1 for _ in self)
