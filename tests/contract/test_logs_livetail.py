"""StartLiveTail through boto3: what comes in is told every second."""

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, EventStreamError
from urllib3.exceptions import ProtocolError

from controlplane.api.logs import livetail
from controlplane.api.logs.livetail import MAX_EVENTS, MAX_SESSION_S
from tests.contract.logs import GROUP, GROUP_ARN, STREAM, made, millis, put
from tests.contract.refusals import refused
from tests.contract.server import ACCOUNT, ApiServer


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livetail, "PERIOD_S", 0.02)


@pytest.fixture
def logs(server: ApiServer) -> Any:
    """A client that leaves the host's name as it is."""
    made(server)
    return server.client("logs", inject_host_prefix=False)


@pytest.fixture
def tail(logs: Any) -> Iterator[Callable[..., Any]]:
    """Begin a session and return its events, behind the first one."""
    streams: list[Any] = []

    def begin(**request: Any) -> Any:
        streams.append(logs.start_live_tail(**{"logGroupIdentifiers": [GROUP_ARN], **request})["responseStream"])
        events = iter(streams[-1])
        start = next(events)["sessionStart"]
        assert start["logGroupIdentifiers"] == request.get("logGroupIdentifiers", [GROUP_ARN])
        assert start["sessionId"]
        return events

    yield begin
    for stream in streams:
        stream.close()


def told(events: Any, count: int) -> list[dict[str, Any]]:
    """Return what the next updates tell, until they have told so many events."""
    results: list[dict[str, Any]] = []
    while len(results) < count:
        update = next(events)["sessionUpdate"]
        assert update["sessionMetadata"] == {"sampled": False}
        results += update["sessionResults"]
    return results


def messages(events: Any, count: int) -> list[str]:
    return [result["message"] for result in told(events, count)]


def test_what_comes_in_is_told_once(server: ApiServer, logs: Any, tail: Callable[..., Any]) -> None:
    now = millis(server)
    put(logs, [(now, "before")])
    server.clock.move(1)
    events = tail()
    put(logs, [(now + 1000, "a"), (now + 1001, "b")])
    logs.create_log_stream(logGroupName=GROUP, logStreamName="new")
    put(logs, [(now + 1002, "c")], stream="new")
    results = told(events, 3)
    assert all(result.pop("ingestionTime") >= now for result in results)
    common = {"logGroupIdentifier": f"{ACCOUNT}:{GROUP}"}
    assert results == [
        {**common, "logStreamName": STREAM, "timestamp": now + 1000, "message": "a"},
        {**common, "logStreamName": STREAM, "timestamp": now + 1001, "message": "b"},
        {**common, "logStreamName": "new", "timestamp": now + 1002, "message": "c"},
    ]
    put(logs, [(now + 1003, "d")])
    assert messages(events, 1) == ["d"]


def test_streams_and_patterns_choose(server: ApiServer, logs: Any, tail: Callable[..., Any]) -> None:
    for name in ("app/a", "app/b", "other"):
        logs.create_log_stream(logGroupName=GROUP, logStreamName=name)
    named = tail(logStreamNames=["other", "none"])
    prefixed = tail(logStreamNamePrefixes=["app/"], logEventFilterPattern="ERROR")
    now = millis(server)
    for number, name in enumerate(("app/a", "app/b", "other")):
        put(logs, [(now + number, f"ERROR {name}"), (now + number, f"fine {name}")], stream=name)
    assert messages(named, 2) == ["ERROR other", "fine other"]
    assert messages(prefixed, 2) == ["ERROR app/a", "ERROR app/b"]


def test_of_many_events_the_newest_are_told(server: ApiServer, logs: Any, tail: Callable[..., Any]) -> None:
    events = tail()
    put(logs, [(millis(server), str(number)) for number in range(MAX_EVENTS + 1)])
    update = next(event for event in events if event["sessionUpdate"]["sessionResults"])["sessionUpdate"]
    assert update["sessionMetadata"] == {"sampled": True}
    assert [result["message"] for result in update["sessionResults"]] == [str(n) for n in range(1, MAX_EVENTS + 1)]


def test_a_session_ends_with_a_reason(server: ApiServer, logs: Any, tail: Callable[..., Any]) -> None:
    logs.create_log_group(logGroupName="other")
    long, orphaned = tail(logGroupIdentifiers=["other"]), tail()
    logs.delete_log_group(logGroupName=GROUP)
    with pytest.raises(EventStreamError, match="The specified log group does not exist") as caught:
        list(orphaned)
    assert caught.value.response["Error"]["Code"] == "SessionStreamingException"
    server.clock.move(MAX_SESSION_S)
    with pytest.raises(EventStreamError, match="3 hours") as caught:
        list(long)
    assert caught.value.response["Error"]["Code"] == "SessionTimeoutException"


def test_a_reader_that_goes_leaves_nothing(server: ApiServer, logs: Any) -> None:
    stream = logs.start_live_tail(logGroupIdentifiers=[GROUP])["responseStream"]
    next(iter(stream))
    assert sessions() == 1
    stream.close()
    server.wait_until(lambda: sessions() == 0)


def test_sessions_are_cut_off_when_the_control_plane_stops(
    server: ApiServer, logs: Any, tail: Callable[..., Any]
) -> None:
    events = tail()
    server.thread.call(server.stop_loops)
    with pytest.raises(ProtocolError):
        list(events)
    assert sessions() == 0
    with pytest.raises(ClientError, match="The control plane is stopping") as caught:
        logs.start_live_tail(logGroupIdentifiers=[GROUP])
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert logs.describe_log_groups()["logGroups"]


def sessions() -> int:
    return sum(isinstance(thing, livetail._Tail) for thing in gc.get_objects())


@pytest.mark.parametrize(
    ("request_", "code", "said"),
    [
        ({"logGroupIdentifiers": ["none"]}, "ResourceNotFoundException", "log group does not exist"),
        ({"logStreamNames": ["a"], "logStreamNamePrefixes": ["b"]}, "InvalidParameterException", "can't both be given"),
        (
            {"logGroupIdentifiers": [GROUP, "other"], "logStreamNames": ["a"]},
            "InvalidParameterException",
            "a single log group only",
        ),
        ({"logEventFilterPattern": "{"}, "InvalidParameterException", "Invalid filter pattern"),
        ({"logGroupIdentifiers": [f"{GROUP_ARN}:*"]}, "InvalidParameterException", "regular expression pattern"),
    ],
)
def test_a_session_that_can_not_begin(logs: Any, request_: dict[str, Any], code: str, said: str) -> None:
    found, message = refused(logs.start_live_tail, **{"logGroupIdentifiers": [GROUP], **request_})
    assert (found, said in message) == (code, True), message
