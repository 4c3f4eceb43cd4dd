"""The loop: what happens to a service's tasks, hosts and records is followed at once, and times are kept."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from controlplane.context import Context
from controlplane.fleet.reports import apply_report
from controlplane.services.deciding.decide import decide
from controlplane.services.loop import ServiceLoop
from controlplane.services.model import Decision, Snapshot
from controlplane.services.pace import Pace
from controlplane.services.rebalance import ZONE
from controlplane.state.presence import Presence
from controlplane.state.records import TaskRecord
from controlplane.state.validate import validate
from homeport.ids import InstanceId
from homeport.protocol import TaskReport
from homeport.spec import Resources
from homeport.status import DesiredStatus, StopCode, TaskStatus
from tests.fakes.clock import ManualClock
from tests.fakes.records import a_context, a_task, an_instance, put
from tests.fakes.services import a_deployment, a_revision, a_service, put_service

WEB = {"name": "web", "image": "busybox", "memory": 64, "cpu": 100}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def context(clock: ManualClock) -> Context:
    return a_context(clock)


@pytest.fixture
async def loop(context: Context) -> AsyncIterator[ServiceLoop]:
    async with running(context) as made:
        yield made


@asynccontextmanager
async def running(context: Context) -> AsyncIterator[ServiceLoop]:
    made = ServiceLoop(context)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(made.run())
        yield made
        task.cancel()


def connect(context: Context, name: str, *, connected: bool = True) -> None:
    now = context.clock.now()
    presence = Presence(connected=connected, since=now, last_seen_at=now, heard_at=now, heard_out=connected)
    context.state.presence.put(InstanceId(name), presence)


def add_host(context: Context, name: str, **members: Any) -> None:
    put(context, an_instance(name, **members))
    connect(context, name)


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not check():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)


async def settle() -> None:
    """Let everything that can happen now happen."""
    for _ in range(200):
        await asyncio.sleep(0)


def wanted(context: Context) -> list[TaskRecord]:
    return [task for task in context.state.tasks if task.desired is not DesiredStatus.STOPPED and task.lost_at is None]


def report(context: Context, task: TaskRecord, status: TaskStatus, **members: Any) -> None:
    assert task.instance_id is not None
    now = context.clock.now()
    times = {"started_at": now} if status is TaskStatus.RUNNING else {}
    apply_report(
        context,
        task.instance_id,
        TaskReport(task_id=task.id, seq=task.reported_seq + 1, status=status, **{**times, **members}),
    )


def report_all(context: Context, status: TaskStatus) -> None:
    for task in wanted(context):
        report(context, task, status)


async def move(clock: ManualClock, loop: ServiceLoop, seconds: float) -> None:
    clock.time += seconds
    loop.wake()
    await settle()


async def test_a_new_service_gets_its_tasks_and_a_dead_one_is_replaced_without_any_time_passing(
    context: Context, loop: ServiceLoop
) -> None:
    add_host(context, "a")
    put_service(context, WEB, desired_count=3)
    await until(lambda: len(wanted(context)) == 3)
    report_all(context, TaskStatus.RUNNING)
    dead = wanted(context)[0]
    report(context, dead, TaskStatus.STOPPED, stop_code=StopCode.ESSENTIAL_CONTAINER_EXITED, stopped_reason="exited")
    await until(lambda: len(wanted(context)) == 3)
    assert dead.id not in {task.id for task in wanted(context)}
    validate(context.state)


async def test_at_rest_nothing_is_written_or_looked_at(context: Context, clock: ManualClock, loop: ServiceLoop) -> None:
    add_host(context, "a")
    put_service(context, WEB, desired_count=2)
    await until(lambda: len(wanted(context)) == 2)
    report_all(context, TaskStatus.RUNNING)
    await settle()
    await move(clock, loop, 10)
    (event,) = [e.message for e in context.state.events if "steady state" in e.message]
    assert event == "(service web) has reached a steady state."
    before = context.state.revision
    await move(clock, loop, 3600)
    assert context.state.revision == before


async def test_tasks_that_found_no_room_start_when_a_host_joins(context: Context, loop: ServiceLoop) -> None:
    put_service(context, WEB, desired_count=2)
    await settle()
    assert wanted(context) == []
    assert "unable to place" in next(iter(context.state.events)).message
    add_host(context, "late")
    await until(lambda: len(wanted(context)) == 2)


async def test_a_service_waits_for_the_room_that_others_leave(context: Context, loop: ServiceLoop) -> None:
    add_host(context, "a", memory=64)
    other = a_task("other", instance_id=InstanceId("a"), resources=Resources(memory_mib=64), group="family:x")
    put(context, other)
    put_service(context, WEB, desired_count=1)
    await settle()
    assert [task.id for task in wanted(context)] == ["other"]
    report(context, other, TaskStatus.STOPPED)
    await until(lambda: [task.group for task in wanted(context)] == ["service:web"])


async def test_a_silent_hosts_tasks_are_replaced_after_lost_after_and_not_before(
    context: Context, clock: ManualClock, loop: ServiceLoop
) -> None:
    add_host(context, "a")
    put_service(context, WEB, desired_count=1, tags={"homeport:lost-after": "30"})
    await until(lambda: len(wanted(context)) == 1)
    report_all(context, TaskStatus.RUNNING)
    (first,) = wanted(context)
    connect(context, "a", connected=False)
    add_host(context, "b")
    await move(clock, loop, 29)
    assert [task.id for task in wanted(context)] == [first.id]
    await move(clock, loop, 1)
    (second,) = wanted(context)
    assert second.instance_id == "b"
    lost = context.state.tasks.get(first.id)
    assert lost is not None
    assert (lost.status, lost.desired) == (TaskStatus.RUNNING, DesiredStatus.RUNNING)  # it may run, and may return


async def test_a_host_that_returns_keeps_what_has_run_longest_once_it_has_told_everything(
    context: Context, clock: ManualClock, loop: ServiceLoop
) -> None:
    add_host(context, "a")
    put_service(context, WEB, desired_count=1, tags={"homeport:lost-after": "30"})
    await until(lambda: len(wanted(context)) == 1)
    report_all(context, TaskStatus.RUNNING)
    await move(clock, loop, 10)
    (first,) = wanted(context)
    connect(context, "a", connected=False)
    add_host(context, "b")
    await move(clock, loop, 30)
    report_all(context, TaskStatus.RUNNING)
    await move(clock, loop, 10)
    now = clock.time
    context.state.presence.put(
        InstanceId("a"), Presence(connected=True, since=now, last_seen_at=now, heard_at=now, heard_out=False)
    )
    await settle()
    assert [task.instance_id for task in wanted(context)] == ["b"]
    connect(context, "a")
    await until(lambda: [task.id for task in wanted(context)] == [first.id])


async def test_after_a_restart_silence_counts_from_the_restart(context: Context, clock: ManualClock) -> None:
    put(context, an_instance("a"), an_instance("b"))
    connect(context, "a")
    async with running(context) as loop:
        put_service(context, WEB, desired_count=1, tags={"homeport:lost-after": "30"})
        await until(lambda: len(wanted(context)) == 1)
        report_all(context, TaskStatus.RUNNING)
        await move(clock, loop, 10)
    (first,) = wanted(context)
    context.state.presence.forget(InstanceId("a"))
    clock.time += 1000
    async with running(context) as loop:
        connect(context, "b")
        await move(clock, loop, 29)
        assert [task.id for task in wanted(context)] == [first.id]
        await move(clock, loop, 1)
        assert [task.instance_id for task in wanted(context)] == ["b"]


async def test_a_daemon_follows_hosts(context: Context, loop: ServiceLoop) -> None:
    add_host(context, "a")
    put_service(
        context,
        WEB,
        scheduling_strategy="DAEMON",
        desired_count=0,
        deployment_configuration={"minimumHealthyPercent": 0, "maximumPercent": 100},
    )
    await until(lambda: [task.instance_id for task in wanted(context)] == ["a"])
    add_host(context, "b")
    await until(lambda: sorted(task.instance_id or "" for task in wanted(context)) == ["a", "b"])
    put(context, an_instance("a", status="DRAINING"))
    await until(lambda: [task.instance_id for task in wanted(context)] == ["b"])
    await until(lambda: service_count(context) == 1)


def service_count(context: Context) -> int:
    service = context.state.services.get("default/web")
    return -1 if service is None else service.desired_count


async def test_a_service_that_trips_the_scheduler_stops_no_other_and_is_tried_again(
    context: Context, clock: ManualClock, loop: ServiceLoop
) -> None:
    add_host(context, "a")
    with capture_logs() as logs:

        def failures() -> int:
            return sum(line["event"] == "a service could not be reconciled" for line in logs)

        # Nothing makes such a record; it stands for whatever may be wrong with one.
        put(context, a_service(name="bad", id="6" * 32, deployment_configuration={"maximumPercent": "all"}))
        put_service(context, WEB)
        await until(lambda: len(wanted(context)) == 1)
        assert failures() == 1
        await move(clock, loop, 29)
        assert failures() == 1
        await move(clock, loop, 1)
        assert failures() == 2


async def test_a_look_that_fails_owes_its_pause_too(
    context: Context, monkeypatch: pytest.MonkeyPatch, loop: ServiceLoop
) -> None:
    """Or a service of thousands that trips the scheduler would be looked at for each report."""
    paused: list[str] = []

    def failing(*_: Any) -> Any:
        raise RuntimeError("a bug")

    def noting(self: Pace, service: str, tasks: int, now: float) -> float:
        paused.append(service)
        return 0.0

    monkeypatch.setattr("controlplane.services.loop.act", failing)
    monkeypatch.setattr(Pace, "pause", noting)
    with capture_logs():
        put_service(context, WEB, desired_count=1)
        await until(lambda: paused == ["default/web"])


@pytest.fixture
def decisions(monkeypatch: pytest.MonkeyPatch) -> list[Snapshot]:
    """What was decided about, one snapshot for each decision; and so that few tasks are many, two start in a turn."""
    made: list[Snapshot] = []

    def noting(snapshot: Snapshot, now: float) -> Decision:
        made.append(snapshot)
        return decide(snapshot, now)

    monkeypatch.setattr("controlplane.services.loop.decide", noting)
    monkeypatch.setattr("controlplane.services.starting.MAX_STARTS", 2)
    return made


async def test_a_big_service_is_started_in_several_turns_by_one_decision(
    context: Context, decisions: list[Snapshot], loop: ServiceLoop
) -> None:
    add_host(context, "a")
    revision = context.state.revision
    put_service(context, WEB, desired_count=7)
    await until(lambda: len(wanted(context)) == 7)
    assert context.state.revision >= revision + 5  # the records, and four turns
    assert len(decisions) == 1
    await settle()
    assert len(wanted(context)) == 7


async def test_what_is_left_of_a_decision_is_dropped_when_the_service_has_changed(
    context: Context, decisions: list[Snapshot], loop: ServiceLoop
) -> None:
    add_host(context, "a")
    service = put_service(context, WEB, desired_count=7)
    await until(lambda: len(wanted(context)) == 2)
    put(context, replace(service, desired_count=3))
    await settle()
    assert len(wanted(context)) == 3
    assert len(context.state.tasks) == 3


async def test_a_task_that_ends_while_others_are_yet_to_start_is_news(
    context: Context, decisions: list[Snapshot], loop: ServiceLoop
) -> None:
    """A breaker must be able to trip before thousands have been started."""
    add_host(context, "a")
    put_service(context, WEB, desired_count=7)
    await until(lambda: len(wanted(context)) == 2)
    report(context, wanted(context)[0], TaskStatus.STOPPED, stop_code=StopCode.ESSENTIAL_CONTAINER_EXITED)
    await until(lambda: len(decisions) == 2)
    assert len(decisions[1].tasks) < 7


async def test_what_a_decision_stops_and_gives_up_itself_is_no_news_to_it(
    context: Context, clock: ManualClock, decisions: list[Snapshot], loop: ServiceLoop
) -> None:
    """Or the loss of hundreds of hosts would cost a look at all tasks for each part of what is to be replaced."""
    add_host(context, "a")
    put_service(context, WEB, desired_count=7)
    await until(lambda: len(wanted(context)) == 7)
    report_all(context, TaskStatus.RUNNING)
    await settle()
    connect(context, "a", connected=False)
    add_host(context, "b")
    await settle()
    decisions.clear()
    await move(clock, loop, 61)
    await until(lambda: len(wanted(context)) == 7)
    assert {task.instance_id for task in wanted(context)} == {"b"}
    await settle()
    assert [len(snapshot.tasks) for snapshot in decisions] == [7, 14], "it was looked at halfway"


async def test_a_service_without_room_is_started_as_far_as_it_goes_and_says_so_once(
    context: Context, decisions: list[Snapshot], loop: ServiceLoop
) -> None:
    add_host(context, "a", cpu=500)
    put_service(context, WEB, desired_count=9)
    await until(lambda: len(wanted(context)) == 5)
    await settle()
    assert len(decisions) <= 4
    assert sum("was unable to place a task" in event.message for event in context.state.events) == 1
    add_host(context, "b", cpu=10_000)
    await until(lambda: len(wanted(context)) == 9)


async def test_of_large_services_one_is_started_after_another_while_small_ones_need_not_wait(
    context: Context, decisions: list[Snapshot], loop: ServiceLoop
) -> None:
    add_host(context, "a", cpu=10**6, memory=10**6)
    put_service(context, WEB, desired_count=20)
    for number, count in ((2, 20), (3, 1)):
        name, deployment = f"web-{number}", f"ecs-svc/{number}"
        of_it = {"service_id": f"{number:032}", "service": f"default/{name}"}
        put(
            context,
            a_revision(id=f"{number:019}", **of_it),
            a_deployment(id=deployment, revision=f"{number:019}", progressed_at=context.clock.now(), **of_it),
            a_service(id=of_it["service_id"], name=name, desired_count=count, deployments=(deployment,)),
        )

    def tasks_of(name: str) -> int:
        return sum(task.group == f"service:{name}" for task in wanted(context))

    await until(lambda: tasks_of("web") == 20)
    assert tasks_of("web-2") == 2
    assert tasks_of("web-3") == 1
    await until(lambda: tasks_of("web-2") == 20)


async def test_tasks_are_shared_out_among_capacity_providers_however_many_turns_it_takes(
    context: Context, decisions: list[Snapshot], loop: ServiceLoop
) -> None:
    add_host(context, "steady", cpu=10**4, memory=10**4)
    add_host(context, "cheap", cpu=10**4, memory=10**4, attributes={"homeport.preemptible": "true"})
    strategy = [
        {"capacityProvider": "FARGATE", "weight": 1},
        {"capacityProvider": "FARGATE_SPOT", "weight": 3},
    ]
    put_service(context, WEB, desired_count=0)
    revision, service = next(iter(context.state.revisions)), next(iter(context.state.services))
    put(context, replace(revision, document={"capacityProviderStrategy": strategy}))
    put(context, replace(service, desired_count=8))
    await until(lambda: len(wanted(context)) == 8)
    assert Counter(task.capacity_provider for task in wanted(context)) == {"FARGATE": 2, "FARGATE_SPOT": 6}


@pytest.mark.parametrize("obstacle", ["", "tasks failed there", "not of the capacity provider"])
async def test_a_task_is_moved_only_if_its_replacement_would_be_placed_there(
    context: Context, clock: ManualClock, loop: ServiceLoop, obstacle: str
) -> None:
    """Else it would be placed elsewhere, and be moved again ten seconds later, for ever."""
    spot = {"homeport.preemptible": "true"}
    for host in ("a", "b"):
        add_host(context, host, attributes={ZONE: "first", **spot})
    put_service(context, WEB, desired_count=0, tags={"homeport:rebalance": "true"})
    revision, service = next(iter(context.state.revisions)), next(iter(context.state.services))
    put(context, replace(revision, document={"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}]}))
    put(context, replace(service, desired_count=2))
    await until(lambda: len(wanted(context)) == 2)
    report_all(context, TaskStatus.RUNNING)
    await move(clock, loop, 6)
    if obstacle == "tasks failed there":
        put(context, replace(next(iter(context.state.deployments)), host_failures={"c": 1}))
    add_host(context, "c", attributes={ZONE: "second"} | ({} if obstacle == "not of the capacity provider" else spot))
    await move(clock, loop, 11)
    assert len(wanted(context)) == (2 if obstacle else 3)


async def test_many_reports_make_few_looks(context: Context, clock: ManualClock) -> None:
    looks: list[float] = []
    add_host(context, "a", cpu=10**6, memory=10**6)
    service_loop = ServiceLoop(context, observe=looks.append)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(service_loop.run())
        put_service(context, WEB, desired_count=500)
        await until(lambda: len(wanted(context)) == 500)
        await settle()
        looks.clear()
        report_all(context, TaskStatus.RUNNING)
        await until(lambda: bool(looks))
        await settle()
        assert len(looks) <= 3
        task.cancel()
