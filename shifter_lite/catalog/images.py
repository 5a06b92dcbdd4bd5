"""Record images and pulls, and find them again.

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
from typing import NamedTuple, Self

from shifter_lite import logs
from shifter_lite.catalog import file, schema
from shifter_lite.records import Entry, Image
from shifter_lite.request import Request


class Pull(NamedTuple):
    """A request that was answered with an image; its fields are columns of the table."""

    request: str
    uid: int
    name: str
    image: str
    time: int
    built: int


class Catalog:
    """The catalog of one store, at one service node; while entered, nobody else changes it."""

    def __init__(self, path: Path, patience: float = 60.0) -> None:
        """Open the database at PATH, made anew if it is missing or of another version.

        Others that use it are waited for as long as PATIENCE, in seconds, each time.

        Raises sqlite3.Error, as all that follows may; see ``use``.
        """
        self._database = file.open_file(path, patience)

    def __enter__(self) -> Self:
        """Wait until nobody else changes it."""
        self._database.execute("BEGIN IMMEDIATE")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Keep what was changed, but only all of it, and close."""
        try:
            if error is None:
                self._database.commit()
        finally:
            self._database.close()

    @property
    def generation(self) -> int:
        """The newest generation of the index that the catalog knows all of."""
        return int(next(self._database.query("select generation from seen"))["generation"])

    def catch_up(
        self,
        generation: int,
        names: Iterable[tuple[str, Entry]],
        read: Callable[[str], Image | None],
    ) -> None:
        """Know NAMES, all that GENERATION of the index says; READ gives an image's record.

        Of what has no record that can be read, nothing is known.
        """
        known = {row["id"] for row in self._database.query("select id from images")}
        absent: set[str] = set()
        rows = []
        for name, entry in names:
            if entry.id not in known | absent:
                image = read(entry.id)
                if image is None:
                    absent.add(entry.id)
                else:
                    known.add(entry.id)
                    self._insert(image)
            if entry.id in known:
                rows.append({"name": name, "image": entry.id, "time": entry.time})
        schema.table(self._database, "names").delete_where()
        schema.table(self._database, "names").insert_all(rows)
        self._database.execute("update seen set generation = ?", (generation,))

    def forget_images(self) -> None:
        """Know nothing but pulls; raises an sqlite3.Error if the file contradicts itself."""
        file.check(self._database)
        for name in ("names", "images"):
            schema.table(self._database, name).delete_where()

    def counts(self) -> dict[str, int]:
        """Return how many images, names and pulls are known."""
        return {n: schema.table(self._database, n).count for n in ("images", "names", "pulls")}

    def add(self, generation: int, image: Image, names: Iterable[tuple[str, Entry]]) -> None:
        """Know IMAGE under NAMES, which is all that is new in GENERATION of the index."""
        self._insert(image)
        rows = [{"name": name, "image": e.id, "time": e.time} for name, e in names]
        schema.table(self._database, "names").upsert_all(rows, pk="name")
        self._database.execute("update seen set generation = ?", (generation,))

    def record_pulls(
        self, requests: Iterable[Request], image_id: str, when: int, *, built: bool
    ) -> None:
        """Know that REQUESTS were answered with IMAGE_ID at WHEN, BUILT for the first, or found."""
        pulls = [
            Pull(each.name, each.uid, str(each.image), image_id, when, int(built and not number))
            for number, each in enumerate(requests)
        ]
        rows = [pull._asdict() for pull in pulls]
        schema.table(self._database, "pulls").upsert_all(rows, pk="request")

    def recover_pulls(self, pulls: Iterable[Pull]) -> None:
        """Know PULLS that are not known yet."""
        rows = [pull._asdict() for pull in pulls]
        schema.table(self._database, "pulls").insert_all(rows, pk="request", ignore=True)

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


def use(path: Path, tell: Callable[[Catalog], None], *, patience: float) -> None:
    """Let TELL use the catalog at PATH; a damaged one is put aside, and told anew.

    PATIENCE is as for ``Catalog``.

    Raises sqlite3.Error or OSError.
    """
    number = file.inode(path)
    try:
        with Catalog(path, patience) as catalog:
            return tell(catalog)
    except sqlite3.Error as error:
        if not file.is_damage(error):
            raise
        logs.warning("the catalog is damaged", path=path, reason=error)
    file.put_aside(path, number, patience)
    with Catalog(path, patience) as catalog:
        return tell(catalog)
