"""The steps of the pipeline: each joins one stage to what the worker has at hand.

``worker.build`` is their order.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from shifter_lite import durable
from shifter_lite.build import archive, blobs, merge, squash, toc
from shifter_lite.build.manifest import ImageConfig, Manifest, check_platform
from shifter_lite.build.registry import Registry
from shifter_lite.config import Site
from shifter_lite.errors import BadImage, Damaged
from shifter_lite.index import publish, resolve
from shifter_lite.layout import Layout
from shifter_lite.logins import FindLogin
from shifter_lite.queue.claim import Worker, lock
from shifter_lite.records import Content, Entry, Image
from shifter_lite.request import Request, Status

if TYPE_CHECKING:
    from shifter_lite.catalog.images import Catalog

log = logging.getLogger("shifter-worker")
# A user who pulls on a single box sees the error itself, once.
log.addHandler(logging.NullHandler())

Report = Callable[[Status], None]
# A requester wants to see movement, a filesystem few files.
_REPORT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Bench:
    """What a worker works with: one store, how the site wants it, and the tool.

    ``logins`` are those of the user who works for himself.
    """

    layout: Layout
    store: str
    site: Site
    tool: squash.Tool
    worker: Worker
    logins: FindLogin | None = None


def own_logins(bench: Bench, request: Request) -> FindLogin | None:
    """Return the user's own logins, if REQUEST is his."""
    return bench.logins if request.uid == os.geteuid() else None


def find(bench: Bench, manifest: Manifest) -> Image | None:
    """Return the image that MANIFEST would become, if the store has it; raises BadImage."""
    with resolve.newest(bench.layout.index) as index:
        entry = index.find(_built_key(manifest.digest, bench.tool.recipe)) if index else None
    if entry is None or not durable.has_size(bench.layout.image(entry.id), entry.size):
        return None
    image = read_record(bench.layout, entry.id)
    check_platform(image.content.platform, manifest.platform)
    return image


def _built_key(digest: str, recipe: str) -> str:
    return f"\0built:{digest}:{recipe}"


def fetch(
    bench: Bench,
    registry: Registry,
    manifest: Manifest,
    config: ImageConfig,
    report: Report,
) -> list[blobs.Blob]:
    """Bring the layers of MANIFEST, whose content is what CONFIG says; raises BadImage."""
    sizes = {layer.digest: layer.size for layer in manifest.layers}
    progress = _Progress("PULLING", sum(sizes.values()), report)
    cache, mark = bench.layout.blobs, bench.worker.name
    try:
        layers = blobs.fetch(manifest.layers, registry, cache, progress, mark)
    except BadImage:
        # A mirror may have given what the registry would not.
        if (alone := registry.without_mirrors()) is None:
            raise
        layers = blobs.fetch(manifest.layers, alone, cache, progress, mark)
    for number, (layer, wanted) in enumerate(zip(layers, config.diff_ids, strict=True), 1):
        if layer.diff_id != wanted:
            raise BadImage(
                f"layer {number} ({layer.digest}): its content has the digest "
                f"{layer.diff_id}, not the diff_id {wanted}"
            )
    return layers


def members_of(layer: blobs.Blob) -> merge.Members:
    """Return what yields the members of LAYER, as often as it is called."""
    return lambda: toc.read(layer.toc)


def content_of(bench: Bench, manifest: Manifest, config: ImageConfig) -> Content:
    """Return what the image will be, by which it describes itself."""
    return Content(
        digest=manifest.digest,
        platform=config.platform,
        recipe=bench.tool.recipe,
        layers=tuple(layer.digest for layer in manifest.layers),
        config=config.config,
    )


def make_image(
    bench: Bench, plan: merge.Plan, layers: list[blobs.Blob], content: Content, report: Report
) -> Image:
    """Write PLAN, with its data from LAYERS, as an image of CONTENT into the store."""
    progress = _Progress("CONVERSION", plan.size, report)
    try:
        return squash.write(
            bench.tool,
            lambda pipe: archive.write(plan, layers, pipe, progress),
            content,
            bench.layout.images,
            bench.worker.name,
        )
    except OSError:
        # Layers that lead to nothing only stand in the way of those who clear up.
        for layer in layers:
            layer.remove()
        raise


def write_record(bench: Bench, image: Image) -> None:
    """Put the record of IMAGE beside it."""
    path = bench.layout.record(image.id)
    unfinished = path.with_name(f".{path.name}.{bench.worker.name}")
    try:
        durable.publish(image.to_bytes(), path, unfinished, 0o644)
    except FileExistsError:
        # The same content has the same name.
        return


def read_record(layout: Layout, image_id: str) -> Image:
    """Return the record of IMAGE_ID; raises Damaged or FileNotFoundError."""
    return Image.from_bytes(layout.record(image_id).read_bytes())


def names_of(request: Request, manifest: Manifest, image: Image) -> dict[str, Entry]:
    """Return every key by which the image is looked for."""
    reference = request.image
    names = [
        str(reference),
        reference.by_digest(manifest.digest),
        f"id:{image.id}",
        _built_key(manifest.digest, image.content.recipe),
    ]
    if manifest.index_digest:
        names.append(reference.by_digest(manifest.index_digest))
    return dict.fromkeys(names, Entry.of(image, int(time.time())))


def publish_names(bench: Bench, names: Mapping[str, Entry]) -> int:
    """Make NAMES visible to compute nodes; return the generation of the index that holds them."""
    with lock(bench.layout.locks / "publish.lock"):
        return publish.publish(bench.layout.index, names, store=bench.store, mark=bench.worker.name)


def catalog_class() -> type[Catalog]:
    """Return the catalog's class, loading it with all that it needs."""
    # It takes a while to load: that is done while layers are on their way.
    from shifter_lite.catalog.images import Catalog  # noqa: PLC0415

    return Catalog


def catalogue(
    bench: Bench,
    request: Request,
    image: Image,
    names: Mapping[str, Entry],
    generation: int,
    *,
    built: bool,
) -> None:
    """Tell the catalog of the pull, and of all up to GENERATION of the index that it lacks.

    The image is published, whatever becomes of this: what is missed now is caught
    up with another time.
    """
    path = Path(bench.site.state_dir) / f"{bench.store}.sqlite"
    try:
        with catalog_class()(path) as catalog:
            if catalog.generation == generation - 1:
                public = [each for each in names.items() if not each[0].startswith("\0")]
                catalog.add(generation, image, public)
            elif catalog.generation != generation:
                _catch_up(bench.layout, catalog)
            catalog.record_pull(request, image.id, int(time.time()), built=built)
    except (Damaged, OSError, sqlite3.Error) as error:
        log.warning("the catalog lacks %s: %s", request.name, error)


def _catch_up(layout: Layout, catalog: Catalog) -> None:
    with resolve.newest(layout.index) as index:
        if index:
            read = partial(read_record, layout)
            catalog.catch_up(index.generation, index.entries(), read)


class _Progress:
    """Counts bytes, in whichever thread they come, and reports now and then."""

    def __init__(self, state: str, total: int, report: Report) -> None:
        self._state, self._total, self._report = state, total, report
        self._done = 0
        self._next = 0.0
        self._lock = Lock()
        self(0)

    def __call__(self, size: int) -> None:
        with self._lock:
            self._done += size
            now = time.monotonic()
            if now >= self._next:
                self._next = now + _REPORT_SECONDS
                done = min(self._done, self._total)
                self._report(Status(state=self._state, done=done, total=self._total))
