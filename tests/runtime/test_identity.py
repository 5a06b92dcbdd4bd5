"""Who the caller is, by the index, the host's files, or numbers: no name service is asked."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

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
