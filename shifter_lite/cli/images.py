"""``shifterimg images``, ``lookup`` and ``path``: read the index, nothing else."""

from __future__ import annotations

import json
import os
import time

import click

from shifter_lite import config, platforms
from shifter_lite.cli import boundary, lines
from shifter_lite.cli.boundary import json_option
from shifter_lite.errors import Damaged, NoStore, NotFound
from shifter_lite.index import resolve
from shifter_lite.layout import Layout
from shifter_lite.records import Entry
from shifter_lite.reference import Reference, index_key

# So much of an id or a digest is taken for one.
_FEWEST_DIGITS = 4

_platform_option = click.option(
    "--platform", metavar="OS/ARCH", help="What it is made for, if not for what the site runs."
)


@click.command("images")
@boundary.store_option
@click.argument("word", default="")
@_platform_option
@click.option("--digests", is_flag=True, help="Show the digests of manifests, too.")
@json_option
@click.pass_context
def listing(
    context: click.Context, word: str, platform: str | None, digests: bool, as_json: bool
) -> None:
    """List the images that are ready; with WORD, only those that it may mean.

    WORD is in their names, or begins their id or the digest of their manifest.
    One line a name: system, type, state, the id's beginning, when it was pulled, the name; and
    behind it for which machines, if these are not what the site runs.
    """
    layout = boundary.layout_of(context)
    with resolve.newest(layout.index) as index:
        entries = dict(index.entries()) if index else {}
    named = {
        name: each
        for name, each in _listed(entries).items()
        if _is_meant(word, name, each) and _meant(platform) in ("", each.platform)
    }
    if as_json:
        rows = [_fields(name, entry) for name, entry in named.items()]
        boundary.echo(json.dumps(rows, indent=2))
        return
    system = config.system_name(os.environ)
    said = [_line(system, *each, digests) for each in named.items()]
    if lines.is_verbose(context):
        all_of_it = {"list": [_message(name, each) for name, each in named.items()]}
        said.insert(0, lines.message(all_of_it))
    if said:
        boundary.echo("\n".join(said))


def _line(system: str, name: str, entry: Entry, digests: bool) -> str:
    """Return the columns of Shifter, which scripts read, and the digest where it is wanted."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(entry.time))
    line = f"{system:<10} {'docker':<10} {'READY':<8} {entry.id[:10]}   {when} {_short(name):<30}"
    return f"{line} {entry.digest}" if digests else line


def _short(name: str) -> str:
    """Return NAME, a key of the index, as docker shows it, and behind it for which machines."""
    # Others are the same, and there may be many.
    if not name.startswith("docker.io/"):
        return name
    name, blank, machine = name.partition(" ")
    return f"{Reference.parse(name).short}{blank}{machine}"


def _is_meant(word: str, name: str, entry: Entry) -> bool:
    """Return whether WORD may mean the image of ENTRY, which is called NAME."""
    word = word.removeprefix("docker:")
    if word in name or word == _short(name):
        return True
    digits = word.removeprefix("id:").removeprefix("sha256:")
    is_prefix = len(digits) >= _FEWEST_DIGITS
    return is_prefix and (entry.id.startswith(digits) or entry.digest[7:].startswith(digits))


def _listed(entries: dict[str, Entry]) -> dict[str, Entry]:
    """Return the names to show: with a tag, and by digest if it was asked for, or has no tag."""
    tagged = {(_repository(name), entry.id) for name, entry in entries.items() if "@" not in name}
    return {
        name: entry
        for name, entry in entries.items()
        if not name.startswith("id:")
        and ("@" not in name or entry.asked or (_repository(name), entry.id) not in tagged)
    }


def _repository(name: str) -> str:
    name = name.partition(" ")[0]
    return name.partition("@")[0] if "@" in name else name.rpartition(":")[0]


@click.command("lookup")
@boundary.store_option
@click.argument("name")
@_platform_option
@json_option
@click.pass_context
def lookup(context: click.Context, name: str, platform: str | None, as_json: bool) -> None:
    """Print the id of the image NAME."""
    key, entry = _find(context, boundary.layout_of(context), name, platform)
    boundary.echo(json.dumps(_fields(key, entry), indent=2) if as_json else entry.id)


@click.command("path")
@boundary.store_option
@click.argument("name")
@_platform_option
@json_option
@click.pass_context
def path(context: click.Context, name: str, platform: str | None, as_json: bool) -> None:
    """Print the squashfs file of the image NAME, for other runtimes."""
    layout = boundary.layout_of(context)
    key, entry = _find(context, layout, name, platform)
    file = layout.image(entry.id)
    if not file.is_file():
        raise Damaged(
            f"the image file of {key!r} is missing: {str(file)!r}",
            hint=f"pull it again: shifterimg pull {key}",
        )
    fields = {**_fields(key, entry), "path": str(file)}
    boundary.echo(json.dumps(fields, indent=2) if as_json else str(file))


def _meant(platform: str | None) -> str:
    return platforms.parse(platform) if platform else ""


def _find(
    context: click.Context, layout: Layout, name: str, platform: str | None
) -> tuple[str, Entry]:
    """Return the key that NAME is in the index, and its entry for PLATFORM, or the site's.

    Raises NotFound or BadReference.
    """
    key = index_key(name)
    try:
        entry = resolve.lookup(layout.index, key, _meant(platform))
    except (NotFound, NoStore) as error:
        lines.missing(context, error)
        raise
    if lines.is_verbose(context):
        boundary.echo(lines.message(_message(key, entry)))
    return key, entry


def _message(name: str, entry: Entry) -> dict[str, object]:
    """Return what Shifter's gateway says of an image, in its words, and the digest."""
    kind, tag = (
        ("id", name[3:]) if name.startswith("id:") else ("docker", _short(name).partition(" ")[0])
    )
    return {
        "id": entry.id,
        "system": config.system_name(os.environ),
        "itype": kind,
        "tag": [tag],
        "status": "READY",
        "last_pull": float(entry.time),
        "ENTRY": list(entry.config.entrypoint) or None,
        "ENV": list(entry.config.env),
        "WORKDIR": entry.config.workdir or None,
        "digest": entry.digest,
    }


def _fields(name: str, entry: Entry) -> dict[str, object]:
    return {
        "name": name.partition(" ")[0],
        "platform": entry.platform or None,
        "id": entry.id,
        "size": entry.size,
        "digest": entry.digest,
        "time": entry.time,
        "status": "READY",
    }
