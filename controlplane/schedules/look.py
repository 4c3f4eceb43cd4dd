"""Looking at one schedule or rule: the state as the snapshot that a decision is made of."""

from collections.abc import Iterator

from controlplane.schedules.decide import Snapshot
from controlplane.schedules.policy import policy_of
from controlplane.state.records import TaskRecord
from controlplane.state.schedule_records import RuleRecord, ScheduleRecord, TriggerRecord
from controlplane.state.state import State
from homeport.status import TaskStatus

__all__ = ["find_trigger", "inherited_tags", "look_at", "triggers"]

_SCHEDULE = "schedule/"
_RULE = "rule/"


def triggers(state: State) -> Iterator[TriggerRecord]:
    """Iterate all schedules and rules."""
    yield from state.schedules
    yield from state.rules


def find_trigger(state: State, trigger: str) -> TriggerRecord | None:
    """Return the schedule `schedule/GROUP/NAME` or the rule `rule/NAME`."""
    if trigger.startswith(_SCHEDULE):
        return state.schedules.get(trigger.removeprefix(_SCHEDULE))
    return state.rules.get(trigger.removeprefix(_RULE))


def inherited_tags(state: State, trigger: TriggerRecord) -> dict[str, str]:
    """Return the tags that a trigger's targets inherit: the rule's, or those of the schedule's group."""
    if isinstance(trigger, RuleRecord):
        return trigger.tags
    assert isinstance(trigger, ScheduleRecord)
    group = state.schedule_groups.get(trigger.group)
    return {} if group is None else group.tags


def look_at(state: State, trigger: TriggerRecord) -> Snapshot:
    """Return what a decision about a schedule or rule depends on."""
    tags = inherited_tags(state, trigger)
    return Snapshot(
        trigger=trigger,
        targets={
            target.get("Id", ""): policy_of(target, tags) for target in trigger.targets if "EcsParameters" in target
        },
        pending=tuple(state.schedule_runs.where("pending", trigger.trigger)),
        live={
            target_id: tuple(task.id for task_id in task_ids if (task := _live_task(state, task_id)) is not None)
            for target_id, task_ids in trigger.running.items()
        },
    )


def _live_task(state: State, task_id: str) -> TaskRecord | None:
    """Return the task, or the last attempt of it (homeport:retries), if that isn't STOPPED."""
    task = state.tasks.get(task_id)
    while task is not None and task.order is not None and task.order.retried_as is not None:
        task = state.tasks.get(task.order.retried_as)
    return None if task is None or task.status is TaskStatus.STOPPED else task
