"""The loop over schedules and rules: looks at those that are due or have changed, decides, acts.

Nothing is polled: without a schedule it waits for a commit that brings one; else for the next due time as well. Every
few minutes it asks the clock again, since that may have been set meanwhile.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

from controlplane.agenda import Agenda
from controlplane.context import Context
from controlplane.schedules.act import act
from controlplane.schedules.decide import decide
from controlplane.schedules.look import find_trigger, look_at, triggers
from controlplane.schedules.target import STARTED_BY
from controlplane.state.records import TaskRecord
from controlplane.state.schedule_records import ScheduleGroupRecord, ScheduleRunRecord, TriggerRecord
from controlplane.state.watch import Watch, WatchOverflow
from controlplane.store.api import Change
from homeport.status import TaskStatus

__all__ = ["ScheduleLoop", "run"]

#: Looks in one event-loop turn; requests and reports have theirs in between.
_SLICE: Final = 20


class ScheduleLoop:
    """Runs what schedules and rules have due. `run` is its life."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._agenda: Agenda[str] = Agenda(context.clock, "schedule")
        #: Task -> the triggers that wait for its end.
        self._waiting: dict[str, set[str]] = {}
        self._watch: Watch | None = None

    async def run(self) -> None:
        """Run until cancelled; what is decided is carried out in the same turn, so nothing is left half-done."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._agenda.run(self._look, at_once=_SLICE))

    def wake(self) -> None:
        """Ask the clock again, e.g. since it was set."""
        self._agenda.wake()

    @property
    def busy(self) -> bool:
        """Whether there is something to look at now."""
        return self._agenda.busy or self._watch is None or self._watch.pending > 0

    # ------------------------------------------------------------ what has happened

    async def _follow(self) -> None:
        while True:
            with self._context.state.snapshot_and_watch() as self._watch:
                self._agenda.mark(record.trigger for record in triggers(self._context.state))
                try:
                    while True:
                        for commit in await self._watch.next_batch():
                            for change in commit.changes:
                                self._agenda.mark(self._concerned(change))
                except WatchOverflow:
                    continue  # every trigger is looked at

    def _concerned(self, change: Change) -> Iterable[str]:
        """Return the triggers that a change may matter to."""
        record = change.new or change.old
        if isinstance(record, TriggerRecord | ScheduleRunRecord):
            return (record.trigger,)
        if isinstance(record, TaskRecord):
            over = change.new is None or record.status is TaskStatus.STOPPED
            waiting = self._waiting.pop(record.id, ()) if over else ()
            return (*waiting, *self._starters(record)) if _is_retried(change) else waiting
        if isinstance(record, ScheduleGroupRecord):
            return [schedule.trigger for schedule in self._context.state.schedules.where("group", record.name)]
        return ()

    def _starters(self, task: TaskRecord) -> list[str]:
        """Return the triggers that know a task as running: they are to know its next attempt."""
        return [
            trigger.trigger
            for trigger in triggers(self._context.state)
            if any(task.id in tasks for tasks in trigger.running.values())
        ]

    # ------------------------------------------------------------ looking and acting

    def _look(self, name: str) -> None:
        record = find_trigger(self._context.state, name)
        if record is None:
            self._agenda.forget(name)
            return
        snapshot = look_at(self._context.state, record)
        decision = decide(snapshot, self._context.clock.now())
        act(self._context, snapshot, decision)
        for task_id in decision.waits_for:
            self._waiting.setdefault(task_id, set()).add(name)
        self._agenda.schedule(name, decision.wake_at)


def _is_retried(change: Change) -> bool:
    """Tell whether a task of a trigger has just been given another attempt (homeport:retries)."""
    old, new = change.old, change.new
    if not isinstance(new, TaskRecord) or new.order is None or new.order.retried_as is None:
        return False
    before = old.order.retried_as if isinstance(old, TaskRecord) and old.order is not None else None
    return before is None and new.started_by.startswith(STARTED_BY)


async def run(context: Context) -> None:
    """Run due schedules and rules until cancelled (see ScheduleLoop.run)."""
    await ScheduleLoop(context).run()
