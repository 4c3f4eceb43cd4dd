"""The path to disk: commits that share a transaction of the journal."""

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path as FilePath

from bench.hotpaths.model import Path, Round
from bench.journal import example_task
from controlplane.state.state import State
from controlplane.store.sqlite import SqliteJournal
from homeport.ids import InstanceId
from homeport.story import StoryLine
from tests.fakes.clock import ManualClock

__all__ = ["JOURNAL"]

_COMMITS = 200


@asynccontextmanager
async def _prepare() -> AsyncIterator[Round]:
    source = random.Random(1)
    line = StoryLine(at=1.0, event="accepted", message="RunTask of web:1 in group family:web", actor="API")
    with tempfile.TemporaryDirectory(prefix="homeport-bench-") as directory:
        async with SqliteJournal.open(FilePath(directory) / "state.db", clock=ManualClock()) as journal:
            state = State(journal)
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(journal.run())
                tasks = [example_task(source, number, InstanceId("0" * 32)) for number in range(_ROUNDS * _COMMITS)]

                async def once() -> None:
                    for _ in range(_COMMITS):
                        task = tasks.pop()
                        with state.transaction() as transaction:
                            transaction.put(task)
                            transaction.tell(task.id, line)
                    await state.durable()

                yield once
                writing.cancel()


#: As many as will be asked for, at most.
_ROUNDS = 10
JOURNAL = Path("a task's commit in a batch of 200 to SQLite", _COMMITS, _prepare)
