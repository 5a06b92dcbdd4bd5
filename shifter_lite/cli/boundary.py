"""What all programs share: the store they work on, and what a user sees of an error.

Only this module catches ShifterError, and decides how a program ends.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

import click

from shifter_lite import __version__, config
from shifter_lite.errors import ShifterError, from_oserror
from shifter_lite.layout import Layout

_INTERRUPTED = 130


def group(name: str, text: str) -> Callable[[Callable[..., None]], click.Group]:
    """Return the decorator of the group of commands that the program NAME is; TEXT is its help."""

    def decorate(function: Callable[..., None]) -> click.Group:
        decorated = click.version_option(
            __version__, prog_name=name, message="%(prog)s %(version)s"
        )(store_option(function))
        return click.group(
            name, help=text, context_settings={"help_option_names": ["-h", "--help"]}
        )(decorated)

    return decorate


def store_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--store``, which it may have before or after its name."""

    def remember(context: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None or context.obj is None:
            context.obj = value

    return click.option(
        "--store",
        metavar="DIR",
        expose_value=False,
        callback=remember,
        help="The store, instead of the site's or $SHIFTER_STORE.",
    )(function)


def layout_of(context: click.Context) -> Layout:
    """Return the store that the user means."""
    return config.store_layout(context.obj, os.environ)


def main(program: click.Group) -> NoReturn:
    """Run PROGRAM on the command line, and exit."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        sys.exit(program.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ShifterError as error:
        _complain(program, error)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if (known := from_oserror(error)) is None:
            raise
        _complain(program, known)
        sys.exit(known.exit_code)


def _complain(program: click.Group, error: ShifterError) -> None:
    click.echo(f"{program.name}: {error}", err=True)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    """Unwind, so that claims are handed back and nothing unfinished stays."""
    sys.exit(128 + number)
