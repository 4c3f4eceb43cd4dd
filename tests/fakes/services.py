"""Services, deployments and revisions for tests: whatever a test doesn't say is harmless."""

from typing import Any

from controlplane.context import Context
from controlplane.services.look import look_at
from controlplane.services.model import Blocked, Snapshot
from controlplane.state.records import ClusterRecord
from controlplane.state.service_records import DeploymentRecord, RevisionRecord, ServiceRecord
from tests.fakes.records import a_definition, put

__all__ = ["DEPLOYMENT", "a_deployment", "a_revision", "a_service", "look", "put_service"]

DEPLOYMENT = "ecs-svc/1000000000000000001"


def a_service(**members: Any) -> ServiceRecord:
    defaults: dict[str, Any] = {
        "id": "5" * 32,
        "cluster": "default",
        "name": "web",
        "created_at": 1.0,
        "desired_count": 1,
        "deployment_configuration": {"minimumHealthyPercent": 100, "maximumPercent": 200},
        "deployments": (DEPLOYMENT,),
    }
    return ServiceRecord(**{**defaults, **members})


def a_revision(**members: Any) -> RevisionRecord:
    defaults: dict[str, Any] = {
        "id": "1" * 19,
        "service_id": "5" * 32,
        "service": "default/web",
        "created_at": 1.0,
        "task_definition": "web:1",
    }
    return RevisionRecord(**{**defaults, **members})


def a_deployment(**members: Any) -> DeploymentRecord:
    defaults: dict[str, Any] = {
        "id": DEPLOYMENT,
        "arn_id": "a" * 32,
        "service_id": "5" * 32,
        "service": "default/web",
        "revision": "1" * 19,
        "created_at": 1.0,
        "updated_at": 1.0,
    }
    return DeploymentRecord(**{**defaults, **members})


def put_service(context: Context, *containers: dict[str, Any], **members: Any) -> ServiceRecord:
    """Put a service of one deployment, its revision and definition; `containers`: of the definition."""
    service = a_service(**members)
    cluster = ClusterRecord(name="default", created_at=1.0)
    put(
        context,
        cluster,
        a_definition(*containers),
        a_revision(),
        a_deployment(progressed_at=context.clock.now()),
        service,
    )
    return service


def look(context: Context, service: ServiceRecord, *, blocked: Blocked | None = None) -> Snapshot:
    """Look at the service as it is now."""
    known = context.state.services.get(service.key)
    assert known is not None
    return look_at(context, known, started_at=context.clock.monotonic(), blocked=blocked)
