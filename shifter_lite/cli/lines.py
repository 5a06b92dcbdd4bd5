"""What scripts read of ``shifterimg``: the lines and the messages that Shifter prints."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click

from shifter_lite.cli import boundary
from shifter_lite.errors import Cancelled, NoOutput, ShifterError

_VERBOSE = "shifter_lite.verbose"


def take_verbose(command: click.Command) -> click.Command:
    """Let COMMAND take ``-v``, which may stand before its name as well; return COMMAND."""

    def remember(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            context.meta[_VERBOSE] = True

    command.params.append(
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=remember,
            help="Print the messages that Shifter prints, too.",
        )
    )
    return command


def is_verbose(context: click.Context) -> bool:
    """Return whether the user wants to see Shifter's messages."""
    return _VERBOSE in context.meta


def message(fields: Mapping[str, object]) -> str:
    """Return FIELDS as the answer of Shifter's gateway.

    Each key has a line of its own: so scripts find ``"status": "READY"``.
    """
    return f"Message: {json.dumps(fields, indent=4)}"


def missing(context: click.Context, error: ShifterError) -> None:
    """Print what Shifter's gateway answers where there is no image, as ERROR says."""
    if is_verbose(context):
        said = {"status": 404, "error": "image not found", "message": str(error)}
        boundary.echo(f"Got response: 404\n{message(said)}")


def is_at(image: str, state: str) -> str:
    """Return the line that says STATE of the pull of IMAGE, like ``docker:ubuntu:24.04``."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{when} Pulling Image: {image}, status: {state}"


def ended(context: click.Context, image: str, state: str, image_id: str = "") -> None:
    """Print that the pull of IMAGE has ended as STATE says, with the image IMAGE_ID.

    All at once: who has found in a pipe what it looks for reads no more.
    """
    said = is_at(image, state)
    if is_verbose(context):
        kind, _, name = image.partition(":")
        fields = {"itype": kind, "tag": [name], "id": image_id or None, "status": state}
        # Scripts take the last line but one, as Shifter's last one is empty here.
        said = f"{message(fields)}\n{said}\n"
    boundary.echo(said)


@contextmanager
def told(context: click.Context, image: str) -> Iterator[None]:
    """Let the last line say so if what is done here for IMAGE fails."""
    try:
        yield
    except (boundary.ReaderGoneError, NoOutput):
        raise
    except Cancelled:
        ended(context, image, "CANCELLED")
        raise
    except (ShifterError, OSError):
        ended(context, image, "FAILURE")
        raise
