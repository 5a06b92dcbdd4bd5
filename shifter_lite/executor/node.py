"""What runs in a batch job: one build, as its worker would do it.

The job is a worker of its own, with its own name and its own heartbeat: nobody removes its
unfinished files while it lives, and equal builds wait for it.  It ends by itself, without a
trace, as soon as its master has died or does not want it any more.
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from shifter_lite import logs, steps
from shifter_lite.build import squash
from shifter_lite.build.registry import Registry
from shifter_lite.build.zstd import Compressor
from shifter_lite.errors import BadImage, BuildFailed, ShifterError, from_oserror
from shifter_lite.executor.order import Desk, Order
from shifter_lite.layout import Layout
from shifter_lite.queue import marks
from shifter_lite.queue.attendant import Unwanted
from shifter_lite.queue.presence import Lost
from shifter_lite.queue.worker import Worker
from shifter_lite.records import Image
from shifter_lite.request import Status
from shifter_lite.steps import Bench

# Those by which a batch system ends a job, submitit's own among them: it would ask for the job
# to be run again, and it lets SIGTERM pass.
_ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


def run(place: str, order: Order) -> None:
    """Do what ORDER says; its directory is PLACE.  The last status is the result.

    Exits without one if there is none: the master takes the job for lost.
    """
    for number in _ENDINGS:
        signal.signal(number, _end)
    logs.set_up("text")
    desk = Desk(Path(place))
    try:
        desk.report(_result(desk, order))
    except (FileNotFoundError, Lost, Unwanted) as end:
        sys.exit(f"nobody wants this build any more: {end!r}")


def _result(desk: Desk, order: Order) -> Status:
    try:
        image = _work(desk, order)
    except ShifterError as error:
        return steps.failure(error)
    except OSError as error:
        return steps.failure(from_oserror(error))
    except Exception as error:  # noqa: BLE001  # its requester shall hear of it, as of any other
        logs.error("bug", error, request=order.request.name)
        return steps.failure(BuildFailed(f"a bug in shifter_lite: {error!r}", hint="report it"))
    return Status(state="READY", image_id=image.id)


def _work(desk: Desk, order: Order) -> Image:
    layout, site = Layout(Path(order.root)), order.site
    with Worker(layout, order.store, lease_seconds=site.lease_seconds) as worker:

        def wanted() -> bool:
            # The next look will do.
            with suppress(OSError):
                return desk.is_there() and not worker.census.dead(order.master)
            return True

        # First the mark, then the question: whoever buries our master meanwhile sees the mark.
        with marks.marked(layout, order.key, worker.name):
            if not wanted():
                raise Unwanted
            bench = Bench(layout, order.store, site, Compressor(site.compression_level), worker)
            with worker.attendant.guarding(wanted):
                return _build(bench, desk, order)


def _build(bench: Bench, desk: Desk, order: Order) -> Image:
    recipe = squash.recipe(bench.compressor, bench.site.policy)
    if recipe != order.recipe:
        raise BuildFailed(
            f"this node builds by the recipe {recipe!r}, its worker by {order.recipe!r}",
            hint="tell the administrator of the store: nodes have other libraries than the worker",
        )
    with steps.opened(bench, order.request) as source:
        if not isinstance(source, Registry):
            # To read it is what makes its parts known.
            found = source.manifest(steps.platform_of(bench, order.request)).digest
            if found != order.manifest.digest:
                raise BadImage(
                    f"{order.request.path!r} changed while it waited", hint="import it again"
                )
        return steps.make(bench, source, order.manifest, desk.report)


def _end(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(f"told to end by signal {number}")
