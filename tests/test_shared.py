"""Workers and users on several hosts, on a local and on a shared filesystem: nothing differs."""

import multiprocessing
import os
import re
import signal
import stat
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import pytest

from shifter_lite import durable
from shifter_lite.index import publish, resolve
from shifter_lite.layout import Layout
from shifter_lite.queue import status
from shifter_lite.records import Config, Entry
from shifter_lite.request import Status
from tests.conftest import Runner, User
from tests.helpers import faulty, gluster, hosts, images, spool, storm, users
from tests.helpers.crew import crewed
from tests.helpers.ends import Ends
from tests.helpers.processes import running as running
from tests.helpers.processes import until as until

# Workers that are silent for so long are dead, and requests of other nodes are found so soon.
CONFIG = "lease_seconds = 6\npoll_seconds = 0.5\n"


class Hosts:
    """Two hosts, on a store to which each has its own way; their clocks may be so wrong."""

    def __init__(
        self, ends: Ends, base: Runner, service: User, clocks: tuple[int, int] = (0, 0)
    ) -> None:
        self.ends = ends.under("store")
        on_host = partial(hosts.on_host, config=CONFIG)
        on_a = partial(on_host, name="host-a", store=self.ends.a, clock=clocks[0])
        on_b = partial(on_host, name="host-b", store=self.ends.b, clock=clocks[1])
        workers, clients = replace(base, user=service, home=base.home / "service"), base
        self.worker_a, self.worker_b = on_a(workers), on_b(workers)
        self.client_a, self.client_b = on_a(clients), on_b(clients)
        done = self.worker_a("shifter-admin", "init")
        assert done.returncode == 0, done.stderr

    @property
    def store(self) -> Path:
        """The store, as the first host has it."""
        return self.ends.a

    @property
    def generation(self) -> int:
        """The newest generation of the index."""
        return max(resolve.generations(self.store / "index"), default=0)

    def lying(self, *states: str) -> list[str]:
        """Return what lies in directories of the spool."""
        return [name for state in states for name in spool.lying(self.store, state)]


@pytest.fixture
def both(ends: Ends, run: Runner, service: User, workdir: Path) -> Hosts:
    """Two hosts on a new store."""
    workdir.chmod(0o755)
    return Hosts(ends, run, service)


def small(text: bytes = b"x") -> images.Image:
    return images.image([images.layer([images.file("x", text)])])


def named(log: str, word: str) -> list[str]:
    """Return the requests that lines of LOG with WORD are about."""
    return re.findall(rf" {word} request=([0-9]+-[0-9]+-[0-9a-f]+) ", log)


def said_in(logs: Path) -> str:
    """Return what workers have said whose logs are in the directory LOGS."""
    return "".join(path.read_text() for path in logs.iterdir())


# ------------------------------------------------------------------------------- both at work


def test_a_worker_on_one_host_answers_a_user_on_the_other(both: Hosts, registry: str) -> None:
    for number, (worker, client) in enumerate(
        [(both.worker_a, both.client_b), (both.worker_b, both.client_a)]
    ):
        images.push(registry, "across", str(number), small(b"%d" % number))
        name = f"{registry}/across:{number}"
        with running(worker, "shifter-worker", "run"):
            done = client("shifterimg", "pull", name)
            assert done.returncode == 0, done.stderr
        ids = [host("shifterimg", "lookup", name).stdout for host in (worker, client)]
        assert ids[0] == ids[1] != ""
    assert both.worker_b("shifter-admin", "verify").returncode == 0


def test_of_workers_on_two_hosts_one_answers_each_request_and_one_builds_each_image(
    both: Hosts, registry: str, tmp_path: Path
) -> None:
    names = storm.pushed(registry, 6)
    askers = [User(name="", uid=70000 + number, gid=70000) for number in range(4)]
    with (
        storm.builds_seen(both.ends) as begun,
        crewed([both.worker_a, both.worker_b], tmp_path, 4) as crew,
        ExitStack() as stack,
    ):
        pulls = [
            stack.enter_context(running(client, "shifterimg", "pull", name))
            for client in (both.client_a, both.client_b)
            for name in names[:2]
        ]
        asked = [
            name
            for number, user in enumerate(askers * 3)
            for name in spool.ask((both.ends.a, both.ends.b)[number % 2], user, names).values()
        ]
        for each in pulls:
            _, errors = each.communicate(timeout=60)
            assert each.returncode == 0, errors
        until(lambda: len(both.lying("done", "failed")) == len(asked) + len(pulls))
        # It is said once it is settled.  A worker that is told to stop before says it no more.
        until(lambda: len(named(said_in(tmp_path), "ready")) >= len(asked) + len(pulls))
        crew.stop()
    assert both.lying("failed", "new", "work") == []
    for request in asked:
        states = [each["state"] for each in spool.statuses(both.store, request)]
        assert states[-1] == "READY"
        assert states.count("READY") == 1
    assert Counter(named(said_in(tmp_path), "ready")) == Counter(both.lying("done"))
    assert len(begun) == len(names)
    assert set(storm.builds([both.worker_a, both.worker_b]).values()) == {1}
    assert storm.left_over(both.store) == []


# ----------------------------------------------------------------------------- hosts that stop


def stalling(registry: faulty.Registry) -> tuple[str, str]:
    """Serve an image of which the first who builds it gets no config; return name and digest."""
    image = small(os.urandom(1000))
    digest: str = image.content["config"]["digest"]
    registry.fault(digest, faulty.Stall(10), times=1)
    return registry.add("slow", "1", image), digest


def test_what_a_killed_worker_had_is_answered_by_one_on_the_other_host(
    both: Hosts, faulty_registry: faulty.Registry
) -> None:
    name, digest = stalling(faulty_registry)
    with (
        running(both.client_b, "shifterimg", "pull", name) as pull,
        running(both.worker_a, "shifter-worker", "run") as first,
    ):
        until(lambda: len(faulty_registry.asked(digest)) == 1)
        with running(both.worker_b, "shifter-worker", "run"):
            first.kill()
            _, errors = pull.communicate(timeout=60)
            assert pull.returncode == 0, errors
            until(lambda: both.lying("work") == [])
    assert len(both.lying("done")) == 1
    assert both.worker_b("shifter-worker", "drain").returncode == 0
    assert storm.left_over(both.store) == []


def test_a_worker_that_wakes_after_others_took_its_work_does_no_harm_and_works_on(
    both: Hosts, faulty_registry: faulty.Registry
) -> None:
    name, digest = stalling(faulty_registry)
    other = faulty_registry.add("other", "1", small(b"other"))
    with running(both.worker_a, "shifter-worker", "run") as first:
        with running(both.client_b, "shifterimg", "pull", name) as pull:
            until(lambda: len(faulty_registry.asked(digest)) == 1)
            (before,) = workers(both)
            with running(both.worker_b, "shifter-worker", "run") as second:
                first.send_signal(signal.SIGSTOP)
                _, errors = pull.communicate(timeout=60)
                assert pull.returncode == 0, errors
                until(lambda: both.lying("work") == [])
                second.terminate()
                second.communicate(timeout=60)
        generation = both.generation
        first.send_signal(signal.SIGCONT)
        until(lambda: [worker for worker in workers(both) if worker != before] != [])
        assert both.generation == generation
        assert before not in workers(both)
        done = both.client_b("shifterimg", "pull", other)
        assert done.returncode == 0, done.stderr
        assert both.generation == generation + 1
        first.terminate()
        first.communicate(timeout=60)
    assert len(both.lying("done")) == 2
    assert storm.left_over(both.store) == []
    assert both.worker_b("shifter-admin", "verify").returncode == 0


def workers(both: Hosts) -> list[str]:
    """Return the names of the workers that say that they live."""
    return [name.rpartition(".")[0] for name in os.listdir(both.store / "workers")]


# ------------------------------------------------------------------------------- wrong clocks


@pytest.mark.parametrize("clocks", [(600, 0), (0, 600), (0, 3000)])
@pytest.mark.parametrize("kind", ["local", "gluster"])
def test_a_host_whose_clock_is_wrong_works_with_the_others_and_removes_nothing_of_theirs(
    kind: str, clocks: tuple[int, int], run: Runner, service: User, workdir: Path, registry: str
) -> None:
    workdir.chmod(0o755)
    with ExitStack() as stack:
        ends = Ends(name="local", a=workdir, b=workdir, disks=(workdir,))
        if kind == "gluster":
            if what := gluster.missing():
                pytest.skip(what)
            # A host's filesystem has the host's clock, and so have the files that it changes.
            ends = stack.enter_context(gluster.volume(clocks))
        home = stack.enter_context(users.directory(service, str(ends.a)))
        home.chmod(0o755)
        both = Hosts(ends.under(home.name), run, service, clocks)
        young = leave_young(both)
        names = iter(storm.pushed(registry, 15))
        # Each publishes after the other, more than is kept of what is old.
        for worker, number in ((both.worker_a, 6), (both.worker_b, 6), (both.worker_a, 1)):
            asker = User(name="", uid=70000, gid=70000)
            spool.ask(both.store, asker, islice(names, number))
            done = worker("shifter-worker", "drain")
            assert done.returncode == 0, done.stderr
        with running(both.worker_a, "shifter-worker", "run") as first:
            pulled(both.client_b, next(names))
            first.terminate()
            first.wait()
        with running(both.worker_b, "shifter-worker", "run"):
            pulled(both.client_a, next(names))
        assert both.lying("failed", "new", "work") == []
        assert [path for path in young if not path.exists()] == []
        generations = resolve.generations(both.store / "index")
        assert generations == list(range(both.generation, 0, -1))


def pulled(client: Runner, name: str) -> None:
    done = client("shifterimg", "pull", name)
    assert done.returncode == 0, done.stderr


def leave_young(both: Hosts) -> list[Path]:
    """Leave, at either end, what is being written or waits for its reader; return the paths."""
    left = []
    for number, store in enumerate((both.ends.a, both.ends.b)):
        name = f"{int(time.time())}-70000-{number:016x}"
        blob = f"cache/blobs/aa/aa{number:062x}.part"
        (store / "cache/blobs/aa").mkdir(exist_ok=True)
        for path in (f"spool/tmp/{name}", blob):
            (store / path).write_text("{")
        (store / "status" / name).mkdir()
        left += [f"spool/tmp/{name}", blob, f"status/{name}"]
    return [both.store / path for path in left]


# ------------------------------------------------------------------------------------ statuses


def test_a_status_written_on_one_host_is_seen_on_the_other_and_never_an_older_one_after_it(
    ends: Ends,
) -> None:
    for root in (ends.a, ends.b):
        (root / "status").mkdir(exist_ok=True)
    name = "1700000000-0-0123456789abcdef"
    (ends.a / "status" / name).mkdir()
    written: dict[int, float] = {}
    seen: dict[int, float] = {}

    def write() -> None:
        reporter = status.Reporter(Layout(ends.a), name, os.getuid())
        for number in range(1, 21):
            reporter(Status(state="PULLING", done=number, total=20))
            written[number] = time.monotonic()
            time.sleep(0.05)
        reporter.close()

    writer = threading.Thread(target=write)
    writer.start()
    last = 0
    while last < 20:
        now = status.read(Layout(ends.b), name).done
        assert now >= last
        if now > last:
            last = now
            seen[now] = time.monotonic()
    writer.join()
    late = max(seen[number] - written[number] for number in seen)
    sys.stdout.write(f"{ends.name}: seen at most {late * 1000:.0f} ms after it was written\n")


# -------------------------------------------------------------------------------------- index

STORE = "0123456789abcdef" * 2
NAMES = 15


def entry(number: int) -> Entry:
    digest = "sha256:" + "ab" * 32
    return Entry(id=f"{number:064x}", size=4096, digest=digest, time=1, config=Config())


def publish_many(index: Path, publisher: int) -> None:
    for number in range(NAMES):
        names = {f"p{publisher}:{number}": entry(publisher)}
        mark = f"host.{publisher}.abc"
        publish.publish(index, names, store=STORE, mark=mark, renew=lambda: None)


def read_many(index: Path, until_generation: int) -> None:
    """Read all the time; what was seen once must be there for ever."""
    generation, names = 0, dict[str, Entry]()
    while generation < until_generation:
        with resolve.newest(index) as newest:
            if newest is None:
                assert generation == 0
                continue
            found = dict(newest.entries())
            assert newest.generation >= generation
            assert found.items() >= names.items()
            generation, names = newest.generation, found


def test_no_published_file_is_on_another_brick_than_the_one_its_name_belongs_to(ends: Ends) -> None:
    # GlusterFS leaves an empty, sticky file at the place of each that is elsewhere.  link(2) can
    # then succeed for two files of one name, which are on different bricks.
    for number in range(40):
        name = ends.a / f"images.{number}.cdb"
        durable.publish(b"x", name, f"host-{number % 4}.{number}.ab12", 0o644)
    found = [path for disk in ends.disks for path in disk.glob("images.*")]
    assert Counter(path.name for path in found) == {f"images.{n}.cdb": 1 for n in range(40)}
    assert [path.name for path in found if path.stat().st_mode & stat.S_ISVTX] == []


def test_publishers_on_two_hosts_lose_no_name_and_readers_on_both_never_go_back(
    ends: Ends,
) -> None:
    (ends.a / "index").mkdir()
    both = [ends.a / "index", ends.b / "index"]
    assert os.listdir(both[1]) == []
    context = multiprocessing.get_context("fork")
    publishers = [context.Process(target=publish_many, args=(both[n % 2], n)) for n in range(4)]
    readers = [context.Process(target=read_many, args=(end, 4 * NAMES)) for end in both * 2]
    for process in (*readers, *publishers):
        process.start()
    for process in (*publishers, *readers):
        process.join(60)
        assert process.exitcode == 0
    for end in both:
        with resolve.newest(end) as newest:
            assert newest is not None
            assert newest.generation == 4 * NAMES
            names = dict(newest.entries())
        assert names == {f"p{p}:{n}": entry(p) for p in range(4) for n in range(NAMES)}
        assert [name for name in os.listdir(end) if name.startswith(".")] == []
