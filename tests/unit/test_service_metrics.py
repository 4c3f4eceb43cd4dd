"""The metrics of services: true to the state, there from the start, and counted from the commits."""

import pytest
from msgspec.structs import replace

from controlplane.metrics import ControlPlaneMetrics
from controlplane.services.budget import PHASES
from controlplane.state.records import Record, TaskRecord
from controlplane.state.service_records import (
    DeploymentRecord,
    PhaseTimes,
    RolloutState,
    ServiceDeploymentStatus,
    ServiceRecord,
    TaskSetRecord,
)
from controlplane.state.state import State
from homeport.ids import InstanceId, TaskId
from homeport.spec import ContainerSpec, TaskSpec
from homeport.status import TaskStatus
from tests.fakes.clock import ManualClock
from tests.fakes.journal import MemoryJournal

SERVICE = ServiceRecord(
    id="s", cluster="default", name="web", created_at=1.0, desired_count=3, deployments=("new", "old")
)
NEW = DeploymentRecord(
    id="new", arn_id="n", service_id="s", service="default/web", revision="2", created_at=100.0, updated_at=100.0
)
OLD = replace(NEW, id="old", arn_id="o", revision="1", rollout=RolloutState.COMPLETED)


class World:
    """A state whose commits are counted."""

    def __init__(self) -> None:
        self.state = State(MemoryJournal())
        self.metrics = ControlPlaneMetrics(ManualClock(100.0))
        self.metrics.attach(self.state)
        self._watch = self.state.snapshot_and_watch().__enter__()

    async def put(self, *records: Record) -> None:
        with self.state.transaction() as transaction:
            for record in records:
                transaction.put(record)
        for commit in await self._watch.next_batch():
            self.metrics.observe_changes(commit, 100.0)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def world() -> World:
    return World()


def task(number: int, started_by: str, status: TaskStatus = TaskStatus.RUNNING) -> TaskRecord:
    container = ContainerSpec(name="web", image="busybox", container_arn="c")
    return TaskRecord(
        id=TaskId(f"{number:032x}"),
        cluster="default",
        spec=TaskSpec(task_arn="arn", cluster="default", family="web", revision=1, containers=(container,)),
        created_at=98.0,
        launch_type="EC2",
        status=status,
        instance_id=InstanceId("1" * 32),
        group="service:web",
        started_by=started_by,
    )


async def test_a_services_tasks_are_those_of_all_its_live_deployments(world: World) -> None:
    await world.put(SERVICE, NEW, OLD, task(1, "old"), task(2, "new"), task(3, "new", TaskStatus.PENDING))
    await world.put(replace(NEW, failed_tasks=2), replace(SERVICE, name="gone", status="INACTIVE"))
    name = {"cluster": "default", "service": "web"}
    for what, count in {"desired": 3, "running": 2, "pending": 1, "failed": 2}.items():
        assert world.value(f"homeport_service_{what}_tasks", **name) == count
    assert world.value("homeport_service_desired_tasks", cluster="default", service="gone") is None
    assert world.value("homeport_service_deployments", state="IN_PROGRESS") == 1
    assert world.value("homeport_service_deployments", state="COMPLETED") == 1
    assert world.value("homeport_service_deployments", state="FAILED") == 0


async def test_an_external_services_tasks_are_those_of_its_task_sets(world: World) -> None:
    task_set = TaskSetRecord(
        id="set", service_id="s", service="default/web", created_at=1.0, updated_at=1.0, task_definition="web:1"
    )
    await world.put(replace(SERVICE, controller="EXTERNAL", deployments=()), task_set, task(1, "set"))
    assert world.value("homeport_service_running_tasks", cluster="default", service="web") == 1
    assert world.value("homeport_service_failed_tasks", cluster="default", service="web") == 0
    await world.put(replace(task_set, failed_tasks=1))
    assert world.value("homeport_service_task_failures_total") == 1


async def test_the_end_of_a_deployment_is_counted_once_with_its_seconds(world: World) -> None:
    ends = ("SUCCESSFUL", "STOPPED", "ROLLBACK_SUCCESSFUL", "ROLLBACK_FAILED")
    assert all(world.value("homeport_deployment_duration_seconds_count", status=end) == 0 for end in ends)
    await world.put(NEW)
    done = replace(NEW, status=ServiceDeploymentStatus.SUCCESSFUL, finished_at=106.5)
    await world.put(done)
    await world.put(replace(done, steady=True))
    assert world.value("homeport_deployment_duration_seconds_sum", status="SUCCESSFUL") == 6.5
    assert world.value("homeport_deployment_duration_seconds_count", status="SUCCESSFUL") == 1
    assert world.value("homeport_deployment_duration_seconds_count", status="STOPPED") == 0


async def test_each_phase_of_each_task_is_counted_once(world: World) -> None:
    assert all(world.value("homeport_deployment_phase_seconds_total", phase=phase) == 0 for phase in PHASES)
    first = replace(NEW, budget={"pull": PhaseTimes(count=1, total_s=2.0, max_s=2.0)})
    second = replace(NEW, budget={"pull": PhaseTimes(count=3, total_s=2.5, max_s=2.0), "drain": PhaseTimes(count=1)})
    for record in (NEW, first, second, replace(second, steady=True)):
        await world.put(record)
    assert world.value("homeport_deployment_phase_seconds_total", phase="pull") == 2.5
    assert world.value("homeport_deployment_phase_tasks_total", phase="pull") == 3
    assert world.value("homeport_deployment_phase_tasks_total", phase="drain") == 1
    assert world.value("homeport_deployment_phase_tasks_total", phase="start") == 0


async def test_failures_are_counted_although_their_number_falls_with_a_healthy_task(world: World) -> None:
    for failed in (0, 1, 3, 0, 1):
        await world.put(replace(NEW, failed_tasks=failed, updated_at=200.0 + failed))
    assert world.value("homeport_service_task_failures_total") == 4


async def test_tasks_of_silent_hosts_are_counted_once(world: World) -> None:
    known = task(1, "new")
    lost = replace(known, lost_at=99.0)
    for record in (known, lost, replace(lost, version=2), replace(known, version=3)):
        await world.put(record)
    assert world.value("homeport_service_tasks_lost_total") == 1


def test_looks_are_measured(world: World) -> None:
    world.metrics.services.observe_look(0.25)
    assert world.value("homeport_service_reconcile_duration_seconds_sum") == 0.25
