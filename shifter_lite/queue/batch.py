"""Requests that one answer is for, each with its own status and its own end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TypeVar

from shifter_lite.queue.claim import Claim, settle
from shifter_lite.queue.presence import Lost
from shifter_lite.queue.status import Reporter
from shifter_lite.request import Request, Status

T = TypeVar("T")
Report = Callable[[Status], None]
# Of progress alone requesters hear so often.
_PROGRESS_SECONDS = 0.5
# So many hear of it at once.  The others hear in the next rounds, of what still holds then: what
# is over before costs nothing, and on a shared filesystem a status costs milliseconds.
_TOLD_AT_ONCE = 4
# So many requesters are told in one round, and asked whether they still want it.
_ASKED_AT_ONCE = 30
# Disks and servers make many things last in the time that one takes them.
_THREADS = 16
# What is asked for so much later may mean another image, and is asked of the registry anew.
_JOINING_SECONDS = 60.0
# So long it is tried to tell the end.  Its owner may have made it impossible, as by a quota.
_END_SECONDS = 3600.0


class _Member:
    """One request of a batch."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.reporter = Reporter(claim.layout, claim.request.name, claim.request.uid)
        self._told: Status | None = None

    def tell(self, status: Status | None) -> bool:
        """Tell its owner STATUS, unless it is what he was told last; return False if we cannot."""
        if status is None or status == self._told:
            return True
        told = self.reporter(status)
        if told or not status.ended:
            self._told = status
        return told

    def close(self) -> None:
        self.reporter.close()


class Batch:
    """Claims that are answered together; any thread may report.

    ``request`` is that of the first, whose turn it was; ``names`` are all, answered or not.
    """

    def __init__(self, claims: Sequence[Claim], listener: Report | None = None) -> None:
        """Take CLAIMS, at least one; LISTENER hears every status as well."""
        self._layout = claims[0].layout
        self.request: Request = claims[0].request
        self.names = frozenset(claim.request.name for claim in claims)
        self._members = [_Member(claim) for claim in claims]
        self._listener = listener
        self._mutex = Lock()
        self._newest: Status | None = None
        # Until when the end is tried to be told to those who have not heard it.
        self._tried_until = float("inf")
        self._next_report = 0.0
        self._asked = 0
        self._began = time.monotonic()

    def join(self, claim: Claim, listener: Report | None = None) -> bool:
        """Answer CLAIM as well, which asks for the same; return False if it comes too late.

        LISTENER is as above, if there is none yet.
        """
        with self._mutex:
            is_late = time.monotonic() - self._began > _JOINING_SECONDS
            if is_late or self.has_end or not self._members:
                return False
            member = _Member(claim)
            self._members.append(member)
            self.names |= {claim.request.name}
            self._listener = self._listener or listener
            newest = member.reporter.newest()
            if newest is not None and newest.ended:
                # By a worker before us, which died then.
                settle(self._layout, self._end(member, good=newest.state == "READY"))
            else:
                member.tell(self._newest)
        return True

    @property
    def requests(self) -> list[Request]:
        """Those that are still to be answered."""
        with self._mutex:
            return [member.claim.request for member in self._members]

    def wanted(self) -> bool:
        """Return whether anybody still waits for the answer."""
        return bool(self._members)

    @property
    def has_end(self) -> bool:
        """Whether the end is known, though not all may have heard it."""
        return self._newest is not None and self._newest.ended

    def report(self, status: Status) -> None:
        """Tell how it stands: some now, the others in rounds; of mere progress now and then."""
        if self._listener:
            self._listener(status)
        with self._mutex:
            now = time.monotonic()
            is_news = self._newest is None or status.state != self._newest.state
            if not is_news and now < self._next_report:
                return
            self._newest = status
            for member in self._members[:_TOLD_AT_ONCE]:
                member.tell(status)
            self._next_report = now + _PROGRESS_SECONDS * 0.9

    def settle_ended(self) -> None:
        """Move away what was told its end before, by a worker that died then."""
        with self._mutex:
            newest = _each(lambda member: member.reporter.newest(), self._members)
            for member, status in list(zip(self._members, newest, strict=True)):
                if status is not None and status.ended:
                    self._end(member, good=status.state == "READY")

    def go_round(self) -> list[Request]:
        """Tell some how it stands, and answer those who do not want it any more; return these."""
        with self._mutex:
            self._asked = self._asked % max(1, len(self._members))
            some = self._members[self._asked : self._asked + _ASKED_AT_ONCE]
            self._asked += _ASKED_AT_ONCE
            if self._newest is not None and self._newest.ended:
                self._tell_end(self._newest, some)
                return []
            found = [(member, member.reporter.cancelled()) for member in some]
            for member in some:
                member.tell(self._newest)
            told = [member for member, end in found if end and member.reporter(end)]
            for member in told:
                try:
                    self._end(member, good=False)
                except Lost:
                    # Whoever has it will see the same.  We have said too much already.
                    self._let_go(member)
            return [member.claim.request for member in told]

    def end(self, status: Status) -> None:
        """Tell all the end, and note it; raises Lost if they are not ours any more.

        Who cannot be told now stays here: each round tells some of them.
        """
        if self._listener:
            self._listener(status)
        with self._mutex:
            self._newest = status
            self._tried_until = time.monotonic() + _END_SECONDS
            self._tell_end(status, list(self._members))

    def _tell_end(self, status: Status, members: Sequence[_Member]) -> None:
        """Tell MEMBERS that STATUS is the end; those that have heard it are ended."""
        heard = _each(lambda member: member.tell(status), members)
        late = time.monotonic() > self._tried_until
        # Each goes as soon as it is ended, so that nothing is ever told after that.
        over = [each for each, told in zip(members, heard, strict=True) if told or late]
        settle(self._layout, *_each(partial(self._end_as, status), over))

    def hand_back(self) -> None:
        """Let other workers have them; who was told the end is not told anything else."""
        with self._mutex:
            for member in self._members:
                # Perhaps by a worker before us, which died then.
                if self.has_end and self._newest:
                    member.tell(self._newest)
                elif not ((newest := member.reporter.newest()) and newest.ended):
                    member.tell(Status(state="PENDING"))
                # What the filesystem does not let us move now is put back as one that we forgot.
                with suppress(Lost, OSError):
                    member.claim.hand_back()
                member.close()
            self._members.clear()

    def _end_as(self, status: Status, member: _Member) -> Path:
        """End MEMBER as its owner was told it: with STATUS, or before us.

        A worker that was taken for dead may have told him, before it knew.
        """
        newest = member.reporter.newest() if member.reporter.overtaken else None
        end = newest if newest is not None and newest.ended else status
        return self._end(member, good=end.state == "READY")

    def _end(self, member: _Member, *, good: bool) -> Path:
        where = member.claim.done() if good else member.claim.failed()
        self._let_go(member)
        return where

    def _let_go(self, member: _Member) -> None:
        member.close()
        self._members.remove(member)


def _each(work: Callable[[_Member], T], members: Sequence[_Member]) -> list[T]:
    """Return what WORK returns of each of MEMBERS; many are at work at a time."""
    if len(members) == 1:
        return [work(members[0])]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(work, members))
