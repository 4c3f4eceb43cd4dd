"""Sealing: a stream's tail, batches in the catalog, becomes compressed blocks in its segment file.

The order is what makes it safe at any instant: write the blocks, sync them, and then in one transaction index them and
drop the batches. Until that commits, what was written lies beyond what the catalog knows of the file and means nothing.
All of it runs in the writer's thread, but for `Tails`, which the event loop keeps.
"""

import itertools
import operator
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec.structs import replace

from controlplane.logs.api import LogGroup, LogStream, StoredEvent
from controlplane.logs.blocks import BLOCK_BYTES, BlockHeader, decode_batch, encode_block, partition
from controlplane.logs.catalog import Appended
from controlplane.logs.database import transaction
from controlplane.logs.schema import STREAM_COLUMNS, stream_of
from controlplane.logs.segments import SEGMENT_BYTES, SEGMENT_SPAN_MS, SegmentFiles, on_disk

__all__ = ["Sealed", "Tails", "keep_in_tail", "load_tails", "seal"]

#: A tail is sealed when it is as large as a block; when it is worth a block of its own and so many seconds old; or,
#: however small, when it is older.
_SMALL_BYTES: Final = 16 * 1024
_AGE_S: Final = 600.0
_OLD_AGE_S: Final = 3600.0
#: When all tails together are larger, the largest are sealed.
_TAILS_BYTES: Final = 64 * 1024 * 1024
#: They should come to this part of the store's limit at most.
_TAILS_PART: Final = 8
#: Streams sealed at once: between two times, appends get their turn.
_AT_ONCE: Final = 8
#: More than any tail's size.
_ALL: Final = 1 << 62
#: Of one stream, so many bytes are sealed at once.
_STREAM_BYTES: Final = 8 * BLOCK_BYTES

_key: Final = operator.attrgetter("at", "number")


def keep_in_tail(connection: sqlite3.Connection, appended: Appended, body: bytes, ingested_at: int) -> None:
    """Keep appended events, in the caller's transaction."""
    connection.execute(
        "INSERT INTO tail (group_id, stream_id, first_at, last_at, first_number, count, size, ingested_at,"
        " shipped_next, position, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            appended.group_id,
            appended.stream_id,
            appended.first_at,
            appended.last_at,
            appended.first_number,
            len(appended.events),
            appended.size,
            ingested_at,
            appended.stream.shipped_next,
            appended.stream.position,
            body,
        ),
    )


# ---------------------------------------------------------------- which tails, and when


@dataclass(slots=True)
class _Tail:
    size: int
    since: float
    ended: bool


class Tails:
    """The sizes of all tails, and which are due. Ages are counted in this process: `now` is monotonic."""

    def __init__(self, limit_bytes: int) -> None:
        """`limit_bytes`: the whole store's."""
        self.size = 0
        #: What they should come to at most.
        self.limit = min(_TAILS_BYTES, limit_bytes // _TAILS_PART)
        self._tails: dict[int, _Tail] = {}
        self._full: dict[int, None] = {}

    def appended(self, stream_id: int, size: int, *, ended: bool, now: float) -> None:
        """Note that a tail has grown by `size`, and whether its stream has ended."""
        tail = self._tails.get(stream_id)
        if tail is None:
            if not size:
                return
            tail = self._tails[stream_id] = _Tail(0, now, False)
        tail.size += size
        tail.ended = ended
        self.size += size
        if tail.size >= BLOCK_BYTES:
            self._full[stream_id] = None

    def sealed(self, stream_id: int, size: int) -> None:
        """Note that so much of a tail has been sealed, or dropped."""
        tail = self._tails.get(stream_id)
        if tail is None:
            return
        tail.size -= size
        self.size -= size
        if tail.size <= 0:
            self.size -= tail.size
            del self._tails[stream_id]
        if tail.size < BLOCK_BYTES:
            self._full.pop(stream_id, None)

    def full(self) -> Sequence[int]:
        """Return streams whose tails are as large as a block, and the largest while all together are too large."""
        found = list(self._full)[:_AT_ONCE]
        if not found and self.size > self.limit:
            found = sorted(self._tails, key=lambda stream: -self._tails[stream].size)[:_AT_ONCE]
        return found

    def old(self, now: float) -> Sequence[int]:
        """Return streams whose tails have waited for long enough, or won't grow any more."""
        return [stream for stream, tail in self._tails.items() if _is_old(tail, now)][:_AT_ONCE]

    def everything(self) -> Sequence[int]:
        """Return some streams that have a tail at all."""
        return list(self._tails)[:_AT_ONCE]


def _is_old(tail: _Tail, now: float) -> bool:
    age = now - tail.since
    return tail.ended or age >= _OLD_AGE_S or (age >= _AGE_S and tail.size >= _SMALL_BYTES)


def load_tails(connection: sqlite3.Connection, limit_bytes: int, now: float) -> Tails:
    """Return the tails that the catalog has. They count as new."""
    tails = Tails(limit_bytes)
    statement = (
        "SELECT t.stream_id, sum(t.size), ifnull(max(s.ended), 0) FROM tail t LEFT JOIN streams s ON s.id = t.stream_id"
        " GROUP BY t.stream_id"
    )
    for stream_id, size, ended in connection.execute(statement):
        tails.appended(stream_id, size, ended=bool(ended), now=now)
    return tails


# ---------------------------------------------------------------- sealing


@dataclass(frozen=True, slots=True)
class Sealed:
    """What sealing came to: bytes that left each stream's tail, and bytes that segment files grew by on disk."""

    tails: Sequence[tuple[int, int]]
    grown: int


@dataclass(slots=True)
class _Segment:
    number: int
    size: int
    first_at: int
    last_at: int
    new: bool
    #: (offset, length, header) of the blocks it gets.
    blocks: list[tuple[int, int, BlockHeader]] = field(default_factory=list)

    def takes(self, events: Sequence[StoredEvent]) -> bool:
        span = max(self.last_at, events[-1].at) - min(self.first_at, events[0].at)
        return self.size < SEGMENT_BYTES and span <= SEGMENT_SPAN_MS


@dataclass(slots=True)
class _Plan:
    """One stream's part of a seal."""

    group_id: int
    stream_id: int
    batches: Sequence[int]
    size: int
    segments: list[_Segment] = field(default_factory=list)


def seal(connection: sqlite3.Connection, files: SegmentFiles, streams: Sequence[int]) -> Sealed:
    """Seal the tails of some streams. Raises OSError, sqlite3.Error: then nothing has changed."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'segments'").fetchone()
    numbers = itertools.count(1 if row is None else row[0] + 1)
    plans: list[_Plan] = []
    gone: list[tuple[int, int]] = []
    for stream_id in streams:
        plan = _write(connection, files, stream_id, lambda: next(numbers))
        if plan is None:
            gone.append((stream_id, _ALL))
        else:
            plans.append(plan)
    segments = [segment for plan in plans for segment in plan.segments]
    files.sync([segment.number for segment in segments], new=[each.number for each in segments if each.new])
    grown = sum(on_disk(each.size) - (0 if each.new else on_disk(each.blocks[0][0])) for each in segments)
    with transaction(connection):
        for plan in plans:
            _index(connection, plan)
    return Sealed([*gone, *((plan.stream_id, plan.size) for plan in plans)], grown)


def _write(
    connection: sqlite3.Connection, files: SegmentFiles, stream_id: int, number: Callable[[], int]
) -> _Plan | None:
    """Write a stream's tail into segments, not synced yet. None if there is none: its stream may be deleted."""
    row = connection.execute(
        f"SELECT g.body, s.group_id, s.segment, {STREAM_COLUMNS} FROM streams s JOIN groups g ON g.id = s.group_id"
        " WHERE s.id = ?",
        (stream_id,),
    ).fetchone()
    if row is None:
        return None
    group = msgspec.msgpack.decode(row[0], type=LogGroup)
    stream = stream_of(group.name, row[3:])
    batches, events, size, stream = _tail_of(connection, stream_id, stream)
    if not batches:
        return None
    plan = _Plan(row[1], stream_id, batches, size)
    segment = _current(connection, row[2])
    for part in partition(events):
        header, block = encode_block(group, stream, part)
        if segment is None or not segment.takes(part) or not files.write(segment.number, segment.size, block):
            segment = _Segment(number(), 0, header.first_at, header.last_at, new=True)
            files.write(segment.number, 0, block)
        if not segment.blocks:
            plan.segments.append(segment)
        segment.blocks.append((segment.size, len(block), header))
        segment.size += len(block)
        segment.first_at = min(segment.first_at, header.first_at)
        segment.last_at = max(segment.last_at, header.last_at)
    return plan


def _tail_of(
    connection: sqlite3.Connection, stream_id: int, stream: LogStream
) -> tuple[list[int], list[StoredEvent], int, LogStream]:
    """Return the first batches of a stream's tail: ids, events in order, size, and the stream as it was behind them."""
    batches: list[int] = []
    events: list[StoredEvent] = []
    total, reached = 0, (1, "")
    statement = (
        "SELECT id, first_number, ingested_at, size, shipped_next, position, body FROM tail WHERE stream_id = ?"
        " ORDER BY id"
    )
    for batch, first_number, ingested_at, size, shipped_next, position, body in connection.execute(
        statement, (stream_id,)
    ):
        if total >= _STREAM_BYTES:
            # A catalog made again of these blocks must not take the rest for shipped.
            stream = replace(
                stream, next_number=first_number, shipped_next=reached[0], position=reached[1], ended=False
            )
            break
        batches.append(batch)
        total += size
        events += decode_batch(body, first_number, ingested_at)
        reached = (shipped_next, position)
    events.sort(key=_key)
    return batches, events, total, stream


def _current(connection: sqlite3.Connection, number: int) -> _Segment | None:
    row = connection.execute("SELECT size, first_at, last_at FROM segments WHERE id = ?", (number,)).fetchone()
    return None if row is None else _Segment(number, row[0], row[1], row[2], new=False)


def _index(connection: sqlite3.Connection, plan: _Plan) -> None:
    stream = (plan.group_id, plan.stream_id)
    connection.executemany(
        "INSERT INTO segments (id, group_id, stream_id, size, first_at, last_at) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET size = excluded.size, first_at = excluded.first_at,"
        " last_at = excluded.last_at",
        [(each.number, *stream, each.size, each.first_at, each.last_at) for each in plan.segments],
    )
    connection.executemany(
        "INSERT INTO blocks (group_id, stream_id, segment, offset, length, first_at, last_at, first_number, count,"
        " size) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (*stream, each.number, offset, length, h.first_at, h.last_at, h.first_number, h.count, h.size)
            for each in plan.segments
            for offset, length, h in each.blocks
        ],
    )
    connection.executemany("DELETE FROM tail WHERE id = ?", [(batch,) for batch in plan.batches])
    if plan.segments:
        connection.execute("UPDATE streams SET segment = ? WHERE id = ?", (plan.segments[-1].number, plan.stream_id))
