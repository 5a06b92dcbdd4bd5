"""What waits in ``new/``, as one worker has last seen it: whose, and what is equal.

Requests are looked at before they are claimed, some of each user's; what is none does not
take its user's turn, and no number of them slows anybody down.  What is looked at is only
believed once it has been claimed and read again.
"""

from __future__ import annotations

import errno
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from shifter_lite import logs
from shifter_lite.errors import BadRequest
from shifter_lite.layout import Layout
from shifter_lite.queue import deaths
from shifter_lite.queue.turns import Turns
from shifter_lite.request import Request, is_request_name

# So many requests of each user are looked at before they are claimed.
_AHEAD = 256
_AT_ONCE = 16
# So many are claimed together at most.
LARGEST_BATCH = 1000
# A look at a huge spool takes its time: it must not take more than a part of ours.
_PAUSE_PER_COST = 10.0
_SHORTEST_PAUSE = 0.2
# What is spent at once on what is no request, in seconds.
_CLEARING_SECONDS = 0.1
_LOOKING_SECONDS = 0.2
# Whose request the filesystem does not give rests so long, and then twice as long each time.
_FIRST_REST_SECONDS, _LONGEST_REST_SECONDS = 0.5, 60.0
# Rests for all that is no request.
_JUNK = -1
# Somebody else has it: NFS calls what was moved away stale.
_GONE = (errno.ENOENT, errno.ESTALE)

Wish = tuple[str, str, bool]


def wish(request: Request) -> Wish | None:
    """Return what requests must have in common to get one answer; None if each has its own."""
    if request.path:
        return None
    return str(request.image), request.platform, request.refresh


@dataclass(slots=True)
class _User:
    """The requests of one user, oldest first.

    ``listed`` have names that say they are his, which anybody can write; ``owned`` are files of
    his; ``ahead`` were looked at.
    """

    listed: deque[str] = field(default_factory=deque)
    owned: deque[str] = field(default_factory=deque)
    ahead: dict[str, Wish | None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.listed) + len(self.owned) + len(self.ahead)

    def is_unclear(self, most: int) -> bool:
        """Whether it matters whose the files are that are listed: of MOST, some may be refused."""
        return bool(self.listed) and (
            len(self) > most or len(self.owned) + len(self.ahead) < _AHEAD
        )

    def hungry(self) -> bool:
        """Whether more of them can be looked at."""
        return bool(self.owned) and len(self.ahead) < _AHEAD


@dataclass(slots=True)
class _Rest:
    """How long nothing is tried of somebody's: ``until`` by the monotonic clock."""

    until: float
    seconds: float


class Backlog:
    """The requests that wait."""

    def __init__(
        self, layout: Layout, look: Callable[[str], Request], turns: Turns, most: int
    ) -> None:
        """See what is at LAYOUT; LOOK reads a request or raises BadRequest, TURNS says who is next.

        Of one user no more than MOST may wait.
        """
        self._layout, self._look, self._turns, self._most = layout, look, turns, most
        self._users: dict[int, _User] = {}
        self._alike: dict[Wish, dict[str, None]] = {}
        self._bad: deque[str] = deque()
        self._excess: deque[str] = deque()
        self._seen: set[str] = set()
        self._tried: set[str] = set()
        self._ignored: set[str] = set()
        self._rests: dict[int, _Rest] = {}
        # What the filesystem said last, if nothing has gone well since.
        self.trouble: OSError | None = None
        self._troubled = 0.0
        self._next_look = 0.0

    def __bool__(self) -> bool:
        """Whether anything waits, as far as we know."""
        return bool(self._users or self._bad or self._excess)

    def has_junk(self) -> bool:
        """Whether something is there that is to be rejected, and may be now."""
        return bool((self._bad and not self._is_resting(_JUNK)) or self._excess)

    def due_in(self) -> float:
        """Return after how many seconds the spool may be listed again."""
        return max(0.0, self._next_look - time.monotonic())

    def ignore(self, name: str) -> None:
        """Never look at NAME again: nothing can be done with it."""
        self._ignored.add(name)

    def put_off(self, name: str, trouble: OSError) -> None:
        """Let whose NAME is rest: the filesystem has TROUBLE with it, or with all."""
        if self.trouble is None:
            self._troubled = time.monotonic()
            logs.warning("trouble with the filesystem", request=name, reason=trouble)
        self.trouble = trouble
        whose = _uid(name) if is_request_name(name) else _JUNK
        before = self._rests.get(whose)
        seconds = min(2 * before.seconds, _LONGEST_REST_SECONDS) if before else _FIRST_REST_SECONDS
        self._rests[whose] = _Rest(time.monotonic() + seconds, seconds)

    @property
    def troubled_seconds(self) -> float:
        """For how long there has been nothing but trouble."""
        return time.monotonic() - self._troubled if self.trouble else 0.0

    def is_well(self, name: str) -> None:
        """Note that the filesystem gave NAME."""
        self.trouble = None
        self._rests.pop(_uid(name) if is_request_name(name) else _JUNK, None)

    def _is_resting(self, whose: int) -> bool:
        return whose in self._rests and time.monotonic() < self._rests[whose].until

    def waiting(self) -> dict[int, bool]:
        """Return each user whose requests wait, and whether they rest."""
        return {uid: self._is_resting(uid) for uid in self._users}

    def refresh(self, *, now: bool = False) -> None:
        """List the spool again, if that is due, or NOW."""
        started = time.monotonic()
        if not now and started < self._next_look:
            return
        listed = {name for name in os.listdir(self._layout.submitted) if not name.startswith(".")}
        self._ignored &= listed
        listed -= self._ignored
        for name in self._seen - listed:
            self.forget(name)
        self._take_up(sorted(listed - self._seen))
        self._seen = listed
        self._tried = listed & deaths.noted(self._layout)
        self._turns.keep_only(self._users.keys())
        for uid in self._rests.keys() - self._users.keys() - {_JUNK}:
            del self._rests[uid]
        ended = time.monotonic()
        self._next_look = ended + max(_SHORTEST_PAUSE, (ended - started) * _PAUSE_PER_COST)

    def _take_up(self, names: list[str]) -> None:
        late: set[int] = set()
        for name in names:
            if not is_request_name(name):
                self._bad.append(name)
                continue
            listed = self._users.setdefault(_uid(name), _User()).listed
            listed.append(name)
            if len(listed) > 1 and name < listed[-2]:
                late.add(_uid(name))
        # As what was claimed and handed back: of each user the oldest is first.
        for uid in late:
            self._users[uid].listed = deque(sorted(self._users[uid].listed))

    def forget(self, name: str) -> None:
        """Note that NAME waits no more."""
        self._seen.discard(name)
        user = self._users.get(_uid(name)) if is_request_name(name) else None
        if user is None:
            return
        asked = user.ahead.pop(name, None)
        if asked is not None and (alike := self._alike.get(asked)) is not None:
            alike.pop(name, None)
            if not alike:
                del self._alike[asked]
        # Of those not looked at yet, the look will tell.
        if not user:
            del self._users[_uid(name)]

    def bad(self) -> Iterator[str]:
        """Yield names of what is no request, but not for long."""
        if not self._is_resting(_JUNK):
            yield from self._some(self._bad)

    def excess(self) -> Iterator[str]:
        """Yield names of requests that are more than their user may have, but not for long."""
        yield from self._some(self._excess)

    def _some(self, names: deque[str]) -> Iterator[str]:
        until = time.monotonic() + _CLEARING_SECONDS
        while names and time.monotonic() < until:
            name = names.popleft()
            self._seen.discard(name)
            yield name

    def next(
        self, running: Counter[int] | Mapping[int, int], *, but: Collection[int] = ()
    ) -> list[str]:
        """Return the request whose turn it is, then all known to be equal; none if there is none.

        RUNNING is how many builds of each user are under way.  The users BUT have no turn.
        """
        self._check_owners()
        self._count_out()
        self._look_ahead()
        awake = [uid for uid, rests in self.waiting().items() if not rests and uid not in but]
        first = self._turns.next(awake, running, self._untried)
        # What took with it who built it comes last, whoever has asked for it.
        if first is None and self._tried:
            first = self._turns.next(awake, running, self._head)
        if first is None:
            return []
        asked = self._users[_uid(first)].ahead[first]
        alike = self._alike.get(asked, {}) if asked is not None else {}
        return [first, *(name for name in list(alike)[:LARGEST_BATCH] if name != first)]

    def served(self, name: str) -> None:
        """Note that the turn was NAME's user's."""
        self._turns.serve(_uid(name))

    def _look_ahead(self) -> None:
        """Look at requests of all users, a few of each in turn, but not for long."""
        until = time.monotonic() + _LOOKING_SECONDS
        while hungry := [
            user for uid, user in self._users.items() if user.hungry() and not self._is_resting(uid)
        ]:
            for user in sorted(hungry, key=lambda user: len(user.ahead)):
                for _ in range(min(_AT_ONCE, len(user.owned))):
                    self._look_at(user, user.owned.popleft())
                if time.monotonic() > until:
                    return
        for uid in [uid for uid, user in self._users.items() if not user]:
            del self._users[uid]

    def _check_owners(self) -> None:
        """See whose the files are, a few of each user's in turn, but not for long.

        Anybody can put files there with somebody else's uid in their names: they do not count.
        """
        until = time.monotonic() + _CLEARING_SECONDS
        while unclear := [user for user in self._users.items() if user[1].is_unclear(self._most)]:
            for uid, user in unclear:
                for _ in range(min(_AT_ONCE, len(user.listed))):
                    self._check_owner(uid, user, user.listed.popleft())
                if time.monotonic() > until:
                    return

    def _check_owner(self, uid: int, user: _User, name: str) -> None:
        if name not in self._seen:
            return
        try:
            owner = (self._layout.submitted / name).lstat().st_uid
        except FileNotFoundError:
            return
        except PermissionError:
            # A mount of its owner's, which is nobody else's to look at.
            owner = None
        except OSError:
            # If it is still there, we see it again.
            self._seen.discard(name)
            return
        (user.owned if owner == uid else self._bad).append(name)

    def _count_out(self) -> None:
        """Of users who have too many requests, find those that are one too many."""
        for user in self._users.values():
            # While some are not known to be his, it may be these that are too many.
            while len(user) > self._most and user.owned and not user.listed:
                self._excess.append(user.owned.pop())

    def _look_at(self, user: _User, name: str) -> None:
        if name not in self._seen:
            return
        try:
            request = self._look(name)
        except BadRequest:
            self._bad.append(name)
            return
        except OSError as error:
            # If it is still there, we see it again.
            self._seen.discard(name)
            if error.errno not in _GONE:
                self.put_off(name, error)
            return
        user.ahead[name] = wish(request)
        if (asked := user.ahead[name]) is not None:
            self._alike.setdefault(asked, {})[name] = None

    def _untried(self, uid: int) -> str | None:
        ahead = self._users[uid].ahead
        return min((name for name in ahead if name not in self._tried), default=None)

    def _head(self, uid: int) -> str | None:
        return min(self._users[uid].ahead, default=None)


def _uid(name: str) -> int:
    return int(name.split("-", 2)[1])
