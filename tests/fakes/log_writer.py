"""A process that appends to a log store for ever and says what is durable, until someone kills it.

    python -m tests.fakes.log_writer DIRECTORY

Each of WORKERS ships to a stream of its own, some batches twice, and writes a line "STREAM NEXT" to stdout for each
batch that is kept. It goes on from where the store says its stream is.
"""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

from controlplane.logs.api import GroupExists, LogEvent, LogGroup, Shipment, StreamExists
from controlplane.logs.store import SegmentLogStore

GROUP = "/writer"
WORKERS = 8
BATCH = 20


def line(stream: str, number: int) -> str:
    """Return what a worker says as its line of this number."""
    return f"{stream} says {number} {'x' * 1000}"


async def work(store: SegmentLogStore, stream: str) -> None:
    """Ship for ever."""
    first = (await store.stream(GROUP, stream)).shipped_next
    while True:
        events = [LogEvent(first + n, line(stream, first + n)) for n in range(BATCH)]
        shipment = Shipment(first=first, position=str(first + BATCH))
        for _ in range(1 + first // BATCH % 2):
            await store.append(GROUP, stream, events, ingested_at=first, shipment=shipment)
        first += BATCH
        sys.stdout.write(f"{stream} {first}\n")
        sys.stdout.flush()


async def main(root: Path) -> None:
    """Open the store and set everyone to work."""
    async with SegmentLogStore.open(root) as store, asyncio.TaskGroup() as group:
        group.create_task(store.run())
        with suppress(GroupExists):
            await store.create_group(LogGroup(name=GROUP, created_at=0))
        for number in range(WORKERS):
            with suppress(StreamExists):
                await store.create_stream(GROUP, f"s{number}", at=0)
            group.create_task(work(store, f"s{number}"))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
