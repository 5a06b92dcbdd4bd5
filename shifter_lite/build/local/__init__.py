"""Images that lie in files of their users instead of a registry."""

from shifter_lite.build.local.source import check_owned, opened
from shifter_lite.build.local.squashfs import Squashfs
from shifter_lite.build.local.stored import Stored

__all__ = ["Squashfs", "Stored", "check_owned", "opened"]
