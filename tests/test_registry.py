"""A registry may do what it likes: what comes is right, or an error of the right kind, in time."""

import gzip
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from email.utils import formatdate
from typing import Any

import pytest

from shifter_lite.build.manifest import Descriptor
from shifter_lite.build.registry import Registry
from shifter_lite.build.wire.patience import Patience
from shifter_lite.errors import (
    BadImage,
    BadReference,
    Denied,
    NotFound,
    RegistryBusy,
    ShifterError,
)
from shifter_lite.reference import Reference
from tests.helpers import faulty, images
from tests.helpers.faulty import Answer, Body, Cut, Drip, Header, Raw, Redirect, Stall

QUICK = Patience(
    connect=2.0,
    header=0.35,
    silence=0.35,
    attempts=3,
    first_pause=0.01,
    longest_pause=2.0,
    total=6.0,
)
# What nothing may take, whatever the registry does: three attempts, with room to spare.
SOON = 8.0
DATA = os.urandom(300_000)
IMAGE = images.image(
    [images.layer([images.file("big", DATA)]), images.layer([images.file("small", b"x")])]
)
LAYER: str = IMAGE.content["layers"][0]["digest"]
CONFIG: str = IMAGE.content["config"]["digest"]


@pytest.fixture
def served(faulty_registry: faulty.Registry) -> faulty.Registry:
    """A registry that has the image ``x:1``."""
    faulty_registry.add("x", "1", IMAGE)
    return faulty_registry


def client(served: faulty.Registry, name: str = "x:1", **more: Any) -> Registry:
    return Registry(Reference.parse(f"{served.address}/{name}"), patience=QUICK, **more)


def pull(served: faulty.Registry, name: str = "x:1", **more: Any) -> dict[str, bytes]:
    """Return all that the registry has of the image NAME, by digest; where it is not all, fail."""
    registry = client(served, name, **more)
    manifest = registry.manifest("linux/amd64")
    registry.config(manifest)
    return {each.digest: read_all(registry, each) for each in (manifest.config, *manifest.layers)}


def read_all(registry: Registry, descriptor: Descriptor, start: int = 0) -> bytes:
    with registry.blob(descriptor, start) as read:
        return b"".join(iter(lambda: read(50_000), b""))


def layer_of(size: int = 0, digest: str = LAYER) -> Descriptor:
    return Descriptor("application/x", digest, size or len(IMAGE.blobs[digest]))


def refused(served: faulty.Registry, kind: type[ShifterError], *words: str) -> ShifterError:
    """Check that pulling ends soon, with an error of KIND that holds WORDS."""
    started = time.monotonic()
    with pytest.raises(ShifterError) as caught:
        pull(served)
    assert time.monotonic() - started < SOON
    assert type(caught.value) is kind, caught.value
    for word in words:
        assert word in str(caught.value)
    assert caught.value.hint
    return caught.value


def test_what_is_right_is_right(served: faulty.Registry) -> None:
    assert pull(served) == IMAGE.blobs


# -------------------------------------------------------------------------- what passes by itself


ONCE = {
    "429": Answer(429),
    "429 with a pause": Answer(429, headers={"Retry-After": "0"}),
    "500": Answer(500),
    "502": Answer(502, b"<html>"),
    "503": Answer(503),
    "504": Answer(504),
    "503 with a date": Answer(503, headers={"Retry-After": formatdate(time.time(), usegmt=True)}),
    "503 with a date long past": Answer(503, headers={"Retry-After": formatdate(0)}),
    "503 with a pause below nothing": Answer(503, headers={"Retry-After": "-5"}),
    "503 with a pause of ages": Answer(503, headers={"Retry-After": "9" * 400}),
    "503 with a pause of nonsense": Answer(503, headers={"Retry-After": "soon, \xb2"}),
    "408": Answer(408),
    "524 of something on the way": Answer(524),
    "hangs up": Raw(b""),
    "resets": Raw(b"", "reset"),
    "hangs up in the head": Raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "resets in the head": Raw(b"HTTP/1.1 200 OK\r\nContent-Le", "reset"),
    "resets in the body": Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", "reset"),
    "silent before the head": Raw(b"", "stall"),
    "silent in the head": Raw(b"HTTP/1.1 200 OK\r\nConten", "stall"),
    "a dripping head": Raw(b"HTTP/1.1 200 OK\r\nX: ", "drip"),
    "head after head": Raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 99, "stall"),
    "cut in the body": Cut(10),
    "silent in the body": Stall(10),
    "a dripping body": Drip(10),
    "chunks cut": Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n"),
    "chunks broken": Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n"),
    "the size of a chunk drips": Raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", "drip"
    ),
    "a length too long": Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n{body}"),
}


@pytest.mark.parametrize("what", ["1", LAYER, CONFIG], ids=["manifest", "layer", "config"])
@pytest.mark.parametrize("fault", ONCE.values(), ids=ONCE.keys())
def test_what_goes_wrong_once_is_asked_again(
    served: faulty.Registry, fault: faulty.Fault, what: str
) -> None:
    served.fault(what, fault, times=1)
    assert pull(served) == IMAGE.blobs


@pytest.mark.parametrize("what", ["1", LAYER], ids=["manifest", "layer"])
@pytest.mark.parametrize(
    "fault",
    [
        Answer(429),
        Answer(503),
        Raw(b""),
        Raw(b"", "reset"),
        Raw(b"", "stall"),
        Raw(b"HTTP/1.1 200 OK\r\nX: ", "drip"),
        Stall(10),
        Drip(10, 0.05),
        Cut(10),
        ONCE["chunks broken"],
    ],
    ids=str,
)
def test_what_goes_wrong_for_ever_is_busy_and_in_time(
    served: faulty.Registry, fault: faulty.Fault, what: str
) -> None:
    served.fault(what, fault)
    refused(served, RegistryBusy, f"'{served.address}'")
    assert 2 <= len(served.asked(what)) <= 3


def test_a_pause_that_is_too_long_is_told_and_not_waited_for(served: faulty.Registry) -> None:
    served.fault("1", Answer(429, headers={"Retry-After": "3600"}))
    error = refused(served, RegistryBusy, "429 Too Many Requests")
    assert error.hint == "it asks for a pause of 60 minutes"
    assert len(served.asked("1")) == 1


def test_a_pause_that_can_be_waited_for_is_waited_for(served: faulty.Registry) -> None:
    served.fault("1", Answer(429, headers={"Retry-After": "1"}), times=1)
    started = time.monotonic()
    assert pull(served) == IMAGE.blobs
    assert time.monotonic() - started >= 1


def test_the_code_of_an_error_is_told_and_none_of_its_words(served: faulty.Registry) -> None:
    document = {"errors": [{"code": "TOOMANYREQUESTS", "message": "\x1b[2J secret token"}]}
    served.fault("1", Raw(b"HTTP/1.1 429 \x1b[2J secret\r\n\r\n" + json.dumps(document).encode()))
    error = refused(served, RegistryBusy, "429 Too Many Requests (TOOMANYREQUESTS)")
    assert "secret" not in str(error)
    assert "\x1b" not in str(error)


# ------------------------------------------------------------------------------- going on in blobs


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("start", [0, 1, 100_000, 299_999])
def test_a_blob_comes_from_any_byte_on(served: faulty.Registry, start: int, ranges: bool) -> None:
    served.ranges = ranges
    assert read_all(client(served), layer_of(), start) == IMAGE.blobs[LAYER][start:]


@pytest.mark.parametrize("more", [0, 1])
def test_of_a_blob_that_is_all_here_nothing_is_asked_for(
    served: faulty.Registry, more: int
) -> None:
    assert read_all(client(served), layer_of(), len(IMAGE.blobs[LAYER]) + more) == b""
    assert served.requests == []


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(
    "fault",
    [Cut(90_000), Stall(90_000), Drip(90_000), Raw(b"HTTP/1.0 200 OK\r\n\r\n{body}")],
    ids=str,
)
def test_a_blob_that_breaks_off_goes_on_where_it_was(
    served: faulty.Registry, fault: faulty.Fault, ranges: bool
) -> None:
    served.ranges = ranges
    served.fault(LAYER, fault, times=1)
    assert read_all(client(served), layer_of()) == IMAGE.blobs[LAYER]


def test_a_blob_that_breaks_off_again_and_again_comes_while_it_moves(
    served: faulty.Registry,
) -> None:
    served.fault(LAYER, Cut(70_000), times=4)
    assert read_all(client(served), layer_of()) == IMAGE.blobs[LAYER]
    assert len(served.asked(LAYER)) == 5


def test_a_blob_of_which_no_more_comes_is_given_up(served: faulty.Registry) -> None:
    served.fault(LAYER, Cut(1_000))
    with pytest.raises(RegistryBusy, match="the connection was cut"):
        read_all(client(served), layer_of())
    assert len(served.asked(LAYER)) == 3


def raw(head: str, body: bytes = b"{body}") -> Raw:
    return Raw(f"HTTP/1.1 {head}\r\nConnection: close\r\n\r\n".encode() + body)


BLOB = IMAGE.blobs[LAYER]
SIZE = len(BLOB)
LYING = {
    "a part that nobody asked for": raw(
        f"206 Partial Content\r\nContent-Range: bytes 5-{SIZE - 1}/{SIZE}", BLOB[5:]
    ),
    "a part from elsewhere": raw(
        f"206 Partial Content\r\nContent-Range: bytes 200000-{SIZE - 1}/{SIZE}", BLOB[200_000:]
    ),
    "a part without a place": raw("206 Partial Content", BLOB[5:]),
    "a part with a place of nonsense": raw("206 Partial Content\r\nContent-Range: lines 1-2/3"),
    "no such part": raw(f"416 Range Not Satisfiable\r\nContent-Range: bytes */{SIZE}", b""),
}


@pytest.mark.parametrize("fault", LYING.values(), ids=LYING.keys())
def test_a_registry_that_lies_about_parts_is_asked_for_the_whole(
    served: faulty.Registry, fault: faulty.Fault
) -> None:
    served.fault(LAYER, fault, times=1)
    assert read_all(client(served), layer_of(), 100_000) == BLOB[100_000:]


@pytest.mark.parametrize("fault", list(LYING.values())[:4], ids=list(LYING)[:4])
def test_a_registry_that_always_lies_about_parts_is_busy(
    served: faulty.Registry, fault: faulty.Fault
) -> None:
    served.fault(LAYER, fault)
    with pytest.raises(RegistryBusy, match="another part"):
        read_all(client(served), layer_of(), 0)


@pytest.mark.parametrize("start", [0, 1000])
def test_a_part_that_begins_too_early_or_ends_too_early_will_do(
    served: faulty.Registry, start: int
) -> None:
    part = f"206 Partial Content\r\nContent-Range: bytes {start // 2}-149999/{SIZE}"
    part += f"\r\nContent-Length: {150_000 - start // 2}"
    served.fault(LAYER, raw(part, BLOB[start // 2 : 150_000]), times=1)
    assert read_all(client(served), layer_of(), start) == BLOB[start:]


def test_a_part_of_a_blob_of_another_size_is_refused(served: faulty.Registry) -> None:
    served.fault(LAYER, raw(f"206 Partial Content\r\nContent-Range: bytes 9-9/{SIZE + 1}", b"x"))
    with pytest.raises(BadImage, match=f"the wrong size: not {SIZE} bytes"):
        read_all(client(served), layer_of(), 9)


@pytest.mark.parametrize(
    "fault", [Body(BLOB[:50]), raw("200 OK", BLOB[:50]), raw("200 OK\r\nContent-Length: 50")]
)
@pytest.mark.parametrize("ranges", [True, False])
def test_a_blob_that_is_too_short_ends_there(
    served: faulty.Registry, fault: faulty.Fault, ranges: bool
) -> None:
    served.ranges = ranges
    served.fault(LAYER, fault)
    assert read_all(client(served), layer_of()) == BLOB[:50]


def test_a_blob_that_is_too_long_is_read_on_for_its_reader_to_see(
    served: faulty.Registry,
) -> None:
    served.fault(LAYER, Body(BLOB + b"more"))
    assert read_all(client(served), layer_of()) == BLOB + b"more"


def test_a_blob_with_the_wrong_length_is_whole_when_all_of_it_is_here(
    served: faulty.Registry,
) -> None:
    served.fault(LAYER, raw(f"200 OK\r\nContent-Length: {SIZE + 7}"))
    assert read_all(client(served), layer_of()) == BLOB
    assert len(served.asked(LAYER)) == 1


def test_a_blob_that_the_registry_lacks_is_no_unknown_image(served: faulty.Registry) -> None:
    for answer in (Answer(404), Answer(404, b"{}"), Answer(410)):
        served.fault(LAYER, answer)
        refused(served, BadImage, "has no blob", LAYER)


def test_who_gives_up_is_not_kept_waiting(served: faulty.Registry) -> None:
    for fault in (Stall(1000), Raw(b"", "stall"), Answer(503, headers={"Retry-After": "2"})):
        served.fault(LAYER, fault)
        registry = client(served)
        registry.manifest("linux/amd64")
        timer = threading.Timer(0.2, registry.abort)
        timer.start()
        started = time.monotonic()
        with pytest.raises(RegistryBusy):
            read_all(registry, layer_of())
        assert time.monotonic() - started < 0.6
        timer.join()


def test_no_more_connections_than_allowed_are_made(served: faulty.Registry) -> None:
    registry = client(served)
    assert registry.connections == 4
    served.fault(LAYER, Stall(1000, 0.3), times=4)
    threads = [threading.Thread(target=read_all, args=(registry, layer_of())) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    assert len(served.asked(LAYER)) == 4
    for thread in threads:
        thread.join()
    assert len(served.asked(LAYER)) == 12


# ---------------------------------------------------------------------------- packed on the way


def packed(body: bytes, *more: str) -> Raw:
    head = "\r\n".join(("200 OK", "Content-Encoding: gzip", *more))
    return raw(head, gzip.compress(body))


@pytest.mark.parametrize("length", [True, False])
def test_what_something_packs_on_the_way_is_unpacked(served: faulty.Registry, length: bool) -> None:
    for what, right in (("1", IMAGE.document), (LAYER, BLOB), (CONFIG, IMAGE.blobs[CONFIG])):
        size = f"Content-Length: {len(gzip.compress(right))}"
        served.fault(what, packed(right, *[size] * length))
    assert pull(served) == IMAGE.blobs


def test_what_is_only_called_packed_is_left_as_it_is(served: faulty.Registry) -> None:
    for what in ("1", LAYER, CONFIG):
        served.fault(what, Header("Content-Encoding", "gzip"))
    assert pull(served) == IMAGE.blobs


def test_what_is_packed_and_cut_goes_on_without_parts(served: faulty.Registry) -> None:
    data = gzip.compress(BLOB)
    head = f"200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(data)}"
    served.fault(LAYER, raw(head, data[:150_000]), times=1)
    assert read_all(client(served), layer_of()) == BLOB
    head = "200 OK\r\nContent-Encoding: gzip"
    served.fault(LAYER, raw(head, data[:150_000]))
    with pytest.raises(RegistryBusy, match="cut"):
        read_all(client(served), layer_of())


def test_what_is_packed_to_burst_is_refused(served: faulty.Registry) -> None:
    served.fault("1", packed(bytes(50_000_000)))
    refused(served, BadImage, "more than")


# ------------------------------------------------------------------------------------- redirects


@pytest.fixture
def store(faulty_registry: faulty.Registry) -> Iterator[faulty.Registry]:
    """Where the registry keeps its blobs: another host, which takes our token for an attack."""
    with faulty.serving() as other:
        other.add("x", "1", IMAGE)
        other.refuses_authorization = True
        yield other


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_without_our_token(
    served: faulty.Registry, store: faulty.Registry, status: int
) -> None:
    served.auth = faulty.Token()
    for digest in IMAGE.blobs:
        served.fault(digest, Redirect(store.address, status))
    assert pull(served) == IMAGE.blobs
    assert {asked.authorization for asked in store.requests} == {""}


def test_nobodys_netrc_is_read_wherever_a_redirect_leads(
    served: faulty.Registry,
    store: faulty.Registry,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    (tmp_path / "netrc").write_text("default login joe password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    served.auth = faulty.Token()
    for digest in IMAGE.blobs:
        served.fault(digest, Redirect(store.address))
    assert pull(served) == IMAGE.blobs
    given = {asked.authorization.partition(" ")[0] for asked in served.requests + store.requests}
    assert given == {"", "Bearer"}


def test_a_redirect_on_the_same_host_keeps_the_token(served: faulty.Registry) -> None:
    served.auth = faulty.Token()
    elsewhere = {"Location": f"/v2/x/blobs/{LAYER}?again"}
    served.fault(LAYER, Answer(307, headers=elsewhere), times=1)
    assert pull(served) == IMAGE.blobs
    assert served.requests[-2].authorization.startswith("Bearer ")


def test_a_token_does_not_go_to_another_port(served: faulty.Registry) -> None:
    served.auth = faulty.Token()
    with faulty.serving() as other:
        other.add("x", "1", IMAGE)
        for digest in IMAGE.blobs:
            served.fault(digest, Redirect(other.address.replace("localhost", "LOCALHOST")))
        assert pull(served) == IMAGE.blobs
        assert {asked.authorization for asked in other.requests} == {""}


@pytest.mark.parametrize("status", [401, 403])
def test_an_address_of_the_store_that_has_expired_is_asked_for_again(
    served: faulty.Registry, store: faulty.Registry, status: int
) -> None:
    served.fault(LAYER, Redirect(store.address))
    store.fault(LAYER, Answer(status, b"<Error>Request has expired</Error>"), times=2)
    assert pull(served) == IMAGE.blobs
    assert len(served.asked(LAYER)) == 3


FOUND = (
    Answer(403, b'{"errors":[{"code":"SECRET"}]}'),
    Answer(404),
    Answer(400, b"an internal page"),
    Answer(418),
    Answer(503, headers={"Retry-After": "86399"}),
    Answer(401, headers={"WWW-Authenticate": 'Basic realm="internal"'}),
    Raw(b"SSH-2.0-internal\r\n"),
    Raw(b"", "reset"),
)


def test_what_is_found_at_another_host_is_not_told_to_the_user(
    served: faulty.Registry, store: faulty.Registry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    served.fault(LAYER, Redirect(store.address))
    told = set()
    for answer in FOUND:
        store.fault(LAYER, answer)
        error = refused(served, RegistryBusy, f"leads to {store.address!r}")
        told.add(f"{error} {error.hint}")
    # An open port, a closed one, a page and none: all the same.
    served.fault(LAYER, Answer(307, headers={"Location": "http://localhost:1/x"}))
    error = refused(served, RegistryBusy, "leads to 'localhost:1'")
    told.add(f"{error} {error.hint}".replace("localhost:1'", f"{store.address}'"))
    (words,) = (each.replace(store.address, "HOST").replace(served.address, "") for each in told)
    assert not re.search("40[0-9]|503|SECRET|internal|refused|login", words)
    # The administrator reads why.
    reasons = [str(vars(each)["fields"]["reason"]) for each in caplog.records]
    assert "403 Forbidden (SECRET)" in reasons
    assert any("refused" in reason for reason in reasons)


PAGES = (
    b"<html>internal",
    b"internal: secret",
    b'{"mediaType": "application/vnd.internal"}',
    b'{"schemaVersion": 1, "internal": 1}',
    b'{"layers": "internal"',
    b"",
)


def test_no_page_of_another_host_is_described_to_the_user(
    served: faulty.Registry, store: faulty.Registry
) -> None:
    served.fault("1", Redirect(store.address))
    told = set()
    for page in PAGES:
        headers = {"Content-Type": "application/vnd.internal"}
        store.fault("1", Answer(200, page, headers))
        told.add(str(refused(served, RegistryBusy, f"leads to {store.address!r}")))
    assert len(told) == 1


# As skopeo and containerd send them; what no line of a request may hold is escaped.
ADDRESSES = {
    b"/b%7E?sig=a%7E%2D": b"/b%7E?sig=a%7E%2D",
    b"/b?sig=a%2fb%3d": b"/b?sig=a%2fb%3d",
    b"/b?se=1|2^3`{4}": b"/b?se=1|2^3`{4}",
    b'/b?cd=attachment;filename="x"': b'/b?cd=attachment;filename="x"',
    b"/b?sig=100%": b"/b?sig=100%",
    b"/b?": b"/b?",
    b"/b?#part": b"/b?",
    b"/a/../b/./c//d": b"/a/../b/./c//d",
    "/\u00e9?\u00fc".encode(): b"/%C3%A9?%C3%BC",
    b"/\xe9": b"/%E9",
    b"/a b": b"/a%20b",
    b"/b<\\>": b"/b<\\>",
    b"": b"/",
    b"?x=%7e": b"/?x=%7e",
}


@pytest.mark.parametrize(("location", "wanted"), ADDRESSES.items())
def test_the_address_of_a_redirect_is_asked_for_as_it_was_received(
    served: faulty.Registry, store: faulty.Registry, location: bytes, wanted: bytes
) -> None:
    address = f"HTTP/1.1 307 X\r\nContent-Length: 0\r\nLocation: http://{store.address}".encode()
    served.fault(LAYER, Raw(address + location + b"\r\n\r\n"))
    refused(served, RegistryBusy, "leads to")
    assert store.requests[0].path.encode() == wanted


@pytest.mark.parametrize(
    ("location", "wanted"),
    [
        ("/x%7E?y", "/x%7E?y"),
        ("?y=%2f", "/v2/x/blobs/{layer}?y=%2f"),
        ("z%7e", "/v2/x/blobs/z%7e"),
        ("../z/./q?", "/v2/x/z/q?"),
    ],
)
def test_an_address_that_is_relative_is_completed_and_not_rewritten(
    served: faulty.Registry, location: str, wanted: str
) -> None:
    served.fault(LAYER, Answer(307, headers={"Location": location}), times=1)
    with suppress(ShifterError):
        read_all(client(served), layer_of())
    assert served.requests[1].path == wanted.replace("{layer}", LAYER)


MANY = b"".join(b"X-Debug-%d: %s\r\n" % (n, b"y" * (n % 50)) for n in range(3000))


@pytest.mark.parametrize(
    "more",
    [
        MANY,
        b"".join(b"Set-Cookie: a%d=b\r\n" % n for n in range(101)),
        b"X-Long: " + b"y" * 200_000 + b"\r\n",
        b"X-Folded: y\r\n content-length: 1\r\n\tContent-Encoding: gzip\r\n" * 60,
        b"X-Long: " + b"y" * 65_529 + b"Content-Length: 1\r\n",
    ],
    ids=["many", "cookies", "long", "folded", "cut where a line would begin"],
)
def test_what_others_write_into_a_head_is_not_read(served: faulty.Registry, more: bytes) -> None:
    for what in ("1", *IMAGE.blobs):
        size = len(IMAGE.document if what == "1" else IMAGE.blobs[what])
        kind = f"Content-Type: {IMAGE.media_type}" if what == "1" else "X: y"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n{kind}\r\n".encode()
        served.fault(what, Raw(head + more + b"\r\n{body}"))
    assert pull(served) == IMAGE.blobs


BY_RULE = {
    400: "NAME_INVALID",
    402: "PAYMENT_REQUIRED",
    409: "BLOCKED_2",
    412: "PROJECTPOLICYVIOLATION",
    422: "SCAN_PENDING",
}


@pytest.mark.parametrize(("status", "code"), BY_RULE.items())
def test_a_registry_that_refuses_by_a_rule_denies_in_its_own_code(
    served: faulty.Registry, status: int, code: str
) -> None:
    said = {"errors": [{"code": code, "message": "your secret is 42"}]}
    served.fault("1", Answer(status, json.dumps(said).encode()))
    error = refused(served, Denied, f"{status} ", f"({code})")
    assert "is it a registry" not in error.hint
    assert "secret" not in f"{error} {error.hint}"


@pytest.mark.parametrize("status", [402, 412, 423])
def test_what_only_a_rule_can_mean_denies_in_whatever_words(
    served: faulty.Registry, status: int
) -> None:
    served.fault("1", Answer(status, b"<html>pay first"))
    refused(served, Denied, str(status))


def test_what_is_no_registrys_error_is_asked_whether_it_is_one(served: faulty.Registry) -> None:
    for said in (b"", b"no", b'{"errors": []}', b'{"errors": 5}', b"[" * 60_000, b'{"code": "A"}'):
        served.fault("1", Answer(400, said))
        assert "is it a registry" in refused(served, BadImage, "400").hint


def test_a_proxy_that_wants_a_login_is_not_the_registry(served: faulty.Registry) -> None:
    served.fault("1", Answer(407, b"who are you?"))
    assert "proxy" in refused(served, Denied, "the proxy answered 407").hint


def test_a_store_that_breaks_off_is_gone_on_with_by_the_registry(
    served: faulty.Registry, store: faulty.Registry
) -> None:
    served.fault(LAYER, Redirect(store.address))
    store.fault(LAYER, Cut(100_000), times=1)
    assert pull(served) == IMAGE.blobs
    assert len(served.asked(LAYER)) == len(store.asked(LAYER)) == 2


@pytest.mark.parametrize(
    ("location", "words"),
    [
        (None, "to nowhere"),
        ("", "to nowhere"),
        ("http://", ""),
        ("http://[::1/x", "to nowhere"),
        ("http://localhost:99999/x", "to nowhere"),
        ("http://localhost:0/x", "to nowhere"),
        ("http://joe:secret@localhost/x", "to nowhere"),
        ("file:///etc/passwd", "'file'"),
        ("ftp://localhost/x", "'ftp'"),
        ("javascript:alert(1)", "'javascri'"),
        ("/v2/x/manifests/1", "without end"),
        ("?again", "without end"),
    ],
)
def test_a_redirect_to_where_nobody_should_go_is_not_followed(
    served: faulty.Registry, location: str | None, words: str
) -> None:
    headers = {} if location is None else {"Location": location}
    served.fault("1", Answer(302, headers=headers))
    error = refused(served, RegistryBusy, words)
    assert "secret" not in str(error)


def test_nobody_waits_for_what_comes_with_a_redirect(served: faulty.Registry) -> None:
    path = f"/v2/x/blobs/{LAYER}?again"
    head = f"HTTP/1.1 307 X\r\nLocation: {path}\r\nContent-Length: 9999\r\n\r\n"
    served.fault(LAYER, Raw(head.encode(), "stall"), times=1)
    started = time.monotonic()
    assert pull(served) == IMAGE.blobs
    assert time.monotonic() - started < QUICK.silence


def test_a_redirect_may_have_any_letters_in_it(served: faulty.Registry) -> None:
    path = f"/v2/x/blobs/{LAYER}"
    for odd in ("caf\xc3\xa9 %zz", "a b", "%C3%A9"):
        served.fault(LAYER, Answer(307, headers={"Location": f"{path}?{odd}"}), times=1)
        assert pull(served) == IMAGE.blobs


# ---------------------------------------------------------------------------------- what is wrong


NONSENSE = {
    "a web page": Answer(200, b"<html>Log in</html>", {"Content-Type": "text/html; charset=x"}),
    "a web page of another type": Answer(200, b"\n<!DOCTYPE html>"),
    "204": Answer(204),
    "201": Answer(201, b"{}"),
    "206": raw(f"206 Partial Content\r\nContent-Range: bytes 0-1/{SIZE}", b"{}"),
    "304": Answer(304),
    "300": Answer(300, headers={"Location": "/x"}),
    "501": Answer(501),
    "505": Answer(505),
    "599": Answer(599),
    "no HTTP": Raw(b"SSH-2.0-OpenSSH_9.2p1\r\n"),
    "HTTP/0.9": Raw(b"{body}"),
    "a status that is no number": Raw(b"HTTP/1.1 xyz OK\r\n\r\n"),
    "a line without end": Raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 99_999),
    "headers without end": Raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200_000 + b"\r\n"),
    "two lengths": Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
}


@pytest.mark.parametrize("fault", NONSENSE.values(), ids=NONSENSE.keys())
def test_what_is_no_answer_of_a_registry_is_busy_and_not_asked_for_long(
    served: faulty.Registry, fault: faulty.Fault
) -> None:
    served.fault("1", fault)
    refused(served, RegistryBusy, served.address)


@pytest.mark.parametrize("status", [400, 405, 406, 418])
def test_a_registry_that_does_not_understand_us_is_no_busy_one(
    served: faulty.Registry, status: int
) -> None:
    served.fault("1", Answer(status))
    refused(served, BadImage, str(status))


@pytest.mark.parametrize("answer", [Answer(404), Answer(404, b'{"errors": []}'), Answer(410)])
def test_an_image_that_is_not_there_is_not_found(served: faulty.Registry, answer: Answer) -> None:
    served.fault("1", answer)
    refused(served, NotFound, f"'{served.address}/x:1'")


@pytest.mark.parametrize("status", [401, 403, 451])
def test_a_registry_that_does_not_let_us_denies(served: faulty.Registry, status: int) -> None:
    served.fault("1", Answer(status))
    refused(served, Denied, str(status))
    assert len(served.requests) == 1


@pytest.mark.parametrize(
    ("head", "right"),
    [
        ("HTTP/1.0 200 OK\r\n\r\n", True),
        ("HTTP/1.0 200 OK\r\nContent-Length: {size}\r\n\r\n", True),
        ("HTTP/1.1 200 \r\nConnection: close\r\n\r\n", True),
        ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\nConnection: close\r\n\r\n", True),
        ("HTTP/1.1 200 OK\r\nContent-Length: {size}, {size}\r\n\r\n", True),
        ("HTTP/1.1 200 OK\r\nno header at all\r\nConnection: close\r\n\r\n", True),
        ("HTTP/1.1 200 OK\r\nX: \x00\xff\r\nConnection: close\r\n\r\n", True),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\n", True),
    ],
)
def test_an_old_or_an_odd_server_will_do(served: faulty.Registry, head: str, right: bool) -> None:
    for what, body in (("1", IMAGE.document), *IMAGE.blobs.items()):
        text = head.replace("{size}", str(len(body)))
        served.fault(what, Raw(text.encode("latin-1") + b"{body}"))
    assert (pull(served) == IMAGE.blobs) is right


DOCUMENT = IMAGE.content
OTHER = images.image([])


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"\xef\xbb\xbf" + IMAGE.document, "not JSON"),
        (IMAGE.document.decode().encode("utf-16"), "not JSON"),
        (b'{"a": "\xff"}', "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
        (b'{"schemaVersion": NaN}', "NaN is no number"),
        (b'{"schemaVersion": -Infinity}', "-Infinity is no number"),
        (b'{"size": ' + b"9" * 5000 + b"}", "not JSON"),
        (b" " * (5 << 20), "more than"),
        (images.encode({**DOCUMENT, "mediaType": 5}), "is no text"),
        (images.encode({**DOCUMENT, "mediaType": images.OCI_INDEX}), "has no 'layers'"),
        (images.encode({**DOCUMENT, "manifests": []}), "has no 'manifests'"),
        (images.encode({**DOCUMENT, "fsLayers": []}), "has no 'fsLayers'"),
        (images.encode({**DOCUMENT, "layers": {}}), "no list of layers"),
        (images.encode({**DOCUMENT, "layers": "none"}), "no list of layers"),
        (images.encode({**DOCUMENT, "config": None}), "manifest's config"),
        (images.encode({"schemaVersion": 1}), "schema 1"),
        (images.encode({"mediaType": "application/x"}), "'application/x'"),
    ],
)
def test_a_document_that_is_no_manifest_is_refused(
    served: faulty.Registry, document: bytes, words: str
) -> None:
    served.fault("1", Answer(200, document, {"Content-Type": "application/json"}))
    refused(served, BadImage, words)


def test_the_last_of_two_equal_keys_counts_as_for_everybody_else(served: faulty.Registry) -> None:
    twice = b'{"layers": [], ' + IMAGE.document[1:]
    served.fault("1", Answer(200, twice, {"Content-Type": images.OCI_MANIFEST}))
    assert pull(served) == IMAGE.blobs


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/json; charset=utf-8"])
def test_a_registry_need_not_say_what_a_document_is(
    served: faulty.Registry, content_type: str
) -> None:
    served.fault("1", Header("Content-Type", content_type))
    assert pull(served) == IMAGE.blobs


def test_a_registry_may_not_call_a_manifest_an_index(served: faulty.Registry) -> None:
    served.fault("1", Header("Content-Type", images.OCI_INDEX))
    refused(served, BadImage, "the registry calls")


def test_the_wrong_bytes_are_refused(served: faulty.Registry) -> None:
    served.fault("1", Header("Docker-Content-Digest", images.sha256(b"")))
    refused(served, BadImage, "wrong digest")
    served.heal()
    served.fault(IMAGE.digest, Body(OTHER.document))
    with pytest.raises(BadImage, match="wrong digest"):
        pull(served, f"x@{IMAGE.digest}")
    served.heal()
    served.fault(CONFIG, Body(bytes(len(IMAGE.blobs[CONFIG]))))
    refused(served, BadImage, "config has the wrong digest")


@pytest.mark.parametrize("promised", ["", "sha512:00", "nonsense"])
def test_a_promise_that_we_cannot_read_is_none(served: faulty.Registry, promised: str) -> None:
    served.fault("1", Header("Docker-Content-Digest", promised))
    assert pull(served) == IMAGE.blobs


@pytest.mark.parametrize("port", ["99999", "65536", "0", "18446744073709551617"])
def test_a_port_that_is_none_is_a_bad_name(port: str) -> None:
    with pytest.raises(BadReference, match=f"'localhost:{port}'"):
        Registry(Reference.parse(f"localhost:{port}/x"))


def test_an_address_that_is_none_is_a_bad_name() -> None:
    with pytest.raises(BadReference, match="proper address"):
        Registry(Reference.parse("[:::]/x"))


@pytest.mark.parametrize(
    ("domain", "words"),
    [
        ("localhost:1", "Connection refused"),
        ("no-such-host.invalid", "no such host"),
        ("a" * 70 + ".org", "no such host"),
        ("my_registry.invalid", "no such host"),
    ],
)
def test_a_registry_that_is_not_there_is_busy(domain: str, words: str) -> None:
    registry = Registry(Reference.parse(f"{domain}/x"), patience=QUICK)
    with pytest.raises(RegistryBusy, match=words) as caught:
        registry.manifest("linux/amd64")
    assert f"'{domain}'" in str(caught.value)


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("http://joe:secret@127.0.0.1:9", "Connection refused"),
        ("http://joe:secret@", "no http proxy"),
        ("joe:secret@", "no http proxy"),
        ("socks5://joe:secret@127.0.0.1:9", "no http proxy"),
        ("http://joe:secret@127.0.0.1:99999", "no http proxy"),
    ],
)
def test_a_proxy_that_does_not_answer_is_busy_and_its_password_a_secret(
    monkeypatch: pytest.MonkeyPatch, proxy: str, words: str
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, proxy)
    registry = Registry(Reference.parse("registry.invalid/x"), patience=QUICK)
    with pytest.raises(RegistryBusy, match=words) as caught:
        registry.manifest("linux/amd64")
    assert "prox" in caught.value.hint
    assert "secret" not in str(caught.value) + caught.value.hint


def test_what_needs_no_proxy_is_asked_without(
    served: faulty.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert pull(served) == IMAGE.blobs
