"""Which requests took with them who built for them: ``deaths/NAME.BUILD``, empty files.

A request that ends the process that builds for it, or its whole worker, is tried again, since
that may have been chance.  But not for ever.  ``BUILD`` is the worker's name, with a number before
it if the worker has survived its build.  Then the request is the likely cause: its builds are
processes of their own, which nobody else has a reason to kill.  Workers die of many things.  Such
a name is used once, so that it does not matter how many workers note the same death.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress

from shifter_lite.layout import Layout

# So many are enough: deaths of builds, whose workers went on, and of workers.
_MOST_BUILDS = 3
_MOST_WORKERS = 20
_BUILD = re.compile(r"[0-9]+[.].+[.][0-9]+[.][^.]+")
_OLD_SECONDS = 9 * 86400


def note(layout: Layout, names: Iterable[str], build: str) -> None:
    """Note that BUILD, which was for the requests NAMES, has died."""
    for name in names:
        path = layout.deaths / f"{name}.{build}"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def noted(layout: Layout) -> set[str]:
    """Return the requests for which any build has died."""
    return {name.partition(".")[0] for name in os.listdir(layout.deaths)}


def too_many(layout: Layout, names: Collection[str]) -> int:
    """Return how many builds have died for one of the requests NAMES, if these are too many.

    Else return 0.
    """
    builds, workers = Counter[str](), Counter[str]()
    for found in os.listdir(layout.deaths):
        name, _, build = found.partition(".")
        if name in names:
            (builds if _BUILD.fullmatch(build) else workers)[name] += 1
    most, lost = (max(each.values(), default=0) for each in (builds, workers))
    return most + lost if most >= _MOST_BUILDS or lost >= _MOST_WORKERS else 0


def forget(layout: Layout, names: Collection[str]) -> None:
    """Remember nothing more of the requests NAMES: they are answered."""
    for found in os.listdir(layout.deaths):
        if found.partition(".")[0] in names:
            (layout.deaths / found).unlink(missing_ok=True)


def sweep(layout: Layout) -> None:
    """Remove what is older than any request that may still be answered."""
    now = time.time()
    for found in os.listdir(layout.deaths):
        with suppress(FileNotFoundError):
            path = layout.deaths / found
            if now - path.stat().st_mtime > _OLD_SECONDS:
                path.unlink()
