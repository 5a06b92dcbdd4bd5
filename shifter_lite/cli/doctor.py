"""``shifter-admin doctor``: what works on this node, by the launcher's own words."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from shifter_lite.cli import boundary
from shifter_lite.errors import BadConfig


@click.command("doctor")
@boundary.store_option
@click.option("--image", metavar="NAME", help="Try this image, too.")
@click.pass_context
def command(context: click.Context, image: str | None) -> None:
    """Try what images need of this node, and say what to do where it is not there.

    Becomes ``shifter --doctor``, which ends with 0 if images can be run here, and else with 1.
    """
    words = ["shifter", "--doctor"]
    if context.obj is not None:
        words.append(f"--store={context.obj}")
    if image is not None:
        words.append(f"--image={image}")
    os.execv(_launcher(), words)  # noqa: S606


def _launcher() -> str:
    """Return the launcher that was installed with us, or else the one on the path.

    Raises BadConfig if there is none.
    """
    beside = Path(sys.executable).with_name("shifter")
    found = str(beside) if beside.is_file() else shutil.which("shifter")
    if found is None:
        raise BadConfig(
            "the program 'shifter' was not found", hint="build it: make -C runtime install"
        )
    return found
