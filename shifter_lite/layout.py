"""Every path of a store, its mode and its writer.  Touches nothing.

``spool/tree.txt`` is generated from ``TREE``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """One directory of the store: where, with which mode, written by whom, and why."""

    path: str
    mode: int
    writer: str
    purpose: str


TREE = (
    Place("spool/tmp", 0o3733, "anyone", "a client writes its request here, under its name"),
    Place("spool/new", 0o3733, "anyone", "submitted: the rename into it is the submission"),
    Place("spool/work", 0o750, "worker", "claimed: NAME.WORKER"),
    Place("spool/done", 0o750, "worker", "DAY/NAME: answered with an image"),
    Place("spool/failed", 0o750, "worker", "DAY/NAME: answered with a reason"),
    Place("status", 0o3733, "anyone", "one directory a request, made by its owner, filled by us"),
    Place(
        "images", 0o755, "worker", "AA/ID.squashfs and its record AA/ID.json; .NAMES are unfinished"
    ),
    Place("index", 0o755, "worker", "images.GENERATION.cdb: what compute nodes read"),
    Place(
        "confirmed", 0o755, "worker", "HASH: empty; when a registry has confirmed what a name means"
    ),
    Place(
        "cache/blobs", 0o750, "worker", "AA/DIGEST, a layer as it came; DIGEST.toc, its contents"
    ),
    Place("workers", 0o755, "worker", "WORKER.NNNNNNNNNN: heartbeats, for all to see"),
    Place("builds", 0o750, "worker", "KEY.WORKER: which image is being built, and by whom"),
    Place("deaths", 0o750, "worker", "NAME.BUILD: a build for NAME that ended without a result"),
    Place("jobs", 0o700, "worker", "WORKER.NONCE: what a worker and its batch job tell each other"),
    Place("locks", 0o750, "worker", "lock files; never the locked thing itself"),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of the store at ROOT."""

    root: Path

    @property
    def identity(self) -> Path:
        """The file that says that this is a store, and which."""
        return self.root / "store.json"

    @property
    def writing(self) -> Path:
        """Requests that their clients are still writing."""
        return self.root / "spool/tmp"

    @property
    def submitted(self) -> Path:
        """Requests that nobody has claimed."""
        return self.root / "spool/new"

    @property
    def claimed(self) -> Path:
        """Requests that a worker works on."""
        return self.root / "spool/work"

    @property
    def done(self) -> Path:
        """Requests answered with an image, by the day they were made."""
        return self.root / "spool/done"

    @property
    def failed(self) -> Path:
        """Requests answered with a reason, by the day they were made."""
        return self.root / "spool/failed"

    @property
    def status(self) -> Path:
        """What requesters read of their requests."""
        return self.root / "status"

    @property
    def images(self) -> Path:
        """Published images, and unfinished ones under dot-names."""
        return self.root / "images"

    @property
    def index(self) -> Path:
        """The generations of the index."""
        return self.root / "index"

    @property
    def confirmed(self) -> Path:
        """When registries have confirmed what names mean."""
        return self.root / "confirmed"

    @property
    def blobs(self) -> Path:
        """The cache of layers."""
        return self.root / "cache/blobs"

    @property
    def workers(self) -> Path:
        """The heartbeats of workers."""
        return self.root / "workers"

    @property
    def builds(self) -> Path:
        """What is being built."""
        return self.root / "builds"

    @property
    def deaths(self) -> Path:
        """Which builds have died, and for which requests."""
        return self.root / "deaths"

    @property
    def jobs(self) -> Path:
        """What workers and their batch jobs tell each other."""
        return self.root / "jobs"

    @property
    def locks(self) -> Path:
        """Lock files."""
        return self.root / "locks"

    def image(self, image_id: str) -> Path:
        """Return where the image with IMAGE_ID lies."""
        return self.images / image_id[:2] / f"{image_id}.squashfs"

    def record(self, image_id: str) -> Path:
        """Return where the record of IMAGE_ID lies."""
        return self.images / image_id[:2] / f"{image_id}.json"
