"""Finding a task by what people type: the beginning of its id, its whole id, or its ARN; in all clusters.

Stopped tasks that have left memory are found in the history, as long as it keeps them. Likewise a service.
"""

from itertools import takewhile
from typing import Final

from controlplane.api.ecs.lookup import find_cluster, local_path
from controlplane.api.errors import ApiError, InvalidParameterException, ServiceNotFoundException
from controlplane.context import Context
from controlplane.state.records import TaskRecord
from controlplane.state.service_records import ServiceRecord

__all__ = ["MAX_MATCHES", "find_service_anywhere", "matching_tasks", "only", "task_prefix"]

#: How many tasks one prefix may stand for; more help nobody.
MAX_MATCHES: Final = 100
_HEX: Final = frozenset("0123456789abcdef")


def task_prefix(context: Context, reference: str) -> str:
    """Return the (beginning of an) id that a reference gives. Raises InvalidParameterException if it can't be one."""
    name = reference
    if reference.startswith("arn:"):
        path = local_path(context, reference, "task")
        if path is None:
            raise InvalidParameterException(f"{reference} is not the ARN of a task in this account and region.")
        name = path.rsplit("/", 1)[-1]
    if not name or len(name) > 32 or not _HEX.issuperset(name):
        raise InvalidParameterException(
            f"'{reference:.100}' can't name a task: expected an id of 32 hex digits, the beginning of one, or an ARN."
        )
    return name


async def matching_tasks(context: Context, reference: str) -> list[tuple[TaskRecord, bool]]:
    """Return the tasks a reference may mean, by id, MAX_MATCHES at most, each with whether it is archived.

    Raises InvalidParameterException if the reference can't name a task.
    """
    prefix = task_prefix(context, reference)
    live = {task.id: (task, False) for task in _live(context, prefix)}
    archived = await context.state.journal.archived_tasks(prefix, limit=MAX_MATCHES)
    found = {**{task.id: (task, True) for task in archived}, **live}
    return [found[task_id] for task_id in sorted(found)][:MAX_MATCHES]


def only(found: list[TaskRecord], reference: str) -> TaskRecord:
    """Return the only task found.

    Raises ApiError TaskNotFoundException if there is none, InvalidParameterException if it could be several.
    """
    if not found:
        raise ApiError(f"No task was found that '{reference}' could mean.", code="TaskNotFoundException")
    if len(found) > 1:
        some = ", ".join(task.id for task in found[:5])
        raise InvalidParameterException(f"'{reference}' could mean several tasks: {some}. Give more of the id.")
    return found[0]


def find_service_anywhere(context: Context, reference: str, cluster: str | None) -> ServiceRecord:
    """Return the one service that a name, `CLUSTER/NAME` or ARN means; without a cluster one of any.

    Raises ClusterNotFoundException, ServiceNotFoundException, and InvalidParameterException if it could be several.
    """
    state = context.state
    path = local_path(context, reference, "service") if reference.startswith("arn:") else reference
    if path is None:
        raise ServiceNotFoundException(f"There is no service {reference:.300} in this account and region.")
    named_cluster, _, name = path.rpartition("/")
    where = find_cluster(context, cluster).name if cluster is not None else named_cluster
    if where:
        found = [] if named_cluster not in (where, "") else [state.services.get(f"{where}/{name}")]
    else:
        found = [state.services.get(f"{each.name}/{name}") for each in state.clusters]
    services = [service for service in found if service is not None]
    if len(services) > 1:
        # A deleted one isn't meant where there is another.
        services = [service for service in services if service.status != "INACTIVE"] or services
    if not services:
        place = f" in the cluster {where}" if where else ""
        raise ServiceNotFoundException(f"There is no service {name:.300}{place}.")
    if len(services) > 1:
        some = ", ".join(service.key for service in services[:5])
        raise InvalidParameterException(f"'{reference:.300}' could mean several services: {some}. Name the cluster.")
    return services[0]


def _live(context: Context, prefix: str) -> list[TaskRecord]:
    exact = context.state.tasks.get(prefix)
    if exact is not None:
        return [exact]
    behind = context.state.tasks.page(None, None, after=prefix)
    found = []
    for task in takewhile(lambda task: task.id.startswith(prefix), behind):
        found.append(task)
        if len(found) == MAX_MATCHES:
            break
    return found
