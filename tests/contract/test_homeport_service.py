"""Homeport's own operations on the wire: errors in ECS's shape, paging, what each answers."""

import json
from typing import Any

import pytest

from tests.contract.definitions import register
from tests.contract.fleet import Fleet
from tests.contract.server import Answer, ApiServer


@pytest.fixture
def fleet(server: ApiServer) -> Fleet:
    return Fleet(server)


def call(server: ApiServer, operation: str, *, service: str = "homeport", **members: Any) -> Answer:
    return server.post(f"Homeport_20261101.{operation}", json.dumps(members).encode(), service=service)


def refused(answer: Answer) -> tuple[str, str]:
    assert answer.status == 400
    return answer.json["__type"].rpartition("#")[2], answer.json["message"]


@pytest.mark.parametrize(
    ("operation", "members", "code", "text"),
    [
        ("DescribeStory", {}, "InvalidParameterException", "missing required field `task`"),
        ("DescribeStory", {"task": 7}, "InvalidParameterException", "Expected `str`, got `int` - at `$.task`"),
        ("DescribeStory", {"task": ""}, "InvalidParameterException", "can't name a task"),
        ("DescribeStory", {"task": "A" * 32}, "InvalidParameterException", "can't name a task"),
        ("DescribeStory", {"task": "f" * 33}, "InvalidParameterException", "can't name a task"),
        ("DescribeStory", {"task": "f" * 32}, "TaskNotFoundException", "No task was found"),
        (
            "DescribeStory",
            {"task": "arn:aws:ecs:other:123456789012:task/default/" + "f" * 32},
            "InvalidParameterException",
            "is not the ARN of a task in this account and region",
        ),
        ("FindTasks", {"cluster": "nope"}, "ClusterNotFoundException", "Cluster not found."),
        ("FindTasks", {"node": "nope"}, "ContainerInstanceNotFoundException", "No node was found"),
        ("FindTasks", {"maxResults": 1001}, "InvalidParameterException", "maxResults must be between 1 and 1000"),
        ("FindTasks", {"nextToken": "?"}, "InvalidParameterException", "Invalid token"),
        ("FindTasks", {"stopped": "yes"}, "InvalidParameterException", "`$.stopped`"),
        ("DescribeNodes", {"cluster": "nope"}, "ClusterNotFoundException", "Cluster not found."),
        ("JoinCommand", {"count": 0}, "InvalidParameterException", "count must be between 1 and 1000, but was 0"),
        ("JoinCommand", {"count": 1001}, "InvalidParameterException", "count must be between 1 and 1000"),
        ("JoinCommand", {"expiresInS": 1}, "InvalidParameterException", "expiresInS must be between 60 and 2592000"),
        ("JoinCommand", {"cluster": "nope"}, "ClusterNotFoundException", "Cluster not found."),
        ("Nope", {}, "UnknownOperationException", "Nope"),
    ],
)
def test_what_can_not_be_used_is_refused_in_ecs_shape_and_changes_nothing(
    server: ApiServer, operation: str, members: dict[str, Any], code: str, text: str
) -> None:
    with server.unchanged():
        found, message = refused(call(server, operation, **members))
    assert (found, text in message) == (code, True), message


def test_a_signature_for_another_service_is_refused(server: ApiServer) -> None:
    code, message = refused(call(server, "DescribeStatus", service="ecs"))
    assert code == "InvalidSignatureException"
    assert "'homeport'" in message


def test_unknown_members_are_dropped(server: ApiServer) -> None:
    assert call(server, "DescribeStatus", whatever=1).status == 200


def test_pages_hold_every_task_once(server: ApiServer, ecs: Any, fleet: Fleet) -> None:
    fleet.add_host(memory=65536)
    register(ecs)
    ecs.run_task(taskDefinition="web", count=10)
    arns = [task["taskArn"] for task in ecs.run_task(taskDefinition="web", count=5)["tasks"]]
    for arn in arns:
        fleet.running(arn)
    fleet.stopped(arns[0])
    for stopped, expected in ((False, 14), (True, 15)):
        seen: list[str] = []
        token = None
        while True:
            page = call(server, "FindTasks", maxResults=4, nextToken=token, stopped=stopped).json
            seen += [task["id"] for task in page["tasks"]]
            token = page.get("nextToken")
            if token is None:
                break
        assert len(seen) == len(set(seen)) == expected
        assert seen == sorted(seen)


def test_a_whole_id_is_found_even_if_it_could_begin_others(server: ApiServer, ecs: Any, fleet: Fleet) -> None:
    fleet.add_host()
    register(ecs)
    (task,) = ecs.run_task(taskDefinition="web")["tasks"]
    task_id = task["taskArn"].rsplit("/", 1)[-1]
    for reference in (task_id, task["taskArn"], task_id[:5]):
        (found,) = call(server, "FindTasks", prefix=reference).json["tasks"]
        assert (found["id"], found["archived"], found["containers"][0]["lastStatus"]) == (task_id, False, "PENDING")


def test_nodes_of_a_cluster_and_deregistered_ones(server: ApiServer, ecs: Any, fleet: Fleet) -> None:
    ecs.create_cluster(clusterName="other")
    here, there = fleet.add_host("here"), fleet.add_host("there", cluster="other")
    assert [node["id"] for node in call(server, "DescribeNodes", cluster="other").json["nodes"]] == [there]
    ecs.deregister_container_instance(containerInstance=here)
    assert [node["id"] for node in call(server, "DescribeNodes").json["nodes"]] == [there]
    everything = call(server, "DescribeNodes", inactive=True).json["nodes"]
    assert {node["id"]: node["status"] for node in everything} == {here: "INACTIVE", there: "ACTIVE"}


def test_the_join_command_carries_an_activation_for_the_cluster(server: ApiServer, ecs: Any) -> None:
    ecs.create_cluster(clusterName="other")
    made = call(server, "JoinCommand", cluster="other", count=2, expiresInS=60, description="d" * 300).json
    (activation,) = server.context.state.activations
    assert (activation.id, activation.cluster, activation.registration_limit) == (made["activationId"], "other", 2)
    assert made["activationCode"] not in repr(activation)
    assert made["command"].endswith(
        f"--activation-id {made['activationId']} --activation-code {made['activationCode']}"
    )
    assert made["loopbackOnly"] is True
