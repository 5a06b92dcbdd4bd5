"""Users who write into a store's spool by hand, as themselves: by the contract, and against it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import Runner, installed
from tests.helpers import spool
from tests.helpers.users import User, acting_as

DAY = 86400
_SPOOL = ("new", "work", "done", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hand:
    """USER's hand in the spool of STORE."""

    user: User
    store: Path

    @property
    def new(self) -> Path:
        """Where what is submitted lies."""
        return self.store / "spool/new"

    def name(self, *, later: int = 0, uid: int | None = None) -> str:
        """Return a name never used before, of a request of USER's, so many seconds LATER."""
        uid = self.user.uid if uid is None else uid
        return f"{int(time.time()) + later}-{uid}-{os.urandom(8).hex()}"

    def words(self, name: str, image: str = "localhost:1/x:1", **changes: object) -> bytes:
        """Return a request for IMAGE as the contract wants it, but for CHANGES."""
        asked, uid, *_ = (*name.split("-"), "0", "0")
        fields = {
            "v": 1,
            "store": json.loads((self.store / "store.json").read_bytes())["id"],
            "name": name,
            "uid": int(uid) if uid.isdigit() else self.user.uid,
            "time": int(asked) if asked.isdigit() else int(time.time()),
            "image": image,
            "platform": "linux/amd64",
        }
        return json.dumps({**fields, **changes}).encode()

    def prepare(self, name: str) -> Path:
        """Make the status directory of the request NAME."""
        directory = self.store / "status" / name
        with acting_as(self.user):
            directory.mkdir()
            directory.chmod(0o2770)
        return directory

    def drop(self, name: str, data: bytes, mode: int = 0o640) -> Path:
        """Submit DATA as the request NAME."""
        written = self.store / "spool/tmp" / name
        with acting_as(self.user):
            written.write_bytes(data)
            written.chmod(mode)
            return written.rename(self.new / name)

    def ask(self, image: str, *, later: int = 0) -> str:
        """Ask for IMAGE by the contract; return the request's name."""
        name = self.name(later=later)
        self.prepare(name)
        self.drop(name, self.words(name, image))
        return name

    def answer(self, name: str) -> spool.Answer | None:
        """Return what USER reads of his request NAME."""
        with acting_as(self.user):
            directory = self.store / "status" / name
            if not any(directory.glob("[0-9]*.json")):
                return None
            return spool.answer(self.store, name)


def lies(store: Path, name: str) -> list[str]:
    """Return in which states of the spool the request NAME is."""
    return [
        state
        for state in _SPOOL
        for path in (store / "spool" / state).rglob(f"{name}*")
        if path.name == name or path.name.startswith(f"{name}.")
    ]


def left(store: Path) -> list[str]:
    """Return what waits or is worked on, but for what is put aside under a dot-name."""
    names = [*os.listdir(store / "spool/new"), *os.listdir(store / "spool/work")]
    return [name for name in names if not name.startswith(".")]


def drained(site: Runner, timeout: float = 120.0) -> list[str]:
    """Let a worker answer all that is there; return its log, which no terminal minds."""
    done = site("shifter-worker", "drain", timeout=timeout)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.split("\n")[:-1]
    assert all(line.isprintable() for line in lines), done.stderr
    assert "Traceback" not in done.stderr
    return lines


@contextmanager
def working(site: Runner) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker whose log, however long, somebody takes; end it."""
    command = [*site.user.prefix, str(installed("shifter-worker")), "run"]
    with (
        (site.home / "log").open("ab") as log,
        subprocess.Popen(command, env=site.environment, cwd=site.home, stderr=log) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def place_in(lines: list[str], word: str, name: str) -> int:
    """Return which of LINES says WORD of the request NAME."""
    (found,) = (at for at, line in enumerate(lines) if f" {word} " in line and name in line)
    return found


@contextmanager
def unchanged(*roots: Path) -> Iterator[None]:
    """Check that all that is at ROOTS and below stays as it is, but for when it was read."""
    before = [_state(path) for root in roots for path in _walk(root)]
    yield
    after = [_state(path) for root in roots for path in _walk(root)]
    assert after == before


def _walk(root: Path) -> list[Path]:
    below = sorted(root.rglob("*")) if root.is_dir() and not root.is_symlink() else []
    return [root, *below]


def _state(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    content = ""
    if stat.S_ISREG(status.st_mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return (
        str(path),
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_nlink,
        *times,
        content,
    )


def setting(path: str, value: str) -> str:
    """Set the kernel's setting PATH to VALUE; return what it was."""
    file = Path(path)
    before = file.read_text().strip()
    file.write_text(value)
    return before


@contextmanager
def hard_links_to_anything() -> Iterator[None]:
    """Let users make hard links to others' files, as they can on some filesystems anyway."""
    path = "/proc/sys/fs/protected_hardlinks"
    before = setting(path, "0")
    try:
        yield
    finally:
        setting(path, before)


@contextmanager
def small_filesystem(place: Path, size: str, options: str = "") -> Iterator[None]:
    """Mount a filesystem of SIZE bytes on the directory PLACE."""
    words = f"size={size},mode=755{options}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", words, "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)
