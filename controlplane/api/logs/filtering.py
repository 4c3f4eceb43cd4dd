"""FilterLogEvents, and TestMetricFilter: messages found by CloudWatch's filter patterns."""

import asyncio
import hashlib
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from controlplane.api.logs.arguments import page_token, required_group, times, token_key
from controlplane.api.logs.calls import invalid, logs_operation
from controlplane.api.registry import Document
from controlplane.context import Context
from controlplane.logs.api import ScanKey, StoredEvent
from controlplane.logs.patterns import FilterPattern, PatternError, parse_pattern

__all__ = ["MAX_EVENTS", "PAGE_BYTES", "SEARCH_BYTES", "SEARCH_S", "Search", "event_id", "pattern_of"]

#: In a page, and when a request doesn't say.
MAX_EVENTS: Final = 10_000
#: Texts in a page.
PAGE_BYTES: Final = 1024 * 1024
#: What a call looks through before it answers with what it has found and a token to go on with.
SEARCH_S: Final = 1.0
SEARCH_BYTES: Final = 64 * 1024 * 1024
#: What is looked through without letting others run: a few milliseconds of the dearest patterns.
_BREATH_BYTES: Final = 256 * 1024


@dataclass(slots=True)
class Search:
    """One call's way through a group's events: takes them one after another and says when it has had enough."""

    context: Context
    pattern: FilterPattern
    limit: int
    found: list[tuple[str, StoredEvent]] = field(default_factory=list)
    #: The last event looked at, wanted or not: where the next call goes on.
    at: ScanKey | None = None
    #: There may be more behind `at`.
    cut: bool = False
    _found_bytes: int = 0
    _searched_bytes: int = 0
    _began: float = 0.0

    async def through(
        self,
        group: str,
        streams: list[str] | None,
        prefix: str,
        start: int | None,
        end: int | None,
        after: ScanKey | None,
    ) -> None:
        """Look through the events behind `after`, until there are none left or it is enough."""
        self._began = self.context.clock.monotonic()
        scan = self.context.logs.scan(group, streams=streams, prefix=prefix, start=start, end=end, after=after)
        async with aclosing(scan) as chunks:
            async for chunk in chunks:
                for stream, event in chunk:
                    if not self._take(stream, event):
                        self.cut = True
                        return
                    if self._searched_bytes % _BREATH_BYTES < len(event.text):
                        await asyncio.sleep(0)

    def _take(self, stream: str, event: StoredEvent) -> bool:
        """Look at an event. False, and it counts as not seen, if the page has no room for it or time is up."""
        if len(self.found) >= self.limit or self._spent():
            return False
        if self.pattern.matches(event.text):
            size = len(event.text.encode())
            if self.found and self._found_bytes + size > PAGE_BYTES:
                return False
            self._found_bytes += size
            self.found.append((stream, event))
        self._searched_bytes += len(event.text)
        self.at = (event.at, stream, event.number)
        return True

    def _spent(self) -> bool:
        if self.at is None:
            return False
        return self._searched_bytes > SEARCH_BYTES or self.context.clock.monotonic() - self._began > SEARCH_S


@logs_operation("FilterLogEvents")
async def filter_log_events(context: Context, request: Document) -> Document:
    """Return a page of the events that match, oldest first.

    A page may be short or empty though there is more: then it has a nextToken. Events that come meanwhile don't disturb
    the tokens; those that sort before where a token stands are not seen with it.
    """
    group = required_group(context, request)
    start, end = times(request)
    names, prefix = request.get("logStreamNames"), request.get("logStreamNamePrefix")
    if names is not None and prefix is not None:
        raise invalid("logStreamNames and logStreamNamePrefix can't both be given.")
    if request.get("startFromHead") is False:
        raise invalid("startFromHead can't be false: Homeport returns the earliest events first.")
    search = Search(context, pattern_of(request.get("filterPattern", "")), request.get("limit", MAX_EVENTS))
    after = token_key(request, "FilterLogEvents", tuple[int, str, int])
    for name in names or ():
        await context.logs.stream(group.name, name)
    await search.through(group.name, names, prefix or "", start, None if end is None else end + 1, after)
    answer: Document = {
        "events": [_render(group.name, stream, event) for stream, event in search.found],
        # Empty since May 2020, by CloudWatch's documentation.
        "searchedLogStreams": [],
    }
    if search.cut and search.at is not None:
        answer["nextToken"] = page_token("FilterLogEvents", search.at)
    return answer


@logs_operation("TestMetricFilter")
async def try_metric_filter(_context: Context, request: Document) -> Document:
    """Say which of the messages a pattern matches, and what a space-delimited one takes out of them."""
    pattern = pattern_of(request["filterPattern"])
    return {
        "matches": [
            {"eventNumber": number, "eventMessage": message, "extractedValues": pattern.extract(message)}
            for number, message in enumerate(request["logEventMessages"], 1)
            if pattern.matches(message)
        ]
    }


def pattern_of(text: str) -> FilterPattern:
    """Parse a filter pattern. Raises InvalidParameterException, which says where it goes wrong."""
    try:
        return parse_pattern(text)
    except PatternError as error:
        raise invalid(f"Invalid filter pattern: {error}") from error


def event_id(group: str, stream: str, event: StoredEvent) -> str:
    """Return an event's id: 56 digits, as CloudWatch's have; the same in every answer, and no other event's.

    Ids sort as the events of a stream do.
    """
    return f"{event.at:017d}{_stream_digits(group, stream)}{event.number:019d}"


@lru_cache(maxsize=4096)
def _stream_digits(group: str, stream: str) -> str:
    digest = hashlib.blake2b(f"{group}\0{stream}".encode(), digest_size=8).digest()
    return f"{int.from_bytes(digest):020d}"


def _render(group: str, stream: str, event: StoredEvent) -> Document:
    return {
        "logStreamName": stream,
        "timestamp": event.at,
        "message": event.text,
        "ingestionTime": event.ingested_at,
        "eventId": event_id(group, stream, event),
    }
