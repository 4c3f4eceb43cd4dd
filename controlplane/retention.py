"""The reaper: what is over leaves memory after its time, so that memory and answers stay bounded.

 - a STOPPED task moves to the journal's history after an hour, as ECS forgets it: DescribeTasks then says MISSING,
   while its story and its last state stay readable there. The hour begins when the reaper first sees it STOPPED, not at
   its `stopped_at`: that is by its host's clock, and a host that was cut off for a day reports the end of yesterday.
   After a restart the hour begins anew;
 - a clientToken is forgotten after ECS's 24 hours;
 - a deregistered (INACTIVE) host after a day;
 - a task definition that DeleteTaskDefinitions marked, once no task that isn't STOPPED and no service uses it;
 - the runs of a schedule that was deleted on its completion after a day;
 - a deleted (INACTIVE) service after a day, and deployments that are long over (`controlplane.services.past`).

`due` decides, for one record and purely; a sweep looks through the tables a slice per event-loop turn, so that a long
table never holds up requests; `run` repeats that. Doing it twice changes nothing.
"""

import asyncio
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import msgspec

from controlplane.context import Context
from controlplane.services.past import outlived, uses_definition
from controlplane.state.records import (
    IdempotencyRecord,
    InstanceRecord,
    Record,
    TaskDefinitionRecord,
    TaskRecord,
)
from controlplane.state.schedule_records import ScheduleRunRecord
from controlplane.state.service_records import SERVICE_GROUP
from controlplane.state.state import State
from controlplane.state.table import Table
from homeport.ids import TaskId
from homeport.status import TaskStatus

__all__ = ["Reaper", "Retention", "due", "run"]

_HOUR_S: Final = 3600.0
#: Records looked at in one event-loop turn: well under a millisecond.
_SLICE: Final = 500


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long what is over stays, in seconds, and how often the reaper looks."""

    stopped_task_s: float = _HOUR_S
    client_token_s: float = 24 * _HOUR_S
    inactive_instance_s: float = 24 * _HOUR_S
    period_s: float = 30.0


def due(record: Record, now: float, retention: Retention, *, seen_stopped_at: float | None = None) -> bool:
    """Tell whether a record's time is over. A definition marked for deletion has none: its users decide."""
    match record:
        case TaskRecord(status=TaskStatus.STOPPED):
            return seen_stopped_at is not None and now - seen_stopped_at >= retention.stopped_task_s
        case IdempotencyRecord(at=at):
            return now - at >= retention.client_token_s
        case InstanceRecord(status="INACTIVE", deregistered_at=gone_at):
            return gone_at is not None and now - gone_at >= retention.inactive_instance_s
        case ScheduleRunRecord(expires_at=expires_at):
            return expires_at is not None and now >= expires_at
        case TaskDefinitionRecord(status=status):
            return status == "DELETE_IN_PROGRESS"
        case _:
            return False


class Reaper:
    """Sweeps one state."""

    def __init__(self, context: Context, retention: Retention | None = None) -> None:
        self._context = context
        self._retention = retention or Retention()
        self._seen_stopped_at: dict[TaskId, float] = {}

    async def run(self) -> None:
        """Sweep every `period_s` until cancelled; on cancel what is swept stays swept."""
        while True:
            await self.sweep()
            await asyncio.sleep(min(self._retention.period_s, self._retention.stopped_task_s))

    async def sweep(self) -> int:
        """Remove everything that is due and return how much that was."""
        removed = 0
        for index, table_name, value in _TABLES:
            table: Table[Any] = getattr(self._context.state, table_name)
            after: str | None = None
            while records := list(islice(table.page(index, value, after=after), _SLICE)):
                after = records[-1].key
                removed += self._remove([record for record in records if self._due(record)])
                await asyncio.sleep(0)
        return removed + await self._sweep_services()

    async def _sweep_services(self) -> int:
        removed = 0
        for service in tuple(self._context.state.services):
            removed += self._remove(list(outlived(self._context.state, service, self._context.clock.now())))
            await asyncio.sleep(0)
        return removed

    def _due(self, record: Record) -> bool:
        now = self._context.clock.now()
        seen = self._seen_stopped_at.setdefault(record.id, now) if isinstance(record, TaskRecord) else None
        return due(record, now, self._retention, seen_stopped_at=seen) and not _in_use(self._context.state, record)

    def _remove(self, records: list[Record]) -> int:
        state = self._context.state
        with state.transaction() as transaction:
            for record in records:
                if isinstance(record, TaskRecord):
                    transaction.archive(record)
                    self._seen_stopped_at.pop(record.id, None)
                else:
                    transaction.delete(record)
                if isinstance(record, InstanceRecord):
                    state.presence.forget(record.id)
        return len(records)


async def run(context: Context, retention: Retention | None = None) -> None:
    """Sweep until cancelled (see Reaper.run)."""
    await Reaper(context, retention).run()


#: What is looked through: index, table, value.
_TABLES: Final = (
    ("phase", "tasks", "stopped"),
    (None, "idempotency", None),
    (None, "instances", None),
    ("status", "task_definitions", "DELETE_IN_PROGRESS"),
    ("expiring", "schedule_runs", True),
)


def _in_use(state: State, record: Record) -> bool:
    """Tell whether something still needs a record whose time is over."""
    if isinstance(record, InstanceRecord):
        return state.load.of(record.id).tasks > 0
    if isinstance(record, TaskRecord):
        return record.group.startswith(SERVICE_GROUP) and not record.settled
    if isinstance(record, TaskDefinitionRecord):
        return uses_definition(state, record.name) or any(
            task.spec.revision == record.revision and task.status is not TaskStatus.STOPPED
            for task in _tasks_of_family(state, record.family)
        )
    return False


def _tasks_of_family(state: State, family: str) -> Iterator[TaskRecord]:
    for cluster in state.clusters:
        yield from state.tasks.where("cluster_family", (cluster.name, family))
