"""Answer requests: the whole way from a file in the spool to a name in the index.

``build`` is the pipeline, and each of its steps is one folder beside this file:
queue, build, catalog, index.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from shifter_lite import durable
from shifter_lite.build import archive, blobs, merge, squash, toc
from shifter_lite.build.manifest import ImageConfig, Manifest
from shifter_lite.build.registry import Registry
from shifter_lite.catalog.images import Catalog
from shifter_lite.config import Site
from shifter_lite.errors import (
    BadImage,
    BadRequest,
    BuildFailed,
    ShifterError,
    from_oserror,
)
from shifter_lite.index import publish, resolve
from shifter_lite.layout import Layout
from shifter_lite.queue.claim import Claim, Worker, lock
from shifter_lite.queue.status import Reporter
from shifter_lite.queue.sweep import sweep
from shifter_lite.queue.watch import Watch
from shifter_lite.records import Content, Entry, Image, Request, Status

_log = logging.getLogger("shifter-worker")
# A user who pulls on a single box sees the error itself, once.
_log.addHandler(logging.NullHandler())

Report = Callable[[Status], None]
# A requester wants to see movement, a filesystem few files.
_REPORT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Bench:
    """What a worker works with: one store, how the site wants it, and the tool."""

    layout: Layout
    store: str
    site: Site
    catalog: Catalog
    tool: squash.Tool
    worker: Worker


def build(bench: Bench, request: Request, report: Report) -> Image:
    """Turn one request into one published image."""
    registry = Registry(request.image)
    report(Status(state="PULLING"))
    manifest = registry.manifest(request.platform)
    image = _find(bench, manifest)
    built = image is None
    if image is None:
        config = registry.config(manifest)
        layers = _fetch(bench, registry, manifest, config, report)
        plan = merge.plan([_members(layer) for layer in layers])
        image = _squash(bench, plan, layers, _content(bench, request, manifest, config), report)
        _write_record(bench.layout, image)
    report(Status(state="PUBLISHING"))
    names, when = _names(request, manifest, image), int(time.time())
    with lock(bench.layout.locks / "publish.lock"):
        publish.publish(
            bench.layout.index, dict.fromkeys(names, Entry.of(image, when)), store=bench.store
        )
    bench.catalog.record(image, names, when)
    bench.catalog.record_pull(request, image.id, when, built=built)
    blobs.evict(bench.layout.blobs, bench.site.cache_bytes)
    return image


def drain(bench: Bench, report: Callable[[Request], Report] | None = None) -> None:
    """Answer requests until none is left; REPORT gives who else wants a request's statuses."""
    if recovered := bench.worker.recover():
        _log.info("recovered %d requests of dead workers", recovered)
    sweep(bench.layout)
    _remove_unfinished(bench)
    for claim in bench.worker.claims():
        if isinstance(claim, BadRequest):
            _log.warning("rejected: %s", claim)
        else:
            _answer(bench, claim, report(claim.request) if report else None)


def run(bench: Bench) -> None:
    """Answer requests for ever."""
    with Watch(bench.layout.submitted, pause=bench.site.poll_seconds) as watch:
        while True:
            drain(bench)
            watch.wait()


@contextmanager
def working(layout: Layout, store: str, site: Site) -> Iterator[Bench]:
    """Set up a worker on the STORE at LAYOUT; raises NoTool if it could build nothing."""
    tool = squash.find_tool()
    path = Path(site.state_dir) / f"{store}.sqlite"
    with Catalog(path) as catalog, Worker(layout, store) as worker:
        yield Bench(layout, store, site, catalog, tool, worker)


def _answer(bench: Bench, claim: Claim, listener: Report | None) -> None:
    """Answer CLAIM, one way or the other; hand it back if we are interrupted."""
    request = claim.request
    reporter = Reporter(bench.layout, request.name, request.uid)

    def report(status: Status) -> None:
        reporter(status)
        if listener:
            listener(status)

    started = time.monotonic()
    try:
        image = build(bench, request, report)
    except (ShifterError, OSError) as error:
        _fail(claim, report, _reason(error))
    except Exception as error:
        # A bug.  The request that shows it must not stop those behind it for ever.
        _fail(claim, report, BuildFailed(f"a bug in shifter_lite: {error!r}", hint="report it"))
        raise
    except BaseException:
        claim.hand_back()
        raise
    else:
        claim.done()
        report(Status(state="READY", image_id=image.id))
        seconds = time.monotonic() - started
        _log.info("ready %s %s %s %.2fs", request.name, request.image, image.id, seconds)
    finally:
        reporter.close()


def _fail(claim: Claim, report: Report, error: ShifterError) -> None:
    claim.failed()
    report(Status(state="FAILURE", fact=str(error), hint=error.hint, exit_code=error.exit_code))
    _log.warning("failed %s %s: %s", claim.request.name, claim.request.image, error)


def _reason(error: ShifterError | OSError) -> ShifterError:
    if isinstance(error, ShifterError):
        return error
    return from_oserror(error) or BuildFailed(f"a system call failed: {error}")


def _find(bench: Bench, manifest: Manifest) -> Image | None:
    """Return the image that MANIFEST would become, if the store has it."""
    with resolve.newest(bench.layout.index) as index:
        if index and index.generation != bench.catalog.generation:
            bench.catalog.catch_up(
                index.generation,
                index.entries(),
                lambda image_id: read_record(bench.layout, image_id),
            )
    image_id = bench.catalog.find(manifest.digest, bench.tool.recipe)
    if image_id is None or not bench.layout.image(image_id).exists():
        return None
    return read_record(bench.layout, image_id)


def _fetch(
    bench: Bench,
    registry: Registry,
    manifest: Manifest,
    config: ImageConfig,
    report: Report,
) -> list[blobs.Blob]:
    sizes = {layer.digest: layer.size for layer in manifest.layers}
    progress = _Progress("PULLING", sum(sizes.values()), report)
    layers = blobs.fetch(manifest.layers, registry, bench.layout.blobs, progress)
    for number, (layer, wanted) in enumerate(zip(layers, config.diff_ids, strict=True), 1):
        if layer.diff_id != wanted:
            raise BadImage(
                f"layer {number} ({layer.digest}): its content has the digest "
                f"{layer.diff_id}, not the diff_id {wanted}"
            )
    return layers


def _members(layer: blobs.Blob) -> merge.Members:
    return lambda: toc.read(layer.toc)


def _content(bench: Bench, request: Request, manifest: Manifest, config: ImageConfig) -> Content:
    return Content(
        digest=manifest.digest,
        platform=request.platform,
        recipe=bench.tool.recipe,
        layers=tuple(layer.digest for layer in manifest.layers),
        config=config.config,
    )


def _squash(
    bench: Bench, plan: merge.Plan, layers: list[blobs.Blob], content: Content, report: Report
) -> Image:
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


def _write_record(layout: Layout, image: Image) -> None:
    path = layout.record(image.id)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        durable.publish(image.to_bytes(), path, unfinished, 0o644)
    except FileExistsError:
        # The same content has the same name.
        return


def read_record(layout: Layout, image_id: str) -> Image:
    """Return the record of IMAGE_ID; raises Damaged or FileNotFoundError."""
    return Image.from_bytes(layout.record(image_id).read_bytes())


def _names(request: Request, manifest: Manifest, image: Image) -> list[str]:
    """Return every name by which users may mean the image."""
    names = [str(request.image), request.image.by_digest(manifest.digest), f"id:{image.id}"]
    if manifest.index_digest:
        names.append(request.image.by_digest(manifest.index_digest))
    return names


def _remove_unfinished(bench: Bench) -> None:
    """Remove images that dead workers left unfinished."""
    living = bench.worker.living()
    for path in bench.layout.images.glob(".building.*"):
        if path.name.removeprefix(".building.") not in living:
            path.unlink(missing_ok=True)


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
