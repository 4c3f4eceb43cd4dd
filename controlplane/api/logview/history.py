"""Several containers' logs as one, by time, in bounded memory: forwards as lines, backwards as places."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from heapq import heapify, heappop, heapreplace
from typing import Final

from controlplane.api.logview.model import Feed, FeedBroken, Line, Place, Sieve, Span

__all__ = ["ends_with", "merged"]

#: Lines handed on at once.
_BATCH: Final = 500
#: What the pages of all feeds together may take, and the least and most that one takes.
_MEMORY_BYTES: Final = 8 * 1024 * 1024
_PAGE_BYTES: Final = (16 * 1024, 1024 * 1024)
#: Places looked at once, going backwards.
_PLACES: Final = 200

#: Told of a feed that broke, and why.
Broke = Callable[[Feed, FeedBroken], None]


class _Cursor:
    """Where the merge stands in one feed."""

    def __init__(self, feed: Feed, pages: AsyncGenerator[Sequence[Line]]) -> None:
        self.feed = feed
        self._pages = pages
        self._page: Sequence[Line] = ()
        self._next = 0

    async def fill(self) -> bool:
        """Read on if the page is used up. False at the end."""
        while self._next >= len(self._page):
            page = await anext(self._pages, None)
            if page is None:
                return False
            self._page, self._next = page, 0
        return True

    @property
    def at(self) -> float:
        return self._page[self._next].at

    def take(self, until: float, room: int) -> Sequence[Line]:
        """Take lines not later than `until`, at least one and at most `room`, of what is at hand."""
        begin = end = self._next
        last = min(len(self._page), begin + room)
        while end < last and (end == begin or self._page[end].at <= until):
            end += 1
        self._next = end
        return self._page[begin:end]


async def merged(spans: Mapping[Feed, Span], broke: Broke) -> AsyncGenerator[Sequence[Line]]:
    """Yield the lines of all feeds, each in its span, by time. A feed's own order is kept, whatever its times say.

    Close it to stop early. A feed that breaks is left out from there on, and `broke` told.
    """
    least, most = _PAGE_BYTES
    page_bytes = min(max(_MEMORY_BYTES // max(len(spans), 1), least), most)
    async with AsyncExitStack() as stack:
        heap: list[tuple[float, int, _Cursor]] = []
        for number, (feed, span) in enumerate(spans.items()):
            pages = await stack.enter_async_context(aclosing(feed.forwards(span, page_bytes=page_bytes)))
            cursor = _Cursor(feed, pages)
            if await _filled(cursor, broke):
                heap.append((cursor.at, number, cursor))
        heapify(heap)
        batch: list[Line] = []
        while heap:
            _, number, cursor = heap[0]
            behind = min((entry[0] for entry in heap[1:3]), default=float("inf"))
            batch += cursor.take(behind, _BATCH - len(batch))
            if len(batch) >= _BATCH:
                yield batch
                batch = []
            if await _filled(cursor, broke):
                heapreplace(heap, (cursor.at, number, cursor))
            else:
                heappop(heap)
        if batch:
            yield batch


async def _filled(cursor: _Cursor, broke: Broke) -> bool:
    try:
        return await cursor.fill()
    except FeedBroken as error:
        broke(cursor.feed, error)
        return False


async def ends_with(feeds: Sequence[Feed], span: Span, sieve: Sieve, count: int, broke: Broke) -> Mapping[Feed, Place]:
    """Return where the last `count` wanted lines of all feeds together begin: for each that has some, its first place.

    A feed that ended before all of them is not read at all.
    """
    begins: dict[Feed, Place] = {}
    async with AsyncExitStack() as stack:
        # The latest first: by the time of its last line until it is read, then by the line that is next.
        heap: list[tuple[float, int, Feed, _Places | None]] = [
            (-(feed.last_at if feed.last_at is not None else float("inf")), number, feed, None)
            for number, feed in enumerate(feeds)
        ]
        heapify(heap)
        while heap and count > 0:
            _, number, feed, places = heap[0]
            if places is None:
                pages = feed.backwards(span, sieve, page=min(count, _PLACES))
                places = _Places(await stack.enter_async_context(aclosing(pages)))
            else:
                begins[feed] = places.pop()
                count -= 1
            try:
                following = await places.next()
            except FeedBroken as error:
                broke(feed, error)
                following = None
            if following is None:
                heappop(heap)
            else:
                heapreplace(heap, (-following[0], number, feed, places))
    return begins


class _Places:
    """Places of one feed, latest first."""

    def __init__(self, pages: AsyncGenerator[Sequence[Place]]) -> None:
        self._pages = pages
        self._rest: list[Place] = []

    async def next(self) -> Place | None:
        """Return the next place, without taking it; None at the end."""
        while not self._rest:
            page = await anext(self._pages, None)
            if page is None:
                return None
            self._rest = list(reversed(page))
        return self._rest[-1]

    def pop(self) -> Place:
        return self._rest.pop()
