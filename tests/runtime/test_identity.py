"""Who the caller is, by the index, the host's files, or numbers: no name service is asked."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.runtime import squash
from tests.runtime import store as stores
from tests.runtime.conftest import GID, NAME, UID, Launcher

GROUPS = [GID + 1, GID + 2, GID + 3]
VECTORS = Path(__file__).parents[2] / "spool" / "vectors" / "users"
Fields = Iterable[tuple[str, str]]


def publish(store: Path, image: Path, entries: dict[str, Fields]) -> None:
    """Make a store with the image, and ENTRIES under their keys without the NUL."""
    image_id, size = stores.add_image(store, image)
    items = [(NAME.encode(), stores.entry(NAME.encode(), image_id, size, env=["PATH=/bin"]))]
    for name, fields in entries.items():
        key = b"\0" + name.encode()
        items.append((key, stores.sealed(key, fields)))
    stores.write_generation(store, items)
    for directory in (store, *store.rglob("*")):
        if directory.is_dir():
            directory.chmod(0o755)


def caller(*groups: tuple[int, str]) -> dict[str, Fields]:
    fields = [("name", "ann"), ("gid", str(GID)), ("gecos", "Ann,,,"), ("home", "/home/ann")]
    fields += [("shell", "/bin/zsh"), *(("group", f"{gid}={name}") for gid, name in groups)]
    return {f"u{UID}": fields}


def added(text: str) -> list[str]:
    """Return the lines of an /etc/passwd or group that are not the image's."""
    return [line for line in text.splitlines() if not re.match("root|nobody|nogroup", line)]


def test_the_index_says_who_the_caller_is(shifter: Launcher, store: Path, image: Path) -> None:
    publish(store, image, caller((GID, "users")))
    out = shifter.inside("id -un; id -gn; cat /etc/passwd", env={"USER": "zoe"})
    assert out.startswith("ann\nusers\n")
    assert added(out)[2:] == [f"ann:x:{UID}:{GID}:Ann,,,:/home/ann:/bin/zsh"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give itself groups")
def test_groups_are_named_by_the_user_then_by_themselves_then_by_numbers(
    shifter: Launcher, store: Path, image: Path
) -> None:
    shifter.groups = GROUPS
    entries = caller((GID, "users"), (GROUPS[0], "project"), (GROUPS[0] + 100, "of another day"))
    publish(store, image, {**entries, f"g{GROUPS[1]}": [("name", "batch")]})
    assert added(shifter.inside("cat /etc/group")) == [
        f"users:x:{GID}:",
        f"project:x:{GROUPS[0]}:ann",
        f"batch:x:{GROUPS[1]}:ann",
        f"g{GROUPS[2]}:x:{GROUPS[2]}:ann",
    ]


def test_who_is_not_published_has_the_name_of_the_host(
    shifter: Launcher, store: Path, image: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody whom the host knows")
    shifter.uid, shifter.gid = 2, 2
    hosts = [line for line in Path("/etc/passwd").read_text().splitlines() if ":x:2:2:" in line]
    publish(store, image, caller())
    assert added(shifter.inside("cat /etc/passwd")) == hosts
    assert added(shifter.inside("cat /etc/group"))[0].endswith(":x:2:")


def test_who_is_nowhere_is_a_number(shifter: Launcher, store: Path, image: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("the tester has a name")
    publish(store, image, {f"u{UID}0": [("name", "another"), ("gid", "1")]})
    out = shifter.inside("id -un; id -gn")
    assert out == f"u{UID}\ng{GID}\n"


def traced(shifter: Launcher, playground: Path) -> str:
    trace = playground / "trace"
    before = ["strace", "-f", "-y", "-o", str(trace)]
    assert shifter.run("-i", "test", "true", before=before).returncode == 0
    text = trace.read_text()
    # What the application does is not ours.
    return text[: text.index('execve("/bin/true"')]


def test_no_name_service_is_asked_and_no_file_read_for_what_the_index_says(
    shifter: Launcher, store: Path, image: Path, playground: Path
) -> None:
    publish(store, image, caller((GID, "users")))
    trace = traced(shifter, playground)
    assert not re.search(r"socket\(|connect\(|nscd|nsswitch|libnss|/var/lib/sss", trace)
    assert '"/etc/passwd"' not in trace
    assert '"/etc/group"' not in trace
    opened = [line for line in trace.splitlines() if re.search(r" open(at)?\(", line)]
    assert len([line for line in opened if str(store) in line]) == 3


def test_without_the_index_the_hosts_files_are_read_and_nobody_is_asked(
    shifter: Launcher, playground: Path
) -> None:
    trace = traced(shifter, playground)
    assert not re.search(r"socket\(|connect\(|nscd|nsswitch|libnss|/var/lib/sss", trace)
    assert '"/etc/passwd"' in trace


@pytest.mark.parametrize(
    "line",
    [("name", "a:b"), ("name", "a\nroot"), ("gid", "-1"), ("home", "x"), ("group", "1=a:b")],
)
def test_an_entry_that_would_break_a_line_is_a_damaged_index(
    shifter: Launcher, store: Path, image: Path, line: tuple[str, str]
) -> None:
    fields = dict([("name", "ann"), ("gid", "1"), line])
    publish(store, image, {f"u{UID}": list(fields.items())})
    done = shifter.run("-i", "test", "true")
    assert done.returncode == 125
    assert "is damaged: " in done.stderr
    assert f" at the user {UID}\n" in done.stderr


def test_an_entry_of_a_later_version_is_as_none(
    shifter: Launcher, store: Path, image: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("the tester has a name")
    publish(store, image, {})
    key = b"\0u%d" % UID
    image_id, size = stores.add_image(store, image)
    stores.write_generation(
        store,
        [
            (NAME.encode(), stores.entry(NAME.encode(), image_id, size, env=["PATH=/bin"])),
            (key, stores.sealed(key, [("name", "ann")], version="2")),
        ],
        number=2,
    )
    assert shifter.inside("id -un") == f"u{UID}\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be the vectors' user")
@pytest.mark.parametrize(
    ("name", "answer"),
    [
        line.split("\t")
        for line in (VECTORS / "answers.tsv").read_text(encoding="utf-8").splitlines()[1:]
    ],
)
def test_a_vector_is_answered_as_it_should_be(
    shifter: Launcher, store: Path, name: str, answer: str
) -> None:
    image_id = "0123456789abcdef" * 4
    (store / "index").mkdir()
    # What was found is a directory, so that no launch goes on.
    (store / "images" / "01" / f"{image_id}.squashfs").mkdir(parents=True)
    shutil.copy(VECTORS / name, store / "index" / "images.0000000001.cdb")
    shifter.uid = shifter.gid = 1000
    done = shifter.run("--image=x:1", "true")
    assert done.returncode == 125
    assert ("is damaged" if answer == "damaged" else "is not a regular file") in done.stderr


# ------------------------------------------------------------------ the site's own files

MANY = 30_000
"""So many lines are more than 1 MiB."""


@pytest.fixture
def etc(shifter: Launcher, playground: Path) -> Path:
    """The etcPath of a configuration that says nothing else."""
    path = playground / "etc"
    path.mkdir(mode=0o755)
    config = playground / "udiRoot.conf"
    config.write_text(f"etcPath={path}\n")
    shifter.env["SHIFTER_CONFIG"] = str(config)
    return path


def many_users(*last: str) -> str:
    lines = (f"user{n}:x:{70000 + n}:100:User {n},,,:/home/user{n}:/bin/bash" for n in range(MANY))
    return "".join(f"{line}\n" for line in (*lines, *last))


def many_groups(*last: str) -> str:
    lines = (f"group{n}:x:{70000 + n}:user{n},user{n + 1}" for n in range(MANY))
    return "".join(f"{line}\n" for line in (*lines, *last))


def quiet(shifter: Launcher, script: str, *options: str) -> str:
    """Return what SCRIPT prints in a container of which the launcher says nothing."""
    done = shifter.run("--image=test", *options, "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_users_and_groups_in_large_files_of_the_site_are_known(
    shifter: Launcher, etc: Path
) -> None:
    (etc / "passwd").write_text(many_users(f"zoe:x:{UID}:{GID}::/home/zoe:/bin/zsh"))
    (etc / "group").write_text(many_groups(f"work:x:{GID}:zoe"))
    assert (etc / "passwd").stat().st_size > 1 << 20 < (etc / "group").stat().st_size
    script = "id -un; id -gn; wc -l < /etc/passwd; wc -l < /etc/group; grep ^group7: /etc/group"
    # The image brings root and nobody.
    known = f"zoe\nwork\n{MANY + 3}\n{MANY + 3}\ngroup7:x:70007:\n"
    assert quiet(shifter, script) == known


def test_users_are_imported_from_a_large_file(shifter: Launcher, etc: Path) -> None:
    (etc / "passwd").write_text(many_users("sshd:x:105:65534::/run/sshd:/bin/false"))
    config = Path(shifter.env["SHIFTER_CONFIG"])
    config.write_text(f"etcPath={etc}\npopulateEtcDynamically=1\nusersToImport=sshd user9\n")
    assert quiet(shifter, "cut -d: -f1 /etc/passwd").split()[:2] == ["user9", "sshd"]


def test_a_large_file_of_the_image_is_read(shifter: Launcher, store: Path, base: Path) -> None:
    tree = {**squash.BUSYBOX, "etc/passwd": many_users("last:x:7:7::/:/bin/sh")}
    image = squash.make(base / "many-users.squashfs", tree)
    stores.make_store(store, image, NAME, env=["PATH=/bin"])
    assert quiet(shifter, "grep -c user /etc/passwd; grep last /etc/passwd").endswith("/bin/sh\n")


def test_a_file_that_cannot_be_taken_is_named(
    shifter: Launcher, etc: Path, store: Path, base: Path
) -> None:
    tree = {**squash.BUSYBOX, "etc/group": b"x" * ((16 << 20) + 1)}
    image = squash.make(base / "hostile.squashfs", tree)
    stores.make_store(store, image, NAME, env=["PATH=/bin"])
    for name in ("passwd", "hosts"):
        (etc / name).touch()
        os.truncate(etc / name, (64 << 20) + 1)
    done = shifter.run("--image=test", "true")
    assert done.returncode == 0
    lacks = "is larger than {} MiB: its names are not known in the container\n"
    assert f"shifter: '{etc}/passwd' {lacks.format(64)}" in done.stderr
    assert f"shifter: '/etc/group' of the image {lacks.format(16)}" in done.stderr
    assert f"'{etc}/hosts' is larger than 64 MiB: the container lacks it" in done.stderr
    said = shifter.run("--check-config").stdout
    for name in ("passwd", "hosts"):
        assert f"'{etc}/{name}' is larger than 64 MiB: no container has it\n" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has files that the caller cannot read")
def test_a_passwd_that_the_caller_cannot_read_is_named(shifter: Launcher, etc: Path) -> None:
    (etc / "passwd").touch(mode=0o600)
    done = shifter.run("--image=test", "true")
    assert f"cannot read '{etc}/passwd', so its names are not known in the container" in done.stderr
    (etc / "motd").touch(mode=0o640)
    said = shifter.run("--check-config").stdout
    for name in ("passwd", "motd"):
        assert f"'{etc}/{name}' cannot be read by all users: their containers lack it\n" in said


def test_one_odd_line_does_not_hide_others(shifter: Launcher, etc: Path) -> None:
    (etc / "passwd").write_bytes(
        b"a\0b:x:1:1::/:/bin/sh\n" + b"l" * (2 << 20) + b"\n#c:x:3:3::/:/bin/sh\n+\n\r\n"
        b"dos:x:4:4::/home/dos:/bin/sh\r\nmany:x:5:5::/:" + b"/s" * (1 << 20) + b"\n"
        b"last:x:6:6::/home/last:/bin/sh"
    )
    lines = quiet(shifter, "cat /etc/passwd").splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["dos", "many", "last"]
    assert lines[0] == "dos:x:4:4::/home/dos:/bin/sh"
    assert lines[2] == "last:x:6:6::/home/last:/bin/sh"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give itself groups")
def test_other_users_and_groups_of_the_site_are_known_and_groups_without_members(
    shifter: Launcher, etc: Path
) -> None:
    shifter.groups = [4110]
    (etc / "passwd").write_text(
        f"root:x:0:0:root:/root:/bin/bash\nzoe:x:{UID}:{GID}::/home/zoe:/bin/sh\n"
        "bob:x:4000:4000:Bob:/home/bob:/bin/bash\nbob2:x:4000:4000:Alias:/home/bob:/bin/sh\n"
    )
    (etc / "group").write_text(
        f"root:x:0:bob\nzoes:x:{GID}:\ng1:x:4110:bob,zoe\ng2:x:4111:bob\nnobodyx:x:4112:\n"
        "bad:x:word:\n"
    )
    out = quiet(shifter, "cat /etc/passwd; echo; cat /etc/group")
    passwd, group = (text.splitlines() for text in out.split("\n\n"))
    assert passwd == [
        "root:x:0:0:root:/root:/bin/bash",
        "bob:x:4000:4000:Bob:/home/bob:/bin/bash",
        "bob2:x:4000:4000:Alias:/home/bob:/bin/sh",
        "nobody:x:65534:65534::/:/bin/false",
        f"zoe:x:{UID}:{GID}::/home/zoe:/bin/sh",
    ]
    assert group == [
        "g2:x:4111:",
        "nobodyx:x:4112:",
        "root:x:0:",
        "nogroup:x:65534:",
        f"zoes:x:{GID}:",
        "g1:x:4110:zoe",
    ]


def test_the_index_counts_more_than_the_sites_files(
    shifter: Launcher, store: Path, image: Path, etc: Path
) -> None:
    publish(store, image, caller((GID, "users")))
    (etc / "passwd").write_text(f"zoe:x:{UID}:{GID}::/:/bin/sh\nann:x:5:5::/:\nbob:x:6:6::/:/x\n")
    (etc / "group").write_text(f"zoes:x:{GID}:\nusers:x:5:\nothers:x:6:zoe\n")
    assert added(quiet(shifter, "cat /etc/passwd /etc/group")) == [
        "bob:x:6:6::/:/x",
        f"ann:x:{UID}:{GID}:Ann,,,:/home/ann:/bin/zsh",
        "others:x:6:",
        f"users:x:{GID}:",
    ]
