"""A plan over events: fed chunk by chunk, it holds bounded memory, and gives rows of text in the end. Pure.

Not for two threads at once: whoever feeds it from another thread waits before the next call.
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, Final, Protocol

from controlplane.logs.api import StoredEvent
from controlplane.logs.insights.aggregates import Gather
from controlplane.logs.insights.plan import First, Group, Plan, Segment, Unique
from controlplane.logs.insights.rows import Row
from controlplane.logs.insights.values import shown

__all__ = ["MAX_MEMORY_BYTES", "Execution", "QueryFailed", "ResultRow"]

#: A row of a result: (column, value) for each column that has one.
ResultRow = tuple[tuple[str, str], ...]

#: About how much the rows and groups of one query may hold.
MAX_MEMORY_BYTES: Final = 96 * 1024 * 1024
#: After how many rows at least the size of groups is looked at anew.
_LOOK_EVERY: Final = 1000
#: After how many new rows all are put in order: little by little, since no other thread gets on while a list is sorted.
_SORT_EVERY: Final = 2000


class QueryFailed(Exception):
    """A query can't go on; the text says why, and what to do."""


class Execution:
    """One query on its way."""

    def __init__(self, plan: Plan, *, max_memory_bytes: int = MAX_MEMORY_BYTES) -> None:
        self._plan = plan
        self._max = max_memory_bytes
        self._first = _barrier(plan.segments[0], max_memory_bytes)
        self._steps = plan.segments[0].steps
        self.records_scanned = 0
        self.records_matched = 0
        self.bytes_scanned = 0
        #: About how much memory the result takes.
        self.result_bytes = 0

    def feed(self, group: str, events: Iterable[tuple[str, StoredEvent]]) -> None:
        """Take in some events, with their streams' names. `group`: what @log shows. Raises QueryFailed."""
        steps, barrier = self._steps, self._first
        for stream, event in events:
            self.records_scanned += 1
            text = event.text
            self.bytes_scanned += len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
            row = Row(group, stream, event, (event.at, self.records_scanned))
            for step in steps:
                if not step(row):
                    break
            else:
                self.records_matched += 1
                barrier.add(row)

    def finish(self) -> list[ResultRow]:
        """Return the result. Raises QueryFailed."""
        rows = self._first.rows()
        for segment in self._plan.segments[1:]:
            barrier = _barrier(segment, self._max)
            for row in rows:
                if all(step(row) for step in segment.steps):
                    barrier.add(row)
            rows = barrier.rows()
        return self._render(rows)

    def _render(self, rows: Sequence[Row]) -> list[ResultRow]:
        rendered = []
        for row in rows:
            values = [(column.name, column.value(row)) for column in self._plan.columns]
            if self._plan.pointers:
                values.append(("@ptr", row.pointer()))
            texts = tuple((name, shown(value)) for name, value in values if value is not None)
            self.result_bytes += sum(100 + len(text) for _, text in texts)
            _check(self.result_bytes, self._max)
            rendered.append(texts)
        return rendered


class _Barrier(Protocol):
    def add(self, row: Row) -> None: ...

    def rows(self) -> Sequence[Row]: ...


def _barrier(segment: Segment, max_bytes: int) -> _Barrier:
    match segment.barrier:
        case First() as first:
            return _First(first, max_bytes)
        case Unique() as unique:
            return _Unique(unique, max_bytes)
        case Group() as group:
            return _Group(group, max_bytes)


def _check(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise QueryFailed(
            f"the query would hold more than {max_bytes // 2**20} MiB of rows: ask for a shorter time, filter more, or "
            "set a smaller limit"
        )


def _sort(rows: list[Row]) -> None:
    """Put rows in the order of their keys; quick where most of them are in order already."""
    rows.sort(key=attrgetter("key"))


class _First:
    """Keeps few more rows than are wanted, in order but for the latest."""

    def __init__(self, wanted: First, max_bytes: int) -> None:
        self._wanted = wanted
        self._max = max_bytes
        self._rows: list[Row] = []
        self._unsorted = 0
        self._sort_every = min(wanted.count + 100, _SORT_EVERY)
        self._size = 0
        #: The key of the last one, once there are as many as are wanted: what comes behind it is none of them.
        self._last_key: tuple[Any, ...] | None = None

    def add(self, row: Row) -> None:
        if not self._wanted.keyed and len(self._rows) >= self._wanted.count:
            return
        if self._last_key is not None and row.key > self._last_key:
            return
        row.forget_document()
        self._rows.append(row)
        self._unsorted += 1
        self._size += row.size()
        if self._unsorted >= self._sort_every or self._size > self._max:
            self._prune()
            # Room for many more, lest every row that comes prunes anew.
            _check(self._size, self._max * 3 // 4)

    def _prune(self) -> None:
        self._unsorted = 0
        if not self._wanted.keyed:
            return
        _sort(self._rows)
        count = self._wanted.count
        self._size -= sum(row.size() for row in self._rows[count:])
        del self._rows[count:]
        if len(self._rows) == count:
            self._last_key = self._rows[-1].key

    def rows(self) -> Sequence[Row]:
        self._prune()
        return self._rows


class _Unique:
    """Keeps the best row of each combination of values."""

    def __init__(self, wanted: Unique, max_bytes: int) -> None:
        self._wanted = wanted
        self._max = max_bytes
        self._best: dict[tuple[str | int, ...], Row] = {}
        self._size = 0

    def add(self, row: Row) -> None:
        values = [value(row) for value in self._wanted.values]
        row.forget_document()
        # A row that lacks a value has a key of its own: a number, which no text is.
        key = (len(self._best),) if any(value is None for value in values) else tuple(map(shown, values))
        known = self._best.get(key)
        if known is None or (self._wanted.keyed and row.key < known.key):
            self._best[key] = row
            self._grow(row, known)

    def _grow(self, row: Row, known: Row | None) -> None:
        self._size += row.size() - (0 if known is None else known.size())
        _check(self._size, self._max)

    def rows(self) -> Sequence[Row]:
        rows = list(self._best.values())
        if not self._wanted.keyed:
            return rows
        # Bit by bit, since no other thread gets on while a list is sorted.
        ordered: list[Row] = []
        for begin in range(0, len(rows), _SORT_EVERY):
            ordered += rows[begin : begin + _SORT_EVERY]
            _sort(ordered)
        return ordered


class _Group:
    """Gathers values by group."""

    def __init__(self, wanted: Group, max_bytes: int) -> None:
        self._wanted = wanted
        self._max = max_bytes
        self._groups: dict[tuple[str | None, ...], tuple[list[Any], list[Gather]]] = {}
        self._values = [value for _, value in wanted.gathers]
        #: What has come since the last look at the groups' size: rows, and about how many bytes.
        self._rows_since = self._bytes_since = 0

    def add(self, row: Row) -> None:
        values = [value(row) for _, value in self._wanted.by]
        key = tuple(None if value is None else shown(value) for value in values)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = (values, [make() for make, _ in self._wanted.gathers])
        at = 0 if row.event is None else row.event.at
        for gather, value in zip(group[1], self._values, strict=True):
            gather.add(value(row), at)
        self._rows_since += 1
        self._bytes_since += row.size()
        if self._rows_since >= max(_LOOK_EVERY, len(self._groups)) or self._bytes_since > self._max // 8:
            self._look()

    def _look(self) -> None:
        """Sum up what the groups hold; the more there are, the rarer."""
        self._rows_since = self._bytes_since = 0
        size = sum(
            400 + sum(80 + len(text or "") for text in key) + sum(gather.size() for gather in gathers)
            for key, (_, gathers) in self._groups.items()
        )
        if size > self._max:
            raise QueryFailed(
                f"stats: the {len(self._groups)} groups would hold more than {self._max // 2**20} MiB: group by less, "
                "or ask for a shorter time"
            )

    def rows(self) -> Sequence[Row]:
        self._look()
        return [self._row(place, *group) for place, group in enumerate(self._groups.values())]

    def _row(self, place: int, values: list[Any], gathers: list[Gather]) -> Row:
        gathered = Row("", "", None, ())
        gathered.values.update((str(slot), gather.result()) for slot, gather in enumerate(gathers))
        row = Row("", "", None, (place,))
        row.values.update(zip((name for name, _ in self._wanted.by), values, strict=True))
        row.values.update((name, value(gathered)) for name, value in self._wanted.outputs)
        return row
