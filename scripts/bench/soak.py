"""Let one worker answer many requests of all kinds, and print what it holds meanwhile.

Ready, new, failed, rejected and cancelled ones, against a registry on the loopback.  Ends with
status 1 if descriptors, threads or memory grow.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from contextlib import ExitStack

from tests.conftest import made_site
from tests.helpers import etc, registry, soak, users


def main() -> int:
    """Run the soak."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("answers", type=int, nargs="?", default=10_000, help="(%(default)s)")
    parser.add_argument("--every", type=int, default=250, help="print so often (%(default)s)")
    given = parser.parse_args()
    with ExitStack() as stack:
        service = stack.enter_context(users.ordinary("service"))
        place = stack.enter_context(users.directory(service))
        site = made_site(service, place, f"pull_fresh_seconds = 0\n{etc.ASKS_THIS_HOST}")
        address = stack.enter_context(registry.serving())
        kinds: Counter[str] = Counter()
        samples = []
        for sample in soak.soak(site, address, given.answers, given.every, kinds):
            samples.append(sample)
            print(sample, flush=True)
    print(", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items())))
    for text in (grown := soak.growth(samples)):
        print(f"grown: {text}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
