"""The world that tests run in: registries, a real image, an ordinary user, a store of his."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.helpers import debian, etc, faulty, gluster, users
from tests.helpers import registry as registries
from tests.helpers.ends import Ends
from tests.helpers.lying import Liar
from tests.helpers.users import User as User

_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Runs the installed programs, as the ordinary user, on the store of the test."""

    user: User
    home: Path
    store: Path
    extra: Mapping[str, str] = field(default_factory=dict)

    def __call__(
        self,
        program: str,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        user: User | None = None,
        stdin: str = "",
        timeout: float = _TIMEOUT,
    ) -> subprocess.CompletedProcess[str]:
        """Run PROGRAM to its end, as USER if one is given; how it ended is for the test."""
        command = [*(user or self.user).prefix, str(installed(program)), *map(str, arguments)]
        return subprocess.run(
            command,
            env={**self.environment, **(env or {})},
            cwd=self.home,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    @property
    def environment(self) -> dict[str, str]:
        """What programs find in their environment, and nothing of the tester's."""
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.home),
            "USER": self.user.name,
            "SHIFTER_STORE": str(self.store),
            **self.extra,
        }


def installed(program: str) -> Path:
    """Return the path of one of our programs, which `pip install .` puts beside python."""
    path = Path(sys.executable).parent / program
    if not path.exists():
        pytest.fail(f"{path} is not there: pip install . first, or run scripts/test")
    return path


def pytest_configure() -> None:
    # Under nohup(1) it is ignored, and so it would be by all that tests start, and send it to.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


# What looks at the whole node, or starts what there can be one of, runs one after the other.
_NODE = (
    "runtime/",
    "test_doctor.py",
    "test_end_to_end.py",
    "test_examples.py",
    "test_shared.py",
    "test_slurm.py",
    "test_storm.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let two processes share the tests by files, for a file's tests share what they prepare."""
    for item in items:
        place = item.path.relative_to(Path(__file__).parent).as_posix()
        group = "node" if place.startswith(_NODE) else place
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session", autouse=True)
def _signals_can_interrupt() -> None:
    """Let tests send SIGINT, which shells let their background jobs, and so us, ignore."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def registry() -> Iterator[str]:
    """The address of a docker-registry, empty at first."""
    with registries.serving() as address:
        yield address


@pytest.fixture(scope="session")
def debian_image(registry: str) -> str:
    """The name of a real image in the registry."""
    return debian.push(registry)


@pytest.fixture
def faulty_registry() -> Iterator[faulty.Registry]:
    """A registry that misbehaves as the test tells it."""
    with faulty.serving() as serving:
        yield serving


@pytest.fixture(scope="session")
def user() -> Iterator[User]:
    """An ordinary user: one made for these tests if we are root, else ourselves."""
    with users.ordinary() as ordinary:
        yield ordinary


@pytest.fixture
def workdir(user: User) -> Iterator[Path]:
    """A directory of the ordinary user's; pytest's own ``tmp_path`` is closed to him."""
    with users.directory(user) as path:
        yield path


@pytest.fixture
def store(workdir: Path) -> Path:
    """Where the ordinary user's store will be."""
    return workdir / "store"


@pytest.fixture
def run(user: User, workdir: Path, store: Path) -> Runner:
    """What runs the installed programs as the ordinary user."""
    home = workdir / "home"
    home.mkdir()
    os.chown(home, user.uid, user.gid)
    return Runner(user=user, home=home, store=store)


@pytest.fixture(scope="session")
def service() -> Iterator[User]:
    """The account that the site's workers run as."""
    with users.ordinary("service") as made:
        yield made


@pytest.fixture(scope="session")
def villain_user() -> Iterator[User]:
    """Another ordinary user, who means the others harm."""
    with users.ordinary("villain") as made:
        yield made


@pytest.fixture
def site(service: User, workdir: Path) -> Runner:
    """What runs programs as the service account, on a store that all may ask."""
    return made_site(service, workdir)


def made_site(service: User, place: Path, config: str = etc.ASKS_THIS_HOST) -> Runner:
    """Make a store in PLACE that all may ask; return what runs programs on it as SERVICE.

    CONFIG is its ``shifter_lite.toml``.
    """
    place.chmod(0o755)
    home = place / "service"
    home.mkdir(exist_ok=True)
    os.chown(home, service.uid, service.gid)
    prefix = (*etc.over(place / "etc", config), *service.prefix)
    runner = Runner(user=replace(service, prefix=prefix), home=home, store=home / "store")
    done = runner("shifter-admin", "init")
    assert done.returncode == 0, done.stderr
    return runner


@pytest.fixture
def asker(run: Runner, site: Runner) -> Runner:
    """What runs programs as an ordinary user, on the site's store."""
    return replace(run, store=site.store)


@pytest.fixture(scope="session")
def killer_program() -> Iterator[Path]:
    """The program of tests/helpers/killer.c, where all may run it."""
    with _compiled("killer") as program:
        yield program


@pytest.fixture(scope="session")
def liar_program() -> Iterator[Path]:
    """The program of tests/helpers/liar.c, where all may run it."""
    with _compiled("liar") as program:
        yield program


@pytest.fixture
def liar(liar_program: Path, workdir: Path) -> Liar:
    """What lies to the programs of a test about what the filesystem said."""
    return Liar(liar_program, workdir)


@contextmanager
def _compiled(name: str) -> Iterator[Path]:
    with TemporaryDirectory(prefix="shifter-lite-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        program = Path(directory, name)
        strict = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
        source = Path(__file__).with_name("helpers") / f"{name}.c"
        subprocess.run(["gcc", *strict, "-o", program, source], check=True)
        yield program


@pytest.fixture(scope="session")
def volume() -> Iterator[Ends]:
    """Two clients of one GlusterFS volume."""
    if what := gluster.missing():
        pytest.skip(what)
    with gluster.volume() as made:
        yield made


@pytest.fixture(params=["local", "gluster"])
def ends(request: pytest.FixtureRequest, service: User) -> Iterator[Ends]:
    """Two ways to one directory of the service account's: the same one, or by two clients."""
    if os.getuid() != 0:
        pytest.skip("only root may make hosts of its own")
    if request.param == "gluster":
        volume: Ends = request.getfixturevalue("volume")
        with users.directory(service, str(volume.a)) as path:
            path.chmod(0o755)
            yield volume.under(path.name)
        return
    with users.directory(service) as path:
        path.chmod(0o755)
        yield Ends(name="local", a=path, b=path, disks=(path,))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count a skipped test as a failed one where all that tests need is there."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped, but under CI nothing may be: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Count a skipped module as a failed one, likewise."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped, but under CI nothing may be: {report.longrepr}"
    return report
