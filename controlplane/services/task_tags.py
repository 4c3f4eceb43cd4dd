"""The tags of a service's tasks: those propagated to them when they start, and ECS's own."""

from collections.abc import Mapping

from controlplane.state.records import ClusterRecord, TaskDefinitionRecord
from controlplane.state.service_records import ServiceRecord

__all__ = ["task_tags"]


def task_tags(service: ServiceRecord, definition: TaskDefinitionRecord, cluster: ClusterRecord) -> dict[str, str]:
    """Return the tags of a task of the service that is started now.

    `propagateTags` says whose tags it takes over; `enableECSManagedTags` adds the names of its cluster and service.
    """
    sources: dict[str, Mapping[str, str]] = {"SERVICE": service.tags, "TASK_DEFINITION": definition.tags}
    inherited = sources.get(service.settings.get("propagateTags") or "NONE", {})
    managed: dict[str, str] = {}
    if service.settings.get("enableECSManagedTags"):
        managed = {"aws:ecs:clusterName": cluster.name, "aws:ecs:serviceName": service.name}
    return {**managed, **inherited}
