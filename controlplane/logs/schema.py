"""The catalog's tables, and the pages of rows that more than one module reads.

`streams.segment` is the segment that gets the next block, 0 for none. `tail` holds batches that are not sealed yet:
what was appended is durable there; `shipped_next` and `position` are its stream's behind the batch. Ids are never used
again (AUTOINCREMENT): a search that began before something was removed can't take its successor for it.
"""

import sqlite3
from typing import Any, Final

import msgspec

from controlplane.logs.api import GroupMissing, LogGroup, LogStream, StoreUnavailable, StreamMissing

__all__ = [
    "STREAM_COLUMNS",
    "find_group",
    "find_stream",
    "load_groups",
    "prefix_bound",
    "prepare",
    "stream_of",
    "touch",
    "used_bytes",
]

_VERSION: Final = 1

#: Free pages that the catalog keeps, and how many beyond these are given back at once.
_SPARE_PAGES: Final = 1024
_VACUUM_PAGES: Final = 4096

_TABLES: Final = (
    "CREATE TABLE groups (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, body BLOB NOT NULL)",
    "CREATE TABLE streams (id INTEGER PRIMARY KEY AUTOINCREMENT, group_id INTEGER NOT NULL, name TEXT NOT NULL,"
    " created_at INTEGER NOT NULL, first_at INTEGER, last_at INTEGER, last_ingested_at INTEGER,"
    " next_number INTEGER NOT NULL DEFAULT 1, shipped_next INTEGER NOT NULL DEFAULT 1,"
    " position TEXT NOT NULL DEFAULT '', ended INTEGER NOT NULL DEFAULT 0, stored_bytes INTEGER NOT NULL DEFAULT 0,"
    " segment INTEGER NOT NULL DEFAULT 0, UNIQUE (group_id, name))",
    "CREATE INDEX streams_by_last_event ON streams (group_id, ifnull(last_at, 0), name)",
    "CREATE TABLE segments (id INTEGER PRIMARY KEY AUTOINCREMENT, group_id INTEGER NOT NULL,"
    " stream_id INTEGER NOT NULL, size INTEGER NOT NULL, first_at INTEGER NOT NULL, last_at INTEGER NOT NULL)",
    "CREATE INDEX segments_of_stream ON segments (stream_id)",
    "CREATE INDEX segments_by_age ON segments (last_at)",
    "CREATE TABLE blocks (id INTEGER PRIMARY KEY AUTOINCREMENT, group_id INTEGER NOT NULL, stream_id INTEGER NOT NULL,"
    " segment INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL, first_at INTEGER NOT NULL,"
    " last_at INTEGER NOT NULL, first_number INTEGER NOT NULL, count INTEGER NOT NULL, size INTEGER NOT NULL)",
    "CREATE INDEX blocks_of_group ON blocks (group_id, first_at)",
    "CREATE INDEX blocks_of_stream ON blocks (stream_id, first_at)",
    "CREATE INDEX blocks_of_stream_by_end ON blocks (stream_id, last_at)",
    "CREATE INDEX blocks_of_segment ON blocks (segment)",
    "CREATE TABLE tail (id INTEGER PRIMARY KEY AUTOINCREMENT, group_id INTEGER NOT NULL, stream_id INTEGER NOT NULL,"
    " first_at INTEGER NOT NULL, last_at INTEGER NOT NULL, first_number INTEGER NOT NULL, count INTEGER NOT NULL,"
    " size INTEGER NOT NULL, ingested_at INTEGER NOT NULL, shipped_next INTEGER NOT NULL, position TEXT NOT NULL,"
    " body BLOB NOT NULL)",
    "CREATE INDEX tail_of_stream ON tail (stream_id)",
    "CREATE INDEX tail_of_group ON tail (group_id)",
    # What has been deleted and still has rows and files, which go in slices.
    "CREATE TABLE doomed_groups (id INTEGER PRIMARY KEY)",
    "CREATE TABLE doomed_streams (id INTEGER PRIMARY KEY)",
)

STREAM_COLUMNS: Final = (
    "s.name, s.created_at, s.first_at, s.last_at, s.last_ingested_at, s.next_number, s.shipped_next, s.position,"
    " s.ended, s.stored_bytes"
)


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables if there are none, in the caller's transaction. Raises StoreUnavailable for newer ones."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise StoreUnavailable(
            f"the log catalog has schema {version}, this version of Homeport knows {_VERSION}: run the newer version"
        )
    if version == _VERSION:
        return
    for statement in _TABLES:
        connection.execute(statement)
    touch(connection)


def touch(connection: sqlite3.Connection) -> None:
    """Write a page and nothing new, to see whether writing works; in the caller's transaction."""
    connection.execute(f"PRAGMA user_version = {_VERSION}")


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return what the catalog takes of the disk, but for a few free pages; many of them are given back by and by."""
    (pages,), (free,), (size,) = (
        connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
    )
    if free > _SPARE_PAGES:
        # Tails come and go: what they have left is soon needed again.
        connection.execute(f"PRAGMA incremental_vacuum({min(free - _SPARE_PAGES, _VACUUM_PAGES)})").fetchall()
    return int((pages - free) * size)


def load_groups(connection: sqlite3.Connection) -> list[tuple[int, LogGroup, int]]:
    """Return (id, group, bytes of its streams' events) of every group."""
    sizes = dict(connection.execute("SELECT group_id, sum(stored_bytes) FROM streams GROUP BY group_id"))
    rows = connection.execute("SELECT id, body FROM groups")
    return [(number, msgspec.msgpack.decode(body, type=LogGroup), sizes.get(number, 0)) for number, body in rows]


def find_group(connection: sqlite3.Connection, name: str) -> int:
    """Return a group's id. Raises GroupMissing."""
    row = connection.execute("SELECT id FROM groups WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise GroupMissing(f"there is no log group {name}")
    return int(row[0])


def find_stream(connection: sqlite3.Connection, group: str, name: str) -> tuple[int, int, LogStream]:
    """Return (group's id, stream's id, stream). Raises GroupMissing, StreamMissing."""
    group_id = find_group(connection, group)
    row = connection.execute(
        f"SELECT s.id, {STREAM_COLUMNS} FROM streams s WHERE group_id = ? AND name = ?",
        (group_id, name),
    ).fetchone()
    if row is None:
        raise StreamMissing(f"the log group {group} has no stream {name}")
    return group_id, row[0], stream_of(group, row[1:])


def stream_of(group: str, row: tuple[Any, ...]) -> LogStream:
    """Make a stream of STREAM_COLUMNS."""
    name, created_at, first_at, last_at, ingested_at, number, shipped_next, position, ended, size = row
    return LogStream(
        group=group,
        name=name,
        created_at=created_at,
        first_at=first_at,
        last_at=last_at,
        last_ingested_at=ingested_at,
        next_number=number,
        shipped_next=shipped_next,
        position=position,
        ended=bool(ended),
        stored_bytes=size,
    )


def prefix_bound(prefix: str) -> str | None:
    """Return the first text after all that begin with `prefix`; None if there is none."""
    while prefix:
        last = ord(prefix[-1])
        if last < 0x10FFFF:
            # UTF-8 has no surrogates.
            return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)
        prefix = prefix[:-1]
    return None
