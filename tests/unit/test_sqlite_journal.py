"""The SQLite journal: what was durable is found again, batches are shared, failures stop everything."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from controlplane.state.records import ClusterRecord, TaskRecord
from controlplane.state.state import State, load_state
from controlplane.store.batch import LINES_OF_ROW
from controlplane.store.retention import KEPT_ROWS
from controlplane.store.sqlite import OnCommit, SqliteJournal
from homeport.errors import ConfigurationError, JournalError
from homeport.ids import TaskId
from homeport.spec import ContainerSpec, Resources, TaskSpec
from homeport.story import StoryLine
from tests.fakes.clock import ManualClock

TASK = TaskId("0" * 32)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "controlplane" / "state.db"


@asynccontextmanager
async def running(database: Path, on_commit: OnCommit | None = None) -> AsyncIterator[State]:
    """Open the journal, load the state and run the journal; ends as a daemon does, by cancelling `run`."""
    async with SqliteJournal.open(database, on_commit=on_commit) as journal:
        state = await load_state(journal)
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(journal.run())
            try:
                yield state
            finally:
                writing.cancel()


def task(**changes: object) -> TaskRecord:
    spec = TaskSpec(
        task_arn="arn",
        cluster="default",
        family="web",
        revision=1,
        containers=(ContainerSpec(name="web", image="busybox", container_arn="c"),),
    )
    base = {"id": TASK, "cluster": "default", "spec": spec, "created_at": 1.5, "launch_type": "EC2"}
    return TaskRecord(**{**base, **changes})  # type: ignore[arg-type]


def put(state: State, name: str, **changes: object) -> int:
    with state.transaction() as transaction:
        transaction.put(ClusterRecord(name=name, created_at=1.0, **changes))  # type: ignore[arg-type]
    return state.revision


async def test_what_was_durable_is_loaded_again(database: Path) -> None:
    record = task(resources=Resources(cpu_units=1, ports=frozenset({("tcp", 80), ("udp", 53)})))
    async with running(database) as state:
        put(state, "gone")
        put(state, "kept", tags={"a": "b"})
        with state.transaction() as transaction:
            transaction.put(record)
            transaction.delete(ClusterRecord(name="gone", created_at=1.0))
        await state.durable()
    async with running(database) as state:
        assert list(state.clusters) == [ClusterRecord(name="kept", created_at=1.0, tags={"a": "b"})]
        assert list(state.tasks) == [record]
        assert state.revision == 3


async def test_ending_run_writes_what_is_pending(database: Path) -> None:
    async with running(database) as state:
        put(state, "unawaited")
    async with running(database) as state:
        assert [cluster.name for cluster in state.clusters] == ["unawaited"]


async def test_concurrent_commits_share_a_sync(database: Path) -> None:
    batches: list[int] = []
    async with running(database, lambda _seconds, commits: batches.append(commits)) as state:

        async def commit(number: int) -> None:
            put(state, f"c{number}")
            await state.durable()

        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(commit(number))
    assert sum(batches) == 200
    assert len(batches) <= 3


async def test_story_and_archived_task_are_read_back_after_a_restart(database: Path) -> None:
    lines = tuple(StoryLine(at=float(n), event="placed", message=f"line {n}", actor="scheduler") for n in range(3))
    async with running(database) as state:
        with state.transaction() as transaction:
            transaction.put(task())
            for line in lines:
                transaction.tell(TASK, line)
        await state.durable()
        assert await state.journal.story(TASK) == lines
        assert await state.journal.archived_task(TASK) is None
        with state.transaction() as transaction:
            transaction.archive(task())
        await state.durable()
    async with running(database) as state:
        assert len(state.tasks) == 0
        assert await state.journal.archived_task(TASK) == task()
        assert await state.journal.story(TASK) == lines
        assert await state.journal.story(TaskId("f" * 32)) == ()


async def test_the_files_are_private(database: Path) -> None:
    async with running(database) as state:
        put(state, "a")
        await state.durable()
        modes = {path.name: path.stat().st_mode & 0o777 for path in database.parent.iterdir()}
    assert set(modes) == {"state.db", "state.db-wal", "state.db-shm", "state.lock"}
    assert set(modes.values()) == {0o600}
    assert database.parent.stat().st_mode & 0o777 == 0o700


async def test_a_second_process_is_refused(database: Path) -> None:
    async with SqliteJournal.open(database):
        with pytest.raises(ConfigurationError, match="in use by another control plane"):
            await SqliteJournal(database).start()
    async with SqliteJournal.open(database):
        pass  # the lock is free again


async def test_a_revision_that_was_never_made_is_refused(database: Path) -> None:
    async with running(database) as state:
        with pytest.raises(ValueError, match="never appended"):
            await state.durable(7)


@contextmanager
def broken_disk(database: Path) -> Iterator[None]:
    """Make each write to the journal's tables fail, as SQLite reports it, from another connection's trigger."""
    connection = sqlite3.connect(database)
    connection.execute(
        "CREATE TRIGGER broken BEFORE UPDATE ON meta BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
    )
    connection.commit()
    try:
        yield
    finally:
        connection.execute("DROP TRIGGER broken")
        connection.commit()
        connection.close()


async def test_a_failed_write_stops_everything_and_nothing_of_it_is_kept(database: Path) -> None:
    with suppress(ExceptionGroup):
        async with running(database) as state:
            put(state, "before")
            await state.durable()
            with broken_disk(database):
                revision = put(state, "lost")
                waits = [asyncio.wait_for(state.durable(revision), 5) for _ in range(3)]
                results = await asyncio.gather(*waits, return_exceptions=True)
                assert [type(result) for result in results] == [JournalError] * 3
            with pytest.raises(JournalError, match="disk is full"):
                put(state, "refused")
            with pytest.raises(JournalError, match="disk is full"):
                await state.durable(revision)
            await state.durable(revision - 1)  # what was durable stays so
    async with running(database) as state:
        assert [cluster.name for cluster in state.clusters] == ["before"]


async def test_a_failed_write_ends_run(database: Path) -> None:
    async with SqliteJournal.open(database) as journal:
        state = await load_state(journal)
        with broken_disk(database):
            put(state, "lost")
            with pytest.raises(JournalError, match="disk is full"):
                await asyncio.wait_for(journal.run(), 5)


async def test_after_run_has_ended_nobody_waits_for_ever(database: Path) -> None:
    async with SqliteJournal.open(database) as journal:
        state = await load_state(journal)
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(journal.run())
            await asyncio.sleep(0)
            writing.cancel()
        with pytest.raises(JournalError, match="ended"):
            put(state, "late")


async def test_a_cancelled_wait_and_a_cancelled_run_lose_nothing(database: Path) -> None:
    async with SqliteJournal.open(database) as journal:
        state = await load_state(journal)
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(journal.run())
            revision = put(state, "a")
            impatient = group.create_task(state.durable(revision))
            patient = group.create_task(state.durable(revision))
            await asyncio.sleep(0)
            impatient.cancel()
            await patient
            put(state, "b")
            await asyncio.sleep(0)  # `run` has begun to write
            put(state, "c")
            writing.cancel()
            writing.cancel()
    async with running(database) as state:
        assert [cluster.name for cluster in state.clusters] == ["a", "b", "c"]


def line(number: int) -> StoryLine:
    return StoryLine(at=-1.0, event="e", message=str(number), actor="agent")


async def test_retention_forgets_what_is_old_and_keeps_how_a_live_task_began(database: Path) -> None:
    clock = ManualClock(0.0)
    async with SqliteJournal.open(database, clock=clock) as journal, asyncio.TaskGroup() as group:
        writing = group.create_task(journal.run())
        state = await load_state(journal)
        live, stopped = task(), task(id=TaskId("1" * 32))
        late = TaskId("2" * 32)
        with state.transaction() as transaction:
            transaction.put(live)
            for number in range((KEPT_ROWS + 250) * LINES_OF_ROW):
                transaction.tell(live.id, line(number))
            transaction.tell(stopped.id, line(1))
            transaction.archive(stopped)
            transaction.tell(late, line(1))
        await state.durable()
        clock.time = 50.0
        with state.transaction() as transaction:
            transaction.tell(live.id, line(-1))
            transaction.archive(task(id=late))
        await state.durable()
        assert await journal.prune(before=10.0) == 250 + 2 + 1  # rows of lines; an archived task and its line; an event
        assert await journal.prune(before=10.0) == 0
        kept = await journal.story(live.id)
        assert [each.message for each in kept] == [*map(str, range(KEPT_ROWS * LINES_OF_ROW)), "-1"]
        assert await journal.story(stopped.id) == ()
        assert await journal.archived_task(stopped.id) is None
        assert await journal.archived_task(late) == task(id=late)  # it left memory later: its whole story stays
        assert await journal.story(late) == (line(1),)
        writing.cancel()


async def test_the_retention_loop_prunes_at_once(database: Path) -> None:
    clock = ManualClock(0.0)
    async with SqliteJournal.open(database, clock=clock, retention_s=5.0) as journal, asyncio.TaskGroup() as group:
        writing = group.create_task(journal.run())
        state = await load_state(journal)
        with state.transaction() as transaction:
            transaction.archive(task())
        await state.durable()
        clock.time = 6.0
        pruning = group.create_task(journal.run_retention())
        async with asyncio.timeout(5):
            while await journal.archived_task(TASK) is not None:
                pass
        pruning.cancel()
        writing.cancel()
