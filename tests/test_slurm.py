"""Builds as jobs of a real Slurm: the same images and errors, and no request is ever lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shifter_lite.errors import BadConfig
from shifter_lite.executor import slurm as door
from shifter_lite.executor.order import Desk
from shifter_lite.layout import Layout
from tests.conftest import Runner
from tests.helpers import etc, faulty, images, layouts, slurm, spool
from tests.helpers.faulty import Body, Drip, Stall
from tests.helpers.processes import until
from tests.helpers.slurm import Cluster
from tests.helpers.spool import Answer, answer, statuses

pytestmark = pytest.mark.skipif(slurm.missing() != "", reason=slurm.missing())

# The installed worker, with a configuration of its own.
WORKER = """\
import sys
from pathlib import Path
from shifter_lite import config
config._DIRECTORY = Path(sys.argv.pop(1))
from shifter_lite.cli import worker
worker.main()
"""
LAYER = images.layer([images.file("x", bytes(3_000_000))], "none")
DIGEST = images.sha256(LAYER.blob)
# How much of it comes, where it stalls.
STALLED = 1_000_000
ENDED = ("READY", "FAILURE", "CANCELLED")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A Slurm for all tests of this file."""
    with slurm.running() as made:
        yield made


@pytest.fixture(autouse=True)
def _whole(cluster: Cluster) -> Iterator[None]:
    """Leave to the next test no job, and all nodes."""
    yield
    cluster.mend()


@dataclass(slots=True)
class Service:
    """The site's workers, whose configuration is in ``place``."""

    site: Runner
    cluster: Cluster
    registry: faulty.Registry
    place: Path
    # So many were seen to have begun.
    builds: int = 0

    @property
    def store(self) -> Path:
        return self.site.store

    def configure(self, **keys: object) -> None:
        keys = {"poll_seconds": 0.5, **keys}
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in keys.items()]
        text = f"poll_seconds = 0.2\n[executor]\n{''.join(lines)}{etc.ASKS_THIS_HOST}"
        (self.place / "shifter_lite.toml").write_text(text)

    @contextmanager
    def worker(
        self, command: str = "run", env: Mapping[str, str] | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker, and end it."""
        with (self.place / "log").open("ab") as log:
            process = subprocess.Popen(
                [*self.site.user.prefix, sys.executable, "-c", WORKER, str(self.place), command],
                env={**self.site.environment, **self.cluster.environment, **(env or {})},
                cwd=self.site.home,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)

    @property
    def log(self) -> str:
        return (self.place / "log").read_text()

    def jobs(self) -> list[str]:
        """Return the jobs that workers have submitted."""
        return re.findall(r" submitted request=\S+ job=([0-9]+)\n", self.log)

    def ask(self, image: str) -> str:
        return spool.ask(self.store, self.site.user, [image])[image]

    def end_of(self, request: str) -> Answer:
        """Wait for the end of REQUEST, and return it."""
        until(lambda: self.state_of(request) in ENDED)
        return answer(self.store, request)

    def state_of(self, request: str) -> str:
        return str(self.newest(request).get("state", ""))

    def newest(self, request: str) -> dict[str, Any]:
        found = statuses(self.store, request)
        return found[-1] if found else {}

    def waiting(self) -> list[str]:
        return os.listdir(self.store / "spool/new")

    def left_over(self) -> list[Path]:
        """Return what is nobody's any more."""
        places = [self.store / name for name in ("jobs", "builds", "workers", "spool/work")]
        hidden = (self.store / "images").rglob(".*")
        return [path for place in places for path in place.iterdir()] + list(hidden)


@pytest.fixture
def service(
    site: Runner, cluster: Cluster, faulty_registry: faulty.Registry, workdir: Path
) -> Service:
    place = workdir / "configuration"
    place.mkdir()
    made = Service(site, cluster, faulty_registry, place)
    made.configure(kind="slurm")
    return made


@pytest.fixture
def slow(faulty_registry: faulty.Registry) -> str:
    """The name of an image, of whose layer the first one to ask gets a part and no more."""
    faulty_registry.fault(DIGEST, Stall(after=STALLED), times=1)
    return faulty_registry.add("slow", "1", images.image([LAYER]))


def environ_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def pids_of(uid: int, word: str) -> list[int]:
    """Return the processes of UID with WORD in their commands."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if path.stat().st_uid == uid and word.encode() in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


def until_it_builds(service: Service) -> str:
    """Wait until a job is in the middle of its build; return its id."""
    until(lambda: len(service.registry.asked(DIGEST)) > service.builds)
    service.builds += 1
    # Others may run: a Slurm that has been killed runs again what had ended just before.
    return service.jobs()[-1]


def until_gone(service: Service, job: str) -> None:
    """Wait until JOB has ended."""
    until(lambda: job not in service.cluster.jobs())


def test_a_job_builds_what_the_worker_itself_would(
    service: Service, run: Runner, registry: str
) -> None:
    files = [images.file(f"d{n % 7}/f{n}", os.urandom(n * 100)) for n in range(100)]
    directories = [images.directory(f"d{n}") for n in range(7)]
    images.push(registry, "same", "1", images.image([images.layer([*directories, *files])]))
    name = f"{registry}/same:1"
    with service.worker():
        end = service.end_of(service.ask(name))
        assert (end.state, end.fact) == ("READY", "")
    assert run("shifterimg", "pull", name).returncode == 0
    path = Path("images") / end.image_id[:2] / f"{end.image_id}.squashfs"
    assert (service.store / path).read_bytes() == (run.store / path).read_bytes()
    assert len(service.jobs()) == 1
    assert service.left_over() == []


def test_a_job_tells_in_bytes_how_far_it_is(
    service: Service, faulty_registry: faulty.Registry
) -> None:
    faulty_registry.fault(DIGEST, Drip(after=STALLED, seconds=0.1))
    with service.worker():
        request = service.ask(faulty_registry.add("dripping", "1", images.image([LAYER])))
        until(lambda: service.newest(request).get("done", 0) >= STALLED)
        status = service.newest(request)
    assert (status["state"], status["total"]) == ("PULLING", len(LAYER.blob))


def test_what_is_wrong_with_an_image_is_said_as_by_the_worker_itself(
    service: Service, faulty_registry: faulty.Registry
) -> None:
    short = faulty_registry.add("short", "1", images.image([LAYER]))
    faulty_registry.fault(DIGEST, Body(LAYER.blob[:-1]))
    broken = images.layer([images.file("x", b"x"), images.file("x/y", b"y")])
    odd = faulty_registry.add("odd", "1", images.image([broken]))
    lacking = faulty_registry.add("lacking", "1", images.image([images.layer([])]))
    faulty_registry.fault(images.sha256(images.layer([]).blob), faulty.Answer(404))
    ends = []
    for kind in ("slurm", "local"):
        service.configure(kind=kind)
        with service.worker():
            asked = [service.ask(name) for name in (short, odd, lacking)]
            ends.append([service.end_of(request) for request in asked])
    assert ends[0] == ends[1]
    assert [end.exit_code for end in ends[0]] == [65, 65, 65]
    assert len(service.jobs()) == 3
    assert service.left_over() == []


def test_a_job_that_is_cancelled_is_a_request_queued_again(service: Service, slow: str) -> None:
    with service.worker():
        request = service.ask(slow)
        service.cluster("scancel", until_it_builds(service))
        assert service.end_of(request).state == "READY"
    assert len(service.jobs()) == 2
    assert service.left_over() == []


def test_a_job_whose_node_dies_is_a_request_queued_again(service: Service, slow: str) -> None:
    with service.worker():
        request = service.ask(slow)
        service.cluster.crash(service.cluster.node_of(until_it_builds(service)))
        assert service.end_of(request).state == "READY"
    assert len(service.jobs()) == 2


def test_jobs_that_are_lost_again_and_again_are_an_error(
    service: Service, slow: str, faulty_registry: faulty.Registry
) -> None:
    faulty_registry.fault(DIGEST, Stall(after=STALLED))
    with service.worker():
        request = service.ask(slow)
        for _ in range(3):
            job = until_it_builds(service)
            service.cluster("scancel", job)
            until_gone(service, job)
        end = service.end_of(request)
        assert (end.state, end.exit_code) == ("FAILURE", 71)
        assert f"the batch job {job} ended without a result: CANCELLED" in end.fact
        (log,) = service.store.glob("jobs/*")
        assert str(log) in end.hint
        assert "CANCELLED" in log.read_text()
        # Whoever asks again begins anew.
        faulty_registry.heal()
        assert service.end_of(service.ask(slow)).state == "READY"


def test_a_worker_that_is_told_to_stop_cancels_its_jobs_and_hands_back(
    service: Service, slow: str
) -> None:
    with service.worker() as worker:
        request = service.ask(slow)
        until_it_builds(service)
        worker.terminate()
        worker.wait(30)
        assert service.waiting() == [request]
        assert service.newest(request)["state"] == "PENDING"
        until(lambda: not service.cluster.jobs())
        assert service.left_over() == []


def test_the_job_of_a_killed_worker_ends_and_another_builds(service: Service, slow: str) -> None:
    with service.worker() as worker:
        request = service.ask(slow)
        orphan = until_it_builds(service)
        worker.kill()
    with service.worker():
        assert service.end_of(request).state == "READY"
        until_gone(service, orphan)
    assert len(service.jobs()) == 2
    assert service.left_over() == []


def test_a_job_that_begins_after_its_worker_was_killed_ends_by_itself(
    service: Service, slow: str
) -> None:
    service.configure(kind="slurm", extra=["hold"])
    with service.worker() as worker:
        request = service.ask(slow)
        until(lambda: len(service.jobs()) == 1)
        worker.kill()
    (orphan,) = service.jobs()
    service.cluster("scontrol", "release", orphan)
    until_it_builds(service)
    until_gone(service, orphan)
    assert not any((service.store / "images").rglob("*.squashfs"))
    service.configure(kind="slurm")
    with service.worker():
        assert service.end_of(request).state == "READY"
    assert service.left_over() == []


def test_equal_requests_share_one_job(service: Service, slow: str) -> None:
    with service.worker(), service.worker():
        first = [service.ask(slow) for _ in range(3)]
        job = until_it_builds(service)
        later = [service.ask(slow) for _ in range(3)]
        until(lambda: not service.waiting())
        assert list(service.cluster.jobs()) == [job]
        service.cluster("scancel", job)
        assert {service.end_of(request).state for request in first + later} == {"READY"}
    assert len(service.jobs()) == 2


def test_a_request_that_is_cancelled_while_its_job_runs_stops_the_job(
    service: Service, slow: str
) -> None:
    with service.worker():
        request = service.ask(slow)
        until_it_builds(service)
        (service.store / "status" / request / "cancel").touch()
        assert service.end_of(request).state == "CANCELLED"
        until(lambda: not service.cluster.jobs())
    assert service.left_over() == []


def test_cron_has_no_more_jobs_than_the_site_wants(
    service: Service, faulty_registry: faulty.Registry
) -> None:
    names = []
    for number in range(4):
        image = images.image([images.layer([images.file("x", os.urandom(3_000_000))])])
        names.append(faulty_registry.add("many", str(number), image))
    # One of them is for others than who has all the rest.
    service.configure(kind="slurm", jobs=3)
    asked = [service.ask(name) for name in names]
    most = 0
    with service.worker("drain") as worker:
        while worker.poll() is None:
            most = max(most, len(os.listdir(service.store / "jobs")))
    assert worker.returncode == 0
    assert {service.state_of(request) for request in asked} == {"READY"}
    assert most == 2


def test_a_directory_of_a_job_whose_removal_was_interrupted_is_removed(service: Service) -> None:
    layout = Layout(service.store)
    desk = Desk.new(layout, "host.1.0123abcd")
    desk.make()
    (desk.path / "0000000001.json").touch()
    # As far as it comes if a signal ends the worker just then.
    desk.path.rename(desk.path.with_name(f".{desk.path.name}"))
    desk.remove()
    assert os.listdir(layout.jobs) == []


def test_while_slurm_does_not_answer_requests_wait(service: Service, slow: str) -> None:
    controller = service.cluster.processes["slurmctld"]
    controller.send_signal(signal.SIGSTOP)
    with service.worker():
        request = service.ask(slow)
        until(lambda: "Slurm does not take jobs" in service.log)
        assert service.state_of(request) == "PENDING"
        # It takes the job, of which it has said nothing, and has to take it once more.
        controller.send_signal(signal.SIGCONT)
        service.cluster("scancel", until_it_builds(service))
        assert service.end_of(request).state == "READY"
    assert service.left_over() == []


def test_a_slurm_that_stays_away_is_busy_and_one_that_refuses_is_wrongly_configured(
    service: Service, slow: str
) -> None:
    service.configure(kind="slurm", partition="nowhere")
    with service.worker():
        end = service.end_of(service.ask(slow))
        assert (end.exit_code, end.fact) == (
            78,
            "Slurm refuses the job: Batch job submission failed: Invalid partition name specified",
        )
    service.cluster.kill("slurmctld")
    service.configure(kind="slurm", patience_seconds=0)
    with service.worker():
        end = service.end_of(service.ask(slow))
        assert (end.exit_code, end.hint) == (75, "ask again later")
        assert end.fact.startswith("Slurm does not take jobs: ")
    assert service.left_over() == []


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("Batch job submission failed: Socket timed out on send/recv operation", 75),
        ("Batch job submission failed: Unable to contact slurm controller (connect failure)", 75),
        ("Batch job submission failed: Protocol authentication error", 75),
        (
            "Batch job submission failed: Job violates accounting/QOS policy (job submit limit,"
            " user's size and/or time limits)",
            75,
        ),
        ("Batch job submission failed: Invalid qos specification", 78),
        ("Batch job submission failed: Requested node configuration is not available", 78),
        ("Invalid --mem specification", 78),
    ],
)
def test_a_refusal_is_busy_only_if_asking_later_may_help(said: str, code: int) -> None:
    assert door.refusal("").exit_code == 75
    error = door.refusal(f"sbatch: something before\nsbatch: error: {said}\n")
    assert error.exit_code == code
    assert str(error).endswith(f": {said}")


def test_a_job_that_cannot_be_cancelled_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "No such file" in door.cancel(["1"])


def test_a_worker_that_cannot_submit_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    door.check(tmp_path)
    with pytest.raises(BadConfig, match=re.escape("'/a b'")):
        door.check(Path("/a b"))
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(BadConfig, match="no 'sbatch' on this host"):
            door.check(tmp_path)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(BadConfig, match="submitit cannot be loaded"):
        door.check(tmp_path)


def test_a_user_imports_by_way_of_a_job(service: Service, asker: Runner) -> None:
    layout = asker.home / "layout"
    layouts.write(layout, images.image([LAYER]), "1")
    subprocess.run(["chmod", "-R", "a+rX", asker.home], check=True)
    with service.worker():
        done = asker("shifterimg", "import", layout, f"localhost/{asker.user.name}/x:1")
        assert done.returncode == 0, done.stderr
    assert len(service.jobs()) == 1


def test_a_job_has_of_its_workers_environment_what_it_needs_and_no_more(
    service: Service, slow: str
) -> None:
    given = {"SECRET": "of-the-worker", "SBATCH_PARTITION": "nowhere", "no_proxy": "localhost"}
    with service.worker(env=given):
        service.ask(slow)
        until_it_builds(service)
        found = [environ_of(pid) for pid in pids_of(service.site.user.uid, "submitit")]
    assert found
    for environ in found:
        assert b"of-the-worker" not in environ
        # Else Slurm would have run a login shell.
        assert b"SLURM_GET_USER_ENV" not in environ
        assert b"no_proxy=localhost" in environ
