"""Publish the next generation of the index.

Each generation is the one before it with some names changed.  The exclusive
creation of the next number is a compare-and-swap: who comes second reads again
and tries the number after, so that no change of anybody is lost, with or
without a lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from shifter_lite import durable, logs, lost_reply
from shifter_lite.index import cdb
from shifter_lite.index.resolve import META, generation_name, generations, newest
from shifter_lite.records import Entry, seal
from shifter_lite.transient import waited_out

# A reader may still be opening a generation that it listed a while ago: the
# longest cache of a directory (60 s on NFS) and the start of a large job.  And on GlusterFS
# a file has the time of the host that made it, whose clock may be an hour before ours.
_KEEP_COUNT = 5
_KEEP_SECONDS = 600 + 3600
# Who publishes large ones fast must not fill the store.
_KEEP_BYTES = 1 << 30


Items = dict[bytes, bytes]


class Published(NamedTuple):
    """A generation of the index, and whether it was made now, with nothing else that is new."""

    generation: int
    is_ours: bool


def publish(
    index: Path,
    names: Mapping[str, Entry],
    *,
    store: str,
    mark: str,
    renew: Callable[[], object],
    upgrade: Callable[[Items], Items] = dict,
) -> Published:
    """Make NAMES, keys of the index to entries, visible in the directory INDEX of STORE.

    Returns the generation that holds them: a new one, or the newest if it says
    the same already.  Whatever else the newest holds is kept as it is.
    While the file is unfinished its name ends with MARK, which only this worker uses.
    RENEW is called after the newest was read, and raises what stops those who must not publish.
    UPGRADE makes of what an older version has published what we would have.
    """

    def changed(items: Items) -> Items:
        items = upgrade(items)
        given = {name.encode(): entry for name, entry in names.items()}
        news = {key: each for key, each in given.items() if not _same(items, key, each)}
        return items | {key: each.to_bytes(key) for key, each in news.items()} if news else items

    return _change(index, changed, store, mark, renew)


def replace(
    index: Path,
    are_these: Callable[[bytes], bool],
    entries: Items,
    *,
    store: str,
    mark: str,
    renew: Callable[[], object],
) -> Published:
    """Make ENTRIES, keys to sealed values, all that the directory INDEX has of keys that ARE_THESE.

    Otherwise as ``publish``.
    """

    def changed(items: Items) -> Items:
        return {key: value for key, value in items.items() if not are_these(key)} | entries

    return _change(index, changed, store, mark, renew)


def _change(
    index: Path,
    changed: Callable[[Items], Items],
    store: str,
    mark: str,
    renew: Callable[[], object],
) -> Published:
    """Publish what CHANGED makes of the newest generation, unless that is the same."""
    while True:
        generation, items = waited_out(lambda: _read_newest(index))
        renew()
        new = changed(items)
        if new == items:
            return Published(generation, is_ours=False)
        if _publish(index, new, generation + 1, store, mark):
            return Published(generation + 1, is_ours=True)


def fence(index: Path, *, store: str, mark: str) -> int:
    """Publish the newest generation in INDEX once more, as the next; return its number.

    Whoever had read the newest before, and was about to publish the next, has to read again,
    and to ask whether he may.
    """
    while True:
        generation, items = waited_out(lambda: _read_newest(index))
        if _publish(index, items, generation + 1, store, mark):
            return generation + 1


def _read_newest(index: Path) -> tuple[int, Items]:
    with newest(index) as opened:
        return (opened.generation, dict(opened.items())) if opened else (0, {})


def _publish(index: Path, items: Mapping[bytes, bytes], number: int, store: str, mark: str) -> bool:
    """Publish ITEMS as generation NUMBER; return False if it is not the newest then.

    The name is exclusive only as long as it is there: whoever is slow may find it free again, as
    others have published it, and more after it, and removed it.
    """
    path, data = index / generation_name(number), _encode(items, number, store)
    try:
        durable.publish(data, path, mark, 0o644)
    except FileExistsError:
        return False
    except OSError as error:
        if not _is_visible(path, data):
            raise
        # All see it.  What a power loss would do to it is not known.
        logs.warning("published, but perhaps not for good", generation=number, reason=error)
    if max(generations(index), default=number) > number:
        return False
    try:
        _prune(index, path)
    except OSError as error:
        logs.warning("old generations of the index stay for now", reason=error)
    return True


def _is_visible(path: Path, data: bytes) -> bool:
    """Return whether the file PATH is there, and holds DATA."""
    with suppress(OSError):
        return waited_out(path.read_bytes) == data
    return False


def _same(items: Mapping[bytes, bytes], key: bytes, new: Entry) -> bool:
    """Return whether ITEMS have NEW under KEY, but for its time."""
    if key not in items:
        return False
    old = Entry.from_bytes(key, items[key])
    said = old.asked or not new.asked
    return said and (old.id, old.platform) == (new.id, new.platform)


def _encode(items: Mapping[bytes, bytes], generation: int, store: str) -> bytes:
    names = sum(not key.startswith(b"\0") for key in items)
    meta = seal(
        META,
        [
            ("generation", str(generation)),
            ("time", str(int(time.time()))),
            ("names", str(names)),
            ("store", store),
        ],
    )
    return cdb.encode(sorted({**items, META: meta}.items()))


def _prune(index: Path, newest: Path) -> None:
    """Remove generations that no reader can still be about to open; NEWEST was just made."""
    kept = 0
    # By the filesystem's own time where it has one: our clock may be wrong by more than that.
    now = waited_out(newest.stat).st_mtime
    for place, number in enumerate(generations(index)):
        path = index / generation_name(number)
        # Another publisher may be pruning too.
        with suppress(FileNotFoundError):
            status = waited_out(path.stat)
            kept += status.st_size
            old = now - status.st_mtime > _KEEP_SECONDS or kept > _KEEP_BYTES
            if place >= _KEEP_COUNT and old:
                lost_reply.unlink(path)
