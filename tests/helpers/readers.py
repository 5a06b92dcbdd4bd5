"""Every reader of JSON that lies on the shared filesystem, and what must hold of it for any bytes.

A reader takes bytes or refuses them with its one error and a short, printable sentence.  What it
takes says the same when it is written again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shifter_lite import store as stores
from shifter_lite.errors import BadRequest, Damaged, ShifterError
from shifter_lite.layout import Layout
from shifter_lite.records import Config, Content, Entry, Image
from shifter_lite.reference import Reference
from shifter_lite.request import STATES, Request, Status

NOW = 1_700_000_000
STORE = "0123456789abcdef" * 2
_NONCE = "fedcba9876543210"
# An image's name, each of its characters escaped.
_LONGEST_FACT = 6500
_ID = "ab" * 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One of our readers: SEEDS are documents that it takes, ERROR is how it refuses others."""

    seeds: Sequence[bytes]
    error: type[ShifterError]
    take: Callable[[bytes], bool]

    def takes(self, data: bytes) -> bool:
        """Return whether DATA is taken; AssertionError if it is not refused as it should be."""
        try:
            return self.take(data)
        except self.error as refused:
            fact = str(refused)
            assert fact.isprintable(), f"a sentence that upsets a terminal: {fact!r}"
            assert len(fact) <= _LONGEST_FACT, f"a sentence too long: {fact[:200]!r}"
            return False


def name(uid: int | None = None) -> str:
    """Return the name of the requests that READERS read."""
    return f"{NOW}-{os.geteuid() if uid is None else uid}-{_NONCE}"


def request(*, path: str = "", ref: str = "", refresh: bool = False) -> Request:
    """Return a request that is taken: a pull, or an import of PATH."""
    return Request(
        name=name(),
        store=STORE,
        uid=os.geteuid(),
        time=NOW,
        image=Reference.parse("docker.io/library/debian:12"),
        platform="linux/amd64",
        path=path,
        ref=ref,
        refresh=refresh,
    )


@contextmanager
def request_reader(place: Path) -> Iterator[Reader]:
    """Yield the reader of requests, which reads a file in PLACE, as a worker does."""
    seeds = (
        request(),
        request(refresh=True),
        request(path="/home/a/tool.tar", ref="1.0"),
        request(path="/a\udcff"),
    )
    fd = os.open(place / name(), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)

    def take(data: bytes) -> bool:
        os.ftruncate(fd, 0)
        os.pwrite(fd, data, 0)
        taken = Request.read(fd, name=name(), store=STORE, now=NOW)
        # Read by the letter of the contract: UTF-8, one value a field, and nothing beside them.
        pairs = json.loads(data.decode(), object_pairs_hook=_only_once)
        assert _typed(pairs) == _typed(json.loads(taken.to_bytes())), "it says something else"
        return True

    try:
        yield Reader(seeds=[each.to_bytes() for each in seeds], error=BadRequest, take=take)
    finally:
        os.close(fd)


@contextmanager
def identity_reader(place: Path) -> Iterator[Reader]:
    """Yield the reader of ``store.json``, in PLACE."""
    layout = Layout(place)

    def take(data: bytes) -> bool:
        layout.identity.write_bytes(data)
        identity = stores.identity(layout)
        assert len(identity) == 32
        assert set(identity) <= set("0123456789abcdef")
        return True

    yield Reader(seeds=[b'{"id":"%s","v":1}\n' % STORE.encode()], error=Damaged, take=take)


@contextmanager
def status_reader(_: Path) -> Iterator[Reader]:
    """Yield the reader of statuses."""
    seeds = (
        Status(state="PULLING", done=31457280, total=53477376),
        Status(state="READY", image_id=_ID),
        Status(state="FAILURE", fact="there is no image 'x'", hint="ask", exit_code=66),
    )

    def take(data: bytes) -> bool:
        taken = Status.from_bytes(data)
        assert taken.state in STATES
        for number in (taken.done, taken.total, taken.exit_code):
            assert type(number) is int
            assert number >= 0
        assert taken.progress.isprintable()
        for word in (taken.image_id, taken.fact, taken.hint):
            assert type(word) is str
        assert Status.from_bytes(taken.to_bytes()) == taken
        return True

    yield Reader(seeds=[each.to_bytes() for each in seeds], error=Damaged, take=take)


@contextmanager
def record_reader(_: Path) -> Iterator[Reader]:
    """Yield the reader of records, ``images/AA/ID.json``, and of what they describe."""
    config = Config(env=("A=b", "C="), cmd=("sh",), workdir="/w", user="1", labels={"l": "m"})
    content = Content(
        digest=f"sha256:{_ID}", platform="linux/amd64", recipe="r", layers=(_ID,), config=config
    )
    seed = Image(id=_ID, size=4096, content=content).to_bytes()

    def take(data: bytes) -> bool:
        taken = Image.from_bytes(data)
        assert Image.from_bytes(taken.to_bytes()) == taken
        # What is found by its record is published.
        assert Entry.from_bytes(b"x", Entry.of(taken, NOW).to_bytes(b"x")).id == taken.id
        return True

    yield Reader(seeds=[seed], error=Damaged, take=take)


READERS = {
    "request": request_reader,
    "identity": identity_reader,
    "status": status_reader,
    "record": record_reader,
}


def _only_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    assert len(fields) == len(pairs), "a field that stands twice was taken"
    return fields


def _typed(fields: dict[str, object]) -> dict[str, tuple[type, object]]:
    """Return FIELDS so that 1, 1.0 and true differ."""
    return {key: (type(value), value) for key, value in fields.items()}
