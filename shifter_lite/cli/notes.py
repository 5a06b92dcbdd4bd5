"""Note which requests a user has made: in the spool he cannot see them, as nobody can.

A note is a small file in a directory of the user's own, named as its request.  It is
made before the request and goes when the end has been read, so that none is missed;
what is noted and not there was never submitted, or is long over.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shifter_lite import config, durable, lost_reply
from shifter_lite.errors import BadReference
from shifter_lite.platforms import is_platform
from shifter_lite.records import encode_json
from shifter_lite.reference import Reference
from shifter_lite.request import Request, is_request_name, request_time, request_uid
from shifter_lite.transient import waited_out

_LARGEST = 65536
# Two days after it may be answered at the latest, its statuses are swept.
_KEPT_SECONDS = Request.AGE_LIMIT + 2 * 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A request that the user has made, and what it is for."""

    name: str
    image: Reference
    platform: str

    @property
    def time(self) -> int:
        """When it was made, in seconds since 1970."""
        return request_time(self.name)


class Notes:
    """The user's notes of his requests to one store."""

    def __init__(self, store: str, environ: Mapping[str, str]) -> None:
        """Use those on STORE; raises BadConfig if the user of ENVIRON has no home."""
        self._base = config.state_home(environ)
        self._directory = self._base / "requests" / store

    def add(self, request: Request) -> None:
        """Note REQUEST, and drop notes that are too old for anything; raises OSError."""
        self._make_directory()
        fields = {"v": 1, "image": str(request.image), "platform": request.platform}
        hidden = self._directory / f".{request.name}"
        durable.write(hidden, encode_json(fields), 0o600)
        lost_reply.rename(hidden, self._directory / request.name)
        oldest = time.time() - _KEPT_SECONDS
        for name in self._names():
            if request_time(name.removeprefix(".")) < oldest:
                self._remove(name)

    def remove(self, name: str) -> None:
        """Forget the request NAME, as far as that can be."""
        self._remove(name)

    def __iter__(self) -> Iterator[Note]:
        """Yield all notes, oldest first; what is none is passed over."""
        for name in sorted(self._names()):
            if is_request_name(name) and (note := self.find(name)):
                yield note

    def find(self, name: str) -> Note | None:
        """Return the note of the request NAME, if there is one."""
        with suppress(OSError, ValueError, RecursionError, BadReference):
            match json.loads(waited_out(lambda: _read(self._directory / name))):
                case {"v": 1, "image": str(image), "platform": str(platform)}:
                    reference = Reference.parse(image)
                    if not platform or is_platform(platform):
                        return Note(name=name, image=reference, platform=platform)
        return None

    def _names(self) -> list[str]:
        """Return our notes' names, unfinished ones among them, with a dot before."""
        uid = os.geteuid()
        with suppress(OSError):
            names = waited_out(lambda: os.listdir(self._directory))
            return [name for name in names if _is_of(uid, name.removeprefix("."))]
        return []

    def _remove(self, name: str) -> None:
        lost_reply.discard(self._directory / name)

    def _make_directory(self) -> None:
        if not waited_out(self._directory.is_dir):
            waited_out(lambda: self._base.parent.mkdir(parents=True, exist_ok=True, mode=0o700))
            for path in (self._base, self._directory.parent, self._directory):
                durable.make_directory(path, 0o700)


def _is_of(uid: int, name: str) -> bool:
    return is_request_name(name) and request_uid(name) == uid


def _read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return os.read(fd, _LARGEST) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)
