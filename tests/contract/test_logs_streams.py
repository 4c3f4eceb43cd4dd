"""Log streams through boto3: making, finding, deleting."""

from typing import Any

import pytest

from tests.contract.logs import GROUP, GROUP_ARN, STREAM, made, millis, put
from tests.contract.refusals import refused
from tests.contract.server import ApiServer

NO_GROUP = ("ResourceNotFoundException", "The specified log group does not exist.")
NO_STREAM = ("ResourceNotFoundException", "The specified log stream does not exist.")


@pytest.fixture
def logs(server: ApiServer) -> Any:
    return made(server)


@pytest.fixture
def several(server: ApiServer) -> Any:
    """A client and streams a to e, whose last events are the older the later the name; e has none."""
    logs = server.client("logs")
    logs.create_log_group(logGroupName=GROUP)
    now = millis(server)
    for number, name in enumerate("edcba"):
        logs.create_log_stream(logGroupName=GROUP, logStreamName=f"app/{name}")
        if name != "e":
            put(logs, [(now - 10_000 + number, name)], stream=f"app/{name}")
    return logs


def names(answer: dict[str, Any]) -> str:
    return "".join(stream["logStreamName"][-1] for stream in answer["logStreams"])


def test_an_empty_stream_has_no_times(server: ApiServer) -> None:
    before = millis(server)
    (stream,) = made(server).describe_log_streams(logGroupName=GROUP)["logStreams"]
    assert before <= stream.pop("creationTime") <= millis(server)
    assert stream.pop("uploadSequenceToken").isdigit()
    assert stream == {"logStreamName": STREAM, "arn": f"{GROUP_ARN}:log-stream:{STREAM}", "storedBytes": 0}


def test_a_stream_tells_the_times_of_its_events(server: ApiServer, logs: Any) -> None:
    now = millis(server)
    put(logs, [(now - 5000, "a"), (now - 10, "b")])
    put(logs, [(now - 9000, "earlier")])
    (stream,) = logs.describe_log_streams(logGroupName=GROUP)["logStreams"]
    assert (stream["firstEventTimestamp"], stream["lastEventTimestamp"]) == (now - 9000, now - 10)
    assert now <= stream["lastIngestionTime"] <= millis(server)
    assert stream["storedBytes"] == 0
    assert logs.describe_log_groups()["logGroups"][0]["storedBytes"] == len("abearlier") + 3 * 26


def test_a_stream_is_made_once_and_in_a_group(logs: Any) -> None:
    assert refused(logs.create_log_stream, logGroupName=GROUP, logStreamName=STREAM) == (
        "ResourceAlreadyExistsException",
        "The specified log stream already exists",
    )
    assert refused(logs.create_log_stream, logGroupName="none", logStreamName=STREAM) == NO_GROUP


@pytest.mark.parametrize("name", ["a:b", "a*", "x" * 513])
def test_a_stream_has_a_name_without_colon_and_asterisk(logs: Any, name: str) -> None:
    code, message = refused(logs.create_log_stream, logGroupName=GROUP, logStreamName=name)
    assert (code, "'logStreamName'" in message) == ("InvalidParameterException", True)


def test_a_stream_may_have_any_other_name(logs: Any) -> None:
    name = "2026/11/22/[$LATEST] ü\u2028 x"
    logs.create_log_stream(logGroupName=GROUP, logStreamName=name)
    found = logs.describe_log_streams(logGroupName=GROUP, logStreamNamePrefix=name)["logStreams"]
    assert [stream["logStreamName"] for stream in found] == [name]


def test_a_deleted_stream_is_gone_with_its_events(server: ApiServer, logs: Any) -> None:
    put(logs, [(millis(server), "gone")])
    logs.delete_log_stream(logGroupName=GROUP, logStreamName=STREAM)
    assert refused(logs.get_log_events, logGroupName=GROUP, logStreamName=STREAM) == NO_STREAM
    assert refused(logs.delete_log_stream, logGroupName=GROUP, logStreamName=STREAM) == NO_STREAM
    assert refused(logs.delete_log_stream, logGroupName="none", logStreamName=STREAM) == NO_GROUP
    logs.create_log_stream(logGroupName=GROUP, logStreamName=STREAM)
    assert logs.get_log_events(logGroupName=GROUP, logStreamName=STREAM)["events"] == []


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, "abcde"),
        ({"descending": True}, "edcba"),
        ({"orderBy": "LogStreamName", "logStreamNamePrefix": "app/c"}, "c"),
        ({"logStreamNamePrefix": "c"}, ""),
        ({"orderBy": "LastEventTime"}, "edcba"),
        ({"orderBy": "LastEventTime", "descending": True}, "abcde"),
        ({"orderBy": "LastEventTime", "descending": True, "limit": 1}, "a"),
    ],
)
def test_streams_are_ordered(several: Any, request_: dict[str, Any], expected: str) -> None:
    assert names(several.describe_log_streams(logGroupName=GROUP, **request_)) == expected
    assert names(several.describe_log_streams(logGroupIdentifier=GROUP_ARN, **request_)) == expected


@pytest.mark.parametrize("order_by", ["LogStreamName", "LastEventTime"])
@pytest.mark.parametrize("descending", [True, False])
def test_streams_come_in_pages(several: Any, order_by: str, descending: bool) -> None:
    asked = {"logGroupName": GROUP, "orderBy": order_by, "descending": descending}
    everything = names(several.describe_log_streams(**asked))
    pages = several.get_paginator("describe_log_streams").paginate(**asked, PaginationConfig={"PageSize": 2})
    assert [names(page) for page in pages] == [everything[:2], everything[2:4], everything[4:]]


def test_a_token_is_of_one_order(several: Any) -> None:
    token = several.describe_log_streams(logGroupName=GROUP, limit=1)["nextToken"]
    code, message = refused(several.describe_log_streams, logGroupName=GROUP, descending=True, nextToken=token)
    assert (code, message) == ("InvalidParameterException", "The specified nextToken is invalid.")


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({}, "Either logGroupName or logGroupIdentifier must be specified."),
        ({"logGroupName": GROUP, "logGroupIdentifier": GROUP}, "mutually exclusive"),
        (
            {"logGroupName": GROUP, "orderBy": "LastEventTime", "logStreamNamePrefix": "a"},
            "Cannot order by LastEventTime with a logStreamNamePrefix.",
        ),
        ({"logGroupName": GROUP, "orderBy": "Nonsense"}, "enum value set"),
        ({"logGroupName": GROUP, "limit": 51}, "less than or equal to 50"),
        ({"logGroupName": GROUP, "nextToken": "x"}, "The specified nextToken is invalid."),
    ],
)
def test_streams_that_can_not_be_described(logs: Any, request_: dict[str, Any], said: str) -> None:
    code, message = refused(logs.describe_log_streams, **request_)
    assert (code, said in message) == ("InvalidParameterException", True), message


@pytest.mark.parametrize(
    "group", [{"logGroupName": "none"}, {"logGroupIdentifier": "none"}, {"logGroupIdentifier": f"{GROUP_ARN}x"}]
)
def test_streams_are_of_a_group_that_there_is(logs: Any, group: dict[str, str]) -> None:
    assert refused(logs.describe_log_streams, **group) == NO_GROUP
