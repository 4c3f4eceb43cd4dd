"""Commits that share a transaction, and a sync, of the journal in SQLite."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from controlplane.store.api import Commit
from controlplane.store.documents import encode
from controlplane.store.eventlog import Unnumbered, write_events
from homeport.ids import TaskId

__all__ = ["LINES_OF_ROW", "Batch"]

#: What is told of a task in one batch goes into one row, since rows and their place in the index are what costs; a row
#: has so many lines at most.
LINES_OF_ROW: Final = 10
#: Rows of one statement. SQLite works without Python's lock while it runs a statement: each fewer is one turn fewer
#: that the writer waits for a busy event loop, and holds it up.
_ROWS_OF_STATEMENT: Final = 64


class Batch:
    """What one transaction of the writer will write. Of an object changed several times only the last state counts."""

    def __init__(self) -> None:
        self.revision = 0
        self.commits = 0
        self.objects: dict[tuple[str, str], tuple[int, bytes | None]] = {}
        #: Task -> when its first line here was told, and its lines.
        self.stories: dict[TaskId, tuple[float, list[bytes]]] = {}
        self.archive: list[tuple[TaskId, float, bytes]] = []
        #: Their numbers are given when they are written.
        self.events: list[Unnumbered] = []
        self.settled = asyncio.Event()

    def add(self, commit: Commit, now: float) -> None:
        """Take a commit, made at `now`. When it raises (ValueError for what isn't JSON), nothing of it is taken."""
        objects = [
            ((change.kind, change.key), (commit.revision, None if change.new is None else encode(change.new)))
            for change in commit.changes
        ]
        stories = [(task_id, encode(line)) for task_id, line in commit.stories]
        archive = [(task.id, now, encode(task)) for task in commit.archive]
        events = [
            (
                now,
                note.kind.value,
                b"" if note.change is None else objects[note.change][1][1] or b"",
                encode(note.facts),
            )
            for note in commit.events
        ]
        self.objects.update(objects)
        for task_id, line in stories:
            self.stories.setdefault(task_id, (now, []))[1].append(line)
        self.archive += archive
        self.events += events
        self.commits += 1
        self.revision = commit.revision

    def write(self, connection: sqlite3.Connection, last_event: int) -> None:
        """Write the batch as one durable transaction, or nothing of it. Its events' numbers follow on `last_event`."""
        try:
            self._write(connection, last_event)
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def _write(self, connection: sqlite3.Connection, last_event: int) -> None:
        puts = [(*name, revision, body) for name, (revision, body) in self.objects.items() if body is not None]
        deletes = [name for name, (_, body) in self.objects.items() if body is None]
        told = [
            (task_id, at, b"[" + b",".join(lines[start : start + LINES_OF_ROW]) + b"]")
            for task_id, (at, lines) in self.stories.items()
            for start in range(0, len(lines), LINES_OF_ROW)
        ]
        connection.execute("BEGIN IMMEDIATE")
        _insert(
            connection,
            "INSERT INTO objects (kind, key, revision, body) VALUES {rows}"
            " ON CONFLICT (kind, key) DO UPDATE SET revision = excluded.revision, body = excluded.body",
            puts,
        )
        connection.executemany("DELETE FROM objects WHERE kind = ? AND key = ?", deletes)
        _insert(connection, "INSERT INTO story (task_id, at, body) VALUES {rows}", told)
        connection.executemany("INSERT OR REPLACE INTO history (task_id, at, body) VALUES (?, ?, ?)", self.archive)
        if self.events:
            write_events(connection, self.events, last_event)
            connection.execute("UPDATE meta SET value = ? WHERE name = 'event'", (last_event + len(self.events),))
        connection.execute("UPDATE meta SET value = ? WHERE name = 'revision'", (self.revision,))
        connection.execute("COMMIT")


def _insert(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Run an INSERT for all rows, many at a time; `{rows}` stands where their values belong.

    Statements have 64 rows, then 32, 16, ..., so that there are few of them and each is compiled once.
    """
    start, size = 0, _ROWS_OF_STATEMENT
    while start < len(rows):
        while size > len(rows) - start:
            size //= 2
        part = rows[start : start + size]
        values = ", ".join([f"({', '.join('?' * len(part[0]))})"] * size)
        connection.execute(statement.format(rows=values), [value for row in part for value in row])
        start += size
