"""Whether the index answers a pull already, so that no registry need be asked.

Client and worker judge alike: the client so that a pull of what was just pulled needs no
worker, the worker for those who could not see it yet.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from contextlib import suppress
from pathlib import Path

from shifter_lite import durable
from shifter_lite.config import Site
from shifter_lite.errors import Damaged, NoStore
from shifter_lite.index import resolve
from shifter_lite.layout import Layout
from shifter_lite.platforms import in_normal_form, runnable
from shifter_lite.records import Entry, Image
from shifter_lite.reference import Reference
from shifter_lite.transient import waited_out

# The domain of what never was in a registry, as with podman and buildah.
_OF_IMPORTS = "localhost"
_KEPT_SECONDS = 2 * 86400.0


def known(layout: Layout, site: Site, reference: Reference, platform: str) -> Entry | None:
    """Return the entry that a pull of REFERENCE for PLATFORM, or SITE's, has left at LAYOUT.

    None if there is none whose image is there, whole, and runs on that platform.
    """
    with suppress(NoStore):
        with resolve.newest(layout.index) as index:
            entry = _find(index, site, str(reference), platform) if index else None
        wanted = platform or site.platform
        if entry and _is_whole(layout, entry) and _runs_on(layout, entry, wanted):
            return entry
    return None


def _find(index: resolve.Index, site: Site, name: str, platform: str) -> Entry | None:
    if not platform or (site.is_platform_given and platform == site.platform):
        return index.find(name)
    # What only runs there may not be what a pull would choose.
    return resolve.choose_exactly(name, platform, index.find)


def fresh(layout: Layout, site: Site, reference: Reference, platform: str) -> Entry | None:
    """Return what is known of REFERENCE if that answers a pull without its registry.

    It does for some seconds after it was pulled or its registry confirmed it; by a clock that is
    behind the worker's it does not.  What was imported is in no registry, unless SITE has one that
    is called like that, and a digest that was pulled means the same for ever.
    """
    is_import = (
        reference.domain == _OF_IMPORTS and not site.registries.find(reference.repository)[0]
    )
    entry = known(layout, site, reference, platform)
    if entry is None or is_import:
        return entry
    if reference.digest:
        # Else nobody could see in the index that users have named it.
        return entry if entry.asked else None
    age = _age(layout, reference, platform, entry)
    return entry if age < site.pull_fresh_seconds else None


def _age(layout: Layout, reference: Reference, platform: str, entry: Entry) -> float:
    """Return how many seconds ago REFERENCE, which has ENTRY, was pulled or confirmed."""
    now = time.time()
    times = [float(entry.time)]
    with suppress(OSError):
        times.append(_confirmation(layout, reference, platform).stat().st_mtime)
    return min((now - each for each in times if each <= now), default=math.inf)


def confirm(layout: Layout, reference: Reference, platform: str) -> None:
    """Note that its registry has just said what REFERENCE is for PLATFORM: what the index says.

    In the index that would be a generation for each pull.
    """
    now = time.time()
    path = _confirmation(layout, reference, platform)
    # Without it the registry is asked once more.
    with suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644))
        os.utime(path, (now, now))


def forget_confirmations(layout: Layout) -> None:
    """Remove what is too old to make anything fresh."""
    oldest = time.time() - _KEPT_SECONDS
    for path in layout.confirmed.iterdir():
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest:
                path.unlink()


def _confirmation(layout: Layout, reference: Reference, platform: str) -> Path:
    name = hashlib.sha256(f"{reference} {platform}".encode()).hexdigest()
    return layout.confirmed / name[:32]


def _is_whole(layout: Layout, entry: Entry) -> bool:
    return durable.has_size(layout.image(entry.id), entry.size)


def _runs_on(layout: Layout, entry: Entry, platform: str) -> bool:
    made_for = entry.platform
    with suppress(FileNotFoundError, Damaged):
        # An entry of before does not say it.
        if not made_for:
            content = Image.from_bytes(waited_out(layout.record(entry.id).read_bytes)).content
            made_for = in_normal_form(content.platform)
        return made_for in ("", *runnable(platform))
    return False
