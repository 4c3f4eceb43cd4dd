"""Why isn't this running? ExplainPlacement answers for a service, a task, or a task definition.

The answer begins with one sentence. Behind it stands what every host of the cluster says to one more such task: whether
it would take it, else each obstacle with numbers and what would help.
"""

from collections.abc import Sequence
from typing import Any, Final

from msgspec.structs import replace

from controlplane.api.ecs.capacity import providers_for_service
from controlplane.api.ecs.capacity_providers import provider_constraints
from controlplane.api.ecs.launch import Launch, Launcher
from controlplane.api.ecs.lookup import find_cluster, find_task_definition
from controlplane.api.ecs.placement import demand_of
from controlplane.api.ecs.service_lookup import find_service
from controlplane.api.errors import ApiError, InvalidParameterException
from controlplane.api.homeport_lookup import matching_tasks, only
from controlplane.api.homeport_service import SERVICE, Request, parse
from controlplane.api.homeport_views import story_line_view, task_view
from controlplane.api.registry import Document, operation
from controlplane.context import Context
from controlplane.scheduling.explain import HostAnswer, answers_of, refusals_of
from controlplane.scheduling.filters import PORTS
from controlplane.scheduling.model import Candidate, Constraint, Demand, candidates_of
from controlplane.scheduling.placement import MEMORY_CONDITION
from controlplane.scheduling.sentences import counts_sentence
from controlplane.services.deciding.census import is_live
from controlplane.services.mind import Mind, mind_of
from controlplane.services.orders import order_of
from controlplane.state.records import TaskDefinitionRecord, TaskOrder, TaskRecord
from controlplane.state.service_records import SERVICE_GROUP, DeploymentRecord, ServiceRecord
from homeport.spec import Resources
from homeport.status import TaskStatus

__all__ = ["find_named_service"]

#: Hosts in one answer if the request doesn't say, and at most: those that fit first, then the closest.
_DEFAULT_HOSTS: Final = 50
_MAX_HOSTS: Final = 5000
#: Lines of a task's story that are shown: the last ones.
_LINES: Final = 8


class _ExplainPlacement(Request, frozen=True):
    #: A service (NAME or ARN), a task definition (FAMILY, FAMILY:REVISION or ARN), or a task (beginning of an id, ARN).
    subject: str
    cluster: str | None = None
    max_hosts: int = _DEFAULT_HOSTS


@operation(SERVICE, "ExplainPlacement")
async def explain_placement(context: Context, document: Document) -> Document:
    """Answer why a service or task is as it is, and what each host would say to one more task of the kind."""
    request = parse(document, _ExplainPlacement)
    if not 1 <= request.max_hosts <= _MAX_HOSTS:
        raise InvalidParameterException(f"maxHosts must be between 1 and {_MAX_HOSTS}, but was {request.max_hosts}.")
    cluster = find_cluster(context, request.cluster).name
    service = find_named_service(context, cluster, request.subject)
    if service is not None:
        return _of_service(context, service, request.max_hosts)
    definition = find_task_definition(context, request.subject)
    if definition is not None:
        return _of_definition(context, definition, cluster, request.max_hosts)
    try:
        matches = await matching_tasks(context, request.subject)
    except InvalidParameterException:
        matches = []
    if not matches:
        raise ApiError(
            f"There is no service, task definition or task '{request.subject:.300}' in cluster {cluster}.",
            code="ResourceNotFoundException",
        )
    return await _of_task(context, only([task for task, _ in matches], request.subject), request.max_hosts)


# ---------------------------------------------------------------- services


def find_named_service(context: Context, cluster: str, reference: str) -> ServiceRecord | None:
    """Return the service of a name in `cluster`, or of a `CLUSTER/NAME` or ARN in any; None if there is none."""
    head, _, name = reference.rpartition("/")
    if reference.startswith("arn:"):
        return find_service(context, head.rpartition("/")[2] if head.count("/") else cluster, reference)
    return find_service(context, head or cluster, name)


def _demand_of_service(context: Context, service: ServiceRecord, tasks: Sequence[TaskRecord]) -> Demand | None:
    """Return what the service's next task asks for, its capacity provider included; None if nothing is to be started.

    Raises ApiError if its task definition can't be run (any more), as the reconciler would find.
    """
    started_by = service.deployments[0] if service.deployments else service.primary_task_set
    order = order_of(context, service, started_by) if started_by else None
    if order is None:
        return None
    if service.scheduling_strategy == "DAEMON":
        return replace(order.demand, constraints=(*order.demand.constraints, Constraint("distinctInstance")))
    if not order.strategy:
        return order.demand
    present: dict[str, int] = {}
    for task in tasks:
        if is_live(task) and task.started_by == started_by:
            present[task.capacity_provider] = present.get(task.capacity_provider, 0) + 1
    (provider,) = providers_for_service(order.strategy, service.desired_count, present, 1)
    extra = provider_constraints(context.state, provider)
    return replace(order.demand, constraints=(*order.demand.constraints, *extra))


def _of_service(context: Context, service: ServiceRecord, max_hosts: int) -> Document:
    state = context.state
    tasks = list(state.tasks.where("service", (service.cluster, service.group)))
    deployments = [d for d in map(state.deployments.get, service.deployments) if d is not None]
    problem, demand = "", None
    try:
        demand = _demand_of_service(context, service, tasks)
    except ApiError as error:
        problem = error.message
    answers = [] if demand is None else answers_of(candidates_of(state, service.cluster), demand)
    if demand is not None and not any(answer.fits for answer in answers):
        problem = counts_sentence(refusals_of(answers))
    mind = mind_of(service, deployments, tasks, now=context.clock.now(), no_host=problem)
    table = _table(context, demand, answers, max_hosts)
    for host in table["hosts"]:
        host["drawbacks"] += _failures_on(host["id"], deployments)
    return {
        "kind": "service",
        "name": service.name,
        "cluster": service.cluster,
        "sentence": mind.sentence,
        "service": _mind_view(service, mind),
        **table,
    }


def _failures_on(host: str, deployments: Sequence[DeploymentRecord]) -> list[str]:
    """Why the PRIMARY deployment would rather use other hosts: its tasks have failed on this one."""
    failed = deployments[0].host_failures.get(host, 0) if deployments else 0
    if not failed:
        return []
    count = "1 task" if failed == 1 else f"{failed} tasks"
    why = deployments[0].hopeless.get(host, "")
    return [f"It comes last, since {count} of this deployment failed there{f': {why}' if why else '.'}"]


def _mind_view(service: ServiceRecord, mind: Mind) -> Document:
    return {
        "status": service.status,
        "desiredCount": mind.desired,
        "runningCount": mind.running,
        "healthyCount": mind.healthy,
        "causes": list(mind.causes),
    }


# ---------------------------------------------------------------- task definitions and tasks


def _demand_of_definition(context: Context, definition: TaskDefinitionRecord, cluster: str, group: str = "") -> Demand:
    """Return what a task of a definition asks for, without what a request may add. Raises ApiError if it can't run."""
    launch = Launch(
        operation="",
        cluster=cluster,
        definition=definition,
        launch_type="EC2",
        group=group or f"family:{definition.family}",
    )
    return demand_of(definition.document, Launcher(context, launch).resources, group=launch.group)


def _of_definition(context: Context, definition: TaskDefinitionRecord, cluster: str, max_hosts: int) -> Document:
    name, demand, problem = definition.name, None, ""
    try:
        demand = _demand_of_definition(context, definition, cluster)
    except ApiError as error:
        problem = error.message
    answers = [] if demand is None else answers_of(candidates_of(context.state, cluster), demand)
    if definition.status != "ACTIVE":
        sentence = f"{name} is {definition.status}: no task of it is started."
    elif problem:
        sentence = f"{name} can't run anywhere: {problem}"
    else:
        sentence = _how_many(answers, f"one more task of {name}")
    return {
        "kind": "task-definition",
        "name": name,
        "cluster": cluster,
        "sentence": sentence,
        **_table(context, demand, answers, max_hosts),
    }


async def _of_task(context: Context, task: TaskRecord, max_hosts: int) -> Document:
    # What is told at this moment may not be durable yet, and the journal reads only what is.
    await context.state.durable()
    lines = await context.state.journal.story(task.id)
    demand = _demand_of_task(context, task)
    answers = answers_of(candidates_of(context.state, task.cluster), demand)
    last = lines[-1].message if lines else ""
    return {
        "kind": "task",
        "name": task.id,
        "cluster": task.cluster,
        "sentence": f"{_how_task_is(context, task, last)} {_how_many(answers, 'one more like it')}",
        "task": task_view(context, task, archived=context.state.tasks.get(task.id) is None),
        "lines": [story_line_view(line) for line in lines[-_LINES:]],
        **_table(context, demand, answers, max_hosts),
    }


def _demand_of_task(context: Context, task: TaskRecord) -> Demand:
    """What a task like this one asks for, as far as it is kept: of RunTask itself only if it has an order."""
    definition = context.state.task_definitions.get(f"{task.spec.family}:{task.spec.revision}")
    document = {} if definition is None else definition.document
    asked = task.order or TaskOrder()
    demand = demand_of(
        document,
        Resources.of_task(task.spec),
        group=task.group,
        constraints=asked.constraints,
        strategy=asked.strategy,
    )
    if task.group.startswith(SERVICE_GROUP):
        service = context.state.services.get(f"{task.cluster}/{task.group.removeprefix(SERVICE_GROUP)}")
        try:
            order = None if service is None else order_of(context, service, task.started_by)
        except ApiError:
            order = None
        if order is not None:
            demand = replace(order.demand, resources=demand.resources)
    extra = provider_constraints(context.state, task.capacity_provider)
    return replace(demand, constraints=(*demand.constraints, *extra))


def _how_task_is(context: Context, task: TaskRecord, last: str) -> str:
    instance = None if task.instance_id is None else context.state.instances.get(task.instance_id)
    host = f" on {instance.facts.hostname}" if instance is not None else ""
    what = f"Task {task.id[:12]} of {task.spec.family}:{task.spec.revision}"
    if task.status is TaskStatus.STOPPED:
        code = f" ({task.stop_code.value})" if task.stop_code is not None else ""
        return f"{what} is STOPPED{host}{code}: {task.stopped_reason or 'no reason was given'}."
    if task.status is TaskStatus.RUNNING:
        return f"{what} is RUNNING{host}."
    age_s = context.clock.now() - task.created_at
    return f"{what} is {task.status.name}{host}, {age_s:.0f} s after it was asked for{f': {last}' if last else ''}."


# ---------------------------------------------------------------- the table of hosts


def _table(context: Context, demand: Demand | None, answers: Sequence[HostAnswer], max_hosts: int) -> Document:
    reasons = refusals_of(answers).by_reason()
    return {
        "asks": None if demand is None else _asks(demand),
        "considered": len(answers),
        "wouldTake": sum(answer.fits for answer in answers),
        "reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        "hosts": [] if demand is None else [_host_view(context, each, demand) for each in answers[:max_hosts]],
    }


def _asks(demand: Demand) -> Document:
    return {
        "cpuUnits": demand.resources.cpu_units,
        "memoryMiB": demand.resources.memory_mib,
        "gpus": demand.resources.gpus,
        "ports": [f"{port}/{protocol}" for protocol, port in sorted(demand.resources.ports)],
        "attributes": dict(demand.attributes),
        "constraints": [_constraint(constraint) for constraint in demand.constraints],
        "strategy": [f"{s.type} {s.field}".strip() for s in demand.strategy],
        "group": demand.group,
    }


def _constraint(constraint: Constraint) -> str:
    if constraint.provider:
        return f"capacity provider {constraint.provider} ({constraint.expression})"
    return f"{constraint.type}({constraint.expression})" if constraint.expression else constraint.type


def _host_view(context: Context, answer: HostAnswer, demand: Demand) -> dict[str, Any]:
    candidate = answer.candidate
    in_use = any(obstacle.reason == PORTS for obstacle in answer.obstacles)
    total, held = candidate.instance.facts.resources, candidate.load
    return {
        "id": candidate.id,
        "hostname": candidate.instance.facts.hostname,
        "wouldTake": answer.fits,
        "tasksOfGroup": candidate.tasks_of(demand.group),
        "cpuUnitsLeft": max(total.cpu_units - held.cpu_units, 0),
        "memoryMiBLeft": max(total.memory_mib - held.memory_mib, 0),
        "obstacles": [
            {"reason": obstacle.reason, "detail": obstacle.detail, "change": obstacle.change}
            for obstacle in answer.obstacles
        ],
        "portsHeldBy": _port_holders(context, candidate, demand) if in_use else [],
        "drawbacks": [
            f"It comes last, since its memory runs short: {condition.reason}."
            for condition in (candidate.presence.impaired if candidate.presence else ())
            if condition.type == MEMORY_CONDITION
        ],
    }


def _port_holders(context: Context, candidate: Candidate, demand: Demand) -> list[Document]:
    """Which tasks of a host hold the ports that are asked for."""
    return [
        {"port": f"{port}/{protocol}", "task": task.id, "group": task.group}
        for phase in ("pending", "running")
        for task in context.state.tasks.where("instance_phase", (candidate.id, phase))
        for protocol, port in sorted(task.resources.ports & demand.resources.ports)
    ]


def _how_many(answers: Sequence[HostAnswer], what: str) -> str:
    """Say how many hosts would take it, and why the others wouldn't."""
    fitting = sum(answer.fits for answer in answers)
    if not answers:
        return f"No host would take {what}: the cluster has none."
    if fitting == len(answers):
        return f"{'The host' if fitting == 1 else f'All {fitting} hosts'} would take {what}."
    some = f"{fitting} of {len(answers)} hosts" if fitting else "No host"
    return f"{some} would take {what}. {counts_sentence(refusals_of(answers))}"
