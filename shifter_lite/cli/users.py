"""``shifter-admin identity``: let compute nodes know who users are, without a name service."""

from __future__ import annotations

import os
from functools import partial
from itertools import islice
from pathlib import Path

import click

from shifter_lite import config, getent, steps, store, worker
from shifter_lite.cli import boundary
from shifter_lite.errors import BadConfig
from shifter_lite.layout import Layout

_MOST_TOLD = 20


@click.command("identity")
@boundary.store_option
@click.option(
    "--passwd",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The users, as passwd(5) has them, instead of 'getent passwd'.",
)
@click.option(
    "--group",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The groups, as group(5) has them, instead of 'getent group'.",
)
@click.option(
    "--users-from",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Ask getent for the users whose names are in FILE, and for their groups.",
)
@click.option(
    "--lowest-uid",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Leave out users below, and groups below that none of the others is in.",
)
@click.option("--keep-going", is_flag=True, help="Publish what can be read, and tell the rest.")
@click.pass_context
def command(
    context: click.Context,
    passwd: Path | None,
    group: Path | None,
    users_from: Path | None,
    lowest_uid: int,
    keep_going: bool,
) -> None:
    """Publish the site's users and groups to compute nodes, in place of those of before.

    They need no name service then.  If nothing has changed, nothing is published.
    """
    if users_from and (passwd or group):
        raise click.UsageError("--users-from goes with neither --passwd nor --group")
    layout = boundary.layout_of(context)
    identity = store.identity(layout)
    faults: list[str] = []
    snapshot = getent.read(faults.append, lowest_uid, passwd, group, users_from)
    _tell(faults, keep_going)
    entries = snapshot.entries()
    worker.again(partial(_publish, layout, identity, entries, snapshot.users))


def _tell(faults: list[str], keep_going: bool) -> None:
    """Tell FAULTS; raises BadConfig if there are any, unless we are to KEEP_GOING."""
    for text in islice(faults, _MOST_TOLD):
        click.echo(f"shifter-admin: {boundary.one_line(text)}", err=True)
    if len(faults) > _MOST_TOLD:
        click.echo(f"shifter-admin: and {len(faults) - _MOST_TOLD} more", err=True)
    if faults and not keep_going:
        # A file that is cut off, or being written, would take the names of all others away.
        raise BadConfig(
            f"{len(faults)} faults in what the site says of its users: nothing was published",
            hint="mend them, or leave them out: --keep-going",
        )


def _publish(layout: Layout, identity: str, entries: dict[bytes, bytes], users: int) -> None:
    site = config.read_site(os.environ)
    with worker.working(layout, identity, site) as bench:
        published = steps.publish_identity(bench, entries)
    what = f"{users} users and {len(entries) - users} groups"
    when = "now" if published.is_ours else "already"
    boundary.echo(f"{what} are {when} in generation {published.generation} of the index")
