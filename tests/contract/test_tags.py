"""Tags, through boto3."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.definitions import register
from tests.contract.fleet import Fleet
from tests.contract.refusals import refused
from tests.contract.server import ApiServer

ECS = "arn:aws:ecs:eu-home-1:123456789012"


@pytest.fixture
def arns(ecs: Any, server: ApiServer) -> dict[str, str]:
    """One of each that can be tagged."""
    host = Fleet(server).add_host()
    return {
        "cluster": server.context.arns.cluster("default"),
        "task-definition": register(ecs),
        "task": ecs.run_task(taskDefinition="web")["tasks"][0]["taskArn"],
        "container-instance": server.context.arns.container_instance("default", host),
    }


def tags(ecs: Any, arn: str) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in ecs.list_tags_for_resource(resourceArn=arn)["tags"]}


@pytest.mark.parametrize("kind", ["cluster", "task-definition", "task", "container-instance"])
def test_tags_are_added_replaced_and_taken_off(ecs: Any, server: ApiServer, arns: dict[str, str], kind: str) -> None:
    arn = arns[kind]
    assert tags(ecs, arn) == {}
    ecs.tag_resource(resourceArn=arn, tags=[{"key": "a", "value": "1"}, {"key": "b", "value": ""}])
    ecs.tag_resource(resourceArn=arn, tags=[{"key": "a", "value": "2"}])
    assert tags(ecs, arn) == {"a": "2", "b": ""}
    ecs.untag_resource(resourceArn=arn, tagKeys=["b", "never there"])
    assert tags(ecs, arn) == {"a": "2"}
    with server.unchanged():
        ecs.untag_resource(resourceArn=arn, tagKeys=["b"])


def test_describing_shows_tags_only_when_asked(ecs: Any, arns: dict[str, str]) -> None:
    wanted = [{"key": "a", "value": "1"}]
    for arn in arns.values():
        ecs.tag_resource(resourceArn=arn, tags=wanted)
    calls: dict[str, Callable[..., Any]] = {
        "clusters": lambda **more: ecs.describe_clusters(**more)["clusters"][0],
        "task definitions": lambda **more: ecs.describe_task_definition(taskDefinition="web", **more),
        "tasks": lambda **more: ecs.describe_tasks(tasks=[arns["task"]], **more)["tasks"][0],
        "hosts": lambda **more: ecs.describe_container_instances(
            containerInstances=[arns["container-instance"]], **more
        )["containerInstances"][0],
    }
    for name, call in calls.items():
        assert not call().get("tags"), name
        assert call(include=["TAGS"])["tags"] == wanted, name


def test_a_resource_has_at_most_50_tags(ecs: Any, server: ApiServer, arns: dict[str, str]) -> None:
    arn = arns["cluster"]
    ecs.tag_resource(resourceArn=arn, tags=[{"key": f"k{number}", "value": ""} for number in range(50)])
    ecs.tag_resource(resourceArn=arn, tags=[{"key": "k0", "value": "again"}])
    with server.unchanged():
        code, message = refused(ecs.tag_resource, resourceArn=arn, tags=[{"key": "one more", "value": ""}])
    assert (code, "50" in message) == ("InvalidParameterException", True)


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ({"key": "aws:x", "value": ""}, "reserved"),
        ({"key": "k" * 129, "value": ""}, "128"),
        ({"key": "k", "value": "v" * 257}, "256"),
        ({"key": "k", "value": "*"}, "regular expression"),
    ],
)
def test_a_tag_outside_the_rules_is_refused(ecs: Any, server: ApiServer, tag: dict[str, str], text: str) -> None:
    with server.unchanged():
        code, message = refused(ecs.tag_resource, resourceArn=server.context.arns.cluster("default"), tags=[tag])
    assert (code, text in message) == ("InvalidParameterException", True)


@pytest.mark.parametrize(
    ("arn", "code"),
    [
        ("default", "InvalidParameterException"),
        ("arn:aws:s3:::bucket/x", "InvalidParameterException"),
        ("arn:aws:ec2:eu-home-1:123456789012:task/default/x", "InvalidParameterException"),
        (f"{ECS}:capacity-provider/x", "ResourceNotFoundException"),
        (f"{ECS}:task-definition/web", "InvalidParameterException"),
        (f"{ECS}:cluster/nope", "ClusterNotFoundException"),
        ("arn:aws:ecs:us-east-1:123456789012:cluster/default", "ClusterNotFoundException"),
        (f"{ECS}:task-definition/web:1", "ResourceNotFoundException"),
        (f"{ECS}:task/default/{'0' * 32}", "ResourceNotFoundException"),
        (f"{ECS}:container-instance/default/{'0' * 32}", "ResourceNotFoundException"),
    ],
)
def test_what_is_not_there_is_a_typed_error(ecs: Any, server: ApiServer, arn: str, code: str) -> None:
    with server.unchanged():
        assert refused(ecs.tag_resource, resourceArn=arn, tags=[])[0] == code
        assert refused(ecs.untag_resource, resourceArn=arn, tagKeys=[])[0] == code
        listed = "InvalidParameterException" if code == "ResourceNotFoundException" else code
        assert refused(ecs.list_tags_for_resource, resourceArn=arn)[0] == listed


def test_a_task_of_another_cluster_or_region_is_not_found(ecs: Any, arns: dict[str, str]) -> None:
    for odd in (arns["task"].replace("/default/", "/other/"), arns["task"].replace("eu-home-1", "us-east-1")):
        assert refused(ecs.tag_resource, resourceArn=odd, tags=[])[0] == "ResourceNotFoundException"


def test_a_deleted_cluster_is_refused_in_the_words_terraform_knows(ecs: Any, server: ApiServer) -> None:
    arn = ecs.create_cluster(clusterName="gone")["cluster"]["clusterArn"]
    ecs.delete_cluster(cluster="gone")
    inactive = (
        "InvalidParameterException",
        "The specified cluster is inactive. Specify an active cluster and try again.",
    )
    with server.unchanged():
        assert refused(ecs.list_tags_for_resource, resourceArn=arn) == inactive
        assert refused(ecs.tag_resource, resourceArn=arn, tags=[]) == inactive
        assert refused(ecs.untag_resource, resourceArn=arn, tagKeys=[]) == inactive
