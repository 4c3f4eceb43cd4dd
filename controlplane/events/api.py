"""The seam of events: a durable, numbered stream of EventBridge documents, which anyone may read from any place on."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

__all__ = ["EventFeed", "NumberedEvent"]


class NumberedEvent(NamedTuple):
    """An event and its place in the stream: numbers count up by one, so a reader sees whether one is missing.

    `document` has EventBridge's shape: version, id, detail-type, source, account, time, region, resources, detail.
    """

    number: int
    document: dict[str, Any]
    #: When it came into the stream, in epoch seconds. Its own `time` may be another if it is from outside.
    at: float


class EventFeed(Protocol):
    """The stream. Everything it gives is durable (invariant 1)."""

    @property
    def last(self) -> int:
        """The number of the last durable event; 0 if there is none."""
        ...

    async def read(self, after: int, *, limit: int) -> Sequence[NumberedEvent]:
        """Return the next events behind number `after`, `limit` at most. Those that retention took are passed over."""
        ...

    async def wait(self, after: int) -> None:
        """Return once there is an event behind number `after`. On cancel nothing is left."""
        ...
