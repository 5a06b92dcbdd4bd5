"""The part of the kernel that a server of images talks to, to play any version of it."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

LOOKUP, FORGET, GETATTR, READLINK, OPEN, READ, STATFS, RELEASE = 1, 2, 3, 5, 14, 15, 17, 18
FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, ACCESS = 25, 26, 27, 28, 29, 34
INTERRUPT, IOCTL, BATCH_FORGET, READDIRPLUS, LSEEK, STATX = 36, 39, 42, 44, 46, 52
SILENT = {FORGET, INTERRUPT, BATCH_FORGET}

ASYNC_READ, DO_READDIRPLUS, READDIRPLUS_AUTO, NO_OPEN_SUPPORT = 1 << 0, 1 << 13, 1 << 14, 1 << 17
PARALLEL_DIROPS, MAX_PAGES, CACHE_SYMLINKS, NO_OPENDIR_SUPPORT = 1 << 18, 1 << 22, 1 << 23, 1 << 24
# What Linux 4.18, of FUSE 7.27, offers, and what a new one does.
FLAGS_OF_4_18 = (1 << 22) - 1
FLAGS_OF_TODAY = 0x73FFFFFB
ROOT = 1

_IN, _OUT = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")
_DIRENT = struct.Struct("<QQII")
_ATTRIBUTES = struct.Struct("<QQQQQQIIIIIIIIII")


@dataclass(frozen=True)
class Attributes:
    """What a file is, as far as tests ask."""

    number: int
    size: int
    blocks: int


@dataclass(frozen=True)
class Entry:
    """One entry of a listing."""

    name: bytes
    cookie: int


@dataclass(frozen=True)
class Agreed:
    """What a server has answered to INIT."""

    length: int
    major: int
    minor: int
    flags: int
    max_pages: int


def _part(offset: int, size: int) -> bytes:
    """Return what asks for SIZE bytes of a file, or a listing, from OFFSET on."""
    return struct.pack("<QQIIQII", 0, offset, size, 0, 0, 0, 0)


def entries(answer: bytes) -> list[Entry]:
    """Return the entries of a listing that is an ANSWER."""
    at, found = 0, []
    while at < len(answer):
        _, cookie, length, _ = _DIRENT.unpack_from(answer, at)
        start = at + _DIRENT.size
        found.append(Entry(answer[start : start + length], cookie))
        at = start + length + (-length) % 8
    return found


class Kernel:
    """One connection to a server."""

    def __init__(self, connection: socket.socket, server: subprocess.Popen[bytes]) -> None:
        self._connection, self.server, self._asked = connection, server, 0

    def _receive(self, length: int) -> bytes:
        pieces = []
        while length > 0 and (piece := self._connection.recv(length)):
            pieces.append(piece)
            length -= len(piece)
        assert length == 0, "the server has ended"
        return b"".join(pieces)

    def answer(self) -> tuple[int, int, bytes]:
        """Return what was asked, errno, and what the answer says."""
        if self._connection.type == socket.SOCK_SEQPACKET:
            whole = self._connection.recv(1 << 20)
            length, error, unique = _OUT.unpack_from(whole)
            assert length == len(whole)
            return unique, -error, whole[_OUT.size :]
        length, error, unique = _OUT.unpack(self._receive(_OUT.size))
        return unique, -error, self._receive(length - _OUT.size)

    def tell(self, opcode: int, node: int = ROOT, body: bytes = b"") -> int:
        """Ask, and wait for no answer; return what it will be known by."""
        self._asked += 1
        head = _IN.pack(_IN.size + len(body), opcode, self._asked, node, 0, 0, 0, 0)
        self._connection.sendall(head + body)
        return self._asked

    def ask(self, opcode: int, node: int = ROOT, body: bytes = b"") -> tuple[int, bytes]:
        """Return errno and what the answer says."""
        self.tell(opcode, node, body)
        unique, error, what = self.answer()
        assert unique == self._asked
        return error, what

    def _good(self, opcode: int, node: int, body: bytes) -> bytes:
        error, answer = self.ask(opcode, node, body)
        assert error == 0, os.strerror(error)
        return answer

    def begin(self, minor: int = 38, flags: int = FLAGS_OF_TODAY, major: int = 7) -> Agreed:
        """Agree upon the protocol."""
        answer = self._good(INIT, ROOT, struct.pack("<IIII", major, minor, 1 << 17, flags))
        fields = struct.unpack("<IIIIHHIIHHI", answer.ljust(36, b"\0")[:36])
        return Agreed(len(answer), fields[0], fields[1], fields[3], fields[8])

    def look_up(self, name: str, node: int = ROOT) -> int:
        """Return the node of NAME; 0 if it is missing."""
        answer = self._good(LOOKUP, node, name.encode() + b"\0")
        (found,) = struct.unpack_from("<Q", answer)
        return int(found)

    def attributes(self, node: int) -> Attributes:
        answer = self._good(GETATTR, node, bytes(16))
        number, size, blocks, *_ = _ATTRIBUTES.unpack_from(answer, 16)
        return Attributes(number, size, blocks)

    def read(self, node: int, offset: int, size: int) -> bytes:
        return self._good(READ, node, _part(offset, size))

    def error_of_reading(self, node: int, offset: int, size: int) -> int:
        return self.ask(READ, node, _part(offset, size))[0]

    def list_some(self, node: int, cookie: int = 0, size: int = 4096) -> list[Entry]:
        """Return those entries behind COOKIE that one answer has."""
        return entries(self._good(READDIR, node, _part(cookie, size)))

    def tell_read(self, node: int, offset: int, size: int) -> int:
        """Ask for bytes of a file, and wait for no answer."""
        return self.tell(READ, node, _part(offset, size))

    def wait_for_threads(self) -> None:
        """Ask until the server has more than one."""
        while len(os.listdir(f"/proc/{self.server.pid}/task")) < 2:
            self.attributes(ROOT)

    def tell_list(self, node: int, cookie: int, size: int = 4096) -> int:
        """Ask for them, and wait for no answer."""
        return self.tell(READDIR, node, _part(cookie, size))

    def list_all(self, node: int, size: int = 4096) -> list[Entry]:
        """Return all entries, as they come."""
        found: list[Entry] = []
        while more := self.list_some(node, found[-1].cookie if found else 0, size):
            found += more
        return found

    def seek(self, node: int, offset: int, whence: int) -> int | None:
        """Return where the next data or hole begins; None if there is none."""
        error, answer = self.ask(LSEEK, node, struct.pack("<QQII", 0, offset, whence, 0))
        if error != 0:
            assert os.strerror(error) == "No such device or address", os.strerror(error)
            return None
        (found,) = struct.unpack("<Q", answer)
        return int(found)

    def cpu(self) -> int:
        """Return how many ns the server has had a processor."""
        spent = 0
        for task in Path(f"/proc/{self.server.pid}/task").iterdir():
            # One that reads ahead may end meanwhile.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                spent += int((task / "schedstat").read_text().split()[0])
        return spent

    def cheapest(self, work: Callable[[], object]) -> int:
        """Return what WORK costs the server at best, in ns: others may disturb it."""
        spent = []
        for _ in range(4):
            before = self.cpu()
            work()
            spent.append(self.cpu() - before)
        return min(spent)


def command(program: Path) -> list[str]:
    """Return what runs PROGRAM: old checkers of threads cannot bear too random addresses."""
    bits = Path("/proc/sys/vm/mmap_rnd_bits")
    too_random = os.access(bits, os.R_OK) and int(bits.read_text()) > 28
    return [*(["setarch", "-R"] if too_random else []), str(program)]


@contextlib.contextmanager
def serving(
    program: Path,
    image: Path,
    *,
    page: int = 4096,
    kind: int = socket.SOCK_STREAM,
    hung: int | None = None,
) -> Iterator[Kernel]:
    """Serve IMAGE with PROGRAM, which takes a page to be of PAGE bytes; begin nothing yet.

    Reading the image at byte HUNG takes for ever.

    By a socket of a KIND that keeps messages apart, many threads can be asked at once; its messages
    are small.
    """
    ours, its = socket.socketpair(socket.AF_UNIX, kind)
    environment = {
        "ASAN_OPTIONS": "detect_leaks=0",
        "TSAN_OPTIONS": "halt_on_error=1",
        "PATH": os.environ["PATH"],
        "PAGE_SIZE": str(page),
        **({} if hung is None else {"HUNG_AT": str(hung)}),
    }
    run = [*command(program), str(image), str(its.fileno())]
    with ours, subprocess.Popen(run, pass_fds=[its.fileno()], env=environment) as server:
        its.close()
        try:
            yield Kernel(ours, server)
        finally:
            ours.shutdown(socket.SHUT_RDWR)
            status = server.wait(30)
        assert status == 0
