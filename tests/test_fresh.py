"""Pulls that the index answers: of what was just pulled, and where a registry does not answer."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import Runner, User, made_site
from tests.helpers import clocks, etc, faulty, images, layouts
from tests.helpers.hosts import on_host
from tests.helpers.processes import running
from tests.test_worker import spool

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make hosts of its own")
# What is no more fresh.  The clock of a host that asks may be an hour ahead of the store's.
_HALF_HOUR = 1800


def demo(text: bytes = b"demo") -> images.Image:
    return images.image([images.layer([images.file("x", text)])])


@pytest.fixture
def name(faulty_registry: faulty.Registry) -> str:
    """The name of an image in the registry."""
    faulty_registry.add("x", "1", demo())
    return f"{faulty_registry.address}/x:1"


def pulled(run: Runner, name: str, *options: str) -> str:
    """Pull NAME, which must succeed without a word of warning; return the image's id."""
    done = run("shifterimg", "pull", *options, name)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("status: READY\n")
    return run("shifterimg", "lookup", name).stdout.strip()


def asked(registry: faulty.Registry) -> int:
    """Return how often REGISTRY was asked for the manifest."""
    return len(registry.asked("manifests/1"))


# --------------------------------------------------------------------------- what was just pulled


def test_what_was_just_pulled_is_pulled_again_without_its_registry(
    run: Runner, faulty_registry: faulty.Registry, name: str
) -> None:
    image_id = pulled(run, name)
    assert asked(faulty_registry) == 1
    faulty_registry.add("x", "1", demo(b"new"))
    assert pulled(run, name) == image_id
    assert asked(faulty_registry) == 1
    assert pulled(run, name, "--refresh") != image_id
    assert asked(faulty_registry) == 2


@needs_root
def test_a_moved_tag_is_seen_after_a_minute_or_as_soon_as_the_site_says(
    run: Runner, faulty_registry: faulty.Registry, name: str
) -> None:
    image_id = pulled(run, name)
    faulty_registry.add("x", "1", demo(b"new"))
    early = on_host(run, "early", run.store, clock=30)
    assert pulled(early, name) == image_id
    # By a clock that is behind, nothing was just pulled: its time is still to come.
    behind = on_host(run, "behind", run.store, clock=-_HALF_HOUR)
    second = pulled(behind, name)
    assert second != image_id
    faulty_registry.add("x", "1", demo(b"newer"))
    never = on_host(run, "never", run.store, config="pull_fresh_seconds = 0")
    third = pulled(never, name)
    assert third != second
    faulty_registry.add("x", "1", demo(b"newest"))
    late = on_host(run, "late", run.store, clock=90)
    assert pulled(late, name) != third


@needs_root
def test_what_its_registry_has_just_confirmed_is_as_fresh_as_what_is_new(
    run: Runner, later: Runner, faulty_registry: faulty.Registry, name: str
) -> None:
    image_id = pulled(run, name)
    assert pulled(later, name) == image_id
    assert asked(faulty_registry) == 2
    faulty_registry.add("x", "1", demo(b"new"))
    other = on_host(run, "other", run.store, clock=_HALF_HOUR + 30)
    assert pulled(later, name) == pulled(other, name) == image_id
    assert asked(faulty_registry) == 2
    # Neither under another name, nor for long.
    faulty_registry.add("x", "2", demo())
    pulled(later, name.replace("x:1", "x:2"))
    assert len(faulty_registry.asked("manifests/2")) == 1
    assert pulled(on_host(run, "latest", run.store, clock=_HALF_HOUR + 90), name) != image_id
    assert sorted(os.listdir(run.store / "index")) == [f"images.{n:010}.cdb" for n in (1, 2, 3)]


def test_confirmations_are_removed_once_they_make_nothing_fresh(
    site: Runner, asker: Runner, name: str
) -> None:
    with running(site, "shifter-worker", "run"):
        pulled(asker, name)
        pulled(asker, name, "--refresh")
    made = list((site.store / "confirmed").iterdir())
    assert made
    for path in made:
        assert path.stat().st_size == 0
        os.utime(path, (0, 0))
    assert site("shifter-worker", "drain").returncode == 0
    assert os.listdir(site.store / "confirmed") == []


def test_what_was_just_pulled_needs_no_worker_and_no_request(
    site: Runner, asker: Runner, faulty_registry: faulty.Registry, name: str
) -> None:
    with running(site, "shifter-worker", "run"):
        image_id = pulled(asker, name)
    assert pulled(asker, name) == image_id
    assert spool(site.store, "new") == []
    assert os.listdir(site.store / "status") == []
    assert asked(faulty_registry) == 1


def test_a_worker_answers_without_the_registry_what_was_just_pulled(
    service: User, run: Runner, workdir: Path, faulty_registry: faulty.Registry, name: str
) -> None:
    one_at_a_time = "[queue]\nrunning_per_user = 1\n"
    site = made_site(service, workdir, etc.ASKS_THIS_HOST + one_at_a_time)
    asker = replace(run, store=site.store)
    # What asks later by its clock comes after the others.
    later = replace(run.user, prefix=(*run.user.prefix, *clocks.ahead(30, run.home)))
    requests = [
        asker("shifterimg", "pull", "--no-wait", *options, name, user=user).stdout.strip()
        for options, user in (
            ((), run.user),
            (("--platform", "linux/amd64"), run.user),
            (("--refresh",), later),
        )
    ]
    assert site("shifter-worker", "drain").returncode == 0
    # One fetch for the first two, who are equal, and one for who insists on that.
    assert asked(faulty_registry) == 2
    requests += [asker("shifterimg", "pull", "--no-wait", name).stdout.strip()]
    assert site("shifter-worker", "drain").returncode == 0
    assert asked(faulty_registry) == 2
    for request in requests:
        assert asker("shifterimg", "wait", request).returncode == 0


def test_an_image_whose_file_is_lost_or_cut_is_not_ready(
    run: Runner, faulty_registry: faulty.Registry, name: str
) -> None:
    pulled(run, name)
    path = Path(run("shifterimg", "path", name).stdout.strip())
    os.truncate(path, 4096)
    pulled(run, name)
    path.unlink()
    pulled(run, name)
    assert asked(faulty_registry) == 3
    assert run("shifter-admin", "verify").returncode == 0


def test_another_platform_was_not_just_pulled(
    run: Runner, faulty_registry: faulty.Registry
) -> None:
    both = {
        f"linux/{each}": images.image([images.layer([images.file("x")])], platform=f"linux/{each}")
        for each in ("amd64", "arm64")
    }
    faulty_registry.add("x", "1", images.index(both))
    name = f"{faulty_registry.address}/x:1"
    pulled(run, name, "--platform", "linux/amd64")
    assert asked(faulty_registry) == 1
    pulled(run, name, "--platform", "linux/arm64")
    assert asked(faulty_registry) == 2


def test_what_was_imported_under_localhost_is_in_no_registry(run: Runner) -> None:
    layouts.write(run.home / "layout", demo(), "it")
    name = "localhost/me/tool:1"
    assert run("shifterimg", "import", run.home / "layout", name).returncode == 0
    later = on_host(run, "later", run.store, clock=_HALF_HOUR) if os.geteuid() == 0 else run
    pulled(later, name)
    insisting = run("shifterimg", "pull", "--refresh", name)
    assert insisting.returncode == 75, insisting.stderr


@needs_root
def test_a_site_may_have_a_registry_that_is_called_localhost(
    run: Runner, faulty_registry: faulty.Registry, name: str
) -> None:
    config = f'[registries."localhost"]\nlocation = "http://{faulty_registry.address}"\n'
    pulled(on_host(run, "now", run.store, config=config), "localhost/x:1")
    pulled(on_host(run, "later", run.store, config=config, clock=_HALF_HOUR), "localhost/x:1")
    assert asked(faulty_registry) == 2


# ------------------------------------------------------------- registries that do not answer


@pytest.fixture
def later(run: Runner) -> Runner:
    """The user, half an hour later."""
    if os.geteuid() != 0:
        pytest.skip("only root may make hosts of its own")
    return on_host(run, "later", run.store, clock=_HALF_HOUR)


@pytest.mark.parametrize("status", [429, 503])
def test_what_is_there_is_ready_with_a_warning_where_a_registry_does_not_answer(
    run: Runner, later: Runner, faulty_registry: faulty.Registry, name: str, status: int
) -> None:
    image_id = pulled(run, name)
    faulty_registry.fault("1", faulty.Answer(status))
    done = later("shifterimg", "pull", name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f" Pulling Image: docker:{name}, status: READY\n")
    fact, hint = done.stderr.splitlines()
    assert fact.startswith("shifterimg: the registry ")
    assert str(status) in fact
    assert "ready is the image" in fact
    assert f"shifterimg pull --refresh {name}" in hint
    assert later("shifterimg", "lookup", name).stdout.strip() == image_id
    insisting = later("shifterimg", "pull", "--refresh", name)
    assert insisting.returncode == 75
    assert insisting.stdout.endswith("status: FAILURE\n")
    other = later("shifterimg", "pull", name.replace("x:1", "y:1"))
    assert other.returncode == 75


def test_so_it_is_where_nobody_listens_or_the_name_is_gone(
    run: Runner, later: Runner, registry: str
) -> None:
    images.push(registry, "library/fresh", "1", demo())
    config = '[registries."docker.io"]\nlocation = "{}"\n'
    now = on_host(run, "now", run.store, config=config.format(f"http://{registry}"))
    pulled(now, "fresh:1")
    for number, place in enumerate(("http://localhost:1", "https://no-such-host.invalid")):
        there = on_host(
            run, f"later-{number}", run.store, config=config.format(place), clock=_HALF_HOUR
        )
        done = there("shifterimg", "pull", "fresh:1")
        assert (done.returncode, "did not answer" in done.stderr) == (0, True)


@pytest.mark.parametrize(("status", "code"), [(401, 77), (403, 77), (404, 66)])
def test_an_answer_that_is_no_is_an_answer(
    run: Runner, later: Runner, faulty_registry: faulty.Registry, name: str, status: int, code: int
) -> None:
    pulled(run, name)
    faulty_registry.fault("1", faulty.Answer(status))
    done = later("shifterimg", "pull", name)
    assert done.returncode == code
    assert done.stdout.endswith("status: FAILURE\n")


def test_a_site_says_the_same_to_all_who_wait_and_in_the_queue(
    site: Runner, asker: Runner, faulty_registry: faulty.Registry, name: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be several users")
    with running(site, "shifter-worker", "run"):
        pulled(asker, name)
    faulty_registry.fault("1", faulty.Answer(500))
    requests = [asker("shifterimg", "pull", "--no-wait", name).stdout.strip() for _ in range(2)]
    insisting = asker("shifterimg", "pull", "--no-wait", "--refresh", name).stdout.strip()
    there = on_host(site, "later", site.store, clock=_HALF_HOUR)
    assert there("shifter-worker", "drain").returncode == 0
    rows = {
        row["request"]: row for row in json.loads(asker("shifterimg", "queue", "--json").stdout)
    }
    assert {rows[request]["state"] for request in requests} == {"READY"}
    assert "ready is the image" in asker("shifterimg", "status", requests[0]).stdout
    assert rows[insisting]["state"] == "FAILURE"
    for request in requests:
        done = asker("shifterimg", "wait", request)
        assert done.returncode == 0
        assert "ready is the image" in done.stderr
    assert asker("shifterimg", "wait", insisting).returncode == 75
