"""Say what happens in a worker: one line an event, as text or as JSON.

    logs.info("ready", request=name, user=uid, image=image, seconds=1.2)

    2018-05-24T12:00:00.000Z INFO ready request=1527163200-1000-… user=1000 image=… seconds=1.2
    {"time": "2018-05-24T12:00:00.000Z", "level": "INFO", "event": "ready", "request": …}

An event is a word or two that never change; what changes is in its fields.  Whatever an
image or a user has put into a field, it stays on its line.  What libraries would say is
left out: they know addresses that hold secrets, and our errors say what matters.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import time
import traceback
from typing import Literal

Form = Literal["text", "json"]

_log = logging.getLogger("shifter-worker")
# A user who pulls on a single box sees the error itself, once.
_log.addHandler(logging.NullHandler())
_PLAIN = re.compile(r"[A-Za-z0-9_./:@+,%-]+")


def info(event: str, **fields: object) -> None:
    """Say that EVENT has happened, as it should; FIELDS say to what."""
    _say(logging.INFO, event, fields)


def warning(event: str, **fields: object) -> None:
    """Say that EVENT has happened, which somebody may want to look at."""
    _say(logging.WARNING, event, fields)


def error(event: str, bug: BaseException | None = None, **fields: object) -> None:
    """Say that EVENT has happened, which should not; BUG is told with where it comes from."""
    if bug is not None:
        fields["traceback"] = "".join(traceback.format_exception(bug))
    _say(logging.ERROR, event, fields)


def _say(level: int, event: str, fields: dict[str, object]) -> None:
    _log.log(level, "%s", event, extra={"fields": fields})


def set_up(form: Form) -> None:
    """Write events to standard error in FORM, and nothing that libraries log."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(form))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False
    logging.getLogger().addHandler(logging.NullHandler())
    # What cannot be written, on a full disk for example, is no reason to do anything else.
    logging.raiseExceptions = False


class _Formatter(logging.Formatter):
    """Makes a line of an event."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """Return RECORD as one line."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        when += f".{int(record.msecs):03d}Z"
        event = record.getMessage()
        fields: dict[str, object] = getattr(record, "fields", {})
        if self._form == "json":
            plain = {name: _plain(value) for name, value in fields.items()}
            return _json({"time": when, "level": record.levelname, "event": event, **plain})
        words = [f"{name}={_word(value)}" for name, value in fields.items()]
        return " ".join([when, record.levelname, _text(event), *words])


def _word(value: object) -> str:
    plain = _plain(value)
    text = plain if isinstance(plain, str) else _json(plain)
    return text if _PLAIN.fullmatch(text) else _json(text)


def _text(event: str) -> str:
    return event if event.isascii() and event.isprintable() else _json(event)


def _json(value: object) -> str:
    # Only ASCII is on one line whoever reads it; and JSON leaves this one character as it is.
    return json.dumps(value).replace("\x7f", "\\u007f")


def _plain(value: object) -> object:
    """Return VALUE as JSON can have it: numbers as they are, all else as its text."""
    if isinstance(value, float) and math.isfinite(value):
        return round(value, 3)
    return value if isinstance(value, int | None) else str(value)
