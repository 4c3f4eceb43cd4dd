"""`homeport query` against a real API server."""

import json
import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from controlplane.logs.api import StoreUnavailable
from tests.contract.commandline import Homeport
from tests.contract.server import ApiServer


@pytest.fixture
def filled(server: ApiServer) -> Any:
    """Two groups with a few events of five minutes ago."""
    logs = server.client("logs")
    at = int(time.time() - 300) * 1000
    for group in ("/app/web", "/app/job"):
        logs.create_log_group(logGroupName=group)
        logs.create_log_stream(logGroupName=group, logStreamName="s")
        texts = [f'{{"user": "{user}", "ms": {ms}}}' for user, ms in (("ann", 12), ("bob", 5), ("ann", 8))]
        events = [{"timestamp": at + n, "message": text} for n, text in enumerate([*texts, "two\nlines\there"])]
        logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=events)
    return logs


def test_rows_are_a_table_and_the_figures_are_said_besides(homeport: Homeport, filled: Any) -> None:
    result = homeport("query", "/app/web", "stats count(*) as n, max(ms) as slowest by user | sort n desc, user desc")
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["user", "n", "slowest"],
        ["ann", "2", "12"],
        ["bob", "1", "5"],
        ["1"],
    ]
    assert result.stderr == "3 rows; 4 of 4 events matched, 0.1 kB read\n"


def test_a_message_stays_on_its_line_and_pointers_are_not_shown(homeport: Homeport, filled: Any) -> None:
    result = homeport("query", "/app/web", "fields @message | filter @message like 'lines'")
    assert result.stdout.splitlines() == ["@message", "two⏎lines here"]
    assert result.stderr.startswith("1 row; 1 of 4 events matched")


def test_several_groups_and_all_that_begin_alike(homeport: Homeport, filled: Any) -> None:
    count = "stats count(*) as n"
    assert homeport("query", "/app/web", "/app/job", count).stdout.split() == ["n", "8"]
    assert homeport("query", "/app/*", "/app/web", count).stdout.split() == ["n", "8"]
    assert homeport("query", "*", count).stdout.split() == ["n", "8"]
    assert "begins with '/no'" in homeport("query", "/no*", count, code=3).stderr


def test_the_time_and_the_number_of_rows(homeport: Homeport, filled: Any) -> None:
    assert homeport("query", "/app/web", "fields ms", "--since", "1m").stdout == ""
    assert homeport("query", "/app/web", "fields ms", "--until", "10m").stdout == ""
    assert len(homeport("query", "/app/web", "fields ms", "--since", "1h", "-n", "2").stdout.splitlines()) <= 3


def test_json_has_the_rows_with_their_pointers_and_the_figures(homeport: Homeport, filled: Any) -> None:
    answer = json.loads(homeport("query", "/app/web", "fields user | filter ms = 5", "--json").stdout)
    [row] = answer["rows"]
    assert (row.pop("@ptr") != "", row) == (True, {"user": "bob"})
    assert answer["statistics"]["recordsScanned"] == 4


def test_all_pages_are_fetched(homeport: Homeport, filled: Any) -> None:
    at = int(time.time() - 200) * 1000
    for second in range(2):
        events = [{"timestamp": at + second, "message": "x"} for _ in range(6000)]
        filled.put_log_events(logGroupName="/app/job", logStreamName="s", logEvents=events)
    result = homeport("query", "/app/job", "display @logStream", "-n", "11000", "--json")
    assert len(json.loads(result.stdout)["rows"]) == 11_000


def test_what_is_wrong_is_said(
    homeport: Homeport, filled: Any, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "unexpected 'b'" in homeport("query", "/app/web", "fields a b", code=1).stderr
    assert "log group does not exist" in homeport("query", "/none", "limit 1", code=3).stderr
    homeport("query", "limit 1", code=2)

    async def scan(*_: object, **__: object) -> AsyncGenerator[Any]:
        if filled:
            raise StoreUnavailable("Loki is away")
        yield []

    monkeypatch.setattr(server.context.logs, "scan", scan)
    said = homeport("query", "/app/web", "limit 1", code=1).stderr
    assert "The query ended as Failed: Loki is away." in said


def test_ctrl_c_stops_the_query(
    homeport: Homeport, filled: Any, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.thread.call(server.stop_loops)

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("homeport.cli.query.time.sleep", interrupt)
    homeport("query", "/app/web", "limit 1", code=130)
    [query] = filled.describe_queries()["queries"]
    assert query["status"] == "Cancelled"
