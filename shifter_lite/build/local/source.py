"""Find out what a user's file or directory is, and open it as an image."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import closing, contextmanager

from shifter_lite.build.local import docker, gunzip, meta, oci, squashfs
from shifter_lite.build.local.access import File, walk
from shifter_lite.build.local.files import IMPORTED, Archive, Directory, Files
from shifter_lite.build.local.stored import Stored
from shifter_lite.build.local.wanted import Wanted
from shifter_lite.errors import BadImage, Denied, NotFound
from shifter_lite.records import Config
from shifter_lite.reference import Reference

# The domain of what never was in a registry, as with podman and buildah.
_DOMAIN = "localhost"
_COMPRESSED = {b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
_LONGEST_MAGIC = 64
# Of Singularity and Apptainer: behind 32 bytes of a line that runs it.
_SIF, _SIF_AT = b"SIF_MAGIC", 32


@contextmanager
def opened(path: str, uid: int, ref: str, name: Reference) -> Iterator[Stored | squashfs.Squashfs]:
    """Open the image at PATH, as far as UID may read it; it is to be called NAME.

    REF is what it is called there, or empty.  Raises NotFound, Denied or BadImage.
    """
    check_name(name, uid)
    wanted = Wanted(ref, name)
    with walk(path, uid) as place:
        if place.is_directory:
            yield _directory(Directory(place), wanted)
            return
        file = place.file()
    try:
        yield _file(file, wanted, uid)
    finally:
        file.close()


def check_name(name: Reference, uid: int) -> None:
    """Raise Denied unless UID may give an image of his own the name NAME.

    A registry's name says that the image is from there; of all users that who ask
    for it rely on that.  So, on a store of many users, each may choose names of his own only.
    """
    if uid == os.geteuid():
        return
    try:
        login = pwd.getpwuid(uid).pw_name
    except KeyError as error:
        raise Denied(f"the worker's host knows no user {uid}") from error
    check_owned(name, login)


def check_owned(name: Reference, login: str) -> None:
    """Raise Denied unless NAME is one that the user LOGIN may choose on a store of many users."""
    if name.domain != _DOMAIN or not name.path.startswith(f"{login}/"):
        raise Denied(
            f"an import may not take the name {str(name)!r} on a store of many users",
            hint=f"choose one of your own: {_DOMAIN}/{login}/NAME:TAG",
        )


def _directory(files: Files, wanted: Wanted) -> Stored:
    if not files.holds(oci.MARK):
        raise BadImage(
            f"the directory {files.path!r} is no OCI layout: it has no {oci.MARK!r}",
            hint="make one with: skopeo copy … oci:DIRECTORY:TAG",
        )
    return oci.Layout(files, wanted)


def _file(file: File, wanted: Wanted, uid: int) -> Stored | squashfs.Squashfs:
    head = file.reader()(_LONGEST_MAGIC)
    if head.startswith((squashfs.MAGIC, squashfs.SWAPPED)):
        return squashfs.Squashfs(file, _description(file.path, uid))
    if head.startswith(_SIF, _SIF_AT):
        raise BadImage(
            f"{file.path!r} is a SIF file, of Singularity or Apptainer",
            hint="import the squashfs in it: apptainer sif list FILE; apptainer sif dump ID FILE",
        )
    for magic, tool in _COMPRESSED.items():
        if head.startswith(magic):
            raise BadImage(f"{file.path!r} is compressed", hint=f"unpack it with: {tool}")
    if head.startswith(gunzip.MAGIC):
        return _archive(Archive(gunzip.Gunzipped(file), file.path), wanted)
    return _archive(Archive(file, file.path), wanted)


def _description(path: str, uid: int) -> Config:
    """Return what Shifter's gateway has written beside the squashfs PATH of how it is run.

    Raises Denied or BadImage if it is there and cannot be used: an image would lose its words.
    """
    stem, suffix = os.path.splitext(path)
    if suffix != ".squashfs":
        return Config()
    try:
        place = walk(f"{stem}.meta", uid)
    except NotFound:
        return Config()
    with place, closing(place.file()) as file:
        return meta.read(file.reader()(meta.LARGEST + 1), file.path)


def _archive(files: Files, wanted: Wanted) -> Stored:
    """Return the image in an archive; one that is both is an OCI layout, whose digests are real."""
    if files.holds(oci.MARK):
        return oci.Layout(files, wanted)
    if files.holds(docker.LIST):
        return docker.Saved(files, wanted)
    if files.holds(docker.LEGACY):
        raise BadImage(
            f"{files.path!r} is of docker's legacy format, without {docker.LIST!r}",
            hint="save it again with docker 1.10 or newer",
        )
    raise BadImage(
        f"{files.path!r} is no image: it has neither {oci.MARK!r} nor {docker.LIST!r}",
        hint=IMPORTED,
    )
