"""Nothing whose length an image or a registry chooses costs more than its length."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

from shifter_lite.build import challenge, merge, pax, tar, toc
from shifter_lite.build.first import First
from shifter_lite.build.inflate import inflate
from shifter_lite.build.local.access import walk
from shifter_lite.build.local.gunzip import Gunzipped
from shifter_lite.config import Policy
from shifter_lite.errors import BadImage
from tests.helpers import images, raw

# What grows by its square grows sixteenfold where its length grows fourfold.
_LONGER, _MOST = 4, 10


def _seconds(work: Callable[[], object]) -> float:
    """Return what WORK costs, in seconds of a processor; the least of three times."""

    def once() -> float:
        begun = time.process_time()
        work()
        return time.process_time() - begun

    return min(once() for _ in range(3))


def _sparse(count: int) -> Callable[[], object]:
    member = tar.Member(
        b"f", tar.FILE, 0o644, 0, 2 * count, 0, b"", count, tuple((2 * n, 1) for n in range(count))
    )
    return lambda: toc.Table(BytesIO()).put(member)


def _attributes(count: int) -> Callable[[], object]:
    xattrs = tuple((b"user.%d" % n, b"v") for n in range(count))
    member = tar.Member(b"f", tar.FILE, 0o644, 0, 0, 0, b"", 0, (), xattrs)
    return lambda: toc.Table(BytesIO()).put(member)


def _map(count: int) -> Callable[[], object]:
    data = b"".join(raw.record("GNU.sparse.offset", str(n)) for n in range(count))
    return lambda: pax.records(data)


def _name(*parts: bytes) -> Callable[[int], Callable[[], object]]:
    before, repeated, after = parts
    return lambda count: lambda: First().rank(before + repeated * count + after)


def _blanks(count: int) -> Callable[[], object]:
    return lambda: challenge.read(f'Bearer realm="https://x/t"{" " * count}!')


@pytest.mark.parametrize(
    ("work", "count"),
    [
        pytest.param(_sparse, 20_000, id="segments of a sparse file"),
        pytest.param(_attributes, 20_000, id="extended attributes of a file"),
        pytest.param(_map, 20_000, id="records of a sparse file's map"),
        pytest.param(_name(b"lib/", b"-linux-", b"/"), 4_000, id="a name like a library's place"),
        pytest.param(_name(b"lib/ld-", b".so", b"/"), 4_000, id="a name like a loader's"),
        pytest.param(_name(b"lib/libc.so", b".so", b"/"), 40_000, id="a name like a library's"),
        pytest.param(_blanks, 2_000, id="blanks in a challenge"),
    ],
)
def test_four_times_as_much_costs_no_more_than_four_times_as_much(
    work: Callable[[int], Callable[[], object]], count: int
) -> None:
    short, long = work(count), work(_LONGER * count)
    assert _seconds(long) < _MOST * max(_seconds(short), 0.002)


_MEMBERS = b"".join(gzip.compress(b"%d" % n, mtime=0) for n in range(20_000))


def _pieces(size: int) -> Iterator[bytes]:
    return (_MEMBERS[at : at + size] for at in range(0, len(_MEMBERS), size))


def test_a_small_gzip_member_costs_the_same_whatever_comes_with_it() -> None:
    """It is so with eStargz, each file of which is a member of its own."""

    def inflated(size: int) -> Callable[[], object]:
        return lambda: sum(map(len, inflate(_pieces(size))))

    assert inflated(len(_MEMBERS))() == sum(len(b"%d" % n) for n in range(20_000))
    assert _seconds(inflated(len(_MEMBERS))) < 3 * _seconds(inflated(1 << 14))


def test_a_small_gzip_member_of_an_import_costs_little_more_than_inflating_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "members.gz"
    path.write_bytes(_MEMBERS)
    file = walk(str(path), os.getuid()).file()
    alone = _seconds(lambda: [gzip.decompress(gzip.compress(b"1")) for _ in range(20_000)])
    try:
        assert _seconds(lambda: list(Gunzipped(file).pieces())) < alone
    finally:
        file.close()


def test_small_gzip_members_are_handed_on_together() -> None:
    pieces = list(inflate(_pieces(1 << 18)))
    assert len(pieces) <= 1 + len(_MEMBERS) // (1 << 18) + 1


def test_symbolic_links_are_not_followed_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "_MOST_FOLLOWED_BY_ALL", 10_000)
    links = [images.symlink(f"l{n}", f"l{n + 1}") for n in range(50)]
    entries = [*links, images.directory("l50"), *(images.file(f"l0/f{n}") for n in range(20))]
    members = list(tar.members(tar.Stream(iter([images.tar(entries)]))))
    with pytest.raises(BadImage, match="too many entries below symbolic links"):
        merge.Tree(Policy()).apply(lambda: members)
