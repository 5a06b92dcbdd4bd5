"""Let many requests come at once over workers that are killed all the time, and say how it went.

Users are uids that nobody has, hosts are namespaces, images are small ones in a registry on the
loopback.  Ends with status 1 if a request was not answered once, an image not built once, or
something is left over.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.conftest import Runner
from tests.helpers import gluster, hosts, rates, registry, storm, users
from tests.helpers.ends import Ends

USUAL = storm.Plan()


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(prog="scripts/storm", description=__doc__)
    add = parser.add_argument
    add("--requests", type=int, default=USUAL.requests, help="how many (%(default)s)")
    add("--users", type=int, default=USUAL.users, help="of how many users (%(default)s)")
    add("--images", type=int, default=USUAL.images, help="for how many images (%(default)s)")
    add("--workers", type=int, default=USUAL.workers, help="at a time (%(default)s)")
    add(
        "--kill",
        type=float,
        default=USUAL.kill_seconds,
        metavar="SECONDS",
        help="between kills of a worker; 0: none (%(default)s)",
    )
    add(
        "--greed",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of all requests, which the first user makes before all others; else all make as many",
    )
    add(
        "--place",
        type=Path,
        metavar="DIR",
        default=Path("/tmp"),
        help="where the store is made (%(default)s)",
    )
    add(
        "--other",
        type=Path,
        metavar="DIR",
        help="the same by another client of its filesystem: half of the workers go this way",
    )
    add(
        "--gluster",
        action="store_true",
        help="instead of --place: a GlusterFS volume of two bricks and two clients, for this run",
    )
    add(
        "--old",
        type=int,
        default=100_000,
        metavar="NUMBER",
        help="of answered requests, beside which a look is timed; 0: no rates (%(default)s)",
    )
    add("--logs", type=Path, metavar="DIR", help="keep the workers' logs there")
    return parser.parse_args()


def main() -> int:
    """Run the storm."""
    given = arguments()
    plan = storm.Plan(
        requests=given.requests,
        users=given.users,
        images=given.images,
        workers=given.workers,
        kill_seconds=given.kill or float("inf"),
        greed=given.greed,
    )
    with ExitStack() as stack:
        service = stack.enter_context(users.ordinary("service"))
        ends = Ends(name="local", a=given.place, b=given.other or given.place, disks=(given.place,))
        if given.gluster:
            ends = stack.enter_context(gluster.volume())
        home = stack.enter_context(users.directory(service))
        mine = stack.enter_context(users.directory(service, str(ends.a)))
        for path in (home, mine):
            path.chmod(0o755)
        ends = ends.under(mine.name).under("store")
        base = Runner(user=service, home=home, store=ends.a)
        both = hosts.pair(base, ends)
        done = both[0]("shifter-admin", "init")
        assert done.returncode == 0, done.stderr
        names = storm.pushed(stack.enter_context(registry.serving()), plan.images)
        logs = given.logs or home / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        result = storm.rage(plan, ends, both, names, logs)
        print("\n".join(storm.figures(plan, result)), flush=True)
        if given.old:
            print("\n".join(rates.figures(ends.a, given.old)))
    return 0 if storm.is_right(plan, result) else 1


if __name__ == "__main__":
    sys.exit(main())
