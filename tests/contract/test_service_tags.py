"""Tags of services and of their tasks, ListTasks of a service, and services in a cluster's counters."""

from typing import Any

import pytest
from msgspec.structs import replace

from controlplane.services.task_tags import task_tags
from controlplane.services.timing import timing_of
from controlplane.state.records import ClusterRecord, TaskDefinitionRecord
from homeport.status import DesiredStatus, TaskStatus
from tests.contract.definitions import register
from tests.contract.refusals import refused
from tests.contract.server import ApiServer
from tests.contract.service_calls import create, describe, put_records, put_task, update
from tests.contract.test_clusters import statistics

ARN = "arn:aws:ecs:eu-home-1:123456789012"


def tag(key: str, value: str) -> dict[str, str]:
    return {"key": key, "value": value}


@pytest.fixture(autouse=True)
def web(ecs: Any) -> str:
    return register(ecs, tags=[tag("from", "definition"), tag("d", "1")])


# ---------------------------------------------------------------- tags


def test_a_service_is_tagged_and_untagged(ecs: Any) -> None:
    arn = create(ecs, tags=[tag("a", "1")])["serviceArn"]
    ecs.tag_resource(resourceArn=arn, tags=[tag("b", "2")])
    wanted = [tag("a", "1"), tag("b", "2")]
    assert ecs.list_tags_for_resource(resourceArn=arn)["tags"] == wanted
    assert describe(ecs, include=["TAGS"])["tags"] == wanted
    # The short form means the default cluster.
    ecs.untag_resource(resourceArn=f"{ARN}:service/web", tagKeys=["a"])
    assert ecs.list_tags_for_resource(resourceArn=arn)["tags"] == wanted[1:]


def test_a_service_that_is_not_there_has_no_tags(ecs: Any, server: ApiServer) -> None:
    arn = create(ecs)["serviceArn"]
    for missing in (f"{ARN}:service/default/nope", f"{ARN}:service/blue/web"):
        assert refused(ecs.tag_resource, resourceArn=missing, tags=[])[0] == "ResourceNotFoundException"
    ecs.delete_service(service="web", force=True)
    record = server.context.state.services.get("default/web")
    assert record is not None
    put_records(server, replace(record, status="INACTIVE", deployments=()))
    assert refused(ecs.tag_resource, resourceArn=arn, tags=[]) == (
        "InvalidParameterException",
        "The specified service is inactive. Specify an active service and try again.",
    )


def test_a_task_set_is_tagged(ecs: Any) -> None:
    create(ecs, deploymentController={"type": "EXTERNAL"}, taskDefinition=None)
    arn = ecs.create_task_set(cluster="default", service="web", taskDefinition="web")["taskSet"]["taskSetArn"]
    ecs.tag_resource(resourceArn=arn, tags=[tag("a", "1")])
    assert ecs.list_tags_for_resource(resourceArn=arn)["tags"] == [tag("a", "1")]
    elsewhere = arn.replace("/web/", "/other/")
    assert refused(ecs.tag_resource, resourceArn=elsewhere, tags=[])[0] == "ResourceNotFoundException"


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, {}),
        ({"propagateTags": "NONE"}, {}),
        ({"propagateTags": "SERVICE"}, {"from": "service", "s": "1"}),
        ({"propagateTags": "TASK_DEFINITION"}, {"from": "definition", "d": "1"}),
        ({"enableECSManagedTags": True}, {"aws:ecs:clusterName": "default", "aws:ecs:serviceName": "web"}),
        (
            {"enableECSManagedTags": True, "propagateTags": "SERVICE"},
            {"aws:ecs:clusterName": "default", "aws:ecs:serviceName": "web", "from": "service", "s": "1"},
        ),
    ],
)
def test_tasks_take_over_the_tags_they_are_to_have(
    ecs: Any, server: ApiServer, settings: dict[str, Any], wanted: dict[str, str]
) -> None:
    create(ecs, tags=[tag("from", "service"), tag("s", "1")], **settings)
    state = server.context.state
    service, definition, cluster = (
        state.services.get("default/web"),
        state.task_definitions.get("web:1"),
        state.clusters.get("default"),
    )
    assert service is not None
    assert isinstance(definition, TaskDefinitionRecord)
    assert isinstance(cluster, ClusterRecord)
    assert task_tags(service, definition, cluster) == wanted


# ---------------------------------------------------------------- homeport:*

BAD = [
    ("homeport:lost-after", "4", "5 to 86400"),
    ("homeport:lost-after", "86401", "5 to 86400"),
    ("homeport:lost-after", "1m", "5 to 86400"),
    ("homeport:min-healthy-time", "-1", "0 to 3600"),
    ("homeport:min-healthy-time", "3601", "0 to 3600"),
    ("homeport:progress-deadline", "9", "10 to 86400"),
    ("homeport:progress-deadline", "", "10 to 86400"),
    ("homeport:progress-deadline", "9" * 40, "10 to 86400"),
    ("homeport:rebalance", "yes", "true or false"),
    ("homeport:stop-when-isolated", "", "true or false"),
]


@pytest.mark.parametrize(("key", "value", "words"), BAD)
def test_a_tag_that_cannot_be_used_is_refused_when_it_is_put(
    ecs: Any, server: ApiServer, key: str, value: str, words: str
) -> None:
    arn = create(ecs)["serviceArn"]
    tags = [tag(key, value)]
    with server.unchanged():
        for code, message in (
            refused(lambda: create(ecs, serviceName="other", tags=tags)),
            refused(ecs.tag_resource, resourceArn=arn, tags=tags),
        ):
            assert (code, key in message, words in message) == ("ClientException", True, True)


def test_the_times_of_a_service_are_those_of_its_tags(ecs: Any, server: ApiServer) -> None:
    tags = [tag("homeport:lost-after", "5"), tag("homeport:min-healthy-time", "0"), tag("homeport:rebalance", "true")]
    arn = create(ecs, tags=tags)["serviceArn"]

    def times() -> tuple[float, float, float]:
        record = server.context.state.services.get("default/web")
        assert record is not None
        timing = timing_of(record.tags)
        return timing.lost_after_s, timing.min_healthy_s, timing.progress_deadline_s

    assert times() == (5.0, 0.0, 600.0)
    ecs.tag_resource(resourceArn=arn, tags=[tag("homeport:progress-deadline", "86400")])
    ecs.untag_resource(resourceArn=arn, tagKeys=["homeport:lost-after"])
    assert times() == (60.0, 0.0, 86400.0)


def test_at_most_once_needs_time_to_stop_whichever_tag_asks_for_it(ecs: Any) -> None:
    register(ecs, family="once", tags=[tag("homeport:stop-when-isolated", "true")])
    short = [tag("homeport:lost-after", "10")]
    code, message = refused(lambda: create(ecs, taskDefinition="once", tags=short))
    assert (code, "homeport:stop-when-isolated" in message) == ("ClientException", True)
    arn = create(ecs, tags=short)["serviceArn"]
    assert refused(lambda: update(ecs, taskDefinition="once"))[0] == "ClientException"
    wanted = [tag("homeport:stop-when-isolated", "true")]
    assert refused(ecs.tag_resource, resourceArn=arn, tags=wanted)[0] == "ClientException"
    ecs.tag_resource(resourceArn=arn, tags=[tag("homeport:lost-after", "60")])
    assert update(ecs, taskDefinition="once")["taskDefinition"].endswith("once:1")
    assert refused(ecs.tag_resource, resourceArn=arn, tags=short)[0] == "ClientException"


# ---------------------------------------------------------------- its tasks


def test_the_tasks_of_a_service_are_listed_by_its_name_or_arn(ecs: Any, server: ApiServer) -> None:
    service = create(ecs)
    create(ecs, serviceName="other")
    deployment = service["deployments"][0]["id"]
    own = put_task(server, deployment).spec.task_arn
    put_task(server, deployment, service="other")
    stopped = put_task(
        server, deployment, TaskStatus.STOPPED, desired=DesiredStatus.STOPPED, stopped_at=2.0
    ).spec.task_arn
    for reference in ("web", service["serviceArn"], f"{ARN}:service/web"):
        assert ecs.list_tasks(serviceName=reference)["taskArns"] == [own]
    assert ecs.list_tasks(serviceName="web", desiredStatus="STOPPED")["taskArns"] == [stopped]
    assert ecs.list_tasks(startedBy=deployment, serviceName="web")["taskArns"] == [own]


def test_a_service_without_tasks_lists_none(ecs: Any) -> None:
    create(ecs)
    assert ecs.list_tasks(serviceName="web")["taskArns"] == []


# ---------------------------------------------------------------- its cluster


def test_a_cluster_counts_its_services(ecs: Any) -> None:
    create(ecs, serviceName="a")
    create(ecs, serviceName="b", launchType="FARGATE")
    create(ecs, serviceName="c", capacityProviderStrategy=[{"capacityProvider": "FARGATE_SPOT", "weight": 1}])
    create(ecs, serviceName="d", launchType="EXTERNAL")
    create(ecs, serviceName="e", deploymentController={"type": "EXTERNAL"}, taskDefinition=None)
    ecs.delete_service(service="d", force=True)
    [cluster] = ecs.describe_clusters()["clusters"]
    assert cluster["activeServicesCount"] == 4
    counted = {name: count for name, count in statistics(ecs).items() if "Service" in name and count}
    assert counted == {"activeEC2ServiceCount": 1, "activeFargateServiceCount": 2, "drainingExternalServiceCount": 1}


def test_a_cluster_with_services_is_not_deleted(ecs: Any, server: ApiServer) -> None:
    create(ecs)
    wanted = (
        "ClusterContainsServicesException",
        "The Cluster cannot be deleted while Services are active.",
    )
    assert refused(ecs.delete_cluster, cluster="default") == wanted
    ecs.delete_service(service="web", force=True)
    assert refused(ecs.delete_cluster, cluster="default") == wanted
    record = server.context.state.services.get("default/web")
    assert record is not None
    put_records(server, replace(record, status="INACTIVE", deployments=()))
    assert ecs.delete_cluster(cluster="default")["cluster"]["status"] == "INACTIVE"
