"""What lies in the spool: a user's request, and what he is told of it.

Each reads itself from bytes that anybody may have written, and trusts nothing.
Formats: spool/README.md.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

from shifter_lite.errors import BadReference, BadRequest, Damaged
from shifter_lite.platforms import is_platform
from shifter_lite.records import encode_json, read_json
from shifter_lite.reference import Reference

# One spelling for each: ten digits of time last until 2286, and sort by age.
_REQUEST_NAME = re.compile(
    r"(?P<time>[1-9][0-9]{9})-(?P<uid>0|[1-9][0-9]{0,9})-(?P<nonce>[0-9a-f]{16})"
)
_TOO_LARGE = 1 << 63
# The longest that Reference takes, a tag included: what is longer is not worth quoting.
_LONGEST_IMAGE = 640
# PATH_MAX of Linux.
_LONGEST_PATH = 4096
LONGEST_REF = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One user's wish for one image, as it lies in ``spool/new/NAME``.

    ``uid`` is the owner of the file: ownership is the one thing a sender cannot
    write.  But anybody may move a victim's file into a sticky directory, so the
    content must name this store, this request and its owner as well.

    ``platform`` is what the image is to be made for; empty for what the site's nodes run.
    Without ``path`` the image is in a registry, and with ``refresh`` only what that says now
    will do.  With ``path``, it is in that file or directory, in which it is called ``ref``, if
    it is not the only one.
    """

    SIZE_LIMIT: ClassVar[int] = 65536
    AGE_LIMIT: ClassVar[int] = 7 * 86400
    # A login node's clock may be ahead of the worker's by this many seconds.
    CLOCK_SKEW: ClassVar[int] = 3600

    name: str
    store: str
    uid: int
    time: int
    image: Reference
    platform: str
    path: str = ""
    ref: str = ""
    refresh: bool = False

    @classmethod
    def new(
        cls,
        *,
        store: str,
        image: Reference,
        platform: str,
        path: str = "",
        ref: str = "",
        refresh: bool = False,
    ) -> Self:
        """Return a request of the calling user's, with a name never used before."""
        now, uid = int(time.time()), os.geteuid()
        name = f"{now}-{uid}-{os.urandom(8).hex()}"
        return cls(
            name=name,
            store=store,
            uid=uid,
            time=now,
            image=image,
            platform=platform,
            path=path,
            ref=ref,
            refresh=refresh,
        )

    def to_bytes(self) -> bytes:
        """Return what lies in the spool."""
        fields = {
            "v": 1,
            "store": self.store,
            "name": self.name,
            "uid": self.uid,
            "time": self.time,
            "image": str(self.image),
            "platform": self.platform,
        }
        if self.path:
            # Who knows version 1 only would pull the image.
            fields |= {"v": 2, "path": self.path, "ref": self.ref}
        elif self.refresh:
            # Who does not know it would answer with what may be old.
            fields |= {"v": 3, "refresh": True}
        return encode_json(fields)

    @classmethod
    def read(cls, fd: int, *, name: str, store: str, now: float) -> Self:
        """Read the request open on FD, found in the spool of STORE as NAME at time NOW.

        Raises BadRequest, saying what is wrong with it; and OSError, where the filesystem has
        trouble, so that nothing is known of the request.
        """
        uid, data = _owned(fd, cls.SIZE_LIMIT)
        request = cls._parse(data)
        if (request.name, request.store, request.uid) != (name, store, uid):
            raise BadRequest("the request was written for another spool, name or owner")
        # By its name it is ordered, charged to a user and remembered, before anybody reads it.
        if not is_request_name(name) or not name.startswith(f"{request.time}-{uid}-"):
            raise BadRequest("the request's name does not say who asked, and when")
        if not now - cls.AGE_LIMIT <= request.time <= now + cls.CLOCK_SKEW:
            raise BadRequest(f"the request is of another time: {request.time}")
        return request

    @classmethod
    def _parse(cls, data: bytes) -> Self:
        fields = _fields(data)
        match fields:
            case {
                "v": 1 | 2 | 3,
                "store": str(store),
                "name": str(name),
                "uid": int(uid),
                "time": int(asked),
                "image": str(image),
                "platform": str(platform),
                **rest,
            } if _is_platform(platform) and _are_counts(uid, asked):
                path, ref, refresh = _rest(fields["v"], rest)
                request = cls(
                    name=name,
                    store=store,
                    uid=uid,
                    time=asked,
                    image=_reference(image),
                    platform=platform,
                    path=path,
                    ref=ref,
                    refresh=refresh,
                )
                _check_form(request, fields)
                return request
        raise BadRequest("the request lacks a field, or is of a version unknown here")


def _is_platform(text: str) -> bool:
    return not text or is_platform(text)


def _owned(fd: int, limit: int) -> tuple[int, bytes]:
    """Return the owner of the file open on FD and its bytes; BadRequest if more than LIMIT."""
    status = os.fstat(fd)
    # A second link, or a file that others may write, could be somebody else's words.
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_mode & 0o022:
        raise BadRequest("the request is not a plain file of one owner")
    if status.st_size > limit:
        raise BadRequest(f"the request is larger than {limit} bytes")
    data = os.pread(fd, status.st_size, 0)
    if len(data) != status.st_size:
        raise BadRequest("the request changed while it was read")
    return status.st_uid, data


def _fields(data: bytes) -> Any:
    """Return what DATA says in JSON, as every reader of JSON would understand it."""
    # RecursionError is how json refuses deep nesting.
    try:
        # Given bytes, json would take UTF-16, and a byte order mark, which others do not.
        return json.loads(data.decode(), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the request is not JSON: {error}") from error


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the object of PAIRS; of a field that stands twice, readers take the first or last."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field stands twice")
    return fields


def _are_counts(*values: int) -> bool:
    """Return whether VALUES are such that a computer has counted; to Python, true is a number."""
    return all(type(value) is int and 0 <= value < _TOO_LARGE for value in values)


def _reference(image: str) -> Reference:
    if len(image) > _LONGEST_IMAGE:
        raise BadRequest(f"the image's name has {len(image)} characters")
    try:
        return Reference.parse(image)
    except BadReference as error:
        raise BadRequest(str(error), hint=error.hint) from error


def _rest(version: object, rest: dict[Any, Any]) -> tuple[str, str, bool]:
    """Return ``path``, ``ref`` and ``refresh`` of a request of VERSION, which has REST as well."""
    match version, rest:
        case 1, {**more} if not more:
            return "", "", False
        case 2, {"path": str(path), "ref": str(ref), **more} if not more:
            if is_path(path) and len(ref) <= LONGEST_REF:
                return path, ref, False
            raise BadRequest("the request is for an import, and has no proper path or ref")
        case 3, {"refresh": True, **more} if not more:
            return "", "", True
    raise BadRequest("the request has a field too many, or lacks one of its version")


def _check_form(request: Request, fields: dict[str, object]) -> None:
    """Raise BadRequest unless FIELDS are those that REQUEST is written with, type for type."""
    # An image has many names, but one normal form; and a version 1.0 is no version 1.
    if encode_json(fields) != request.to_bytes():
        raise BadRequest("the request has a value that is not in its normal form")


def is_path(text: str) -> bool:
    """Return whether TEXT is an absolute path in its normal form, as UTF-8 where it is that."""
    try:
        size = len(text.encode(errors="surrogateescape"))
    except UnicodeEncodeError:
        return False
    is_normal = text == os.path.normpath(text) and text.startswith("/")
    return is_normal and not text.startswith("//") and size <= _LONGEST_PATH and "\0" not in text


def is_request_name(name: str) -> bool:
    """Return whether NAME is one that a request may have."""
    return _REQUEST_NAME.fullmatch(name) is not None


def request_time(name: str) -> int:
    """Return when the request NAME says it was made, in seconds since 1970."""
    return int(name.partition("-")[0])


def request_uid(name: str) -> int:
    """Return whose the request NAME says it is."""
    return int(name.split("-", 2)[1])


def request_day(name: str) -> str:
    """Return the day in UTC on which the request NAME says it was made, like ``20180524``."""
    return day(request_time(name))


def day(seconds: float) -> str:
    """Return the day in UTC of a time in SECONDS since 1970, like ``20180524``."""
    return time.strftime("%Y%m%d", time.gmtime(seconds))


ENDED = ("READY", "FAILURE", "CANCELLED")
STATES = ("PENDING", "PULLING", "CONVERSION", "PUBLISHING", *ENDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What is known of a request: its state, how far it is, how it ended.

    ``done`` and ``total`` are bytes; 0 where nothing is counted.
    """

    state: str
    done: int = 0
    total: int = 0
    image_id: str = ""
    fact: str = ""
    hint: str = ""
    exit_code: int = 0

    @property
    def ended(self) -> bool:
        """Whether no other status will follow."""
        return self.state in ENDED

    @property
    def progress(self) -> str:
        """How far it is, for people; empty where nothing is counted."""
        return f"{self.done / 1e6:.0f} of {self.total / 1e6:.0f} MB" if self.total else ""

    def to_bytes(self) -> bytes:
        """Return what lies in ``status/NAME/``."""
        return encode_json({"v": 1, **asdict(self)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a status; raises Damaged."""
        match read_json(data, "status"):
            case {
                "state": str(state),
                "done": int(done),
                "total": int(total),
                "image_id": str(image_id),
                "fact": str(fact),
                "hint": str(hint),
                "exit_code": int(exit_code),
            } if state in STATES and _are_counts(done, total, exit_code):
                return cls(
                    state=state,
                    done=done,
                    total=total,
                    image_id=image_id,
                    fact=fact,
                    hint=hint,
                    exit_code=exit_code,
                )
        raise Damaged("a status lacks a field, or has an unknown state")
