"""Services of every kind for the fuzz test, and for each of their operations a request that is served."""

from typing import Any

from msgspec.structs import replace

from controlplane.state.service_records import HookState
from tests.contract.server import ApiServer
from tests.contract.service_calls import put_records, put_task

__all__ = ["right_service_requests"]


def right_service_requests(server: ApiServer, ecs: Any) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Make the services, and return the requests by operation, and names that there are."""
    plain: dict[str, Any] = {"taskDefinition": "web:1", "desiredCount": 1}
    for name in ("kept", "stopped", "paused", "doomed"):
        ecs.create_service(serviceName=name, **plain)
    ecs.create_service(serviceName="driven", deploymentController={"type": "EXTERNAL"})
    [kept] = ecs.describe_services(services=["kept"])["services"]
    stopped, paused = _pause(server, "stopped"), _pause(server, "paused")
    task = put_task(server, kept["deployments"][0]["id"], service="kept").spec.task_arn
    sets = [ecs.create_task_set(service="driven", cluster="default", taskDefinition="web:1")["taskSet"] for _ in "ab"]
    ecs.create_capacity_provider(name="rack", autoScalingGroupProvider={"autoScalingGroupArn": "arn:x"})
    ecs.create_capacity_provider(name="gone", autoScalingGroupProvider={"autoScalingGroupArn": "arn:x"})
    in_driven = {"cluster": "default", "service": "driven"}
    revision = kept["currentServiceRevisions"][0]["arn"]
    right: dict[str, dict[str, Any]] = {
        "CreateService": {"serviceName": "made", **plain},
        "UpdateService": {"service": "kept", "desiredCount": 2},
        "DeleteService": {"service": "doomed", "force": True},
        "DescribeServices": {"services": ["kept", "driven", "doomed"], "include": ["TAGS"]},
        "ListServicesByNamespace": {"namespace": "ns"},
        "ListServiceDeployments": {"service": "kept"},
        "DescribeServiceDeployments": {"serviceDeploymentArns": [paused, kept["currentServiceDeployment"]]},
        "DescribeServiceRevisions": {"serviceRevisionArns": [revision]},
        "StopServiceDeployment": {"serviceDeploymentArn": stopped, "stopType": "ABORT"},
        "ContinueServiceDeployment": {"serviceDeploymentArn": paused, "hookId": "hook"},
        "GetTaskProtection": {"cluster": "default", "tasks": [task]},
        "UpdateTaskProtection": {"cluster": "default", "tasks": [task], "protectionEnabled": True},
        "CreateTaskSet": {**in_driven, "taskDefinition": "web:1", "scale": {"value": 50.0, "unit": "PERCENT"}},
        "UpdateTaskSet": {**in_driven, "taskSet": sets[0]["id"], "scale": {"value": 10.0, "unit": "PERCENT"}},
        "UpdateServicePrimaryTaskSet": {**in_driven, "primaryTaskSet": sets[0]["taskSetArn"]},
        "DescribeTaskSets": in_driven,
        "DeleteTaskSet": {**in_driven, "taskSet": sets[1]["id"], "force": True},
        "CreateCapacityProvider": {"name": "new", "autoScalingGroupProvider": {"autoScalingGroupArn": "arn:x"}},
        "UpdateCapacityProvider": {"name": "rack", "autoScalingGroupProvider": {"managedDraining": "ENABLED"}},
        "DeleteCapacityProvider": {"capacityProvider": "gone"},
    }
    return right, ["kept", kept["serviceArn"], sets[0]["taskSetArn"], revision, paused, "hook", task]


def _pause(server: ApiServer, name: str) -> str:
    """Let a service's deployment wait at a hook, and return the ARN of its service deployment."""
    state, arns = server.context.state, server.context.arns
    service = state.services.get(f"default/{name}")
    assert service is not None
    deployment = state.deployments.get(service.deployments[0])
    assert deployment is not None
    put_records(server, replace(deployment, hooks=(HookState(id="hook", stage="POST_SCALE_UP"),)))
    return arns.service_deployment("default", name, deployment.arn_id)
