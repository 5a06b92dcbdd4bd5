"""The users and groups of a site: read from passwd(5) and group(5), written as the index has them.

All is bytes: nobody says in which encoding a site has its names.  A line that is none is
told of, never dropped in silence, for it would take a user's name away on every node.
Format: spool/index.md, "Users and groups".
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from shifter_lite.errors import Damaged
from shifter_lite.records import seal, unseal

# What the names of a user's other groups are is found group by group.
_MOST_GROUPS = 1000
_LARGEST_ID = (1 << 32) - 2
_KEY = re.compile(rb"\0[ug](?:0|[1-9][0-9]{0,9})")
_ID = re.compile(rb"[0-9]{1,10}")
# Never what would end a field or a line, be taken for a comment or an entry of NIS, or for a path.
_EDGE = rb"[^\0-\x20\x7f:,/]"
_NAME = re.compile(rb"(?![#+-])%b(?:[^\0-\x1f\x7f:,/]{0,253}%b)?" % (_EDGE, _EDGE))
_TEXT = re.compile(rb"[^\0-\x1f\x7f:]{0,1024}")
_PATH = re.compile(rb"(?:/[^\0-\x1f\x7f:]{0,4094})?")
_LONGEST_QUOTE = 80

Report = Callable[[str], object]


class User(NamedTuple):
    """A user, as passwd(5) has him, but for the password."""

    name: bytes
    uid: int
    gid: int
    gecos: bytes
    home: bytes
    shell: bytes


class Group(NamedTuple):
    """A group, as group(5) has it, but for the password."""

    name: bytes
    gid: int
    members: tuple[bytes, ...]


def is_key(key: bytes) -> bool:
    """Return whether KEY of the index is a user's or a group's."""
    return _KEY.fullmatch(key) is not None


def read_passwd(data: bytes, source: str, report: Report) -> Iterator[User]:
    """Yield the users that DATA of SOURCE has, one a line; REPORT hears of what is no user."""
    for where, line in _lines(data, source):
        match line.split(b":"):
            case [name, _, uid, gid, gecos, home, shell] if (
                _are_ids(uid, gid)
                and _NAME.fullmatch(name)
                and _TEXT.fullmatch(gecos)
                and _PATH.fullmatch(home)
                and _PATH.fullmatch(shell)
            ):
                yield User(name, int(uid), int(gid), gecos, home, shell)
            case _:
                report(f"{where}: not an entry of passwd: {_quoted(line)}")


def read_group(data: bytes, source: str, report: Report) -> Iterator[Group]:
    """Yield the groups that DATA of SOURCE has, one a line; REPORT hears of what is no group."""
    for where, line in _lines(data, source):
        match line.split(b":"):
            case [name, _, gid, members] if _are_ids(gid) and _NAME.fullmatch(name):
                # Names of users that do not exist are usual, and nobody's.
                yield Group(name, int(gid), tuple(filter(None, members.split(b","))))
            case _:
                report(f"{where}: not an entry of group: {_quoted(line)}")


def read_memberships(
    data: bytes, source: str, report: Report, names: Iterable[bytes]
) -> Iterator[tuple[bytes, list[int]]]:
    """Yield each of NAMES with its groups' numbers, of DATA as "getent initgroups" prints it."""
    lines = list(_lines(data, source))
    for name, (where, line) in zip(names, lines, strict=False):
        numbers = line.removeprefix(name).split()
        if line.startswith(name) and all(map(_are_ids, numbers)):
            yield name, [int(number) for number in numbers]
        else:
            report(f"{where}: not the groups of {_quoted(name)}: {_quoted(line)}")


def _lines(data: bytes, source: str) -> Iterator[tuple[str, bytes]]:
    """Yield where each line of DATA is, and itself; what the C library skips is no entry."""
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip() and not line.lstrip().startswith(b"#"):
            yield f"{source}, line {number}", line


def _are_ids(*words: bytes) -> bool:
    return all(_ID.fullmatch(word) and int(word) <= _LARGEST_ID for word in words)


def _quoted(line: bytes) -> str:
    text = line if len(line) <= _LONGEST_QUOTE else line[:_LONGEST_QUOTE] + b"..."
    return repr(text)[1:]


class Snapshot:
    """All users and groups that nodes are to know, from users, groups and who is in them."""

    def __init__(self, report: Report, *, lowest: int) -> None:
        """Take users and groups whose number is at least LOWEST, and what these are in.

        REPORT hears of a name that two users have.
        """
        self._report, self._lowest = report, lowest
        self._users: dict[int, User] = {}
        self._uids: dict[bytes, int] = {}
        self._groups: dict[int, bytes] = {}
        self._memberships: defaultdict[bytes, set[int]] = defaultdict(set)

    def add_users(self, users: Iterable[User]) -> None:
        """Take USERS; of a number that several have, the first, as getpwuid(3) does."""
        for user in users:
            if user.uid < self._lowest or user.uid in self._users:
                continue
            if user.name in self._uids:
                self._report(
                    f"the users {self._uids[user.name]} and {user.uid} have one name: "
                    f"{_quoted(user.name)}"
                )
                continue
            self._users[user.uid] = user
            self._uids[user.name] = user.uid

    def add_groups(self, groups: Iterable[Group]) -> None:
        """Take GROUPS, and who is in them."""
        for group in groups:
            self._groups.setdefault(group.gid, group.name)
            for member in group.members:
                self._memberships[member].add(group.gid)

    def add_memberships(self, memberships: Mapping[bytes, Iterable[int]]) -> None:
        """Take the groups that users are in, by name and number."""
        for name, gids in memberships.items():
            self._memberships[name].update(gids)

    @property
    def users(self) -> int:
        """How many users there are."""
        return len(self._users)

    def entries(self) -> dict[bytes, bytes]:
        """Return what the index says: the same for the same users and groups."""
        made = {}
        used = {gid for gid in self._groups if gid >= self._lowest}
        for uid, user in self._users.items():
            gids = [user.gid, *sorted(self._memberships[user.name] - {user.gid})]
            known = [(gid, self._groups[gid]) for gid in gids if gid in self._groups]
            used.update(gid for gid, _ in known)
            made[b"\0u%d" % uid] = _user_value(user, known[:_MOST_GROUPS])
        for gid in used:
            key = b"\0g%d" % gid
            made[key] = seal(key, [("name", _text(self._groups[gid]))])
        return made


def _user_value(user: User, groups: Iterable[tuple[int, bytes]]) -> bytes:
    texts = [("gecos", user.gecos), ("home", user.home), ("shell", user.shell)]
    fields = [("name", _text(user.name)), ("gid", str(user.gid))]
    fields += [(name, _text(text)) for name, text in texts if text]
    fields += [("group", f"{gid}={_text(name)}") for gid, name in groups]
    return seal(b"\0u%d" % user.uid, fields)


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def check(key: bytes, value: bytes) -> None:
    """Raise Damaged if VALUE is not what the index may have under KEY, a user's or a group's."""
    fields = unseal(key, value)
    singles = ["name", "gid", "gecos", "home", "shell"] if key[1:2] == b"u" else ["name"]
    for name in singles:
        texts = [_bytes(text) for field, text in fields if field == name]
        needed = name in ("name", "gid")
        if len(texts) > 1 or needed > len(texts) or not all(_RULES[name](text) for text in texts):
            raise Damaged(f"the entry {_quoted(key)} of the index has not one right {name!r}")
    groups = [_bytes(text) for name, text in fields if name == "group" and key[1:2] == b"u"]
    if len(groups) > _MOST_GROUPS or not all(map(_is_membership, groups)):
        raise Damaged(f"the entry {_quoted(key)} of the index has a group that is none")


_RULES: dict[str, Callable[[bytes], object]] = {
    "name": _NAME.fullmatch,
    "gid": _are_ids,
    "gecos": _TEXT.fullmatch,
    "home": _PATH.fullmatch,
    "shell": _PATH.fullmatch,
}


def _is_membership(text: bytes) -> bool:
    gid, _, name = text.partition(b"=")
    return _are_ids(gid) and _NAME.fullmatch(name) is not None


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
