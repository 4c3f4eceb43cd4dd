"""`homeport logs` as a developer reads it: of tasks and services, of the living and the dead."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from controlplane.logs.api import StoreUnavailable
from homeport.protocol import ContainerReport, LogKind
from homeport.status import ContainerStatus, TaskStatus
from tests.contract.commandline import Homeport
from tests.contract.containers_logs import BEGAN, ContainersLogs, started, task_id
from tests.contract.fleet import WEB, Fleet, register_web, run
from tests.contract.server import ApiServer
from tests.contract.service_calls import create


@pytest.fixture
def logs(server: ApiServer, ecs: Any) -> ContainersLogs:
    return ContainersLogs.on_a_host(Fleet(server), ecs)


# ---------------------------------------------------------------- a task


def test_a_log_is_read_from_the_store(homeport: Homeport, ecs: Any, logs: ContainersLogs) -> None:
    arn = started(logs, ecs)
    logs.ship(arn, (1, "one"), (2, "two"))
    logs.ship(arn, (3, "bad"), kind=LogKind.STDERR)
    found = homeport("logs", task_id(arn))
    assert (found.stdout, found.stderr) == ("one\ntwo\n", "bad\n")
    assert homeport("logs", arn, "-n", "2").stdout == "two\n"
    assert homeport("logs", arn, "--stderr").stdout == ""
    assert homeport("logs", arn, "--stdout").stderr == ""
    first = homeport("logs", arn, "-t", "web").stdout.splitlines()[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.000 one", first)
    document = json.loads(homeport("logs", arn, "--json", "-n", "1").stdout)
    expected = {
        "at": BEGAN + 3.0,
        "stream": "stderr",
        "text": "bad",
        "task": task_id(arn),
        "container": "web",
        "number": 3,
    }
    assert document == expected


def test_times_bound_a_log(homeport: Homeport, ecs: Any, logs: ContainersLogs) -> None:
    arn = started(logs, ecs)
    logs.ship(arn, *((second, f"line {second}") for second in range(1, 6)))
    since, until = (datetime.fromtimestamp(BEGAN + s, UTC).isoformat() for s in (2, 5))
    assert homeport("logs", arn, "--since", since, "--until", until).stdout == "line 3\nline 4\n"
    assert homeport("logs", arn, "--since", since, "--until", until, "-n", "1").stdout == "line 4\n"


def test_a_container_that_has_no_log_hides_no_other(homeport: Homeport, ecs: Any, logs: ContainersLogs) -> None:
    arn = started(logs, ecs, "two")
    logs.ship(arn, (1, "all is well"), end=True)
    main = next(report for report in logs.fleet.record(arn).containers if report.name == "web")
    stopped_at = logs.server.clock.now()
    logs.fleet.report(arn, TaskStatus.STOPPED, [replace(main, exit_code=0)], stopped_at=stopped_at)
    found = homeport("logs", arn)
    assert found.output == f"web/{task_id(arn)[:8]} all is well\n"


def test_containers_are_interleaved_by_time(homeport: Homeport, ecs: Any, logs: ContainersLogs) -> None:
    arn = started(logs, ecs, "two")
    logs.ship(arn, (1, "one"), (3, "three"), (5, "five"))
    logs.ship(arn, (2, "two"), (4, "four"), container="side")
    digits = task_id(arn)[:8]
    assert homeport("logs", arn).stdout.splitlines() == [
        f"web/{digits} one",
        f"side/{digits} two",
        f"web/{digits} three",
        f"side/{digits} four",
        f"web/{digits} five",
    ]
    assert homeport("logs", arn, "-n", "2", "--no-prefix").stdout == "four\nfive\n"
    assert homeport("logs", arn, "side").stdout == "two\nfour\n"
    refused = homeport("logs", arn, "nope", code=1).stderr
    assert "no container 'nope'; it has: web, side." in refused


def test_long_logs_are_read_to_their_end(homeport: Homeport, ecs: Any, logs: ContainersLogs) -> None:
    arn = started(logs, ecs, "two")
    logs.ship(arn, *((second, f"{second}") for second in range(0, 3000, 2)))
    logs.ship(arn, *((second, f"{second}") for second in range(1, 3000, 2)), container="side")
    numbers = [str(number) for number in range(3000)]
    assert homeport("logs", arn, "--no-prefix").stdout.split() == numbers
    assert homeport("logs", arn, "--no-prefix", "-n", "2500").stdout.split() == numbers[-2500:]
    assert homeport("logs", arn, "side").stdout.split() == numbers[1::2]


def test_what_is_looked_for_is_found_and_gaps_are_always_shown(
    homeport: Homeport, ecs: Any, logs: ContainersLogs
) -> None:
    arn = started(logs, ecs)
    logs.ship(arn, *((second, f"GET /{second}") for second in range(1, 40)))
    logs.ship(arn, (40, "120 lines missing: rotated away"), kind=LogKind.GAP)
    found = homeport("logs", arn, "--grep", r"/1\d?$").stdout.splitlines()
    assert found == ["GET /1", *(f"GET /{second}" for second in range(10, 20)), "-- 120 lines missing: rotated away --"]
    # The last lines are those of what was looked for.
    assert homeport("logs", arn, "--grep", "(?i)get /1$", "-n", "2").stdout.splitlines()[0] == "GET /1"
    matches = json.loads(homeport("logs", arn, "--grep", "/3$", "--json").stdout.splitlines()[0])["matches"]
    assert matches == [[4, 6]]
    assert "grep must be a regular expression (RE2), but was '('" in homeport("logs", arn, "--grep", "(", code=1).stderr


def test_the_log_of_a_task_that_left_memory_is_still_there(homeport: Homeport, ecs: Any, logs: ContainersLogs) -> None:
    arn = started(logs, ecs)
    logs.ship(arn, (1, "last words"), end=True)
    logs.fleet.stopped(arn, exit_code=3)
    logs.archive(arn)
    assert homeport("logs", task_id(arn)[:12]).stdout == "last words\n"
    # Following what is over ends.
    assert homeport("logs", "-f", task_id(arn)[:12]).stdout == "last words\n"


def test_a_host_that_is_cut_off_is_named(homeport: Homeport, ecs: Any, logs: ContainersLogs) -> None:
    arn = started(logs, ecs)
    logs.ship(arn, (1, "one"))
    logs.fleet.set_presence(logs.fleet.record(arn).instance_id, connected=False)
    found = homeport("logs", arn)
    assert found.stdout == "one\n"
    assert re.search(r"the host anna is not connected since \S+Z; what it hadn't sent will come", found.stderr)


def test_a_container_that_never_started_says_why(homeport: Homeport, ecs: Any, logs: ContainersLogs) -> None:
    arn = run(ecs)["taskArn"]

    report = ContainerReport(
        name="web", status=ContainerStatus.STOPPED, reason="CannotPullContainerError: no such image"
    )
    logs.fleet.report(arn, TaskStatus.STOPPED, [report], stopped_at=logs.server.clock.now())
    refused = homeport("logs", arn, code=3).stderr
    assert "container web was never started: CannotPullContainerError: no such image" in refused
    assert "homeport story" in refused


def test_the_story_of_a_task_that_failed_ends_with_its_last_lines(
    homeport: Homeport, ecs: Any, logs: ContainersLogs
) -> None:
    failed, wanted = (started(logs, ecs) for _ in range(2))
    for arn in (failed, wanted):
        logs.ship(arn, *((second, f"step {second}") for second in range(1, 8)))
        logs.ship(arn, (8, "Error: none\n  at main"), kind=LogKind.STDERR, end=True)
    logs.fleet.stopped(failed, exit_code=1)
    told = [f"The last lines of web (all: homeport logs {task_id(failed)[:12]} web):"]
    told += [f"  step {second}" for second in range(4, 8)] + ["  Error: none", "    at main"]
    assert homeport("story", failed).stdout.splitlines()[-7:] == told
    assert told[0] in homeport("explain", task_id(failed)).stdout
    logs.fleet.stopped(wanted, exit_code=0)
    assert "The last lines" not in homeport("story", wanted).stdout


# ---------------------------------------------------------------- from the host


def test_what_the_store_has_not_is_read_from_the_host(
    homeport: Homeport, ecs: Any, logs: ContainersLogs, server: ApiServer
) -> None:
    arn = started(logs, ecs)
    server.host_logs.lines[task_id(arn), "web"] = [(1.0, "stdout", "one"), (2.0, "stderr", "two")]
    found = homeport("logs", arn)
    assert (found.stdout, found.stderr) == ("one\n", "two\n")
    assert homeport("logs", arn, "-n", "1").stderr == "two\n"
    assert homeport("logs", arn, "-n", "1", "--grep", "o.e").stdout == "one\n"
    assert server.host_logs.open == 0


def test_a_log_store_that_is_away_is_said_or_no_obstacle(
    homeport: Homeport, ecs: Any, logs: ContainersLogs, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("its disk is gone")

    arn = started(logs, ecs)
    logs.ship(arn, (1, "one"))
    monkeypatch.setattr(server.context.logs, "read", away)
    refused = homeport("logs", arn, code=3).stderr
    assert "The log can't be read: the log store is away: its disk is gone." in refused
    server.host_logs.lines[task_id(arn), "web"] = [(1.0, "stdout", "from the host")]
    monkeypatch.setattr(server.context.logs, "stream", away)
    assert homeport("logs", arn).stdout == "from the host\n"


def test_a_driver_that_the_engine_can_not_read_is_named(
    homeport: Homeport, ecs: Any, logs: ContainersLogs, server: ApiServer
) -> None:
    driver = {"logDriver": "gelf", "options": {"gelf-address": "udp://logs:12201"}}
    register_web(ecs, "far", [{**WEB, "logConfiguration": driver}])
    arn = started(logs, ecs, "far")
    server.host_logs.error = "configured logging driver does not support reading"
    refused = homeport("logs", arn, code=3).stderr
    assert "does not support reading (its log driver is gelf: look for it at udp://logs:12201)" in refused


# ---------------------------------------------------------------- a service


@pytest.fixture
def service(ecs: Any, logs: ContainersLogs) -> Any:
    return create(ecs)


def test_a_service_is_all_its_tasks(homeport: Homeport, ecs: Any, logs: ContainersLogs, service: Any) -> None:
    one, two = (started(logs, ecs, service=service) for _ in range(2))
    logs.ship(one, (1, "a"), (3, "c"))
    logs.ship(two, (2, "b"), (4, "d"))
    started(logs, ecs)  # of no service
    shown = [f"web/{task_id(arn)[:8]} {text}" for arn, text in ((one, "a"), (two, "b"), (one, "c"), (two, "d"))]
    assert homeport("logs", "web").stdout.splitlines() == shown
    assert homeport("logs", "default/web", "-n", "3").stdout.splitlines() == shown[1:]
    assert homeport("logs", service["serviceArn"], "--no-prefix").stdout == "a\nb\nc\nd\n"


def test_stopped_tasks_of_a_service_are_shown_if_asked_for(
    homeport: Homeport, ecs: Any, logs: ContainersLogs, service: Any
) -> None:
    old, dead, alive = (started(logs, ecs, service=service) for _ in range(3))
    logs.ship(old, (1, "long ago"), end=True)
    logs.ship(dead, (2, "died"), end=True)
    logs.ship(alive, (3, "lives"))
    for arn in (old, dead):
        logs.fleet.stopped(arn, exit_code=1)
    logs.archive(old)
    assert homeport("logs", "web", "--no-prefix").stdout == "lives\n"
    for options in (["--all"], ["-n", "9"], ["--since", "2020-01-01"]):
        assert homeport("logs", "web", "--no-prefix", *options).stdout == "long ago\ndied\nlives\n", options
    logs.fleet.stopped(alive)
    logs.ship(alive, end=True)
    # Where none runs, those that ran last are what is of interest.
    assert homeport("logs", "web", "--no-prefix").stdout == "died\nlives\n"


def test_a_service_without_tasks_has_the_logs_of_those_it_had(
    homeport: Homeport, ecs: Any, logs: ContainersLogs, service: Any
) -> None:
    assert "no task of it has a log yet" in homeport("logs", "web", code=3).stderr
    one, other = (started(logs, ecs, service=service) for _ in range(2))
    run_alone = started(logs, ecs)
    for arn, text in ((one, "a"), (other, "b"), (run_alone, "not of the service")):
        logs.ship(arn, (ord(text[0]), text), end=True)
        logs.fleet.stopped(arn)
        logs.archive(arn)
    assert sorted(homeport("logs", "web", "--no-prefix").stdout.split()) == ["a", "b"]
    assert homeport("logs", "web", "--since", "2100-01-01").output == ""
    told = homeport("explain", "web").stdout
    assert "The last lines of its tasks (more: homeport logs default/web -n 100):\n  a\n  b\n" in told


def test_a_name_may_be_a_service_or_a_task(homeport: Homeport, ecs: Any, logs: ContainersLogs) -> None:
    arn = started(logs, ecs)
    logs.ship(arn, (1, "of the task"))
    short, long = task_id(arn)[:2], task_id(arn)[:8]
    for name in (short, long):
        service = create(ecs, serviceName=name)
        logs.ship(other := started(logs, ecs, service=service), (1, f"of {name}"))
        assert other != arn
    found = homeport("logs", short, "--no-prefix")
    assert found.stdout == f"of {short}\n"
    assert f"this is the service default/{short}" in found.stderr or "could mean" not in found.stderr
    found = homeport("logs", long)
    assert found.stdout == "of the task\n"
    assert f"the service of that name: homeport logs default/{long}" in found.stderr
    assert homeport("logs", "nosuch", code=3).stderr.startswith("homeport: There is no service nosuch, and no task")


def test_what_is_to_come_has_no_end(homeport: Homeport) -> None:
    assert "--until can't be used with --follow" in homeport("logs", "web", "-f", "--until", "1m", code=2).stderr
