"""What workflow engines and manuals call of Shifter's works, word for word.

Each script is run by bash, as an ordinary user, with an image of docker.io, which the site asks
for at a registry of the loopback; with that registry down; and with an imported image.
"""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Runner
from tests.helpers import images, layouts
from tests.helpers.hosts import on_host

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make hosts of its own")

# Pauses are for real registries.
_HEAD = "sleep() { :; }\n"
_RUN = "/bin/sh -c 'echo started'"

# ShifterBuilder, since 2019.
NEXTFLOW = f"""\
shifterimg pull NAME:TAG
shifterimg lookup NAME:TAG
while ! shifterimg lookup NAME:TAG; do
    sleep 5
    STATUS=$(shifterimg -v pull NAME:TAG | tail -n2 | head -n1 | awk '{{print $6}}')
    if [[ $STATUS == "FAILURE" || -z $STATUS ]]; then echo "no image: '$STATUS'" >&2; exit 1; fi
done
shifter --image NAME:TAG {_RUN}
"""
# ShifterBuilder, until then: it reads the messages.
OLD_NEXTFLOW = f"""\
status() {{
    shifterimg -v "$1" NAME:TAG | awk -F: '$0~/"status":/{{gsub("[\\", ]","",$2);print $2}}'
}}
STATUS=$(status lookup)
if [[ $STATUS != READY && $STATUS != '' ]]; then
    STATUS=$(status pull)
    while [[ $STATUS != READY && $STATUS != FAILURE && $STATUS != '' ]]; do
        sleep 5
        STATUS=$(status pull)
    done
fi
if [[ $STATUS == FAILURE || $STATUS == '' ]]; then echo "no image: '$STATUS'" >&2; exit 1; fi
shifter --image NAME:TAG {_RUN}
"""
SNAKEMAKE = f"""\
set -euo pipefail
shifterimg lookup NAME:TAG > /dev/null || shifterimg pull NAME:TAG
shifter --image=docker:NAME:TAG --volume="$PWD:/work" --workdir=/work {_RUN}
"""
PARSL = f"""\
set -e
shifterimg -v pull docker:NAME:TAG
export SLURM_SPANK_SHIFTER_IMAGETYPE=id SLURM_SPANK_SHIFTER_IMAGE=$(shifterimg lookup NAME:TAG)
shifter {_RUN}
"""
CROMWELL = f"""\
set -e
out=$(shifterimg lookup NAME:TAG || shifterimg pull NAME:TAG)
ret=$?
if [[ $ret != 0 || $(echo $out | grep "FAILURE") ]]; then exit 1; fi
shifterimg pull NAME:TAG
shifter --image=NAME:TAG {_RUN}
"""
# NERSC's manual, and what users made of it.
MANUAL = f"""\
set -euo pipefail
shifterimg -v pull docker:NAME:TAG | grep -q 'Pulling Image: docker:NAME:TAG, status: READY'
shifterimg images | grep -q " NAME:TAG *$"
[[ $(shifterimg images | awk '$6=="NAME:TAG" {{print $3}}') == READY ]]
id=$(shifterimg lookup docker:NAME:TAG)
shifterimg images | grep -q "${{id:0:10}}"
shifter --image=id:$id {_RUN}
"""
SCRIPTS = {
    "Nextflow": NEXTFLOW,
    "Nextflow before 2019": OLD_NEXTFLOW,
    "Snakemake": SNAKEMAKE,
    "Parsl": PARSL,
    "Cromwell": CROMWELL,
    "the manual": MANUAL,
}


@dataclass(frozen=True, slots=True)
class World:
    """A login node, and the same node an hour later, when the registry is down."""

    now: Runner
    later: Runner


@pytest.fixture
def world(run: Runner, registry: str) -> World:
    """A single box whose images of docker.io come from a registry of the loopback."""
    config = '[registries."docker.io"]\nlocation = "http://{}"\n'
    down = config.format("localhost:1")
    return World(
        now=on_host(run, "login", run.store, config=config.format(registry)),
        later=on_host(run, "later", run.store, config=down, clock=3600),
    )


def busybox() -> images.Image:
    program = images.file("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755)
    shell = images.symlink("bin/sh", "busybox")
    return images.image([images.layer([images.directory("bin"), program, shell])])


def bash(runner: Runner, script: str, image: str) -> subprocess.CompletedProcess[str]:
    """Run SCRIPT for IMAGE as the user of RUNNER."""
    return subprocess.run(
        [*runner.user.prefix, "bash", "-c", _HEAD + script.replace("NAME:TAG", image)],
        env=runner.environment,
        cwd=runner.home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def started(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == 0 and done.stdout.splitlines()[-1:] == ["started"]


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_their_command_lines_pull_and_run(world: World, registry: str, script: str) -> None:
    images.push(registry, "library/tool", "1", busybox())
    done = bash(world.now, script, "tool:1")
    assert started(done), done.stdout + done.stderr
    assert "Error" not in done.stderr


def test_their_command_lines_run_what_is_there_though_its_registry_is_down(
    world: World, registry: str
) -> None:
    images.push(registry, "org/tool", "1", busybox())
    assert world.now("shifterimg", "pull", "org/tool:1").returncode == 0
    # Each waits a little for the registry.
    with ThreadPoolExecutor(len(SCRIPTS)) as pool:
        ends = pool.map(lambda script: bash(world.later, script, "org/tool:1"), SCRIPTS.values())
    for done in ends:
        assert started(done), done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_their_command_lines_run_what_was_imported(world: World, script: str) -> None:
    layout = world.now.home / "layout"
    layouts.write(layout, busybox(), "it")
    name = f"localhost/{world.now.user.name}/tool:1"
    done = world.now("shifterimg", "import", layout, name)
    assert done.returncode == 0, done.stderr
    done = bash(world.later, script, name)
    assert started(done), done.stdout + done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_their_command_lines_end_where_there_is_no_image(world: World, script: str) -> None:
    done = bash(world.now, script, "org/none:1")
    assert done.returncode != 0
    assert "started" not in done.stdout


def test_nextflow_reads_of_each_pull_how_it_ended(world: World, registry: str) -> None:
    line = "shifterimg -v pull NAME:TAG | tail -n2 | head -n1 | awk '{print $6}'"
    images.push(registry, "org/tool", "1", busybox())
    assert bash(world.now, line, "org/none:1").stdout == "FAILURE\n"
    for runner in (world.now, world.now, world.later):
        assert bash(runner, line, "org/tool:1").stdout == "READY\n"
    assert bash(world.later, line, "org/none:1").stdout == "FAILURE\n"
