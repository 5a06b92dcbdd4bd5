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
from shifter_lite.errors import NoOutput, ShifterError, from_oserror
from shifter_lite.layout import Layout

_INTERRUPTED = 130
# In the context of a program, if it reads udiRoot.conf as the launcher does.
_AS_LAUNCHER = "shifter_lite.as_launcher"


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


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def follow_launcher(context: click.Context) -> None:
    """Let a mistake in ``udiRoot.conf`` end this program too, as it ends every launch."""
    context.meta[_AS_LAUNCHER] = True


def layout_of(context: click.Context) -> Layout:
    """Return the store that the user means."""
    return config.store_layout(context.obj, os.environ, check=_AS_LAUNCHER in context.meta)


class ReaderGoneError(Exception):
    """What reads our output in a pipe has ended: no error of ours, and nothing to go on for."""


def echo(text: str) -> None:
    """Print TEXT; raises NoOutput where that cannot be, as on a full disk, or ReaderGoneError."""
    try:
        click.echo(_bytes(text))
    except BrokenPipeError as error:
        # The library that we print by would end with 1.
        raise ReaderGoneError from error
    except OSError as error:
        raise _no_output(error) from error


def _bytes(text: str) -> bytes:
    """Return TEXT as standard output's encoding has it; names of files stay the bytes they are."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        return text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace")


def _no_output(error: OSError) -> NoOutput:
    _discard_output()
    return NoOutput(f"cannot write to standard output: {error.strerror}", hint="is its disk full?")


def warn(fact: str, hint: str = "") -> None:
    """Say FACT, and HINT if there is one, on standard error."""
    _say(click.get_current_context().find_root().command.name or "", fact, hint)


def one_line(text: str) -> str:
    """Return TEXT with nothing in it that moves a terminal's cursor, whoever wrote it."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def main(program: click.Group) -> NoReturn:
    """Run PROGRAM on the command line, and exit."""
    _fill_standard_streams()
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Whoever runs us under nohup(1) wants that to be ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _terminate)
    sys.exit(_run(program))


def _run(program: click.Group) -> int:
    """Run PROGRAM; return its exit code."""
    try:
        return int(program.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ShifterError as error:
        return _complain(program, error)
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except ReaderGoneError:
        _discard_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        return _complain(program, _of_output() or from_oserror(error))


def _fill_standard_streams() -> None:
    """Open what the caller had closed, lest a file of the store become a standard stream."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest free descriptor, open(2), which is the stream's own.
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _of_output() -> ShifterError | None:
    """Return what is wrong with standard output, as a help text did not come through; or None."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return _no_output(error)
    return None


def _discard_output() -> None:
    """Drop what is still to be written: Python would complain again at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _complain(program: click.Group, error: ShifterError) -> int:
    """Say ERROR on standard error; return its exit code."""
    _say(program.name or "", str(error), error.hint)
    return error.exit_code


def _say(name: str, fact: str, hint: str) -> None:
    click.echo(f"{name}: {one_line(fact)}", err=True)
    if hint:
        click.echo(f"  hint: {one_line(hint)}", err=True)


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    """Unwind, so that claims are handed back and nothing unfinished stays."""
    sys.exit(128 + number)
