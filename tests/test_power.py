"""A power loss at any moment of a pull: nothing half is seen, and what was accepted is answered.

What a client and a worker do to files is recorded; helpers/power.py makes of it every tree that a
journaling filesystem may have when the power is back, and a worker goes on from there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.conftest import Runner, installed
from tests.helpers import forking, images, power, whole
from tests.helpers.places import Place, place, places, tried
from tests.helpers.power import Disk, Operation, State
from tests.helpers.processes import until

UMASK = 0o022


@pytest.fixture(scope="session")
def image(registry: str) -> str:
    """The name of a small image of three layers."""
    layers = [images.layer([images.file(f"f{n}", os.urandom(5000))]) for n in range(2)]
    gone = images.layer([images.whiteout("f0"), images.file("etc/passwd", b"root:x:0:0::/:\n")])
    images.push(registry, "power", "1", images.image([*layers, gone]))
    return f"{registry}/power:1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What was done to files, by a client and then a worker, from a disk as it was before."""

    before: Path
    operations: list[Operation]
    # So many of them nobody could undo any more when the client knew that it had asked, and when
    # it was told that the image is ready.
    asked: int
    told: int
    request: str
    image_id: str


def recorded(made: Place, asker: Runner, image: str) -> Record:
    """Let ASKER ask for IMAGE in the place MADE, and a worker answer; record what they do."""
    root, log = made.root, made.root.with_name("log")
    before = root.with_name("before")
    subprocess.run(["cp", "-a", root, before], check=True)
    asked = traced(asker, root, log, "shifterimg", "pull", image, until_asked=True)
    (request,) = os.listdir(made.store / "spool/new")
    worked = traced(made.runner, root, log, "shifter-worker", "drain")
    image_id = whole.told(made.store, request).image_id
    done = [*asked, *worked]
    told = [n for n, each in enumerate(done) if each.target.startswith("store/status/")]
    return Record(
        before=before,
        operations=done,
        asked=power.surely_durable(asked, "store/"),
        told=power.surely_durable(done[: told[-1]], "store/"),
        request=request,
        image_id=image_id,
    )


def traced(
    runner: Runner, root: Path, log: Path, *command: str, until_asked: bool = False
) -> list[Operation]:
    """Run COMMAND, to its end or until it has asked for something; return what it did."""
    with subprocess.Popen(
        [*power.strace(log), *runner.user.prefix, installed(command[0]), *command[1:]],
        env=runner.environment,
        cwd=runner.home,
        umask=UMASK,
    ) as process:
        if until_asked:
            until(lambda: bool(os.listdir(runner.store / "spool/new")))
            # The rest of asking, and a beginning of waiting.
            time.sleep(0.5)
            os.kill(int(log.read_text().split()[0]), signal.SIGKILL)
    assert until_asked or process.returncode == 0
    return power.operations(log, root, (runner.user.uid, runner.user.gid), UMASK)


@pytest.mark.timeout(900)
def test_a_power_loss_at_any_moment_of_a_pull_loses_nothing_and_shows_nothing_half(
    site: Runner, asker: Runner, workdir: Path, image: str
) -> None:
    with forking.programs(site.user) as programs:
        made = place(site, workdir / "disk", programs)
        made.clear(site.store)
        made.state.mkdir()
        os.chown(made.state, site.user.uid, site.user.gid)
        record = recorded(made, replace(asker, store=made.store), image)
    disk = Disk(record.before)
    for operation in record.operations:
        disk.do(operation)
    # Else this proves nothing.
    assert disk.rows("whole") == Disk(made.root).rows("whole")

    def one(place: Place, state: State) -> None:
        place.clear()
        state.write(place.root)
        recover(place, record, state)

    # Most of what is done is done by SQLite.
    assert 0 < record.asked < record.told
    states = power.states(Disk(record.before), record.operations, sampled="state/")
    with places(site, workdir) as free:
        tried(free, states, one)
    print(f"{len(states)} states, of {len(record.operations)} operations")  # noqa: T201
    assert len(states) > 250


def recover(place: Place, record: Record, state: State) -> None:
    """Check STATE in PLACE, let a worker go on from there, and check what that leads to."""
    found = set(whole.names(place.store).values())
    assert found == {record.image_id} if state.after >= record.told else found <= {record.image_id}
    asked = state.after >= record.asked
    if asked:
        # Whoever has waited for it, on a host that had power, reads this now.
        whole.told(place.store, record.request)
    place.succeed("shifter-worker", "drain")
    place.succeed("shifter-admin", "verify")
    if asked or whole.files(place.store, "spool/done"):
        assert whole.answered(place.store, record.request) == record.image_id
        assert set(whole.catalogued(place.store, place.state).values()) == {record.image_id}
    else:
        assert whole.files(place.store, "spool") == whole.files(place.store, "spool/tmp")
