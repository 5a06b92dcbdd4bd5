"""The launcher answers every vector of the index as the contract says."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from shifter_lite import platforms
from tests.runtime import store as stores
from tests.runtime.conftest import Launcher
from tests.runtime.test_errors import fails, needs_root

VECTORS = Path(__file__).parents[2] / "spool" / "vectors" / "indexes"
ANSWERS = [
    line.split("\t")
    for line in (VECTORS / "answers.tsv").read_text(encoding="utf-8").splitlines()[1:]
]
ID = "0123456789abcdef" * 4
WORDS = {
    # What was found is a directory, so that no launch goes on.
    "found": "is not a regular file",
    "absent": "no image 'docker.io/library/x:1' in the store",
    "damaged": "is damaged",
    "newer": "was made by a newer version",
}


@pytest.mark.parametrize(("name", "answer"), ANSWERS)
def test_a_vector_is_answered_as_it_should_be(
    shifter: Launcher, store: Path, name: str, answer: str
) -> None:
    (store / "index").mkdir()
    (store / "images" / "01" / f"{ID}.squashfs").mkdir(parents=True)
    shutil.copy(VECTORS / name, store / "index" / "images.0000000001.cdb")
    done = shifter.run("--image=x:1", "true")
    assert done.returncode == 125
    assert WORDS[answer] in done.stderr


# ------------------------------------------------------------------ the beginning of an id


def publish(store: Path, ids: list[str], size: int, number: int = 1) -> None:
    """Publish images of SIZE bytes under IDS alone."""
    keys = [f"id:{image_id}".encode() for image_id in ids]
    items = [
        (key, stores.entry(key, image_id, size, env=["PATH=/bin"]))
        for key, image_id in zip(keys, ids, strict=True)
    ]
    stores.write_generation(store, items, number)


@pytest.fixture
def image_id(store: Path, image: Path) -> str:
    """The id of the one image of a store."""
    return stores.make_store(store, image, env=["PATH=/bin"])


def twin(store: Path, image_id: str, digits: int, *, published: bool = True) -> str:
    """Add an image whose id begins with as many DIGITS of IMAGE_ID."""
    other = image_id[:digits] + ("0" if image_id[digits] != "0" else "1") * (64 - digits)
    path = stores.image_path(store, image_id)
    shutil.copy(path, stores.image_path(store, other))
    ids = [image_id, other] if published else [image_id]
    publish(store, ids, path.stat().st_size, 2)
    return other


SAYS = 'echo "$SHIFTER_IMAGE $SHIFTER_IMAGEREQUEST"'


@pytest.mark.parametrize("digits", [4, 5, 10, 12, 63, 64])
def test_the_beginning_of_an_id_stands_for_the_image(
    shifter: Launcher, image_id: str, digits: int
) -> None:
    name = f"id:{image_id[:digits]}"
    assert shifter.run("-i", name, "sh", "-c", SAYS).stdout == f"{image_id} {name}\n"


def test_the_environment_may_name_the_beginning_of_an_id(shifter: Launcher, image_id: str) -> None:
    env = {"SHIFTER_IMAGETYPE": "id", "SHIFTER_IMAGE": image_id[:10]}
    assert shifter.run("sh", "-c", SAYS, env=env).stdout.startswith(f"{image_id} ")


@pytest.mark.parametrize("text", ["", "0", "012", "ABCD", "01234g", "0123:x", "0" * 65])
def test_what_cannot_begin_an_id_is_refused(shifter: Launcher, text: str) -> None:
    said = fails(shifter, "-i", f"id:{text}", "true")
    assert f"not an image name: 'id:{text}'" in said
    assert "an image id has 64 digits 0-9a-f; its first 4 may be enough" in said


def test_a_beginning_that_fits_no_image_or_no_published_one_is_not_there(
    shifter: Launcher, store: Path, image_id: str
) -> None:
    other = twin(store, image_id, 6, published=False)
    for absent in (f"{'0' if image_id[0] != '0' else '1'}123", other[:8], image_id[:2] + "ffff"):
        said = fails(shifter, "-i", f"id:{absent}", "true")
        assert f"no image 'id:{absent}' in the store '{store}'" in said
        assert "hint: see the ids with: shifterimg images --json" in said
    assert shifter.run("-i", f"id:{image_id[:4]}", "true").returncode == 0


def test_a_beginning_that_fits_several_images_is_refused_with_some_of_them(
    shifter: Launcher, store: Path, image_id: str
) -> None:
    other = twin(store, image_id, 6)
    said = fails(shifter, "-i", f"id:{image_id[:6]}", "true")
    assert f"2 images in the store '{store}' begin with 'id:{image_id[:6]}'" in said
    assert {f"id:{image_id}", f"id:{other}"} == set(re.findall("id:[0-9a-f]{64}", said))
    for exact in (image_id, other):
        done = shifter.run("-i", f"id:{exact[:7]}", "sh", "-c", SAYS)
        assert done.stdout.startswith(f"{exact} ")


def test_a_beginning_that_was_one_images_is_asked_anew_after_a_publication(
    shifter: Launcher, store: Path, image_id: str
) -> None:
    with shifter.popen("-i", f"id:{image_id[:6]}", "cat", stdin=subprocess.PIPE) as rank:
        # This rank joins it.
        assert shifter.run("-i", f"id:{image_id[:6]}", "true").returncode == 0
        twin(store, image_id, 6)
        assert "2 images" in fails(shifter, "-i", f"id:{image_id[:6]}", "true")
        assert shifter.run("-i", f"id:{image_id}", "true").returncode == 0
        rank.communicate(timeout=10)


def opened(shifter: Launcher, playground: Path, name: str) -> list[str]:
    """Return the opens of the store that a launch makes."""
    trace = playground / "trace"
    before = ["strace", "-f", "-y", "-o", str(trace)]
    assert shifter.run("-i", name, "true", before=before).returncode == 0
    ours = trace.read_text().partition('execve("/bin/true"')[0].splitlines()
    calls = [line for line in ours if re.search(r" open(at)?\(", line)]
    return [line for line in calls if str(shifter.store) in line]


def test_a_beginning_costs_the_founder_one_open_more_and_who_joins_none(
    shifter: Launcher, playground: Path, image_id: str
) -> None:
    assert len(opened(shifter, playground, f"id:{image_id}")) == 3
    shifter.wait_until_gone()
    assert len(opened(shifter, playground, f"id:{image_id[:8]}")) == 4
    shifter.wait_until_gone()
    command = ("sh", "-c", "echo; cat")
    with shifter.popen("-i", f"id:{image_id[:8]}", *command, stdin=-1, stdout=-1) as rank:
        assert rank.stdout
        rank.stdout.readline()
        # The newest generation is asked for, as with a name.
        assert len(opened(shifter, playground, f"id:{image_id[:8]}")) == 1
        assert len(opened(shifter, playground, f"id:{image_id}")) == 0
        rank.communicate(timeout=10)


def test_an_id_and_its_beginning_share_a_container(shifter: Launcher, image_id: str) -> None:
    names = [f"id:{image_id[:8]}", f"id:{image_id}", "test", f"id:{image_id[:5]}"]
    command = ("sh", "-c", "readlink /proc/self/ns/mnt; cat")
    with shifter.popen("-i", names[0], *command, stdin=-1, stdout=-1) as rank:
        assert rank.stdout
        first = rank.stdout.readline()
        for name in names[1:]:
            assert shifter.run("-i", name, *command).stdout == first
        rank.communicate(timeout=10)


def test_names_that_are_no_images_do_not_count(
    shifter: Launcher, store: Path, image_id: str
) -> None:
    directory = stores.image_path(store, image_id).parent
    for name in (f".{image_id}.x", f"{image_id}.json", f"{image_id}.squashfs~", image_id[:6]):
        (directory / name).touch()
    assert shifter.run("-i", f"id:{image_id[:6]}", "true").returncode == 0


@needs_root
def test_setup_root_takes_the_beginning_of_an_id(
    shifter: Launcher, store: Path, image_id: str
) -> None:
    command = [str(shifter.program.with_name("setupRoot")), "-J", "7"]
    command += ["-U", str(shifter.uid), "-G", str(shifter.gid)]
    etc = shifter.base / "etc" / "shifter" / "udiRoot.conf"
    etc.parent.mkdir(parents=True, exist_ok=True)
    etc.write_text(f"imagePath={store}\n")
    try:
        done = subprocess.run([*command, "id", image_id[:6]], capture_output=True, text=True)
        # It was found, and is no image of a worker's.
        assert f"the image 'id:{image_id[:6]}' was made by a user" in done.stderr
        done = subprocess.run([*command, "id", "ffffffffff"], capture_output=True, text=True)
        assert "no image 'id:ffffffffff'" in done.stderr
    finally:
        etc.unlink()


# ----------------------------------------------------------------------------- platforms

NAME = "docker.io/library/test:latest"
OWN = platforms.architecture(platforms.parse(platform.machine()))
OTHER = "arm64" if OWN != "arm64" else "amd64"


def publish_for(
    store: Path, image: Path, *, plain: str = "", machines: str = ""
) -> tuple[str, str]:
    """Publish IMAGE under the name alone, for PLAIN, and a copy for nodes of MACHINES.

    Returns the ids of both.
    """
    ids = stores.make_store(store, image), "f" * 64
    path = stores.image_path(store, ids[0])
    copy = stores.image_path(store, ids[1])
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(path, copy)
    keys = [NAME.encode(), f"\0machine:{machines}:{NAME}".encode()]
    items = [
        (
            key,
            stores.entry(key, image_id, path.stat().st_size, env=["PATH=/bin"], platform=made_for),
        )
        for key, image_id, made_for in zip(keys, ids, (plain, f"linux/{machines}"), strict=True)
        if made_for.startswith("linux/") and not made_for.endswith("/")
    ]
    stores.write_generation(store, items)
    return ids


def test_a_node_is_given_what_is_for_its_machine_with_no_further_open(
    shifter: Launcher, store: Path, image: Path, playground: Path
) -> None:
    _, own = publish_for(store, image, plain=f"linux/{OTHER}", machines=OWN)
    assert shifter.run("-i", "test", "sh", "-c", SAYS).stdout == f"{own} test\n"
    shifter.wait_until_gone()
    assert len(opened(shifter, playground, "test")) == 3
    with shifter.popen("-i", "test", "sh", "-c", "echo; cat", stdin=-1, stdout=-1) as rank:
        assert rank.stdout
        rank.stdout.readline()
        # What the node remembers is that of its machine.
        assert len(opened(shifter, playground, "test")) <= 1
        assert shifter.run("-i", "test", "sh", "-c", SAYS).stdout == f"{own} test\n"
        rank.communicate(timeout=10)


def test_what_others_are_given_is_not_looked_at_where_the_name_is_for_the_node(
    shifter: Launcher, store: Path, image: Path
) -> None:
    plain, _ = publish_for(store, image, plain=f"linux/{OWN}", machines=OTHER)
    assert shifter.run("-i", "test", "sh", "-c", SAYS).stdout == f"{plain} test\n"


def test_an_image_for_other_machines_alone_is_not_run_and_the_hint_gets_the_right_one(
    shifter: Launcher, store: Path, image: Path
) -> None:
    publish_for(store, image, plain=f"linux/{OTHER}")
    said = fails(shifter, "-i", "test", "true")
    assert f"the image '{NAME}' in the store '{store}' is made for 'linux/{OTHER}'" in said
    assert f"hint: get it for this node with: shifterimg pull --platform linux/{OWN} test" in said
    publish_for(store, image, machines=OTHER)
    assert f"no image '{NAME}' in the store" in fails(shifter, "-i", "test", "true")


@pytest.mark.skipif(OWN != "amd64", reason="x86-64 has levels")
def test_an_image_for_a_higher_level_of_x86_64_is_refused_before_it_fails(
    shifter: Launcher, store: Path, image: Path
) -> None:
    publish_for(store, image, plain="linux/amd64/v9")
    said = fails(shifter, "-i", "test", "true")
    assert "is made for 'linux/amd64/v9'" in said
    assert "the site's 'platform' in shifter_lite.toml is more than this node can run" in said


def test_an_id_is_one_image_whatever_it_is_made_for(
    shifter: Launcher, store: Path, image: Path
) -> None:
    image_id = stores.make_store(store, image)
    key, size = f"id:{image_id}".encode(), stores.image_path(store, image_id).stat().st_size
    entry = stores.entry(key, image_id, size, env=["PATH=/bin"], platform=f"linux/{OTHER}")
    stores.write_generation(store, [(key, entry)])
    assert shifter.run("-i", f"id:{image_id[:9]}", "true").returncode == 0
