"""What must hold of a store, whatever became of those who worked on it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

from shifter_lite import keys
from shifter_lite.index import resolve
from shifter_lite.layout import Layout
from shifter_lite.queue import status
from shifter_lite.records import Entry, Image
from shifter_lite.request import Status, request_uid

# All that may lie in a store that nobody works on, and in which nobody waits.
_SETTLED = re.compile(
    r"store\.json|spool/(done|failed)/\d{8}/[^/.]+|images/[0-9a-f]{2}/[0-9a-f]{64}\.(squashfs|json)"
    r"|index/images\.\d{10}\.cdb|cache/blobs/[0-9a-f]{2}/[0-9a-f]{64}(\.toc)?"
    r"|confirmed/[0-9a-f]{32}|locks/publish\.lock|locks/blob\.[0-9a-f]{3}\.lock"
)


def names(store: Path) -> dict[str, str]:
    """Return what is visible in STORE, names to ids of images: none of them is half.

    That holds for every generation of the index, and for images that none names.
    """
    found: dict[str, str] = {}
    for path in sorted((store / "index").glob("images.*.cdb")):
        found = _generation(store, path)
    for path in (store / "images").glob("??/*.squashfs"):
        with path.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == path.stem, path
    return found


def _is_for_all(path: Path) -> bool:
    """Return whether everybody may read the file PATH, and look into its directory."""
    return path.stat().st_mode & 0o044 == 0o044 and path.parent.stat().st_mode & 0o055 == 0o055


def _generation(store: Path, path: Path) -> dict[str, str]:
    number = int(path.name.split(".")[1])
    with path.open("rb") as file:
        index = resolve.Index(file.fileno(), number)
        assert dict(index.meta())["generation"] == str(number), path
        no_names = (resolve.META, keys.ALL_SAY_PLATFORMS)
        items = {key: value for key, value in index.items() if key not in no_names}
    layout, found = Layout(store), {}
    assert _is_for_all(path), path
    for key, value in items.items():
        entry = Entry.from_bytes(key, value)
        assert layout.image(entry.id).stat().st_size == entry.size, (path, key)
        assert _is_for_all(layout.image(entry.id)), (path, key)
        record = Image.from_bytes(layout.record(entry.id).read_bytes())
        assert (record.id, record.size) == (entry.id, entry.size), (path, key)
        found[key.decode()] = entry.id
    return found


def files(store: Path, below: str = "") -> set[str]:
    """Return all that lies in STORE, or only BELOW a directory of it, and is no directory."""
    return {
        str(Path(place, name).relative_to(store))
        for place, _, names in os.walk(store / below)
        for name in names
    }


def left_over(store: Path) -> set[str]:
    """Return the files in STORE that would not be there if nobody had ever been killed."""
    return {path for path in files(store) if not _SETTLED.fullmatch(path)}


def told(store: Path, request: str) -> Status:
    """Return what the owner of REQUEST reads of it."""
    return status.read(Layout(store), request, request_uid(request))


def answered(store: Path, request: str) -> str:
    """Return the id that REQUEST, all that was ever asked of STORE, was answered with.

    Nobody works on STORE any more; REQUEST's owner reads its status, and then nothing is left.
    """
    answer = told(store, request)
    (place,) = files(store, "spool")
    assert re.fullmatch(rf"spool/done/\d{{8}}/{request}", place), (place, answer)
    assert answer.state == "READY", answer
    status.forget(Layout(store), request)
    assert left_over(store) == set()
    return answer.image_id


def catalogued(store: Path, state: Path) -> dict[str, str]:
    """Return the names that the catalog of STORE in the directory STATE knows, with their ids."""
    identity = json.loads((store / "store.json").read_bytes())["id"]
    with closing(sqlite3.connect(state / f"shifter-lite/{identity}.sqlite")) as database:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert database.execute("pragma foreign_key_check").fetchall() == []
        return dict(database.execute("select name, image from names").fetchall())
