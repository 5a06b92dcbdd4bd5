"""Make a store, and recognise one.

A store says who it is in ``store.json``, so that a request written for another
spool is never taken for one of ours.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import stat
from contextlib import suppress
from pathlib import Path

from shifter_lite import durable, groups
from shifter_lite.errors import BadConfig, Damaged, Denied, NoStore
from shifter_lite.layout import TREE, Layout
from shifter_lite.nostore import holds_images_of_shifter, no_store
from shifter_lite.records import encode_json
from shifter_lite.transient import waited_out

_ID = re.compile(r"[0-9a-f]{32}")


def create(layout: Layout, *, shared: bool, gid: int | None = None) -> str:
    """Make the store at LAYOUT, if there is none; return its id.

    A SHARED one takes requests from everybody; another only from its owner, who alone may enter.
    It gets the group GID, if one is given.  Raises NoStore if there is something else at the
    place, BadConfig if other users are in the group of a shared one.
    """
    with suppress(NoStore):
        found = identity(layout)
        if is_shared(layout):
            check_group(layout)
        return found
    if layout.root.exists() and not layout.root.is_dir():
        raise NoStore(f"{str(layout.root)!r} is not a directory", hint="name a directory")
    if layout.root.is_dir() and not _is_ours(layout.root):
        if holds_images_of_shifter(layout.root):
            raise no_store(layout.root)
        raise NoStore(
            f"{str(layout.root)!r} is not empty, and not a store",
            hint="name an empty or a new directory",
        )
    if shared:
        _check_group(layout, _group_of_new(layout.root) if gid is None else gid, os.geteuid())
    waited_out(lambda: layout.root.mkdir(mode=0o700, parents=True, exist_ok=True))
    # Whatever the umask of who makes it, all must find their way in, or nobody else.
    layout.root.chmod(0o755 if shared else 0o700)
    for place in TREE:
        path = layout.root / place.path
        private = not shared and place.writer == "anyone"
        durable.make_directory(path.parent, 0o755)
        durable.make_directory(path, 0o700 if private else place.mode)
        if gid is not None:
            os.chown(path, -1, gid)
    maker = f"{os.getpid()}.{os.urandom(4).hex()}"
    with suppress(FileExistsError):
        data = encode_json({"v": 1, "id": os.urandom(16).hex()})
        durable.publish(data, layout.identity, maker, 0o644)
    return identity(layout)


def is_ours(layout: Layout) -> bool:
    """Return whether we may work on the store at LAYOUT: whether it is ours.

    What we make is ours as well, and closed to whose the store is: so it does not matter what
    the filesystem lets us do, as it lets root do everything.
    """
    return waited_out(layout.claimed.stat).st_uid == os.geteuid()


def check_ours(layout: Layout) -> None:
    """Raise Denied unless the store at LAYOUT is ours."""
    if is_ours(layout):
        return
    owner, we = _login(layout.claimed.stat().st_uid), _login(os.geteuid())
    raise Denied(
        f"the store {str(layout.root)!r} belongs to {owner}, and this program runs as {we}",
        hint=f"run it as {owner}: sudo -u {owner} ...",
    )


def _login(uid: int) -> str:
    """Return the login name of UID, or its digits as sudo(8) takes them."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def check_group(layout: Layout) -> None:
    """Raise BadConfig if users other than its owner are in a group of the store at LAYOUT.

    What its group may read, everybody there could: requests, statuses, layers.
    """
    owner = waited_out(layout.claimed.stat).st_uid
    open_to_group = (layout.root / place.path for place in TREE if place.mode & 0o070)
    found = {waited_out(path.stat).st_gid for path in open_to_group}
    for gid in sorted(found):
        _check_group(layout, gid, owner)


def _check_group(layout: Layout, gid: int, owner: int) -> None:
    if others := groups.others_in(gid, (owner,)):
        shown = ", ".join(map(repr, others[:3])) + (", ..." if len(others) > 3 else "")
        raise BadConfig(
            f"the group {groups.name_of(gid)!r} of the store {str(layout.root)!r} is that of other"
            f" users, too: {shown}",
            hint="make a group for its owner alone: shifter-admin init --group GROUP, or for a"
            f" store that is there: chgrp -R GROUP {layout.root}",
        )


def _group_of_new(path: Path) -> int:
    """Return the group that PATH will have once it is made."""
    above = next(each for each in (path, *path.parents) if each.exists())
    found = above.stat()
    return found.st_gid if found.st_mode & stat.S_ISGID else os.getegid()


def complete(layout: Layout) -> None:
    """Make the directories that a store of an earlier version lacks, for workers.

    There users could not see whether any worker is running.
    """
    for place in TREE:
        path = layout.root / place.path
        if place.writer == "worker" and not waited_out(path.exists):
            durable.make_directory(path, place.mode)
    with suppress(PermissionError):
        mode = stat.S_IMODE(waited_out(layout.workers.stat).st_mode)
        if mode | 0o055 != mode:
            waited_out(lambda: layout.workers.chmod(mode | 0o055))


def is_shared(layout: Layout) -> bool:
    """Return whether the store at LAYOUT takes requests from everybody."""
    return bool(waited_out(layout.submitted.stat).st_mode & 0o022)


def identity(layout: Layout) -> str:
    """Return the id of the store at LAYOUT; raises NoStore or Damaged."""
    try:
        data = waited_out(layout.identity.read_bytes)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise no_store(layout.root) from error
    with suppress(ValueError, RecursionError):
        match json.loads(data):
            case {"v": 1, "id": str(store)} if _ID.fullmatch(store):
                return store
    raise Damaged(f"the store's identity is damaged: {str(layout.identity)!r}")


def _is_ours(root: Path) -> bool:
    """Return whether ROOT holds nothing but what an interrupted ``create`` left."""
    tops = {place.path.partition("/")[0] for place in TREE}
    # A new filesystem has this directory before anybody used it.
    return all(
        name in tops or name.startswith(".store.") or name == "lost+found"
        for name in os.listdir(root)
    )
