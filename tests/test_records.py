"""What lies on disk reads itself, and trusts nothing."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shifter_lite.errors import BadRequest, Damaged
from shifter_lite.records import Config, Content, Entry, Image, seal, unseal
from shifter_lite.reference import Reference
from shifter_lite.request import Request, Status, is_request_name

STORE = "0123456789abcdef" * 2
DIGEST = "sha256:" + "ab" * 32
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
words = st.lists(text, max_size=5).map(tuple)
configs = st.builds(
    Config,
    env=words,
    entrypoint=words,
    cmd=words,
    workdir=text,
    user=text,
    labels=st.dictionaries(text, text, max_size=3),
)


def request() -> Request:
    return Request.new(store=STORE, image=Reference.parse("debian:12"), platform="linux/amd64")


def write(path: Path, data: bytes, mode: int = 0o640) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def read(path: Path, name: str, now: float | None = None) -> Request:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return Request.read(fd, name=name, store=STORE, now=now or time.time())
    finally:
        os.close(fd)


def test_a_request_is_read_as_it_was_written(tmp_path: Path) -> None:
    asked = request()
    assert is_request_name(asked.name)
    assert read(write(tmp_path / "r", asked.to_bytes()), asked.name) == asked


def test_a_request_that_others_may_write_is_refused(tmp_path: Path) -> None:
    asked = request()
    for mode in (0o660, 0o642):
        with pytest.raises(BadRequest, match="plain file of one owner"):
            read(write(tmp_path / "r", asked.to_bytes(), mode), asked.name)


def test_a_request_with_a_second_link_is_refused(tmp_path: Path) -> None:
    asked = request()
    path = write(tmp_path / "r", asked.to_bytes())
    os.link(path, tmp_path / "s")
    with pytest.raises(BadRequest, match="plain file of one owner"):
        read(path, asked.name)


def test_a_fifo_or_a_directory_is_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "directory").mkdir(mode=0o700)
    for name in ("fifo", "directory"):
        with pytest.raises(BadRequest, match="plain file of one owner"):
            read(tmp_path / name, "x")


def test_a_request_larger_than_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = write(tmp_path / "r", b"")
    os.truncate(path, 1 << 40)
    with pytest.raises(BadRequest, match="larger than 65536 bytes"):
        read(path, "x")


@pytest.mark.parametrize("field", ["store", "name", "uid"])
def test_a_request_that_was_written_for_another_place_is_refused(
    tmp_path: Path, field: str
) -> None:
    asked = request()
    fields = json.loads(asked.to_bytes())
    fields[field] = 4711 if field == "uid" else fields[field][::-1]
    path = write(tmp_path / "r", json.dumps(fields).encode())
    with pytest.raises(BadRequest, match="another spool, name or owner"):
        read(path, asked.name)


@pytest.mark.parametrize("sooner", [-1, 0, 1])
@pytest.mark.parametrize("other", [0, 1])
@pytest.mark.parametrize("width", [1, 10])
def test_a_request_whose_name_says_another_owner_or_time_is_refused(
    tmp_path: Path, sooner: int, other: int, width: int
) -> None:
    # By its name a request is charged to a user, put in order and remembered.
    good = request()
    name = f"{good.time - sooner}-{good.uid + other:0{width}}-{good.name[-16:]}"
    asked = replace(good, name=name)
    path = write(tmp_path / "r", asked.to_bytes())
    if name == good.name:
        assert read(path, name) == asked
        return
    with pytest.raises(BadRequest, match="does not say who asked, and when"):
        read(write(tmp_path / "r", asked.to_bytes()), name)


@pytest.mark.parametrize("seconds", [-8 * 86400, 2 * 3600])
def test_a_request_of_another_time_is_refused(tmp_path: Path, seconds: int) -> None:
    asked = request()
    path = write(tmp_path / "r", asked.to_bytes())
    with pytest.raises(BadRequest, match="of another time"):
        read(path, asked.name, now=asked.time - seconds)


@pytest.mark.parametrize("field", ["v", "store", "name", "uid", "time", "image", "platform"])
@pytest.mark.parametrize("value", [None, [], {}, "x\0", 1e999, True, -1])
def test_a_request_with_a_field_of_another_kind_is_refused(
    tmp_path: Path, field: str, value: object
) -> None:
    asked = request()
    fields = {**json.loads(asked.to_bytes()), field: value}
    with pytest.raises(BadRequest):
        read(write(tmp_path / "r", json.dumps(fields).encode()), asked.name)


@pytest.mark.parametrize("field", ["path", "ref", "v"])
@pytest.mark.parametrize("value", [None, [], {}, 1, True, 3])
def test_an_import_with_a_field_of_another_kind_is_refused(field: str, value: object) -> None:
    fields = json.loads(replace(request(), path="/a/b", ref="r").to_bytes())
    assert Request._parse(json.dumps(fields).encode()).path == "/a/b"
    if (field, value) in (("v", 1), ("v", True)):
        # It would be a pull: a version that is none must not become one.
        value = "1"
    with pytest.raises(BadRequest):
        Request._parse(json.dumps({**fields, field: value}).encode())


def said(fields: dict[str, object] | None = None) -> str:
    """Return what a request says, with other FIELDS, as json writes it by itself."""
    return json.dumps({**json.loads(request().to_bytes()), **(fields or {})})


def test_a_request_may_be_spaced_and_ordered_as_one_likes() -> None:
    fields = json.loads(request().to_bytes())
    backwards = dict(sorted(fields.items(), reverse=True))
    for data in (json.dumps(fields), json.dumps(backwards, indent=4), f"\n{said()}\r\n\t "):
        assert json.loads(Request._parse(data.encode()).to_bytes()) == json.loads(data)


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"]
)
def test_a_request_that_is_not_utf8_is_refused(encoding: str) -> None:
    with pytest.raises(BadRequest, match="not JSON"):
        Request._parse(said().encode(encoding))


@pytest.mark.parametrize("twice", ['"uid":0', '"image":"docker.io/library/debian:12"', '"v":1'])
def test_a_request_that_has_a_field_twice_is_refused(twice: str) -> None:
    with pytest.raises(BadRequest, match="a field stands twice"):
        Request._parse(said().replace("{", f"{{{twice},").encode())


@pytest.mark.parametrize(
    "fields",
    [
        {"path": "/a"},
        {"more": None},
        {"": 0},
        {"ref": ""},
        {"more": float("nan")},
        {"more": [[[]]]},
        {"v": 2, "path": "/a"},
        {"v": 2, "path": "/a", "ref": "", "more": ""},
        {"refresh": True},
        {"v": 3},
        *({"v": 3, "refresh": each} for each in (False, 1, "true", None)),
        {"v": 3, "refresh": True, "path": "/a", "ref": ""},
        {"v": 2, "path": "/a", "ref": "", "refresh": True},
    ],
)
def test_a_request_with_a_field_that_its_version_has_not_is_refused(
    fields: dict[str, object],
) -> None:
    with pytest.raises(BadRequest, match="a field too many, or lacks one"):
        Request._parse(said(fields).encode())


def test_a_request_that_insists_on_its_registry_is_of_a_version_of_its_own() -> None:
    text = said({"v": 3, "refresh": True})
    insisting = Request._parse(text.encode())
    assert insisting.refresh
    assert json.loads(insisting.to_bytes()) == json.loads(text)
    assert not Request._parse(said().encode()).refresh


@pytest.mark.parametrize(
    "fields",
    [
        *({"v": True}, {"v": 1.0}),
        *({"image": "debian"}, {"image": "docker:docker.io/library/debian:12"}),
        {"image": f"docker.io/library/debian:12@{DIGEST}"},
    ],
)
def test_a_request_with_a_value_that_is_not_as_we_write_it_is_refused(
    fields: dict[str, object],
) -> None:
    with pytest.raises(BadRequest, match="not in its normal form"):
        Request._parse(said(fields).encode())


@pytest.mark.parametrize("field", ["uid", "time"])
@pytest.mark.parametrize("value", [True, False, 0.0, -1, 1 << 63, 1e999])
def test_a_request_with_a_number_that_counts_nothing_is_refused(field: str, value: object) -> None:
    with pytest.raises(BadRequest, match="lacks a field"):
        Request._parse(said({field: value}).encode())


@pytest.mark.parametrize("digits", [4300, 5000, 60000])
@pytest.mark.parametrize("field", ["uid", "time", "v", "more"])
def test_a_request_with_a_number_without_end_is_refused(field: str, digits: int) -> None:
    data = said({field: 4711}).replace(": 4711", f": {'9' * digits}")
    with pytest.raises(BadRequest) as refused:
        Request._parse(data.encode())
    assert len(str(refused.value)) < 200


def test_a_name_that_is_too_long_to_be_quoted_is_not() -> None:
    with pytest.raises(BadRequest, match="the image's name has 60000 characters") as refused:
        Request._parse(said({"image": "a" * 60000}).encode())
    assert len(str(refused.value)) < 200


def test_a_request_that_becomes_shorter_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request()
    path = write(tmp_path / "r", asked.to_bytes())
    fstat = os.fstat

    def then_cut(fd: int) -> os.stat_result:
        status = fstat(fd)
        os.truncate(path, 20)
        return status

    monkeypatch.setattr(os, "fstat", then_cut)
    with pytest.raises(BadRequest, match="changed while it was read"):
        read(path, asked.name)


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../../etc/passwd", "1700000000-0", "1700000000-0-0123456789ABCDEF"),
        *("1700000000-0-0123456789abcdef\n", "1700000000-00-0123456789abcdef"),
        *("0000000000-0-0123456789abcdef", "10000000000-0-0123456789abcdef"),
        *("1700000000--1-0123456789abcdef", "1700000000-0-0123456789abcdef.x"),
        "1700000000-0-0123456789abcde\u0660",
    ],
)
def test_names_that_only_look_like_a_requests_are_none(name: str) -> None:
    assert not is_request_name(name)


ODD_PATHS = ["", "a", "./a", "//a", "/a//b", "/a/", "/a/./b", "/a/..", "/..", "/\0", "/\ud800"]


@pytest.mark.parametrize("path", [*ODD_PATHS, "/" + "a" * 4096])
def test_an_import_of_a_path_that_is_not_plain_is_refused(path: str) -> None:
    fields = {**json.loads(replace(request(), path="/a").to_bytes()), "path": path}
    with pytest.raises(BadRequest, match="no proper path"):
        Request._parse(json.dumps(fields).encode())


@given(st.binary(min_size=1, max_size=100).filter(lambda name: not {0, 47} & set(name)))
def test_an_import_of_any_file_name_round_trips(name: bytes) -> None:
    path = "/x" + name.decode(errors="surrogateescape")
    asked = replace(request(), path=path, ref=path)
    assert Request._parse(asked.to_bytes()) == asked
    assert asked.path.encode(errors="surrogateescape") == b"/x" + name


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | text, st.lists).map(lambda value: json.dumps(value).encode())
)
def test_bytes_that_are_no_request_are_refused_and_nothing_else_is_raised(data: bytes) -> None:
    with pytest.raises(BadRequest):
        Request._parse(data)


def test_deeply_nested_json_is_refused() -> None:
    with pytest.raises(BadRequest, match="not JSON"):
        Request._parse(b"[" * 60000)


@given(configs)
def test_an_entry_of_the_index_round_trips_with_any_text(config: Config) -> None:
    entry = Entry(id="cd" * 32, size=4096, digest=DIGEST, time=1, config=config)
    back = Entry.from_bytes(b"key", entry.to_bytes(b"key"))
    # Labels are for people, who read the record; compute nodes have no use for them.
    assert back.config.labels == {}
    assert (back.config.env, back.config.cmd, back.config.entrypoint) == (
        config.env,
        config.cmd,
        config.entrypoint,
    )
    assert (back.config.workdir, back.config.user) == (config.workdir, config.user)
    assert (back.id, back.size, back.digest, back.time) == (entry.id, 4096, DIGEST, 1)


def test_an_entry_under_another_key_is_damaged() -> None:
    value = seal(b"one", [("id", "x")])
    assert unseal(b"one", value) == [("v", "1"), ("id", "x")]
    with pytest.raises(Damaged, match="checksum"):
        unseal(b"two", value)


@given(st.data())
def test_an_entry_with_any_byte_changed_is_damaged(data: st.DataObject) -> None:
    value = bytearray(seal(b"key", [("id", "ab" * 32), ("env", "A=b")]))
    position = data.draw(st.integers(0, len(value) - 1))
    value[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Damaged):
        unseal(b"key", bytes(value))


@given(configs, st.integers(0, 10**18 - 1))
def test_a_record_round_trips_and_equal_images_have_equal_bytes(config: Config, size: int) -> None:
    content = Content(
        digest=DIGEST, platform="linux/amd64", recipe="r", layers=(DIGEST,), config=config
    )
    image = Image(id="ef" * 32, size=size, content=content)
    assert Image.from_bytes(image.to_bytes()) == image
    assert Content.from_bytes(content.to_bytes()) == content


@pytest.mark.parametrize(
    "change",
    [
        *({"digest": "x"}, {"digest": None}, {"platform": 1}, {"recipe": []}, {"layers": "abc"}),
        *({"layers": [1]}, {"layers": {"a": 1}}, {"env": "A=b"}, {"env": [None]}, {"cmd": {}}),
        *({"workdir": "a\0"}, {"user": "\ud800"}, {"labels": []}, {"labels": {"a": {}}}),
    ],
)
def test_a_description_with_a_field_of_another_kind_is_damaged(change: dict[str, object]) -> None:
    config: dict[str, object] = {
        "env": [],
        "entrypoint": [],
        "cmd": [],
        "workdir": "",
        "user": "",
        "labels": {},
    }
    fields: dict[str, object] = {
        "digest": DIGEST,
        "platform": "",
        "recipe": "",
        "layers": [],
        "config": config,
        "v": 1,
    }
    assert Content.from_bytes(json.dumps(fields).encode()).digest == DIGEST
    (config if next(iter(change)) in config else fields).update(change)
    with pytest.raises(Damaged):
        Content.from_bytes(json.dumps(fields).encode())


@pytest.mark.parametrize("size", [True, -1, 10**18, 1.0, "1"])
def test_a_record_with_a_size_that_no_file_has_is_damaged(size: object) -> None:
    content = Content(digest=DIGEST, platform="", recipe="", layers=(), config=Config())
    fields = json.loads(Image(id="ef" * 32, size=1, content=content).to_bytes())
    with pytest.raises(Damaged):
        Image.from_bytes(json.dumps({**fields, "size": size}).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"v":2}', b'{"v":1,"id":"x","size":1}'])
def test_a_damaged_record_says_so(data: bytes) -> None:
    with pytest.raises(Damaged):
        Image.from_bytes(data)
    with pytest.raises(Damaged):
        Content.from_bytes(data)
    with pytest.raises(Damaged):
        Status.from_bytes(data)


@pytest.mark.parametrize("field", ["done", "total", "exit_code"])
@pytest.mark.parametrize("value", [True, -1, 1.0, 10**400, "1"])
def test_a_status_that_counts_what_cannot_be_is_damaged(field: str, value: object) -> None:
    fields = json.loads(Status(state="PULLING").to_bytes())
    with pytest.raises(Damaged):
        Status.from_bytes(json.dumps({**fields, field: value}).encode())


def test_a_status_round_trips() -> None:
    status = Status(state="FAILURE", fact="no", hint="yes", exit_code=66)
    assert Status.from_bytes(status.to_bytes()) == status
    assert status.ended
    assert not Status(state="PULLING").ended
