"""Events are as durable as the changes they tell of: numbered, bounded, read from any place on, never too early."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from controlplane.events.feed import JournalFeed
from controlplane.state.state import State, load_state
from controlplane.store.sqlite import SqliteJournal
from homeport.errors import JournalError
from tests.fakes.clock import ManualClock
from tests.fakes.journal import MemoryJournal
from tests.fakes.records import ARNS, a_task

DEADLINE_S = 10.0


@asynccontextmanager
async def running(database: Path, **options: object) -> AsyncIterator[tuple[SqliteJournal, State]]:
    async with SqliteJournal.open(database, **options) as journal:  # type: ignore[arg-type]
        state = await load_state(journal)
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(journal.run())
            try:
                yield journal, state
            finally:
                writing.cancel()


def run_task(state: State, *names: str) -> None:
    """Make one event for each."""
    with state.transaction() as transaction:
        for name in names:
            transaction.put(a_task(name))


async def read_all(feed: JournalFeed, *, limit: int = 3) -> list[tuple[int, str]]:
    """The number and the task of each event, by pages."""
    found: list[tuple[int, str]] = []
    after = 0
    while page := await feed.read(after, limit=limit):
        found += [(number, document["resources"][0].rpartition("/")[2]) for number, document, _ in page]
        after = page[-1].number
    return found


async def test_events_are_numbered_in_order_and_found_again_after_a_restart(tmp_path: Path) -> None:
    database = tmp_path / "state.db"
    async with running(database) as (journal, state):
        run_task(state, "a", "b")
        run_task(state, "c")
        await state.durable()
        assert journal.last_event == 3
        run_task(state, "d")
    async with running(database) as (journal, state):
        assert journal.last_event == 4
        run_task(state, "e")
        await state.durable()
        feed = JournalFeed(journal, ARNS)
        assert await read_all(feed) == [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")]
        assert await read_all(feed) == await read_all(JournalFeed(journal, ARNS), limit=1000)


async def test_nothing_is_read_before_it_is_durable() -> None:
    journal = MemoryJournal()
    state, feed = State(journal), JournalFeed(journal, ARNS)
    journal.hold()
    run_task(state, "a")
    assert feed.last == 0
    assert await feed.read(0, limit=10) == ()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(feed.wait(0))
        await asyncio.sleep(0)
        assert not waiting.done()
        journal.release()
        await asyncio.wait_for(waiting, DEADLINE_S)
    assert [event.number for event in await feed.read(0, limit=10)] == [1]


async def test_whoever_waits_is_woken_by_durability_and_by_failure(tmp_path: Path) -> None:
    async with running(tmp_path / "state.db") as (journal, state):
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(journal.wait_event(0))
            await asyncio.sleep(0)
            run_task(state, "a")
            await asyncio.wait_for(waiting, DEADLINE_S)
        assert journal.last_event == 1
        await journal.wait_event(0)  # it is there already
        outliving = asyncio.gather(journal.wait_event(1), return_exceptions=True)
        await asyncio.sleep(0)
    assert isinstance((await outliving)[0], JournalError)
    with pytest.raises(JournalError):
        await journal.wait_event(1)


async def test_too_many_events_are_forgotten_from_the_beginning(tmp_path: Path) -> None:
    async with running(tmp_path / "state.db", max_events=100) as (journal, state):
        run_task(state, *(f"{number:03}" for number in range(1, 251)))
        await state.durable()
        feed = JournalFeed(journal, ARNS)
        async with asyncio.TaskGroup() as group:
            pruning = group.create_task(journal.run_retention())
            async with asyncio.timeout(DEADLINE_S):
                while await feed.oldest() == 1:
                    pass
                assert [number for number, _ in await read_all(feed)] == list(range(101, 251))  # whole blocks
                # Not only every hour: as soon as there are too many again.
                run_task(state, *(f"{number:03}" for number in range(251, 301)))
                while await feed.oldest() != 201:
                    pass
                assert [event.number for event in await journal.events(198, limit=3)] == [201, 202, 203]
            pruning.cancel()
        assert (await feed.read(0, limit=1))[0].number == 201


async def test_what_is_pruned_meanwhile_is_there_until_a_search_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "state.db"

    def search(connection: sqlite3.Connection, at: float, *, last: int) -> int:
        kept = connection.execute("SELECT first, last FROM events").fetchall()
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("DELETE FROM events")
        assert connection.execute("SELECT first, last FROM events").fetchall() == kept == [(1, 2)]
        return last

    monkeypatch.setattr("controlplane.store.sqlite.event_before", search)
    async with running(database) as (journal, state):
        run_task(state, "a", "b")
        await state.durable()
        assert await journal.event_before(0.0) == 2
        assert await journal.events(0, limit=10) == []


async def test_old_events_are_forgotten_and_numbers_are_never_given_twice(tmp_path: Path) -> None:
    clock = ManualClock(100.0)
    database = tmp_path / "state.db"
    async with running(database, clock=clock) as (journal, state):
        run_task(state, "a", "b")
        await state.durable()
        clock.time = 200.0
        run_task(state, "c")
        await state.durable()
        assert await journal.prune(before=150.0) == 2
        assert [event.number for event in await journal.events(0, limit=10)] == [3]
        assert await journal.prune(before=1000.0) == 1
        assert await journal.events(0, limit=10) == []
        assert await journal.event_before(0.0) == 3
    async with running(database, clock=clock) as (journal, state):
        run_task(state, "d")
        await state.durable()
        assert [event.number for event in await journal.events(0, limit=10)] == [4]


async def test_a_page_is_read_across_blocks_from_any_place_on(tmp_path: Path) -> None:
    async with running(tmp_path / "state.db") as (journal, state):
        for size in (1, 250, 3, 100, 99, 2):
            run_task(state, *(f"{size}-{number}" for number in range(size)))
            await state.durable()
        for after in (0, 1, 99, 100, 101, 102, 250, 251, 252, 353, 354, 453, 454, 455, 500):
            for limit in (1, 100, 101, 1000):
                found = [event.number for event in await journal.events(after, limit=limit)]
                assert found == list(range(after + 1, 456))[:limit]


@pytest.mark.parametrize("together", [1, 3, 150])
async def test_the_place_of_a_time_is_found_whatever_was_written_together(tmp_path: Path, together: int) -> None:
    clock = ManualClock(0.0)
    async with running(tmp_path / "state.db", clock=clock) as (journal, state):
        for number in range(1, 302):
            clock.time = 10.0 * number
            run_task(state, str(number))
            if number % together == 0:
                await state.durable()
        await state.durable()
        for number in (1, 2, 99, 100, 101, 150, 151, 299, 300, 301):
            assert await journal.event_before(10.0 * number) == number - 1
            assert await journal.event_before(10.0 * number + 5.0) == number
        assert await journal.event_before(-1.0) == 0


@pytest.mark.parametrize("kept_from", [1, 5])
async def test_the_place_of_a_time_is_found(tmp_path: Path, kept_from: int) -> None:
    clock = ManualClock(0.0)
    async with running(tmp_path / "state.db", clock=clock) as (journal, state):
        for number in range(1, 21):
            clock.time = 10.0 * number
            run_task(state, str(number))
            await state.durable()
        await journal.prune(before=10.0 * kept_from)
        feed = JournalFeed(journal, ARNS)
        assert await feed.oldest() == kept_from
        for number in range(kept_from, 21):
            assert await feed.before(10.0 * number) == number - 1
            assert await feed.before(10.0 * number - 5.0) == number - 1
        assert await feed.before(201.0) == 20
        assert await feed.before(0.0) == kept_from - 1
