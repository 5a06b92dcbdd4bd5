"""Who works on a spool, and who only did.

A worker's heart beats by renaming ``workers/WORKER.NNNNNNNNNN`` to the next number: the
filesystem's server says whether it is still there, and ENOENT means that others have
buried it.  Others judge by whether the number changes while their own clock goes on; so
no two clocks are ever compared.  spool/README.md says who is dead, and when.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from shifter_lite import lost_reply
from shifter_lite.layout import Layout
from shifter_lite.queue import locks
from shifter_lite.transient import waited_out

BEAT_SECONDS = 2.0
# After so long a silence it is tried whether a worker has still its lock.
_SILENCE_SECONDS = 6.0
# One look does not add more: a filesystem that stands still lets no heart beat.
_LONGEST_LOOK = 4.0
# With what a worker leaves that is killed while it tries whether there are links.
_LOCK = re.compile(r"worker\.(?P<worker>.+)\.lock|\.worker\.(?P<tried>.+)\.lock\.link")
_BEAT = re.compile(r"(?P<worker>.+)\.(?P<number>[0-9]{10})")
# So many listings decide whether a heart has beaten; on NFS they may be old for a moment.
_LOOKS = 5


class Lost(BaseException):
    """Others took this worker for dead: what it had is theirs.

    Not an Exception, because it comes over whatever is being done.
    """


def host_name() -> str:
    """Return the name of this host, as names of workers begin."""
    return re.sub(r"[^A-Za-z0-9-]", "-", os.uname().nodename)[:64]


def lock_path(layout: Layout, worker: str) -> Path:
    """Return the file that WORKER has locked for life."""
    return layout.locks / f"worker.{worker}.lock"


class Presence:
    """The life of one worker: this process, under a name never used before."""

    def __init__(self, layout: Layout) -> None:
        """Be somebody at LAYOUT, but not yet."""
        self.name = f"{host_name()}.{os.getpid()}.{os.urandom(4).hex()}"
        self._layout = layout
        self._path = lock_path(layout, self.name)
        self._lock = locks.lock(self._path)
        self._number = 0
        self._mutex = Lock()
        self._lost = False

    def __enter__(self) -> Presence:
        """Come to life; raises BadConfig where locks are none."""
        try:
            # Whoever looked before we had the lock, or a heart, took us for dead: be born again.
            while not self._is_born():
                self._lock.release()
        except BaseException:
            self._end()
            raise
        return self

    def _is_born(self) -> bool:
        """Take the lock, and let the heart beat; return whether nobody has buried us meanwhile."""
        self._acquire()
        try:
            locked = waited_out(self._path.lstat)
            locks.probe(self._path)
            os.close(lost_reply.create(self._beat(0)))
            if os.path.samestat(locked, waited_out(self._path.lstat)):
                return True
        except FileNotFoundError:
            pass
        lost_reply.discard(self._beat(0))
        return False

    def __exit__(self, *_: object) -> None:
        """End.  The name is never used again, so its files can go."""
        with self._mutex:
            self._lost = True
            lost_reply.discard(self._beat(self._number))
            self._end()

    def renew(self) -> None:
        """Let the heart beat once; raises Lost if others have buried us."""
        with self._mutex:
            if self._lost:
                raise Lost(self.name)
            self._number = waited_out(self._beat_once)

    def _beat_once(self) -> int:
        """Let the heart beat; return its number as the directory says it."""
        try:
            self._beat(self._number).rename(self._beat(self._number + 1))
        except FileNotFoundError as error:
            # A rename's answer may get lost.
            number = _beats(self._layout).get(self.name)
            # Where it was before, it is not: the server said so, whatever a cache of it says.
            if number is None or number <= self._number:
                self._lost = True
                raise Lost(self.name) from error
            return number
        return self._number + 1

    def _acquire(self) -> None:
        if not locks.try_lock(self._lock):
            self._lock.acquire()

    def _end(self) -> None:
        lost_reply.discard(locks.tried_link(self._path))
        lost_reply.discard(self._path)
        self._lock.release()

    def _beat(self, number: int) -> Path:
        return beat_path(self._layout, self.name, number)


def beat_path(layout: Layout, worker: str, number: int) -> Path:
    """Return the file that is WORKER's heartbeat NUMBER."""
    return layout.workers / f"{worker}.{number:010d}"


def _beats(layout: Layout) -> dict[str, int]:
    """Return each worker with its newest heartbeat."""
    found: dict[str, int] = {}
    try:
        names = waited_out(lambda: os.listdir(layout.workers))
    except FileNotFoundError:
        # A store of an earlier version, at which no worker has been since.
        return found
    for name in names:
        if match := _BEAT.fullmatch(name):
            found[match["worker"]] = max(int(match["number"]), found.get(match["worker"], 0))
    return found


class Pulse:
    """What any user can see of workers: whether a heart has beaten since he looks."""

    def __init__(self, layout: Layout) -> None:
        """Look at the workers of LAYOUT."""
        self._layout = layout
        self._began = time.monotonic()
        self._first = self._seen()

    def none(self) -> bool:
        """Return whether none has, for so long that no worker can be running."""
        if self._first is None or time.monotonic() - self._began < _SILENCE_SECONDS:
            return False
        return self._seen() == self._first

    def _seen(self) -> dict[str, int] | None:
        # A store of an earlier version shows them to nobody.
        with suppress(OSError):
            return _beats(self._layout)
        return None


@dataclass(slots=True)
class _Sight:
    """What was last seen of a worker; ``silence`` and ``looked`` are seconds."""

    beat: int | None
    looked: float
    silence: float = 0.0
    alive: bool = False


class Census:
    """What one observer has seen of all workers.  Any thread may look."""

    def __init__(self, layout: Layout, lease_seconds: float, own: str = "") -> None:
        """Observe the workers at LAYOUT; OWN is the observer's name, if he is one."""
        self._layout, self._lease, self._own = layout, lease_seconds, own
        self._sights: dict[str, _Sight] = {}
        self._mutex = Lock()

    def look(self) -> None:
        """See whose heart has beaten."""
        beats = _beats(self._layout)
        with self._mutex:
            now = time.monotonic()
            for worker in {*beats, *self._sights}:
                self._see(worker, beats.get(worker), now)
            # Batch jobs and cron's are many, and end.
            silent = (each for each, sight in self._sights.items() if sight.silence >= self._lease)
            for worker in [each for each in silent if each not in beats]:
                if not waited_out(lock_path(self._layout, worker).exists):
                    del self._sights[worker]

    def _see(self, worker: str, beat: int | None, now: float) -> None:
        sight = self._sights.setdefault(worker, _Sight(beat, now))
        if beat != sight.beat and beat is not None:
            sight.beat, sight.silence, sight.alive = beat, 0.0, True
        else:
            sight.silence += min(now - sight.looked, _LONGEST_LOOK)
        sight.looked = now

    def workers(self) -> list[str]:
        """Return everybody who has a heartbeat or a lock file, dead or alive."""
        names = waited_out(lambda: os.listdir(self._layout.locks))
        found = filter(None, map(_LOCK.fullmatch, names))
        return sorted({*_beats(self._layout), *(each["worker"] or each["tried"] for each in found)})

    def dead(self, worker: str) -> bool:
        """Return whether WORKER is dead, as far as we have seen."""
        if worker == self._own:
            return False
        path = lock_path(self._layout, worker)
        with self._mutex:
            sight = self._sights.get(worker)
            if sight is None:
                beat = _beats(self._layout).get(worker)
                sight = self._sights[worker] = _Sight(beat, time.monotonic())
            silence, beat = sight.silence, sight.beat
        if beat is None and not waited_out(path.exists):
            return True
        if not _may_run(worker) or silence >= _SILENCE_SECONDS:
            return silence >= self._lease or locks.is_free(path)
        return False

    def undecided(self, worker: str) -> bool:
        """Return whether WORKER has neither died nor shown that it lives, since we look."""
        dead = self.dead(worker)
        with self._mutex:
            sight = self._sights.get(worker)
        return not dead and sight is not None and not sight.alive

    def stop(self, worker: str) -> bool:
        """Make WORKER, which is dead, unable to believe that it lives; False if it does live."""
        with self._mutex:
            sight = self._sights.get(worker)
        return remove_beats(self._layout, worker, sight.beat if sight else None)

    def forget(self, worker: str) -> None:
        """Note that WORKER is buried."""
        with self._mutex:
            self._sights.pop(worker, None)


def anybody_alive(census: Census) -> bool:
    """Return whether any worker, on any host, works on the spool that CENSUS looks at."""
    census.look()
    return any(not census.dead(worker) for worker in census.workers())


def _may_run(worker: str) -> bool:
    """Return whether the process of WORKER may run; its lock decides where we cannot see it."""
    host, _, rest = worker.partition(".")
    pid = rest.partition(".")[0]
    if host != host_name() or not pid.isdecimal():
        return True
    try:
        # The state is behind the command's name, which may hold anything; see proc(5).
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in ("Z", "X")


def remove_beats(layout: Layout, worker: str, known: int | None = None) -> bool:
    """Make WORKER unable to believe that it lives; False if its heart beats on after beat KNOWN.

    It may do so at any moment: only a listing without any beat says that it cannot any more.
    """
    for _ in range(_LOOKS):
        beat = _beats(layout).get(worker)
        if beat is None:
            return True
        if known is not None and beat > known:
            return False
        known = beat
        lost_reply.unlink(beat_path(layout, worker, beat))
    return False


def remove_lock(layout: Layout, worker: str) -> None:
    """Remove the lock file of WORKER, which is dead and whose name is never used again."""
    path = lock_path(layout, worker)
    lost_reply.unlink(locks.tried_link(path))
    taken = locks.lock(path)
    # Removed while we hold it, so that a worker just coming to life notices.
    free = waited_out(path.exists) and locks.try_lock(taken)
    lost_reply.unlink(path)
    if free:
        with suppress(OSError):
            taken.release()
