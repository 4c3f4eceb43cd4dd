"""The queries of this control plane: waiting, running, and ended for a while; in memory only, as their results are.

    queries.start(query)                  from a request's handler
    await run_queries(queries, logs, clock)   in the composition root, until cancelled

Events are read on the event loop and evaluated, a chunk at a time, in one thread of its own, so that a query over many
megabytes delays requests by no more than the interpreter's switching of threads. A query that is stopped ends after the
chunk that it is at.
"""

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import structlog

from controlplane.logs.api import LogStore, LogStoreError
from controlplane.logs.insights.execution import MAX_MEMORY_BYTES, Execution, QueryFailed, ResultRow
from controlplane.logs.insights.plan import Plan
from homeport.clock import Clock

__all__ = ["MAX_CONCURRENT", "Queries", "Query", "QueryStatus", "TooManyQueries", "run_queries"]

#: CloudWatch's limit: queries that have not ended yet.
MAX_CONCURRENT: Final = 100
#: How many of them run at a time: what bounds their memory.
_RUNNING: Final = 2
#: CloudWatch's limit of a query's running time.
_TIMEOUT_S: Final = 3600.0
#: How long ended queries are kept, how many, and about how much of their results.
_KEEP_S: Final = 24 * 3600.0
_KEEP_QUERIES: Final = 1000
_KEEP_BYTES: Final = MAX_MEMORY_BYTES

_log: Final = structlog.get_logger(__name__)


class TooManyQueries(Exception):
    """As many queries as are allowed have not ended yet."""


class QueryStatus(StrEnum):
    """Where a query is, in CloudWatch's words."""

    SCHEDULED = "Scheduled"
    RUNNING = "Running"
    COMPLETE = "Complete"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    TIMEOUT = "Timeout"


_OPEN: Final = (QueryStatus.SCHEDULED, QueryStatus.RUNNING)


@dataclass(slots=True, kw_only=True, eq=False)
class Query:
    """One query. `groups`: names, with what @log shows of each; times are epoch milliseconds, `end` exclusive."""

    id: str
    text: str
    plan: Plan
    groups: dict[str, str]
    start: int
    end: int
    #: Epoch seconds.
    created_at: float
    user: str = ""
    status: QueryStatus = QueryStatus.SCHEDULED
    #: Why it failed.
    reason: str = ""
    rows: list[ResultRow] = field(default_factory=list)
    result_bytes: int = 0
    began_at: float | None = None
    ended_at: float | None = None
    records_scanned: int = 0
    records_matched: int = 0
    bytes_scanned: int = 0
    groups_scanned: int = 0

    def note(self, execution: Execution) -> None:
        """Take over how far it has come."""
        self.records_scanned = execution.records_scanned
        self.records_matched = execution.records_matched
        self.bytes_scanned = execution.bytes_scanned


class Queries:
    """All of them. Not for several threads."""

    def __init__(self) -> None:
        self._all: dict[str, Query] = {}
        self._waiting: deque[Query] = deque()
        self._woken = asyncio.Condition()

    async def start(self, query: Query) -> None:
        """Have a query run when its turn comes. Raises TooManyQueries."""
        if sum(known.status in _OPEN for known in self._all.values()) >= MAX_CONCURRENT:
            raise TooManyQueries
        self._forget(query.created_at)
        self._all[query.id] = query
        self._waiting.append(query)
        async with self._woken:
            self._woken.notify()

    def find(self, query_id: str) -> Query | None:
        """Return a query; None if it is unknown or forgotten."""
        return self._all.get(query_id)

    def newest_first(self) -> list[Query]:
        """Return all of them."""
        return list(reversed(self._all.values()))

    def stop(self, query: Query, now: float) -> bool:
        """Stop a query; False if it had ended already."""
        if query.status not in _OPEN:
            return False
        self.end(query, QueryStatus.CANCELLED, now)
        return True

    def end(self, query: Query, status: QueryStatus, now: float, *, reason: str = "") -> None:
        """Note that a query has ended."""
        query.status, query.reason, query.ended_at = status, reason, now
        if query in self._waiting:
            self._waiting.remove(query)
        self._forget(now)

    async def next(self, now: Clock) -> Query:
        """Wait for a query and take it on."""
        async with self._woken:
            await self._woken.wait_for(lambda: bool(self._waiting))
        query = self._waiting.popleft()
        query.status, query.began_at = QueryStatus.RUNNING, now.now()
        return query

    def _forget(self, now: float) -> None:
        """Forget the oldest of the ended ones until what is kept is within bounds."""
        ended = [query for query in self._all.values() if query.status not in _OPEN]
        held = sum(query.result_bytes for query in ended)
        count = len(ended)
        for query in ended:
            old = query.ended_at is not None and query.ended_at < now - _KEEP_S
            if not old and count <= _KEEP_QUERIES and held <= _KEEP_BYTES:
                break
            del self._all[query.id]
            held -= query.result_bytes
            count -= 1


async def run_queries(queries: Queries, logs: LogStore, clock: Clock) -> None:
    """Run queries as they come, until cancelled: those that run then are lost, as all of them are with the process."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="insights")
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(_RUNNING):
                group.create_task(_run(queries, logs, clock, thread))
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


async def _run(queries: Queries, logs: LogStore, clock: Clock, thread: ThreadPoolExecutor) -> None:
    while True:
        query = await queries.next(clock)
        status, reason = await _end_of(query, logs, thread)
        if query.status is QueryStatus.RUNNING:
            queries.end(query, status, clock.now(), reason=reason)


async def _end_of(query: Query, logs: LogStore, thread: ThreadPoolExecutor) -> tuple[QueryStatus, str]:
    """Run a query; return how it ended and, if it failed, why."""
    deadline = asyncio.timeout(_TIMEOUT_S)
    try:
        async with deadline:
            await _answer(query, logs, thread)
    except (QueryFailed, LogStoreError) as error:
        return QueryStatus.FAILED, str(error)
    except TimeoutError:
        if deadline.expired():
            return QueryStatus.TIMEOUT, f"it ran for more than {_TIMEOUT_S / 60:.0f} minutes"
        return QueryStatus.FAILED, "the log store took too long to answer"
    except Exception:  # noqa: BLE001 - a bug of ours in one query is logged, and stops no other
        _log.exception("query failed", query_id=query.id, query=query.text)
        return QueryStatus.FAILED, "internal error; the control plane's log has the details"
    return QueryStatus.COMPLETE, ""


async def _answer(query: Query, logs: LogStore, thread: ThreadPoolExecutor) -> None:
    """Feed the events to the query's plan. Ends early when the query has been stopped."""
    loop = asyncio.get_running_loop()
    execution = Execution(query.plan)
    for group, shown in query.groups.items():
        query.groups_scanned += 1
        async with aclosing(logs.scan(group, start=query.start, end=query.end)) as chunks:
            async for chunk in chunks:
                await loop.run_in_executor(thread, execution.feed, shown, chunk)
                query.note(execution)
                if query.status is not QueryStatus.RUNNING:
                    return
    query.rows = await loop.run_in_executor(thread, execution.finish)
    query.result_bytes = execution.result_bytes
