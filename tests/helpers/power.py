"""What a power loss leaves: file operations as they were recorded, replayed up to any of them.

The filesystem is a journaling one: names, modes and owners become durable in the order in which
they were changed, and a sync of any file or directory makes all of them durable that came before.
Data is durable once its own file was synced.  What was not may be all there, or in part, or lost,
or zeros may stand in its place: each is one of ``WAYS``.

    with recording(...) as log:  …            strace tells what programs do
    operations(log, root)                     … to the files below root
    for state in states(disk, operations)     every tree that a power loss may leave
    state.write(root)
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

CALLS = (
    "open,openat,creat,read,pread64,write,pwrite64,pwritev,pwritev2,writev,lseek,truncate,"
    "ftruncate,fallocate,copy_file_range,sendfile,rename,renameat,renameat2,link,linkat,symlink,"
    "symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,chmod,fchmod,fchmodat,chown,fchown,fchownat,"
    "fsync,fdatasync,sync,syncfs"
)
Way = Literal["whole", "lost", "zeros", "part", "mixed"]
WAYS: tuple[Way, ...] = ("whole", "lost", "zeros", "part", "mixed")

_LINE = re.compile(r"(?P<task>\d+) +(?P<rest>.*)", re.DOTALL)
_ENDED = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")
_RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)", re.DOTALL)
_UNFINISHED = " <unfinished ...>"
_BYTE = re.compile(r"\\x([0-9a-f]{2})")
_SYNCS = ("fsync", "fdatasync")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing done to the files below the root; paths are relative to it.

    ``owner`` is who did it; ``number`` an offset, a size or a mode; ``target`` a second path.
    """

    kind: str
    path: str
    owner: tuple[int, int]
    target: str = ""
    number: int = 0
    data: bytes = b""

    def __str__(self) -> str:
        return f"{self.kind} {self.path} {self.target}".rstrip()


@dataclass(slots=True)
class _File:
    mode: int
    owner: tuple[int, int]
    durable: bytes = b""
    # Since it was last synced: where, and what; or to which size it was cut.
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def content(self, way: Way) -> bytes:
        """Return what is in the file if what is not durable came to the disk in this WAY."""
        if way == "lost" or not self.pending:
            return self.durable
        if way == "part":
            half = len(self.pending) // 2
            at, data = self.pending[half]
            part = [] if data is None else [(at, data[: len(data) // 2])]
            return _applied(self.durable, [*self.pending[:half], *part])
        whole = _applied(self.durable, self.pending)
        if way == "zeros":
            kept = zip(whole, self.durable.ljust(len(whole), b"\0"), strict=False)
            return bytes(new if new == old else 0 for new, old in kept)
        return whole

    def sync(self) -> None:
        self.durable, self.pending = self.content("whole"), []


@dataclass(slots=True)
class _Directory:
    mode: int
    owner: tuple[int, int]
    names: dict[str, _File | _Directory] = field(default_factory=dict)


def _applied(data: bytes, changes: Iterable[tuple[int, bytes | None]]) -> bytes:
    made = bytearray(data)
    for at, new in changes:
        made.extend(bytes(max(0, at - len(made))))
        if new is None:
            del made[at:]
        else:
            made[at : at + len(new)] = new
    return bytes(made)


# A path, its mode, its owner, and its content, which a directory has not.
_Row = tuple[str, int, tuple[int, int], bytes | None]


@dataclass(frozen=True, slots=True)
class State:
    """A tree that a power loss may leave: after so many operations, and in which way."""

    after: int
    last: str
    way: Way
    rows: Sequence[_Row]

    def __str__(self) -> str:
        return f"power lost after {self.after} ({self.last}), data {self.way}"

    def write(self, root: Path) -> None:
        """Make the tree below ROOT, which is an empty directory."""
        for path, mode, owner, content in self.rows:
            place = root / path
            if content is None:
                place.mkdir()
            else:
                place.write_bytes(content)
            os.chown(place, *owner)
            place.chmod(mode)


class Disk:
    """What is on a disk, and what is on its way there."""

    def __init__(self, root: Path) -> None:
        """Take over all that lies below ROOT, as durable."""
        self.root = _taken(root)
        assert isinstance(self.root, _Directory)

    def do(self, operation: Operation) -> None:
        """Do OPERATION."""
        getattr(self, f"_{operation.kind}")(operation)

    def rows(self, way: Way) -> list[_Row]:
        """Return all there is, if what is not durable comes to the disk in this WAY."""
        assert isinstance(self.root, _Directory)
        return list(_rows("", self.root, way))

    def exists(self, path: str) -> bool:
        """Return whether there is something at PATH."""
        parent, name = self._parent(path)
        return name in parent.names

    def _parent(self, path: str) -> tuple[_Directory, str]:
        directory: _File | _Directory = self.root
        *places, name = path.split("/")
        for place in places:
            assert isinstance(directory, _Directory)
            directory = directory.names[place]
        assert isinstance(directory, _Directory)
        return directory, name

    def _file(self, path: str) -> _File:
        parent, name = self._parent(path)
        found = parent.names[name]
        assert isinstance(found, _File), path
        return found

    def _made(self, operation: Operation) -> tuple[_Directory, str, tuple[int, int], int]:
        """Return where OPERATION makes something, who will own it, and what it inherits."""
        parent, name = self._parent(operation.path)
        group = parent.owner[1] if parent.mode & stat.S_ISGID else operation.owner[1]
        return parent, name, (operation.owner[0], group), parent.mode & stat.S_ISGID

    def _create(self, operation: Operation) -> None:
        parent, name, owner, _ = self._made(operation)
        if name not in parent.names:
            parent.names[name] = _File(operation.number, owner)

    def _mkdir(self, operation: Operation) -> None:
        parent, name, owner, inherited = self._made(operation)
        parent.names[name] = _Directory(operation.number | inherited, owner)

    def _rename(self, operation: Operation) -> None:
        old, name = self._parent(operation.path)
        new, target = self._parent(operation.target)
        new.names[target] = old.names.pop(name)

    def _link(self, operation: Operation) -> None:
        new, target = self._parent(operation.target)
        new.names[target] = self._file(operation.path)

    def _unlink(self, operation: Operation) -> None:
        parent, name = self._parent(operation.path)
        del parent.names[name]

    def _chmod(self, operation: Operation) -> None:
        parent, name = self._parent(operation.path)
        node = parent.names[name]
        member = operation.owner[0] == 0 or operation.owner[1] == node.owner[1]
        # Who is not of the group cannot give its rights away; see chmod(2).
        node.mode = operation.number if member else operation.number & ~stat.S_ISGID

    def _write(self, operation: Operation) -> None:
        self._file(operation.path).pending.append((operation.number, operation.data))

    def _truncate(self, operation: Operation) -> None:
        self._file(operation.path).pending.append((operation.number, None))

    def _sync(self, operation: Operation) -> None:
        parent, name = self._parent(operation.path)
        found = parent.names.get(name)
        if isinstance(found, _File):
            found.sync()


def _taken(path: Path) -> _File | _Directory:
    status = path.lstat()
    mode, owner = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
    if not path.is_dir():
        return _File(mode, owner, path.read_bytes())
    names = {name: _taken(path / name) for name in os.listdir(path)}
    return _Directory(mode, owner, names)


def _rows(path: str, directory: _Directory, way: Way) -> Iterator[_Row]:
    for name, node in sorted(directory.names.items()):
        place = f"{path}{name}"
        if isinstance(node, _Directory):
            yield place, node.mode, node.owner, None
            yield from _rows(f"{place}/", node, way)
            continue
        chosen = way
        if way == "mixed":
            chosen = WAYS[hashlib.sha256(place.encode()).digest()[0] % (len(WAYS) - 1)]
        yield place, node.mode, node.owner, node.content(chosen)


def states(disk: Disk, todo: Sequence[Operation], sampled: str) -> list[State]:
    """Return every tree that a power loss may leave while DISK lets TODO be done.

    Each is returned once: of equal ones the last, when the most was promised already.  Before
    operations on what is below SAMPLED, in two ways only.
    """
    found = {}
    last = "nothing"
    for after, operation in enumerate([*todo, None]):
        # Data alone changes nothing that is durable: it is looked at when something does.
        if operation is None or operation.kind not in ("write", "truncate"):
            few = operation is not None and operation.path.startswith(sampled)
            for way in ("lost", "mixed") if few else WAYS:
                state = State(after, last, way, disk.rows(way))
                found[hashlib.sha256(repr(state.rows).encode()).digest()] = state
        if operation is not None:
            disk.do(operation)
            last = str(operation)
    return list(found.values())


def surely_durable(done: Sequence[Operation], below: str) -> int:
    """Return how many of the operations DONE a power loss cannot undo any more.

    Only syncs of what is BELOW a directory count.
    """
    syncs = [n for n, each in enumerate(done, 1) if each.kind == "sync"]
    return max((n for n in syncs if done[n - 1].path.startswith(below)), default=0)


def strace(log: Path) -> list[str]:
    """Return what runs a command with all that it does to files written to LOG."""
    how = ["-f", "-y", "-xx", "-s", str(1 << 26), "-qq", "--seccomp-bpf", "-e", "signal=none"]
    return ["strace", *how, "-e", f"trace={CALLS}", "-o", str(log)]


def operations(log: Path, root: Path, owner: tuple[int, int], umask: int) -> list[Operation]:
    """Return what the programs in LOG, which OWNER ran with UMASK, did below ROOT."""
    reader = _Reader(root, owner, umask)
    for line in log.read_text().splitlines():
        match = _LINE.fullmatch(line)
        assert match, line[:200]
        reader.line(match["task"], match["rest"])
    return reader.found


class _Reader:
    """Makes operations of the lines of strace."""

    def __init__(self, root: Path, owner: tuple[int, int], umask: int) -> None:
        self._root, self._owner, self._umask = str(root), owner, umask
        self._begun: dict[str, str] = {}
        self._positions: dict[int, int] = {}
        self.found: list[Operation] = []

    def line(self, task: str, rest: str) -> None:
        """Take what TASK did; a call that others interrupted counts from where it ended.

        But a sync makes durable only what was there when it began.
        """
        if rest.endswith(_UNFINISHED):
            self._begun[task] = rest.removesuffix(_UNFINISHED)
            if rest.startswith(_SYNCS):
                name, _, arguments = self._begun[task].partition("(")
                self._call(name, arguments, 0)
            return
        if resumed := _RESUMED.fullmatch(rest):
            if resumed["name"] in _SYNCS:
                return
            rest = self._begun.pop(task) + resumed["rest"]
        if (ended := _ENDED.match(rest)) and int(ended["result"]) >= 0:
            self._call(ended["name"], ended["arguments"], int(ended["result"]))

    def _call(self, name: str, arguments: str, result: int) -> None:
        words = arguments.split(", ")
        reader = getattr(self, f"_{name}", None)
        assert reader is not None, f"cannot replay: {name}"
        reader(words, result)

    def _put(self, kind: str, path: str | None, target: str = "", **more: int | bytes) -> None:
        if path is not None:
            number, data = more.get("number", 0), more.get("data", b"")
            assert isinstance(number, int)
            assert isinstance(data, bytes)
            self.found.append(
                Operation(
                    kind=kind, path=path, owner=self._owner, target=target, number=number, data=data
                )
            )

    def _below(self, path: str) -> str | None:
        inside = path.startswith(f"{self._root}/")
        return path.removeprefix(f"{self._root}/") if inside else None

    def _open_file(self, word: str) -> str | None:
        """Return the file that the number in WORD is open on, unless it has no name any more."""
        match = re.fullmatch(r"\d+<(.*)>", word)
        return self._below(_text(match[1])) if match else None

    def _named(self, path: str, directory: str = "") -> str | None:
        """Return the path that the words DIRECTORY and PATH of a call name."""
        text = _text(path.strip('"'))
        if not text.startswith("/"):
            match = re.fullmatch(r"(\d+|AT_FDCWD)<(.*)>", directory)
            assert match, f"a relative path: {text!r}"
            text = f"{_text(match[2])}/{text}"
        return self._below(text)

    def _openat(self, words: list[str], result: int) -> None:
        path = self._named(words[1], words[0])
        self._positions[result] = 0
        if "O_CREAT" in words[2]:
            self._put("create", path, number=int(words[3], 8) & ~self._umask)
        assert "O_APPEND" not in words[2] or path is None
        if "O_TRUNC" in words[2]:
            self._put("truncate", path)

    def _read(self, words: list[str], result: int) -> None:
        self._positions[_number(words[0])] = self._positions.get(_number(words[0]), 0) + result

    def _lseek(self, words: list[str], result: int) -> None:
        self._positions[_number(words[0])] = result

    def _pread64(self, words: list[str], result: int) -> None:
        """Change nothing."""

    def _write(self, words: list[str], result: int) -> None:
        at = self._positions.get(_number(words[0]), 0)
        self._positions[_number(words[0])] = at + result
        self._put("write", self._open_file(words[0]), number=at, data=_data(words, result))

    def _pwrite64(self, words: list[str], result: int) -> None:
        at = int(words[-1])
        self._put("write", self._open_file(words[0]), number=at, data=_data(words, result))

    def _writev(self, words: list[str], result: int) -> None:
        self._write(words, result)

    def _pwritev2(self, words: list[str], result: int) -> None:
        at = int(words[-2])
        self._put("write", self._open_file(words[0]), number=at, data=_data(words, result))

    def _pwritev(self, words: list[str], result: int) -> None:
        self._pwrite64(words, result)

    def _ftruncate(self, words: list[str], _: int) -> None:
        self._put("truncate", self._open_file(words[0]), number=int(words[1]))

    def _rename(self, words: list[str], _: int) -> None:
        self._put("rename", self._named(words[0]), self._named(words[1]) or "")

    def _renameat(self, words: list[str], _: int) -> None:
        target = self._named(words[3], words[2]) or ""
        self._put("rename", self._named(words[1], words[0]), target)

    def _link(self, words: list[str], _: int) -> None:
        self._put("link", self._named(words[0]), self._named(words[1]) or "")

    def _linkat(self, words: list[str], _: int) -> None:
        target = self._named(words[3], words[2]) or ""
        self._put("link", self._named(words[1], words[0]), target)

    def _unlink(self, words: list[str], _: int) -> None:
        self._put("unlink", self._named(words[0]))

    def _unlinkat(self, words: list[str], _: int) -> None:
        self._put("unlink", self._named(words[1], words[0]))

    def _rmdir(self, words: list[str], _: int) -> None:
        self._put("unlink", self._named(words[0]))

    def _mkdir(self, words: list[str], _: int) -> None:
        self._put("mkdir", self._named(words[0]), number=int(words[1], 8) & ~self._umask)

    def _mkdirat(self, words: list[str], _: int) -> None:
        mode = int(words[2], 8) & ~self._umask
        self._put("mkdir", self._named(words[1], words[0]), number=mode)

    def _chmod(self, words: list[str], _: int) -> None:
        self._put("chmod", self._named(words[0]), number=int(words[1], 8))

    def _fchmod(self, words: list[str], _: int) -> None:
        self._put("chmod", self._open_file(words[0]), number=int(words[1], 8))

    def _fchmodat(self, words: list[str], _: int) -> None:
        self._put("chmod", self._named(words[1], words[0]), number=int(words[2], 8))

    def _fsync(self, words: list[str], _: int) -> None:
        self._put("sync", self._open_file(words[0]))

    def _fdatasync(self, words: list[str], _: int) -> None:
        self._fsync(words, 0)


def _number(word: str) -> int:
    return int(word.partition("<")[0])


def _text(escaped: str) -> str:
    return os.fsdecode(bytes.fromhex(escaped.replace("\\x", "")))


def _data(words: Sequence[str], size: int) -> bytes:
    """Return the first SIZE bytes of all strings among WORDS, as they were written."""
    strings = re.findall(r'"((?:\\x[0-9a-f]{2})*)"', ", ".join(words))
    return bytes.fromhex("".join(strings).replace("\\x", ""))[:size]
