"""Images that no distribution has, to measure with: many small files, a few large ones.

The same bytes on every machine, but for those of ``large``, which are Debian's, shuffled.
"""

from __future__ import annotations

import random
import string
import tarfile
import zlib
from collections.abc import Iterator

from tests.helpers import debian, images, kept
from tests.helpers.images import Entry, Image

_MANY = "1"
_LARGE = "1"
_MILLION = "1"
_SEED = 20_240_229
_END = bytes(1024)
_GZIP = 31

_SMALL_FILES = 113_000
_CROWD = 21_000
_CROWDED = ("opt/app/icons", "opt/app/locales")
_PER_DIRECTORY = 30
_SMALLEST, _LARGEST = 200, 8_000
_TEXT = 8_000_000
_WORDS = 1_000

_LARGE_FILES = 4
_GIGABYTE = 1_000_000_000
_PIECE = 500_000

_ENTRIES = 1_000_000


def many() -> Image:
    """Return 113,000 files of text of 0.2 to 8 kB, 21,000 of them in each of two directories."""
    return kept.image(
        f"manyfiles-{_MANY}", lambda _: images.image([kept.packed(_archive(_small_files()))])
    )


def large() -> Image:
    """Return four files of 1 GB each, which zstd's level 3 makes 2.7 times smaller."""
    base = debian.image()

    def make(_: object) -> Image:
        first = base.content["layers"][0]["digest"]
        source = zlib.decompress(base.blobs[first], _GZIP)
        return images.image([kept.packed(_large_files(source), quick=True)])

    return kept.image(f"large-{_LARGE}", make)


def million() -> Image:
    """Return 1,000,000 entries: 10,000 directories, the rest files, every other one empty."""
    return kept.image(
        f"million-{_MILLION}",
        lambda _: images.image([kept.packed(_archive(_tiny_files()), quick=True)]),
    )


def _archive(entries: Iterator[Entry]) -> Iterator[bytes]:
    for entry in entries:
        yield images.member(entry, tarfile.USTAR_FORMAT)
    yield _END


def _small_files() -> Iterator[Entry]:
    chance = random.Random(_SEED)
    text = _text(chance)
    made = set()
    for number in range(_SMALL_FILES):
        directory = _directory(number)
        if directory not in made:
            made.add(directory)
            yield images.directory(directory)
        # As files are: most are small, few are large.
        size = round(_SMALLEST * (_LARGEST / _SMALLEST) ** chance.random())
        start = chance.randrange(len(text) - size)
        content = b'{"number": %d,\n' % number + text[start : start + size]
        yield images.file(f"{directory}/entry-{number:06}.json", content)


def _directory(number: int) -> str:
    if number < len(_CROWDED) * _CROWD:
        return _CROWDED[number // _CROWD]
    package = number // _PER_DIRECTORY
    return f"opt/app/packages/{package // 100:02}/package-{package:04}"


def _text(chance: random.Random) -> bytes:
    """Return lines like those of JSON files, which gzip makes about three times smaller."""
    words = ["".join(chance.choices(string.ascii_lowercase, k=3 + n % 7)) for n in range(_WORDS)]
    # As words are: the few first ones are most of the text.
    weights = [1 / (rank + 1) for rank in range(_WORDS)]
    lines, length = [], 0
    while length < _TEXT:
        a, b, c, d = chance.choices(words, weights, k=4)
        lines.append(f'  "{a}_{b}": ["{c}", "{d}", {chance.randrange(1_000)}],\n')
        length += len(lines[-1])
    return "".join(lines).encode()


def _large_files(source: bytes) -> Iterator[bytes]:
    """Give an archive of files of pieces of SOURCE, in an order that never repeats."""
    chance = random.Random(_SEED)
    yield images.member(images.directory("data"))
    for number in range(_LARGE_FILES):
        info = tarfile.TarInfo(f"data/{number}.bin")
        info.size, info.mtime = _GIGABYTE, images.MTIME
        yield info.tobuf()
        left = _GIGABYTE
        while left:
            start = chance.randrange(len(source) - _PIECE)
            piece = chance.randbytes(16) + source[start : start + min(left, _PIECE) - 16]
            piece = piece[:left]
            left -= len(piece)
            yield piece
        yield bytes(-_GIGABYTE % 512)
    yield _END


def _tiny_files() -> Iterator[Entry]:
    directory = ""
    for number in range(_ENTRIES):
        if number % 100 == 0:
            directory = f"data/{number // 10_000:02}/{number // 100 % 100:02}"
            yield images.directory(directory)
        else:
            content = b"%d\n" % number if number % 2 else b""
            yield images.file(f"{directory}/{number:06}", content)
