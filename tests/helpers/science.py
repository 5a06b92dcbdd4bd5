"""Debian with NumPy, SciPy and pandas, in layers as a Dockerfile's RUN lines leave them.

About 290 MB of blobs, and 616 MB in 19,000 entries when all is merged: the last
line removes what only building needs, as the last line of a Dockerfile does.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from tests.helpers import debian, images, kept
from tests.helpers.images import Image, Layer

_RECIPE = "1"
_SCIENCE = ("python3-numpy", "python3-scipy", "python3-pandas")
_REMOVED = (
    "usr/include",
    "usr/share/doc",
    "usr/share/man",
    "usr/bin/x86_64-linux-gnu-lto-dump-12",
    "usr/lib/gcc/x86_64-linux-gnu/12/lto1",
)
_GZIP = 31
_PIECE = 1 << 20


def image() -> Image:
    """Return the image, made now unless it was made before."""
    base = debian.image()
    return kept.image(f"python-science-{_RECIPE}", lambda scratch: _make(base, scratch))


def _make(base: Image, scratch: Path) -> Image:
    archives = [scratch / "debian.tar", scratch / "python.tar", scratch / "science.tar"]
    first = base.content["layers"][0]["digest"]
    archives[0].write_bytes(zlib.decompress(base.blobs[first], _GZIP))
    debian.bootstrap(archives[1], "python3")
    debian.bootstrap(archives[2], *_SCIENCE)
    layers = [images.packed(archives[0].read_bytes())]
    layers += [_changes(*archives[:2]), _changes(*archives[1:]), _removal(archives[2])]
    return images.image(layers, settings={"Cmd": ["python3"]})


def _changes(lower: Path, upper: Path) -> Layer:
    """Return the layer that makes UPPER of LOWER."""
    with tarfile.open(lower) as old:
        before = {member.name: _state(old, member) for member in old}
    with tarfile.open(upper) as new:
        return kept.packed(_members(new, _changed(new, before)))


def _changed(archive: tarfile.TarFile, before: dict[str, object]) -> set[str]:
    """Return the names of what is new or different, and of all directories on the way there."""
    changed = set()
    for member in archive:
        if before.get(member.name) != _state(archive, member):
            path = Path(member.name)
            changed |= {member.name, *(f"./{parent}" for parent in path.parents)}
    return changed


def _state(archive: tarfile.TarFile, member: tarfile.TarInfo) -> object:
    """Return what makes MEMBER another than one of the same name."""
    digest = hashlib.sha256()
    for piece in _content(archive, member):
        digest.update(piece)
    status = (member.type, member.mode, member.uid, member.gid, member.linkname)
    return (*status, digest.digest())


def _members(archive: tarfile.TarFile, names: set[str]) -> Iterator[bytes]:
    """Give, in pieces, an archive of those members of ARCHIVE that NAMES has."""
    for member in archive:
        if member.name in names:
            yield member.tobuf()
            yield from _content(archive, member)
            yield bytes(-member.size % 512)
    yield bytes(1024)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    content = archive.extractfile(member) if member.isreg() else None
    while content and (piece := content.read(_PIECE)):
        yield piece


def _removal(archive: Path) -> Layer:
    """Return the layer without what only building needs, static libraries among it."""
    with tarfile.open(archive) as members:
        names = [member.name.removeprefix("./") for member in members]
    static = [name for name in names if name.endswith(".a") and not name.startswith(_REMOVED)]
    return images.layer([images.whiteout(name) for name in sorted((*_REMOVED, *static))])
