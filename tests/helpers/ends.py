"""Where a store may lie: on a disk of this machine, or on a filesystem with several clients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Two ways to one directory: by two clients of a filesystem, or twice the same.

    ``disks`` are where its files really lie.
    """

    name: str
    a: Path
    b: Path
    disks: tuple[Path, ...]

    def under(self, name: str) -> Ends:
        """Return the directory NAME in this one."""
        disks = tuple(disk / name for disk in self.disks)
        return replace(self, a=self.a / name, b=self.b / name, disks=disks)
