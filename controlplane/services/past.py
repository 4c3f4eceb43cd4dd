"""What is left of services that may be forgotten: deleted ones after a day, and deployments that are long over."""

from collections.abc import Iterator
from typing import Final

from controlplane.state.records import Record
from controlplane.state.service_records import ServiceRecord
from controlplane.state.state import State

__all__ = ["MAX_DEPLOYMENTS", "outlived", "uses_definition"]

_DAY_S: Final = 86_400.0
#: ECS shows the service deployments of the last 90 days; of these, the latest so many are kept here.
MAX_DEPLOYMENTS: Final = 100
_DEPLOYMENT_S: Final = 90 * _DAY_S


def outlived(state: State, service: ServiceRecord, now: float) -> Iterator[Record]:
    """Yield the records that are to go: the service and all that is its, or its oldest deployments."""
    if service.status == "INACTIVE" and service.deleted_at is not None and now - service.deleted_at >= _DAY_S:
        yield service
        yield from state.deployments.where("service", service.id)
        yield from state.revisions.where("service", service.id)
        yield from state.events.where("service", service.id)
        yield from state.task_sets.where("service", service.id)
        return
    over = sorted(
        (d for d in state.deployments.where("service", service.id) if d.id not in service.deployments),
        key=lambda deployment: deployment.created_at,
        reverse=True,
    )
    gone = {
        deployment.id
        for position, deployment in enumerate(over)
        if position >= MAX_DEPLOYMENTS or now - deployment.created_at >= _DEPLOYMENT_S
    }
    if not gone:
        return
    yield from (deployment for deployment in over if deployment.id in gone)
    kept = [d for d in state.deployments.where("service", service.id) if d.id not in gone]
    needed = {service.stable_revision, *(r for d in kept for r in (d.revision, *d.source_revisions))}
    yield from (revision for revision in state.revisions.where("service", service.id) if revision.id not in needed)


def uses_definition(state: State, name: str) -> bool:
    """Tell whether a service that isn't gone may still start tasks of a task definition (`family:revision`)."""
    for service in state.services:
        if service.status == "INACTIVE":
            continue
        revisions = {d.revision for d in map(state.deployments.get, service.deployments) if d is not None}
        for revision in {*revisions, service.stable_revision}:
            record = state.revisions.get(revision)
            if record is not None and record.task_definition == name:
                return True
        if any(task_set.task_definition == name for task_set in state.task_sets.where("service", service.id)):
            return True
    return False
