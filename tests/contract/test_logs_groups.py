"""Log groups through boto3: making, finding, deleting."""

from typing import Any

import pytest

from tests.contract.logs import GROUP, GROUP_ARN, STREAM, made, millis, put
from tests.contract.refusals import refused
from tests.contract.server import ACCOUNT, ApiServer

NAMES = ["/app/api", "/app/web", "/app/web2", "batch#1", "zone.a-b_c"]


@pytest.fixture
def logs(server: ApiServer) -> Any:
    return server.client("logs")


@pytest.fixture
def named(logs: Any) -> Any:
    for name in reversed(NAMES):
        logs.create_log_group(logGroupName=name)
    return logs


def found(logs: Any, **request: Any) -> list[str]:
    return [group["logGroupName"] for group in logs.describe_log_groups(**request)["logGroups"]]


def listed(logs: Any, **request: Any) -> list[str]:
    return [group["logGroupName"] for group in logs.list_log_groups(**request)["logGroups"]]


# ---------------------------------------------------------------- CreateLogGroup


def test_a_group_is_described_as_cloudwatch_does(server: ApiServer, logs: Any) -> None:
    before = millis(server)
    logs.create_log_group(logGroupName=GROUP)
    (group,) = logs.describe_log_groups()["logGroups"]
    assert before <= group.pop("creationTime") <= millis(server)
    assert group == {
        "logGroupName": GROUP,
        "arn": f"{GROUP_ARN}:*",
        "logGroupArn": GROUP_ARN,
        "metricFilterCount": 0,
        "storedBytes": 0,
        "logGroupClass": "STANDARD",
        "deletionProtectionEnabled": False,
    }


def test_a_group_is_made_with_class_tags_and_protection(logs: Any) -> None:
    logs.create_log_group(
        logGroupName=GROUP, logGroupClass="INFREQUENT_ACCESS", tags={"team": "a"}, deletionProtectionEnabled=True
    )
    (group,) = logs.describe_log_groups()["logGroups"]
    assert (group["logGroupClass"], group["deletionProtectionEnabled"]) == ("INFREQUENT_ACCESS", True)
    assert logs.list_tags_for_resource(resourceArn=GROUP_ARN)["tags"] == {"team": "a"}


def test_a_group_is_made_once(logs: Any) -> None:
    logs.create_log_group(logGroupName=GROUP)
    assert refused(logs.create_log_group, logGroupName=GROUP) == (
        "ResourceAlreadyExistsException",
        "The specified log group already exists",
    )


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"logGroupName": "a b"}, "'logGroupName' failed to satisfy constraint"),
        ({"logGroupName": "x" * 513}, "length less than or equal to 512"),
        ({"logGroupName": "aws/mine"}, "reserved"),
        ({"logGroupName": "AWS/mine"}, "reserved"),
        ({"kmsKeyId": "arn:aws:kms:x"}, "kmsKeyId isn't served by Homeport"),
        ({"logGroupClass": "DELIVERY"}, "logGroupClass DELIVERY isn't served"),
        ({"logGroupClass": "NONSENSE"}, "enum value set"),
        ({"tags": {"aws:x": "1"}}, "tags: the key 'aws:x'"),
        ({"tags": {f"k{n}": "" for n in range(51)}}, "less than or equal to 50"),
    ],
)
def test_a_group_that_can_not_be_made_says_why(logs: Any, members: dict[str, Any], said: str) -> None:
    code, message = refused(logs.create_log_group, **{"logGroupName": GROUP, **members})
    assert (code, said in message) == ("InvalidParameterException", True), message
    assert found(logs) == []


def test_names_may_begin_with_a_slash_and_aws(logs: Any) -> None:
    logs.create_log_group(logGroupName="/aws/ecs/web")
    assert found(logs) == ["/aws/ecs/web"]


# ---------------------------------------------------------------- DeleteLogGroup


def test_a_deleted_group_takes_its_streams_along(server: ApiServer) -> None:
    logs = made(server)
    put(logs, [(millis(server), "gone")])
    logs.delete_log_group(logGroupName=GROUP)
    logs.create_log_group(logGroupName=GROUP)
    assert logs.describe_log_streams(logGroupName=GROUP)["logStreams"] == []
    assert logs.describe_log_groups()["logGroups"][0]["storedBytes"] == 0


def test_a_group_that_is_not_there_can_not_be_deleted(logs: Any) -> None:
    assert refused(logs.delete_log_group, logGroupName=GROUP) == (
        "ResourceNotFoundException",
        "The specified log group does not exist.",
    )


def test_a_protected_group_keeps_its_streams_and_itself(server: ApiServer) -> None:
    logs = made(server)
    logs.put_log_group_deletion_protection(logGroupIdentifier=GROUP_ARN, deletionProtectionEnabled=True)
    for call, members in ((logs.delete_log_group, {}), (logs.delete_log_stream, {"logStreamName": STREAM})):
        code, message = refused(call, logGroupName=GROUP, **members)
        assert (code, "deletion protection" in message) == ("ValidationException", True)
    logs.put_log_group_deletion_protection(logGroupIdentifier=GROUP, deletionProtectionEnabled=False)
    logs.delete_log_stream(logGroupName=GROUP, logStreamName=STREAM)
    logs.delete_log_group(logGroupName=GROUP)
    code, _ = refused(logs.put_log_group_deletion_protection, logGroupIdentifier=GROUP, deletionProtectionEnabled=True)
    assert code == "ResourceNotFoundException"


# ---------------------------------------------------------------- DescribeLogGroups


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, NAMES),
        ({"logGroupNamePrefix": "/app/web"}, ["/app/web", "/app/web2"]),
        ({"logGroupNamePattern": "web"}, ["/app/web", "/app/web2"]),
        ({"logGroupNamePattern": "Web"}, []),
        ({"logGroupNamePrefix": "web"}, []),
        ({"logGroupIdentifiers": ["batch#1", "/app/api", "none"]}, ["/app/api", "batch#1"]),
        ({"logGroupClass": "STANDARD"}, NAMES),
        ({"logGroupClass": "ESSENTIALS"}, []),
        ({"includeLinkedAccounts": True}, NAMES),
        ({"includeLinkedAccounts": True, "accountIdentifiers": [ACCOUNT]}, NAMES),
        ({"includeLinkedAccounts": True, "accountIdentifiers": ["000000000000"]}, []),
    ],
)
def test_groups_are_found(named: Any, request_: dict[str, Any], expected: list[str]) -> None:
    assert found(named, **request_) == expected


def test_groups_are_found_by_arn(server: ApiServer) -> None:
    logs = made(server)
    elsewhere = GROUP_ARN.replace(ACCOUNT, "000000000000")
    assert found(logs, logGroupIdentifiers=[GROUP_ARN, GROUP, elsewhere]) == [GROUP]


@pytest.mark.parametrize("log_class", ["INFREQUENT_ACCESS", "ESSENTIALS"])
def test_groups_that_are_rarely_read_are_found_by_either_class(named: Any, log_class: str) -> None:
    named.create_log_group(logGroupName="rare", logGroupClass="INFREQUENT_ACCESS")
    named.create_log_group(logGroupName="rarer", logGroupClass="ESSENTIALS")
    assert found(named, logGroupClass=log_class) == ["rare", "rarer"]
    assert listed(named, logGroupClass="ESSENTIALS") == ["rarer"]


def test_groups_come_in_pages(named: Any) -> None:
    pages = named.get_paginator("describe_log_groups").paginate(PaginationConfig={"PageSize": 2})
    assert [[group["logGroupName"] for group in page["logGroups"]] for page in pages] == [
        NAMES[:2],
        NAMES[2:4],
        NAMES[4:],
    ]


def test_a_full_last_page_has_no_token(named: Any) -> None:
    assert "nextToken" not in named.describe_log_groups(limit=len(NAMES))


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"logGroupNamePrefix": "a", "logGroupNamePattern": "b"}, "mutually exclusive"),
        ({"logGroupIdentifiers": ["a"], "logGroupNamePrefix": "b"}, "logGroupIdentifiers can't be given with"),
        ({"limit": 51}, "less than or equal to 50"),
        # With `:*` it is no identifier, at CloudWatch either.
        ({"logGroupIdentifiers": [f"{GROUP_ARN}:*"]}, "regular expression pattern"),
        ({"nextToken": "nonsense"}, "The specified nextToken is invalid."),
    ],
)
def test_groups_that_can_not_be_described(named: Any, request_: dict[str, Any], said: str) -> None:
    code, message = refused(named.describe_log_groups, **request_)
    assert (code, said in message) == ("InvalidParameterException", True), message


def test_a_token_of_another_operation_is_refused(named: Any) -> None:
    token = named.list_log_groups(limit=1)["nextToken"]
    code, message = refused(named.describe_log_groups, nextToken=token)
    assert (code, message) == ("InvalidParameterException", "The specified nextToken is invalid.")


# ---------------------------------------------------------------- ListLogGroups


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, NAMES),
        ({"logGroupNamePattern": "^/app|one"}, [*NAMES[:3], "zone.a-b_c"]),
        ({"logGroupNamePattern": "app"}, NAMES[:3]),
        ({"logGroupNamePattern": "^app"}, []),
        ({"logGroupTags": [{"key": "team"}]}, ["/app/api", "/app/web"]),
        ({"logGroupTags": [{"key": "team", "values": ["Core"]}]}, ["/app/api"]),
        ({"logGroupTags": [{"key": "team", "values": ["core"]}]}, []),
        ({"logGroupTags": [{"key": "team", "values": ["c*"]}]}, ["/app/api"]),
        ({"logGroupTags": [{"key": "team", "values": ["!Core"]}]}, ["/app/web"]),
        ({"logGroupTags": [{"key": "team", "values": ["!c*", "Core"]}]}, ["/app/api", "/app/web"]),
        ({"logGroupTags": [{"key": "team"}, {"key": "none"}]}, []),
    ],
)
def test_groups_are_listed(named: Any, request_: dict[str, Any], expected: list[str]) -> None:
    named.tag_log_group(logGroupName="/app/api", tags={"team": "Core"})
    named.tag_log_group(logGroupName="/app/web", tags={"team": "web"})
    assert listed(named, **request_) == expected


def test_lists_come_in_pages(named: Any) -> None:
    first = named.list_log_groups(limit=3)
    assert [group["logGroupName"] for group in first["logGroups"]] == NAMES[:3]
    assert listed(named, limit=3, nextToken=first["nextToken"]) == NAMES[3:]


def test_a_listed_group_has_its_name_arn_and_class(server: ApiServer) -> None:
    assert made(server).list_log_groups()["logGroups"] == [
        {"logGroupName": GROUP, "logGroupArn": GROUP_ARN, "logGroupClass": "STANDARD"}
    ]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"dataSources": [{"name": "x"}]}, "dataSources isn't served"),
        ({"fieldIndexNames": ["x"]}, "fieldIndexNames isn't served"),
        ({"logGroupNamePattern": "a b"}, "logGroupNamePattern"),
    ],
)
def test_lists_that_can_not_be_made(named: Any, request_: dict[str, Any], said: str) -> None:
    code, message = refused(named.list_log_groups, **request_)
    assert (code, said in message) == ("InvalidParameterException", True), message


# ---------------------------------------------------------------- the store


def test_a_store_that_is_full_says_so_and_clients_may_try_again(server: ApiServer, logs: Any) -> None:
    server.context.logs.problem = "the disk is full"  # type: ignore[attr-defined]
    with pytest.raises(logs.exceptions.ServiceUnavailableException, match="the disk is full") as caught:
        logs.create_log_group(logGroupName=GROUP)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
