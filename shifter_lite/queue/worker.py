"""A worker's place at a spool: that it lives, what it sees of others, what it claims."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress

from shifter_lite import exhausted, logs
from shifter_lite import store as stores
from shifter_lite.errors import BadRequest, StoreTrouble
from shifter_lite.layout import Layout
from shifter_lite.queue import claim, deaths, marks, presence
from shifter_lite.queue.attendant import Attendant
from shifter_lite.queue.backlog import LARGEST_BATCH, Backlog, wish
from shifter_lite.queue.batch import Batch, Report
from shifter_lite.queue.claim import Claim, Rejected
from shifter_lite.queue.clock import StoreClock
from shifter_lite.queue.presence import Census, Presence
from shifter_lite.queue.status import Reporter
from shifter_lite.queue.turns import Fairness, Turns
from shifter_lite.request import Request, Status, request_uid

# How old what we know of others' claims may be when we choose, in seconds.
_RUNNING_SECONDS = 0.5
# So many equal requests are claimed at first, and then twice as many each time: workers that are
# killed again and again must have got somewhere each time, however slow the filesystem is.
_AT_FIRST = 8
# So long nothing may be claimed, before who has nothing else to do gives up.
_PATIENCE_SECONDS = 5.0
# So many who asked for nothing proper are told so later, and in one round.
_MOST_UNHEARD = 1000
_TOLD_AT_ONCE = 30
# So many may wait of one user.
_MOST_WAITING = 100_000

Listener = Callable[[Request], Report | None]


class Worker:
    """The right of this process to claim requests, for as long as it lives."""

    def __init__(
        self,
        layout: Layout,
        store: str,
        *,
        lease_seconds: float = 60.0,
        fairness: Fairness | None = None,
        waiting_per_user: int = _MOST_WAITING,
    ) -> None:
        """Work on the spool of STORE, which is at LAYOUT."""
        self._layout, self._store = layout, store
        self.presence = Presence(layout)
        self.census = Census(layout, lease_seconds, own=self.name)
        self.attendant = Attendant(self.presence, self.census)
        self._fairness = fairness or Fairness()
        self.clock = StoreClock(layout, self.name)
        self.backlog = Backlog(
            layout,
            self._look,
            Turns(self._fairness),
            waiting_per_user,
        )
        self._batches: list[Batch] = []
        # Of which not all have heard the end yet.
        self._untold: list[Batch] = []
        self._unheard: deque[tuple[Reporter, Status]] = deque(maxlen=_MOST_UNHEARD)
        self._at_once = _AT_FIRST
        # What was rejected when it was claimed as one of several.
        self._late: list[Rejected] = []
        self._running: Counter[int] = Counter()
        self._counted = float("-inf")
        # Of each claim of others, which build it is of: claims never change.
        self._builds_of: dict[tuple[str, str], object] = {}
        self._life = ExitStack()

    @property
    def name(self) -> str:
        """Return the name that nobody else ever has."""
        return self.presence.name

    @property
    def mark(self) -> str:
        """Return what ends the names of files that only we use."""
        return self.name

    def __enter__(self) -> Worker:
        """Come to life; raises Denied where only somebody else may."""
        stores.check_ours(self._layout)
        with ExitStack() as life:
            self.attendant.every_round(self, self._tell_unheard)
            life.enter_context(self.presence)
            life.enter_context(self.attendant)
            self._life = life.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End; hand back what is not answered."""
        with self._life:
            for batch in [*self._batches, *self._untold]:
                batch.hand_back()
            self._batches.clear()
            # What is left is put back by others, as soon as we are gone.
            with suppress(OSError):
                self._return_strays(claim.claimed(self._layout))

    # ------------------------------------------------------------------------------ claims

    def rejections(self) -> Iterator[Rejected | Claim]:
        """Claim what is no request, and yield why; and what is more than its user may ask for.

        Only some of it, so that those who ask properly need not wait.
        """
        yield from self._late
        self._late.clear()
        for name in self.backlog.bad():
            found = self._claim_or_put_off(name)
            if isinstance(found, Claim):
                # It has become one since we looked: it waits for its turn.
                found.hand_back()
            elif found is not None:
                yield found
        for name in self.backlog.excess():
            if (claimed := self._claim_or_put_off(name)) is not None:
                yield claimed

    def next(
        self, listener: Listener | None = None, *, but: Collection[int] = ()
    ) -> Batch | Rejected | None:
        """Claim the request whose turn it is, and all that are equal; None if there is none.

        LISTENER returns who else wants a request's statuses.  It is nobody's turn of the users BUT.
        """
        while names := self.backlog.next(self._count_running(), but=but):
            first = self._claim_or_put_off(names[0])
            if first is None:
                continue
            if isinstance(first, Rejected):
                return first
            if self._joins(first, listener):
                self.backlog.served(names[0])
                continue
            if self._is_too_much(first):
                first.hand_back()
                return None
            self.backlog.served(names[0])
            return self._batch(first, names[1:], listener)
        return None

    def _joins(self, ours: Claim, listener: Listener | None) -> bool:
        """Return whether OURS is answered with a batch that is under way and wants the same.

        Each batch asks the registry, which counts that.
        """
        # Who insists is told what the registry says now.
        asked = None if ours.request.refresh else wish(ours.request)
        heard = listener(ours.request) if listener else None
        return asked is not None and any(
            wish(batch.request) == asked and batch.join(ours, heard) for batch in self._batches
        )

    def _claim_or_put_off(self, name: str) -> Claim | Rejected | None:
        """Claim NAME; if the filesystem has trouble, let others be claimed, and it another time."""
        try:
            found = self._claim(name)
        except OSError as error:
            exhausted.check(error)
            self.backlog.put_off(name, error)
            return None
        if found is not None:
            self.backlog.is_well(name)
        return found

    def _claim(self, name: str) -> Claim | Rejected | None:
        self.attendant.check()
        self.backlog.forget(name)
        if any(name in batch.names for batch in [*self._batches, *self._untold]):
            # Its owner has put it there again: once the first is answered, that is no request.
            return None
        found = claim.claim(
            self._layout, name, store=self._store, worker=self.name, now=self.clock.now()
        )
        if isinstance(found, Rejected) and found.stuck:
            self.backlog.ignore(name)
        return found

    def _look(self, name: str) -> Request:
        return claim.look(self._layout, name, store=self._store, now=self.clock.now())

    def _batch(self, first: Claim, names: list[str], listener: Listener | None) -> Batch:
        claims = [first]
        asked = wish(first.request)
        for name in names[: self._at_once - 1]:
            other = self._claim_or_put_off(name)
            # Its owner may have written it anew since we looked.
            if isinstance(other, Claim):
                if wish(other.request) == asked:
                    claims.append(other)
                else:
                    other.hand_back()
            elif other is not None:
                self._late.append(other)
            elif self.backlog.trouble is not None:
                break
        heard = [listener(each.request) for each in claims] if listener else []
        batch = Batch(claims, next(filter(None, heard), None))
        self._running[first.request.uid] += 1
        return batch

    def _count_running(self) -> Counter[int]:
        """Return how many builds of each user are under way: ours, and what others have claimed."""
        now = time.monotonic()
        if now - self._counted > _RUNNING_SECONDS:
            self._counted = now
            self._running = self._running_now()
        return self._running

    def _running_now(self) -> Counter[int]:
        """Return how many builds of each user are under way, of others by what they have claimed.

        What one worker has claimed of one image is one build, of whose is the oldest request.
        """
        claims = sorted(claim.claimed(self._layout))
        others = {each: self._build_of(*each) for each in claims if each[1] != self.name}
        self._builds_of = others
        whose: dict[tuple[str, object], int] = {}
        for (name, worker), build in others.items():
            whose.setdefault((worker, build), request_uid(name))
        return Counter(whose.values()) + Counter(batch.request.uid for batch in self._batches)

    def _build_of(self, name: str, worker: str) -> object:
        """Return what the claim of NAME has in common with others that WORKER answers at once."""
        if not self._is_limited:
            return request_uid(name)
        if (name, worker) not in self._builds_of:
            try:
                asked = wish(claim.look_at_claim(self._layout, name, worker, store=self._store))
            except (BadRequest, OSError):
                asked = None
            return asked or name
        return self._builds_of[name, worker]

    @property
    def _is_limited(self) -> bool:
        return bool(self._fairness.running or self._fairness.running_per_user)

    def may_begin(self) -> bool:
        """Return whether something waits that we may begin, now or soon, by a look that is not old.

        Not what waits for a limit: who is at work there comes back for it.  Raises StoreTrouble
        where the filesystem has given none of it for a while.
        """
        self.backlog.refresh(now=True)
        if self.backlog.has_junk():
            return True
        allowed = self._allowed(self.backlog.waiting())
        if allowed and all(allowed.values()):
            self._check_patience()
        return bool(allowed)

    def _allowed(self, waiting: dict[int, bool]) -> dict[int, bool]:
        """Return those of WAITING of whom one more may be under way."""
        fairness, running = self._fairness, self._running_now()
        if 0 < fairness.running <= sum(running.values()):
            return {}
        most = fairness.running_per_user
        return {uid: rests for uid, rests in waiting.items() if not most or running[uid] < most}

    def _check_patience(self) -> None:
        trouble = self.backlog.trouble
        if trouble is not None and self.backlog.troubled_seconds > _PATIENCE_SECONDS:
            where = f": {trouble.filename!r}" if trouble.filename else ""
            raise StoreTrouble(
                f"the filesystem of the store is in trouble{where}: {trouble.strerror}"
            ) from trouble

    def _is_too_much(self, ours: Claim) -> bool:
        """Return whether others have claimed while we chose, so that limits are exceeded."""
        fairness = self._fairness
        if not self._is_limited:
            return False
        running = self._running_now()
        running[ours.request.uid] += 1
        return (
            0 < fairness.running < sum(running.values())
            or 0 < fairness.running_per_user < running[ours.request.uid]
        )

    @contextmanager
    def guarding(self, batch: Batch) -> Iterator[None]:
        """Raise Unwanted meanwhile, once nobody wants BATCH; and Lost, if we are buried."""
        with self.attendant.guarding(batch.wanted):
            yield

    def take(self, batch: Batch, on_cancel: Callable[[Request], None]) -> None:
        """Have BATCH until ``leave``: ON_CANCEL hears of requests that are not wanted any more."""

        def look() -> None:
            if batch.has_end:
                # Who was taken for dead has no last word.
                self.presence.renew()
            for request in batch.go_round():
                on_cancel(request)

        self._batches.append(batch)
        self.attendant.every_round(batch, look)

    def leave(self, batch: Batch) -> None:
        """Have BATCH no more: it is answered, or handed back."""
        if batch in self._batches:
            self._batches.remove(batch)
            self._at_once = min(2 * self._at_once, LARGEST_BATCH)
            self._counted = float("-inf")
            if batch.wanted() and batch.has_end:
                self._untold.append(batch)
                logs.warning("the end is not told yet", request=batch.request.name)
            else:
                self.attendant.no_more(batch)

    def tell_later(self, reporter: Reporter, end: Status) -> None:
        """Let REPORTER tell END, of what is no request, once the filesystem lets it."""
        self._unheard.append((reporter, end))

    def _tell_unheard(self) -> None:
        """Tell some of those who asked for nothing proper; in the attendant's thread."""
        for _ in range(min(_TOLD_AT_ONCE, len(self._unheard))):
            reporter, end = self._unheard.popleft()
            if not reporter(end):
                self._unheard.append((reporter, end))

    def _forget_told(self) -> None:
        for batch in self._untold:
            if not batch.wanted():
                self.attendant.no_more(batch)
        self._untold = [batch for batch in self._untold if batch.wanted()]

    # -------------------------------------------------------------------------- the others

    def living(self) -> set[str]:
        """Return the names of the workers that live, this one included."""
        return {name for name in self.census.workers() if not self.census.dead(name)}

    def undecided(self) -> bool:
        """Return whether requests lie with workers that may be dead, as far as we know yet."""
        return any(self.census.undecided(worker) for _, worker in claim.claimed(self._layout))

    def recover(self, fence: Callable[[], object]) -> int:
        """Bury dead workers, and put back what they had claimed; return how many requests.

        FENCE keeps what they may still be about to publish from being published.
        """
        self._forget_told()
        claims = claim.claimed(self._layout)
        dead = self._stopped({worker for _, worker in claims})
        if dead:
            self.attendant.check()
            fence()
        for worker in dead:
            deaths.note(self._layout, marks.requests(self._layout, worker), worker)
        returned = [
            claim.return_claim(self._layout, name, worker)
            for name, worker in claims
            if worker in dead
        ]
        for worker in dead:
            self._bury(worker)
        return sum(returned) + self._return_strays(claims)

    def _return_strays(self, claims: list[tuple[str, str]]) -> int:
        """Put back what is ours, but we do not know of: a rename's answer may get lost on NFS."""
        batches = [*self._batches, *self._untold]
        known = {request.name for batch in batches for request in batch.requests}
        ours = [name for name, worker in claims if worker == self.name and name not in known]
        return sum(claim.return_claim(self._layout, name, self.name) for name in ours)

    def bury_idle(self, fence: Callable[[], object]) -> None:
        """Clear away what dead workers left that have no claims, as their last may be cancelled.

        FENCE is as for ``recover``.
        """
        busy = {worker for _, worker in claim.claimed(self._layout)}
        builders = marks.makers(self._layout)
        idle = {*self.census.workers(), *builders} - busy
        dead = self._stopped(idle)
        if dead & builders:
            self.attendant.check()
            fence()
        for worker in dead:
            self._bury(worker)

    def _stopped(self, workers: set[str]) -> set[str]:
        """Return those of WORKERS that are dead, and cannot believe any more that they live."""
        return {each for each in workers if self.census.dead(each) and self.census.stop(each)}

    def _bury(self, worker: str) -> None:
        marks.remove(self._layout, worker)
        presence.remove_lock(self._layout, worker)
        self.census.forget(worker)
