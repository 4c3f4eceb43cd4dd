"""How the API feels while something else goes on: requests at a steady pace, whatever becomes of those before."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from bench.common import Json
from bench.fleet.client import Client, Request

__all__ = ["Probes", "percentile"]

#: Each operation is asked for so often a second.
_PER_SECOND: Final = 20
#: Answers that may be awaited at a time. Beyond them probes wait to be sent, and that counts as waiting for the answer.
_UNDER_WAY: Final = 64


class Probes:
    """Probes by operation. `seconds`: how long each answer took, from the moment it was to be asked for."""

    def __init__(self, client: Client, requests: Mapping[str, Request]) -> None:
        self._client = client
        self._requests = requests
        self.seconds: dict[str, list[float]] = {name: [] for name in requests}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Probe for as long as the block takes, and until the last answer is there."""
        done = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for name in self._requests:
                group.create_task(self._ask(name, done))
            try:
                yield
            finally:
                done.set()

    async def _ask(self, name: str, done: asyncio.Event) -> None:
        due = time.monotonic()
        async with asyncio.TaskGroup() as group:
            room = asyncio.Semaphore(_UNDER_WAY)
            while not done.is_set():
                await room.acquire()
                group.create_task(self._time(name, due, room))
                due += 1 / _PER_SECOND
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _time(self, name: str, due: float, room: asyncio.Semaphore) -> None:
        try:
            await self._client.send(self._requests[name])
            self.seconds[name].append(time.monotonic() - due)
        finally:
            room.release()

    def figures(self) -> Json:
        """Return p50 and p99 in milliseconds by operation."""
        return {
            name: {
                "p50_ms": round(percentile(seconds, 50) * 1000, 1),
                "p99_ms": round(percentile(seconds, 99) * 1000, 1),
                "requests": len(seconds),
            }
            for name, seconds in self.seconds.items()
            if seconds
        }


def percentile(values: list[float], percent: float) -> float:
    """Return the smallest value that so many percent of the values don't exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(percent) // 100) - 1)]
