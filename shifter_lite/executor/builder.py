"""What runs in a child process: one build, from the question what the image is to its record.

It publishes nothing, and answers nobody: that is for its worker, to whom it says what
``messages`` has.  It can be killed at any time.
"""

from __future__ import annotations

import os
import pickle
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from shifter_lite import logs, steps
from shifter_lite.build import local
from shifter_lite.errors import BadImage, BuildFailed, ShifterError
from shifter_lite.executor import messages
from shifter_lite.executor.messages import Asked, Built, Failed, Said
from shifter_lite.queue.presence import BEAT_SECONDS, Census
from shifter_lite.request import Request, Status
from shifter_lite.steps import BuildContext

# What the worker says: to go on, with which niceness, and with which after a while.
_GO = struct.Struct("<cbb")
_MINUTE_SECONDS = 60.0
_LENGTH_BYTES = 8
_NO_THREAD = "can't start new thread"


@dataclass(frozen=True, slots=True)
class OneBuild:
    """One build of the worker NAME; a ``steps.Builder``."""

    name: str
    mark: str
    census: Census


class Desk:
    """The child's end of the socket; any thread may say something."""

    def __init__(self, channel: socket.socket) -> None:
        """Talk through CHANNEL."""
        self._channel = channel
        self._mutex = threading.Lock()

    def say(self, said: Said) -> None:
        """Say SAID to the worker; wait until it has room for it."""
        with self._mutex:
            self._channel.sendall(messages.encode(said))

    def report(self, status: Status) -> None:
        """Say how far the build is."""
        self.say(status)

    def order(self) -> tuple[Request, str]:
        """Return the request that an image is to be built for, and the mark of its files.

        From the worker, whom we trust: its secrets are ours.
        """
        length = int.from_bytes(self._read(_LENGTH_BYTES))
        request, mark = pickle.loads(self._read(length))  # noqa: S301  # our own parent wrote it
        return request, mark

    def wait(self) -> tuple[int, int] | None:
        """Wait until the worker says to go on; return how nice to be, now and after a while.

        Return None if the worker does not want it any more.
        """
        data = self._read(_GO.size)
        if len(data) < _GO.size:
            return None
        _, now, later = _GO.unpack(data)
        return now, later

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := self._channel.recv(size - len(data))):
            data += more
        return data


def order(request: Request, mark: str) -> bytes:
    """Return the order to build the image of REQUEST, as ``Desk.order`` reads it."""
    data = pickle.dumps((request, mark))
    return len(data).to_bytes(_LENGTH_BYTES) + data


def go(niceness: int, later: int) -> bytes:
    """Return what tells a build to go on with NICENESS, and after a while with LATER."""
    return _GO.pack(b"G", niceness, later)


def run(context: BuildContext, channel: socket.socket) -> None:
    """Do as the worker at the other end of CHANNEL says, for whom CONTEXT was made."""
    desk = Desk(channel)
    request, mark = desk.order()
    limit = context.site.limits.memory_bytes
    _be_the_first_to_go()
    try:
        with _limited(limit):
            end: Said | None = _built(context, desk, request, mark)
    except (ShifterError, OSError) as error:
        end = Failed(error)
    except MemoryError:
        end = Failed(too_large(limit))
    except Exception as error:  # noqa: BLE001  # its requester shall hear of it
        if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
            end = Failed(too_large(limit))
        else:
            logs.error("bug", error, request=request.name)
            end = Failed(BuildFailed(f"a bug in shifter_lite: {error!r}", hint="report it"))
    if end is not None:
        desk.say(end)


def too_large(limit: int) -> BadImage:
    """Return the error of an image that needs more than LIMIT bytes of memory."""
    return BadImage(
        f"the image needs more than {limit} bytes of memory while it is built",
        hint="the site allows no more: limits.memory_bytes in shifter_lite.toml",
    )


def _built(context: BuildContext, desk: Desk, request: Request, mark: str) -> Built | None:
    census = Census(context.layout, context.site.lease_seconds, own=context.worker.name)
    own = BuildContext(
        layout=context.layout,
        store=context.store,
        site=context.site,
        compressor=context.compressor,
        worker=OneBuild(context.worker.name, mark, census),
        logins=context.logins,
    )
    with steps.opened(own, request) as source:
        manifest = steps.choose(own, request, source)
        recipe = source.recipe if isinstance(source, local.Squashfs) else ""
        desk.say(Asked(manifest, recipe))
        if (niceness := desk.wait()) is None:
            return None
        os.setpriority(os.PRIO_PROCESS, 0, niceness[0])
        threading.Thread(target=_look_around, args=[census, niceness[1]], daemon=True).start()
        return Built(steps.make(own, source, manifest, desk.report).id)


def _look_around(census: Census, later: int) -> None:
    """See who lives, for as long as the process does: whose locks count depends on it.

    After a minute leave the processors to others, as the niceness LATER says.
    """
    pause, began = threading.Event(), time.monotonic()
    while not pause.wait(BEAT_SECONDS):
        with suppress(OSError):
            census.look()
        if later and time.monotonic() - began > _MINUTE_SECONDS:
            # All threads at once: of the group, which has this one process.
            os.setpriority(os.PRIO_PGRP, 0, later)
            later = 0


def _be_the_first_to_go() -> None:
    """Be whom the kernel kills first when there is no memory left: not the worker."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


@contextmanager
def _limited(limit: int) -> Iterator[None]:
    """Have no more than LIMIT bytes of private memory meanwhile: RLIMIT_DATA in getrlimit(2).

    Not RLIMIT_AS: address space that is only reserved, as each thread does, costs nothing.
    """
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    try:
        yield
    finally:
        # What is to be said about it needs memory, too.
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))
