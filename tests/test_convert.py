"""Layers become an image in one pass, whose bytes follow from nothing but the layers."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shifter_lite import steps
from shifter_lite.build import blobs, convert, squashfs, tar, toc
from shifter_lite.build.manifest import Descriptor
from shifter_lite.build.press import BLOCK
from shifter_lite.build.tree import walk
from shifter_lite.build.zstd import Compressor
from shifter_lite.config import Limits, Policy, Site
from shifter_lite.errors import BadImage, Damaged, RegistryBusy
from shifter_lite.layout import Layout
from tests.conftest import Runner
from tests.helpers import faulty, images
from tests.helpers.processes import running, until

COMPRESSIONS: tuple[images.Compression, ...] = ("gzip", "zstd", "none")
SITE = Site(system="test", platform="linux/amd64", state_dir="/nowhere")


class Source:
    """Gives blobs out of memory, and remembers from where on it was asked."""

    def __init__(self, layers: Sequence[images.Layer]) -> None:
        self.blobs = {images.sha256(layer.blob): layer.blob for layer in layers}
        self.asked: list[tuple[str, int]] = []
        self.aborted = False

    @contextmanager
    def blob(self, descriptor: Descriptor, start: int = 0) -> Iterator[Callable[[int], bytes]]:
        self.asked.append((descriptor.digest, start))
        yield BytesIO(self.blobs[descriptor.digest][start:]).read

    def sample(self, descriptor: Descriptor, start: int, size: int) -> bytes:
        return self.blobs[descriptor.digest][start : start + size]

    def abort(self) -> None:
        self.aborted = True


def build(
    layers: Sequence[images.Layer],
    place: Path,
    *,
    site: Site = SITE,
    source: Source | None = None,
) -> bytes:
    """Return the squashfs that LAYERS become, with the cache of blobs in PLACE."""
    return built(layers, place, site=site, source=source)[1]


def built(
    layers: Sequence[images.Layer],
    place: Path,
    *,
    site: Site = SITE,
    source: Source | None = None,
    lock: blobs.Lock = lambda _: nullcontext(),
    progress: blobs.Progress = lambda _: None,
) -> tuple[convert.Converted, bytes]:
    descriptors = [
        Descriptor(images.OCI_LAYER, images.sha256(layer.blob), len(layer.blob)) for layer in layers
    ]
    cache, path = place / "cache", place / "image"
    cache.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    compressor = Compressor(3)
    with (
        path.open("x+b", buffering=0) as file,
        blobs.fetching(
            descriptors,
            source or Source(layers),
            cache,
            "host.1.abc",
            lock,
            progress,
            4,
        ) as coming,
    ):
        diff_ids = [layer.diff_id for layer in layers]
        made = convert.convert(coming, diff_ids, file, compressor, site, "host.1.abc")
        squashfs.write(file, made.end, made.tree, made.contents, compressor)
    assert not list(cache.rglob(".*"))
    return made, path.read_bytes()


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


# --------------------------------------------------------------------- what is deleted is gone


@pytest.mark.parametrize("size", [3000, BLOCK - 1, BLOCK, 3 * BLOCK + 17])
def test_what_a_later_layer_deletes_is_nowhere_in_the_image(size: int, tmp_path: Path) -> None:
    secret, rest = noise(size, 1), noise(40 * BLOCK, 2)
    lower = images.layer(
        [
            images.file("before", noise(500, 3)),
            images.file("secret", secret),
            images.file("after", noise(500, 4)),
            images.file("rest", rest),
        ]
    )
    assert secret[:200] in build([lower], tmp_path)
    image = build([lower, images.layer([images.whiteout("secret")])], tmp_path)
    assert secret[:200] not in image
    assert noise(500, 3) in image
    assert noise(500, 4) in image
    assert rest[:1000] in image


def test_what_another_file_still_has_is_not_deleted(tmp_path: Path) -> None:
    small, large, rest = noise(3000, 1), noise(2 * BLOCK, 2), noise(40 * BLOCK, 3)
    lower = images.layer(
        [
            images.file("a", small),
            images.file("b", large),
            images.file("c", small),
            images.file("d", large),
            images.file("rest", rest),
        ]
    )
    image = build([lower, images.layer([images.whiteout("a"), images.whiteout("b")])], tmp_path)
    assert small in image
    assert large[:1000] in image


def test_an_image_of_which_much_was_deleted_is_no_larger_than_what_is_left(tmp_path: Path) -> None:
    kept = images.file("kept", noise(BLOCK, 2))
    lower = images.layer([images.file("gone", noise(20 * BLOCK, 1)), kept])
    image = build([lower, images.layer([images.whiteout("gone")])], tmp_path)
    assert len(image) < 2 * BLOCK
    # And is what it would be if it had never been there.
    assert image == build([images.layer([kept])], tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 30])
def test_what_held_only_deleted_files_is_not_counted(kept: int, tmp_path: Path) -> None:
    # unsquashfs takes an image with more fragments than inodes for a damaged one.
    files = [images.file(f"{n:02}", noise(100_000, n)) for n in range(60)]
    gone = [images.whiteout(f"{n:02}") for n in range(60) if n < 59 - kept or n == 59]
    layers = [images.layer(files), images.layer(gone)]
    image = build(layers, tmp_path)
    inodes, fragments = struct.unpack_from("<4xI8xI", image)
    assert fragments == kept
    assert inodes == 5 + kept
    for n in range(59 - kept, 59):
        assert noise(100_000, n) in image
    assert noise(100_000, 59)[:200] not in image


def test_a_layer_that_changes_only_owners_and_modes_costs_nothing(tmp_path: Path) -> None:
    files = [images.file(f"f{number}", noise(BLOCK + number, number)) for number in range(9)]
    once = build([images.layer(files)], tmp_path)
    owned = [replace(each, uid=7, mode=0o755) for each in files]
    twice = build([images.layer(files), images.layer(owned)], tmp_path)
    assert len(twice) < len(once) + 4096


# ------------------------------------------------------------------------------ the same bytes


def test_cached_layers_become_the_same_bytes_as_fresh_ones(tmp_path: Path) -> None:
    layers = [
        images.layer(
            [images.file(f"{n}/{m}", noise(n * 5000 + m, m)) for m in range(9)], compression
        )
        for n, compression in enumerate(COMPRESSIONS)
    ]
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    fresh = build(layers, tmp_path / "one")
    source = Source(layers)
    assert build(layers, tmp_path / "one", source=source) == fresh
    assert source.asked == []
    # Two of them from the cache, with and without their tables.
    build(layers[:2], tmp_path / "two")
    next((tmp_path / "two/cache").rglob("*.toc")).unlink()
    assert build(layers, tmp_path / "two") == fresh


def test_the_same_layer_twice_is_read_twice_and_stored_once(tmp_path: Path) -> None:
    layer = images.layer([images.file("f", noise(3 * BLOCK))])
    once, source = build([layer], tmp_path), Source([layer])
    assert len(build([layer] * 3, tmp_path, source=source)) == len(once)
    assert source.asked == []


# -------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(entries=2), "more than 2 entries"),
        (Limits(bytes=100_000), "more than 100000 bytes"),
        (Limits(file_bytes=99_999), "more than 99999 bytes in 'large'"),
    ],
)
def test_what_exceeds_a_limit_is_refused_by_the_limits_name(
    limits: Limits, words: str, tmp_path: Path
) -> None:
    layer = images.layer(
        [images.file("a", b"a"), images.file("large", bytes(100_000)), images.file("b", b"b")]
    )
    with pytest.raises(BadImage, match=words) as caught:
        build([layer], tmp_path, site=replace(SITE, limits=limits))
    assert "layer 1" in str(caught.value)
    assert "limits." in caught.value.hint


def test_a_bomb_is_refused_before_it_has_gone_off(tmp_path: Path) -> None:
    bomb = images.packed(bytes(200 << 20))
    assert len(bomb.blob) < 1 << 20
    limits = Limits(bytes=1 << 20)
    with pytest.raises(BadImage, match="bytes uncompressed"):
        build(
            [images.Layer(blob=bomb.blob, compression="gzip", diff_id=bomb.diff_id)],
            tmp_path,
            site=replace(SITE, limits=limits),
        )


def test_entries_of_all_layers_count_together(tmp_path: Path) -> None:
    layers = [images.layer([images.file(f"{n}", b"x")]) for n in range(3)]
    with pytest.raises(BadImage, match=r"layer 3 .*more than 2 entries"):
        build(layers, tmp_path, site=replace(SITE, limits=Limits(entries=2)))


@pytest.mark.parametrize(
    "entry",
    [
        lambda n: images.symlink(f"{n}", "t" * 4000),
        lambda n: images.file(f"{n}/{'d' * 250}/{'d' * 250}/{'d' * 250}/{'d' * 250}"),
        lambda n: images.file(f"{n}", xattrs={"user.x": "v" * 4000}),
    ],
)
def test_what_is_held_in_memory_is_limited_in_bytes_whatever_it_is(
    entry: Callable[[int], images.Entry], tmp_path: Path
) -> None:
    site = replace(SITE, limits=Limits(tree_bytes=1 << 18), policy=Policy(user_xattrs=True))
    build([images.layer([entry(n) for n in range(50)])], tmp_path, site=site)
    with pytest.raises(BadImage, match="more than 262144 bytes of names") as caught:
        build([images.layer([entry(n) for n in range(100)])], tmp_path, site=site)
    assert "limits.tree_bytes" in caught.value.hint


# -------------------------------------------------------------------------------------- policy


def test_modes_are_kept_on_request_but_never_setuid(tmp_path: Path) -> None:
    layer = images.layer(
        [
            images.file("f", mode=0o4710),
            images.directory("d", mode=0o2700),
            images.file("z", mode=0),
        ]
    )
    site = replace(SITE, policy=Policy(readable=False))
    made, _ = built([layer], tmp_path, site=site)
    modes = {name: oct(node.mode) for name, node in made.tree.root.children.items()}
    assert (modes[b"f"], modes[b"d"], modes[b"z"]) == ("0o710", "0o700", "0o0")


def test_mount_points_are_made_where_nothing_is(tmp_path: Path) -> None:
    layer = images.layer(
        [
            images.file("scratch"),
            images.symlink("projects", "data/projects"),
            images.directory("data", mode=0o700),
            images.symlink("loop", "loop"),
        ]
    )
    points = ("/scratch", "/projects/x", "/new/deep/er", "/loop/y")
    site = replace(SITE, policy=Policy(baked_mount_points=points))
    with pytest.raises(BadImage, match="too many symbolic links"):
        built([layer], tmp_path, site=site)
    made, _ = built(
        [layer], tmp_path, site=replace(SITE, policy=Policy(baked_mount_points=points[:3]))
    )
    names = {path: type(node).__name__ for path, node in walk(made.tree.root)}
    assert names[b"scratch"] == "File"
    assert names[b"data/projects/x"] == names[b"new/deep/er"] == "Directory"


# --------------------------------------------------------------------------------------- cache


def test_a_damaged_blob_in_the_cache_is_dropped_and_named(tmp_path: Path) -> None:
    layers = [images.layer([images.file("f", noise(100_000))])]
    build(layers, tmp_path)
    (path,) = (
        path for path in (tmp_path / "cache").rglob("*") if not path.suffix and path.is_file()
    )
    data = bytearray(path.read_bytes())
    data[50_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged, match="damaged and is dropped"):
        build(layers, tmp_path)
    assert not [each for each in (tmp_path / "cache").rglob("*") if each.is_file()]
    build(layers, tmp_path)


def test_a_part_is_continued_and_a_wrong_part_is_begun_anew(tmp_path: Path) -> None:
    layer = images.layer([images.file("f", noise(500_000))])
    fresh = build([layer], tmp_path)
    (path,) = (
        path for path in (tmp_path / "cache").rglob("*") if not path.suffix and path.is_file()
    )
    blob = path.read_bytes()
    part = path.with_suffix(".part")
    for begun, starts in (
        (blob[:200_000], [200_000]),
        (blob, []),
        (blob + b"x", [0]),
        (bytes(len(blob)), [0]),
        (b"", [0]),
    ):
        path.unlink()
        part.write_bytes(begun)
        source = Source([layer])
        assert build([layer], tmp_path, source=source) == fresh
        assert [start for _, start in source.asked] == starts
    path.unlink()
    part.write_bytes(bytes(200_000))
    with pytest.raises(Damaged, match=r"unfinished layer .* was damaged"):
        build([layer], tmp_path)
    assert build([layer], tmp_path) == fresh


def test_the_first_layer_that_fails_ends_the_others(tmp_path: Path) -> None:
    layers = [images.layer([images.file(f"{n}", noise(300_000, n))]) for n in range(4)]
    source = Source(layers)
    source.blobs[images.sha256(layers[3].blob)] = b"something else"
    with pytest.raises(BadImage, match=r"layer 4 .* fewer than the \d+ bytes"):
        build(layers, tmp_path, source=source)


def test_who_is_aborted_does_not_wait_for_a_silent_registry(tmp_path: Path) -> None:
    layers = [images.layer([images.file(f"{n}", noise(300_000, n))]) for n in range(2)]

    class Silent(Source):
        @contextmanager
        def blob(self, descriptor: Descriptor, start: int = 0) -> Iterator[Callable[[int], bytes]]:
            if descriptor.digest == images.sha256(layers[1].blob):
                raise RegistryBusy("nobody is there")
            yield self._read

        def _read(self, _: int) -> bytes:
            until(lambda: self.aborted)
            raise RegistryBusy("aborted")

    with pytest.raises(RegistryBusy, match="nobody is there"):
        build(layers, tmp_path, source=Silent(layers))


def test_a_pull_that_was_killed_is_continued_where_it_was(
    run: Runner, faulty_registry: faulty.Registry
) -> None:
    image = images.image([images.layer([images.file("f", noise(3_000_000))])])
    digest = image.content["layers"][0]["digest"]
    name = faulty_registry.add("x", "1", image)
    faulty_registry.fault(digest, faulty.Stall(2_000_000))
    with running(run, "shifterimg", "pull", name) as pull:
        until(lambda: any(path.stat().st_size > 1_000_000 for path in run.store.rglob("*.part")))
        pull.send_signal(signal.SIGKILL)
        pull.wait()
    faulty_registry.heal()
    assert run("shifterimg", "pull", name).returncode == 0
    first, second = faulty_registry.asked(digest)
    assert "Range" not in first.headers
    start = int(second.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 1_000_000 < start <= 2_000_000
    assert run("shifter-admin", "verify").returncode == 0
    assert not list(run.store.rglob("*.part"))


def test_a_worker_that_gets_no_further_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "_RATE_SECONDS", 0.3)
    layer = images.layer([images.file("f", noise(300_000))])
    name = images.sha256(layer.blob).removeprefix("sha256:")
    theirs = tmp_path / "cache" / name[:2] / f"{name}.part"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(layer.blob[:100_000])
    _, image = built([layer], tmp_path, lock=lambda _: None)
    assert noise(300_000)[:1000] in image
    assert theirs.read_bytes() == layer.blob[:100_000]


def test_two_pulls_that_share_a_layer_download_it_once(
    run: Runner, faulty_registry: faulty.Registry
) -> None:
    shared = images.layer([images.file("shared", noise(2_000_000))])
    names = [
        faulty_registry.add(
            "x", tag, images.image([shared, images.layer([images.file(tag, b"x")])])
        )
        for tag in ("1", "2")
    ]
    # Made first, so that none of the two waits for the other to make it.
    assert run("shifter-admin", "init", "--private").returncode == 0
    digest = images.sha256(shared.blob)
    faulty_registry.fault(digest, faulty.Stall(1_000_000, 1.0), times=1)
    with running(run, "shifterimg", "pull", names[0]) as one:
        until(lambda: bool(faulty_registry.asked(digest)))
        done = run("shifterimg", "pull", names[1])
        assert done.returncode == 0, done.stderr
        assert one.wait(timeout=60) == 0
    assert len([each for each in faulty_registry.asked(digest) if "Range" not in each.headers]) == 1


def test_a_table_of_contents_holds_all_that_a_header_says(tmp_path: Path) -> None:
    archive = images.tar(
        [
            images.file("f", b"data", xattrs={"user.a": "1", "user.b": "zwei", "trusted.c": "3"}),
            images.symlink("s", "target"),
            images.directory("d", mtime=-5),
        ]
    )
    found = list(tar.members(tar.Stream(iter([archive]))))
    with toc.writing(tmp_path / ".t", tmp_path / "t", "sha256:" + 64 * "0") as table:
        for member in found:
            table.put(member)
        table.diff_id = "sha256:" + 64 * "1"
    with (tmp_path / "t").open("rb") as file:
        assert list(toc.read(file)) == found
        assert toc.diff_id(file, "sha256:" + 64 * "0") == "sha256:" + 64 * "1"
        assert toc.diff_id(file, "sha256:" + 64 * "2") is None


SIZES = st.sampled_from([1, 700, 5000, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 9])
FILES = st.dictionaries(
    st.sampled_from(["a", "b", "c", "bin/sh", "etc/passwd", "usr/lib/libc.so.6", "z"]),
    st.tuples(SIZES, st.integers(0, 3)),
    max_size=7,
)


@pytest.mark.skipif(os.getuid() != 0, reason="unsquashfs gives files to root only as root")
@settings(max_examples=40, deadline=None)
@given(layers=st.lists(st.tuples(FILES, st.sets(st.sampled_from("abcz"))), min_size=1, max_size=4))
def test_what_stays_is_whole_and_what_goes_leaves_nothing(
    layers: list[tuple[dict[str, tuple[int, int]], set[str]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    place = tmp_path_factory.mktemp("keep")
    made, expected, ever = [], dict[str, bytes](), set[bytes]()
    for files, gone in layers:
        data = {name: noise(size, seed * 100_000 + size) for name, (size, seed) in files.items()}
        made.append(
            images.layer(
                [images.whiteout(name) for name in gone]
                + [images.file(name, text) for name, text in data.items()],
                "none",
            )
        )
        expected = {name: text for name, text in expected.items() if name not in gone} | data
        ever |= set(data.values())
    _, image = built(made, place)
    (place / "image").write_bytes(image + bytes(4096))
    subprocess.run(
        ["unsquashfs", "-q", "-n", "-d", place / "tree", place / "image"],
        check=True,
        capture_output=True,
    )
    for name, text in expected.items():
        assert (place / "tree" / name).read_bytes() == text
    # A byte alone is everywhere.
    dead = {text for text in ever - set(expected.values()) if len(text) > 1}
    assert all(text[:500] not in image for text in dead)


# --------------------------------------------------------------------------------- other workers


@pytest.mark.parametrize("when", ["once the layer is found", "once its table is known"])
def test_others_may_evict_a_layer_while_it_is_read(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = [images.layer([images.file("f", noise(300_000))])]
    fresh = build(layers, tmp_path)
    look = toc.diff_id
    evicted: list[str] = []

    def evict(moment: str) -> None:
        if moment == when:
            blobs.evict(tmp_path / "cache", 0)
            evicted.append(moment)

    def looked(file: BinaryIO, digest: str) -> str | None:
        found = look(file, digest)
        evict("once its table is known")
        return found

    monkeypatch.setattr(toc, "diff_id", looked)
    found = built(layers, tmp_path, progress=lambda _: evict("once the layer is found"))
    assert found[1] == fresh
    assert evicted


def test_what_is_wrong_with_an_evicted_layer_is_said_all_the_same(tmp_path: Path) -> None:
    good = images.layer([images.file("f", noise(3_000))])
    bad = replace(good, diff_id="sha256:" + 64 * "0")
    build([good], tmp_path)
    with pytest.raises(BadImage, match="not the diff_id"):
        built([bad], tmp_path, progress=lambda _: blobs.evict(tmp_path / "cache", 0))


def test_a_table_whose_layer_is_gone_is_evicted_and_tables_count(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    layers = [images.layer([images.file(f"f{n}" * 40, b"") for n in range(2000)])]
    build(layers, tmp_path)
    (path,) = (each for each in cache.glob("??/*") if not each.suffix)
    table = path.with_suffix(".toc")
    blobs.evict(cache, path.stat().st_size + table.stat().st_size)
    assert path.exists()
    blobs.evict(cache, path.stat().st_size)
    assert not path.exists()
    table.write_bytes(b"left over")
    blobs.evict(cache, 1 << 30)
    assert not table.exists()


def test_who_gives_up_leaves_another_workers_part_alone(tmp_path: Path) -> None:
    layer = images.layer([images.file("f", b"x")])
    descriptor = Descriptor(images.OCI_LAYER, images.sha256(layer.blob), len(layer.blob))
    with blobs.fetching(
        [descriptor], Source([layer]), tmp_path, "host.1.abc", lambda _: nullcontext(), print, 1
    ) as (blob,):
        blob.check()
    blob.part.write_bytes(b"theirs")
    blob.give_up(lambda _: None)
    assert not blob.path.exists()
    assert blob.part.read_bytes() == b"theirs"
    blob.give_up(lambda _: nullcontext())
    assert not blob.part.exists()


def test_the_lock_of_a_layer_is_free_at_once_whatever_became_of_the_download(
    tmp_path: Path,
) -> None:
    layer = images.layer([images.file("f", b"x")])
    descriptor = Descriptor(images.OCI_LAYER, images.sha256(layer.blob), len(layer.blob))
    wrong = Source([layer])
    wrong.blobs[descriptor.digest] = bytes(descriptor.size)
    worker = SimpleNamespace(name="host.1.abc", census=SimpleNamespace(dead=lambda _: False))
    bench = SimpleNamespace(layout=Layout(tmp_path), worker=worker)
    bench.layout.locks.mkdir(parents=True)
    bench.layout.builds.mkdir()
    lock = partial(steps._lock, cast("steps.Bench", bench))

    def bring(source: Source) -> None:
        with blobs.fetching(
            [descriptor], source, tmp_path, "host.1.abc", lock, lambda _: None, 1
        ) as (blob,):
            assert list(blob.pieces()) == [layer.blob]

    # Held for as long as the error, if by no other means.
    with pytest.raises(BadImage, match="wrong digest") as error:
        bring(wrong)
    taken = lock(descriptor.digest)
    assert taken is not None, error
    with taken:
        with pytest.raises(blobs.Abandoned):
            lock(descriptor.digest)
        (bench.layout.builds / "key.elsewhere.1.abc").touch()
        assert lock(descriptor.digest) is None
    bring(Source([layer]))


# ------------------------------------------------------------------------------------------ bombs


def test_directories_that_no_entry_names_count_as_entries(tmp_path: Path) -> None:
    site = replace(SITE, limits=Limits(entries=1000))
    build([images.layer([images.file("d/" * 900 + "f", b"x")])], tmp_path, site=site)
    with pytest.raises(BadImage, match="more than 1000 directories"):
        build([images.layer([images.file("d/" * 1100 + "f", b"x")])], tmp_path, site=site)


def test_a_path_through_very_long_symbolic_links_is_refused(tmp_path: Path) -> None:
    members = [images.directory("d")]
    members += [images.symlink(f"s{n}", "d/../" * 800 + f"s{n + 1}") for n in range(100)]
    with pytest.raises(BadImage, match="too many symbolic links"):
        build([images.layer([*members, images.file("s0/f", b"x")])], tmp_path)


def test_more_names_of_libraries_than_any_image_has_are_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Path("/bin/sh").read_bytes()
    layer = images.layer([images.file(f"{n}", program + bytes(n)) for n in range(3)])
    made, _ = built([layer], tmp_path)
    assert b"libc.so.6" in made.libraries
    # Equal sets are held once.
    monkeypatch.setattr(convert, "_MOST_NAMES", len(made.libraries))
    assert built([layer], tmp_path)[0].libraries == made.libraries
    monkeypatch.setattr(convert, "_MOST_NAMES", 0)
    assert built([layer], tmp_path)[0].libraries == frozenset()
