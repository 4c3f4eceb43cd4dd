"""One call's way through a group's events: bounded work, whichever direction, and where the next call goes on."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from controlplane.context import Context
from controlplane.logs.api import ScanKey, StoredEvent
from controlplane.logs.patterns import FilterPattern

__all__ = ["PAGE_BYTES", "SEARCH_BYTES", "SEARCH_S", "Search", "Where"]

#: Texts in a page.
PAGE_BYTES: Final = 1024 * 1024
#: What a call looks through before it answers with what it has found and a token to go on with.
SEARCH_S: Final = 1.0
SEARCH_BYTES: Final = 64 * 1024 * 1024
#: Events that are looked at without letting others run: a few milliseconds of the dearest patterns.
_PIECE: Final = 500
#: Backwards, time is searched in slices: the first one's length, and how much longer each next one is.
_SLICE_MS: Final = 10_000
_LONGER: Final = 4
#: A slice with more than this is made shorter, unless it is a millisecond.
_SLICE_BYTES: Final = 8 * 1024 * 1024

#: Behind a time, in a place to go on backwards from: everything of that time has been seen.
_NONE_OF_IT: Final = ("", 0)

_Found = tuple[str, StoredEvent]


@dataclass(frozen=True, slots=True)
class Where:
    """Whose events: of the streams named, or of those with the prefix; `start` <= time < `end`."""

    group: str
    streams: list[str] | None
    prefix: str
    start: int | None
    end: int | None


@dataclass(slots=True)
class Search:
    """Fills a page of at most `limit` events: call `forward` or `backward` once, then read `found` and `more`."""

    context: Context
    where: Where
    pattern: FilterPattern
    limit: int
    found: list[_Found] = field(default_factory=list)
    #: The last event that counts as seen, if there may be more to see.
    more: ScanKey | None = None
    _found_bytes: int = 0
    _searched_bytes: int = 0
    _began: float = 0.0

    async def forward(self, after: ScanKey | None) -> None:
        """Look through the events behind `after`, earlier ones first. Raises as LogStore.scan does."""
        self._began = self.context.clock.monotonic()
        last = after
        async with aclosing(self._pieces(self.where.start, self.where.end, after)) as pieces:
            async for piece in pieces:
                for stream, event in piece:
                    if self.pattern.matches(event.text):
                        if self._full() or not self._has_room(event):
                            self.more = last
                            return
                        self._keep(stream, event)
                    last = (event.at, stream, event.number)
                if self._full() or self._spent():
                    self.more = last
                    return

    async def backward(self, before: ScanKey | None) -> None:
        """Look through the events in front of `before`, later ones first. `where.start` must be given.

        The store reads forward: it is asked for slices of time that lie one before the other, the longer the fewer
        events they turn out to hold.
        """
        self._began = self.context.clock.monotonic()
        start = self.where.start or 0
        last = await self._newest() if before is None else before[0] - (before[1:] == _NONE_OF_IT)
        end = last + 1 if self.where.end is None else min(last + 1, self.where.end)
        length = _SLICE_MS
        while end > start:
            begin = max(start, end - length)
            wanted = await self._slice(begin, end, before)
            if wanted is None:
                length = max((end - begin) // 16, 1)
                continue
            if not self._take(wanted):
                return
            end, length = begin, length * _LONGER
            if end > start and self._spent():
                self.more = (end, *_NONE_OF_IT)
                return

    def _take(self, wanted: deque[_Found]) -> bool:
        """Put events into the page, from the last one on. False, and `more` is said, if it has become full."""
        for stream, event in reversed(wanted):
            if self._full() or not self._has_room(event):
                last_stream, last = self.found[-1]
                self.more = (last.at, last_stream, last.number)
                return False
            self._keep(stream, event)
        return True

    async def _slice(self, begin: int, end: int, before: ScanKey | None) -> deque[_Found] | None:
        """Return the last events of a slice that are wanted, in order; None if it holds too much to look through."""
        # One more than there is room for: it tells that there is more.
        wanted: deque[_Found] = deque(maxlen=self.limit + 1)
        searched = self._searched_bytes
        async with aclosing(self._pieces(begin, end, None)) as pieces:
            async for piece in pieces:
                if self._searched_bytes - searched > _SLICE_BYTES and end - begin > 1:
                    return None
                for stream, event in piece:
                    if before is not None and (event.at, stream, event.number) >= before:
                        return wanted
                    if self.pattern.matches(event.text):
                        wanted.append((stream, event))
        return wanted

    async def _newest(self) -> int:
        """Return the time of the last event that there is."""
        logs, where = self.context.logs, self.where
        if where.streams is not None:
            found = [await logs.stream(where.group, name) for name in where.streams]
        else:
            found = list(
                await logs.streams(where.group, prefix=where.prefix, order="last_event", descending=True, limit=1)
            )
        return max((stream.last_at or 0 for stream in found), default=0)

    async def _pieces(
        self, start: int | None, end: int | None, after: ScanKey | None
    ) -> AsyncGenerator[Sequence[_Found]]:
        """Yield the events in pieces so small that others get to run between two of them."""
        where = self.where
        chunks = self.context.logs.scan(
            where.group, streams=where.streams, prefix=where.prefix, start=start, end=end, after=after
        )
        async with aclosing(chunks):
            async for chunk in chunks:
                for begin in range(0, len(chunk), _PIECE):
                    piece = chunk[begin : begin + _PIECE]
                    self._searched_bytes += sum(len(event.text) for _, event in piece)
                    yield piece
                    await asyncio.sleep(0)

    def _has_room(self, event: StoredEvent) -> bool:
        return not self.found or self._found_bytes + len(event.text.encode()) <= PAGE_BYTES

    def _full(self) -> bool:
        return len(self.found) >= self.limit

    def _keep(self, stream: str, event: StoredEvent) -> None:
        self._found_bytes += len(event.text.encode())
        self.found.append((stream, event))

    def _spent(self) -> bool:
        return self._searched_bytes > SEARCH_BYTES or self.context.clock.monotonic() - self._began > SEARCH_S
