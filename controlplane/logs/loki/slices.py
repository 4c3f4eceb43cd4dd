"""Reading Loki in time's order, whole milliseconds at a time, so that what is read can be sorted and merged."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, Literal, NamedTuple

import structlog

from controlplane.logs.loki.client import PAGE, LokiClient
from controlplane.logs.loki.entries import NS_PER_MS, Found, joined

__all__ = ["LokiReader", "Slice"]

_log: Final = structlog.get_logger(__name__)

#: One query spans so much at first, and at most; Loki's own limit is thirty days.
_FIRST_SPAN_MS: Final = 60_000
_SPAN_MS: Final = 28 * 86_400_000
#: Pages are so large that a page's texts come to between these.
_FIRST_PAGE: Final = 500
_SMALL_BYTES: Final = 1024 * 1024
_LARGE_BYTES: Final = 8 * 1024 * 1024


class Slice(NamedTuple):
    """All entries with `start` <= millisecond < `end`, in order."""

    start: int
    end: int
    entries: list[Found]


class LokiReader:
    """Reads the streams of a selector. `window`: from when to when Loki can have anything; it isn't asked for more."""

    def __init__(self, client: LokiClient, selector: str, window: tuple[int, int]) -> None:
        self._client = client
        self._selector = selector
        self._window = window
        self._page = _FIRST_PAGE
        self._span = _FIRST_SPAN_MS

    async def forward(self, start: int, end: int) -> AsyncGenerator[Slice]:
        """Yield slices that follow one another from `start` to `end`. Raises LokiAway."""
        earliest, latest = self._within(start, end)
        if start < earliest:
            yield Slice(start, earliest, [])
        async with aclosing(self._forward(earliest, latest)) as slices:
            async for part in slices:
                yield part
        if latest < end:
            yield Slice(latest, end, [])

    async def backward(self, start: int, end: int) -> AsyncGenerator[Slice]:
        """Yield slices that precede one another from `end` to `start`, each in order. Raises LokiAway."""
        earliest, latest = self._within(start, end)
        if latest < end:
            yield Slice(latest, end, [])
        async with aclosing(self._backward(earliest, latest)) as slices:
            async for part in slices:
                yield part
        if start < earliest:
            yield Slice(start, earliest, [])

    def _within(self, start: int, end: int) -> tuple[int, int]:
        """Return the part of a span that is in the window; an empty one, still within the span, if none is."""
        earliest = min(max(start, self._window[0]), end)
        return earliest, max(min(end, self._window[1]), earliest)

    async def _forward(self, start: int, end: int) -> AsyncGenerator[Slice]:
        while start < end:
            until = min(end, start + self._span)
            entries, more = await self._query(start * NS_PER_MS, until * NS_PER_MS, "forward")
            if more:
                # The last millisecond may go on behind the page.
                last = max(entry.ns for entry in entries) // NS_PER_MS
                if last > start:
                    until, entries = last, [entry for entry in entries if entry.ns < last * NS_PER_MS]
                else:
                    until, entries = start + 1, await self._millisecond(start)
            self._learn(until - start, len(entries), more)
            yield Slice(start, until, joined(entries))
            start = until

    async def _backward(self, start: int, end: int) -> AsyncGenerator[Slice]:
        while start < end:
            begin = max(start, end - self._span)
            entries, more = await self._query(begin * NS_PER_MS, end * NS_PER_MS, "backward")
            if more:
                first = min(entry.ns for entry in entries) // NS_PER_MS
                if first < end - 1:
                    begin, entries = first + 1, [entry for entry in entries if entry.ns >= (first + 1) * NS_PER_MS]
                else:
                    begin, entries = first, await self._millisecond(first)
            self._learn(end - begin, len(entries), more)
            yield Slice(begin, end, joined(entries))
            end = begin

    def _learn(self, span: int, entries: int, more: bool) -> None:
        """Choose how much time the next query spans: what about fills a page, for Loki looks through all of it."""
        if more:
            self._span = span
        elif entries < self._page // 2:
            self._span = min(self._span * 8, _SPAN_MS)

    async def _millisecond(self, at: int) -> list[Found]:
        """Return all entries of one millisecond, however many."""
        start, end = at * NS_PER_MS, (at + 1) * NS_PER_MS
        found: list[Found] = []
        more = True
        while more and start < end:
            entries, more = await self._query(start, end, "forward")
            last = max((entry.ns for entry in entries), default=start)
            if more and last == start:
                entries = await self._nanosecond(start)
                last = start + 1
            found += entries
            # The last nanosecond may go on behind the page: it is read again.
            start = last
        return found

    async def _nanosecond(self, ns: int) -> list[Found]:
        """Return the entries of one nanosecond: one of each stream whose number ends alike."""
        entries, count = await self._client.query(self._selector, ns, ns + 1, limit=PAGE, direction="forward")
        if count >= PAGE:
            _log.warning("loki_lines_left_out", at_ns=ns, hint=f"more than {PAGE} streams have a line at this time")
        return entries

    async def _query(
        self, start_ns: int, end_ns: int, direction: Literal["forward", "backward"]
    ) -> tuple[list[Found], bool]:
        """Return a page, and whether there may be more."""
        page = self._page
        entries, count = await self._client.query(self._selector, start_ns, end_ns, limit=page, direction=direction)
        size = sum(len(entry.text) for entry in entries)
        if size < _SMALL_BYTES:
            self._page = min(page * 2, PAGE)
        elif size > _LARGE_BYTES:
            self._page = max(page // 4, 10)
        return entries, count >= page and bool(entries)
