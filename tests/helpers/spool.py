"""Ask for many images at once, without our programs: by the contract in spool/README.md."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

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
    identity = json.loads((store / "store.json").read_bytes())["id"]
    return {image: _ask(store, identity, user, image) for image in images}


def _ask(store: Path, identity: str, user: User, image: str) -> str:
    now = int(time.time())
    name = f"{now}-{user.uid}-{os.urandom(8).hex()}"
    request = {
        "v": 1,
        "store": identity,
        "name": name,
        "uid": user.uid,
        "time": now,
        "image": image,
        "platform": "linux/amd64",
    }
    status, written = store / "status" / name, store / "spool/tmp" / name
    status.mkdir()
    # Group: that of the directory around it, which is the worker's.
    os.chown(status, user.uid, -1)
    status.chmod(0o2770)
    written.write_text(json.dumps(request))
    os.chown(written, user.uid, -1)
    written.chmod(0o640)
    written.rename(store / "spool/new" / name)
    return name


def answer(store: Path, name: str) -> Answer:
    """Return what the newest status of the request NAME says."""
    newest = max((store / "status" / name).glob("*.json"))
    fields = json.loads(newest.read_bytes())
    return Answer(**{key: fields[key] for key in Answer.__dataclass_fields__})
