"""``shifterimg queue``, ``status``, ``wait`` and ``cancel``: what became of requests."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice

import click

from shifter_lite import store
from shifter_lite.cli import boundary, waiting
from shifter_lite.cli.boundary import json_option
from shifter_lite.cli.notes import Note, Notes
from shifter_lite.cli.pull import forget
from shifter_lite.errors import BadConfig, BadReference, Damaged, Denied, NotFound, Unanswered
from shifter_lite.layout import Layout
from shifter_lite.queue import status, submit
from shifter_lite.reference import Reference
from shifter_lite.request import Status, is_request_name, request_time, request_uid

# A worker looks every second whether it is to stop; a shared filesystem may be slow to tell.
_STOPPING_SECONDS = 60.0
_MOST_LISTED = 5


@click.command("queue")
@boundary.store_option
@json_option
@click.pass_context
def queue(context: click.Context, as_json: bool) -> None:
    """List your requests, and how they stand.

    One line a request: its name, state, when it was made, the image, and how far it is or
    why there is no image.
    """
    found = list(_Mine(context).standing())
    if as_json:
        boundary.echo(json.dumps([_fields(*each) for each in found], indent=2))
        return
    for note, now in found:
        boundary.echo(_line(note, now))


@click.command("status")
@boundary.store_option
@click.argument("request")
@json_option
@click.pass_context
def state(context: click.Context, request: str, as_json: bool) -> None:
    """Print how REQUEST stands: a name as of "pull --no-wait", or the image's."""
    mine = _Mine(context)
    note = mine.find(request)
    now = mine.read(note.name)
    boundary.echo(json.dumps(_fields(note, now), indent=2) if as_json else _line(note, now))


@click.command("wait")
@boundary.store_option
@click.argument("request")
@click.pass_context
def wait(context: click.Context, request: str) -> None:
    """Wait until REQUEST has ended, and end as "pull" would have."""
    mine = _Mine(context)
    note = mine.find(request)
    ended = mine.end(note, waiting.shown(context, note.image))
    waiting.announce(context, ended, note.image)


@click.command("cancel")
@boundary.store_option
@click.argument("request")
@click.pass_context
def cancel(context: click.Context, request: str) -> None:
    """Cancel REQUEST; if a worker has it already, it stops."""
    mine = _Mine(context)
    note = mine.find(request)
    ended = mine.cancel(note)
    if ended.state == "CANCELLED":
        boundary.echo(f"{note.name} CANCELLED")
    else:
        waiting.announce(context, ended, note.image)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A request of the user's; IMAGE is empty where it was noted elsewhere."""

    name: str
    image: str = ""
    platform: str = ""


class _Mine:
    """The requests that the user has made to one store."""

    def __init__(self, context: click.Context) -> None:
        self._layout: Layout = boundary.layout_of(context)
        self._identity = store.identity(self._layout)
        self._notes: Notes | None = None
        with suppress(BadConfig):
            self._notes = Notes(self._identity, os.environ)

    def standing(self) -> Iterator[tuple[_Asked, Status | None]]:
        """Yield those that are noted and there, oldest first; None for what cannot be known now."""
        for note in self._notes or ():
            try:
                now = status.read(self._layout, note.name)
            except FileNotFoundError:
                # Not submitted yet, or its end has been read elsewhere.
                continue
            except (OSError, Damaged):
                yield _of(note), None
            else:
                yield _of(note), now

    def find(self, word: str) -> _Asked:
        """Return the request that WORD, its name or its image's, means.

        Raises Denied, NotFound, or BadReference if it may mean several, or none ever.
        """
        if not is_request_name(word):
            return self._of_image(Reference.parse(word))
        if request_uid(word) != os.geteuid():
            raise Denied(
                f"the request {word!r} is not yours", hint="your requests: shifterimg queue"
            )
        note = self._notes.find(word) if self._notes else None
        return _of(note) if note else _Asked(name=word)

    def _of_image(self, image: Reference) -> _Asked:
        found = [asked for asked, _ in self.standing() if asked.image == str(image)]
        if not found:
            raise NotFound(
                f"no request of yours for {str(image)!r} is noted here",
                hint="your requests: shifterimg queue",
            )
        if len(found) > 1:
            names = ", ".join(asked.name for asked in islice(found, _MOST_LISTED))
            more = ", …" if len(found) > _MOST_LISTED else ""
            raise BadReference(
                f"{len(found)} requests of yours are for {str(image)!r}",
                hint=f"name one of them: {names}{more}",
            )
        return found[0]

    def read(self, name: str) -> Status:
        """Return how the request NAME stands; raises NotFound, Denied or Damaged."""
        try:
            return status.read(self._layout, name)
        except FileNotFoundError as error:
            raise waiting.gone(name) from error

    def end(self, asked: _Asked, show: waiting.Show) -> Status:
        """Return how ASKED ends, and forget it; SHOW it meanwhile.  Raises NotFound."""
        ended = waiting.Waiting(self._layout, self._identity, asked.name, show).end()
        forget(self._layout, self._notes, asked.name, ended)
        return ended

    def cancel(self, asked: _Asked) -> Status:
        """Cancel ASKED; return how it ended, which it may have done otherwise before.

        Raises NotFound, Denied or Damaged, or Unanswered if its worker does not stop in time.
        """
        ended = self.read(asked.name)
        if not ended.ended:
            ended = self._cancel(asked.name)
        if self._notes and ended.state == "CANCELLED":
            # Who waits elsewhere has yet to read it: the statuses stay.
            self._notes.remove(asked.name)
        return ended

    def _cancel(self, name: str) -> Status:
        try:
            if submit.cancel(self._layout, name):
                return Status(state="CANCELLED")
            return self._stopped(name)
        except FileNotFoundError as error:
            raise waiting.gone(name) from error

    def _stopped(self, name: str) -> Status:
        deadline = time.monotonic() + _STOPPING_SECONDS
        nobody_works = waiting.nobody_works(self._layout)
        for now in status.follow(self._layout, name):
            if now.ended:
                return now
            if nobody_works() or time.monotonic() > deadline:
                break
        raise Unanswered(
            f"no worker has answered yet that the request {name!r} is to end",
            hint="it will end when one does: shifterimg wait REQUEST",
        )


def _of(note: Note) -> _Asked:
    return _Asked(name=note.name, image=str(note.image), platform=note.platform)


def _fields(asked: _Asked, now: Status | None) -> dict[str, object]:
    """Return what JSON says of ASKED; without its status if that is not known NOW."""
    said = {"request": asked.name, "image": asked.image, "platform": asked.platform}
    return {**said, "time": request_time(asked.name), **(asdict(now) if now else {"state": None})}


def _line(asked: _Asked, now: Status | None) -> str:
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(request_time(asked.name)))
    shown = now.state if now else "UNKNOWN"
    more = (now.progress or now.fact) if now else "its status cannot be read now"
    line = f"{asked.name:<34} {shown:<10} {when} {_short(asked.image):<30} {more}"
    return boundary.one_line(line).rstrip()


def _short(image: str) -> str:
    """Return IMAGE, if it is known, as docker shows it."""
    return Reference.parse(image).short if image else "-"
