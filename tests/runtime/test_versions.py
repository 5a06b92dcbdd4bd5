"""The server answers every kernel from 4.18 on in that kernel's words, and completely."""

from __future__ import annotations

import errno
import random
import socket
import struct
from pathlib import Path

import pytest

from tests.runtime import kernel, rawsquash
from tests.runtime.kernel import serving

BLOCK = 1 << 17
WORD = rawsquash.PLAIN | BLOCK


@pytest.fixture(scope="session")
def server(built: Path) -> Path:
    """The server, with checks of memory."""
    return built / "obj/serve_at"


@pytest.fixture(scope="session")
def image(base: Path) -> Path:
    """An image of a directory of some length."""
    names = [b"name-%d" % number for number in range(3000)]
    return rawsquash.write(base / "directory.squashfs", {}, names)


@pytest.fixture(scope="session")
def blocks(base: Path) -> Path:
    """An image of a file of five blocks, and of one whose third block is damaged."""
    noise = random.Random(1).randbytes(5 * BLOCK)
    good = rawsquash.File(5 * BLOCK, [WORD] * 5, noise)
    bad = rawsquash.File(5 * BLOCK, [WORD, WORD, BLOCK, WORD, WORD], noise)
    return rawsquash.write(base / "blocks.squashfs", {"good": good, "bad": bad})


@pytest.mark.parametrize("minor", [23, 24, 25, 26, 27])
def test_kernels_that_know_no_way_without_opening_can_open(
    server: Path, image: Path, minor: int
) -> None:
    with serving(server, image) as connection:
        agreed = connection.begin(minor, kernel.FLAGS_OF_4_18 & ~kernel.NO_OPEN_SUPPORT)
        assert agreed.flags & ~kernel.FLAGS_OF_4_18 == 0
        assert (agreed.length, agreed.major, agreed.max_pages) == (64, 7, 0)
        many = connection.look_up("many")
        for opcode in (kernel.OPENDIR, kernel.OPEN):
            error, answer = connection.ask(opcode, many, bytes(8))
            assert (error, len(answer)) == (0, 16)
        assert len(connection.list_all(many)) == 3002
        for opcode in (kernel.RELEASEDIR, kernel.RELEASE):
            assert connection.ask(opcode, many, bytes(24)) == (0, b"")


def test_linux_4_18_opens_directories_and_no_files(server: Path, image: Path) -> None:
    with serving(server, image) as connection:
        connection.begin(27, kernel.FLAGS_OF_4_18)
        assert connection.ask(kernel.OPENDIR, 1, bytes(8))[0] == 0
        assert connection.ask(kernel.OPEN, 1, bytes(8))[0] == errno.ENOSYS


def test_kernels_that_can_do_without_opening_do_without(server: Path, image: Path) -> None:
    with serving(server, image) as connection:
        assert connection.begin(29).flags & kernel.NO_OPENDIR_SUPPORT
        assert connection.ask(kernel.OPENDIR, 1, bytes(8))[0] == errno.ENOSYS
        assert connection.ask(kernel.OPEN, 1, bytes(8))[0] == errno.ENOSYS


def test_only_what_was_offered_is_taken(server: Path, image: Path) -> None:
    chance = random.Random(9)
    for flags in (0, kernel.MAX_PAGES, *(chance.randrange(1 << 30) for _ in range(20))):
        with serving(server, image) as connection:
            agreed = connection.begin(38, flags)
            assert agreed.flags & ~flags == 0
            assert (agreed.max_pages > 0) == bool(flags & kernel.MAX_PAGES)


@pytest.mark.parametrize(("minor", "length"), [(4, 8), (5, 24), (22, 24), (23, 64), (45, 64)])
def test_the_first_answer_is_as_long_as_the_kernel_knows_it(
    server: Path, image: Path, minor: int, length: int
) -> None:
    with serving(server, image) as connection:
        assert connection.begin(minor).length == length


def test_a_kernel_of_another_age_is_told_ours(server: Path, image: Path) -> None:
    with serving(server, image) as connection:
        assert (connection.begin(major=8).length, connection.begin().major) == (8, 7)
    with serving(server, image) as connection:
        body = struct.pack("<IIII", 6, 1, 0, 0)
        assert connection.ask(kernel.INIT, 1, body)[0] == errno.EPROTO


@pytest.mark.parametrize("flags", [0, kernel.FLAGS_OF_TODAY])
def test_what_is_not_known_is_answered_once_and_well(server: Path, image: Path, flags: int) -> None:
    # What old kernels hand to the caller must be an errno of the call that he made.
    special = {kernel.IOCTL: errno.ENOTTY}
    with serving(server, image, kind=socket.SOCK_SEQPACKET) as connection:
        connection.begin(27, flags)
        for opcode in sorted({*range(6, 60), 4096} - kernel.SILENT - {kernel.INIT}):
            error, _ = connection.ask(opcode, 1, bytes(128))
            assert error in {0, special.get(opcode, errno.ENOSYS), errno.EIO, errno.EINVAL}, opcode
        for opcode in sorted(kernel.SILENT):
            connection.tell(opcode, 1, bytes(64))
            assert connection.attributes(1).number > 0


@pytest.mark.parametrize("page", [4096, 16384, 65536])
@pytest.mark.parametrize("flags", [kernel.FLAGS_OF_4_18, kernel.FLAGS_OF_TODAY])
def test_all_that_a_kernel_may_ask_at_once_is_answered_whole(
    server: Path, tmp_path: Path, page: int, flags: int
) -> None:
    size = 16 << 20
    noise = random.Random(10).randbytes(size)
    file = rawsquash.File(size, [WORD] * (size // BLOCK), noise)
    image = rawsquash.write(tmp_path / "image", {"file": file})
    with serving(server, image, page=page) as connection:
        # Without an agreement it is 32 pages.
        most = (connection.begin(38, flags).max_pages or 32) * page
        node = connection.look_up("file")
        for length in (most, most - page, page, 1 << 20):
            assert connection.read(node, 4096, length) == noise[4096 : 4096 + length]
        assert connection.read(node, size - page, most) == noise[-page:]
        assert connection.read(node, 0, size) == noise


def test_a_reply_is_whole_or_an_error(server: Path, blocks: Path) -> None:
    noise = random.Random(1).randbytes(5 * BLOCK)
    with serving(server, blocks) as connection:
        connection.begin()
        good, bad = connection.look_up("good"), connection.look_up("bad")
        assert connection.read(good, 1000, 5 * BLOCK) == noise[1000:]
        # A short reply would be the file's end to the kernel, and the rest zero.
        assert connection.error_of_reading(bad, 0, 5 * BLOCK) == errno.EIO
        assert connection.read(bad, 0, 2 * BLOCK) == noise[: 2 * BLOCK]
        assert connection.read(bad, 3 * BLOCK, 2 * BLOCK) == noise[3 * BLOCK :]
