"""A real shared filesystem: a GlusterFS volume of two bricks on the loopback, mounted twice.

    with gluster.volume() as ends:               two clients of one filesystem
    with gluster.volume((0, 600)) as ends:       the clock of the second is 10 minutes ahead

Each client is a process of its own with its own caches, as two nodes have them; and files have
the times of the client that changes them.  The graphs below are those that GlusterFS 10 makes for
a new distributed volume, without what it leaves switched off; so neither glusterd nor its fixed
port is needed, and all processes are our children, which end with us.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.helpers import clocks as wrong_clocks
from tests.helpers.ends import Ends

_PATIENCE = 30.0
_BRICKS = 2
_BRICK = """\
volume posix
    type storage/posix
    option directory {directory}
    option fips-mode-rchecksum on
end-volume

volume access-control
    type features/access-control
    subvolumes posix
end-volume

volume locks
    type features/locks
    option enforce-mandatory-lock off
    subvolumes access-control
end-volume

volume upcall
    type features/upcall
    option cache-invalidation off
    subvolumes locks
end-volume

volume io-threads
    type performance/io-threads
    subvolumes upcall
end-volume

volume index
    type features/index
    option index-base {directory}/.glusterfs/indices
    subvolumes io-threads
end-volume

volume brick
    type debug/io-stats
    subvolumes index
end-volume

volume server
    type protocol/server
    option auth.addr.brick.allow 127.0.0.1
    option transport.address-family inet
    option transport.socket.bind-address 127.0.0.1
    option transport.socket.listen-port {port}
    option transport-type tcp
    subvolumes brick
end-volume
"""
_REMOTE = """\
volume client-{number}
    type protocol/client
    option send-gids true
    option strict-locks off
    option ping-timeout 42
    option transport.address-family inet
    option transport-type tcp
    option remote-host 127.0.0.1
    option remote-port {port}
    option remote-subvolume brick
end-volume

"""
# From the distribution over the bricks up to the kernel, with their options.
_CLIENT = (
    ("cluster/distribute", "option lock-migration off"),
    ("features/utime", "option noatime on"),
    ("performance/write-behind", ""),
    ("performance/open-behind", ""),
    ("performance/quick-read", ""),
    ("performance/md-cache", ""),
    ("performance/io-threads", ""),
    ("debug/io-stats", ""),
)


def missing() -> str:
    """Return what is missing here for a volume, or nothing."""
    if os.getuid() != 0:
        return "only root may mount"
    programs = [name for name in ("glusterfs", "glusterfsd") if not shutil.which(name)]
    return f"there is no {programs[0]}: scripts/test installs it" if programs else ""


@contextmanager
def volume(clocks: tuple[int, int] = (0, 0)) -> Iterator[Ends]:
    """Bring up an empty volume; yield the two ways to it, by clients whose clocks are ahead.

    None can be behind: it would wait for times that are over, and never rest.
    """
    with TemporaryDirectory(prefix="gluster-", dir="/tmp") as name, ExitStack() as stack:
        directory = Path(name)
        # Ordinary users must find their way to the mounts.
        directory.chmod(0o755)
        ports = [_start_brick(stack, directory, number) for number in range(_BRICKS)]
        (directory / "client.vol").write_text(_client(ports))
        first, second = (
            _mount(stack, directory, which, clock)
            for which, clock in zip("ab", clocks, strict=True)
        )
        _prove(first, second)
        disks = tuple(directory / f"brick-{number}" for number in range(_BRICKS))
        yield Ends(name="gluster", a=first, b=second, disks=disks)


def _client(ports: Sequence[int]) -> str:
    below = [f"client-{number}" for number in range(len(ports))]
    parts = [_REMOTE.format(number=number, port=port) for number, port in enumerate(ports)]
    for kind, option in _CLIENT:
        name = kind.rpartition("/")[2]
        lines = (f"volume {name}", f"type {kind}", option, f"subvolumes {' '.join(below)}")
        parts.append("\n".join((*lines, "end-volume\n\n")))
        below = [name]
    return "".join(parts)


def _start_brick(stack: ExitStack, directory: Path, number: int) -> int:
    """Serve a new brick; return the port."""
    brick, port = directory / f"brick-{number}", _free_port()
    (brick / ".glusterfs/indices").mkdir(parents=True)
    graph = directory / f"brick-{number}.vol"
    graph.write_text(_BRICK.format(directory=brick, port=port))
    log = directory / f"brick-{number}.log"
    process = _start(stack, ["glusterfsd", f"--volfile={graph}", f"--log-file={log}"])
    _wait(process, log, lambda: _listens(port))
    return port


def _mount(stack: ExitStack, directory: Path, which: str, clock: int) -> Path:
    """Mount the volume by a client of its own, with so wrong a CLOCK; return where."""
    place, log, graph = directory / which, directory / f"{which}.log", directory / "client.vol"
    place.mkdir()
    caches = ["--entry-timeout=1", "--attribute-timeout=1", "--negative-timeout=0"]
    # Also if its client is dead by then.
    stack.callback(_unmount, place)
    command = ["glusterfs", f"--volfile={graph}", f"--log-file={log}", "--acl", *caches, str(place)]
    process = _start(stack, command, wrong_clocks.ahead(clock, directory))
    _wait(process, log, place.is_mount)
    return place


def _start(
    stack: ExitStack, command: list[str], before: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    # If we are killed, it is told to end, and unmounts.
    bound = ["setpriv", "--pdeathsig=TERM", "--", *before]
    process = subprocess.Popen(
        [*bound, *command, "--no-daemon", "--log-level=WARNING"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stack.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _unmount(place: Path) -> None:
    subprocess.run(["umount", "--lazy", place], capture_output=True, check=False)


def _wait(process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text() if log.exists() else ""
            raise RuntimeError(f"{process.args!r} does not start:\n{said[-5000:]}")
        time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _prove(first: Path, second: Path) -> None:
    """Make sure that both mounts are one filesystem."""
    (first / "probe").write_text("x")
    if (second / "probe").read_text() != "x":
        raise RuntimeError("what one client writes the other does not read")
    (second / "probe").unlink()
