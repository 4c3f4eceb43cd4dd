"""`homeport schedules` and `homeport schedule` against a real API server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.commandline import Homeport
from tests.contract.fleet import Fleet, register_web
from tests.contract.schedules import Clockwork, ecs_target, schedule
from tests.contract.server import ApiServer


@pytest.fixture
def clockwork(server: ApiServer) -> Iterator[Clockwork]:
    with Clockwork(server).running() as clockwork:
        yield clockwork


@pytest.fixture
def scheduler(server: ApiServer, ecs: Any, clockwork: Clockwork) -> Any:
    register_web(ecs)
    return server.client("scheduler")


def test_without_schedules_it_says_how_to_make_one(homeport: Homeport, server: ApiServer) -> None:
    result = homeport("schedules")
    assert result.stdout == ""
    assert "aws scheduler create-schedule" in result.stderr
    assert json.loads(homeport("schedules", "--json").stdout) == []


def test_a_list_of_schedules_and_rules(
    homeport: Homeport, server: ApiServer, scheduler: Any, clockwork: Clockwork
) -> None:
    server.client("events").put_rule(Name="hourly", ScheduleExpression="rate(1 hour)", State="DISABLED")
    scheduler.create_schedule(
        **schedule(
            Name="nightly",
            ScheduleExpression="cron(0 3 * * ? *)",
            ScheduleExpressionTimezone="Europe/Berlin",
            FlexibleTimeWindow={"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 15},
        )
    )
    scheduler.create_schedule(**schedule(Name="often"))
    clockwork.settle()
    lines = homeport("schedules").stdout.splitlines()
    assert lines[0].split() == ["SCHEDULE", "STATE", "WHEN", "NEXT", "LAST", "DUE", "LAST", "OUTCOME"]
    rule, nightly, often = (line.split() for line in lines[1:])
    assert rule[:4] == ["rule/hourly", "DISABLED", "rate(1", "hour)"]
    assert rule[-1] == "-"
    assert " ".join(nightly).startswith("default/nightly ENABLED cron(0 3 * * ? *) Europe/Berlin +15m in ")
    assert " ".join(often).startswith("default/often ENABLED rate(5 minutes) in 4m")
    assert often[-1] == "PENDING"  # there is no host


def test_a_schedule_with_its_next_times_and_its_history(
    homeport: Homeport, server: ApiServer, ecs: Any, scheduler: Any, clockwork: Clockwork
) -> None:
    fleet = Fleet(server)
    fleet.add_host()
    target = ecs_target(ecs={"TaskCount": 2, "Tags": [{"Key": "homeport:overlap", "Value": "skip"}]})
    scheduler.create_schedule(
        **schedule(Target=target, Description="twice as much", ScheduleExpression="rate(1 minute)")
    )
    clockwork.settle()
    one, other = ecs.list_tasks()["taskArns"]
    fleet.running(one)
    fleet.stopped(one, exit_code=3)
    clockwork.move(60)
    text = homeport("schedule", "job").stdout
    assert text.splitlines()[:2] == ["schedule/default/job  rate(1 minute)  ENABLED", "twice as much"]
    assert "target:    2 x web in default; overlap skip, missed run-once, up to 185 retries in 1d\n" in text
    assert text.count(" UTC\n") == 5
    skipped, started = text.splitlines()[-2:]
    assert "SKIPPED" in skipped
    assert "1 of its tasks had not ended yet" in skipped
    assert "STARTED" in started
    assert f"{one[-32:-20]} exit 3" in started
    assert f"{other[-32:-20]} PENDING" in started
    answer = json.loads(homeport("schedule", "default/job", "--json").stdout)
    assert len(answer["next"]) == 5
    assert [run["outcome"] for run in answer["runs"]] == ["SKIPPED", "STARTED"]
    assert answer["runs"][1]["tasks"][0].keys() >= {"taskArn", "lastStatus", "exitCode"}


def test_next_times_are_in_the_schedules_own_zone(homeport: Homeport, scheduler: Any) -> None:
    daily = schedule(ScheduleExpression="cron(30 3 * * ? *)", ScheduleExpressionTimezone="Asia/Kolkata")
    scheduler.create_schedule(**daily)
    lines = homeport("schedule", "job").stdout.splitlines()
    assert sum(line.endswith(" 03:30:00 IST") for line in lines) == 5


def test_one_that_completed_is_told_of_for_another_day(
    homeport: Homeport, server: ApiServer, scheduler: Any, clockwork: Clockwork
) -> None:
    scheduler.create_schedule(**schedule(ScheduleExpression="at(2020-01-01T00:00:00)", ActionAfterCompletion="DELETE"))
    clockwork.settle()
    text = homeport("schedule", "job").stdout
    assert text.startswith("schedule/default/job: completed, and deleted")
    assert "MISSED" in text


def test_names_that_mean_nothing_or_too_much(
    homeport: Homeport, server: ApiServer, scheduler: Any, clockwork: Clockwork, tmp_path: Path
) -> None:
    assert "No schedule or rule was found" in homeport("schedule", "job", code=3).stderr
    arn = scheduler.create_schedule(**schedule())["ScheduleArn"]
    server.client("events").put_rule(Name="job", ScheduleExpression="rate(1 hour)")
    both = homeport("schedule", "job", code=1).stderr
    assert "could mean several: rule/job, schedule/default/job" in both
    assert homeport("schedule", arn).stdout.startswith("schedule/default/job ")
    assert homeport("schedule", "rule/job").stdout.startswith("rule/job ")


def test_pages_have_rules_first_and_repeat_nothing(server: ApiServer, scheduler: Any) -> None:
    events = server.client("events")
    for name in ("b", "a"):
        events.put_rule(Name=name, ScheduleExpression="rate(1 hour)")
        scheduler.create_schedule(**schedule(Name=name, State="DISABLED"))
    found: list[str] = []
    token = None
    while True:
        request = {"maxResults": 1, **({"nextToken": token} if token else {})}
        body = json.dumps(request).encode()
        answer = server.post("Homeport_20261101.DescribeSchedules", body, service="homeport").json
        found += [each["id"] for each in answer["schedules"]]
        token = answer.get("nextToken")
        if token is None:
            break
    assert found == ["rule/a", "rule/b", "schedule/default/a", "schedule/default/b"]
