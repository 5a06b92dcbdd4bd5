"""What was measured of one image, as lines for people: ratios first."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from floor import CORES, Floor
from timing import Cost

from tests.helpers.images import Image

# By how much ours must be faster: than any peer as it comes, and than Shifter's way.
_WANTED = {"debian": (5, 8), "python-science": (8, 25), "manyfiles": (6, None)}
# How many times the floor ours may take.
_WANTED_FLOOR = {"large": 1.5}
# How many megabytes ours may take.
_WANTED_PEAK = {"debian": 150, "million": 500}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One time: what each step cost, what each way to squash cost, and how large its file is."""

    steps: Mapping[str, Cost]
    ways: Mapping[str, Cost]
    sizes: Mapping[str, int]

    def total(self, way: str) -> Cost:
        """Return what an image costs that is squashed in this WAY."""
        return sum(self.steps.values(), self.ways[way])


@dataclass(slots=True, kw_only=True)
class Results:
    """All about one image; a peer that failed is in FAILED, with what it said."""

    name: str
    image: Image
    ours: list[Run] = field(default_factory=list)
    peers: dict[str, list[Run]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    floors: list[Floor] = field(default_factory=list)
    peak: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """The medians of one way to an image."""

    peer: str
    way: str
    cost: Cost
    megabytes: float
    detail: str

    @property
    def title(self) -> str:
        return f"{self.peer}, {self.way}" if self.way else self.peer


def lines(results: Results) -> Iterator[str]:
    """Give the report on one image."""
    yield f"\n{results.name}: {_description(results)}"
    for name, said in results.failed.items():
        yield f"    FAILED  {name}: {said}"
    if results.ours:
        yield from _table(results)
    if results.peak is not None:
        said = _at_most(_WANTED_PEAK, results.name)
        yield f"    peak memory {results.peak:.0f} MB, its processes' VmHWM together{said}"


def _at_most(wanted: Mapping[str, float], name: str) -> str:
    return f"   (wanted: at most {wanted[name]})" if name in wanted else ""


def _description(results: Results) -> str:
    layers = results.image.content["layers"]
    size = sum(layer["size"] for layer in layers) / 1e6
    text = f"{size:.0f} MB compressed (layers: {len(layers)})"
    if results.floors:
        floor = results.floors[0]
        text += f", {floor.inflated / 1e6:.0f} MB inflated"
        text += f"; merged {floor.entries} entries, {floor.content / 1e6:.0f} MB without copies"
    return text


def _table(results: Results) -> Iterator[str]:
    ours = _line("shifterimg pull", "", results.ours)
    seconds = [run.total("").seconds for run in results.ours]
    yield "    times ours  seconds    CPU s   MB"
    yield from _row(ours, ours)
    yield f"{'':40}{min(seconds):.2f} to {max(seconds):.2f} s (runs: {len(seconds)})"
    others = [
        _line(peer, way, runs) for peer, runs in results.peers.items() for way in runs[0].ways
    ]
    for other in sorted(others, key=lambda line: line.cost.seconds):
        yield from _row(other, ours)
    yield from _verdicts(results.name, ours, others)
    if results.floors:
        yield from _floor(results.name, ours, results.floors)


def _line(peer: str, way: str, runs: list[Run]) -> _Line:
    steps = {step: _median(run.steps[step] for run in runs) for step in runs[0].steps}
    steps |= {way: _median(run.ways[way] for run in runs)} if way else {}
    return _Line(
        peer=peer,
        way=way,
        cost=_median(run.total(way) for run in runs),
        megabytes=runs[0].sizes[way] / 1e6,
        detail=", ".join(f"{step} {cost.seconds:.2f}" for step, cost in steps.items()),
    )


def _median(costs: Iterable[Cost]) -> Cost:
    seconds, cpu = zip(*((cost.seconds, cost.cpu) for cost in costs), strict=True)
    return Cost(statistics.median(seconds), statistics.median(cpu))


def _row(line: _Line, ours: _Line) -> Iterator[str]:
    ratio = line.cost.seconds / ours.cost.seconds
    figures = f"{ratio:14.1f}{line.cost.seconds:9.2f}{line.cost.cpu:9.2f}{line.megabytes:5.0f}"
    yield f"{figures}   {line.title}"
    if line.way:
        yield f"{'':40}{line.detail}"


def _verdicts(name: str, ours: _Line, others: list[_Line]) -> Iterator[str]:
    than_any, than_shifter = _WANTED.get(name, (None, None))
    groups = (
        ("the fastest peer as it comes", lambda line: "zstd" not in line.way, than_any),
        ("the fastest peer with zstd 3", lambda line: "zstd" in line.way, None),
        ("Shifter's way", lambda line: line.peer == "shifter", than_shifter),
    )
    for title, belongs, wanted in groups:
        if group := [line for line in others if belongs(line)]:
            fastest = min(group, key=lambda line: line.cost.seconds)
            ratio = fastest.cost.seconds / ours.cost.seconds
            said = f"   (wanted: at least {wanted})" if wanted else ""
            yield f"    {title} / ours: {ratio:.1f}, {fastest.title}{said}"


def _floor(name: str, ours: _Line, floors: list[Floor]) -> Iterator[str]:
    def median(figure: Callable[[Floor], float]) -> float:
        return statistics.median(figure(floor) for floor in floors)

    work, streaming = median(lambda floor: floor.work), median(lambda floor: floor.streaming)
    said = _at_most(_WANTED_FLOOR, name)
    yield (
        f"    floor: inflate {median(lambda floor: floor.inflate):.2f} s, "
        f"hash {median(lambda floor: floor.hash):.2f} s, "
        f"compress on {CORES} cores {median(lambda floor: floor.compress):.2f} s; "
        f"all of it on {CORES} cores {work:.2f} s"
    )
    yield (
        f"    ours / larger of inflate and compress: "
        f"{ours.cost.seconds / streaming:.2f}{said}; "
        f"/ all of it: {ours.cost.seconds / work:.2f}, "
        f"in processor time {ours.cost.cpu / (work * CORES):.2f}"
    )
