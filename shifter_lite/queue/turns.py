"""Whose turn it is.  Touches nothing.

A user who asks for a thousand images at once makes nobody wait for more than one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fairness:
    """What the site has decided: uids that go first, and how many builds may be under way.

    ``running_per_user`` and ``running`` are numbers of builds, of one user and of all; 0 is no
    limit.
    """

    admins: frozenset[int] = frozenset()
    running_per_user: int = 0
    running: int = 0


class Turns:
    """Remembers who was served when."""

    def __init__(self, fairness: Fairness) -> None:
        """Serve as FAIRNESS says."""
        self._fairness = fairness
        self._count = 0
        self._served: dict[int, int] = {}

    def next(
        self, waiting: Iterable[int], running: Mapping[int, int], head: Callable[[int], str | None]
    ) -> str | None:
        """Return the request whose turn it is, of users WAITING; None if it is nobody's.

        RUNNING is how many builds of each user are under way; HEAD returns a user's next
        request, or None if he has none after all.
        """
        fairness = self._fairness
        if fairness.running and sum(running.values()) >= fairness.running:
            return None
        most = fairness.running_per_user
        users = [uid for uid in waiting if not most or running.get(uid, 0) < most]
        users.sort(key=lambda uid: self._rank(uid, running))
        best: tuple[tuple[bool, int, int], str, int] | None = None
        for uid in users:
            rank = self._rank(uid, running)
            if best is not None and rank != best[0]:
                break
            name = head(uid)
            if name is not None and (best is None or name < best[1]):
                best = (rank, name, uid)
        return None if best is None else best[1]

    def serve(self, uid: int) -> None:
        """Note that UID has had a turn."""
        self._count += 1
        self._served[uid] = self._count

    def keep_only(self, uids: Collection[int]) -> None:
        """Forget who is not among UIDS: who comes anew has waited longest."""
        self._served = {uid: n for uid, n in self._served.items() if uid in uids}

    def _rank(self, uid: int, running: Mapping[int, int]) -> tuple[bool, int, int]:
        admins = self._fairness.admins
        return (uid not in admins, running.get(uid, 0), self._served.get(uid, 0))
