"""Answer requests: the whole way from a file in the spool to a name in the index.

``build`` is the pipeline, and each of its steps is one folder beside this file:
queue, build, catalog, index.
"""

from __future__ import annotations

import pwd
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING

from shifter_lite import cataloguing, config, exhausted, logs, steps, store
from shifter_lite.afterwards import Afterwards, Answer
from shifter_lite.build.manifest import Manifest
from shifter_lite.build.zstd import Compressor
from shifter_lite.config import Site
from shifter_lite.errors import BadConfig, Exhausted, ShifterError
from shifter_lite.executor.order import Job, Submitted
from shifter_lite.index.publish import Published
from shifter_lite.layout import Layout
from shifter_lite.logins import FindLogin, check_files
from shifter_lite.queue.batch import Batch
from shifter_lite.queue.presence import Lost
from shifter_lite.queue.turns import Fairness
from shifter_lite.queue.worker import Listener, Worker
from shifter_lite.records import Entry, Image
from shifter_lite.request import Status
from shifter_lite.shift import OPEN_SECONDS, Shift
from shifter_lite.steps import Bench

if TYPE_CHECKING:
    from shifter_lite.executor.jobs import Jobs


def build(bench: Bench, batch: Batch, jobs: Jobs | None = None, *, afterwards: Afterwards) -> Image:
    """Turn one request, and all that are equal, into one published image.

    Raises Elsewhere if it is being built already, and Submitted if one of JOBS builds it.
    """
    request, report = batch.request, batch.report
    report(Status(state="PULLING"))
    with steps.opened(bench, request) as source, _closed_unless_held(jobs) as alone:
        manifest = steps.choose(bench, request, source)
        image, built = steps.find(bench, manifest, source), False
        if image is None:
            # The catalog takes a while to load: let it, while layers are on their way.
            Thread(target=cataloguing.load, daemon=True).start()
            alone.enter_context(steps.building(bench, request, manifest))
            # Whoever built it before us may just have been ready.
            image = steps.find(bench, manifest, source)
        if image is None and jobs is not None:
            raise Submitted(jobs.submit(bench, request, manifest, alone))
        if image is None:
            image, built = steps.make(bench, source, manifest, report), True
        named = _publish(bench, batch, manifest, image)
    afterwards.add(Answer(batch.requests, image, *named, built))
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
    names = steps.names_of(bench, batch.request, manifest, image)
    return names, steps.publish_names(bench, names)


def take_over(bench: Bench, batch: Batch, jobs: Jobs, job: Job, *, afterwards: Afterwards) -> Image:
    """Publish for BATCH what JOB, one of JOBS, has built."""
    with jobs.result(job) as image_id:
        image = steps.read_record(bench.layout, image_id)
        named = _publish(bench, batch, job.order.manifest, image)
    afterwards.add(Answer(batch.requests, image, *named, built=True))
    return image


def run(bench: Bench) -> None:
    """Answer requests for ever."""
    # Only who waits for requests pays for loading what waiting needs.
    from shifter_lite.queue.watch import Watch  # noqa: PLC0415

    backlog, afterwards = bench.worker.backlog, Afterwards(bench)
    with (
        _shift(bench, afterwards) as shift,
        Watch(bench.layout.submitted, pause=bench.site.poll_seconds) as watch,
    ):
        while True:
            try:
                busy = shift.turn()
                afterwards.do()
                shift.tidy_sometimes()
                if busy:
                    continue
            except Exhausted:
                raise
            except (OSError, ShifterError) as error:
                exhausted.check(error)
                # What we had is handed back; whoever looks after the filesystem sees this.
                logs.error("trouble with the filesystem", reason=error)
                time.sleep(bench.site.poll_seconds)
            watch.wait(OPEN_SECONDS if shift.busy else None)
            time.sleep(backlog.due_in())


def drain(bench: Bench, listener: Listener | None = None, *, patient: bool = False) -> None:
    """Answer requests until none is left, then tidy up; LISTENER gives who else wants statuses.

    If PATIENT, stay until it is known whether the workers live that have the others.
    """
    afterwards = Afterwards(bench)
    with _shift(bench, afterwards, listener) as shift:
        while shift.turn() or shift.left() or (patient and bench.worker.undecided()):
            if shift.idle:
                time.sleep(OPEN_SECONDS)
            afterwards.do()
        shift.tidy_sometimes()


def _shift(bench: Bench, afterwards: Afterwards, listener: Listener | None = None) -> Shift:
    return Shift(
        bench,
        partial(build, afterwards=afterwards),
        partial(take_over, afterwards=afterwards),
        listener,
    )


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
    store.check_ours(layout)
    if store.is_shared(layout):
        store.check_group(layout)
    if logins is None:
        check_files(site.registries)
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
