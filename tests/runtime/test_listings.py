"""Large directories and many large files cost no more than they must, and go on anywhere."""

from __future__ import annotations

import itertools
import os
import random
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.runtime import kernel, rawsquash
from tests.runtime.kernel import Kernel, serving
from tests.test_squashfs import write

BLOCK = 1 << 17
NAMES = [b"name-%d-%s" % (number, b"x" * (number % 40)) for number in range(30_000)]
SORTED = sorted(NAMES)


@pytest.fixture(scope="session")
def server(built: Path) -> Path:
    """The server, with checks of memory."""
    return built / "obj/serve_at"


@pytest.fixture(scope="session")
def crowd(base: Path) -> dict[str, Path]:
    """Images of one large directory, with and without an index of it."""
    return {
        kind: rawsquash.write(base / f"crowd-{kind}.squashfs", {}, NAMES, index=kind == "indexed")
        for kind in ("indexed", "plain")
    }


@pytest.fixture(scope="session", params=["indexed", "plain"])
def crowded(request: pytest.FixtureRequest, crowd: dict[str, Path]) -> Path:
    return crowd[request.param]


@pytest.fixture
def listed(server: Path, crowded: Path) -> Iterator[tuple[Kernel, int]]:
    """A connection, and the large directory."""
    with serving(server, crowded) as connection:
        connection.begin()
        yield connection, connection.look_up("many")


def test_every_cookie_fits_into_31_bits(listed: tuple[Kernel, int]) -> None:
    connection, many = listed
    found = connection.list_all(many)
    assert [entry.name for entry in found] == [b".", b"..", *SORTED]
    cookies = [entry.cookie for entry in found]
    assert cookies == sorted(set(cookies))
    assert cookies[0] > 0
    assert cookies[-1] < 1 << 31


def test_a_listing_goes_on_exactly_behind_any_cookie(listed: tuple[Kernel, int]) -> None:
    connection, many = listed
    found = connection.list_all(many)
    follows = {entry.cookie: after for entry, after in itertools.pairwise(found)}
    chosen = random.Random(2).sample(sorted(follows), 600)
    for cookie in (*chosen, *sorted(chosen, reverse=True), found[-2].cookie):
        assert connection.list_some(many, cookie, 512)[0] == follows[cookie]
    assert connection.list_some(many, found[-1].cookie) == []
    assert connection.list_all(many) == found


def test_cookies_hold_where_nothing_was_listed_before(server: Path, crowded: Path) -> None:
    with serving(server, crowded) as connection:
        connection.begin()
        many = connection.look_up("many")
        found = connection.list_all(many)
    follows = {entry.cookie: after for entry, after in itertools.pairwise(found)}
    for cookie in random.Random(3).sample(sorted(follows), 5):
        with serving(server, crowded) as connection:
            connection.begin()
            assert (
                connection.list_some(connection.look_up("many"), cookie, 512)[0] == follows[cookie]
            )


def test_numbers_that_are_no_cookies_lead_to_the_next_entry_or_the_end(
    listed: tuple[Kernel, int],
) -> None:
    connection, many = listed
    found = connection.list_all(many)
    chance = random.Random(4)
    numbers = [chance.randrange(found[-1].cookie) for _ in range(300)]
    for number in numbers:
        expected = next(entry for entry in found if entry.cookie > number)
        assert connection.list_some(many, number, 512)[0] == expected
    for bits in range(31, 65):
        for number in ((1 << bits) - 1, 1 << (bits - 1) | chance.randrange(1 << 20)):
            if number > found[-1].cookie:
                assert connection.list_some(many, number) == []


@pytest.mark.parametrize("kind", ["serve_at", "serve_at_threads"])
def test_many_who_list_at_once_get_each_his_own(built: Path, crowded: Path, kind: str) -> None:
    with serving(built / "obj" / kind, crowded, kind=socket.SOCK_SEQPACKET) as connection:
        connection.begin()
        many = connection.look_up("many")
        found = connection.list_all(many)
        at = {entry.cookie: number for number, entry in enumerate(found)}
        chance = random.Random(5)
        for _ in range(60):
            asked = {}
            for _ in range(24):
                cookie = chance.choice(found[:-1]).cookie
                asked[connection.tell_list(many, cookie)] = cookie
            while asked:
                unique, error, answer = connection.answer()
                first = at[asked.pop(unique)] + 1
                got = kernel.entries(answer)
                assert (error, got) == (0, found[first : first + len(got)])
                assert got


def costs(server: Path, image: Path, size: int) -> int:
    """Return what it costs to list an image's directory, by answers of SIZE bytes."""
    with serving(server, image) as connection:
        connection.begin()
        many = connection.look_up("many")
        return connection.cheapest(lambda: connection.list_all(many, size))


@pytest.mark.parametrize("index", [True, False])
def test_a_listing_costs_by_its_length_and_no_more(
    server: Path, tmp_path: Path, index: bool
) -> None:
    names = [b"some-package-with-a-long-name-%06d" % number for number in range(200_000)]
    images = {
        count: rawsquash.write(tmp_path / f"{count}", {}, names[:count], index=index)
        for count in (20_000, 200_000)
    }
    spent = {count: costs(server, image, 4096) for count, image in images.items()}
    # Ten times as many; what is quadratic costs a hundred times as much.
    assert spent[200_000] < 30 * spent[20_000]


def look(connection: Kernel, directory: int, names: list[bytes]) -> None:
    """Look up NAMES, and others that are missing."""
    for name in names:
        assert connection.look_up(name.decode(), directory) != 0
        assert connection.look_up(name.decode() + "-", directory) == 0


@pytest.mark.parametrize("index", [True, False])
def test_a_name_is_found_as_soon_in_a_large_directory(
    server: Path, tmp_path: Path, index: bool
) -> None:
    names = [b"some-package-with-a-long-name-%06d" % number for number in range(250_000)]
    spent = {}
    for count in (5_000, 250_000):
        image = rawsquash.write(tmp_path / f"{count}", {}, names[:count], index=index)
        with serving(server, image) as connection:
            connection.begin()
            many = connection.look_up("many")
            # The first time it may be learned where names are.
            chosen = random.Random(6).choices(names[:count], k=1000)
            assert connection.look_up(names[count - 1].decode(), many) != 0
            spent[count] = connection.cheapest(partial(look, connection, many, chosen))
    assert spent[250_000] < 4 * spent[5_000]


def by_mksquashfs(place: Path) -> Path:
    """Write an image of the names beneath PLACE."""
    tree = place / "tree"
    (tree / "many").mkdir(parents=True)
    for name in NAMES:
        (tree / "many" / name.decode()).touch()
    options = ("-comp", "zstd", "-no-xattrs", "-quiet", "-no-progress", "-noappend")
    subprocess.run(["mksquashfs", tree, place / "image", *options], check=True)
    return place / "image"


def by_ourselves(place: Path) -> Path:
    """Write an image of the names beneath PLACE as pulls do."""
    write(place / "image", {f"many/{name.decode()}": b"" for name in NAMES})
    return place / "image"


@pytest.mark.parametrize("written", [by_mksquashfs, by_ourselves])
def test_directories_of_all_writers_go_on_anywhere(
    server: Path, tmp_path: Path, written: Callable[[Path], Path]
) -> None:
    image, chance = written(tmp_path), random.Random(11)
    with serving(server, image) as connection:
        connection.begin()
        found = connection.list_all(connection.look_up("many"))
        assert [entry.name for entry in found[2:]] == SORTED
    with serving(server, image) as connection:
        connection.begin()
        many = connection.look_up("many")
        for _ in range(300):
            at = chance.randrange(len(found) - 1)
            assert connection.list_some(many, found[at].cookie, 512)[0] == found[at + 1]
            assert connection.look_up(found[max(at, 2)].name.decode(), many) != 0
            assert connection.look_up(found[at].name.decode() + "-", many) == 0


def test_the_list_of_blocks_is_not_read_anew_for_each_read(server: Path, tmp_path: Path) -> None:
    count = 8192
    hole = rawsquash.File(count * BLOCK, [0] * count, b"", count * BLOCK)
    image = rawsquash.write(tmp_path / "image", {f"{number}": hole for number in range(200)})
    spent = {}
    with serving(server, image) as connection:
        connection.begin()
        nodes = [connection.look_up(f"{number}") for number in range(200)]
        for node in nodes:
            connection.read(node, (count - 1) * BLOCK, 512)
        for several in (1, 200):

            def read(several: int = several) -> None:
                chance = random.Random(7)
                for number in range(500):
                    at = chance.randrange(count * BLOCK)
                    assert not any(connection.read(nodes[number % several], at, 512))

            spent[several] = connection.cheapest(read)
    assert spent[200] < 5 * spent[1]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor has one thread")
def test_a_file_that_cannot_be_read_now_stops_no_other(built: Path, tmp_path: Path) -> None:
    hole = rawsquash.File(100_000 * BLOCK, [0] * 100_000, b"", 100_000 * BLOCK)
    image = rawsquash.write(tmp_path / "image", {f"{number}": hole for number in range(50)})
    # In the midst of the first file's list of blocks; the image has no data before.
    hung = rawsquash.HEAD + 20 * (rawsquash.METADATA + 2)
    kind = socket.SOCK_SEQPACKET
    with serving(built / "obj/serve_at", image, kind=kind, hung=hung) as connection:
        connection.begin()
        nodes = [connection.look_up(f"{number}") for number in range(50)]
        connection.wait_for_threads()
        connection.tell_read(nodes[0], 99_999 * BLOCK, 512)
        for node in nodes[1:]:
            assert connection.read(node, 99_999 * BLOCK, 512) == bytes(512)
