"""Build each image once at a time: ``builds/KEY.WORKER`` says who builds what.

Of two who want the same, the later one's listing shows the earlier one's file, so they
never both go on.  Names are a worker's own: nobody ever takes another's away from somebody
who lives.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from shifter_lite import lost_reply
from shifter_lite.layout import Layout
from shifter_lite.queue.presence import Census
from shifter_lite.request import is_request_name
from shifter_lite.transient import waited_out


class Elsewhere(Exception):
    """Another worker builds what we want."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


@contextmanager
def building(
    layout: Layout, key: str, worker: str, census: Census, names: Iterable[str] = ()
) -> Iterator[None]:
    """Be the only one meanwhile who builds KEY; raises Elsewhere if it is being built already.

    NAMES are those of the requests that it is for, if it endangers the worker.
    """
    try:
        held = ExitStack()
        held.enter_context(marked(layout, key, worker, names))
    except FileExistsError as error:
        raise Elsewhere(key) from error
    with held:
        if is_built(layout, key, census, by_others_than=worker):
            raise Elsewhere(key)
        yield


@contextmanager
def marked(layout: Layout, key: str, worker: str, names: Iterable[str] = ()) -> Iterator[None]:
    """Let all see meanwhile that WORKER builds KEY; raises FileExistsError if it does already."""
    mark = layout.builds / f"{key}.{worker}"
    fd = waited_out(lambda: os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        try:
            os.write(fd, "".join(f"{name}\n" for name in names).encode())
        finally:
            os.close(fd)
        yield
    finally:
        # What stays is removed in the next round (``remove``).
        lost_reply.discard(mark)


def is_built(layout: Layout, key: str, census: Census, *, by_others_than: str = "") -> bool:
    """Return whether anybody who lives builds KEY, BY_OTHERS_THAN one."""
    workers = (worker for found, worker in _marks(layout) if found == key)
    return any(worker != by_others_than and not census.dead(worker) for worker in workers)


def remove(layout: Layout, worker: str, *, keep: Collection[str] = ()) -> None:
    """Remove the marks of WORKER, which is dead, or builds no more than the keys KEEP."""
    for key, found in _marks(layout):
        if found == worker and key not in keep:
            lost_reply.unlink(layout.builds / f"{key}.{found}")


def requests(layout: Layout, worker: str) -> set[str]:
    """Return the names of the requests that WORKER builds for, and that endanger it."""
    found: set[str] = set()
    for key, maker in _marks(layout):
        if maker == worker:
            with suppress(FileNotFoundError):
                text = (layout.builds / f"{key}.{maker}").read_text(errors="replace")
                found.update(filter(is_request_name, text.splitlines()))
    return found


def makers(layout: Layout) -> set[str]:
    """Return all whose marks there are."""
    return {worker for _, worker in _marks(layout)}


def makers_but(layout: Layout, worker: str) -> list[str]:
    """Return who makes each of the marks there are, but for one of WORKER's."""
    found = [maker for _, maker in _marks(layout)]
    if worker in found:
        found.remove(worker)
    return found


def _marks(layout: Layout) -> list[tuple[str, str]]:
    names = waited_out(lambda: os.listdir(layout.builds))
    split = (name.partition(".") for name in names)
    return [(key, worker) for key, _, worker in split if worker]
