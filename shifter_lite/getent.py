"""Where a site's users and groups come from: its files, or whatever getent(1) asks.

Only here, on a service node and now and then, is a name service asked.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from shifter_lite.errors import BadConfig
from shifter_lite.identity import (
    Group,
    Report,
    Snapshot,
    User,
    read_group,
    read_memberships,
    read_passwd,
)

# Far below what an argument list may have, and what a server is asked at once.
_AT_ONCE = 200
_PATIENCE = 600.0
# getent(1): all is there; some key is not there.
_FOUND = (0,)
_SOME = (0, 2)
_HINT = (
    "a name service that does not list all its users (enumeration) gives getent none: "
    "name them with --users-from, or give --passwd and --group"
)


def read(
    report: Report, lowest: int, passwd: Path | None, group: Path | None, names: Path | None
) -> Snapshot:
    """Return the users and groups from LOWEST on, of the files PASSWD and GROUP where given.

    Without them getent is asked for all, or for the users whose NAMES a file has.  REPORT hears
    of all that is no entry.  Raises BadConfig if there are no users at all, for that would
    take the names of all away.
    """
    snapshot = Snapshot(report, lowest=lowest)
    if names is not None:
        _add_named(snapshot, report, _names(names))
    else:
        snapshot.add_users(read_passwd(*_source(passwd, "passwd"), report))
        snapshot.add_groups(read_group(*_source(group, "group"), report))
    if snapshot.users == 0:
        raise BadConfig(f"there is no user with a uid of at least {lowest}", hint=_HINT)
    return snapshot


def _add_named(snapshot: Snapshot, report: Report, names: list[bytes]) -> None:
    """Ask for NAMES, the groups that they are in, and what these are called."""
    gids: set[int] = set()
    for some in _batches(names):
        users = list(_users(some, report))
        snapshot.add_users(users)
        found = [user.name for user in users]
        data = _getent("initgroups", found, _FOUND) if found else b""
        memberships = dict(read_memberships(data, "getent initgroups", report, found))
        snapshot.add_memberships(memberships)
        gids.update(user.gid for user in users)
        gids.update(gid for each in memberships.values() for gid in each)
    for some in _batches([b"%d" % gid for gid in sorted(gids)]):
        snapshot.add_groups(_groups(some, report))


def _users(names: Sequence[bytes], report: Report) -> Iterator[User]:
    data = _getent("passwd", names, _SOME)
    users = {user.name: user for user in read_passwd(data, "getent passwd", report)}
    for name in names:
        if name in users:
            yield users[name]
        else:
            report(f"there is no user {name.decode(errors='backslashreplace')!r}")


def _groups(gids: Sequence[bytes], report: Report) -> Iterator[Group]:
    # Who is in a group was asked user by user: that is what the kernel will say.
    for group in read_group(_getent("group", gids, _SOME), "getent group", report):
        yield group._replace(members=())


def _source(path: Path | None, database: str) -> tuple[bytes, str]:
    """Return the data of PATH, or of a DATABASE of getent's, and what it is called."""
    if path is None:
        return _getent(database, (), _FOUND), f"getent {database}"
    return _read(path), repr(str(path))


def _names(path: Path) -> list[bytes]:
    """Return the words of the file at PATH; what begins with a hyphen would be an option."""
    names = list(dict.fromkeys(_read(path).split()))
    for name in names:
        if name.startswith(b"-") or b"\0" in name or name.isdigit():
            shown = name.decode(errors="backslashreplace")
            raise BadConfig(
                f"{str(path)!r}: not the name of a user: {shown!r}", hint="one name a line"
            )
    return names


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadConfig(f"cannot read {str(path)!r}: {error.strerror}") from error


def _batches(words: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    return (words[at : at + _AT_ONCE] for at in range(0, len(words), _AT_ONCE))


def _getent(database: str, keys: Sequence[bytes], good: Sequence[int]) -> bytes:
    """Return what getent(1) says of KEYS in DATABASE, or of all; raises BadConfig."""
    try:
        done = subprocess.run(
            ["getent", database, *keys], capture_output=True, timeout=_PATIENCE, check=False
        )
    except FileNotFoundError as error:
        raise BadConfig("there is no getent here", hint="give --passwd and --group") from error
    except subprocess.TimeoutExpired as error:
        raise BadConfig(f"'getent {database}' has not ended in {_PATIENCE:.0f} seconds") from error
    if done.returncode not in good:
        said = done.stderr.decode(errors="replace").strip()[-200:]
        raise BadConfig(
            f"'getent {database}' ended with {done.returncode}: {said or 'it said nothing'}",
            hint=_HINT,
        )
    return done.stdout
