"""The schema of the SQLite store, and the numbered steps that bring an older one to it.

A step works on raw documents (plain dicts), never on today's records: those go on changing, a step must not. To change
what is stored: add a step under the next number, raise nothing else. All steps of an upgrade and the new version
number are one transaction: it happens wholly or not at all.
"""

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from homeport.errors import ConfigurationError

__all__ = ["APPLICATION_ID", "MIGRATIONS", "Migration", "migrate", "rewrite", "schema_version"]

Migration = Callable[[sqlite3.Connection], None]

#: Marks a SQLite file as Homeport's ("HOME" in ASCII).
APPLICATION_ID: Final = 0x484F4D45

_FIRST_SCHEMA: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE objects (kind TEXT NOT NULL, key TEXT NOT NULL, revision INTEGER NOT NULL, body BLOB NOT NULL,"
    " PRIMARY KEY (kind, key))",
    # `at` is when the line was written by this machine's clock: a host's wrong clock must not decide on retention.
    "CREATE TABLE story (n INTEGER PRIMARY KEY, task_id TEXT NOT NULL, at REAL NOT NULL, body BLOB NOT NULL)",
    "CREATE INDEX story_by_task ON story (task_id)",
    "CREATE TABLE history (task_id TEXT PRIMARY KEY, at REAL NOT NULL, body BLOB NOT NULL)",
    "CREATE INDEX history_by_time ON history (at)",
    "INSERT INTO meta VALUES ('revision', 0)",
)


def _create(connection: sqlite3.Connection) -> None:
    for statement in _FIRST_SCHEMA:
        connection.execute(statement)


def _allow_new_kinds(_: sqlite3.Connection) -> None:
    """Schema 2 has kinds of records that versions before it can't read: services, schedules. Nothing is rewritten."""


def _add_events(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE events (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, at REAL NOT NULL, body BLOB NOT NULL)"
    )
    connection.execute("INSERT INTO meta VALUES ('event', 0)")


def _allow_rows_of_many_lines(_: sqlite3.Connection) -> None:
    """In schema 4 a row of a story holds the lines of a batch, where it held one before. Nothing is rewritten."""


#: Schema version -> the step that makes it out of the one before.
MIGRATIONS: Final[Mapping[int, Migration]] = MappingProxyType(
    {1: _create, 2: _allow_new_kinds, 3: _add_events, 4: _allow_rows_of_many_lines}
)


def schema_version(connection: sqlite3.Connection) -> int:
    """Return a store's schema version; 0 if the file is new.

    Raises ConfigurationError if the file is some other program's database.
    """
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        return 0
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if application_id != APPLICATION_ID or "meta" not in tables:
        raise ConfigurationError("the file is a SQLite database, but not Homeport's")
    (version,) = connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
    return int(version)


def migrate(
    connection: sqlite3.Connection, *, keep: Path | None = None, migrations: Mapping[int, Migration] = MIGRATIONS
) -> None:
    """Bring the store to the newest schema, in one transaction. Nothing happens if it is there already.

    `keep`: where a copy of the store as it was is left, for the way back to the older version; a copy that is there
    already is replaced. Raises ConfigurationError if the store was written by a newer Homeport. `connection` is in
    autocommit mode.
    """
    newest = max(migrations)
    found = schema_version(connection)
    if found > newest:
        raise ConfigurationError(
            f"the store has schema {found}, this version of Homeport knows schemas up to {newest}: it was written by a "
            "newer version. Start that version, or restore a backup made by this one"
        )
    if found == newest:
        return
    if found and keep is not None:
        keep.unlink(missing_ok=True)
        keep.touch(mode=0o600)
        connection.execute("VACUUM INTO ?", (str(keep),))
    connection.execute("BEGIN IMMEDIATE")
    try:
        for version in range(found + 1, newest + 1):
            migrations[version](connection)
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (newest,))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def rewrite(
    connection: sqlite3.Connection, kind: str, change: Callable[[dict[str, Any]], dict[str, Any] | None]
) -> None:
    """For steps: replace each document of `kind` by what `change` makes of it; None deletes it.

    Covers archived tasks too when `kind` is "task".
    """
    selections = {"objects": "SELECT rowid, body FROM objects WHERE kind = :kind"}
    if kind == "task":
        selections["history"] = "SELECT rowid, body FROM history"
    for table, selection in selections.items():
        for row, body in connection.execute(selection, {"kind": kind}).fetchall():
            document = change(msgspec.json.decode(body))
            if document is None:
                connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (row,))
            else:
                connection.execute(f"UPDATE {table} SET body = ? WHERE rowid = ?", (msgspec.json.encode(document), row))
