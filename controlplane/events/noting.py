"""Which changes are events: asked of every commit, so it costs little. Purely reading, and nothing is rendered here.

A task's change is an event when something of it can be seen to differ; its `version` tells at once when nothing can.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from controlplane.events.notes import EventKind, Facts, Note, TaskFacts
from controlplane.state.records import Record, TaskRecord
from homeport.protocol import ContainerReport

if TYPE_CHECKING:
    from controlplane.state.state import State
    from controlplane.store.api import Change

__all__ = ["ARCHITECTURE", "ZONE", "note_events"]

ARCHITECTURE: Final = "ecs.cpu-architecture"
ZONE: Final = "ecs.availability-zone"


def note_events(state: "State", changes: "Sequence[Change]") -> tuple[Note, ...]:
    """Return the events that a commit's changes make, in their order. The state is as the commit leaves it."""
    notes = []
    for position, change in enumerate(changes):
        noter = _NOTERS.get(change.kind)
        if noter is not None and change.new is not None:
            notes += [Note(kind, facts, position) for kind, facts in noter(state, change.old, change.new)]
    return tuple(notes)


_Found = Sequence[tuple[EventKind, Facts]]
_NOTHING: Final[_Found] = ()


def _task(state: "State", old: Record | None, new: Record) -> _Found:
    assert isinstance(new, TaskRecord)
    if isinstance(old, TaskRecord) and (old.version == new.version or _seen(old) == _seen(new)):
        return _NOTHING
    return ((EventKind.TASK, _host_of(state, new)),)


def _seen(task: TaskRecord) -> tuple[object, ...]:
    """What of a task makes an event when it changes. Times alone don't, as in ECS."""
    return (
        task.status,
        task.desired,
        task.instance_id,
        task.started_by,
        task.stop_code,
        task.stopped_reason,
        task.lost_at is None,
        [_container_seen(container) for container in task.containers],
    )


def _container_seen(report: ContainerReport) -> tuple[object, ...]:
    return (
        report.status.ecs_name,
        report.health,
        report.exit_code,
        report.reason,
        report.runtime_id,
        report.bindings,
    )


def _host_of(state: "State", task: TaskRecord) -> TaskFacts:
    instance = None if task.instance_id is None else state.instances.get(task.instance_id)
    if instance is None:
        return TaskFacts()
    own, agents = instance.attributes, instance.facts.attributes
    presence = state.presence.of(instance.id)
    return TaskFacts(
        zone=own.get(ZONE) or agents.get(ZONE, ""),
        architecture=own.get(ARCHITECTURE) or agents.get(ARCHITECTURE, ""),
        connected=None if presence is None else presence.connected and task.lost_at is None,
        since=0.0 if presence is None else presence.since,
    )


_NOTERS: Final[dict[str, Callable[["State", Record | None, Record], _Found]]] = {TaskRecord.kind: _task}
