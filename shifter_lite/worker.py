"""Answer requests: the whole way from a file in the spool to a name in the index.

``build`` is the pipeline, and each of its steps is one folder beside this file:
queue, build, catalog, index.
"""

from __future__ import annotations

import pwd
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Self

from shifter_lite import cataloguing, config, logs, steps, store
from shifter_lite.build import blobs
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
from shifter_lite.executor import order as orders
from shifter_lite.executor.order import Job, JobLost, Submitted
from shifter_lite.index.publish import Published
from shifter_lite.layout import Layout
from shifter_lite.logins import FindLogin
from shifter_lite.queue import marks, status
from shifter_lite.queue.attendant import Unwanted
from shifter_lite.queue.batch import Batch
from shifter_lite.queue.claim import Claim, Rejected
from shifter_lite.queue.marks import Elsewhere
from shifter_lite.queue.presence import Lost
from shifter_lite.queue.sweep import sweep
from shifter_lite.queue.turns import Fairness
from shifter_lite.queue.worker import Listener, Worker
from shifter_lite.records import Entry, Image
from shifter_lite.request import Request, Status
from shifter_lite.steps import Bench

if TYPE_CHECKING:
    from shifter_lite.executor.jobs import Jobs

_TIDY_SECONDS = 3600.0
# How often we look whether what others build is ready, and whether they live.
_OPEN_SECONDS = 0.2
_RECOVER_SECONDS = 1.0
# The worker in the name of an unfinished file.
_OWNER = re.compile(r"[.]([A-Za-z0-9-]+[.][0-9]+[.][A-Za-z0-9]+)$")


def build(bench: Bench, batch: Batch, jobs: Jobs | None = None) -> Image:
    """Turn one request, and all that are equal, into one published image.

    Raises Elsewhere if it is being built already, and Submitted if one of JOBS builds it.
    """
    request, report = batch.request, batch.report
    report(Status(state="PULLING"))
    with steps.opened(bench, request) as source, _closed_unless_held(jobs) as alone:
        manifest = source.manifest(request.platform)
        steps.check_digest(request, manifest)
        image, built = steps.find(bench, manifest, source), False
        if image is None:
            # The catalog takes a while to load: let it, while layers are on their way.
            Thread(target=cataloguing.load, daemon=True).start()
            alone.enter_context(steps.building(bench, manifest))
            # Whoever built it before us may just have been ready.
            image = steps.find(bench, manifest, source)
        if image is None and jobs is not None:
            raise Submitted(jobs.submit(bench, request, manifest, alone))
        if image is None:
            image, built = steps.make(bench, source, manifest, report), True
        named = _publish(bench, batch, manifest, image)
    _note(bench, batch, image, *named, built=built)
    return image


@contextmanager
def _closed_unless_held(jobs: Jobs | None) -> Iterator[ExitStack]:
    """Yield what is closed in the end, whatever interrupts us, unless one of JOBS holds it."""
    alone = ExitStack()
    try:
        yield alone
    finally:
        if jobs is None or not jobs.holds(alone):
            alone.close()


def _publish(
    bench: Bench, batch: Batch, manifest: Manifest, image: Image
) -> tuple[Mapping[str, Entry], Published]:
    """Let IMAGE, that of MANIFEST, have the names that BATCH asks for; return them."""
    batch.report(Status(state="PUBLISHING"))
    names = steps.names_of(batch.request, manifest, image)
    return names, steps.publish_names(bench, names)


def _note(
    bench: Bench,
    batch: Batch,
    image: Image,
    names: Mapping[str, Entry],
    published: Published,
    *,
    built: bool,
) -> None:
    """Do what can wait until IMAGE is there, under NAMES."""
    path = cataloguing.catalog_path(bench.site, bench.store)
    cataloguing.catalogue(bench.layout, path, batch.requests, image, names, published, built=built)
    if built:
        blobs.evict(bench.layout.blobs, bench.site.cache_bytes)


def run(bench: Bench) -> None:
    """Answer requests for ever."""
    # Only who waits for requests pays for loading what waiting needs.
    from shifter_lite.queue.watch import Watch  # noqa: PLC0415

    backlog = bench.worker.backlog
    with (
        _Shift(bench) as shift,
        Watch(bench.layout.submitted, pause=bench.site.poll_seconds) as watch,
    ):
        while True:
            try:
                shift.tidy_sometimes()
                if shift.turn():
                    continue
            except OSError as error:
                # What we had is handed back; whoever looks after the filesystem sees this.
                logs.error("trouble with the filesystem", reason=error)
                time.sleep(bench.site.poll_seconds)
            watch.wait(_OPEN_SECONDS if shift.busy else None)
            time.sleep(backlog.due_in())


def drain(bench: Bench, listener: Listener | None = None, *, patient: bool = False) -> None:
    """Tidy up, then answer requests until none is left; LISTENER gives who else wants statuses.

    If PATIENT, stay until it is known whether the workers live that have the others.
    """
    with _Shift(bench, listener) as shift:
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
            logs.warning("taken for dead", worker=lost)


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
    """A batch that waits for what another worker builds as KEY, or for JOB of our own."""

    batch: Batch
    key: str = ""
    job: Job | None = None


class _Shift:
    """What a worker does, one turn after the other."""

    def __init__(self, bench: Bench, listener: Listener | None = None) -> None:
        self._bench, self._listener = bench, listener
        self._worker = bench.worker
        self._open: list[_Open] = []
        self._tidied = self._looked = self._recovered = float("-inf")
        self.idle = False
        self._life = ExitStack()
        self._jobs: Jobs | None = None

    def __enter__(self) -> Self:
        """Begin.  A user's own store needs no batch system."""
        how = self._bench.site.executor
        if how.kind != "local" and self._bench.logins is None:
            from shifter_lite.executor.jobs import Jobs  # noqa: PLC0415  # few sites have them

            self._jobs = self._life.enter_context(Jobs(self._bench.layout, how))
        return self

    def __exit__(self, *_: object) -> None:
        """End, and cancel what was given to others."""
        self._life.close()

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
        found = None
        if self._jobs is None or self._jobs.has_room():
            found = self._worker.next(self._listener)
        if isinstance(found, Rejected):
            self._tell(found)
        elif found is not None:
            self._worker.take(found, _log_cancelled)
            found.settle_ended()
            self._answer(found, self._build)
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
            logs.info("recovered", requests=recovered)
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
            reporter(steps.failure(rejected.error))
        reporter.close()
        logs.warning(
            "rejected",
            request=rejected.name,
            user=rejected.uid,
            reason=steps.short(str(rejected.error)),
        )

    def _follow(self) -> bool:
        """Answer what waited for another worker, which is ready, or gave up, or died."""
        now = time.monotonic()
        if now - self._looked < _OPEN_SECONDS:
            return False
        self._looked = now
        for each in self._open:
            if not each.batch.wanted():
                self._give_up(each)
                return True
            if self._is_over(each):
                self._open.remove(each)
                make = partial(self._take_over, each.job) if each.job else self._build
                self._answer(each.batch, make)
                return True
        return False

    def _is_over(self, each: _Open) -> bool:
        if each.job and self._jobs:
            return self._jobs.is_over(each.job, each.batch.report)
        return not marks.is_built(self._bench.layout, each.key, self._worker.census)

    def _give_up(self, each: _Open) -> None:
        self._open.remove(each)
        if each.job and self._jobs:
            self._jobs.leave(each.job)
        self._worker.leave(each.batch)

    def _build(self, batch: Batch) -> Image:
        return build(self._bench, batch, self._jobs)

    def _take_over(self, job: Job, batch: Batch) -> Image:
        """Publish for BATCH what JOB has built."""
        assert self._jobs is not None
        with self._jobs.result(job) as image_id:
            image = steps.read_record(self._bench.layout, image_id)
            named = _publish(self._bench, batch, job.order.manifest, image)
        _note(self._bench, batch, image, *named, built=True)
        return image

    def _answer(self, batch: Batch, make: Callable[[Batch], Image]) -> None:
        """Answer BATCH with what MAKE returns, or why there is none."""
        try:
            self._try_to_answer(batch, make)
        finally:
            if self._jobs is not None:
                # We may have been interrupted anywhere.
                self._jobs.keep_only([each.job for each in self._open])

    def _try_to_answer(self, batch: Batch, make: Callable[[Batch], Image]) -> None:
        try:
            if batch.wanted():
                self._try(batch, make)
        except Elsewhere as elsewhere:
            self._open.append(_Open(batch, key=elsewhere.key))
            return
        except Submitted as submitted:
            self._open.append(_Open(batch, job=submitted.job))
            # It may be long until the job begins.
            batch.report(Status(state="PENDING"))
            return
        except JobLost as lost:
            logs.warning("requeued", **_said(batch.request), reason=lost)
            batch.hand_back()
        except Unwanted:
            logs.info("stopped", **_said(batch.request))
        except BaseException:
            batch.hand_back()
            self._worker.leave(batch)
            raise
        self._worker.leave(batch)

    def _try(self, batch: Batch, make: Callable[[Batch], Image]) -> None:
        started = time.monotonic()
        try:
            with self._worker.guarding(batch):
                image = make(batch)
        except (Elsewhere, Submitted, JobLost):
            raise
        except (ShifterError, OSError) as error:
            self._fail(batch, error if isinstance(error, ShifterError) else from_oserror(error))
        except Exception as error:  # noqa: BLE001  # a bug, and one request's bug must not stop others
            logs.error("bug", error, **_said(batch.request))
            self._fail(batch, BuildFailed(f"a bug in shifter_lite: {error!r}", hint="report it"))
        else:
            seconds = time.monotonic() - started
            requests = batch.requests
            self._end(batch, Status(state="READY", image_id=image.id))
            for request in requests:
                logs.info("ready", **_said(request), id=image.id, seconds=seconds)

    def _fail(self, batch: Batch, error: ShifterError) -> None:
        requests = batch.requests
        self._end(batch, steps.failure(error))
        for request in requests:
            reason = steps.short(str(error))
            logs.warning("failed", **_said(request), code=error.exit_code, reason=reason)

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
    logs.info("cancelled", **_said(request))


def _said(request: Request) -> dict[str, object]:
    """Return what the log says of REQUEST."""
    return {
        "request": request.name,
        "user": request.uid,
        "image": request.image,
        "platform": request.platform,
    }


def _refuse(bench: Bench, batch: Batch) -> None:
    """Refuse a request that is one too many."""
    most = bench.site.queue.waiting_per_user
    error = TooMany(
        f"more than {most} of your requests are waiting", hint="ask again once they are answered"
    )
    batch.end(steps.failure(error))
    logs.warning("refused", **_said(batch.request), code=error.exit_code, reason=error)


def _tidy(bench: Bench) -> None:
    """Remove what is too old, and what dead workers left."""
    sweep(bench.layout)
    bench.worker.bury_idle(partial(steps.fence, bench))
    layout = bench.layout
    orders.tidy(layout, bench.worker.census.dead)
    for place in (layout.images, layout.blobs, layout.index):
        for path in (*place.glob(".*"), *place.glob("??/.*")):
            # Others have hidden names of their own: NFS for what is removed and still open.
            owner = _OWNER.search(path.name)
            if owner and bench.worker.census.dead(owner[1]):
                path.unlink(missing_ok=True)
