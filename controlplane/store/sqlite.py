"""The journal on SQLite: one file, one writer thread, one fsync for everything that is pending.

    async with SqliteJournal.open(path) as journal:
        state = await load_state(journal)
        async with asyncio.TaskGroup() as group:
            group.create_task(journal.run())
            group.create_task(journal.run_retention())

`append` adds a commit to the pending batch, within the event-loop turn that made it. `run` writes the pending batch as
one transaction in the writer thread (WAL, synchronous=FULL); what is appended meanwhile is the next batch. So a lone
command costs one fsync, and a thousand concurrent ones share one, without an artificial delay.

What always holds: batches are written in order; `durable` returns only when SQLite has synced; after a failed write
nothing is ever written again, every waiter and `run` get a JournalError, and `append` refuses: the process must end.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import structlog

from controlplane.events.notes import StoredEvent
from controlplane.state.records import Record, TaskRecord
from controlplane.store.api import Commit
from controlplane.store.batch import Batch
from controlplane.store.documents import decode_record, decode_story, decode_task
from controlplane.store.eventlog import event_before, prune_events, read_events
from controlplane.store.lock import FileLock
from controlplane.store.migrations import migrate
from controlplane.store.retention import (
    DEFAULT_RETENTION_S,
    MAX_EVENTS,
    PERIOD_S,
    prune_history,
    prune_stories,
)
from controlplane.store.waiting import finish
from homeport.clock import Clock, SystemClock
from homeport.errors import ConfigurationError, JournalError
from homeport.ids import TaskId
from homeport.story import StoryLine

__all__ = ["OnCommit", "SqliteJournal", "connect", "lock_of", "restoring_mark_of"]

T = TypeVar("T")

#: Called with the seconds a batch took and how many commits were in it.
OnCommit = Callable[[float, int], None]

_log: Final = structlog.get_logger(__name__)

#: Pages of the WAL that make SQLite bring it into the database: by then most pages have changed more than once.
_CHECKPOINT_PAGES: Final = 4000
#: The WAL is cut back to this after a checkpoint, so that one large batch doesn't keep the disk for ever.
_WAL_LIMIT_BYTES: Final = 64 * 1024 * 1024


#: Events beyond `max_events` that may gather before they are pruned, as a part of it.
_EVENTS_SLACK: Final = 0.05


def lock_of(database: Path) -> Path:
    """Return the path of a database's lock file."""
    return database.with_suffix(".lock")


def restoring_mark_of(database: Path) -> Path:
    """Return the path of the file that exists while a backup is being put in place of a database."""
    return database.with_suffix(".restoring")


def connect(path: Path) -> sqlite3.Connection:
    """Open a database in autocommit mode with the settings every connection of ours has."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
    connection.execute("PRAGMA synchronous = FULL")
    return connection


class SqliteJournal:
    """See the module. `path`: the database file; a lock file is kept beside it.

    `on_commit` is called on the event loop after each batch. `retention_s`: how long stories and
    archived tasks are kept after their task has left memory, and events; of these there are never many more than
    `max_events`. Constructing does no I/O; `start` does.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock | None = None,
        retention_s: float = DEFAULT_RETENTION_S,
        max_events: int = MAX_EVENTS,
        on_commit: OnCommit | None = None,
    ) -> None:
        self.path = path
        self.durable_revision = 0
        self.last_event = 0
        self.retention_s = retention_s
        self.max_events = max_events
        self._clock = clock or SystemClock()
        self._on_commit = on_commit
        self._lock = FileLock(lock_of(path))
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="journal-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="journal-reader")
        self._write_connection: sqlite3.Connection | None = None
        self._read_connection: sqlite3.Connection | None = None
        self._pending = Batch()
        self._writing: Batch | None = None
        self._wake = asyncio.Event()
        #: Set, and replaced by another one, when events become durable.
        self._news = asyncio.Event()
        self._prune_due = asyncio.Event()
        self._pruned_at_event = 0
        self._failure: JournalError | None = None

    # ------------------------------------------------------------ life cycle

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        *,
        clock: Clock | None = None,
        retention_s: float = DEFAULT_RETENTION_S,
        max_events: int = MAX_EVENTS,
        on_commit: OnCommit | None = None,
    ) -> AsyncIterator["SqliteJournal"]:
        """Give an open journal, and close it at the end. Arguments as of the constructor, errors as of `start`."""
        journal = cls(path, clock=clock, retention_s=retention_s, max_events=max_events, on_commit=on_commit)
        await journal.start()
        try:
            yield journal
        finally:
            await journal.close()

    async def start(self) -> None:
        """Lock the directory, open or make the database, and bring its schema up to date.

        Raises ConfigurationError if another process has it or its schema is too new, JournalError if it is unusable.
        """
        try:
            await self._in(self._writer, self._open)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Write what is pending, close the database and give the lock back. End `run` first. Raises JournalError."""
        try:
            if self._failure is None and self._pending.commits:
                await self._write_pending()
        finally:
            if self._failure is None:
                self._fail(JournalError("the journal is closed"))
            await self._in(self._reader, self._close_reader)
            await self._in(self._writer, self._close_writer)
            self._reader.shutdown(wait=False)
            self._writer.shutdown(wait=False)

    # ------------------------------------------------------------ the seam

    async def load(self) -> tuple[int, Iterable[Record]]:
        """See Journal. The records are read and decoded while they are iterated, so that no copy of all is held."""
        self._raise_failure()
        return self.durable_revision, self._records()

    def append(self, commit: Commit) -> None:
        """See Journal. Raises JournalError once the journal has failed or is closed, ValueError for what isn't JSON.

        When it raises, nothing of the commit is taken.
        """
        self._raise_failure()
        self._pending.add(commit, self._clock.now())
        self._wake.set()

    async def durable(self, revision: int) -> None:
        """See Journal. On cancel only the waiting ends; the commit is written all the same."""
        if revision <= self.durable_revision:
            return
        self._raise_failure()
        batch = self._writing if self._writing is not None and revision <= self._writing.revision else self._pending
        if revision > batch.revision:
            raise ValueError(f"revision {revision} was never appended; the last one is {batch.revision}")
        await batch.settled.wait()
        if revision > self.durable_revision:
            self._raise_failure()

    async def run(self) -> None:
        """See Journal."""
        try:
            while True:
                await self._wake.wait()
                await self._write_pending()
        except asyncio.CancelledError:
            if self._pending.commits:
                await self._write_pending()
            raise
        finally:
            if self._failure is None:
                self._fail(JournalError("the journal has ended"))

    async def story(self, task_id: TaskId) -> tuple[StoryLine, ...]:
        """See Journal. Also for tasks that have left memory, until retention takes them."""
        rows = await self._in(
            self._reader, self._query, "SELECT body FROM story WHERE task_id = ? ORDER BY n", (task_id,)
        )
        return tuple(line for (body,) in rows for line in decode_story(body))

    async def archived_task(self, task_id: TaskId) -> TaskRecord | None:
        """See Journal."""
        rows = await self._in(self._reader, self._query, "SELECT body FROM history WHERE task_id = ?", (task_id,))
        return decode_task(rows[0][0]) if rows else None

    async def archived_tasks(self, prefix: str, *, limit: int) -> tuple[TaskRecord, ...]:
        """See Journal."""
        # Ids are hex digits, so everything with the prefix sorts between it and the prefix with a "g" behind.
        statement = "SELECT body FROM history WHERE task_id >= ? AND task_id < ? ORDER BY task_id LIMIT ?"
        rows = await self._in(self._reader, self._query, statement, (prefix, prefix + "g", limit))
        return tuple(decode_task(body) for (body,) in rows)

    async def events(self, after: int, *, limit: int) -> Sequence[StoredEvent]:
        """See Journal."""
        return await self._in(
            self._reader, self._read, partial(read_events, after=after, last=self.last_event, limit=limit)
        )

    async def event_before(self, at: float) -> int:
        """See Journal."""
        return await self._in(self._reader, self._read, partial(event_before, at=at, last=self.last_event))

    async def wait_event(self, after: int) -> None:
        """See Journal. On cancel nothing is left."""
        while self.last_event <= after:
            self._raise_failure()
            await self._news.wait()

    # ------------------------------------------------------------ retention

    async def prune(self, before: float) -> int:
        """Forget stories, archived tasks and events written before the epoch second `before`; return how many rows.

        Works in small transactions between the batches, so that commits hardly wait. Raises JournalError.
        """
        total = 0
        while removed := await self._in(self._writer, self._prune, prune_history, before):
            total += removed
        self._pruned_at_event = self.last_event
        while removed := await self._in(
            self._writer, self._prune, prune_events, before, self._pruned_at_event - self.max_events
        ):
            total += removed
        after: int | None = 0
        while after is not None:
            removed, after = await self._in(self._writer, self._prune, prune_stories, before, after)
            total += removed
        return total

    async def run_retention(self) -> None:
        """Prune now, then every hour and when there are too many events, until cancelled. Raises JournalError."""
        while True:
            self._prune_due.clear()
            removed = await self.prune(self._clock.now() - self.retention_s)
            if removed:
                _log.info("history_pruned", rows=removed, retention_days=round(self.retention_s / 86400, 2))
            with suppress(TimeoutError):
                async with asyncio.timeout(PERIOD_S):
                    await self._prune_due.wait()

    # ------------------------------------------------------------ on the event loop

    async def _in(self, executor: ThreadPoolExecutor, call: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, call, *arguments)

    def _records(self) -> Iterator[Record]:
        try:
            with closing(connect(self.path)) as connection:
                for kind, key, body in connection.execute("SELECT kind, key, body FROM objects ORDER BY kind, key"):
                    yield decode_record(kind, key, body)
        except sqlite3.Error as error:
            raise JournalError(f"can't read {self.path}: {error}") from error

    async def _write_pending(self) -> None:
        """Write the pending batch and settle it; a cancel is held back until that is done."""
        batch, self._pending = self._pending, Batch()
        self._pending.revision = batch.revision
        self._writing = batch
        self._wake.clear()
        began = self._clock.monotonic()
        written = asyncio.get_running_loop().run_in_executor(self._writer, self._write, batch, self.last_event)
        cancelled = await finish(written)
        self._writing = None
        cause = written.exception()
        if cause is not None:
            failure = JournalError(f"can't write {self.path}: {cause}")
            self._fail(failure, batch)
            raise failure from cause
        self.durable_revision = batch.revision
        batch.settled.set()
        if batch.events:
            self._tell_news(len(batch.events))
        if self._on_commit is not None:
            self._on_commit(self._clock.monotonic() - began, batch.commits)
        if cancelled is not None:
            raise cancelled

    def _tell_news(self, events: int) -> None:
        """So many more events are durable."""
        self.last_event += events
        self._news.set()
        self._news = asyncio.Event()
        if self.last_event - self._pruned_at_event > self.max_events * _EVENTS_SLACK:
            self._prune_due.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fail(self, failure: JournalError, *batches: Batch) -> None:
        self._failure = failure
        for batch in (*batches, self._pending):
            batch.settled.set()
        self._news.set()

    # ------------------------------------------------------------ in the writer thread

    def _open(self) -> None:
        directory = self.path.parent
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock.acquire()
            if restoring_mark_of(self.path).exists():
                raise ConfigurationError("a restore was interrupted; run `homeport restore` again")
            self.path.touch(mode=0o600)
            connection = self._write_connection = connect(self.path)
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}").fetchone()
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
            migrate(connection, keep=self.path.with_suffix(".before-upgrade.db"))
            (self.durable_revision,) = connection.execute("SELECT value FROM meta WHERE name = 'revision'").fetchone()
            (self.last_event,) = connection.execute("SELECT value FROM meta WHERE name = 'event'").fetchone()
            self._pending.revision = self.durable_revision
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.path}: {error}") from error
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"can't open {self.path}: {error}") from error

    def _write(self, batch: Batch, last_event: int) -> None:
        batch.write(self._writable(), last_event)

    def _prune(self, step: Callable[..., T], *arguments: object) -> T:
        try:
            return step(self._writable(), *arguments)
        except sqlite3.Error as error:
            raise JournalError(f"can't prune {self.path}: {error}") from error

    def _writable(self) -> sqlite3.Connection:
        if self._write_connection is None:
            raise JournalError("the journal is not open")
        return self._write_connection

    def _close_writer(self) -> None:
        if self._write_connection is not None:
            self._write_connection.close()
            self._write_connection = None
        self._lock.release()

    # ------------------------------------------------------------ in the reader thread

    def _query(self, statement: str, arguments: tuple[str | int, ...]) -> list[tuple[bytes]]:
        return self._read(lambda connection: connection.execute(statement, arguments).fetchall())

    def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Run `read` on the database as it is at one moment: what is pruned meanwhile is there until it ends."""
        try:
            if self._read_connection is None:
                self._read_connection = connect(self.path)
                self._read_connection.execute("PRAGMA query_only = ON")
            connection = self._read_connection
            connection.execute("BEGIN")
            try:
                return read(connection)
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise JournalError(f"can't read {self.path}: {error}") from error

    def _close_reader(self) -> None:
        if self._read_connection is not None:
            self._read_connection.close()
            self._read_connection = None
