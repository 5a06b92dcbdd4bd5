"""Record images and pulls, and find them again.  The only module that uses sqlite_utils.

The database is never the truth: it lies on one service node's local disk, since
SQLite on a shared filesystem corrupts, and catches up from the store whenever
the index is ahead of it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlite_utils import Database

from shifter_lite.catalog import schema
from shifter_lite.errors import Damaged
from shifter_lite.records import Entry, Image
from shifter_lite.request import Request


class Catalog:
    """The catalog of one store, at one service node."""

    def __init__(self, path: Path) -> None:
        """Open the database at PATH, made anew if it is missing or of another version."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = path
        self._database = _open(path)

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self._database.close()

    @property
    def generation(self) -> int:
        """The newest generation of the index that the catalog knows all of."""
        return int(next(self._database.query("select generation from seen"))["generation"])

    def catch_up(
        self, generation: int, names: Iterable[tuple[str, Entry]], read: Callable[[str], Image]
    ) -> None:
        """Know NAMES, all that GENERATION of the index says; READ gives an image's record."""
        known = {row["id"] for row in self._database.query("select id from images")}
        rows = []
        for name, entry in names:
            if entry.id not in known:
                known.add(entry.id)
                self._insert(read(entry.id))
            rows.append({"name": name, "image": entry.id, "time": entry.time})
        with self._database.conn:
            schema.table(self._database, "names").delete_where()
            schema.table(self._database, "names").insert_all(rows)
            self._database.execute("update seen set generation = ?", (generation,))

    def add(self, generation: int, image: Image, names: Iterable[tuple[str, Entry]]) -> None:
        """Know IMAGE under NAMES, which is all that is new in GENERATION of the index."""
        self._insert(image)
        rows = [{"name": name, "image": e.id, "time": e.time} for name, e in names]
        with self._database.conn:
            schema.table(self._database, "names").upsert_all(rows, pk="name")
            self._database.execute("update seen set generation = ?", (generation,))

    def record_pulls(
        self, requests: Iterable[Request], image_id: str, when: int, *, built: bool
    ) -> None:
        """Know that REQUESTS were answered with IMAGE_ID at WHEN, BUILT for the first, or found."""
        rows = [
            {
                "request": request.name,
                "uid": request.uid,
                "name": str(request.image),
                "image": image_id,
                "time": when,
                "built": int(built and not number),
            }
            for number, request in enumerate(requests)
        ]
        schema.table(self._database, "pulls").upsert_all(rows, pk="request")

    def _insert(self, image: Image) -> None:
        content = image.content
        schema.table(self._database, "images").upsert(
            {
                "id": image.id,
                "digest": content.digest,
                "recipe": content.recipe,
                "platform": content.platform,
                "size": image.size,
                "layers": json.dumps(content.layers),
                "labels": json.dumps(content.config.labels, sort_keys=True),
            },
            pk="id",
        )


def _open(path: Path) -> Database:
    database = Database(sqlite3.connect(path, timeout=60))
    try:
        if _version(database) != schema.VERSION:
            _make(database)
    except sqlite3.DatabaseError as error:
        raise Damaged(
            f"the catalog is damaged: {str(path)!r}: {error}",
            hint="remove it: it is made anew from the store's records",
        ) from error
    return database


def _version(database: Database) -> int:
    return int(next(database.query("PRAGMA user_version"))["user_version"])


def _make(database: Database) -> None:
    """Make the tables of DATABASE anew, unless another worker of this host just did.

    In place and at once: whoever has opened the file must not find himself in another one.
    """
    with database.conn:
        database.conn.execute("BEGIN IMMEDIATE")
        if _version(database) != schema.VERSION:
            for name in database.table_names():
                schema.table(database, name).drop()
            schema.create(database)
