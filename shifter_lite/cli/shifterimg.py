"""``shifterimg``: what users do with images."""

from __future__ import annotations

import click

from shifter_lite.cli import asked, boundary, images, importing, lines, pull


@boundary.group("shifterimg", "Get container images ready for compute nodes, and find them.")
@click.pass_context
def program(context: click.Context) -> None:
    """Take the options that come before the command."""
    boundary.follow_launcher(context)


for command in (
    pull.command,
    importing.command,
    asked.queue,
    asked.state,
    asked.wait,
    asked.cancel,
    images.listing,
    images.lookup,
    images.path,
):
    program.add_command(lines.take_verbose(command))
lines.take_verbose(program)


def main() -> None:
    """Run the program."""
    boundary.main(program)
