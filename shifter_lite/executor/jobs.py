"""A worker's batch jobs: submitted, asked after, and answered for.

Slurm's programs may take long where its controller is busy, so a thread runs them; the worker
never waits.  What has become of a job is known from what it wrote (``order``), and, if it wrote
no result, from whether Slurm still knows it as one that runs.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from shifter_lite import logs, steps
from shifter_lite.build import squash
from shifter_lite.build.manifest import Manifest
from shifter_lite.config import Executor
from shifter_lite.errors import BuildFailed, ClusterBusy, Reported, ShifterError, from_oserror
from shifter_lite.executor import order as orders
from shifter_lite.executor import slurm
from shifter_lite.executor.order import Desk, Job, JobLost, Order
from shifter_lite.layout import Layout
from shifter_lite.request import Request, Status
from shifter_lite.steps import Bench

_LOOK_SECONDS = 0.5
_ROUND_SECONDS = 0.2
# Slurm's programs are waited for no longer when the worker ends.
_LAST_SECONDS = 1.0
# How long the last words of an ended job may take to be seen here; longer, if it is likely that
# there are some.
_GRACE_SECONDS = 2.0
_LONG_GRACE_SECONDS = 60.0
_FORGOTTEN = "UNKNOWN"
_MAYBE_WELL = ("COMPLETED", _FORGOTTEN)
# So many jobs of one build may be lost.
_MOST_LOST = 3


class Jobs:
    """All jobs of one worker."""

    def __init__(self, layout: Layout, how: Executor) -> None:
        """Give builds for the store at LAYOUT to Slurm as HOW says; raises BadConfig."""
        slurm.check(layout.root)
        self._layout, self._how = layout, how
        self._jobs: list[Job] = []
        self._stop = threading.Event()
        # Held while the directory of a job is made or removed, by the thread or the worker.
        self._desks = threading.Lock()
        self._asked = float("-inf")
        self._silent = False
        self._thread = threading.Thread(target=self._attend, name="jobs", daemon=True)

    def __enter__(self) -> Jobs:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, and cancel what is not over; what that does not reach ends by itself."""
        self._stop.set()
        self.leave(*self._jobs)
        # It removes what it has just made.
        self._thread.join(_LAST_SECONDS)

    def has_room(self) -> bool:
        """Return whether one more may be submitted."""
        return len(self._jobs) < self._how.jobs

    def submit(self, bench: Bench, request: Request, manifest: Manifest, alone: ExitStack) -> Job:
        """Have the image of MANIFEST built for REQUEST, as BENCH would; waits for nothing.

        ALONE is closed when the job is left.
        """
        order = Order(
            root=str(bench.layout.root),
            store=bench.store,
            master=bench.worker.name,
            key=steps.build_key(bench, request, manifest),
            recipe=squash.recipe(bench.compressor, bench.site.policy),
            request=request,
            manifest=manifest,
            site=bench.site,
        )
        job = Job(order, Desk.new(self._layout, order.master), alone)
        self._jobs = [*self._jobs, job]
        return job

    def leave(self, *jobs: Job) -> None:
        """Have JOBS no more, and cancel those that are not over."""
        for job in jobs:
            self._remove(job)
            job.alone.close()
        self._jobs = [job for job in self._jobs if not job.is_left]
        if said := slurm.cancel([job.id for job in jobs if job.id and job.ended is None]):
            logs.warning("left", jobs=" ".join(job.id for job in jobs), reason=said)

    def _remove(self, job: Job) -> None:
        with self._desks:
            job.is_left = True
            job.desk.remove()

    def is_over(self, job: Job, report: Callable[[Status], object]) -> bool:
        """Return whether JOB has a result, or will have none; REPORT hears how it stands."""
        if not _is_due(job.looked, _LOOK_SECONDS):
            return False
        job.looked = time.monotonic()
        status = job.desk.newest()
        if status is not None and not status.ended:
            report(status)
        return _has_ended(status) or job.error is not None or _is_overdue(job)

    @contextmanager
    def result(self, job: Job) -> Iterator[str]:
        """Yield the id of the image that JOB, which is over, has made; then leave the job.

        Raises JobLost, or what stood in the way of building, or of having it built.
        """
        try:
            yield self._result(job)
        finally:
            self.leave(job)

    def _result(self, job: Job) -> str:
        # Once more: it may have had its last word after we asked for it.
        status, key = job.desk.newest(), job.order.key
        if status is not None and status.ended:
            orders.forget_logs(self._layout, key)
            job.ended = job.ended or time.monotonic()
            if status.state == "READY":
                return status.image_id
            raise Reported(status.fact, hint=status.hint, exit_code=status.exit_code)
        if job.error is not None:
            raise job.error
        fact = f"the batch job {job.id} ended without a result: {job.state}"
        kept = job.desk.keep_log(self._layout, key, job.id, fact)
        lost = len(orders.kept_logs(self._layout, key))
        if lost < _MOST_LOST:
            raise JobLost(fact)
        final = kept.with_name(f"{job.id}.log")
        kept.rename(final)
        orders.forget_logs(self._layout, key)
        raise BuildFailed(
            f"{fact}, as did {lost - 1} before it",
            hint=f"tell the administrator of the store: its log is {str(final)!r}",
        )

    # ------------------------------------------------------------------------ in the thread

    def _attend(self) -> None:
        while not self._stop.wait(_ROUND_SECONDS):
            for job in self._jobs:
                if not job.id and job.error is None and _is_due(job.tried, self._how.poll_seconds):
                    self._try(job)
            if _is_due(self._asked, self._how.poll_seconds) and any(job.id for job in self._jobs):
                self._ask()
                self._asked = time.monotonic()

    def _try(self, job: Job) -> None:
        try:
            self._submit(job)
        except ShifterError as error:
            job.error = error
        except OSError as error:
            job.error = from_oserror(error)
        except Exception as error:  # noqa: BLE001  # a bug must not let the job wait for ever
            logs.error("bug", error, request=job.order.request.name)
            job.error = BuildFailed(f"a bug in shifter_lite: {error!r}", hint="report it")
        job.tried = time.monotonic()
        if job.is_left:
            # What submits makes the directory again, if it is gone.
            self._remove(job)
            if job.id:
                slurm.cancel([job.id])

    def _submit(self, job: Job) -> None:
        with self._desks:
            if job.is_left:
                return
            job.desk.make()
        try:
            job.id = slurm.submit(self._how, job.desk, job.order)
            logs.info("submitted", request=job.order.request.name, job=job.id)
        except ClusterBusy as busy:
            self._complain(busy)
            if time.monotonic() - job.began > self._how.patience_seconds:
                raise
            # Slurm may have taken the job and not told us: without its directory it ends.
            self._renew(job)

    def _renew(self, job: Job) -> None:
        with self._desks:
            # Who leaves it has removed it.
            if not job.is_left:
                job.desk.remove()
                job.desk = Desk.new(self._layout, job.order.master)

    def _ask(self) -> None:
        jobs = [job for job in self._jobs if job.id]
        try:
            states = slurm.states(os.geteuid())
        except (ClusterBusy, OSError) as error:
            self._complain(error)
            return
        self._silent = False
        for job in jobs:
            # One that Slurm knows no more has ended long ago.
            job.state = states.get(job.id, _FORGOTTEN)
            if slurm.is_open(job.state):
                job.ended = None
            elif job.ended is None:
                job.ended = time.monotonic()

    def _complain(self, error: Exception) -> None:
        if not self._silent:
            logs.warning("slurm", reason=error)
        self._silent = True


def _is_due(last: float, seconds: float) -> bool:
    return time.monotonic() - last >= seconds


def _is_overdue(job: Job) -> bool:
    """Return whether JOB has ended, and nothing of it can be on its way any more."""
    grace = _LONG_GRACE_SECONDS if job.state in _MAYBE_WELL else _GRACE_SECONDS
    return job.ended is not None and time.monotonic() - job.ended > grace


def _has_ended(status: Status | None) -> bool:
    return status is not None and status.ended
