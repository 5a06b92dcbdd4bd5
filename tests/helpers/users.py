"""Ordinary users: what we prove holds for them, not for root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_FUSE = Path("/dev/fuse")
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who runs programs; ``prefix`` is what makes a command his."""

    name: str
    uid: int
    gid: int
    prefix: tuple[str, ...] = ()


def ourselves() -> User:
    """Return who we are."""
    return User(name=pwd.getpwuid(os.getuid()).pw_name, uid=os.getuid(), gid=os.getgid())


@contextmanager
def ordinary(role: str = "test") -> Iterator[User]:
    """Yield an ordinary user: made now, with ROLE in its name, if we are root; else ourselves."""
    if os.getuid() != 0:
        yield ourselves()
        return
    # Users of clusters may open it; on a bare machine only root may.
    _FUSE.chmod(0o666)
    name = f"shifter-{role}-{os.getpid()}"
    subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", name], check=True)
    try:
        entry = pwd.getpwnam(name)
        ids = (f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups")
        prefix = ("/usr/bin/setpriv", *ids, "--")
        yield User(name=name, uid=entry.pw_uid, gid=entry.pw_gid, prefix=prefix)
    finally:
        _remove(name)


def _remove(name: str) -> None:
    """Remove the user NAME, once the last process of the last test has ended."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (done := subprocess.run(["userdel", name], capture_output=True, check=False)).returncode:
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.1)


@contextmanager
def directory(user: User, place: str = "/tmp") -> Iterator[Path]:
    """Yield an empty directory of USER's in PLACE, on a path that he can go."""
    path = Path(tempfile.mkdtemp(prefix="shifter-lite-", dir=place))
    os.chown(path, user.uid, user.gid)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def being_root_again() -> Iterator[None]:
    """Be root for a while, acting as somebody else."""
    uids, gids = os.getresuid(), os.getresgid()
    os.setresuid(0, 0, 0)
    os.setresgid(0, 0, 0)
    try:
        yield
    finally:
        os.setresgid(*gids)
        os.setresuid(*uids)


@contextmanager
def acting_as(user: User) -> Iterator[None]:
    """Be USER; what is executed meanwhile cannot come back from it, as we can."""
    ours = (os.getuid(), os.getgid(), os.getgroups())
    if user.uid == ours[0]:
        yield
        return
    os.setgroups([])
    os.setresgid(user.gid, user.gid, ours[1])
    os.setresuid(user.uid, user.uid, ours[0])
    try:
        yield
    finally:
        os.setresuid(ours[0], ours[0], ours[0])
        os.setresgid(ours[1], ours[1], ours[1])
        os.setgroups(ours[2])
