"""A host's tasks for the uplink, without an Engine: it folds assignments and reports what a test tells it to."""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping

from msgspec.structs import replace

from homeport.ids import TaskId
from homeport.protocol import Assignment, Assignments, Condition, HostFacts, LogChunk, LogsRequest, TaskReport
from tests.fakes.agent import fold

__all__ = ["FakeWorkload"]


class FakeWorkload:
    """See `agent.workload.Workload`. Reports are kept until they are acknowledged, as the real journal keeps them."""

    def __init__(self, facts: HostFacts) -> None:
        self.held: dict[TaskId, Assignment] = {}
        self.taken: list[Assignments] = []
        self.sessions = 0
        self.acks: list[dict[TaskId, int]] = []
        self.ended: str | None = None
        #: Chunks of one line that each log has; how many logs are open; how many chunks each was asked for so far.
        self.log_lines = 3
        self.open_logs = 0
        self.log_chunks_made: dict[str, int] = {}
        self.logs_fail = False
        #: Not every container has been looked at yet.
        self.looking = False
        self._moved = asyncio.Event()
        self.wants_heartbeats_within_s = math.inf
        #: Hellos and heartbeats sent so far (each is stamped with its number); the stamps of those answered.
        self.stamps = 0
        self.contacts: list[float] = []
        self.contacts_at_first_set: list[float] = []
        self.unacknowledged: dict[TaskId, TaskReport] = {}
        #: The revision that the last heartbeat told.
        self.beaten_revision = -1
        self._revision = -1
        self._facts = facts
        self._facts_changed = asyncio.Event()
        self._due: dict[TaskId, TaskReport] = {}
        self._report_due = asyncio.Event()

    # ------------------------------------------------------------ what a test does

    def report(self, report: TaskReport) -> None:
        """A task has changed."""
        self.unacknowledged[report.task_id] = self._due[report.task_id] = report
        self._report_due.set()

    def change_facts(self, facts: HostFacts) -> None:
        """The host has changed."""
        self._facts = facts
        self._facts_changed.set()

    def look(self) -> None:
        """Every container has been looked at."""
        self.looking = False
        self._moved.set()

    def lose_set(self) -> None:
        """Doubt what is held, as after a gap."""
        self._revision = -1

    # ------------------------------------------------------------ Workload

    @property
    def revision(self) -> int:
        return self._revision

    def session_began(self) -> None:
        self.sessions += 1
        self._revision = -1
        self._due = dict(self.unacknowledged)
        if self._due:
            self._report_due.set()

    async def assign(self, assignments: Assignments) -> None:
        if not self.taken:
            self.contacts_at_first_set = list(self.contacts)
        self.taken.append(assignments)
        if assignments.base is not None and assignments.base != self._revision:
            self._revision = -1
            return
        self.held = fold(self.held, assignments)
        self._revision = assignments.revision
        self._moved.set()

    async def next_reports(self) -> tuple[TaskReport, ...]:
        await self._report_due.wait()
        self._report_due.clear()
        due, self._due = self._due, {}
        self._moved.set()
        return tuple(due.values())

    @property
    def heartbeat_within_s(self) -> float:
        return self.wants_heartbeats_within_s

    def contact_begins(self) -> float:
        self.stamps += 1
        return float(self.stamps)

    def contact_made(self, stamp: float) -> None:
        self.contacts.append(stamp)

    async def caught_up(self) -> None:
        while self._revision == -1 or self._due or self.looking:
            self._moved.clear()
            await self._moved.wait()

    async def acknowledged(self, seqs: Mapping[TaskId, int]) -> None:
        self.acks.append(dict(seqs))
        for task_id, seq in seqs.items():
            report = self.unacknowledged.get(task_id)
            if report is None:
                continue
            if report.seq <= seq:
                del self.unacknowledged[task_id]
            else:
                rest = tuple(entry for entry in report.story if entry[0] > seq)
                self.unacknowledged[task_id] = replace(report, story=rest)

    async def next_facts(self) -> HostFacts:
        await self._facts_changed.wait()
        self._facts_changed.clear()
        return self._facts

    def facts(self) -> HostFacts:
        return self._facts

    def conditions(self) -> tuple[Condition, ...]:
        self.beaten_revision = self._revision  # asked for each heartbeat
        return (Condition(type="CONTAINER_RUNTIME", ok=True, since=1.0),)

    async def logs(self, request: LogsRequest) -> AsyncIterator[LogChunk]:
        self.open_logs += 1
        try:
            if self.logs_fail:
                raise OSError("the Engine does not answer")
            for number in range(self.log_lines):
                self.log_chunks_made[request.request_id] = number + 1
                yield LogChunk(request_id=request.request_id, lines=((float(number), "stdout", f"line {number}"),))
            if request.follow:
                await asyncio.Event().wait()
            yield LogChunk(request_id=request.request_id, end=True)
        finally:
            self.open_logs -= 1

    async def deregistered(self, reason: str) -> None:
        self.ended = reason
        self.held.clear()
