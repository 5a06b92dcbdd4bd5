"""Find names in the newest generation of the index.  Standard library only.

Listing a directory and opening a name never used before is the one way of
finding the newest that was right and fresh on every shared filesystem measured.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shifter_lite import keys, platforms
from shifter_lite.errors import Damaged, NotFound
from shifter_lite.index import cdb
from shifter_lite.nostore import no_store
from shifter_lite.records import Entry, Fields, unseal
from shifter_lite.reference import is_id, is_id_prefix
from shifter_lite.transient import TRANSIENT, pauses, waited_out

META = b"\0meta"
_GENERATION = re.compile(r"images\.([0-9]{10,19})\.cdb")
# A node's caches may show a generation that is gone.
_PASSING = TRANSIENT | {errno.ENOENT}
# Of several images whose ids begin alike.
_SHOWN = 3


def generation_name(number: int) -> str:
    """Return the file name of generation NUMBER."""
    return f"images.{number:010d}.cdb"


def generations(index: Path) -> list[int]:
    """Return the numbers of the generations in the directory INDEX, newest first.

    Raises NoStore if there is no such directory.
    """
    try:
        names = waited_out(lambda: os.listdir(index))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise no_store(index.parent) from error
    found = (_GENERATION.fullmatch(name) for name in names)
    return sorted((int(match[1]) for match in found if match), reverse=True)


class Index:
    """One generation of the index, open."""

    def __init__(self, fd: int, generation: int) -> None:
        """Read the generation number GENERATION, open on FD."""
        self._fd = fd
        self._size = waited_out(lambda: os.fstat(fd)).st_size
        self.generation = generation

    def find(self, key: str) -> Entry | None:
        """Return the entry of KEY, a normalised name; raises Damaged."""
        encoded = key.encode()
        value = cdb.find(self._pread, self._size, encoded)
        return None if value is None else Entry.from_bytes(encoded, value)

    def meta(self) -> Fields:
        """Return the fields of the generation's own entry; raises Damaged."""
        value = cdb.find(self._pread, self._size, META)
        if value is None:
            raise Damaged(f"generation {self.generation} of the index has no meta entry")
        return unseal(META, value)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every key with its value; raises Damaged."""
        return cdb.items(self._pread(self._size, 0))

    def find_for(self, name: str, platform: str) -> Entry | None:
        """Return the entry of NAME for machines of PLATFORM, or the site's; raises Damaged."""
        return choose(name, platform, self.find)

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Yield every name, as ``keys.shown`` has it, with its entry; raises Damaged."""
        for key, value in self.items():
            if keys.is_name(key):
                yield keys.shown(key.decode()), Entry.from_bytes(key, value)

    def _pread(self, length: int, offset: int) -> bytes:
        return waited_out(lambda: os.pread(self._fd, length, offset))


@contextmanager
def newest(index: Path) -> Iterator[Index | None]:
    """Open the newest generation in the directory INDEX; None if nothing was ever published."""
    opened = _open_newest(index)
    if opened is None:
        yield None
        return
    fd, generation = opened
    try:
        yield Index(fd, generation)
    finally:
        os.close(fd)


def _open_newest(index: Path) -> tuple[int, int] | None:
    left = pauses()
    while numbers := generations(index):
        path = index / generation_name(numbers[0])
        try:
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW), numbers[0]
        except OSError as error:
            pause = next(left, None)
            if error.errno not in _PASSING or pause is None:
                raise
        time.sleep(pause)
    return None


def lookup(index: Path, key: str, platform: str = "") -> Entry:
    """Return the newest entry of KEY, a normalised name, for machines of PLATFORM if one is given.

    Raises NotFound, NoStore or Damaged.
    """
    with newest(index) as opened:
        if opened and is_id_prefix(key):
            key = _complete(opened, index.parent / "images" / key[3:5], key)
        entry = opened.find_for(key, platform) if opened else None
    if entry is None:
        raise _not_found(key, platform)
    return entry


Find = Callable[[str], Entry | None]


def choose(name: str, platform: str, find: Find) -> Entry | None:
    """Return the entry of NAME for machines of PLATFORM, by what FIND finds of each key.

    Without PLATFORM, for those that the site has first.
    """
    if not platform:
        return find(name)
    if exact := choose_exactly(name, platform, find):
        return exact
    # An entry of before may say none.
    suiting = ("", *platforms.runnable(platform))
    nodes = filter(None, (find(name), find(keys.of_machine(name, platform))))
    return next((entry for entry in nodes if entry.platform in suiting), None)


def choose_exactly(name: str, platform: str, find: Find) -> Entry | None:
    """Return the entry of NAME that is made for PLATFORM, or was pulled for it."""
    for key in (name, keys.of_machine(name, platform)):
        if (entry := find(key)) and entry.platform == platform:
            return entry
    return find(keys.of_platform(name, platform))


def _complete(opened: Index, images: Path, prefix: str) -> str:
    """Return the one key in OPENED that begins with PREFIX; a file in IMAGES may be unpublished."""
    try:
        names = sorted(waited_out(lambda: os.listdir(images)))
    except FileNotFoundError:
        names = []
    ids = (name.removesuffix(".squashfs") for name in names if name.endswith(".squashfs"))
    keys = [f"id:{image_id}" for image_id in ids if is_id(image_id)]
    found = [key for key in keys if key.startswith(prefix) and opened.find(key)]
    if not found:
        raise _not_found(prefix)
    if len(found) > 1:
        some = ", ".join(found[:_SHOWN] + ["..."] * (len(found) > _SHOWN))
        raise NotFound(
            f"{len(found)} images in the store begin with {prefix!r}",
            hint=f"write more digits: {some}",
        )
    return found[0]


def _not_found(key: str, platform: str = "") -> NotFound:
    is_name = not key.startswith("id:")
    option = f"--platform {platform} " if platform else ""
    made_for = f" for {platform!r}" if platform else ""
    hint = (
        f"get it with: shifterimg pull {option}{key}"
        if is_name
        else "see the ids with: shifterimg images --json"
    )
    return NotFound(f"no image {key!r}{made_for} in the store", hint=hint)
