"""Fork a child for each order, from a process that has neither threads nor files of the worker.

A worker has threads and holds locks.  A child that is forked from it would have copies of its
locked mutexes, and its flock(2) would be the child's as well.  So the worker forks one helper
before it has any of them, the *template*, and the template forks the children::

    worker ── template ─┬─ child 1
                        └─ child 2

Each gets SIGKILL from the kernel when its parent ends, PR_SET_PDEATHSIG in prctl(2).  Orders and
answers go through a socket of each child's own, so no secret is on a command line or in an
environment.  One child is forked in advance: forking takes milliseconds.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from shifter_lite.queue.presence import Lost

_PR_SET_PDEATHSIG = 1
_START, _KILL = b"S", b"K"
_ORDER = struct.Struct("<cQ")
_ENDED = struct.Struct("<Qi")
# Whoever asks for one child often asks for the next at once, and ends soon.
_SPARE_AFTER_SECONDS = 0.2
# A child that waits for a filesystem in the kernel cannot be killed.
_LAST_SECONDS = 2.0
# What a terminal or a service manager sends to all processes is for the worker to answer.
_FOR_THE_WORKER = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

Run = Callable[[socket.socket], None]


class TemplateLost(Lost):
    """The template was killed, and its children with it: the worker has to begin anew."""


class Forks:
    """The worker's end: starts and kills children, and hears how they ended."""

    def __init__(self, run: Run) -> None:
        """Have children that do RUN with their end of a socket; it is over when RUN returns."""
        self._run = run
        self._started = 0
        self._ended: dict[int, int] = {}

    def __enter__(self) -> Forks:
        """Fork the template: before there are threads, and files that a child must not hold."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        worker = os.getpid()
        self._template = os.fork()
        if self._template == 0:
            _be_template(self._run, theirs, worker)
        theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill all children; return once they are gone."""
        self._control.close()
        with suppress(ChildProcessError):
            os.waitpid(self._template, 0)

    def fileno(self) -> int:
        """Return what can be read when a child has ended."""
        return self._control.fileno()

    def start(self) -> tuple[int, socket.socket]:
        """Start a child; return its number and our end of its socket."""
        self._started += 1
        ours, theirs = socket.socketpair()
        with theirs:
            self._say(_ORDER.pack(_START, self._started), theirs.fileno())
        return self._started, ours

    def kill(self, number: int) -> None:
        """Kill the child NUMBER, if it still runs."""
        self._say(_ORDER.pack(_KILL, number))

    def hear(self) -> None:
        """Take note of the children that have ended; raises TemplateLost."""
        with suppress(BlockingIOError):
            while data := self._control.recv(_ENDED.size, socket.MSG_DONTWAIT):
                child, code = _ENDED.unpack(data)
                self._ended[child] = code
            raise TemplateLost("the process that starts builds has ended")

    def ended(self, number: int) -> int | None:
        """Return the exit code of the child NUMBER, below 0 for a signal; None while it runs."""
        self.hear()
        return self._ended.get(number)

    def forget(self, number: int) -> None:
        """Remember no more how the child NUMBER ended."""
        self._ended.pop(number, None)

    def _say(self, data: bytes, *fds: int) -> None:
        try:
            socket.send_fds(self._control, [data], fds)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise TemplateLost("the process that starts builds has ended") from error


def _be_template(run: Run, control: socket.socket, worker: int) -> NoReturn:
    try:
        _live_with(worker)
        _close_all_but(control.fileno())
        for number in _FOR_THE_WORKER:
            signal.signal(number, signal.SIG_IGN)
        # What is there is shared with all children, as long as nobody writes to it.
        gc.freeze()
        _Template(run, control).serve()
    except BaseException:  # noqa: BLE001  # nothing of the worker's stack may be unwound here
        traceback.print_exc()
    finally:
        os._exit(os.EX_SOFTWARE)


def _live_with(parent: int) -> None:
    """End, by SIGKILL, when the process PARENT ends that has forked us."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It ended before we asked to hear of that.
        os._exit(os.EX_OK)


def _close_all_but(kept: int) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != kept:
            # The listing's own is closed already.
            with suppress(OSError):
                os.close(int(name))


class _Template:
    """Forks children as it is told, and tells how they end."""

    def __init__(self, run: Run, control: socket.socket) -> None:
        self._run, self._control = run, control
        self._woken, waking = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(waking, False)
        signal.set_wakeup_fd(waking)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._pids: dict[int, int] = {}
        # One that is forked, and has nothing to do yet: its pid, and where to give it something.
        self._spare: tuple[int, socket.socket] | None = None

    def serve(self) -> None:
        """Do what the worker says, until it says no more."""
        self._fork()
        while True:
            pause = None if self._spare else _SPARE_AFTER_SECONDS
            wanted: list[int] = [self._control.fileno(), self._woken]
            ready, _, _ = select.select(wanted, [], [], pause)
            if self._woken in ready:
                os.read(self._woken, select.PIPE_BUF)
                self._reap()
            if self._control.fileno() in ready and not self._obey():
                self._end()
            if not ready:
                self._fork()

    def _obey(self) -> bool:
        try:
            data, fds, _, _ = socket.recv_fds(self._control, _ORDER.size, 1)
        except ConnectionResetError:
            # It has not read all that we have said.
            return False
        if not data:
            return False
        what, number = _ORDER.unpack(data)
        if what == _START:
            self._start(number, *fds)
        elif number in self._pids:
            os.kill(self._pids[number], signal.SIGKILL)
        return True

    def _start(self, number: int, channel: int) -> None:
        if self._spare is None:
            self._fork()
        assert self._spare is not None
        (pid, hand), self._spare = self._spare, None
        self._pids[number] = pid
        # If it was killed meanwhile, it is reaped as any other.
        with hand, suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(hand, [b"."], [channel])
        os.close(channel)

    def _fork(self) -> None:
        ours, theirs = socket.socketpair()
        template = os.getpid()
        pid = os.fork()
        if pid == 0:
            _be_child(self._run, theirs, template)
        theirs.close()
        self._spare = (pid, ours)

    def _reap(self) -> None:
        for pid, status in _reaped():
            if self._spare is not None and pid == self._spare[0]:
                self._spare[1].close()
                self._spare = None
            for number in [number for number, each in self._pids.items() if each == pid]:
                del self._pids[number]
                code = os.waitstatus_to_exitcode(status)
                with suppress(BrokenPipeError, ConnectionResetError):
                    self._control.send(_ENDED.pack(number, code))

    def _end(self) -> NoReturn:
        """Kill all, and end when they have."""
        spare = [self._spare[0]] if self._spare else []
        left = {*self._pids.values(), *spare}
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + _LAST_SECONDS
        while left and time.monotonic() < until:
            left -= {pid for pid, _ in _reaped()}
            if left:
                select.select([self._woken], [], [], 0.01)
        os._exit(os.EX_OK)


def _reaped() -> list[tuple[int, int]]:
    """Return the pid and status of each child that has ended since."""
    found = []
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found.append(ended)
    return found


def _be_child(run: Run, hand: socket.socket, template: int) -> NoReturn:
    code = os.EX_SOFTWARE
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _live_with(template)
        _close_all_but(hand.fileno())
        # Its niceness is changed for all of its threads by way of their group.
        os.setpgid(0, 0)
        said, fds, _, _ = socket.recv_fds(hand, 1, 1)
        if said:
            hand.close()
            run(socket.socket(fileno=fds[0]))
        code = os.EX_OK
    except BaseException as error:  # noqa: BLE001  # nothing of the worker's stack may be unwound
        if not (isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.ECONNRESET)):
            traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stderr.flush()
        os._exit(code)
