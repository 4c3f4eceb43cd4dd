"""Finding what lives in a cluster: tasks and container instances, by id or by ARN.

An ARN must name the cluster that the request means; another cluster's task is not found, as in ECS.
"""

from collections.abc import Iterable, Iterator

from controlplane.api.ecs.lookup import local_path
from controlplane.api.errors import InvalidParameterException
from controlplane.context import Context
from controlplane.state.records import InstanceRecord, TaskRecord

__all__ = ["check_references", "find_instance", "find_task", "instance_arn", "task_arn"]


def find_task(context: Context, cluster: str, reference: str) -> TaskRecord | None:
    """Return the cluster's task of that id or ARN; None if there is none (any more)."""
    name = _id(context, cluster, reference, "task")
    task = None if name is None else context.state.tasks.get(name)
    return task if task is not None and task.cluster == cluster else None


def find_instance(context: Context, cluster: str, reference: str) -> InstanceRecord | None:
    """Return the cluster's container instance of that id or ARN, INACTIVE ones included; None if there is none."""
    name = _id(context, cluster, reference, "container-instance")
    instance = None if name is None else context.state.instances.get(name)
    return instance if instance is not None and instance.cluster == cluster else None


def task_arn(context: Context, cluster: str, reference: str) -> str:
    """Return the ARN a failure shows for a task that was asked for."""
    return reference if reference.startswith("arn:") else context.arns.task(cluster, reference)


def instance_arn(context: Context, cluster: str, reference: str) -> str:
    """Return the ARN a failure shows for a container instance that was asked for."""
    return reference if reference.startswith("arn:") else context.arns.container_instance(cluster, reference)


def check_references(references: Iterable[str], *, what: str, maximum: int) -> Iterator[str]:
    """Yield the references, each once.

    Raises InvalidParameterException if there are none, too many, or an empty one.
    """
    wanted = dict.fromkeys(references)
    if not wanted:
        raise InvalidParameterException(f"{what} cannot be empty.")
    if len(wanted) > maximum:
        raise InvalidParameterException(f"{what} can have at most {maximum} items, but has {len(wanted)}.")
    if "" in wanted:
        raise InvalidParameterException(f"{what} must not contain an empty identifier.")
    return iter(wanted)


def _id(context: Context, cluster: str, reference: str, resource_type: str) -> str | None:
    if not reference.startswith("arn:"):
        return reference
    path = local_path(context, reference, resource_type) or ""
    named, _, name = path.rpartition("/")
    return name if named in (cluster, "") else None
