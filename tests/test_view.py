"""The administrator sees every request that is not answered yet, whatever it is."""

import json
import os
import time
from pathlib import Path

from tests.conftest import Runner
from tests.helpers import faulty
from tests.helpers.processes import running, until
from tests.test_asked import asked, stalling


def listed(site: Runner) -> list[dict[str, object]]:
    done = site("shifter-admin", "queue", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


def test_requests_are_listed_with_who_has_made_them_and_who_has_them(
    site: Runner, asker: Runner, faulty_registry: faulty.Registry
) -> None:
    assert listed(site) == []
    digest = stalling(faulty_registry, "slow")
    slow = asked(asker, f"{faulty_registry.address}/slow:1")
    with running(site, "shifter-worker", "run"):
        until(lambda: len(faulty_registry.asked(digest)) == 1)
        waits = asked(asker, "debian:12", "--platform", "linux/arm64")
        # Both may be of the same second, and then chance has their order.
        first, second = sorted(listed(site), key=lambda row: row["request"] != slow)
        lines = site("shifter-admin", "queue").stdout.splitlines()
    assert [first["request"], second["request"]] == [slow, waits]
    for row in (first, second):
        assert (row["user"], row["uid"]) == (asker.user.name, asker.user.uid)
        assert isinstance(row["age"], int)
        assert row["age"] >= 0
    assert (first["state"], second["state"]) == ("PULLING", "PENDING")
    assert str(first["worker"]).count(".") == 2
    assert second["worker"] is None
    assert (second["image"], second["platform"]) == ("docker.io/library/debian:12", "linux/arm64")
    words = sorted((line.split() for line in lines), key=lambda each: each[0] != slow)
    assert [each[:3] for each in words] == [
        [slow, asker.user.name, "PULLING"],
        [waits, asker.user.name, "PENDING"],
    ]
    assert words[0][4:6] == [first["worker"], f"{faulty_registry.address}/slow:1"]
    assert words[1][4:] == ["-", "docker.io/library/debian:12"]
    assert words[0][3].startswith("0-00:0")


def test_what_is_no_request_is_shown_by_its_name_and_owner_only(
    site: Runner, asker: Runner, tmp_path: Path
) -> None:
    good = asked(asker, "debian:12")
    new = site.store / "spool/new"
    (tmp_path / "secret").write_text("secret")
    names = iter([f"{int(time.time())}-4711-{number:016x}" for number in range(9)])
    (new / next(names)).symlink_to(tmp_path / "secret")
    os.mkfifo(new / next(names))
    (new / next(names)).mkdir()
    (new / next(names)).write_bytes(b"\0" * 100_000)
    (new / next(names)).write_bytes(b"[" * 60_000)
    moved = json.loads((new / good).read_bytes())
    (new / next(names)).write_text(json.dumps({**moved, "image": "\x1b[2J"}))
    (new / "\x1b[2J").write_text("x")
    (new / f"9999999999-4294967295-{0:016x}").write_text("x")
    found = listed(site)
    assert len(found) == 8
    assert [row["request"] for row in found if row["image"]] == [good]
    assert {row["uid"] for row in found} == {0, asker.user.uid}
    text = site("shifter-admin", "queue").stdout
    assert text.count("no request") == 7
    assert "secret" not in text
    assert "\x1b" not in text


def test_a_user_cannot_see_the_requests_of_all(site: Runner, asker: Runner) -> None:
    asked(asker, "debian:12")
    done = asker("shifter-admin", "queue")
    assert done.returncode == 77
    assert done.stdout == ""
