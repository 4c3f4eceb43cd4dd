"""Rules of the API, across its operations, that SDKs and tools rely on without looking."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest

from tests.contract.definitions import definition, register
from tests.contract.fleet import Fleet
from tests.contract.refusals import refused
from tests.contract.server import ApiServer

#: Operations of a cluster's contents -> a request that would be right in a cluster that there is.
IN_A_CLUSTER: Final[dict[str, dict[str, Any]]] = {
    "run_task": {"taskDefinition": "web"},
    "start_task": {"taskDefinition": "web", "containerInstances": ["x"]},
    "stop_task": {"task": "x"},
    "describe_tasks": {"tasks": ["x"]},
    "list_tasks": {},
    "describe_container_instances": {"containerInstances": ["x"]},
    "list_container_instances": {},
    "update_container_instances_state": {"containerInstances": ["x"], "status": "ACTIVE"},
    "deregister_container_instance": {"containerInstance": "x"},
    "put_attributes": {"attributes": [{"name": "a", "targetId": "x"}]},
    "delete_attributes": {"attributes": [{"name": "a", "targetId": "x"}]},
    "list_attributes": {"targetType": "container-instance"},
    "create_service": {"serviceName": "x", "taskDefinition": "web", "desiredCount": 1},
    "update_service": {"service": "x", "desiredCount": 1},
    "delete_service": {"service": "x"},
    "describe_services": {"services": ["x"]},
    "list_services": {},
}
#: Listing operation -> what it needs, and the most it gives in one page.
LISTS: Final[dict[str, tuple[dict[str, Any], int]]] = {
    "list_clusters": ({}, 100),
    "list_task_definitions": ({}, 100),
    "list_task_definition_families": ({}, 100),
    "list_tasks": ({}, 100),
    "list_container_instances": ({}, 100),
    "list_attributes": ({"targetType": "container-instance"}, 100),
    "list_account_settings": ({"effectiveSettings": True}, 10),
    "list_services": ({}, 100),
}


@pytest.fixture
def fleet(server: ApiServer) -> Fleet:
    return Fleet(server)


@pytest.fixture
def task(ecs: Any, fleet: Fleet) -> dict[str, Any]:
    """A task in the cluster `blue`."""
    ecs.create_cluster(clusterName="blue")
    fleet.add_host(cluster="blue")
    register(ecs)
    [task] = ecs.run_task(cluster="blue", taskDefinition="web", clientToken="")["tasks"]
    found: dict[str, Any] = task
    return found


@pytest.mark.parametrize("operation", IN_A_CLUSTER)
def test_an_operation_in_a_cluster_that_is_not_there_is_a_typed_error(
    ecs: Any, server: ApiServer, operation: str
) -> None:
    register(ecs)
    ecs.create_cluster(clusterName="gone")
    ecs.delete_cluster(cluster="gone")
    with server.unchanged():
        for cluster in ("nope", "gone", server.context.arns.cluster("nope")):
            code, _ = refused(getattr(ecs, operation), cluster=cluster, **IN_A_CLUSTER[operation])
            assert code == "ClusterNotFoundException"


@pytest.mark.parametrize("operation", LISTS)
def test_lists_take_1_to_their_most_and_only_their_own_tokens(ecs: Any, operation: str) -> None:
    arguments, most = LISTS[operation]
    call = getattr(ecs, operation)
    assert call(**arguments, maxResults=most)
    for size in (0, most + 1):
        assert refused(call, **arguments, maxResults=size)[0] == "InvalidParameterException"
    assert refused(call, **arguments, nextToken="not one")[0] == "InvalidParameterException"
    assert call(**arguments, nextToken=""), "an empty token is the first page"


def test_failures_are_always_there(ecs: Any, task: dict[str, Any]) -> None:
    host = task["containerInstanceArn"]
    ecs.create_service(cluster="blue", serviceName="web", taskDefinition="web", desiredCount=0)
    calls: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (ecs.run_task, {"cluster": "blue", "taskDefinition": "web"}),
        (ecs.start_task, {"cluster": "blue", "taskDefinition": "web", "containerInstances": [host]}),
        (ecs.describe_tasks, {"cluster": "blue", "tasks": [task["taskArn"]]}),
        (ecs.describe_clusters, {}),
        (ecs.describe_services, {"cluster": "blue", "services": ["web"]}),
        (ecs.describe_container_instances, {"cluster": "blue", "containerInstances": [host]}),
        (ecs.update_container_instances_state, {"cluster": "blue", "containerInstances": [host], "status": "ACTIVE"}),
    ]
    for call, arguments in calls:
        assert call(**arguments)["failures"] == []


def test_a_task_definition_and_a_cluster_may_be_named_in_every_way(ecs: Any, task: dict[str, Any]) -> None:
    definition_arn, cluster_arn = task["taskDefinitionArn"], task["clusterArn"]
    for reference in ("web", "web:1", definition_arn):
        for cluster in ("blue", cluster_arn):
            [started] = ecs.run_task(cluster=cluster, taskDefinition=reference)["tasks"]
            assert (started["taskDefinitionArn"], started["clusterArn"]) == (definition_arn, cluster_arn)
    for reference in (task["taskArn"], task["taskArn"].split("/")[-1]):
        assert ecs.describe_tasks(cluster=cluster_arn, tasks=[reference])["tasks"][0]["taskArn"] == task["taskArn"]


def test_an_empty_client_token_is_none(ecs: Any, task: dict[str, Any]) -> None:
    [other] = ecs.run_task(cluster="blue", taskDefinition="web", clientToken="")["tasks"]
    assert other["taskArn"] != task["taskArn"]


def test_times_are_epoch_numbers_and_numbers_in_text_are_text(server: ApiServer, task: dict[str, Any]) -> None:
    body = msgspec.json.encode({"cluster": "blue", "tasks": [task["taskArn"]]})
    answer = server.post("AmazonEC2ContainerServiceV20141113.DescribeTasks", body)
    [found] = answer.json["tasks"]
    assert found["createdAt"] == pytest.approx(server.clock.now(), abs=60)
    assert (type(found["cpu"]), type(found["memory"]), type(found["version"])) == (str, str, int)


def test_an_error_is_its_name_and_its_message_and_nothing_else(server: ApiServer) -> None:
    answer = server.post("AmazonEC2ContainerServiceV20141113.StopTask", b'{"task": "x"}')
    assert answer.status == 400
    assert answer.json == {
        "__type": "InvalidParameterException",
        "message": "The referenced task was not found.",
    }
    assert answer.headers["content-type"] == "application/x-amz-json-1.1"
    assert answer.headers["x-amzn-requestid"]


def test_a_task_says_when_what_happened_to_it_in_order(ecs: Any, fleet: Fleet, task: dict[str, Any]) -> None:
    arn = task["taskArn"]
    assert "startedAt" not in task
    fleet.running(arn)
    stopping = ecs.stop_task(cluster="blue", task=arn)["task"]
    assert "stoppedAt" not in stopping
    fleet.stopped(arn)
    [ended] = ecs.describe_tasks(cluster="blue", tasks=[arn])["tasks"]
    moments = [ended[name] for name in ("createdAt", "startedAt", "stoppingAt", "stoppedAt")]
    assert moments == sorted(moments)


def test_terraform_finds_what_it_made_and_that_it_is_gone(ecs: Any) -> None:
    """Its provider reads back each thing that it wrote, by ARN and with tags, and plans anew if they differ."""
    include = ["TAGS", "CONFIGURATIONS", "SETTINGS"]
    wanted: dict[str, Any] = {
        "settings": [{"name": "containerInsights", "value": "enabled"}],
        "configuration": {"executeCommandConfiguration": {"logging": "DEFAULT"}},
        "tags": [{"key": "Name", "value": "tf"}],
    }
    arn = ecs.create_cluster(clusterName="tf", **wanted)["cluster"]["clusterArn"]
    [cluster] = ecs.describe_clusters(clusters=[arn], include=include)["clusters"]
    assert {name: cluster[name] for name in wanted} == wanted
    assert ecs.delete_cluster(cluster=arn)["cluster"]["status"] == "INACTIVE"
    assert ecs.describe_clusters(clusters=[arn], include=include)["clusters"][0]["status"] == "INACTIVE"

    given = definition(
        placementConstraints=[{"type": "memberOf", "expression": "attribute:rack == a"}],
        volumes=[{"name": "v", "host": {"sourcePath": "/v"}}],
        tags=wanted["tags"],
    )
    definition_arn = ecs.register_task_definition(**given)["taskDefinition"]["taskDefinitionArn"]
    answer = ecs.describe_task_definition(taskDefinition=definition_arn, include=["TAGS"])
    assert answer["tags"] == wanted["tags"]
    assert {name: answer["taskDefinition"][name] for name in ("placementConstraints", "volumes")} == {
        name: given[name] for name in ("placementConstraints", "volumes")
    }
    ecs.deregister_task_definition(taskDefinition=definition_arn)
    assert ecs.describe_task_definition(taskDefinition=definition_arn)["taskDefinition"]["status"] == "INACTIVE"
