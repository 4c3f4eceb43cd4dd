"""Log events: PutLogEvents and GetLogEvents."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from controlplane.api.logs.arguments import invalid_token, millis, required_group, times
from controlplane.api.logs.calls import invalid, logs_operation
from controlplane.api.logs.stopping import last_lines
from controlplane.api.logs.streams import sequence_token
from controlplane.api.registry import Document
from controlplane.context import Context
from controlplane.logs.api import EventKey, LogEvent, StoredEvent, size_of

__all__ = ["MAX_BATCH_BYTES", "MAX_EVENT_BYTES", "MAX_PAGE"]

#: Of a PutLogEvents: of all its events, and of each.
MAX_BATCH_BYTES: Final = 1024 * 1024
MAX_EVENT_BYTES: Final = 1024 * 1024
#: Events in an answer.
MAX_PAGE: Final = 10_000

_HOUR_MS: Final = 3600 * 1000
_DAY_MS: Final = 24 * _HOUR_MS
#: Events further off than these from now are rejected.
_MAX_AGE_MS: Final = 14 * _DAY_MS
_MAX_AHEAD_MS: Final = 2 * _HOUR_MS
#: Between the first and the last event of a batch.
_MAX_SPAN_MS: Final = _DAY_MS


# ---------------------------------------------------------------- PutLogEvents


@logs_operation("PutLogEvents")
async def put_log_events(context: Context, request: Document) -> Document:
    """Keep a batch of events, in chronological order. Those too old, expired or too far ahead are rejected and told,
    the rest is kept. Sequence tokens are ignored.
    """
    given: Sequence[dict[str, Any]] = request["logEvents"]
    _check_sizes(given)
    if any(later["timestamp"] < event["timestamp"] for event, later in pairwise(given)):
        raise invalid("Log events in a single PutLogEvents request must be in chronological order.")
    group = context.logs.group(request["logGroupName"])
    stream = await context.logs.stream(group.name, request["logStreamName"])
    now = millis(context)
    bounds = _bounds([event["timestamp"] for event in given], now, group.retention_days)
    events = [LogEvent(event["timestamp"], event["message"]) for event in given[bounds.first : bounds.end]]
    if events and events[-1].at - events[0].at > _MAX_SPAN_MS:
        raise invalid("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
    if events:
        await context.logs.append(group.name, stream.name, events, ingested_at=now)
    answer: Document = {"nextSequenceToken": sequence_token(stream.next_number + len(events))}
    if bounds.rejected:
        answer["rejectedLogEventsInfo"] = bounds.rejected
    return answer


def _check_sizes(events: Sequence[dict[str, Any]]) -> None:
    """Raise InvalidParameterException for an event or a batch that is too large."""
    total = 0
    for event in events:
        size = size_of(event["message"])
        if size > MAX_EVENT_BYTES:
            raise invalid(f"Log event too large: {size} bytes exceeds limit of {MAX_EVENT_BYTES}")
        total += size
    if total > MAX_BATCH_BYTES:
        raise invalid(f"Upload too large: {total} bytes exceeds limit of {MAX_BATCH_BYTES}")


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Which events of a batch are kept: `first` <= index < `end`. `rejected`: CloudWatch's words for the others."""

    first: int
    end: int
    rejected: dict[str, int]


def _bounds(times_ms: Sequence[int], now: int, retention_days: int | None) -> _Bounds:
    """Judge events by their times, which ascend."""
    too_old = sum(at < now - _MAX_AGE_MS for at in times_ms)
    expired = 0 if retention_days is None else sum(at < now - retention_days * _DAY_MS for at in times_ms)
    too_new = len(times_ms) - sum(at > now + _MAX_AHEAD_MS for at in times_ms)
    rejected: dict[str, int] = {}
    if too_old:
        rejected["tooOldLogEventEndIndex"] = too_old
    if expired:
        rejected["expiredLogEventEndIndex"] = expired
    if too_new < len(times_ms):
        rejected["tooNewLogEventStartIndex"] = too_new
    return _Bounds(max(too_old, expired), too_new, rejected)


# ---------------------------------------------------------------- GetLogEvents

#: A place between two events of a stream, which a token stands for. Numbers begin at 1, so that one before an event is
#: one behind the number before its own.
_Place = EventKey

#: `f` and `b` tell the direction; then a place and what ties it to its stream, in as many digits as CloudWatch has.
_TOKEN: Final = re.compile(r"([fb])/(\d{19})(\d{19})(\d{18})/s", re.ASCII)

#: No store counts further.
_MOST: Final = 2**63 - 1


@logs_operation("GetLogEvents")
async def get_log_events(context: Context, request: Document) -> Document:
    """Read a page of a stream's events in their order: the last ones, with startFromHead the first ones, or with a
    token what lies ahead of it or behind. At either end the token is the one that was sent: it never ends.
    """
    # First of all: they may be what makes the group.
    await last_lines(context, request)
    group = required_group(context, request).name
    stream = request["logStreamName"]
    start, end = times(request)
    forward, place = request.get("startFromHead", False), None
    if "nextToken" in request:
        forward, place = _place(request["nextToken"], group, stream)
    events = await context.logs.read(
        group,
        stream,
        start=start,
        end=end,
        after=place if forward else None,
        before=(place[0], place[1] + 1) if place is not None and not forward else None,
        limit=request.get("limit", MAX_PAGE),
        newest=not forward,
    )
    before, behind = _around(events, place or (start or 0, 0))
    return {
        "events": [{"timestamp": e.at, "message": e.text, "ingestionTime": e.ingested_at} for e in events],
        "nextForwardToken": _token("f", behind, group, stream),
        "nextBackwardToken": _token("b", before, group, stream),
    }


def _around(events: Sequence[StoredEvent], otherwise: _Place) -> tuple[_Place, _Place]:
    """Return the places before the first event and behind the last one."""
    if not events:
        return otherwise, otherwise
    return (events[0].at, events[0].number - 1), events[-1].key


def _token(direction: str, place: _Place, group: str, stream: str) -> str:
    at, number = place
    return f"{direction}/{at:019d}{number:019d}{_tie(group, stream)}/s"


def _place(token: str, group: str, stream: str) -> tuple[bool, _Place]:
    """Return whether a token goes forward, and the place it stands for.

    Raises InvalidParameterException if it wasn't given out for this stream.
    """
    match = _TOKEN.fullmatch(token)
    if match is None or match[4] != _tie(group, stream):
        raise invalid_token()
    place = int(match[2]), int(match[3])
    if max(place) >= _MOST:
        raise invalid_token()
    return match[1] == "f", place


def _tie(group: str, stream: str) -> str:
    """Return 18 digits that tell a stream's tokens from others'. Neither name can hold a colon."""
    digest = hashlib.sha256(f"{group}:{stream}".encode()).digest()
    return f"{int.from_bytes(digest[:8]) % 10**18:018d}"
