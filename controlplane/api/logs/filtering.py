"""FilterLogEvents, and TestMetricFilter: messages found by CloudWatch's filter patterns."""

import hashlib
from functools import lru_cache
from typing import Final, Literal

from controlplane.api.logs.arguments import page_token, required_group, times, token_key
from controlplane.api.logs.calls import invalid, logs_operation
from controlplane.api.logs.searching import Search, Where
from controlplane.api.registry import Document
from controlplane.context import Context
from controlplane.logs.api import StoredEvent
from controlplane.logs.patterns import FilterPattern, PatternError, parse_pattern

__all__ = ["MAX_EVENTS", "event_id", "pattern_of"]

#: In a page, and when a request doesn't say.
MAX_EVENTS: Final = 10_000
#: The earliest startTime from which CloudWatch returns the latest events first: 2024 in UTC.
_NEWEST_FIRST_SINCE: Final = 1_704_067_200_000


@logs_operation("FilterLogEvents")
async def filter_log_events(context: Context, request: Document) -> Document:
    """Return a page of the events that match, oldest first or, unless `startFromHead`, newest first.

    A page may be short or empty though there is more: then it has a nextToken. Events that come meanwhile don't disturb
    the tokens; those that sort before where a token stands are not seen with it.
    """
    group = required_group(context, request)
    start, end = times(request)
    names, prefix = request.get("logStreamNames"), request.get("logStreamNamePrefix")
    if names is not None and prefix is not None:
        raise invalid("logStreamNames and logStreamNamePrefix can't both be given.")
    pattern = pattern_of(request.get("filterPattern", ""))
    place = token_key(request, "FilterLogEvents", tuple[int, str, int, Literal["later", "earlier"]])
    direction = place[3] if place else "later" if request.get("startFromHead", True) else "earlier"
    if direction == "earlier" and (start or 0) < _NEWEST_FIRST_SINCE:
        raise invalid(f"startFromHead can be false only with a startTime of 2024 ({_NEWEST_FIRST_SINCE}) or later.")
    for name in names or ():
        await context.logs.stream(group.name, name)
    where = Where(group.name, names, prefix or "", start, None if end is None else end + 1)
    search = Search(context, where, pattern, request.get("limit", MAX_EVENTS))
    at = place[:3] if place else None
    await (search.forward(at) if direction == "later" else search.backward(at))
    answer: Document = {
        "events": [_render(group.name, stream, event) for stream, event in search.found],
        # Empty since May 2020, by CloudWatch's documentation.
        "searchedLogStreams": [],
    }
    if search.more is not None:
        answer["nextToken"] = page_token("FilterLogEvents", (*search.more, direction))
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
