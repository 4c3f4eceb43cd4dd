"""A process to be killed: commits without end and says on stdout what is durable.

    python -m tests.fakes.journal_writer DATABASE [--limit-bytes N]

Each commit raises the counter of one of the workers by one, adds a line to a story and makes an event, so that the sum
of the counters is the revision, the number of lines, and that of events. After each commit is durable: a line
`REVISION WORKER COUNTER`.
`--limit-bytes`: no file may grow beyond (RLIMIT_FSIZE), as on a full disk. A failed journal ends the process with 3.
"""

import argparse
import asyncio
import resource
import sys
from pathlib import Path

from controlplane.events.notes import CustomFacts
from controlplane.state.records import SettingRecord
from controlplane.state.state import State, load_state
from controlplane.store.sqlite import SqliteJournal
from homeport.errors import JournalError
from homeport.ids import TaskId
from homeport.story import StoryLine

WORKERS = 20
STORY = TaskId("5" * 32)


def counter(state: State, worker: int) -> int:
    """Return how far a worker has come."""
    record = state.settings.get(f"worker-{worker}")
    return 0 if record is None else int(record.value["counter"])


async def work(state: State, worker: int) -> None:
    """Commit for ever."""
    while True:
        reached = counter(state, worker) + 1
        with state.transaction() as transaction:
            value = {"counter": reached, "padding": "x" * 500}
            transaction.put(SettingRecord(name=f"worker-{worker}", value=value))
            line = StoryLine(at=1.0, event="counted", message=str(reached), actor=str(worker))
            transaction.tell(STORY, line)
            transaction.emit(CustomFacts(source="test", detail_type="counted", detail={"worker": [worker, reached]}))
        revision = state.revision
        await state.durable(revision)
        sys.stdout.write(f"{revision} {worker} {reached}\n")
        sys.stdout.flush()


async def main(database: Path) -> None:
    async with SqliteJournal.open(database) as journal:
        state = await load_state(journal)
        async with asyncio.TaskGroup() as group:
            group.create_task(journal.run())
            for worker in range(WORKERS):
                group.create_task(work(state, worker))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("database", type=Path)
    parser.add_argument("--limit-bytes", type=int)
    arguments = parser.parse_args()
    if arguments.limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (arguments.limit_bytes, arguments.limit_bytes))
    status = 0
    try:
        asyncio.run(main(arguments.database))
    except* JournalError as failure:
        sys.stderr.write(f"{failure.exceptions[0]}\n")
        status = 3
    # Not in the block above: Python before 3.11.4 wraps whatever leaves an `except*`.
    sys.exit(status)
