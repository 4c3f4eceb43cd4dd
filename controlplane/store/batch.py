"""Commits that share a transaction, and a sync, of the journal in SQLite."""

import asyncio
import sqlite3
from contextlib import suppress

from controlplane.store.api import Commit
from controlplane.store.documents import encode
from controlplane.store.eventlog import Unnumbered, write_events
from homeport.ids import TaskId

__all__ = ["Batch"]


class Batch:
    """What one transaction of the writer will write. Of an object changed several times only the last state counts."""

    def __init__(self) -> None:
        self.revision = 0
        self.commits = 0
        self.objects: dict[tuple[str, str], tuple[int, bytes | None]] = {}
        self.stories: list[tuple[TaskId, float, bytes]] = []
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
        stories = [(task_id, now, encode(line)) for task_id, line in commit.stories]
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
        self.stories += stories
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
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO objects (kind, key, revision, body) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (kind, key) DO UPDATE SET revision = excluded.revision, body = excluded.body",
            puts,
        )
        connection.executemany("DELETE FROM objects WHERE kind = ? AND key = ?", deletes)
        connection.executemany("INSERT INTO story (task_id, at, body) VALUES (?, ?, ?)", self.stories)
        connection.executemany("INSERT OR REPLACE INTO history (task_id, at, body) VALUES (?, ?, ?)", self.archive)
        if self.events:
            write_events(connection, self.events, last_event)
            connection.execute("UPDATE meta SET value = ? WHERE name = 'event'", (last_event + len(self.events),))
        connection.execute("UPDATE meta SET value = ? WHERE name = 'revision'", (self.revision,))
        connection.execute("COMMIT")
