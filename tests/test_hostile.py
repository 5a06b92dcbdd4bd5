"""Whatever users do to the spool: nobody else is hurt, slowed or seen, and who did it is told."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from shifter_lite.layout import Layout
from shifter_lite.queue import status as statuses
from shifter_lite.request import Status
from tests.conftest import Runner, installed, made_site
from tests.helpers import faulty, images, users
from tests.helpers.processes import running, until
from tests.helpers.users import User, acting_as
from tests.helpers.villain import (
    DAY,
    Hand,
    drained,
    hard_links_to_anything,
    left,
    lies,
    place_in,
    small_filesystem,
    unchanged,
    working,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")

# 100,000 of them in a longer run.
JUNK = int(os.environ.get("SHIFTER_TEST_JUNK", "5000"))
_PATIENCE = 60.0


def small() -> images.Image:
    return images.image([images.layer([images.file("x", os.urandom(16))])])


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A site, its registry, and two of its users."""

    site: Runner
    registry: faulty.Registry
    villain: Hand
    victim: Hand

    @property
    def store(self) -> Path:
        return self.site.store

    def image(self, name: str = "x", tag: str = "1") -> str:
        """Put an image of its own into the registry."""
        return self.registry.add(name, tag, small())

    def private(self, name: str, content: str = "a secret") -> Path:
        """Make a file of the victim's that is nobody else's business."""
        path = self.store.parent.parent / name
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
        os.chown(path, self.victim.user.uid, self.victim.user.gid)
        path.chmod(0o600)
        return path

    def directory(self, name: str, owner: Hand, mode: int) -> Path:
        path = self.store.parent.parent / name
        path.mkdir()
        os.chown(path, owner.user.uid, owner.user.gid)
        path.chmod(mode)
        return path


@pytest.fixture
def field(site: Runner, user: User, villain_user: User, faulty_registry: faulty.Registry) -> Field:
    return _field(site, user, villain_user, faulty_registry)


def _field(site: Runner, user: User, villain: User, registry: faulty.Registry) -> Field:
    return Field(
        site=site,
        registry=registry,
        villain=Hand(user=villain, store=site.store),
        victim=Hand(user=user, store=site.store),
    )


# ------------------------------------------------------------------------ what is no request

Make = Callable[[Field, Path], None]


def _link(target: str) -> Make:
    return lambda field, path: path.symlink_to(field.store.parent.parent / target)


def _holding(change: Callable[[Field, str], bytes], mode: int = 0o640) -> Make:
    def make(field: Field, path: Path) -> None:
        path.write_bytes(change(field, path.name))
        path.chmod(mode)

    return make


def _words(mode: int = 0o640, **changes: object) -> Make:
    def words(field: Field, name: str) -> bytes:
        fields = json.loads(field.villain.words(name))
        return json.dumps({**fields, **changes}).encode()

    return _holding(words, mode)


def _size(size: int) -> Make:
    def make(_: Field, path: Path) -> None:
        path.touch(0o640)
        os.truncate(path, size)

    return make


def _folder(mode: int, *names: str) -> Make:
    def make(_: Field, path: Path) -> None:
        path.mkdir()
        for name in names:
            (path / name).write_text("x")
        path.chmod(mode)

    return make


def _socket(_: Field, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(path.parent.parent, os.O_PATH)
        try:
            # A socket's path is short.
            made.bind(f"/proc/self/fd/{here}/new/{path.name}")
        finally:
            os.close(here)


def _twice(_: Field, path: Path) -> None:
    path.write_bytes(_.villain.words(path.name))
    path.chmod(0o640)
    os.link(path, path.with_name(f"..{path.name}"))


def _after(seconds: int) -> Make:
    return _holding(lambda field, name: field.villain.words(name, time=int(time.time()) + seconds))


NO_REQUESTS: dict[str, Make] = {
    "a link to another's file": _link("diary"),
    "a link to another's directory": _link("papers"),
    "a link to a directory of the worker's": _link("service/store/locks"),
    "a link to what has no end": _link("/dev/zero"),
    "a link to nothing": _link("nowhere"),
    "a link to itself": lambda _, path: path.symlink_to(path.name),
    "a pipe": lambda _, path: os.mkfifo(path, 0o644),
    "a socket": _socket,
    "an empty directory": _folder(0o755),
    "an empty directory that all may write": _folder(0o777),
    "a directory": _folder(0o755, "x", "y"),
    "a directory that all may write": _folder(0o777, "x"),
    "a closed directory": _folder(0o000),
    "a terabyte of nothing": _size(1 << 40),
    "a byte too much": _size(65537),
    "nothing": _size(0),
    "zeros": _size(1000),
    "bytes": _holding(lambda *_: os.urandom(5000)),
    "no end of brackets": _holding(lambda *_: b"[" * 65000),
    "other JSON": _holding(lambda *_: b"null"),
    "UTF-16": _holding(lambda field, name: field.villain.words(name).decode().encode("utf-16")),
    "a closed file": _words(0o600),
    "a file that nobody may open": _words(0o000),
    "a file that its group may write": _words(0o660),
    "a file that all may write": _words(0o666),
    "a file of two names": _twice,
    "another store's": _words(store="0" * 32),
    "another name's": _words(name="1700000000-0-0123456789abcdef"),
    "another user's": _words(uid=0),
    "a week and a day old": _after(-8 * DAY),
    "of tomorrow": _after(DAY),
    "of a version to come": _words(v=3),
    "for no image": _words(image="UPPER CASE\n\x1b[2J"),
    "of no platform": _words(platform="../.."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Aftermath:
    """What a worker has left of the things in new/, by what they are."""

    field: Field
    names: dict[str, str]
    asked: str
    log: list[str]


@pytest.fixture(scope="module")
def aftermath(user: User, service: User, villain_user: User) -> Iterator[Aftermath]:
    """A spool that a worker has drained, which held one request and all that is none."""
    with users.directory(user) as place, faulty.serving() as registry:
        field = _field(made_site(service, place), user, villain_user, registry)
        diary = field.private("diary")
        papers = field.directory("papers", field.victim, 0o700)
        (papers / "will").write_text("all to my cat")
        names = {}
        # Older than the victim's, so that all of it comes first.
        for kind, make in NO_REQUESTS.items():
            names[kind] = field.villain.name(later=-60)
            field.villain.prepare(names[kind])
            with acting_as(villain_user):
                make(field, field.villain.new / names[kind])
        for kind, mode, number in (
            ("a device", stat.S_IFCHR, os.makedev(1, 5)),
            ("a disk", stat.S_IFBLK, os.makedev(7, 0)),
        ):
            names[kind] = field.villain.name(later=-60)
            field.villain.prepare(names[kind])
            path = field.villain.new / names[kind]
            os.mknod(path, mode | 0o666, number)
            os.chown(path, villain_user.uid, villain_user.gid)
        asked = field.victim.ask(field.image())
        with unchanged(diary, papers):
            log = drained(field.site)
        yield Aftermath(field=field, names=names, asked=asked, log=log)


@pytest.mark.parametrize("kind", [*NO_REQUESTS, "a device", "a disk"])
def test_what_is_no_request_is_refused_with_a_reason_that_its_owner_reads(
    aftermath: Aftermath, kind: str
) -> None:
    name = aftermath.names[kind]
    answer = aftermath.field.villain.answer(name)
    assert answer is not None
    assert (answer.state, answer.exit_code) == ("FAILURE", 65)
    for sentence in (answer.fact, answer.hint):
        assert sentence
        assert sentence.isprintable()
    assert not {"new", "work", "done"} & set(lies(aftermath.field.store, name))


def test_who_asks_beside_what_is_no_request_is_answered(aftermath: Aftermath) -> None:
    answer = aftermath.field.victim.answer(aftermath.asked)
    assert answer is not None
    assert answer.state == "READY"


def test_each_thing_that_is_no_request_is_one_line_in_the_log(aftermath: Aftermath) -> None:
    for name in aftermath.names.values():
        assert len([line for line in aftermath.log if name in line]) == 1


def test_what_is_no_request_is_met_once(aftermath: Aftermath) -> None:
    assert left(aftermath.field.store) == []
    assert drained(aftermath.field.site) == []


def test_what_is_no_request_is_gone_in_days(aftermath: Aftermath) -> None:
    latest = time.strftime("%Y%m%d", time.gmtime(time.time() + 2 * DAY))
    for state in ("done", "failed"):
        assert all(day <= latest for day in os.listdir(aftermath.field.store / "spool" / state))


# -------------------------------------------------------------------------------------- names

_NONCE = "0123456789abcdef"


def odd_names(villain: int, victim: int) -> dict[str, bytes]:
    now = int(time.time())
    mine = f"{now}-{villain}-{_NONCE}"
    texts = {
        "a newline": "a\nb",
        "a terminal's words": "\x1b[2J\x07\x1b]0;x\x07",
        "right to left": "\u202egnp.exe",
        "a dot first": ".hidden",
        "two dots first": "..x",
        "three dots": "...",
        "an option": "-rf",
        "a space": " ",
        "as long as a name can be": "a" * 255,
        "a claim": f"{mine}.host.1.0123abcd",
        "a newline last": f"{mine}\n",
        "capital digits": mine.upper(),
        "a uid with zeros": f"{now}-{villain:010}-{_NONCE}",
        "no uid": f"{now}-4294967295-{_NONCE}",
        "another's uid": f"{now}-{victim}-{_NONCE}",
        "root's": f"{now}-0-{_NONCE}",
        "long ago": f"1000000000-{villain}-{_NONCE}",
        "before time": f"0000000000-{villain}-{_NONCE}",
        "in the far future": f"9999999999-{villain}-{_NONCE}",
        "in a year of five digits": f"99999999999-{villain}-{_NONCE}",
    }
    return {
        "no UTF-8": b"\xff\xfe\x80",
        **{kind: text.encode() for kind, text in texts.items()},
    }


@pytest.mark.parametrize("what", ["file", "directory", "link"])
def test_names_with_anything_in_them_hurt_nobody(field: Field, what: str) -> None:
    names = odd_names(field.villain.user.uid, field.victim.user.uid)
    diary = field.private("diary")
    make = {
        "file": _holding(lambda field, name: field.villain.words(name, field.image())),
        "directory": _folder(0o755, "x"),
        "link": _link("diary"),
    }[what]
    made = {kind: os.fsdecode(name) for kind, name in names.items()}
    for name in made.values():
        field.villain.prepare(name)
        with acting_as(field.villain.user):
            make(field, field.villain.new / name)
    asked = field.victim.ask(field.image("y"))
    before = len(field.registry.requests)
    with unchanged(diary):
        drained(field.site)
    answer = field.victim.answer(asked)
    assert answer is not None
    assert answer.state == "READY"
    # Nothing under such a name is built, nor kept where it is never removed.
    assert not any("/v2/x/" in each.path for each in field.registry.requests[before:])
    latest = time.strftime("%Y%m%d", time.gmtime(time.time() + 2 * DAY))
    assert all(day <= latest for day in os.listdir(field.store / "spool/failed"))
    # Who used his own status directory is told.
    for kind in ("another's uid", "root's", "long ago", "in the far future"):
        told = field.villain.answer(made[kind])
        assert told is not None, kind
        assert told.exit_code == 65, kind
    assert drained(field.site) == []


# ------------------------------------------------------------------------------ others' files


def test_a_file_of_anothers_that_is_moved_in_is_refused_and_tells_the_mover_nothing(
    field: Field,
) -> None:
    shared = field.directory("shared", field.victim, 0o777)
    image = field.image("private")
    for number, content in enumerate((b"notes", field.victim.words("draft", image), b"")):
        name = field.villain.name(uid=field.victim.user.uid)
        status = field.villain.prepare(name)
        path = shared / str(number)
        path.write_bytes(content)
        os.chown(path, field.victim.user.uid, field.victim.user.gid)
        path.chmod(0o640)
        before = path.stat()
        with acting_as(field.villain.user):
            path.rename(field.villain.new / name)
        drained(field.site)
        assert os.listdir(status) == []
        (moved,) = (field.store / "spool/failed").rglob(name)
        after = moved.stat()
        assert moved.read_bytes() == content
        assert (after.st_uid, after.st_mode, after.st_mtime_ns, after.st_nlink) == (
            *(before.st_uid, before.st_mode, before.st_mtime_ns, before.st_nlink),
        )
    assert field.registry.requests == []


def test_a_request_that_its_writer_gave_another_name_is_not_his_request(field: Field) -> None:
    # Written by the victim for this very store, and left where others can move it.
    shared = field.directory("shared", field.victim, 0o777)
    name = field.victim.name()
    path = shared / name
    path.write_bytes(field.victim.words(name, field.image("private")))
    os.chown(path, field.victim.user.uid, field.victim.user.gid)
    path.chmod(0o640)
    forged = field.victim.name()
    with acting_as(field.villain.user):
        path.rename(field.villain.new / forged)
    drained(field.site)
    assert lies(field.store, forged) == ["failed"]
    assert field.registry.requests == []


def test_a_hard_link_to_anothers_file_is_refused_and_the_file_stays_his(field: Field) -> None:
    diary = field.private("diary")
    shared = field.private("shared", field.victim.words("x").decode())
    shared.chmod(0o644)
    names = [field.villain.name(uid=uid) for uid in (field.villain.user.uid, field.victim.user.uid)]
    statuses = [field.villain.prepare(name) for name in names]
    with hard_links_to_anything(), acting_as(field.villain.user):
        os.link(diary, field.villain.new / names[0])
        os.link(shared, field.villain.new / names[1])
    times = [(path.stat().st_mtime_ns, path.stat().st_mode) for path in (diary, shared)]
    drained(field.site)
    # Tidying up ends what has no answer, but only for who it belongs to.
    own = field.villain.answer(names[0])
    assert own is None or own.state == "FAILURE"
    assert os.listdir(statuses[1]) == []
    assert left(field.store) == []
    assert diary.read_text() == "a secret"
    assert times == [(path.stat().st_mtime_ns, path.stat().st_mode) for path in (diary, shared)]
    assert {path.stat().st_uid for path in (diary, shared)} == {field.victim.user.uid}


def test_a_request_to_which_another_made_a_hard_link_does_no_harm(field: Field) -> None:
    # He cannot learn its name; if he does all the same, nobody is answered in another's place.
    asked = field.victim.ask(field.image())
    forged = field.villain.name()
    field.villain.prepare(forged)
    with hard_links_to_anything(), acting_as(field.villain.user):
        os.link(field.victim.new / asked, field.villain.new / forged)
    drained(field.site)
    got = field.villain.answer(forged)
    assert got is None or got.state == "FAILURE"
    told = field.victim.answer(asked)
    assert told is not None
    assert told.state in ("READY", "FAILURE")
    assert left(field.store) == []


# ----------------------------------------------------------------------------- who may do what


def test_nobody_can_see_change_or_cancel_the_requests_of_others(field: Field) -> None:
    image = field.image("private")
    digest = json.loads(field.registry.find("/v2/private/manifests/1").body)["layers"][0]["digest"]
    field.registry.fault(digest, faulty.Stall(0))
    worked_on, waiting = field.victim.ask(image), None
    with running(field.site, "shifter-worker", "run"):
        until(lambda: len(field.registry.asked(digest)) == 1)
        waiting = field.victim.name()
        field.victim.prepare(waiting)
        written = field.store / "spool/tmp" / waiting
        with acting_as(field.victim.user):
            written.write_bytes(b"{")
            written.chmod(0o640)
        (claim,) = (field.store / "spool/work").iterdir()
        for what, attempt in _attempts(field, worked_on, waiting, claim).items():
            assert _is_denied(field.villain.user, attempt), what
        field.registry.heal()
        with acting_as(field.victim.user):
            written.unlink()


def _is_denied(user: User, attempt: Callable[[], object]) -> bool:
    with acting_as(user):
        try:
            attempt()
        except PermissionError:
            return True
    return False


def _attempts(
    field: Field, worked_on: str, waiting: str, claim: Path
) -> dict[str, Callable[[], object]]:
    store = field.store
    writing, status = store / "spool/tmp" / waiting, store / "status" / worked_on
    attempts: dict[str, Callable[[], object]] = {
        "read what another writes": writing.read_bytes,
        "remove it": writing.unlink,
        "submit it": lambda: writing.rename(store / "spool/new" / waiting),
        "read a request": claim.read_bytes,
        "put a request back": lambda: claim.rename(store / "spool/new" / worked_on),
        "cancel it": lambda: (status / "cancel").touch(),
        "see how it stands": lambda: os.listdir(status),
        "read its status": lambda: (status / "000001.json").read_bytes(),
        "remove its statuses": lambda: shutil.rmtree(status),
        "take its status directory": lambda: status.rename(status.with_name("mine")),
        "change a mode": lambda: (store / "spool/new").chmod(0o777),
    }
    for place in ("spool/tmp", "spool/new", "status", "spool/work", "spool/done", "spool/failed"):
        attempts[f"list {place}"] = lambda path=store / place: os.listdir(path)  # type: ignore[misc]
    for path in store.rglob("*"):
        # Where users may write is said in tree.txt, and that the others are more is not by chance.
        anyone = path.relative_to(store).as_posix() in ("spool/tmp", "spool/new", "status")
        if path.is_dir() and not anyone:
            attempts[f"write {path}"] = (path / "mine").touch
    return attempts


# ------------------------------------------------------------------------------------ replays


@pytest.mark.parametrize("state", ["done", "failed"])
def test_a_request_that_was_answered_is_not_answered_again(field: Field, state: str) -> None:
    image = field.image() if state == "done" else f"{field.registry.address}/nothing:1"
    asked = field.villain.ask(image)
    words = (field.villain.new / asked).read_bytes()
    drained(field.site)
    first = field.villain.answer(asked)
    before = len(field.registry.requests)
    for _ in range(3):
        field.villain.drop(asked, words)
        drained(field.site)
        assert lies(field.store, asked) == [state]
    assert len(field.registry.requests) == before
    assert first is not None
    assert first.state == ("READY" if state == "done" else "FAILURE")


def test_a_request_that_comes_again_while_it_is_worked_on_is_answered_once(field: Field) -> None:
    image, other = small(), field.image("other")
    name = field.registry.add("slow", "1", image)
    digest = image.content["layers"][0]["digest"]
    field.registry.fault(digest, faulty.Stall(0), times=1)
    asked = field.villain.ask(name)
    with running(field.site, "shifter-worker", "run") as worker:
        until(lambda: len(field.registry.asked(digest)) >= 1)
        for content in (field.villain.words(asked, other), b"", field.villain.words(asked, name)):
            field.villain.drop(asked, content)
            told = field.victim.ask(other)
            until(lambda told=told: _ended(field.victim, told) or worker.poll() is not None)  # type: ignore[misc]
        field.registry.heal()
        worker.terminate()
        worker.communicate(timeout=_PATIENCE)
    drained(field.site)
    answer = field.villain.answer(asked)
    assert answer is not None
    assert answer.state == "READY"
    assert lies(field.store, asked) == ["done"]
    assert left(field.store) == []


def _ended(hand: Hand, name: str) -> bool:
    answer = hand.answer(name)
    return answer is not None and answer.state in ("READY", "FAILURE", "CANCELLED")


# ------------------------------------------------------------------------------------- change


def test_what_is_written_into_a_request_after_it_was_claimed_means_nothing(field: Field) -> None:
    image = small()
    first = field.registry.add("first", "1", image)
    second = field.image("second")
    digest = image.content["layers"][0]["digest"]
    field.registry.fault(digest, faulty.Stall(0), times=1)
    asked = field.villain.name()
    field.villain.prepare(asked)
    path = field.villain.drop(asked, field.villain.words(asked, first))
    with acting_as(field.villain.user):
        fd = os.open(path, os.O_WRONLY)
    with running(field.site, "shifter-worker", "run") as worker:
        until(lambda: len(field.registry.asked(digest)) >= 1)
        os.truncate(fd, 0)
        os.pwrite(fd, field.villain.words(asked, second), 0)
        worker.terminate()
        worker.communicate(timeout=_PATIENCE)
    os.close(fd)
    field.registry.heal()
    drained(field.site)
    # Handed back, it is read again: it is the owner's own wish, and one of the two.
    names = subprocess.run(
        [*field.site.user.prefix, installed("shifterimg"), "images", "--json"],
        env=field.site.environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert ("first" in names) != ("second" in names)
    assert len(lies(field.store, asked)) == 1


_CHANGE = """
import os, sys
path, one, other = sys.argv[1], sys.argv[2].encode(), sys.argv[3].encode()
fd = os.open(path, os.O_WRONLY)
print(flush=True)
while True:
    for words in (one, b"", other, b"[" * 60000):
        os.truncate(fd, len(words))
        os.pwrite(fd, words, 0)
"""


def test_a_request_that_never_stands_still_is_answered_or_refused(field: Field) -> None:
    one, other = field.image("one"), field.image("other")
    for _ in range(5):
        asked = field.villain.name()
        field.villain.prepare(asked)
        words = [field.villain.words(asked, image) for image in (one, other)]
        path = field.villain.drop(asked, words[0])
        command = [*field.villain.user.prefix, sys.executable, "-c", _CHANGE, str(path)]
        command += [each.decode() for each in words]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as changing:
            assert changing.stdout is not None
            changing.stdout.readline()
            drained(field.site)
            changing.kill()
        assert len(lies(field.store, asked)) == 1
        answer = field.villain.answer(asked)
        assert answer is not None
        assert answer.state in ("READY", "FAILURE")


_LEASE = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print(flush=True)
signal.pause()
"""


def test_who_holds_a_lease_on_his_request_holds_up_nobody(field: Field) -> None:
    leased = field.villain.name(later=-60)
    field.villain.prepare(leased)
    path = field.villain.drop(leased, field.villain.words(leased, field.image("leased")))
    command = [*field.villain.user.prefix, sys.executable, "-c", _LEASE, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holding:
        try:
            assert holding.stdout is not None
            holding.stdout.readline()
            asked = field.victim.ask(field.image())
            with running(field.site, "shifter-worker", "run"):
                until(lambda: _ended(field.victim, asked))
                # The kernel lets nobody hold one for ever, but for longer than this.
                assert holding.poll() is None
        finally:
            holding.kill()
    drained(field.site)
    answer = field.villain.answer(leased)
    assert answer is not None
    assert answer.state in ("READY", "FAILURE")


# ------------------------------------------------------------------------------------- crowds


def _plain(path: Path, _: int) -> None:
    path.write_bytes(b"junk")


def _full_directory(path: Path, _: int) -> None:
    path.mkdir()
    (path / "x").mkdir()


CROWDS: dict[str, Callable[[Path, int], None]] = {
    "files": _plain,
    "directories": _full_directory,
    "links": lambda path, _: path.symlink_to("/dev/zero"),
    "pipes": lambda path, _: os.mkfifo(path),
}


@pytest.mark.parametrize("whose", ["his own", "his victim's"])
@pytest.mark.parametrize("kind", CROWDS)
@pytest.mark.timeout(1800)
def test_thousands_of_things_that_are_no_requests_slow_nobody_else(
    field: Field, kind: str, whose: str
) -> None:
    owner = field.villain if whose == "his own" else field.victim
    with acting_as(field.villain.user):
        for number in range(JUNK):
            CROWDS[kind](field.villain.new / owner.name(later=-3600), number)
    asked = field.victim.ask(field.image())
    log = drained(field.site, timeout=1500)
    answer = field.victim.answer(asked)
    assert answer is not None
    assert answer.state == "READY"
    # Answered while almost all the rest still waited.
    assert place_in(log, "ready", asked) < JUNK / 4
    assert left(field.store) == []


def test_thousands_of_dot_names_slow_nobody_else(field: Field) -> None:
    with acting_as(field.villain.user):
        for number in range(JUNK):
            (field.villain.new / f".{number}").write_bytes(b"")
            (field.store / "spool/tmp" / f"{number}").write_bytes(b"")
            (field.store / "status" / f"{number}").mkdir()
    asked = field.victim.ask(field.image())
    drained(field.site)
    answer = field.victim.answer(asked)
    assert answer is not None
    assert answer.state == "READY"


def test_a_user_with_many_requests_does_not_hold_up_another_with_one(field: Field) -> None:
    for number in range(100):
        field.villain.ask(f"{field.registry.address}/nothing:{number}", later=-60)
    asked = field.victim.ask(field.image())
    log = drained(field.site)
    assert place_in(log, "ready", asked) < 10
    assert left(field.store) == []


_FLOOD = """
import os, sys, time
place, name = sys.argv[1:]
print(flush=True)
for number in range(10**6):
    path = f"{place}/{int(time.time())}-{name}-{number:016x}"
    [lambda: open(path, "x").close(), lambda: os.mkfifo(path), lambda: os.mkdir(path),
     lambda: os.symlink("/dev/zero", path), lambda: os.makedirs(f"{path}/x")][number % 5]()
    time.sleep(0.001)
"""


def test_a_user_pulls_while_another_floods_the_spool(field: Field, asker: Runner) -> None:
    command = [*field.villain.user.prefix, sys.executable, "-c", _FLOOD]
    flood = [*command, str(field.villain.new), str(field.villain.user.uid)]
    with (
        working(field.site) as worker,
        subprocess.Popen(flood, stdout=subprocess.PIPE) as flooding,
    ):
        try:
            assert flooding.stdout is not None
            flooding.stdout.readline()
            for number in range(5):
                done = asker("shifterimg", "pull", field.image("x", str(number)), timeout=_PATIENCE)
                assert done.returncode == 0, done.stderr
            assert worker.poll() is None
            assert flooding.poll() is None
        finally:
            flooding.kill()
    drained(field.site)
    assert left(field.store) == []


# ----------------------------------------------------------------------------------- statuses


def _into(*makes: tuple[str, Callable[[Path], object]]) -> Callable[[Field, Path], None]:
    def make(_: Field, status: Path) -> None:
        for name, call in makes:
            call(status / name)

    return make


def _elsewhere(target: str) -> Callable[[Field, Path], None]:
    def make(field: Field, status: Path) -> None:
        status.rmdir()
        status.symlink_to(field.store.parent.parent / target)

    return make


def _instead(call: Callable[[Path], object]) -> Callable[[Field, Path], None]:
    def make(_: Field, status: Path) -> None:
        status.rmdir()
        call(status)

    return make


def _crowded(_: Field, status: Path) -> None:
    for number in range(JUNK // 2):
        (status / f"{number:06d}.json").write_bytes(b"")
        (status / f"x{number}").mkdir()


def _forged(_: Field, status: Path) -> None:
    fields = {"v": 1, "state": "READY", "image_id": "ab" * 32, "done": 0, "total": 0, "fact": ""}
    (status / "000500.json").write_text(json.dumps({**fields, "hint": "", "exit_code": 0}))


STATUSES: dict[str, Callable[[Field, Path], None]] = {
    "is a link to another's directory": _elsewhere("papers"),
    "is a link to nothing": _elsewhere("nowhere"),
    "is a link to a directory of the worker's": _elsewhere("service/store/locks"),
    "is a file": _instead(Path.touch),
    "is a pipe": _instead(os.mkfifo),
    "is missing": _instead(lambda _: None),
    "is closed": lambda _, status: status.chmod(0),
    "may not be written": lambda _, status: status.chmod(0o550),
    "is crowded": _crowded,
    "has the last number": _into(("999999.json", Path.touch)),
    "has numbers as directories": _into(("000001.json", Path.mkdir), (".000001", Path.mkdir)),
    "has a pipe for a status": _into(("000001.json", os.mkfifo), (".000001", os.mkfifo)),
    "has a pipe for a newest status": _into(("000900.json", os.mkfifo)),
    "has a link for a status": _into(
        ("000001.json", lambda path: path.symlink_to("/dev/zero")),
        (".000002", lambda path: path.symlink_to("../../../../diary")),
    ),
    "has a terabyte for a status": _into(
        ("000001.json", Path.touch), ("000001.json", lambda path: os.truncate(path, 1 << 40))
    ),
    "has no JSON": _into(("000001.json", lambda path: path.write_bytes(b"[" * 60000))),
    "has an end of its own": _forged,
}


def test_whatever_a_status_directory_is_the_worker_writes_nowhere_else_and_goes_on(
    field: Field,
) -> None:
    diary = field.private("diary")
    papers = field.directory("papers", field.victim, 0o777)
    asked = {}
    for kind, make in STATUSES.items():
        name = field.villain.name(later=-60)
        status = field.villain.prepare(name)
        with acting_as(field.villain.user):
            make(field, status)
        field.villain.drop(name, field.villain.words(name, field.image()))
        asked[kind] = name
    mine = field.victim.ask(field.image("y"))
    with unchanged(diary, papers):
        drained(field.site)
    answer = field.victim.answer(mine)
    assert answer is not None
    assert answer.state == "READY"
    assert left(field.store) == []
    ended = {kind: lies(field.store, name) for kind, name in asked.items()}
    assert {kind: places for kind, places in ended.items() if len(places) != 1} == {}
    for kind in ("is crowded", "has numbers as directories", "has a pipe for a status"):
        with acting_as(field.villain.user):
            names = os.listdir(field.store / "status" / asked[kind])
        assert [name for name in names if re.fullmatch(r"[0-9]{6}\.json", name)], kind


@pytest.mark.parametrize("what", ["directory", "link", "pipe", "full directory"])
def test_a_cancel_that_is_no_file_blocks_nobody(field: Field, what: str) -> None:
    image = small()
    digest = image.content["layers"][0]["digest"]
    name = field.registry.add("slow", "1", image)
    field.registry.fault(digest, faulty.Stall(0, seconds=3), times=1)
    diary = field.private("diary")
    asked = field.villain.name(later=-60)
    status = field.villain.prepare(asked)
    with acting_as(field.villain.user):
        cancel = status / "cancel"
        if what == "link":
            cancel.symlink_to(diary)
        elif what == "pipe":
            os.mkfifo(cancel)
        else:
            cancel.mkdir()
            if what == "full directory":
                (cancel / "x").touch()
    field.villain.drop(asked, field.villain.words(asked, name))
    mine = field.victim.ask(field.image("y"))
    with unchanged(diary):
        drained(field.site)
    answer = field.victim.answer(mine)
    assert answer is not None
    assert answer.state == "READY"
    assert left(field.store) == []


def test_a_status_directory_that_is_replaced_leads_the_worker_nowhere(field: Field) -> None:
    papers = field.directory("papers", field.victim, 0o777)
    image = small()
    digest = image.content["layers"][0]["digest"]
    name = field.registry.add("slow", "1", image)
    field.registry.fault(digest, faulty.Stall(0, seconds=3), times=1)
    asked = field.villain.ask(name)
    status = field.store / "status" / asked
    with running(field.site, "shifter-worker", "run"), unchanged(papers):
        until(lambda: len(field.registry.asked(digest)) >= 1)
        his = field.directory("his", field.villain, 0o777)
        with acting_as(field.villain.user):
            status.rename(his / "old")
            status.symlink_to(papers)
        until(lambda: "done" in lies(field.store, asked) or "failed" in lies(field.store, asked))


# ----------------------------------------------------------------------------------- no room


@pytest.fixture
def tiny(
    service: User, user: User, villain_user: User, workdir: Path, faulty_registry: faulty.Registry
) -> Iterator[Field]:
    """A field whose store has room for little."""
    workdir.chmod(0o755)
    home = workdir / "service"
    home.mkdir()
    with small_filesystem(home, "3m", ",nr_inodes=300"):
        yield _field(made_site(service, workdir), user, villain_user, faulty_registry)


def _fill(place: Path, user: User) -> Path:
    """Let USER take all the room that is left."""
    filling = place / "filling"
    with acting_as(user), filling.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    return filling


def test_who_finds_no_room_for_his_request_is_told_and_leaves_nothing(
    tiny: Field, asker: Runner
) -> None:
    asker = replace(asker, store=tiny.store)
    filling = _fill(tiny.store / "spool/tmp", tiny.villain.user)
    with running(tiny.site, "shifter-worker", "run"):
        done = asker("shifterimg", "pull", tiny.image())
        assert done.returncode == 73, done.stderr
        assert "no space left in the store" in done.stderr
        assert os.listdir(tiny.store / "spool/tmp") == ["filling"]
        assert os.listdir(tiny.store / "status") == left(tiny.store) == []
        filling.unlink()
        assert asker("shifterimg", "pull", tiny.image()).returncode == 0


def test_an_image_that_has_no_room_is_refused_with_that_reason(tiny: Field) -> None:
    data = os.urandom(4_000_000)
    large = tiny.registry.add("large", "1", images.image([images.layer([images.file("x", data)])]))
    names = tiny.villain.ask(large), tiny.victim.ask(tiny.image())
    drained(tiny.site)
    answers = [tiny.villain.answer(names[0]), tiny.victim.answer(names[1])]
    assert [answer and (answer.state, answer.exit_code) for answer in answers] == [
        ("FAILURE", 73),
        ("READY", 0),
    ]


def test_a_full_store_loses_no_request_and_answers_once_there_is_room(tiny: Field) -> None:
    asked = tiny.victim.ask(tiny.image())
    filling = _fill(tiny.store / "spool/tmp", tiny.villain.user)
    done = tiny.site("shifter-worker", "drain")
    assert "Traceback" not in done.stderr
    with acting_as(tiny.villain.user):
        filling.unlink()
    drained(tiny.site)
    answer = tiny.victim.answer(asked)
    assert answer is not None, lies(tiny.store, asked)
    # There was no room for the reason either: it is told that there was one.
    assert (answer.state, answer.exit_code) in (("READY", 0), ("FAILURE", 73), ("FAILURE", 75))
    assert left(tiny.store) == []


# ------------------------------------------------------------------------------------ the dead


def test_what_dead_clients_have_left_in_thousands_is_removed(field: Field) -> None:
    long_ago = time.time() - 3 * DAY
    with acting_as(field.villain.user):
        for number in range(JUNK // 5):
            path = field.store / "spool/tmp" / str(number)
            if number % 3:
                path.write_bytes(b"{")
            elif number % 2:
                path.mkdir()
                (path / "x").touch()
            else:
                path.symlink_to("/dev/zero")
            os.utime(path, (long_ago, long_ago), follow_symlinks=False)
    asked = field.victim.ask(field.image())
    drained(field.site)
    answer = field.victim.answer(asked)
    assert answer is not None
    assert answer.state == "READY"
    # Others' directories that are not empty are all that is not the worker's to remove.
    assert all(
        (field.store / "spool/tmp" / name).is_dir()
        for name in os.listdir(field.store / "spool/tmp")
    )


# ------------------------------------------------------- what is not what it was a moment ago

_FLICKER = """
import os, sys
path = sys.argv[1]
os.mkdir(path, 0o777)
fd = os.open(path, os.O_RDONLY)
os.chmod(path, 0o777)
os.mkdir(path + "/x")
print(flush=True)
while True:
    os.fchmod(fd, 0o777)
    os.fchmod(fd, 0o755)
"""


def test_directories_that_sometimes_may_be_moved_stop_no_worker(field: Field) -> None:
    names = [field.villain.name(later=-60) for _ in range(20)]
    command = [*field.villain.user.prefix, sys.executable, "-c", _FLICKER]
    flickering = [
        subprocess.Popen([*command, str(field.villain.new / name)], stdout=subprocess.PIPE)
        for name in names
    ]
    try:
        for each in flickering:
            assert each.stdout is not None
            each.stdout.readline()
        asked = field.victim.ask(field.image())
        drained(field.site)
    finally:
        for each in flickering:
            each.kill()
            each.communicate()
    answer = field.victim.answer(asked)
    assert answer is not None
    assert answer.state == "READY"
    assert left(field.store) == []
    # Nor one that comes later.
    assert drained(field.site) == []


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_directory_in_the_place_of_what_was_answered_is_met_once(field: Field, mode: int) -> None:
    asked = field.villain.ask(field.image())
    drained(field.site)
    with acting_as(field.villain.user):
        _folder(mode, "x")(field, field.villain.new / asked)
    assert len(drained(field.site)) == 1
    assert drained(field.site) == []
    assert left(field.store) == []
    assert lies(field.store, asked) == ["done"]


def test_a_directory_that_is_a_mount_of_its_owners_is_let_be(field: Field, tmp_path: Path) -> None:
    squashfs = tmp_path / "squashfs"
    (tmp_path / "tree").mkdir()
    subprocess.run(["mksquashfs", tmp_path / "tree", squashfs, "-quiet"], check=True)
    tmp_path.chmod(0o755)
    shutil.move(squashfs, field.store.parent / "squashfs")
    for name in (field.villain.name(later=-60), "no request"):
        place = field.villain.new / name
        with acting_as(field.villain.user):
            place.mkdir()
        mount = [*field.villain.user.prefix, "squashfuse"]
        mount += [str(field.store.parent / "squashfs"), str(place)]
        subprocess.run(mount, check=True)
    asked = field.victim.ask(field.image())
    try:
        drained(field.site)
    finally:
        for name in os.listdir(field.store / "spool/new"):
            subprocess.run(["umount", "-l", field.villain.new / name], check=False)
    answer = field.victim.answer(asked)
    assert answer is not None
    assert answer.state == "READY"


# ----------------------------------------------------------------- what the worker would remove


@pytest.mark.parametrize("target", ["index", "images", "locks", "spool/work", "spool/done"])
def test_an_old_status_directory_that_is_a_link_has_nothing_removed_behind_it(
    field: Field, target: str
) -> None:
    field.victim.ask(field.image())
    drained(field.site)
    for place in (field.store / target, field.store.parent / "keys"):
        name = field.villain.name(later=-4 * DAY)
        place.mkdir(exist_ok=True)
        (place / "kept").write_bytes(b"")
        with acting_as(field.villain.user):
            (field.store / "status" / name).symlink_to(place)
    drained(field.site)
    assert (field.store / target / "kept").exists()
    assert (field.store.parent / "keys/kept").exists()
    assert list((field.store / "index").glob("images.*.cdb"))


_SWAP = """
import os, sys
status, elsewhere = sys.argv[1:]
print(flush=True)
while True:
    try:
        os.rename(status, status + "x")
        os.symlink(elsewhere, status)
        os.unlink(status)
        os.rename(status + "x", status)
    except OSError:
        break
"""


def test_an_old_status_directory_that_becomes_a_link_has_nothing_removed_behind_it(
    field: Field,
) -> None:
    keys = field.store.parent / "keys"
    keys.mkdir()
    os.chown(keys, field.site.user.uid, field.site.user.gid)
    name = field.villain.name(later=-4 * DAY)
    status = field.villain.prepare(name)
    for number in range(2000):
        (keys / str(number)).write_bytes(b"")
        with acting_as(field.villain.user):
            (status / str(number)).write_bytes(b"")
    command = [*field.villain.user.prefix, sys.executable, "-c", _SWAP, str(status), str(keys)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as swapping, unchanged(keys):
        assert swapping.stdout is not None
        swapping.stdout.readline()
        for _ in range(3):
            drained(field.site)
        swapping.kill()


def test_a_status_that_its_owner_swaps_for_a_link_is_not_linked_to(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = field.private("secret")
    name = field.villain.name()
    directory = field.villain.prepare(name)
    written = statuses._write_at

    def then_swapped(fd: int, hidden: str, data: bytes, *, last: bool) -> None:
        written(fd, hidden, data, last=last)
        (directory / hidden).unlink()
        (directory / hidden).symlink_to(secret)

    monkeypatch.setattr(statuses, "_write_at", then_swapped)
    reporter = statuses.Reporter(Layout(field.store), name, field.villain.user.uid)
    reporter(Status(state="READY"))
    reporter.close()
    assert secret.stat().st_nlink == 1


def test_many_equal_requests_are_answered_by_a_worker_that_may_open_few_files(
    field: Field,
) -> None:
    image = field.image()
    names = [field.victim.ask(image) for _ in range(300)]
    few = replace(
        field.site,
        user=replace(
            field.site.user, prefix=("/usr/bin/prlimit", "--nofile=128", *field.site.user.prefix)
        ),
    )
    drained(few)
    answers = [field.victim.answer(name) for name in names]
    assert {answer and answer.state for answer in answers} == {"READY"}
