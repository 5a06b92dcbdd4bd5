"""Many users ask for much at once, and workers die all the time: everybody is answered, in turn."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import Runner, User
from tests.helpers import hosts, storm
from tests.helpers.ends import Ends

# A worker must live long enough to answer somebody; on GlusterFS everything takes longer.
PLANS = {
    "local": storm.Plan(requests=400, users=10, images=10, workers=3, kill_seconds=0.5),
    "gluster": storm.Plan(requests=300, users=10, images=10, workers=3, kill_seconds=2.0),
}


@pytest.fixture
def two(ends: Ends, run: Runner, service: User, workdir: Path) -> Sequence[Runner]:
    """Two hosts, each with its own way to a new store."""
    workdir.chmod(0o755)
    made = hosts.pair(replace(run, user=service), ends.under("store"))
    assert made[0]("shifter-admin", "init").returncode == 0
    return made


def test_a_storm_is_answered_once_each_and_every_image_is_built_once(
    ends: Ends, two: Sequence[Runner], registry: str, tmp_path: Path
) -> None:
    plan = PLANS[ends.name]
    names = storm.pushed(registry, plan.images)
    result = storm.rage(plan, ends.under("store"), two, names, tmp_path)
    print("\n".join(storm.figures(plan, result)))  # noqa: T201  # shown if it fails
    assert result.states == {"READY": plan.requests}
    assert result.not_once == []
    assert result.left == []
    assert result.killed > 0
    assert max(result.builds.values()) == 1
    # Only who was killed builds again.
    assert result.begun <= plan.images + result.killed
    assert storm.jain(result.places) > 0.8
