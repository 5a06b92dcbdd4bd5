"""Ask for many images at once, without our programs: by the contract in spool/README.md."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.users import User


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a request: the id of the image, or why there is none."""

    state: str
    image_id: str
    fact: str
    hint: str
    exit_code: int


def ask(store: Path, user: User, images: Iterable[str]) -> dict[str, str]:
    """Drop a request of USER's for each of IMAGES into STORE; return the requests' names."""
    identity = identity_of(store)
    asked = {image: write(store, identity, user.uid, image) for image in images}
    for name in asked.values():
        submit(store, name)
    return asked


def identity_of(store: Path) -> str:
    """Return the id of STORE."""
    identity: str = json.loads((store / "store.json").read_bytes())["id"]
    return identity


def write(store: Path, identity: str, uid: int, image: str) -> str:
    """Write a request of UID's for IMAGE, with its status directory; return its name."""
    now = int(time.time())
    name = f"{now}-{uid}-{os.urandom(8).hex()}"
    request = {
        "v": 1,
        "store": identity,
        "name": name,
        "uid": uid,
        "time": now,
        "image": image,
        "platform": "linux/amd64",
    }
    status, written = store / "status" / name, store / "spool/tmp" / name
    status.mkdir()
    # The group stays the worker's.
    os.chown(status, uid, -1)
    status.chmod(0o2770)
    written.write_text(json.dumps(request))
    os.chown(written, uid, -1)
    written.chmod(0o640)
    return name


def submit(store: Path, name: str) -> None:
    """Submit the written request NAME."""
    os.rename(store / "spool/tmp" / name, store / "spool/new" / name)


def answer(store: Path, name: str) -> Answer:
    """Return what the newest status of the request NAME says."""
    fields = statuses(store, name)[-1]
    return Answer(**{key: fields[key] for key in Answer.__dataclass_fields__})


def statuses(store: Path, name: str) -> list[dict[str, Any]]:
    """Return the statuses of the request NAME that are still there, the newest last."""
    while True:
        found = sorted((store / "status" / name).glob("*.json"))
        # What was listed may be gone: newer ones have come.
        with suppress(FileNotFoundError):
            return [json.loads(path.read_bytes()) for path in found]


def lying(store: Path, state: str) -> list[str]:
    """Return the names of the requests, or claims, that are in STATE, a directory of the spool."""
    place = store / "spool" / state
    if state in ("done", "failed"):
        return sorted(name for day in os.listdir(place) for name in os.listdir(place / day))
    return sorted(os.listdir(place))
