"""Workers on a site's store: a service account works, ordinary users ask."""

import os
import signal
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from shifter_lite.queue import locks
from tests.conftest import Runner
from tests.helpers import faulty, images
from tests.helpers.processes import running as running
from tests.helpers.processes import until as until

_PATIENCE = 60.0


def small(text: bytes = b"x") -> images.Image:
    return images.image([images.layer([images.file("x", text)])])


def spool(store: Path, state: str) -> list[str]:
    return sorted(path.name for path in (store / "spool" / state).rglob("*") if path.is_file())


def test_a_user_asks_and_the_sites_worker_answers(
    site: Runner, asker: Runner, registry: str
) -> None:
    images.push(registry, "site", "1", small())
    with running(site, "shifter-worker", "run"):
        done = asker("shifterimg", "pull", f"{registry}/site:1")
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("status: READY\n")
        failed = asker("shifterimg", "pull", f"{registry}/site:2")
        assert failed.returncode == 66
        assert f"'{registry}/site:2'" in failed.stderr
    (done_name,) = spool(site.store, "done")
    (path,) = (site.store / "spool/done").rglob(done_name)
    assert path.stat().st_uid == asker.user.uid
    assert len(spool(site.store, "failed")) == 1
    assert os.listdir(site.store / "status") == []
    assert asker("shifterimg", "lookup", f"{registry}/site:1").returncode == 0


def test_cron_drains_what_users_have_asked_for(site: Runner, asker: Runner, registry: str) -> None:
    images.push(registry, "cron", "1", small())
    with running(asker, "shifterimg", "pull", f"{registry}/cron:1") as pull:
        until(lambda: len(os.listdir(site.store / "spool/new")) == 1)
        assert site("shifter-worker", "drain").returncode == 0
        output, _ = pull.communicate(timeout=_PATIENCE)
        assert output.endswith("status: READY\n")
    assert site("shifter-worker", "drain").returncode == 0


def test_what_dead_workers_left_is_removed_but_nothing_that_is_not_theirs(site: Runner) -> None:
    left = [
        site.store / "images" / ".building.host.1.0123abcd",
        site.store / "index" / ".host.1.0123abcd",
    ]
    # NFS calls so what was removed while it was open; snapshots are directories.
    nfs = site.store / "images" / ".nfs0000000000000001"
    snapshots = site.store / "images" / ".snapshots"
    for path in left:
        path.write_bytes(b"")
    nfs.write_bytes(b"")
    snapshots.mkdir()
    done = site("shifter-worker", "drain")
    assert done.returncode == 0, done.stderr
    assert not any(path.exists() for path in left)
    assert nfs.exists()
    nfs.unlink()
    snapshots.rmdir()


def test_a_worker_answers_before_it_tidies_up(
    site: Runner, asker: Runner, faulty_registry: faulty.Registry
) -> None:
    image = small()
    digest = image.content["config"]["digest"]
    # It comes a byte at a time, so that there is a while to look.
    faulty_registry.fault(digest, faulty.Drip(10, seconds=0.02))
    name = faulty_registry.add("first", "1", image)
    left = site.store / "images" / ".building.host.1.0123abcd"
    left.write_bytes(b"")
    # A worker that has nothing to do yet may well tidy up.
    with running(asker, "shifterimg", "pull", name) as pull:
        until(lambda: len(os.listdir(site.store / "spool/new")) == 1)
        with running(site, "shifter-worker", "run"):
            until(lambda: len(faulty_registry.asked(digest)) == 1)
            assert left.exists()
            _, errors = pull.communicate(timeout=_PATIENCE)
            assert pull.returncode == 0, errors
            until(lambda: not left.exists())


def test_a_drain_beside_a_live_worker_does_no_harm(
    site: Runner, asker: Runner, registry: str
) -> None:
    with running(site, "shifter-worker", "run"):
        for number in range(3):
            images.push(registry, "beside", str(number), small(b"%d" % number))
            name = f"{registry}/beside:{number}"
            with running(asker, "shifterimg", "pull", name) as pull:
                assert site("shifter-worker", "drain").returncode == 0
                _, errors = pull.communicate(timeout=_PATIENCE)
                assert pull.returncode == 0, errors
    assert len(spool(site.store, "done")) == 3
    assert spool(site.store, "new") == spool(site.store, "work") == []


def test_requests_and_statuses_are_for_their_owner_and_the_worker_only(
    site: Runner, asker: Runner, registry: str
) -> None:
    with running(asker, "shifterimg", "pull", f"{registry}/private:1"):
        until(lambda: len(os.listdir(site.store / "spool/new")) == 1)
        (name,) = os.listdir(site.store / "spool/new")
        request = (site.store / "spool/new" / name).stat()
        status = (site.store / "status" / name).stat()
        assert request.st_gid == status.st_gid == site.user.gid
        assert stat.S_IMODE(request.st_mode) == 0o640
        assert stat.S_IMODE(status.st_mode) & 0o777 == 0o770
        for directory in ("spool/new", "spool/tmp", "status"):
            listed = subprocess.run(
                [*asker.user.prefix, "ls", site.store / directory], capture_output=True
            )
            assert listed.returncode != 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_stop_hands_its_work_back(
    site: Runner, asker: Runner, faulty_registry: faulty.Registry, number: signal.Signals
) -> None:
    image = small(os.urandom(100_000))
    digest = image.content["layers"][0]["digest"]
    faulty_registry.add("slow", "1", image)
    faulty_registry.fault(digest, faulty.Stall(1000))
    with running(asker, "shifterimg", "pull", f"{faulty_registry.address}/slow:1") as pull:
        with running(site, "shifter-worker", "run") as worker:
            until(lambda: len(faulty_registry.asked(digest)) == 1)
            worker.send_signal(number)
            _, log = worker.communicate(timeout=_PATIENCE)
            assert worker.returncode in (128 + number, 0)
            assert "Traceback" not in log
        assert len(spool(site.store, "new")) == 1
        assert spool(site.store, "work") == []
        assert not list((site.store / "locks").glob("worker.*"))
        assert not list((site.store / "cache").rglob(".*"))
        faulty_registry.heal()
        assert site("shifter-worker", "drain").returncode == 0
        pull.communicate(timeout=_PATIENCE)
        assert pull.returncode == 0


def test_a_pull_that_is_interrupted_takes_its_request_back(
    run: Runner, faulty_registry: faulty.Registry
) -> None:
    image = small(os.urandom(100_000))
    digest = image.content["layers"][0]["digest"]
    faulty_registry.add("slow", "1", image)
    faulty_registry.fault(digest, faulty.Stall(1000))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        before = len(faulty_registry.asked(digest))
        with running(run, "shifterimg", "pull", f"{faulty_registry.address}/slow:1") as pull:
            until(lambda before=before: len(faulty_registry.asked(digest)) > before)  # type: ignore[misc]
            pull.send_signal(number)
            _, errors = pull.communicate(timeout=_PATIENCE)
            assert pull.returncode == 128 + number
            assert errors.strip() == ""
        left = [path for path in run.store.rglob("*") if not path.is_dir()]
        # What came of the layer is kept, for the next pull to go on with.
        kept = [path for path in left if path.suffix not in (".part", ".lock")]
        assert kept == [run.store / "store.json"]


def test_a_bug_that_one_request_shows_does_not_stop_the_worker(
    site: Runner, asker: Runner, registry: str, tmp_path: Path
) -> None:
    images.push(registry, "after", "1", small())
    # As a dependency that has changed under us.
    broken = site.home / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "from oras.auth.token import TokenAuth\n"
        "def request_token(*_): raise TypeError('shown by a test')\n"
        "TokenAuth.request_token = request_token\n"
    )
    buggy = replace(site, extra={"PYTHONPATH": str(broken)})
    with faulty.serving() as odd, running(buggy, "shifter-worker", "run") as worker:
        odd.add("x", "1", small())
        odd.auth = faulty.Token()
        done = asker("shifterimg", "pull", f"{odd.address}/x:1")
        assert done.returncode == 71
        assert "a bug in shifter_lite" in done.stderr
        assert asker("shifterimg", "pull", f"{registry}/after:1").returncode == 0
        assert worker.poll() is None


def test_a_worker_log_has_one_line_an_event_and_names_who_and_what(
    site: Runner, asker: Runner, registry: str
) -> None:
    images.push(registry, "log", "1", small())
    for tag in ("1", "2"):
        with running(asker, "shifterimg", "pull", f"{registry}/log:{tag}") as pull:
            until(lambda: len(os.listdir(site.store / "spool/new")) == 1)
            done = site("shifter-worker", "drain")
            pull.communicate(timeout=_PATIENCE)
        (line,) = done.stderr.splitlines()
        assert f"-{asker.user.uid}-" in line
        assert f"{registry}/log:{tag}" in line
        assert ("INFO ready" if tag == "1" else "WARNING failed") in line


def test_a_worker_without_a_store_says_so(site: Runner) -> None:
    for command in ("run", "drain"):
        done = site("shifter-worker", "--store", "/nowhere", command)
        assert done.returncode == 72
        assert done.stderr.startswith("shifter-worker: there is no store at '/nowhere'\n  hint: ")


def test_a_layer_that_nobody_who_lives_has_locked_is_not_waited_for(
    run: Runner, faulty_registry: faulty.Registry
) -> None:
    image = small(os.urandom(1000))
    (layer,) = image.content["layers"]
    faulty_registry.add("abandoned", "1", image)
    name = f"{faulty_registry.address}/abandoned:1"
    assert run("shifterimg", "pull", f"{faulty_registry.address}/none:1").returncode == 66
    lock = run.store / "locks" / f"blob.{layer['digest'].removeprefix('sha256:')[:3]}.lock"
    # As of a worker on a node that hangs: it is buried, but has its locks.
    with locks.lock(lock):
        lock.chmod(0o666)
        # A stall of a living worker would be borne much longer.
        done = run("shifterimg", "pull", name, timeout=60)
        assert done.returncode == 0, done.stderr
    assert not [path for path in (run.store / "cache").rglob("*") if ".part" in path.name]
