"""Lose replies of a filesystem, and let it fail for moments, while users pull, cancel and launch.

Ends with status 1 if an answer was not true, or something is left over.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.conftest import Runner, made_site
from tests.helpers import lossy, registry, users

ROOT = Path(__file__).parents[2]


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(prog="scripts/lost-replies", description=__doc__)
    parser.add_argument(
        "lies", type=int, nargs="?", default=500, help="of each kind, at least (%(default)s)"
    )
    parser.add_argument("--users", type=int, default=3, help="at a time (%(default)s)")
    return parser.parse_args()


def built(scratch: Path) -> tuple[Path, Path]:
    """Return the liar, and a launcher whose server can be lied to, built in SCRATCH."""
    liar = scratch / "liar"
    source = ROOT / "tests/helpers/liar.c"
    subprocess.run(["gcc", "-std=gnu11", "-O2", "-o", liar, source], check=True)
    make = ["make", "-s", "-C", str(ROOT / "runtime"), f"OUT={scratch}/runtime", "all"]
    subprocess.run([*make, "CPPFLAGS=-DUNTRACED=0"], check=True)
    return liar, scratch / "runtime/shifter"


def main() -> int:
    """Lie, and say how it went."""
    given = arguments()
    good = True
    with ExitStack() as stack:
        service = stack.enter_context(users.ordinary("service"))
        user = stack.enter_context(users.ordinary("user"))
        scratch = stack.enter_context(users.directory(user))
        scratch.chmod(0o755)
        home = stack.enter_context(users.directory(user))
        address = stack.enter_context(registry.serving())
        liar, launcher = built(scratch)
        for plan in (lossy.LOST, lossy.TRANSIENT):
            place = stack.enter_context(users.directory(service))
            site = made_site(service, place)
            asker = Runner(user=user, home=home, store=site.store)
            storm = lossy.Storm(site, asker, launcher, address, liar, scratch)
            result = storm.rage(plan, given.lies, users=given.users)
            print(f"{plan.called}", *result.lines(), sep="\n", flush=True)
            good = good and not result.wrong and not result.left
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
