"""Time ``shifterimg pull`` beside what others need to make a squashfs file of the same image.

All are cold: their stores are new, and the page cache is emptied if root asks.
Only the registry keeps its own content in memory, as if it were another machine.
Ours is timed before and after each of the others.  Of what happens several
times the report has the median; one round of all but "large" takes ten minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence

from measuring import Names, measure, measure_memory
from peers import PEERS
from report import Results, lines
from timing import FailedError, forget

from tests.helpers import debian, generated, images, registry, science
from tests.helpers.images import Image

_IMAGES: dict[str, Callable[[], Image]] = {
    "debian": debian.image,
    "python-science": science.image,
    "manyfiles": generated.many,
    "large": generated.large,
}
_TAG = "1"


def main() -> None:
    options = _options()
    if not forget():
        print("The page cache stays as it is: only root may empty it.")
    try:
        _measure_all(options)
    except FailedError as error:
        sys.exit(f"pull: {error}")


def _measure_all(options: argparse.Namespace) -> None:
    with registry.serving_twice() as addresses:
        for name in options.images:
            results = Results(name=name, image=_IMAGES[name]())
            names = _push(results, *addresses)
            measure(results, names, options.peers, options.rounds)
            measure_memory(results, names)
            print("\n".join(lines(results)), flush=True)
        if options.memory:
            results = Results(name="million", image=generated.million())
            measure_memory(results, _push(results, *addresses))
            print("\n".join(lines(results)), flush=True)


def _push(results: Results, plain: str, secure: str) -> Names:
    images.push(plain, results.name, _TAG, results.image)
    name = f"{results.name}:{_TAG}"
    return Names(
        plain=f"{plain}/{name}", secure=f"{secure}/{name}", blobs=list(results.image.blobs)
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pull", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=1, help="how often each is timed (1)")
    usual = [name for name in _IMAGES if name != "large"]
    known, peers = ",".join(_IMAGES), ",".join(PEERS)
    add("--images", type=_some(_IMAGES), default=usual, help=f"of {known} (all but large)")
    add("--peers", type=_some(PEERS), default=list(PEERS), help=f"of {peers}, or '' (all)")
    add("--memory", action="store_true", help="say what 1,000,000 entries need, too")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("there must be at least one round")
    return options


def _some(known: Iterable[str]) -> Callable[[str], Sequence[str]]:
    """Return what reads a list of names that are KNOWN."""

    def read(text: str) -> Sequence[str]:
        names = [name for name in text.split(",") if name]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(
                f"there is no {unknown[0]!r}: choose from {','.join(known)}"
            )
        return names

    return read


if __name__ == "__main__":
    main()
