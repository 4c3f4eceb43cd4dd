"""Acting on decisions: tasks find hosts, what finds none is told once, prepared tasks take over, events are bounded."""

from typing import Any

import pytest
from msgspec.structs import replace

from controlplane.context import Context
from controlplane.services.act import act
from controlplane.services.events import MAX_EVENTS
from controlplane.services.model import (
    Action,
    Adopt,
    Blocked,
    Decision,
    Lose,
    MarkHealthy,
    Release,
    Return,
    Say,
    Settle,
    Start,
    Stop,
)
from controlplane.state.records import TaskRecord
from controlplane.state.service_records import ServiceRecord
from controlplane.state.validate import validate
from homeport.ids import TaskId
from homeport.protocol import ContainerReport
from homeport.status import ContainerStatus, DesiredStatus, HealthStatus, StopCode, TaskStatus
from tests.fakes.clock import ManualClock
from tests.fakes.records import a_context, an_instance, connect, put
from tests.fakes.services import DEPLOYMENT, look, put_service

WEB = {"name": "web", "image": "busybox", "memory": 64, "cpu": 100}
FIXED = {**WEB, "portMappings": [{"containerPort": 80, "hostPort": 8080}]}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def context(clock: ManualClock) -> Context:
    return a_context(clock)


def hosts(context: Context, *names: str, **members: Any) -> None:
    instances = [an_instance(name, **members) for name in names]
    put(context, *instances)
    connect(context, *instances)


def do(context: Context, service: ServiceRecord, *actions: Action) -> Blocked | None:
    return act(context, look(context, service), Decision(actions=actions)).blocked


def start(context: Context, count: int = 1, **members: Any) -> Start:
    return Start(deployment=DEPLOYMENT, count=count, wanted_at=context.clock.now(), **members)


def tasks(context: Context) -> list[TaskRecord]:
    return list(context.state.tasks)


def said(context: Context) -> list[str]:
    return [event.message for event in context.state.events]


def change(context: Context, task: TaskRecord, **members: Any) -> TaskRecord:
    changed = replace(task, **members)
    put(context, changed)
    return changed


def test_tasks_are_placed_evenly_and_the_event_names_them(context: Context) -> None:
    hosts(context, "a", "b")
    service = put_service(context, WEB, settings={"propagateTags": "SERVICE"}, tags={"team": "blue"})
    assert do(context, service, start(context, 4)) is None
    placed = tasks(context)
    assert sorted(task.instance_id or "" for task in placed) == ["a", "a", "b", "b"]
    assert {(task.group, task.started_by, task.desired) for task in placed} == {
        ("service:web", DEPLOYMENT, DesiredStatus.RUNNING)
    }
    assert {task.tags.get("team") for task in placed} == {"blue"}
    (event,) = said(context)
    assert event.startswith("(service web) has started 4 tasks: (task ")
    assert all(task.id in event for task in placed)
    validate(context.state)


def test_without_a_strategy_tasks_are_spread_over_zones_first(context: Context) -> None:
    hosts(context, "a1", "a2", "a3", attributes={"ecs.availability-zone": "a"})
    hosts(context, "b1", attributes={"ecs.availability-zone": "b"})
    service = put_service(context, WEB)
    do(context, service, start(context, 4))
    assert sorted(str(task.instance_id)[0] for task in tasks(context)) == ["a", "a", "b", "b"]


def test_of_many_started_tasks_the_event_names_some(context: Context) -> None:
    hosts(context, "a")
    service = put_service(context, WEB)
    do(context, service, start(context, 12))
    (event,) = said(context)
    assert event.count("(task ") == 10
    assert "and 2 more" in event


def test_what_finds_no_host_is_told_once_and_again_when_the_reason_changes(context: Context) -> None:
    hosts(context, "a", memory=100)
    service = put_service(context, WEB)
    blocked = do(context, service, start(context, 3))
    assert blocked is not None
    assert blocked.reasons == {"RESOURCE:MEMORY": 1}
    assert not blocked.by_own_tasks
    assert len(tasks(context)) == 1
    assert [("unable to place" in text) for text in said(context)] == [False, True]
    before = context.state.revision
    assert do(context, service, start(context, 2)) == blocked
    assert context.state.revision == before  # reconciling twice writes nothing
    put(context, replace(an_instance("a", memory=100), status="DRAINING"))
    assert do(context, service, start(context, 2)) == Blocked(reasons={"DRAINING": 1}, considered=1)
    assert "DRAINING" in said(context)[-1]


def test_once_all_are_placed_the_next_shortage_is_told_anew(context: Context) -> None:
    hosts(context, "a", memory=100)
    service = put_service(context, WEB)
    do(context, service, start(context, 2))
    (placed,) = tasks(context)
    change(context, placed, status=TaskStatus.STOPPED, desired=DesiredStatus.STOPPED, stopped_at=1.0)
    assert do(context, service, start(context)) is None
    do(context, service, start(context))
    assert sum("unable to place" in text for text in said(context)) == 2


def test_a_port_held_by_the_service_itself_is_told_from_one_held_by_others(context: Context) -> None:
    hosts(context, "a")
    service = put_service(context, {**FIXED, "healthCheck": {"command": ["CMD", "true"]}})
    do(context, service, start(context))
    blocked = do(context, service, start(context))
    assert blocked is not None
    assert blocked.reasons == {"RESOURCE:PORTS": 1}
    assert not blocked.by_own_tasks  # a task of the same deployment isn't outdated
    (task,) = tasks(context)
    report = ContainerReport(name="web", status=ContainerStatus.RUNNING, health=HealthStatus.UNHEALTHY)
    change(context, task, status=TaskStatus.RUNNING, containers=(report,))
    blocked = do(context, service, start(context))
    assert blocked is not None
    assert blocked.by_own_tasks  # but one whose health checks fail is
    change(context, task, started_by="ecs-svc/1")
    blocked = do(context, service, start(context))
    assert blocked is not None
    assert blocked.by_own_tasks
    assert sum("unable to place" in text for text in said(context)) == 1  # what it can mend itself isn't told


def test_a_prepared_task_holds_nothing_until_the_one_it_replaces_is_gone(context: Context) -> None:
    hosts(context, "a")
    service = put_service(context, FIXED)
    do(context, service, start(context))
    (old,) = tasks(context)
    old = change(context, old, started_by="ecs-svc/1", status=TaskStatus.RUNNING)
    assert old.instance_id is not None
    do(context, service, start(context, host=old.instance_id, replaces=old.id))
    new = next(task for task in tasks(context) if task.id != old.id)
    assert (new.desired, new.replaces, new.instance_id) == (DesiredStatus.PENDING, old.id, "a")
    assert new.resources.ports == frozenset()
    validate(context.state)
    change(context, old, status=TaskStatus.STOPPED, desired=DesiredStatus.STOPPED, stopped_at=1.0)
    do(context, service, Release(task_id=new.id))
    released = context.state.tasks.get(new.id)
    assert released is not None
    assert released.desired is DesiredStatus.RUNNING
    assert released.resources.ports == {("tcp", 8080)}
    validate(context.state)


def test_a_prepared_task_whose_room_was_taken_is_stopped_with_the_reason(context: Context) -> None:
    hosts(context, "a")
    service = put_service(context, FIXED)
    do(context, service, start(context))
    (old,) = tasks(context)
    change(context, old, started_by="ecs-svc/1")
    do(context, service, start(context, host=old.instance_id, replaces=old.id))
    new = next(task for task in tasks(context) if task.id != old.id)
    do(context, service, Release(task_id=new.id))  # the old one still holds the port
    stopped = context.state.tasks.get(new.id)
    assert stopped is not None
    assert stopped.desired is DesiredStatus.STOPPED
    assert "8080" in (stopped.stopped_reason or "")
    validate(context.state)


def test_a_stop_gives_the_reason_and_doing_it_again_changes_nothing(context: Context) -> None:
    hosts(context, "a")
    service = put_service(context, WEB)
    do(context, service, start(context))
    (task,) = tasks(context)
    do(context, service, Stop(task_id=task.id, reason="Scaling activity"))
    (stopping,) = tasks(context)
    assert stopping.desired is DesiredStatus.STOPPED
    assert (stopping.stop_code, stopping.stopped_reason) == (
        StopCode.SERVICE_SCHEDULER_INITIATED,
        "Scaling activity",
    )
    assert f"has stopped 1 running tasks: (task {task.id})." in said(context)[-1]
    before = context.state.revision
    do(context, service, Stop(task_id=task.id, reason="another reason"))
    assert context.state.revision == before


def test_health_and_the_end_of_tasks_go_into_the_deployments_time_budget(context: Context, clock: ManualClock) -> None:
    hosts(context, "a")
    service = put_service(context, WEB)
    do(context, service, start(context))
    (task,) = tasks(context)
    clock.time += 8
    change(context, task, pull_started_at=clock.time - 8, pull_stopped_at=clock.time - 7, running_at=clock.time - 5)
    do(context, service, MarkHealthy(task_id=task.id, at=clock.time))
    deployment = context.state.deployments.get(DEPLOYMENT)
    assert deployment is not None
    assert {phase: round(times.total_s) for phase, times in deployment.budget.items()} == {
        "schedule": 0,
        "pull": 1,
        "start": 2,
        "healthy": 5,
    }
    do(context, service, Stop(task_id=task.id, reason="r"))
    (task,) = tasks(context)
    clock.time += 3
    change(context, task, status=TaskStatus.STOPPED, stopped_at=clock.time)
    do(context, service, Settle(task_id=task.id))
    deployment = context.state.deployments.get(DEPLOYMENT)
    assert deployment is not None
    assert deployment.budget["drain"].total_s == pytest.approx(3)
    assert list(context.state.tasks.where("service", ("default", "service:web"))) == []


def test_an_adopted_task_counts_for_its_new_deployment(context: Context) -> None:
    hosts(context, "a")
    service = put_service(context, WEB)
    do(context, service, start(context))
    (task,) = tasks(context)
    do(context, service, Adopt(task_id=task.id, deployment="ecs-svc/2"))
    count = context.state.tasks.count
    assert count("deployment_count", (DEPLOYMENT, "pending")) == 0
    assert count("deployment_count", ("ecs-svc/2", "pending")) == 1
    validate(context.state)


def test_a_lost_task_is_not_counted_and_counts_again_when_its_host_is_back(context: Context) -> None:
    hosts(context, "a")
    service = put_service(context, WEB)
    do(context, service, start(context))
    (task,) = tasks(context)
    change(context, task, status=TaskStatus.RUNNING)
    count = context.state.tasks.count
    assert count("deployment_count", (DEPLOYMENT, "running")) == 1
    do(context, service, Lose(task_id=task.id))
    assert count("deployment_count", (DEPLOYMENT, "running")) == 0
    assert tasks(context)[0].status is TaskStatus.RUNNING  # nobody has seen it end
    do(context, service, Return(task_id=task.id))
    assert count("deployment_count", (DEPLOYMENT, "running")) == 1


def test_the_last_events_are_kept_in_order_and_all_of_them_in_the_history(context: Context) -> None:
    service = put_service(context, WEB)
    for number in range(MAX_EVENTS + 5):
        do(context, service, Say(message=f"event {number}."))
    kept = said(context)
    assert len(kept) == MAX_EVENTS
    assert kept[0] == "(service web) event 5."
    assert kept[-1] == f"(service web) event {MAX_EVENTS + 4}."


async def test_the_history_has_every_event(context: Context) -> None:
    service = put_service(context, WEB)
    for number in range(MAX_EVENTS + 5):
        do(context, service, Say(message=f"event {number}."))
    story = await context.state.journal.story(TaskId(service.id))
    assert [line.message for line in story][:2] == ["(service web) event 0.", "(service web) event 1."]
    assert len(story) == MAX_EVENTS + 5


def test_tasks_go_to_the_hosts_of_the_strategys_capacity_providers(context: Context) -> None:
    hosts(context, "steady")
    hosts(context, "cheap", attributes={"homeport.preemptible": "true"})
    strategy = [
        {"capacityProvider": "FARGATE", "base": 1, "weight": 1},
        {"capacityProvider": "FARGATE_SPOT", "weight": 3},
    ]
    service = put_service(context, WEB, desired_count=5)
    revision = next(iter(context.state.revisions))
    put(context, replace(revision, document={"capacityProviderStrategy": strategy}))
    assert do(context, service, start(context, 5)) is None
    by_provider = [(task.capacity_provider, task.instance_id) for task in tasks(context)]
    assert sum(provider == "FARGATE" for provider, _ in by_provider) == 2
    assert {host for provider, host in by_provider if provider == "FARGATE_SPOT"} == {"cheap"}
    assert {task.launch_type for task in tasks(context)} == {"FARGATE"}


def test_a_definition_that_is_gone_is_told_instead_of_failing(context: Context) -> None:
    hosts(context, "a")
    service = put_service(context, WEB)
    with context.state.transaction() as transaction:
        for definition in tuple(context.state.task_definitions):
            transaction.delete(definition)
    assert do(context, service, start(context)) is not None
    assert "does not exist any more" in said(context)[-1]


def test_tasks_that_may_run_only_once_are_told_when_to_stop_by_themselves(context: Context) -> None:
    hosts(context, "a")
    service = put_service(
        context, WEB, tags={"homeport:stop-when-isolated": "true", "homeport:lost-after": "120"}, name="once"
    )
    do(context, service, start(context))
    (task,) = tasks(context)
    assert task.spec.isolation_stop_s is not None
    assert task.spec.isolation_stop_s < 120


@pytest.mark.parametrize(("once", "meanwhile"), [("true", "stopped it by itself"), ("false", "may be running there")])
async def test_the_story_of_a_lost_task_says_what_became_of_it(context: Context, once: str, meanwhile: str) -> None:
    hosts(context, "a")
    service = put_service(context, WEB, tags={"homeport:stop-when-isolated": once, "homeport:lost-after": "60"})
    do(context, service, start(context))
    (task,) = tasks(context)
    do(context, service, Lose(task_id=task.id))
    story = await context.state.journal.story(task.id)
    assert meanwhile in story[-1].message
