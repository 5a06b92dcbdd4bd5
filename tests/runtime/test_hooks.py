"""Scripts of the site's that help to build a container's root."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.runtime import squash
from tests.runtime.conftest import GID, UID, Launcher
from tests.runtime.store import make_store
from tests.runtime.test_container import rank
from tests.runtime.test_errors import changed_node, fails, needs_root

# As the slides of Blue Waters print them.
PREFIX = "/opt/cray/shifter/16.08.3"
BLUE_WATERS = """\
udiMount=/var/udiMount
loopMount=/var/udiLoopMount
udiRootPath=/opt/cray/shifter/16.08.3
sitePreHookMount=/opt/cray/shifter/16.08.3/sbin/premount.sh
mountCmd=/opt/cray/shifter/16.08.3/lib64/shifter/mount
kmodBasePath=/opt/cray/shifter/16.08.3/modules
imageGateway=http://shifter:5000 http://shifter:5001 http://shifter:5002
siteResources=/opt/shifter/site-resources
allowLibcPwdCalls=1
"""
PREMOUNT = """\
#!/bin/bash
mkdir -p mnt/a
mkdir -p mnt/b
mkdir -p mnt/c
mount --bind /mnt/a mnt/a
mount --bind /mnt/b mnt/b
mount --bind /mnt/c mnt/c
mkdir -p ufs
mount --bind /ufs ufs
mkdir -p var/opt/cray/alps
mount --bind /var/opt/cray/alps var/opt/cray/alps
mkdir -p dsl/opt
mount --bind /dsl/opt dsl/opt
ln -s mnt/a/u u
ln -s mnt/b/projects projects
ln -s mnt/c/scratch scratch
"""
Site = Callable[..., Path]


@pytest.fixture(params=["overlay", "writable", "underlay"])
def root(request: pytest.FixtureRequest) -> str:
    """The kinds of roots; each test that has this runs with all of them."""
    kind: str = request.param
    return kind


def options(root: str) -> tuple[str, ...]:
    return ("--writable",) if root == "writable" else ()


def before(root: str) -> tuple[str, ...]:
    """Return what takes overlayfs away from the launcher."""
    if root != "underlay":
        return ()
    # The launcher alone: hooks mount as they like.
    return ("strace", "-o", "/dev/null", "-P", "root", "-e", "inject=mount:error=ENODEV:when=1")


@pytest.fixture
def site(shifter: Launcher, playground: Path) -> Site:
    """Write a configuration in which the key says the script that is given for it."""

    def write(*lines: str, **scripts: str) -> Path:
        text = "".join(f"{line}\n" for line in lines)
        for key, script in scripts.items():
            path = playground / f"{key}.sh"
            path.write_text(script)
            text += f"{key}={path}\n"
        path = playground / "udiRoot.conf"
        path.write_text(text)
        shifter.env["SHIFTER_CONFIG"] = str(path)
        return playground

    return write


def use(shifter: Launcher, store: Path, tree: squash.Tree) -> None:
    """Let the launcher's image be TREE."""
    make_store(store, squash.make(store / "image", tree), env=["PATH=/bin"])


def inside(shifter: Launcher, root: str, script: str, *more: str, **rest: object) -> str:
    return shifter.inside(script, *options(root), *more, before=before(root), **rest)


# ------------------------------------------------------------- the seed


@pytest.fixture
def blue_waters(playground: Path) -> Iterator[str]:
    """A shell script that makes the node one of Blue Waters'."""
    made = [path for path in (Path("/ufs"), Path("/dsl")) if not path.exists()]
    for path in made:
        path.mkdir()
    (playground / "premount.sh").write_text(PREMOUNT)
    lines = (
        "for d in /opt /mnt /ufs /dsl /var/opt; do mount -t tmpfs -o mode=755 none $d; done",
        f"mkdir -p {PREFIX}/sbin /mnt/a/u/me /mnt/b/projects /mnt/c/scratch /var/opt/cray/alps "
        "/dsl/opt",
        f"cp {playground}/premount.sh {PREFIX}/sbin",
        "echo of the site > /mnt/c/scratch/file; echo of ufs > /ufs/file",
        "echo of alps > /var/opt/cray/alps/file; echo of dsl > /dsl/opt/file",
        f"echo home > /mnt/a/u/me/file; chown {UID}:{GID} /mnt/a/u/me",
    )
    (playground / "change.sh").write_text("\n".join(lines))
    yield f"sh {playground}/change.sh"
    for path in made:
        path.rmdir()


IMAGES: dict[str, squash.Tree] = {
    "small": squash.BUSYBOX,
    "with mount points": {
        **squash.BUSYBOX,
        **dict.fromkeys(("mnt", "mnt/a", "ufs", "dsl", "var", "var/opt", "opt"), 0o755),
        "mnt/own": "of the image",
        "mnt/a/hidden": "x",
    },
    "with names that are taken": {
        **squash.BUSYBOX,
        **dict.fromkeys(("u", "u/x", "scratch"), 0o755),
        "projects": Path("/work"),
        "mnt": Path("/work"),
        "ufs": "a file",
    },
}


@needs_root
@pytest.mark.parametrize("udi_mount", [True, False])
@pytest.mark.parametrize("kind", IMAGES)
def test_the_premount_script_of_blue_waters_works_verbatim(
    shifter: Launcher, store: Path, playground: Path, blue_waters: str, root: str, kind: str,
    udi_mount: bool,
) -> None:  # fmt: skip
    use(shifter, store, IMAGES[kind])
    (playground / "udiRoot.conf").write_text(BLUE_WATERS)
    change = blue_waters
    if udi_mount:
        change += " && mount -t tmpfs none /var/lib && mkdir /var/lib/udi"
        text = BLUE_WATERS.replace("/var/udiMount", "/var/lib/udi")
        (playground / "udiRoot.conf").write_text(text)
    command = (
        "cat /scratch/file /ufs/file /var/opt/cray/alps/file /dsl/opt/file /u/me/file; "
        "readlink /u; readlink /projects; ls /mnt; echo x > /u/me/new; cat /etc/motd; "
        "echo x > /mnt/new"
    )
    done = shifter.run(
        "-i", "test", *options(root), "sh", "-c", command,
        before=(*changed_node(shifter, change), *before(root)), user=0, group=0,
        env={"SHIFTER_CONFIG": str(playground / "udiRoot.conf")},
    )  # fmt: skip
    own = ["own"] if kind == "with mount points" else []
    assert done.stdout.splitlines() == [
        "of the site", "of ufs", "of alps", "of dsl", "home", "mnt/a/u", "mnt/b/projects",
        "a", "b", "c", *own, "from the image",
    ], done  # fmt: skip
    assert (done.returncode == 0) == (root == "writable"), done


@needs_root
def test_check_config_takes_the_file_of_blue_waters(
    shifter: Launcher, playground: Path, blue_waters: str
) -> None:
    path = playground / "udiRoot.conf"
    path.write_text(BLUE_WATERS)
    done = shifter.run(
        f"--check-config={path}", before=changed_node(shifter, blue_waters), user=0, group=0
    )
    assert done.returncode == 0, done
    for key in ("mountCmd", "siteResources"):
        assert re.search(f"'{key}' has no effect: .", done.stdout), done.stdout
    assert "Hook" not in done.stdout


@needs_root
def test_a_home_behind_a_link_of_a_hooks_is_the_home(
    shifter: Launcher, store: Path, playground: Path, blue_waters: str, root: str
) -> None:
    use(shifter, store, squash.BUSYBOX)
    (playground / "udiRoot.conf").write_text(BLUE_WATERS)
    for home in ("/u/me", "/mnt/a/u/me"):
        done = shifter.run(
            "-i", "test", *options(root), "sh", "-c", "ls /; cat ~/file; ls /u",
            before=(*changed_node(shifter, blue_waters), *before(root)), user=0, group=0,
            env={"SHIFTER_CONFIG": str(playground / "udiRoot.conf"), "HOME": home},
        )  # fmt: skip
        assert done.stdout.endswith("home\nme\n"), done


# ------------------------------------------------------------- order, place, environment


def test_hooks_run_before_and_after_the_sites_mounts(
    shifter: Launcher, site: Site, root: str, playground: Path
) -> None:
    (playground / "fs" / "inner").mkdir(parents=True)
    (playground / "fs" / "file").write_text("of siteFs\n")
    site(
        f"siteFs={playground}/fs:/global/fs",
        "defaultModules=m",
        f"module_m_siteFs={playground}/fs:/modules/m",
        sitePreMountHook="mkdir -p global/here; echo pre > order; ls global/fs/file 2>&1; true",
        sitePostMountHook="cat global/fs/file >> order; ls modules/m/file >> order 2>&1; "
        "ln -s global/fs/inner short; echo post >> order",
        module_m_roothook="cat modules/m/file >> order; echo root >> order; test -s etc/passwd",
    )
    out = inside(shifter, root, "cat /order; ls /global /short/.. /modules/m")
    first, *rest = out.splitlines()
    assert first == "pre"
    assert rest[0] == "of siteFs"
    assert "No such file" in rest[1]
    assert rest[2:5] == ["post", "of siteFs", "root"]
    assert rest[5:] == [
        "/global:", "fs", "here", "", "/modules/m:", "file", "inner", "",
        "/short/..:", "file", "inner",
    ]  # fmt: skip


def test_users_volumes_come_after_hooks(
    shifter: Launcher, site: Site, root: str, playground: Path
) -> None:
    for name in ("one", "two"):
        (playground / name / "sub").mkdir(parents=True)
        (playground / name / "file").write_text(f"{name}\n")
    site(
        sitePreMountHook=f"mkdir -p data; mount --bind {playground}/one data; ln -s data/sub short"
    )
    out = inside(
        shifter, root, "cat /data/file /data/sub/file",
        f"-V{playground}/two:/short",
    )  # fmt: skip
    assert out == "one\ntwo\n"
    assert not list((playground / "one" / "sub").iterdir())
    said = shifter.run(
        "-i", "test", *options(root), f"-V{playground}/two:/data/new", "true", before=before(root)
    )
    assert said.returncode == 125
    assert "/data/new" in said.stderr
    assert sorted(os.listdir(playground / "one")) == ["file", "sub"]


def test_a_hook_sees_the_node_and_nothing_of_the_callers(
    shifter: Launcher, site: Site, root: str, playground: Path
) -> None:
    shifter.env["CALLERS"] = "x"
    site(
        sitePreMountHook="env > said; id -u >> said; ls /etc > etc-of-node; cat >> said; "
        "ls -l /proc/self/fd | sed 's/.*-> //' > files; umask >> said; echo $0 >> said; "
        "pwd > where; ls > there; echo words; grep NoNew /proc/self/status >> said"
    )
    command = ("cat", "/said", "/files")
    done = shifter.run(
        "-i", "test", *options(root), *command, before=before(root), input="callers\n"
    )
    assert done.returncode == 0, done
    lines = done.stdout.splitlines()
    assert "CALLERS" not in done.stdout
    assert "callers" not in lines
    assert [line for line in lines if line.startswith("PATH=")]
    at = lines.index("0")
    assert lines[at + 1 : at + 4] == [
        "0022", f"{playground}/sitePreMountHook.sh", "NoNewPrivs:\t1"
    ]  # fmt: skip
    assert done.stderr.endswith("words\n")
    files = lines[at + 4 :]
    assert "/dev/null" in files
    assert not [line for line in files if "fuse" in line or "shifter_lite" in line], files
    out = inside(shifter, root, "cat /etc-of-node; echo; cat /where; cat /there")
    assert {name for name in os.listdir("/etc") if name[0] != "."} <= set(out.split())
    assert {"etc", "var", "opt", "proc", "tmp"} <= set(out.split("\n\n")[1].split())


def test_a_hook_runs_where_udi_mount_is(
    shifter: Launcher, site: Site, root: str, playground: Path
) -> None:
    place = playground / "udi mount"
    place.mkdir()
    site(
        f"udiMount={place}",
        sitePreMountHook=f"pwd > here; mkdir '{place}/made'; mkdir -p a; "
        f"mount --bind {playground} '{place}/a'",
    )
    assert inside(shifter, root, "cat /here; ls -d /made; ls -d '/a/udi mount'") == (
        f"{place}\n/made\n/a/udi mount\n"
    )
    assert not list(place.iterdir())


def test_a_hook_runs_once_for_each_container(
    shifter: Launcher, site: Site, playground: Path
) -> None:
    site(sitePreMountHook=f"echo once >> {playground}/log")
    with rank(shifter):
        for _ in range(3):
            shifter.inside("true")
        assert (playground / "log").read_text() == "once\n"
    assert shifter.inside("true", "--writable") == ""
    assert (playground / "log").read_text() == "once\n" * 2


@pytest.mark.parametrize("key", ["sitePreMountHook", "sitePostMountHook", "module_m_roothook"])
def test_a_hook_that_was_edited_gets_a_container_of_its_own(
    shifter: Launcher, site: Site, playground: Path, key: str
) -> None:
    site("defaultModules=m", "module_m_enabled=1", **{key: "echo one > word"})
    script = playground / f"{key}.sh"
    status = script.stat()
    with rank(shifter):
        script.write_text("echo two > word")
        assert shifter.inside("cat /word") == "two\n"
        other = playground / "other"
        other.write_text("echo six > word")
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        other.rename(script)
        assert shifter.inside("cat /word") == "six\n"


def test_what_an_image_has_does_not_lead_a_hook_out_of_the_root(
    shifter: Launcher, site: Site, store: Path, root: str, playground: Path
) -> None:
    target = playground / "target"
    target.mkdir(mode=0o755)
    os.chown(target, UID, GID)
    links: squash.Tree = dict.fromkeys(("mnt", "opt", "var", "data", "x"), target)
    use(shifter, store, {**squash.BUSYBOX, **links})
    site(
        sitePreMountHook="mkdir -p mnt/a opt/a var/a data; echo x > mnt/a/x; echo x > var/x; "
        "echo x > opt/x; echo x > data/x; echo x > x"
    )
    inside(shifter, root, "cat /mnt/a/x /var/x /data/x")
    assert not list(target.iterdir())


@pytest.mark.parametrize("key", ["sitePreMountHook", "sitePostMountHook"])
def test_links_of_a_hook_lead_a_launch_nowhere(
    shifter: Launcher, site: Site, root: str, playground: Path, key: str
) -> None:
    target = playground / "target"
    target.mkdir(mode=0o755)
    os.chown(target, UID, GID)
    for name in ("etc", "var", "opt", "new"):
        site(
            f"siteFs={playground}:/new/place:ro",
            "defaultModules=m",
            f"module_m_siteFs={playground}:/new/other:ro",
            module_m_roothook="true",
            **{key: f"rm -rf {name} 2> /dev/null; ln -s {target} {name} || true"},
        )
        shifter.run("-i", "test", *options(root), "true", before=before(root))
        assert not list(target.iterdir())


def test_files_of_a_hook_give_way_to_the_containers_own(
    shifter: Launcher, site: Site, root: str
) -> None:
    site(
        sitePreMountHook="for f in passwd group mtab shadow resolv.conf mine; do "
        "echo hook > etc/$f; done; mkdir -p proc sys dev tmp/x"
    )
    out = inside(shifter, root, "cat /etc/mine /etc/passwd; readlink /etc/mtab; id -un")
    assert out.splitlines()[0] == "hook"
    assert f"u{UID}:x:{UID}" in out
    assert out.endswith(f"/proc/mounts\nu{UID}\n")


@pytest.mark.parametrize("place", ["file", "tree"])
def test_what_a_hook_only_makes_is_not_written_to(
    shifter: Launcher, site: Site, place: str, root: str
) -> None:
    # A mount of the skeleton's own files would be writable.
    site(sitePreMountHook="mkdir -p tree other; echo x > file; mount --bind tree other")
    done = shifter.run(
        "-i", "test", *options(root), "sh", "-c", f"echo y > /{place}/../other/new; "
        "echo z > /file; cat /file",
        before=before(root),
    )  # fmt: skip
    assert done.stdout == ("z\n" if root == "writable" else "x\n"), done
    assert ("Read-only" in done.stderr) == (root != "writable"), done


# ------------------------------------------------------------- what it may not


def mounted(out: str) -> dict[str, list[str]]:
    return {line.split()[4]: line.split() for line in out.splitlines()}


def test_what_a_hook_mounts_has_no_setuid_and_no_devices(
    shifter: Launcher, site: Site, root: str, playground: Path
) -> None:
    (playground / "x").mkdir()
    site(
        f"siteFs={playground}:/fs",
        sitePreMountHook="mkdir -p a b c; mount --rbind /dev a; mount --bind /usr b; "
        "mount -t tmpfs -o suid,dev none c; mkdir c/d; mount --bind /usr/bin c/d",
        sitePostMountHook="mount --bind /usr fs/x",
    )
    seen = mounted(inside(shifter, root, "cat /proc/self/mountinfo"))
    places = [place for place in seen if place[:2] in ("/a", "/b", "/c") or place == "/fs/x"]
    assert {"/a", "/a/shm", "/b", "/c", "/c/d", "/fs/x"} <= set(places)
    for place in places:
        assert {"nosuid", "nodev"} <= set(seen[place][5].split(",")), seen[place]
        assert "shared" not in seen[place][6]


@pytest.mark.parametrize(
    "command",
    [
        "mount --rbind / host",
        "mount --rbind / mnt/host",
        "mount --rbind / host; mount --bind /usr host",
    ],
)
@pytest.mark.parametrize("key", ["sitePreMountHook", "sitePostMountHook"])
def test_a_hook_cannot_bring_the_hosts_root_along(
    shifter: Launcher, site: Site, root: str, command: str, key: str
) -> None:
    site(**{key: f"mkdir -p host mnt/host; {command}"})
    done = shifter.run("-i", "test", *options(root), "ls", "/", before=before(root))
    assert (done.returncode, done.stdout) == (125, ""), done
    assert "host's root" in done.stderr


def test_a_later_hook_cannot_put_another_mount_in_the_place_of_one_that_was_checked(
    shifter: Launcher, site: Site, root: str
) -> None:
    # The kernel gives the second mount the number of the first.
    again = "umount a; mount"
    site(
        sitePreMountHook="mkdir -p a; mount --rbind /dev a",
        sitePostMountHook=again.replace("umount", "umount -l") + " --rbind /dev a",
    )
    seen = mounted(inside(shifter, root, "cat /proc/self/mountinfo"))
    assert {"nosuid", "nodev"} <= set(seen["/a"][5].split(","))
    site(
        sitePreMountHook="mkdir -p a; mount --bind /usr a",
        sitePostMountHook=f"{again} --rbind / a",
    )
    done = shifter.run("-i", "test", *options(root), "true", before=before(root))
    assert done.returncode == 125
    assert "host's root" in done.stderr


@pytest.mark.parametrize("udi", [True, False])
def test_a_hook_cannot_mount_over_the_root_itself(
    shifter: Launcher, site: Site, playground: Path, udi: bool
) -> None:
    (playground / "udi").mkdir()
    for command in ("mount -t tmpfs none .", "mount --bind . .", "mount --bind /usr ."):
        site(*([f"udiMount={playground}/udi"] if udi else []), sitePreMountHook=command)
        assert "over the root itself" in fails(shifter)


def test_a_hook_cannot_mount_over_etc(shifter: Launcher, site: Site, playground: Path) -> None:
    target = playground / "target"
    target.mkdir(mode=0o755)
    (target / "hosts").write_text("kept\n")
    for path in (target, target / "hosts"):
        os.chown(path, UID, GID)
    site(sitePreMountHook=f"mount --bind {target} etc")
    assert "over '/etc'" in fails(shifter)
    assert (target / "hosts").read_text() == "kept\n"
    assert os.listdir(target) == ["hosts"]


def test_a_hook_may_mount_single_files_in_etc(
    shifter: Launcher, site: Site, root: str, playground: Path
) -> None:
    (playground / "file").write_text("of the site\n")
    os.chown(playground / "file", UID, GID)
    site(
        sitePreMountHook=f"touch etc/hosts etc/own; mount --bind {playground}/file etc/hosts; "
        f"mount --bind {playground}/file etc/own"
    )
    assert inside(shifter, root, "cat /etc/hosts /etc/own") == "of the site\n" * 2
    assert (playground / "file").read_text() == "of the site\n"


# ------------------------------------------------------------- ends


@pytest.mark.parametrize("key", ["sitePreMountHook", "sitePostMountHook", "sitePreHookMount"])
@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("echo words >&2; exit 3", 3),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("echo words; mount --bind /absent etc", 32),
        ("chown 1:1 etc", 1),
        ("nosuchprogram", 127),
    ],
)
def test_a_hook_that_fails_ends_the_launch(
    shifter: Launcher, site: Site, key: str, script: str, status: int
) -> None:
    path = site(**{key: script}) / f"{key}.sh"
    done = shifter.run("-i", "test", "true")
    assert (done.returncode, done.stdout) == (125, "")
    *words, fact, hint = done.stderr.splitlines()
    assert fact.startswith(f"shifter: the hook '{path}' (")
    assert fact.endswith(f") ended with {status}")
    assert "siteFs" in hint
    assert bool(words) == ("kill" not in script)


def test_a_hook_that_cannot_be_read_ends_the_launch(
    shifter: Launcher, site: Site, playground: Path
) -> None:
    site("sitePreMountHook=/absent/hook.sh")
    assert "cannot read the hook '/absent/hook.sh': No such file" in fails(shifter)
    site(f"sitePostMountHook={playground}")
    assert "is no file" in fails(shifter)
    path = site(sitePreMountHook="true") / "sitePreMountHook.sh"
    path.chmod(0)
    if os.geteuid() == 0:
        os.chown(path, 0, 0)
        assert "Permission denied" in fails(shifter)
    site("sitePreMountHook=relative.sh")
    assert "write a path that begins with '/'" in fails(shifter)


def test_the_alias_of_the_slides_is_the_same_key(
    shifter: Launcher, site: Site, playground: Path
) -> None:
    site(sitePreMountHook="echo first > word", sitePreHookMount="echo last > word")
    assert shifter.inside("cat /word") == "last\n"


@pytest.mark.parametrize("kind", ["plain", "of another session", "with signals ignored"])
def test_what_a_hook_leaves_in_the_background_ends_with_it(
    shifter: Launcher, site: Site, root: str, kind: str
) -> None:
    start = {
        "plain": "sleep 1000 &",
        "of another session": "setsid sleep 1000 &",
        "with signals ignored": "(trap '' TERM HUP INT; sleep 1000) &",
    }[kind]
    site(sitePreMountHook=f"{start}\necho $! > /dev/null")
    # The pipe ends when nothing holds it.
    done = shifter.run("-i", "test", *options(root), "echo", "done", before=before(root))
    assert done.stdout == "done\n"


@pytest.mark.parametrize("how", ["ignore", "block"])
def test_a_hook_is_waited_for_whatever_the_caller_does_with_sigchld(
    shifter: Launcher, site: Site, how: str
) -> None:
    site(sitePreMountHook="sleep 0.1; (exit 3); sh -c true; echo yes > word")
    code = {
        "ignore": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "block": "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])",
    }[how]
    wrap = (
        "python3",
        "-c",
        f"import os, signal, sys; {code}; os.execvp(sys.argv[1], sys.argv[1:])",
    )
    done = shifter.run(
        "-i", "test", "grep", "-hE", "yes|SigPnd|ShdPnd", "/word", "/proc/self/status", before=wrap
    )
    assert done.returncode == 0, done
    word, *signals = done.stdout.splitlines()
    assert word == "yes"
    assert not [line for line in signals if "Pnd" in line and int(line.split()[1], 16)]


def test_a_hook_has_default_actions_for_all_signals(
    shifter: Launcher, site: Site, playground: Path
) -> None:
    site(sitePreMountHook=f"grep -E '^Sig(Blk|Ign)' /proc/self/status > {playground}/signals")
    odd = ("/usr/bin/env", "--ignore-signal", "--block-signal")
    assert shifter.run("-i", "test", "true", before=odd).returncode == 0
    found = (playground / "signals").read_text().split()
    assert {word for word in found if not word.startswith("Sig")} == {"0" * 16}


def test_a_hook_ends_with_the_launcher(shifter: Launcher, site: Site, playground: Path) -> None:
    fifo = playground / "fifo"
    os.mkfifo(fifo)
    os.chown(fifo, UID, GID)
    site(sitePreMountHook=f"exec > {fifo}; echo begun; exec sleep 1000")
    with shifter.popen("-i", "test", "true") as process, fifo.open() as said:
        assert said.readline() == "begun\n"
        process.send_signal(signal.SIGKILL)
        assert said.read() == ""


def test_a_hook_inherits_no_descriptor(shifter: Launcher, site: Site, playground: Path) -> None:
    site(sitePreMountHook="ls /proc/self/fd > files")
    passed = os.open(playground, os.O_RDONLY)
    done = shifter.run("-i", "test", "cat", "/files", pass_fds=[passed])
    os.close(passed)
    # The last is that of ls itself.
    assert done.stdout.split() == ["0", "1", "2", "3"], done


def test_hooks_work_with_the_calls_of_older_kernels(
    shifter: Launcher, site: Site, playground: Path
) -> None:
    site(
        f"siteFs={playground}:/fs",
        sitePreMountHook=f"mkdir -p a; mount --bind {playground} a; ls /etc > of-node",
        sitePostMountHook="ln -s fs short",
    )
    calls = "open_tree,move_mount,mount_setattr,openat2,close_range"
    old = ("strace", "-o", "/dev/null", "-e", f"inject={calls}:error=ENOSYS")
    out = shifter.inside("cat /proc/self/mountinfo", before=old)
    seen = mounted(out)
    assert {"/a", "/fs", "/proc"} <= set(seen)
    assert {"nosuid", "nodev"} <= set(seen["/a"][5].split(","))
    # Where the root was built.
    assert not [place for place in seen if place.startswith(("/proc/tty", "/proc/driver"))]
    names = shifter.inside("cat /of-node; ls /short/", before=old).split()
    assert "passwd" in names
    assert "udiRoot.conf" in names


def test_a_mount_over_var_does_not_get_the_containers_files(
    shifter: Launcher, site: Site, root: str, playground: Path
) -> None:
    target = playground / "target"
    target.mkdir(mode=0o755)
    (target / "tmp").mkdir()
    for path in (target, target / "tmp"):
        os.chown(path, UID, GID)
    site(sitePreMountHook=f"mount --bind {target} var")
    inside(shifter, root, "ls /var")
    assert os.listdir(target) == ["tmp"]


@pytest.mark.parametrize("udi", [True, False])
def test_a_hook_may_share_its_mounts(
    shifter: Launcher, site: Site, root: str, playground: Path, udi: bool
) -> None:
    (playground / "udi").mkdir()
    site(
        *([f"udiMount={playground}/udi"] if udi else []),
        sitePreMountHook="mkdir -p a; mount --make-rshared .; mount --bind /usr a; "
        "mount --make-rshared a",
        sitePostMountHook="mkdir -p b; mount --bind /usr b; mount --make-unbindable b",
    )
    assert inside(shifter, root, "ls -d /a/bin /b/bin") == "/a/bin\n/b/bin\n"


def test_two_mounts_in_one_place_show_the_last(shifter: Launcher, site: Site, root: str) -> None:
    site(
        sitePreMountHook="mkdir -p a/b; mount --bind /usr a/b; mount --bind /etc a/b; "
        "mkdir -p c/d; mount --bind /usr c/d; mount -t tmpfs none c; touch c/last"
    )
    assert inside(shifter, root, "ls /a/b/passwd; ls /c") == "/a/b/passwd\nlast\n"


def test_the_dry_run_names_the_hooks_in_their_order(
    shifter: Launcher, site: Site, playground: Path
) -> None:
    site("defaultModules=m", module_m_roothook="", sitePostMountHook="", sitePreMountHook="")
    plan = json.loads(shifter.run("--dry-run", "-i", "test").stdout)
    names = ("sitePreMountHook", "sitePostMountHook", "module_m_roothook")
    assert plan["hooks"] == [str(playground / f"{name}.sh") for name in names]


def test_a_launch_without_hooks_makes_nothing_for_them(shifter: Launcher) -> None:
    out = shifter.inside("cat /proc/self/mountinfo; ls / /var")
    assert "udiImage" not in out
    assert "/proc/tty" not in out
    assert "opt" not in out.split()
