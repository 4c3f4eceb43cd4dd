"""The seams of the worker: what a session with the control plane needs of it, and what it needs of others."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from agent.task.model import TaskState
from homeport.ids import TaskId
from homeport.protocol import Assignments, Condition, HostFacts, LogChunk, LogsRequest, TaskReport

__all__ = ["HostView", "Shipping", "Workload"]


class Workload(Protocol):
    """This host's tasks, as the uplink sees them. `agent.worker.Worker` is the one."""

    @property
    def revision(self) -> int:
        """The revision of the assignment set held in this session; -1 if none, which asks for a complete one."""
        ...

    def session_began(self) -> None:
        """A new session: the next set must be complete, and every report not yet acknowledged is to be sent again."""
        ...

    async def assign(self, assignments: Assignments) -> None:
        """Take a complete set or an increment; returns once it is in the journal. A gap sets `revision` to -1."""
        ...

    async def next_reports(self) -> tuple[TaskReport, ...]:
        """Wait until a report is due, then return all that are, at most one per task (the latest). Safe to cancel."""
        ...

    async def acknowledged(self, seqs: Mapping[TaskId, int]) -> None:
        """These reports are durable at the control plane; what they told may be forgotten here."""
        ...

    @property
    def heartbeat_within_s(self) -> float:
        """The longest pause between heartbeats that this host's tasks allow, in seconds; infinite if any will do."""
        ...

    def contact_begins(self) -> float:
        """Return a stamp for what is about to be sent: a hello or a heartbeat."""
        ...

    def contact_made(self, stamp: float) -> None:
        """What was sent at this stamp has been answered, so the control plane has heard of this host since."""
        ...

    async def caught_up(self) -> None:
        """Wait until this session's complete set is held, every container that an earlier agent left has been looked
        at, and `next_reports` has returned every report due until then. Safe to cancel.
        """
        ...

    async def next_facts(self) -> HostFacts:
        """Wait until the host's facts have changed since they were last returned, then return them. Safe to cancel."""
        ...

    def facts(self) -> HostFacts:
        """Return the host's facts as last read."""
        ...

    def conditions(self) -> tuple[Condition, ...]:
        """Return the host's health as last observed."""
        ...

    def logs(self, request: LogsRequest) -> AsyncIterator[LogChunk]:
        """Yield a container's log in chunks; the last has `end` set. Closing the iterator stops it."""
        ...

    async def deregistered(self, reason: str) -> None:
        """This host is no longer wanted: stop every task, and return when they have stopped."""
        ...


class HostView(Protocol):
    """The host, as the worker needs it. `agent.hostview.Host` is the one."""

    def facts(self) -> HostFacts:
        """Return the host's facts as last read."""
        ...

    async def next_facts(self) -> HostFacts:
        """Wait until the facts have changed since they were last returned here, then return them."""
        ...

    def conditions(self) -> tuple[Condition, ...]:
        """Return the host's health as last observed."""
        ...

    def log_drivers(self) -> tuple[str, ...]:
        """Return the Engine's log drivers; empty while they aren't known."""
        ...


class Shipping(Protocol):
    """What ships containers' output, as the worker needs it. `agent.logs.shipper.LogShipper` is the one."""

    on_shipped: Callable[[], None]

    def look(self, state: TaskState) -> None:
        """Take note of a task as it is now."""
        ...

    def unshipped(self, task_id: TaskId) -> bool:
        """Tell whether there is output of this task that isn't kept yet."""
        ...

    async def give_up(self, task_id: TaskId, why: str) -> None:
        """A task is about to be removed: see to it that what isn't kept is marked as missing."""
        ...

    def forget(self, task_id: TaskId) -> None:
        """A task is no more; nobody is to be told of what isn't kept."""
        ...
