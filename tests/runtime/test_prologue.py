"""What setupRoot does with the words of users, with what a site gives it, and with attackers."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.runtime.conftest import GID, UID, Launcher
from tests.runtime.test_identity import caller, publish
from tests.runtime.test_prepared import JOB, JOBS, TYPES, loops, loops_left, mounted, set_up

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
CACHE = "/n:/cache:perNodeCache=size=20M,fs=ext4"
ASKED = ("-J", "7", "-v", CACHE, "--", "docker", "test")


def prologue(site: Launcher, *words: str, **more: object) -> subprocess.CompletedProcess[str]:
    """Run setupRoot with WORDS."""
    command = [str(site.program.with_name("setupRoot")), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload,no-any-return]


def epilogue(site: Launcher) -> None:
    subprocess.run([site.program.with_name("unsetupRoot"), "-U", str(UID)], check=True)


def lines(done: subprocess.CompletedProcess[str]) -> int:
    return len(done.stderr.splitlines())


def caches() -> list[str]:
    return [path for path in mounted() if "/cache." in path]


def images() -> list[str]:
    return [path for path in mounted() if "/cache." not in path]


# The user's group


@pytest.fixture
def private(site: Launcher, playground: Path) -> Iterator[Callable[[int, str], None]]:
    """Make the store one for a group, in which the caller has an entry."""
    entries = caller((GID + 3, "project"))

    def make(group: int, user: str = f"u{UID}") -> None:
        image = playground / "made.squashfs"
        publish(site.store, image, {user: entries[f"u{UID}"]})
        os.chown(site.store, 0, group)
        site.store.chmod(0o750)

    yield make
    site.store.chmod(0o755)


def test_the_group_is_that_of_the_users_entry(
    site: Launcher, private: Callable[[int], None], caching: Path
) -> None:
    private(GID)
    done = prologue(site, "-U", str(UID), *ASKED)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(images()) == 1
    (cache,) = caches()
    assert (os.stat(cache).st_uid, os.stat(cache).st_gid) == (UID, GID)


def test_groups_of_the_users_entry_are_in_force(
    site: Launcher, private: Callable[[int], None]
) -> None:
    private(GID + 3)
    for words in ((), ("-G", str(GID + 9))):
        done = prologue(site, "-U", str(UID), *words, "docker", "test")
        assert (done.returncode, done.stderr) == (0, "")
        assert len(mounted()) == 1
        epilogue(site)


def test_a_group_of_the_same_number_as_the_user_opens_nothing(
    site: Launcher, private: Callable[[int, str], None]
) -> None:
    private(UID + 50, f"u{UID + 50}")
    other = UID + 50
    done = prologue(site, "-U", str(other), "docker", "test")
    assert done.returncode == 0
    assert done.stderr.startswith("setupRoot: cannot read the index")
    assert lines(done) == 1
    assert not (JOBS / str(other)).exists()


def test_a_user_whose_group_is_not_known_is_refused(site: Launcher, caching: Path) -> None:
    done = prologue(site, "-U", str(UID), *ASKED)
    assert done.returncode == 125
    assert "does not say which group the user" in done.stderr
    assert "-G GID" in done.stderr
    assert mounted() == []
    assert not (JOBS / str(UID)).exists()


# What users write


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("docker", "nothing"), "no image 'docker.io/library/nothing:latest'"),
        (("docker", "Not A Name"), "not an image name: 'Not A Name'"),
        (("docker", "../../etc"), "not an image name"),
        (("docker", "x" * 5000), "not an image name"),
        (("docker", "a\nb\x1b[2J"), "not an image name"),
        (("docker", ""), "no image was named"),
        (("docker",), "no image was named"),
        ((), "no image was named"),
        (("", ""), "no image was named"),
        (("", "test"), "not a type of image: ''"),
        (("local", "/"), "not a type of image: 'local'"),
        (("-Z", "test"), "not a type of image: '-Z'"),
        (("docker", "two", "words"), "more than a type and an image"),
        (("id", "test"), "not an image name"),
        (("id", "0" * 64), "no image 'id:0000"),
    ],
)
def test_no_word_of_a_user_for_an_image_fails_a_prologue(
    site: Launcher, caching: Path, words: Sequence[str], says: str
) -> None:
    command = ("-U", str(UID), "-G", str(GID), "-J", "7", "-v", CACHE)
    done = prologue(site, *command, "--", *words)
    assert done.returncode == 0
    assert says in done.stderr
    assert lines(done) == 1
    assert images() == []
    # One has nothing to do with the other.
    assert len(caches()) == 1
    epilogue(site)
    assert prologue(site, "--strict", *command, "--", *words).returncode == 125


@pytest.mark.parametrize(
    ("volume", "says"),
    [
        ("garbage", "not an absolute path: 'garbage'"),
        ("/a:/b:perNodeCache", "needs a size"),
        ("/a:/b:perNodeCache=size=9999999999999999999T", "no size"),
        ("/a:/b:perNodeCache=size=0", "no size"),
        ("/a:/b:perNodeCache=size=4K,fs=ext4", "'mkfs.ext4' cannot make a cache"),
        ("/a:/b:perNodeCache=size=50M,fs=btrfs", "the type 'btrfs'"),
        ("/a:/b:perNodeCache=size=50M,fs=../../sh", "the type '../../sh'"),
        ("/a:/b:perNodeCache=size=3T", "where the site allows"),
        ("/a:/b:perNodeCache=size=2T", "No space left on device"),
        ("/a:/etc:perNodeCache=size=50M", "nothing may be mounted at '/etc'"),
        ("/a:/b\n:\x1b[1m", "no flag of a volume"),
        ("/" + "x" * 5000 + ":/b", "too long a path"),
    ],
)
def test_no_volume_of_a_user_fails_a_prologue(
    site: Launcher, caching: Path, config: Path, volume: str, says: str
) -> None:
    config.write_text(config.read_text() + "perNodeCacheSizeLimit=2T\n")
    command = ("-U", str(UID), "-G", str(GID), "-J", "7", "-v", volume, "-v", CACHE)
    done = prologue(site, *command, "docker", "test")
    assert done.returncode == 0
    assert says in done.stderr
    assert "mkfs" not in says or "a perNodeCache at '/b': " in done.stderr
    assert lines(done) == 1
    assert len(images()) == 1
    assert len(caches()) == 1
    assert list(caching.iterdir()) == []
    assert len(list((JOBS / str(UID) / "7").iterdir())) == 2
    assert prologue(site, "--strict", *command, "docker", "test").returncode == 125


def test_a_job_that_names_nothing_gets_nothing(site: Launcher, caching: Path, config: Path) -> None:
    config.write_text(config.read_text() + f"siteFs={CACHE}\n")
    done = prologue(site, "-U", str(UID), "-J", "7", "-v", "", "--", "docker", "")
    assert (done.returncode, lines(done)) == (0, 1)
    assert not (JOBS / str(UID)).exists()


def test_a_store_that_cannot_be_used_fails_no_prologue(site: Launcher, config: Path) -> None:
    index = next(site.store.glob("index/*"))
    for spoil in (
        lambda: config.write_text("imagePath=/no/such/store\n"),
        lambda: config.write_text(f"imagePath={site.store}\n") and index.write_bytes(b"\1" * 5000),
        index.unlink,
    ):
        spoil()
        done = set_up(site)
        assert (done.returncode, lines(done)) == (0, 1)
        assert not (JOBS / str(UID)).exists()


def test_a_store_that_hangs_is_not_waited_for(site: Launcher, playground: Path) -> None:
    # As the file of an image on a filesystem whose server has gone.
    server = HangingServer(site.store / "images")
    with server:
        done = set_up(site)
    assert done.returncode == 0
    assert "looking for the image: not done in time" in done.stderr
    assert mounted() == []


class HangingServer:
    """A FUSE filesystem that answers nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1

    def __enter__(self) -> None:
        self.fd = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self.fd},rootmode=40000,user_id=0,group_id=0,allow_other"
        command = ["mount", "-i", "-t", "fuse", "-o", options, "hang", str(self.path)]
        subprocess.run(command, check=True, pass_fds=[self.fd])

    def __exit__(self, *_: object) -> None:
        # The kernel ends all waits.
        os.close(self.fd)
        subprocess.run(["umount", "-l", str(self.path)], check=True)


# What the site writes


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("docker", "test"),
        ("-U",),
        ("-U", "", "docker", "test"),
        ("-U", "-1", "docker", "test"),
        ("-U", "4294967295", "docker", "test"),
        ("-U", "4294967296", "docker", "test"),
        ("-U", "99999999999999999999", "docker", "test"),
        ("-U", " 5", "docker", "test"),
        ("-U", "5 ", "docker", "test"),
        ("-U", "0x5", "docker", "test"),
        ("-U", "05", "docker", "test"),
        ("-U", "+5", "docker", "test"),
        ("-U", "name", "docker", "test"),
        ("-U", "5", "-G", "", "docker", "test"),
        ("-U", "5", "-U", "0", "docker", "test"),
        ("-U", "5", "-G", "5", "-G", "0", "docker", "test"),
        ("-U", "5", "-J", "1", "-J", "2", "docker", "test"),
        ("-U", "5", "-J", "", "docker", "test"),
        ("-U", "5", "-J", "../..", "docker", "test"),
        ("-U", "5", "-J", ".lock", "docker", "test"),
        ("-U", "5", "-J", "a/b", "docker", "test"),
        ("-U", "5", "-J", "x" * 200, "docker", "test"),
        ("-U", "5", "-Z", "docker", "test"),
        ("-U", "5", "--such", "docker", "test"),
    ],
)
def test_a_prologue_that_is_written_wrong_fails(site: Launcher, words: Sequence[str]) -> None:
    done = prologue(site, *words)
    assert done.returncode == 125
    assert "usage: setupRoot" in done.stderr
    assert not (JOBS / "5").exists()


def test_a_configuration_whose_directory_others_can_write_is_not_followed(
    site: Launcher, config: Path
) -> None:
    config.parent.chmod(0o777)
    done = set_up(site)
    config.parent.chmod(0o755)
    assert done.returncode == 125
    assert "can be written by others than root" in done.stderr


@pytest.mark.parametrize("words", [ASKED, ("-J", "7", "docker", "test")])
def test_a_place_of_caches_that_is_not_roots_alone_fails_every_prologue(
    site: Launcher, caching: Path, words: Sequence[str]
) -> None:
    def spoilt(path: Path, owner: int, mode: int) -> bool:
        os.chown(path, owner, 0)
        path.chmod(mode)
        done = set_up(site, *words)
        assert "perNodeCachePath" in done.stderr
        return done.returncode == 125 and mounted() == []

    assert spoilt(caching, UID, 0o700)
    assert spoilt(caching, 0, 0o770)
    assert spoilt(caching, 0, 0o707)
    os.chown(caching, 0, 0)
    caching.chmod(0o700)
    other = caching.with_name("elsewhere")
    caching.rename(other)
    done = set_up(site, *words)
    caching.touch()
    also = set_up(site, *words)
    caching.unlink()
    other.rename(caching)
    assert (done.returncode, also.returncode) == (125, 125)
    assert mounted() == []


def test_caches_may_lie_where_all_may_make_files(site: Launcher, caching: Path) -> None:
    caching.chmod(0o1777)
    assert set_up(site, *ASKED).stderr == ""
    assert len(caches()) == 1


# Caches


def test_a_job_has_at_most_sixteen_caches_beside_those_of_the_site(
    site: Launcher, caching: Path, config: Path
) -> None:
    volume = "/n:/{}:perNodeCache=size=2M,fs=ext4"
    config.write_text(
        config.read_text() + "siteFs=" + ";".join(volume.format(f"s{n}") for n in range(3)) + "\n"
    )
    wanted = ";".join(volume.format(f"u{n}") for n in range(20))
    done = set_up(site, "-J", "7", "-v", wanted, "docker", "test")
    assert done.returncode == 0
    assert lines(done) == 1
    assert len(caches()) == 16
    # Another prologue of the same job gives it no more.
    more = set_up(site, "-J", "7", "-v", volume.format("more"), "docker", "test")
    assert (more.returncode, len(caches())) == (0, 16)
    for number in range(3):
        place = f"/s{number}"
        assert site.inside(f"stat -f -c %T {place}", env=JOB) == "ext2/ext3\n"


@pytest.mark.parametrize("flags", ["size=4K,fs=ext4", "size=3T", "size=20M,fs=btrfs"])
def test_caches_that_fail_are_no_more_than_others(
    site: Launcher, caching: Path, config: Path, flags: str
) -> None:
    config.write_text(config.read_text() + "perNodeCacheSizeLimit=2T\n")
    wanted = ";".join(f"/n:/c{number}:perNodeCache={flags}" for number in range(2000))
    done = set_up(site, "-J", "7", "-v", wanted, "docker", "test")
    assert (done.returncode, lines(done)) == (0, 17)
    assert len(mounted()) == 1


def test_the_room_of_a_cache_is_reserved(site: Launcher, caching: Path, base: Path) -> None:
    # A filesystem of 60 MiB has room for two of them, and no job is told that it has a third.
    disk = base / "disk"
    with disk.open("wb") as file:
        file.truncate(60 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(disk)], check=True)
    subprocess.run(["mount", "-o", "loop", str(disk), str(caching)], check=True)
    (caching / "lost+found").rmdir()
    try:
        wanted = ";".join(f"/n:/c{n}:perNodeCache=size=20M,fs=ext4" for n in range(3))
        done = set_up(site, "-J", "7", "-v", wanted, "docker", "test")
        assert done.returncode == 0
        assert "No space left on device" in done.stderr
        assert len(caches()) == 2
        assert lines(done) == 1
        for path in caches():
            data = b"x" * (12 << 20)
            (Path(path) / "full").write_bytes(data)
            os.sync()
        assert list(caching.iterdir()) == []
        epilogue(site)
        assert loops_left(caching) == []
    finally:
        epilogue(site)
        subprocess.run(["umount", str(caching)], check=True)
        disk.unlink()


def test_a_file_has_no_name_while_it_becomes_a_cache(
    site: Launcher, caching: Path, playground: Path
) -> None:
    if "xfs" not in TYPES:
        pytest.skip("no xfs here")
    # The site's program sees what there is in the directory, and which file it is given.
    program, seen = playground / "mkfs", playground / "seen"
    program.write_text(f'#!/bin/sh\n(ls -A {caching}; echo "$@") > {seen}\nexec mkfs.xfs "$@"\n')
    program.chmod(0o755)
    site_file(site, f"mkfsXfsPath={program}")
    cache = CACHE.replace("20M,fs=ext4", "400M")
    assert set_up(site, "-J", "7", "-v", cache, "docker", "test").stderr == ""
    assert len(caches()) == 1
    (arguments,) = seen.read_text().splitlines()
    assert arguments.split()[-1].startswith("/proc/self/fd/")


def site_file(site: Launcher, line: str) -> None:
    config = site.base / "etc/shifter/udiRoot.conf"
    config.write_text(config.read_text() + line + "\n")


@pytest.mark.parametrize(
    ("owner", "mode"),
    [(UID, 0o755), (0, 0o775), (0, 0o757)],
    ids=["a user's", "the group's", "everybody's"],
)
def test_a_program_that_is_not_roots_alone_is_not_run(
    site: Launcher, caching: Path, playground: Path, owner: int, mode: int
) -> None:
    program, ran = playground / "mkfs", playground / "ran"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    os.chown(program, owner, 0)
    program.chmod(mode)
    site_file(site, f"mkfsXfsPath={program}")
    done = set_up(site, "-J", "7", "-v", CACHE.replace(",fs=ext4", ""), "docker", "test")
    assert done.returncode == 125
    assert "mkfsXfsPath" in done.stderr
    assert not ran.exists()


def test_a_program_that_is_not_there_is_missed_by_those_who_need_it(
    site: Launcher, caching: Path
) -> None:
    site_file(site, "mkfsXfsPath=/no/such/mkfs")
    done = set_up(site, "-J", "7", "-v", f"{CACHE};/n:/x:perNodeCache=size=400M", "docker", "test")
    assert (done.returncode, lines(done)) == (0, 1)
    assert "'/no/such/mkfs'" in done.stderr
    assert len(mounted()) == 2


def test_a_cache_of_no_certain_type_is_one_that_the_site_allows(
    site: Launcher, caching: Path
) -> None:
    site_file(site, "perNodeCacheAllowedFsType=ext4")
    cache = CACHE.replace(",fs=ext4", "")
    assert set_up(site, "-J", "7", "-v", cache, "docker", "test").stderr == ""
    assert site.inside("stat -f -c %T /cache", f"--volume={cache}", env=JOB) == "ext2/ext3\n"


def test_a_program_that_fails_or_says_much_fails_no_prologue(
    site: Launcher, caching: Path, playground: Path
) -> None:
    program = playground / "mkfs"
    program.write_text("#!/bin/sh\nyes 'too small' | head -100000\nexit 3\n")
    program.chmod(0o755)
    site_file(site, f"mkfsXfsPath={program}")
    done = set_up(site, "-J", "7", "-v", CACHE.replace(",fs=ext4", ""), "docker", "test")
    assert (done.returncode, lines(done)) == (0, 1)
    assert "'mkfs.xfs' cannot make a cache: 'too small'" in done.stderr
    assert len(mounted()) == 1


# Owners


def test_files_of_root_belong_to_the_caller(site: Launcher) -> None:
    set_up(site)
    files = "/ /etc/motd /bin/busybox /secret /secret/file"
    for options in ((), ("--writable",)):
        says = site.inside(f"stat -c '%u %g' {files}; cat /secret/file", *options, env=JOB)
        assert set(says.splitlines()) == {f"{UID} {GID}", "not for others"}


@pytest.mark.parametrize(
    ("call", "error", "owner"),
    [
        ("fsopen", "ENOSYS", 65534),
        ("fsmount", "EPERM", 65534),
        ("mount_setattr", "EINVAL", 65534),
        ("unshare", "ENOSPC", 65534),
        ("fallocate", "EOPNOTSUPP", UID),
    ],
    ids=["fsopen", "fsmount", "mount_setattr", "unshare", "fallocate"],
)
def test_a_kernel_that_cannot_do_all_mounts_what_it_can(
    site: Launcher, caching: Path, call: str, error: str, owner: int
) -> None:
    program = str(site.program.with_name("setupRoot"))
    trace = ["strace", "-f", "-o", "/dev/null", "-e", f"inject={call}:error={error}"]
    command = [*trace, program, "-U", str(UID), "-G", str(GID), *ASKED]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(mounted()) == 2
    says = site.inside("stat -c %u /etc/motd; echo > /cache/f", f"--volume={CACHE}", env=JOB)
    assert says == f"{owner}\n"


# Attackers, and what a batch daemon is like


def test_what_is_in_the_place_of_a_directory_is_not_followed(
    site: Launcher, playground: Path
) -> None:
    place = JOBS / str(UID)
    JOBS.mkdir(parents=True, exist_ok=True)
    takes: list[Callable[[], None]] = [
        lambda: place.symlink_to(playground),
        place.touch,
        lambda: make_directory(place, 0, 0o777),
        lambda: make_directory(place, UID, 0o755),
    ]
    for make in takes:
        make()
        done = set_up(site)
        assert done.returncode == 125
        assert mounted() == []
        if place.is_dir() and not place.is_symlink():
            subprocess.run(["rm", "-r", str(place)], check=True)
        else:
            place.unlink()
    assert list(playground.glob("7")) == []


def make_directory(path: Path, owner: int, mode: int) -> None:
    path.mkdir()
    os.chown(path, owner, 0)
    path.chmod(mode)


def test_prologues_of_one_job_at_the_same_time_mount_once(site: Launcher, caching: Path) -> None:
    command = [str(site.program.with_name("setupRoot")), "-U", str(UID), "-G", str(GID), *ASKED]
    runs = [subprocess.Popen(command) for _ in range(8)]
    assert [run.wait(60) for run in runs] == [0] * 8
    assert len(mounted()) == 2
    assert len(loops(caching)) == 1


def test_prologues_and_epilogues_at_the_same_time_leave_nothing(
    site: Launcher, caching: Path
) -> None:
    begin = [str(site.program.with_name("setupRoot")), "-U", str(UID), "-G", str(GID), *ASKED]
    end = [str(site.program.with_name("unsetupRoot")), "-U", str(UID), "-J", "7"]
    runs = [subprocess.Popen(command) for _ in range(6) for command in (begin, end)]
    assert [run.wait(60) for run in runs] == [0] * 12
    epilogue(site)
    assert mounted() == []
    assert loops_left(caching) == []
    assert not (JOBS / str(UID)).exists()


def test_a_prologue_that_is_killed_leaves_nothing_that_an_epilogue_cannot_remove(
    site: Launcher, caching: Path
) -> None:
    command = [str(site.program.with_name("setupRoot")), "-U", str(UID), "-G", str(GID), *ASKED]
    for tenth in range(60):
        run = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            run.wait(tenth / 1000)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.wait()
        epilogue(site)
        assert mounted() == []
        assert list(caching.iterdir()) == []
        assert not (JOBS / str(UID)).exists()
    assert loops_left(caching) == []
    # The next prologue is not disturbed.
    assert set_up(site, *ASKED).stderr == ""
    assert len(mounted()) == 2
    assert stat.S_IMODE(os.stat(caches()[0]).st_mode) == 0o755


def test_limits_and_signals_of_a_batch_daemon_are_undone(site: Launcher, caching: Path) -> None:
    def begin() -> None:
        # Not every root may raise a hard limit.
        for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_AS, resource.RLIMIT_DATA):
            resource.setrlimit(limit, (1 << 20, resource.getrlimit(limit)[1]))
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
        os.umask(0o777)

    done = prologue(site, "-U", str(UID), "-G", str(GID), *ASKED, preexec_fn=begin)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(mounted()) == 2
    assert site.inside("cat /etc/motd; echo >/cache/f", f"-V{CACHE}", env=JOB) == "from the image\n"


@pytest.mark.parametrize("closed", ["0<&- 1>&- 2>&-", "2>&-", "2>/dev/full"])
def test_a_prologue_without_standard_streams_does_the_same(
    site: Launcher, caching: Path, closed: str
) -> None:
    program = site.program.with_name("setupRoot")
    image = next(site.store.glob("images/??/*"))
    before = image.read_bytes()
    words = " ".join(ASKED)
    for number, what in enumerate((words, words.replace("docker test", "docker nothing"))):
        shell = f"exec {program} -U {UID} -G {GID} {what} {closed}"
        assert subprocess.run(["sh", "-c", shell], check=False).returncode == 0
        assert len(mounted()) == 2 - number
        epilogue(site)
    assert image.read_bytes() == before


def test_the_reader_of_the_output_may_have_gone(site: Launcher) -> None:
    program = str(site.program.with_name("setupRoot"))
    read, write = os.pipe()
    os.close(read)
    command = [program, "-U", str(UID), "-G", str(GID), "docker", "nothing"]
    assert subprocess.run(command, stderr=write, check=False).returncode == 0
    os.close(write)


def test_a_user_cannot_hold_the_lock(site: Launcher) -> None:
    set_up(site)
    lock = JOBS / str(UID) / ".lock"
    command = ["sh", "-c", f"exec 3<{lock}"]
    done = subprocess.run(command, user=UID, group=GID, capture_output=True, check=False)
    assert done.returncode != 0
