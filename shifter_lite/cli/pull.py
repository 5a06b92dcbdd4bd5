"""``shifterimg pull``: drop a request, and see it answered, or not wait for that."""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress
from dataclasses import dataclass

import click

from shifter_lite import config, platforms, store
from shifter_lite.cli import boundary, lines, waiting
from shifter_lite.cli.notes import Notes
from shifter_lite.cli.waiting import Waiting
from shifter_lite.config import Site
from shifter_lite.errors import BadConfig, Unanswered
from shifter_lite.index import known, resolve
from shifter_lite.layout import Layout
from shifter_lite.queue import status, submit
from shifter_lite.reference import Reference, index_key
from shifter_lite.request import Request, Status

platform_option = click.option(
    "--platform", metavar="OS/ARCH", help="Instead of what the compute nodes run."
)
no_wait_option = click.option(
    "--no-wait", is_flag=True, help="Print the request's name, and do not wait for its end."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The image that the user wants, from its registry or from PATH, where it is called REF.

    With REFRESH nothing will do that the registry has not confirmed now.
    """

    image: Reference
    platform: str
    path: str = ""
    ref: str = ""
    refresh: bool = False

    def request(self, identity: str) -> Request:
        """Return a new request for this to the store IDENTITY."""
        return Request.new(
            store=identity,
            image=self.image,
            platform=self.platform,
            path=self.path,
            ref=self.ref,
            refresh=self.refresh,
        )


@click.command("pull")
@boundary.store_option
@click.argument("name")
@platform_option
@no_wait_option
@click.option("--refresh", is_flag=True, help="Insist on what the registry says now.")
@click.pass_context
def command(
    context: click.Context, name: str, platform: str | None, no_wait: bool, refresh: bool
) -> None:
    """Get the image NAME from its registry, and make it ready for compute nodes.

    An image that was pulled a minute ago is ready at once, and one that was ever pulled is
    ready although its registry does not answer, with a warning; not so with --refresh.
    """
    if name.startswith("id:"):
        _find(context, index_key(name))
        return
    site = config.read_site(os.environ)
    wish = Wish(image=Reference.parse(name), platform=platform_of(site, platform), refresh=refresh)
    ask(context, site, wish, no_wait=no_wait)


def platform_of(site: Site, option: str | None) -> str:
    """Return the platform that OPTION means, or that SITE says; raises BadReference.

    It is empty, for the worker to say, where this host's configuration does not.
    """
    if option:
        return platforms.parse(option)
    return site.platform if site.is_platform_given else ""


def _find(context: click.Context, key: str) -> None:
    """Say that the image that KEY, of an id, means is ready: no registry knows ids of ours."""
    with lines.told(context, key):
        entry = resolve.lookup(boundary.layout_of(context).index, key)
    lines.ended(context, key, "READY", entry.id)


def ask(context: click.Context, site: Site, wish: Wish, *, no_wait: bool) -> None:
    """Ask for what the user of SITE WISHes, and say when it is ready.

    With NO_WAIT only the request is made, and its name printed.
    """
    layout = boundary.layout_of(context)
    if no_wait:
        _ask_only(layout, site, wish)
        return
    image = str(wish.image)
    # Shifter has no imports: who reads their output reads ours.
    with nullcontext() if wish.path else lines.told(context, waiting.called(image)):
        ended = _fresh(layout, site, wish) or _wait(context, layout, wish)
        waiting.check(ended)
    waiting.announce(context, ended, image)


def _fresh(layout: Layout, site: Site, wish: Wish) -> Status | None:
    """Return how the WISH has ended if the index answers it: that needs no request."""
    if wish.path or wish.refresh:
        return None
    entry = known.fresh(layout, site, wish.image, wish.platform)
    return Status(state="READY", image_id=entry.id) if entry else None


def _wait(context: click.Context, layout: Layout, wish: Wish) -> Status:
    """Make a request for the WISH, and return how it ends."""
    identity = store.create(layout, shared=False)
    asked = _Asked(layout, wish.request(identity))
    show = waiting.shown(context, str(wish.image))
    return asked.wait(Waiting(layout, identity, asked.name, show))


def _ask_only(layout: Layout, site: Site, wish: Wish) -> None:
    asked = _Asked(layout, wish.request(store.create(layout, shared=False)))
    asked.submit(warn=True)
    boundary.echo(asked.name)
    if waiting.nobody_works(layout)():
        boundary.warn(
            "no worker is running: 'shifter-worker drain' or 'shifterimg wait' does the work"
        )


class _Asked:
    """A request, in the spool and in the user's notes."""

    def __init__(self, layout: Layout, request: Request) -> None:
        self.name = request.name
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
        except Unanswered:
            raise
        except BaseException:
            self._remove_note()
            raise

    def wait(self, waiting: Waiting) -> Status:
        """Return how WAITING for it, which submits it, ends; take it back if that is broken off."""
        try:
            ended = waiting.end(self.submit)
        except Unanswered:
            # A worker has it, or may have it.
            raise
        except BaseException as error:
            self.leave(cancel=not isinstance(error, Exception))
            raise
        self.forget(ended)
        return ended

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
