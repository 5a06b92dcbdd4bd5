"""Platforms: what an image is made for, and what a machine can run.  Pure.

A platform is written ``OS/ARCHITECTURE`` or ``OS/ARCHITECTURE/VARIANT``, with the
words of the OCI image-spec ("Image Index": platform), which are Go's.  People and
indexes write other words for some; which stands for which, and what else a machine
can run, is decided as containerd decides it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from shifter_lite.errors import BadReference

_NORMAL = re.compile(r"[a-z0-9]+/[a-z0-9_]+(?:/[a-z0-9.]+)?")
_LONGEST = 64
# Other words for an architecture, some of which say its variant as well.
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv6l": ("arm", "v6"),
}
_KNOWN = re.compile(r"386|amd64|arm|arm64|loong64|mips64le|ppc64|ppc64le|riscv64|s390x")
_LOWEST_ARM, _HIGHEST = 5, 99
# What each level of x86-64 has more than the one before, from v2 on, in the words of Linux:
# see "Micro-architecture levels" of the x86-64 psABI.  The first level has no name of its own.
_LEVELS = (
    frozenset(("cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3")),
    frozenset(("abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave")),
    frozenset(("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")),
)


def is_platform(text: str) -> bool:
    """Return whether TEXT is written like ``linux/amd64`` or ``linux/arm64/v8``."""
    return len(text) <= _LONGEST and _NORMAL.fullmatch(text) is not None


def parse(text: str) -> str:
    """Return the platform that a person means by TEXT, in its normal form.

    ``Linux/x86_64`` and ``amd64`` are ``linux/amd64``.  Raises BadReference.
    """
    words = text.split("/")
    if text.lower() in _ARCHITECTURES or _KNOWN.fullmatch(text.lower()):
        words = ["linux", text]
    meant = normal_form(words[0], *words[1:]) if all(words) and len(words) in (2, 3) else ""
    if not is_platform(meant):
        raise BadReference(f"not a platform: {text!r}", hint="write it like linux/amd64")
    return meant


def normal_form(system: str, architecture: str, variant: str = "") -> str:
    """Return the one way to write a platform; a variant that goes without saying is left out."""
    architecture, variant = architecture.lower(), variant.lower()
    if architecture in _ARCHITECTURES:
        architecture, said = _ARCHITECTURES[architecture]
        variant = said or variant
    if variant.isdecimal() and architecture.startswith("arm"):
        variant = f"v{variant}"
    if (architecture, variant) in (("amd64", "v1"), ("arm64", "v8"), ("arm64", "v8.0")):
        variant = ""
    if (architecture, variant) == ("arm", ""):
        variant = "v7"
    variant = variant.removesuffix(".0")
    return "/".join(filter(None, (system.lower() or "linux", architecture, variant)))


def architecture(platform: str) -> str:
    """Return the architecture of PLATFORM, which is in normal form."""
    return platform.split("/")[1]


def of_architecture(architecture: str) -> str:
    """Return the platform that every Linux of ARCHITECTURE is, as far as one can say."""
    return normal_form("linux", architecture)


def without_variant(platform: str) -> str:
    """Return PLATFORM, where nothing is known of what variant is needed."""
    return normal_form(*platform.split("/")[:2])


def x86_level(flags: Collection[str]) -> int:
    """Return the level of x86-64, 1 to 4, of a processor with FLAGS, as /proc/cpuinfo has them."""
    level = 1
    while level <= len(_LEVELS) and _LEVELS[level - 1].issubset(flags):
        level += 1
    return level


def in_normal_form(made_for: str) -> str:
    """Return MADE_FOR, the words of an image's config, as we write it; empty if it says none."""
    words = made_for.split("/", 2)
    meant = normal_form(*words) if len(words) > 1 else ""
    return meant if is_platform(meant) else ""


def related(one: str, other: str) -> bool:
    """Return whether a machine of ONE, or one of OTHER, can run what is made for both."""
    return one in runnable(other) or other in runnable(one)


def runnable(platform: str) -> tuple[str, ...]:
    """Return all that a machine of PLATFORM can run, in normal form, the best first."""
    system, _, rest = platform.partition("/")
    architecture, _, variant = rest.partition("/")
    return tuple(dict.fromkeys(_runnable(system, architecture, variant)))


def _runnable(system: str, architecture: str, variant: str) -> Iterator[str]:
    own = normal_form(system, architecture, variant)
    yield own
    if architecture == "amd64":
        for number in range(_number(variant, 1) - 1, 0, -1):
            yield normal_form(system, "amd64", f"v{number}")
        yield normal_form(system, "386", "")
    elif architecture == "arm":
        for number in range(_number(variant, 7) - 1, _LOWEST_ARM - 1, -1):
            yield normal_form(system, "arm", f"v{number}")
    elif architecture == "arm64":
        for version in _versions_of_arm64(variant or "v8"):
            yield normal_form(system, "arm64", version)
        yield from _runnable(system, "arm", "v8")


def _versions_of_arm64(variant: str) -> Iterator[str]:
    major, _, minor = variant.partition(".")
    number, below = _number(major, 0), _number(minor, 0)
    if number == 9:
        yield from (f"v9.{each}" for each in range(below, -1, -1))
        # Armv9.0 is what Armv8.5 became.
        number, below = 8, below + 5
    if number == 8:
        yield from (f"v8.{each}" for each in range(below, -1, -1))


def _number(text: str, default: int) -> int:
    digits = text.removeprefix("v")
    return min(int(digits), _HIGHEST) if digits.isdecimal() else default
