"""Whether a build may go on as slowly as it does.  Pure.

A registry that sends a byte now and then keeps a build, and what others could do meanwhile, for
as long as it likes.  So the longer a build takes, the more must have come.
"""

from __future__ import annotations

from shifter_lite.errors import BuildFailed, RegistryBusy, ShifterError
from shifter_lite.request import Status

# Longer than a registry in trouble is waited for (``wire.patience``), and so found out to be.
ASKING_SECONDS = 300.0
# So long nothing need come, and then on average so much for each second.
GRACE_SECONDS = 180.0
LEAST_BYTES_PER_SECOND = 1 << 16


class Pace:
    """How fast one build is; times are seconds of one clock that never goes back."""

    def __init__(self, now: float, build_seconds: float, *, remote: bool) -> None:
        """Begin NOW; allow BUILD_SECONDS for all.  REMOTE is whether it comes from a registry."""
        self._asked, self._build_seconds, self._remote = now, build_seconds, remote
        self._began: float | None = None
        self._first = self._done = 0
        self._comes = False

    def go(self, now: float) -> None:
        """Note that it is known what the image is, and that the build begins."""
        self._began = now

    def note(self, status: Status) -> None:
        """Note how far it is: what is counted first was there before."""
        if status.state == "PULLING" and status.total:
            if not self._comes:
                self._first = status.done
            self._done = status.done
        self._comes = status.state == "PULLING" and status.done < status.total

    def fault(self, now: float) -> ShifterError | None:
        """Return why it must not go on, if it must not."""
        began = self._asked if self._began is None else self._began
        if now - began > self._build_seconds:
            return BuildFailed(
                f"the image was not ready after {self._build_seconds:.0f} seconds",
                hint="the site allows no more: limits.build_seconds in shifter_lite.toml; "
                "what has come of its layers is kept, and the next pull goes on from there",
            )
        if not self._remote:
            return None
        if self._began is None and now - self._asked > ASKING_SECONDS:
            return RegistryBusy(
                f"the registry did not say in {ASKING_SECONDS:.0f} seconds what the image is",
                hint="pull again later",
            )
        least = (now - began - GRACE_SECONDS) * LEAST_BYTES_PER_SECOND
        if self._comes and self._done - self._first < least:
            return RegistryBusy(
                "the image's layers come too slowly: "
                f"{self._done - self._first} bytes in {now - began:.0f} seconds",
                hint="pull again later: it goes on from there",
            )
        return None
