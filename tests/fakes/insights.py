"""Asking Logs Insights' language without a store: events in, rows out."""

from collections.abc import Iterable

from controlplane.logs.api import StoredEvent
from controlplane.logs.insights.execution import MAX_MEMORY_BYTES, Execution
from controlplane.logs.insights.parser import parse_query
from controlplane.logs.insights.plan import make_plan

__all__ = ["ACCOUNT", "GROUP", "STREAM", "T", "answer", "events", "execution"]

#: 2026-01-01 00:00:00 UTC, a Thursday, in milliseconds.
T = 1_767_225_600_000
ACCOUNT = "123456789012"
GROUP = f"{ACCOUNT}:/app/web"
STREAM = "web/main/1"


def events(*texts: str, step_ms: int = 60_000) -> list[tuple[str, StoredEvent]]:
    """Make events of one stream, the first at T, ingested 5 ms after they happened."""
    return [
        (STREAM, StoredEvent(at, number, at + 5, text))
        for number, text in enumerate(texts, 1)
        for at in (T + (number - 1) * step_ms,)
    ]


def execution(query: str, *, limit: int = 10_000, max_memory_bytes: int = MAX_MEMORY_BYTES) -> Execution:
    """Plan a query that was started at T."""
    return Execution(make_plan(parse_query(query), limit=limit, now=T / 1000), max_memory_bytes=max_memory_bytes)


def answer(query: str, given: Iterable[tuple[str, StoredEvent]], *, limit: int = 10_000) -> list[dict[str, str]]:
    """Ask a query of events; the rows come without pointers."""
    running = execution(query, limit=limit)
    running.feed(GROUP, given)
    return [{name: value for name, value in row if name != "@ptr"} for row in running.finish()]
