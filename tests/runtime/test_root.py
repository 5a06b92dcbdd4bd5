"""What of the host is in the container, and what is not."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.runtime import squash
from tests.runtime.conftest import GID, UID, Launcher
from tests.runtime.store import make_store


def mounts(shifter: Launcher, **more: object) -> dict[str, list[str]]:
    """Return the fields of each mount in the container by its place."""
    lines = shifter.inside("cat /proc/self/mountinfo", **more).splitlines()
    return {line.split()[4]: line.split() for line in lines}


def use(shifter: Launcher, store: Path, tree: squash.Tree, workdir: str | None = None) -> None:
    """Let the launcher's image be TREE."""
    make_store(store, squash.make(store / "image", tree), env=["PATH=/bin"], workdir=workdir)


def test_nothing_of_the_hosts_root_is_reachable(shifter: Launcher) -> None:
    seen = mounts(shifter)
    assert "overlay" in seen["/"]
    with open("/proc/self/mountinfo") as host:
        [root] = [line.split() for line in host if line.split()[4] == "/"]
    for place, fields in seen.items():
        same = fields[2] == root[2] and fields[3] == root[3]
        assert not same, f"the host's root is at {place}"
    assert shifter.run("-i", "test", "ls", "/old").returncode == 1
    assert shifter.inside("ls /..; ls /etc").split() == [
        "bin", "dev", "etc", "proc", "secret", "srv", "sys", "tmp", "var", "work",
        "group", "gshadow", "hosts", "motd", "mtab", "passwd", "resolv.conf", "shadow",
    ]  # fmt: skip


def test_the_standard_places_are_the_hosts(shifter: Launcher) -> None:
    seen = mounts(shifter)
    assert {"/proc", "/sys", "/dev", "/tmp"} <= set(seen)
    assert "nosuid" in seen["/dev"][5]
    assert "nodev" not in seen["/dev"][5]
    for place, fields in seen.items():
        if place == "/tmp" or place.startswith(str(shifter.home)):
            assert {"nosuid", "nodev"} <= set(fields[5].split(","))
    assert shifter.inside("echo x > /dev/null; test -c /dev/fuse && echo yes") == "yes\n"


def test_the_callers_home_is_there_and_writable(shifter: Launcher) -> None:
    out = shifter.inside("cd; pwd; cat mine; echo new > made; rm -f nothing; ls", cwd="/tmp")
    assert out.splitlines()[:2] == [str(shifter.home), "at home"]
    assert (shifter.home / "made").read_text() == "new\n"
    (shifter.home / "made").unlink()


def test_a_home_that_is_the_callers_goes_over_the_images(
    shifter: Launcher, store: Path, home: Path
) -> None:
    inner = {str(parent)[1:]: 0o755 for parent in reversed([home, *home.parents][:-1])}
    use(shifter, store, {**squash.BUSYBOX, **inner, f"{str(home)[1:]}/theirs": "x"})
    assert shifter.inside("ls $HOME") == "mine\n"


def test_anothers_home_goes_over_no_directory_that_is_used(shifter: Launcher, store: Path) -> None:
    use(shifter, store, {**squash.BUSYBOX, "usr": 0o755, "usr/theirs": "x", "opt": 0o755})
    assert shifter.inside("ls /usr", env={"HOME": "/usr"}) == "theirs\n"
    assert "/opt" in mounts(shifter, env={"HOME": "/opt"})


@pytest.mark.parametrize("home", ["/", "/etc", "/etc/../etc", "/proc/self", "/dev/shm", "relative"])
def test_no_home_goes_over_what_the_container_is_made_of(shifter: Launcher, home: str) -> None:
    out = shifter.inside("cat /etc/motd; ls /proc/self/status", env={"HOME": home})
    assert out == "from the image\n/proc/self/status\n"


def test_a_home_that_leads_to_the_hosts_root_is_not_bound(
    shifter: Launcher, playground: Path
) -> None:
    for number, target in enumerate(("/", "/etc", "/proc/1/root")):
        link = playground / f"link{number}"
        link.symlink_to(target)
        assert str(link) not in mounts(shifter, env={"HOME": str(link)})


def test_the_callers_directory_is_there(shifter: Launcher, playground: Path) -> None:
    done = shifter.run("-i", "test", "sh", "-c", "pwd; echo here > file", cwd=playground)
    assert (done.stdout, done.stderr) == (f"{playground}\n", "")
    assert (playground / "file").read_text() == "here\n"
    inner = playground / "inner"
    inner.mkdir(mode=0o755)
    assert shifter.inside("pwd; ls ..", cwd=inner).splitlines()[0] == str(inner)


def test_a_directory_inside_a_bind_is_not_bound_again(
    shifter: Launcher, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    inner = home / "deep" / "er"
    inner.mkdir(parents=True, exist_ok=True)
    assert shifter.inside("pwd", cwd=inner) == f"{inner}\n"
    assert str(inner) not in mounts(shifter, cwd=inner)
    assert shifter.inside("pwd", cwd="/proc/sys") == "/proc/sys\n"


def test_the_directory_above_home_may_be_where_the_caller_is(shifter: Launcher) -> None:
    above = shifter.home.parent
    assert shifter.inside("pwd; cat caller/mine", cwd=above) == f"{above}\nat home\n"


def test_the_image_wins_where_it_has_the_callers_directory(
    shifter: Launcher, store: Path, playground: Path
) -> None:
    inner = {str(parent)[1:]: 0o755 for parent in reversed([playground, *playground.parents][:-1])}
    (playground / "outer").touch()
    use(shifter, store, {**squash.BUSYBOX, **inner, f"{str(playground)[1:]}/inner": "x"})
    assert shifter.inside("ls", cwd=playground) == "inner\n"
    use(shifter, store, {**squash.BUSYBOX, **inner})
    assert shifter.inside("ls", cwd=playground) == "outer\n"


def test_mount_points_that_the_image_lacks_are_made(
    shifter: Launcher, store: Path, playground: Path
) -> None:
    use(shifter, store, squash.without(squash.BUSYBOX, "proc", "sys", "dev", "tmp", "etc"))
    out = shifter.inside("pwd; id -un; ls /; cat ~/mine", cwd=playground)
    assert out.splitlines()[:2] == [str(playground), f"u{UID}"]
    assert out.endswith("at home\n")


def test_both_temporary_directories_are_the_nodes(shifter: Launcher, store: Path) -> None:
    use(shifter, store, squash.BUSYBOX)
    for name in ("/tmp", "/var/tmp"):
        file = Path(f"{name}/shifter-test-{os.getpid()}")
        assert shifter.inside(f"echo written > {file}; cat {file}") == "written\n"
        assert file.read_text() == "written\n"
        file.unlink()
    # As in some images.
    use(shifter, store, {**squash.BUSYBOX, "var": 0o755, "var/tmp": Path("../tmp")})
    assert shifter.inside("ls -d /var/tmp/.") == "/var/tmp/.\n"


def test_directories_above_a_mount_point_look_as_in_the_image(
    shifter: Launcher, store: Path, playground: Path
) -> None:
    use(shifter, store, {**squash.BUSYBOX, "var": 0o711, "var/tmp": 0o1777, "var/own": "x"})
    assert shifter.inside("stat -c %a /var /var/tmp /etc; cat /var/own", cwd=playground) == (
        "711\n1777\n755\nx"
    )


def test_links_in_the_image_are_followed_in_the_image(
    shifter: Launcher, store: Path, home: Path
) -> None:
    tree = squash.without(squash.BUSYBOX, "tmp", "etc")
    use(
        shifter,
        store,
        {
            **tree,
            "scratch": 0o755,
            "scratch/tmp": 0o755,
            "tmp": Path("../../scratch//tmp/../tmp"),
            "usr": 0o755,
            "usr/etc": 0o755,
            "usr/etc/passwd": Path("/usr/etc/real"),
            "usr/etc/real": "root:x:0:0::/root:/bin/sh\n",
            "etc": Path("/usr/etc"),
            "export": 0o755,
            "srv": Path("export/srv"),
        },
    )
    show = "grep -c . /etc/passwd; cat ~/mine; readlink /etc; readlink /tmp; readlink /srv"
    assert shifter.inside(show) == ("2\nat home\n/usr/etc\n../../scratch/tmp/../tmp\nexport/srv\n")
    seen = mounts(shifter)
    assert "/scratch/tmp" in seen
    assert f"/export{home}" in seen


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"tmp": Path("/")}, "cannot put '/tmp' into the image, where it is '/'"),
        ({"tmp": Path("etc/x")}, "cannot put '/tmp' into the image, where it is '/etc/x'"),
        ({"tmp": Path("tmp")}, "cannot follow '/tmp' in the image: "),
    ],
)
def test_an_image_that_leads_a_bind_astray_is_refused(
    shifter: Launcher, store: Path, tree: squash.Tree, words: str
) -> None:
    use(shifter, store, {**squash.without(squash.BUSYBOX, "tmp"), **tree})
    done = shifter.run("-i", "test", "true")
    assert done.returncode == 125
    assert words in done.stderr


def test_a_home_that_the_image_leads_into_etc_is_left_out(
    shifter: Launcher, store: Path, home: Path
) -> None:
    first, *rest = home.parts[1:]
    use(shifter, store, {**squash.BUSYBOX, first: Path("etc")})
    assert f"/etc/{'/'.join(rest)}" not in mounts(shifter)


def test_hostile_passwd_files_of_images_do_no_harm(shifter: Launcher, store: Path) -> None:
    hostile: dict[str, squash.Entry] = {
        "etc/passwd": f"a:x:{UID}:{GID}::/:/x\n" * 3 + "u" * 100_000 + "\n:::::::\n\0\0x",
        "etc/group": "x" * (2 << 20),
    }
    use(shifter, store, {**squash.BUSYBOX, **hostile})
    assert shifter.inside("cat /etc/passwd") == f"u{UID}:x:{UID}:{GID}::{shifter.home}:/bin/sh\n"
    odd: list[squash.Tree] = [
        {"etc/passwd": 0o755},
        {"etc/passwd": Path("/dev/stdin")},
        {"etc/group": Path("absent")},
    ]
    for tree in odd:
        use(shifter, store, {**squash.BUSYBOX, **tree})
        assert shifter.inside("id -un; id -gn") == f"u{UID}\ng{GID}\n"


def test_the_working_directory_can_be_chosen(shifter: Launcher) -> None:
    assert shifter.inside("pwd", "-w") == "/work\n"
    assert shifter.inside("pwd", "--workdir") == "/work\n"
    assert shifter.inside("pwd", "--workdir=/bin") == "/bin\n"
    assert shifter.inside("pwd", "-w/bin") == "/bin\n"
    assert shifter.inside("pwd", cwd="/") == "/work\n"


def test_a_namespace_can_be_made_inside(shifter: Launcher) -> None:
    # chroot would forbid it; so this shows that the root was changed in earnest.
    done = shifter.run("-i", "test", "/bin/busybox", "unshare", "-Ur", "/bin/sh", "-c", "id -u")
    assert done.stdout == "0\n", done.stderr


def test_a_root_that_cannot_be_pivoted_is_moved_away(shifter: Launcher) -> None:
    before = ["strace", "-o", "/dev/null", "-e", "inject=pivot_root:error=EINVAL"]
    done = shifter.run("-i", "test", "sh", "-c", "ls /; cat /etc/motd", before=before)
    assert done.returncode == 0, done.stderr
    assert "from the image" in done.stdout
    assert "old" not in done.stdout
    assert "root" not in done.stdout.split()


def test_older_kernels_are_served_by_other_calls(traceable: Launcher) -> None:
    # -b execve: strace must not hold the server while it reads memory that the server backs.
    inject = "inject=mount_setattr,close_range:error=ENOSYS"
    before = ["strace", "-f", "-b", "execve", "-o", "/dev/null", "-e", inject]
    out = traceable.inside("cat /proc/self/mountinfo", before=before)
    [tmp] = [line.split() for line in out.splitlines() if line.split()[4] == "/tmp"]
    assert {"nosuid", "nodev"} <= set(tmp[5].split(","))


def test_the_launcher_is_static(shifter: Launcher) -> None:
    headers = subprocess.run(
        ["readelf", "-ldW", shifter.program], capture_output=True, text=True, check=True
    ).stdout
    assert "INTERP" not in headers
    assert "(NEEDED)" not in headers
    assert "GNU_RELRO" in headers


@pytest.mark.parametrize("own", [{}, {"etc/mtab": "stale\n"}, {"etc/mtab": Path("/absent")}])
@pytest.mark.parametrize("options", [(), ("--writable",)])
def test_programs_that_read_mtab_see_the_containers_mounts(
    shifter: Launcher, store: Path, own: squash.Tree, options: tuple[str, ...]
) -> None:
    use(shifter, store, {**squash.BUSYBOX, **own})
    mounts = shifter.inside("cat /etc/mtab", *options).splitlines()
    assert [line.split()[1] for line in mounts].count("/proc") == 1


# ------------------------------------------------------------- passwords

SECRET = "root:$6$SECRET:1::::::\n"
SECRETS: dict[str, squash.Tree] = {
    "plain": {"etc/shadow": (0o640, SECRET), "etc/gshadow": (0o000, SECRET)},
    "copies": {f"etc/{name}": SECRET for name in ("shadow", "shadow-", "gshadow", "gshadow-")},
    "old passwords": {
        "etc/security": 0o755,
        "etc/security/opasswd": (0o600, SECRET),
        "etc/security/limits.conf": "kept\n",
    },
    "old passwords behind a link": {
        "etc/security": Path("/srv/security"),
        "srv": 0o755,
        "srv/security": 0o755,
        "srv/security/opasswd": SECRET,
        "srv/security/limits.conf": "kept\n",
    },
    "links": {
        "etc/shadow": Path("hidden/real"),
        "etc/gshadow": Path("/srv/two"),
        "etc/shadow-": Path("/data/one"),
        "data": Path("srv"),
        "srv": 0o755,
        "srv/one": SECRET,
        "srv/two": Path("one"),
        "etc/hidden": 0o755,
        "etc/hidden/real": SECRET,
    },
    "links that lead nowhere": {
        "etc/shadow": Path("/absent"),
        "etc/gshadow": Path("gshadow"),
        "etc/shadow-": Path("/etc/passwd"),
        "etc/gshadow-": Path("/proc/self/environ"),
    },
    "directories": {"etc/shadow": 0o755, "etc/shadow/x": "x", "etc/gshadow": 0o755},
    "none": {},
}
KINDS = {"overlay": (), "writable": ("--writable",), "underlay": ()}
LAY = ("strace", "-o", "/dev/null", "-e", "inject=mount:error=ENODEV:when=4")


def look(shifter: Launcher, kind: str, script: str) -> str:
    """Return what SCRIPT prints in a root of KIND."""
    return shifter.inside(script, *KINDS[kind], before=LAY if kind == "underlay" else ())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("of", SECRETS)
@pytest.mark.parametrize("etc", [None, "link"])
def test_passwords_of_an_image_cannot_be_read(
    shifter: Launcher, store: Path, kind: str, of: str, etc: str | None
) -> None:
    tree: squash.Tree = {**squash.BUSYBOX, **SECRETS[of]}
    if etc is not None:
        moved = {f"usr/lib/e{p[3:]}" if p.startswith("etc") else p: tree[p] for p in tree}
        tree = {**moved, "etc": Path("/usr/lib/e"), "usr": 0o755, "usr/lib": 0o755}
    use(shifter, store, tree)
    script = (
        "cat /etc/shadow /etc/gshadow; for f in /etc/*shadow* /etc/security/o* /srv/* /srv/*/* "
        "/etc/hidden/*; do test -f $f && grep -l SECRET $f; done; "
        "cat /etc/security/limits.conf; test -f /etc/shadow && test -f /etc/gshadow && "
        "grep -c root /etc/passwd"
    )
    out = look(shifter, kind, script)
    assert out == ("kept\n" if of.startswith("old passwords") else "") + "1\n"


@pytest.mark.parametrize("of", ["plain", "copies", "links"])
def test_passwords_do_not_come_back_when_what_hides_them_is_removed(
    shifter: Launcher, store: Path, of: str
) -> None:
    use(shifter, store, {**squash.BUSYBOX, **SECRETS[of]})
    script = (
        "chmod 777 /etc/*shadow*; cd /bin; busybox rm -f /etc/*shadow* /srv/* "
        "/etc/hidden/*; grep -rl SECRET /etc /srv; busybox mv /etc /gone; "
        "busybox mkdir /etc; grep -rl SECRET /etc /gone /srv; true"
    )
    assert look(shifter, "writable", script) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_the_sites_own_shadow_is_not_seen_either(
    shifter: Launcher, store: Path, playground: Path, kind: str
) -> None:
    use(shifter, store, {**squash.BUSYBOX, **SECRETS["plain"]})
    site = playground / "etc"
    site.mkdir()
    for name in ("shadow", "gshadow-"):
        (site / name).write_text(SECRET)
    (site / "shadowsocks.conf").write_text("kept\n")
    (playground / "udiRoot.conf").write_text(f"etcPath={site}\n")
    shifter.env["SHIFTER_CONFIG"] = str(playground / "udiRoot.conf")
    script = "cat /etc/shadow /etc/gshadow /etc/shadowsocks.conf; grep -l SECRET /etc/*; true"
    assert look(shifter, kind, script) == "kept\n"


# ------------------------------------------------------------- shifterConfig.json


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"var": 0o755, "var/shifterConfig.json": "stale"},
        {"var": 0o711, "var/shifterConfig.json": Path("/etc/passwd")},
        {"var": Path("/usr/var")},
        {"var": Path("work")},
    ],
)
def test_a_program_finds_out_that_it_is_in_a_container(
    shifter: Launcher, store: Path, kind: str, tree: squash.Tree
) -> None:
    image = squash.make(store / "image", {**squash.BUSYBOX, **tree})
    image_id = make_store(store, image, env=["PATH=/bin"])
    out = look(shifter, kind, "cat /var/shifterConfig.json")
    assert out == f'{{"identifier":"{image_id}","user":"u{UID}","volMap":"","modules":""}}\n'


def test_volumes_and_modules_stand_there_as_shifter_has_them(
    shifter: Launcher, playground: Path
) -> None:
    odd = playground / 'a"b\\c'
    (odd / "x").mkdir(parents=True)
    (playground / "udiRoot.conf").write_text(
        f"module_m1_siteEnv=A=1\nmodule_m2_siteEnv=A=2\nsiteFs={playground}:/site\n"
    )
    env = {"SHIFTER_CONFIG": str(playground / "udiRoot.conf")}
    done = shifter.run(
        "-i", "test", "-m", "m2,m1", f"-V{playground}:/z;{odd}//x/:/new/;/site/:/a:ro",
        "-V/tmp:/c:perNodeCache=size=1M", "cat", "/var/shifterConfig.json", env=env,
    )  # fmt: skip
    assert done.returncode == 0, done
    told = json.loads(done.stdout)
    assert list(told) == ["identifier", "user", "volMap", "modules"]
    assert told["volMap"].split(";") == sorted(
        [
            f"{playground}:/z",
            f"{odd}/x:/new",
            "/site:/a:ro",
            "/tmp:/c:perNodeCache=size=1048576,bs=1048576,method=loop,fstype=xfs",
        ]
    )
    assert told["modules"] == "m2,m1,"


@pytest.mark.parametrize("kind", KINDS)
def test_what_tells_of_the_container_cannot_be_changed(
    shifter: Launcher, store: Path, kind: str
) -> None:
    use(shifter, store, squash.BUSYBOX)
    script = (
        "f=/var/shifterConfig.json; was=$(cat $f); echo x > $f; chmod 777 $f; "
        "/bin/busybox rm -f $f; /bin/busybox mv $f /var/x; /bin/busybox mv /var /y; "
        'test "$(cat $f)" = "$was" && echo same'
    )
    assert look(shifter, kind, f"{{ {script}; }} 2> /dev/null") == "same\n"
