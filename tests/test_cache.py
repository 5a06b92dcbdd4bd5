"""The cache of layers: within its limit at all times, and for those who could have fetched them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from shifter_lite.build import blobs, convert, eviction, local
from shifter_lite.build.manifest import Descriptor
from shifter_lite.build.zstd import Compressor
from shifter_lite.errors import BadImage
from tests.conftest import Runner
from tests.helpers import crew, faulty, images, stored
from tests.helpers.hosts import on_host
from tests.helpers.processes import until
from tests.test_convert import SITE, Source, noise

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount, and be several")

_MB = 1_000_000
# The field of a squashfs's superblock that says where it ends.
_USED = 12


def layer(size: int, seed: int = 1) -> images.Layer:
    return images.layer([images.file(f"f{seed}", noise(size, seed))], "none")


def size_of_cache(run: Runner) -> int:
    return eviction.used(run.store / "cache/blobs")


# ---------------------------------------------------------------------------------- its limit


def _lock_of(held: set[str]) -> blobs.Lock:
    """Return what keeps those that have HELD a blob from each other."""

    @contextmanager
    def holding(digest: str) -> Iterator[None]:
        try:
            yield
        finally:
            held.remove(digest)

    def lock(digest: str) -> AbstractContextManager[object] | None:
        if digest in held:
            return None
        held.add(digest)
        return holding(digest)

    return lock


def test_a_pull_keeps_the_cache_within_its_limit_while_layers_come(tmp_path: Path) -> None:
    cache, limit = tmp_path / "cache", 5 * _MB
    cache.mkdir()
    seen = []

    def make(layers: Sequence[images.Layer]) -> None:
        descriptors = [
            Descriptor(images.OCI_LAYER, images.sha256(each.blob), len(each.blob))
            for each in layers
        ]
        with (
            (tmp_path / "image").open("w+b", buffering=0) as file,
            blobs.fetching(
                descriptors,
                Source(layers),
                cache,
                "host.1.abc",
                _lock_of(set()),
                lambda _: seen.append(eviction.used(cache)),
                4,
                limit,
            ) as coming,
        ):
            diff_ids = [each.diff_id for each in layers]
            convert.convert(coming, diff_ids, file, Compressor(3), SITE, "host.1.abc")

    make([layer(2 * _MB, 100 + n) for n in range(2)])
    # One of them twice, and first.
    many = [layer(2 * _MB, n) for n in range(6)]
    make([*many, many[0], many[5]])
    assert max(seen) <= limit
    assert min(seen[-5:]) > 0
    seen.clear()
    # One alone may be larger: then nothing else is there.
    make([layer(2 * _MB, 7), layer(8 * _MB, 8), layer(2 * _MB, 9)])
    assert max(seen) < 9 * _MB


@needs_root
def test_layers_of_images_that_fail_count(run: Runner, faulty_registry: faulty.Registry) -> None:
    small = on_host(run, "host", run.store, config=f"cache_bytes = {2 * _MB}\n")
    for number in range(3):
        wrong = replace(layer(1_500_000, number), diff_id="sha256:" + "0" * 64)
        name = faulty_registry.add("x", f"{number}", images.image([wrong]))
        assert small("shifterimg", "pull", name).returncode == 65
        assert 0 < size_of_cache(run) <= 2 * _MB


def test_unfinished_layers_count_and_go_unless_a_worker_goes_on_with_them(tmp_path: Path) -> None:
    free, held, of_a_worker = (tmp_path / f"{n}{n}" for n in range(3))
    names = ["0" * 64, "1" * 64]
    for place, name in zip((free, held, of_a_worker), (*names, ".x.part.h.1.a"), strict=True):
        place.mkdir()
        (place / (name if name.startswith(".") else f"{name}.part")).write_bytes(bytes(1000))

    def lock(digest: str) -> AbstractContextManager[object] | None:
        return nullcontext() if digest == f"sha256:{names[0]}" else None

    # Not even if it is old, or our clock is wrong.
    os.utime(held / f"{names[1]}.part", (0, 0))
    assert eviction.used(tmp_path) == 3000
    eviction.evict(tmp_path, 2500, lock)
    assert [len(list(place.iterdir())) for place in (free, held, of_a_worker)] == [0, 1, 1]
    eviction.evict(tmp_path, 0, lock)
    assert eviction.used(tmp_path) == 2000


def test_what_cannot_be_removed_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        (tmp_path / "00").mkdir(exist_ok=True)
        (tmp_path / "00" / (name * 64)).write_bytes(bytes(1000))

    def refuse(path: Path, lock: eviction.Lock | None) -> bool:
        if path.name.startswith("a"):
            raise PermissionError(13, "Permission denied", str(path))
        path.unlink()
        return True

    monkeypatch.setattr(eviction, "_drop", refuse)
    eviction.evict(tmp_path, 0)
    assert [path.name[0] for path in tmp_path.glob("*/*")] == ["a"]


def test_a_look_at_what_the_cache_takes_changes_nothing(run: Runner) -> None:
    assert run("shifter-admin", "init", "--private").returncode == 0
    place = run.store / "cache/blobs/00"
    place.mkdir()
    for name, size in (("0" * 64, 1000), ("0" * 64 + ".toc", 100), ("1" * 64 + ".toc", 10)):
        (place / name).write_bytes(bytes(size))
    done = run("shifter-admin", "usage", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"images": 0, "cache": 1110, "cache_limit": 2 << 30}
    assert len(os.listdir(place)) == 3
    assert "at most 2147483648" in run("shifter-admin", "usage").stdout
    eviction.evict(run.store / "cache/blobs", 1 << 30)
    assert len(os.listdir(place)) == 2


@contextmanager
def small_disk(run: Runner, size: str) -> Iterator[None]:
    run.store.mkdir()
    options = f"size={size},uid={run.user.uid},gid={run.user.gid},mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", run.store], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", run.store], check=True)


@needs_root
def test_the_cache_gives_way_where_a_disk_is_full(
    run: Runner, faulty_registry: faulty.Registry, workdir: Path
) -> None:
    failing = [
        images.image([replace(layer(6 * _MB, n), diff_id="sha256:" + "0" * 64)]) for n in range(2)
    ]
    with small_disk(run, "20m"):
        for number, image in enumerate(failing):
            name = faulty_registry.add("bad", f"{number}", image)
            assert run("shifterimg", "pull", name).returncode == 65
        assert size_of_cache(run) > 11 * _MB
        name = faulty_registry.add("x", "1", images.image([layer(3 * _MB, n) for n in range(3)]))
        done = run("shifterimg", "pull", name)
        assert done.returncode == 0, done.stderr
        # Nor does an import fail of it, whose layers would be there a third time.
        path = stored.written(
            workdir / "layout", stored.files({"": images.image([layer(4 * _MB, 9)])})
        )
        done = run("shifterimg", "import", path, "y:1")
        assert done.returncode == 0, done.stderr


# --------------------------------------------------------------------- for whom it has a layer

_SECRET = images.layer([images.file("secret", noise(5000, 77))])
_CLEAN = images.layer([images.whiteout("secret")])


@pytest.fixture
def cached(run: Runner, faulty_registry: faulty.Registry) -> str:
    """The digest of a layer that the cache has, of an image that deletes what is in it."""
    name = faulty_registry.add("victim", "1", images.image([_SECRET, _CLEAN]))
    done = run("shifterimg", "pull", name)
    assert done.returncode == 0, done.stderr
    return images.sha256(_SECRET.blob)


def _stealing() -> images.Image:
    return images.image([_SECRET], settings={"Env": ["A=thief"]})


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (faulty.Answer(404), "has no blob"),
        (faulty.Answer(403), "does not let us read"),
        (faulty.Body(bytes(len(_SECRET.blob))), "wrong digest"),
        (faulty.Body(b"short"), "cut"),
    ],
)
def test_a_cached_layer_is_not_for_a_registry_that_has_it_not(
    run: Runner, cached: str, fault: faulty.Fault, reason: str
) -> None:
    with faulty.serving() as thief:
        name = thief.add("thief", "1", _stealing())
        thief.fault(cached, fault)
        done = run("shifterimg", "pull", name)
    assert done.returncode in (65, 75, 77)
    assert reason in done.stderr
    assert len(list((run.store / "images").rglob("*.squashfs"))) == 1


def test_a_cached_layer_is_not_for_an_import_that_has_it_not(
    run: Runner, cached: str, workdir: Path
) -> None:
    files = stored.files({"": _stealing()})
    for number, blob in enumerate((None, bytes(len(_SECRET.blob)), b"short")):
        named = dict(files)
        del named[stored.blob(cached)]
        if blob is not None:
            named[stored.blob(cached)] = blob
        path = stored.written(workdir / f"{number}", named)
        done = run("shifterimg", "import", path, "thief:1")
        assert done.returncode == 65, done.stdout
    assert len(list((run.store / "images").rglob("*.squashfs"))) == 1


def test_a_cached_layer_is_for_all_that_have_it_and_is_not_brought_again(
    run: Runner, cached: str, workdir: Path
) -> None:
    with faulty.serving() as other:
        name = other.add("other", "1", _stealing())
        assert run("shifterimg", "pull", name).returncode == 0
        (asked,) = other.asked(cached)
    # A few bytes at a place that nobody can foresee.
    first, last = map(int, asked.headers["Range"].removeprefix("bytes=").split("-"))
    assert 0 < first < last < len(_SECRET.blob)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_registry_shows_what_it_has_whether_it_knows_ranges_or_not(
    run: Runner, cached: str, faulty_registry: faulty.Registry, ranges: bool
) -> None:
    faulty_registry.ranges = ranges
    faulty_registry.auth = faulty.Token(uses=1)
    name = faulty_registry.add("again", "1", _stealing())
    inode = [path.stat().st_ino for path in (run.store / "cache/blobs").glob("*/*")]
    done = run("shifterimg", "pull", name)
    assert done.returncode == 0, done.stderr
    # What was there is there still.
    assert [path.stat().st_ino for path in (run.store / "cache/blobs").glob("*/*")] == inode
    assert cached in {f"sha256:{path.name}" for path in (run.store / "cache/blobs").glob("*/*")}


def test_the_first_layer_that_fails_ends_those_that_wait_for_room(tmp_path: Path) -> None:
    layers = [layer(50_000, n) for n in range(8)]
    source = Source(layers)
    source.blobs[images.sha256(layers[0].blob)] = b"cut"
    descriptors = [
        Descriptor(images.OCI_LAYER, images.sha256(each.blob), len(each.blob)) for each in layers
    ]
    with (
        pytest.raises(BadImage),
        blobs.fetching(
            descriptors, source, tmp_path, "host.1.abc", _lock_of(set()), lambda _: None, 4, 1
        ) as coming,
    ):
        b"".join(coming[0].pieces())
    # Only when no thread goes on is anything closed.
    assert all(blob.over for blob in coming)
    assert coming[0]._file is not None
    assert coming[0]._file.closed


def test_errors_tell_no_digest_that_the_requester_did_not(
    run: Runner, cached: str, faulty_registry: faulty.Registry
) -> None:
    wrong = "sha256:" + "0" * 64
    other = noise(len(_SECRET.blob), 5)
    guess = images.image([replace(_SECRET, diff_id=wrong)])
    name = faulty_registry.add("guess", "1", guess)
    done = run("shifterimg", "pull", name)
    assert done.returncode == 65
    assert wrong in done.stderr
    assert _SECRET.diff_id not in done.stderr
    for body in (other, other + b"more", other[:100]):
        with faulty.serving() as elsewhere:
            name = elsewhere.add("guess", "1", images.image([layer(3000, 8)]))
            elsewhere.fault(images.sha256(layer(3000, 8).blob), faulty.Body(body))
            done = run("shifterimg", "pull", name)
        assert done.returncode == 65
        assert images.sha256(body) not in done.stderr
        assert str(len(body)) not in done.stderr


def test_a_sample_is_of_what_cannot_be_guessed(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(bytes(2000) + noise(8000) + bytes(2000))
    with path.open("rb", buffering=0) as file:
        samples = [blobs._sample(file, 12_000)[1] for _ in range(50)]
    assert sum(not any(sample) for sample in samples) == 0
    assert len(set(samples)) > 40


# ------------------------------------------------------------------ who is waited for, and who not


@contextmanager
def three_workers(site: Runner, logs: Path) -> Iterator[None]:
    logs.mkdir()
    with crew.crewed([site], logs, 3) as workers:
        until(lambda: len(os.listdir(site.store / "workers")) >= 3)
        yield
        workers.stop()


@needs_root
@pytest.mark.parametrize("what", ["a layer", "a manifest"])
def test_nobody_waits_for_a_layer_or_an_image_that_comes_slowly_from_elsewhere(
    what: str, site: Runner, asker: Runner, faulty_registry: faulty.Registry, workdir: Path
) -> None:
    shared = images.layer([images.file("shared", noise(200_000))])
    image = images.image([shared])
    digest = images.sha256(shared.blob)
    name = faulty_registry.add("base", "1", image)
    villains = image if what == "a manifest" else images.image([shared], settings={"Env": ["A=b"]})
    with three_workers(site, workdir / "logs"), faulty.serving() as slow:
        theirs = slow.add("slow", "1", villains)
        slow.fault(digest, faulty.Drip(1000))
        assert asker("shifterimg", "pull", "--no-wait", theirs).returncode == 0
        until(lambda: bool(slow.asked(digest)))
        done = asker("shifterimg", "pull", name, timeout=45)
        assert done.returncode == 0, done.stderr
        slow.closing.set()


def test_a_part_that_comes_too_slowly_is_left_to_its_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "_RATE_SECONDS", 0.2)
    one = layer(3000)
    descriptor = Descriptor(images.OCI_LAYER, images.sha256(one.blob), len(one.blob))
    name = descriptor.digest.removeprefix("sha256:")
    theirs = tmp_path / name[:2] / f"{name}.part"
    theirs.parent.mkdir()
    theirs.write_bytes(b"")

    def grow(_: str) -> None:
        with theirs.open("ab") as file:
            file.write(b"rubbish")

    with blobs.fetching(
        [descriptor], Source([one]), tmp_path, "host.1.abc", grow, lambda _: None, 1
    ) as (blob,):
        assert b"".join(blob.pieces()) == one.blob
    assert theirs.exists()
    assert not list(tmp_path.rglob(".*"))


def test_a_download_that_is_given_up_leaves_no_part_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "_RATE_SECONDS", 0.0)
    one = layer(3000)
    wrong = Source([one])
    descriptor = Descriptor(images.OCI_LAYER, images.sha256(one.blob), len(one.blob))
    wrong.blobs[descriptor.digest] = bytes(len(one.blob))
    with (
        pytest.raises(BadImage),
        blobs.fetching(
            [descriptor], wrong, tmp_path, "host.1.abc", lambda _: None, lambda _: None, 1
        ) as (blob,),
        closing(blob),
    ):
        blob.check()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# -------------------------------------------------------------------------------- imported holes


def test_holes_of_an_import_take_no_room_in_the_store(run: Runner, workdir: Path) -> None:
    root, path = workdir / "root", workdir / "image.squashfs"
    root.mkdir()
    (root / "data").write_bytes(noise(300_000))
    subprocess.run(
        ["mksquashfs", root, path, "-quiet", "-no-progress", "-comp", "zstd", "-noD"], check=True
    )
    # As mksquashfs -offset and padding leave them, but in the middle of what it uses.
    data = bytearray(path.read_bytes())
    fields = list(local.squashfs._LAYOUT.unpack_from(data))
    fields[_USED] = 64 << 20
    local.squashfs._LAYOUT.pack_into(data, 0, *fields)
    with path.open("wb") as file:
        file.write(data)
        file.truncate(32 << 20)
        file.seek(40 << 20)
        file.write(b"in the middle of a hole")
        file.truncate(64 << 20)
    path.chmod(0o644)
    assert path.stat().st_blocks < 4096
    done = run("shifterimg", "import", path, "holes:1")
    assert done.returncode == 0, done.stderr
    (image,) = (run.store / "images").rglob("*.squashfs")
    assert image.stat().st_blocks < path.stat().st_blocks + 64
    with image.open("rb") as stored_one, path.open("rb") as file:
        assert stored_one.read(64 << 20) == file.read()
    assert run("shifter-admin", "verify").returncode == 0
