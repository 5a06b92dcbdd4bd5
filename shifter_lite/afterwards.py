"""What is done once a request is answered: the catalog is told.

Nothing of that may hold up an answer, or change it: what does not succeed is tried again later.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shifter_lite import cataloguing
from shifter_lite.index.publish import Published
from shifter_lite.records import Entry, Image
from shifter_lite.request import Request
from shifter_lite.steps import Bench

# So many answers are remembered for the catalog; of those before them it lacks who asked.
_MOST_ANSWERS = 1000
# After a failure nothing is tried for so long, and then twice as long each time.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 5.0, 300.0


@dataclass(frozen=True, slots=True)
class Answer:
    """REQUESTS, answered with IMAGE: BUILT for them, and PUBLISHED under NAMES."""

    requests: Sequence[Request]
    image: Image
    names: Mapping[str, Entry]
    published: Published
    built: bool


class Afterwards:
    """What one worker has yet to do for what it has answered."""

    def __init__(self, bench: Bench) -> None:
        """Do it with BENCH."""
        self._bench = bench
        self._answers: deque[Answer] = deque(maxlen=_MOST_ANSWERS)
        # A worker that died between an answer and this has left the catalog without that image.
        self._may_lack = bool(bench.site.state_dir)
        self._next, self._pause = 0.0, _FIRST_PAUSE_SECONDS

    def add(self, answer: Answer) -> None:
        """Remember ANSWER."""
        # A user's own pull may do without a place for a catalog.
        if self._bench.site.state_dir:
            self._answers.append(answer)

    def do(self) -> bool:
        """Do what there is to do, if that is due; return whether nothing went wrong."""
        if not (self._answers or self._may_lack) or time.monotonic() < self._next:
            return True
        if self._catalogue():
            self._pause = _FIRST_PAUSE_SECONDS
            return True
        self._next = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        return False

    def _catalogue(self) -> bool:
        path = cataloguing.catalog_path(self._bench.site, self._bench.store)
        while self._answers:
            each = self._answers[0]
            if not cataloguing.catalogue(
                self._bench.layout,
                path,
                each.requests,
                each.image,
                each.names,
                each.published,
                built=each.built,
            ):
                return False
            self._answers.popleft()
            self._may_lack = False
        if self._may_lack:
            self._may_lack = not cataloguing.catch_up(self._bench.layout, path)
        return not self._may_lack
