"""Which parts of a stream or group hold events of some time: blocks by the catalog's index, and the tail.

A `Finder` is made in one read transaction and sees what was there then: blocks that come later have larger ids, and the
tail's batches are read at once, so that sealing meanwhile neither hides nor doubles an event. The index is read in
pages; no transaction stays open between them. All of it runs in a reader's thread.
"""

import heapq
import sqlite3
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

import msgspec

from controlplane.logs.blocks import SPAN_MS
from controlplane.logs.schema import find_group, prefix_bound

__all__ = ["Finder", "Piece", "Times", "find_in_group"]

_PAGE: Final = 256
#: So many streams are looked up one by one; of more, the index of their whole group is read.
_FEW_STREAMS: Final = 64

_BLOCK_COLUMNS: Final = (
    "b.id, b.stream_id, b.first_at, b.last_at, b.first_number, b.count, b.size, b.segment, b.offset, b.length"
)
#: Index of blocks -> column it is of, column it orders by, which way it is read, what is beyond, the place in a row.
_INDEXES: Final = {
    "blocks_of_group": ("group_id", "first_at", "ASC", ">", 2),
    "blocks_of_stream": ("stream_id", "first_at", "ASC", ">", 2),
    "blocks_of_stream_by_end": ("stream_id", "last_at", "DESC", "<", 3),
}
_TAIL_COLUMNS: Final = "id, stream_id, first_at, last_at, first_number, count, size, ingested_at, body"


class Times(msgspec.Struct, frozen=True):
    """A span of time, from `start` to before `end`; None: without a bound."""

    start: int | None = None
    end: int | None = None


class Piece(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A block (`segment` not 0) or a batch of the tail (`body`). `first_at`: events before it are not of interest."""

    stream: str
    first_at: int
    last_at: int
    first_number: int
    count: int
    size: int
    block: int = 0
    segment: int = 0
    offset: int = 0
    length: int = 0
    ingested_at: int = 0
    body: bytes = b""


class Finder:
    """Finds the pieces of some streams (number in the catalog -> name), or of all of a group (`streams` None)."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        group_id: int,
        streams: dict[int, str] | None,
        times: Times,
    ) -> None:
        self._connect = connect
        self._group = group_id
        self._streams = streams
        self._times = times
        connection = connect()
        assert connection.in_transaction
        (self._newest,) = connection.execute("SELECT ifnull(max(id), 0) FROM blocks").fetchone()
        self._tail = self._read_tail(connection)

    def forward(self) -> Iterator[Piece]:
        """Yield them by when they begin."""
        tail = sorted(self._tail, key=lambda piece: piece.first_at)
        if self._streams is not None and len(self._streams) <= _FEW_STREAMS:
            sources = [self._blocks("blocks_of_stream", stream) for stream in self._streams]
        else:
            sources = [self._blocks("blocks_of_group", self._group)]
        return heapq.merge(*sources, tail, key=lambda piece: piece.first_at)

    def backward(self) -> Iterator[Piece]:
        """Yield those of the one stream by when they end, the last one first."""
        assert self._streams is not None
        (stream,) = self._streams
        tail = sorted(self._tail, key=lambda piece: -piece.last_at)
        return heapq.merge(self._blocks("blocks_of_stream_by_end", stream), tail, key=lambda piece: -piece.last_at)

    def _blocks(self, index: str, value: int) -> Iterator[Piece]:
        """Yield blocks in the order of an index, a page of it at a time; that by ends is read backwards."""
        column, order, way, beyond, place = _INDEXES[index]
        conditions, bounds = [f"b.{column} = ?", "b.id <= ?"], [value, self._newest]
        if self._times.start is not None:
            conditions += ["b.last_at >= ?", "b.first_at >= ?"]
            bounds += [self._times.start, self._times.start - SPAN_MS]
        if self._times.end is not None:
            conditions += ["b.first_at < ?", "b.last_at < ?"]
            bounds += [self._times.end, self._times.end + SPAN_MS]
        statement = (
            f"SELECT {_BLOCK_COLUMNS}, s.name FROM blocks b INDEXED BY {index}"
            f" JOIN streams s ON s.id = b.stream_id WHERE {' AND '.join(conditions)}"
        )
        ordering = f"ORDER BY b.{order} {way}, b.id {way} LIMIT {_PAGE}"
        rows = self._connect().execute(f"{statement} {ordering}", bounds).fetchall()
        while True:
            for row in rows:
                if self._streams is None or row[1] in self._streams:
                    yield _block(row)
            if len(rows) < _PAGE:
                return
            reached = f"AND (b.{order}, b.id) {beyond} (?, ?)"
            arguments = (*bounds, rows[-1][place], rows[-1][0])
            rows = self._connect().execute(f"{statement} {reached} {ordering}", arguments).fetchall()

    def _read_tail(self, connection: sqlite3.Connection) -> list[Piece]:
        names = self._streams
        column, values = "group_id", [self._group]
        if names is not None and len(names) <= _FEW_STREAMS:
            column, values = "stream_id", list(names)
        elif names is None:
            names = _names_of_tail(connection, self._group)
        start, end = self._times.start, self._times.end
        statement = (
            f"SELECT {_TAIL_COLUMNS} FROM tail WHERE {column} = ?"
            " AND (?2 IS NULL OR last_at >= ?2) AND (?3 IS NULL OR first_at < ?3)"
        ).replace("= ?", "= ?1", 1)
        rows = [row for value in values for row in connection.execute(statement, (value, start, end))]
        return [_batch(row, names[row[1]]) for row in rows if row[1] in names]


def _names_of_tail(connection: sqlite3.Connection, group_id: int) -> dict[int, str]:
    statement = "SELECT id, name FROM streams WHERE id IN (SELECT stream_id FROM tail WHERE group_id = ?)"
    return dict(connection.execute(statement, (group_id,)))


def _block(row: tuple[Any, ...]) -> Piece:
    number, _, first_at, last_at, first_number, count, size, segment, offset, length, name = row
    return Piece(
        stream=name,
        first_at=first_at,
        last_at=last_at,
        first_number=first_number,
        count=count,
        size=size,
        block=number,
        segment=segment,
        offset=offset,
        length=length,
    )


def _batch(row: tuple[Any, ...], name: str) -> Piece:
    _, _, first_at, last_at, first_number, count, size, ingested_at, body = row
    return Piece(
        stream=name,
        first_at=first_at,
        last_at=last_at,
        first_number=first_number,
        count=count,
        size=size,
        ingested_at=ingested_at,
        body=body,
    )


def find_in_group(
    connection: sqlite3.Connection, group: str, streams: Collection[str] | None, prefix: str
) -> tuple[int, dict[int, str] | None]:
    """Return a group's id and the streams named, or with the prefix; None for all of it. Raises GroupMissing."""
    group_id = find_group(connection, group)
    if streams is not None:
        statement = "SELECT id, name FROM streams WHERE group_id = ? AND name = ?"
        return group_id, dict(
            row for name in set(streams) for row in connection.execute(statement, (group_id, name)).fetchall()
        )
    if not prefix:
        return group_id, None
    statement = "SELECT id, name FROM streams WHERE group_id = ?1 AND name >= ?2 AND (?3 IS NULL OR name < ?3)"
    return group_id, dict(connection.execute(statement, (group_id, prefix, prefix_bound(prefix))).fetchall())
