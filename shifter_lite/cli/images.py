"""``shifterimg images``, ``lookup`` and ``path``: read the index, nothing else."""

from __future__ import annotations

import json
import os
import time

import click

from shifter_lite import config
from shifter_lite.cli import boundary
from shifter_lite.cli.boundary import json_option
from shifter_lite.errors import Damaged
from shifter_lite.index import resolve
from shifter_lite.records import Entry
from shifter_lite.reference import index_key


@click.command("images")
@boundary.store_option
@json_option
@click.pass_context
def listing(context: click.Context, as_json: bool) -> None:
    """List the images that are ready.

    One line a name: system, type, state, the id's beginning, when it was pulled, the name.
    """
    layout = boundary.layout_of(context)
    with resolve.newest(layout.index) as index:
        entries = dict(index.entries()) if index else {}
    named = _listed(entries)
    if as_json:
        rows = [_fields(name, entry) for name, entry in named.items()]
        boundary.echo(json.dumps(rows, indent=2))
        return
    system = config.system_name(os.environ)
    for name, entry in named.items():
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(entry.time))
        # The columns of Shifter, which scripts read.
        boundary.echo(
            f"{system:<10} {'docker':<10} {'READY':<8} {entry.id[:10]}   {when} {name:<30}"
        )


def _listed(entries: dict[str, Entry]) -> dict[str, Entry]:
    """Return the names to show: those with a tag, and by digest where no tag stands for it."""
    tagged = {(_repository(name), entry.id) for name, entry in entries.items() if "@" not in name}
    return {
        name: entry
        for name, entry in entries.items()
        if not name.startswith("id:")
        and ("@" not in name or (_repository(name), entry.id) not in tagged)
    }


def _repository(name: str) -> str:
    return name.partition("@")[0] if "@" in name else name.rpartition(":")[0]


@click.command("lookup")
@boundary.store_option
@click.argument("name")
@json_option
@click.pass_context
def lookup(context: click.Context, name: str, as_json: bool) -> None:
    """Print the id of the image NAME."""
    key = index_key(name)
    entry = resolve.lookup(boundary.layout_of(context).index, key)
    boundary.echo(json.dumps(_fields(key, entry), indent=2) if as_json else entry.id)


@click.command("path")
@boundary.store_option
@click.argument("name")
@json_option
@click.pass_context
def path(context: click.Context, name: str, as_json: bool) -> None:
    """Print the squashfs file of the image NAME, for other runtimes."""
    layout = boundary.layout_of(context)
    key = index_key(name)
    entry = resolve.lookup(layout.index, key)
    file = layout.image(entry.id)
    if not file.is_file():
        raise Damaged(
            f"the image file of {key!r} is missing: {str(file)!r}",
            hint=f"pull it again: shifterimg pull {key}",
        )
    fields = {**_fields(key, entry), "path": str(file)}
    boundary.echo(json.dumps(fields, indent=2) if as_json else str(file))


def _fields(name: str, entry: Entry) -> dict[str, object]:
    return {
        "name": name,
        "id": entry.id,
        "size": entry.size,
        "digest": entry.digest,
        "time": entry.time,
        "status": "READY",
    }
