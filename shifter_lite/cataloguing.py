"""Keep the catalog in step with the store: told of each pull, caught up, made anew.

What an image is stands in its record, or, if that is lost, in the image itself; which
names there are stands in the index.  Loading what a catalog needs takes a while, so that is
done where one is used.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, NamedTuple

from shifter_lite import keys, logs
from shifter_lite.config import Site
from shifter_lite.errors import BadConfig, BadRequest, BuildFailed, Damaged
from shifter_lite.index import resolve
from shifter_lite.index.publish import Published
from shifter_lite.layout import Layout
from shifter_lite.records import Entry, Image
from shifter_lite.request import Request, is_request_name, request_time
from shifter_lite.steps import read_image

if TYPE_CHECKING:
    from shifter_lite.catalog.images import Catalog, Pull

_TICK = 0.1
# So long a worker waits for others who use the catalog; and who makes it anew, by hand.
_PATIENCE_SECONDS, _LONG_PATIENCE_SECONDS = 1.0, 60.0


def load() -> None:
    """Load what a catalog needs, ahead of its use."""
    # What stands in the way is said where it is used.
    with suppress(ImportError, OSError):
        import shifter_lite.catalog.images  # noqa: F401, PLC0415


def catalog_path(site: Site, store: str) -> Path:
    """Return where this host has the catalog of the store with the id STORE.

    Raises BadConfig where that is not known.
    """
    if not site.state_dir:
        raise BadConfig(
            "there is no place for this host's catalog: HOME is not set",
            hint="set state_dir in /etc/shifter/shifter_lite.toml, or HOME",
        )
    return Path(site.state_dir) / f"{store}.sqlite"


def catalogue(
    layout: Layout,
    path: Path,
    requests: Sequence[Request],
    image: Image,
    names: Mapping[str, Entry],
    published: Published,
    *,
    built: bool,
) -> bool:
    """Tell the catalog at PATH of REQUESTS, answered with IMAGE, and of all that it lacks.

    That is all up to the generation PUBLISHED of the index, which has NAMES.

    The image is published, whatever becomes of this: what is missed now is caught
    up with another time.  Return whether nothing was missed.
    """
    generation = published.generation

    def tell(catalog: Catalog) -> None:
        if published.is_ours and catalog.generation == generation - 1:
            public = [(keys.shown(k), e) for k, e in names.items() if keys.is_name(k.encode())]
            catalog.add(generation, image, public)
        elif catalog.generation < generation:
            _catch_up(layout, catalog)
        catalog.record_pulls(requests, image.id, int(time()), built=built)

    try:
        # Without a free descriptor, not even that can be loaded.
        from shifter_lite.catalog import images  # noqa: PLC0415

        images.use(path, tell, patience=_PATIENCE_SECONDS)
    except (Damaged, ImportError, OSError, sqlite3.Error) as error:
        logs.warning("the catalog lacks a generation", generation=generation, reason=error)
        return False
    return True


def catch_up(layout: Layout, path: Path) -> bool:
    """Tell the catalog at PATH of all that it lacks; return whether nothing was missed."""
    from shifter_lite.catalog import images  # noqa: PLC0415

    def tell(catalog: Catalog) -> None:
        with resolve.newest(layout.index) as index:
            if index and catalog.generation < index.generation:
                catalog.catch_up(index.generation, index.entries(), partial(read_image, layout))

    try:
        if resolve.generations(layout.index):
            images.use(path, tell, patience=_PATIENCE_SECONDS)
    except (Damaged, OSError, sqlite3.Error) as error:
        logs.warning("the catalog may lack images", reason=error)
        return False
    return True


class Rebuilt(NamedTuple):
    """How much a catalog knows that was made anew."""

    images: int
    names: int
    pulls: int


def rebuild(layout: Layout, path: Path, store: str) -> Rebuilt:
    """Make the catalog at PATH anew from the records and the index of STORE.

    The history of pulls that it had is kept, and made whole as far as answered requests
    still tell.  Raises Damaged, OSError, or BuildFailed if the database cannot be changed.
    """
    from shifter_lite.catalog import images  # noqa: PLC0415

    found: list[Rebuilt] = []

    def tell(catalog: Catalog) -> None:
        catalog.forget_images()
        with resolve.newest(layout.index) as index:
            if index:
                entries = dict(index.entries())
                catalog.catch_up(index.generation, entries.items(), partial(read_image, layout))
                catalog.recover_pulls(_answered(layout, store, entries))
        found.append(Rebuilt(**catalog.counts()))

    try:
        images.use(path, tell, patience=_LONG_PATIENCE_SECONDS)
    except sqlite3.Error as error:
        raise BuildFailed(f"the catalog cannot be made: {str(path)!r}: {error}") from error
    return found[-1]


def _catch_up(layout: Layout, catalog: Catalog) -> None:
    with resolve.newest(layout.index) as index:
        if index:
            catalog.catch_up(index.generation, index.entries(), partial(read_image, layout))


def _answered(layout: Layout, store: str, entries: Mapping[str, Entry]) -> Iterator[Pull]:
    """Yield the pulls that requests in ``done/`` tell of, where it is known what image they got.

    A name means its image since a second; what was answered before it got something else.
    Of what was answered in that very second, the last got what the name means.
    """
    from shifter_lite.catalog.images import Pull  # noqa: PLC0415

    answered = [
        (request, when, entry)
        for request, when in _in_done(layout, store)
        if (entry := _found(request, entries))
    ]
    last: dict[tuple[str, str], float] = {}
    for request, when, entry in answered:
        if when < entry.time + 1:
            key = (str(request.image), entry.id)
            last[key] = max(when, last.get(key, 0))
    for request, when, entry in answered:
        name = str(request.image)
        # The filesystem's clock may be behind by the length of a tick.
        if when >= entry.time + 1 or entry.time - _TICK <= when == last.get((name, entry.id)):
            yield Pull(request.name, request.uid, name, entry.id, int(when), built=0)


def _found(request: Request, entries: Mapping[str, Entry]) -> Entry | None:
    """Return what of ENTRIES, by names as ``keys.shown`` has them, REQUEST would get."""
    return resolve.choose(
        str(request.image), request.platform, lambda key: entries.get(keys.shown(key))
    )


def _in_done(layout: Layout, store: str) -> Iterator[tuple[Request, float]]:
    for path in sorted(layout.done.glob("*/*")):
        # It is its user's file, who may have kept it open.
        with suppress(BadRequest, OSError):
            yield _read_answered(path, store)


def _read_answered(path: Path, store: str) -> tuple[Request, float]:
    """Return the request at PATH, and when it was moved there; raises BadRequest or OSError."""
    if not is_request_name(path.name):
        raise BadRequest(f"not a request's name: {path.name!r}")
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        made = request_time(path.name)
        request = Request.read(fd, name=path.name, store=store, now=made)
        return request, os.fstat(fd).st_ctime
    finally:
        os.close(fd)
