"""Tags and retention of log groups through boto3."""

from typing import Any

import pytest

from tests.contract.logs import GROUP, GROUP_ARN, made
from tests.contract.refusals import refused
from tests.contract.server import ApiServer

NOT_FOUND = ("ResourceNotFoundException", "The specified log group does not exist.")


@pytest.fixture
def logs(server: ApiServer) -> Any:
    return made(server)


def tags(logs: Any) -> dict[str, str]:
    found: dict[str, str] = logs.list_tags_for_resource(resourceArn=GROUP_ARN)["tags"]
    assert logs.list_tags_log_group(logGroupName=GROUP)["tags"] == found
    return found


def test_tags_are_added_replaced_and_taken_off(logs: Any) -> None:
    assert tags(logs) == {}
    logs.tag_resource(resourceArn=GROUP_ARN, tags={"a": "1", "b": ""})
    logs.tag_log_group(logGroupName=GROUP, tags={"a": "2", "c": "3"})
    assert tags(logs) == {"a": "2", "b": "", "c": "3"}
    logs.untag_resource(resourceArn=GROUP_ARN, tagKeys=["a", "none"])
    logs.untag_log_group(logGroupName=GROUP, tags=["b"])
    assert tags(logs) == {"c": "3"}


def test_a_group_has_50_tags_at_most(logs: Any) -> None:
    logs.tag_resource(resourceArn=GROUP_ARN, tags={f"k{n}": "" for n in range(50)})
    with pytest.raises(logs.exceptions.TooManyTagsException, match="50 tags") as caught:
        logs.tag_resource(resourceArn=GROUP_ARN, tags={"k50": ""})
    assert caught.value.response["resourceName"] == GROUP
    logs.tag_resource(resourceArn=GROUP_ARN, tags={"k1": "new"})
    assert (len(tags(logs)), tags(logs)["k1"]) == (50, "new")


@pytest.mark.parametrize(
    ("arn", "refusal"),
    [
        (f"{GROUP_ARN}2", NOT_FOUND),
        (GROUP_ARN.replace("eu-home-1", "us-east-1"), NOT_FOUND),
        ("arn:aws:logs:eu-home-1:123456789012:destination:x", NOT_FOUND),
        (GROUP, ("InvalidParameterException", f"the ARN of a log group ({GROUP_ARN.replace(GROUP, 'NAME')})")),
    ],
)
def test_tags_are_of_log_groups_that_there_are(logs: Any, arn: str, refusal: tuple[str, str]) -> None:
    for call, members in (
        (logs.tag_resource, {"tags": {"a": "1"}}),
        (logs.untag_resource, {"tagKeys": ["a"]}),
        (logs.list_tags_for_resource, {}),
    ):
        code, message = refused(call, resourceArn=arn, **members)
        assert (code, refusal[1] in message) == (refusal[0], True)


def test_the_elder_operations_name_groups_that_there_are(logs: Any) -> None:
    assert refused(logs.tag_log_group, logGroupName="none", tags={"a": "1"}) == NOT_FOUND
    assert refused(logs.untag_log_group, logGroupName="none", tags=["a"]) == NOT_FOUND
    assert refused(logs.list_tags_log_group, logGroupName="none") == NOT_FOUND


def test_reserved_keys_are_refused(logs: Any) -> None:
    code, message = refused(logs.tag_resource, resourceArn=GROUP_ARN, tags={"AWS:x": "1"})
    assert (code, "'AWS:x'" in message) == ("InvalidParameterException", True)


def test_a_retention_is_put_and_taken_back(logs: Any) -> None:
    logs.put_retention_policy(logGroupName=GROUP, retentionInDays=7)
    assert logs.describe_log_groups()["logGroups"][0]["retentionInDays"] == 7
    logs.delete_retention_policy(logGroupName=GROUP)
    assert "retentionInDays" not in logs.describe_log_groups()["logGroups"][0]


@pytest.mark.parametrize("days", [0, 2, -1, 3654])
def test_a_retention_is_one_of_a_few(logs: Any, days: int) -> None:
    code, message = refused(logs.put_retention_policy, logGroupName=GROUP, retentionInDays=days)
    assert (code, "'retentionInDays'" in message, "3288, 3653]" in message) == ("InvalidParameterException", True, True)


def test_a_retention_is_of_a_group_that_there_is(logs: Any) -> None:
    assert refused(logs.put_retention_policy, logGroupName="none", retentionInDays=7) == NOT_FOUND
    assert refused(logs.delete_retention_policy, logGroupName="none") == NOT_FOUND


def test_what_is_changed_leaves_the_rest(logs: Any) -> None:
    logs.tag_resource(resourceArn=GROUP_ARN, tags={"a": "1"})
    logs.put_retention_policy(logGroupName=GROUP, retentionInDays=3)
    logs.put_log_group_deletion_protection(logGroupIdentifier=GROUP, deletionProtectionEnabled=True)
    (group,) = logs.describe_log_groups()["logGroups"]
    assert (group["retentionInDays"], group["deletionProtectionEnabled"], tags(logs)) == (3, True, {"a": "1"})
