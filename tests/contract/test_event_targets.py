"""EventBridge's patterns, connections, API destinations and targets of events, through boto3."""

import json
from typing import Any

import pytest

from controlplane.api.events.destinations import MAX_DESTINATIONS
from controlplane.api.events.put_events import MAX_BYTES
from controlplane.events.feed import JournalFeed
from tests.contract.refusals import invalid, refused
from tests.contract.schedules import CLUSTER, ecs_target
from tests.contract.server import ACCOUNT, REGION, ApiServer

ECS = '{"source": ["aws.ecs"]}'
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEY = {"ApiKeyAuthParameters": {"ApiKeyName": "x-key", "ApiKeyValue": "not to be seen"}}
LOGS = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/events/all"
EVENT = {
    "id": "1",
    "account": ACCOUNT,
    "source": "aws.ecs",
    "time": "2026-01-01T00:00:00Z",
    "region": REGION,
    "resources": [],
    "detail-type": "ECS Task State Change",
}


def connect(events: Any, **members: Any) -> str:
    given = {"Name": "c", "AuthorizationType": "API_KEY", "AuthParameters": KEY, **members}
    arn: str = events.create_connection(**given)["ConnectionArn"]
    return arn


def destination(events: Any, **members: Any) -> str:
    given = {"Name": "d", "InvocationEndpoint": "https://hooks.example.com/in", "HttpMethod": "POST", **members}
    if "ConnectionArn" not in given:
        given["ConnectionArn"] = connect(events)
    arn: str = events.create_api_destination(**given)["ApiDestinationArn"]
    return arn


def shown(answer: dict[str, Any]) -> dict[str, Any]:
    times = {"CreationTime", "LastModifiedTime", "LastAuthorizedTime", "ResponseMetadata"}
    return {name: value for name, value in answer.items() if name not in times}


# ---------------------------------------------------------------- patterns


def test_a_pattern_is_tried(events: Any) -> None:
    def tried(pattern: str, event: Any = EVENT) -> bool:
        return bool(events.test_event_pattern(EventPattern=pattern, Event=json.dumps(event))["Result"])

    assert tried(ECS)
    assert not tried('{"source": ["aws.ec2"]}')
    code, message = refused(events.test_event_pattern, EventPattern="{}", Event=json.dumps(EVENT))
    assert code == "InvalidEventPatternException"
    assert message == "Event pattern is not valid. Reason: an empty object is not allowed."
    assert "it must have id" in invalid(events.test_event_pattern, EventPattern=ECS, Event='{"source": "x"}')
    assert "not valid JSON" in invalid(events.test_event_pattern, EventPattern=ECS, Event="{")
    assert "not valid JSON" in invalid(events.test_event_pattern, EventPattern=ECS, Event='{"a":' * 5000)
    assert "must be a JSON object" in invalid(events.test_event_pattern, EventPattern=ECS, Event="[]")


def test_a_rule_has_a_pattern_a_schedule_or_both(server: ApiServer, events: Any) -> None:
    events.put_rule(Name="r", EventPattern=ECS)
    found = events.describe_rule(Name="r")
    assert (found["EventPattern"], "ScheduleExpression" in found) == (ECS, False)
    assert server.context.state.rules.get("r").next_at is None  # type: ignore[union-attr]
    events.put_rule(Name="r", EventPattern=ECS, ScheduleExpression="rate(1 hour)")
    assert server.context.state.rules.get("r").next_at is not None  # type: ignore[union-attr]
    (rule,) = events.list_rules()["Rules"]
    assert (rule["EventPattern"], rule["ScheduleExpression"]) == (ECS, "rate(1 hour)")
    events.put_rule(Name="r", ScheduleExpression="rate(1 hour)")
    assert "EventPattern" not in events.describe_rule(Name="r")
    events.disable_rule(Name="r")
    events.put_rule(Name="r", EventPattern=ECS)
    events.enable_rule(Name="r")
    with server.unchanged():
        code, message = refused(events.put_rule, Name="r", EventPattern='{"source": "aws.ecs"}')
    assert (code, "must be an object or an array" in message) == ("InvalidEventPatternException", True)


def test_there_is_one_bus(events: Any) -> None:
    bus = {"Name": "default", "Arn": f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/default"}
    assert shown(events.describe_event_bus()) == shown(events.describe_event_bus(Name=bus["Arn"])) == bus
    assert events.list_event_buses()["EventBuses"] == [bus]
    assert events.list_event_buses(NamePrefix="x")["EventBuses"] == []
    assert refused(events.describe_event_bus, Name="x") == ("ResourceNotFoundException", "Event bus x does not exist.")


# ---------------------------------------------------------------- events from outside


def test_events_from_outside_are_put_into_the_stream(server: ApiServer, events: Any) -> None:
    good = {
        "Source": "shop",
        "DetailType": "Order",
        "Detail": '{"n": 1}',
        "Resources": ["arn:x"],
        "Time": 1_700_000_000,
    }
    entries: list[Any] = [
        good,
        {**good, "Source": "aws.ecs"},
        {**good, "Source": "homeport"},
        {**good, "Detail": "[]"},
        {**good, "Detail": "{"},
        {**good, "EventBusName": "mine"},
        {name: value for name, value in good.items() if name != "DetailType"},
        {**good, "EventBusName": "default"},
    ]
    answer = events.put_events(Entries=entries)
    assert answer["FailedEntryCount"] == 6
    assert [each.get("ErrorCode", "") for each in answer["Entries"]] == [
        "",
        "NotAuthorizedForSourceException",
        "NotAuthorizedForSourceException",
        "MalformedDetail",
        "MalformedDetail",
        "InvalidArgument",
        "InvalidArgument",
        "",
    ]
    feed = JournalFeed(server.context.state.journal, server.context.arns)
    stream: Any = server.call(lambda: feed.read(0, limit=100))
    found = [each.document for each in stream if each.document["source"] == "shop"]
    assert [each["id"] for each in found] == [answer["Entries"][0]["EventId"], answer["Entries"][-1]["EventId"]]
    assert (found[0]["detail"], found[0]["resources"], found[0]["time"]) == (
        {"n": 1},
        ["arn:x"],
        "2023-11-14T22:13:20Z",
    )


def test_events_from_outside_have_a_limit(server: ApiServer, events: Any) -> None:
    large = {"Source": "shop", "DetailType": "Order", "Detail": json.dumps({"a": "x" * MAX_BYTES})}
    with server.unchanged():
        assert "Total size of the entries in the request is over the limit" in invalid(
            events.put_events, Entries=[large]
        )


# ---------------------------------------------------------------- connections


def test_a_connection_is_described_without_its_secrets(events: Any) -> None:
    more = {
        "HeaderParameters": [{"Key": "x-a", "Value": "1", "IsValueSecret": False}],
        "QueryStringParameters": [{"Key": "q", "Value": "hush", "IsValueSecret": True}],
        "BodyParameters": [{"Key": "b", "Value": "2"}],
    }
    arn = connect(events, Description="mine", AuthParameters={**KEY, "InvocationHttpParameters": more})
    found = events.describe_connection(Name="c")
    assert shown(found) == {
        "ConnectionArn": arn,
        "Name": "c",
        "Description": "mine",
        "ConnectionState": "AUTHORIZED",
        "AuthorizationType": "API_KEY",
        "AuthParameters": {
            "ApiKeyAuthParameters": {"ApiKeyName": "x-key"},
            "InvocationHttpParameters": {
                "HeaderParameters": [{"Key": "x-a", "Value": "1", "IsValueSecret": False}],
                "QueryStringParameters": [{"Key": "q", "IsValueSecret": True}],
                "BodyParameters": [{"Key": "b", "Value": "2", "IsValueSecret": False}],
            },
        },
    }
    assert found["CreationTime"] == found["LastAuthorizedTime"]


def test_a_connection_is_changed_listed_and_deleted(server: ApiServer, events: Any) -> None:
    connect(events)
    connect(events, Name="b")
    events.update_connection(Name="c", Description="new")
    assert server.context.state.connections.get("c").secret == "not to be seen"  # type: ignore[union-attr]
    basic = {"BasicAuthParameters": {"Username": "me", "Password": "pass"}}
    events.update_connection(Name="c", AuthorizationType="BASIC", AuthParameters=basic)
    found = events.describe_connection(Name="c")
    assert (found["Description"], found["AuthorizationType"]) == ("new", "BASIC")
    assert found["AuthParameters"] == {"BasicAuthParameters": {"Username": "me"}}
    first = events.list_connections(Limit=1)
    second = events.list_connections(Limit=1, NextToken=first["NextToken"])
    assert [each["Name"] for page in (first, second) for each in page["Connections"]] == ["b", "c"]
    assert [each["Name"] for each in events.list_connections(NamePrefix="c")["Connections"]] == ["c"]
    assert events.list_connections(ConnectionState="DEAUTHORIZED")["Connections"] == []
    assert events.delete_connection(Name="c")["ConnectionState"] == "DELETING"
    for call in (events.describe_connection, events.update_connection, events.delete_connection):
        code, message = refused(call, Name="c")
        assert (code, "Connection 'c' does not exist" in message) == ("ResourceNotFoundException", True)


@pytest.mark.parametrize(
    ("members", "why"),
    [
        (
            {"AuthorizationType": "OAUTH_CLIENT_CREDENTIALS", "AuthParameters": {}},
            "OAUTH_CLIENT_CREDENTIALS isn't served",
        ),
        ({"AuthParameters": {}}, "AuthParameters must have ApiKeyAuthParameters"),
        ({"AuthorizationType": "BASIC"}, "ApiKeyAuthParameters can't be given for the AuthorizationType BASIC"),
        ({"KmsKeyIdentifier": "k"}, "KmsKeyIdentifier isn't served"),
        (
            {"AuthParameters": {"ApiKeyAuthParameters": {"ApiKeyName": "Content-Length", "ApiKeyValue": "1"}}},
            "ApiKeyName must be the name of a header that may be set",
        ),
        (
            {"AuthParameters": {"ApiKeyAuthParameters": {"ApiKeyName": "a b", "ApiKeyValue": "1"}}},
            "ApiKeyName must be the name of a header that may be set",
        ),
        (
            {"AuthParameters": {"ApiKeyAuthParameters": {"ApiKeyName": "Webhook-Signature", "ApiKeyValue": "whsec_!"}}},
            "ApiKeyValue of webhook-signature can't be used: the secret is not base64",
        ),
        (
            {
                "AuthParameters": {
                    **KEY,
                    "InvocationHttpParameters": {"HeaderParameters": [{"Key": "Host", "Value": "x"}]},
                }
            },
            "HeaderParameters have a Key that can't be set: 'Host'",
        ),
    ],
)
def test_connections_that_are_refused(server: ApiServer, events: Any, members: dict[str, Any], why: str) -> None:
    with server.unchanged():
        assert why in invalid(
            events.create_connection, **{"Name": "c", "AuthorizationType": "API_KEY", "AuthParameters": KEY, **members}
        )


def test_names_are_given_once(events: Any) -> None:
    arn = connect(events)
    again = refused(events.create_connection, Name="c", AuthorizationType="API_KEY", AuthParameters=KEY)
    assert again == ("ResourceAlreadyExistsException", "Connection c already exists.")
    given = {"Name": "d", "ConnectionArn": arn, "InvocationEndpoint": "https://a.test/", "HttpMethod": "POST"}
    events.create_api_destination(**given)
    assert refused(events.create_api_destination, **given)[0] == "ResourceAlreadyExistsException"


# ---------------------------------------------------------------- API destinations


def test_an_api_destination_is_described_changed_listed_and_deleted(events: Any) -> None:
    arn = destination(events, Description="mine")
    connection = events.describe_connection(Name="c")["ConnectionArn"]
    assert shown(events.describe_api_destination(Name="d")) == {
        "ApiDestinationArn": arn,
        "Name": "d",
        "Description": "mine",
        "ApiDestinationState": "ACTIVE",
        "ConnectionArn": connection,
        "InvocationEndpoint": "https://hooks.example.com/in",
        "HttpMethod": "POST",
        "InvocationRateLimitPerSecond": 300,
    }
    events.update_api_destination(Name="d", InvocationRateLimitPerSecond=5, HttpMethod="PUT")
    found = events.describe_api_destination(Name="d")
    assert (found["InvocationRateLimitPerSecond"], found["HttpMethod"], found["Description"]) == (5, "PUT", "mine")
    destination(events, Name="e", ConnectionArn=connection)
    names = [each["Name"] for each in events.list_api_destinations(ConnectionArn=connection)["ApiDestinations"]]
    assert names == ["d", "e"]
    assert [each["Name"] for each in events.list_api_destinations(NamePrefix="e")["ApiDestinations"]] == ["e"]
    other = f"{connection[:-4]}0000"
    assert events.list_api_destinations(ConnectionArn=other)["ApiDestinations"] == []
    events.delete_connection(Name="c")
    connect(events)  # of the same name, but another one
    assert events.describe_api_destination(Name="d")["ApiDestinationState"] == "INACTIVE"
    events.delete_api_destination(Name="d")
    for call in (events.describe_api_destination, events.update_api_destination, events.delete_api_destination):
        assert refused(call, Name="d")[0] == "ResourceNotFoundException"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://a.test/", "must be a URL that begins with https:// or http://"),
        ("https://me:pass@a.test/", "must not have a user name or password in it"),
        ("https://169.254.169.254/latest/meta-data", "link-local"),
        ("http://169.254.169.254/", "link-local"),
        ("http://0.0.0.0/", "is no host's"),
        ("http://8.8.8.8/", "is public: only https is sent there"),
        ("https://a.test:99999/", "it is not a URL"),
        ("https://a.test:0/", "its port can't be 0"),
    ],
)
def test_endpoints_that_are_refused(server: ApiServer, events: Any, url: str, why: str) -> None:
    arn = connect(events)
    with server.unchanged():
        assert why in invalid(
            events.create_api_destination, Name="d", ConnectionArn=arn, InvocationEndpoint=url, HttpMethod="POST"
        )


def test_an_api_destination_needs_its_connection(events: Any) -> None:
    arn = f"arn:aws:events:{REGION}:{ACCOUNT}:connection/none/1"
    given = {"Name": "d", "InvocationEndpoint": "https://a.test/", "HttpMethod": "POST"}
    assert refused(events.create_api_destination, ConnectionArn=arn, **given)[0] == "ResourceNotFoundException"


def test_there_is_a_quota_of_api_destinations(server: ApiServer, events: Any) -> None:
    destination(events)

    def fill() -> None:
        from msgspec.structs import replace

        with server.context.state.transaction() as transaction:
            record = server.context.state.api_destinations.get("d")
            assert record is not None
            for number in range(MAX_DESTINATIONS - 1):
                transaction.put(replace(record, name=f"d{number}"))

    server.call(fill)
    arn = events.describe_connection(Name="c")["ConnectionArn"]
    given = {"Name": "more", "ConnectionArn": arn, "InvocationEndpoint": "https://a.test/", "HttpMethod": "POST"}
    assert refused(events.create_api_destination, **given)[0] == "LimitExceededException"


# ---------------------------------------------------------------- targets


def test_targets_of_all_kinds_are_kept_as_given(server: ApiServer, events: Any) -> None:
    events.put_rule(Name="r", EventPattern=ECS)
    arn = destination(events, InvocationEndpoint="https://hooks.example.com/*/in")
    http = {
        "Id": "http",
        "Arn": arn,
        "RoleArn": "role",
        "HttpParameters": {"PathParameterValues": ["$.detail.group"], "HeaderParameters": {"x-b": "1"}},
        "RetryPolicy": {"MaximumRetryAttempts": 3, "MaximumEventAgeInSeconds": 60},
        "InputTransformer": {"InputPathsMap": {"s": "$.detail.lastStatus"}, "InputTemplate": '{"s": <s>}'},
    }
    logs = {"Id": "logs", "Arn": LOGS, "InputPath": "$.detail"}
    ecs = {"Id": "ecs", **ecs_target(InputPath="$.detail.overrides")}
    events.put_targets(Rule="r", Targets=[http, logs, ecs])
    assert events.list_targets_by_rule(Rule="r")["Targets"] == [ecs, http, logs]
    assert events.list_rule_names_by_target(TargetArn=arn)["RuleNames"] == ["r"]
    state = server.context.state
    assert sorted(record.key for record in state.event_deliveries) == ["r/ecs", "r/http", "r/logs"]
    events.remove_targets(Rule="r", Ids=["http", "logs"])
    assert [record.key for record in state.event_deliveries] == ["r/ecs"]
    events.remove_targets(Rule="r", Ids=["ecs"])
    events.delete_rule(Name="r")
    assert list(state.event_deliveries) == []


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ({"Arn": LOGS.replace(ACCOUNT, "000000000000")}, "is no log group of this account and region"),
        (
            {"Arn": LOGS, "EcsParameters": {"TaskDefinitionArn": "web"}},
            "EcsParameters isn't served by Homeport for a log",
        ),
        (
            {"Arn": LOGS, "DeadLetterConfig": {"Arn": "arn:aws:sqs:x"}},
            "DeadLetterConfig isn't served by Homeport for a log",
        ),
        ({"Arn": f"arn:aws:events:{REGION}:{ACCOUNT}:api-destination/d/1"}, "is no API destination"),
        (
            {"DeadLetterConfig": {"Arn": "arn:aws:sqs:x"}},
            "DeadLetterConfig isn't served by Homeport for an API destination",
        ),
        ({"Input": "{}", "InputPath": "$"}, "Only one of Input, InputPath, or InputTransformer must be provided"),
        ({"Input": "{"}, "Invalid Input for target t : it is not valid JSON"),
        ({"InputPath": "detail"}, "'detail' is not a path: it must begin with $"),
        ({"InputPath": "$..x"}, "is not a path that is supported, from '..x' on"),
        ({"InputTransformer": {"InputTemplate": "{<x>}"}}, "the variable <x>, which InputPathsMap doesn't have"),
        ({"InputTransformer": {"InputTemplate": "{"}}, "its template is neither JSON nor lines"),
        (
            {"InputTransformer": {"InputPathsMap": {"awsx": "$"}, "InputTemplate": "{}"}},
            "the variable awsx has a reserved name",
        ),
        (
            {"HttpParameters": {"PathParameterValues": ["1"]}},
            "must be as many as the * in the endpoint of d: 0, but were 1",
        ),
        ({"HttpParameters": {"HeaderParameters": {"Host": "x"}}}, "The header Host can't be set by HeaderParameters"),
        ({"HttpParameters": {"QueryStringParameters": {"q": "$.a["}}}, "is not a path that is supported"),
    ],
)
def test_targets_that_are_refused(server: ApiServer, events: Any, target: dict[str, Any], why: str) -> None:
    events.put_rule(Name="r", EventPattern=ECS)
    arn = destination(events)
    with server.unchanged():
        assert why in invalid(events.put_targets, Rule="r", Targets=[{"Id": "t", "Arn": arn, **target}])


def test_a_schedule_has_no_event_for_an_ecs_targets_transformer(server: ApiServer, events: Any) -> None:
    events.put_rule(Name="r", EventPattern=ECS)
    events.put_targets(Rule="r", Targets=[{"Id": "t", **ecs_target(InputPath="$.detail")}])
    with server.unchanged():
        message = invalid(events.put_rule, Name="r", EventPattern=ECS, ScheduleExpression="rate(1 hour)")
    assert (
        "InputPath isn't served by Homeport for an ECS target of a rule with a ScheduleExpression (target t)" in message
    )
    assert events.list_rule_names_by_target(TargetArn=CLUSTER)["RuleNames"] == ["r"]


def test_targets_that_get_events_only_from_now_on(server: ApiServer, events: Any) -> None:
    events.put_rule(Name="r", ScheduleExpression="rate(1 hour)")
    events.put_targets(Rule="r", Targets=[{"Id": "t", **ecs_target()}])
    state = server.context.state
    assert list(state.event_deliveries) == []  # its due times aren't events
    events.put_rule(Name="r", EventPattern=ECS, ScheduleExpression="rate(1 hour)")
    assert [record.key for record in state.event_deliveries] == ["r/t"]
    events.put_rule(Name="r", ScheduleExpression="rate(1 hour)")
    assert list(state.event_deliveries) == []
