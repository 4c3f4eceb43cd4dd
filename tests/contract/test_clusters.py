"""Clusters, through boto3."""

from typing import Any

from tests.contract.server import ApiServer


def test_the_default_cluster_exists_from_the_start(ecs: Any) -> None:
    [cluster] = ecs.describe_clusters()["clusters"]
    assert cluster["clusterName"] == "default"
    assert cluster["status"] == "ACTIVE"
    assert ecs.list_clusters()["clusterArns"] == [cluster["clusterArn"]]


def test_a_missing_cluster_is_a_failure_not_an_error(ecs: Any, server: ApiServer) -> None:
    answer = ecs.describe_clusters(clusters=["nope"])
    assert answer["clusters"] == []
    assert answer["failures"] == [{"arn": server.context.arns.cluster("nope"), "reason": "MISSING"}]
