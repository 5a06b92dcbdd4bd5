"""The files of an image, by name: in a directory, or in a tar archive that is never unpacked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from shifter_lite.build import tar
from shifter_lite.build.local.access import File, Place, Read
from shifter_lite.build.local.gunzip import Gunzipped
from shifter_lite.errors import BadImage, NotFound

IMPORTED = "imported are OCI layouts, OCI and docker archives, and squashfs files"
# It never was an archive, and nobody has broken it.
_BEGINS_BADLY = re.compile(r"(?:from byte 0 on: )?the archive .* header at byte 0")
# Enough for a header with a long name.
_PIECE = 4096
# An image has at most a few hundred layers, and few files for each of them.
_MOST_MEMBERS = 100_000
_MOST_LINKS = 16
# PATH_MAX of Linux.
_LONGEST_NAME = 4096


@dataclass(frozen=True, slots=True)
class Content:
    """What is in one file: SIZE bytes, of which ``read`` gives those asked for."""

    size: int
    read: Read


class Files(Protocol):
    """Named files, which belong together."""

    path: str

    def holds(self, name: str) -> bool:
        """Return whether there is anything called NAME."""

    def open(self, name: str, start: int = 0) -> AbstractContextManager[Content]:
        """Open the plain file NAME, to be read from START on; raises BadImage or Denied."""


class Directory:
    """The files in a directory and below; links are not followed."""

    def __init__(self, place: Place) -> None:
        """Look into PLACE, which is closed by whoever opened it."""
        self._place = place
        self.path = place.path

    def holds(self, name: str) -> bool:
        """Return whether there is anything called NAME."""
        try:
            with self._find(name):
                return True
        except NotFound:
            return False

    @contextmanager
    def open(self, name: str, start: int = 0) -> Iterator[Content]:
        """Open the plain file NAME, to be read from START on; raises BadImage or Denied."""
        try:
            with self._find(name) as place:
                file = place.file()
        except NotFound as error:
            raise _lacks(self.path, name) from error
        try:
            yield Content(file.size, file.reader(start))
        finally:
            file.close()

    def _find(self, name: str) -> Place:
        first, _, rest = _normal(name).partition("/")
        if not rest:
            return self._place.enter(first)
        with self._place.enter(first, directory=True) as place:
            return Directory(place)._find(rest)


class Archive:
    """The members of a tar archive, which may be a gzip file; the last of a name counts."""

    def __init__(self, body: File | Gunzipped, path: str) -> None:
        """Find what BODY, the content of the file PATH, holds; raises BadImage."""
        self._body = body
        self.path = path
        try:
            self._members = _by_name(_jump(body) if isinstance(body, File) else _go_through(body))
        except BadImage as error:
            fact = f"{path!r} is no archive of an image: {error}"
            hint = IMPORTED if _BEGINS_BADLY.fullmatch(str(error)) else error.hint
            raise BadImage(fact, hint=hint) from error

    def holds(self, name: str) -> bool:
        """Return whether there is anything called NAME."""
        return name in self._members

    @contextmanager
    def open(self, name: str, start: int = 0) -> Iterator[Content]:
        """Open the plain file NAME, or what a link of that name leads to, from START on."""
        member = self._resolve(name)
        read = self._body.reader(member.offset + start)
        left = member.stored - start

        def read_part(size: int) -> bytes:
            nonlocal left
            data = read(min(size, left)) if left > 0 else b""
            left -= len(data)
            if left <= 0 and not data:
                self._body.check()
            return data

        yield Content(member.stored, read_part)

    def _resolve(self, name: str) -> tar.Member:
        """Return the plain file NAME; ``docker save`` stores what it has twice as a link."""
        at = _normal(name)
        for _ in range(_MOST_LINKS):
            member = self._members.get(at)
            if member is None:
                raise _lacks(self.path, name)
            if member.type == tar.FILE and not member.segments:
                return member
            link = member.link.decode(errors="surrogateescape")
            if member.type == tar.SYMLINK and not link.startswith("/"):
                at = _normal(f"{at.rpartition('/')[0]}/{link}", link)
            elif member.type == tar.LINK:
                at = _normal(link)
            else:
                break
        raise BadImage(f"{self.path!r} has {name!r}, but not as a plain file")


def _by_name(members: Iterator[tar.Member]) -> dict[str, tar.Member]:
    found = {}
    for number, member in enumerate(members):
        if number == _MOST_MEMBERS:
            raise BadImage(f"it has more than {_MOST_MEMBERS} members")
        if max(len(member.name), len(member.link)) > _LONGEST_NAME:
            raise BadImage(f"it has a member with a name of more than {_LONGEST_NAME} bytes")
        # Of a map of holes it is enough to know that there is one.
        slim = member._replace(segments=member.segments[:1])
        found[_normal(member.name.decode(errors="surrogateescape"))] = slim
    return found


def _jump(file: File) -> Iterator[tar.Member]:
    """Yield the members of the archive FILE, and read nothing but their headers."""
    at = 0
    while True:
        pieces = iter(partial(file.reader(at), _PIECE), b"")
        try:
            member = next(tar.members(tar.Stream(pieces)), None)
        except BadImage as error:
            raise BadImage(f"from byte {at} on: {error}") from error
        if member is None:
            return
        yield member._replace(offset=at + member.offset)
        at += member.offset + member.stored + -member.stored % tar.BLOCK
        if at > file.size:
            raise BadImage(f"it is cut off in its member {member.name!r}")


def _go_through(body: Gunzipped) -> Iterator[tar.Member]:
    return tar.members(tar.Stream(body.pieces()))


def _normal(name: str, link: str = "") -> str:
    """Return NAME, to which LINK led, without empty parts and dots; raises BadImage."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not link or not parts:
                raise BadImage(f"a name leads out of it: {link or name!r}")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _lacks(path: str, name: str) -> BadImage:
    return BadImage(f"{path!r} has no file {name!r}, which the image needs")
