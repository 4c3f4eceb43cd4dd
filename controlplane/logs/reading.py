"""Reading: the pieces of a stream or group, loaded when their turn comes and merged into order.

Pieces may overlap in time (PutLogEvents brings old events, streams run side by side), so what is loaded is given out
only up to where the next piece begins. How much is held meanwhile is bounded: beyond it, the later half of what is
loaded is let go, and loaded again when it is its turn. All of it runs in a reader's thread.
"""

import heapq
import itertools
import operator
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from msgspec.structs import replace

from controlplane.logs.api import OVERHEAD_BYTES, EventKey, StoredEvent, size_of
from controlplane.logs.blocks import BlockDamaged, decode_batch, decode_block
from controlplane.logs.pieces import Piece, Times
from controlplane.logs.segments import SegmentFiles
from controlplane.logs.words import time_in_words
from homeport.protocol import LogKind

__all__ = ["Entry", "Loader", "first_events", "last_events", "merged"]

#: (time, stream, number, event): sorts as a scan's answers do.
Entry = tuple[int, str, int, StoredEvent]

#: Bytes of events that a scan holds loaded, as CloudWatch counts them.
_HELD_BYTES: Final = 48 * 1024 * 1024
#: Entries of a chunk: what is sorted in one go, while no other thread runs.
_CHUNK: Final = 8192

_at: Final = operator.attrgetter("at")
_entry_at: Final = operator.itemgetter(0)
_key: Final = operator.attrgetter("at", "number")


class Loader:
    """Loads pieces within `times`. `still_there` tells whether a block is still in the catalog. Counts in `blocks`."""

    def __init__(self, files: SegmentFiles, times: Times, still_there: Callable[[int], bool]) -> None:
        self.blocks = 0
        self._files = files
        self._times = times
        self._still_there = still_there

    def load(self, piece: Piece) -> list[StoredEvent]:
        """Return its events in order. One of kind GAP is in the place of a block that can't be read."""
        events = _batch(piece) if piece.body else self._block(piece)
        start = piece.first_at if self._times.start is None else max(piece.first_at, self._times.start)
        if events and events[0].at < start:
            del events[: bisect_left(events, start, key=_at)]
        end = self._times.end
        if end is not None and events and events[-1].at >= end:
            del events[bisect_left(events, end, key=_at) :]
        return events

    def _block(self, piece: Piece) -> list[StoredEvent]:
        self.blocks += 1
        try:
            return decode_block(self._files.read(piece.segment, piece.offset, piece.length))
        except FileNotFoundError:
            if not self._still_there(piece.block):
                return []
            return self._gap(piece, f"{self._files.path(piece.segment)} is gone")
        except BlockDamaged as error:
            if not self._still_there(piece.block):
                return []
            return self._gap(piece, f"of their block in {self._files.path(piece.segment)}, {error}")

    def _gap(self, piece: Piece, why: str) -> list[StoredEvent]:
        # Where the search begins, if that is within the block: whoever asks for a part of it must be told, too.
        at = piece.first_at if self._times.start is None else max(piece.first_at, self._times.start)
        events = f"{piece.count} events" if piece.count > 1 else "1 event"
        text = f"{events} from {time_in_words(piece.first_at)} to {time_in_words(piece.last_at)} can't be read: {why}"
        return [StoredEvent(at, piece.first_number, piece.last_at, text, LogKind.GAP)]


def _batch(piece: Piece) -> list[StoredEvent]:
    events = decode_batch(piece.body, piece.first_number, piece.ingested_at)
    events.sort(key=_key)
    return events


# ---------------------------------------------------------------- one stream


def first_events(
    pieces: Iterator[Piece], load: Callable[[Piece], list[StoredEvent]], after: EventKey | None, before: EventKey | None
) -> Iterator[StoredEvent]:
    """Yield a stream's events in order, of pieces that come by when they begin."""
    held: list[StoredEvent] = []
    for piece in pieces:
        ready = bisect_left(held, piece.first_at, key=_at)
        yield from held[:ready]
        held = held[ready:]
        loaded = _between(load(piece), after, before)
        held = sorted([*held, *loaded], key=_key) if held else loaded
    yield from held


def last_events(
    pieces: Iterator[Piece], load: Callable[[Piece], list[StoredEvent]], after: EventKey | None, before: EventKey | None
) -> Iterator[StoredEvent]:
    """Yield a stream's events from the last one back, of pieces that come by when they end, the last one first."""
    held: list[StoredEvent] = []
    for piece in pieces:
        ready = bisect_left(held, piece.last_at + 1, key=_at)
        yield from reversed(held[ready:])
        held = held[:ready]
        loaded = _between(load(piece), after, before)
        held = sorted([*held, *loaded], key=_key) if held else loaded
    yield from reversed(held)


def _between(events: list[StoredEvent], after: EventKey | None, before: EventKey | None) -> list[StoredEvent]:
    begin = 0 if after is None else bisect_left(events, (after[0], after[1] + 1), key=_key)
    end = len(events) if before is None else bisect_left(events, before, key=_key)
    return events[begin:end] if begin or end < len(events) else events


def taken(events: Iterator[StoredEvent], limit: int, max_bytes: int) -> list[StoredEvent]:
    """Return the first of `events`: `limit` at most, and `max_bytes`, but one at least."""
    found: list[StoredEvent] = []
    size = 0
    for event in itertools.islice(events, limit):
        size += size_of(event.text)
        if found and size > max_bytes:
            break
        found.append(event)
    return found


# ---------------------------------------------------------------- a group


def merged(
    pieces: Iterator[Piece], load: Callable[[Piece], list[StoredEvent]], *, held_bytes: int = _HELD_BYTES
) -> Iterator[list[Entry]]:
    """Yield events of many streams in the order (time, stream, number), in chunks, of pieces by when they begin.

    Chunks may be empty: between two of them no more than a few blocks are read.
    """
    held, later = _Held(), _Later()
    loaded = 0
    for piece in _by_turn(pieces, later):
        if loaded > len(held.runs) // 8:
            yield from held.chunks(piece.first_at)
            loaded = 0
        held.add(piece, load(piece))
        loaded += 1
        if held.size > held_bytes:
            yield from held.chunks(piece.first_at)
            if held.size > held_bytes:
                later.add(held.let_go())
    yield from held.chunks(None)


def _by_turn(pieces: Iterator[Piece], later: "_Later") -> Iterator[Piece]:
    """Yield pieces and, in between, those that were let go meanwhile, by when they begin."""
    for piece in pieces:
        while (again := later.take(piece.first_at)) is not None:
            yield again
        yield piece
    while (again := later.take(None)) is not None:
        yield again


class _Later:
    """Pieces to be loaded again, from some time on. One that is let go twice is loaded once, from the earlier time."""

    def __init__(self) -> None:
        self._turn = itertools.count()
        self._heap: list[tuple[int, int, Piece]] = []
        self._latest: dict[tuple[str, int], Piece] = {}

    def add(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            self._latest[piece.stream, piece.first_number] = piece
            heapq.heappush(self._heap, (piece.first_at, next(self._turn), piece))

    def take(self, until: int | None) -> Piece | None:
        """Return the first one, if it begins at `until` or before."""
        while self._heap and (until is None or self._heap[0][0] <= until):
            piece = heapq.heappop(self._heap)[2]
            name = (piece.stream, piece.first_number)
            if self._latest.get(name) is piece:
                del self._latest[name]
                return piece
        return None


class _Held:
    """What is loaded and not given out: a run of entries, in order, of each piece."""

    def __init__(self) -> None:
        self.runs: list[tuple[Piece, list[Entry]]] = []
        self.size = 0

    def add(self, piece: Piece, events: Sequence[StoredEvent]) -> None:
        if events:
            name = piece.stream
            self.runs.append((piece, [(event.at, name, event.number, event) for event in events]))
            self.size += _size(self.runs[-1][1])

    def chunks(self, until: int | None) -> Iterator[list[Entry]]:
        """Yield everything before `until`, in order, in chunks that are quickly sorted; one at least."""
        while (cut := self._cut(until)) != until:
            yield self.take(cut)
        yield self.take(until)

    def _cut(self, until: int | None) -> int | None:
        """Return the time before which about a chunk's entries are; `until` if no more are before that."""
        ready = [run for _, run in self.runs if until is None or run[0][0] < until]
        place = _CHUNK // max(len(ready), 1)
        cut = min((run[place][0] + 1 for run in ready if len(run) > place), default=until)
        return cut if until is None or cut is None else min(cut, until)

    def take(self, until: int | None) -> list[Entry]:
        """Return everything before `until`, in order."""
        found: list[Entry] = []
        rest: list[tuple[Piece, list[Entry]]] = []
        for piece, run in self.runs:
            if until is None or run[-1][0] < until:
                found += run
            elif run[0][0] >= until:
                rest.append((piece, run))
            else:
                ready = bisect_left(run, until, key=_entry_at)
                found += run[:ready]
                rest.append((piece, run[ready:]))
        self.runs = rest
        self.size -= _size(found)
        found.sort()
        return found

    def let_go(self) -> list[Piece]:
        """Keep the earlier half of what is held, and return the pieces to be loaded again for the rest of it."""
        middles = sorted(run[len(run) // 2][0] for _, run in self.runs)
        horizon = max(middles[len(middles) // 2], min(run[0][0] for _, run in self.runs) + 1)
        again, rest = [], []
        for piece, run in self.runs:
            begin = bisect_left(run, horizon, key=_entry_at)
            if begin < len(run):
                again.append(replace(piece, first_at=run[begin][0]))
            if begin:
                rest.append((piece, run[:begin]))
        self.runs = rest
        self.size = sum(_size(run) for _, run in rest)
        return again


def _size(run: Sequence[Entry]) -> int:
    return sum(len(entry[3].text) for entry in run) + OVERHEAD_BYTES * len(run)
