"""Draining a host with a deadline, and how far that has come. ECS's own call, which has neither, does the same else.

    DrainNode       no more tasks for a host; services move theirs away, at the latest by the deadline
    DescribeDrain   what is still on the host, and what it waits for

Standalone tasks stay on the host, as in ECS: they are named, so that somebody can stop them.
"""

from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from controlplane.api.errors import ApiError, InvalidParameterException
from controlplane.api.homeport_service import SERVICE, Request, parse
from controlplane.api.homeport_views import node_view, task_view
from controlplane.api.registry import Document, operation
from controlplane.context import Context
from controlplane.services.deciding import census
from controlplane.services.deciding.backoff import next_try_at
from controlplane.services.deciding.bounds import bounds_of
from controlplane.state.records import InstanceRecord, TaskRecord
from controlplane.state.service_records import SERVICE_GROUP, ServiceRecord
from homeport.status import DesiredStatus

__all__ = ["MAX_DEADLINE_S"]

#: The longest deadline: 30 days.
MAX_DEADLINE_S: Final = 30 * 86400


class _DescribeDrain(Request, frozen=True):
    node: str


class _DrainNode(Request, frozen=True):
    node: str
    #: Seconds from now; None: leave an earlier one as it is, or have none.
    deadline_s: float | None = None


@operation(SERVICE, "DrainNode")
def drain_node(context: Context, document: Document) -> Document:
    """Set a host DRAINING, with a deadline if `deadlineS` gives one; repeating it moves the deadline."""
    request = parse(document, _DrainNode)
    if request.deadline_s is not None and not 0 <= request.deadline_s <= MAX_DEADLINE_S:
        raise InvalidParameterException(
            f"deadlineS must be between 0 and {MAX_DEADLINE_S} seconds (30 days), but was {request.deadline_s:g}."
        )
    instance = _instance(context, request.node)
    if instance.status == "INACTIVE":
        raise InvalidParameterException(f"The node {instance.id} is deregistered, so there is nothing to drain.")
    now = context.clock.now()
    drained = instance
    if instance.status != "DRAINING":
        drained = replace(drained, status="DRAINING", draining_at=now, drain_deadline_at=None)
    if request.deadline_s is not None:
        drained = replace(drained, drain_deadline_at=now + request.deadline_s)
    if drained != instance:
        drained = replace(drained, version=instance.version + 1)
        with context.state.transaction() as transaction:
            transaction.put(drained)
    return _progress(context, drained)


@operation(SERVICE, "DescribeDrain")
def describe_drain(context: Context, document: Document) -> Document:
    """Answer as DrainNode does, and change nothing. `drain.draining` is false for a host that takes tasks."""
    return _progress(context, _instance(context, parse(document, _DescribeDrain).node))


def _instance(context: Context, reference: str) -> InstanceRecord:
    found = context.state.instances.get(reference.rsplit("/", 1)[-1])
    if found is None:
        raise ApiError(f"No node was found with the id '{reference:.100}'.", code="ContainerInstanceNotFoundException")
    return found


# ---------------------------------------------------------------- progress


def _progress(context: Context, instance: InstanceRecord) -> Document:
    """Render a host and what is left on it. Tasks that were replaced while it was silent don't hold up its drain."""
    where = context.state.tasks.where
    tasks = [task for phase in ("pending", "running") for task in where("instance_phase", (instance.id, phase))]
    tasks.sort(key=lambda task: task.id)
    of_services = [task for task in tasks if task.group.startswith(SERVICE_GROUP)]
    left = [task for task in of_services if task.lost_at is None]
    return {
        "node": node_view(context, instance),
        "drain": {
            "draining": instance.status == "DRAINING",
            "startedAt": instance.draining_at,
            "deadlineAt": instance.drain_deadline_at,
            "done": not left,
            "serviceTasks": [task_view(context, task) for task in left],
            "standaloneTasks": [task_view(context, task) for task in tasks if task not in of_services],
            "replacedTasks": [task_view(context, task) for task in of_services if task.lost_at is not None],
            "services": _services(context, instance, left),
        },
    }


def _services(context: Context, instance: InstanceRecord, left: Iterable[TaskRecord]) -> list[Document]:
    by_service: dict[tuple[str, str], list[TaskRecord]] = {}
    for task in left:
        by_service.setdefault((task.cluster, task.group), []).append(task)
    found = []
    for (cluster, group), tasks in sorted(by_service.items()):
        name = group.removeprefix(SERVICE_GROUP)
        service = context.state.services.get(f"{cluster}/{name}")
        waits_for = "" if service is None else _waits_for(context, service, instance, tasks)
        found.append({"cluster": cluster, "service": name, "tasks": len(tasks), "waitsFor": waits_for})
    return found


def _waits_for(context: Context, service: ServiceRecord, instance: InstanceRecord, here: list[TaskRecord]) -> str:
    """Say what holds up a service's tasks on a host; "" if nothing does, or nobody has said."""
    now = context.clock.now()
    staying = [task for task in here if task.desired is not DesiredStatus.STOPPED]
    if not staying:
        return f"{_tasks(len(here))} to stop" if len(here) > 1 else "its task to stop"
    presence = context.state.presence.of(instance.id)
    if presence is None or not presence.connected:
        return "the host, which isn't connected; its tasks are replaced when it has been silent for too long"
    if all(census.is_protected(task, now) for task in staying):
        return "the end of the tasks' scale-in protection"
    if service.scheduling_strategy == "DAEMON":
        return "the tasks of other services to leave the host: a DAEMON's goes last"
    everywhere = list(context.state.tasks.where("service", (service.cluster, service.group)))
    coming = sum(census.is_live(task) and not census.looks_healthy(task) for task in everywhere)
    lower = bounds_of(service, service.desired_count).lower
    keeps = f"{lower} of {service.desired_count} must stay healthy" if lower else "none must stay healthy"
    if coming:
        return f"{_tasks(coming)} to become healthy ({keeps})"
    deployment = context.state.deployments.get(service.deployments[0]) if service.deployments else None
    if deployment is not None and (retry_at := next_try_at(deployment, now)) is not None:
        wait_s = retry_at - now
        return f"the next attempt to start a task, in {wait_s:.0f} s; the last failed: {deployment.last_failure}"
    if deployment is not None and deployment.placement_event and (why := _last_refusal(context, service)):
        return f"room on another host ({keeps}): {why}"
    return f"the service's next step ({keeps})"


def _last_refusal(context: Context, service: ServiceRecord) -> str:
    """Return what the service's events last said about tasks that could not be placed, "" if nothing."""
    beginning = f"(service {service.name}) "
    said = [event.message for event in context.state.events.where("service", service.id) if "unable" in event.message]
    return said[-1].removeprefix(beginning) if said else ""


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"
