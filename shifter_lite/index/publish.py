"""Publish the next generation of the index.

Each generation is the one before it with some names changed.  The exclusive
creation of the next number is a compare-and-swap: who comes second reads again
and tries the number after, so that no change of anybody is lost, with or
without a lock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from shifter_lite import durable
from shifter_lite.index import cdb
from shifter_lite.index.resolve import META, generation_name, generations, newest
from shifter_lite.records import Entry, seal

# A reader may still be opening a generation that it listed a while ago: the
# longest cache of a directory (60 s on NFS) and the start of a large job.
_KEEP_COUNT = 5
_KEEP_SECONDS = 600


def publish(index: Path, names: Mapping[str, Entry], *, store: str) -> int:
    """Make NAMES, normalised name to entry, visible in the directory INDEX of STORE.

    Returns the generation that holds them: a new one, or the newest if it says
    the same already.
    """
    while True:
        with newest(index) as opened:
            generation = opened.generation if opened else 0
            entries = dict(opened.entries()) if opened else {}
        if all(_same(entries.get(name), entry) for name, entry in names.items()):
            return generation
        data = _encode({**entries, **names}, generation + 1, store)
        try:
            durable.publish(
                data,
                index / generation_name(generation + 1),
                index / f".{os.uname().nodename}.{os.getpid()}.{os.urandom(4).hex()}",
                0o644,
            )
        except FileExistsError:
            continue
        _prune(index)
        return generation + 1


def _same(old: Entry | None, new: Entry) -> bool:
    return old is not None and old.id == new.id


def _encode(entries: Mapping[str, Entry], generation: int, store: str) -> bytes:
    meta = seal(
        META,
        [
            ("generation", str(generation)),
            ("time", str(int(time.time()))),
            ("names", str(len(entries))),
            ("store", store),
        ],
    )
    named = ((key.encode(), entries[key]) for key in sorted(entries))
    return cdb.encode([(META, meta), *((key, entry.to_bytes(key)) for key, entry in named)])


def _prune(index: Path) -> None:
    """Remove generations that no reader can still be about to open."""
    now = time.time()
    for number in generations(index)[_KEEP_COUNT:]:
        path = index / generation_name(number)
        # Another publisher may be pruning too.
        with suppress(FileNotFoundError):
            if now - path.stat().st_mtime > _KEEP_SECONDS:
                path.unlink()
