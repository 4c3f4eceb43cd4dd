"""What would happen if: dry runs over copies of the hosts. Nothing is written, and nothing is kept of them.

    PlanService    a service updated to another task definition or desired count
    PlanHostLoss   a host lost, or drained

A plan says where tasks would go as things are now; what fits today may not fit tomorrow.
"""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from controlplane.api.ecs.capacity import providers_for_service
from controlplane.api.ecs.capacity_providers import provider_constraints
from controlplane.api.ecs.lookup import find_cluster, find_task_definition
from controlplane.api.errors import ApiError, ClientException, InvalidParameterException, ServiceNotFoundException
from controlplane.api.homeport_explain import find_named_service
from controlplane.api.homeport_service import SERVICE, Request, parse
from controlplane.api.registry import Document, operation
from controlplane.context import Context
from controlplane.scheduling.explain import HostAnswer, obstacles, refusals_of
from controlplane.scheduling.model import Candidate, Demand, Placement, candidates_of
from controlplane.scheduling.planning import Planned, Want, place_in_turn, roll, without
from controlplane.scheduling.sentences import counts_sentence
from controlplane.services.deciding.bounds import bounds_of
from controlplane.services.deciding.census import is_live, occupies
from controlplane.services.look import suitable
from controlplane.services.orders import Order, make_order, order_of
from controlplane.services.timing import timing_of
from controlplane.state.records import InstanceRecord, TaskDefinitionRecord, TaskRecord
from controlplane.state.service_records import SERVICE_GROUP, ServiceRecord
from homeport.ids import InstanceId
from homeport.status import DesiredStatus, TaskStatus

__all__: list[str] = []

#: Tasks named in one answer.
_MAX_NAMED: Final = 100
#: More tasks than this one service can't be planned to have: ECS's limit for a service.
_MAX_DESIRED: Final = 5000


class _PlanService(Request, frozen=True):
    service: str
    cluster: str | None = None
    #: FAMILY, FAMILY:REVISION or ARN; without one the present definition stays.
    task_definition: str | None = None
    desired_count: int | None = None
    #: Roll even if the definition stays, as forceNewDeployment does.
    force: bool = False


class _PlanHostLoss(Request, frozen=True):
    #: The host's id, the beginning of one, or a host name.
    node: str
    #: It is drained, rather than lost.
    drain: bool = False


# ---------------------------------------------------------------- a service


class _Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an update would come to."""

    wanted: int
    #: Tasks that stay as they are, and those that would stop.
    kept: int = 0
    stopped: int = 0
    chosen: tuple[InstanceId, ...] = ()
    #: Why the next task finds no host; without refusals if the deployment configuration is what stands in the way.
    placement: Placement
    stop_first: bool = False

    @property
    def missing(self) -> int:
        return self.wanted - self.kept - len(self.chosen)


@operation(SERVICE, "PlanService")
def plan_service(context: Context, document: Document) -> Document:
    """Answer what an update of a service would do: what is placed where, and what finds no host, and why."""
    request = parse(document, _PlanService)
    cluster = find_cluster(context, request.cluster).name
    service = find_named_service(context, cluster, request.service)
    if service is None or service.status != "ACTIVE":
        raise ServiceNotFoundException(f"There is no ACTIVE service {request.service:.300} in cluster {cluster}.")
    if service.controller != "ECS":
        raise InvalidParameterException(
            f"The deployments of {service.name} are driven by task sets, so they can't be planned."
        )
    desired = service.desired_count if request.desired_count is None else request.desired_count
    if not 0 <= desired <= _MAX_DESIRED:
        raise InvalidParameterException(f"desiredCount must be between 0 and {_MAX_DESIRED}, but was {desired}.")
    definition, order, changed = _planned_revision(context, service, request.task_definition)
    tasks = [task for task in context.state.tasks.where("service", (service.cluster, service.group)) if occupies(task)]
    candidates = candidates_of(context.state, service.cluster)
    if service.scheduling_strategy == "DAEMON":
        plan = _daemon(candidates, order.demand, tasks)
    elif changed or request.force:
        plan = _rolling(service, candidates, _shares(context, order, desired, {}, desired), desired, tasks)
    else:
        live = Counter(task.capacity_provider for task in tasks if is_live(task))
        missing = max(desired - live.total(), 0)
        plan = _scaling(candidates, _shares(context, order, desired, live, missing), desired, live.total())
    return {
        "service": service.name,
        "cluster": service.cluster,
        "taskDefinition": definition.name,
        "desiredCount": plan.wanted,
        "sentence": _sentence(service, definition, plan),
        "kept": plan.kept,
        "stopped": plan.stopped,
        "stopFirst": plan.stop_first,
        **_outcome(context, plan.chosen, plan.missing, plan.placement),
    }


def _planned_revision(
    context: Context, service: ServiceRecord, reference: str | None
) -> tuple[TaskDefinitionRecord, Order, bool]:
    """Return the definition to plan with, how its tasks are made, and whether it is another one than now.

    Raises ClientException for a definition that isn't there, isn't ACTIVE, or can't be run.
    """
    started_by = service.deployments[0] if service.deployments else ""
    deployment = context.state.deployments.get(started_by)
    revision = None if deployment is None else context.state.revisions.get(deployment.revision)
    present = "" if revision is None else revision.task_definition
    definition = find_task_definition(context, reference or present)
    if definition is None:
        raise ClientException("TaskDefinition not found.")
    if definition.status != "ACTIVE" and definition.name != present:
        raise ClientException("TaskDefinition is inactive")
    order = make_order(context, service, definition, {} if revision is None else revision.document, started_by)
    return definition, order, definition.name != present


def _shares(context: Context, order: Order, desired: int, present: Mapping[str, int], count: int) -> list[Want]:
    """Share `count` more tasks out among the capacity providers."""
    shares = Counter(providers_for_service(order.strategy, desired, present, count))
    return [Want(provider, _on_provider(context, order.demand, provider), share) for provider, share in shares.items()]


def _on_provider(context: Context, demand: Demand, provider: str) -> Demand:
    extra = provider_constraints(context.state, provider)
    return replace(demand, constraints=(*demand.constraints, *extra)) if extra else demand


def _rolling(
    service: ServiceRecord,
    candidates: Sequence[Candidate],
    wants: Sequence[Want],
    desired: int,
    tasks: Sequence[TaskRecord],
) -> _Plan:
    """All tasks are replaced, within the deployment configuration."""
    bounds = bounds_of(service, desired)
    found = roll(
        candidates,
        wants,
        sorted(tasks, key=lambda task: (task.created_at, task.id)),
        lower=bounds.lower,
        upper=bounds.upper,
        # A default that nobody asked for gives way where a service's own tasks are in the way.
        may_stop_first="minimumHealthyPercent" not in service.given,
        source=random.Random(0),
    )
    return _Plan(
        wanted=desired,
        stopped=len(tasks) - found.left,
        chosen=found.chosen,
        placement=found.placement,
        stop_first=found.stop_first,
    )


def _scaling(candidates: Sequence[Candidate], wants: Sequence[Want], desired: int, live: int) -> _Plan:
    """More tasks beside those there are, or fewer."""
    planned = place_in_turn(candidates, wants, random.Random(0))
    refusals = next((plan.placement.refusals for plan in planned if plan.missing), ())
    return _Plan(
        wanted=desired,
        kept=min(live, desired),
        stopped=max(live - desired, 0),
        chosen=tuple(instance_id for plan in planned for instance_id in plan.placement.chosen),
        placement=Placement((), refusals, considered=len(candidates)),
    )


def _daemon(candidates: Sequence[Candidate], demand: Demand, tasks: Sequence[TaskRecord]) -> _Plan:
    """One task on each host that may have one; the old one there stops first."""
    may = suitable(demand)
    eligible = [candidate for candidate in candidates if may(candidate, demand) is None]
    answers = []
    for candidate in eligible:
        own = [task for task in tasks if task.instance_id == candidate.id]
        answers.append(HostAnswer(candidate, obstacles(without(candidate, own), demand)))
    return _Plan(
        wanted=len(eligible),
        stopped=len(tasks),
        chosen=tuple(answer.candidate.id for answer in answers if answer.fits),
        placement=refusals_of(answers),
        stop_first=bool(tasks),
    )


def _sentence(service: ServiceRecord, definition: TaskDefinitionRecord, plan: _Plan) -> str:
    of = f"{_tasks(plan.wanted)} of {definition.name}"
    if plan.missing <= 0:
        first = " An old task has to stop before a new one starts." if plan.stop_first else ""
        return (
            f"{service.name} would run {of}: {len(plan.chosen)} new, {plan.kept} kept, {plan.stopped} stopped.{first}"
        )
    why = "Its deployment configuration leaves no room to stop or start tasks."
    if plan.placement.refusals:
        why = counts_sentence(plan.placement)
    return f"{service.name} would get {plan.wanted - plan.missing} of {of}; for {plan.missing} there is no host. {why}"


# ---------------------------------------------------------------- a host


@operation(SERVICE, "PlanHostLoss")
def plan_host_loss(context: Context, document: Document) -> Document:
    """Answer what losing or draining a host would do: which tasks go where, which find no host, which just end."""
    request = parse(document, _PlanHostLoss)
    instance = _instance(context, request.node)
    tasks = [
        task
        for task in context.state.tasks.where("instance", instance.id)
        if task.status is not TaskStatus.STOPPED and task.desired is not DesiredStatus.STOPPED
    ]
    wants, standalone, daemons = _wants(context, tasks)
    others = [candidate for candidate in candidates_of(context.state, instance.cluster) if candidate.id != instance.id]
    planned = place_in_turn(others, wants, random.Random(0))
    return {
        "node": instance.id,
        "hostname": instance.facts.hostname,
        "cluster": instance.cluster,
        "drain": request.drain,
        "sentence": _loss(instance, planned, standalone, daemons, drain=request.drain),
        "services": [_moved(context, instance.cluster, plan) for plan in planned],
        "standalone": [task.id for task in standalone[:_MAX_NAMED]],
        "standaloneCount": len(standalone),
        "daemonTasks": daemons,
    }


def _instance(context: Context, reference: str) -> InstanceRecord:
    name = reference.rpartition("/")[2]
    found = [
        instance
        for instance in context.state.instances
        if instance.status != "INACTIVE"
        and ((name and instance.id.startswith(name)) or instance.facts.hostname == reference)
    ]
    if not found:
        raise ApiError(f"No node was found that '{reference:.300}' names.", code="ContainerInstanceNotFoundException")
    if len(found) > 1:
        some = ", ".join(f"{instance.id} ({instance.facts.hostname})" for instance in found[:5])
        raise InvalidParameterException(f"'{reference:.300}' could mean several nodes: {some}. Give more of the id.")
    return found[0]


def _wants(context: Context, tasks: Iterable[TaskRecord]) -> tuple[list[Want], list[TaskRecord], int]:
    """Return what services would want elsewhere, the tasks of no service, and how many are DAEMON services'."""
    state = context.state
    groups: dict[tuple[str, str, str], list[TaskRecord]] = {}
    standalone, daemons = [], 0
    for task in sorted(tasks, key=lambda task: task.id):
        service = state.services.get(f"{task.cluster}/{task.group.removeprefix(SERVICE_GROUP)}")
        if not task.group.startswith(SERVICE_GROUP) or service is None:
            standalone.append(task)
        elif service.scheduling_strategy == "DAEMON":
            daemons += 1
        else:
            groups.setdefault((service.key, task.started_by, task.capacity_provider), []).append(task)
    wants = []
    for (key, started_by, provider), group in sorted(groups.items()):
        service = state.services.get(key)
        assert service is not None, "it was found in this same turn"
        try:
            order = order_of(context, service, started_by)
        except ApiError:
            order = None
        demand = Demand(resources=group[0].resources, group=service.group) if order is None else order.demand
        wants.append(Want(key, _on_provider(context, demand, provider), len(group)))
    return wants, standalone, daemons


def _loss(
    instance: InstanceRecord, planned: Sequence[Planned], standalone: Sequence[TaskRecord], daemons: int, *, drain: bool
) -> str:
    count, missing = sum(plan.want.count for plan in planned), sum(plan.missing for plan in planned)
    services = len({plan.want.name for plan in planned})
    sentences = [f"If {instance.facts.hostname} were {'drained' if drain else 'lost'}, "]
    if not count:
        sentences[0] += "no service would have to place a task elsewhere."
    else:
        of = "1 service" if services == 1 else f"{services} services"
        found = "all" if not missing else str(count - missing)
        sentences[0] += f"{_tasks(count)} of {of} would have to go elsewhere: {found} would find a host"
        sentences[0] += "." if not missing else f", {missing} would not."
    if standalone:
        again = sum(task.order is not None and task.order.attempt <= task.order.retries for task in standalone)
        end = f"would be gone: no service replaces them, and {again} would be run again by homeport:retries"
        end = "would run on until they end" if drain else end
        sentences.append(f"{_tasks(len(standalone))} started by RunTask or StartTask {end}.")
    if daemons:
        sentences.append(f"{_tasks(daemons)} of DAEMON services would go with the host.")
    return " ".join(sentences)


def _moved(context: Context, cluster: str, plan: Planned) -> Document:
    service = context.state.services.get(plan.want.name)
    return {
        "service": plan.want.name.removeprefix(f"{cluster}/"),
        "tasks": plan.want.count,
        "lostAfterS": None if service is None else timing_of(service.tags).lost_after_s,
        **_outcome(context, plan.placement.chosen, plan.missing, plan.placement),
    }


# ---------------------------------------------------------------- what both show


def _outcome(context: Context, chosen: Sequence[InstanceId], missing: int, placement: Placement) -> Document:
    """Where tasks would go, how many find no host, and why: in numbers, and in a sentence."""
    placed: list[dict[str, Any]] = []
    for instance_id, count in Counter(chosen).most_common():
        instance = context.state.instances.get(instance_id)
        hostname = instance_id if instance is None else instance.facts.hostname
        placed.append({"node": instance_id, "hostname": hostname, "tasks": count})
    why = missing > 0 and bool(placement.refusals)
    return {
        "placed": placed,
        "unplaced": max(missing, 0),
        "reasons": placement.by_reason() if why else {},
        "detail": counts_sentence(placement) if why else "",
    }


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"
