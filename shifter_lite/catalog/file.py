"""The file that the catalog is: opened, made anew, and put aside when it is damaged.

Several workers of one host may do so at once, so that whatever takes a file away happens
under a lock, and only to the file that was meant.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sqlite_utils import Database

from shifter_lite.catalog import schema

# https://www.sqlite.org/rescode.html
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BESIDE = ("", "-wal", "-shm", "-journal")
_PAUSE_SECONDS = 0.05


class Malformed(sqlite3.DatabaseError):
    """The file is a database, but not one that holds a catalog."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether ERROR is the file's fault, and no other file would have it."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def open_file(path: Path, patience: float) -> Database:
    """Open the database at PATH, made anew if it is missing or of another version.

    Others are waited for as long as PATIENCE, in seconds.

    Raises sqlite3.Error, which ``is_damage`` if there is no catalog in it.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists() and (database := _opened(path, patience)):
        return database
    with _alone(path, patience):
        # Somebody else may have made it while we waited.
        return _opened(path, patience) or _made(path, patience)


def _opened(path: Path, patience: float) -> Database | None:
    """Return the database at PATH, if it is of our version."""
    database = _connected(path, patience)
    with ExitStack() as on_error:
        on_error.callback(database.close)
        if not _is_of_our_version(database):
            return None
        on_error.pop_all()
    return database


def _made(path: Path, patience: float) -> Database:
    """Return the database at PATH with our tables and no others.

    In place and at once: who looks at the file meanwhile would take the journal of another one
    at its name for its own, and remove it.
    """
    database = _connected(path, patience)
    with ExitStack() as on_error:
        on_error.callback(database.close)
        database.execute("BEGIN IMMEDIATE")
        for name in database.table_names():
            schema.table(database, name).drop()
        schema.create(database)
        database.commit()
        on_error.pop_all()
    return database


def put_aside(path: Path, number: int, patience: float) -> None:
    """Give the file at PATH, if its inode still has this NUMBER, and its journals another name."""
    with _alone(path, patience):
        if inode(path) != number:
            return
        aside = f"{path.name}.damaged.{int(time.time())}.{os.urandom(2).hex()}"
        # The journals first: without its own, what is there next must not find another's.
        for end in reversed(_BESIDE):
            with suppress(FileNotFoundError):
                path.with_name(path.name + end).rename(path.with_name(aside + end))


def inode(path: Path) -> int:
    """Return which file is at PATH; 0 if there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def check(database: Database) -> None:
    """Raise an error that ``is_damage`` if DATABASE contradicts itself."""
    for row in database.query("PRAGMA integrity_check"):
        if row["integrity_check"] != "ok":
            raise Malformed(row["integrity_check"])


def _connected(path: Path, patience: float) -> Database:
    return Database(sqlite3.connect(path, timeout=patience))


def _is_of_our_version(database: Database) -> bool:
    """Return whether DATABASE is of our version; raises Malformed if it only says so."""
    version = next(database.query("PRAGMA user_version"))["user_version"]
    if version == schema.VERSION and not schema.is_whole(database):
        raise Malformed("a table of the catalog is missing")
    return bool(version == schema.VERSION)


@contextmanager
def _alone(path: Path, patience: float) -> Iterator[None]:
    """Be the only one who changes which file is at PATH, which is on a local disk.

    Raises TimeoutError after as many seconds as PATIENCE.
    """
    fd = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(fd, time.monotonic() + patience)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, until: float) -> None:
    """Lock the file open on FD; TimeoutError if that is not had UNTIL the monotonic clock says."""
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise TimeoutError(errno.ETIMEDOUT, "somebody keeps the catalog's lock") from error
        time.sleep(_PAUSE_SECONDS)
