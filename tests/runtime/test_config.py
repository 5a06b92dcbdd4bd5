"""udiRoot.conf, as Shifter's sites have it."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.runtime.conftest import GID, RUNTIME, UID, Launcher
from tests.runtime.test_errors import fails
from tests.runtime.test_options import planned

PAGE = RUNTIME.parent / "docs" / "udiRoot.conf.md"
SHIFTERS = {
    "udiMount", "loopMount", "imagePath", "udiRootPath", "etcPath", "modprobePath",
    "insmodPath", "cpPath", "mvPath", "chmodPath", "ddPath", "rootfsType", "mkfsXfsPath",
    "system", "imageGateway", "gatewayTimeout", "defaultImageType", "siteFs", "siteEnv",
    "siteEnvAppend", "siteEnvPrepend", "siteEnvUnset", "sitePreMountHook", "sitePostMountHook",
    "sitePreHookMount", "siteResources", "mountCmd",
    "optUdiImage", "allowLocalChroot", "allowLibcPwdCalls", "populateEtcDynamically",
    "usersToImport", "maxGroupCount", "mountUdiRootWritable", "mountPropagationStyle",
    "perNodeCachePath", "perNodeCacheSizeLimit", "perNodeCacheAllowedFsType", "defaultModules",
    "batchType", "nodeContextPrefix", "autoLoadKernelModule", "kmodBasePath", "kmodCacheFile",
    "optionalSshdAsRoot",
}  # fmt: skip
OF_MODULES = {
    "userhook", "roothook", "siteEnv", "siteEnvPrepend", "siteEnvAppend", "siteEnvUnset",
    "conflict", "siteFs", "copyPath", "enabled",
}  # fmt: skip


@pytest.fixture
def config(shifter: Launcher, playground: Path) -> Path:
    """A configuration of the test's own, still empty."""
    path = playground / "udiRoot.conf"
    path.touch()
    shifter.env["SHIFTER_CONFIG"] = str(path)
    return path


@pytest.fixture
def site(playground: Path) -> Path:
    """A directory of the site's."""
    path = playground / "site"
    (path / "inner").mkdir(parents=True)
    (path / "file").write_text("of the site\n")
    for each in (path, path / "inner"):
        os.chown(each, UID, GID)
        each.chmod(0o755)
    return path


def refused(shifter: Launcher, config: Path, text: str) -> str:
    """Return what a launch says of a configuration that it does not take."""
    config.write_text(text)
    return fails(shifter)


# ------------------------------------------------------------------ the file


def test_the_page_has_every_key_and_no_other(built: Path) -> None:
    driver = subprocess.run(
        [built / "obj" / "asked_test", "keys"], capture_output=True, text=True, check=True
    )
    table = dict(line.split("\t") for line in driver.stdout.splitlines())
    page = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE))
    assert sorted(page) == sorted(table)
    for key, why in table.items():
        assert page[key].endswith(why) or not why, key


def test_every_key_of_shifters_is_taken(shifter: Launcher, config: Path, site: Path) -> None:
    values = {
        "imagePath": str(shifter.store), "etcPath": str(site), "optUdiImage": str(site),
        "siteFs": f"{site}:/s", "siteEnv": "A=1", "siteEnvAppend": "A=1", "siteEnvPrepend": "A=1",
        "siteEnvUnset": "Z", "mountPropagationStyle": "slave", "defaultImageType": "docker",
        "defaultModules": "m", "perNodeCacheSizeLimit": "10G", "copyPath": str(site),
        "conflict": "other", "userhook": "/opt/udiImage/hook", "usersToImport": "sshd",
        "perNodeCachePath": "/var/cache", "sitePreMountHook": f"{site}/hook",
        "sitePreHookMount": f"{site}/hook", "sitePostMountHook": f"{site}/hook",
        "roothook": f"{site}/hook",
    }  # fmt: skip
    (site / "hook").write_text("exit 0\n")
    keys = [*SHIFTERS, *(f"module_m_{key}" for key in OF_MODULES)]
    lines = [f"{key}={values.get(key.rpartition('_')[2], 1)}" for key in keys]
    config.write_text("\n".join(lines))
    done = shifter.run("-i", "test", "echo", "ran")
    assert (done.stdout, done.stderr) == ("ran\n", "")


def test_keys_without_effect_are_named_once_and_only_when_asked(
    shifter: Launcher, config: Path
) -> None:
    config.write_text(
        "loopMount=x\n\nkmodBasePath=/x\nimageGateway = http://x \\\n http://y\nsiteFs=\n"
    )
    assert shifter.run("-i", "test", "true").stderr == ""
    done = shifter.run("--check-config", env={"SHIFTER_IMAGE": None})
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{config}:1: 'loopMount' has no effect: ")
    assert lines[1] == f"{config}:3: 'kmodBasePath' is deprecated: no kernel module is loaded"
    assert lines[2].startswith(f"{config}:4: 'imageGateway' has no effect: ")
    assert len(lines) == 3


def test_a_file_can_be_checked_before_it_is_used(shifter: Launcher, playground: Path) -> None:
    other = playground / "other"
    other.write_text("siteFs=/a\nx=1\n")
    done = shifter.run(f"--check-config={other}")
    assert done.returncode == 125
    assert done.stderr.startswith(f"{other}:2: unknown key: 'x' (hint: ")
    assert done.stdout == f"{other}:1: '/a' is not on this node\n"
    other.write_text("siteFs=/a;/usr;/b:/c:optional\nmodule_m_copyPath=/d\n")
    done = shifter.run(f"--check-config={other}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"{other}:1: '/a' is not on this node\n{other}: '/d' is not on this node\n"
    )
    assert "cannot read '/absent'" in fails(shifter, "--check-config=/absent")
    other.write_text("defaultModules=mpi\nmodule_mpi_enabled=0\n")
    done = shifter.run(f"--check-config={other}")
    assert done.returncode == 125
    assert done.stderr.startswith(f"{other}:1: unknown shifter module: 'mpi' (hint: ")


def test_all_mistakes_of_a_file_are_listed_one_a_line(
    shifter: Launcher, playground: Path, site: Path
) -> None:
    other = playground / "other"
    other.write_text(
        f"siteFs=/a:/etc:rw:zz; b; {site}:/c\\\n;/d/..:/d\n"
        "nonsense\n"
        "siteEnv=A B=1 =\n"
        "system=x\n"
        "perNodeCacheSizeLimit=1G\n"
        "perNodeCacheAllowedFsType=xfs\n"
        "siteFs=/x:/c:perNodeCache=size=2G;/y:/d:perNodeCache=size=1X,fs=ext4\n"
        "siteFs=/x:/e:perNodeCache=size=1M,fs=ext4\n"
        "module_a_conflict=b,c\nmodule_b_siteEnv=B=1\nmodule_c_siteFs=/usr:/proc/x\n"
        "module_d_foo=1\nmodule_none_siteEnv=A=1\n"
        "defaultModules=a,zz,c,b\n"
        "maxGroupCount=a\1b\n"
        "populateEtcDynamically=2\n"
    )
    done = shifter.run(f"--check-config={other}")
    assert done.returncode == 125
    said = [
        line.removeprefix(f"{other}:").partition(" (hint: ") for line in done.stderr.split("\n")
    ]
    assert [fact for fact, _, _ in said] == [
        "1: nothing may be mounted at '/etc': files of the container's own are in it",
        "1: no flag of a volume: 'rw'",
        "1: no flag of a volume: 'zz'",
        "1: not an absolute path: 'b'",
        "1: a path with '..' in it: '/d/..'",
        "3: no '=' in the line: 'nonsense'",
        "4: 'siteEnv' holds 'A'",
        "4: 'siteEnv' holds '='",
        "8: no size: '1X'",
        "12: nothing may be mounted at '/proc/x': there are the kernel's own files",
        "13: unknown key: 'module_d_foo'",
        "14: no name of a module: 'none'",
        "16: 'maxGroupCount' is no number: 'a?b'",
        "17: 'populateEtcDynamically' is neither 0 nor 1: '2'",
        "8: a perNodeCache of 2147483648 bytes at '/c', where the site allows 1073741824",
        "9: a perNodeCache of the type 'ext4' at '/e', which the site does not allow",
        "15: unknown shifter module: 'zz'",
        "15: cannot load conflicting modules 'c' and 'a'",
        "15: cannot load conflicting modules 'b' and 'a'",
        "",
    ]
    assert all(hint.endswith(")") for _, _, hint in said[:-1])
    other.write_text("siteFs=/a\n")
    assert shifter.run(f"--check-config={other}").returncode == 0


def test_a_hook_that_the_site_does_not_bring_is_told(
    shifter: Launcher, playground: Path, site: Path
) -> None:
    other = playground / "other"
    (site / "hook").touch()
    given = f"optUdiImage={site}\nmodule_m_copyPath={site}/inner\n"
    for hook, missing in (
        ("/opt/udiImage/hook", None),
        ("/opt/udiImage/absent", site / "absent"),
        ("/opt/udiImage/modules/m/absent", site / "inner" / "absent"),
        ("/of/the/image", None),
    ):
        other.write_text(f"{given}module_m_userhook={hook}\n")
        done = shifter.run(f"--check-config={other}")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == (f"{other}: '{missing}' is not on this node\n" if missing else "")


def test_a_store_of_shifters_own_is_told(shifter: Launcher, playground: Path) -> None:
    other = playground / "other"
    other.write_text(f"imagePath={playground}\n")
    done = shifter.run(f"--check-config={other}")
    assert done.returncode == 0
    assert f"{other}: '{playground}' is not a store yet: shifter-admin init" in done.stdout
    other.write_text(f"imagePath={shifter.store}\n")
    assert shifter.run(f"--check-config={other}").stdout == ""


@contextmanager
def automounted(place: Path) -> Iterator[None]:
    """Mount what an automounter does, at which the group of this process only looks."""
    libc = ctypes.CDLL(None, use_errno=True)
    end, start = os.pipe()
    options = f"fd={start},pgrp={os.getpgrp()},minproto=5,maxproto=5,indirect".encode()
    if libc.mount(b"test", bytes(place), b"autofs", 0, options) < 0:
        pytest.skip(f"no autofs here: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)
        os.close(end)
        os.close(start)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount what an automounter does")
def test_a_private_mount_of_an_automounters_directory_is_told(
    shifter: Launcher, playground: Path, site: Path
) -> None:
    other = playground / "other"
    trap = f"'{site}/inner' is mounted on demand (autofs), which does not work in a private mount"
    (playground / "link").symlink_to(site / "inner")

    def said(text: str) -> str:
        other.write_text(text)
        done = shifter.run(f"--check-config={other}")
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    with automounted(site / "inner"):
        for source in (site / "inner", site, playground / "link"):
            notice = f"{other}:2: {trap}: write {source}:/x:slave\n"
            assert said(f"system=x\nsiteFs=/usr;{source}:/x\n") == notice
            assert said(f"\nmodule_m_siteFs={source}:/x:ro\n") == notice
            assert said(f"mountPropagationStyle=slave\nsiteFs={source}:/x:private\n") == notice
            assert said(f"siteFs={source}:/x:slave\n") == ""
            assert said(f"mountPropagationStyle=slave\nsiteFs={source}:/x\n") == ""
        # What has been mounted there, or will be.
        mounted = site / "inner" / "mounted"
        mounted.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "later", mounted], check=True)
        try:
            assert f"'{mounted}' is mounted on demand" in said(f"siteFs={mounted}\n")
            (mounted / "beneath").mkdir()
            assert said(f"siteFs={mounted}/beneath\n") == ""
        finally:
            subprocess.run(["umount", mounted], check=True)
    assert said(f"siteFs={site}\n") == ""


def test_a_modules_key_in_other_letters_is_that_key(
    shifter: Launcher, config: Path, site: Path
) -> None:
    config.write_text(f"module_gpu_copypath={site}\nmodule_gpu_SITEENV=A=1\n")
    show = "echo $A; cat /opt/udiImage/modules/gpu/file"
    assert shifter.inside(show, "-mgpu") == "1\nof the site\n"
    done = shifter.run("--check-config", env={"SHIFTER_IMAGE": None})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"{config}:1: 'copypath' is taken for 'copyPath'\n"
        f"{config}:2: 'SITEENV' is taken for 'siteEnv'\n"
    )


def test_the_example_is_a_good_one(shifter: Launcher) -> None:
    done = shifter.run(f"--check-config={PAGE.parent}/examples/udiRoot.conf")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(line.endswith("is not on this node") for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("text", "line", "words", "advice"),
    [
        ("\nsitefs=/x\n", 2, "unknown key: 'sitefs'", "did you mean 'siteFs'?"),
        ("# x\nimagepath = \\\n/x\n", 2, "unknown key: 'imagepath'", "did you mean 'imagePath'?"),
        ("a\\\nb=1\nsiteEnvx=1", 1, "unknown key: 'a  b'", "did you mean"),
        ("system=1\n" * 9 + "siteEnvx=1", 10, "unknown key: 'siteEnvx'", "'siteEnv'?"),
        ("module_m_copypth=/x", 1, "'module_m_copypth'", "did you mean 'module_m_copyPath'?"),
        ("module_a_b_siteEnv=A=1", 1, "'module_a_b_siteEnv'", "module_a_siteEnv"),
        ("module_none_siteEnv=A=1", 1, "no name of a module: 'none'", "a name has"),
        ("nonsense", 1, "no '=' in the line: 'nonsense'", "KEY=VALUE"),
        ("siteFs=/a;b", 1, "not an absolute path: 'b'", "siteFs=/FROM"),
        ("siteFs=/a:/etc", 1, "nothing may be mounted at '/etc'", "somewhere else"),
        ("siteFs=/a:/b:rw", 1, "no flag of a volume: 'rw'", "ro, rec, slave, private"),
        ("siteFs=/a:/a /b:/b", 1, "blanks between volumes: '/a /b'", "put ';' between volumes"),
        ("siteFs=/a /b", 1, "blanks between volumes: '/a /b'", "put ';' between volumes"),
        ("siteFs=/a:/b \\\n /c:/d", 1, "blanks between volumes: '/b    /c'", "put ';' between"),
        ("siteFs=/a:rec:REC", 1, "a flag that stands twice: 'REC'", "each flag once"),
        ("perNodeCacheSizeLimit=1X", 1, "is no size: '1X'", "K, M, G, T, P or E"),
        ("siteFs=/a:/b:slave:private", 1, "exclude each other", "siteFs="),
        ("siteEnv=A=1 'B", 1, "'siteEnv' holds ''B'", "NAME=VALUE"),
        ("maxGroupCount=many", 1, "'maxGroupCount' is no number: 'many'", "0 for all"),
        ("populateEtcDynamically=true", 1, "neither 0 nor 1: 'true'", "write 0 or 1"),
        ("defaultImageType=custom", 1, "no images of the type 'custom'", "docker"),
        ("mountPropagationStyle=shared", 1, "neither private nor slave", "private or slave"),
    ],
)  # fmt: skip
def test_a_mistake_ends_a_launch_with_its_line(
    shifter: Launcher, config: Path, text: str, line: int, words: str, advice: str
) -> None:
    said = refused(shifter, config, text)
    assert f"'{config}' line {line}: " in said
    assert words in said
    assert advice in said


def test_the_nodes_file_goes_before_the_users_own(
    shifter: Launcher, base: Path, playground: Path
) -> None:
    def text(word: str) -> str:
        return f"siteEnv=CONFIG={word}\n"

    own = playground / ".config" / "shifter-lite" / "udiRoot.conf"
    own.parent.mkdir(parents=True)
    own.write_text(text("home"))
    other = playground / "xdg" / "shifter-lite" / "udiRoot.conf"
    other.parent.mkdir(parents=True)
    other.write_text(text("xdg"))
    node = base / "etc" / "shifter" / "udiRoot.conf"
    node.parent.mkdir(parents=True, exist_ok=True)
    env: dict[str, str | None] = {"HOME": str(playground)}
    show = "echo $CONFIG"
    assert shifter.inside(show, env=env) == "home\n"
    env["XDG_CONFIG_HOME"] = str(playground / "xdg")
    assert shifter.inside(show, env=env) == "xdg\n"
    try:
        node.write_text(text("node"))
        assert shifter.inside(show, env=env) == "node\n"
        env["SHIFTER_CONFIG"] = str(own)
        assert shifter.inside(show, env=env) == "home\n"
    finally:
        node.unlink()
    assert "cannot read '/absent'" in fails(shifter, SHIFTER_CONFIG="/absent")


# ------------------------------------------------------------------ siteFs


def test_what_the_site_shows_is_there(shifter: Launcher, config: Path, site: Path) -> None:
    config.write_text(f"siteFs= {site}:/a ; {site}:/b/c:ro:rec ;\nsiteFs={site}/file:/d;{site}\n")
    out = shifter.inside(
        f"cat /a/file /b/c/file /d {site}/file; touch /b/c/x || echo no; touch /a/x"
    )
    assert out == "of the site\n" * 4 + "no\n"
    assert (site / "x").exists()


def test_a_site_may_show_what_users_may_not(shifter: Launcher, config: Path, site: Path) -> None:
    config.write_text(f"siteFs={site}:/opt/udiImage/data;{site}:/dev/shm;{site}/file:/etc/hosts\n")
    assert (
        shifter.inside("cat /opt/udiImage/data/file /dev/shm/file /etc/hosts")
        == "of the site\n" * 3
    )


def test_a_missing_filesystem_is_an_error_unless_it_is_optional(
    shifter: Launcher, config: Path
) -> None:
    said = refused(shifter, config, "\nsiteFs=/usr:/u;/absent:/x\n")
    assert "cannot find '/absent', to be mounted at '/x'" in said
    assert f"asked for by '{config}' line 2" in said
    config.write_text("siteFs=/usr:/u;/absent:/x:optional\n")
    assert shifter.inside("ls -d /u /x 2>/dev/null || true") == "/u\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount where others see it")
@pytest.mark.parametrize(
    ("style", "flags", "sees"),
    [
        ("private", "", False),
        ("slave", "", True),
        ("private", ":slave", True),
        ("slave", ":private", False),
    ],
)
def test_later_mounts_of_the_node_arrive_where_the_site_wants_it(
    shifter: Launcher, config: Path, site: Path, style: str, flags: str, sees: bool
) -> None:
    config.write_text(f"mountPropagationStyle={style}\nsiteFs={site}:/s{flags}\n")
    with shifter.popen("-i", "test", "sh", "-c", "echo up; read x; ls /s/inner",
                       stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        subprocess.run(["mount", "-t", "tmpfs", "later", site / "inner"], check=True)
        (site / "inner" / "later").touch()
        try:
            out, _ = process.communicate("go\n", timeout=10)
        finally:
            subprocess.run(["umount", site / "inner"], check=True)
    shared = "shared:" in next(
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if line.split()[4] == "/"
    )
    assert out == ("later\n" if sees and shared else "")


def test_ranks_in_different_directories_of_a_site_ask_for_the_same(
    shifter: Launcher, config: Path, site: Path
) -> None:
    config.write_text(f"siteFs={site}\n")
    for cwd in (site, site / "inner"):
        done = shifter.run("--dry-run", "-i", "test", cwd=cwd)
        assert "working directory" not in done.stdout
    assert "working directory" in shifter.run("--dry-run", "-i", "test", cwd=site.parent).stdout


def test_a_working_directory_behind_a_link_is_reached_over_the_link(
    shifter: Launcher, config: Path, site: Path
) -> None:
    short = site.parent / "short"
    short.symlink_to(site)
    config.write_text(f"siteFs={short}\n")
    for cwd in ("", "/inner"):
        env: dict[str, str | None] = {"PWD": f"{short}{cwd}"}
        there = f"{site}{cwd}"
        assert shifter.inside("/bin/busybox pwd", env=env, cwd=there) == f"{short}{cwd}\n"
        done = shifter.run("--dry-run", "-i", "test", env=env, cwd=there)
        assert "working directory" not in done.stdout
    for wrong in ("/", str(short), "/proc/self/cwd", "inner", f"{short}/inner/../inner"):
        done = shifter.run("-i", "test", "pwd", env={"PWD": wrong}, cwd=site / "inner")
        assert done.stdout == f"{site}/inner\n"


def test_no_working_directory_keeps_the_site_from_its_places(
    shifter: Launcher, config: Path, site: Path
) -> None:
    config.write_text(f"siteFs={site}:{site}/absent/x\n")
    out = shifter.inside("ls absent/x; pwd; ls", cwd=site)
    assert out == f"file\ninner\n{site}\nabsent\n"
    assert not (site / "absent").exists()


# ------------------------------------------------------------------ modules


def test_modules_are_chosen_by_name(shifter: Launcher, config: Path) -> None:
    config.write_text(
        "defaultModules=a\nmodule_a_siteEnv=A=1\nmodule_b_siteEnv=B=1\nmodule_off_enabled=0\n"
        "module_c_conflict=a\n"
    )
    assert planned(shifter, "-i", "test")["modules"] == ["a"]
    assert planned(shifter, "-i", "test", "-m", "b,a,b")["modules"] == ["b", "a"]
    assert planned(shifter, "-i", "test", "--module=None")["modules"] == []
    assert planned(shifter, "-i", "test", SHIFTER_MODULE="b")["modules"] == ["b"]
    assert planned(shifter, "-i", "test", SLURM_SPANK_SHIFTER_MODULE="b")["modules"] == ["b"]
    assert planned(shifter, "-i", "test", "-m", "a", SHIFTER_MODULE="b")["modules"] == ["a"]
    for name in ("zz", "off"):
        said = fails(shifter, "-i", "test", "-m", name, "true")
        assert f"unknown shifter module: '{name}'" in said
        assert "there are: a, b, c" in said
    said = fails(shifter, "-i", "test", "-m", "a,c", "true")
    assert "cannot load conflicting modules 'c' and 'a'" in said


def test_a_module_brings_files_and_filesystems(shifter: Launcher, config: Path, site: Path) -> None:
    config.write_text(f"module_m_copyPath={site}\nmodule_m_siteFs={site}/inner:/of/m\n")
    where = "/opt/udiImage/modules/m"
    out = shifter.inside(f"cat {where}/file; ls -d /of/m; touch {where}/x || echo no", "-mm")
    assert out == "of the site\n/of/m\nno\n"
    assert shifter.run("-i", "test", "ls", where).returncode == 1


def test_the_sites_own_directory_and_modules_stand_side_by_side(
    shifter: Launcher, config: Path, site: Path
) -> None:
    (site / "modules").mkdir(mode=0o755)
    config.write_text(f"optUdiImage={site}\nmodule_m_copyPath={site}/inner\n")
    assert shifter.inside("ls /opt/udiImage") == "file\ninner\nmodules\n"
    out = shifter.inside("cat /opt/udiImage/file; ls /opt/udiImage/modules", "-m", "m")
    assert out == "of the site\nm\n"
    done = shifter.run("-i", "test", "-m", "m", "touch", "/opt/udiImage/inner/x")
    assert "Read-only file system" in done.stderr
    assert sorted(path.name for path in site.iterdir()) == ["file", "inner", "modules"]
    assert not list((site / "modules").iterdir())


def test_a_userhook_runs_before_the_command_as_the_user(
    shifter: Launcher, config: Path, site: Path
) -> None:
    hook = site / "hook.sh"
    config.write_text(f"optUdiImage={site}\nmodule_m_userhook=/opt/udiImage/hook.sh\n")
    hook.write_text(
        "echo hook; /bin/id -u; /bin/env | /bin/grep -v -e ^PWD= -e ^SHLVL= -e ^_= -e ^PATH=\n:\n"
    )
    done = shifter.run("-i", "test", "-m", "m", "echo", "command")
    assert done.stdout == f"hook\n{UID}\ncommand\n", done.stderr
    before = ["env", "--ignore-signal=CHLD"]
    done = shifter.run("-i", "test", "-m", "m", "echo", "command", before=before)
    assert done.stdout.endswith("command\n"), done.stderr
    hook.write_text("exit 3\n")
    said = fails(shifter, "-i", "test", "-m", "m", "echo", "command")
    assert "failed to set up the module 'm': its hook '/opt/udiImage/hook.sh' ended with 3" in said


# ------------------------------------------------------------------ /etc


def test_the_nodes_hosts_and_resolver_are_the_containers(shifter: Launcher) -> None:
    for name in ("hosts", "resolv.conf"):
        assert shifter.inside(f"cat /etc/{name}") == Path("/etc", name).read_text()


def test_the_sites_files_go_over_etc(shifter: Launcher, config: Path, site: Path) -> None:
    etc = site / "etc"
    etc.mkdir(mode=0o755)
    (etc / "motd").write_bytes(b"of the site\0\n")
    (etc / "nsswitch.conf").write_text("passwd: files\n")
    (etc / "hosts").write_text("::1 here\n")
    (etc / "passwd").write_text(f"zoe:x:{UID}:{GID}:Zoe:/home/zoe:/bin/sh\n")
    (etc / "group").write_text(f"zoes:x:{GID}:\nother:x:1:\n")
    (etc / "directory").mkdir()
    config.write_text(f"etcPath={etc}\n")
    out = shifter.inside("cd /etc; cat motd nsswitch.conf hosts; id -un; id -gn; ls")
    assert out.startswith("of the site\0\npasswd: files\n::1 here\nzoe\nzoes\n")
    assert "directory" not in out
    assert "nogroup" in shifter.inside("cat /etc/group")
    said = refused(shifter, config, "etcPath=/absent\n")
    assert "cannot read the directory '/absent'" in said


def test_etc_may_know_few_people(shifter: Launcher, config: Path, site: Path) -> None:
    etc = site / "etc"
    etc.mkdir(mode=0o755)
    (etc / "passwd").write_text(
        f"zoe:x:{UID}:{GID}:Zoe:/home/zoe:/bin/sh\nsshd:x:105:65534::/run/sshd:/bin/false\n"
        "other:x:1:1::/:/bin/sh\n"
    )
    (etc / "motd").write_text("not laid over\n")
    config.write_text(f"etcPath={etc}\npopulateEtcDynamically=1\nusersToImport=sshd absent\n")
    out = shifter.inside("cut -d: -f1 /etc/passwd; wc -l < /etc/group; cat /etc/motd")
    assert out == "sshd\nzoe\n1\nfrom the image\n"
    assert "group: files\n" in shifter.inside("cat /etc/nsswitch.conf")
    assert "multi on" in shifter.inside("cat /etc/host.conf")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give itself groups")
@pytest.mark.parametrize(("most", "listed"), [(0, 3), (2, 2), (1, 1), (9, 3)])
def test_so_many_groups_are_listed(shifter: Launcher, config: Path, most: int, listed: int) -> None:
    shifter.groups = [GID + 7, GID + 8, GID + 9]
    config.write_text(f"maxGroupCount={most}\n")
    assert shifter.inside(f"grep -c :u{UID}$ /etc/group; id -G | wc -w") == f"{listed}\n4\n"


# ------------------------------------------------------------------ caches


def test_a_site_limits_caches_of_the_node(shifter: Launcher, config: Path) -> None:
    config.write_text(
        "perNodeCacheSizeLimit=1M\nperNodeCacheAllowedFsType=xfs\nperNodeCachePath=/x\n"
    )
    cache = "-V/x:/cache:perNodeCache=size="
    assert shifter.run("-i", "test", f"{cache}1M,fs=xfs", "true").returncode == 0
    said = fails(shifter, "-i", "test", f"{cache}1025K", "true")
    assert "a perNodeCache of 1049600 bytes at '/cache', where the site allows 1048576" in said
    assert "the type 'ext4'" in fails(shifter, "-i", "test", f"{cache}1M,fs=ext4", "true")


@pytest.mark.parametrize("flags", ["perNodeCache=size=2M:ro", "RO:PERNODECACHE=SIZE=2M"])
def test_a_cache_of_the_sites_may_be_read_only(shifter: Launcher, config: Path, flags: str) -> None:
    config.write_text(f"siteFs=/any:/cache:{flags}\n")
    out = shifter.inside("grep ' /cache ' /proc/mounts; touch /cache/x 2>&1 || true")
    assert "tmpfs ro," in out
    assert "Read-only file system" in out


def test_a_site_may_give_everybody_a_cache(shifter: Launcher, config: Path) -> None:
    config.write_text("siteFs=/any:/cache:perNodeCache=size=2M\n")
    out = shifter.inside("echo x > /cache/y; cat /cache/y; grep ' /cache ' /proc/mounts")
    assert out.startswith("x\n")
    assert "size=2048k" in out
