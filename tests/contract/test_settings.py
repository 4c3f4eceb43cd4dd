"""Account settings and DiscoverPollEndpoint, through boto3."""

from typing import Any

import pytest

from tests.contract.refusals import refused
from tests.contract.server import ApiServer

ROOT = "arn:aws:iam::123456789012:root"


def test_effective_settings_say_what_is_true(ecs: Any) -> None:
    [setting] = ecs.list_account_settings(name="taskLongArnFormat", effectiveSettings=True)["settings"]
    assert setting == {"name": "taskLongArnFormat", "value": "enabled", "principalArn": ROOT, "type": "user"}
    pages = ecs.get_paginator("list_account_settings").paginate(
        effectiveSettings=True, PaginationConfig={"PageSize": 4}
    )
    names = [entry["name"] for page in pages for entry in page["settings"]]
    assert sorted(names) == sorted(ecs.meta.service_model.shape_for("SettingName").enum)


@pytest.mark.parametrize("operation", ["put_account_setting", "put_account_setting_default"])
def test_a_setting_is_put_listed_and_deleted(ecs: Any, operation: str) -> None:
    assert ecs.list_account_settings()["settings"] == []
    put = getattr(ecs, operation)(name="containerInsights", value="enabled")["setting"]
    assert ecs.list_account_settings()["settings"] == [put]
    assert ecs.list_account_settings(name="containerInsights", value="disabled")["settings"] == []
    assert ecs.delete_account_setting(name="containerInsights")["setting"]["value"] == "enabled"
    assert ecs.list_account_settings()["settings"] == []


def test_new_clusters_get_the_accounts_container_insights(ecs: Any) -> None:
    ecs.put_account_setting(name="containerInsights", value="enhanced")
    assert ecs.create_cluster(clusterName="c")["cluster"]["settings"] == [
        {"name": "containerInsights", "value": "enhanced"}
    ]


def test_a_setting_homeport_cannot_honour_is_refused(ecs: Any, server: ApiServer) -> None:
    with server.unchanged():
        code, message = refused(ecs.put_account_setting, name="taskLongArnFormat", value="disabled")
        assert (code, "can be enabled" in message) == ("InvalidParameterException", True)
        code, message = refused(ecs.put_account_setting, name="containerInsights", value="x", principalArn=ROOT)
        assert "enabled or disabled or enhanced" in message


def test_a_strange_principal_is_refused(ecs: Any) -> None:
    code, message = refused(
        ecs.put_account_setting, name="containerInsights", value="enabled", principalArn=f"{ROOT}/user"
    )
    assert (code, ROOT in message) == ("InvalidParameterException", True)


def test_value_alone_and_large_pages_are_refused(ecs: Any) -> None:
    assert "together with name" in refused(ecs.list_account_settings, value="enabled")[1]
    assert "between 1 and 10" in refused(ecs.list_account_settings, maxResults=11)[1]


def test_agents_are_told_where_to_connect(ecs: Any, server: ApiServer) -> None:
    answer = ecs.discover_poll_endpoint()
    assert answer["endpoint"] == answer["telemetryEndpoint"] == server.context.endpoints.local_url
