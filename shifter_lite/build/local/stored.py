"""What OCI layouts and docker archives have in common: they offer what a registry offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from threading import Event
from typing import Self

from shifter_lite.build import manifest as documents
from shifter_lite.build.digest import digest_of
from shifter_lite.build.local.access import Read
from shifter_lite.build.local.files import Content, Files
from shifter_lite.build.manifest import Descriptor, ImageConfig, Manifest
from shifter_lite.errors import BadImage, BuildFailed

_PIECE = 1 << 16


class Stored(ABC):
    """One image in files of its user's, read only; the counterpart of ``registry.Registry``."""

    def __init__(self, files: Files) -> None:
        """Read the image from FILES."""
        self.files = files
        self._aborted = Event()

    @abstractmethod
    def manifest(self, platform: str) -> Manifest:
        """Return the image's manifest for PLATFORM; raises NotFound, Denied or BadImage."""

    def gives(self, manifest: Manifest, platform: str) -> bool:
        """Return whether PLATFORM, too, is given MANIFEST, if its config says nothing else."""
        return True

    @abstractmethod
    def open_blob(self, descriptor: Descriptor, start: int) -> AbstractContextManager[Content]:
        """Open the blob of DESCRIPTOR from START on; raises Denied or BadImage."""

    def config(self, manifest: Manifest) -> ImageConfig:
        """Return the config of MANIFEST; raises Denied or BadImage."""
        data = self.read_blob(manifest.config, "image config")
        return documents.read_config(documents.parse(data, "image config"), manifest)

    @contextmanager
    def blob(self, descriptor: Descriptor, start: int = 0) -> Iterator[Read]:
        """Open the blob of DESCRIPTOR; yields a function that reads up to so many bytes from START.

        The bytes are as they lie there: whoever reads them checks them.
        """
        with self.open_blob(descriptor, start) as content:
            if content.size != descriptor.size:
                raise BadImage(f"it has {content.size} bytes, not {descriptor.size}")

            def read(size: int) -> bytes:
                if self._aborted.is_set():
                    raise BuildFailed("the import was given up", hint="import it again")
                return content.read(size)

            yield read

    def sample(self, descriptor: Descriptor, start: int, size: int) -> bytes:
        """Return SIZE bytes of the blob of DESCRIPTOR from START on, or fewer; raises as blob."""
        data = bytearray()
        with self.blob(descriptor, start) as read:
            while len(data) < size and (piece := read(size - len(data))):
                data += piece
        return bytes(data)

    def abort(self) -> None:
        """Let every read of a blob that is under way fail, for good."""
        self._aborted.set()

    def afresh(self) -> Self:
        """Return the same, for who has aborted this one and begins again."""
        again = copy(self)
        again._aborted = Event()
        return again

    def close(self) -> None:
        """Give up what is under way; the files are for who opened them to close."""
        self.abort()

    def read_blob(self, descriptor: Descriptor, what: str) -> bytes:
        """Return the JSON that DESCRIPTOR names, a WHAT, checked; raises Denied or BadImage."""
        with self.open_blob(descriptor, 0) as content:
            data = _read(content, what)
        found = digest_of(data)
        if found != descriptor.digest or len(data) != descriptor.size:
            raise BadImage(
                f"the {what} has the digest {found} and {len(data)} bytes, "
                f"not {descriptor.digest} and {descriptor.size}"
            )
        return data

    def read_json(self, name: str) -> bytes:
        """Return the JSON in the file NAME; raises Denied or BadImage."""
        with self.files.open(name) as content:
            return _read(content, name)


def _read(content: Content, what: str) -> bytes:
    if content.size > documents.LARGEST_JSON:
        raise BadImage(f"the {what} has {content.size} bytes")
    return b"".join(iter(lambda: content.read(_PIECE), b""))
