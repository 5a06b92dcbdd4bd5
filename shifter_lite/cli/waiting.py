"""Wait for the end of a request, and say how it ended.

On a single box the user owns the spool, and where no worker is alive this very
process does its work.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import click

from shifter_lite import config, logins, store, transient
from shifter_lite.cli import boundary, lines
from shifter_lite.errors import Cancelled, NoOutput, NotFound, Reported, Unanswered
from shifter_lite.layout import Layout
from shifter_lite.queue import presence, status, view
from shifter_lite.queue.presence import Lost
from shifter_lite.reference import Reference
from shifter_lite.request import Request, Status

# After so many seconds without any news, the user hears that there are none.
_UNCLAIMED_SECONDS = 30.0
_SILENT_SECONDS = 600.0
# Somebody else may be about to submit it.
_LOOKS = 5


# Shows a status, or with None that there is no more to show.
Show = Callable[[Status | None], None]


class Waiting:
    """One request of the user's, until it has ended."""

    def __init__(self, layout: Layout, identity: str, name: str, show: Show) -> None:
        """Wait for the request NAME to the store IDENTITY at LAYOUT, and SHOW how it stands."""
        self._layout, self._identity, self._name = layout, identity, name
        self._last = Status(state="PENDING")
        self._show = show
        self._nobody_works = nobody_works(layout)
        self._pulse = presence.Pulse(layout)
        self._missed = 0
        self._is_known = False
        self._pauses = transient.pauses()

    def end(self, submit: Callable[[], object] | None = None) -> Status:
        """Return the status that the request ends with; SUBMIT, if given, submits it first.

        It is submitted once, however often that is called.

        Raises NotFound if its statuses are gone.
        """
        try:
            # Before it is submitted, so that what we lack leaves nothing behind.
            if submit and self._nobody_works():
                self._work(submit)
            # Once more, if others took us for dead before.
            if submit:
                submit()
                self._is_known = True
            self._follow()
        finally:
            self._show(None)
        return self._last

    def _follow(self) -> None:
        try:
            self._hear()
        except FileNotFoundError as error:
            raise gone(self._name) from error
        except OSError as error:
            if not self._is_known:
                raise
            raise Unanswered(
                f"the status of the request {self._name!r} cannot be read: {error.strerror}",
                hint=f"the request goes on: shifterimg wait {self._name}",
            ) from error

    def _hear(self) -> None:
        heard = time.monotonic()
        patience = _UNCLAIMED_SECONDS
        for now in status.follow(self._layout, self._name, seen=self._is_known):
            self._is_known = True
            if now != self._last:
                heard, patience = time.monotonic(), _SILENT_SECONDS
            self._note(now)
            if not now.ended and self._nobody_works():
                self._work()
                self._check_that_it_is_open()
            if now.state == "PENDING" and patience < _SILENT_SECONDS and self._pulse.none():
                self._say("no worker of the site is running now: the request waits for one")
                patience = _SILENT_SECONDS
            if time.monotonic() - heard > patience:
                self._say_that_nothing_is_heard(now)
                patience = float("inf")

    def _check_that_it_is_open(self) -> None:
        """Raise NotFound if it was not in the spool for some looks: then no end ever comes."""
        self._missed = 0 if view.is_open(self._layout, self._name) else self._missed + 1
        if self._missed > _LOOKS:
            raise gone(self._name)

    def _say_that_nothing_is_heard(self, now: Status) -> None:
        if now.state == "PENDING":
            text = "still waiting for a worker of the site"
        else:
            text = f"nothing new of the request for {_SILENT_SECONDS / 60:.0f} minutes"
        self._say(text)

    def _say(self, text: str) -> None:
        self._show(None)
        boundary.warn(text)

    def _work(self, submit: Callable[[], object] | None = None) -> None:
        # Only who builds pays for loading what building needs.
        from shifter_lite import worker  # noqa: PLC0415

        site = config.read_site(os.environ)
        # What his own login brings into a store of others would be theirs as well.
        own = None if store.is_shared(self._layout) else partial(logins.own, os.environ)
        # If others take us for dead, as who was stopped for long, they have our request.
        try:
            with worker.building(self._layout, self._identity, site, own) as (bench, builds):
                if submit:
                    submit()
                worker.drain(bench, builds, self._listener)
        except Lost:
            pass
        except OSError as error:
            # The request is handed back, and the next look finds that nobody works.
            pause = next(self._pauses, None)
            if pause is None or not transient.is_transient(error):
                raise
            time.sleep(pause)

    def _listener(self, request: Request) -> Callable[[Status], None] | None:
        return self._note if request.name == self._name else None

    def _note(self, new: Status) -> None:
        self._last = new
        self._show(new)


def nobody_works(layout: Layout) -> Callable[[], bool]:
    """Return what tells whether the user may work on the spool of LAYOUT, and nobody else does."""
    if not store.is_ours(layout):
        return lambda: False
    census = presence.Census(layout, config.read_site(os.environ).lease_seconds)

    def look() -> bool:
        # What cannot be known now, the next look will tell.
        with suppress(OSError):
            return os.access(layout.claimed, os.W_OK) and not presence.anybody_alive(census)
        return False

    return look


def announce(context: click.Context, ended: Status, image: str) -> None:
    """Say that IMAGE is ready; raises Cancelled or Reported if it ENDED otherwise.

    Without IMAGE, which may be unknown, it is called by its id; and that may have been lost.
    """
    name = called(image, ended.image_id)
    with lines.told(context, name):
        check(ended)
    if ended.fact:
        boundary.warn(ended.fact, ended.hint)
    lines.ended(context, name, ended.state, ended.image_id)


def check(ended: Status) -> None:
    """Raise Cancelled or Reported unless it ENDED with an image."""
    if ended.state == "CANCELLED":
        raise Cancelled(ended.fact or "the request was cancelled", hint=ended.hint)
    if ended.state != "READY":
        raise Reported(ended.fact, hint=ended.hint, exit_code=ended.exit_code or 1)


def called(image: str, image_id: str = "") -> str:
    """Return what Shifter calls IMAGE, the normal form of a name, or the one with IMAGE_ID."""
    return f"docker:{Reference.parse(image).short}" if image else f"id:{image_id or 'unknown'}"


def gone(name: str) -> NotFound:
    """Return the error of a request whose statuses are not there."""
    return NotFound(
        f"there is no request {name!r}: perhaps its end has been read, or it is long over",
        hint="your requests: shifterimg queue; images that are ready: shifterimg images",
    )


def shown(context: click.Context, image: str) -> Show:
    """Return what shows the user of CONTEXT how the request for IMAGE stands."""
    if lines.is_verbose(context):
        return _each_state(called(image))
    return _terminal() if sys.stderr.isatty() else _nothing


def _nothing(_: Status | None) -> None:
    """Show nothing: nobody looks."""


def _each_state(image: str) -> Show:
    """Return a function that prints a line for each state, but not for the end."""
    last = ""

    def show(now: Status | None) -> None:
        nonlocal last
        if now is not None and not now.ended and now.state != last:
            last = now.state
            # It is called by who builds: what the user's pipe is in for must not end that.
            with suppress(boundary.ReaderGoneError, NoOutput):
                boundary.echo(lines.is_at(image, now.state))

    return show


def _terminal() -> Show:
    """Return a function that shows a status on one line of the terminal; None clears it."""

    def show(now: Status | None) -> None:
        line = "" if now is None or now.ended else f"{now.state} {now.progress}".rstrip()
        click.echo(f"\r\x1b[2K{line}", err=True, nl=False)

    return show
