"""Files with holes have them in a container, too."""

from __future__ import annotations

import itertools
import random
from functools import partial
from pathlib import Path

import pytest

from tests.runtime import rawsquash
from tests.runtime.kernel import Kernel, serving


@pytest.fixture(scope="session")
def server(built: Path) -> Path:
    """The server, with checks of memory."""
    return built / "obj/serve_at"


def look(connection: Kernel, node: int, end: int) -> None:
    """Read before END, and seek it, where no other data is."""
    for at in range(500):
        connection.read(node, end - 1000 * at, 256)
        assert connection.seek(node, at * 4096, 3) == end


def test_the_end_of_a_huge_file_is_reached_once_and_then_known(
    server: Path, tmp_path: Path
) -> None:
    # 16 GiB of blocks of 4 KiB, as a foreign writer might have cut them.
    size, count = 4096, 1 << 22
    words = [0] * count
    words[-1] = rawsquash.PLAIN | size
    huge = rawsquash.File(count * size, words, b"h" * size, (count - 1) * size)
    few = rawsquash.File(1000 * size, [0] * 999 + [rawsquash.PLAIN | size], b"f" * size, 999 * size)
    image = rawsquash.write(tmp_path / "image", {"huge": huge, "few": few}, block_log=12)
    with serving(server, image) as connection:
        connection.begin()
        spent = {}
        for name, end in (("few", 999 * size), ("huge", (count - 1) * size)):
            node = connection.look_up(name)
            assert connection.read(node, end, size) == name[0].encode() * size
            spent[name] = connection.cheapest(partial(look, connection, node, end))
    assert spent["huge"] < 20 * spent["few"]


def sparse(chance: random.Random, size: int, tail: int) -> tuple[rawsquash.File, bytes]:
    """Return a file of blocks of SIZE, some of them holes, and what it contains."""
    count = chance.randrange(1, 60)
    held = [chance.random() < 0.4 for _ in range(count)]
    whole = count * size - tail
    pieces = [
        chance.randbytes(min(size, whole - at * size)) if is_held else b""
        for at, is_held in enumerate(held)
    ]
    lengths = [min(size, whole - at * size) for at in range(count)]
    content = b"".join(
        piece or bytes(length) for piece, length in zip(pieces, lengths, strict=True)
    )
    holes = sum(length for piece, length in zip(pieces, lengths, strict=True) if not piece)
    words = [rawsquash.PLAIN | len(piece) if piece else 0 for piece in pieces]
    return rawsquash.File(whole, words, b"".join(pieces), holes), content


def expected_seek(content: bytes, held: list[bool], size: int, at: int, hole: bool) -> int | None:
    if at >= len(content):
        return None
    number = at // size
    while number < len(held) and held[number] == hole:
        number += 1
    if number < len(held):
        return max(at, number * size)
    return len(content) if hole else None


def test_holes_are_found_by_those_who_seek_them(server: Path, tmp_path: Path) -> None:
    chance = random.Random(8)
    for round_ in range(20):
        size = 4096
        file, content = sparse(chance, size, chance.choice([0, 1, 1000, 4095]))
        image = rawsquash.write(tmp_path / f"{round_}", {"file": file}, block_log=12)
        held = [word != 0 for word in file.words]
        with serving(server, image) as connection:
            connection.begin()
            node = connection.look_up("file")
            assert connection.attributes(node).blocks == (file.size - file.holes + 511) // 512
            assert connection.read(node, 0, 1 << 20) == content
            for _ in range(50):
                at = chance.randrange(len(content) + size)
                for whence, hole in ((3, False), (4, True)):
                    wanted = expected_seek(content, held, size, at, hole)
                    assert connection.seek(node, at, whence) == wanted


def test_holes_are_skipped_in_files_of_any_size(server: Path, tmp_path: Path) -> None:
    size, count = 4096, 200_000
    words = [0] * count
    for at in (0, 1, 5000, 150_000, count - 1):
        words[at] = rawsquash.PLAIN | size
    for at in range(20_000, 90_000):
        words[at] = rawsquash.PLAIN | 1  # nobody reads these
    file = rawsquash.File(count * size, words, bytes(5 * size + 70_000))
    image = rawsquash.write(tmp_path / "image", {"file": file}, block_log=12)
    edges = [at for at in range(1, count) if (words[at] == 0) != (words[at - 1] == 0)]
    with serving(server, image) as connection:
        connection.begin()
        node = connection.look_up("file")
        for _ in range(2):
            at, found = 0, []
            for whence in itertools.cycle((4, 3)):
                at = connection.seek(node, at, whence) or 0
                if at in (0, count * size):
                    break
                found.append(at // size)
            assert found == edges
