"""Images that lie in files of their users instead of a registry."""

from shifter_lite.build.local.source import opened
from shifter_lite.build.local.squashfs import RECIPE, Squashfs
from shifter_lite.build.local.stored import Stored

__all__ = ["RECIPE", "Squashfs", "Stored", "opened"]
