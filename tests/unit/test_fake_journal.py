"""The journal that other tests stand on keeps its own promises."""

import asyncio

import pytest

from controlplane.state.records import ClusterRecord
from controlplane.state.state import State, load_state
from homeport.errors import JournalError
from tests.fakes.journal import MemoryJournal


def _create(state: State, name: str) -> int:
    with state.transaction() as transaction:
        transaction.put(ClusterRecord(name=name, created_at=1.0))
    return state.revision


async def test_is_durable_at_once() -> None:
    journal = MemoryJournal()
    state = State(journal)
    _create(state, "a")
    await asyncio.wait_for(state.durable(), 1)
    assert [record.key for record in (await load_state(MemoryJournal.restarted(journal))).clusters] == ["a"]


async def test_held_commits_become_durable_when_released_and_no_sooner() -> None:
    journal = MemoryJournal()
    state = State(journal)
    journal.hold()
    first, second = _create(state, "a"), _create(state, "b")
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(state.durable(revision)) for revision in (first, second)]
        await asyncio.sleep(0)
        assert journal.waiting == 2
        journal.release(first)
        await waits[0]
        assert not waits[1].done()
        assert [record.key for record in (await load_state(MemoryJournal.restarted(journal))).clusters] == ["a"]
        journal.release()


async def test_failing_reaches_waiters_and_run() -> None:
    journal = MemoryJournal()
    state = State(journal)
    journal.hold()
    revision = _create(state, "a")
    asyncio.get_running_loop().call_soon(journal.fail, "disk full")
    with pytest.raises(JournalError, match="disk full"):
        await asyncio.wait_for(state.durable(revision), 1)
    with pytest.raises(JournalError, match="disk full"):
        await journal.run()
