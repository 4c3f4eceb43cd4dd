"""What hosts' Engines have of containers' logs: stands for `FleetHub.read_logs`."""

import asyncio
from collections.abc import AsyncIterator

from homeport.ids import TaskId
from homeport.protocol import LogChunk

__all__ = ["HostLogs"]


class HostLogs:
    """`lines`: (task id, container) -> lines of (epoch seconds, stream, text). `error`: what every reader is told.

    A log that is followed goes on until the test puts it into `ended`.
    """

    def __init__(self) -> None:
        self.lines: dict[tuple[str, str], list[tuple[float, str, str]]] = {}
        self.ended: set[tuple[str, str]] = set()
        self.error = ""
        self.open = 0
        self.asked: list[tuple[str, str]] = []

    async def read(
        self, task_id: TaskId, container: str, *, follow: bool, tail: int | None, since: float | None
    ) -> AsyncIterator[LogChunk]:
        """See FleetHub."""
        name = (task_id, container)
        self.asked.append(name)
        self.open += 1
        try:
            shown = [line for line in self.lines.get(name, []) if since is None or line[0] > since]
            shown = shown if tail is None else shown[len(shown) - tail :] if tail else []
            done = len(self.lines.get(name, []))
            while not self.error:
                yield LogChunk(request_id="r", lines=tuple(shown))
                if not follow or name in self.ended:
                    break
                await asyncio.sleep(0.005)
                shown, done = self.lines.get(name, [])[done:], len(self.lines.get(name, []))
            yield LogChunk(request_id="r", end=True, error=self.error)
        finally:
            self.open -= 1
