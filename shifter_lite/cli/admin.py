"""``shifter-admin``: make a store, and look after it."""

from __future__ import annotations

import hashlib

import click

from shifter_lite import steps, store
from shifter_lite.build import squash
from shifter_lite.cli import boundary
from shifter_lite.errors import Damaged
from shifter_lite.index import resolve
from shifter_lite.layout import Layout
from shifter_lite.records import Entry


@boundary.group("shifter-admin", "Look after a store.")
def program() -> None:
    """Take the options that come before the command."""


@program.command("init")
@boundary.store_option
@click.option("--private", is_flag=True, help="Take requests from its owner only.")
@click.pass_context
def init(context: click.Context, private: bool) -> None:
    """Make a store that takes requests from everybody."""
    layout = boundary.layout_of(context)
    identity = store.create(layout, shared=not private)
    boundary.echo(f"{layout.root} {identity}")


@program.command("verify")
@boundary.store_option
@click.pass_context
def verify(context: click.Context) -> None:
    """Check the index, and every image that it names against its digest and its record."""
    layout = boundary.layout_of(context)
    store.identity(layout)
    with resolve.newest(layout.index) as index:
        entries = dict(index.entries()) if index else {}
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


def _faults(layout: Layout, entry: Entry) -> list[str]:
    path = layout.image(entry.id)
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        record = steps.read_record(layout, entry.id)
        described = squash.describe(path)
    except FileNotFoundError as error:
        return [f"{str(path)!r}: missing: {error.filename!r}"]
    except Damaged as error:
        return [f"{str(path)!r}: {error}"]
    faults = []
    if found != entry.id:
        faults.append(f"{str(path)!r}: the image's content has changed: its digest is {found}")
    if (record.id, record.content) != (entry.id, described):
        faults.append(f"{str(path)!r}: the record is not the image's")
    if record.size != entry.size or path.stat().st_size != entry.size:
        faults.append(f"{str(path)!r}: the size is not as recorded")
    return faults


def main() -> None:
    """Run the program."""
    boundary.main(program)
