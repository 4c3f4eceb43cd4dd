"""Tasks: RunTask, StartTask, StopTask, DescribeTasks, ListTasks.

A task is put in one transaction with its host and its story; the agent's session sees the commit and sends it on. From
there the agent owns its status (`homeport.status`); the API only ever raises `desired` to STOPPED.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from msgspec.structs import replace

from controlplane.api import pagination
from controlplane.api.arguments import fingerprint
from controlplane.api.ecs.capacity import providers_of, shares_of
from controlplane.api.ecs.capacity_providers import provider_constraints
from controlplane.api.ecs.exclusive import Admission
from controlplane.api.ecs.launch import Launch, Launcher
from controlplane.api.ecs.launch_request import check_launch
from controlplane.api.ecs.lookup import find_cluster
from controlplane.api.ecs.placement import demand_of, failures_of
from controlplane.api.ecs.residents import check_references, find_instance, find_task, instance_arn, task_arn
from controlplane.api.ecs.service_lookup import require_service
from controlplane.api.ecs.views import failure, task_view
from controlplane.api.errors import ConflictException, InvalidParameterException
from controlplane.api.registry import CALLER, Document, operation
from controlplane.context import Context
from controlplane.scheduling.model import Demand, Refusal
from controlplane.standalone.stops import asked_to_stop
from controlplane.state.records import ClusterRecord, IdempotencyRecord, TaskRecord
from homeport.ids import TaskId
from homeport.reasons import STOPPED_BY_USER, trim
from homeport.status import Actor, DesiredStatus, StopCode
from homeport.story import StoryLine

__all__ = ["NO_INSTANCES", "TOKEN_LIFETIME_S", "start_tasks"]

#: How long a clientToken is remembered, as in ECS.
TOKEN_LIFETIME_S: Final = 24 * 3600
_MAX_COUNT: Final = 10
_MAX_INSTANCES: Final = 10
_MAX_DESCRIBED: Final = 100

NO_INSTANCES: Final = "No Container Instances were found in your cluster."
_TASK_NOT_FOUND: Final = "The referenced task was not found."


@operation("ecs", "RunTask")
def run_task(context: Context, request: Document) -> Any:
    """Place up to 10 tasks. What can't be placed is in `failures`, host by host, with the reason."""
    cluster = find_cluster(context, request.get("cluster"))
    token = request.get("clientToken") or ""
    _check_token(token)
    if token and (known := _known(context, cluster.name, token)) is not None:
        return _repeat(context, known, fingerprint(request))
    with context.state.transaction() as transaction:
        tasks, failures = start_tasks(context, request, cluster)
        if token and tasks:
            transaction.put(
                IdempotencyRecord(
                    operation="RunTask",
                    scope=cluster.name,
                    token=token,
                    fingerprint=fingerprint(request),
                    at=context.clock.now(),
                    result=tuple(task.id for task in tasks),
                    failures=tuple(failures),
                )
            )
    return {"tasks": [task_view(context, task, tags=True) for task in tasks], "failures": failures}


def start_tasks(
    context: Context, request: Document, cluster: ClusterRecord, *, by: str = "RunTask"
) -> tuple[list[TaskRecord], list[dict[str, str]]]:
    """Start the tasks that a RunTask request, checked against its model, asks for. `by`: who asks, for the stories.

    Returns them, and ECS's `failures` of those that couldn't be placed. Raises ApiError, with NO_INSTANCES if the
    cluster has no host.
    """
    launch = check_launch(context, request, cluster, "RunTask")
    if by != launch.operation:
        launch = replace(launch, operation=by)
    count = request.get("count", 1)
    if not 1 <= count <= _MAX_COUNT:
        raise InvalidParameterException(f"count must be between 1 and {_MAX_COUNT}, but was {count}.")
    if launch.order is not None and launch.order.exclusive:
        return _run_in_turn(context, launch, request, count)
    tasks, refusals = _run(context, launch, request, count)
    return tasks, failures_of(context, cluster.name, refusals)


def _run(context: Context, launch: Launch, request: Document, count: int) -> tuple[list[TaskRecord], Sequence[Refusal]]:
    """Choose hosts and put the tasks there. Return them, and if they are fewer than asked for, the hosts' refusals."""
    launcher = Launcher(context, launch)
    demand = demand_of(
        launch.definition.document,
        launcher.resources,
        group=launch.group,
        constraints=request.get("placementConstraints") or (),
        strategy=request.get("placementStrategy") or (),
    )
    tasks: list[TaskRecord] = []
    refusals: list[Refusal] = []
    # Each provider's share goes to its own hosts; a share sees what the one before has taken.
    for provider, share in shares_of(launch.capacity_strategy, count).items():
        outcomes = _place_share(context, launch.cluster, launcher, demand, provider, share)
        tasks += [outcome for outcome in outcomes if not isinstance(outcome, Refusal)]
        refusals += [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    return tasks, refusals


def _place_share(
    context: Context, cluster: str, launcher: Launcher, demand: Demand, provider: str, count: int
) -> list[TaskRecord | Refusal]:
    """Put tasks on the hosts of a capacity provider ("" for any host)."""
    if extra := provider_constraints(context.state, provider):
        demand = replace(demand, constraints=(*demand.constraints, *extra))
    placement = context.rankings.place(context.state, cluster, demand, count, context.random)
    if not placement.considered:
        raise InvalidParameterException(NO_INSTANCES)
    strategy = ", ".join(f"{s.type} {s.field}".strip() for s in demand.strategy)
    why = f"chosen by {strategy} among {placement.considered} hosts"
    outcomes: list[TaskRecord | Refusal] = []
    with context.state.transaction() as transaction:
        for instance_id in placement.chosen:
            instance = context.state.instances.get(instance_id)
            assert instance is not None, "it was a candidate in this same turn"
            outcomes.append(launcher.put_on(transaction, demand, instance, why=why, capacity_provider=provider))
    return [*outcomes, *placement.refusals]


def _run_in_turn(
    context: Context, launch: Launch, request: Document, count: int
) -> tuple[list[TaskRecord], list[dict[str, str]]]:
    """Run the tasks of an exclusive group: the first at once if the group is free, the others one after another.

    A group that is free and a cluster where there is no room is a failure, as for any other task.
    """
    providers = providers_of(launch.capacity_strategy, count)
    admission = Admission(context, launch)
    tasks: list[TaskRecord] = []
    for provider in providers:
        outcome = admission.ask(provider)
        if isinstance(outcome, TaskRecord):
            tasks.append(outcome)
        elif outcome is not None:
            return tasks, [outcome]
        else:
            placed, refusals = _run(context, launch, request, 1)
            if not placed:
                return tasks, failures_of(context, launch.cluster, refusals)
            tasks += placed
    return tasks, []


@operation("ecs", "StartTask")
def start_task(context: Context, request: Document) -> Document:
    """Start one task on each of up to 10 named hosts. Placement constraints don't apply: the caller has chosen."""
    cluster = find_cluster(context, request.get("cluster"))
    references = check_references(request["containerInstances"], what="Container instance", maximum=_MAX_INSTANCES)
    launch = check_launch(context, request, cluster, "StartTask")
    admission = Admission(context, launch)
    tasks, failures = [], []
    with context.state.transaction() as transaction:
        for reference in references:
            instance = find_instance(context, cluster.name, reference)
            if instance is None:
                failures.append(failure(instance_arn(context, cluster.name, reference), "MISSING"))
                continue
            held = admission.ask(instance=instance.id)
            if held is not None:
                tasks.append(held) if isinstance(held, TaskRecord) else failures.append(held)
                continue
            named = replace(launch, order=launch.order and replace(launch.order, instance_id=instance.id))
            launcher = Launcher(context, named)
            demand = demand_of(launch.definition.document, launcher.resources, group=launch.group)
            outcome = launcher.put_on(transaction, demand, instance, why="the caller named this host")
            if isinstance(outcome, Refusal):
                failures += failures_of(context, cluster.name, [outcome])
            else:
                tasks.append(outcome)
    return {"tasks": [task_view(context, task, tags=True) for task in tasks], "failures": failures}


# ---------------------------------------------------------------- idempotency


def _check_token(token: str) -> None:
    if len(token) > 64 or not all("!" <= character <= "~" for character in token):
        raise InvalidParameterException("clientToken can have up to 64 characters in the ASCII range 33 to 126.")


def _known(context: Context, cluster: str, token: str) -> IdempotencyRecord | None:
    known = context.state.idempotency.get(f"RunTask/{cluster}/{token}")
    if known is None or context.clock.now() - known.at >= TOKEN_LIFETIME_S:
        return None
    return known


async def _repeat(context: Context, known: IdempotencyRecord, asked: str) -> Document:
    """Answer a request as the first time: the same tasks, as they are now."""
    if known.fingerprint != asked:
        arns = [context.arns.task(known.scope, task_id) for task_id in known.result]
        raise ConflictException(
            "The provided clientToken is already in use with a different RunTask request, which started"
            f" {', '.join(arns)}.",
            arns,
        )
    tasks = []
    for task_id in known.result:
        task = context.state.tasks.get(task_id)
        if task is None:
            task = await context.state.journal.archived_task(TaskId(task_id))
        if task is not None:
            tasks.append(task_view(context, task, tags=True))
    return {"tasks": tasks, "failures": list(known.failures)}


# ---------------------------------------------------------------- stopping


@operation("ecs", "StopTask")
def stop_task(context: Context, request: Document) -> Document:
    """Ask for a task to be stopped. One that is on its way to STOPPED, or there, is returned as it is."""
    cluster = find_cluster(context, request.get("cluster"))
    task = find_task(context, cluster.name, request["task"])
    if task is None:
        raise InvalidParameterException(_TASK_NOT_FOUND)
    if task.desired is not DesiredStatus.STOPPED:
        task = _stop(context, task, request.get("reason") or STOPPED_BY_USER)
    return {"task": task_view(context, task, tags=True)}


def _stop(context: Context, task: TaskRecord, reason: str) -> TaskRecord:
    now = context.clock.now()
    stopping = asked_to_stop(task, reason, StopCode.USER_INITIATED, now)
    caller = f" by {CALLER.get()}" if CALLER.get() else ""
    line = StoryLine(at=now, event="stop-requested", message=f"StopTask{caller}: {trim(reason)}", actor=Actor.API.value)
    with context.state.transaction() as transaction:
        transaction.put(stopping)
        transaction.tell(task.id, line)
    return stopping


# ---------------------------------------------------------------- looking


@operation("ecs", "DescribeTasks")
def describe_tasks(context: Context, request: Document) -> Document:
    """Describe up to 100 tasks. STOPPED ones are there for about an hour, as in ECS; then they are MISSING."""
    cluster = find_cluster(context, request.get("cluster"))
    tags = "TAGS" in request.get("include", ())
    tasks, failures = [], []
    for reference in check_references(request["tasks"], what="Tasks", maximum=_MAX_DESCRIBED):
        task = find_task(context, cluster.name, reference)
        if task is None:
            failures.append(failure(task_arn(context, cluster.name, reference), "MISSING"))
        else:
            tasks.append(task_view(context, task, tags=tags))
    return {"tasks": tasks, "failures": failures}


@operation("ecs", "ListTasks")
def list_tasks(context: Context, request: Document) -> Document:
    """List the ARNs of a cluster's tasks. Without desiredStatus those that should be running."""
    cluster = find_cluster(context, request.get("cluster")).name
    desired = DesiredStatus[request.get("desiredStatus") or "RUNNING"]
    instance = None
    if reference := request.get("containerInstance"):
        instance = find_instance(context, cluster, reference)
        if instance is None:
            raise InvalidParameterException("The referenced container instance was not found.")
    group = require_service(context, cluster, request["serviceName"]).group if request.get("serviceName") else ""
    tests: dict[str, Callable[[TaskRecord], bool]] = {
        "desiredStatus": lambda task: task.cluster == cluster and task.desired is desired,
        "containerInstance": lambda task: instance is not None and task.instance_id == instance.id,
        "serviceName": lambda task: task.group == group,
        "startedBy": lambda task: task.started_by == request["startedBy"],
        "daemonName": lambda _: False,  # no daemon starts tasks here
        "family": lambda task: task.spec.family == request["family"],
        "launchType": lambda task: task.launch_type == request["launchType"],
    }
    wanted = [test for member, test in tests.items() if member == "desiredStatus" or request.get(member)]
    records = _narrowest(context, cluster, desired, request, None if instance is None else instance.id, group)
    page = pagination.take(
        (task for task in records if all(test(task) for test in wanted)), request, key=lambda task: task.key
    )
    return {"taskArns": [task.spec.task_arn for task in page.items], **page.more}


def _narrowest(
    context: Context, cluster: str, desired: DesiredStatus, request: Document, instance_id: str | None, group: str
) -> Iterator[TaskRecord]:
    """Read the page's records from the index that has the fewest to offer."""
    indexes: dict[str, Any] = {"cluster_desired": (cluster, desired)}
    if instance_id is not None:
        indexes["instance"] = instance_id
    if group:
        indexes["cluster_group"] = (cluster, group)
    if request.get("startedBy"):
        indexes["cluster_started_by"] = (cluster, request["startedBy"])
    if request.get("family"):
        indexes["cluster_family"] = (cluster, request["family"])
    table = context.state.tasks
    index = min(indexes, key=lambda name: table.count(name, indexes[name]))
    return table.page(index, indexes[index], after=pagination.after(request))
