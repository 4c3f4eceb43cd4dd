"""What the agent must not forget: its tasks, in SQLite (WAL, synchronous=FULL), written by one thread in batches.

`save` returns once the state would survive kill -9 and power loss. Whoever saves while a commit is under way shares the
next one: twenty tasks that start together cost a few fsyncs, not twenty. A failed write ends the process: what is
remembered must never run ahead of what can be recovered. Each row is one task as a versioned JSON document.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from agent.task.model import TaskState
from homeport.errors import JournalError
from homeport.ids import TaskId

__all__ = ["Journal"]

#: Statements that lead from each schema version to the next; `user_version` counts those done.
_MIGRATIONS: Final = ("CREATE TABLE task (task_id TEXT PRIMARY KEY, document BLOB NOT NULL) STRICT, WITHOUT ROWID",)

_T = TypeVar("_T")


class Journal:
    """The journal of one agent. `load` once, then `run` in a TaskGroup; only then may others `save` and `forget`."""

    def __init__(self, path: Path, *, busy_timeout_s: float = 5.0) -> None:
        """`busy_timeout_s`: how long to wait for another process that still has the file, e.g. one being killed."""
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        #: Transactions written since the start.
        self.commits = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._connection: sqlite3.Connection | None = None
        self._pending: dict[TaskId, bytes | None] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._work = asyncio.Event()
        self._failure: JournalError | None = None

    async def load(self) -> tuple[TaskState, ...]:
        """Open the journal (making it if need be) and return every task in it.

        Raises JournalError if the file can't be used or was written by a newer version.
        """
        return await self._in_thread(self._open)

    async def save(self, state: TaskState) -> None:
        """Keep a task's state; return once it is durable. Cancelled, it may or may not be kept."""
        await self._submit(state.task_id, msgspec.json.encode(state))

    async def forget(self, task_id: TaskId) -> None:
        """Delete a task; return once that is durable."""
        await self._submit(task_id, None)

    async def run(self) -> None:
        """Write batches until cancelled (then write what is pending, and close). Raises JournalError."""
        try:
            while True:
                await self._work.wait()
                await self._commit()
        finally:
            with contextlib.suppress(JournalError):
                await self._commit()
            await self._in_thread(self._close)
            self._thread.shutdown(wait=False)

    def check(self) -> None:
        """Raise JournalError if nothing more can be kept."""
        if self._failure is not None:
            raise self._failure

    async def _submit(self, task_id: TaskId, document: bytes | None) -> None:
        self.check()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending[task_id] = document
        self._waiters.append(waiter)
        self._work.set()
        await waiter

    async def _commit(self) -> None:
        pending, self._pending = self._pending, {}
        waiters, self._waiters = self._waiters, []
        self._work.clear()
        if not pending:
            return
        try:
            await self._in_thread(lambda: self._write(pending))
        except JournalError as error:
            self._failure = error
            for waiter in (*waiters, *self._waiters):
                if not waiter.done():
                    waiter.set_exception(error)
            raise
        except asyncio.CancelledError:
            for waiter in waiters:
                waiter.cancel()
            raise
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        """Run `work` in the writer's thread to its end, also when cancelled; sqlite's errors become JournalError."""

        def guarded() -> _T:
            try:
                return work()
            except (sqlite3.Error, OSError, msgspec.MsgspecError) as error:
                if "locked" in str(error):
                    raise JournalError(
                        f"{self._path} is in use: does another agent run on this data directory?"
                    ) from error
                raise JournalError(f"the agent's journal {self._path} failed: {error}") from error

        future = asyncio.get_running_loop().run_in_executor(self._thread, guarded)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    # ------------------------------------------------------------ in the writer's thread

    def _open(self) -> tuple[TaskState, ...]:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = self._connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=self._busy_timeout_s
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(_MIGRATIONS):
            raise JournalError(
                f"{self._path} was written by a newer version of Homeport (schema {version}, known up to "
                f"{len(_MIGRATIONS)}); start that version, or a newer one"
            )
        for number, statement in enumerate(_MIGRATIONS[version:], start=version + 1):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(statement)
            connection.execute(f"PRAGMA user_version={number}")
            connection.execute("COMMIT")
        rows = connection.execute("SELECT document FROM task ORDER BY task_id")
        return tuple(msgspec.json.decode(document, type=TaskState) for (document,) in rows)

    def _write(self, pending: dict[TaskId, bytes | None]) -> None:
        assert self._connection is not None, "load comes before run"
        self._connection.execute("BEGIN IMMEDIATE")
        for task_id, document in pending.items():
            if document is None:
                self._connection.execute("DELETE FROM task WHERE task_id = ?", (task_id,))
            else:
                self._connection.execute("INSERT OR REPLACE INTO task VALUES (?, ?)", (task_id, document))
        self._connection.execute("COMMIT")
        self.commits += 1

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
