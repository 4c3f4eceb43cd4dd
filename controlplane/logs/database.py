"""The catalog's SQLite file: one writer's thread with group commit, a few readers' threads, and errors as reasons.

Unlike the state's journal this one isn't fail-stop: a write that fails is refused with a reason, its connection is
closed, and the next write opens a new one. So it heals by itself, and no trouble with logs ends the control plane.
"""

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from controlplane.logs.api import LogStoreError, StoreUnavailable

__all__ = ["Database", "transaction"]

T = TypeVar("T")

_READERS: Final = 4
_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
#: The write-ahead log is cut back to this after a checkpoint.
_WAL_LIMIT_BYTES: Final = 16 * 1024 * 1024


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Do what is inside wholly or not at all; durable when left."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


class _Work(Generic[T]):
    """Something for the writer's thread to do. `then` is called on the loop with the result, whoever waits for it."""

    def __init__(self, do: Callable[[Any], T], then: Callable[[T], None] | None, *, connected: bool = True) -> None:
        self.do = do
        self.connected = connected
        self.then = then
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def settle(self, outcome: T | BaseException) -> None:
        if isinstance(outcome, BaseException):
            if not self.future.done():
                self.future.set_exception(outcome)
            return
        if self.then is not None:
            self.then(outcome)
        if not self.future.done():
            self.future.set_result(outcome)


class Database:
    """See the module. Constructing does no I/O; `prepare` is called in the writer's thread with the first connection.

    `explain` makes the reason that users see of an error.
    """

    def __init__(self, path: Path, *, explain: Callable[[Exception], str]) -> None:
        self.path = path
        self._explain = explain
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="logs-writer")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="logs-reader")
        #: Whether commits are to wait until there is no job to do.
        self.jobs_first: Callable[[], bool] = lambda: False
        #: SQLite has found that the file isn't a sound database.
        self.damaged = False
        self._connection: sqlite3.Connection | None = None
        #: A reader's thread -> which opening its connection is of, and the connection.
        self._reading: dict[int, tuple[int, sqlite3.Connection]] = {}
        self._opening = 0
        self._commits: deque[_Work[Any]] = deque()
        self._jobs: deque[_Work[Any]] = deque()
        self._busy = False
        self._job_was_last = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    # ------------------------------------------------------------ on the event loop

    async def write(self, operation: Callable[[sqlite3.Connection], T], then: Callable[[T], None] | None = None) -> T:
        """Run `operation` in a transaction that it shares with whatever else waits; return when that is durable.

        An operation may raise a LogStoreError before it has written anything. Raises StoreUnavailable if the write
        fails. On cancel the operation is done all the same, and `then` is called.
        """
        return await self._take(self._commits, _Work(operation, then))

    def submit(
        self, job: Callable[[sqlite3.Connection], T], then: Callable[[T], None] | None = None
    ) -> "asyncio.Future[T]":
        """Begin what `alone` does, for someone who doesn't wait."""
        return self._take(self._jobs, _Work(job, then))

    async def prepare(self, step: Callable[[], T], then: Callable[[T], None] | None = None) -> T:
        """Run `step` in the writer's thread, without a connection: it may put another file in the place of this one."""

        def apart() -> T:
            self._drop_connection()
            result = step()
            self._opening += 1
            self.damaged = False
            return result

        return await self._take(self._jobs, _Work(lambda _: apart(), then, connected=False))

    async def alone(self, job: Callable[[sqlite3.Connection], T], then: Callable[[T], None] | None = None) -> T:
        """Run `job` in the writer's thread, between two transactions; it makes its own. Raises as `write`."""
        return await self._take(self._jobs, _Work(job, then))

    async def read(self, query: Callable[[], T]) -> T:
        """Run `query` in a reader's thread, where `connection()` is one for reading. Raises StoreUnavailable."""
        if self._closed:
            raise StoreUnavailable("the log store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._guarded, query)

    async def close(self) -> None:
        """Finish what has been taken, and close. What is asked for later is refused."""
        self._closed = True
        try:
            await self._idle.wait()
        finally:
            self._writer.shutdown(wait=True)
            self._readers.shutdown(wait=True)
            self._drop_connection()
            for _, connection in self._reading.values():
                connection.close()
            self._reading.clear()

    def _take(self, queue: deque[_Work[Any]], work: _Work[T]) -> "asyncio.Future[T]":
        if self._closed:
            raise StoreUnavailable("the log store is closed")
        queue.append(work)
        self._idle.clear()
        self._pump()
        return work.future

    def _pump(self) -> None:
        """Give the writer's thread its next piece of work: batches and jobs by turns, or jobs before batches."""
        if self._busy:
            return
        if not self._commits and not self._jobs:
            self._idle.set()
            return
        commits_turn = self._job_was_last and not self.jobs_first()
        self._job_was_last = bool(self._jobs) and not (self._commits and commits_turn)
        if self._job_was_last:
            batch: Sequence[_Work[Any]] = [self._jobs.popleft()]
            call = self._do_alone
        else:
            batch, self._commits = tuple(self._commits), deque()
            call = self._commit
        self._busy = True
        done = asyncio.get_running_loop().run_in_executor(self._writer, call, batch)
        done.add_done_callback(lambda outcomes: self._settle(batch, outcomes))

    def _settle(self, batch: Sequence[_Work[Any]], done: "asyncio.Future[Sequence[Any]]") -> None:
        self._busy = False
        outcomes = done.result()
        for work, outcome in zip(batch, outcomes, strict=True):
            work.settle(outcome)
        self._pump()

    # ------------------------------------------------------------ in the writer's thread

    def _commit(self, batch: Sequence[_Work[Any]]) -> Sequence[Any]:
        """Return each one's result, or error."""
        try:
            connection = self._writable()
            with transaction(connection):
                return [_outcome(work, connection) for work in batch]
        except (sqlite3.Error, OSError) as error:
            self._note(error)
            self._drop_connection()
            return [StoreUnavailable(self._explain(error))] * len(batch)
        except Exception as error:  # noqa: BLE001 a value that one of them can't have: the others don't suffer
            if len(batch) == 1:
                return [error]
            return [outcome for work in batch for outcome in self._commit([work])]

    def _do_alone(self, batch: Sequence[_Work[Any]]) -> Sequence[Any]:
        try:
            (work,) = batch
            return [work.do(self._writable() if work.connected else None)]
        except (sqlite3.Error, OSError) as error:
            self._note(error)
            self._drop_connection()
            return [StoreUnavailable(self._explain(error))]
        except Exception as error:  # noqa: BLE001 whoever asked gets it
            return [error]

    def _writable(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._connect(
                "auto_vacuum = INCREMENTAL",
                "journal_mode = WAL",
                "synchronous = FULL",
                f"journal_size_limit = {_WAL_LIMIT_BYTES}",
                "cache_size = -16384",
            )
        return self._connection

    def _connect(self, *settings: str) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=5.0, check_same_thread=False)
        try:
            for setting in settings:
                connection.execute(f"PRAGMA {setting}").fetchall()
        except BaseException:
            connection.close()
            raise
        return connection

    def _note(self, error: Exception) -> None:
        # The lower byte is the kind of error.
        self.damaged |= isinstance(error, sqlite3.Error) and error.sqlite_errorcode & 0xFF in _DAMAGE

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    # ------------------------------------------------------------ in a reader's thread

    def connection(self) -> sqlite3.Connection:
        """Return this reader's thread's connection."""
        thread = threading.get_ident()
        opening, connection = self._reading.get(thread, (self._opening, None))
        if connection is not None and opening != self._opening:
            connection.close()
            connection = None
        if connection is None:
            connection = self._connect("query_only = ON")
            self._reading[thread] = (self._opening, connection)
        return connection

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Give this reader's thread's connection with the database as it is now, whatever is written meanwhile."""
        connection = self.connection()
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.execute("ROLLBACK")

    def _guarded(self, query: Callable[[], T]) -> T:
        try:
            return query()
        except (sqlite3.Error, OSError) as error:
            self._note(error)
            _, connection = self._reading.pop(threading.get_ident(), (0, None))
            if connection is not None:
                connection.close()
            raise StoreUnavailable(self._explain(error)) from error


def _outcome(work: _Work[Any], connection: sqlite3.Connection) -> Any:
    try:
        return work.do(connection)
    except LogStoreError as refusal:
        return refusal
