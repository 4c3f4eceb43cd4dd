"""At rest services have what they should, wherever the room allows it, and whoever waits has something to wait for.

Whether there is room is asked of the product's own pure `place`, over all hosts, not of what its loops keep.
"""

import random
from collections.abc import Iterable
from typing import Final

from controlplane.api.ecs.placement import demand_of
from controlplane.api.errors import ApiError
from controlplane.context import Context
from controlplane.scheduling.model import Demand, candidate_of, candidates_of
from controlplane.scheduling.placement import place
from controlplane.services.deciding import census
from controlplane.services.deciding.bounds import bounds_of
from controlplane.services.look import usable_hosts
from controlplane.services.orders import demand_of_revision
from controlplane.state.records import InstanceRecord, TaskRecord
from controlplane.state.service_records import DeploymentRecord, RevisionRecord, RolloutState, ServiceRecord
from homeport.spec import Resources
from homeport.status import TaskStatus
from tests.simulation.checks.history import History
from tests.simulation.checks.services import Services
from tests.simulation.checks.violation import Violation

__all__ = ["CONVERGES", "WAITS", "check_services", "check_standalone"]

CONVERGES: Final = "at rest services have what they should"
WAITS: Final = "at rest whoever waits has a reason"

#: Images whose containers run until they are asked to stop.
_STEADY: Final = frozenset({"steady", "ignores-sigterm", "slow-pull"})


def check_services(services: Services, history: History, context: Context) -> None:
    """Raise Violation unless every service has come as far as it can."""
    for service in history.all(ServiceRecord):
        tasks = list(services.tasks_of(service))
        if service.status == "DRAINING":
            raise Violation(CONVERGES, f"service {service.name} was deleted, and still has {len(tasks)} tasks")
        if service.status != "ACTIVE":
            continue
        ended = [task.id for task in tasks if census.is_stopped(task)]
        if ended:
            raise Violation(CONVERGES, f"the ends of {ended} haven't been counted for service {service.name}")
        deployment = history.get(DeploymentRecord, service.deployments[0])
        assert deployment is not None, "what a service names is there"
        if deployment.rollout is RolloutState.FAILED or not _works(history, context, deployment):
            continue  # it goes on trying, or has given up, as it should
        if service.scheduling_strategy == "DAEMON":
            _check_daemon(service, tasks, context)
        else:
            _check_replicas(service, tasks, deployment, context)


def _works(history: History, context: Context, deployment: DeploymentRecord) -> bool:
    """Whether the tasks of a deployment run, and stay healthy, once they have been placed."""
    revision = history.get(RevisionRecord, deployment.revision)
    definition = None if revision is None else context.state.task_definitions.get(revision.task_definition)
    if definition is None:
        return False
    containers = definition.document["containerDefinitions"]
    return all(container["image"] in _STEADY for container in containers)


def _check_replicas(
    service: ServiceRecord, tasks: list[TaskRecord], deployment: DeploymentRecord, context: Context
) -> None:
    live = [task for task in tasks if census.is_live(task)]
    if len(live) > bounds_of(service, service.desired_count).upper:
        raise Violation(CONVERGES, f"service {service.name} has {len(live)} tasks, and wants {service.desired_count}")
    current = [task for task in live if task.started_by == deployment.id]
    if len(live) < service.desired_count and _has_room(service, context):
        raise Violation(
            CONVERGES, f"service {service.name} has {len(live)} of {service.desired_count} tasks, and there is room"
        )
    sick = [task.id for task in current if not census.looks_healthy(task)]
    if sick:
        raise Violation(CONVERGES, f"service {service.name} has tasks that work, and are not healthy: {sick}")
    # One whose host drains is yet to be replaced, should there ever be room.
    drains = {instance.id for instance in context.state.instances if instance.status == "DRAINING"}
    complete = len(current) == len(live) == service.desired_count and all(t.instance_id not in drains for t in live)
    if complete and deployment.rollout is not RolloutState.COMPLETED:
        raise Violation(CONVERGES, f"service {service.name} has all it wants, and {deployment.id} isn't COMPLETED")


def _has_room(service: ServiceRecord, context: Context) -> bool:
    try:
        demand = demand_of_revision(context, service)
    except ApiError:
        return False
    return demand is not None and _fits_anywhere(context, service.cluster, demand)


def _fits_anywhere(context: Context, cluster: str, demand: Demand) -> bool:
    return bool(place(candidates_of(context.state, cluster), demand, 1, random.Random(0)).chosen)


def _waits(context: Context, instance: InstanceRecord) -> bool:
    """Whether a DRAINING host has tasks of REPLICA services that have nowhere to go: DAEMONs leave after them."""
    strategies = {service.group: service.scheduling_strategy for service in context.state.services}
    groups = context.state.load.of(instance.id).groups
    return instance.status == "DRAINING" and any(
        count and strategies.get(group) == "REPLICA" for group, count in groups.items()
    )


def _check_daemon(service: ServiceRecord, tasks: Iterable[TaskRecord], context: Context) -> None:
    try:
        demand = demand_of_revision(context, service)
    except ApiError:
        return
    if demand is None:
        return
    hosts = {instance.id for instance in usable_hosts(context, service, demand)}
    hosts |= {instance.id for instance in context.state.instances if _waits(context, instance)}
    on_hosts = [task.instance_id for task in tasks if census.is_live(task)]
    for host in on_hosts:
        if host not in hosts or on_hosts.count(host) > 1:
            raise Violation(CONVERGES, f"DAEMON {service.name} has {on_hosts.count(host)} tasks on {host}")
    for host in hosts - set(on_hosts):
        instance = context.state.instances.get(host)
        assert instance is not None, "it is usable"
        if place([candidate_of(context.state, instance)], demand, 1, random.Random(0)).chosen:
            raise Violation(CONVERGES, f"DAEMON {service.name} has no task on {host}, and there is room")


def check_standalone(history: History, context: Context) -> None:
    """Raise Violation if a task without a service waits for nothing, or is over its time."""
    now = context.clock.now()
    for task in history.tasks.values():
        order = task.order
        if order is None:
            continue
        if task.status is TaskStatus.RUNNING and now > (task.running_at or now) + (order.timeout_s or now) + 1:
            raise Violation(WAITS, f"task {task.id} runs for longer than {order.timeout_s} s")
        if task.status is not TaskStatus.PROVISIONING or (order.not_before or 0.0) > now - 1:
            continue
        group = task.exclusive_group
        if group is not None and any(other.instance_id for other in context.state.tasks.where("exclusive", group)):
            continue
        if group is not None and min(_turns(history, group)) != (order.turn, task.id):
            continue
        demand = demand_of(
            {},
            Resources.of_task(task.spec),
            group=task.group,
            constraints=order.constraints,
            strategy=order.strategy,
        )
        if order.instance_id is None and _fits_anywhere(context, task.cluster, demand):
            raise Violation(WAITS, f"task {task.id} waits, and there is room for it")


def _turns(history: History, group: tuple[str, str]) -> list[tuple[int, str]]:
    return [
        (task.order.turn, task.id)
        for task in history.tasks.values()
        if task.order is not None and task.exclusive_group == group and task.status is TaskStatus.PROVISIONING
    ]
