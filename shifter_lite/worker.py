"""Answer requests: the whole way from a file in the spool to a name in the index.

``build`` is the pipeline, and each of its steps is one folder beside this file:
queue, build, catalog, index.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

from shifter_lite import steps
from shifter_lite.build import blobs, local
from shifter_lite.build.manifest import Manifest
from shifter_lite.build.zstd import Compressor
from shifter_lite.config import Site
from shifter_lite.errors import BadRequest, BuildFailed, ShifterError, from_oserror
from shifter_lite.layout import Layout
from shifter_lite.logins import FindLogin
from shifter_lite.queue.claim import Claim, Worker
from shifter_lite.queue.status import Reporter
from shifter_lite.queue.sweep import sweep
from shifter_lite.records import Image
from shifter_lite.request import Request, Status
from shifter_lite.steps import Bench, Report, log

_TIDY_SECONDS = 3600.0
_LONGEST_TEXT = 2000
# The worker in the name of an unfinished file.
_OWNER = re.compile(r"[.]([A-Za-z0-9-]+[.][0-9]+[.][A-Za-z0-9]+)$")


def build(bench: Bench, request: Request, report: Report) -> Image:
    """Turn one request into one published image."""
    report(Status(state="PULLING"))
    with steps.opened(bench, request) as source:
        manifest = source.manifest(request.platform)
        steps.check_digest(request, manifest)
        image = steps.find(bench, manifest, source)
        built = image is None
        if image is None:
            # The catalog takes a while to load: let it, while layers are on their way.
            Thread(target=steps.catalog_class, daemon=True).start()
            image = _make(bench, source, manifest, report)
            steps.write_record(bench, image)
    report(Status(state="PUBLISHING"))
    names = steps.names_of(request, manifest, image)
    generation = steps.publish_names(bench, names)
    steps.catalogue(bench, request, image, names, generation, built=built)
    if built:
        blobs.evict(bench.layout.blobs, bench.site.cache_bytes)
    return image


def _make(bench: Bench, source: steps.Source, manifest: Manifest, report: Report) -> Image:
    """Build the image of MANIFEST from SOURCE, or take it over where it is built already."""
    if isinstance(source, local.Squashfs):
        return steps.adopt(bench, source, manifest, report)
    return steps.make_image(bench, source, manifest, source.config(manifest), report)


def drain(bench: Bench, report: Callable[[Request], Report] | None = None) -> None:
    """Tidy up, then answer requests until none is left; REPORT gives who else wants statuses."""
    _tidy(bench)
    _answer_all(bench, report)


def _answer_all(bench: Bench, report: Callable[[Request], Report] | None = None) -> None:
    if recovered := bench.worker.recover():
        log.info("recovered %d requests of dead workers", recovered)
    for claim in bench.worker.claims():
        if isinstance(claim, BadRequest):
            log.warning("rejected: %s", claim)
        else:
            _answer(bench, claim, report(claim.request) if report else None)


def run(bench: Bench) -> None:
    """Answer requests for ever."""
    # Only who waits for requests pays for loading what waiting needs.
    from shifter_lite.queue.watch import Watch  # noqa: PLC0415

    with Watch(bench.layout.submitted, pause=bench.site.poll_seconds) as watch:
        tidied = float("-inf")
        while True:
            # Not at every look: it reads directories that have nothing to do with requests.
            if time.monotonic() - tidied > _TIDY_SECONDS:
                tidied = time.monotonic()
                _tidy(bench)
            _answer_all(bench)
            watch.wait()


@contextmanager
def working(
    layout: Layout, store: str, site: Site, logins: FindLogin | None = None
) -> Iterator[Bench]:
    """Set up a worker on the STORE at LAYOUT.

    LOGINS are the user's own, for requests of his own; a site's worker has none.
    """
    compressor = Compressor(site.compression_level)
    with Worker(layout, store) as worker:
        yield Bench(layout, store, site, compressor, worker, logins)


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
    except Exception as error:  # noqa: BLE001  # a bug, and one request's bug must not stop others
        log.error("a bug, shown by %s", request.name, exc_info=error)
        _fail(claim, report, BuildFailed(f"a bug in shifter_lite: {error!r}", hint="report it"))
    except BaseException:
        claim.hand_back()
        raise
    else:
        claim.done()
        report(Status(state="READY", image_id=image.id))
        seconds = time.monotonic() - started
        log.info("ready %s %s %s %.2fs", request.name, request.image, image.id, seconds)
    finally:
        reporter.close()


def _fail(claim: Claim, report: Report, error: ShifterError) -> None:
    claim.failed()
    fact, hint = _short(str(error)), _short(error.hint)
    report(Status(state="FAILURE", fact=fact, hint=hint, exit_code=error.exit_code))
    log.warning("failed %s %s: %s", claim.request.name, claim.request.image, fact)


def _short(text: str) -> str:
    """Return TEXT, which may quote an image's, as people can read it and a status can hold it."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def _reason(error: ShifterError | OSError) -> ShifterError:
    if isinstance(error, ShifterError):
        return error
    return from_oserror(error)


def _tidy(bench: Bench) -> None:
    """Remove what is too old, and hidden files that end with the names of dead workers."""
    sweep(bench.layout)
    layout = bench.layout
    hidden = [
        path
        for place in (layout.images, layout.blobs, layout.index)
        for path in (*place.glob(".*"), *place.glob("??/.*"))
    ]
    # Asked after the files were found: whoever made one of them was alive before.
    living = bench.worker.living()
    for path in hidden:
        # Others have hidden names of their own: NFS for what is removed and still open.
        owner = _OWNER.search(path.name)
        if owner and owner[1] not in living:
            path.unlink(missing_ok=True)
