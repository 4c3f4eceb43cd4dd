"""StartLiveTail: what is ingested into log groups from now on, told every second."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Final

from controlplane.api.eventstream import EventStream, StreamedEvent
from controlplane.api.logs.arguments import find_group, millis
from controlplane.api.logs.calls import invalid, logs_operation, translated
from controlplane.api.logs.filtering import pattern_of
from controlplane.api.registry import Document
from controlplane.context import Context
from controlplane.logs.api import EventKey, LogStoreError, LogStream, StoredEvent, StreamMissing
from controlplane.logs.patterns import FilterPattern
from homeport.ids import new_uuid

__all__ = ["MAX_EVENTS", "MAX_SESSION_S", "PERIOD_S"]

#: Events in one update; of more, the newest are told, and that others were left out.
MAX_EVENTS: Final = 500
#: Then a session ends, as CloudWatch's do.
MAX_SESSION_S: Final = 3 * 3600.0
#: Between two updates.
PERIOD_S = 1.0

#: Of a group, so many streams are looked at: those whose events are the newest.
_MOST_STREAMS: Final = 1000


@logs_operation("StartLiveTail")
async def start_live_tail(context: Context, request: Document) -> EventStream:
    """Tell every second, for three hours at most, what is ingested into up to ten groups: of all streams, those named,
    or those with certain prefixes; all events, or those that match a pattern. Of more than 500 at once, the newest.
    """
    identifiers: Sequence[str] = request["logGroupIdentifiers"]
    names, prefixes = request.get("logStreamNames"), request.get("logStreamNamePrefixes")
    if names is not None and prefixes is not None:
        raise invalid("logStreamNames and logStreamNamePrefixes can't both be given.")
    if len(identifiers) > 1 and (names is not None or prefixes is not None):
        raise invalid("logStreamNames and logStreamNamePrefixes can be given for a single log group only.")
    groups = dict.fromkeys(find_group(context, identifier).name for identifier in identifiers)
    tail = _Tail(context, groups, names, prefixes, pattern_of(request.get("logEventFilterPattern", "")))
    start = {**request, "sessionId": new_uuid(context.random)}
    return EventStream(_session(context, tail, start))


async def _session(context: Context, tail: "_Tail", start: Document) -> AsyncGenerator[StreamedEvent]:
    yield StreamedEvent("sessionStart", start)
    began = context.clock.monotonic()
    while context.clock.monotonic() - began < MAX_SESSION_S:
        await asyncio.sleep(PERIOD_S)
        try:
            results, sampled = await tail.fresh()
        except LogStoreError as error:
            yield StreamedEvent("SessionStreamingException", {"message": translated(error).message}, is_error=True)
            return
        yield StreamedEvent("sessionUpdate", {"sessionMetadata": {"sampled": sampled}, "sessionResults": results})
    ended = f"The session has been open for {MAX_SESSION_S / 3600:g} hours, which is the limit."
    yield StreamedEvent("SessionTimeoutException", {"message": ended}, is_error=True)


class _Tail:
    """Remembers of each stream how far it has been told. Only what is ingested from its making on counts."""

    def __init__(
        self,
        context: Context,
        groups: Iterable[str],
        names: Sequence[str] | None,
        prefixes: Sequence[str] | None,
        pattern: FilterPattern,
    ) -> None:
        self._context = context
        self._groups = list(groups)
        self._names = names
        self._prefixes = prefixes or ("",)
        self._pattern = pattern
        self._since = millis(context)
        #: (group, stream) -> behind which event to go on, and the number of the next one by then.
        self._told: dict[tuple[str, str], tuple[EventKey | None, int]] = {}

    async def fresh(self) -> tuple[list[Document], bool]:
        """Return what is new and matches, in the order of time, and whether something was left out.

        Raises LogStoreError.
        """
        found: list[tuple[str, str, StoredEvent]] = []
        sampled = False
        for group in self._groups:
            for stream in await self._grown(group):
                events, left_out = await self._read(stream)
                sampled = sampled or left_out
                found += [(group, stream.name, event) for event in events if self._pattern.matches(event.text)]
        found.sort(key=lambda item: item[2].at)
        results = [self._view(group, stream, event) for group, stream, event in found[-MAX_EVENTS:]]
        return results, sampled or len(found) > MAX_EVENTS

    async def _grown(self, group: str) -> list[LogStream]:
        """Return the wanted streams that have events which aren't told yet."""
        streams = {stream.name: stream for stream in await self._wanted(group)}
        return [
            stream
            for stream in streams.values()
            if (stream.last_ingested_at or 0) >= self._since
            and stream.next_number != self._told.get((group, stream.name), (None, 0))[1]
        ]

    async def _wanted(self, group: str) -> list[LogStream]:
        logs = self._context.logs
        if self._names is None:
            return [
                stream
                for prefix in self._prefixes
                for stream in await logs.streams(
                    group, prefix=prefix, order="last_event", descending=True, limit=_MOST_STREAMS
                )
            ]
        found: list[LogStream] = []
        for name in self._names:
            try:
                found.append(await logs.stream(group, name))
            except StreamMissing:
                continue  # it may come
        return found

    async def _read(self, stream: LogStream) -> tuple[Sequence[StoredEvent], bool]:
        """Return the last events behind what was told of a stream, and whether some before them were left out.

        One that was deleted meanwhile has none.
        """
        name = stream.group, stream.name
        after, _ = self._told.get(name, (None, 0))
        try:
            events = await self._context.logs.read(*name, after=after, newest=True)
        except StreamMissing:
            return (), False
        self._told[name] = events[-1].key if events else after, stream.next_number
        left_out = bool(events) and after is not None and events[0].number > after[1] + 1
        return [event for event in events if event.ingested_at >= self._since], left_out

    def _view(self, group: str, stream: str, event: StoredEvent) -> Document:
        return {
            "logGroupIdentifier": f"{self._context.arns.account}:{group}",
            "logStreamName": stream,
            "message": event.text,
            "timestamp": event.at,
            "ingestionTime": event.ingested_at,
        }
