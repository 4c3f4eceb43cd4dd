"""What waits to be pushed to Loki: the tails of the catalog's streams. What the store asks of SQLite, in its threads.

An event is numbered and durable here before Loki sees it, and leaves here only when Loki has taken it. So a push that
is repeated, after whatever went wrong, repeats the same entries, which Loki keeps once.
"""

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from controlplane.logs.api import GroupMissing, LogEvent, LogGroup, StoredEvent, StreamMissing
from controlplane.logs.blocks import decode_batch, encode_batch
from controlplane.logs.catalog import Appended, advance
from controlplane.logs.database import transaction
from controlplane.logs.loki.entries import StreamLabels
from controlplane.logs.schema import find_group, load_groups, prefix_bound, prepare
from controlplane.logs.sealing import keep_in_tail
from controlplane.logs.words import time_in_words
from homeport.protocol import LogKind

__all__ = [
    "Deleted",
    "Opened",
    "Refusal",
    "Waiting",
    "due",
    "forget_deleted",
    "forget_expired",
    "open_outbox",
    "settle",
    "streams_in",
    "to_be_deleted",
    "waiting_events",
]

_ROWS: Final = 500
#: So many streams are looked up one by one; of more, all that waits of their group is read.
_FEW_STREAMS: Final = 64
_SLICE: Final = 500


class Opened(NamedTuple):
    """What an outbox starts from. `waiting_bytes`: of what waits, as CloudWatch counts it."""

    epoch: str
    groups: list[tuple[int, LogGroup, int]]
    waiting_bytes: int


class Waiting(NamedTuple):
    """A batch that waits. `row`: its number."""

    row: int
    labels: StreamLabels
    events: list[StoredEvent]


class Refusal(NamedTuple):
    """Events of a batch that Loki will never take, and what it says."""

    labels: StreamLabels
    events: Sequence[StoredEvent]
    reason: str


def open_outbox(connection: sqlite3.Connection, epoch: str) -> Opened:
    """Make the tables if there are none; `epoch` becomes the name of a new catalog. Raises StoreUnavailable."""
    with transaction(connection):
        prepare(connection)
        connection.execute(
            "CREATE TABLE IF NOT EXISTS loki (id INTEGER PRIMARY KEY CHECK (id = 1), epoch TEXT NOT NULL)"
        )
        connection.execute("INSERT INTO loki VALUES (1, ?) ON CONFLICT DO NOTHING", (epoch,))
        (known,) = connection.execute("SELECT epoch FROM loki").fetchone()
        (waiting,) = connection.execute("SELECT ifnull(sum(size), 0) FROM tail").fetchone()
        return Opened(known, load_groups(connection), waiting)


# ---------------------------------------------------------------- to Loki


def due(connection: sqlite3.Connection, epoch: str, *, until: int, but_from: int, max_bytes: int) -> list[Waiting]:
    """Return the oldest batches, of `max_bytes` together or one, that end before `until`, or behind `but_from`."""
    rows = connection.execute(
        "SELECT t.id, g.name, g.id, s.name, s.id, t.size, t.first_number, t.ingested_at, t.body FROM tail t"
        " JOIN streams s ON s.id = t.stream_id JOIN groups g ON g.id = t.group_id"
        f" WHERE t.last_at <= ? OR t.last_at > ? ORDER BY t.id LIMIT {_ROWS}",
        (until, but_from),
    )
    found: list[Waiting] = []
    taken = 0
    for row, group, group_id, stream, stream_id, size, first_number, ingested_at, body in rows:
        taken += size
        if found and taken > max_bytes:
            break
        labels = StreamLabels(epoch, group, group_id, stream, stream_id)
        found.append(Waiting(row, labels, decode_batch(body, first_number, ingested_at)))
    return found


def settle(
    connection: sqlite3.Connection, rows: Iterable[int], refusals: Iterable[Refusal], *, at: int
) -> tuple[int, list[Appended]]:
    """Forget batches that have been pushed; where Loki refused some of one, leave an event that says so.

    In the caller's transaction. Returns how many bytes left, and what was appended.
    """
    left = sum(
        size
        for row in rows
        for (size,) in connection.execute("DELETE FROM tail WHERE id = ? RETURNING size", (row,)).fetchall()
    )
    appended: list[Appended] = []
    for labels, events, reason in refusals:
        number = f"{len(events)} events" if len(events) > 1 else "1 event"
        first, last = min(event.at for event in events), max(event.at for event in events)
        text = f"Loki refused {number} from {time_in_words(first)} to {time_in_words(last)}: {reason}"
        gap = LogEvent(at, text, LogKind.GAP)
        try:
            one = advance(connection, labels.group, labels.stream, [gap], ingested_at=at, shipment=None)
        except (GroupMissing, StreamMissing):
            continue
        keep_in_tail(connection, one, encode_batch(one.events), at)
        appended.append(one)
    return left, appended


# ---------------------------------------------------------------- to readers


def waiting_events(
    connection: sqlite3.Connection, group_id: int, streams: Mapping[int, str], *, start: int, end: int
) -> list[tuple[str, StoredEvent]]:
    """Return what waits of some streams of a group (number in the catalog -> name), `start` <= time < `end`.

    In the order (time, stream's name, number).
    """
    column, values = ("stream_id", list(streams)) if len(streams) <= _FEW_STREAMS else ("group_id", [group_id])
    statement = (
        "SELECT stream_id, first_number, ingested_at, body FROM tail"
        f" WHERE {column} = ? AND last_at >= ? AND first_at < ?"
    )
    found = [
        (streams[stream_id], event)
        for value in values
        for stream_id, first_number, ingested_at, body in connection.execute(statement, (value, start, end))
        if stream_id in streams
        for event in decode_batch(body, first_number, ingested_at)
        if start <= event.at < end
    ]
    return sorted(found, key=lambda pair: (pair[1].at, pair[0], pair[1].number))


def streams_in(
    connection: sqlite3.Connection, group: str, streams: Collection[str] | None, prefix: str
) -> tuple[int, dict[int, str], tuple[int, int]]:
    """Return a group's number, its streams that are named or have the prefix, and from when to when they have events.

    The end lies behind the last event. Raises GroupMissing.
    """
    group_id = find_group(connection, group)
    columns = "id, name, first_at, last_at"
    if streams is not None:
        statement = f"SELECT {columns} FROM streams WHERE group_id = ? AND name = ?"
        rows = [row for name in set(streams) for row in connection.execute(statement, (group_id, name))]
    else:
        statement = f"SELECT {columns} FROM streams WHERE group_id = ?1 AND name >= ?2 AND (?3 IS NULL OR name < ?3)"
        rows = connection.execute(statement, (group_id, prefix, prefix_bound(prefix))).fetchall()
    filled = [row for row in rows if row[2] is not None]
    begin = min((row[2] for row in filled), default=0)
    end = max((row[3] + 1 for row in filled), default=0)
    return group_id, {row[0]: row[1] for row in filled}, (begin, end)


# ---------------------------------------------------------------- what goes


class Deleted(NamedTuple):
    """What has been deleted here and may still be in Loki: numbers in the catalog."""

    groups: list[int]
    streams: list[int]


def to_be_deleted(connection: sqlite3.Connection) -> Deleted:
    """Return some of what has been deleted."""
    groups = connection.execute(f"SELECT id FROM doomed_groups LIMIT {_SLICE}").fetchall()
    streams = connection.execute(f"SELECT id FROM doomed_streams LIMIT {_SLICE}").fetchall()
    return Deleted([number for (number,) in groups], [number for (number,) in streams])


def forget_deleted(connection: sqlite3.Connection, deleted: Deleted) -> int:
    """Remove the rows of what Loki has been told of, in the caller's transaction; return how many bytes waited."""
    left = 0
    for table, column, numbers in (
        ("doomed_groups", "group_id", deleted.groups),
        ("doomed_streams", "stream_id", deleted.streams),
    ):
        for number in numbers:
            rows = connection.execute(f"DELETE FROM tail WHERE {column} = ? RETURNING size", (number,)).fetchall()
            left += sum(size for (size,) in rows)
            if column == "group_id":
                connection.execute("DELETE FROM streams WHERE group_id = ?", (number,))
            connection.execute(f"DELETE FROM {table} WHERE id = ?", (number,))
    return left


def forget_expired(connection: sqlite3.Connection, cutoffs: Mapping[int, int]) -> list[tuple[int, int]]:
    """Remove containers' streams whose last event is older than their group's cutoff (group's id -> epoch ms).

    In the caller's transaction. Returns the changes of the groups' sizes.
    """
    changes: list[tuple[int, int]] = []
    for group_id, cutoff in cutoffs.items():
        rows = connection.execute(
            "DELETE FROM streams WHERE id IN (SELECT id FROM streams WHERE group_id = ? AND last_at < ?"
            " AND (ended OR shipped_next > 1 OR position <> '')"
            f" AND NOT EXISTS (SELECT 1 FROM tail WHERE stream_id = streams.id) LIMIT {_SLICE}) RETURNING stored_bytes",
            (group_id, cutoff),
        ).fetchall()
        changes.append((group_id, -sum(size for (size,) in rows)))
    return changes
