"""``shifter-admin``: make a store, and look after it."""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import time
from contextlib import suppress
from dataclasses import asdict

import click

from shifter_lite import cataloguing, config, identity, logs, steps, store
from shifter_lite.build import squash
from shifter_lite.cli import boundary, doctor, module, usage, users
from shifter_lite.cli.boundary import json_option
from shifter_lite.errors import BadConfig, Damaged, NotFound
from shifter_lite.index import resolve
from shifter_lite.layout import Layout
from shifter_lite.queue import submit, view
from shifter_lite.records import Entry
from shifter_lite.request import is_request_name, request_time


@boundary.group("shifter-admin", "Look after a store.")
def program() -> None:
    """Take the options that come before the command."""


@program.command("init")
@boundary.store_option
@click.option("--private", is_flag=True, help="Take requests from its owner only.")
@click.option("--group", metavar="GROUP", help="The group of what users may not read.")
@click.pass_context
def init(context: click.Context, private: bool, group: str | None) -> None:
    """Make a store that takes requests from everybody."""
    if os.geteuid() == 0 and not config.names_store(context.obj, os.environ):
        raise BadConfig(
            "no store is named, and root's home is no place for one",
            hint="as the account that is to own it: shifter-admin --store DIR init",
        )
    layout = boundary.layout_of(context)
    made = store.create(layout, shared=not private, gid=_gid(group))
    boundary.echo(f"{layout.root} {made}")


def _gid(group: str | None) -> int | None:
    """Return the number of GROUP, a name or a number, if there is one."""
    if group is None or group.isdecimal():
        return None if group is None else int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise BadConfig(f"there is no group {group!r}", hint=f"groupadd {group}") from error


@program.command("verify")
@boundary.store_option
@click.pass_context
def verify(context: click.Context) -> None:
    """Check the index, and every image that it names against its digest and its record."""
    layout = boundary.layout_of(context)
    store.identity(layout)
    with resolve.newest(layout.index) as index:
        entries = dict(index.entries()) if index else {}
        if index:
            _check_users(index)
    images = {entry.id: entry for entry in entries.values()}
    broken = [text for entry in images.values() for text in _faults(layout, entry)]
    for text in broken:
        click.echo(text, err=True)
    if broken:
        raise Damaged(
            f"{len(broken)} faults in {len(images)} images",
            hint="remove the files named, then pull their images again",
        )
    boundary.echo(f"{len(images)} images under {len(entries)} names are right")


@program.command("rebuild")
@boundary.store_option
@click.pass_context
def rebuild(context: click.Context) -> None:
    """Make this host's catalog anew from the store's records and index."""
    layout = boundary.layout_of(context)
    store_id = store.identity(layout)
    store.check_ours(layout)
    # What is missing in the store is told one by one.
    logs.set_up("text")
    path = cataloguing.catalog_path(config.read_site(os.environ), store_id)
    found = cataloguing.rebuild(layout, path, store_id)
    boundary.echo(f"{path}: {found.images} images under {found.names} names, {found.pulls} pulls")


@program.command("queue")
@boundary.store_option
@json_option
@click.pass_context
def queue(context: click.Context, as_json: bool) -> None:
    """List all requests that wait or are worked on, oldest first.

    One line a request: its name, user, state, worker, age, the image, and how far it is.
    """
    layout = boundary.layout_of(context)
    names = _Names()
    found = view.open_requests(layout, store.identity(layout))
    if as_json:
        rows = [_fields(each, names(each.uid)) for each in found]
        boundary.echo(json.dumps(rows, indent=2))
        return
    for each in found:
        boundary.echo(_line(each, names(each.uid)))


@program.command("cancel")
@boundary.store_option
@click.argument("request")
@click.pass_context
def cancel(context: click.Context, request: str) -> None:
    """Cancel REQUEST, whose ever it is: a name as "queue" prints it.

    For the account that the store belongs to.  The user is told who has cancelled it.
    """
    layout = boundary.layout_of(context)
    store.identity(layout)
    store.check_ours(layout)
    missing = NotFound(
        f"no request {request!r} waits or is worked on", hint="those that do: shifter-admin queue"
    )
    if not is_request_name(request):
        raise missing
    try:
        over = submit.cancel_for(layout, request)
    except FileNotFoundError as error:
        raise missing from error
    boundary.echo(f"{request} {'CANCELLED' if over else 'is told to stop'}")


program.add_command(users.command)
program.add_command(module.commands)
program.add_command(doctor.command)
program.add_command(usage.command)


class _Names:
    """Login names, each asked for once: where they are looked up may be far away."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}

    def __call__(self, uid: int) -> str:
        """Return the login name of UID, or its digits."""
        if uid not in self._known:
            self._known[uid] = str(uid)
            with suppress(KeyError):
                self._known[uid] = pwd.getpwuid(uid).pw_name
        return self._known[uid]


def _fields(each: view.Open, user: str) -> dict[str, object]:
    request = each.request
    return {
        "request": each.name,
        "user": user,
        "uid": each.uid,
        "image": str(request.image) if request else None,
        "platform": request.platform if request else None,
        "worker": each.worker or None,
        "age": _age(each),
        **asdict(each.status),
    }


def _line(each: view.Open, user: str) -> str:
    days, seconds = divmod(_age(each), 86400)
    # As squeue(1) has it.
    age = f"{days}-{time.strftime('%H:%M:%S', time.gmtime(seconds))}"
    image = each.request.image if each.request else "no request"
    known = f"{each.name:<34} {user:<12} {each.status.state:<10} {age:>11}"
    line = f"{known} {each.worker or '-'} {image} {each.status.progress}"
    return boundary.one_line(line).rstrip()


def _age(each: view.Open) -> int:
    return max(0, int(time.time()) - request_time(each.name))


def _check_users(index: resolve.Index) -> None:
    for key, value in index.items():
        if identity.is_key(key):
            identity.check(key, value)


def _faults(layout: Layout, entry: Entry) -> list[str]:
    path = layout.image(entry.id)
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        described = squash.describe(path)
    except FileNotFoundError as error:
        return [f"{str(path)!r}: missing: {error.filename!r}"]
    except Damaged as error:
        return [f"{str(path)!r}: {error}"]
    try:
        record = steps.read_record(layout, entry.id)
    except FileNotFoundError as error:
        return [f"{str(path)!r}: missing: {error.filename!r}"]
    except Damaged as error:
        return [f"{str(layout.record(entry.id))!r}: {error}"]
    faults = []
    if found != entry.id:
        faults.append(f"{str(path)!r}: the image's content has changed: its digest is {found}")
    if (record.id, record.content) != (entry.id, described):
        faults.append(f"{str(layout.record(entry.id))!r}: the record is not the image's")
    if record.size != entry.size or path.stat().st_size != entry.size:
        faults.append(f"{str(path)!r}: the size is not as recorded")
    return faults


def main() -> None:
    """Run the program."""
    boundary.main(program)
