"""The seam of logs: what the API and the agents' intake need of a store. Times are epoch milliseconds, as CloudWatch's.

Two come with Homeport: segments on this machine's disk (the default), and Grafana Loki. What always holds:
 - when a call that writes returns, what it wrote would survive kill -9;
 - a stream's events are in the order (time, number); numbers count up from 1 in each stream and are never used again;
 - what a shipment repeats is passed over, so an agent may send anything twice;
 - a store that is full or away refuses with a reason and loses nothing that it had.
"""

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from typing import Final, Literal, Protocol

import msgspec

from homeport.errors import HomeportError
from homeport.protocol import LogKind

__all__ = [
    "OVERHEAD_BYTES",
    "EventKey",
    "GroupExists",
    "GroupMissing",
    "LogEvent",
    "LogGroup",
    "LogStore",
    "LogStoreError",
    "LogStream",
    "ScanKey",
    "Shipment",
    "StoreUnavailable",
    "StoreUsage",
    "StoredEvent",
    "StreamExists",
    "StreamMissing",
    "size_of",
]

#: (time, number): orders the events of one stream.
EventKey = tuple[int, int]
#: (time, stream, number): orders the events of a group.
ScanKey = tuple[int, str, int]


#: What CloudWatch counts for an event beside its text.
OVERHEAD_BYTES: Final = 26


def size_of(text: str) -> int:
    """Return what an event with this text counts, in bytes."""
    return (len(text) if text.isascii() else len(text.encode())) + OVERHEAD_BYTES


class LogStoreError(HomeportError):
    """Something the store can't do; the text says what and why."""


class GroupMissing(LogStoreError):
    """There is no such log group."""


class GroupExists(LogStoreError):
    """There is such a log group already."""


class StreamMissing(LogStoreError):
    """The group has no such log stream."""


class StreamExists(LogStoreError):
    """The group has such a log stream already."""


class StoreUnavailable(LogStoreError):
    """The store is full or can't be reached just now: nothing was written. The text says what to do about it."""


class LogEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event to be kept. `at`: when it happened."""

    at: int
    text: str
    kind: LogKind = LogKind.STDOUT


class StoredEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event that is kept."""

    at: int
    number: int
    ingested_at: int
    text: str
    kind: LogKind = LogKind.STDOUT

    @property
    def key(self) -> EventKey:
        """What orders it within its stream."""
        return self.at, self.number


class LogGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A log group. `retention_days` None: its events never expire."""

    name: str
    created_at: int
    retention_days: int | None = None
    tags: dict[str, str] = {}
    log_class: str = "STANDARD"
    deletion_protection: bool = False
    #: Of its events, as `size_of` counts. Kept by the store.
    stored_bytes: int = 0


class LogStream(msgspec.Struct, frozen=True, kw_only=True):
    """A log stream. The `_at`s of events are None while there is none."""

    group: str
    name: str
    created_at: int
    first_at: int | None = None
    last_at: int | None = None
    last_ingested_at: int | None = None
    #: What the next event will be numbered.
    next_number: int = 1
    #: What the next event of a shipment is numbered by its agent, and where its source stands.
    shipped_next: int = 1
    position: str = ""
    #: Its container has stopped and everything has been shipped.
    ended: bool = False
    stored_bytes: int = 0


class Shipment(msgspec.Struct, frozen=True, kw_only=True):
    """Where events come from, if an agent ships them: kept with them, in one write.

    Events that its agent numbered below the stream's `shipped_next` are passed over. `first` may lie beyond it.
    """

    first: int
    position: str
    end: bool = False


class StoreUsage(msgspec.Struct, frozen=True, kw_only=True):
    """How full the store is. `limit_bytes` None: unknown. `problem`: why it takes nothing now, "" if it does."""

    used_bytes: int
    limit_bytes: int | None = None
    problem: str = ""


class LogStore(Protocol):
    """Keeps groups, streams and events. Everything raises StoreUnavailable when the store can't do it just now.

    On cancel, a write may or may not have happened.
    """

    # ------------------------------------------------------------ groups

    def groups(self) -> Sequence[LogGroup]:
        """Return every group, by name. From memory: there are few."""
        ...

    def group(self, name: str) -> LogGroup:
        """Return a group. Raises GroupMissing."""
        ...

    async def create_group(self, group: LogGroup) -> None:
        """Raises GroupExists."""
        ...

    async def change_group(self, name: str, change: Callable[[LogGroup], LogGroup]) -> None:
        """Put retention, tags and protection as `change` makes them of what they are then: of two changes at once both
        count. `change` is pure, runs in any thread, and what it raises is raised. Raises GroupMissing.
        """
        ...

    async def delete_group(self, name: str) -> None:
        """Delete a group with all its streams. Raises GroupMissing."""
        ...

    # ------------------------------------------------------------ streams

    async def create_stream(self, group: str, name: str, *, at: int) -> None:
        """Raises GroupMissing, StreamExists."""
        ...

    async def delete_stream(self, group: str, name: str) -> None:
        """Delete a stream with its events. Raises GroupMissing, StreamMissing."""
        ...

    async def stream(self, group: str, name: str) -> LogStream:
        """Raises GroupMissing, StreamMissing."""
        ...

    async def streams(
        self,
        group: str,
        *,
        prefix: str = "",
        order: Literal["name", "last_event"] = "name",
        descending: bool = False,
        after: tuple[int, str] | None = None,
        limit: int = 50,
    ) -> Sequence[LogStream]:
        """Return a page of streams. Raises GroupMissing.

        By name, or by (`last_at`, name), where those without events count as 0. `after`: the (`last_at` or 0, name) of
        the last one of the page before; by name only the name counts.
        """
        ...

    # ------------------------------------------------------------ events

    async def append(
        self, group: str, stream: str, events: Sequence[LogEvent], *, ingested_at: int, shipment: Shipment | None = None
    ) -> None:
        """Keep events. Raises GroupMissing, StreamMissing, StoreUnavailable (nothing is kept then)."""
        ...

    async def read(
        self,
        group: str,
        stream: str,
        *,
        start: int | None = None,
        end: int | None = None,
        after: EventKey | None = None,
        before: EventKey | None = None,
        limit: int = 10_000,
        max_bytes: int = 1024 * 1024,
        newest: bool = False,
    ) -> Sequence[StoredEvent]:
        """Return events of a stream in their order: the first ones, or with `newest` the last ones.

        `start` <= time < `end`, `after` < key < `before`; `max_bytes` bounds the UTF-8 of their texts with 26 more for
        each, but one event is returned however large it is. Raises GroupMissing, StreamMissing.
        """
        ...

    def scan(
        self,
        group: str,
        *,
        streams: Collection[str] | None = None,
        prefix: str = "",
        start: int | None = None,
        end: int | None = None,
        after: ScanKey | None = None,
    ) -> AsyncGenerator[Sequence[tuple[str, StoredEvent]]]:
        """Yield a group's events with their streams' names, in chunks, in the order (time, stream, number).

        `start` <= time < `end`; of the streams named, or of those with the prefix. Only blocks that overlap the times
        are read. Close it to stop early. Raises GroupMissing; streams that don't exist are passed over.
        """
        ...

    async def grown(self, group: str, stream: str, after: int) -> None:
        """Return once the stream has an event numbered above `after`, has ended, or is gone."""
        ...

    # ------------------------------------------------------------ itself

    def usage(self) -> StoreUsage:
        """Tell how full it is, for metrics and messages."""
        ...

    async def run(self) -> None:
        """Do what is to be done in the background (retention, sealing, limits) until cancelled."""
        ...
