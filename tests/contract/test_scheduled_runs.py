"""Schedules and rules run their tasks: when they are due, once, by their policies, and tell what became of it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.standalone.loop import StandaloneLoop
from homeport.ids import TaskId
from tests.contract.fleet import Fleet, register_web
from tests.contract.schedules import CLUSTER, Clockwork, beside, ecs_target, schedule
from tests.contract.server import ACCOUNT, REGION, ApiServer


@pytest.fixture
def fleet(server: ApiServer) -> Fleet:
    return Fleet(server)


@pytest.fixture
def clockwork(server: ApiServer) -> Iterator[Clockwork]:
    with Clockwork(server).running() as clockwork:
        yield clockwork


@pytest.fixture
def scheduler(server: ApiServer, ecs: Any, fleet: Fleet, clockwork: Clockwork) -> Any:
    """A client, with a task definition `web` and a host to run it on."""
    register_web(ecs)
    fleet.add_host()
    return server.client("scheduler")


def tasks(ecs: Any, **filters: Any) -> list[Any]:
    arns = ecs.list_tasks(**filters)["taskArns"]
    return list(ecs.describe_tasks(tasks=arns, include=["TAGS"])["tasks"]) if arns else []


def test_a_rate_runs_at_once_and_then_each_period(scheduler: Any, ecs: Any, clockwork: Clockwork) -> None:
    scheduler.create_schedule(**schedule())
    clockwork.settle()
    (task,) = tasks(ecs, startedBy="chronos-schedule/job")
    assert task["clusterArn"] == CLUSTER
    assert task["group"] == "family:web"
    clockwork.move(299)
    assert clockwork.outcomes() == ["STARTED"]
    clockwork.move(1)
    assert clockwork.outcomes() == ["STARTED", "STARTED"]
    first, second = clockwork.runs()
    assert second.due_at - first.due_at == 300
    assert first.tasks == (task["taskArn"].rsplit("/", 1)[-1],)
    assert [run.number for run in (first, second)] == [1, 2]
    (accepted, *_) = clockwork.server.thread.call(lambda: clockwork.server.journal.story(TaskId(first.tasks[0])))
    assert accepted.message.startswith("The schedule job of web:1 in group family:web")


def test_everything_a_target_says_reaches_the_tasks(scheduler: Any, ecs: Any, clockwork: Clockwork) -> None:
    environment = [{"name": "AT", "value": "<aws.scheduler.scheduled-time>"}]
    container = {"name": "web", "command": ["<aws.scheduler.attempt-number>"], "environment": environment}
    parameters = {
        "TaskCount": 3,
        "Group": "batch",
        "EnableECSManagedTags": True,
        "PropagateTags": "TASK_DEFINITION",
        "PlacementStrategy": [{"type": "binpack", "field": "cpu"}],
        "PlacementConstraints": [{"type": "memberOf", "expression": "attribute:ecs.os-type == linux"}],
        "Tags": [{"key": "team", "value": "red"}, {"stage": "test"}],
    }
    target = ecs_target(ecs=parameters, Input=json.dumps({"containerOverrides": [container]}))
    scheduler.create_schedule(
        **schedule(Name="once", ScheduleExpression="at(2020-01-01T00:00:00)", Target=target, State="DISABLED")
    )
    at = clockwork.server.clock.now() + 60
    when = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    scheduler.update_schedule(**schedule(Name="once", ScheduleExpression=f"at({when})", Target=target))
    clockwork.settle()
    assert clockwork.runs("schedule/default/once") == []
    clockwork.move(60)
    started = tasks(ecs, startedBy="chronos-schedule/once")
    assert len(started) == 3
    (override,) = started[0]["overrides"]["containerOverrides"]
    assert override["command"] == ["1"]
    assert override["environment"] == [{"name": "AT", "value": f"{when}Z"}]
    assert started[0]["group"] == "batch"
    found = {tag["key"]: tag["value"] for tag in started[0]["tags"]}
    assert found == {"aws:ecs:clusterName": "default", "team": "red", "stage": "test"}
    clockwork.move(86400)
    assert clockwork.outcomes("schedule/default/once") == ["STARTED"]


def test_a_rule_runs_each_of_its_targets_first_after_one_period(
    server: ApiServer, scheduler: Any, ecs: Any, clockwork: Clockwork
) -> None:
    events = server.client("events")
    events.put_rule(Name="each-minute", ScheduleExpression="rate(1 minute)")
    targets = [{"Id": "a", **ecs_target()}, {"Id": "b", **ecs_target(ecs={"TaskCount": 2})}]
    events.put_targets(Rule="each-minute", Targets=targets)
    clockwork.settle()
    assert tasks(ecs) == []
    clockwork.move(60)
    assert len(tasks(ecs, startedBy="events-rule/each-minute")) == 3
    runs = clockwork.runs("rule/each-minute")
    assert [(run.target_id, len(run.tasks)) for run in runs] == [("a", 1), ("b", 2)]
    events.disable_rule(Name="each-minute")
    clockwork.move(600)
    assert len(clockwork.runs("rule/each-minute")) == 2
    events.enable_rule(Name="each-minute")
    clockwork.settle()
    assert len(clockwork.runs("rule/each-minute")) == 2
    clockwork.move(60)
    assert len(clockwork.runs("rule/each-minute")) == 4


def test_a_run_that_finds_no_room_is_tried_again_and_starts_what_is_missing(
    scheduler: Any, ecs: Any, fleet: Fleet, clockwork: Clockwork
) -> None:
    register_web(ecs, "big", [{"name": "web", "image": "busybox", "cpu": 4096, "memory": 64}])
    target = ecs_target(ecs={"TaskDefinitionArn": "big", "TaskCount": 2})
    scheduler.create_schedule(**schedule(Target=target, ScheduleExpression="rate(1 day)"))
    clockwork.settle()
    (run,) = clockwork.runs()
    assert (run.outcome, len(run.tasks), run.attempts) == ("PENDING", 1, 1)
    assert "RESOURCE:CPU" in run.reason
    fleet.add_host("host-2")
    clockwork.move(1)
    (run,) = clockwork.runs()
    assert (run.outcome, len(run.tasks), run.attempts, run.reason) == ("STARTED", 2, 2, "")
    assert len(tasks(ecs, startedBy="chronos-schedule/job")) == 2


def test_retries_end_with_a_recorded_failure(scheduler: Any, ecs: Any, clockwork: Clockwork) -> None:
    register_web(ecs, "huge", [{"name": "web", "image": "busybox", "cpu": 100, "memory": 100_000}])
    queue = f"arn:aws:sqs:{REGION}:{ACCOUNT}:dead"
    target = ecs_target(
        ecs={"TaskDefinitionArn": "huge"}, RetryPolicy={"MaximumRetryAttempts": 2}, DeadLetterConfig={"Arn": queue}
    )
    scheduler.create_schedule(**schedule(Target=target, ScheduleExpression="rate(1 day)"))
    for seconds in (0, 1, 2):
        clockwork.move(seconds)
    (run,) = clockwork.runs()
    assert (run.outcome, run.attempts, run.dead_letter, run.tasks) == ("FAILED", 3, queue, ())
    assert run.reason.startswith("no host could take it: RESOURCE:MEMORY")
    assert run.reason.endswith("given up after 3 attempts")


def test_what_no_retry_can_heal_fails_at_once(scheduler: Any, ecs: Any, clockwork: Clockwork) -> None:
    scheduler.create_schedule(**schedule(Target=ecs_target(ecs={"TaskDefinitionArn": "nowhere:1"})))
    clockwork.settle()
    (run,) = clockwork.runs()
    assert (run.outcome, run.attempts, run.reason) == ("FAILED", 1, "ClientException: TaskDefinition not found.")


def test_overlap_skip(scheduler: Any, ecs: Any, fleet: Fleet, clockwork: Clockwork) -> None:
    target = ecs_target(ecs={"Tags": [{"Key": "homeport:overlap", "Value": "skip"}]})
    scheduler.create_schedule(**schedule(Target=target))
    clockwork.settle()
    clockwork.move(300)
    assert clockwork.outcomes() == ["STARTED", "SKIPPED"]
    assert "had not ended yet" in clockwork.runs()[1].reason
    (task,) = tasks(ecs)
    fleet.running(task["taskArn"])
    fleet.stopped(task["taskArn"])
    clockwork.move(300)
    assert clockwork.outcomes() == ["STARTED", "SKIPPED", "STARTED"]


def test_overlap_replace_waits_for_the_earlier_task_to_stop(
    scheduler: Any, ecs: Any, fleet: Fleet, clockwork: Clockwork
) -> None:
    scheduler.create_schedule_group(Name="jobs", Tags=[{"Key": "homeport:overlap", "Value": "replace"}])
    scheduler.create_schedule(**schedule(GroupName="jobs"))
    clockwork.settle()
    (task,) = tasks(ecs)
    fleet.running(task["taskArn"])
    clockwork.move(300)
    assert clockwork.outcomes("schedule/jobs/job") == ["STARTED", "PENDING"]
    assert clockwork.runs("schedule/jobs/job")[1].reason == "waits for 1 earlier task to stop"
    (old,) = tasks(ecs, desiredStatus="STOPPED")
    assert (old["taskArn"], old["stoppedReason"]) == (task["taskArn"], "Replaced by the next run of schedule/jobs/job")
    assert tasks(ecs) == []
    fleet.stopped(task["taskArn"], exit_code=143)
    clockwork.settle()
    assert clockwork.outcomes("schedule/jobs/job") == ["STARTED", "STARTED"]
    assert len(tasks(ecs)) == 1


def test_a_completed_schedule_is_deleted_and_its_history_stays_a_day(
    server: ApiServer, scheduler: Any, ecs: Any, clockwork: Clockwork
) -> None:
    end = server.clock.now() + 400
    scheduler.create_schedule(**schedule(EndDate=end, ActionAfterCompletion="DELETE"))
    clockwork.settle()
    assert scheduler.get_schedule(Name="job")["ActionAfterCompletion"] == "DELETE"
    clockwork.move(300)
    with pytest.raises(scheduler.exceptions.ResourceNotFoundException):
        scheduler.get_schedule(Name="job")
    assert clockwork.outcomes() == ["STARTED", "STARTED"]
    assert all(run.expires_at is not None for run in clockwork.runs())
    assert len(tasks(ecs)) == 2


def test_only_the_last_hundred_runs_are_kept(scheduler: Any, clockwork: Clockwork) -> None:
    target = ecs_target(ecs={"TaskDefinitionArn": "nowhere:1"})
    scheduler.create_schedule(**schedule(Target=target, ScheduleExpression="rate(1 minute)"))
    clockwork.settle()
    for _ in range(104):
        clockwork.move(60)
    assert [run.number for run in clockwork.runs()] == list(range(6, 106))


def test_another_attempt_of_a_task_counts_as_still_running(
    server: ApiServer, scheduler: Any, ecs: Any, fleet: Fleet, clockwork: Clockwork
) -> None:
    target = ecs_target(ecs={"Tags": [{"homeport:overlap": "skip", "homeport:retries": "1"}]})
    scheduler.create_schedule(**schedule(Target=target))
    clockwork.settle()
    (task,) = tasks(ecs)

    fleet.running(task["taskArn"])
    fleet.stopped(task["taskArn"], exit_code=1)
    with beside(server, StandaloneLoop(server.context).run()):
        server.wait_until(lambda: len(server.context.state.tasks) == 2)
    clockwork.settle()

    def forget() -> None:
        with server.context.state.transaction() as transaction:
            record = server.context.state.tasks.get(task["taskArn"].rsplit("/", 1)[-1])
            assert record is not None
            transaction.archive(record)

    server.call(forget)
    clockwork.move(300)
    assert clockwork.outcomes() == ["STARTED", "SKIPPED"]


def test_without_any_host_it_is_tried_again(server: ApiServer, ecs: Any, fleet: Fleet, clockwork: Clockwork) -> None:
    register_web(ecs)
    server.client("scheduler").create_schedule(**schedule())
    clockwork.settle()
    (run,) = clockwork.runs()
    assert (run.outcome, run.attempts) == ("PENDING", 1)
    assert run.reason.endswith("No Container Instances were found in your cluster.")
    fleet.add_host()
    clockwork.move(1)
    assert clockwork.outcomes() == ["STARTED"]


def test_what_was_due_while_it_was_disabled_does_not_run(scheduler: Any, clockwork: Clockwork) -> None:
    scheduler.create_schedule(**schedule())
    clockwork.settle()
    scheduler.update_schedule(**schedule(State="DISABLED"))
    clockwork.move(1000)
    scheduler.update_schedule(**schedule())
    clockwork.settle()
    assert clockwork.outcomes() == ["STARTED"]
    clockwork.move(200)  # 1200 seconds after the first
    assert clockwork.outcomes() == ["STARTED", "STARTED"]


def test_a_changed_tag_of_the_group_is_heeded_at_once(
    server: ApiServer, scheduler: Any, ecs: Any, fleet: Fleet, clockwork: Clockwork
) -> None:
    arn = server.context.arns.schedule_group("default")
    scheduler.tag_resource(ResourceArn=arn, Tags=[{"Key": "homeport:overlap", "Value": "replace"}])
    scheduler.create_schedule(**schedule())
    clockwork.settle()
    (task,) = tasks(ecs)
    fleet.running(task["taskArn"])
    clockwork.move(300)
    assert clockwork.outcomes() == ["STARTED", "PENDING"]
    scheduler.untag_resource(ResourceArn=arn, TagKeys=["homeport:overlap"])
    clockwork.settle()
    assert clockwork.outcomes() == ["STARTED", "STARTED"]
