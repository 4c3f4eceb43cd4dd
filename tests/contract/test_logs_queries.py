"""Logs Insights through boto3: the life of a query, and what is refused. The language has tests of its own."""

import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError

from controlplane.logs.api import StoreUnavailable
from controlplane.logs.insights.queries import MAX_CONCURRENT
from tests.contract.refusals import refused
from tests.contract.server import ACCESS_KEY_ID, ACCOUNT, DEADLINE_S, REGION, ApiServer

GROUP = "/app/web"
STREAM = "web/main/1"
ARN = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:"


@pytest.fixture
def logs(server: ApiServer) -> Any:
    return server.client("logs")


@pytest.fixture
def now() -> int:
    return int(time.time())


def write(logs: Any, *texts: str, group: str = GROUP, stream: str = STREAM, at: int) -> None:
    """Put events, a second apart, into a stream that is made if need be."""
    with suppress(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_group(logGroupName=group)
    with suppress(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
    events = [{"timestamp": (at + n) * 1000, "message": text} for n, text in enumerate(texts)]
    logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


def arguments(text: str = "fields @message", **given: Any) -> dict[str, Any]:
    now = int(time.time())
    merged = {"logGroupName": GROUP, "startTime": now - 3600, "endTime": now, "queryString": text, **given}
    return {name: value for name, value in merged.items() if value is not None}


def start(logs: Any, text: str = "fields @message", **given: Any) -> str:
    query_id: str = logs.start_query(**arguments(text, **given))["queryId"]
    return query_id


def ended(logs: Any, query_id: str, **given: Any) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while (answer := logs.get_query_results(queryId=query_id, **given))["status"] in ("Scheduled", "Running"):
        assert time.monotonic() < deadline, "the query never ended"
        time.sleep(0.005)
    return answer


def rows(answer: Any) -> list[dict[str, str]]:
    return [{each["field"]: each["value"] for each in row if each["field"] != "@ptr"} for row in answer["results"]]


def ask(logs: Any, text: str, **given: Any) -> list[dict[str, str]]:
    answer = ended(logs, start(logs, text, **given))
    assert answer["status"] == "Complete", answer
    return rows(answer)


# ---------------------------------------------------------------- asking


def test_a_query_gives_its_rows_as_fields_and_values(logs: Any, now: int) -> None:
    write(logs, "user=ann took 12ms", "user=bob took 5ms", "user=ann took 8ms", at=now - 600)
    answer = ended(logs, start(logs, "parse 'user=* took *ms' as user, ms | stats avg(ms) as mean by user | sort mean"))
    assert answer["results"] == [
        [{"field": "user", "value": "bob"}, {"field": "mean", "value": "5"}],
        [{"field": "user", "value": "ann"}, {"field": "mean", "value": "10"}],
    ]
    assert answer["queryLanguage"] == "CWLI"
    assert answer["statistics"] == {
        "recordsMatched": 3.0,
        "recordsScanned": 3.0,
        "bytesScanned": float(len("user=ann took 12msuser=bob took 5msuser=ann took 8ms")),
        "estimatedRecordsSkipped": 0.0,
        "estimatedBytesSkipped": 0.0,
        "logGroupsScanned": 1.0,
        "resultCount": 2.0,
    }


def test_both_given_seconds_belong_to_the_time_and_nothing_else_is_scanned(logs: Any, now: int) -> None:
    write(logs, "a", "b", "c", "d", at=now - 600)
    answer = ended(logs, start(logs, startTime=now - 599, endTime=now - 598))
    assert rows(answer) == [{"@message": "c"}, {"@message": "b"}]
    assert answer["statistics"]["recordsScanned"] == 2.0


def test_times_in_milliseconds_are_taken_as_such(logs: Any, now: int) -> None:
    write(logs, "a", "b", "c", "d", at=now - 600)
    assert ask(logs, "fields @message", startTime=(now - 599) * 1000, endTime=(now - 598) * 1000) == [
        {"@message": "c"},
        {"@message": "b"},
    ]
    assert ask(logs, "fields @message", startTime=now - 599, endTime=(now - 599) * 1000) == [{"@message": "b"}]
    # The millisecond of the end belongs to it, and no more.
    assert ask(logs, "fields @message", startTime=now - 600, endTime=(now - 599) * 1000 - 1) == [{"@message": "a"}]


def test_several_groups_by_name_or_arn(logs: Any, now: int) -> None:
    write(logs, "first", at=now - 600)
    write(logs, "second", group="other", at=now - 500)
    found = [{"@log": f"{ACCOUNT}:other", "@message": "second"}, {"@log": f"{ACCOUNT}:{GROUP}", "@message": "first"}]
    text = "fields @log, @message"
    assert ask(logs, text, logGroupName=None, logGroupNames=[GROUP, "other"]) == found
    assert ask(logs, text, logGroupName=None, logGroupIdentifiers=[ARN + GROUP, "other"]) == found
    assert ask(logs, text, logGroupName=None, logGroupNames=[GROUP, GROUP]) == found[1:]


def test_the_limit_of_the_request_and_of_the_query(logs: Any, now: int) -> None:
    write(logs, *(str(n) for n in range(10)), at=now - 600)
    assert len(ask(logs, "fields @message", limit=4)) == 4
    assert len(ask(logs, "fields @message | limit 3", limit=4)) == 3
    assert len(ask(logs, "fields @message")) == 10


def test_results_come_in_pages(logs: Any, now: int) -> None:
    write(logs, *(str(n) for n in range(5)), at=now - 600)
    query_id = start(logs, "display @message | sort @timestamp asc")
    answer = ended(logs, query_id, maxItems=2)
    pages = [[row["@message"] for row in rows(answer)]]
    while "nextToken" in answer:
        answer = logs.get_query_results(queryId=query_id, maxItems=2, nextToken=answer["nextToken"])
        pages.append([row["@message"] for row in rows(answer)])
    assert pages == [["0", "1"], ["2", "3"], ["4"]]
    assert answer["statistics"]["resultCount"] == 5.0


def test_a_page_has_10000_rows_at_most(logs: Any, now: int) -> None:
    write(logs, "x", at=now - 7200)
    for second in range(2):
        events = [{"timestamp": (now - 600 + second) * 1000, "message": "x"} for _ in range(10_000)]
        logs.put_log_events(logGroupName=GROUP, logStreamName=STREAM, logEvents=events)
    query_id = start(logs, "display @logStream", limit=15_000)
    answer = ended(logs, query_id)
    assert len(answer["results"]) == 10_000
    answer = logs.get_query_results(queryId=query_id, nextToken=answer["nextToken"])
    assert len(answer["results"]) == 5000
    assert "nextToken" not in answer


def test_a_query_that_fails_says_why_in_a_row(
    server: ApiServer, logs: Any, now: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(logs, "a", at=now - 600)

    async def scan(*_: object, **__: object) -> AsyncGenerator[Any]:
        if now:
            raise StoreUnavailable("the disk is on fire")
        yield []

    monkeypatch.setattr(server.context.logs, "scan", scan)
    answer = ended(logs, start(logs))
    assert answer["status"] == "Failed"
    assert rows(answer) == [{"@reason": "the disk is on fire"}]
    assert answer["statistics"]["resultCount"] == 0.0


# ---------------------------------------------------------------- a query's life


@pytest.fixture
def waiting(server: ApiServer, logs: Any, now: int) -> Any:
    """A client of a server on which no query ever gets its turn."""
    server.thread.call(server.stop_loops)
    write(logs, "a", at=now - 600)
    return logs


def test_a_query_waits_for_its_turn_and_can_be_stopped(waiting: Any) -> None:
    query_id = start(waiting)
    answer = waiting.get_query_results(queryId=query_id)
    assert (answer["status"], answer["results"]) == ("Scheduled", [])
    assert waiting.stop_query(queryId=query_id)["success"] is True
    assert waiting.get_query_results(queryId=query_id)["status"] == "Cancelled"
    code, message = refused(waiting.stop_query, queryId=query_id)
    assert code == "InvalidParameterException"
    assert message == f"The query {query_id} is not running: its status is Cancelled."


def test_more_than_a_hundred_open_queries_are_refused(waiting: Any) -> None:
    first = start(waiting)
    for _ in range(MAX_CONCURRENT - 1):
        start(waiting)
    code, message = refused(waiting.start_query, **arguments())
    assert code == "LimitExceededException"
    assert "100 queries are waiting or running already" in message
    waiting.stop_query(queryId=first)
    start(waiting)


def test_queries_are_described_the_newest_first(waiting: Any, now: int) -> None:
    write(waiting, "x", group="other", at=now - 600)
    ids = [start(waiting, f"limit {n + 1}", logGroupName=GROUP if n % 2 else "other") for n in range(4)]
    waiting.stop_query(queryId=ids[0])
    described = waiting.describe_queries()["queries"]
    assert [query["queryId"] for query in described] == ids[::-1]
    assert described[0].pop("createTime") == pytest.approx(now * 1000, abs=60_000)
    assert described[0] == {
        "queryLanguage": "CWLI",
        "queryId": ids[3],
        "queryString": "limit 4",
        "status": "Scheduled",
        "logGroupName": GROUP,
        "bytesScanned": 0.0,
        "userIdentity": ACCESS_KEY_ID,
    }

    def found(**given: Any) -> list[str]:
        return [query["queryId"] for query in waiting.describe_queries(**given)["queries"]]

    assert found(logGroupName=GROUP) == [ids[3], ids[1]]
    assert found(status="Cancelled") == [ids[0]]
    assert found(status="Unknown") == []
    assert found(queryLanguage="SQL") == []
    first = waiting.describe_queries(maxResults=3)
    assert [query["queryId"] for query in first["queries"]] == ids[:0:-1]
    second = waiting.describe_queries(maxResults=3, nextToken=first["nextToken"])
    assert [query["queryId"] for query in second["queries"]] == ids[:1]
    assert "nextToken" not in second


def test_an_ended_query_is_described_with_how_long_it_took(logs: Any, now: int) -> None:
    write(logs, "abc", at=now - 600)
    ended(logs, start(logs))
    [query] = logs.describe_queries()["queries"]
    assert (query["status"], query["bytesScanned"]) == ("Complete", 3.0)
    assert query["queryDuration"] >= 0


# ---------------------------------------------------------------- what is refused


def test_a_query_that_cant_be_understood_is_refused_with_the_place(logs: Any, now: int) -> None:
    write(logs, "a", at=now)
    with pytest.raises(ClientError) as caught:
        start(logs, "fields a | anomaly b")
    assert caught.value.response["Error"] == {
        "Code": "MalformedQueryException",
        "Message": "the command anomaly isn't supported by Homeport; supported: fields, display, filter, parse, stats, "
        "sort, limit, dedup (at character 12)",
    }
    assert caught.value.response["queryCompileError"] == {
        "location": {"startCharOffset": 11, "endCharOffset": 18},
        "message": "the command anomaly isn't supported by Homeport; supported: fields, display, filter, parse, stats, "
        "sort, limit, dedup",
    }


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        ({"logGroupName": None}, "InvalidParameterException", "Exactly one of logGroupName, logGroupNames"),
        ({"logGroupNames": [GROUP]}, "InvalidParameterException", "but 2 are"),
        ({"logGroupName": None, "logGroupNames": []}, "InvalidParameterException", "but 0 are"),
        (
            {"logGroupName": None, "logGroupNames": [GROUP] * 51},
            "InvalidParameterException",
            "logGroupNames can have at most 50 items, but has 51.",
        ),
        ({"logGroupName": "nothing"}, "ResourceNotFoundException", "The specified log group does not exist."),
        (
            {"logGroupName": None, "logGroupIdentifiers": [f"arn:aws:logs:mars-1:{ACCOUNT}:log-group:{GROUP}"]},
            "ResourceNotFoundException",
            "The specified log group does not exist.",
        ),
        ({"startTime": 10**14 + 1}, "InvalidParameterException", "startTime is in seconds since the epoch"),
        ({"endTime": 2**63 - 1}, "InvalidParameterException", "9223372036854775807 is too large"),
        ({"endTime": 1_600_000_000_000}, "InvalidParameterException", "endTime must not be before startTime"),
        ({"startTime": 20, "endTime": 10}, "InvalidParameterException", "endTime must not be before startTime"),
        ({"limit": 0}, "InvalidParameterException", "limit"),
        ({"limit": 100_001}, "InvalidParameterException", "limit"),
        ({"queryLanguage": "SQL"}, "InvalidParameterException", "Logs Insights QL (CWLI) only, not SQL"),
        ({"queryLanguage": "PPL"}, "InvalidParameterException", "Logs Insights QL (CWLI) only, not PPL"),
        ({"queryString": ""}, "MalformedQueryException", "the query ends too early"),
        ({"queryString": "x" * 10_001}, "InvalidParameterException", "queryString"),
    ],
)
def test_a_query_that_cant_be_started_is_refused(
    server: ApiServer, now: int, given: dict[str, Any], code: str, message: str
) -> None:
    logs = server.client("logs", parameter_validation=False)
    write(logs, "a", at=now)
    said, why = refused(logs.start_query, **arguments(**given))
    assert said == code
    assert message in why


def test_unknown_queries_and_tokens_are_refused(logs: Any, now: int) -> None:
    write(logs, "a", "b", at=now - 600)
    for call in (logs.get_query_results, logs.stop_query):
        code, message = refused(call, queryId="nothing")
        assert (code, message[:28]) == ("ResourceNotFoundException", "There is no query nothing: i")
    one, other = start(logs), start(logs)
    token = ended(logs, one, maxItems=1)["nextToken"]
    ended(logs, other)
    for call, given in (
        (logs.get_query_results, {"queryId": other, "nextToken": token}),
        (logs.get_query_results, {"queryId": one, "nextToken": "x"}),
        (logs.describe_queries, {"nextToken": token}),
    ):
        assert refused(call, **given) == ("InvalidParameterException", "The specified nextToken is invalid.")


# ---------------------------------------------------------------- fields


def test_the_event_of_a_row_is_found_by_its_pointer(logs: Any, now: int) -> None:
    write(logs, '{"a": {"b": [1, true]}, "n": null}', "other", at=now - 600)
    [*_, row] = ended(logs, start(logs, "fields a.b.0"))["results"]
    pointer = {each["field"]: each["value"] for each in row}["@ptr"]
    record = logs.get_log_record(logRecordPointer=pointer)["logRecord"]
    assert record.pop("@ingestionTime").isdigit()
    assert record == {
        "a.b.0": "1",
        "a.b.1": "1",
        "@timestamp": str((now - 600) * 1000),
        "@message": '{"a": {"b": [1, true]}, "n": null}',
        "@logStream": STREAM,
        "@log": f"{ACCOUNT}:{GROUP}",
    }
    logs.delete_log_stream(logGroupName=GROUP, logStreamName=STREAM)
    assert refused(logs.get_log_record, logRecordPointer=pointer)[0] == "ResourceNotFoundException"
    code, message = refused(logs.get_log_record, logRecordPointer="x")
    assert (code, message) == (
        "InvalidParameterException",
        "logRecordPointer is not one that a query returned as @ptr.",
    )


def test_the_fields_of_a_group_and_how_many_events_have_them(logs: Any, now: int) -> None:
    write(logs, '{"a": 1}', '{"a": 2, "b": {"c": 3}}', "plain", at=now - 60)
    write(logs, '{"old": 1}', at=now - 3600)
    fields = logs.get_log_group_fields(logGroupName=GROUP)["logGroupFields"]
    system = [
        {"name": f"@{name}", "percent": 100} for name in ("ingestionTime", "log", "logStream", "message", "timestamp")
    ]
    assert fields == [*system, {"name": "a", "percent": 66}, {"name": "b.c", "percent": 33}]
    fields = logs.get_log_group_fields(logGroupIdentifier=ARN + GROUP, time=now - 3600)["logGroupFields"]
    assert fields == [*system, {"name": "old", "percent": 100}]
    assert logs.get_log_group_fields(logGroupName=GROUP, time=now - 90_000)["logGroupFields"] == []
    assert refused(logs.get_log_group_fields)[0] == "InvalidParameterException"
    assert refused(logs.get_log_group_fields, logGroupName="no")[0] == "ResourceNotFoundException"
    fields = logs.get_log_group_fields(logGroupIdentifier=ARN + GROUP, time=(now - 3600) * 1000)["logGroupFields"]
    assert fields == [*system, {"name": "old", "percent": 100}]
    assert "milliseconds" in refused(logs.get_log_group_fields, logGroupName=GROUP, time=now * 10**6)[1]
