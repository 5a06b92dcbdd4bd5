"""Time each way to an image in turn, in rounds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import floor
import memory
import requests
from peers import PEERS, Commands, Job
from report import Results, Run
from timing import Cost, FailedError, environment, forget, run, scratch

_SHIFTERIMG = str(Path(sys.executable).with_name("shifterimg"))
_CHUNK = 1 << 20
_MAGIC = b"hsqs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What an image is called at the registry, and at the one with TLS; and its BLOBS."""

    plain: str
    secure: str
    blobs: Sequence[str]


def measure(results: Results, names: Names, peers: Sequence[str], rounds: int) -> None:
    """Fill RESULTS in ROUNDS: time ours before and after each of the PEERS, and the floor."""
    for number in range(1, rounds + 1):
        print(f"{results.name}, round {number} of {rounds}", flush=True)
        _ours(results, names, with_floor=True)
        for peer in peers:
            if peer not in results.failed:
                _theirs(results, names, peer)
                _ours(results, names)


def measure_memory(results: Results, names: Names) -> None:
    """Fill RESULTS' peak memory: a pull of its own, as looking takes time."""
    with scratch() as place:
        results.peak = memory.peak([_SHIFTERIMG, "pull", names.plain], environment(place))


def _ours(results: Results, names: Names, *, with_floor: bool = False) -> None:
    """Time a pull into a store that does not exist yet."""
    _make_cold(names)
    with scratch() as place:
        cost = run([_SHIFTERIMG, "pull", names.plain], place)
        run([_SHIFTERIMG, "path", names.plain], place)
        squashfs = Path((place / "log").read_text().strip())
        print(f"    shifterimg pull {cost.seconds:.2f}", flush=True)
        results.ours.append(Run(steps={}, ways={"": cost}, sizes={"": _size(squashfs)}))
        if with_floor:
            results.floors.append(floor.measure(results.image, squashfs))


def _theirs(results: Results, names: Names, peer: str) -> None:
    _make_cold(names)
    with scratch() as place:
        job = Job(name=names.plain, secure=names.secure, place=place)
        try:
            steps = _run_all(PEERS[peer].unpack(job), place)
            ways = _run_all(PEERS[peer].squash(job), place)
            sizes = {way: _size(job.squashed(way)) for way in ways}
        except FailedError as error:
            results.failed[peer] = str(error)
            print(f"    {peer}: FAILED", flush=True)
            return
    results.peers.setdefault(peer, []).append(Run(steps=steps, ways=ways, sizes=sizes))
    said = [f"{label} {cost.seconds:.2f}" for label, cost in {**steps, **ways}.items()]
    print(f"    {peer}: {', '.join(said)}", flush=True)


def _run_all(commands: Commands, place: Path) -> dict[str, Cost]:
    return {label: run(command, place) for label, command in commands.items()}


def _size(file: Path) -> int:
    """Return the size of FILE, if it is a squashfs file at all."""
    if not file.exists():
        raise FailedError(f"there is no {file.name}, though all commands ended well")
    with file.open("rb") as opened:
        if opened.read(len(_MAGIC)) != _MAGIC:
            raise FailedError(f"{file.name} is no squashfs file")
    return file.stat().st_size


def _make_cold(names: Names) -> None:
    """Forget what is in memory, but for what the registry has to serve."""
    forget()
    address, _, rest = names.plain.partition("/")
    repository = rest.partition(":")[0]
    with requests.Session() as session:
        session.trust_env = False
        for digest in names.blobs:
            url = f"http://{address}/v2/{repository}/blobs/{digest}"
            with session.get(url, stream=True, timeout=60) as answer:
                answer.raise_for_status()
                for _ in answer.iter_content(_CHUNK):
                    pass
