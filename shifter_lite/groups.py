"""Who is in a group: for what one group may read, and no user.

Asked on service nodes only: a name service answers here.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Container, Iterator

# Below are the accounts of the system, which no user has; useradd(8) and systemd agree.
_LOWEST_USER = 1000
_NOBODY = 65534
_NO_SHELLS = ("", "/bin/sync", "/bin/false", "/usr/bin/false", "/sbin/nologin", "/usr/sbin/nologin")


def others_in(gid: int, owners: Container[int]) -> list[str]:
    """Return the users in the group GID, but for the uids OWNERS, sorted.

    That is its members, and whose primary group it is.
    """
    return sorted(set(_others(gid, owners)))


def name_of(gid: int) -> str:
    """Return the name of the group GID, or its digits."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _others(gid: int, owners: Container[int]) -> Iterator[str]:
    for entry in pwd.getpwall():
        if entry.pw_gid == gid and entry.pw_uid not in owners and _is_user(entry):
            yield entry.pw_name
    try:
        members = grp.getgrgid(gid).gr_mem
    except KeyError:
        return
    for name in members:
        if _uid(name) not in owners:
            yield name


def _is_user(entry: pwd.struct_passwd) -> bool:
    """Return whether somebody may be ENTRY: accounts of the system run nothing of a user's."""
    if entry.pw_uid >= _LOWEST_USER:
        return entry.pw_uid != _NOBODY
    return entry.pw_shell not in _NO_SHELLS


def _uid(name: str) -> int:
    """Return the uid of NAME, or -1: what has none may get one."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return -1
