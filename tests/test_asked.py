"""Users see how their requests stand, wait for them and cancel them, and nobody else's."""

import json
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shifter_lite.request import Status
from tests.conftest import Runner
from tests.helpers import faulty, images, users
from tests.helpers.processes import running, until
from tests.helpers.users import User
from tests.test_end_to_end import README
from tests.test_worker import small, spool

_PATIENCE = 60.0
NOBODYS = "1700000000-{uid}-0123456789abcdef"


def asked(runner: Runner, name: str, *options: str) -> str:
    """Ask for the image NAME without waiting; return the request's name."""
    done = runner("shifterimg", "pull", "--no-wait", *options, name)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def queue(runner: Runner) -> list[dict[str, object]]:
    done = runner("shifterimg", "queue", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


def notes(runner: Runner) -> list[Path]:
    return list((runner.home / ".local/state/shifter-lite/requests").glob("*/*"))


@pytest.fixture(scope="session")
def neighbour() -> Iterator[User]:
    """Another ordinary user."""
    with users.ordinary("other") as made:
        yield made


@pytest.fixture
def other(asker: Runner, neighbour: User, workdir: Path) -> Runner:
    """What runs programs as another user of the site's store."""
    home = workdir / "neighbour"
    home.mkdir()
    os.chown(home, neighbour.uid, neighbour.gid)
    return replace(asker, user=neighbour, home=home)


# ------------------------------------------------------------------------- asking without waiting


def test_who_does_not_wait_gets_the_requests_name_and_finds_it_in_his_queue(
    site: Runner, asker: Runner, registry: str
) -> None:
    images.push(registry, "queue", "1", small())
    name = asked(asker, f"{registry}/queue:1", "--platform", "linux/amd64")
    assert spool(site.store, "new") == [name]
    (row,) = queue(asker)
    assert row["request"] == name
    assert row["image"] == f"{registry}/queue:1"
    assert row["platform"] == "linux/amd64"
    assert row["time"] == int(name.split("-")[0])
    assert row["state"] == "PENDING"
    (line,) = asker("shifterimg", "queue").stdout.splitlines()
    assert line.split()[:2] == [name, "PENDING"]
    assert line.endswith(f" {registry}/queue:1")
    assert asker("shifterimg", "status", name).stdout == f"{line}\n"
    assert json.loads(asker("shifterimg", "status", "--json", name).stdout) == row
    assert site("shifter-worker", "drain").returncode == 0
    (row,) = queue(asker)
    assert row["state"] == "READY"
    assert row["image_id"] == asker("shifterimg", "lookup", f"{registry}/queue:1").stdout.strip()


def test_waiting_ends_as_a_pull_would_and_the_request_is_forgotten(
    site: Runner, asker: Runner, registry: str
) -> None:
    images.push(registry, "waited", "1", small())
    good, bad = (asked(asker, f"{registry}/waited:{tag}") for tag in (1, 2))
    with running(asker, "shifterimg", "wait", good) as waiting:
        assert site("shifter-worker", "drain").returncode == 0
        output, errors = waiting.communicate(timeout=_PATIENCE)
    assert (waiting.returncode, errors) == (0, "")
    assert output.endswith(f" Pulling Image: docker:{registry}/waited:1, status: READY\n")
    failed = asker("shifterimg", "wait", f"{registry}/waited:2")
    pulled = asker("shifterimg", "status", bad)
    assert failed.returncode == 66
    assert f"'{registry}/waited:2'" in failed.stderr
    assert pulled.returncode == 66
    assert queue(asker) == []
    assert notes(asker) == []
    assert os.listdir(site.store / "status") == []


def test_a_request_that_was_noted_elsewhere_is_known_by_its_name(
    site: Runner, asker: Runner, registry: str, workdir: Path
) -> None:
    images.push(registry, "elsewhere", "1", small())
    home = workdir / "another"
    home.mkdir()
    os.chown(home, asker.user.uid, asker.user.gid)
    there = replace(asker, home=home)
    name = asked(there, f"{registry}/elsewhere:1")
    assert queue(asker) == []
    assert asker("shifterimg", "status", name).stdout.split()[:2] == [name, "PENDING"]
    assert site("shifter-worker", "drain").returncode == 0
    image_id = asker("shifterimg", "lookup", f"{registry}/elsewhere:1").stdout.strip()
    done = asker("shifterimg", "wait", name)
    assert done.stdout.endswith(f" Pulling Image: id:{image_id}, status: READY\n")
    assert queue(there) == []


def test_an_image_stands_for_its_only_request(site: Runner, asker: Runner, registry: str) -> None:
    first = asked(asker, f"{registry}/only:1")
    assert asker("shifterimg", "status", f"{registry}/only:1").stdout.split()[0] == first
    second = asked(asker, f"{registry}/only:1")
    several = asker("shifterimg", "cancel", f"{registry}/only:1")
    assert several.returncode == 64
    assert first in several.stderr
    assert second in several.stderr
    none = asker("shifterimg", "wait", f"{registry}/only:2")
    assert none.returncode == 66
    bad = asker("shifterimg", "wait", "Not A Name")
    assert bad.returncode == 64
    assert len(spool(site.store, "new")) == 2


def test_an_import_need_not_be_waited_for(site: Runner, asker: Runner) -> None:
    (asker.home / "nothing").mkdir(mode=0o755)
    name = f"localhost/{asker.user.name}/tool:1"
    done = asker("shifterimg", "import", "--no-wait", asker.home / "nothing", name)
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = queue(asker)
    assert (row["request"], row["image"]) == (done.stdout.strip(), name)


def test_on_a_single_box_who_waits_does_the_work(run: Runner, registry: str) -> None:
    images.push(registry, "single", "1", small())
    done = run("shifterimg", "pull", "--no-wait", f"{registry}/single:1")
    assert done.returncode == 0
    assert "no worker is running" in done.stderr
    (row,) = queue(run)
    assert row["state"] == "PENDING"
    waited = run("shifterimg", "wait", done.stdout.strip())
    assert waited.returncode == 0, waited.stderr
    assert waited.stdout.endswith("status: READY\n")
    assert queue(run) == []


def test_on_a_single_box_a_request_that_is_lost_is_not_waited_for(
    run: Runner, registry: str
) -> None:
    name = run("shifterimg", "pull", "--no-wait", f"{registry}/lost:1").stdout.strip()
    (run.store / "spool/new" / name).unlink()
    assert queue(run)[0]["state"] == "PENDING"
    done = run("shifterimg", "wait", name)
    assert done.returncode == 66
    assert f"'{name}'" in done.stderr


def test_the_readmes_commands_do_what_it_says(site: Runner, asker: Runner, registry: str) -> None:
    images.push(registry, "readme", "1", small())
    (block,) = re.findall(r"```sh\n(shifterimg pull --no-wait (?:(?!```).*\n)*)```", README)
    commands = [line.partition("#")[0].split() for line in block.splitlines()]
    assert [words[1] for words in commands] == ["pull", "queue", "status", "wait"]
    outputs = []
    with running(site, "shifter-worker", "run"):
        for program, *arguments in commands:
            words = [re.sub("^debian:12$", f"{registry}/readme:1", each) for each in arguments]
            done = asker(program, *words)
            assert (done.returncode, done.stderr) == (0, "")
            outputs.append(done.stdout)
    name = outputs[0].strip()
    assert [each.split()[0] for each in outputs[:3]] == [name] * 3
    assert outputs[3].endswith(f" Pulling Image: docker:{registry}/readme:1, status: READY\n")


# -------------------------------------------------------------------------------------- the notes


def test_notes_are_for_their_owner_only(site: Runner, asker: Runner) -> None:
    asked(asker, "debian:12")
    (note,) = notes(asker)
    for path in (note.parent, note.parent.parent, note.parent.parent.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    assert note.stat().st_uid == asker.user.uid
    assert note.parent.name == json.loads((site.store / "store.json").read_bytes())["id"]


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_home_that_cannot_be_written_stops_no_pull(
    site: Runner, asker: Runner, registry: str, mode: int
) -> None:
    images.push(registry, "homeless", "1", small())
    (asker.home / ".local").mkdir()
    (asker.home / ".local").chmod(mode)
    done = asker("shifterimg", "pull", "--no-wait", f"{registry}/homeless:1")
    assert done.returncode == 0
    assert spool(site.store, "new") == [done.stdout.strip()]
    (warning,) = done.stderr.splitlines()
    assert "'shifterimg queue' will not show it" in warning
    with running(site, "shifter-worker", "run"):
        pulled = asker("shifterimg", "pull", f"{registry}/homeless:1")
        assert (pulled.returncode, pulled.stderr) == (0, "")
        assert asker("shifterimg", "wait", done.stdout.strip()).returncode == 0
    assert queue(asker) == []
    assert asker("shifterimg", "queue", env={"HOME": ""}).returncode == 0


def test_notes_that_are_none_are_passed_over(site: Runner, asker: Runner) -> None:
    name = asked(asker, "debian:12")
    (note,) = notes(asker)
    good = json.loads(note.read_bytes())
    bad: list[object] = [
        {**good, "image": "\x1b[2J"},
        {**good, "platform": "\n"},
        {**good, "v": 2},
        {**good, "image": 7},
        [],
        "x" * 100_000,
    ]
    number = iter(range(10**15, 10**16))
    now, uid = int(time.time()), asker.user.uid
    written = [json.dumps(each).encode() for each in bad]
    for data in [*written, b"", b"\xff", b"[" * 60_000, b"9" * 60_000]:
        path = note.with_name(f"{now}-{uid}-{next(number)}")
        path.write_bytes(data)
        path.chmod(0o644)
    os.mkfifo(note.with_name(f"{now}-{uid}-{next(number)}"))
    note.with_name(f"{now}-{uid}-{next(number)}").mkdir()
    note.with_name(f"{now}-{uid}-{next(number)}").symlink_to("/dev/zero")
    note.with_name(f"{now}-{uid + 1}-{next(number)}").write_bytes(note.read_bytes())
    note.with_name("..\n").write_bytes(note.read_bytes())
    assert [row["request"] for row in queue(asker)] == [name]
    assert asker("shifterimg", "queue").stdout.count("\n") == 1


def test_what_is_noted_and_not_there_is_not_shown_and_goes_when_it_is_old(
    site: Runner, asker: Runner
) -> None:
    asked(asker, "debian:12")
    (note,) = notes(asker)
    now = int(time.time())
    for days in (1, 8, 10):
        for dot in ("", "."):
            old = note.with_name(f"{dot}{now - days * 86400}-{asker.user.uid}-{days:016x}")
            old.write_bytes(note.read_bytes())
            os.chown(old, asker.user.uid, asker.user.gid)
    assert len(queue(asker)) == 1
    asked(asker, "debian:12")
    assert len(queue(asker)) == 2
    assert len(notes(asker)) == 2 + 4


def test_a_home_on_many_stores_shows_the_requests_of_the_one_that_is_meant(
    site: Runner, asker: Runner, service: User, workdir: Path
) -> None:
    asked(asker, "debian:12")
    another = workdir / "service/another"
    assert site("shifter-admin", "--store", str(another), "init").returncode == 0
    assert json.loads(asker("shifterimg", "queue", "--json", "--store", str(another)).stdout) == []
    assert len(queue(asker)) == 1


@pytest.mark.parametrize("where", ["new", "status"])
def test_ten_thousand_noted_requests_are_listed(site: Runner, asker: Runner, where: str) -> None:
    asked(asker, "debian:12")
    (note,) = notes(asker)
    now = int(time.time())
    for number in range(10_000):
        name = f"{now}-{asker.user.uid}-{number:016x}"
        note.with_name(name).write_bytes(note.read_bytes())
        os.chown(note.with_name(name), asker.user.uid, asker.user.gid)
        if where == "status":
            path = site.store / "status" / name
            path.mkdir(mode=0o2770)
            os.chown(path, asker.user.uid, service_group(site))
    assert len(queue(asker)) == (1 if where == "new" else 10_001)
    assert asker("shifterimg", "queue").returncode == 0


def service_group(site: Runner) -> int:
    return site.user.gid


# -------------------------------------------------------------------------------------- cancelling


def test_a_request_that_nobody_has_is_cancelled_at_once_and_who_waits_hears_it(
    site: Runner, asker: Runner
) -> None:
    with running(asker, "shifterimg", "pull", "debian:12") as pull:
        until(lambda: len(spool(site.store, "new")) == 1)
        (name,) = spool(site.store, "new")
        done = asker("shifterimg", "cancel", name)
        assert (done.returncode, done.stdout) == (0, f"{name} CANCELLED\n")
        _, errors = pull.communicate(timeout=_PATIENCE)
    assert pull.returncode == 79
    assert errors == "shifterimg: the request was cancelled\n"
    assert spool(site.store, "new") == spool(site.store, "failed") == []
    assert queue(asker) == []
    assert asker("shifterimg", "wait", name).returncode == 79
    assert asker("shifterimg", "cancel", name).returncode == 0


def test_what_has_ended_otherwise_is_not_cancelled(
    site: Runner, asker: Runner, registry: str
) -> None:
    images.push(registry, "late", "1", small())
    good, bad = (asked(asker, f"{registry}/late:{tag}") for tag in (1, 2))
    assert site("shifter-worker", "drain").returncode == 0
    ready = asker("shifterimg", "cancel", good)
    assert ready.returncode == 0
    assert ready.stdout.endswith("status: READY\n")
    assert asker("shifterimg", "cancel", bad).returncode == 66
    assert len(queue(asker)) == 2


def stalling(registry: faulty.Registry, name: str) -> str:
    """Add an image called NAME whose layer never comes; return the layer's digest."""
    image = small(os.urandom(100_000))
    digest: str = image.content["layers"][0]["digest"]
    registry.add(name, "1", image)
    registry.fault(digest, faulty.Stall(1000))
    return digest


def test_a_build_that_is_cancelled_stops_and_leaves_nothing(
    site: Runner, asker: Runner, faulty_registry: faulty.Registry
) -> None:
    digest = stalling(faulty_registry, "slow")
    with (
        running(site, "shifter-worker", "run"),
        running(asker, "shifterimg", "pull", f"{faulty_registry.address}/slow:1") as pull,
    ):
        until(lambda: len(faulty_registry.asked(digest)) == 1)
        (row,) = queue(asker)
        assert row["state"] == "PULLING"
        done = asker("shifterimg", "cancel", f"{faulty_registry.address}/slow:1")
        assert done.returncode == 0, done.stderr
        _, errors = pull.communicate(timeout=_PATIENCE)
        assert (pull.returncode, errors) == (79, "shifterimg: the request was cancelled\n")
        until(lambda: len(spool(site.store, "failed")) == 1)
    assert spool(site.store, "work") == spool(site.store, "done") == []
    assert queue(asker) == []


def test_a_pull_that_is_interrupted_while_a_worker_has_it_stops_the_build(
    site: Runner, asker: Runner, faulty_registry: faulty.Registry
) -> None:
    digest = stalling(faulty_registry, "slow")
    with running(site, "shifter-worker", "run"):
        with running(asker, "shifterimg", "pull", f"{faulty_registry.address}/slow:1") as pull:
            until(lambda: len(faulty_registry.asked(digest)) == 1)
            pull.send_signal(signal.SIGINT)
            _, errors = pull.communicate(timeout=_PATIENCE)
            assert (pull.returncode, errors.strip()) == (130, "")
        until(lambda: len(spool(site.store, "failed")) == 1)
    assert spool(site.store, "work") == spool(site.store, "new") == []
    assert notes(asker) == []


def test_a_wait_that_is_interrupted_lets_the_request_go_on(site: Runner, asker: Runner) -> None:
    name = asked(asker, "debian:12")
    with running(asker, "shifterimg", "wait", name) as waiting:
        time.sleep(1)
        waiting.send_signal(signal.SIGINT)
        waiting.communicate(timeout=_PATIENCE)
        assert waiting.returncode == 130
    assert spool(site.store, "new") == [name]
    assert len(queue(asker)) == 1


# --------------------------------------------------------------------------------- somebody else's


@pytest.mark.parametrize("command", ["status", "wait", "cancel"])
def test_nobody_else_sees_or_cancels_a_request(
    site: Runner, asker: Runner, other: Runner, command: str
) -> None:
    name = asked(asker, "debian:12")
    done = other("shifterimg", command, name)
    assert done.returncode == 77
    assert "not yours" in done.stderr
    assert done.stdout == ""
    assert queue(other) == []
    for path in (site.store / "spool/new" / name, site.store / "status" / name / "cancel"):
        tried = subprocess.run(
            [*other.user.prefix, "sh", "-c", f"rm -f {path}; touch {path}; ls {path.parent}"],
            capture_output=True,
            check=False,
        )
        assert tried.returncode != 0
    assert spool(site.store, "new") == [name]
    assert os.listdir(site.store / "status" / name) == []
    assert [row["state"] for row in queue(asker)] == ["PENDING"]


@pytest.mark.parametrize("command", ["status", "wait", "cancel"])
def test_what_others_have_made_under_a_users_name_tells_him_nothing(
    site: Runner, asker: Runner, other: Runner, command: str
) -> None:
    name = NOBODYS.format(uid=asker.user.uid)
    lie = Status(state="READY", image_id="ab" * 32).to_bytes()
    path = site.store / "status" / name
    script = (
        f"umask 0; mkdir {path} && cat >{path}/000001.json; touch {site.store}/spool/new/{name}"
    )
    subprocess.run([*other.user.prefix, "sh", "-c", script], input=lie, check=True)
    done = asker("shifterimg", command, name)
    assert done.returncode == 77
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["status", "wait", "cancel"])
def test_a_request_that_is_not_there_is_not_found(
    site: Runner, asker: Runner, command: str
) -> None:
    done = asker("shifterimg", command, NOBODYS.format(uid=asker.user.uid))
    assert done.returncode == 66
    assert done.stderr.startswith("shifterimg: there is no request '1700000000-")
