"""What users may show in the container, and where."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.runtime import squash
from tests.runtime.conftest import GID, UID, Launcher
from tests.runtime.test_errors import fails
from tests.runtime.test_root import use


@pytest.fixture
def data(playground: Path) -> Path:
    """A directory of the caller's with a file in it, and one beneath."""
    inner = playground / "inner"
    inner.mkdir(mode=0o755)
    (playground / "file").write_text("text\n")
    os.chown(inner, UID, GID)
    return playground


def refused(shifter: Launcher, volume: str) -> str:
    """Return what shifter says of a volume that it does not take."""
    return fails(shifter, "-i", "test", f"--volume={volume}", "true")


# ------------------------------------------------------------------ what is shown


def test_a_directory_is_shown_where_the_image_has_none(shifter: Launcher, data: Path) -> None:
    out = shifter.inside("cat /new/deep/er/file; touch /new/deep/er/made", f"-V{data}:/new/deep/er")
    assert out == "text\n"
    assert (data / "made").stat().st_uid == UID


def test_a_directory_goes_over_what_the_image_has(shifter: Launcher, data: Path) -> None:
    assert shifter.inside("cat /work/file", "--volume", f"{data}:/work") == "text\n"


def test_a_file_is_shown_by_itself(shifter: Launcher, data: Path) -> None:
    options = (f"-V{data}/file:/new/name;{data}/file:/etc/motd", f"--volume={data}/file:/top")
    assert shifter.inside("cat /new/name /etc/motd /top", *options) == "text\n" * 3


@pytest.mark.parametrize(
    "name", ["sp ace", "name@at", "ünï", "quo'te\"", "new\nline", "back\\s", "%s"]
)
def test_paths_are_taken_as_they_are(shifter: Launcher, data: Path, name: str) -> None:
    (data / name).mkdir(mode=0o755)
    (data / name / "x").write_text("exact\n")
    done = shifter.run("-i", "test", f"-V{data}/{name}:/a/{name}", "cat", f"/a/{name}/x")
    assert done.stdout == "exact\n", done.stderr


def test_slashes_too_many_do_no_harm(shifter: Launcher, data: Path) -> None:
    assert shifter.inside("cat /x/y/file", f"-V{data}//.///:/x//./y/") == "text\n"


@pytest.mark.parametrize("volume", ["/usr/share", "/usr/share:", "/usr/share::ro", "/usr;/usr:/x"])
def test_a_user_names_the_place_too(shifter: Launcher, volume: str) -> None:
    said = refused(shifter, volume)
    assert "a volume without a place in the container: '/usr" in said
    assert "hint: write --volume=/FROM:/TO[:ro]" in said


@pytest.mark.parametrize(
    "volumes",
    [
        '"{0}:/x"',
        "'{0}:/x'",
        ' "{0}:/x" ',
        '"{0}":"/x"',
        "'{0}:/x';\"{0}:/y\"",
        '"{0}:/y;{0}:/x"',
        "{0} : /x",
        "{0}:/x:",
        "{0}:/x::,",
        ";;{0}:/x; ;",
    ],
)
def test_quotes_blanks_and_empty_words_around_a_volume_say_nothing(
    shifter: Launcher, data: Path, volumes: str
) -> None:
    assert shifter.inside("cat /x/file", f"-V{volumes.format(data)}") == "text\n"


def mounts_of(shifter: Launcher, *options: str) -> dict[str, list[str]]:
    lines = shifter.inside("cat /proc/self/mountinfo", *options).splitlines()
    return {line.split()[4]: line.split() for line in lines}


def test_the_nodes_own_etc_may_be_shown_elsewhere(shifter: Launcher) -> None:
    options = ("-V/etc:/host/etc", "-V/etc/passwd:/host/passwd")
    out = shifter.inside("cat /host/etc/passwd; cat /host/passwd; cat /etc/motd", *options)
    assert out == Path("/etc/passwd").read_text() * 2 + "from the image\n"


def test_a_link_is_followed_on_the_node(shifter: Launcher, data: Path) -> None:
    (data / "link").symlink_to(data / "inner")
    (data / "inner" / "x").touch()
    assert shifter.inside("ls /x", f"-V{data}/link:/x") == "x\n"


def test_volumes_have_no_setuid_and_no_devices(shifter: Launcher, data: Path) -> None:
    assert {"nosuid", "nodev"} <= set(mounts_of(shifter, f"-V{data}:/x")["/x"][5].split(","))


def test_a_volume_may_lie_in_another(shifter: Launcher, data: Path, home: Path) -> None:
    out = shifter.inside("ls /x; cat /x/inner/mine", f"-V{data}:/x;{home}:/x/inner")
    assert out == "file\ninner\nat home\n"
    assert not (data / "inner" / "mine").exists()


def test_nothing_is_made_in_a_directory_of_the_nodes(shifter: Launcher, data: Path) -> None:
    said = refused(shifter, f"{data}:/x;/usr:/x/absent")
    assert "cannot mount '/usr' at '/x/absent' in the container: No such file" in said
    assert f"hint: '{data}' of this node is seen at '/x', and nothing is made in it" in said
    assert sorted(entry.name for entry in data.iterdir()) == ["file", "inner"]
    assert "cannot mount '/usr' at '/tmp/absent" in refused(shifter, f"/usr:/tmp/absent-{UID}")


def test_a_volume_goes_over_home_and_tmp(shifter: Launcher, data: Path) -> None:
    options = (f"-V{data}:/tmp", f"-V{data}:{shifter.home}")
    assert shifter.inside("ls /tmp; ls ~", *options) == "file\ninner\n" * 2


# ------------------------------------------------------------------ flags


def test_read_only_is_read_only_all_the_way_down(shifter: Launcher, data: Path) -> None:
    # A tmpfs is mounted in the source; the caller could write to both.
    deep = f'mount -t tmpfs -o mode=777 deep {data}/inner && touch {data}/inner/there && exec "$@"'
    for volume, words in ((f"{data}:/x:ro", "Read-only file system"), (f"{data}:/x", "")):
        done = shifter.run(
            "-i", "test", f"-V{volume}",
            "sh", "-c", "ls /x/inner; touch /x/made; touch /x/inner/made",
            before=["unshare", "-Urm", "/bin/sh", "-c", deep, "sh"],
        )  # fmt: skip
        assert "there\n" in done.stdout
        assert done.stderr.count("Read-only file system") == (2 if words else 0), done.stderr


def test_read_only_is_so_on_older_kernels_too(shifter: Launcher, data: Path) -> None:
    deep = f'mount -t tmpfs -o mode=777 deep {data}/inner && exec "$@"'
    inject = [
        "strace",
        "-o",
        "/dev/null",
        "-e",
        "inject=open_tree,openat2,mount_setattr:error=ENOSYS",
    ]
    done = shifter.run(
        "-i", "test", f"-V{data}:/x:ro", "sh", "-c", "touch /x/made; touch /x/inner/made",
        before=["unshare", "-Urm", "/bin/sh", "-c", deep, "sh", *inject],
    )  # fmt: skip
    assert done.stderr.count("Read-only file system") == 2, done.stderr


@pytest.mark.parametrize("flag", ["RO", "Ro", "ro:", ":ro", "ro,", " ro "])
def test_a_flag_may_be_written_in_capitals(shifter: Launcher, data: Path, flag: str) -> None:
    done = shifter.run("-i", "test", f"-V{data}:/x:{flag}", "touch", "/x/made")
    assert "Read-only file system" in done.stderr


@pytest.mark.parametrize("flags", ["ro:ro", "ro,RO", "perNodeCache=size=1M,size=2M"])
def test_a_flag_that_stands_twice_is_an_error(shifter: Launcher, flags: str) -> None:
    assert "a flag that stands twice: '" in refused(shifter, f"/usr:/x:{flags}")


@pytest.mark.parametrize("flag", ["rw", "rec", "slave", "ro=1", "size=1G", "READONLY", "/y"])
def test_unknown_flags_are_errors(shifter: Launcher, flag: str) -> None:
    assert f"no flag of a volume: '{flag}'" in refused(shifter, f"/usr:/x:{flag}")


def test_a_cache_of_the_node_is_as_large_as_asked_for(shifter: Launcher) -> None:
    show = "touch /cache/x && stat -c '%u %a' /cache; grep ' /cache ' /proc/self/mountinfo"
    out = shifter.inside(show, "-V/any/thing:/cache:perNodeCache=size=3M,fs=xfs")
    assert out.startswith(f"{UID} 755\n")
    assert " - tmpfs " in out
    assert "size=3072k" in out
    assert "touch" in shifter.inside(
        "echo touch > /tmp/x; cat /tmp/x", "-V/x:/tmp:perNodeCache=size=1M"
    )


@pytest.mark.parametrize(
    ("size", "kilobytes"),
    [("500KB", 500), ("500kb", 500), ("1.5M", 1536), (".5m", 512), ("2097152B", 2048),
     ("1MB", 1024), ("0.001953125G", 2048)],
)  # fmt: skip
def test_a_size_is_written_as_in_shifter(shifter: Launcher, size: str, kilobytes: int) -> None:
    out = shifter.inside("grep ' /cache ' /proc/mounts", f"-V/x:/cache:perNodeCache=size={size}")
    assert f"size={kilobytes}k" in out


@pytest.mark.parametrize("size", ["1X", "1KiB", "0.1B", "-1", "1e3", "8E", "99999999999999999999"])
def test_what_is_no_size_is_an_error(shifter: Launcher, size: str) -> None:
    said = refused(shifter, f"/x:/cache:perNodeCache=size={size}")
    assert f"no size: '{size}'" in said
    assert "hint: write a number of bytes, or one with K, M, G, T, P or E" in said


@pytest.mark.parametrize(
    "flag", ["perNodeCache", "perNodeCache=", "perNodeCache=size=0", "perNodeCache=size=1X",
             "perNodeCache=size=1G,method=magic", "perNodeCache=size=1G:ro"],
)  # fmt: skip
def test_a_cache_needs_a_size_and_nothing_else(shifter: Launcher, flag: str) -> None:
    assert "perNodeCache=size=10G" in refused(shifter, f"/x:/cache:{flag}")


def test_many_volumes_need_few_descriptors(shifter: Launcher) -> None:
    volumes = ";".join(f"/usr:/many/{number}" for number in range(60))
    before = ["/bin/sh", "-c", 'ulimit -n 90; exec "$@"', "sh"]
    out = shifter.inside("ls /many | wc -l; cat /etc/motd", f"-V{volumes}", before=before)
    assert out == "60\nfrom the image\n"


# ------------------------------------------------------------------ rules


@pytest.mark.parametrize(
    "target",
    ["/", "//", "/.", "/etc", "/etc/", "/var", "/opt", "/opt/udiImage", "/opt/udiImage/modules/x",
     "/proc", "/proc/1", "/sys/fs", "/dev", "/dev/shm", "//dev", "/etc/passwd", "/etc/group",
     "/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/mtab"],
)  # fmt: skip
def test_what_the_container_is_made_of_stays(shifter: Launcher, target: str) -> None:
    assert "nothing may be mounted at '/" in refused(shifter, f"/usr:{target}")


@pytest.mark.parametrize(
    "target",
    ["/variable", "/etc2", "/optional", "/process", "/sysfs", "/devices", "/var/tmp", "/etc/x"],
)
def test_names_that_only_begin_alike_are_free(shifter: Launcher, target: str) -> None:
    assert shifter.run("-i", "test", f"-V/usr:{target}", "ls", f"{target}/share").returncode == 0


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        ("relative:/x", "not an absolute path: 'relative'"),
        ("/usr:x", "not an absolute path: 'x'"),
        ("/usr:/x /etc:/y", "no flag of a volume: '/y'"),
        ("/usr/../etc:/x", "a path with '..' in it: '/usr/../etc'"),
        ("/usr:/x/..", "a path with '..' in it: '/x/..'"),
        ("/:/x", "the host's root '/' is no volume"),
        ("/proc/self/root:/x", "the host's root must not be reachable"),
        (":/x", "a volume without a source"),
        ("/absent/x:/x", "cannot find '/absent/x', to be mounted at '/x': No such file"),
        ("/usr:/bin/busybox", "the image has a file there"),
        ("/usr:/bin/busybox/x", "'/bin/busybox' is a file in the image"),
        ("/etc/passwd:/bin", "the image has a directory there"),
        ("/usr:/x;/etc:/x/", "two volumes for '/x': '/usr' and '/etc'"),
    ],
)
def test_other_mistakes_have_words_too(shifter: Launcher, volume: str, words: str) -> None:
    assert words in refused(shifter, volume)


def test_empty_entries_of_a_list_are_none(shifter: Launcher) -> None:
    assert shifter.inside("ls -d /x", "-V;  ; /usr:/x ;") == "/x\n"


@pytest.mark.parametrize("link", ["proc", "/proc/1", "../dev", "/", "etc"])
def test_links_of_the_image_lead_nowhere_forbidden(
    shifter: Launcher, store: Path, link: str
) -> None:
    use(shifter, store, {**squash.BUSYBOX, "way": Path(link)})
    assert "cannot mount '/usr' at '/way', which is '/" in refused(shifter, "/usr:/way")


def test_links_of_the_image_are_followed_in_the_image(
    shifter: Launcher, store: Path, data: Path
) -> None:
    use(shifter, store, {**squash.BUSYBOX, "way": Path("/srv/data"), "srv": 0o755})
    assert shifter.inside("cat /way/file; cat /srv/data/file", f"-V{data}:/way") == "text\n" * 2


def test_links_of_a_volume_lead_nowhere_forbidden(shifter: Launcher, data: Path) -> None:
    for target in ("/proc", "/etc", "/dev/shm"):
        (data / "link").symlink_to(target)
        said = refused(shifter, f"{data}:/x;/usr:/x/link")
        assert "cannot mount '/usr' at '/x/link'" in said
        (data / "link").unlink()


def test_links_of_a_volume_are_followed_in_the_container(shifter: Launcher, data: Path) -> None:
    (data / "link").symlink_to("/work")
    assert "/work" in mounts_of(shifter, f"-V{data}:/x;/usr:/x/link")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take the way away")
def test_what_the_caller_cannot_reach_is_no_source(shifter: Launcher, playground: Path) -> None:
    (playground / "inner").mkdir(mode=0o755)
    playground.chmod(0)
    os.chown(playground, 0, 0)
    assert "Permission denied" in refused(shifter, f"{playground}/inner:/x")


def test_the_command_line_discards_the_environments_volumes(shifter: Launcher, data: Path) -> None:
    env: dict[str, str | None] = {
        "SHIFTER_VOLUME": f"{data}:/own;/usr:/usr2",
        "SLURM_SPANK_SHIFTER_VOLUME": f"{data}:/spank",
    }
    assert (
        shifter.inside("ls -d /own /usr2 /spank 2>&1 | wc -l; ls -d /own", env=env) == "3\n/own\n"
    )
    out = shifter.inside(
        "ls -d /own; ls -d /one; ls -d /two", f"-V{data}:/one", f"-V{data}:/two", env=env
    )
    assert out == "/one\n/two\n"
    del env["SHIFTER_VOLUME"]
    assert shifter.inside("ls -d /spank", env=env) == "/spank\n"


def test_a_source_may_be_named_as_the_site_shows_it(shifter: Launcher, data: Path) -> None:
    config = data / "udiRoot.conf"
    config.write_text(f"siteFs={data}:/scratch\n")
    (data / "inner" / "x").touch()
    env: dict[str, str | None] = {"SHIFTER_CONFIG": str(config)}
    assert shifter.inside("ls /y", "-V/scratch/inner:/y", env=env) == "x\n"


def test_an_image_whose_etc_is_elsewhere_is_protected_there(shifter: Launcher, store: Path) -> None:
    tree = squash.without(squash.BUSYBOX, "etc")
    use(shifter, store, {**tree, "usr": 0o755, "usr/etc": 0o755, "etc": Path("usr/etc")})
    for target in ("/usr/etc", "/usr", "/usr/etc/passwd"):
        assert "cannot mount '/bin' at" in refused(shifter, f"/bin:{target}")


def test_a_launch_with_volumes_leaves_no_directory_on_the_node(
    shifter: Launcher, data: Path
) -> None:
    before = subprocess.run(["ls", "-A", "/"], capture_output=True, text=True, check=True).stdout
    shifter.inside("true", f"-V{data}:/new-directory-{UID}")
    after = subprocess.run(["ls", "-A", "/"], capture_output=True, text=True, check=True).stdout
    assert before == after


def test_volumes_may_be_more_than_the_soft_limit_of_descriptors(
    shifter: Launcher, playground: Path
) -> None:
    volumes = ";".join(f"{playground}:/v/{number}" for number in range(300))
    before = ("/bin/bash", "-c", 'ulimit -S -n 256; exec "$@"', "bash")
    script = "ls /v | wc -l; ulimit -n"
    out = shifter.inside(script, "-V", volumes, before=before)
    assert out.split() == ["300", "256"]
