"""EventBridge Scheduler's operations, through boto3."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from controlplane.api.scheduler import MAX_GROUPS
from tests.contract.schedules import CLUSTER, ROLE, WEB, ecs_target, schedule
from tests.contract.server import ACCESS_KEY_ID, ACCOUNT, REGION, SECRET, ApiServer, sign

ARN = f"arn:aws:scheduler:{REGION}:{ACCOUNT}"


@pytest.fixture
def scheduler(server: ApiServer) -> Any:
    return server.client("scheduler")


def refused(call: Any, **arguments: Any) -> tuple[int, str, str]:
    """Make a call that must be refused; return the HTTP status, the error's name and its message."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    assert type(caught.value).__name__ in (response["Error"]["Code"], "ClientError")
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"], response["Error"]["Message"]


def invalid(call: Any, **arguments: Any) -> str:
    """Make a call that must be refused as a ValidationException; return the message."""
    status, code, message = refused(call, **arguments)
    assert (status, code) == (400, "ValidationException")
    return message


def tomorrow(**more: float) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=1) + timedelta(**more)


# ---------------------------------------------------------------- schedules


def test_a_schedule_is_described_as_it_was_given_with_aws_defaults(scheduler: Any) -> None:
    answer = scheduler.create_schedule(**schedule())
    assert answer["ScheduleArn"] == f"{ARN}:schedule/default/job"
    found = scheduler.get_schedule(Name="job")
    del found["ResponseMetadata"]
    created = found.pop("CreationDate")
    assert found.pop("LastModificationDate") == created
    assert abs((datetime.now(UTC) - created).total_seconds()) < 60
    assert found == {
        "Arn": f"{ARN}:schedule/default/job",
        "Name": "job",
        "GroupName": "default",
        "State": "ENABLED",
        "ScheduleExpression": "rate(5 minutes)",
        "ScheduleExpressionTimezone": "UTC",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ActionAfterCompletion": "NONE",
        "Target": {
            "Arn": CLUSTER,
            "RoleArn": ROLE,
            "EcsParameters": {"TaskDefinitionArn": WEB, "TaskCount": 1},
            "RetryPolicy": {"MaximumEventAgeInSeconds": 86400, "MaximumRetryAttempts": 185},
        },
    }


def test_everything_that_can_be_said_is_kept(scheduler: Any) -> None:
    parameters = {
        "TaskCount": 10,
        "LaunchType": "FARGATE",
        "NetworkConfiguration": {"awsvpcConfiguration": {"Subnets": ["subnet-1"], "AssignPublicIp": "ENABLED"}},
        "PlatformVersion": "LATEST",
        "Group": "batch",
        "EnableECSManagedTags": True,
        "EnableExecuteCommand": False,
        "PlacementConstraints": [{"type": "distinctInstance"}],
        "PlacementStrategy": [{"type": "spread", "field": "instanceId"}],
        "PropagateTags": "TASK_DEFINITION",
        "ReferenceId": "ref",
        "Tags": [{"key": "team", "value": "red"}],
    }
    given = schedule(
        Description="nightly",
        ScheduleExpression="cron(0 3 ? * MON-FRI *)",
        ScheduleExpressionTimezone="Europe/Berlin",
        StartDate=tomorrow(),
        EndDate=tomorrow(days=30),
        State="DISABLED",
        ActionAfterCompletion="DELETE",
        FlexibleTimeWindow={"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 15},
        Target=ecs_target(
            ecs=parameters,
            Input='{"containerOverrides": [{"name": "web", "cpu": 10}]}',
            DeadLetterConfig={"Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:dead"},
            RetryPolicy={"MaximumEventAgeInSeconds": 60, "MaximumRetryAttempts": 0},
        ),
    )
    scheduler.create_schedule(**given)
    found = scheduler.get_schedule(Name="job")
    assert {name: found[name] for name in given} == given


def test_update_replaces_everything_and_defaults_what_is_not_given(server: ApiServer, scheduler: Any) -> None:
    window = {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 5}
    scheduler.create_schedule(**schedule(Description="old", FlexibleTimeWindow=window, State="DISABLED"))
    created = scheduler.get_schedule(Name="job")["CreationDate"]
    server.clock.move(60)
    answer = scheduler.update_schedule(**schedule(ScheduleExpression="rate(1 hours)"))
    assert answer["ScheduleArn"] == f"{ARN}:schedule/default/job"
    found = scheduler.get_schedule(Name="job")
    assert "Description" not in found
    assert (found["State"], found["FlexibleTimeWindow"]) == ("ENABLED", {"Mode": "OFF"})
    assert found["ScheduleExpression"] == "rate(1 hours)"
    assert found["CreationDate"] == created
    assert found["LastModificationDate"] - created >= timedelta(seconds=60)


def next_due(server: ApiServer) -> float:
    record = server.context.state.schedules.get("default/job")
    assert record is not None
    assert record.next_at is not None
    return record.next_at


def test_a_rate_keeps_its_beat_when_something_else_changes(server: ApiServer, scheduler: Any) -> None:
    start = tomorrow()
    scheduler.create_schedule(**schedule(StartDate=start))
    assert next_due(server) == start.timestamp()
    scheduler.update_schedule(**schedule(StartDate=start, Description="new"))
    assert next_due(server) == start.timestamp()
    server.clock.move(2 * 86400)  # a StartDate that was right once stays so
    scheduler.update_schedule(**schedule(StartDate=start, Description="newer"))
    assert next_due(server) == start.timestamp()
    scheduler.update_schedule(**schedule(Description="new"))
    assert abs(next_due(server) - server.clock.now()) < 60


def test_delete(server: ApiServer, scheduler: Any) -> None:
    scheduler.create_schedule(**schedule())
    assert scheduler.delete_schedule(Name="job")["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert refused(scheduler.get_schedule, Name="job")[0] == 404
    assert len(server.context.state.schedules) == 0


def test_what_is_not_there(scheduler: Any) -> None:
    missing = (404, "ResourceNotFoundException", "Schedule job does not exist.")
    assert refused(scheduler.get_schedule, Name="job") == missing
    assert refused(scheduler.delete_schedule, Name="job") == missing
    assert refused(scheduler.update_schedule, **schedule()) == missing
    no_group = (404, "ResourceNotFoundException", "Schedule group jobs does not exist.")
    assert refused(scheduler.get_schedule, Name="job", GroupName="jobs") == no_group
    assert refused(scheduler.create_schedule, **schedule(GroupName="jobs")) == no_group
    assert refused(scheduler.list_schedules, GroupName="jobs") == no_group
    assert refused(scheduler.get_schedule_group, Name="jobs") == no_group
    assert refused(scheduler.delete_schedule_group, Name="jobs") == no_group


def test_a_name_is_taken_once_in_each_group(scheduler: Any) -> None:
    scheduler.create_schedule(**schedule())
    conflict = (409, "ConflictException", "Schedule job already exists.")
    assert refused(scheduler.create_schedule, **schedule()) == conflict
    scheduler.create_schedule_group(Name="jobs")
    scheduler.create_schedule(**schedule(GroupName="jobs"))
    taken = (409, "ConflictException", "Schedule group jobs already exists.")
    assert refused(scheduler.create_schedule_group, Name="jobs") == taken
    assert refused(scheduler.create_schedule_group, Name="default")[1] == "ConflictException"


def test_a_client_token_makes_a_repetition_harmless(server: ApiServer, scheduler: Any) -> None:
    first = scheduler.create_schedule(**schedule(ClientToken="one"))
    with server.unchanged():
        assert scheduler.create_schedule(**schedule(ClientToken="one"))["ScheduleArn"] == first["ScheduleArn"]
    status, code, message = refused(scheduler.create_schedule, **schedule(ClientToken="one", State="DISABLED"))
    assert (status, code) == (409, "ConflictException")
    assert "ClientToken one was used" in message
    scheduler.delete_schedule(Name="job", ClientToken="two")
    with server.unchanged():
        scheduler.delete_schedule(Name="job", ClientToken="two")
    assert refused(scheduler.delete_schedule, Name="job", ClientToken="three")[1] == "ResourceNotFoundException"


def test_lists_by_group_prefix_and_state_in_pages(scheduler: Any) -> None:
    scheduler.create_schedule_group(Name="jobs")
    for name in ("a1", "a2", "b1"):
        scheduler.create_schedule(**schedule(Name=name, State="DISABLED" if name == "a2" else "ENABLED"))
        scheduler.create_schedule(**schedule(Name=name, GroupName="jobs"))

    def names(**filters: Any) -> list[str]:
        pages = scheduler.get_paginator("list_schedules").paginate(PaginationConfig={"PageSize": 2}, **filters)
        return [f"{each['GroupName']}/{each['Name']}" for page in pages for each in page["Schedules"]]

    assert names() == ["default/a1", "default/a2", "default/b1", "jobs/a1", "jobs/a2", "jobs/b1"]
    assert names(GroupName="jobs", NamePrefix="a") == ["jobs/a1", "jobs/a2"]
    assert names(State="DISABLED") == ["default/a2"]
    (first, *_) = scheduler.list_schedules(MaxResults=1)["Schedules"]
    assert first["Target"] == {"Arn": CLUSTER}
    assert first["State"] == "ENABLED"
    assert "NextToken" in invalid(scheduler.list_schedules, NextToken="nonsense")


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"ScheduleExpression": "rate(5)"}, "Invalid Schedule Expression rate(5). Reason: a rate is"),
        ({"ScheduleExpression": "cron(* * * * * *)"}, "exactly one of day-of-month and day-of-week must be ?"),
        ({"ScheduleExpression": "often"}, "it must be cron(...), rate(...) or at(...)"),
        ({"ScheduleExpressionTimezone": "Mars/Olympus"}, "'Mars/Olympus' is not the name of a time zone"),
        ({"FlexibleTimeWindow": {"Mode": "FLEXIBLE"}}, "MaximumWindowInMinutes must be given"),
        ({"FlexibleTimeWindow": {"Mode": "OFF", "MaximumWindowInMinutes": 5}}, "can't be given with the Mode OFF"),
        ({"FlexibleTimeWindow": {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 1441}}, "less than or equal to 1440"),
        ({"StartDate": datetime(2020, 1, 1, tzinfo=UTC)}, "The StartDate you specify cannot be earlier than 5 minutes"),
        ({"StartDate": tomorrow(hours=1), "EndDate": tomorrow()}, "EndDate you specify must be later"),
        ({"KmsKeyArn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/a"}, "KmsKeyArn isn't supported"),
        ({"Name": "a b"}, "Member must satisfy regular expression pattern"),
        ({"State": "PAUSED"}, "enum value set: [ENABLED, DISABLED]"),
    ],
)
def test_schedules_that_are_refused(server: ApiServer, scheduler: Any, members: dict[str, Any], why: str) -> None:
    with server.unchanged():
        assert why in invalid(scheduler.create_schedule, **schedule(**members))


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ({"Arn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f"}, "a target is an ECS cluster of this account"),
        ({"Arn": "arn:aws:scheduler:::aws-sdk:ecs:runTask"}, "a target is an ECS cluster of this account"),
        ({"Arn": f"arn:aws:ecs:us-east-1:{ACCOUNT}:cluster/default"}, "a target is an ECS cluster of this account"),
        ({"KinesisParameters": {"PartitionKey": "a"}}, "KinesisParameters isn't served"),
        ({"EcsParameters": None}, "Parameter(s) EcsParameters must be specified for target"),
        ({"ecs": {"TaskCount": 11}}, "less than or equal to 10"),
        (
            {"ecs": {"PlacementStrategy": [{"type": "binpack", "field": "disk"}]}},
            "binpack's field must be cpu or memory",
        ),
        ({"ecs": {"PlacementConstraints": [{"type": "memberOf", "expression": "("}]}}, "Invalid expression"),
        ({"ecs": {"Tags": [{"homeport:overlap": "never"}]}}, "homeport:overlap must be one of allow, skip, replace"),
        (
            {"ecs": {"LaunchType": "EC2", "CapacityProviderStrategy": [{"capacityProvider": "a"}]}},
            "can't be given both",
        ),
        ({"Input": "hello"}, "Input is not valid JSON"),
        ({"Input": "[]"}, "Input must be a JSON object"),
        ({"Input": '{"detail": 1}'}, "Input has the member 'detail', which an ECS target has no use for"),
        ({"Input": '{"containerOverrides": {}}'}, "can not be converted to a List"),
        ({"RetryPolicy": {"MaximumEventAgeInSeconds": 86401}}, "less than or equal to 86400"),
        ({"DeadLetterConfig": {"Arn": "queue"}}, "regular expression pattern"),
        ({"RoleArn": "me"}, "regular expression pattern"),
    ],
)
def test_targets_that_are_refused(server: ApiServer, scheduler: Any, target: dict[str, Any], why: str) -> None:
    given = {name: value for name, value in ecs_target(**target).items() if value is not None}
    with server.unchanged():
        assert why in invalid(scheduler.create_schedule, **schedule(Target=given))


# ---------------------------------------------------------------- groups


def test_groups(scheduler: Any) -> None:
    assert scheduler.get_schedule_group(Name="default")["State"] == "ACTIVE"
    answer = scheduler.create_schedule_group(Name="jobs", Tags=[{"Key": "team", "Value": "red"}])
    assert answer["ScheduleGroupArn"] == f"{ARN}:schedule-group/jobs"
    found = scheduler.get_schedule_group(Name="jobs")
    assert (found["Arn"], found["Name"], found["State"]) == (answer["ScheduleGroupArn"], "jobs", "ACTIVE")
    assert found["CreationDate"] == found["LastModificationDate"]
    scheduler.create_schedule_group(Name="a")
    pages = scheduler.get_paginator("list_schedule_groups").paginate(PaginationConfig={"PageSize": 1})
    assert [group["Name"] for page in pages for group in page["ScheduleGroups"]] == ["a", "default", "jobs"]
    listed = scheduler.list_schedule_groups(NamePrefix="j")["ScheduleGroups"]
    assert [group["Name"] for group in listed] == ["jobs"]


def test_a_group_goes_with_its_schedules(server: ApiServer, scheduler: Any) -> None:
    scheduler.create_schedule_group(Name="jobs")
    scheduler.create_schedule(**schedule(GroupName="jobs"))
    scheduler.create_schedule(**schedule())
    scheduler.delete_schedule_group(Name="jobs")
    assert [record.key for record in server.context.state.schedules] == ["default/job"]
    assert refused(scheduler.get_schedule_group, Name="jobs")[0] == 404
    assert "can't be deleted" in invalid(scheduler.delete_schedule_group, Name="default")


def test_there_is_a_quota_of_groups(server: ApiServer, scheduler: Any) -> None:
    from controlplane.state.schedule_records import ScheduleGroupRecord

    def fill() -> None:
        with server.context.state.transaction() as transaction:
            for number in range(MAX_GROUPS):
                transaction.put(ScheduleGroupRecord(name=f"g{number}", created_at=1.0))

    server.call(fill)
    status, code, message = refused(scheduler.create_schedule_group, Name="one-more")
    assert (status, code) == (402, "ServiceQuotaExceededException")
    assert str(MAX_GROUPS) in message


@pytest.mark.parametrize("name", ["jobs", "default"])
def test_tags_of_groups(scheduler: Any, name: str) -> None:
    if name != "default":
        scheduler.create_schedule_group(Name=name)
    arn = f"{ARN}:schedule-group/{name}"
    assert scheduler.list_tags_for_resource(ResourceArn=arn)["Tags"] == []
    scheduler.tag_resource(ResourceArn=arn, Tags=[{"Key": "a b/ü", "Value": "1"}, {"Key": "c", "Value": "2"}])
    scheduler.tag_resource(ResourceArn=arn, Tags=[{"Key": "c", "Value": "3"}])
    both = [{"Key": "a b/ü", "Value": "1"}, {"Key": "c", "Value": "3"}]
    assert scheduler.list_tags_for_resource(ResourceArn=arn)["Tags"] == both
    scheduler.untag_resource(ResourceArn=arn, TagKeys=["a b/ü", "nothing"])
    assert scheduler.list_tags_for_resource(ResourceArn=arn)["Tags"] == [{"Key": "c", "Value": "3"}]


def test_tags_that_are_refused(scheduler: Any) -> None:
    arn = f"{ARN}:schedule-group/default"
    tag = scheduler.tag_resource
    assert "reserved" in invalid(tag, ResourceArn=arn, Tags=[{"Key": "aws:a", "Value": "1"}])
    many = [{"Key": str(number), "Value": "1"} for number in range(51)]
    assert "limit of 50" in invalid(tag, ResourceArn=arn, Tags=many)
    policy = [{"Key": "homeport:missed", "Value": "often"}]
    assert "homeport:missed must be one of run-once, skip" in invalid(tag, ResourceArn=arn, Tags=policy)
    assert "regular expression" in invalid(tag, ResourceArn=f"{ARN}:schedule/default/job", Tags=[])
    status, code, _ = refused(tag, ResourceArn=f"arn:aws:scheduler:us-east-1:{ACCOUNT}:schedule-group/x", Tags=[])
    assert (status, code) == (404, "ResourceNotFoundException")


# ---------------------------------------------------------------- the protocol


def signed(server: ApiServer, method: str, path: str, body: bytes = b"", **how: Any) -> Any:
    how = {"service": "scheduler", **how}
    headers = sign(server.url + path, None, body, method=method, **how)
    return server.send(method, path, headers, body)


def test_an_error_has_aws_form(server: ApiServer) -> None:
    answer = signed(server, "GET", "/schedules/job")
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (404, "ResourceNotFoundException")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["Message"] == "Schedule job does not exist."
    assert answer.headers["x-amzn-requestid"]


def test_a_path_that_no_operation_has(server: ApiServer) -> None:
    for method, path in (("PATCH", "/schedules/job"), ("GET", "/"), ("GET", "/nothing"), ("POST", "/")):
        answer = signed(server, method, path)
        assert (answer.status, answer.headers["x-amzn-errortype"]) == (404, "UnknownOperationException"), path


def test_signatures_cover_path_and_query(server: ApiServer, scheduler: Any) -> None:
    scheduler.create_schedule_group(Name="a.b_c-d")
    path = "/schedules?NamePrefix=a&ScheduleGroup=a.b_c-d&MaxResults=5"
    assert signed(server, "GET", path).status == 200
    headers = sign(server.url + path, None, b"", method="GET", service="scheduler")
    answer = server.send("GET", path.replace("MaxResults=5", "MaxResults=6"), headers, b"")
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (403, "InvalidSignatureException")
    answer = signed(server, "GET", "/schedules", key="AKIAUNKNOWN")
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (403, "UnrecognizedClientException")


def test_paths_of_no_rest_service_are_not_found(server: ApiServer) -> None:
    assert server.send("GET", "/schedules", {}, b"").status == 404
    assert signed(server, "GET", "/schedules", service="ecs").status == 404
    assert signed(server, "GET", "/schedules", service="nothing").status == 404


def test_a_body_that_cannot_be_read(server: ApiServer) -> None:
    for body in (b"{", b"[]", b'{"Target": 3}'):
        answer = signed(server, "POST", "/schedules/job", body)
        assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "SerializationException")


def test_a_query_that_cannot_be_read(server: ApiServer) -> None:
    answer = signed(server, "GET", "/schedules?MaxResults=many")
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "SerializationException")
    answer = signed(server, "GET", "/schedules?MaxResults=0")
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "ValidationException")
    assert json.loads(answer.body)["Message"].startswith("1 validation error detected: Value '0' at 'MaxResults'")


def aws(server: ApiServer, *arguments: str) -> Any:
    """Run the AWS CLI against the server and return what it prints."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "AWS_ENDPOINT_URL": server.url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_MAX_ATTEMPTS": "1",
    }
    command = [str(Path(sys.executable).with_name("aws")), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout) if done.stdout.strip() else None


def test_the_aws_cli_works_unchanged(server: ApiServer, scheduler: Any) -> None:
    target = json.dumps(ecs_target())
    expression = ("--schedule-expression", "cron(0 3 * * ? *)", "--schedule-expression-timezone", "Europe/Berlin")
    window = ("--flexible-time-window", "Mode=OFF")
    aws(server, "scheduler", "create-schedule", "--name", "cli", *expression, *window, "--target", target)
    assert scheduler.get_schedule(Name="cli")["ScheduleExpressionTimezone"] == "Europe/Berlin"
    aws(server, "events", "put-rule", "--name", "cli", "--schedule-expression", "rate(5 minutes)")
    targets = json.dumps([{"Id": "one", **ecs_target()}])
    answer = aws(server, "events", "put-targets", "--rule", "cli", "--targets", targets)
    assert answer == {"FailedEntryCount": 0, "FailedEntries": []}


def test_names_with_anything_in_them_reach_validation(server: ApiServer) -> None:
    for path in ("/schedules/a%0Ab", "/schedules/a%2Fb", "/schedules/%F0%9F%98%80", "/schedules/a%20b"):
        answer = signed(server, "GET", path)
        assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "ValidationException"), path
