"""The queries that run in the background: their turns, their ends, and how long they are remembered."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from controlplane.logs.api import LogEvent, LogGroup, StoredEvent, StoreUnavailable
from controlplane.logs.insights import queries as module
from controlplane.logs.insights.execution import Execution
from controlplane.logs.insights.parser import parse_query
from controlplane.logs.insights.plan import First, Plan, Segment, make_plan
from controlplane.logs.insights.queries import (
    MAX_CONCURRENT,
    Queries,
    Query,
    QueryStatus,
    TooManyQueries,
    run_queries,
)
from tests.fakes.clock import ManualClock
from tests.fakes.fleet import eventually
from tests.fakes.log_store import MemoryLogStore

CHUNKS = 3


class GatedLogStore(MemoryLogStore):
    """Gives a chunk of a scan for each permit; raises `error` instead, if there is one."""

    def __init__(self) -> None:
        super().__init__(chunk=1)
        self.permits = asyncio.Semaphore(10**6)
        self.error: Exception | None = None
        self.scanning = 0

    def hold(self) -> None:
        self.permits = asyncio.Semaphore(0)

    async def scan(self, group: str, **arguments: Any) -> AsyncGenerator[Sequence[tuple[str, StoredEvent]]]:
        self.scanning += 1
        try:
            async for chunk in super().scan(group, **arguments):
                await self.permits.acquire()
                if self.error is not None:
                    raise self.error
                yield chunk
        finally:
            self.scanning -= 1


class World:
    """A store with three events in each of two groups, queries, and what runs them."""

    def __init__(self) -> None:
        self.logs = GatedLogStore()
        self.clock = ManualClock()
        self.queries = Queries()
        self._count = 0

    async def fill(self) -> None:
        for group in ("one", "two"):
            await self.logs.create_group(LogGroup(name=group, created_at=0))
            await self.logs.create_stream(group, "s", at=0)
            events = [LogEvent(1000 * n, f"{group} {n}") for n in range(CHUNKS)]
            await self.logs.append(group, "s", events, ingested_at=5)

    async def start(self, text: str = "fields @message", *, plan: Plan | None = None, groups: str = "one") -> Query:
        self._count += 1
        query = Query(
            id=str(self._count),
            text=text,
            plan=plan or make_plan(parse_query(text), limit=10, now=0),
            groups={name: f"1:{name}" for name in groups.split()},
            start=0,
            end=10_000,
            created_at=self.clock.now(),
        )
        await self.queries.start(query)
        return query


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    world = World()
    await world.fill()
    async with asyncio.TaskGroup() as group:
        runner = group.create_task(run_queries(world.queries, world.logs, world.clock))
        yield world
        runner.cancel()


async def ended(query: Query, status: QueryStatus) -> None:
    await eventually(lambda: query.ended_at is not None, f"{query.id} ends")
    assert query.status is status, query.reason


async def test_a_query_over_several_groups_gives_rows_and_figures() -> None:
    async with running() as world:
        query = await world.start("stats count(*) as n by @log | sort @log", groups="one two")
        await ended(query, QueryStatus.COMPLETE)
        assert query.rows == [(("@log", "1:one"), ("n", "3")), (("@log", "1:two"), ("n", "3"))]
        assert (query.records_scanned, query.records_matched, query.groups_scanned) == (6, 6, 2)
        assert query.bytes_scanned == 6 * len("one 1")


async def test_two_queries_run_at_a_time_and_the_others_wait_their_turn() -> None:
    async with running() as world:
        world.logs.hold()
        started = [await world.start() for _ in range(4)]
        await eventually(lambda: world.logs.scanning == 2)
        assert [query.status.value for query in started] == ["Running", "Running", "Scheduled", "Scheduled"]
        for _ in range(4 * CHUNKS):
            world.logs.permits.release()
        for query in started:
            await ended(query, QueryStatus.COMPLETE)


async def test_a_query_that_waits_is_stopped_at_once_and_never_runs() -> None:
    async with running() as world:
        world.logs.hold()
        busy = [await world.start() for _ in range(2)]
        waiting = await world.start()
        await eventually(lambda: world.logs.scanning == 2)
        assert world.queries.stop(waiting, world.clock.now())
        assert not world.queries.stop(waiting, world.clock.now())
        for _ in range(10 * CHUNKS):
            world.logs.permits.release()
        for query in busy:
            await ended(query, QueryStatus.COMPLETE)
        assert (waiting.status, waiting.began_at) == (QueryStatus.CANCELLED, None)


async def test_a_query_that_runs_ends_with_the_chunk_it_is_at_when_it_is_stopped() -> None:
    async with running() as world:
        world.logs.hold()
        query = await world.start()
        await eventually(lambda: world.logs.scanning == 1)
        world.queries.stop(query, world.clock.now())
        world.logs.permits.release()
        await eventually(lambda: world.logs.scanning == 0, "the scan is closed")
        assert (query.status, query.rows, query.records_scanned) == (QueryStatus.CANCELLED, [], 1)


async def test_events_are_evaluated_in_a_thread_of_their_own() -> None:
    threads = set()

    def note(_: object) -> bool:
        threads.add(threading.current_thread())
        return True

    async with running() as world:
        plan = Plan((Segment((note,), First(1, keyed=False)),), (), pointers=False)
        await ended(await world.start(plan=plan), QueryStatus.COMPLETE)
        assert threads
        assert threading.current_thread() not in threads


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StoreUnavailable("no answer from Loki"), "no answer from Loki"),
        (TimeoutError(), "the log store took too long to answer"),
        (ZeroDivisionError(), "internal error; the control plane's log has the details"),
    ],
)
async def test_a_query_that_fails_says_why_and_stops_no_other(error: Exception, reason: str) -> None:
    async with running() as world:
        world.logs.error = error
        failed = await world.start()
        await ended(failed, QueryStatus.FAILED)
        assert failed.reason == reason
        world.logs.error = None
        await ended(await world.start(), QueryStatus.COMPLETE)


async def test_a_query_whose_group_is_deleted_meanwhile_fails() -> None:
    async with running() as world:
        query = await world.start(groups="one gone")
        await ended(query, QueryStatus.FAILED)
        assert query.reason == "there is no log group gone"


async def test_a_query_that_holds_too_much_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Execution", lambda plan: Execution(plan, max_memory_bytes=1000))
    async with running() as world:
        query = await world.start()
        await ended(query, QueryStatus.FAILED)
        assert "set a smaller limit" in query.reason


async def test_a_query_that_runs_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.01)
    async with running() as world:
        world.logs.hold()
        query = await world.start()
        await ended(query, QueryStatus.TIMEOUT)
        assert world.logs.scanning == 0


async def test_no_more_than_a_hundred_queries_may_be_open() -> None:
    world = World()
    queries = [await world.start() for _ in range(MAX_CONCURRENT)]
    with pytest.raises(TooManyQueries):
        await world.start()
    world.queries.stop(queries[0], world.clock.now())
    await world.start()


# ---------------------------------------------------------------- what is remembered


async def over(world: World, result_bytes: int = 0) -> Query:
    """Start a query and have it ended."""
    query = await world.start()
    query.result_bytes = result_bytes
    world.queries.end(query, QueryStatus.COMPLETE, world.clock.now())
    return query


def known(world: World, made: Sequence[Query]) -> list[bool]:
    return [world.queries.find(query.id) is not None for query in made]


async def test_queries_are_remembered_for_a_day() -> None:
    world = World()
    old = await over(world)
    world.clock.time += 86_300
    young = await over(world)
    assert world.queries.newest_first() == [young, old]
    world.clock.time += 101
    await world.start()
    assert known(world, [old, young]) == [False, True]


async def test_no_more_than_a_thousand_ended_queries_are_remembered() -> None:
    world = World()
    waiting = await world.start()
    made = [await over(world) for _ in range(1001)]
    assert known(world, [waiting, *made[:2]]) == [True, False, True]


async def test_results_are_forgotten_when_they_take_too_much_memory_together() -> None:
    world = World()
    size = module._KEEP_BYTES // 2
    made = [await over(world, size) for _ in range(3)]
    assert known(world, made) == [False, True, True]
