"""What a worker does, one turn after the other, and how requests end.

How an image comes to be is not known here: ``worker`` says that.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from shifter_lite import exhausted, logs, steps
from shifter_lite.errors import BuildFailed, RegistryBusy, ShifterError, TooMany, from_oserror
from shifter_lite.executor import order as orders
from shifter_lite.executor.order import Job, JobLost, Submitted
from shifter_lite.index import known
from shifter_lite.queue import marks, status
from shifter_lite.queue.attendant import Unwanted
from shifter_lite.queue.batch import Batch
from shifter_lite.queue.claim import Claim, Rejected
from shifter_lite.queue.marks import Elsewhere
from shifter_lite.queue.sweep import sweep
from shifter_lite.queue.worker import Listener
from shifter_lite.records import Image
from shifter_lite.request import Request, Status
from shifter_lite.steps import Bench

if TYPE_CHECKING:
    from shifter_lite.executor.jobs import Jobs

_TIDY_SECONDS = 3600.0
# How often we look whether what others build is ready, and whether they live.
OPEN_SECONDS = 0.2
_RECOVER_SECONDS = 1.0
# The worker in the name of an unfinished file.
_OWNER = re.compile(r"[.]([A-Za-z0-9-]+[.+][0-9]+[.+][A-Za-z0-9]+)$")

Build = Callable[[Bench, Batch, "Jobs | None"], Image]
TakeOver = Callable[[Bench, Batch, "Jobs", Job], Image]


@dataclass(frozen=True, slots=True)
class _Open:
    """A batch that waits for what another worker builds as KEY, or for JOB of our own."""

    batch: Batch
    key: str = ""
    job: Job | None = None


class Shift:
    """What a worker does, one turn after the other."""

    def __init__(
        self, bench: Bench, build: Build, take_over: TakeOver, listener: Listener | None = None
    ) -> None:
        """Work with BENCH.

        BUILD makes and publishes what a batch asks for, and TAKE_OVER publishes what a job has
        made; LISTENER gives who else wants statuses.
        """
        self._bench, self._build, self._publish = bench, build, take_over
        self._listener = listener
        self._worker = bench.worker
        self._open: list[_Open] = []
        self._tidied = self._looked = self._recovered = float("-inf")
        self._begun = time.monotonic()
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
            # Before it is taken: if the filesystem fails us here, all are put back by ``recover``.
            found.settle_ended()
            self._worker.take(found, self._log_cancelled)
            self._answer(found)
        self.idle = not (recovered or rejected or followed or found)
        return not self.idle

    def left(self) -> bool:
        """Return whether anything is left to do, by a look that is not old."""
        if self._open:
            return True
        return self._worker.may_begin() or self._recover(now=True)

    def _recover(self, *, now: bool = False) -> bool:
        clock = time.monotonic()
        if not now and clock - self._recovered < _RECOVER_SECONDS:
            return False
        self._recovered = clock
        recovered = self._worker.recover(partial(steps.fence, self._bench))
        # Who is interrupted while he makes one, or cannot remove it, would keep all from building.
        given = {each.job.order.key for each in self._open if each.job}
        marks.remove(self._bench.layout, self._worker.name, keep=given)
        if recovered:
            logs.info("recovered", requests=recovered)
            self._worker.backlog.refresh(now=True)
        return bool(recovered)

    def _reject(self) -> bool:
        rejected = False
        for found in self._worker.rejections():
            rejected = True
            if isinstance(found, Claim):
                self._refuse(Batch([found]))
            else:
                self._tell(found)
        return rejected

    def _refuse(self, batch: Batch) -> None:
        """Refuse a request that is one too many."""
        most = self._bench.site.queue.waiting_per_user
        self._fail(
            batch,
            TooMany(
                f"more than {most} of your requests are waiting",
                hint="ask again once they are answered",
            ),
        )

    def _tell(self, rejected: Rejected) -> None:
        """Say why something was rejected, to its owner as well if he can be told."""
        reporter = status.Reporter(self._bench.layout, rejected.name, rejected.uid)
        newest = reporter.newest()
        end = steps.failure(rejected.error)
        if newest is None or not newest.ended:
            if reporter(end):
                reporter.close()
            else:
                self._worker.tell_later(reporter, end)
        logs.warning(
            "rejected",
            request=rejected.name,
            user=rejected.uid,
            reason=steps.short(str(rejected.error)),
        )

    def _follow(self) -> bool:
        """Answer what waited for another worker, which is ready, or gave up, or died."""
        now = time.monotonic()
        if now - self._looked < OPEN_SECONDS:
            return False
        self._looked = now
        for each in self._open:
            if not each.batch.wanted():
                self._give_up(each)
                return True
            if self._is_over(each):
                self._open.remove(each)
                self._answer(each.batch, each.job)
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

    def _make(self, batch: Batch, job: Job | None) -> str:
        """Return the id of the image that BATCH asks for."""
        if job is not None and self._jobs is not None:
            return self._publish(self._bench, batch, self._jobs, job).id
        if fresh := steps.fresh(self._bench, batch.request):
            return fresh.id
        image_id = self._build(self._bench, batch, self._jobs).id
        steps.confirm(self._bench, batch.request)
        return image_id

    def _answer(self, batch: Batch, job: Job | None = None) -> None:
        """Answer BATCH with an image, which JOB may have built, or why there is none."""
        try:
            self._try_to_answer(batch, job)
        finally:
            if self._jobs is not None:
                # We may have been interrupted anywhere.
                self._jobs.keep_only([each.job for each in self._open])

    def _try_to_answer(self, batch: Batch, job: Job | None) -> None:
        try:
            if batch.wanted():
                self._try(batch, job)
        except Elsewhere as elsewhere:
            self._open.append(_Open(batch, key=elsewhere.key))
            return
        except Submitted as submitted:
            self._open.append(_Open(batch, job=submitted.job))
            # It may be long until the job begins.
            batch.report(Status(state="PENDING"))
            return
        except JobLost as lost:
            logs.warning("requeued", **self._said(batch.request), reason=lost)
            batch.hand_back()
        except Unwanted:
            logs.info("stopped", **self._said(batch.request))
        except BaseException:
            batch.hand_back()
            self._worker.leave(batch)
            raise
        self._worker.leave(batch)

    def _try(self, batch: Batch, job: Job | None) -> None:
        started = time.monotonic()
        try:
            with self._worker.guarding(batch):
                image_id = self._make(batch, job)
        except (Elsewhere, Submitted, JobLost):
            raise
        except RegistryBusy as error:
            exhausted.check(error)
            self._do_without(batch, error)
        except (ShifterError, OSError) as error:
            exhausted.check(error)
            self._fail(batch, error if isinstance(error, ShifterError) else from_oserror(error))
        except Exception as error:  # noqa: BLE001  # a bug, and one request's bug must not stop others
            exhausted.check(error)
            logs.error("bug", error, **self._said(batch.request))
            self._fail(batch, BuildFailed(f"a bug in shifter_lite: {error!r}", hint="report it"))
        else:
            seconds = time.monotonic() - started
            requests = batch.requests
            self._end(batch, Status(state="READY", image_id=image_id))
            for request in requests:
                logs.info("ready", **self._said(request), id=image_id, seconds=seconds)

    def _do_without(self, batch: Batch, busy: RegistryBusy) -> None:
        """Answer BATCH with what is there already, if it is, as the registry is BUSY."""
        try:
            entry = steps.ready(self._bench, batch.request)
        except (ShifterError, OSError):
            entry = None
        if entry is None:
            self._fail(batch, busy)
            return
        requests = batch.requests
        self._end(batch, steps.unconfirmed(batch.request, entry, busy))
        for request in requests:
            reason = steps.short(str(busy))
            logs.warning("ready, unconfirmed", **self._said(request), id=entry.id, reason=reason)

    def _fail(self, batch: Batch, error: ShifterError) -> None:
        requests = batch.requests
        self._end(batch, steps.failure(error))
        for request in requests:
            reason = steps.short(str(error))
            logs.warning("failed", **self._said(request), code=error.exit_code, reason=reason)

    def _end(self, batch: Batch, end: Status) -> None:
        # Who was taken for dead has no last word.
        self._worker.presence.renew()
        batch.end(end)

    def _log_cancelled(self, request: Request) -> None:
        logs.info("cancelled", **self._said(request))

    def _said(self, request: Request) -> dict[str, object]:
        """Return what the log says of REQUEST."""
        return {
            "request": request.name,
            "user": request.uid,
            "image": request.image,
            "platform": steps.platform_of(self._bench, request),
        }

    def tidy_sometimes(self) -> None:
        """Tidy up, but not at every turn: it reads what has nothing to do with requests.

        Nor before requests are answered, unless they come for an hour on end: it takes seconds.
        """
        now = time.monotonic()
        due = now - self._tidied > _TIDY_SECONDS
        if due and (self.idle or now - self._begun > _TIDY_SECONDS):
            self._tidied = time.monotonic()
            _tidy(self._bench)


def _tidy(bench: Bench) -> None:
    """Remove what is too old, and what dead workers left."""
    sweep(bench.layout, bench.worker.clock.now())
    bench.worker.bury_idle(partial(steps.fence, bench))
    layout = bench.layout
    known.forget_confirmations(layout)
    orders.tidy(layout, bench.worker.census.dead)
    for place in (layout.images, layout.blobs, layout.index):
        for path in (*place.glob(".*"), *place.glob("??/.*")):
            # Others have hidden names of their own: NFS for what is removed and still open.
            owner = _OWNER.search(path.name)
            if owner and bench.worker.census.dead(owner[1].replace("+", ".")):
                path.unlink(missing_ok=True)
