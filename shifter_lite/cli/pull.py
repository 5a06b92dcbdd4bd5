"""``shifterimg pull``: drop a request, and see it answered.

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

from shifter_lite import config, logins, platforms, store
from shifter_lite.cli import boundary
from shifter_lite.errors import Reported
from shifter_lite.layout import Layout
from shifter_lite.queue import presence, status, submit
from shifter_lite.reference import Reference
from shifter_lite.request import Request, Status

_PAUSE = 0.1
_PATIENCE = 30.0


platform_option = click.option(
    "--platform", metavar="OS/ARCH", help="Instead of what the compute nodes run."
)


@click.command("pull")
@boundary.store_option
@click.argument("name")
@platform_option
@click.pass_context
def command(context: click.Context, name: str, platform: str | None) -> None:
    """Get the image NAME from its registry, and make it ready for compute nodes."""
    ask(context, Reference.parse(name), platform)


def ask(
    context: click.Context,
    reference: Reference,
    platform: str | None,
    *,
    path: str = "",
    ref: str = "",
) -> None:
    """Get the image REFERENCE, from PATH if there is one, and say when it is ready."""
    layout = boundary.layout_of(context)
    site = config.read_site(os.environ)
    platform = platforms.parse(platform) if platform else site.platform
    identity = store.create(layout, shared=False)
    request = Request.new(store=identity, image=reference, platform=platform, path=path, ref=ref)
    ended = _Pull(layout, identity, site, request).answer()
    if ended.state != "READY":
        raise Reported(ended.fact, hint=ended.hint, exit_code=ended.exit_code)
    when = time.strftime("%Y-%m-%dT%H:%M:%S")
    boundary.echo(f"{when} Pulling Image: docker:{reference}, status: READY")


class _Pull:
    """One request, from its submission to its answer."""

    def __init__(self, layout: Layout, identity: str, site: config.Site, request: Request) -> None:
        self._layout, self._identity, self._site, self._request = layout, identity, site, request
        self._last = Status(state="PENDING")
        self._show = _terminal() if sys.stderr.isatty() else _nothing
        self._mine = os.access(layout.claimed, os.W_OK)
        self._census = presence.Census(layout, site.lease_seconds)

    def answer(self) -> Status:
        """Submit the request, and return the status it ends with."""
        try:
            if self._nobody_works():
                # Before it is submitted, so that what we lack leaves nothing behind.
                self._work(submit_first=True)
            else:
                submit.submit(self._layout, self._request)
            self._wait()
        except BaseException:
            submit.withdraw(self._layout, self._request.name)
            raise
        finally:
            self._show(None)
            status.forget(self._layout, self._request.name)
        return self._last

    def _wait(self) -> None:
        started = time.monotonic()
        while not self._last.ended:
            self._note(
                status.wait_for_change(self._layout, self._request.name, self._last, pause=_PAUSE)
            )
            if not self._last.ended and self._nobody_works():
                self._work(submit_first=False)
            if self._last.state == "PENDING" and time.monotonic() - started > _PATIENCE:
                started = float("inf")
                click.echo("shifterimg: still waiting for a worker of the site", err=True)

    def _nobody_works(self) -> bool:
        return self._mine and not presence.anybody_alive(self._census)

    def _work(self, *, submit_first: bool) -> None:
        # Only who builds pays for loading what building needs.
        from shifter_lite import worker  # noqa: PLC0415

        # What his own login brings into a store of others would be theirs as well.
        own = None if store.is_shared(self._layout) else partial(logins.own, os.environ)
        # If others take us for dead, as who was stopped for long, they have our request.
        with (
            suppress(presence.Lost),
            worker.working(self._layout, self._identity, self._site, own) as bench,
        ):
            if submit_first:
                submit.submit(self._layout, self._request)
            worker.drain(bench, self._listener)

    def _listener(self, request: Request) -> Callable[[Status], None] | None:
        return self._note if request.name == self._request.name else None

    def _note(self, new: Status) -> None:
        self._last = new
        self._show(new)


def _nothing(_: Status | None) -> None:
    """Show nothing: nobody looks."""


def _terminal() -> Callable[[Status | None], None]:
    """Return a function that shows a status on one line of the terminal; None clears it."""

    def show(status: Status | None) -> None:
        line = ""
        if status is not None and not status.ended:
            line = status.state
            if status.total:
                line += f" {status.done / 1e6:.0f} of {status.total / 1e6:.0f} MB"
        click.echo(f"\r\x1b[2K{line}", err=True, nl=False)

    return show
