"""Generations of the index: published exclusively, resolved from the newest."""

import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from shifter_lite import durable, keys
from shifter_lite.errors import Damaged, NoStore, NotFound
from shifter_lite.index import publish, resolve
from shifter_lite.records import Config, Entry

STORE = "0123456789abcdef" * 2
MARK = "host.1.abc"


def entry(number: int = 0) -> Entry:
    return Entry(
        id=f"{number:064x}", size=4096, digest="sha256:" + "ab" * 32, time=1, config=Config()
    )


def may() -> None:
    """Let everybody publish."""


@pytest.fixture
def index(tmp_path: Path) -> Path:
    path = tmp_path / "store/index"
    path.mkdir(parents=True)
    return path


def test_a_published_name_is_found_and_others_stay(index: Path) -> None:
    for number, name in ((1, "a:1"), (2, "b:1")):
        names = {name: entry(number)}
        made = publish.publish(index, names, store=STORE, mark=MARK, renew=may)
        assert made == (number, True)
    assert resolve.lookup(index, "a:1") == entry(1)
    assert resolve.lookup(index, "b:1") == entry(2)
    with resolve.newest(index) as newest:
        assert newest is not None
        meta = dict(newest.meta())
    assert meta["generation"] == "2"
    assert meta["names"] == "2"
    assert meta["store"] == STORE


def test_what_is_published_already_makes_no_generation(index: Path) -> None:
    publish.publish(index, {"a:1": entry(1)}, store=STORE, mark=MARK, renew=may)
    again = publish.publish(index, {"a:1": entry(1)}, store=STORE, mark=MARK, renew=may)
    assert again == (1, False)
    assert os.listdir(index) == ["images.0000000001.cdb"]


def test_a_name_moves_to_a_newer_image(index: Path) -> None:
    publish.publish(index, {"a:1": entry(1)}, store=STORE, mark=MARK, renew=may)
    publish.publish(index, {"a:1": entry(2)}, store=STORE, mark=MARK, renew=may)
    assert resolve.lookup(index, "a:1") == entry(2)


def test_the_beginning_of_an_id_stands_for_the_one_published_image_that_has_it(
    index: Path,
) -> None:
    ids = ["ab01" + "0" * 60, "ab01" + "1" * 60, "ab02" + "2" * 60, "ab03" + "3" * 60]
    images = index.parent / "images" / "ab"
    images.mkdir(parents=True)
    for image_id in ids:
        (images / f"{image_id}.squashfs").touch()
        (images / f"{image_id}.json").touch()
    published = {f"id:{image_id}": replace(entry(), id=image_id) for image_id in ids[:3]}
    publish.publish(index, published, store=STORE, mark=MARK, renew=may)
    assert resolve.lookup(index, "id:ab02").id == ids[2]
    assert resolve.lookup(index, "id:ab010").id == ids[0]
    with pytest.raises(NotFound, match="2 images in the store begin with 'id:ab01'") as caught:
        resolve.lookup(index, "id:ab01")
    assert caught.value.hint == f"write more digits: id:{ids[0]}, id:{ids[1]}"
    for absent in ("id:ab03", "id:ab04", "id:cd00"):
        with pytest.raises(NotFound, match=f"no image '{absent}'") as caught:
            resolve.lookup(index, absent)
        assert caught.value.hint == "see the ids with: shifterimg images --json"


def test_absent_empty_and_missing_are_told_apart(index: Path) -> None:
    with pytest.raises(NotFound, match="no image 'a:1'"):
        resolve.lookup(index, "a:1")
    publish.publish(index, {"b:1": entry()}, store=STORE, mark=MARK, renew=may)
    with pytest.raises(NotFound, match="no image 'a:1'"):
        resolve.lookup(index, "a:1")
    with pytest.raises(NoStore, match="no store at"):
        resolve.lookup(index.parent.parent / "nowhere/index", "a:1")


def test_a_damaged_generation_is_not_called_absent(index: Path) -> None:
    publish.publish(index, {"a:1": entry()}, store=STORE, mark=MARK, renew=may)
    path = index / "images.0000000001.cdb"
    path.write_bytes(path.read_bytes()[:2100])
    with pytest.raises(Damaged):
        resolve.lookup(index, "a:1")


def test_names_that_are_no_generation_are_ignored(index: Path) -> None:
    publish.publish(index, {"a:1": entry()}, store=STORE, mark=MARK, renew=may)
    for name in (
        ".images.0000000009.cdb",
        "images.9.cdb",
        "images.0000000009.cdb.tmp",
        "images.99999999999999999999.cdb",
        "images.000000000x.cdb",
        "images.٠٠٠٠٠٠٠٠٠٩.cdb",
    ):
        (index / name).write_bytes(b"junk")
    assert resolve.lookup(index, "a:1") == entry()


def test_a_symbolic_link_is_not_followed_to_an_index(index: Path) -> None:
    publish.publish(index, {"a:1": entry()}, store=STORE, mark=MARK, renew=may)
    (index / "images.0000000002.cdb").symlink_to(index / "images.0000000001.cdb")
    with pytest.raises(OSError, match="symbolic links"):
        resolve.lookup(index, "a:1")


def test_generations_are_kept_for_those_who_are_still_opening_them(index: Path) -> None:
    for number in range(1, 9):
        publish.publish(index, {"a:1": entry(number)}, store=STORE, mark=MARK, renew=may)
    assert len(resolve.generations(index)) == 8
    old = time.time() - 4201
    for number in range(1, 9):
        os.utime(index / resolve.generation_name(number), (old, old))
    publish.publish(index, {"a:1": entry(9)}, store=STORE, mark=MARK, renew=may)
    assert resolve.generations(index) == [9, 8, 7, 6, 5]


def test_a_publisher_whose_clock_is_an_hour_ahead_leaves_what_others_just_published(
    index: Path,
) -> None:
    # As it looks on GlusterFS, where a file has the time of the host that makes it.
    behind = time.time() - 3500
    for number in range(1, 9):
        publish.publish(index, {"a:1": entry(number)}, store=STORE, mark=MARK, renew=may)
        os.utime(index / resolve.generation_name(number), (behind, behind))
    publish.publish(index, {"a:1": entry(9)}, store=STORE, mark=MARK, renew=may)
    assert resolve.generations(index) == [9, 8, 7, 6, 5, 4, 3, 2, 1]


def _publish_many(index: Path, worker: int) -> None:
    for number in range(20):
        names = {f"w{worker}:{number}": entry(worker)}
        publish.publish(index, names, store=STORE, mark=f"host.{worker}.abc", renew=may)


def test_publishers_without_a_lock_lose_none_of_each_others_names(index: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_publish_many, args=(index, n)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    with resolve.newest(index) as newest:
        assert newest is not None
        names = dict(newest.entries())
        assert newest.generation == 80
    assert names == {f"w{w}:{n}": entry(w) for w in range(4) for n in range(20)}
    assert not [name for name in os.listdir(index) if name.startswith(".")]


VECTORS = Path(__file__).parent.parent / "spool/vectors/indexes"
ANSWERS = [
    line.split("\t")
    for line in (VECTORS / "answers.tsv").read_text(encoding="utf-8").splitlines()[1:]
]


def test_every_vector_has_an_answer() -> None:
    assert {name for name, _ in ANSWERS} == {path.name for path in VECTORS.glob("*.cdb")}


@pytest.mark.parametrize(("name", "answer"), ANSWERS)
def test_a_vector_is_answered_as_it_should_be(index: Path, name: str, answer: str) -> None:
    (index / "images.0000000001.cdb").write_bytes((VECTORS / name).read_bytes())
    raised = {
        "absent": (NotFound, "no image"),
        "damaged": (Damaged, "^(?!.*newer version)"),
        "newer": (Damaged, "newer version"),
    }
    if answer == "found":
        found = resolve.lookup(index, "docker.io/library/x:1")
        assert (found.id, found.size) == ("0123456789abcdef" * 4, 4096)
    else:
        error, words = raised[answer]
        with pytest.raises(error, match=words):
            resolve.lookup(index, "docker.io/library/x:1")


def test_a_platform_is_looked_up_by_its_own_name_first_then_by_what_it_runs(index: Path) -> None:
    made = {
        "x:1": replace(entry(1), platform="linux/amd64"),
        keys.of_machine("x:1", "linux/arm64"): replace(entry(2), platform="linux/arm64"),
        keys.of_platform("x:1", "linux/amd64/v3"): replace(entry(3), platform="linux/amd64/v3"),
        keys.of_platform("x:1", "linux/arm/v6"): replace(entry(4), platform="linux/arm/v6"),
        "old:1": entry(5),
    }
    publish.publish(index, made, store=STORE, mark=MARK, renew=may)
    for platform, number in (
        *(("", 1), ("linux/amd64", 1), ("linux/amd64/v2", 1), ("linux/amd64/v3", 3)),
        *(("linux/amd64/v4", 1), ("linux/arm64", 2), ("linux/arm64/v9", 2), ("linux/arm/v6", 4)),
    ):
        assert resolve.lookup(index, "x:1", platform).id == entry(number).id
    for platform in ("linux/386", "linux/arm/v7", "linux/riscv64"):
        with pytest.raises(NotFound, match=f"no image 'x:1' for '{platform}'") as caught:
            resolve.lookup(index, "x:1", platform)
        assert caught.value.hint == f"get it with: shifterimg pull --platform {platform} x:1"
    assert resolve.lookup(index, "old:1", "linux/arm64").id == entry(5).id
    with resolve.newest(index) as newest:
        assert newest is not None
        shown = {key for key, _ in newest.entries()}
    assert shown == {"x:1", "x:1 arm64", "x:1 linux/amd64/v3", "x:1 linux/arm/v6", "old:1"}


def test_who_may_not_publish_any_more_publishes_nothing(index: Path) -> None:
    publish.publish(index, {"a:1": entry(1)}, store=STORE, mark=MARK, renew=may)

    def must_not() -> None:
        raise PermissionError

    with pytest.raises(PermissionError):
        publish.publish(index, {"a:1": entry(2)}, store=STORE, mark=MARK, renew=must_not)
    assert resolve.generations(index) == [1]


def test_a_fence_between_reading_and_publishing_makes_the_publisher_ask_again(index: Path) -> None:
    publish.publish(index, {"a:1": entry(1)}, store=STORE, mark=MARK, renew=may)
    asked = []

    def buried_meanwhile() -> None:
        # The first time we may: then others bury us, before we publish.
        asked.append(resolve.generations(index)[0])
        if len(asked) == 1:
            assert publish.fence(index, store=STORE, mark="host.2.def") == 2
        else:
            raise PermissionError

    with pytest.raises(PermissionError):
        publish.publish(index, {"a:1": entry(2)}, store=STORE, mark=MARK, renew=buried_meanwhile)
    assert asked == [1, 2]
    assert resolve.lookup(index, "a:1").id == entry(1).id


def test_a_fence_keeps_every_name(index: Path) -> None:
    assert publish.fence(index, store=STORE, mark=MARK) == 1
    publish.publish(index, {"a:1": entry(1)}, store=STORE, mark=MARK, renew=may)
    assert publish.fence(index, store=STORE, mark=MARK) == 3
    assert resolve.lookup(index, "a:1").id == entry(1).id


def put(index: Path, name: str) -> None:
    publish.publish(index, {name: entry(len(name))}, store=STORE, mark=MARK, renew=may)


def test_a_slow_publishers_names_are_not_lost_below_the_newest(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_KEEP_BYTES", 1)
    others = iter(range(7))

    def slow() -> None:
        # While it is stopped here, others publish, and remove what it is about to make.
        for number in others:
            put(index, f"other:{number}")

    done = publish.publish(index, {"mine:1": entry()}, store=STORE, mark="slow.1.a", renew=slow)
    assert done.generation == max(resolve.generations(index))
    assert resolve.lookup(index, "mine:1")
    assert resolve.lookup(index, "other:6")


def test_a_slow_fence_is_above_all_that_is_published(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_KEEP_BYTES", 1)
    put(index, "other:0")
    others = iter(range(1, 8))
    made = durable.publish

    def slow(data: bytes, target: Path, owner: str, mode: int) -> None:
        for number in others:
            put(index, f"other:{number}")
        made(data, target, owner, mode)

    monkeypatch.setattr(durable, "publish", slow)
    assert publish.fence(index, store=STORE, mark="slow.1.a") == max(resolve.generations(index))
    assert resolve.lookup(index, "other:7")
