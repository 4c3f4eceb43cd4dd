"""Time limits and retries of tasks that no service owns, by boto3, with hosts played."""

from collections.abc import Iterator
from typing import Any

import pytest

from homeport.reasons import CANNOT_PULL, named
from homeport.status import TaskStatus
from tests.contract.fleet import Fleet, refused, register_web, run
from tests.contract.server import ApiServer
from tests.contract.standalone import (
    Reconciler,
    described,
    failed_to_start,
    id_of,
    next_attempt,
    placed,
    stopping,
    tags,
)


@pytest.fixture
def reconciler(server: ApiServer) -> Iterator[Reconciler]:
    reconciler = Reconciler(server)
    reconciler.start()
    yield reconciler
    reconciler.stop()


@pytest.fixture
def fleet(server: ApiServer) -> Fleet:
    return Fleet(server)


# ---------------------------------------------------------------- time limits


def test_a_task_that_runs_too_long_is_stopped_with_the_limit_in_the_reason(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    fleet.add_host()
    register_web(ecs, tags=tags(timeout="10m"))
    arn = run(ecs)["taskArn"]
    reconciler.move(3600)  # on its way to RUNNING it may take its time
    fleet.running(arn)
    reconciler.move(599)
    reconciler.calm()
    assert described(ecs, arn)["desiredStatus"] == "RUNNING"
    reconciler.move(1)
    stopping(fleet, arn)
    task = described(ecs, arn)
    assert task["stopCode"] == "UserInitiated"
    assert task["stoppedReason"] == "The task ran for longer than 600 s, the limit of its tag homeport:timeout"
    assert reconciler.story(arn)[-1] == task["stoppedReason"]


def test_the_limit_counts_by_our_clock_whatever_the_host_says(ecs: Any, fleet: Fleet, reconciler: Reconciler) -> None:
    fleet.add_host()
    register_web(ecs)
    late, early = (run(ecs, tags=tags(timeout=60))["taskArn"] for _ in range(2))
    now = fleet.context.clock.now()
    fleet.report(late, TaskStatus.RUNNING, [], started_at=now + 86_400)
    fleet.report(early, TaskStatus.RUNNING, [], started_at=now - 86_400)
    reconciler.move(59)
    reconciler.calm()
    assert described(ecs, early)["desiredStatus"] == "RUNNING"
    reconciler.move(1)
    stopping(fleet, late)
    stopping(fleet, early)


def test_a_limit_holds_across_a_restart_of_the_control_plane(ecs: Any, fleet: Fleet, reconciler: Reconciler) -> None:
    fleet.add_host()
    register_web(ecs)
    arn = run(ecs, tags=tags(timeout=60))["taskArn"]
    fleet.running(arn)
    reconciler.move(30)
    reconciler.stop()
    fleet.server.clock.move(30)
    reconciler.start()
    stopping(fleet, arn)


def test_the_tags_of_a_request_win_over_those_of_its_definition(ecs: Any, fleet: Fleet, reconciler: Reconciler) -> None:
    fleet.add_host()
    register_web(ecs, tags=tags(timeout=5))
    arn = run(ecs, tags=tags(timeout=60))["taskArn"]
    fleet.running(arn)
    reconciler.move(59)
    reconciler.calm()
    assert described(ecs, arn)["desiredStatus"] == "RUNNING"
    reconciler.move(1)
    stopping(fleet, arn)


def test_a_task_that_does_not_come_up_in_time_is_stopped_and_tried_elsewhere(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    fleet.add_host("one")
    fleet.add_host("two")
    register_web(ecs)
    arn = run(ecs, tags=tags(start_timeout=30, retries=1))["taskArn"]
    reconciler.move(30)
    stopping(fleet, arn)
    task = described(ecs, arn)
    assert task["stopCode"] == "TaskFailedToStart"
    assert "30 s" in task["stoppedReason"]
    fleet.report(arn, TaskStatus.STOPPED, [])
    retry = next_attempt(fleet, arn)
    reconciler.move(1)
    placed(fleet, retry)
    assert fleet.record(retry).instance_id != fleet.record(arn).instance_id


# ---------------------------------------------------------------- values that can't be used


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"timeout": "0"}, "homeport:timeout must be a number of seconds from 1 to 2592000"),
        ({"timeout": "31d"}, "homeport:timeout must be"),
        ({"timeout": "soon"}, "homeport:timeout must be"),
        ({"start_timeout": "-1"}, "homeport:start-timeout must be"),
        ({"wait_timeout": "1.5"}, "homeport:wait-timeout must be"),
        ({"retries": "11"}, "homeport:retries must be a number from 0 to 10"),
        ({"retries": "-1"}, "homeport:retries must be"),
        ({"lost_after": "4"}, "homeport:lost-after must be a number of seconds from 5 to 86400"),
        ({"exclusive": "a b"}, "homeport:exclusive must be a name of 1 to 255 letters"),
        ({"exclusive": "a", "exclusive_policy": "fight"}, "homeport:exclusive-policy must be wait, skip, replace"),
        ({"exclusive_policy": "skip"}, "homeport:exclusive-policy needs the tag homeport:exclusive"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_with_its_limits(
    ecs: Any, fleet: Fleet, values: dict[str, str], said: str
) -> None:
    host = fleet.add_host()
    register_web(ecs)
    given = tags(**values)
    with fleet.server.unchanged():
        for code, message in (
            refused(ecs.run_task, taskDefinition="web", tags=given),
            refused(ecs.start_task, taskDefinition="web", containerInstances=[host], tags=given),
            refused(
                ecs.register_task_definition,
                family="web",
                containerDefinitions=[{"name": "a", "image": "a", "memory": 6}],
                tags=given,
            ),
        ):
            assert code == "ClientException"
            assert said in message


# ---------------------------------------------------------------- retries


def test_a_task_that_fails_is_run_again_as_a_new_one_until_its_retries_are_used_up(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    fleet.add_host(attributes={"disk": "ssd"})
    fleet.add_host()
    register_web(ecs)
    asked = {
        "overrides": {"containerOverrides": [{"name": "web", "command": ["false"]}]},
        "placementConstraints": [{"type": "memberOf", "expression": "attribute:disk == ssd"}],
        "group": "nightly",
        "startedBy": "cron",
        "enableExecuteCommand": True,
    }
    first = run(ecs, tags=[{"key": "team", "value": "a"}, *tags(retries=2)], **asked)["taskArn"]
    arns = [first]
    for attempt, delay_s in ((2, 1.0), (3, 2.0)):
        fleet.running(arns[-1])
        fleet.stopped(arns[-1], exit_code=3)
        retry = next_attempt(fleet, arns[-1])
        reconciler.calm()
        waiting = described(ecs, retry)
        assert waiting["lastStatus"] == "PROVISIONING"
        assert "containerInstanceArn" not in waiting
        reconciler.move(delay_s)
        placed(fleet, retry)
        task = described(ecs, retry)
        shown = {tag["key"]: tag["value"] for tag in task["tags"]}
        assert shown["team"] == "a"
        assert shown["homeport:attempt"] == str(attempt)
        assert shown["homeport:retry-of"] == id_of(arns[-1])
        assert (task["group"], task["startedBy"], task["enableExecuteCommand"]) == ("nightly", "cron", True)
        assert task["overrides"]["containerOverrides"] == asked["overrides"]["containerOverrides"]  # type: ignore[index]
        assert fleet.record(retry).instance_id == fleet.record(first).instance_id
        told = reconciler.story(retry)[0]
        assert told.startswith(
            f"Attempt {attempt} of 3, retry of task {id_of(arns[-1])} because web exited with code 3"
        )
        assert f"It is run again as task {id_of(retry)} in {delay_s:.0f} s" in reconciler.story(arns[-1])[-1]
        arns.append(retry)
    fleet.stopped(arns[-1], exit_code=3)
    fleet.server.wait_until(lambda: fleet.context.state.tasks.get(id_of(arns[-1])).settled)
    assert reconciler.story(arns[-1])[-1] == "Attempt 3 of 3 failed (web exited with code 3); there is no other"
    reconciler.move(3600)
    reconciler.calm()
    assert len(ecs.list_tasks(desiredStatus="STOPPED")["taskArns"]) == 3
    assert ecs.list_tasks()["taskArns"] == []
    assert described(ecs, first)["containers"][0]["exitCode"] == 3


def test_what_did_its_work_or_was_stopped_on_request_is_not_run_again(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    fleet.add_host()
    register_web(ecs)
    done, stopped, late = (run(ecs, tags=tags(retries=5, timeout=60))["taskArn"] for _ in range(3))
    fleet.stopped(done, exit_code=0)
    ecs.stop_task(task=stopped)
    fleet.stopped(stopped, exit_code=137)
    fleet.running(late)
    reconciler.move(60)
    stopping(fleet, late)
    fleet.stopped(late, exit_code=137)
    for arn in (done, stopped, late):
        fleet.server.wait_until(lambda arn=arn: fleet.context.state.tasks.get(id_of(arn)).settled)  # type: ignore[misc]
    reconciler.calm()
    assert len(fleet.context.state.tasks) == 3


def test_an_error_that_no_other_attempt_can_heal_is_not_tried_again(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    fleet.add_host()
    register_web(ecs)
    arn = run(ecs, tags=tags(retries=5))["taskArn"]
    reason = named(CANNOT_PULL, "manifest unknown: manifest unknown")
    failed_to_start(fleet, arn, reason)
    fleet.server.wait_until(lambda: fleet.context.state.tasks.get(id_of(arn)).settled)
    assert reconciler.story(arn)[-1] == f"Attempt 1 of 6 failed in a way that another one can't heal: {reason}"
    assert len(fleet.context.state.tasks) == 1


def test_after_a_failure_of_its_host_a_task_prefers_another_one(ecs: Any, fleet: Fleet, reconciler: Reconciler) -> None:
    small = fleet.add_host("small", memory=512)
    big = fleet.add_host("big")
    register_web(ecs)
    binpack = [{"type": "binpack", "field": "memory"}]
    arn = run(ecs, tags=tags(retries=3), placementStrategy=binpack)["taskArn"]
    hosts = [fleet.record(arn).instance_id]
    for delay_s in (1, 2):
        failed_to_start(fleet, arn, named(CANNOT_PULL, "connection refused"))
        arn = next_attempt(fleet, arn)
        reconciler.move(delay_s)
        placed(fleet, arn)
        hosts.append(fleet.record(arn).instance_id)
    assert hosts[:2] == [small, big]
    assert hosts[2] in (small, big)  # no host is left that hasn't failed: better there than nowhere


def test_a_task_whose_host_is_lost_is_run_again_and_stops_there_should_it_be_back(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    lost = fleet.add_host("lost")
    register_web(ecs)
    arn = run(ecs, tags=tags(retries=1))["taskArn"]
    fleet.running(arn)
    fleet.add_host("other")
    fleet.set_presence(lost, connected=False)
    reconciler.move(59)
    reconciler.calm()
    assert fleet.record(arn).order.retried_as is None
    reconciler.move(1)
    retry = next_attempt(fleet, arn)
    task = described(ecs, arn)
    assert (task["lastStatus"], task["desiredStatus"]) == ("RUNNING", "STOPPED")
    assert f"run again as task {id_of(retry)}" in task["stoppedReason"]
    reconciler.move(1)
    placed(fleet, retry)
    fleet.set_presence(lost)
    fleet.stopped(arn, exit_code=137)
    reconciler.calm()
    assert len(fleet.context.state.tasks) == 2


def test_a_control_plane_that_comes_back_gives_hosts_their_time(ecs: Any, fleet: Fleet, reconciler: Reconciler) -> None:
    host = fleet.add_host()
    register_web(ecs)
    arn = run(ecs, tags=tags(retries=1, lost_after="90s"))["taskArn"]
    fleet.set_presence(host, connected=False)
    reconciler.calm()
    reconciler.stop()
    fleet.server.clock.move(3600)
    reconciler.start()
    reconciler.move(89)
    reconciler.calm()
    assert fleet.record(arn).order.retried_as is None
    reconciler.move(1)
    next_attempt(fleet, arn)


def test_a_task_given_up_with_its_host_is_run_again(ecs: Any, fleet: Fleet, reconciler: Reconciler) -> None:
    host = fleet.add_host()
    register_web(ecs)
    arn = run(ecs, tags=tags(retries=1))["taskArn"]
    ecs.deregister_container_instance(containerInstance=host, force=True)
    retry = next_attempt(fleet, arn)
    reconciler.move(1)
    reconciler.calm()
    assert "No host can take the task now" in reconciler.story(retry)[-1]
    other = fleet.add_host("other")
    reconciler.move(1)
    placed(fleet, retry)
    assert fleet.record(retry).instance_id == other


def test_a_failure_leads_to_one_attempt_however_often_it_is_looked_at(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    fleet.add_host()
    register_web(ecs)
    arn = run(ecs, tags=tags(retries=3))["taskArn"]
    fleet.stopped(arn, exit_code=1)
    next_attempt(fleet, arn)
    reconciler.calm()
    for _ in range(3):
        with fleet.server.unchanged():
            reconciler.stop()
            reconciler.start()
            reconciler.calm()
    assert len(fleet.context.state.tasks) == 2


def test_stopping_the_attempt_that_waits_ends_the_matter(ecs: Any, fleet: Fleet, reconciler: Reconciler) -> None:
    fleet.add_host()
    register_web(ecs)
    arn = run(ecs, tags=tags(retries=3))["taskArn"]
    fleet.stopped(arn, exit_code=1)
    retry = next_attempt(fleet, arn)
    assert ecs.stop_task(task=retry)["task"]["lastStatus"] == "STOPPED"
    reconciler.move(3600)
    reconciler.calm()
    assert len(fleet.context.state.tasks) == 2
