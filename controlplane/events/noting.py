"""Which changes are events: asked of every commit, so it costs little. Only reads, and renders nothing.

A task's change is an event when something of it can be seen to differ; its `version` tells at once when nothing can.
What a service's reconciler says is an event of the transaction it says it in (`controlplane.services.events`).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from controlplane.events.notes import EventKind, InstanceFacts, Note, ServiceEvent, ServiceFacts, TaskFacts
from controlplane.state.records import InstanceRecord, Record, TaskRecord
from controlplane.state.remaining import free_gpus, remaining
from controlplane.state.service_records import DeploymentRecord, RolloutState, ServiceRecord
from homeport.protocol import ContainerReport
from homeport.status import ContainerStatus

if TYPE_CHECKING:
    from controlplane.state.state import State
    from controlplane.store.api import Change

__all__ = ["ARCHITECTURE", "ZONE", "note_events"]

#: The attributes of its host that a task shows as its own.
ARCHITECTURE: Final = "ecs.cpu-architecture"
ZONE: Final = "ecs.availability-zone"

_Noter = Callable[["State", Record | None, Record, int], Iterable[Note]]
_NO_HOST: Final = TaskFacts()
_ROLLOUTS: Final = {
    RolloutState.IN_PROGRESS: ServiceEvent.DEPLOYMENT_IN_PROGRESS,
    RolloutState.COMPLETED: ServiceEvent.DEPLOYMENT_COMPLETED,
    RolloutState.FAILED: ServiceEvent.DEPLOYMENT_FAILED,
}


def note_events(state: "State", changes: "Sequence[Change]") -> list[Note]:
    """Return the events that a commit's changes make, in their order. The state is as the commit leaves it."""
    notes: list[Note] = []
    for position, change in enumerate(changes):
        noter = _NOTERS.get(change.kind)
        if noter is not None and change.new is not None:
            notes += noter(state, change.old, change.new, position)
    return notes


def _task(state: "State", old: Record | None, new: Record, position: int) -> Iterable[Note]:
    assert isinstance(new, TaskRecord)
    if isinstance(old, TaskRecord) and not _can_be_seen(old, new):
        return ()
    return (Note(EventKind.TASK, _host_of(state, new), position),)


def _can_be_seen(old: TaskRecord, new: TaskRecord) -> bool:
    """Tell whether a change of a task is an event. Most that are are changes of its status."""
    return old.version != new.version and (old.status is not new.status or _seen(old) != _seen(new))


def _seen(task: TaskRecord) -> tuple[object, ...]:
    """What of a task, besides its status, makes an event when it changes. Times alone don't, as in ECS.

    Nor do a container's pull and creation: to ECS it is PENDING as before.
    """
    return (
        task.desired,
        task.instance_id,
        task.started_by,
        task.stop_code,
        task.stopped_reason,
        task.lost_at is None,
        {
            report.name: _container_seen(report)
            for report in task.containers
            if report.status >= ContainerStatus.RUNNING or report.reason is not None
        },
    )


def _container_seen(report: ContainerReport) -> tuple[object, ...]:
    return report.status.ecs_name, report.health, report.exit_code, report.reason, report.runtime_id, report.bindings


def _host_of(state: "State", task: TaskRecord) -> TaskFacts:
    instance = None if task.instance_id is None else state.instances.get(task.instance_id)
    if instance is None:
        return _NO_HOST
    own, agents = instance.attributes, instance.facts.attributes
    presence = state.presence.of(instance.id)
    return TaskFacts(
        zone=own.get(ZONE) or agents.get(ZONE, ""),
        architecture=own.get(ARCHITECTURE) or agents.get(ARCHITECTURE, ""),
        connected=None if presence is None else presence.connected,
        since=0.0 if presence is None else presence.since,
    )


def _instance(state: "State", old: Record | None, new: Record, position: int) -> Iterable[Note]:
    assert isinstance(new, InstanceRecord)
    if isinstance(old, InstanceRecord) and old.version == new.version:
        return ()  # tags alone
    presence = state.presence.of(new.id)
    # After a restart a host that has yet to return isn't missed: it is as was told last.
    connected = new.told.connected if presence is None else presence.connected
    facts = InstanceFacts(
        connected=connected and new.status != "INACTIVE",
        remaining=remaining(state, new),
        free_gpu_ids=free_gpus(state, new),
    )
    return (Note(EventKind.INSTANCE, facts, position),)


def _deployment(state: "State", old: Record | None, new: Record, _: int) -> Iterable[Note]:
    assert isinstance(new, DeploymentRecord)
    if isinstance(old, DeploymentRecord) and old.rollout is new.rollout:
        return ()
    service = state.services.get(new.service)
    if new.rollout is RolloutState.FAILED and service is not None and service.status == "INACTIVE":
        return ()  # it has ended with the service, which isn't a failure
    facts = ServiceFacts(
        event=_ROLLOUTS[new.rollout], service=new.service, deployment=new.id, reason=new.rollout_reason
    )
    return Note(EventKind.DEPLOYMENT, facts), Note(EventKind.SERVICE, facts)


def _service(_: "State", old: Record | None, new: Record, __: int) -> Iterable[Note]:
    """The count of a DAEMON is the scheduler's own doing; that of other services the user's, and no event."""
    assert isinstance(new, ServiceRecord)
    if new.scheduling_strategy != "DAEMON" or not isinstance(old, ServiceRecord):
        return ()
    if old.desired_count == new.desired_count:
        return ()
    facts = ServiceFacts(event=ServiceEvent.DESIRED_COUNT_UPDATED, service=new.key, desired_count=new.desired_count)
    return (Note(EventKind.SERVICE, facts),)


_NOTERS: Final[dict[str, _Noter]] = {
    TaskRecord.kind: _task,
    InstanceRecord.kind: _instance,
    DeploymentRecord.kind: _deployment,
    ServiceRecord.kind: _service,
}
