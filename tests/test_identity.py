"""Users and groups: read from passwd and group, published as one snapshot, and carried on."""

import multiprocessing
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shifter_lite import getent, identity
from shifter_lite.errors import BadConfig, Damaged
from shifter_lite.identity import Group, Snapshot, User
from shifter_lite.index import cdb, publish, resolve
from shifter_lite.records import Config, Entry, seal, unseal

STORE = "0123456789abcdef" * 2
PASSWD = b"""root:x:0:0:root:/root:/bin/bash
# a comment, as the C library takes it

ann:x:1000:100:Ann,,,:/home/ann:/bin/zsh
bob:secret:1001:1001::/home/bob:
ann2:x:1000:100:the number is ann's:/:/bin/sh
"""
GROUP = b"""root:x:0:bob
users:x:100:
bob:x:1001:
project:x:2000:ann,bob,nobody-there,
tape:x:26:ann
video:x:44:
other:x:3000:
"""


def no_fault(text: str) -> None:
    raise AssertionError(text)


def snapshot(passwd: bytes = PASSWD, group: bytes = GROUP, lowest: int = 1000) -> Snapshot:
    made = Snapshot(no_fault, lowest=lowest)
    made.add_users(identity.read_passwd(passwd, "passwd", no_fault))
    made.add_groups(identity.read_group(group, "group", no_fault))
    return made


def fields(entries: dict[bytes, bytes], key: bytes) -> list[tuple[str, str]]:
    return unseal(key, entries[key])[1:]


def test_one_entry_says_all_of_a_user_and_what_his_groups_are_called() -> None:
    assert fields(snapshot().entries(), b"\0u1000") == [
        ("name", "ann"),
        ("gid", "100"),
        ("gecos", "Ann,,,"),
        ("home", "/home/ann"),
        ("shell", "/bin/zsh"),
        ("group", "100=users"),
        ("group", "26=tape"),
        ("group", "2000=project"),
    ]


def test_there_is_no_password_and_no_empty_text() -> None:
    entries = snapshot().entries()
    assert not any(b"secret" in value for value in entries.values())
    assert ("shell", "") not in fields(entries, b"\0u1001")


def test_the_systems_users_and_groups_stay_out_but_for_groups_that_users_are_in() -> None:
    entries = snapshot().entries()
    groups = {b"\0g%d" % gid for gid in (0, 26, 100, 1001, 2000, 3000)}
    assert set(entries) == {b"\0u1000", b"\0u1001", *groups}
    assert b"\0u0" in snapshot(lowest=0).entries()
    assert b"\0g44" in snapshot(lowest=0).entries()


def test_the_order_of_what_is_read_does_not_matter() -> None:
    passwd, group = (b"\n".join(reversed(text.splitlines())) for text in (PASSWD, GROUP))
    passwd = passwd.replace(b"ann2:x:1000:100:the number is ann's:/:/bin/sh\n", b"")
    assert snapshot(passwd, group).entries() == snapshot().entries()


@pytest.mark.parametrize(
    "line",
    [
        b"ann",
        b":x:1:1:::",
        b"ann:x:1:1::/",
        b"ann:x:1:1:::/bin/sh:more",
        b"ann:x::1:::",
        b"ann:x:one:1:::",
        b"ann:x:-1:1:::",
        b"ann:x:4294967295:1:::",
        b"ann:x:1:4294967295:::",
        b"+::::::",
        b"+ann:x:1:1:::",
        b"-ann:x:1:1:::",
        b"an\tn:x:1:1:::",
        b"ann :x:1:1:::",
        b"an,n:x:1:1:::",
        b"an/n:x:1:1:::",
        b"a" * 256 + b":x:1:1:::",
        b"ann:x:1:1:a\x1b[2J::",
        b"ann:x:1:1::home:",
        b"ann:x:1:1:::sh",
        b"ann:x:1:1::/\0:",
        b"ann:x:1:1::/:/bin/sh\r",
        b"ann:x:\xd9\xa1:1:::",
    ],
)
def test_a_line_that_is_no_user_is_told_with_its_place(line: bytes) -> None:
    told: list[str] = []
    data = b"bob:x:5:5:::\n" + line + b"\ncarl:x:6:6:::"
    users = list(identity.read_passwd(data, "'/etc/passwd'", told.append))
    assert [user.name for user in users] == [b"bob", b"carl"]
    assert len(told) == 1
    assert told[0].startswith("'/etc/passwd', line 2: not an entry of passwd: '")
    assert len(told[0]) < 400


@pytest.mark.parametrize(
    "line", [b"a", b"a:x:1", b"a:x:1:b:c", b"a:x:y:", b":x:1:", b"+:::", b"a:b", b"a\x7f:x:1:"]
)
def test_a_line_that_is_no_group_is_told(line: bytes) -> None:
    told: list[str] = []
    assert not list(identity.read_group(line, "group", told.append))
    assert len(told) == 1


def test_names_of_any_encoding_and_with_blanks_within_are_kept_byte_for_byte() -> None:
    made = snapshot(b"DOM\\j\xf6rg x:x:1000:5:J\xc3\xb6rg:/h:/s", b"domain users:x:5:")
    value = made.entries()[b"\0u1000"]
    assert b"\0name=DOM\\j\xf6rg x\0" in value
    assert b"\0gecos=J\xc3\xb6rg\0" in value
    assert b"\0group=5=domain users\0" in value


def test_a_name_that_two_users_have_is_told() -> None:
    told: list[str] = []
    made = Snapshot(told.append, lowest=0)
    made.add_users([User(b"a", uid, 1, b"", b"", b"") for uid in (5, 6)])
    assert told == ["the users 5 and 6 have one name: 'a'"]
    assert made.users == 1


def test_a_user_of_very_many_groups_has_some_and_the_others_are_there() -> None:
    made = snapshot(b"a:x:1000:1:::")
    made.add_groups(Group(b"g%d" % gid, gid, (b"a",)) for gid in range(5000, 7000))
    entries = made.entries()
    assert len([name for name, _ in fields(entries, b"\0u1000") if name == "group"]) == 1000
    assert all(b"\0g%d" % gid in entries for gid in range(5000, 7000))


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_whatever_is_read_what_is_written_keeps_all_rules(passwd: bytes, group: bytes) -> None:
    made = Snapshot(lambda _: None, lowest=0)
    made.add_users(identity.read_passwd(PASSWD + passwd, "p", lambda _: None))
    made.add_groups(identity.read_group(GROUP + group, "g", lambda _: None))
    for key, value in made.entries().items():
        assert identity.is_key(key)
        identity.check(key, value)


def test_what_breaks_a_rule_is_damage() -> None:
    good = [("name", "a"), ("gid", "1"), ("group", "1=a")]
    identity.check(b"\0u1", seal(b"\0u1", good))
    for bad in (
        [("name", "a")],
        [("gid", "1")],
        [*good, ("name", "b")],
        [*good, ("home", "relative")],
        [*good, ("shell", "/a:b")],
        [*good, ("gecos", "a\nb")],
        [*good, ("group", "1")],
        [*good, ("group", "x=a")],
        [*good, ("group", "1=")],
    ):
        with pytest.raises(Damaged):
            identity.check(b"\0u1", seal(b"\0u1", bad))
    with pytest.raises(Damaged):
        identity.check(b"\0g1", seal(b"\0g1", [("name", "a:b")]))


# ------------------------------------------------------------------------------- the index


@pytest.fixture
def index(tmp_path: Path) -> Path:
    path = tmp_path / "store/index"
    path.mkdir(parents=True)
    return path


def image(number: int) -> Entry:
    return Entry(id=f"{number:064x}", size=1, digest="sha256:" + "a" * 64, time=1, config=Config())


def put(index: Path, entries: dict[bytes, bytes]) -> publish.Published:
    return publish.replace(
        index, identity.is_key, entries, store=STORE, mark="m", renew=lambda: None
    )


def people(index: Path) -> dict[bytes, bytes]:
    with resolve.newest(index) as newest:
        assert newest is not None
        return {key: value for key, value in newest.items() if identity.is_key(key)}


def test_a_snapshot_survives_what_is_published_after_it_and_keeps_names(index: Path) -> None:
    publish.publish(index, {"a:1": image(1)}, store=STORE, mark="m", renew=lambda: None)
    entries = snapshot().entries()
    assert put(index, entries) == (2, True)
    publish.publish(index, {"b:1": image(2)}, store=STORE, mark="m", renew=lambda: None)
    publish.fence(index, store=STORE, mark="m")
    assert people(index) == entries
    assert resolve.lookup(index, "a:1") == image(1)
    with resolve.newest(index) as newest:
        assert newest is not None
        assert dict(newest.meta())["names"] == "2"
        assert {name for name, _ in newest.entries()} == {"a:1", "b:1"}


def test_an_unchanged_snapshot_makes_no_generation_and_a_changed_one_replaces_all(
    index: Path,
) -> None:
    put(index, snapshot().entries())
    assert put(index, snapshot().entries()) == (1, False)
    later = snapshot(b"carl:x:1002:100:::").entries()
    assert put(index, later) == (2, True)
    assert people(index) == later


def test_who_was_buried_between_reading_and_publishing_publishes_no_users(index: Path) -> None:
    put(index, snapshot().entries())
    asked = []

    def buried_meanwhile() -> None:
        asked.append(resolve.generations(index)[0])
        if len(asked) > 1:
            raise PermissionError
        publish.fence(index, store=STORE, mark="another")

    with pytest.raises(PermissionError):
        publish.replace(index, identity.is_key, {}, store=STORE, mark="m", renew=buried_meanwhile)
    assert asked == [1, 2]
    assert people(index) == snapshot().entries()


def _publish_images(index: Path, worker: int) -> None:
    for number in range(15):
        names = {f"w{worker}:{number}": image(number)}
        publish.publish(index, names, store=STORE, mark=f"w{worker}", renew=lambda: None)


def test_users_and_images_published_at_once_do_not_lose_each_other(index: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_publish_images, args=(index, n)) for n in range(2)]
    for worker in workers:
        worker.start()
    for number in range(10):
        line = b"a:x:1000:100::/%d:" % number
        put(index, snapshot(line).entries())
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert people(index) == snapshot(b"a:x:1000:100::/9:").entries()
    with resolve.newest(index) as newest:
        assert newest is not None
        assert len(dict(newest.entries())) == 30


# -------------------------------------------------------------------------------- getent

# Knows ann and bob, and does not list anybody.
GETENT = """#!/bin/sh
database=$1; shift
case $database,$# in
passwd,0|group,0) exit 0;;
esac
status=0
for key; do
    case $database,$key in
    passwd,ann) echo "ann:x:1000:100:Ann:/home/ann:/bin/zsh";;
    passwd,bob) echo "bob:x:1001:100::/home/bob:";;
    initgroups,ann) printf '%-21s 100 2000 77\\n' ann;;
    initgroups,bob) printf '%-21s 100\\n' bob;;
    group,100) echo "users:x:100:";;
    group,2000) echo "project:x:2000:ann,bob";;
    *) status=2;;
    esac
done
exit $status
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a getent in the place of the system's; return what names users in a file."""
    program = tmp_path / "bin/getent"
    program.parent.mkdir()
    program.write_text(GETENT)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    def named(text: str) -> Path:
        path = tmp_path / "names"
        path.write_text(text)
        return path

    return named


def test_named_users_are_asked_for_with_their_groups(asked: Callable[[str], Path]) -> None:
    made = getent.read(no_fault, 1000, None, None, asked("ann bob\nann\n"))
    entries = made.entries()
    assert set(entries) == {b"\0u1000", b"\0u1001", b"\0g100", b"\0g2000"}
    # What the service says of each user counts, not what it says of the group.
    assert fields(entries, b"\0u1001")[-1] == ("group", "100=users")
    assert fields(entries, b"\0u1000")[-1] == ("group", "2000=project")


def test_a_name_that_nobody_has_is_told_and_the_others_are_found(
    asked: Callable[[str], Path],
) -> None:
    told: list[str] = []
    made = getent.read(told.append, 1000, None, None, asked("ann zoe"))
    assert told == ["there is no user 'zoe'"]
    assert made.users == 1


def test_a_service_that_lists_nobody_is_no_empty_site(asked: Callable[[str], Path]) -> None:
    with pytest.raises(BadConfig, match="no user with a uid of at least 1000") as caught:
        getent.read(no_fault, 1000, None, None, None)
    assert "--users-from" in caught.value.hint


@pytest.mark.parametrize("name", ["-s", "1000", "--"])
def test_a_name_that_getent_would_take_for_something_else_is_refused(
    asked: Callable[[str], Path], name: str
) -> None:
    with pytest.raises(BadConfig, match="not the name of a user"):
        getent.read(no_fault, 0, None, None, asked(f"ann {name}"))


def test_the_systems_own_getent_gives_what_its_files_say() -> None:
    listed = subprocess.run(["getent", "passwd"], capture_output=True, check=True).stdout
    first = next(identity.read_passwd(listed, "getent", no_fault))
    assert b"\0u%d" % first.uid in getent.read(lambda _: None, 0, None, None, None).entries()


def test_a_getent_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "getent"
    program.write_text("#!/bin/sh\necho 'Enumeration not supported on passwd' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadConfig, match="ended with 3: Enumeration not supported"):
        getent.read(no_fault, 0, None, None, None)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(BadConfig, match="no getent"):
        getent.read(no_fault, 0, None, None, None)


# ------------------------------------------------------------------------------- vectors

VECTORS = Path(__file__).parent.parent / "spool/vectors/users"
ANSWERS = [
    line.split("\t")
    for line in (VECTORS / "answers.tsv").read_text(encoding="utf-8").splitlines()[1:]
]


def test_every_vector_has_an_answer() -> None:
    assert {name for name, _ in ANSWERS} == {path.name for path in VECTORS.glob("*.cdb")}


@pytest.mark.parametrize(("name", "answer"), ANSWERS)
def test_a_vector_is_answered_as_it_should_be(name: str, answer: str) -> None:
    data = (VECTORS / name).read_bytes()
    value = cdb.find(lambda length, at: data[at : at + length], len(data), b"\0u1000")
    if answer == "absent":
        assert value is None
        return
    assert value is not None
    if answer == "found":
        identity.check(b"\0u1000", value)
    else:
        with pytest.raises(Damaged):
            identity.check(b"\0u1000", value)
