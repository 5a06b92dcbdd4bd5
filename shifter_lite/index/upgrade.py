"""Make an index of before, whose entries say no platform, one whose entries do.  Pure.

Then names were given to whatever was pulled last, for any platform: those that are not for the
site's become names on their own machines.  See spool/index.md, "Platforms".
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from shifter_lite import keys, platforms
from shifter_lite.config import Site
from shifter_lite.errors import Damaged
from shifter_lite.records import Entry, seal

Items = dict[bytes, bytes]


def with_platforms(items: Items, site: Site, platform_of: Callable[[str], str]) -> Items:
    """Return ITEMS of SITE, upgraded unless they are; PLATFORM_OF says what an id is made for."""
    if keys.ALL_SAY_PLATFORMS in items:
        return items
    made: Items = {keys.ALL_SAY_PLATFORMS: seal(keys.ALL_SAY_PLATFORMS, [])}
    for key, value in items.items():
        place, new = key, value
        # What is damaged is for ``shifter-admin verify`` to tell of.
        with suppress(Damaged):
            if keys.is_name(key):
                place, new = _upgraded(key, value, site, platform_of)
        made[place] = new
    return made


def _upgraded(
    key: bytes, value: bytes, site: Site, platform_of: Callable[[str], str]
) -> tuple[bytes, bytes]:
    """Return KEY and VALUE, of a name, as they should be; raises Damaged."""
    entry = Entry.from_bytes(key, value)
    entry = replace(entry, platform=entry.platform or platform_of(entry.id))
    place = _place(key.decode(), entry, site).encode()
    return place, entry.to_bytes(place)


def _place(key: str, entry: Entry, site: Site) -> str:
    """Return the key that ENTRY, which had KEY, should have."""
    is_exact = key.startswith(("id:", "\0")) or key.endswith(f"@{entry.digest}")
    if is_exact or not entry.platform or entry.platform in platforms.runnable(site.platform):
        return key
    for platform in site.platforms_for(entry.platform)[1:]:
        if entry.platform in platforms.runnable(platform):
            return keys.of_machine(key, platform)
    return keys.of_platform(key, entry.platform)
