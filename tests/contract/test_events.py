"""EventBridge's rules, through boto3."""

from typing import Any

import pytest

from controlplane.api.events.rules import MAX_RULES
from tests.contract.refusals import invalid, refused
from tests.contract.schedules import CLUSTER, ecs_target
from tests.contract.server import ACCOUNT, REGION, ApiServer

ARN = f"arn:aws:events:{REGION}:{ACCOUNT}:rule/nightly"
NIGHTLY = "cron(0 3 * * ? *)"


def put(events: Any, **members: Any) -> str:
    arn: str = events.put_rule(**{"Name": "nightly", "ScheduleExpression": NIGHTLY, **members})["RuleArn"]
    return arn


def test_a_rule_is_described_as_it_was_given(events: Any) -> None:
    assert put(events, Description="every night", RoleArn="role") == ARN
    found = events.describe_rule(Name="nightly")
    del found["ResponseMetadata"]
    assert found == {
        "Name": "nightly",
        "Arn": ARN,
        "ScheduleExpression": NIGHTLY,
        "State": "ENABLED",
        "Description": "every night",
        "RoleArn": "role",
        "EventBusName": "default",
        "CreatedBy": ACCOUNT,
    }


def test_putting_a_rule_again_changes_it_and_keeps_its_targets_and_tags(server: ApiServer, events: Any) -> None:
    put(events, Tags=[{"Key": "a", "Value": "1"}], Description="old")
    events.put_targets(Rule="nightly", Targets=[{"Id": "one", **ecs_target()}])
    due = server.context.state.rules.get("nightly").next_at  # type: ignore[union-attr]
    put(events, State="DISABLED")
    assert server.context.state.rules.get("nightly").next_at == due  # type: ignore[union-attr]
    put(events, ScheduleExpression="rate(2 hours)", Tags=[{"Key": "b", "Value": "1"}])
    found = events.describe_rule(Name="nightly", EventBusName="default")
    assert (found["ScheduleExpression"], found["State"]) == ("rate(2 hours)", "DISABLED")
    assert "Description" not in found
    assert len(events.list_targets_by_rule(Rule="nightly")["Targets"]) == 1
    assert events.list_tags_for_resource(ResourceARN=ARN)["Tags"] == [{"Key": "a", "Value": "1"}]
    rule = server.context.state.rules.get("nightly")
    assert rule is not None
    assert rule.next_at == pytest.approx(server.clock.now() + 7200, abs=60)


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"ScheduleExpression": "rate(1 minutes)"}, "Parameter ScheduleExpression is not valid."),
        ({"ScheduleExpression": "cron(0 3 * * * *)"}, "Parameter ScheduleExpression is not valid."),
        ({"ScheduleExpression": "at(2030-01-01T00:00:00)"}, "at(...) is EventBridge Scheduler's"),
        ({"ScheduleExpression": ""}, "Parameter(s) EventPattern or ScheduleExpression must be specified."),
        ({"EventBusName": "mine"}, "ScheduleExpression is supported only on the default event bus."),
        ({"State": "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"}, "use ENABLED or DISABLED"),
        ({"Tags": [{"Key": "homeport:overlap", "Value": "no"}]}, "homeport:overlap must be one of"),
    ],
)
def test_rules_that_are_refused(server: ApiServer, events: Any, members: dict[str, Any], why: str) -> None:
    arguments = {"Name": "nightly", "ScheduleExpression": NIGHTLY, **members}
    with server.unchanged():
        assert why in invalid(events.put_rule, **arguments)


def test_there_is_a_quota_of_rules(server: ApiServer, events: Any) -> None:
    put(events)
    rule = server.context.state.rules.get("nightly")
    assert rule is not None

    def fill() -> None:
        from msgspec.structs import replace

        with server.context.state.transaction() as transaction:
            for number in range(MAX_RULES - 1):
                transaction.put(replace(rule, name=f"r{number}"))

    server.call(fill)
    assert refused(events.put_rule, Name="more", ScheduleExpression=NIGHTLY)[0] == "LimitExceededException"
    put(events, Description="that is there may still be changed")


def test_targets_are_added_replaced_listed_and_removed(events: Any) -> None:
    put(events)
    one = {"Id": "one", **ecs_target(Input='{"containerOverrides": []}')}
    two = {"Id": "two", **ecs_target(ecs={"TaskCount": 2, "Tags": [{"Key": "a", "Value": "b"}]})}
    answer = events.put_targets(Rule="nightly", Targets=[two, {**one, "RoleArn": "other"}])
    assert (answer["FailedEntryCount"], answer["FailedEntries"]) == (0, [])
    events.put_targets(Rule="nightly", Targets=[one])
    assert events.list_targets_by_rule(Rule="nightly")["Targets"] == [one, two]
    first = events.list_targets_by_rule(Rule="nightly", Limit=1)
    second = events.list_targets_by_rule(Rule="nightly", Limit=1, NextToken=first["NextToken"])
    assert [first["Targets"], second["Targets"]] == [[one], [two]]
    assert "NextToken" not in second
    answer = events.remove_targets(Rule="nightly", Ids=["one", "three"])
    assert answer["FailedEntryCount"] == 1
    (failed,) = answer["FailedEntries"]
    assert (failed["TargetId"], failed["ErrorCode"]) == ("three", "ResourceNotFoundException")
    assert events.list_targets_by_rule(Rule="nightly")["Targets"] == [two]


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (
            {"Arn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f"},
            "isn't served by Homeport: a target is an ECS cluster",
        ),
        ({"EcsParameters": None}, "Parameter(s) EcsParameters must be specified for target: one."),
        ({"ecs": {"TaskCount": 11}}, "TaskCount must be between 1 and 10"),
        ({"Input": "{}{"}, "Invalid Input for target one : it is not valid JSON"),
        ({"InputPath": "$.detail"}, "InputPath isn't served by Homeport for an ECS target of a rule with a Schedule"),
        ({"InputTransformer": {"InputTemplate": "{}"}}, "InputTransformer isn't served"),
        ({"SqsParameters": {"MessageGroupId": "a"}}, "SqsParameters isn't served"),
    ],
)
def test_targets_that_are_refused(server: ApiServer, events: Any, target: dict[str, Any], why: str) -> None:
    put(events)
    given = {name: value for name, value in ecs_target(**target).items() if value is not None}
    with server.unchanged():
        targets = [{"Id": "good", **ecs_target()}, {"Id": "one", **given}]
        assert why in invalid(events.put_targets, Rule="nightly", Targets=targets)


def test_a_rule_has_at_most_five_targets(events: Any) -> None:
    put(events)
    targets = [{"Id": str(number), **ecs_target()} for number in range(6)]
    assert refused(events.put_targets, Rule="nightly", Targets=targets)[0] == "LimitExceededException"
    events.put_targets(Rule="nightly", Targets=targets[:5])


def test_lists_of_rules(events: Any) -> None:
    for name in ("a1", "a2", "b1"):
        put(events, Name=name)
    events.put_targets(Rule="a2", Targets=[{"Id": "one", **ecs_target()}])
    pages = events.get_paginator("list_rules").paginate(PaginationConfig={"PageSize": 2})
    assert [rule["Name"] for page in pages for rule in page["Rules"]] == ["a1", "a2", "b1"]
    assert [rule["Name"] for rule in events.list_rules(NamePrefix="b")["Rules"]] == ["b1"]
    assert events.list_rule_names_by_target(TargetArn=CLUSTER)["RuleNames"] == ["a2"]
    assert events.list_rule_names_by_target(TargetArn="arn:aws:ecs:nothing")["RuleNames"] == []


def test_a_rule_is_deleted_once_it_has_no_targets(events: Any) -> None:
    put(events)
    events.put_targets(Rule="nightly", Targets=[{"Id": "one", **ecs_target()}])
    assert invalid(events.delete_rule, Name="nightly") == "Rule can't be deleted since it has targets."
    events.remove_targets(Rule="nightly", Ids=["one"])
    events.delete_rule(Name="nightly")
    events.delete_rule(Name="nightly")  # is passed over, as in AWS
    assert events.list_rules()["Rules"] == []


def test_what_is_not_there(events: Any) -> None:
    missing = ("ResourceNotFoundException", "Rule nightly does not exist on EventBus default.")
    assert refused(events.describe_rule, Name="nightly") == missing
    assert refused(events.enable_rule, Name="nightly") == missing
    assert refused(events.disable_rule, Name="nightly") == missing
    assert refused(events.list_targets_by_rule, Rule="nightly") == missing
    assert refused(events.remove_targets, Rule="nightly", Ids=["one"]) == missing
    assert refused(events.put_targets, Rule="nightly", Targets=[{"Id": "a", **ecs_target()}]) == missing
    assert refused(events.list_tags_for_resource, ResourceARN=ARN) == missing
    no_bus = ("ResourceNotFoundException", "Event bus mine does not exist.")
    assert refused(events.list_rules, EventBusName="mine") == no_bus
    assert refused(events.describe_rule, Name="nightly", EventBusName="mine") == no_bus


def test_enable_and_disable(events: Any) -> None:
    put(events, State="DISABLED")
    assert events.describe_rule(Name="nightly")["State"] == "DISABLED"
    events.enable_rule(Name="nightly", EventBusName=f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/default")
    assert events.describe_rule(Name="nightly")["State"] == "ENABLED"
    events.disable_rule(Name="nightly")
    assert events.describe_rule(Name="nightly")["State"] == "DISABLED"


def test_tags(events: Any) -> None:
    put(events, Tags=[{"Key": "a", "Value": "1"}])
    events.tag_resource(ResourceARN=ARN, Tags=[{"Key": "b", "Value": ""}])
    events.untag_resource(ResourceARN=ARN, TagKeys=["a"])
    assert events.list_tags_for_resource(ResourceARN=ARN)["Tags"] == [{"Key": "b", "Value": ""}]
    assert "reserved" in invalid(events.tag_resource, ResourceARN=ARN, Tags=[{"Key": "aws:x", "Value": ""}])
