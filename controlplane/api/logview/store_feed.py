"""A container's log as the store has it, and what comes while its agent ships."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any, Final

from controlplane.api.logview.hosts import away, connected, stopped
from controlplane.api.logview.model import FeedBroken, Line, Place, Sieve, Span, line_of
from controlplane.context import Context
from controlplane.logs.api import (
    EventKey,
    GroupMissing,
    LogStoreError,
    LogStream,
    StoredEvent,
    StoreUnavailable,
    StreamMissing,
)
from controlplane.state.records import TaskRecord

__all__ = ["StoreFeed"]

#: Events read at once, and how many bytes of them while following or looking back.
_PAGE: Final = 1000
_PAGE_BYTES: Final = 256 * 1024
#: How often it is looked whether the container is over, while nothing comes.
_LOOK_S: Final = 2.0
#: How long the end of a container that has stopped is waited for.
_END_S: Final = 5.0
#: How far back it is looked for events that came with an earlier time than those before, as a host's clock was set.
_LOOK_BACK_PAGES: Final = 20


class StoreFeed:
    """See Feed. `stream`: as the store has just told it."""

    def __init__(self, context: Context, task: TaskRecord, container: str, stream: LogStream) -> None:
        self._context = context
        self._task = task
        self._container = container
        self._stream = stream
        self.last_at = None if stream.last_at is None else stream.last_at / 1000
        #: The highest number that was read, and the key of that event.
        self._seen = stream.next_number - 1
        self._key: EventKey = (stream.last_at or 0, self._seen)

    @property
    def place(self) -> Place:
        """See Feed."""
        return self._key[0] / 1000, self._seen

    def skip(self, place: Place) -> None:
        """See Feed."""
        self._key, self._seen = (round(place[0] * 1000), place[1]), place[1]

    def rest(self) -> str:
        """See Feed."""
        return "" if self._stream.ended else away(self._context, self._task)

    async def forwards(self, span: Span, *, page_bytes: int) -> AsyncGenerator[Sequence[Line]]:
        """See Feed."""
        after = span.after_key
        while events := await self._page(span, after=after, limit=_PAGE, max_bytes=page_bytes):
            after = events[-1].key
            self._note(events)
            yield self._lines(events)

    async def backwards(self, span: Span, sieve: Sieve, *, page: int) -> AsyncGenerator[Sequence[Place]]:
        """See Feed."""
        before: EventKey | None = None
        limit = page if sieve == Sieve() else _PAGE
        while events := await self._page(span, before=before, limit=limit, max_bytes=_PAGE_BYTES, newest=True):
            before = events[0].key
            yield [(line.at, line.number) for line in reversed(sieve.sift(self._lines(events)))]
            limit = _PAGE

    async def live(self) -> AsyncGenerator[Sequence[Line]]:
        """See Feed. While the store is away it is waited for."""
        stopped_at: float | None = None
        while True:
            try:
                self._stream = await self._context.logs.stream(self._stream.group, self._stream.name)
                events = await self._news()
            except StoreUnavailable:
                await asyncio.sleep(_LOOK_S)
                continue
            except LogStoreError as error:
                raise FeedBroken(str(error)) from error
            if events:
                yield self._lines(events)
                continue
            if self._stream.ended:
                return
            if stopped(self._context, self._task):
                now = self._context.clock.monotonic()
                stopped_at = now if stopped_at is None else stopped_at
                if now - stopped_at >= _END_S or not connected(self._context, self._task):
                    return
            await self._grown()

    async def _grown(self) -> None:
        with suppress(TimeoutError, StoreUnavailable):
            async with asyncio.timeout(_LOOK_S):
                await self._context.logs.grown(self._stream.group, self._stream.name, self._seen)

    async def _news(self) -> Sequence[StoredEvent]:
        """Return the next events in the order in which they came; nothing if there are none.

        An event with an earlier time than those before it lies behind what was read: it is looked for, once there are
        fewer events ahead than numbers say.
        """
        if self._stream.next_number <= self._seen:
            self._seen, self._key = 0, (0, 0)  # it was deleted, and made anew
        while self._seen < self._stream.next_number - 1:
            ahead = await self._read(Span(), after=self._key, limit=_PAGE, max_bytes=_PAGE_BYTES)
            news = [event for event in ahead if event.number > self._seen]
            if not news:
                news = await self._behind()
            if not news:
                self._seen = self._stream.next_number - 1  # they have expired
                return ()
            news.sort(key=lambda event: event.number)
            self._note(news)
            return news
        return ()

    async def _behind(self) -> list[StoredEvent]:
        found: list[StoredEvent] = []
        before: EventKey | None = None
        for _ in range(_LOOK_BACK_PAGES):
            events = await self._read(Span(), before=before, limit=_PAGE, max_bytes=_PAGE_BYTES, newest=True)
            found += [event for event in events if event.number > self._seen]
            if not events or len(found) >= self._stream.next_number - 1 - self._seen:
                break
            before = events[0].key
        return found

    def _note(self, events: Sequence[StoredEvent]) -> None:
        latest = max(events, key=lambda event: event.number)
        if latest.number > self._seen:
            self._seen, self._key = latest.number, latest.key

    async def _page(self, span: Span, **which: Any) -> Sequence[StoredEvent]:
        """Read as `_read`. Raises FeedBroken if the store is away."""
        try:
            return await self._read(span, **which)
        except StoreUnavailable as error:
            raise FeedBroken(f"the log store is away: {error}") from error

    async def _read(
        self,
        span: Span,
        *,
        limit: int,
        max_bytes: int,
        after: EventKey | None = None,
        before: EventKey | None = None,
        newest: bool = False,
    ) -> Sequence[StoredEvent]:
        try:
            return await self._context.logs.read(
                self._stream.group,
                self._stream.name,
                start=span.start_ms,
                end=span.end_ms,
                after=after,
                before=before,
                limit=limit,
                max_bytes=max_bytes,
                newest=newest,
            )
        except (GroupMissing, StreamMissing):
            return ()  # deleted, or expired meanwhile

    def _lines(self, events: Sequence[StoredEvent]) -> list[Line]:
        return [line_of(event, self._task.id, self._container) for event in events]
