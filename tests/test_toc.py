"""A table of contents is what was written, or it is not used."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from shifter_lite.build import tar, toc
from shifter_lite.build.inflate import inflate
from shifter_lite.build.tar import Member
from tests.corpus.every import CASES
from tests.helpers import images, raw

_DIGEST, _DIFF_ID = (f"sha256:{each * 64}" for each in "12")
_ARCHIVE = images.tar(
    [
        images.file("f", b"data" * 300, xattrs={"user.a": "1", "user.b": "2"}),
        images.directory("d", mode=0o1777, mtime=-5),
        images.symlink("d/s", "target" * 50),
        images.hardlink("l", "f"),
        raw.sparse_old("h", [(4096 * n, b"x" * n) for n in range(1, 40)], 200_000),
    ]
)


def _members() -> list[Member]:
    return list(tar.members(tar.Stream(iter([_ARCHIVE]))))


def _read(path: Path) -> list[Member]:
    with path.open("rb") as file:
        return list(toc.read(file))


def _diff_id(path: Path, digest: str) -> str | None:
    with path.open("rb") as file:
        return toc.diff_id(file, digest)


def _write(path: Path, members: list[Member]) -> bytes:
    with toc.writing(path.with_name(".t"), path, _DIGEST) as table:
        for member in members:
            table.put(member)
        table.diff_id = _DIFF_ID
    return path.read_bytes()


def test_it_holds_all_that_the_headers_of_the_corpus_say(tmp_path: Path) -> None:
    layers = [layer for case in CASES if case.tree is not None for layer in case.layers]
    for number, layer in enumerate(layers[::7]):
        path = tmp_path / f"{number}"
        members = list(tar.members(tar.Stream(inflate(iter([layer.blob])))))
        _write(path, members)
        assert _read(path) == members


@settings(max_examples=1000, deadline=None)
@given(st.data())
def test_one_that_has_changed_is_not_used(data: st.DataObject) -> None:
    with TemporaryDirectory() as place:
        path = Path(place, "t")
        whole = _write(path, _members())
        at = data.draw(st.integers(0, len(whole) - 1))
        length = data.draw(st.integers(0, len(whole) - at))
        new = data.draw(st.one_of(st.just(bytes(length)), st.binary(max_size=40)))
        spoilt = whole[:at] + new + whole[at + length :]
        path.write_bytes(spoilt)
        if _diff_id(path, _DIGEST) is not None:
            assert spoilt == whole


def test_one_of_another_blob_and_one_that_is_missing_are_not_used(tmp_path: Path) -> None:
    _write(tmp_path / "t", _members())
    assert _diff_id(tmp_path / "t", _DIGEST) == _DIFF_ID
    assert _diff_id(tmp_path / "t", _DIFF_ID) is None
    assert toc.opened(tmp_path / "none") is None
    assert _read(tmp_path / "t") == _members()
