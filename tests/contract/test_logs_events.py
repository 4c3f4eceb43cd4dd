"""Putting and getting log events through boto3."""

from functools import partial
from typing import Any

import msgspec
import pytest

from tests.contract.logs import DAY_MS, GROUP, GROUP_ARN, HOUR_MS, STREAM, made, millis, put, texts
from tests.contract.refusals import refused
from tests.contract.server import ApiServer

NO_GROUP = ("ResourceNotFoundException", "The specified log group does not exist.")
NO_STREAM = ("ResourceNotFoundException", "The specified log stream does not exist.")
INVALID_TOKEN = ("InvalidParameterException", "The specified nextToken is invalid.")

#: Of a batch, by CloudWatch's count.
LIMIT = 1024 * 1024


@pytest.fixture
def logs(server: ApiServer) -> Any:
    return made(server)


@pytest.fixture
def now(server: ApiServer) -> int:
    return millis(server)


def get(logs: Any, **request: Any) -> dict[str, Any]:
    answer: dict[str, Any] = logs.get_log_events(**{"logGroupName": GROUP, "logStreamName": STREAM, **request})
    return answer


def not_put(logs: Any, events: list[tuple[int, str]]) -> str:
    """Put events that are refused, all of them, and return why."""
    code, message = refused(partial(put, logs, events))
    assert code == "InvalidParameterException"
    assert get(logs)["events"] == []
    return message


# ---------------------------------------------------------------- PutLogEvents


def test_events_are_kept_as_they_were_put(server: ApiServer, logs: Any, now: int) -> None:
    odd = "ü 日本 \U0001f600 \x00\x1b[31m\x7f\ttab\nline two\r\n\u2028  "
    answer = put(logs, [(now - 2, odd), (now - 2, "same time"), (now, '{"a": 1}')])
    assert answer["nextSequenceToken"]
    assert "rejectedLogEventsInfo" not in answer
    events = get(logs)["events"]
    assert all(now <= event.pop("ingestionTime") <= millis(server) for event in events)
    assert events == [
        {"timestamp": now - 2, "message": odd},
        {"timestamp": now - 2, "message": "same time"},
        {"timestamp": now, "message": '{"a": 1}'},
    ]


def test_sequence_tokens_are_given_and_ignored(logs: Any, now: int) -> None:
    first = put(logs, [(now, "a")])["nextSequenceToken"]
    event = {"timestamp": now, "message": "b"}
    for token in (first, first, "nonsense"):
        logs.put_log_events(logGroupName=GROUP, logStreamName=STREAM, logEvents=[event], sequenceToken=token)
    (stream,) = logs.describe_log_streams(logGroupName=GROUP)["logStreams"]
    assert stream["uploadSequenceToken"] != first
    assert len(get(logs)["events"]) == 4


def test_events_go_into_a_stream_that_there_is(logs: Any, now: int) -> None:
    event = {"timestamp": now, "message": "a"}
    assert refused(logs.put_log_events, logGroupName="none", logStreamName="s", logEvents=[event]) == NO_GROUP
    assert refused(logs.put_log_events, logGroupName=GROUP, logStreamName="s", logEvents=[event]) == NO_STREAM
    ancient = {"timestamp": 0, "message": "a"}
    assert refused(logs.put_log_events, logGroupName=GROUP, logStreamName="s", logEvents=[ancient]) == NO_STREAM


def test_a_batch_is_in_chronological_order(logs: Any, now: int) -> None:
    message = not_put(logs, [(now, "b"), (now - 1, "a")])
    assert message == "Log events in a single PutLogEvents request must be in chronological order."


def test_a_batch_spans_a_day_at_most(logs: Any, now: int) -> None:
    message = not_put(logs, [(now - DAY_MS - 1, "a"), (now, "b")])
    assert message == "The batch of log events in a single PutLogEvents request cannot span more than 24 hours."
    put(logs, [(now - DAY_MS, "a"), (now, "b")])


def test_what_is_rejected_does_not_count_for_the_span(logs: Any, now: int) -> None:
    put(logs, [(0, "ancient"), (now, "a"), (now + DAY_MS, "tomorrow")])
    assert texts(get(logs)) == ["a"]


@pytest.mark.parametrize(
    ("ages_ms", "retention", "rejected", "kept"),
    [
        ([0, -HOUR_MS], None, {}, "ab"),
        ([15 * DAY_MS, 15 * DAY_MS, 0], None, {"tooOldLogEventEndIndex": 2}, "c"),
        ([0, -3 * HOUR_MS], None, {"tooNewLogEventStartIndex": 1}, "a"),
        ([15 * DAY_MS, 0, -3 * HOUR_MS], None, {"tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 2}, "b"),
        ([2 * DAY_MS, 0], 1, {"expiredLogEventEndIndex": 1}, "b"),
        ([15 * DAY_MS, 2 * DAY_MS, 0], 1, {"tooOldLogEventEndIndex": 1, "expiredLogEventEndIndex": 2}, "c"),
        ([15 * DAY_MS, 13 * DAY_MS + HOUR_MS], 30, {"tooOldLogEventEndIndex": 1}, "b"),
        ([15 * DAY_MS, -3 * HOUR_MS], None, {"tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 1}, ""),
    ],
)
def test_events_out_of_bounds_are_told_and_the_rest_is_kept(
    logs: Any, now: int, ages_ms: list[int], retention: int | None, rejected: dict[str, int], kept: str
) -> None:
    if retention is not None:
        logs.put_retention_policy(logGroupName=GROUP, retentionInDays=retention)
    answer = put(logs, [(now - age, "abc"[number]) for number, age in enumerate(ages_ms)])
    assert answer.get("rejectedLogEventsInfo", {}) == rejected
    assert "".join(texts(get(logs))) == kept


def test_a_batch_may_have_10000_events(logs: Any, now: int) -> None:
    code, message = refused(partial(put, logs, [(now, "a")] * 10_001))
    assert (code, "length less than or equal to 10000" in message) == ("InvalidParameterException", True)
    put(logs, [(now, "a")] * 10_000)
    assert len(get(logs)["events"]) == 10_000


def test_an_event_may_fill_a_batch(logs: Any, now: int) -> None:
    message = not_put(logs, [(now, "ü" * (LIMIT // 2 - 12))])
    assert message == f"Log event too large: {LIMIT + 2} bytes exceeds limit of {LIMIT}"
    put(logs, [(now, "ü" * (LIMIT // 2 - 13))])
    assert len(get(logs)["events"]) == 1


def test_a_batch_has_a_mebibyte_at_most(logs: Any, now: int) -> None:
    part = "x" * (LIMIT // 2 - 26)
    assert (
        not_put(logs, [(now, part), (now, part + "x")])
        == f"Upload too large: {LIMIT + 1} bytes exceeds limit of {LIMIT}"
    )
    put(logs, [(now, part), (now, part)])


def test_a_batch_that_json_makes_six_times_as_large_is_taken(logs: Any, now: int) -> None:
    put(logs, [(now, "\x01" * (LIMIT - 26))])
    assert len(texts(get(logs))[0]) == LIMIT - 26


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"timestamp": -1, "message": "a"}, "'logEvents.1.member.timestamp'"),
        ({"timestamp": 1, "message": ""}, "'logEvents.1.member.message'"),
        ({"timestamp": 1}, "'logEvents.1.member.message'"),
    ],
)
def test_an_event_has_a_time_and_a_message(server: ApiServer, logs: Any, event: dict[str, Any], said: str) -> None:
    body = msgspec.json.encode({"logGroupName": GROUP, "logStreamName": STREAM, "logEvents": [event]})
    answer = server.post("Logs_20140328.PutLogEvents", body, service="logs")
    assert (answer.status, answer.json["__type"]) == (400, "InvalidParameterException")
    assert said in answer.json["message"]


def test_a_store_that_is_full_is_unavailable(server: ApiServer, logs: Any, now: int) -> None:
    server.context.logs.problem = "the disk is full"  # type: ignore[attr-defined]
    with pytest.raises(logs.exceptions.ServiceUnavailableException, match="the disk is full"):
        put(logs, [(now, "a")])
    server.context.logs.problem = ""  # type: ignore[attr-defined]
    put(logs, [(now, "a")])
    assert texts(get(logs)) == ["a"]


# ---------------------------------------------------------------- GetLogEvents


@pytest.fixture
def ten(logs: Any, now: int) -> Any:
    """A client and events 0 to 9, a second apart, the last one a second ago."""
    put(logs, [(now - 10_000 + 1000 * number, str(number)) for number in range(10)])
    return logs


def test_the_last_events_come_first_unless_the_head_is_asked_for(ten: Any) -> None:
    assert texts(get(ten, limit=3)) == list("789")
    assert texts(get(ten, limit=3, startFromHead=False)) == list("789")
    assert texts(get(ten, limit=3, startFromHead=True)) == list("012")
    assert texts(get(ten)) == list("0123456789")


def test_the_group_is_named_or_identified(ten: Any) -> None:
    for identifier in (GROUP, GROUP_ARN):
        found = ten.get_log_events(logGroupIdentifier=identifier, logStreamName=STREAM)
        assert texts(found) == list("0123456789")


def test_times_include_the_start_and_exclude_the_end(ten: Any, now: int) -> None:
    at = [now - 10_000 + 1000 * number for number in range(10)]
    assert texts(get(ten, startTime=at[2], endTime=at[5])) == list("234")
    assert texts(get(ten, startTime=at[2] + 1, endTime=at[5] + 1)) == list("345")
    assert texts(get(ten, startTime=at[5], endTime=at[5])) == []
    assert texts(get(ten, startTime=at[8])) == list("89")


def test_paging_forward_from_the_head_ends_with_the_token_that_was_sent(ten: Any, now: int) -> None:
    pages, request = [], {"startFromHead": True, "limit": 4}
    while True:
        page = get(ten, **request)
        pages.append("".join(texts(page)))
        if page["nextForwardToken"] == request.get("nextToken"):
            break
        request["nextToken"] = page["nextForwardToken"]
    assert pages == ["0123", "4567", "89", ""]
    put(ten, [(now, "new")])
    assert texts(get(ten, **request)) == ["new"]


def test_paging_backward_from_the_tail_ends_with_the_token_that_was_sent(ten: Any) -> None:
    pages, request = [], {"limit": 4}
    while True:
        page = get(ten, **request)
        pages.append("".join(texts(page)))
        if page["nextBackwardToken"] == request.get("nextToken"):
            break
        request["nextToken"] = page["nextBackwardToken"]
    assert pages == ["6789", "2345", "01", ""]


def test_a_page_can_be_turned_either_way(ten: Any) -> None:
    middle = get(ten, limit=3, nextToken=get(ten, limit=3)["nextBackwardToken"])
    assert texts(middle) == list("456")
    assert texts(get(ten, limit=3, nextToken=middle["nextForwardToken"])) == list("789")
    assert texts(get(ten, limit=3, nextToken=middle["nextBackwardToken"])) == list("123")
    end = get(ten, nextToken=get(ten)["nextForwardToken"])
    assert texts(end) == []
    assert texts(get(ten, limit=2, nextToken=end["nextBackwardToken"])) == list("89")
    begin = get(ten, nextToken=get(ten)["nextBackwardToken"])
    assert texts(get(ten, limit=2, nextToken=begin["nextForwardToken"])) == list("01")


def test_a_tokens_direction_counts_whatever_start_from_head_says(ten: Any) -> None:
    page = get(ten, limit=2, startFromHead=True)
    for start_from_head in (True, False):
        asked = {"limit": 2, "startFromHead": start_from_head, "nextToken": page["nextForwardToken"]}
        assert texts(get(ten, **asked)) == list("23")


def test_an_empty_stream_has_tokens_that_find_what_comes(logs: Any, now: int) -> None:
    for start_from_head in (True, False):
        page = get(logs, startFromHead=start_from_head)
        assert page["nextForwardToken"].startswith("f/")
        assert page["nextBackwardToken"].startswith("b/")
        again = get(logs, startFromHead=start_from_head, nextToken=page["nextForwardToken"])
        assert again["nextForwardToken"] == page["nextForwardToken"]
        put(logs, [(now - HOUR_MS, "new")])
        assert "new" in texts(get(logs, nextToken=again["nextForwardToken"]))


def test_events_of_one_time_are_in_the_order_of_their_arrival(logs: Any, now: int) -> None:
    for name in "abcde":
        put(logs, [(now, name)])
    page = get(logs, limit=2, startFromHead=True)
    assert texts(page) == list("ab")
    page = get(logs, limit=2, nextToken=page["nextForwardToken"])
    assert texts(page) == list("cd")
    assert texts(get(logs, limit=1, nextToken=page["nextBackwardToken"])) == ["b"]


def test_a_page_has_a_mebibyte_at_most(logs: Any, now: int) -> None:
    for name in "abc":
        put(logs, [(now, name * (LIMIT // 2 - 26))])
    page = get(logs, startFromHead=True)
    assert [text[0] for text in texts(page)] == ["a", "b"]
    assert [text[0] for text in texts(get(logs, nextToken=page["nextForwardToken"]))] == ["c"]
    assert [text[0] for text in texts(get(logs))] == ["b", "c"]


@pytest.mark.parametrize(
    "token",
    [
        "nonsense",
        "f/1",
        f"f/{'0' * 56}/s",
        f"x/{'1' * 56}/s",
        f"f/{'9' * 56}/s",
    ],
)
def test_a_token_that_was_not_given_out_is_refused(ten: Any, token: str) -> None:
    assert refused(partial(get, ten), nextToken=token) == INVALID_TOKEN


def test_a_token_belongs_to_its_stream(ten: Any) -> None:
    ten.create_log_stream(logGroupName=GROUP, logStreamName="other")
    token = get(ten, limit=1)["nextForwardToken"]
    assert refused(partial(get, ten), logStreamName="other", nextToken=token) == INVALID_TOKEN


def test_a_token_beyond_what_a_store_counts_is_refused(ten: Any) -> None:
    real = get(ten, limit=1)["nextForwardToken"]
    forged = real[:2] + "9" * 38 + real[40:]
    assert refused(partial(get, ten), nextToken=forged) == INVALID_TOKEN


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"limit": 10_001}, "less than or equal to 10000"),
        ({"logGroupIdentifier": GROUP}, "mutually exclusive"),
        ({"startTime": 2, "endTime": 1}, "endTime must not be before startTime"),
    ],
)
def test_events_that_can_not_be_got(logs: Any, request_: dict[str, Any], said: str) -> None:
    code, message = refused(partial(get, logs), **request_)
    assert (code, said in message) == ("InvalidParameterException", True), message


def test_events_are_of_a_stream_that_there_is(logs: Any) -> None:
    assert refused(partial(get, logs), logGroupName="none") == NO_GROUP
    assert refused(partial(get, logs), logStreamName="none") == NO_STREAM
    code, message = refused(logs.get_log_events, logStreamName=STREAM)
    assert (code, "logGroupName or logGroupIdentifier" in message) == ("InvalidParameterException", True)
