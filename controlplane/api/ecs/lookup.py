"""Finding what a request refers to: clusters by name or ARN, task definitions by family, `family:revision` or ARN.

An ARN of another account or region names something that isn't here: it is not found, never taken for a namesake.
"""

from typing import Final

from controlplane.api.errors import ClientException, ClusterNotFoundException
from controlplane.context import Context
from controlplane.state.records import ClusterRecord, TaskDefinitionRecord
from homeport.arn import parse_arn
from homeport.errors import InvalidArn

__all__ = ["DEFAULT_CLUSTER", "active_definition", "cluster_name", "find_cluster", "find_task_definition", "local_path"]

#: The cluster that is meant when a request names none.
DEFAULT_CLUSTER: Final = "default"


def local_path(context: Context, reference: str, resource_type: str) -> str | None:
    """Return what follows `type/` of an ECS ARN of this account and region; None for any other ARN or no ARN at all."""
    try:
        arn = parse_arn(reference, expected_type=resource_type)
    except InvalidArn:
        return None
    if (arn.service, arn.region, arn.account) != ("ecs", context.arns.region, context.arns.account):
        return None
    return arn.path


def cluster_name(context: Context, reference: str | None) -> str | None:
    """Return the name a cluster reference means, whether or not there is such a cluster; None for a foreign ARN."""
    if not reference:
        return DEFAULT_CLUSTER
    if reference.startswith("arn:"):
        return local_path(context, reference, "cluster")
    return reference


def find_cluster(context: Context, reference: str | None) -> ClusterRecord:
    """Return the ACTIVE cluster a request names by name or ARN; without a reference the default one.

    Raises ClusterNotFoundException if there is none, or it is INACTIVE.
    """
    name = cluster_name(context, reference)
    record = None if name is None else context.state.clusters.get(name)
    if record is None:
        raise ClusterNotFoundException
    if record.status == "INACTIVE":
        raise ClusterNotFoundException("The referenced cluster was inactive.")
    return record


def find_task_definition(context: Context, reference: str) -> TaskDefinitionRecord | None:
    """Return the task definition named by family (its newest ACTIVE revision), `family:revision` or ARN.

    A named revision is returned whatever its status; the caller decides what INACTIVE means to it. None: there is none.
    """
    name = local_path(context, reference, "task-definition") if reference.startswith("arn:") else reference
    if name is None:
        return None
    if ":" in name:
        return context.state.task_definitions.get(name)
    return _newest_active(context, name)


def active_definition(context: Context, reference: str) -> TaskDefinitionRecord:
    """Return the task definition as `find_task_definition` does. Raises ClientException unless it is there, ACTIVE."""
    definition = find_task_definition(context, reference)
    if definition is None:
        raise ClientException("TaskDefinition not found.")
    if definition.status != "ACTIVE":
        raise ClientException("TaskDefinition is inactive")
    return definition


def _newest_active(context: Context, family: str) -> TaskDefinitionRecord | None:
    """Walk down from the last revision: nearly always the first look succeeds."""
    last = context.state.families.get(family)
    for revision in range(last.last_revision if last else 0, 0, -1):
        record = context.state.task_definitions.get(f"{family}:{revision}")
        if record is not None and record.status == "ACTIVE":
            return record
    return None
