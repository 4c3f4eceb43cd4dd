"""The reaper: what is due goes, what is not or is still needed stays."""

from typing import Any

import pytest
from msgspec.structs import replace

from controlplane.context import Context
from controlplane.retention import Reaper, Retention, due
from controlplane.services.past import MAX_DEPLOYMENTS
from controlplane.state.records import ClusterRecord, IdempotencyRecord, Record
from controlplane.state.schedule_records import RunOutcome, ScheduleRunRecord
from controlplane.state.service_records import DeploymentRecord, EventRecord, RevisionRecord, ServiceRecord
from homeport.ids import InstanceId, TaskId
from homeport.status import TaskStatus
from tests.fakes.clock import ManualClock
from tests.fakes.records import a_context, a_definition, a_task, an_instance, put

HOUR = 3600.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def context(clock: ManualClock) -> Context:
    return a_context(clock)


async def test_a_stopped_task_moves_to_the_history_an_hour_after_it_was_seen(
    context: Context, clock: ManualClock
) -> None:
    reaper = Reaper(context)
    # Its host's clock is far behind, or it was cut off for days.
    put(context, a_task("t", status=TaskStatus.STOPPED, stopped_at=1.0), a_task("running", status=TaskStatus.RUNNING))
    assert await reaper.sweep() == 0
    clock.time += HOUR - 1
    assert await reaper.sweep() == 0
    clock.time += 1
    assert await reaper.sweep() == 1
    assert [task.id for task in context.state.tasks] == ["running"]
    archived = await context.state.journal.archived_task(TaskId("t"))
    assert archived is not None
    assert archived.status is TaskStatus.STOPPED


async def test_a_sweep_that_finds_nothing_writes_nothing(context: Context) -> None:
    put(context, a_task("t", status=TaskStatus.STOPPED), an_instance("h"), a_definition())
    revision = context.state.revision
    assert await Reaper(context).sweep() == 0
    assert context.state.revision == revision


async def test_more_than_one_slice_is_swept(context: Context, clock: ManualClock) -> None:
    put(context, *(a_task(f"{n:04}", status=TaskStatus.STOPPED) for n in range(1201)))
    reaper = Reaper(context)
    await reaper.sweep()
    clock.time += HOUR
    assert await reaper.sweep() == 1201
    assert len(context.state.tasks) == 0


async def test_deregistered_hosts_and_old_tokens_are_forgotten(context: Context, clock: ManualClock) -> None:
    token = IdempotencyRecord(operation="RunTask", scope="c", token="t", fingerprint="f", at=clock.now())
    gone = an_instance("gone", status="INACTIVE", deregistered_at=clock.now())
    put(context, token, gone, an_instance("here"))
    reaper = Reaper(context)
    clock.time += 24 * HOUR - 1
    assert await reaper.sweep() == 0
    clock.time += 1
    assert await reaper.sweep() == 2
    assert [instance.id for instance in context.state.instances] == ["here"]
    assert len(context.state.idempotency) == 0


async def test_a_host_that_holds_tasks_is_kept(context: Context, clock: ManualClock) -> None:
    put(context, an_instance("gone", status="INACTIVE", deregistered_at=1.0))
    put(context, a_task("t", status=TaskStatus.RUNNING, instance_id=InstanceId("gone")))
    assert await Reaper(context).sweep() == 0


async def test_a_definition_marked_for_deletion_goes_with_its_last_user(context: Context) -> None:
    marked = replace(a_definition(revision=2), status="DELETE_IN_PROGRESS")
    using = a_task("t", revision=2, status=TaskStatus.RUNNING)
    put(context, ClusterRecord(name="default", created_at=1.0), marked, a_definition(), using)
    reaper = Reaper(context)
    assert await reaper.sweep() == 0
    put(context, replace(using, status=TaskStatus.STOPPED))
    assert await reaper.sweep() == 1
    assert [definition.revision for definition in context.state.task_definitions] == [1]


@pytest.mark.parametrize(
    ("record", "seen_at", "expected"),
    [
        (a_task("t", status=TaskStatus.RUNNING), 0.0, False),
        (a_task("t", status=TaskStatus.STOPPED), 0.0, True),
        (a_task("t", status=TaskStatus.STOPPED), 95.0, False),
        (a_task("t", status=TaskStatus.STOPPED), None, False),
        (an_instance("h", status="DRAINING", deregistered_at=0.0), None, False),
        (an_instance("h", status="INACTIVE", deregistered_at=0.0), None, True),
        (a_definition(), None, False),
        (ClusterRecord(name="c", created_at=0.0, status="INACTIVE"), None, False),
    ],
)
def test_due(record: Record, seen_at: float | None, expected: bool) -> None:
    retention = Retention(stopped_task_s=10, client_token_s=10, inactive_instance_s=10)
    assert due(record, 100.0, retention, seen_stopped_at=seen_at) is expected


async def test_a_service_task_stays_until_its_end_is_taken_into_account(context: Context, clock: ManualClock) -> None:
    ended = a_task("t", status=TaskStatus.STOPPED, stopped_at=1.0, group="service:web")
    put(context, ended)
    reaper = Reaper(context)
    await reaper.sweep()
    clock.time += 2 * HOUR
    assert await reaper.sweep() == 0
    put(context, replace(ended, settled=True))
    assert await reaper.sweep() == 1


def a_service(**members: Any) -> ServiceRecord:
    return ServiceRecord(**{"id": "s", "cluster": "default", "name": "web", "created_at": 1.0, **members})


def a_deployment(number: int, **members: Any) -> DeploymentRecord:
    defaults = {"arn_id": f"a{number}", "revision": f"r{number}", "created_at": number, "updated_at": number}
    return DeploymentRecord(id=f"d{number}", service_id="s", service="default/web", **{**defaults, **members})


def a_revision(number: int, definition: str = "web:1") -> RevisionRecord:
    return RevisionRecord(
        id=f"r{number}", service_id="s", service="default/web", created_at=number, task_definition=definition
    )


async def test_a_deleted_service_goes_after_a_day_with_all_that_is_its(context: Context, clock: ManualClock) -> None:
    event = EventRecord(id="e", service_id="s", number=1, at=1.0, message="(service web) is there")
    service = a_service(status="INACTIVE", deleted_at=clock.time, deployments=("d1",))
    put(context, service, a_deployment(1), a_revision(1), event)
    reaper = Reaper(context)
    clock.time += 24 * HOUR - 1
    assert await reaper.sweep() == 0
    clock.time += 1
    assert await reaper.sweep() == 4
    state = context.state
    assert [len(table) for table in (state.services, state.deployments, state.revisions, state.events)] == [0] * 4


async def test_of_many_deployments_the_live_and_the_latest_stay_with_their_revisions(
    context: Context, clock: ManualClock
) -> None:
    count = MAX_DEPLOYMENTS + 3
    put(context, a_service(deployments=("d0",), stable_revision="r1"))
    for number in range(count):
        put(context, a_deployment(number, created_at=clock.time + number), a_revision(number))
    await Reaper(context).sweep()
    assert {d.id for d in context.state.deployments} == {"d0", *(f"d{n}" for n in range(3, count))}
    # What a rollback would go back to is needed, though its deployment is forgotten.
    assert {r.id for r in context.state.revisions} == {"r0", "r1", *(f"r{n}" for n in range(3, count))}


async def test_a_definition_that_a_service_may_start_tasks_of_stays(context: Context) -> None:
    definition = replace(a_definition(), status="DELETE_IN_PROGRESS")
    put(context, definition, a_service(deployments=("d1",)), a_deployment(1), a_revision(1))
    assert await Reaper(context).sweep() == 0
    put(context, a_service(deployments=("d1",), status="INACTIVE", deleted_at=context.clock.now()))
    assert await Reaper(context).sweep() == 1


async def test_the_runs_of_a_completed_schedule_go_when_they_expire(context: Context, clock: ManualClock) -> None:
    now = clock.time
    kept = ScheduleRunRecord(trigger="schedule/default/a", number=1, due_at=now, outcome=RunOutcome.STARTED)
    put(context, kept, replace(kept, trigger="schedule/default/b", expires_at=now + HOUR))
    reaper = Reaper(context)
    clock.time += HOUR - 1
    assert await reaper.sweep() == 0
    clock.time += 1
    assert await reaper.sweep() == 1
    assert [run.trigger for run in context.state.schedule_runs] == ["schedule/default/a"]
