"""Files are opened as their reader could, archives are read where they lie, and images found."""

import gzip
import os
import random
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shifter_lite.build.local import access, gunzip, source, squashfs
from shifter_lite.build.local.access import File, Read
from shifter_lite.build.local.files import Archive, Directory
from shifter_lite.build.local.gunzip import Gunzipped
from shifter_lite.build.local.wanted import Offer, Wanted
from shifter_lite.build.manifest import Descriptor
from shifter_lite.errors import BadImage, Denied, NotFound, ShifterError
from shifter_lite.reference import Reference
from tests.helpers import images, stored, users

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root reads for others")
# Nobody has it, and it owns what a test gives it.
STRANGER, OTHER = 4_000_001, 4_000_002
NAME = Reference.parse("demo:1")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory on a path that everybody can go."""
    with users.directory(users.ourselves()) as path:
        path.chmod(0o755)
        yield path


@contextmanager
def file_of(data: bytes) -> Iterator[str]:
    """Yield the name of a file that holds DATA, for a while."""
    with NamedTemporaryFile(dir="/tmp", buffering=0) as file:
        file.write(data)
        yield file.name


def open_file(path: Path | str, uid: int = os.geteuid()) -> File:
    with access.walk(str(path), uid) as found:
        return found.file()


def content(file: File | Gunzipped, start: int = 0, size: int = 1000) -> bytes:
    return everything(file.reader(start), size)


def everything(read: Read, size: int = 100) -> bytes:
    """Return what READ gives until its end, SIZE bytes at a time."""
    return b"".join(iter(lambda: read(size), b""))


# ---------------------------------------------------------------------------------- whose files


@needs_root
@pytest.mark.parametrize(
    ("owner", "mode", "opened"),
    [
        (STRANGER, 0o600, True),
        (STRANGER, 0o000, True),
        (OTHER, 0o644, True),
        (OTHER, 0o640, False),
        (OTHER, 0o604, False),
        (OTHER, 0o711, False),
        (0, 0o600, False),
        (0, 0o044, True),
    ],
)
def test_a_file_is_read_only_for_its_owner_or_if_everybody_may(
    place: Path, owner: int, mode: int, opened: bool
) -> None:
    path = place / "file"
    path.write_bytes(b"content")
    os.chown(path, owner, owner)
    path.chmod(mode)
    if opened:
        assert content(open_file(path, STRANGER)) == b"content"
        return
    with pytest.raises(Denied, match="is another user's, and not everybody may read it"):
        open_file(path, STRANGER)


@needs_root
@pytest.mark.parametrize(
    ("owner", "mode", "entered"),
    [
        (STRANGER, 0o700, True),
        (OTHER, 0o755, True),
        (OTHER, 0o711, True),
        (OTHER, 0o710, False),
        (OTHER, 0o701, False),
        (OTHER, 0o766, False),
    ],
)
def test_a_directory_is_entered_only_for_its_owner_or_if_everybody_may(
    place: Path, owner: int, mode: int, entered: bool
) -> None:
    (place / "d/e").mkdir(parents=True)
    (place / "d/e/file").write_bytes(b"content")
    os.chown(place / "d", owner, owner)
    (place / "d").chmod(mode)
    if entered:
        assert content(open_file(place / "d/e/file", STRANGER)) == b"content"
        return
    for name in ("d/e/file", "d/e/missing", "d/missing"):
        with pytest.raises(Denied, match="not everybody may enter it"):
            open_file(place / name, STRANGER)


@needs_root
def test_the_directories_of_a_layout_are_judged_like_any(place: Path) -> None:
    layout = stored.written(place / "layout", stored.files({"": _image()}))
    blobs = layout / "blobs"
    os.chown(blobs, OTHER, OTHER)
    blobs.chmod(0o700)
    with (
        source.opened(str(layout), 0, "", NAME) as ours,
        access.walk(str(layout), STRANGER) as theirs,
    ):
        assert isinstance(ours.manifest("linux/amd64").digest, str)
        with pytest.raises(Denied), Directory(theirs).open("blobs/sha256/x"):
            pass


def test_links_are_followed_nowhere(place: Path) -> None:
    (place / "real").mkdir()
    (place / "real/file").write_bytes(b"content")
    (place / "directory").symlink_to("real")
    (place / "file").symlink_to("real/file")
    (place / "dangling").symlink_to("nowhere")
    for name in ("directory/file", "file", "dangling", "directory"):
        with pytest.raises(BadImage, match="symbolic link"):
            open_file(place / name)
    with pytest.raises(BadImage, match="is not a plain file"):
        open_file(place / "real")
    with pytest.raises(BadImage, match="is not a directory"):
        open_file(place / "real/file/below")
    with pytest.raises(NotFound, match="there is no file"):
        open_file(place / "real/missing")
    with pytest.raises(NotFound, match="there is no file"):
        open_file(place / ("n" * 300))


def test_what_is_no_plain_file_is_never_opened(place: Path) -> None:
    os.mkfifo(place / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(place / "socket"))
    for path in (place / "fifo", place / "socket", Path("/dev/null"), Path("/dev/zero")):
        with pytest.raises(BadImage, match="is not a plain file"):
            open_file(path)


@needs_root
def test_a_device_of_the_strangers_own_is_never_opened(place: Path) -> None:
    # Nothing answers for this number: opening it would say so.
    os.mknod(place / "device", 0o666 | stat.S_IFCHR, os.makedev(250, 250))
    with pytest.raises(BadImage, match="is not a plain file"):
        open_file(place / "device", STRANGER)


def test_a_file_that_changes_while_it_is_read_is_refused(place: Path) -> None:
    def rewrite(path: Path) -> None:
        path.write_bytes(b"other")
        os.utime(path, ns=(1, 1))

    changes: list[Callable[[Path], object]] = [
        rewrite,
        lambda path: os.truncate(path, 3),
        lambda path: path.write_bytes(b"longer than it was before"),
        lambda path: path.chmod(0o600),
    ]
    for change in changes:
        path = place / "file"
        path.write_bytes(b"01234567")
        os.utime(path, ns=(5, 5))
        path.chmod(0o644)
        file = open_file(path)
        read = file.reader()
        assert read(2) == b"01"
        change(path)
        with pytest.raises(BadImage, match="changed while it was read"):
            everything(read, 4)
        file.close()


def test_a_file_that_is_replaced_is_read_as_it_was(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"old")
    file = open_file(path)
    (place / "new").write_bytes(b"new")
    (place / "new").rename(path)
    read = file.reader()
    assert read(10) == b"old"
    file.close()


def test_a_file_of_holes_is_refused_and_one_with_some_is_not(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"content")
    os.truncate(path, 1 << 40)
    with pytest.raises(BadImage, match="bytes of holes"):
        open_file(path)
    os.truncate(path, 1 << 29)
    open_file(path).close()


# ---------------------------------------------------------------------------------- names


@needs_root
def test_on_a_store_of_many_a_user_may_take_only_names_of_his_own() -> None:
    uid = 1  # Debian's "daemon"
    source.check_name(Reference.parse("localhost/daemon/tool:1"), uid)
    for name in (
        "tool:1",
        "localhost/root/tool",
        "localhost/daemonx/tool",
        "localhost:5000/daemon/x",
    ):
        with pytest.raises(Denied, match="may not take the name") as caught:
            source.check_name(Reference.parse(name), uid)
        assert "localhost/daemon/NAME:TAG" in caught.value.hint
    with pytest.raises(Denied, match="knows no user"):
        source.check_name(Reference.parse("localhost/daemon/tool:1"), STRANGER)
    source.check_name(Reference.parse("debian:12"), 0)


def offers(*each: tuple[tuple[str, ...], str]) -> list[Offer]:
    return [Offer(names, digest, {}) for names, digest in each]


@pytest.mark.parametrize(
    ("ref", "name", "there", "found"),
    [
        # The only one is meant, whatever it is called.
        ("", "x", [(("a",), "1")], ["1"]),
        ("", "x", [((), "1")], ["1"]),
        ("", "x", [(("a",), "1"), (("b",), "1")], ["1", "1"]),
        # Else the one that is called so, as it stands there or as docker would read it.
        ("", "debian:12", [(("docker.io/library/debian:12",), "1"), (("a",), "2")], ["1"]),
        ("", "debian:12", [(("debian:12", "z"), "1"), (("a",), "2")], ["1"]),
        ("12", "x", [(("12",), "1"), (("11",), "2")], ["1"]),
        ("sha256:2", "x", [(("12",), "sha256:1"), ((), "sha256:2")], ["sha256:2"]),
        # Several of one name are for several platforms.
        ("m", "x", [(("m",), "1"), (("m",), "2"), (("n",), "3")], ["1", "2"]),
        ("", "x", [((), "1"), ((), "2")], ["1", "2"]),
        ("z", "x", [(("a",), "1")], None),
        ("", "x", [(("a",), "1"), (("b",), "2")], None),
        ("", "x", [], None),
    ],
)
def test_which_of_several_images_is_meant(
    ref: str, name: str, there: list[tuple[tuple[str, ...], str]], found: list[str] | None
) -> None:
    wanted = Wanted(ref, Reference.parse(name))
    if found is not None:
        assert [offer.digest for offer in wanted.among(offers(*there))] == found
        return
    with pytest.raises(NotFound) as caught:
        wanted.among(offers(*there))
    assert all(repr(names[0]) in caught.value.hint for names, _ in there)


def test_a_hint_does_not_list_thousands_of_names() -> None:
    many = offers(*(((f"name{n}" * 100,), str(n)) for n in range(5000)))
    with pytest.raises(NotFound) as caught:
        Wanted("", NAME).among(many)
    assert len(caught.value.hint) < 2000


# ---------------------------------------------------------------------------------- archives


def _image() -> images.Image:
    return images.image([images.layer([images.file("x", b"x")])])


def archive(place: Path, *members: images.Entry | bytes) -> Archive:
    path = place / "archive.tar"
    path.write_bytes(images.tar(members))
    return Archive(open_file(path), str(path))


def member(archive: Archive, name: str, start: int = 0) -> bytes:
    with archive.open(name, start) as content:
        data = everything(content.read)
        assert len(data) == content.size - start
        return data


def test_members_of_an_archive_are_found_by_any_spelling_and_the_last_counts(place: Path) -> None:
    long = "d" * 90 + "/" + "f" * 90
    found = archive(
        place,
        images.file("./a", b"first"),
        images.file("b//./c", b"c" * 5000),
        images.file(long, b"long"),
        images.file("/a", b"last"),
        images.file(b"\xff\n", b"odd"),
    )
    assert member(found, "a") == b"last"
    assert member(found, "b/c") == b"c" * 5000
    assert member(found, "b/c", 4990) == b"c" * 10
    assert member(found, "b/c", 5000) == b""
    assert member(found, long) == b"long"
    assert member(found, "\udcff\n") == b"odd"
    assert found.holds("a")
    assert not found.holds("missing")


def test_links_lead_to_members_of_the_archive_only(place: Path) -> None:
    found = archive(
        place,
        images.file("a/layer.tar", b"data"),
        images.symlink("b/layer.tar", "../a/layer.tar"),
        images.symlink("c", "./b/layer.tar"),
        images.hardlink("d", "./a/layer.tar"),
        images.symlink("out", "../a/layer.tar"),
        images.symlink("far/out", "../../../etc/passwd"),
        images.symlink("absolute", "/a/layer.tar"),
        images.symlink("loop", "loop"),
        images.symlink("dangling", "nothing"),
        images.directory("directory"),
        images.fifo("fifo"),
    )
    for name in ("b/layer.tar", "c", "d"):
        assert member(found, name) == b"data"
    for name, reason in {
        "out": "leads out of it",
        "far/out": "leads out of it",
        "absolute": "not as a plain file",
        "loop": "not as a plain file",
        "dangling": "has no file 'dangling'",
        "directory": "not as a plain file",
        "fifo": "not as a plain file",
        "missing": "has no file 'missing'",
    }.items():
        with pytest.raises(BadImage, match=reason):
            member(found, name)


def test_an_archive_with_a_name_that_leads_out_of_it_is_refused(place: Path) -> None:
    for name in ("../x", "a/../../x", "a/..", "/../x"):
        with pytest.raises(BadImage, match="leads out of it"):
            archive(place, images.file(name, b"x"))


def test_a_cut_archive_is_refused_wherever_it_is_cut(place: Path) -> None:
    data = images.tar([images.file("a", b"a" * 700), images.file("b", b"b" * 100)])
    path = place / "cut.tar"
    # Without its end it is complete; with half a block it is not.
    for size in range(len(data) - 1024 - 1, 0, -13):
        path.write_bytes(data[:size])
        if size in (512 + 1024, len(data) - 1024):
            continue
        with pytest.raises(BadImage, match="cut off"):
            Archive(open_file(path), str(path))


def test_sparse_members_are_refused_not_misread(place: Path) -> None:
    header = images.patch(images.member(images.file("s", b"d" * 512)), 156, b"S")
    header = images.patch(header, 386, b"%011o\0%011o\0" % (0, 512))
    found = archive(place, images.patch(header, 483, b"%011o\0" % 512))
    with pytest.raises(BadImage, match="not as a plain file"):
        member(found, "s")


def test_an_archive_of_very_many_members_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shifter_lite.build.local.files._MOST_MEMBERS", 10)
    with pytest.raises(BadImage, match="more than 10 members"):
        archive(place, *(images.file(str(n)) for n in range(11)))
    archive(place, *(images.file(str(n)) for n in range(10)))


def test_an_archive_with_names_that_no_file_can_have_is_refused(place: Path) -> None:
    archive(place, images.file("n" * 4096))
    for member in (images.file("n" * 4097), images.symlink("x", "n" * 4097)):
        with pytest.raises(BadImage, match="a name of more than 4096 bytes"):
            archive(place, member)


def test_reading_an_archive_reads_nothing_but_headers_of_large_members(place: Path) -> None:
    path = place / "large.tar"
    big = images.file("big", b"")
    header = bytearray(images.member(big))
    data = images.patch(bytes(header), 124, b"%011o\0" % (1 << 29))
    with path.open("wb") as file:
        file.write(data)
        file.seek((1 << 29) + 512)
        file.write(images.tar([images.file("after", b"after")]))
    opened = open_file(path)
    asked = 0
    plain = opened.reader

    def counting(start: int = 0) -> Read:
        read = plain(start)

        def count(size: int) -> bytes:
            nonlocal asked
            data = read(size)
            asked += len(data)
            return data

        return count

    opened.reader = counting  # type: ignore[method-assign]
    found = Archive(opened, str(path))
    assert asked < 100_000
    assert member(found, "after") == b"after"


# ---------------------------------------------------------------------------------- gzip


def gunzipped(place: Path, data: bytes) -> Gunzipped:
    path = place / "data.gz"
    path.write_bytes(data)
    return Gunzipped(open_file(path))


@pytest.mark.parametrize("spacing", [1, 100_000, 1 << 30])
def test_a_gzip_file_is_read_from_anywhere(
    place: Path, monkeypatch: pytest.MonkeyPatch, spacing: int
) -> None:
    monkeypatch.setattr(gunzip, "_SPACING", spacing)
    chance = random.Random(1)
    # Some that inflates a lot, some that does not, in several members, padded as on a tape.
    parts = [bytes(3_000_000), chance.randbytes(500_000), b"", b"ab" * 700_000]
    whole = b"".join(parts)
    file = gunzipped(place, b"".join(map(gzip.compress, parts)) + bytes(1000))
    assert b"".join(file.pieces()) == whole
    for at in [0, 1, len(whole) - 1, len(whole), *(chance.randrange(len(whole)) for _ in range(9))]:
        assert whole.startswith(file.reader(at)(70_000), at)
        assert content(file, at, 1 << 20) == whole[at:]


@given(st.binary(max_size=2000), st.integers(0, 2100), st.integers(1, 64))
def test_any_bytes_come_back_from_any_point(data: bytes, start: int, size: int) -> None:
    with file_of(gzip.compress(data)) as path:
        file = Gunzipped(open_file(path))
        assert b"".join(file.pieces()) == data
        assert content(file, start, size) == data[start:]


def test_damaged_gzip_data_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = gzip.compress(random.Random(2).randbytes(100_000))
    for broken, reason in {
        data[:-1]: "cut off",
        data[:1000]: "cut off",
        data[:5]: "cut off",
        data[:5000] + b"\0" + data[5001:]: "damaged",
        data[:-8] + bytes(8): "damaged",
        data + b"garbage": "something follows",
        data + data[:100]: "cut off",
    }.items():
        with pytest.raises(BadImage, match=reason):
            b"".join(gunzipped(place, broken).pieces())
    monkeypatch.setattr(gunzip, "_LARGEST", 1 << 20)
    with pytest.raises(BadImage, match="inflates to more than"):
        b"".join(gunzipped(place, gzip.compress(bytes(1 << 22))).pieces())


# ---------------------------------------------------------------------------------- squashfs


SUPERBLOCK = struct.Struct("<4s4I6H8Q")
ABSENT = (1 << 64) - 1
GOOD = {
    **{"magic": b"hsqs", "inodes": 1, "made": 0, "block_size": 131072, "fragments": 0},
    **{"compressor": 6, "log": 17, "flags": 0, "ids": 1, "major": 4, "minor": 0},
    **{"root": 0, "used": 300, "id_table": 250, "xattrs": ABSENT},
    **{"inode_table": 96, "directories": 150, "fragment_table": 200, "exports": ABSENT},
}


def squash(place: Path, size: int = 4096, **changed: Any) -> squashfs.Squashfs:
    path = place / "file.squashfs"
    head = SUPERBLOCK.pack(*{**GOOD, **changed}.values())
    path.write_bytes(head + random.Random(3).randbytes(size - len(head)))
    return squashfs.Squashfs(open_file(path))


@pytest.mark.parametrize("compressor", [1, 3, 4, 5, 6])
@pytest.mark.parametrize("log", [12, 17, 20])
def test_squashfs_files_that_can_be_mounted_are_taken(
    place: Path, compressor: int, log: int
) -> None:
    assert squash(place, compressor=compressor, log=log, block_size=1 << log).size == 300


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"magic": b"sqsh"}, "big-endian"),
        ({"major": 3}, "of version 3.0, not 4.0"),
        ({"minor": 1}, "of version 4.1, not 4.0"),
        ({"compressor": 0}, "compressor has the number 0"),
        ({"compressor": 2}, "compressor has the number 2; known are gzip, lzo, xz, lz4, zstd"),
        ({"compressor": 7}, "compressor has the number 7"),
        ({"log": 11, "block_size": 2048}, "blocks of 2048 bytes"),
        ({"log": 21, "block_size": 1 << 21}, "blocks of 2097152 bytes"),
        ({"log": 16}, "blocks of 131072 bytes, or 2 to the 16"),
        ({"log": 65535, "block_size": 0}, "blocks of 0 bytes"),
        ({"inodes": 0}, "no root directory"),
        ({"ids": 0}, "no root directory"),
        ({"used": 4097}, "has 4096 bytes, and says that it uses 4097"),
        ({"used": 96}, "says that it uses 96"),
        ({"used": ABSENT}, "says that it uses"),
        ({"inode_table": ABSENT}, "lacks a table"),
        ({"directories": ABSENT}, "lacks a table"),
        ({"id_table": ABSENT}, "lacks a table"),
        ({"inode_table": 95}, "outside of it, or in disorder"),
        ({"inode_table": 151}, "outside of it, or in disorder"),
        ({"fragment_table": 149}, "outside of it, or in disorder"),
        ({"exports": 199}, "outside of it, or in disorder"),
        ({"id_table": 300}, "outside of it, or in disorder"),
        ({"xattrs": 249}, "outside of it, or in disorder"),
        ({"xattrs": 300}, "outside of it, or in disorder"),
        ({"root": 54 << 16}, "root directory lies outside"),
        ({"root": ABSENT}, "root directory lies outside"),
    ],
)
def test_a_squashfs_with_an_odd_superblock_is_refused(
    place: Path, changed: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BadImage, match=reason):
        squash(place, **changed)


def test_a_cut_superblock_is_refused(place: Path) -> None:
    path = place / "short"
    for size in (4, 95, 96):
        path.write_bytes(SUPERBLOCK.pack(*GOOD.values())[:size])
        with pytest.raises(BadImage, match="no proper squashfs"):
            squashfs.Squashfs(open_file(path))


def test_a_squashfs_that_changes_between_its_two_readings_is_refused(place: Path) -> None:
    found = squash(place)
    manifest = found.manifest("")
    assert len(b"".join(found.pieces(manifest, lambda _: None))) == 300
    path = place / "file.squashfs"
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadImage, match="changed while it was read"):
        b"".join(found.pieces(manifest, lambda _: None))
    # As where times and sizes do not tell.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    other = squashfs.Squashfs(open_file(path))
    with pytest.raises(BadImage, match="changed while it was read"):
        b"".join(other.pieces(manifest, lambda _: None))


# ---------------------------------------------------------------------------------- everything


@given(st.binary(max_size=3000))
def test_any_bytes_at_all_are_refused_with_a_reason(data: bytes) -> None:
    for magic in (b"", b"hsqs", b"\x1f\x8b\x08"):
        with file_of(magic + data) as path, pytest.raises(ShifterError):
            digest_in(path)


def digest_in(path: str) -> str:
    """Return the digest of the image at PATH, whose config was read."""
    with source.opened(path, os.geteuid(), "", NAME) as found:
        manifest = found.manifest("linux/amd64")
        assert not isinstance(found, squashfs.Squashfs)
        assert found.config(manifest).config.env == ()
        return manifest.digest


@given(st.data())
def test_an_archive_with_any_byte_changed_is_right_or_refused(data: st.DataObject) -> None:
    image = _image()
    whole = bytearray(
        images.tar([images.file(*each) for each in stored.files({"": image}).items()])
    )
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= data.draw(st.integers(1, 255))
    with file_of(bytes(whole)) as path, suppress(BadImage, NotFound):
        assert digest_in(path) == image.digest


def test_a_blob_is_read_from_where_it_is_asked_for_until_it_is_given_up(place: Path) -> None:
    image = _image()
    path = stored.packed(place / "oci.tar", stored.files({"": image}))
    (layer,) = image.content["layers"]
    descriptor = Descriptor(layer["mediaType"], layer["digest"], layer["size"])
    data = image.blobs[layer["digest"]]
    with source.opened(str(path), os.geteuid(), "", NAME) as it:
        assert not isinstance(it, squashfs.Squashfs)
        for start in (0, 1, len(data)):
            with it.blob(descriptor, start) as read:
                assert everything(read, 7) == data[start:]
        with it.blob(descriptor) as read:
            it.abort()
            with pytest.raises(ShifterError, match="given up"):
                read(1)
