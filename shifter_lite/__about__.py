"""The version, where the build of the package and of the launcher both find it."""

__version__ = "0.1.0"
