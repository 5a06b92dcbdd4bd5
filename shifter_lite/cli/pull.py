"""``shifterimg pull``: drop a request, and see it answered, or not wait for that."""

from __future__ import annotations

import os
from contextlib import suppress

import click

from shifter_lite import config, platforms, store
from shifter_lite.cli import boundary, waiting
from shifter_lite.cli.notes import Notes
from shifter_lite.errors import BadConfig
from shifter_lite.layout import Layout
from shifter_lite.queue import status, submit
from shifter_lite.reference import Reference
from shifter_lite.request import Request, Status

platform_option = click.option(
    "--platform", metavar="OS/ARCH", help="Instead of what the compute nodes run."
)
no_wait_option = click.option(
    "--no-wait", is_flag=True, help="Print the request's name, and do not wait for its end."
)


@click.command("pull")
@boundary.store_option
@click.argument("name")
@platform_option
@no_wait_option
@click.pass_context
def command(context: click.Context, name: str, platform: str | None, no_wait: bool) -> None:
    """Get the image NAME from its registry, and make it ready for compute nodes."""
    ask(context, Reference.parse(name), platform, no_wait=no_wait)


def ask(
    context: click.Context,
    reference: Reference,
    platform: str | None,
    *,
    no_wait: bool,
    path: str = "",
    ref: str = "",
) -> None:
    """Get the image REFERENCE, from PATH if there is one, and say when it is ready.

    With NO_WAIT only the request is made, and its name printed.
    """
    layout = boundary.layout_of(context)
    platform = platforms.parse(platform) if platform else config.read_site(os.environ).platform
    identity = store.create(layout, shared=False)
    request = Request.new(store=identity, image=reference, platform=platform, path=path, ref=ref)
    asked = _Asked(layout, request)
    if no_wait:
        asked.submit(warn=True)
        boundary.echo(request.name)
        if waiting.nobody_works(layout)():
            click.echo(
                "shifterimg: no worker is running: 'shifter-worker drain' or 'shifterimg wait' "
                "does the work",
                err=True,
            )
        return
    try:
        ended = waiting.Waiting(layout, identity, request.name).end(asked.submit)
    except BaseException as error:
        asked.leave(cancel=not isinstance(error, Exception))
        raise
    asked.forget(ended)
    waiting.announce(ended, str(reference))


class _Asked:
    """A request, in the spool and in the user's notes."""

    def __init__(self, layout: Layout, request: Request) -> None:
        self._layout, self._request = layout, request
        self._notes: Notes | None = None
        self._submitted = False

    def submit(self, *, warn: bool = False) -> None:
        """Note the request and submit it, if that is not done; WARN if it cannot be noted."""
        if self._submitted:
            return
        try:
            notes = Notes(self._request.store, os.environ)
            notes.add(self._request)
            self._notes = notes
        except (OSError, BadConfig) as error:
            if warn:
                click.echo(f"shifterimg: 'shifterimg queue' will not show it: {error}", err=True)
        try:
            submit.submit(self._layout, self._request)
            self._submitted = True
        except BaseException:
            self._remove_note()
            raise

    def leave(self, *, cancel: bool) -> None:
        """Take the request back, if no worker has it; CANCEL it if one has."""
        with suppress(OSError):
            if submit.withdraw(self._layout, self._request.name):
                self.forget()
            elif cancel:
                submit.cancel(self._layout, self._request.name)
                self._remove_note()

    def forget(self, ended: Status | None = None) -> None:
        """Remove what only who waited had need of, until it ENDED."""
        forget(self._layout, self._notes, self._request.name, ended)

    def _remove_note(self) -> None:
        if self._notes:
            self._notes.remove(self._request.name)


def forget(layout: Layout, notes: Notes | None, name: str, ended: Status | None) -> None:
    """Remove the note in NOTES of the request NAME, and its statuses, as it has ENDED.

    If it was cancelled, whoever did that may have yet to read so: then they are swept later.
    """
    if notes:
        notes.remove(name)
    if ended is None or ended.state != "CANCELLED":
        # What is in the way now is swept another time as well.
        with suppress(OSError):
            status.forget(layout, name)
