"""Every error shifter_lite raises on purpose, with its exit code.

    ShifterError          one fact and, if we know it, what to do next
    ├── BadReference  64  not an image name
    ├── BadRequest    65  a file in the spool that is no request of its owner's
    ├── BadImage      65  what the registry sent is not what it promised, or not an image
    ├── NotFound      66  there is no such image
    ├── Damaged       70  our own files are wrong: tell the administrator
    ├── BuildFailed   71  a program we need failed
    ├── Exhausted     71  this process has no descriptors, memory or threads left
    ├── NoStore       72  there is no store where we were told to look
    ├── StoreFull     73  no room, or no quota, left in the store
    ├── NoOutput      74  our standard output takes no more
    ├── StoreTrouble  75  the store's filesystem did not answer; asking again later may help
    ├── RegistryBusy  75  the registry did not answer; asking again later may help
    ├── TooMany       75  one user's requests are more than the site allows
    ├── Unanswered    75  no worker has answered yet; it may still
    ├── ClusterBusy   75  the batch system did not answer; asking again later may help
    ├── Denied        77  the registry or the filesystem does not let us
    ├── BadConfig     78  the site's configuration is wrong
    └── Cancelled     79  who asked has cancelled the request

Absent (66), busy (75) and broken (70) are never reported as one another.  Codes
are those of sysexits.h, where 79 is free.  Anything else that escapes is a bug
and keeps its traceback.
"""

from __future__ import annotations

import errno
from typing import ClassVar

from shifter_lite.transient import is_transient


class ShifterError(Exception):
    """An error with one sentence of fact and, if we know it, what to do next."""

    exit_code: ClassVar[int] = 1
    usual_hint: ClassVar[str] = ""

    def __init__(self, fact: str, *, hint: str = "") -> None:
        super().__init__(fact)
        self.hint = hint or self.usual_hint


class BadReference(ShifterError):
    """A word that is not an image name."""

    exit_code = 64


class BadRequest(ShifterError):
    """A file in the spool that is not a request, or not its owner's."""

    exit_code = 65
    usual_hint = "ask with: shifterimg pull NAME"


class BadImage(ShifterError):
    """The registry's content is wrong, or is not a container image."""

    exit_code = 65
    usual_hint = "the image is broken: tell whoever made it"


class NotFound(ShifterError):
    """There is no such image: the one who knows said so."""

    exit_code = 66


class Damaged(ShifterError):
    """A file of our own is not as we write it."""

    exit_code = 70
    usual_hint = "tell the administrator of the store: shifter-admin verify"


class BuildFailed(ShifterError):
    """A program that we need failed for a reason of its own."""

    exit_code = 71
    usual_hint = "tell the administrator of the store"


class Exhausted(ShifterError):
    """This process has no descriptors, memory or threads left."""

    exit_code = 71
    usual_hint = "raise LimitNOFILE, MemoryMax or TasksMax of its service; tell the developers"


class NoStore(ShifterError):
    """There is no store at the place where we were told to look."""

    exit_code = 72


class StoreFull(ShifterError):
    """The filesystem of the store has no room, or the user no quota, left."""

    exit_code = 73


class NoOutput(ShifterError):
    """Our standard output takes no more, as on a full disk."""

    exit_code = 74


class StoreTrouble(ShifterError):
    """The filesystem of the store did not answer, for longer than we wait."""

    exit_code = 75
    usual_hint = "ask again later; if it lasts, tell the administrator of the store"


class RegistryBusy(ShifterError):
    """The registry did not answer; asking again later may help."""

    exit_code = 75


class Unanswered(ShifterError):
    """No worker has answered yet; it may still."""

    exit_code = 75


class TooMany(ShifterError):
    """One user asks for more than the site allows at a time."""

    exit_code = 75


class ClusterBusy(ShifterError):
    """The batch system did not answer; asking again later may help."""

    exit_code = 75
    usual_hint = "ask again later"


class Denied(ShifterError):
    """The registry or the filesystem does not let us."""

    exit_code = 77


class BadConfig(ShifterError):
    """The site's configuration is wrong."""

    exit_code = 78


class Cancelled(ShifterError):
    """Who asked has cancelled the request."""

    exit_code = 79


class Reported(ShifterError):
    """An error that happened in a worker, as it was reported to the one who asked."""

    def __init__(self, fact: str, *, hint: str, exit_code: int) -> None:
        super().__init__(fact, hint=hint)
        self.exit_code = exit_code  # type: ignore[misc]  # the worker's class decided it


def from_oserror(error: OSError) -> ShifterError:
    """Return what ERROR, of whatever system call, means to a user; see errno(3)."""
    where = f": {error.filename!r}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(
            f"no space left in the store{where}",
            hint="free space or quota on the store's filesystem, then pull again",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Denied(
            f"not permitted{where}: {error.strerror}",
            hint="check who owns the store, and that it is mounted writable",
        )
    if is_transient(error):
        return StoreTrouble(f"the filesystem of the store is in trouble{where}: {error.strerror}")
    return BuildFailed(f"the system refused{where}: {error.strerror or error}")
