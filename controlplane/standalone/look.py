"""What the standalone reconciler sees: snapshots of one task or one concurrency group, read from the state."""

from collections.abc import Iterable

from controlplane.context import Context
from controlplane.fleet.liveness import HostVerdict, judge
from controlplane.standalone.model import HostView, Snapshot
from controlplane.state.records import TaskRecord
from homeport.ids import TaskId
from homeport.status import TaskStatus

__all__ = ["Key", "key_of", "look_at"]

#: What is looked at in one go: a task, or the concurrency group (cluster, name).
Key = TaskId | tuple[str, str]


def key_of(task: TaskRecord) -> Key:
    """Return what a task is looked at with: its group while it runs or waits in one, else alone."""
    return task.exclusive_group or task.id


def look_at(context: Context, key: Key, *, started_at: float) -> Snapshot | None:
    """Return what a decision needs; None if there is nothing (any more).

    `started_at`: when this process began to hear hosts; silence before that is its own.
    """
    tasks: tuple[TaskRecord, ...]
    if isinstance(key, tuple):
        tasks = tuple(context.state.tasks.where("exclusive", key))
    else:
        task = context.state.tasks.get(key)
        tasks = (task,) if task is not None and task.order is not None and not task.settled else ()
    return Snapshot(tasks, _hosts(context, tasks, started_at)) if tasks else None


def _hosts(context: Context, tasks: Iterable[TaskRecord], started_at: float) -> dict[TaskId, HostView]:
    return {
        task.id: _host(context, task, started_at)
        for task in tasks
        if task.instance_id is not None and task.status is not TaskStatus.STOPPED and _matters(task)
    }


def _matters(task: TaskRecord) -> bool:
    """Tell whether the silence of its host means anything for the task."""
    return task.order is not None and bool(task.order.retries or task.order.exclusive)


def _host(context: Context, task: TaskRecord, started_at: float) -> HostView:
    assert task.instance_id is not None, "asked only of tasks with a host"
    assert task.order is not None, "asked only of tasks with an order"
    instance = context.state.instances.get(task.instance_id)
    presence = context.state.presence.of(task.instance_id)
    lost_after_s = task.order.lost_after_s
    clock = context.clock
    now = clock.monotonic()
    verdict = judge(presence, now=now, started_at=started_at, lost_after_s=lost_after_s)
    lost_at = None
    if verdict is HostVerdict.UNKNOWN:
        heard_at = max(started_at, 0.0 if presence is None else presence.heard_at)
        lost_at = clock.now() + heard_at + lost_after_s - now
    name = "" if instance is None else instance.facts.hostname
    return HostView(verdict, lost_at, name or task.instance_id)
