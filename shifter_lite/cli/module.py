"""``shifter-admin module``: lines of udiRoot.conf for modules."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click

from shifter_lite import cdi
from shifter_lite.cli import boundary
from shifter_lite.errors import BadConfig

_LARGEST = 16 << 20


@click.group("module")
def commands() -> None:
    """Make modules, which bring what a node has into containers."""


@commands.command("from-cdi")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", default="", help="What to call the module, instead of by its vendor.")
@click.option(
    "--device", metavar="NAME", default="all", show_default=True, help="One of the devices."
)
def from_cdi(file: Path, name: str, device: str) -> None:
    """Print the lines that do what FILE, a CDI specification in JSON, says.

    Do it on a node that has the driver: libraries are found under the names that they have there.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(_LARGEST + 1)
    except OSError as error:
        raise BadConfig(f"cannot read {str(file)!r}: {error.strerror}") from error
    if len(data) > _LARGEST:
        raise BadConfig(f"{str(file)!r} has more than {_LARGEST >> 20} MiB")
    boundary.echo(cdi.module(data, str(file), _links, name=name, device=device))


def _links(path: str) -> list[str]:
    return sorted(_leading_to(path))


def _leading_to(path: str) -> Iterator[str]:
    """Yield the symbolic links in the directory of PATH that lead to it."""
    real = os.stat(path)
    with os.scandir(os.path.dirname(path)) as entries:
        for entry in entries:
            if entry.is_symlink() and os.path.exists(entry.path):
                found = entry.stat()
                if (found.st_dev, found.st_ino) == (real.st_dev, real.st_ino):
                    yield entry.path
