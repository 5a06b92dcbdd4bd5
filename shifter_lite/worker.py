"""Answer requests: the whole way from a file in the spool to a name in the index.

Claimed by ``shift``, built by ``executor``, and published here.
"""

from __future__ import annotations

import pwd
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from shifter_lite import config, exhausted, logs, steps, store
from shifter_lite.afterwards import Afterwards, Answer
from shifter_lite.build.manifest import Manifest
from shifter_lite.build.zstd import Compressor
from shifter_lite.config import Site
from shifter_lite.errors import BadConfig, Exhausted, ShifterError
from shifter_lite.executor.local import Builds
from shifter_lite.layout import Layout
from shifter_lite.logins import FindLogin, check_files
from shifter_lite.queue.batch import Batch
from shifter_lite.queue.presence import Lost
from shifter_lite.queue.turns import Fairness
from shifter_lite.queue.worker import Listener, Worker
from shifter_lite.records import Image
from shifter_lite.request import Status
from shifter_lite.shift import OPEN_SECONDS, Shift
from shifter_lite.steps import Bench


def make_known(
    bench: Bench,
    batch: Batch,
    manifest: Manifest,
    image: Image,
    new: bool,
    *,
    afterwards: Afterwards,
) -> None:
    """Let IMAGE, that of MANIFEST, have the names that BATCH asks for; NEW is whether it was built.

    Raises Lost if we were taken for dead.
    """
    batch.report(Status(state="PUBLISHING"))
    names = steps.names_of(bench, batch.request, manifest, image)
    published = steps.publish_names(bench, names)
    afterwards.add(Answer(batch.requests, image, names, published, new))


def run(bench: Bench, builds: Builds) -> None:
    """Answer requests for ever."""
    # Only who waits for requests pays for loading what waiting needs.
    from shifter_lite.queue.watch import Watch  # noqa: PLC0415

    backlog, poll_seconds = bench.worker.backlog, bench.site.poll_seconds
    afterwards = Afterwards(bench)
    known = partial(make_known, afterwards=afterwards)
    with Shift(bench, builds, known) as shift, Watch(bench.layout.submitted) as watch:
        while True:
            try:
                if not backlog.due_in():
                    watch.clear()
                busy = shift.turn()
                if not afterwards.do():
                    # Its reason may be ours as well: SQLite does not say which it is.
                    exhausted.check_now()
                shift.tidy_sometimes()
                if busy:
                    continue
            except Exhausted:
                raise
            except (OSError, ShifterError) as error:
                exhausted.check(error)
                # What we had is handed back; whoever looks after the filesystem sees this.
                logs.error("trouble with the filesystem", reason=error)
                time.sleep(poll_seconds)
            pause = min(OPEN_SECONDS, poll_seconds) if shift.busy else poll_seconds
            if watch.has_seen():
                shift.wait(min(pause, backlog.due_in()))
            else:
                shift.wait(pause, watch)


def drain(
    bench: Bench, builds: Builds, listener: Listener | None = None, *, patient: bool = False
) -> None:
    """Answer requests until none is left, then tidy up; LISTENER gives who else wants statuses.

    If PATIENT, stay until it is known whether the workers live that have the others.
    """
    afterwards = Afterwards(bench)
    known = partial(make_known, afterwards=afterwards)
    with Shift(bench, builds, known, listener) as shift:
        while shift.turn() or shift.left() or (patient and bench.worker.undecided()):
            if shift.idle:
                shift.wait(OPEN_SECONDS)
            afterwards.do()
        # The last turn may have answered, and there may have been nothing to answer.
        afterwards.do()
        shift.tidy_sometimes()


def again(work: Callable[[], None]) -> None:
    """Do WORK, of a worker, to its end: if it is taken for dead, once more under a new name."""
    while True:
        try:
            return work()
        except Lost as lost:
            logs.warning("taken for dead", worker=lost)


@contextmanager
def working(layout: Layout, identity: str, site: Site) -> Iterator[Bench]:
    """Set up a worker on the store IDENTITY at LAYOUT, which builds nothing."""
    bench = _bench(layout, identity, site, None)
    with bench.worker:
        yield bench


@contextmanager
def building(
    layout: Layout, identity: str, site: Site, logins: FindLogin | None = None
) -> Iterator[tuple[Bench, Builds]]:
    """Set up a worker on the store IDENTITY at LAYOUT, with what builds for it.

    LOGINS are the user's own, for requests of his own; a site's worker has none.
    """
    bench = _bench(layout, identity, site, logins)
    # What forks comes first: there must be neither locks nor threads yet.  It goes last.
    with Builds(bench, shared=store.is_shared(layout)) as builds, bench.worker:
        yield bench, builds


def _bench(layout: Layout, identity: str, site: Site, logins: FindLogin | None) -> Bench:
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
        fairness=_fairness(site.queue, shared=store.is_shared(layout)),
        waiting_per_user=site.queue.waiting_per_user,
    )
    return Bench(layout, identity, site, compressor, worker, logins)


def _fairness(queue: config.Queue, *, shared: bool) -> Fairness:
    return Fairness(
        admins=frozenset(_uid(name) for name in queue.admins),
        running=queue.running,
        # Of whom there is but one, he may have all.
        running_per_user=queue.running_per_user if shared else 0,
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
