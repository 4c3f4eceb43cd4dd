"""Stores of older versions are read, those of newer ones refused, and an upgrade happens wholly or not at all."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controlplane.state.kinds import RECORD_KINDS
from controlplane.state.records import TaskRecord
from controlplane.state.state import load_state
from controlplane.state.validate import validate
from controlplane.store.migrations import MIGRATIONS, Migration, migrate, rewrite, schema_version
from controlplane.store.sqlite import SqliteJournal
from homeport.errors import ConfigurationError, JournalError
from homeport.ids import TaskId
from homeport.status import TaskStatus

FIXTURE = Path(__file__).parent / "fixtures" / "state_schema_1.sql"
#: Kinds that the fixture's version didn't have.
LATER_KINDS = {"service", "service-revision", "deployment", "service-event", "task-set", "capacity-provider"} | {
    "schedule",
    "schedule-group",
    "rule",
    "schedule-run",
    "connection",
    "api-destination",
    "event-delivery",
}
LIVE = TaskId("0123456789abcdef" * 2)
ARCHIVED = TaskId("f" * 32)


@pytest.fixture
def old(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A store of schema 1."""
    connection = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    connection.executescript(FIXTURE.read_text())
    yield connection
    connection.close()


async def test_a_store_of_schema_1_is_read(old: sqlite3.Connection, tmp_path: Path) -> None:
    old.close()
    async with SqliteJournal.open(tmp_path / "state.db") as journal:
        state = await load_state(journal)
        assert state.revision == 9
        in_schema_1 = set(RECORD_KINDS) - LATER_KINDS
        assert [len(table) for table in state.tables] == [int(kind in in_schema_1) for kind in RECORD_KINDS]
        validate(state)
        task = state.tasks.get(LIVE)
        assert task is not None
        assert task.status is TaskStatus.RUNNING
        assert task.resources.ports == {("tcp", 8080)}
        assert [line.event for line in await journal.story(LIVE)] == ["placed", "running"]
        archived = await journal.archived_task(ARCHIVED)
        assert archived is not None
        assert archived.status is TaskStatus.STOPPED
        assert await journal.archived_tasks("ff", limit=5) == (archived,)
        assert await journal.archived_tasks("0", limit=5) == ()
        assert journal.last_event == 0  # its version had no events
        assert await journal.events(0, limit=5) == []


async def test_a_new_store_has_the_same_tables_as_an_upgraded_one(old: sqlite3.Connection, tmp_path: Path) -> None:
    def tables(connection: sqlite3.Connection) -> set[str]:
        return {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}

    migrate(old)
    async with SqliteJournal.open(tmp_path / "new" / "state.db"):
        new = sqlite3.connect(tmp_path / "new" / "state.db")
        assert tables(new) == tables(old)
        assert schema_version(new) == schema_version(old) == max(MIGRATIONS)
        new.close()


def renamed(document: dict[str, Any]) -> dict[str, Any]:
    return {("identifier" if name == "id" else name): value for name, value in document.items()}


def rename_ids(connection: sqlite3.Connection) -> None:
    rewrite(connection, "task", renamed)


def drop_settings(connection: sqlite3.Connection) -> None:
    rewrite(connection, "setting", lambda _document: None)


def fail(connection: sqlite3.Connection) -> None:
    raise RuntimeError("the step has a bug")


def bodies(connection: sqlite3.Connection, table: str, kind: str | None = None) -> list[dict[str, Any]]:
    where = f"WHERE kind = '{kind}'" if kind else ""
    return [msgspec.json.decode(body) for (body,) in connection.execute(f"SELECT body FROM {table} {where}")]


def test_steps_rewrite_documents_in_order_and_keep_a_copy_of_the_old_store(
    old: sqlite3.Connection, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.db"
    steps: dict[int, Migration] = {1: MIGRATIONS[1], 2: rename_ids, 3: drop_settings}
    migrate(old, keep=kept, migrations=steps)
    assert schema_version(old) == 3
    assert bodies(old, "objects", "task")[0]["identifier"] == LIVE
    assert bodies(old, "history")[0]["identifier"] == ARCHIVED
    assert bodies(old, "objects", "setting") == []
    copy = sqlite3.connect(kept)
    assert schema_version(copy) == 1
    assert bodies(copy, "objects", "task")[0]["id"] == LIVE
    copy.close()
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.unlink()
    migrate(old, keep=kept, migrations=steps)  # it is up to date: nothing happens
    assert not kept.exists()


def test_an_upgrade_that_fails_leaves_the_store_as_it_was(old: sqlite3.Connection) -> None:
    before = bodies(old, "objects")
    with pytest.raises(RuntimeError, match="a bug"):
        migrate(old, migrations={**MIGRATIONS, 2: rename_ids, 3: fail})
    assert schema_version(old) == 1
    assert bodies(old, "objects") == before
    migrate(old, migrations={**MIGRATIONS, 2: rename_ids})
    assert schema_version(old) == max(MIGRATIONS)


async def test_a_store_of_a_newer_schema_is_refused_untouched(old: sqlite3.Connection, tmp_path: Path) -> None:
    newest = max(MIGRATIONS)
    migrate(old, migrations={**MIGRATIONS, newest + 1: rename_ids})
    before = bodies(old, "objects")
    with pytest.raises(ConfigurationError, match=rf"has schema {newest + 1}.*up to {newest}.*newer version"):
        await SqliteJournal(tmp_path / "state.db").start()
    assert bodies(old, "objects") == before


async def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "state.db")
    connection.execute("CREATE TABLE meta (name, value)")
    connection.commit()
    connection.close()
    with pytest.raises(ConfigurationError, match="not Homeport's"):
        await SqliteJournal(tmp_path / "state.db").start()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_text("This is a letter, and a long one. " * 100)
    with pytest.raises(JournalError, match="not a database"):
        await SqliteJournal(tmp_path / "state.db").start()
    (tmp_path / "state.db").unlink()
    async with SqliteJournal.open(tmp_path / "state.db"):
        pass  # the refused attempt has given the lock back


async def test_a_damaged_document_is_named(old: sqlite3.Connection, tmp_path: Path) -> None:
    old.execute("UPDATE objects SET body = CAST('{\"id\": 1}' AS BLOB) WHERE kind = ?", (TaskRecord.kind,))
    old.close()
    async with SqliteJournal.open(tmp_path / "state.db") as journal:
        with pytest.raises(JournalError, match=f"stored task '{LIVE}' can't be read"):
            await load_state(journal)
