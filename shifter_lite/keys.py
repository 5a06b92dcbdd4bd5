"""Keys of the index for names, each for the machines of one platform.  Pure.

Format: spool/index.md, "Keys" and "Platforms".
"""

from __future__ import annotations

from shifter_lite import platforms

MACHINE, PLATFORM = "\0machine:", "\0platform:"
# Every entry says what its image is made for, as far as that is known.
ALL_SAY_PLATFORMS = b"\0platforms"


def of_machine(name: str, platform: str) -> str:
    """Return the key of what nodes of the architecture of PLATFORM are given as NAME."""
    return f"{MACHINE}{platforms.architecture(platform)}:{name}"


def of_platform(name: str, platform: str) -> str:
    """Return the key of what was pulled for PLATFORM as NAME."""
    return f"{PLATFORM}{platform}:{name}"


def is_name(key: bytes) -> bool:
    """Return whether KEY is for a name that users may write, on machines of any platform."""
    return not key.startswith(b"\0") or key.startswith((MACHINE.encode(), PLATFORM.encode()))


def shown(key: str) -> str:
    """Return KEY, for a name, as people read it: the name, and behind it for which machines."""
    for prefix in (MACHINE, PLATFORM):
        if key.startswith(prefix):
            machine, _, name = key.removeprefix(prefix).partition(":")
            return f"{name} {machine}"
    return key
