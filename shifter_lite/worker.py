"""Answer requests: the whole way from a file in the spool to a name in the index.

``build`` is the pipeline, and each of its steps is one folder beside this file:
queue, build, catalog, index.
"""

from __future__ import annotations

import pwd
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Thread

from shifter_lite import cataloguing, config, steps, store
from shifter_lite.build import blobs, local
from shifter_lite.build.manifest import Manifest
from shifter_lite.build.zstd import Compressor
from shifter_lite.config import Site
from shifter_lite.errors import (
    BadConfig,
    BuildFailed,
    ShifterError,
    TooMany,
    from_oserror,
)
from shifter_lite.layout import Layout
from shifter_lite.logins import FindLogin
from shifter_lite.queue import marks, status
from shifter_lite.queue.attendant import Unwanted
from shifter_lite.queue.batch import Batch, Report
from shifter_lite.queue.claim import Claim, Rejected
from shifter_lite.queue.marks import Elsewhere
from shifter_lite.queue.presence import Lost
from shifter_lite.queue.sweep import sweep
from shifter_lite.queue.turns import Fairness
from shifter_lite.queue.worker import Listener, Worker
from shifter_lite.records import Image
from shifter_lite.request import Request, Status
from shifter_lite.steps import Bench, log

_TIDY_SECONDS = 3600.0
_LONGEST_TEXT = 2000
# How often we look whether what others build is ready, and whether they live.
_OPEN_SECONDS = 0.2
_RECOVER_SECONDS = 1.0
# The worker in the name of an unfinished file.
_OWNER = re.compile(r"[.]([A-Za-z0-9-]+[.][0-9]+[.][A-Za-z0-9]+)$")


def build(bench: Bench, batch: Batch) -> Image:
    """Turn one request, and all that are equal, into one published image."""
    request, report = batch.request, batch.report
    report(Status(state="PULLING"))
    with steps.opened(bench, request) as source, ExitStack() as alone:
        manifest = source.manifest(request.platform)
        steps.check_digest(request, manifest)
        image, built = steps.find(bench, manifest, source), False
        if image is None:
            # The catalog takes a while to load: let it, while layers are on their way.
            Thread(target=cataloguing.load, daemon=True).start()
            alone.enter_context(steps.building(bench, manifest))
            # Whoever built it before us may just have been ready.
            image = steps.find(bench, manifest, source)
        if image is None:
            image, built = _make(bench, source, manifest, report), True
            steps.write_record(bench, image)
        report(Status(state="PUBLISHING"))
        names = steps.names_of(request, manifest, image)
        published = steps.publish_names(bench, names)
    path = cataloguing.catalog_path(bench.site, bench.store)
    cataloguing.catalogue(bench.layout, path, batch.requests, image, names, published, built=built)
    if built:
        blobs.evict(bench.layout.blobs, bench.site.cache_bytes)
    return image


def _make(bench: Bench, source: steps.Source, manifest: Manifest, report: Report) -> Image:
    """Build the image of MANIFEST from SOURCE, or take it over where it is built already."""
    if isinstance(source, local.Squashfs):
        return steps.adopt(bench, source, manifest, report)
    return steps.make_image(bench, source, manifest, source.config(manifest), report)


def run(bench: Bench) -> None:
    """Answer requests for ever."""
    # Only who waits for requests pays for loading what waiting needs.
    from shifter_lite.queue.watch import Watch  # noqa: PLC0415

    shift = _Shift(bench)
    backlog = bench.worker.backlog
    with Watch(bench.layout.submitted, pause=bench.site.poll_seconds) as watch:
        while True:
            try:
                shift.tidy_sometimes()
                if shift.turn():
                    continue
            except OSError as error:
                # What we had is handed back; whoever looks after the filesystem sees this.
                log.error("the store's filesystem has trouble: %s", error)
                time.sleep(bench.site.poll_seconds)
            watch.wait(_OPEN_SECONDS if shift.busy else None)
            time.sleep(backlog.due_in())


def drain(bench: Bench, listener: Listener | None = None, *, patient: bool = False) -> None:
    """Tidy up, then answer requests until none is left; LISTENER gives who else wants statuses.

    If PATIENT, stay until it is known whether the workers live that have the others.
    """
    shift = _Shift(bench, listener)
    shift.tidy_sometimes()
    while shift.turn() or shift.left() or (patient and bench.worker.undecided()):
        if shift.idle:
            time.sleep(_OPEN_SECONDS)


def again(work: Callable[[], None]) -> None:
    """Do WORK, of a worker, to its end: if it is taken for dead, once more under a new name."""
    while True:
        try:
            return work()
        except Lost as lost:
            log.warning("taken for dead: %s; beginning again under a new name", lost)


@contextmanager
def working(
    layout: Layout, identity: str, site: Site, logins: FindLogin | None = None
) -> Iterator[Bench]:
    """Set up a worker on the store IDENTITY at LAYOUT.

    LOGINS are the user's own, for requests of his own; a site's worker has none.
    """
    compressor = Compressor(site.compression_level)
    store.complete(layout)
    worker = Worker(
        layout,
        identity,
        lease_seconds=site.lease_seconds,
        fairness=_fairness(site.queue),
        waiting_per_user=site.queue.waiting_per_user,
    )
    with worker:
        yield Bench(layout, identity, site, compressor, worker, logins)


def _fairness(queue: config.Queue) -> Fairness:
    return Fairness(
        admins=frozenset(_uid(name) for name in queue.admins),
        running=queue.running,
        running_per_user=queue.running_per_user,
    )


def _uid(name: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError as error:
        raise BadConfig(
            f"queue.admins: there is no user {name!r}", hint="use login names, or uids"
        ) from error


@dataclass(frozen=True, slots=True)
class _Open:
    """A batch that waits for what another worker builds as KEY."""

    batch: Batch
    key: str


class _Shift:
    """What a worker does, one turn after the other."""

    def __init__(self, bench: Bench, listener: Listener | None = None) -> None:
        self._bench, self._listener = bench, listener
        self._worker = bench.worker
        self._open: list[_Open] = []
        self._tidied = self._looked = self._recovered = float("-inf")
        self.idle = False

    @property
    def busy(self) -> bool:
        """Whether something is under way elsewhere that we wait for."""
        return bool(self._open)

    def turn(self) -> bool:
        """Answer what is next, if anything is; return whether there was something to do."""
        self._worker.attendant.check()
        recovered = self._recover()
        self._worker.backlog.refresh()
        rejected = self._reject()
        followed = self._follow()
        found = self._worker.next(self._listener)
        if isinstance(found, Rejected):
            self._tell(found)
        elif found is not None:
            self._worker.take(found, _log_cancelled)
            found.settle_ended()
            self._answer(found)
        self.idle = not (recovered or rejected or followed or found)
        return not self.idle

    def left(self) -> bool:
        """Return whether anything is left to do, by a look that is not old."""
        if self._open:
            return True
        self._worker.backlog.refresh(now=True)
        return bool(self._worker.backlog) or self._recover(now=True)

    def _recover(self, *, now: bool = False) -> bool:
        clock = time.monotonic()
        if not now and clock - self._recovered < _RECOVER_SECONDS:
            return False
        self._recovered = clock
        recovered = self._worker.recover(partial(steps.fence, self._bench))
        if recovered:
            log.info("recovered %d requests of dead workers", recovered)
            self._worker.backlog.refresh(now=True)
        return bool(recovered)

    def _reject(self) -> bool:
        rejected = False
        for found in self._worker.rejections():
            rejected = True
            if isinstance(found, Claim):
                _refuse(self._bench, Batch([found]))
            else:
                self._tell(found)
        return rejected

    def _tell(self, rejected: Rejected) -> None:
        """Say why something was rejected, to its owner as well if he can be told."""
        reporter = status.Reporter(self._bench.layout, rejected.name, rejected.uid)
        newest = reporter.newest()
        if newest is None or not newest.ended:
            reporter(_failure(rejected.error))
        reporter.close()
        log.warning("rejected %r of uid %d: %s", rejected.name, rejected.uid, rejected.error)

    def _follow(self) -> bool:
        """Answer what waited for another worker, which is ready, or gave up, or died."""
        now = time.monotonic()
        if now - self._looked < _OPEN_SECONDS:
            return False
        self._looked = now
        layout, worker = self._bench.layout, self._worker
        for each in self._open:
            if not each.batch.wanted():
                self._open.remove(each)
                worker.leave(each.batch)
                return True
            if not marks.is_built(layout, each.key, worker.census, by_others_than=worker.name):
                self._open.remove(each)
                self._answer(each.batch)
                return True
        return False

    def _answer(self, batch: Batch) -> None:
        """Answer BATCH, one way or the other; hand it back if we are interrupted."""
        try:
            if batch.wanted():
                self._build(batch)
        except Elsewhere as elsewhere:
            self._open.append(_Open(batch, elsewhere.key))
            return
        except Unwanted:
            log.info("stopped %s: nobody wants it any more", batch.request.image)
        except BaseException:
            batch.hand_back()
            self._worker.leave(batch)
            raise
        self._worker.leave(batch)

    def _build(self, batch: Batch) -> None:
        started = time.monotonic()
        try:
            with self._worker.guarding(batch):
                image = build(self._bench, batch)
        except Elsewhere:
            raise
        except (ShifterError, OSError) as error:
            self._fail(batch, error if isinstance(error, ShifterError) else from_oserror(error))
        except Exception as error:  # noqa: BLE001  # a bug, and one request's bug must not stop others
            log.error("a bug, shown by %s", batch.request.name, exc_info=error)
            self._fail(batch, BuildFailed(f"a bug in shifter_lite: {error!r}", hint="report it"))
        else:
            seconds = time.monotonic() - started
            requests = batch.requests
            self._end(batch, Status(state="READY", image_id=image.id))
            for request in requests:
                log.info("ready %s %s %s %.2fs", request.name, request.image, image.id, seconds)

    def _fail(self, batch: Batch, error: ShifterError) -> None:
        requests = batch.requests
        self._end(batch, _failure(error))
        for request in requests:
            log.warning("failed %s %s: %s", request.name, request.image, _short(str(error)))

    def _end(self, batch: Batch, end: Status) -> None:
        # Who was taken for dead has no last word.
        self._worker.presence.renew()
        batch.end(end)

    def tidy_sometimes(self) -> None:
        """Tidy up, but not at every turn: it reads what has nothing to do with requests."""
        if time.monotonic() - self._tidied > _TIDY_SECONDS:
            self._tidied = time.monotonic()
            _tidy(self._bench)


def _log_cancelled(request: Request) -> None:
    log.info("cancelled %s %s", request.name, request.image)


def _refuse(bench: Bench, batch: Batch) -> None:
    """Refuse a request that is one too many."""
    most = bench.site.queue.waiting_per_user
    error = TooMany(
        f"more than {most} of your requests are waiting", hint="ask again once they are answered"
    )
    batch.end(_failure(error))
    log.warning("refused %s %s: %s", batch.request.name, batch.request.image, error)


def _failure(error: ShifterError) -> Status:
    fact, hint = _short(str(error)), _short(error.hint)
    return Status(state="FAILURE", fact=fact, hint=hint, exit_code=error.exit_code)


def _short(text: str) -> str:
    """Return TEXT, which may quote an image's, as people can read it and a status can hold it."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def _tidy(bench: Bench) -> None:
    """Remove what is too old, and what dead workers left."""
    sweep(bench.layout)
    bench.worker.bury_idle()
    layout = bench.layout
    for place in (layout.images, layout.blobs, layout.index):
        for path in (*place.glob(".*"), *place.glob("??/.*")):
            # Others have hidden names of their own: NFS for what is removed and still open.
            owner = _OWNER.search(path.name)
            if owner and bench.worker.census.dead(owner[1]):
                path.unlink(missing_ok=True)
