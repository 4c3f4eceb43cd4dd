"""What the tasks of a deployment or task set are made by: an order (`Launch`) and what it asks of a host (`Demand`)."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from controlplane.api.ecs.capacity import providers_for_service
from controlplane.api.ecs.launch import Launch, Launcher
from controlplane.api.ecs.placement import demand_of
from controlplane.context import Context
from controlplane.scheduling.model import Demand
from controlplane.services.isolation import stops_when_isolated
from controlplane.services.rebalance import ZONE
from controlplane.services.task_tags import task_tags
from controlplane.services.timing import timing_of
from controlplane.state.records import TaskDefinitionRecord, TaskRecord
from controlplane.state.service_records import ServiceRecord
from homeport.status import DesiredStatus, TaskStatus

__all__ = ["Order", "demand_of_revision", "next_providers", "order_of"]

Document = Mapping[str, Any]

#: What ECS assumes of a service that says nothing.
_DEFAULT_LAUNCH_TYPE: Final = "EC2"
#: ECS's default for services: even over the zones, then over the hosts.
_DEFAULT_STRATEGY: Final = (
    {"type": "spread", "field": f"attribute:{ZONE}"},
    {"type": "spread", "field": "instanceId"},
)


class Order(NamedTuple):
    """How to make and place tasks of one deployment or task set, in this event-loop turn."""

    launcher: Launcher
    demand: Demand
    #: ECS's capacityProviderStrategy; empty if there is none.
    strategy: Sequence[Document]


def order_of(context: Context, service: ServiceRecord, started_by: str) -> Order | None:
    """Return the order of a deployment or task set; None if its task definition is gone.

    Raises ApiError if the definition can't be run (any more).
    """
    state = context.state
    deployment, task_set = state.deployments.get(started_by), state.task_sets.get(started_by)
    if deployment is not None:
        revision = state.revisions.get(deployment.revision)
        name, document = (revision.task_definition, revision.document) if revision else ("", {})
    elif task_set is not None:
        name, document = task_set.task_definition, task_set.document
    else:
        return None
    definition = state.task_definitions.get(name)
    if definition is None:
        return None
    return make_order(context, service, definition, document, started_by)


def make_order(
    context: Context, service: ServiceRecord, definition: TaskDefinitionRecord, document: Document, started_by: str
) -> Order:
    """Return the order of tasks of a definition, under the service's terms. Raises as `order_of`.

    Placement and enableExecuteCommand are the service's own, as in ECS: changing them begins no deployment.
    """
    cluster = context.state.clusters.get(service.cluster)
    assert cluster is not None, "clusters stay, INACTIVE"
    strategy = document.get("capacityProviderStrategy") or ()
    isolated = stops_when_isolated(service.tags, definition.tags)
    launch = Launch(
        operation=f"Start by the scheduler of service {service.name}",
        cluster=service.cluster,
        definition=definition,
        launch_type=document.get("launchType") or ("FARGATE" if strategy else _DEFAULT_LAUNCH_TYPE),
        capacity_strategy=tuple(strategy),
        group=service.group,
        started_by=started_by,
        enable_execute_command=bool(service.settings.get("enableExecuteCommand")),
        tags=task_tags(service, definition, cluster),
        at_most_once_after_s=timing_of(service.tags).lost_after_s if isolated else None,
    )
    launcher = Launcher(context, launch)
    demand = demand_of(
        definition.document,
        launcher.resources,
        group=service.group,
        constraints=service.settings.get("placementConstraints") or (),
        strategy=service.settings.get("placementStrategy") or _DEFAULT_STRATEGY,
    )
    return Order(launcher, demand, strategy)


def next_providers(
    order: Order, service: ServiceRecord, started_by: str, tasks: Iterable[TaskRecord], count: int
) -> Counter[str]:
    """Return how many of the next `count` tasks of a deployment or task set go to each capacity provider, "" for none.

    `tasks`: those of the service, whichever deployment they belong to.
    """
    if not order.strategy:
        return Counter({"": count})
    present = Counter(
        task.capacity_provider
        for task in tasks
        if task.started_by == started_by
        and task.desired is not DesiredStatus.STOPPED
        and task.status is not TaskStatus.STOPPED
        and task.lost_at is None
    )
    return Counter(providers_for_service(order.strategy, service.desired_count, present, count))


def demand_of_revision(context: Context, service: ServiceRecord) -> Demand | None:
    """Return what one more task of the service's PRIMARY deployment asks of its host; None if there is none."""
    order = order_of(context, service, service.deployments[0]) if service.deployments else None
    return None if order is None else order.demand
