"""Watching: what is read when the watch begins plus the watch's commits is the state, each commit once, in order."""

import asyncio

import pytest

from controlplane.state.records import ClusterRecord
from controlplane.state.state import State
from controlplane.state.watch import WatchOverflow
from tests.fakes.journal import MemoryJournal


@pytest.fixture
def state() -> State:
    return State(MemoryJournal())


def put(state: State, name: str) -> None:
    with state.transaction() as transaction:
        transaction.put(ClusterRecord(name=name, created_at=1.0))


async def test_a_watch_sees_each_later_commit_once_and_none_before(state: State) -> None:
    put(state, "before")
    with state.snapshot_and_watch() as watch:
        snapshot = state.revision
        put(state, "a")
        put(state, "b")
        assert [commit.revision for commit in await watch.next_batch()] == [snapshot + 1, snapshot + 2]
        put(state, "c")
        assert [commit.revision for commit in await watch.next_batch()] == [snapshot + 3]


async def test_each_watcher_has_its_own_stream(state: State) -> None:
    with state.snapshot_and_watch() as early:
        put(state, "a")
        with state.snapshot_and_watch() as late:
            put(state, "b")
            assert [commit.revision for commit in await early.next_batch()] == [1, 2]
            assert [commit.revision for commit in await late.next_batch()] == [2]


async def test_next_batch_waits_for_a_commit(state: State) -> None:
    with state.snapshot_and_watch() as watch:
        asyncio.get_running_loop().call_soon(put, state, "a")
        (commit,) = await asyncio.wait_for(watch.next_batch(), 1)
        assert commit.revision == 1


async def test_leaving_an_iteration_loses_no_commit(state: State) -> None:
    with state.snapshot_and_watch() as watch:
        for name in "abc":
            put(state, name)
        async for commit in watch:
            assert commit.revision == 1
            break
        assert [commit.revision for commit in await watch.next_batch()] == [2, 3]


async def test_cancelling_a_wait_loses_no_commit(state: State) -> None:
    with state.snapshot_and_watch() as watch:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await watch.next_batch()
        put(state, "a")
        assert [commit.revision for commit in await watch.next_batch()] == [1]


async def test_a_closed_watch_ends_its_iteration_after_what_is_there(state: State) -> None:
    watch = state.snapshot_and_watch()
    put(state, "a")
    watch.close()
    put(state, "b")
    assert [commit.revision async for commit in watch] == [1]
    assert await watch.next_batch() == []


async def test_closing_wakes_a_waiting_watcher(state: State) -> None:
    watch = state.snapshot_and_watch()
    asyncio.get_running_loop().call_soon(watch.close)
    assert await asyncio.wait_for(watch.next_batch(), 1) == []


async def test_a_watcher_that_lags_is_cut_off_and_the_others_are_not(state: State) -> None:
    with state.snapshot_and_watch(capacity=2) as slow, state.snapshot_and_watch() as other:
        for name in "abc":
            put(state, name)
        with pytest.raises(WatchOverflow):
            await slow.next_batch()
        put(state, "d")
        with pytest.raises(WatchOverflow):
            await anext(slow)
        assert len(await other.next_batch()) == 4
        assert state.watch_overflows == 1


async def test_a_watcher_that_keeps_up_is_never_cut_off(state: State) -> None:
    with state.snapshot_and_watch(capacity=2) as watch:
        for round_ in range(10):
            put(state, f"a{round_}")
            put(state, f"b{round_}")
            assert len(await watch.next_batch()) == 2
