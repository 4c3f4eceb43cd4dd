"""The agent's journal: what was saved is there again, in batches, and a failure is never passed over."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.journal import Journal
from agent.task.model import TaskState, accepted, settled, tell
from homeport.errors import JournalError
from homeport.ids import TaskId
from tests.fakes.agent_host import assignment, container, depends, health_check, restarts, spec_of
from tests.fakes.task_world import Driver


def state(task_id: str = "t1") -> TaskState:
    return accepted(assignment(task_id=task_id), {"web": f"docker-{task_id}"}, 1000.0)


async def reopened(path: Path) -> tuple[TaskState, ...]:
    return await Journal(path).load()


async def test_what_was_saved_comes_back_whole(tmp_path: Path) -> None:
    spec = spec_of(
        container("db", health_check=health_check()),
        container("web", depends_on=[depends("db")], restart_policy=restarts()),
        memory_mib=64,
    )
    kept = tell(settled(Driver(assignment(spec)).go().state), 5.0, "event", "what happened", "web")
    journal = Journal(tmp_path / "agent.db")
    assert await journal.load() == ()
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(journal.run())
        await journal.save(kept)
        writing.cancel()
    assert await reopened(tmp_path / "agent.db") == (kept,)


async def test_the_last_save_of_a_task_wins_and_forgotten_ones_are_gone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "agent.db")
    await journal.load()
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(journal.run())
        await asyncio.gather(*(journal.save(replace(state(), seq=number)) for number in range(20)))
        await journal.save(state("t2"))
        await journal.forget(TaskId("t2"))
        writing.cancel()
    (only,) = await reopened(tmp_path / "agent.db")
    assert only.seq == 19


async def test_saves_that_come_together_share_a_commit(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "agent.db")
    await journal.load()
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(journal.run())
        await asyncio.gather(*(journal.save(state(f"t{number}")) for number in range(50)))
        assert journal.commits <= 2
        writing.cancel()
    assert len(await reopened(tmp_path / "agent.db")) == 50


async def test_what_is_pending_is_written_on_the_way_down(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "agent.db")
    await journal.load()
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(journal.run())
        await asyncio.sleep(0)
        saving = group.create_task(journal.save(state()))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        saving.cancel()
    assert len(await reopened(tmp_path / "agent.db")) == 1


async def test_a_write_that_fails_ends_the_journal_and_tells_every_saver(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "agent.db")
    await journal.load()
    await journal._in_thread(lambda: journal._connection.execute("PRAGMA query_only=1"))  # type: ignore[union-attr]
    outcomes = await asyncio.gather(journal.run(), journal.save(state()), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [JournalError, JournalError]
    with pytest.raises(JournalError, match=r"agent\.db failed"):
        await journal.save(state())


async def test_a_journal_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "agent.db") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(JournalError, match="newer version"):
        await Journal(tmp_path / "agent.db").load()


async def test_a_damaged_journal_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "agent.db").write_bytes(b"not a database" * 500)
    with pytest.raises(JournalError, match=r"agent\.db failed"):
        await Journal(tmp_path / "agent.db").load()


async def test_a_second_agent_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    first = Journal(tmp_path / "agent.db")
    await first.load()
    second = Journal(tmp_path / "agent.db", busy_timeout_s=0.01)
    with pytest.raises(JournalError, match="does another agent run"):
        await second.load()
