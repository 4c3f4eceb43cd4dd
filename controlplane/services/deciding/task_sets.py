"""Services with the EXTERNAL deployment controller: each task set is kept at its scale, and nothing rolls between them.

The program that drives the deployment scales one set up and another down. ECS rounds a set's share of the desired
count up. A set that is deleted (DRAINING) has no share, and is gone once its tasks are.
"""

from collections import defaultdict

from msgspec.structs import replace

from controlplane.events.notes import ServiceEvent
from controlplane.services.deciding.bounds import share_up
from controlplane.services.deciding.draft import Draft
from controlplane.services.deciding.rollout import Leave, roll
from controlplane.services.deciding.slots import Slots, replica_slots
from controlplane.state.records import TaskRecord
from controlplane.state.service_records import ServiceRecord, TaskSetRecord
from homeport import reasons

__all__ = ["computed_count", "reconcile_task_sets"]


def computed_count(service: ServiceRecord, task_set: TaskSetRecord) -> int:
    """Return ECS's `computedDesiredCount`: the set's share of the service's desired count, rounded up."""
    return share_up(service.desired_count, task_set.scale_percent) if task_set.status != "DRAINING" else 0


def reconcile_task_sets(draft: Draft) -> None:
    """Keep each task set at its scale; drop those that are deleted and empty."""
    by_owner: dict[str, list[TaskRecord]] = defaultdict(list)
    for task in draft.present():
        by_owner[task.started_by].append(task)
    for task_set in list(draft.task_sets.values()):
        tasks = by_owner.pop(task_set.id, [])
        desired = computed_count(draft.service, task_set)
        slots = replica_slots(draft, owner=task_set.id, desired=desired, tasks=tasks)
        roll(draft, slots, Leave(start=draft.backed_off(task_set)))
        if task_set.status == "DRAINING" and not slots.occupied and not slots.prepared:
            draft.drop_task_set(task_set)
        else:
            _note_stability(draft, task_set, slots)
    for task in (task for tasks in by_owner.values() for task in tasks):
        draft.stop(task, reasons.SCALING.format(deployment=task.started_by))


def _note_stability(draft: Draft, task_set: TaskSetRecord, slots: Slots) -> None:
    """Keep `stabilityStatus`: steady when all that should run is healthy, and nothing else is left of the set."""
    others = slots.gaps or slots.outdated or slots.surplus or slots.prepared
    steady = not others and slots.healthy == slots.occupied == slots.desired
    stability = "STEADY_STATE" if steady else "STABILIZING"
    if stability != task_set.stability:
        draft.put_task_set(replace(task_set, stability=stability, stability_at=draft.now, updated_at=draft.now))
        if steady:
            draft.say(
                ServiceEvent.TASK_SET_STEADY_STATE,
                f"(taskSet {task_set.id}) has reached a steady state.",
                task_sets=[task_set.id],
            )
