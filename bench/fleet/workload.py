"""What a simulated host does with its tasks: it runs what it is told, at once, and nothing of it exists.

`SimulatedWorkload` stands where `agent.worker.Worker` stands in an agent, behind the real uplink. It keeps what an
agent keeps: the set it holds, and every report until that is acknowledged.
"""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Mapping

from msgspec.structs import replace

from homeport.ids import TaskId
from homeport.protocol import Assignment, Assignments, Condition, HostFacts, LogChunk, LogsRequest, TaskReport
from homeport.status import DesiredStatus, TaskStatus
from tests.fakes.agent import prepared_report, simple_report

__all__ = ["EPHEMERAL", "SimulatedWorkload", "Tally"]

#: A task whose container has this name exits at once, so that a probe leaves nothing behind.
EPHEMERAL = "ephemeral"


class Tally:
    """What has become of many hosts and their tasks. `tasks`: "CONTAINER STATUS" -> reports made of that."""

    def __init__(self) -> None:
        self.joined = 0
        #: Hosts with a session now; those that the control plane has heard out in it.
        self.sessions = 0
        self.heard_out = 0
        self.tasks: Counter[str] = Counter()


class SimulatedWorkload:
    """See `agent.workload.Workload`."""

    def __init__(self, facts: HostFacts, tally: Tally) -> None:
        self._facts = facts
        self._tally = tally
        self._revision = -1
        #: How far each assigned task has been reported.
        self._held: dict[TaskId, TaskReport] = {}
        self._unacknowledged: dict[TaskId, TaskReport] = {}
        self._due: dict[TaskId, TaskReport] = {}
        self._moved = asyncio.Event()
        #: The session says that all has been told; the control plane has acknowledged that.
        self._says_all = False
        self._heard_out = False

    def connected(self, connected: bool) -> None:
        """Note that a session has begun, or ended."""
        self._tally.sessions += 1 if connected else -1
        if not connected:
            self._tally.heard_out -= self._heard_out
            self._heard_out = self._says_all = False

    # ------------------------------------------------------------ assignments and reports

    @property
    def revision(self) -> int:
        """See Workload."""
        return self._revision

    def session_began(self) -> None:
        """See Workload."""
        self._revision = -1
        self._due = dict(self._unacknowledged)
        self._moved.set()

    async def assign(self, assignments: Assignments) -> None:
        """See Workload."""
        if assignments.base is None:
            wanted = {assignment.task_id for assignment in assignments.put}
            self._held = {task_id: report for task_id, report in self._held.items() if task_id in wanted}
        elif assignments.base != self._revision:
            self._revision = -1
            return
        for task_id in assignments.remove:
            self._held.pop(task_id, None)
        for assignment in assignments.put:
            self._obey(assignment)
        self._revision = assignments.revision
        self._moved.set()

    def _obey(self, assignment: Assignment) -> None:
        before = self._held.get(assignment.task_id)
        report = _next_report(assignment, before)
        if report is None:
            return
        report = replace(report, seq=1 if before is None else before.seq + 1)
        self._tally.tasks[f"{report.containers[0].name} {report.status.name}"] += 1
        self._held[report.task_id] = self._unacknowledged[report.task_id] = self._due[report.task_id] = report

    async def next_reports(self) -> tuple[TaskReport, ...]:
        """See Workload."""
        while not self._due:
            self._moved.clear()
            await self._moved.wait()
        due, self._due = self._due, {}
        self._moved.set()
        return tuple(due.values())

    async def acknowledged(self, seqs: Mapping[TaskId, int]) -> None:
        """See Workload."""
        for task_id, seq in seqs.items():
            report = self._unacknowledged.get(task_id)
            if report is not None and report.seq <= seq:
                del self._unacknowledged[task_id]

    # ------------------------------------------------------------ heartbeats

    @property
    def heartbeat_within_s(self) -> float:
        """See Workload."""
        return math.inf

    def contact_begins(self) -> float:
        """See Workload. The stamp is 1 if what is about to be sent says that all has been told."""
        return float(self._says_all)

    def contact_made(self, stamp: float) -> None:
        """See Workload."""
        if stamp and not self._heard_out:
            self._heard_out = True
            self._tally.heard_out += 1

    async def caught_up(self) -> None:
        """See Workload."""
        while self._revision == -1 or self._due:
            self._moved.clear()
            await self._moved.wait()
        self._says_all = True

    # ------------------------------------------------------------ the host

    def facts(self) -> HostFacts:
        """See Workload."""
        return self._facts

    async def next_facts(self) -> HostFacts:
        """See Workload. They never change."""
        await asyncio.Event().wait()
        return self._facts

    def conditions(self) -> tuple[Condition, ...]:
        """See Workload."""
        return ()

    async def logs(self, request: LogsRequest) -> AsyncIterator[LogChunk]:
        """See Workload. There is no output."""
        yield LogChunk(request_id=request.request_id, end=True)

    async def deregistered(self, reason: str) -> None:  # noqa: ARG002 - the seam names it
        """See Workload."""
        self._held.clear()


def _next_report(assignment: Assignment, before: TaskReport | None) -> TaskReport | None:
    """Return what is to be reported of an assignment, None if that has been done. `seq` is 0."""
    reached = assignment.known if before is None else before.status
    if reached is TaskStatus.STOPPED:
        return None
    if assignment.desired is DesiredStatus.STOPPED or assignment.spec.containers[0].name == EPHEMERAL:
        return simple_report(assignment, TaskStatus.STOPPED)
    if assignment.desired is DesiredStatus.PENDING:
        return prepared_report(assignment) if before is None else None
    return simple_report(assignment, TaskStatus.RUNNING) if reached < TaskStatus.RUNNING else None
