"""Removing: what has expired, what is beyond the limit, what was deleted; in slices, so that appends get their turn.

The catalog forgets first, in a transaction, then the file goes. A crash in between leaves a file that the catalog
doesn't know, which the next opening removes. All of it runs in the writer's thread.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from controlplane.logs.database import transaction
from controlplane.logs.segments import SegmentFiles, on_disk

__all__ = ["EMPTY_STREAM_DAYS", "Removed", "empty_streams", "evict", "expire", "purge"]

#: Streams of containers that have nothing left go when they are so old, in groups whose events never expire.
EMPTY_STREAM_DAYS: Final = 30

_SLICE: Final = 500
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Removed:
    """What a slice removed. `more`: another one may find more."""

    more: bool
    #: (group's id, change of its events' size).
    groups: Sequence[tuple[int, int]] = ()
    #: (stream's id, bytes that left its tail).
    tails: Sequence[tuple[int, int]] = ()
    #: What segment files took of the disk.
    freed: int = 0
    blocks: int = 0


class _Slice:
    """Collects what a transaction removes, and does what follows from it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.blocks = 0
        self.segments: list[tuple[int, int]] = []
        self.tails: Counter[int] = Counter()
        self._sizes: Counter[int] = Counter()

    def remove_blocks(self, where: str, arguments: Sequence[int]) -> None:
        rows = self.connection.execute(
            f"DELETE FROM blocks WHERE {where} RETURNING stream_id, size",
            arguments,
        ).fetchall()
        self.blocks += len(rows)
        for stream_id, size in rows:
            self._sizes[stream_id] += size

    def remove_tail(self, where: str, arguments: Sequence[int]) -> None:
        rows = self.connection.execute(
            f"DELETE FROM tail WHERE {where} RETURNING stream_id, size",
            arguments,
        ).fetchall()
        for stream_id, size in rows:
            self._sizes[stream_id] += size
            self.tails[stream_id] += size

    def remove_segments(self, where: str, arguments: Sequence[int]) -> None:
        self.segments += self.connection.execute(
            f"DELETE FROM segments WHERE {where} RETURNING id, size",
            arguments,
        ).fetchall()

    def settle_streams(self) -> list[tuple[int, int]]:
        """Bring the streams concerned up to date; return the changes of their groups' sizes."""
        groups: Counter[int] = Counter()
        for stream_id, size in self._sizes.items():
            row = self.connection.execute(
                "UPDATE streams SET stored_bytes = max(stored_bytes - ?2, 0),"
                " first_at = (SELECT min(at) FROM (SELECT min(first_at) AS at FROM blocks WHERE stream_id = ?1"
                "  UNION ALL SELECT min(first_at) FROM tail WHERE stream_id = ?1)),"
                " last_at = (SELECT max(at) FROM (SELECT max(last_at) AS at FROM blocks WHERE stream_id = ?1"
                "  UNION ALL SELECT max(last_at) FROM tail WHERE stream_id = ?1))"
                " WHERE id = ?1 RETURNING group_id",
                (stream_id, size),
            ).fetchone()
            if row is not None:
                groups[row[0]] -= size
        return list(groups.items())


def _finish(files: SegmentFiles, slice_: _Slice, groups: Sequence[tuple[int, int]], *, more: bool) -> Removed:
    """Remove the files that the catalog has forgotten."""
    for segment, _ in slice_.segments:
        files.remove(segment)
    freed = sum(on_disk(size) for _, size in slice_.segments)
    return Removed(more, groups, list(slice_.tails.items()), freed, slice_.blocks)


def expire(connection: sqlite3.Connection, files: SegmentFiles, cutoffs: Mapping[int, int]) -> Removed:
    """Remove blocks and batches whose last event is older than their group's cutoff (group's id -> epoch ms)."""
    slice_ = _Slice(connection)
    with transaction(connection):
        for group_id, cutoff in cutoffs.items():
            arguments = (group_id, cutoff)
            found = connection.execute(
                "SELECT id, segment FROM blocks INDEXED BY blocks_of_group"
                f" WHERE group_id = ?1 AND first_at < ?2 AND last_at < ?2 LIMIT {_SLICE}",
                arguments,
            ).fetchall()
            for block, _ in found:
                slice_.remove_blocks("id = ?", (block,))
            for segment in {segment for _, segment in found}:
                unless = "NOT EXISTS (SELECT 1 FROM blocks WHERE segment = ?1)"
                slice_.remove_segments(f"id = ?1 AND {unless}", (segment,))
            slice_.remove_tail("group_id = ?1 AND last_at < ?2", arguments)
            if slice_.blocks >= _SLICE:
                break
        groups = slice_.settle_streams()
    return _finish(files, slice_, groups, more=slice_.blocks >= _SLICE)


def evict(connection: sqlite3.Connection, files: SegmentFiles, excess: int) -> Removed:
    """Remove the oldest segments, over all streams, until `excess` bytes are free; those of one slice at most."""
    slice_ = _Slice(connection)
    freed = 0
    with transaction(connection):
        oldest = connection.execute(f"SELECT id, size FROM segments ORDER BY last_at, id LIMIT {_SLICE}")
        for segment, size in oldest.fetchall():
            if freed >= excess:
                break
            slice_.remove_blocks("segment = ?", (segment,))
            slice_.remove_segments("id = ?", (segment,))
            freed += on_disk(size)
        groups = slice_.settle_streams()
    return _finish(files, slice_, groups, more=False)


def purge(connection: sqlite3.Connection, files: SegmentFiles) -> Removed:
    """Remove rows and files of what was deleted."""
    slice_ = _Slice(connection)
    with transaction(connection):
        streams = connection.execute(f"SELECT id FROM doomed_streams LIMIT {_SLICE}").fetchall()
        for (stream_id,) in streams:
            where = f"id IN (SELECT id FROM segments WHERE stream_id = ? LIMIT {_SLICE})"
            before = len(slice_.segments)
            slice_.remove_segments(where, (stream_id,))
            for segment, _ in slice_.segments[before:]:
                slice_.remove_blocks("segment = ?", (segment,))
            if len(slice_.segments) - before >= _SLICE:
                break
            slice_.remove_tail("stream_id = ?", (stream_id,))
            connection.execute("DELETE FROM doomed_streams WHERE id = ?", (stream_id,))
            if len(slice_.segments) >= _SLICE:
                break
        if not streams:
            _doom_streams(connection)
        more = bool(connection.execute("SELECT 1 FROM doomed_streams UNION SELECT 1 FROM doomed_groups").fetchone())
    return _finish(files, slice_, (), more=more)


def _doom_streams(connection: sqlite3.Connection) -> None:
    """Let some of the streams of a deleted group go the way of deleted streams."""
    group = connection.execute("SELECT id FROM doomed_groups").fetchone()
    if group is None:
        return
    where = f"id IN (SELECT id FROM streams WHERE group_id = ? LIMIT {_SLICE})"
    streams = connection.execute(f"DELETE FROM streams WHERE {where} RETURNING id", group).fetchall()
    connection.executemany("INSERT INTO doomed_streams VALUES (?)", streams)
    if not streams:
        connection.execute("DELETE FROM doomed_groups WHERE id = ?", group)


def empty_streams(
    connection: sqlite3.Connection, now: int, retention_days: Iterable[tuple[int, int | None]]
) -> list[tuple[int, str]]:
    """Delete containers' streams that have nothing left and were last written to before their group's retention.

    Streams that agents have never shipped to are their makers', and stay. Returns (group's id, name) of those that
    went. `now`: epoch ms.
    """
    removed: list[tuple[int, str]] = []
    with transaction(connection):
        for group_id, days in retention_days:
            cutoff = now - min(days or EMPTY_STREAM_DAYS, EMPTY_STREAM_DAYS) * _DAY_MS
            # In the words of the index `streams_by_last_event`, which finds these without looking at the others.
            removed += connection.execute(
                "DELETE FROM streams WHERE group_id = ? AND ifnull(last_at, 0) = 0 AND last_at IS NULL"
                " AND (ended OR shipped_next > 1 OR position <> '') AND ifnull(last_ingested_at, created_at) < ?"
                " RETURNING group_id, name",
                (group_id, cutoff),
            ).fetchall()
    return removed
