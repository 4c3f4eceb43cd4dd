"""Reports on their way up: at most one per task, the latest, until the uplink takes them."""

import asyncio

from homeport.ids import TaskId
from homeport.protocol import TaskReport

__all__ = ["Outbox"]


class Outbox:
    """A coalescing queue of reports. It forgets nothing that matters: what isn't acknowledged is put in again."""

    def __init__(self) -> None:
        self._due: dict[TaskId, TaskReport] = {}
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()

    def put(self, report: TaskReport) -> None:
        """Have this report sent, in place of an earlier one of the same task."""
        waiting = self._due.get(report.task_id)
        if waiting is None or waiting.seq <= report.seq:
            self._due[report.task_id] = report
        self._emptied.clear()
        self._filled.set()

    async def take(self) -> tuple[TaskReport, ...]:
        """Wait until there is a report, then take all. Safe to cancel."""
        while not self._due:
            self._filled.clear()
            await self._filled.wait()
        reports = tuple(self._due.values())
        self._due.clear()
        self._emptied.set()
        return reports

    async def emptied(self) -> None:
        """Wait until no report is left to be taken. Safe to cancel."""
        await self._emptied.wait()

    def drop(self, task_id: TaskId) -> None:
        """Forget the report of a task that nobody asks for any more."""
        self._due.pop(task_id, None)
        if not self._due:
            self._emptied.set()
