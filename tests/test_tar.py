"""The tar reader understands every dialect, and takes damage for damage."""

import io
import tarfile
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shifter_lite.build import tar
from shifter_lite.build.tar import Member
from shifter_lite.errors import BadImage


def read(data: bytes, piece: int = 1000) -> list[Member]:
    pieces = (data[at : at + piece] for at in range(0, len(data), piece))
    return list(tar.members(tar.Stream(pieces)))


def archive(*members: tarfile.TarInfo, form: int = tarfile.GNU_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as writer:
        for member in members:
            writer.addfile(member, io.BytesIO(bytes(member.size)))
    return file.getvalue()


def info(name: str, **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(member, key, value)
    return member


def spoil(data: bytes, at: int, new: bytes, *, sum_again: bool = True) -> bytes:
    header = bytearray(data[:512])
    header[at : at + len(new)] = new
    if sum_again:
        header[148:156] = b"        "
        header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


names = st.text(
    st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=60
).filter(lambda name: name not in (".", ".."))
paths = st.lists(names, min_size=1, max_size=5).map("/".join)


@given(
    st.lists(
        st.builds(
            info,
            paths,
            size=st.integers(0, 2000),
            mode=st.integers(0, 0o7777),
            mtime=st.integers(0, 1 << 40),
            uid=st.integers(0, (1 << 32) - 1),
        ),
        max_size=6,
    ),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.integers(1, 5000),
)
def test_what_tarfile_writes_is_read_whole(
    members: list[tarfile.TarInfo], form: int, piece: int
) -> None:
    data = archive(*members, form=form)
    found = read(data, piece)
    assert [(m.name.decode(), m.size, m.mode, m.mtime) for m in found] == [
        (m.name, m.size, m.mode, m.mtime) for m in members
    ]
    for member in found:
        assert data[member.offset : member.offset + member.size] == bytes(member.size)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_member_is_told_apart(form: int) -> None:
    kinds = [
        (tarfile.REGTYPE, tar.FILE, ""),
        (tarfile.AREGTYPE, tar.FILE, ""),
        (tarfile.LNKTYPE, tar.LINK, "target"),
        (tarfile.SYMTYPE, tar.SYMLINK, "../target"),
        (tarfile.CHRTYPE, tar.CHARACTER, ""),
        (tarfile.BLKTYPE, tar.BLOCK_DEVICE, ""),
        (tarfile.DIRTYPE, tar.DIRECTORY, ""),
        (tarfile.FIFOTYPE, tar.FIFO, ""),
    ]
    members = [info(f"m{n}", type=kind, linkname=link) for n, (kind, _, link) in enumerate(kinds)]
    found = read(archive(*members, form=form))
    assert [m.type for m in found] == [ours for _, ours, _ in kinds]
    assert [m.link.decode() for m in found] == [link for _, _, link in kinds]


def test_a_ustar_prefix_is_the_beginning_of_the_name() -> None:
    name = "p" * 100 + "/" + "n" * 90
    assert read(archive(info(name), form=tarfile.USTAR_FORMAT))[0].name == name.encode()


def test_gnu_keeps_no_prefix_where_ustar_does() -> None:
    data = spoil(archive(info("name")), 345, b"13371337133\0")
    assert read(data)[0].name == b"name"


def test_an_old_directory_is_a_file_whose_name_ends_with_a_slash() -> None:
    data = spoil(archive(info("name", type=tarfile.AREGTYPE)), 0, b"name/")
    assert read(data)[0].type == tar.DIRECTORY


def test_long_names_of_gnu_are_read_and_the_last_one_wins() -> None:
    def long(name: bytes) -> bytes:
        return spoil(archive(info("././@LongLink", size=512)), 156, b"L")[:512] + name.ljust(
            512, b"\0"
        )

    data = long(b"first") + long(b"x" * 300) + archive(info("short"))
    assert [m.name for m in read(data)] == [b"x" * 300]


def test_a_pax_header_rules_over_the_header_it_precedes() -> None:
    member = info("name", pax_headers={"path": "other", "mtime": "-1.5", "uid": "70000"})
    (found,) = read(archive(member, form=tarfile.PAX_FORMAT))
    assert found.name == b"other"
    assert found.mtime == -2


def test_a_checksum_over_signed_bytes_is_accepted() -> None:
    data = bytearray(archive(info("n\u00e9")))
    header = data[:148] + b"        " + data[156:512]
    signed = sum(byte - 256 if byte > 127 else byte for byte in header)
    data[148:156] = b"%06o\0 " % signed
    assert read(bytes(data))[0].name == "n\u00e9".encode()


def test_an_archive_may_end_with_two_blocks_of_zeros_one_or_none() -> None:
    whole = archive(info("name", size=5))
    for end in (1024, 1536, 2048, len(whole)):
        assert len(read(whole[:end])) == 1
    assert read(b"") == []


def test_what_follows_the_end_is_not_read_as_a_member() -> None:
    whole = archive(info("name"))[: 512 + 1024]
    assert len(read(whole + b"garbage" * 99)) == 1


@given(st.integers(1, 511))
def test_an_archive_cut_in_a_header_is_damaged(cut: int) -> None:
    with pytest.raises(BadImage, match="cut off"):
        read(archive(info("a"), info("b"))[: 512 + cut])


@given(st.integers(0, 599))
def test_an_archive_cut_in_data_is_damaged(cut: int) -> None:
    with pytest.raises(BadImage, match="cut off in 'name'"):
        read(archive(info("name", size=600))[: 512 + cut])


@given(st.integers(600, 1024))
def test_an_archive_may_end_with_the_last_byte_of_data(end: int) -> None:
    (found,) = read(archive(info("name", size=600))[: 512 + end])
    assert found.size == 600


@given(st.integers(0, 511), st.integers(1, 255))
def test_a_header_with_a_byte_changed_is_damaged(at: int, change: int) -> None:
    data = bytearray(archive(info("first"), info("second")))
    before = read(bytes(data))
    data[512 + at] ^= change
    try:
        # Only what stands for the same number in the checksum field may be changed.
        assert read(bytes(data)) == before
        assert 148 <= at < 156
    except BadImage:
        pass


Spoiler = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    ("words", "spoiler"),
    [
        ("negative size", lambda data: spoil(data, 124, b"\xff" * 12)),
        ("bad size", lambda data: spoil(data, 124, b"12x456789ab\0")),
        ("bad uid", lambda data: spoil(data, 108, b"\x80\0\0\x01\0\0\0\0")),
        ("bad gid", lambda data: spoil(data, 116, b"\xff" * 8)),
        ("unknown type: 'Z'", lambda data: spoil(data, 156, b"Z")),
        ("map is not of the data", lambda _: spoil(archive(info("name", size=5)), 156, b"S")),
        ("no proper header", lambda data: spoil(data, 0, b"other", sum_again=False)),
        ("lone block", lambda data: bytes(512) + data),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(words: str, spoiler: Spoiler) -> None:
    with pytest.raises(BadImage, match=words):
        read(spoiler(archive(info("name"), info("next"))))


def pax(body: bytes, kind: bytes = b"x") -> bytes:
    head = spoil(archive(info("pax", size=len(body))), 156, kind)[:512]
    return head + body + bytes(-len(body) % 512)


@pytest.mark.parametrize(
    "body",
    [
        b"12 path=name",
        b"99 path=name\n",
        b"0 path=name\n",
        b"path=name\n",
        b"-12 path=na\n",
        b"13 pathXname\n",
        b"8 =abcd\n",
        b"13 path=na\0e\n",
        b"12 size=abc\n",
        b"29 size=99999999999999999999\n",
        b"11 size=-1\n",
        b"13 mtime=1e9\n",
        b"18 uid=4294967296\n",
        b"22 GNU.sparse.major=1\n",
        b"22 GNU.sparse.map=1,a\n",
        b"22 GNU.sparse.map=1,2\n",
    ],
)
def test_a_malformed_pax_header_is_refused(body: bytes) -> None:
    with pytest.raises(BadImage):
        read(pax(body) + archive(info("name")))


def test_a_global_pax_header_may_hold_a_comment_but_no_name() -> None:
    assert len(read(pax(b"17 comment=hello\n", b"g") + archive(info("name")))) == 1
    with pytest.raises(BadImage, match="global"):
        read(pax(b"12 path=xyz\n", b"g") + archive(info("name")))


def test_an_empty_record_of_pax_leaves_the_headers_own() -> None:
    body = b"8 path=\n" + b"8 size=\n" + b"9 mtime=\n" + b"7 uid=\n"
    (found,) = read(pax(body) + archive(info("name", size=7, mtime=9)))
    assert (found.name, found.size, found.mtime) == (b"name", 7, 9)


def test_only_the_last_of_two_pax_headers_counts_and_gnus_name_beats_it() -> None:
    both = pax(b"12 path=one\n") + pax(b"11 mtime=5\n")
    assert [(m.name, m.mtime) for m in read(both + archive(info("name")))] == [(b"name", 5)]
    long = spoil(archive(info("L", size=3)), 156, b"L")[:512] + b"gnu".ljust(512, b"\0")
    assert read(long + pax(b"12 path=pax\n") + archive(info("name")))[0].name == b"gnu"


@pytest.mark.parametrize("number", [1 << 63, 1 << 90, -(1 << 63) - 1])
def test_a_number_beyond_64_bits_is_refused(number: int) -> None:
    field = bytearray((number % (1 << 96)).to_bytes(12, "big"))
    field[0] |= 0x80
    for at in (124, 136):
        with pytest.raises(BadImage, match="beyond 64 bits"):
            read(spoil(archive(info("name")), at, bytes(field)))


def test_a_sparse_file_of_less_than_nothing_is_refused() -> None:
    with pytest.raises(BadImage, match="negative size"):
        read(spoil(spoil(archive(info("name")), 483, b"\xff" * 12), 156, b"S"))


def test_a_hard_links_data_is_passed_over_and_its_size_alone_means_nothing() -> None:
    link = spoil(archive(info("link", type=tarfile.LNKTYPE, linkname="a")), 124, b"00000001130\0")
    for data in (b"", b"data".ljust(1024, b"\0")):
        found = read(link[:512] + data + archive(info("name")))
        assert [m.name for m in found] == [b"link", b"name"]


def test_an_extension_that_announces_nothing_is_refused() -> None:
    with pytest.raises(BadImage, match="announces"):
        read(pax(b"12 path=xyz\n") + bytes(1024))


def test_an_extended_header_of_a_terabyte_is_refused_at_once() -> None:
    head = spoil(archive(info("pax")), 124, b"\x80\0\0\0\0\0\x01\0\0\0\0\0")
    with pytest.raises(BadImage, match="extended header has"):
        read(spoil(head, 156, b"x"))


@given(st.binary(max_size=3000))
def test_any_bytes_are_an_archive_or_a_bad_image(data: bytes) -> None:
    with suppress(BadImage):
        read(data, 512)


@given(st.lists(st.integers(0, 300), max_size=20), st.integers(1, 100))
def test_a_stream_gives_the_same_bytes_in_whatever_pieces(sizes: list[int], piece: int) -> None:
    data = bytes(n % 251 for n in range(2000))
    stream = tar.Stream(data[at : at + piece] for at in range(0, len(data), piece))
    at = 0
    for number, size in enumerate(sizes):
        left = max(0, min(size, len(data) - at))
        if number % 3 == 0:
            assert stream.read(size) == data[at : at + left]
        elif number % 3 == 1:
            assert b"".join(stream.copy(size)) == data[at : at + left]
        else:
            assert stream.skip(size) == left
        at += left
        assert stream.position == at
