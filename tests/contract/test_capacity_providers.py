"""Capacity providers with real boto3: groups of hosts under ECS's names."""

from collections import Counter
from typing import Any

import pytest

from tests.contract.fleet import Fleet, refused, register_web
from tests.contract.server import ApiServer

ARN = "arn:aws:ecs:eu-home-1:123456789012:capacity-provider/"
ASG = {"autoScalingGroupArn": "rack-7"}


@pytest.fixture
def fleet(server: ApiServer) -> Fleet:
    return Fleet(server)


def create(ecs: Any, name: str = "gpu", **members: Any) -> Any:
    return ecs.create_capacity_provider(name=name, autoScalingGroupProvider=ASG, **members)["capacityProvider"]


def associate(ecs: Any, *names: str, strategy: list[dict[str, Any]] | None = None) -> Any:
    return ecs.put_cluster_capacity_providers(
        cluster="default", capacityProviders=list(names), defaultCapacityProviderStrategy=strategy or []
    )["cluster"]


def names_of(fleet: Fleet, tasks: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """Count tasks by (provider, host name)."""
    state = fleet.context.state
    return Counter(
        (
            task["capacityProviderName"],
            state.instances.get(fleet.record_id(task["containerInstanceArn"])).facts.hostname,
        )
        for task in tasks
    )


# ---------------------------------------------------------------- the resource


def test_a_provider_is_made_described_and_changed(ecs: Any) -> None:
    made = create(ecs, tags=[{"key": "team", "value": "a"}])
    assert (made["capacityProviderArn"], made["name"], made["status"]) == (ARN + "gpu", "gpu", "ACTIVE")
    assert made["autoScalingGroupProvider"]["autoScalingGroupArn"] == "rack-7"
    assert made["autoScalingGroupProvider"]["managedScaling"]["targetCapacity"] == 100
    for reference in ("gpu", ARN + "gpu"):
        answer = ecs.describe_capacity_providers(capacityProviders=[reference], include=["TAGS"])
        assert answer["capacityProviders"] == [made]
    changed = ecs.update_capacity_provider(
        name="gpu", autoScalingGroupProvider={"managedScaling": {"targetCapacity": 50}}
    )["capacityProvider"]
    assert changed["updateStatus"] == "UPDATE_COMPLETE"
    assert changed["autoScalingGroupProvider"]["managedScaling"]["targetCapacity"] == 50
    assert changed["autoScalingGroupProvider"]["autoScalingGroupArn"] == "rack-7"


def test_all_are_listed_page_by_page_the_reserved_ones_too(ecs: Any) -> None:
    for number in range(11):
        create(ecs, f"p{number:02}")
    first = ecs.describe_capacity_providers()
    assert len(first["capacityProviders"]) == 10
    second = ecs.describe_capacity_providers(nextToken=first["nextToken"])
    listed = [provider["name"] for provider in first["capacityProviders"] + second["capacityProviders"]]
    assert listed == ["FARGATE", "FARGATE_SPOT", *(f"p{number:02}" for number in range(11))]
    associate(ecs, "p03", "FARGATE")
    of_cluster = ecs.describe_capacity_providers(cluster="default")["capacityProviders"]
    assert [provider["name"] for provider in of_cluster] == ["FARGATE", "p03"]
    missing = ecs.describe_capacity_providers(capacityProviders=["p04", "gone"], cluster="default")
    assert [failure["arn"] for failure in missing["failures"]] == [ARN + "p04", ARN + "gone"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ({"name": "fargate-2"}, "InvalidParameterException", "can't begin with"),
        ({"name": "with space"}, "InvalidParameterException", "name is 'with space'"),
        ({"name": "gpu"}, "ClientException", "already exists"),
        ({"name": "x", "autoScalingGroupProvider": None}, "InvalidParameterException", "homeport.capacity-provider"),
        (
            {"name": "x", "tags": [{"key": "homeport:hosts", "value": "attribute:"}]},
            "InvalidParameterException",
            "Invalid expression 'attribute:'",
        ),
    ],
)
def test_what_can_not_be_made_says_why(
    ecs: Any, server: ApiServer, arguments: dict[str, Any], code: str, text: str
) -> None:
    create(ecs)
    given = {"autoScalingGroupProvider": ASG, **arguments}
    with server.unchanged():
        said = refused(ecs.create_capacity_provider, **{name: v for name, v in given.items() if v is not None})
    assert said[0] == code
    assert text in said[1]


def test_a_provider_that_a_cluster_has_is_not_deleted(ecs: Any) -> None:
    create(ecs)
    assert associate(ecs, ARN + "gpu", "FARGATE")["capacityProviders"] == ["gpu", "FARGATE"]
    kept = ecs.delete_capacity_provider(capacityProvider="gpu")["capacityProvider"]
    assert (kept["status"], kept["updateStatus"]) == ("ACTIVE", "DELETE_FAILED")
    assert "associated with cluster: default" in kept["updateStatusReason"]
    associate(ecs)
    gone = ecs.delete_capacity_provider(capacityProvider=ARN + "gpu")["capacityProvider"]
    assert (gone["status"], gone["updateStatus"]) == ("INACTIVE", "DELETE_COMPLETE")
    assert ecs.describe_capacity_providers(capacityProviders=["gpu"])["failures"][0]["reason"] == "MISSING"
    for name, text in (("gpu", "was not found"), ("FARGATE", "reserved")):
        code, message = refused(ecs.delete_capacity_provider, capacityProvider=name)
        assert code == "ClientException"
        assert text in message


def test_its_tags_are_checked_wherever_they_are_set(ecs: Any) -> None:
    create(ecs)
    ecs.tag_resource(resourceArn=ARN + "gpu", tags=[{"key": "homeport:hosts", "value": "attribute:gpu exists"}])
    code, message = refused(ecs.tag_resource, resourceArn=ARN + "gpu", tags=[{"key": "homeport:hosts", "value": "gpu"}])
    assert code == "InvalidParameterException"
    assert "position 1" in message
    assert ecs.list_tags_for_resource(resourceArn=ARN + "gpu")["tags"] == [
        {"key": "homeport:hosts", "value": "attribute:gpu exists"}
    ]
    assert refused(ecs.tag_resource, resourceArn=ARN + "FARGATE", tags=[])[0] == "InvalidParameterException"


# ---------------------------------------------------------------- its hosts


def test_each_share_of_a_strategy_goes_to_its_providers_hosts(ecs: Any, fleet: Fleet) -> None:
    register_web(ecs)
    one, *_ = (fleet.add_host(name, attributes={"rack": name}) for name in ("one", "two", "three"))
    target = {"targetType": "container-instance", "targetId": one}
    ecs.put_attributes(attributes=[{"name": "homeport.capacity-provider", "value": "own", **target}])
    create(ecs, "own")
    create(ecs, "racks", tags=[{"key": "homeport:hosts", "value": "attribute:rack == three"}])
    associate(ecs, "own", "racks")
    strategy = [
        {"capacityProvider": "own", "base": 2, "weight": 1},
        {"capacityProvider": "racks", "weight": 3},
    ]
    answer = ecs.run_task(taskDefinition="web", count=10, capacityProviderStrategy=strategy)
    assert answer["failures"] == []
    assert names_of(fleet, answer["tasks"]) == {("own", "one"): 4, ("racks", "three"): 6}
    assert {task["launchType"] for task in answer["tasks"]} == {"EC2"}


def test_fargate_spot_needs_hosts_that_are_marked_and_says_how(ecs: Any, fleet: Fleet) -> None:
    register_web(ecs)
    fleet.add_host("steady")
    spot = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    answer = ecs.run_task(taskDefinition="web", capacityProviderStrategy=spot)
    assert answer["tasks"] == []
    (failure,) = answer["failures"]
    assert failure["reason"] == "CAPACITY_PROVIDER"
    assert "attribute:homeport.preemptible == true (set attributes with PutAttributes" in failure["detail"]
    fleet.add_host("spot", attributes={"homeport.preemptible": "true"})
    mixed = [{"capacityProvider": "FARGATE", "base": 1}, *spot]
    answer = ecs.run_task(taskDefinition="web", count=3, capacityProviderStrategy=mixed)
    assert names_of(fleet, answer["tasks"])["FARGATE_SPOT", "spot"] == 2
    assert {task["launchType"] for task in answer["tasks"]} == {"FARGATE"}


@pytest.mark.parametrize(
    ("strategy", "text"),
    [
        ([{"capacityProvider": "gpu"}], "not associated with the cluster"),
        ([{"capacityProvider": "cpu"}, {"capacityProvider": "FARGATE"}], "but not both"),
    ],
)
def test_a_strategy_that_can_not_be(ecs: Any, fleet: Fleet, strategy: list[dict[str, Any]], text: str) -> None:
    register_web(ecs)
    fleet.add_host()
    create(ecs, "gpu")
    create(ecs, "cpu")
    associate(ecs, "cpu")
    code, message = refused(ecs.run_task, taskDefinition="web", capacityProviderStrategy=strategy)
    assert code == "InvalidParameterException"
    assert text in message
