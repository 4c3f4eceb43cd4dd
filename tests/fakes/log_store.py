"""A log store in memory, as simple as the seam allows: what the real ones are held against."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from typing import Literal

from msgspec.structs import replace

from controlplane.logs.api import (
    EventKey,
    GroupExists,
    GroupMissing,
    LogEvent,
    LogGroup,
    LogStream,
    ScanKey,
    Shipment,
    StoredEvent,
    StoreUnavailable,
    StoreUsage,
    StreamExists,
    StreamMissing,
)

__all__ = ["MemoryLogStore"]

#: What CloudWatch counts for an event beside its text.
OVERHEAD = 26


class MemoryLogStore:
    """Set `problem` to have every write refused with it. `chunk`: events in one chunk of a scan."""

    def __init__(self, *, chunk: int = 3) -> None:
        self.problem = ""
        self._chunk = chunk
        self._groups: dict[str, LogGroup] = {}
        self._streams: dict[tuple[str, str], LogStream] = {}
        self._events: dict[tuple[str, str], list[StoredEvent]] = {}
        self._changed = asyncio.Condition()

    # ------------------------------------------------------------ groups

    def groups(self) -> Sequence[LogGroup]:
        return [self.group(name) for name in sorted(self._groups)]

    def group(self, name: str) -> LogGroup:
        if name not in self._groups:
            raise GroupMissing(f"there is no log group {name}")
        size = sum(stream.stored_bytes for key, stream in self._streams.items() if key[0] == name)
        return replace(self._groups[name], stored_bytes=size)

    async def create_group(self, group: LogGroup) -> None:
        self._check()
        if group.name in self._groups:
            raise GroupExists(f"there is a log group {group.name} already")
        self._groups[group.name] = group

    async def change_group(self, name: str, change: Callable[[LogGroup], LogGroup]) -> None:
        self._check()
        self._groups[name] = change(self.group(name))

    async def delete_group(self, name: str) -> None:
        self._check()
        self.group(name)
        del self._groups[name]
        for key in [key for key in self._streams if key[0] == name]:
            del self._streams[key], self._events[key]
        await self._tell()

    # ------------------------------------------------------------ streams

    async def create_stream(self, group: str, name: str, *, at: int) -> None:
        self._check()
        self.group(group)
        if (group, name) in self._streams:
            raise StreamExists(f"the log group {group} has a stream {name} already")
        self._streams[group, name] = LogStream(group=group, name=name, created_at=at)
        self._events[group, name] = []

    async def delete_stream(self, group: str, name: str) -> None:
        self._check()
        self._of(group, name)
        del self._streams[group, name], self._events[group, name]
        await self._tell()

    async def stream(self, group: str, name: str) -> LogStream:
        return self._of(group, name)

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
        self.group(group)

        def place(stream: LogStream) -> tuple[int, str]:
            return (stream.last_at or 0 if order == "last_event" else 0, stream.name)

        if after is not None and order == "name":
            after = (0, after[1])
        found = sorted(
            (s for key, s in self._streams.items() if key[0] == group and s.name.startswith(prefix)),
            key=place,
            reverse=descending,
        )
        if after is not None:
            bound = after
            found = [s for s in found if (place(s) < bound if descending else place(s) > bound)]
        return found[:limit]

    # ------------------------------------------------------------ events

    async def append(
        self, group: str, stream: str, events: Sequence[LogEvent], *, ingested_at: int, shipment: Shipment | None = None
    ) -> None:
        self._check()
        known = self._of(group, stream)
        behind = 0 if shipment is None else shipment.first + len(events)
        if shipment is not None:
            events = events[max(known.shipped_next - shipment.first, 0) :]
        number = known.next_number
        stored = [StoredEvent(e.at, number + n, ingested_at, e.text, e.kind) for n, e in enumerate(events)]
        kept = sorted([*self._events[group, stream], *stored], key=lambda e: e.key)
        self._events[group, stream] = kept
        known = replace(
            known,
            next_number=number + len(stored),
            stored_bytes=known.stored_bytes + sum(_size(e) for e in stored),
            first_at=kept[0].at if kept else None,
            last_at=kept[-1].at if kept else None,
            last_ingested_at=ingested_at if stored else known.last_ingested_at,
        )
        if shipment is not None and behind >= known.shipped_next:
            ended = known.ended or shipment.end
            known = replace(known, shipped_next=behind, position=shipment.position, ended=ended)
        self._streams[group, stream] = known
        await self._tell()

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
        self._of(group, stream)
        found = [
            event
            for event in self._events[group, stream]
            if _within(event.at, start, end)
            and (after is None or event.key > after)
            and (before is None or event.key < before)
        ]
        if newest:
            found.reverse()
        taken: list[StoredEvent] = []
        size = 0
        for event in found[:limit]:
            size += _size(event)
            if taken and size > max_bytes:
                break
            taken.append(event)
        return taken[::-1] if newest else taken

    async def scan(
        self,
        group: str,
        *,
        streams: Collection[str] | None = None,
        prefix: str = "",
        start: int | None = None,
        end: int | None = None,
        after: ScanKey | None = None,
    ) -> AsyncGenerator[Sequence[tuple[str, StoredEvent]]]:
        self.group(group)
        found = sorted(
            (
                (name, event)
                for (its_group, name), events in self._events.items()
                if its_group == group and (name in streams if streams is not None else name.startswith(prefix))
                for event in events
                if _within(event.at, start, end) and (after is None or (event.at, name, event.number) > after)
            ),
            key=lambda pair: (pair[1].at, pair[0], pair[1].number),
        )
        for begin in range(0, len(found), self._chunk):
            yield found[begin : begin + self._chunk]

    async def grown(self, group: str, stream: str, after: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._has_grown(group, stream, after))

    def _has_grown(self, group: str, stream: str, after: int) -> bool:
        known = self._streams.get((group, stream))
        return known is None or known.ended or known.next_number > after + 1

    # ------------------------------------------------------------ itself

    def usage(self) -> StoreUsage:
        return StoreUsage(used_bytes=sum(s.stored_bytes for s in self._streams.values()), problem=self.problem)

    async def run(self) -> None:
        await asyncio.Event().wait()

    def _check(self) -> None:
        if self.problem:
            raise StoreUnavailable(self.problem)

    def _of(self, group: str, stream: str) -> LogStream:
        self.group(group)
        if (group, stream) not in self._streams:
            raise StreamMissing(f"the log group {group} has no stream {stream}")
        return self._streams[group, stream]

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _within(at: int, start: int | None, end: int | None) -> bool:
    return (start is None or at >= start) and (end is None or at < end)


def _size(event: StoredEvent) -> int:
    return len(event.text.encode()) + OVERHEAD
