"""Containers on supercomputers, without a service: Shifter's job done with files."""

from shifter_lite.__about__ import __version__

__all__ = ["__version__"]
