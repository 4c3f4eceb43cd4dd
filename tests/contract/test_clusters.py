"""Clusters, through boto3."""

from typing import Any

import pytest

from tests.contract.definitions import register
from tests.contract.fleet import Fleet
from tests.contract.refusals import refused
from tests.contract.server import ApiServer


def statistics(ecs: Any, name: str = "default") -> dict[str, int]:
    [cluster] = ecs.describe_clusters(clusters=[name], include=["STATISTICS"])["clusters"]
    return {entry["name"]: int(entry["value"]) for entry in cluster["statistics"]}


def test_the_default_cluster_exists_from_the_start(ecs: Any) -> None:
    [cluster] = ecs.describe_clusters()["clusters"]
    assert cluster["clusterName"] == "default"
    assert cluster["status"] == "ACTIVE"
    assert ecs.list_clusters()["clusterArns"] == [cluster["clusterArn"]]


def test_a_cluster_without_a_name_is_the_default_one(ecs: Any, server: ApiServer) -> None:
    with server.unchanged():
        assert ecs.create_cluster()["cluster"]["clusterName"] == "default"


def test_a_cluster_is_created_with_all_it_can_have(ecs: Any) -> None:
    given: dict[str, Any] = {
        "tags": [{"key": "team", "value": "a"}],
        "settings": [{"name": "containerInsights", "value": "enhanced"}],
        "configuration": {"executeCommandConfiguration": {"logging": "NONE"}},
        "capacityProviders": ["FARGATE", "FARGATE_SPOT"],
        "defaultCapacityProviderStrategy": [{"capacityProvider": "FARGATE", "weight": 1, "base": 2}],
        "serviceConnectDefaults": {"namespace": "ns"},
    }
    created = ecs.create_cluster(clusterName="Prod_1-x", **given)["cluster"]
    include = ["ATTACHMENTS", "CONFIGURATIONS", "SETTINGS", "STATISTICS", "TAGS"]
    [described] = ecs.describe_clusters(clusters=["Prod_1-x"], include=include)["clusters"]
    assert created == described
    assert {name: described[name] for name in given} == given
    assert described["clusterArn"] == "arn:aws:ecs:eu-home-1:123456789012:cluster/Prod_1-x"


def test_what_is_not_included_is_an_empty_list(ecs: Any) -> None:
    ecs.create_cluster(clusterName="c", tags=[{"key": "a", "value": "b"}], configuration={})
    [cluster] = ecs.describe_clusters(clusters=["c"])["clusters"]
    for member in ("tags", "settings", "statistics", "capacityProviders", "defaultCapacityProviderStrategy"):
        assert cluster[member] == []
    assert "configuration" not in cluster


def test_creating_it_again_returns_it_unchanged(ecs: Any, server: ApiServer) -> None:
    first = ecs.create_cluster(clusterName="c", tags=[{"key": "a", "value": "b"}])["cluster"]
    with server.unchanged():
        assert ecs.create_cluster(clusterName="c")["cluster"] == first


@pytest.mark.parametrize("name", ["with space", "ü", "a/b", "x" * 256, "arn:aws:ecs:x"])
def test_a_name_outside_the_rules_is_refused(ecs: Any, server: ApiServer, name: str) -> None:
    with server.unchanged():
        code, message = refused(ecs.create_cluster, clusterName=name)
    assert code == "InvalidParameterException"
    assert "255" in message


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"capacityProviders": ["mine"]}, "Not found: 'mine'"),
        ({"defaultCapacityProviderStrategy": [{"capacityProvider": "FARGATE"}]}, "not associated with the cluster"),
        (
            {
                "capacityProviders": ["FARGATE", "FARGATE_SPOT"],
                "defaultCapacityProviderStrategy": [
                    {"capacityProvider": "FARGATE", "base": 1},
                    {"capacityProvider": "FARGATE_SPOT", "base": 1},
                ],
            },
            "base above 0",
        ),
        (
            {
                "capacityProviders": ["FARGATE"],
                "defaultCapacityProviderStrategy": [{"capacityProvider": "FARGATE"}] * 21,
            },
            "maximum of 20",
        ),
        ({"settings": [{"name": "containerInsights", "value": "maybe"}]}, "enabled, disabled, enhanced"),
        ({"tags": [{"key": "AWS:x", "value": ""}]}, "reserved"),
        ({"tags": [{"value": "x"}]}, "needs a key"),
        ({"tags": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]}, "duplicate"),
        ({"tags": [{"key": str(n), "value": ""} for n in range(51)]}, "less than or equal to 50"),
    ],
)
def test_wrong_members_are_refused_by_name(ecs: Any, server: ApiServer, arguments: dict[str, Any], text: str) -> None:
    with server.unchanged():
        code, message = refused(ecs.create_cluster, clusterName="c", **arguments)
    assert code == "InvalidParameterException"
    assert text in message


def test_clusters_are_found_by_name_and_arn_each(ecs: Any, server: ApiServer) -> None:
    arn = server.context.arns.cluster("default")
    foreign = [
        "arn:aws:ecs:eu-home-1:999999999999:cluster/default",
        "arn:aws:ecs:us-east-1:123456789012:cluster/default",
    ]
    answer = ecs.describe_clusters(clusters=["default", arn, "nope", *foreign, "arn:nonsense"])
    assert [cluster["clusterName"] for cluster in answer["clusters"]] == ["default", "default"]
    missing = [server.context.arns.cluster("nope"), *foreign, "arn:nonsense"]
    assert answer["failures"] == [{"arn": arn, "reason": "MISSING"} for arn in missing]


def test_at_most_100_clusters_are_described_at_once(ecs: Any) -> None:
    code, message = refused(ecs.describe_clusters, clusters=["default"] * 101)
    assert code == "InvalidParameterException"
    assert "100" in message


def test_clusters_are_listed_in_pages(ecs: Any) -> None:
    names = {f"c{number}" for number in range(5)} | {"default"}
    for name in names:
        ecs.create_cluster(clusterName=name)
    pages = list(ecs.get_paginator("list_clusters").paginate(PaginationConfig={"PageSize": 4}))
    assert [len(page["clusterArns"]) for page in pages] == [4, 2]
    assert {arn.split("/")[1] for page in pages for arn in page["clusterArns"]} == names


@pytest.mark.parametrize("size", [0, 101, -1])
def test_a_page_has_1_to_100_items(ecs: Any, size: int) -> None:
    code, message = refused(ecs.list_clusters, maxResults=size)
    assert code == "InvalidParameterException"
    assert "between 1 and 100" in message


def test_a_made_up_token_is_refused(ecs: Any) -> None:
    code, message = refused(ecs.list_clusters, nextToken="bm9uc2Vuc2U")
    assert code == "InvalidParameterException"
    assert "token" in message


def test_updating_changes_what_is_given_and_keeps_the_rest(ecs: Any) -> None:
    ecs.create_cluster(clusterName="c", configuration={"executeCommandConfiguration": {"logging": "NONE"}})
    ecs.update_cluster_settings(cluster="c", settings=[{"name": "containerInsights", "value": "enabled"}])
    updated = ecs.update_cluster(cluster="c", serviceConnectDefaults={"namespace": "ns"})["cluster"]
    assert updated["settings"] == [{"name": "containerInsights", "value": "enabled"}]
    assert updated["configuration"] == {"executeCommandConfiguration": {"logging": "NONE"}}
    assert updated["serviceConnectDefaults"] == {"namespace": "ns"}
    cleared = ecs.update_cluster(cluster="c", serviceConnectDefaults={"namespace": ""}, configuration={})["cluster"]
    assert "serviceConnectDefaults" not in cleared
    assert cleared["configuration"] == {}


def test_capacity_providers_are_replaced(ecs: Any) -> None:
    ecs.create_cluster(clusterName="c", capacityProviders=["FARGATE"])
    strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    changed = ecs.put_cluster_capacity_providers(
        cluster="c", capacityProviders=["FARGATE_SPOT"], defaultCapacityProviderStrategy=strategy
    )["cluster"]
    assert changed["capacityProviders"] == ["FARGATE_SPOT"]
    assert changed["defaultCapacityProviderStrategy"] == strategy


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("update_cluster", {}),
        ("update_cluster_settings", {"settings": []}),
        ("put_cluster_capacity_providers", {"capacityProviders": [], "defaultCapacityProviderStrategy": []}),
        ("delete_cluster", {}),
    ],
)
@pytest.mark.parametrize("cluster", ["nope", "gone", "arn:aws:ecs:eu-home-1:999999999999:cluster/default"])
def test_a_missing_cluster_is_a_typed_error(
    ecs: Any, server: ApiServer, operation: str, arguments: dict[str, Any], cluster: str
) -> None:
    ecs.create_cluster(clusterName="gone")
    ecs.delete_cluster(cluster="gone")
    with server.unchanged():
        found = refused(getattr(ecs, operation), cluster=cluster, **arguments)
    words = "The referenced cluster was inactive." if cluster == "gone" else "Cluster not found."
    assert found == ("ClusterNotFoundException", words)


def test_a_deleted_cluster_is_inactive_until_the_name_is_taken_again(ecs: Any) -> None:
    ecs.create_cluster(clusterName="c", tags=[{"key": "a", "value": "b"}])
    assert ecs.delete_cluster(cluster="c")["cluster"]["status"] == "INACTIVE"
    assert ecs.describe_clusters(clusters=["c"])["clusters"][0]["status"] == "INACTIVE"
    assert not any(arn.endswith("/c") for arn in ecs.list_clusters()["clusterArns"])
    again = ecs.create_cluster(clusterName="c")["cluster"]
    assert again["status"] == "ACTIVE"
    assert again["tags"] == []


def test_counters_and_statistics_follow_every_change(ecs: Any, server: ApiServer) -> None:
    fleet = Fleet(server)
    host = fleet.add_host()
    register(ecs)
    launch_types = ["EC2", "FARGATE", "EXTERNAL"]
    arns = [ecs.run_task(taskDefinition="web", launchType=kind)["tasks"][0]["taskArn"] for kind in launch_types]

    def counters() -> tuple[int, int, int]:
        [cluster] = ecs.describe_clusters()["clusters"]
        names = ("registeredContainerInstancesCount", "pendingTasksCount", "runningTasksCount")
        first, second, third = (cluster[name] for name in names)
        return first, second, third

    assert counters() == (1, 3, 0)
    fleet.running(arns[0])
    fleet.running(arns[2])
    assert counters() == (1, 1, 2)
    told = statistics(ecs)
    assert (told["runningEC2TasksCount"], told["pendingEC2TasksCount"]) == (1, 0)
    assert (told["runningFargateTasksCount"], told["pendingFargateTasksCount"]) == (0, 1)
    assert (told["runningExternalTasksCount"], told["pendingExternalTasksCount"]) == (1, 0)
    fleet.stopped(arns[0])
    assert counters() == (1, 1, 1)
    assert statistics(ecs)["runningEC2TasksCount"] == 0
    ecs.update_container_instances_state(containerInstances=[host], status="DRAINING")
    assert counters() == (1, 1, 1)


def test_a_cluster_with_hosts_or_tasks_is_not_deleted(ecs: Any, server: ApiServer) -> None:
    fleet = Fleet(server)
    ecs.create_cluster(clusterName="c")
    host = fleet.add_host(cluster="c")
    register(ecs)
    task = ecs.run_task(cluster="c", taskDefinition="web")["tasks"][0]["taskArn"]
    with server.unchanged():
        code, message = refused(ecs.delete_cluster, cluster="c")
    assert code == "ClusterContainsContainerInstancesException"
    assert message == "The Cluster cannot be deleted while Container Instances are active or draining."
    ecs.update_container_instances_state(cluster="c", containerInstances=[host], status="DRAINING")
    assert refused(ecs.delete_cluster, cluster="c")[0] == "ClusterContainsContainerInstancesException"
    fleet.stopped(task)
    ecs.deregister_container_instance(cluster="c", containerInstance=host)
    assert ecs.delete_cluster(cluster="c")["cluster"]["status"] == "INACTIVE"


def test_a_cluster_with_a_task_and_no_host_is_not_deleted(ecs: Any, server: ApiServer) -> None:
    fleet = Fleet(server)
    host = fleet.add_host()
    register(ecs)
    ecs.run_task(taskDefinition="web")
    record = server.context.state.instances.get(host)
    assert record is not None

    def forget() -> None:
        with server.context.state.transaction() as transaction:
            transaction.delete(record)

    server.call(forget)
    assert refused(ecs.delete_cluster, cluster="default") == (
        "ClusterContainsTasksException",
        "The Cluster cannot be deleted while Tasks are active.",
    )
