"""What a worker does, one turn after the other, and how requests end.

How an image comes to be is not known here: ``worker`` says that.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, NoReturn, Self

from shifter_lite import cataloguing, exhausted, logs, steps, store
from shifter_lite.build.manifest import Manifest
from shifter_lite.errors import BuildFailed, RegistryBusy, ShifterError, TooMany, from_oserror
from shifter_lite.executor import order as orders
from shifter_lite.executor.local import Build, Builds, Died, HasFileno
from shifter_lite.executor.messages import Asked, Built, Failed
from shifter_lite.executor.order import Job, JobLost
from shifter_lite.index import known
from shifter_lite.queue import deaths, marks, status
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
# Beside those that are under way, so many more requests are looked at: their images may be there.
_ASKING = 4
# The worker in the name of an unfinished file.
_OWNER = re.compile(r"[.+]([A-Za-z0-9-]+[.+][0-9]+[.+][A-Za-z0-9]+)$")

# Makes what a batch asked for known, for all that want it: its manifest, the image, whether new.
Publish = Callable[[Bench, Batch, Manifest, Image, bool], None]


@dataclass(slots=True, eq=False)
class _Pending:
    """A batch that waits for its image.

    ``build`` is a child of ours, ``job`` a batch job of ours, ``key`` what another builds that we
    wait for.  ``asked`` is what the child has said that the image is; ``lease`` is what keeps
    others from building ``leased``.
    """

    batch: Batch
    began: float = field(default_factory=time.monotonic)
    build: Build | None = None
    job: Job | None = None
    key: str = ""
    asked: Asked | None = None
    leased: str = ""
    lease: ExitStack = field(default_factory=ExitStack)


class Shift:
    """What a worker does, one turn after the other."""

    def __init__(
        self, bench: Bench, builds: Builds, publish: Publish, listener: Listener | None = None
    ) -> None:
        """Work with BENCH, and let BUILDS build.

        PUBLISH publishes what was built, or was there; LISTENER gives who else wants statuses.
        """
        self._bench, self._builds, self._publish = bench, builds, publish
        self._listener = listener
        self._worker = bench.worker
        self._shared = store.is_shared(bench.layout)
        self._pending: list[_Pending] = []
        self._tidied = self._looked = self._recovered = self._rejected = float("-inf")
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
        with self._life:
            for each in self._pending:
                self._release(each)

    @property
    def busy(self) -> bool:
        """Whether something is under way elsewhere that we wait for."""
        return bool(self._pending)

    def turn(self) -> bool:
        """Do what there is to do, and wait for nothing; return whether there was something."""
        self._worker.attendant.check()
        self._builds.tidy()
        recovered = self._recover()
        self._worker.backlog.refresh()
        rejected = self._reject()
        followed = self._follow()
        begun = self._has_room() and self._begin_next()
        self.idle = not (recovered or rejected or followed or begun)
        return not self.idle

    def wait(self, seconds: float, *others: HasFileno) -> None:
        """Wait until a build says something, or OTHERS can be read, but not more than SECONDS."""
        self._builds.wait(seconds, *others)

    def left(self) -> bool:
        """Return whether anything is left to do, by a look that is not old."""
        if self._pending:
            return True
        return self._worker.may_begin() or self._recover(now=True)

    def _recover(self, *, now: bool = False) -> bool:
        clock = time.monotonic()
        if not now and clock - self._recovered < _RECOVER_SECONDS:
            return False
        self._recovered = clock
        recovered = self._worker.recover(partial(steps.fence, self._bench))
        # Who is interrupted while he makes one, or cannot remove it, would keep all from building.
        leased = {each.leased for each in self._pending if each.leased}
        marks.remove(self._bench.layout, self._worker.name, keep=leased)
        if recovered:
            logs.info("recovered", requests=recovered)
            self._worker.backlog.refresh(now=True)
        return bool(recovered)

    def _reject(self) -> bool:
        # What is no request has a share of the time of those that are built, and not all of it.
        if self._pending and time.monotonic() - self._rejected < OPEN_SECONDS:
            return False
        rejected = False
        for found in self._worker.rejections():
            rejected = True
            if isinstance(found, Claim):
                self._refuse(Batch([found]))
            else:
                self._tell(found)
        self._rejected = time.monotonic()
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

    # ----------------------------------------------------------------- what is under way

    @property
    def _at_once(self) -> int:
        """How many builds may be under way."""
        return self._bench.site.executor.jobs if self._jobs else self._builds.at_once

    def _has_room(self) -> bool:
        """Return whether one more request may be looked at."""
        under_way = sum(bool(each.build or each.job) for each in self._pending)
        return under_way < self._at_once + _ASKING

    def _full_users(self) -> list[int]:
        """Return users who have all but one of the builds: that one is for others."""
        if not self._shared:
            return []
        theirs = Counter(each.batch.request.uid for each in self._pending if each.build or each.job)
        return [uid for uid, number in theirs.items() if number >= max(1, self._at_once - 1)]

    def _begin_next(self) -> bool:
        """Claim what is next, if anything is, and begin with it."""
        found = self._worker.next(self._listener, but=self._full_users())
        if isinstance(found, Rejected):
            self._tell(found)
        elif found is not None:
            # Before it is taken: if the filesystem fails us here, all are put back by ``recover``.
            found.settle_ended()
            self._worker.take(found, self._log_cancelled)
            each = _Pending(found)
            self._pending.append(each)
            self._attempt(each, self._ask)
        return found is not None

    def _follow(self) -> bool:
        """See how all stand that are under way; return whether anything was new."""
        now = time.monotonic()
        due = now - self._looked >= OPEN_SECONDS
        self._looked = now if due else self._looked
        return sum(self._look_after(each, due=due) for each in list(self._pending)) > 0

    def _look_after(self, each: _Pending, *, due: bool) -> bool:
        if not each.batch.wanted():
            if each.build or each.job:
                logs.info("stopped", **self._said(each.batch.request))
            self._leave(each)
        elif each.build:
            return self._listen(each, each.build)
        elif due and each.job and self._jobs and self._jobs.is_over(each.job, each.batch.report):
            self._attempt(each, self._take_over)
        elif due and each.key and not self._is_built_elsewhere(each):
            self._attempt(each, self._ask)
        else:
            return False
        return True

    def _is_built_elsewhere(self, each: _Pending) -> bool:
        return marks.is_built(self._bench.layout, each.key, self._worker.census)

    def _listen(self, each: _Pending, build: Build) -> bool:
        match self._builds.listen(build):
            case None:
                return bool(each.leased) and not build.going and self._may_go_on(each)
            case Status() as status:
                each.batch.report(status)
            case Asked() as asked:
                each.asked = asked
                self._attempt(each, self._decide)
            case Built(image_id):
                self._attempt(each, partial(self._take_up, image_id=image_id))
            case Failed(error):
                self._attempt(each, partial(_raise, error=error))
            case Died(reason):
                self._attempt(each, partial(self._bear, reason=reason))
        return True

    # ------------------------------------------------------------------ steps of a batch

    def _ask(self, each: _Pending) -> bool:
        """Have a child ask what the image is, unless no registry need be asked."""
        each.key, each.asked = "", None
        if fresh := steps.fresh(self._bench, each.batch.request):
            self._succeed(each, fresh.id)
            return True
        self._check_deaths(each.batch, "their workers died with them")
        if each.batch.wanted():
            each.batch.report(Status(state="PULLING"))
            each.build = self._builds.start(each.batch.request)
        return False

    def _decide(self, each: _Pending) -> bool:
        """Publish the image, if it is there; else let it be built, unless another builds it."""
        assert each.asked is not None
        if self._publish_found(each, each.asked):
            return True
        # The catalog takes a while to load: let it, while layers are on their way.
        Thread(target=cataloguing.load, daemon=True).start()
        try:
            # A batch job dies alone.
            names = () if self._jobs else each.batch.names
            request, manifest = each.batch.request, each.asked.manifest
            each.lease.enter_context(steps.building(self._bench, request, manifest, names))
        except Elsewhere as elsewhere:
            self._end_build(each)
            each.key = elsewhere.key
            return False
        each.leased = steps.build_key(self._bench, request, manifest)
        # Whoever built it before us may just have been ready.
        if self._publish_found(each, each.asked):
            return True
        self._may_go_on(each)
        return False

    def _publish_found(self, each: _Pending, asked: Asked) -> bool:
        image = steps.find(self._bench, asked.manifest, asked.recipe)
        if image is not None:
            self._make_known(each, image, new=False)
        return image is not None

    def _may_go_on(self, each: _Pending) -> bool:
        """Let the build of EACH go on, here or in a job, if there is room for it."""
        assert each.asked is not None
        assert each.build is not None
        if self._jobs is not None:
            return self._submit(self._jobs, each, each.asked.manifest)
        if not self._builds.may_go():
            return False
        self._builds.go(each.build)
        return True

    def _submit(self, jobs: Jobs, each: _Pending, manifest: Manifest) -> bool:
        if not jobs.has_room():
            return False
        each.job = jobs.submit(self._bench, each.batch.request, manifest, each.lease)
        self._end_build(each)
        # It may be long until the job begins.
        each.batch.report(Status(state="PENDING"))
        return True

    def _take_over(self, each: _Pending) -> bool:
        """Publish what a job has built."""
        assert each.job is not None
        assert self._jobs is not None
        with self._jobs.result(each.job) as image_id:
            return self._take_up(each, image_id)

    def _take_up(self, each: _Pending, image_id: str) -> bool:
        """Publish the image IMAGE_ID, which was built."""
        self._make_known(each, steps.read_record(self._bench.layout, image_id), new=True)
        return True

    def _make_known(self, each: _Pending, image: Image, *, new: bool) -> None:
        assert each.asked is not None
        with self._worker.guarding(each.batch):
            self._publish(self._bench, each.batch, each.asked.manifest, image, new)
            steps.confirm(self._bench, each.batch.request)
        self._succeed(each, image.id)

    def _succeed(self, each: _Pending, image_id: str) -> None:
        seconds = time.monotonic() - each.began
        requests = each.batch.requests
        self._end(each.batch, Status(state="READY", image_id=image_id))
        for request in requests:
            logs.info("ready", **self._said(request), id=image_id, seconds=seconds)

    def _bear(self, each: _Pending, reason: str) -> bool:
        """Let it be tried again, unless too many have died of it."""
        assert each.build is not None
        deaths.note(self._bench.layout, each.batch.names, self._builds.mark(each.build))
        self._check_deaths(each.batch, reason)
        raise JobLost(reason)

    def _check_deaths(self, batch: Batch, reason: str) -> None:
        """Raise BuildFailed if too many builds have died for a request of BATCH."""
        most = deaths.too_many(self._bench.layout, batch.names)
        if most:
            raise BuildFailed(
                f"{most} builds of the image ended without a result: {reason}",
                hint="tell the administrator of the store: does a build need more memory than "
                "the node has (limits.memory_bytes in shifter_lite.toml)?",
            )

    # ------------------------------------------------------------------------------- ends

    def _attempt(self, each: _Pending, step: Callable[[_Pending], bool]) -> None:
        """Do STEP for EACH, and leave it if that has answered it, or shown that nothing will."""
        try:
            if self._is_over(each, step):
                self._leave(each)
        except BaseException:
            each.batch.hand_back()
            self._leave(each)
            raise

    def _is_over(self, each: _Pending, step: Callable[[_Pending], bool]) -> bool:
        batch = each.batch
        try:
            return step(each)
        except JobLost as lost:
            logs.warning("requeued", **self._said(batch.request), reason=lost)
            batch.hand_back()
        except Unwanted:
            logs.info("stopped", **self._said(batch.request))
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
        return True

    def _leave(self, each: _Pending) -> None:
        """Have EACH no more: it is answered, or handed back."""
        self._pending.remove(each)
        self._release(each)
        self._worker.leave(each.batch)

    def _release(self, each: _Pending) -> None:
        self._end_build(each)
        if each.job and self._jobs and not each.job.is_left:
            self._jobs.leave(each.job)
        each.lease.close()

    def _end_build(self, each: _Pending) -> None:
        if each.build is not None:
            self._builds.end(each.build)
            each.build = None

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
        deaths.forget(self._bench.layout, batch.names)

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
        if due and ((self.idle and not self._builds) or now - self._begun > _TIDY_SECONDS):
            self._tidied = time.monotonic()
            _tidy(self._bench)


def _raise(_: _Pending, error: Exception) -> NoReturn:
    raise error


def _tidy(bench: Bench) -> None:
    """Remove what is too old, and what dead workers left."""
    sweep(bench.layout, bench.worker.clock.now())
    deaths.sweep(bench.layout)
    bench.worker.bury_idle(partial(steps.fence, bench))
    layout = bench.layout
    known.forget_confirmations(layout)
    orders.tidy(layout, bench.worker.census.dead)
    for place in (layout.images, layout.blobs, layout.index, layout.claimed):
        for path in (*place.glob(".*"), *place.glob("??/.*")):
            # Others have hidden names of their own: NFS for what is removed and still open.
            owner = _OWNER.search(path.name)
            if owner and bench.worker.census.dead(owner[1].replace("+", ".")):
                path.unlink(missing_ok=True)
