"""The tables of the catalog.  ``spool/schema.sql`` is generated from here.

Everything in them follows from the records and the index in the store, but for
the history of pulls seen by this service node.
"""

from __future__ import annotations

from sqlite_utils import Database
from sqlite_utils.db import Table

# Raised with every change; a catalog of another version is made anew from the records.
VERSION = 1


def create(database: Database) -> None:
    """Make the tables in the empty DATABASE."""
    table(database, "images").create(
        {
            "id": str,
            "digest": str,
            "recipe": str,
            "platform": str,
            "size": int,
            "layers": str,
            "labels": str,
        },
        pk="id",
        not_null={"id", "digest", "recipe", "platform", "size"},
    )
    table(database, "images").create_index(["digest", "recipe"])
    table(database, "names").create(
        {"name": str, "image": str, "time": int},
        pk="name",
        foreign_keys=[("image", "images", "id")],
        not_null={"name", "image", "time"},
    )
    table(database, "pulls").create(
        {"request": str, "uid": int, "name": str, "image": str, "time": int, "built": int},
        pk="request",
        not_null={"request", "uid", "name", "image", "time", "built"},
    )
    table(database, "seen").create({"generation": int}, not_null={"generation"})
    table(database, "seen").insert({"generation": 0})
    database.execute(f"PRAGMA user_version = {VERSION}")


def is_whole(database: Database) -> bool:
    """Return whether all tables are in DATABASE, which is of our version."""
    if not {"images", "names", "pulls", "seen"} <= set(database.table_names()):
        return False
    return table(database, "seen").count == 1


def table(database: Database, name: str) -> Table:
    """Return the table NAME of DATABASE."""
    found = database[name]
    assert isinstance(found, Table)
    return found
