"""``shifter-worker``: answer requests, for cron or for ever."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import click

from shifter_lite import cataloguing, config, logs, store, worker
from shifter_lite.cli import boundary
from shifter_lite.executor.local import Builds
from shifter_lite.steps import Bench


@boundary.group("shifter-worker", "Answer the requests in a store's spool.")
def program() -> None:
    """Take the options that come before the command."""


_log_option = click.option(
    "--log",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    expose_value=False,
    callback=lambda _context, _option, value: logs.set_up(value),
    help="How to tell on standard error what happens, one line an event.",
)


@program.command("run")
@boundary.store_option
@_log_option
@click.pass_context
def run(context: click.Context) -> None:
    """Answer requests until told to stop; any number may run, on any host."""
    worker.again(partial(_work, context, worker.run))


@program.command("drain")
@boundary.store_option
@_log_option
@click.pass_context
def drain(context: click.Context) -> None:
    """Answer the requests that are there, then exit: for cron."""
    worker.again(partial(_work, context, partial(worker.drain, patient=True)))


def _work(context: click.Context, work: Callable[[Bench, Builds], None]) -> None:
    layout = boundary.layout_of(context)
    site, identity = config.read_site(os.environ), store.identity(layout)
    # Missed now, and not once an image is ready.
    cataloguing.catalog_path(site, identity)
    with worker.building(layout, identity, site) as made:
        work(*made)


def main() -> None:
    """Run the program."""
    boundary.main(program)
