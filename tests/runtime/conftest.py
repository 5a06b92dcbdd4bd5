"""The launcher, built; an image; a store; a caller who is nobody in particular."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.runtime import squash
from tests.runtime.store import described, make_store

RUNTIME = Path(__file__).parents[2] / "runtime"
NAME = "docker.io/library/test:latest"
PATH = "/usr/local/bin:/usr/bin:/bin"
# A uid that no passwd file knows, and another one for each run of the tests.
UID = 40000 + os.getpid() % 20000 if os.geteuid() == 0 else os.geteuid()
GID = UID if os.geteuid() == 0 else os.getegid()


@dataclass
class Launcher:
    """How a test runs shifter: as an ordinary user, in a small environment."""

    program: Path
    base: Path
    store: Path
    home: Path
    uid: int = UID
    gid: int = GID
    groups: Sequence[int] = ()
    env: dict[str, str] = field(default_factory=dict)

    def environment(self, **env: str | None) -> dict[str, str]:
        """Return the caller's environment; None takes a name away."""
        all_of_it = {
            "PATH": PATH,
            "HOME": str(self.home),
            "SHIFTER_STORE": str(self.store),
            # A second for each test is long.
            "SHIFTER_LINGER": "0",
            **self.env,
            **env,
        }
        return {name: value for name, value in all_of_it.items() if value is not None}

    def identity(self) -> dict[str, object]:
        """Return what makes a child of ours the caller."""
        if os.geteuid() != 0:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": list(self.groups)}

    def popen(
        self,
        *args: str | Path,
        before: Sequence[str] = (),
        cwd: str | Path = "/",
        env: Mapping[str, str | None] | None = None,
        **more: object,
    ) -> subprocess.Popen[str]:
        """Start shifter with ARGS, or the command BEFORE with it."""
        process: subprocess.Popen[str] = subprocess.Popen(
            [*before, str(self.program), *map(str, args)],
            cwd=cwd,
            env=self.environment(**(env or {})),
            text=True,
            **{**self.identity(), **more},  # type: ignore[call-overload]
        )
        return process

    def run(
        self, *args: str | Path, input: str = "", timeout: float = 60, **more: object
    ) -> subprocess.CompletedProcess[str]:
        """Run shifter with ARGS to its end."""
        pipe = subprocess.PIPE
        streams = {"stdin": pipe, "stdout": pipe, "stderr": pipe, **more}
        with self.popen(*args, **streams) as process:  # type: ignore[arg-type]
            try:
                out, err = process.communicate(input, timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def inside(self, script: str, *options: str, **more: object) -> str:
        """Return what a shell SCRIPT in the image prints."""
        done = self.run("--image=test", *options, "/bin/sh", "-c", script, **more)  # type: ignore[arg-type]
        assert done.returncode == 0, done.stderr
        return done.stdout

    def processes(self) -> list[int]:
        """Return the processes that run our program, or serve an image of our stores."""
        return [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and self._is_ours(entry)
        ]

    def _is_ours(self, process: Path) -> bool:
        for link in ("exe", "fd/4"):
            try:
                if os.readlink(process / link).startswith(str(self.base)):
                    return True
            except OSError:
                continue
        return False

    def wait_until_gone(self, seconds: float = 2) -> float:
        """Wait until nothing of ours runs; return how long it took."""
        start = time.monotonic()
        while left := self.processes():
            assert time.monotonic() - start < seconds, f"left behind: {left}"
            time.sleep(0.002)
        return time.monotonic() - start


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """A directory that every user may enter, and that is on no standard bind."""
    if os.geteuid() == 0:
        mode = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
        if mode & 0o666 != 0o666:
            os.chmod("/dev/fuse", mode | 0o666)
    path = Path(tempfile.mkdtemp(prefix="shifter-tests-", dir="/srv"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def make(out: Path, base: Path, *arguments: str) -> Path:
    """Build into OUT, which is made."""
    out.mkdir()
    subprocess.run(
        ["make", "-s", "-C", RUNTIME, f"OUT={out}", f"SYSCONFDIR={base}/etc", *arguments],
        check=True,
        env={"PATH": os.environ["PATH"]},
    )
    return out


@pytest.fixture(scope="session")
def built(base: Path) -> Path:
    """The directory of the built launcher and of the drivers of its tests."""
    return make(base / "built", base, "all", "drivers")


@pytest.fixture(scope="session")
def built_traceable(base: Path) -> Path:
    """The directory of a launcher whose server can be traced, and so killed where a test wants."""
    return make(base / "traceable", base, "all", "CPPFLAGS=-DUNTRACED=0")


@pytest.fixture(scope="session")
def image(base: Path) -> Path:
    """A small image."""
    return squash.make(base / "test.squashfs", squash.BUSYBOX)


@pytest.fixture(scope="session")
def home(base: Path) -> Path:
    """The caller's home."""
    path = base / "home" / "caller"
    path.mkdir(parents=True)
    (path / "mine").write_text("at home\n")
    if os.geteuid() == 0:
        os.chown(path, UID, GID)
    return path


@pytest.fixture(scope="session")
def shared_store(base: Path, image: Path) -> Path:
    """A store with one image, that no test changes."""
    store = base / "store"
    make_store(store, image, NAME, env=["PATH=/bin", "COLOUR=blue"], workdir="/work")
    return store


@pytest.fixture
def shifter(built: Path, base: Path, shared_store: Path, home: Path) -> Iterator[Launcher]:
    """The launcher; after each test nothing of it is left."""
    launcher = Launcher(program=built / "shifter", base=base, store=shared_store, home=home)
    yield launcher
    launcher.wait_until_gone()
    with open("/proc/self/mountinfo") as mounts:
        ours = re.compile(f" - fuse[.]shifter shifter .*user_id={launcher.uid},")
        assert not [line for line in mounts if ours.search(line)]


@pytest.fixture(scope="session")
def foreign_store(base: Path) -> Path:
    """A store with one image that the launcher does not serve itself."""
    store = base / "foreign"
    image = squash.make(base / "foreign.squashfs", squash.BUSYBOX, "gzip")
    make_store(store, image, NAME, env=["PATH=/bin"])
    return store


@pytest.fixture
def foreign(shifter: Launcher, foreign_store: Path) -> Launcher:
    """The launcher, with an image that squashfuse serves."""
    shifter.store = foreign_store
    return shifter


@pytest.fixture
def traceable(foreign: Launcher, built_traceable: Path) -> Launcher:
    """The same launcher, but strace -f follows its server, too, until that is executed."""
    return replace(foreign, program=built_traceable / "shifter")


@pytest.fixture
def store(shifter: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty place for a store of the test's own, which the launcher uses."""
    shifter.store = Path(tempfile.mkdtemp(prefix="store-", dir=shifter.base))
    shifter.store.chmod(0o755)
    return shifter.store


@pytest.fixture
def playground(base: Path) -> Path:
    """A directory of the caller's, on no standard bind."""
    path = Path(tempfile.mkdtemp(prefix="playground-", dir=base))
    path.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(path, UID, GID)
    return path


@pytest.fixture
def config(base: Path) -> Iterator[Path]:
    """The node's own configuration, which root has written."""
    path = base / "etc/shifter/udiRoot.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o644)
    yield path
    path.unlink()


@pytest.fixture
def site(shifter: Launcher, store: Path, config: Path, playground: Path) -> Iterator[Launcher]:
    """A node of a site whose worker has built the image."""
    path = squash.make(playground / "plain.squashfs", squash.BUSYBOX)
    make_store(store, described(path, [("libs", "libc.so.6")], playground / "made.squashfs"))
    config.write_text(f"imagePath={store}\n")
    yield shifter
    subprocess.run([shifter.program.with_name("unsetupRoot"), "-U", str(UID)], check=True)


@pytest.fixture
def caching(site: Launcher, config: Path, base: Path) -> Iterator[Path]:
    """The directory where the site lets caches lie, which only root can enter."""
    path = base / "caches"
    path.mkdir(mode=0o700)
    config.write_text(config.read_text() + f"perNodeCachePath={path}\n")
    yield path
    subprocess.run([site.program.with_name("unsetupRoot"), "-U", str(UID)], check=True)
    path.rmdir()
