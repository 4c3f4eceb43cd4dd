"""The event feed over the journal: documents are rendered when they are read, and once for all who follow the end."""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final, NamedTuple

from controlplane.events.api import NumberedEvent
from controlplane.events.documents import render
from controlplane.events.notes import StoredEvent
from controlplane.store.api import Journal
from homeport.arn import ArnFactory

__all__ = ["JournalFeed", "Scanned"]

#: Rendered events at the end of the stream that are held for the next reader: some megabytes at most.
_TAIL: Final = 300


class Scanned(NamedTuple):
    """What was looked through, from the number `first` to `last`, and what of it was found."""

    first: int
    last: int
    events: Sequence[NumberedEvent]


class JournalFeed:
    """See EventFeed. The documents are shared by all readers: they must not be changed.

    Numbers count up by one, so that a reader sees by the number of what it is given whether something is missing.
    """

    def __init__(self, journal: Journal, arns: ArnFactory) -> None:
        self._journal = journal
        self._arns = arns
        self._tail: deque[NumberedEvent] = deque(maxlen=_TAIL)

    @property
    def last(self) -> int:
        """See EventFeed."""
        return self._journal.last_event

    async def read(self, after: int, *, limit: int) -> Sequence[NumberedEvent]:
        """See EventFeed."""
        if after >= self.last:
            return ()
        if self._tail and self._tail[0].number <= after + 1 <= self._tail[-1].number:
            start = after + 1 - self._tail[0].number
            return list(islice(self._tail, start, start + limit))
        stored = await self._journal.events(after, limit=limit)
        found = [self._rendered(event) for event in stored]
        self._remember(found)
        return found

    async def scan(self, after: int, *, limit: int, may: Callable[[StoredEvent], bool]) -> Scanned:
        """Look through the next `limit` events behind number `after`, and render those that `may` be wanted."""
        stored = await self._journal.events(after, limit=limit)
        found = [self._rendered(event) for event in stored if may(event)]
        return Scanned(stored[0].number, stored[-1].number, found) if stored else Scanned(after + 1, after, ())

    async def wait(self, after: int) -> None:
        """See EventFeed."""
        await self._journal.wait_event(after)

    async def before(self, at: float) -> int:
        """Return the number behind which the events of the epoch second `at` and later are, as far as they are kept."""
        return await self._journal.event_before(at)

    async def oldest(self) -> int:
        """Return the number of the oldest event that is kept; of the next one if none is."""
        return await self._journal.event_before(float("-inf")) + 1

    def _rendered(self, event: StoredEvent) -> NumberedEvent:
        return NumberedEvent(event.number, render(self._arns, event), event.at)

    def _remember(self, found: Sequence[NumberedEvent]) -> None:
        """Hold what comes right behind the tail. What is far from the end is nobody else's."""
        if not found or found[-1].number + _TAIL < self.last:
            return
        if self._tail and found[0].number != self._tail[-1].number + 1:
            if found[-1].number <= self._tail[-1].number:
                return
            self._tail.clear()
        self._tail.extend(found)
