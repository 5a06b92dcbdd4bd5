"""What shifter says when it cannot start an application, and with which exit code."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.runtime import squash
from tests.runtime.conftest import GID, NAME, UID, Launcher
from tests.runtime.store import (
    add_image,
    cdb,
    entry,
    image_path,
    key_hash,
    make_store,
    sealed,
    write_generation,
)
from tests.runtime.test_root import use

KEY = NAME.encode()
SERVERS = ("squashfuse_ll", "squashfuse")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the node")


def fails(shifter: Launcher, *args: str, before: tuple[str, ...] = (), **env: str | None) -> str:
    """Return what shifter says when it fails with ARGS, or with a good image."""
    done = shifter.run(*(args or ("-i", "test", "true")), before=before, env=env)
    assert done.returncode == 125, done
    assert done.stdout == ""
    assert done.stderr.startswith("shifter: ")
    assert done.stderr.count("\n") <= 2
    return done.stderr


# ------------------------------------------------------------------ what the user wrote


@pytest.mark.parametrize("name", ["Bad Name", "", "a//b", "0" * 64])
def test_a_bad_name(shifter: Launcher, name: str) -> None:
    if not name:
        assert "option '--image' needs a value" in fails(shifter, "--image=", "true")
        return
    assert fails(shifter, "-i", name, "true") == (
        f"shifter: not an image name: '{name}'\n"
        "  hint: write NAME:TAG or REGISTRY/NAME:TAG, for example ubuntu:24.04\n"
    )


def test_a_type_of_images_that_there_is_not(shifter: Launcher) -> None:
    for kind in ("custom", "local"):
        assert fails(shifter, "-i", f"{kind}:x", "true") == (
            f"shifter: there are no images of the type '{kind}': '{kind}:x'\n"
            "  hint: what lies in a file is brought into the store by: shifterimg import\n"
        )


@pytest.mark.parametrize(
    "name", ["docker://ubuntu:16.04", "docker://quay.io/x/y", "https://quay.io/x", "oci:docker://x"]
)
def test_an_address_is_no_image_name(shifter: Launcher, name: str) -> None:
    said = fails(shifter, "-i", name, "true")
    assert said == (
        f"shifter: not an image name: '{name}'\n"
        f"  hint: write '{name.partition('://')[2]}', without // in front\n"
    )
    assert fails(shifter, "true", SHIFTER_IMAGE=name) == said


def test_control_characters_of_names_are_not_repeated(shifter: Launcher) -> None:
    said = fails(shifter, "-i", "x\x1b[2J\n\x7f", "true")
    assert said.splitlines()[0] == "shifter: not an image name: 'x?[2J??'"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--frobnicate"], "unknown option: '--frobnicate'"),
        (["-x"], "unknown option: '-x'"),
        (["--help=x"], "option '--help' takes no value"),
        (["--image"], "option '--image' needs a value"),
        (["--store=", "-i", "test"], "option '--store' needs a value"),
        (["-i", "test", "-wrelative"], "not an absolute path: 'relative'"),
        (["true"], "no image was named"),
        ([], "no image was named"),
    ],
)
def test_a_bad_command_line(shifter: Launcher, args: list[str], words: str) -> None:
    done = shifter.run(*args)
    assert done.returncode == 125
    assert done.stderr.startswith(f"shifter: {words}")
    assert "\n  hint: " in done.stderr


def test_a_command_that_is_not_there(shifter: Launcher) -> None:
    for command in ("absent", "/bin/absent"):
        done = shifter.run("-i", "test", command)
        assert done.returncode == 127
        assert done.stderr == (
            f"shifter: cannot execute '{command}' in the container: No such file or directory\n"
            "  hint: is it in the image, in a directory of its PATH?\n"
        )


def test_a_command_that_cannot_be_executed(shifter: Launcher) -> None:
    for command in ("/bin/not-executable", "/etc"):
        done = shifter.run("-i", "test", command)
        assert done.returncode == 126
        assert f"shifter: cannot execute '{command}' in the container: " in done.stderr
        assert "\n  hint: " in done.stderr


def unexecuted(shifter: Launcher, place: Path, command: str, *options: str) -> tuple[int, str]:
    """Return the exit code and the hint for COMMAND, where PLACE is at /v and is all of PATH."""
    done = shifter.run("-i", "test", f"-V{place}:/v", "-w/v", "-ePATH=/v", *options, command)
    said = re.fullmatch(r"shifter: cannot execute '.*' in the .*\n  hint: (.*)\n", done.stderr)
    assert said, done.stderr
    return done.returncode, said[1]


@pytest.mark.parametrize("command", ["/v/bad", "./bad", "bad"])
def test_an_interpreter_that_is_missing_is_named(
    shifter: Launcher, playground: Path, command: str
) -> None:
    bad = playground / "bad"
    name = command if "/" in command else "/v/bad"
    lines = {
        b"#!/no/such/python": f"the first line of '{name}' names the interpreter "
        "'/no/such/python', which is not in the container",
        b"#! /no/such/python -u x\n\n": f"the first line of '{name}' names the interpreter "
        "'/no/such/python', which is not in the container",
        b"#!python3\n": f"the first line of '{name}' names the interpreter 'python3', which is "
        "not in the container: write its whole path",
        b"#!/bin/sh\r\necho x\r\n": f"the lines of '{name}' end with CR LF, as on Windows, so "
        "that its interpreter is '/bin/sh' and a CR: write them again with LF alone (dos2unix)",
        b"#!/v/wrap\n": "the first line of '/v/wrap' names the interpreter '/absent', which is "
        f"not in the container; it is the interpreter of '{name}'",
    }
    (playground / "wrap").write_text("#!/absent\n")
    (playground / "wrap").chmod(0o755)
    for text, hint in lines.items():
        bad.write_bytes(text)
        bad.chmod(0o755)
        assert unexecuted(shifter, playground, command) == (127, hint)


def test_a_program_of_another_library_or_machine_is_told_apart(
    shifter: Launcher, playground: Path
) -> None:
    program = Path(shutil.which("true") or "").read_bytes()
    there = playground / "there"

    def said(data: bytes, *options: str) -> tuple[int, str]:
        there.write_bytes(data)
        there.chmod(0o755)
        return unexecuted(shifter, playground, "there", *options)

    code, hint = said(program)
    assert code == 127
    assert hint.startswith("'/v/there' needs glibc's loader '/lib")
    assert "which is not in the container: take a program that is made for this image" in hint
    loader = program.index(b"/ld-linux")
    code, hint = said(program[:loader] + b"/ld-musl-" + program[loader + 9 :])
    assert hint.startswith("'/v/there' needs musl's loader '/lib")
    for number, name in ((183, "aarch64"), (243, "riscv64"), (9999, "the machine 9999 of ELF")):
        code, hint = said(program[:18] + struct.pack("<H", number) + program[20:])
        assert (code, hint) == (
            126,
            f"'/v/there' is made for {name}, and this node is {os.uname().machine}",
        )
    big = program[:5] + b"\2" + program[6:18] + struct.pack(">H", 22) + program[20:]
    assert "is made for s390x, and this" in said(big)[1]
    assert said(program[:40]) == (126, "'/v/there' is cut off: it is no whole program")
    assert said(program[:16] + b"\1\0" + program[18:]) == (
        126,
        "'/v/there' is damaged, or not made for Linux",
    )
    wanted = b"/lib/ld-linux.so.2\0"
    old = b"\x7fELF\1\1\1".ljust(16, b"\0") + struct.pack(
        "<HHIIIIIHHHHHH", 2, 3, 1, 0x8048000, 52, 0, 0, 52, 32, 1, 40, 0, 0
    )
    old += struct.pack("<8I", 3, 84, 0x8048054, 0, len(wanted), len(wanted), 4, 1) + wanted
    # A kernel may have no 32-bit programs.
    assert said(old) in (
        (126, "'/v/there' is made for i386, and this node is x86_64"),
        (
            127,
            "'/v/there' needs glibc's loader '/lib/ld-linux.so.2', which is not in the container: "
            "take a program that is made for this image, or a static one",
        ),
    )
    assert said(b"\xca\xfe\xba\xbe\0\0\0\2") == (126, "'/v/there' is not a program of Linux")


def test_what_may_not_be_executed_says_why(shifter: Launcher, playground: Path) -> None:
    (playground / "plain").write_text("echo\n")
    (playground / "plain").chmod(0o640)
    (playground / "dir").mkdir(mode=0o755)
    (playground / "link").symlink_to("/absent/there")
    (playground / "wrap").write_text("#!/v/plain\n")
    (playground / "wrap").chmod(0o755)
    os.mkfifo(playground / "fifo")
    os.chown(playground / "plain", UID, GID)
    not_executable = "'/v/plain' is not executable (mode 0640): chmod +x"
    for command, code, hint in (
        ("/v/plain", 126, not_executable),
        ("plain", 126, not_executable),
        ("/v/dir", 126, "'/v/dir' is a directory"),
        ("/v/fifo", 126, "'/v/fifo' is not a regular file"),
        ("/v/wrap", 126, f"{not_executable}; it is the interpreter of '/v/wrap'"),
        ("/v/link", 127, "'/v/link' is a link to '/absent/there', which is not in the container"),
        ("/v/plain/x", 126, "on the way to '/v/plain/x' is a file, where a directory must be"),
    ):
        assert unexecuted(shifter, playground, command) == (code, hint)
    mounted = (
        f"mount -t tmpfs -o noexec,mode=755 x {playground}/dir && cp /bin/true {playground}/dir"
    )
    done = shifter.run(
        "-i", "test", f"-V{playground}:/v", "/v/dir/true",
        before=["unshare", "-Urm", "/bin/sh", "-c", f'{mounted} && exec "$@"', "sh"],
    )  # fmt: skip
    assert done.returncode == 126
    assert "hint: '/v/dir/true' lies on a filesystem that is mounted noexec" in done.stderr


def test_a_script_without_a_first_line_needs_a_shell(
    shifter: Launcher, store: Path, playground: Path
) -> None:
    (playground / "run").write_text("echo ran\n")
    (playground / "run").chmod(0o755)
    use(shifter, store, squash.without(squash.BUSYBOX, "bin"))
    assert unexecuted(shifter, playground, "run") == (
        126,
        "'/v/run' has no first line like '#!/bin/sh', and the container has no /bin/sh",
    )


def test_a_command_is_looked_for_in_the_containers_path(
    shifter: Launcher, playground: Path
) -> None:
    """Anything but the first that can be executed is passed over, as execvp(3) does."""
    for name, mode in (("none", 0o644), ("bad", 0o755), ("good", 0o755)):
        (playground / name).mkdir()
        (playground / name / "tool").write_text(f"echo {name} $*\n")
        (playground / name / "tool").chmod(mode)
    (playground / "bad" / "tool").write_text("#!/no/such/interpreter\n")
    (playground / "directory" / "tool").mkdir(parents=True)
    (playground / "file").touch()
    places = [f"/v/{name}" for name in ("absent", "file", "none", "directory", "bad", "good")]
    long = "/" + "x" * 5000

    def run(*where: str, cwd: str = "/") -> tuple[int, str]:
        path = f"--env=PATH={':'.join(where)}"
        volume = f"--volume={playground}:/v"
        done = shifter.run("-i", "test", volume, f"--workdir={cwd}", path, "tool", "a", "b c")
        return done.returncode, done.stdout or done.stderr.splitlines()[0].split(": ")[-1]

    assert run(long, *places) == (0, "good a b c\n")
    assert run("/bin", "", "/v/bad", cwd="/v/good") == (0, "good a b c\n")
    assert run(*places[:4]) == (126, "Permission denied")
    assert run(*places[:2]) == (127, "No such file or directory")
    assert run(places[4]) == (127, "No such file or directory")


def test_a_script_without_a_first_line_is_one_of_the_shells(
    shifter: Launcher, playground: Path
) -> None:
    (playground / "run").write_text("echo ran $0 $#\n")
    (playground / "run").chmod(0o755)
    done = shifter.run("-i", "test", f"--volume={playground}:/v", "/v/run", "a", "b c")
    assert done.stdout == "ran /v/run 2\n"
    done = shifter.run("-i", "test", f"--volume={playground}:/v", "--workdir=/v", "./run")
    assert done.stdout == "ran ./run 0\n"
    assert shifter.run("-i", "test", "").returncode == 127


def test_a_working_directory_that_is_not_there(shifter: Launcher, store: Path, image: Path) -> None:
    make_store(store, image, workdir="/absent")
    for option in ("-w", "--workdir=/absent", "--workdir=/etc/motd"):
        said = fails(shifter, "-i", "test", option, "pwd")
        assert re.match("shifter: cannot start in '/(absent|etc/motd)' in the container: ", said)
        done = shifter.run("-i", "test", option, "--lenient-workdir", "pwd")
        assert (done.returncode, done.stdout) == (0, "/\n")
        assert re.fullmatch(
            r"shifter: cannot start in '/(absent|etc/motd)' in the container: "
            r"(No such file or|Not a) directory: starting in '/'\n",
            done.stderr,
        )
    make_store(store, image, number=2)
    assert "the image 'test' names no working directory" in fails(
        shifter, "-i", "test", "-w", "true"
    )


@needs_root
def test_a_program_with_privileges(shifter: Launcher, base: Path) -> None:
    for owner, group, mode in ((0, -1, 0o4755), (-1, 0, 0o2755)):
        program = base / "privileged"
        program.write_bytes(shifter.program.read_bytes())
        os.chown(program, owner, group)
        program.chmod(mode)
        shifter.program = program
        assert "shifter must not be set-uid or set-gid" in fails(shifter)
        program.unlink()
        shifter.program = base / "built" / "shifter"


# ------------------------------------------------------------------ the store


def test_no_store(shifter: Launcher) -> None:
    assert fails(shifter, "--store=/absent/store", "-i", "test") == (
        "shifter: there is no store at '/absent/store'\n"
        "  hint: set SHIFTER_STORE or --store, or make one: shifterimg pull NAME\n"
    )
    assert "no store at '/absent'" in fails(shifter, SHIFTER_STORE="/absent")
    assert f"no store at '{shifter.home}/.local/share/shifter-lite'" in fails(
        shifter, SHIFTER_STORE=None
    )
    assert "no store at '/data/shifter-lite'" in fails(
        shifter, SHIFTER_STORE="", XDG_DATA_HOME="/data"
    )
    assert "no store was named" in fails(shifter, SHIFTER_STORE=None, HOME=None)


def test_the_store_may_be_named_by_the_nodes_configuration(
    shifter: Launcher, base: Path, shared_store: Path
) -> None:
    config = base / "etc" / "shifter" / "udiRoot.conf"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(
        f"# imagePath=/no\nsystem=x\nudiMount=a \\\n b\nimagePath = \\\n{shared_store}\n"
    )
    assert shifter.run("-i", "test", "true", env={"SHIFTER_STORE": None}).returncode == 0
    assert "no store at '/absent'" in fails(shifter, SHIFTER_STORE="/absent")
    config.write_text("imagePath=/elsewhere\n")
    assert "no store at '/elsewhere'" in fails(shifter, SHIFTER_STORE=None)
    config.unlink()


def test_a_store_may_be_named_relative_to_here(shifter: Launcher, base: Path) -> None:
    done = shifter.run("--store", "store", "-i", "test", "cat", "/etc/motd", cwd=base)
    assert done.stdout == "from the image\n"


def test_an_empty_store(shifter: Launcher, store: Path) -> None:
    (store / "index").mkdir()
    for name in (
        "images.cdb",
        "images.1.cdb",
        "images.00000000001.cdb.tmp",
        "images.-000000001.cdb",
    ):
        (store / "index" / name).touch()
    said = fails(shifter)
    assert f"the store '{store}' is empty" in said
    assert "hint: fill it with: shifterimg pull test" in said


def test_an_image_that_is_not_in_the_index(shifter: Launcher) -> None:
    assert fails(shifter, "-i", "debian:12", "true") == (
        f"shifter: no image 'docker.io/library/debian:12' in the store '{shifter.store}'\n"
        "  hint: get it with: shifterimg pull debian:12\n"
    )


def test_the_newest_generation_counts(shifter: Launcher, store: Path, image: Path) -> None:
    make_store(store, image, "docker.io/library/other:latest", number=99)
    make_store(store, image, number=9_999_999_999)
    assert shifter.run("-i", "test", "true").returncode == 0
    make_store(store, image, "docker.io/library/other:latest", number=10_000_000_000)
    assert "no image" in fails(shifter)
    make_store(store, image, number=9_999_999_999_999_999_999)
    assert shifter.run("-i", "test", "true").returncode == 0
    (store / "index" / "images.99999999999999999999.cdb").write_bytes(b"too many digits")
    assert shifter.run("-i", "test", "true").returncode == 0


def looping(key: bytes, slots: int) -> bytes:
    """Return an index whose table for KEY has no empty slot and not the key."""
    data = bytearray(cdb([]))
    hashed, record = key_hash(key), len(data) + 8 * slots
    struct.pack_into("<II", data, 8 * (hashed % 256), len(data), slots)
    data += struct.pack("<II", hashed, record) * slots
    return bytes(data) + struct.pack("<II", len(key), 1) + b"x" * (len(key) + 1)


def test_a_table_without_an_end_is_searched_once(shifter: Launcher, store: Path) -> None:
    path = write_generation(store, [])
    path.write_bytes(looping(KEY, 1000))
    assert "no image" in fails(shifter)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: b"", "a position outside the file"),
        (lambda data: data[:2000], "outside the file"),
        (lambda data: data[:-8], "outside the file"),
        (lambda data: data.replace(b"\0size=", b"\0sizf="), "a wrong checksum"),
        (lambda data: data.replace(b"\0id=", b"\0id\xff"), "a wrong checksum"),
        (lambda data: data.replace(b"time=1", b"time=2"), "a wrong checksum"),
        (lambda data: data.replace(KEY, KEY[:-1] + b"X"), "no image"),
        (lambda data: cdb([(KEY, b"x" * (1 << 20) + b"x")]), "larger than 1 MiB"),
        (lambda data: cdb([(KEY, b"")]), "a wrong checksum"),
        (lambda data: cdb([(KEY, sealed(KEY, [("id", "x")]))]), "no image id"),
        (lambda data: cdb([(KEY, sealed(KEY, []))]), "no image id"),
    ],
)
def test_a_damaged_index(
    shifter: Launcher, store: Path, image: Path, damage: object, words: str
) -> None:
    make_store(store, image)
    [path] = (store / "index").iterdir()
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    said = fails(shifter)
    assert words in said
    if words != "no image":
        assert f"the index of the store '{store}' is damaged" in said
        assert "shifter-admin verify" in said


def test_an_index_that_is_no_file(shifter: Launcher, store: Path, image: Path) -> None:
    (store / "index" / "images.0000000001.cdb").mkdir(parents=True)
    assert "is damaged: not a regular file" in fails(shifter)
    (store / "index" / "images.0000000001.cdb").rmdir()
    os.mkfifo(store / "index" / "images.0000000001.cdb")
    (store / "index" / "images.0000000001.cdb").chmod(0o644)
    assert "is damaged: not a regular file" in fails(shifter)
    (store / "index" / "images.0000000001.cdb").unlink()
    (store / "index" / "images.0000000001.cdb").symlink_to(image)
    assert "cannot read the index" in fails(shifter)


def test_an_index_of_a_newer_version(shifter: Launcher, store: Path) -> None:
    write_generation(store, [(KEY, entry(KEY, "a" * 64, 1, version="2"))])
    said = fails(shifter)
    assert f"the index of the store '{store}' was made by a newer version" in said


@needs_root
def test_an_index_that_may_not_be_read(shifter: Launcher, store: Path, image: Path) -> None:
    make_store(store, image)
    (store / "index").chmod(0o700)
    assert "cannot read the index of the store" in fails(shifter)
    assert "Permission denied" in fails(shifter)


# ------------------------------------------------------------------ the image's file


def test_an_image_whose_file_is_missing(shifter: Launcher, store: Path, image: Path) -> None:
    image_path(store, make_store(store, image)).unlink()
    said = fails(shifter)
    assert "the file of the image is missing: '" in said
    assert "shifter-admin verify" in said


def test_an_image_that_comes_back_in_time(shifter: Launcher, store: Path, image: Path) -> None:
    path = image_path(store, make_store(store, image))
    path.rename(store / "away")
    with shifter.popen("-i", "test", "echo", "late", stdout=subprocess.PIPE) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        (store / "away").rename(path)
        assert process.communicate(timeout=10)[0] == "late\n"


def test_an_image_of_another_size(shifter: Launcher, store: Path, image: Path) -> None:
    image_id, size = add_image(store, image)
    write_generation(store, [(KEY, entry(KEY, image_id, size + 1))])
    assert f"has {size} bytes, where the index says {size + 1}" in fails(shifter)


def test_an_image_that_is_a_link_or_a_directory(
    shifter: Launcher, store: Path, image: Path
) -> None:
    path = image_path(store, make_store(store, image))
    path.rename(store / "elsewhere")
    path.symlink_to(store / "elsewhere")
    assert "cannot open the image" in fails(shifter)
    path.unlink()
    path.mkdir()
    assert "is not a regular file" in fails(shifter)


@needs_root
def test_an_image_of_somebody_elses(shifter: Launcher, store: Path, image: Path) -> None:
    image_path(store, make_store(store, image)).chmod(0o600)
    said = fails(shifter)
    assert "cannot open the image" in said
    assert "Permission denied" in said


def test_an_image_that_is_no_squashfs(shifter: Launcher, store: Path, base: Path) -> None:
    nonsense = base / "nonsense"
    nonsense.write_bytes(b"nonsense" * 4096)
    make_store(store, nonsense)
    said = fails(shifter)
    assert said.startswith("shifter: cannot read the image: it is no squashfs file\n")
    assert "shifter-admin verify" in said


# ------------------------------------------------------------------ the node


def changed_node(shifter: Launcher, change: str) -> tuple[str, ...]:
    """Return a command that runs another as the caller on a node changed by a shell script."""
    script = f"{change} && exec setpriv --reuid={shifter.uid} --regid={shifter.gid}"
    return ("unshare", "-m", "/bin/sh", "-c", f'{script} --clear-groups "$@"', "sh")


def fails_on(shifter: Launcher, change: str) -> str:
    """Return what shifter says on a node changed by the shell script CHANGE."""
    before = changed_node(shifter, change)
    identity = {"user": 0, "group": 0, "extra_groups": []}
    done = shifter.run("-i", "test", "true", before=before, **identity)  # type: ignore[arg-type]
    assert done.returncode == 125, done
    return done.stderr


@needs_root
def test_a_node_without_squashfuse(foreign: Launcher) -> None:
    hide = "; ".join(f"mount --bind /dev/null $(command -v {name})" for name in SERVERS)
    assert fails_on(foreign, hide) == (
        "shifter: 'squashfuse_ll' was not found\n"
        "  hint: install it on this node: apt install squashfuse\n"
    )


@needs_root
def test_a_node_with_the_slow_squashfuse_only(foreign: Launcher) -> None:
    before = changed_node(foreign, "mount --bind /dev/null $(command -v squashfuse_ll)")
    done = foreign.run("-i", "test", "cat", "/etc/motd", before=before, user=0, group=0)
    assert done.stdout == "from the image\n"
    assert done.stderr == (
        "shifter: 'squashfuse_ll' was not found: reading the image is slow with 'squashfuse'\n"
    )


@needs_root
def test_our_own_images_need_no_squashfuse(shifter: Launcher) -> None:
    hide = "; ".join(f"mount --bind /dev/null $(command -v {name})" for name in SERVERS)
    done = shifter.run("-i", "test", "true", before=changed_node(shifter, hide), user=0, group=0)
    assert done.returncode == 0, done.stderr


@needs_root
def test_squashfuse_is_also_found_on_the_path(foreign: Launcher, playground: Path) -> None:
    where = f"mkdir -p {playground}/bin && cp $(command -v squashfuse_ll) {playground}/bin"
    hide = f"{where} && mount --bind /dev/null $(command -v squashfuse_ll)"
    before = changed_node(foreign, f"{hide} && PATH={playground}/bin:$PATH")
    done = foreign.run("-i", "test", "echo", "ran", before=before, user=0, group=0)
    assert done.stdout == "ran\n", done.stderr


@needs_root
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("mount -t tmpfs none /dev", "cannot open '/dev/fuse': No such file"),
        (
            "mount -t tmpfs none /dev && mknod -m 600 /dev/fuse c 10 229",
            "cannot open '/dev/fuse': Permission denied",
        ),
        (
            "mount -t tmpfs none /dev && mknod -m 666 /dev/fuse c 10 250",
            "cannot open '/dev/fuse': No such device",
        ),
    ],
)
def test_a_node_without_fuse(shifter: Launcher, change: str, words: str) -> None:
    said = fails_on(shifter, f"{change} && mknod -m 666 /dev/null c 1 3")
    assert words in said
    assert "root: modprobe fuse; chmod 666 /dev/fuse" in said


def test_a_node_without_user_namespaces(shifter: Launcher) -> None:
    off = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    said = fails(shifter, before=("unshare", "-Ur", "/bin/sh", "-c", off, "sh"))
    assert "cannot create a user namespace: No space left on device" in said
    assert "sysctl user.max_user_namespaces" in said


@pytest.mark.parametrize(
    ("inject", "words"),
    [
        ("unshare:error=EPERM:when=1", "cannot create a user namespace: Operation not permitted"),
        ("mount:error=ENOMEM:when=4", "cannot lay the container's own files over the image"),
        ("mount:error=EPERM:when=3", "chmod 666 /dev/fuse"),
        ("unshare:error=EPERM:when=2", "cannot create a mount namespace"),
        ("clone:error=EAGAIN:when=1", "cannot start the image's server: Resource temporarily"),
        ("wait4:error=EINTR:when=1", ""),
        ("umount2:error=EINVAL", "cannot leave the host's root"),
        ("capset:error=EPERM", "cannot drop privileges"),
    ],
)
def test_a_kernel_that_refuses(shifter: Launcher, inject: str, words: str) -> None:
    done = shifter.run(
        "-i", "test", "true", before=["strace", "-o", "/dev/null", "-e", f"inject={inject}"]
    )
    assert done.returncode == (125 if words else 0), done
    assert words in done.stderr


def test_a_server_that_dies_before_it_begins(traceable: Launcher) -> None:
    for call in ("setsid", "close_range", "dup2"):
        before = ["strace", "-f", "-b", "execve", "-o", "/dev/null"]
        done = traceable.run(
            "-i", "test", "true", before=[*before, "-e", f"inject={call}:signal=KILL"]
        )
        assert done.returncode == 125
        assert "'squashfuse_ll' ended before it had read the image" in done.stderr


def test_a_limit_of_processes_is_named(shifter: Launcher) -> None:
    said = []
    for most in range(1, 500):
        before = ["bash", "-c", f'ulimit -u {most}; exec "$@"', "bash"]
        done = shifter.run("-i", "test", "true", before=before)
        if done.returncode == 0:
            break
        said.append(done.stderr)
    assert done.returncode == 0
    assert said
    for each in said:
        assert each == (
            "shifter: cannot start the image's server: Resource temporarily unavailable\n"
            "  hint: may you have more processes on this node? see: ulimit -u\n"
        )


def test_a_server_that_fails_says_why(traceable: Launcher) -> None:
    before = ["strace", "-f", "-b", "execve", "-o", "/dev/null", "-e", "inject=setsid:error=EPERM"]
    done = traceable.run("-i", "test", "true", before=before)
    assert done.returncode == 125
    assert "cannot leave the caller's session" in done.stderr


def test_damage_within_an_image_is_an_error_and_no_hang(
    shifter: Launcher, store: Path, base: Path
) -> None:
    path = squash.make(base / "damaged", squash.BUSYBOX)
    data = bytearray(path.read_bytes())
    data[96 : len(data) // 2] = b"\xff" * (len(data) // 2 - 96)
    path.write_bytes(data)
    make_store(store, path)
    done = shifter.run("-i", "test", "/bin/true", timeout=20)
    assert done.returncode in (125, 126, -7)
