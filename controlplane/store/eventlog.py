"""Events in SQLite: blocks of them, numbered by their first, packed and compressed.

    events: first (number), last (number), at (when the last was committed), body (zstandard of MessagePack)

The events of one batch are written together, and are much alike: as one row they take a fifteenth of the room, and
one step of the writer instead of one for each. A block has BLOCK_EVENTS at most, so that reading a page costs little.
Blocks follow on each other without holes and are removed from the beginning only.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Final

import msgspec
import zstandard

from controlplane.events.notes import StoredEvent

__all__ = ["BLOCK_EVENTS", "Unnumbered", "event_before", "prune_events", "read_events", "write_events"]

#: (when, kind, record, facts): an event that has yet to get its number.
Unnumbered = tuple[float, str, bytes, bytes]

BLOCK_EVENTS: Final = 100
#: Blocks looked at in one step of pruning.
_STEP_BLOCKS: Final = 1000
_LEVEL: Final = 1
#: The block that an event is in.
_BLOCK: Final = "SELECT first, last, at FROM events WHERE first <= ? ORDER BY first DESC LIMIT 1"

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[tuple[float, str, bytes, bytes]])


def write_events(connection: sqlite3.Connection, events: Sequence[Unnumbered], after: int) -> None:
    """Insert events under the numbers that follow on `after`, within the caller's transaction."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    for start in range(0, len(events), BLOCK_EVENTS):
        block = events[start : start + BLOCK_EVENTS]
        body = compressor.compress(_encoder.encode(block))
        first = after + 1 + start
        connection.execute(
            "INSERT INTO events (first, last, at, body) VALUES (?, ?, ?, ?)",
            (first, first + len(block) - 1, block[-1][0], body),
        )


def read_events(connection: sqlite3.Connection, after: int, *, last: int, limit: int) -> list[StoredEvent]:
    """Return the events behind number `after`, up to `last`, `limit` at most, in order."""
    found: list[StoredEvent] = []
    (begin,) = connection.execute("SELECT max(first) FROM events WHERE first <= ?", (after + 1,)).fetchone()
    blocks = connection.execute(
        "SELECT first, body FROM events WHERE first >= ? AND first <= ? ORDER BY first", (begin or 0, last)
    )
    for first, body in blocks:
        found += (event for event in _unpack(first, body) if after < event.number <= last)
        if len(found) >= limit:
            break
    return found[:limit]


def event_before(connection: sqlite3.Connection, at: float, *, last: int) -> int:
    """Return the number behind which the events of the epoch second `at` and later are, as far as they are kept.

    Searched for by halves: the times rise with the numbers, but for what a clock that was set back did.
    """
    (low,) = connection.execute("SELECT min(first) FROM events WHERE first <= ?", (last,)).fetchone()
    if low is None:
        return last
    high = last
    while low <= high:  # whatever is before `low` is too old, whatever is behind `high` isn't
        middle = (low + high) // 2
        first, end, newest = connection.execute(_BLOCK, (middle,)).fetchone()
        low, high = (end + 1, high) if newest < at else (low, first - 1)
    for event in read_events(connection, low - 1, last=last, limit=BLOCK_EVENTS):
        if event.at >= at:
            return event.number - 1
    return last


def prune_events(connection: sqlite3.Connection, before: float, through: int) -> int:
    """Delete some of the oldest blocks: those older than the epoch second `before`, and those up to number `through`.

    Return how many events that were, 0 when none is left.
    """
    oldest = connection.execute("SELECT first, last, at FROM events ORDER BY first LIMIT ?", (_STEP_BLOCKS,)).fetchall()
    gone = list(takewhile(lambda block: block[1] <= through or block[2] < before, oldest))
    if not gone:
        return 0
    connection.execute("DELETE FROM events WHERE first <= ?", (gone[-1][0],))
    return int(gone[-1][1] - gone[0][0] + 1)


def _unpack(first: int, body: bytes) -> Iterator[StoredEvent]:
    block = _decoder.decode(zstandard.ZstdDecompressor().decompress(body))
    for number, event in enumerate(block, first):
        yield StoredEvent(number, *event)
