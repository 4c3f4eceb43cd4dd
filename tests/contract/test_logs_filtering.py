"""FilterLogEvents and TestMetricFilter through boto3, and `aws logs tail` as it asks."""

from typing import Any

import pytest

from controlplane.api.logs import searching
from controlplane.logs.api import LogEvent
from homeport.protocol import LogKind
from tests.contract.logs import GROUP, GROUP_ARN, HOUR_MS, STREAM, made, millis, put, texts
from tests.contract.refusals import refused
from tests.contract.server import ApiServer

OTHER = "homeport/web/ffffffffffffffffffffffffffffffff"


@pytest.fixture
def logs(server: ApiServer) -> Any:
    return made(server)


@pytest.fixture
def two(server: ApiServer, logs: Any) -> Any:
    """Two streams whose events alternate: 0..9, a second apart, even ones in STREAM."""
    logs.create_log_stream(logGroupName=GROUP, logStreamName=OTHER)
    for stream, first in ((STREAM, 0), (OTHER, 1)):
        put(logs, [(at(server, n), f"number {n}") for n in range(first, 10, 2)], stream=stream)
    return logs


def at(server: ApiServer, n: int) -> int:
    return millis(server) // HOUR_MS * HOUR_MS - HOUR_MS + n * 1000


def found(logs: Any, **request: Any) -> list[str]:
    request.setdefault("logGroupName", GROUP)
    return texts(logs.filter_log_events(**request))


def numbers(*wanted: int) -> list[str]:
    return [f"number {n}" for n in wanted]


# ---------------------------------------------------------------- what is found


def test_events_of_all_streams_come_in_the_order_of_their_times(server: ApiServer, two: Any) -> None:
    answer = two.filter_log_events(logGroupName=GROUP)
    assert texts(answer) == numbers(*range(10))
    assert answer["searchedLogStreams"] == []
    assert "nextToken" not in answer
    event = answer["events"][1]
    assert (event["logStreamName"], event["timestamp"]) == (OTHER, at(server, 1))
    assert event["ingestionTime"] >= at(server, 9)
    assert len(event["eventId"]) == 56
    assert event["eventId"].isdecimal()


def test_the_times_are_both_inclusive(server: ApiServer, two: Any) -> None:
    assert found(two, startTime=at(server, 3), endTime=at(server, 5)) == numbers(3, 4, 5)
    assert found(two, startTime=at(server, 9)) == numbers(9)
    assert found(two, endTime=at(server, 0)) == numbers(0)
    assert found(two, endTime=at(server, 0) - 1) == []


def test_streams_are_chosen_by_name_or_by_prefix(two: Any) -> None:
    assert found(two, logStreamNames=[OTHER]) == numbers(1, 3, 5, 7, 9)
    assert found(two, logStreamNames=[OTHER, STREAM], limit=3) == numbers(0, 1, 2)
    assert found(two, logStreamNamePrefix="homeport/web/0") == numbers(0, 2, 4, 6, 8)
    assert found(two, logStreamNamePrefix="homeport/web/") == numbers(*range(10))
    assert found(two, logStreamNamePrefix="x") == []


def test_a_group_is_named_by_name_or_arn(two: Any) -> None:
    assert len(two.filter_log_events(logGroupIdentifier=GROUP_ARN)["events"]) == 10
    assert len(two.filter_log_events(logGroupIdentifier=GROUP)["events"]) == 10


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("number 3", [3]),
        ("?7 ?8", [7, 8]),
        ('"number" -5', [0, 1, 2, 3, 4, 6, 7, 8, 9]),
        ("%[2-4]$%", [2, 3, 4]),
        ("[word, n > 7]", [8, 9]),
        ("{ $.a = 1 }", []),
    ],
)
def test_patterns_choose_events(two: Any, pattern: str, expected: list[int]) -> None:
    assert found(two, filterPattern=pattern) == numbers(*expected)


def test_json_messages_are_searched_by_their_properties(server: ApiServer, logs: Any) -> None:
    put(logs, [(at(server, n), f'{{"status":{400 + n},"path":"/a"}}') for n in range(5)] + [(at(server, 9), "no")])
    assert found(logs, filterPattern='{ $.status >= 403 && $.path = "/*" }') == [
        '{"status":403,"path":"/a"}',
        '{"status":404,"path":"/a"}',
    ]


def test_what_says_that_output_is_missing_is_an_event_like_others(server: ApiServer, logs: Any) -> None:
    gap = LogEvent(at(server, 1), "3 lines are missing: rotated away", LogKind.GAP)
    server.thread.call(lambda: server.context.logs.append(GROUP, STREAM, [gap], ingested_at=millis(server)))
    assert found(logs, filterPattern="missing") == ["3 lines are missing: rotated away"]


# ---------------------------------------------------------------- pages


def test_pages_go_through_everything_once_while_new_events_come(server: ApiServer, two: Any) -> None:
    pages: list[str] = []
    request: dict[str, Any] = {"logGroupName": GROUP, "limit": 3}
    for _ in range(10):
        answer = two.filter_log_events(**request)
        assert len(answer["events"]) <= 3
        pages += texts(answer)
        if len(pages) == 6:
            put(two, [(at(server, 20), "number 10")], stream=STREAM)
            put(two, [(at(server, 1), "number 1b")], stream=OTHER)
        if "nextToken" not in answer:
            break
        request["nextToken"] = answer["nextToken"]
    assert pages == numbers(*range(11))


def test_boto3_paginates(two: Any) -> None:
    pages = two.get_paginator("filter_log_events").paginate(
        logGroupName=GROUP, filterPattern="-4", PaginationConfig={"PageSize": 2}
    )
    assert [text for page in pages for text in texts(page)] == numbers(0, 1, 2, 3, 5, 6, 7, 8, 9)


def test_a_page_holds_a_megabyte(server: ApiServer, logs: Any) -> None:
    for n in range(6):
        put(logs, [(at(server, n), str(n) * 250_000)])
    first = logs.filter_log_events(logGroupName=GROUP)
    assert [text[0] for text in texts(first)] == ["0", "1", "2", "3"]
    second = logs.filter_log_events(logGroupName=GROUP, nextToken=first["nextToken"])
    assert [text[0] for text in texts(second)] == ["4", "5"]
    assert "nextToken" not in second


def test_a_search_that_finds_nothing_for_long_answers_with_a_token(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "SEARCH_BYTES", 30)
    first = two.filter_log_events(logGroupName=GROUP, filterPattern="9")
    assert first["events"] == []
    answers = list(two.get_paginator("filter_log_events").paginate(logGroupName=GROUP, filterPattern="9"))
    assert [text for page in answers for text in texts(page)] == numbers(9)
    assert len(answers) > 1


def test_a_search_that_takes_long_answers_with_a_token(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "SEARCH_S", -1.0)
    answers = list(two.get_paginator("filter_log_events").paginate(logGroupName=GROUP, filterPattern="?3 ?9"))
    assert [text for page in answers for text in texts(page)] == numbers(3, 9)
    assert len(answers) > 3


# ---------------------------------------------------------------- newest first


def newest_first(server: ApiServer, logs: Any, **request: Any) -> list[list[str]]:
    """Return the messages of each page."""
    request = {"logGroupName": GROUP, "startFromHead": False, "startTime": at(server, 0)} | request
    return [texts(page) for page in logs.get_paginator("filter_log_events").paginate(**request)]


def test_the_newest_events_come_first_if_asked_for(server: ApiServer, two: Any) -> None:
    assert newest_first(server, two) == [numbers(*range(9, -1, -1))]
    assert newest_first(server, two, filterPattern="?3 ?7") == [numbers(7, 3)]
    assert newest_first(server, two, logStreamNames=[STREAM]) == [numbers(8, 6, 4, 2, 0)]
    assert newest_first(server, two, startTime=at(server, 4), endTime=at(server, 6)) == [numbers(6, 5, 4)]
    assert newest_first(server, two, logStreamNamePrefix="none") == [[]]


def test_the_first_pages_newest_first_are_pages_as_others(
    server: ApiServer, two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(two, [(at(server, 9), "number 9b"), (at(server, 9), "number 9c")])
    wanted = ["number 9", "number 9c", "number 9b", *numbers(*range(8, -1, -1))]
    if OTHER < STREAM:
        wanted[:3] = ["number 9c", "number 9b", "number 9"]
    for limit in (1, 2, 5, 11):
        pages = newest_first(server, two, limit=limit)
        assert [text for page in pages for text in page] == wanted
        assert max(map(len, pages)) == limit
    for name, value in (("SEARCH_S", -1.0), ("_SLICE_BYTES", 20), ("PAGE_BYTES", 20)):
        with monkeypatch.context() as patch:
            patch.setattr(searching, name, value)
            pages = newest_first(server, two, startTime=at(server, -60))
        assert [text for page in pages for text in page] == wanted


def test_a_token_keeps_its_direction(server: ApiServer, two: Any) -> None:
    first = two.filter_log_events(logGroupName=GROUP, startFromHead=False, startTime=at(server, 0), limit=4)
    second = two.filter_log_events(logGroupName=GROUP, startTime=at(server, 0), nextToken=first["nextToken"])
    assert texts(second) == numbers(5, 4, 3, 2, 1, 0)


def test_newest_first_needs_a_start(two: Any) -> None:
    code, message = refused(two.filter_log_events, logGroupName=GROUP, startFromHead=False)
    assert (code, message[:60]) == (
        "InvalidParameterException",
        "startFromHead can be false only with a startTime of 2024 (17",
    )


# ---------------------------------------------------------------- following, as `aws logs tail --follow` does


def test_following_sees_each_event_once(server: ApiServer, two: Any) -> None:
    """It polls from the newest time that it has seen, and knows by their ids the events that it has seen already."""
    request: dict[str, Any] = {"logGroupName": GROUP, "interleaved": True, "startTime": at(server, 8)}
    seen: dict[str, str] = {}
    for n in range(10, 14):
        events = two.filter_log_events(**request)["events"]
        seen |= {event["eventId"]: event["message"] for event in events}
        request["startTime"] = max(event["timestamp"] for event in events)
        put(two, [(at(server, n), f"number {n}")], stream=STREAM)
        # Two events in the same millisecond, with the same text, are two.
        put(two, [(at(server, n), f"number {n}")], stream=OTHER)
    assert list(seen.values()) == numbers(8, 9, 10, 10, 11, 11, 12, 12)


def test_ids_are_the_same_in_every_answer(two: Any) -> None:
    ids = [event["eventId"] for event in two.filter_log_events(logGroupName=GROUP)["events"]]
    assert len(set(ids)) == 10
    assert ids == sorted(ids)
    again = two.filter_log_events(logGroupName=GROUP, filterPattern="number")["events"]
    assert [event["eventId"] for event in again] == ids


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("request_", "code", "said"),
    [
        ({"logGroupName": "/none"}, "ResourceNotFoundException", "The specified log group does not exist."),
        ({"logStreamNames": ["none"]}, "ResourceNotFoundException", "The specified log stream does not exist."),
        (
            {"logStreamNames": [STREAM], "logStreamNamePrefix": "a"},
            "InvalidParameterException",
            "logStreamNames and logStreamNamePrefix can't both be given.",
        ),
        (
            {"logGroupIdentifier": GROUP},
            "InvalidParameterException",
            "LogGroup name and LogGroup ARN are mutually exclusive parameters.",
        ),
        ({"startTime": 2, "endTime": 1}, "InvalidParameterException", "endTime must not be before startTime"),
        ({"nextToken": "f/123"}, "InvalidParameterException", "The specified nextToken is invalid."),
        (
            {"filterPattern": "user@example"},
            "InvalidParameterException",
            "Invalid filter pattern: Invalid character(s) in term '@' at position 5",
        ),
        (
            {"filterPattern": "{ $.a > }"},
            "InvalidParameterException",
            "Invalid filter pattern: unexpected '}' at position 9; expected a value",
        ),
    ],
)
def test_what_cannot_be_done_is_said(logs: Any, request_: dict[str, Any], code: str, said: str) -> None:
    name, message = refused(logs.filter_log_events, **{"logGroupName": GROUP} | request_)
    assert name == code
    assert said in message


def test_a_group_must_be_named(logs: Any) -> None:
    code, message = refused(logs.filter_log_events)
    assert (code, message) == (
        "InvalidParameterException",
        "Either logGroupName or logGroupIdentifier must be specified.",
    )


@pytest.mark.parametrize(
    "request_",
    [
        {"limit": 0},
        {"limit": 10_001},
        {"logStreamNames": ["x"] * 101},
        {"filterPattern": "x" * 1025},
        {"startTime": -1},
    ],
)
def test_limits_are_checked(server: ApiServer, logs: Any, request_: dict[str, Any]) -> None:
    unchecked = server.client("logs", parameter_validation=False)
    code, message = refused(unchecked.filter_log_events, logGroupName=GROUP, **request_)
    assert code == "InvalidParameterException"
    assert next(iter(request_)) in message


# ---------------------------------------------------------------- TestMetricFilter


def test_a_pattern_is_tried_on_messages(logs: Any) -> None:
    lines = [
        '127.0.0.1 - frank [10/Oct/2000:13:25:15 -0700] "GET /apache_pb.gif HTTP/1.0" 200 1534',
        '127.0.0.1 - frank [10/Oct/2000:13:35:22 -0700] "GET /apache_pb.gif HTTP/1.0" 500 5324',
    ]
    answer = logs.test_metric_filter(filterPattern="[..., status_code=5*, size]", logEventMessages=lines)
    assert answer["matches"] == [
        {
            "eventNumber": 2,
            "eventMessage": lines[1],
            "extractedValues": {
                "$1": "127.0.0.1",
                "$2": "-",
                "$3": "frank",
                "$4": "10/Oct/2000:13:35:22 -0700",
                "$5": "GET /apache_pb.gif HTTP/1.0",
                "$status_code": "500",
                "$size": "5324",
            },
        }
    ]
    answer = logs.test_metric_filter(filterPattern="frank", logEventMessages=lines)
    assert [(match["eventNumber"], match["extractedValues"]) for match in answer["matches"]] == [(1, {}), (2, {})]


def test_a_pattern_that_is_none_cannot_be_tried(logs: Any) -> None:
    code, message = refused(logs.test_metric_filter, filterPattern="[a", logEventMessages=["a"])
    assert (code, message[:49]) == ("InvalidParameterException", "Invalid filter pattern: it ends too early, at pos")
