"""``shifterimg``: what users do with images."""

from __future__ import annotations

import click

from shifter_lite.cli import asked, boundary, images, importing, pull


@boundary.group("shifterimg", "Get container images ready for compute nodes, and find them.")
@click.pass_context
def program(context: click.Context) -> None:
    """Take the options that come before the command."""
    boundary.follow_launcher(context)


program.add_command(pull.command)
program.add_command(importing.command)
program.add_command(asked.queue)
program.add_command(asked.state)
program.add_command(asked.wait)
program.add_command(asked.cancel)
program.add_command(images.listing)
program.add_command(images.lookup)
program.add_command(images.path)


def main() -> None:
    """Run the program."""
    boundary.main(program)
