"""Time ``shifterimg pull`` beside what Shifter does: download, unpack, mksquashfs."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.helpers import debian, images, registry

_PROGRAMS = Path(sys.executable).parent
_INTERVAL = 0.01


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with registry.serving() as address:
        name = debian.push(address)
        ours, theirs = [], []
        for number in range(1, rounds + 1):
            ours.append(pull(name))
            theirs.append(shifters_way(name))
            steps = "  ".join(f"{step} {took:.2f}" for step, took in theirs[-1].items())
            print(f"round {number}:  A {ours[-1]:.2f}    B {steps}", flush=True)
        report(ours, theirs, memory(name))


def report(ours: list[float], theirs: list[dict[str, float]], peak: float) -> None:
    unpackers = ("umoci unpack", "tar x")
    totals = {
        unpacker: statistics.median(
            each["download"] + each[unpacker] + each["mksquashfs"] for each in theirs
        )
        for unpacker in unpackers
    }
    fastest = min(totals, key=lambda unpacker: totals[unpacker])
    a, b = statistics.median(ours), totals[fastest]
    print(f"A  shifterimg pull                       {a:6.2f} s")
    for unpacker, total in totals.items():
        print(f"B  download, {unpacker + ', mksquashfs':<28}{total:6.2f} s")
    print(f"B / A, with the faster unpacker ({fastest}): {b / a:.1f}   (wanted: at least 8)")
    print(f"peak memory of A: {peak:.0f} MB, its processes' VmHWM together   (wanted: below 150)")


def pull(name: str) -> float:
    """Return how long a pull into a fresh store takes."""
    with pulling(name) as process:
        started = time.monotonic()
        with process() as running:
            succeed(running)
        return time.monotonic() - started


def memory(name: str) -> float:
    """Return the megabytes that a pull needs: the sum of what each process had at its highest.

    That is no less than what they had together.  It is a pull of its own, as looking takes time.
    """
    highest: dict[int, int] = {}
    with pulling(name) as process, process() as running:
        while running.poll() is None:
            for pid in tree(running.pid):
                highest[pid] = max(highest.get(pid, 0), high_water(pid))
            time.sleep(_INTERVAL)
        succeed(running)
    return sum(highest.values()) / 1000


@contextmanager
def pulling(name: str) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Yield what starts a pull into a store that does not exist yet."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as directory:
        environment = {
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            "HOME": directory,
            "SHIFTER_STORE": f"{directory}/store",
        }
        command = [str(_PROGRAMS / "shifterimg"), "pull", name]
        yield lambda: subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def succeed(running: subprocess.Popen[bytes]) -> None:
    if running.wait() != 0:
        sys.exit(f"pull: shifterimg pull ended with {running.returncode}")


def tree(pid: int) -> list[int]:
    """Return PID and its descendants."""
    found = [pid]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue  # it ended
    return found


def high_water(pid: int) -> int:
    """Return the most memory that PID ever had, in kB of 1024 bytes made 1000."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    found = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return found[0] * 1024 // 1000 if found else 0


def shifters_way(name: str) -> dict[str, float]:
    """Return how long each step takes; the unpackers are two ways to do the same."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as directory:
        layout, bundle, tree = (Path(directory, each) for each in ("layout", "bundle", "tree"))
        blobs = layout / "blobs/sha256"
        blobs.mkdir(parents=True)
        tree.mkdir()
        took = {}
        started = time.monotonic()
        layers = download(name, layout)
        took["download"] = time.monotonic() - started
        rootless = [] if os.getuid() == 0 else ["--rootless"]
        took["umoci unpack"] = timed(
            ["umoci", "unpack", *rootless, "--image", f"{layout}:latest", str(bundle)]
        )
        # Whiteouts are left to lie: that is less than what must be done.
        devices = [] if os.getuid() == 0 else ["--exclude=./dev/*"]
        took["tar x"] = sum(
            timed(["tar", "-xzf", str(blobs / layer), *devices, "-C", str(tree)])
            for layer in layers
        )
        squash = ["mksquashfs", str(bundle / "rootfs"), f"{directory}/image", "-no-progress"]
        took["mksquashfs"] = timed(squash)
    return took


def download(name: str, layout: Path) -> list[str]:
    """Get the image NAME into an OCI LAYOUT; return the file names of its layers."""
    address, _, rest = name.partition("/")
    repository, _, tag = rest.partition(":")
    base = f"http://{address}/v2/{repository}"
    with requests.Session() as session:
        session.trust_env = False
        accept = {"Accept": images.OCI_MANIFEST}
        document = session.get(f"{base}/manifests/{tag}", headers=accept, timeout=60).content
        manifest = json.loads(document)
        save(layout, document)
        for blob in (manifest["config"], *manifest["layers"]):
            save(layout, session.get(f"{base}/blobs/{blob['digest']}", timeout=60).content)
    entry = images.descriptor(document, images.OCI_MANIFEST)
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (layout / "index.json").write_bytes(images.encode({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_bytes(images.encode({"imageLayoutVersion": "1.0.0"}))
    return [each["digest"].removeprefix("sha256:") for each in manifest["layers"]]


def save(layout: Path, data: bytes) -> None:
    (layout / "blobs/sha256" / images.sha256(data).removeprefix("sha256:")).write_bytes(data)


def timed(command: list[str]) -> float:
    started = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
