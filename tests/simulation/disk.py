"""The disk of a machine: real files, real SQLite, and what can go wrong with them.

Calls that would go to a thread go through `submit`: they take time, and are carried out at its beginning or its end.
Whoever is killed meanwhile leaves a file with all, nothing, or (torn) a part of what was being written: `crash` makes
the directory that the next process finds. What was synced before is whole in it.
"""

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from tests.simulation.loop import PROCESS, VirtualLoop

__all__ = ["Disk", "faulty_sqlite"]

#: What even the fastest call takes, so that it can be interrupted.
_MOMENT_S: Final = 1e-4
_WRITES: Final = ("INSERT", "UPDATE", "DELETE", "COMMIT", "CREATE")


@dataclass
class _Wal:
    """A write-ahead log as it was before a call, and its database."""

    size: int
    header: bytes
    database_changed_ns: int


@dataclass
class _Call:
    """What is being carried out: the logs as they were before, and whether it has written to any."""

    before: dict[str, _Wal]
    wrote: bool = False


class Disk:
    """One machine's. `directory` is where its process keeps its files; it is another one after each crash.

    `sync_s`: bounds of what a call takes while the disk is well.
    """

    def __init__(self, loop: VirtualLoop, root: Path, chance: random.Random, sync_s: tuple[float, float]) -> None:
        self._loop = loop
        self._root = root
        self._chance = chance
        self._sync_s = sync_s
        self._crashes = 0
        self._busy_until: dict[Executor, float] = {}
        #: What has been carried out, and hasn't been told yet.
        self._under_way: list[_Call] = []
        #: The write-ahead logs there, once there are any.
        self._wals: list[Path] = []
        self.slowness = 1.0
        self.full = False
        #: Called in the midst of the next write to a database, once.
        self.interrupt: Callable[[], None] | None = None
        #: Crashes that left a torn write.
        self.torn = 0
        self.directory = root / "0"
        self.directory.mkdir(parents=True)

    def submit(self, executor: Executor | None, call: Callable[[], object]) -> "asyncio.Future[Any]":
        """See Offload. The calls of one executor follow each other; each of ours has one thread."""
        loop, process = self._loop, PROCESS.get()
        future: asyncio.Future[Any] = loop.create_future()
        took_s = max(_MOMENT_S, self._chance.uniform(*self._sync_s) * self.slowness)
        begins = loop.now
        if executor is not None:
            begins = max(begins, self._busy_until.get(executor, 0.0))
            self._busy_until[executor] = begins + took_s
        at_once = self._chance.random() < 0.5 or self.interrupt is not None
        outcome: list[tuple[object, Exception | None]] = []
        under_way = _Call({})

        def carry_out() -> None:
            under_way.before = self._logs()
            self._under_way.append(under_way)
            with _on(self):
                try:
                    outcome.append((call(), None))
                except Exception as error:  # noqa: BLE001 - the caller's, as from a thread
                    outcome.append((None, error))
            under_way.wrote = self._has_grown(under_way.before)
            if self.interrupt is not None and at_once and under_way.wrote:
                loop.after(0.0, self.interrupt, None)
                self.interrupt = None

        def tell() -> None:
            if not outcome:
                carry_out()
            self._under_way.remove(under_way)
            result, error = outcome[0]
            if future.cancelled():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        if at_once:
            loop.after(begins - loop.now, carry_out, process)
        loop.after(begins - loop.now + took_s, tell, process)
        return future

    def crash(self, *, torn: bool) -> None:
        """Leave behind what a process killed now leaves. `torn`: of what is being written, if anything, a part."""
        # A database has one writer, so at most one write to it isn't told.
        before = {name: log for call in self._under_way if call.wrote for name, log in call.before.items()}
        self._under_way.clear()
        self._busy_until.clear()
        self._crashes += 1
        left = self._root / str(self._crashes)
        shutil.copytree(self.directory, left, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
        self.directory, self._wals = left, []
        if torn:
            for log in sorted(left.rglob("*-wal")):
                self._tear(log, before.get(log.name))

    def _tear(self, log: Path, before: _Wal | None) -> None:
        """Cut a write-ahead log off somewhere behind what was synced, and spoil the last of it."""
        size = log.stat().st_size
        if before is None or size <= before.size or _header(log) != before.header or before.size < 32:
            return
        if _changed_ns(log) != before.database_changed_ns:
            return  # a checkpoint has begun, so all of it was synced
        end = self._chance.randrange(before.size, size)
        with log.open("r+b") as file:
            file.truncate(end)
            if end > before.size and self._chance.random() < 0.5:
                file.seek(self._chance.randrange(before.size, end))
                file.write(b"\xa5")
        self.torn += 1

    def _has_grown(self, before: dict[str, _Wal]) -> bool:
        return any(log.size > before[name].size for name, log in self._logs().items() if name in before)

    def _logs(self) -> dict[str, _Wal]:
        if not self._wals:
            self._wals = sorted(self.directory.rglob("*-wal"))
        return {
            log.name: _Wal(log.stat().st_size, _header(log), _changed_ns(log)) for log in self._wals if log.exists()
        }


def _header(log: Path) -> bytes:
    with log.open("rb") as file:
        return file.read(32)


def _changed_ns(log: Path) -> int:
    database = log.with_name(log.name.removesuffix("-wal"))
    return database.stat().st_mtime_ns if database.exists() else 0


_current: Disk | None = None


@contextmanager
def _on(disk: Disk) -> Iterator[None]:
    """Have SQLite's files be on this disk inside the block."""
    global _current
    _current, before = disk, _current
    try:
        yield
    finally:
        _current = before


class _Connection(sqlite3.Connection):
    """A connection whose disk may be full."""

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        """See sqlite3."""
        _check_room(sql)
        return super().execute(sql, *args)

    def executemany(self, sql: str, *args: Any) -> sqlite3.Cursor:
        """See sqlite3."""
        _check_room(sql)
        return super().executemany(sql, *args)


def _check_room(sql: str) -> None:
    if _current is not None and _current.full and sql.startswith(_WRITES):
        raise sqlite3.OperationalError("database or disk is full")


@contextmanager
def faulty_sqlite() -> Iterator[None]:
    """Let the databases opened inside the block be on the disks of machines."""
    with patch.object(sqlite3, "connect", partial(sqlite3.connect, factory=_Connection)):
        yield
