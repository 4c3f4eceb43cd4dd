"""The control plane's metrics: true to the state, finite, complete from the start, and valid to promtool."""

import asyncio
import shutil
import subprocess

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import generate_latest

from controlplane.metrics import ControlPlaneMetrics
from controlplane.state.presence import Presence
from controlplane.state.records import ClusterRecord, InstanceRecord, Record, TaskRecord
from controlplane.state.state import State
from homeport.ids import InstanceId, TaskId
from homeport.protocol import Condition, HostFacts
from homeport.spec import ContainerSpec, TaskSpec
from homeport.status import DesiredStatus, StopCode, TaskStatus
from tests.fakes.clock import ManualClock
from tests.fakes.journal import MemoryJournal


def task(number: int = 1) -> TaskRecord:
    container = ContainerSpec(name="web", image="busybox", container_arn="c")
    spec = TaskSpec(task_arn="arn", cluster="default", family="web", revision=1, containers=(container,))
    return TaskRecord(
        id=TaskId(f"{number:032x}"),
        cluster="default",
        spec=spec,
        created_at=98.0,
        launch_type="EC2",
        status=TaskStatus.PROVISIONING,
    )


def instance(number: int, **facts: str) -> InstanceRecord:
    return InstanceRecord(
        id=InstanceId(f"{number:032x}"),
        cluster="default",
        public_key=f"key{number}",
        registered_at=1.0,
        facts=HostFacts(hostname=f"node{number}", agent_version="1", attributes={"ecs.os-type": "linux"}, **facts),  # type: ignore[arg-type]
        attributes={"rack": "b"},
    )


def put(state: State, *records: Record) -> None:
    with state.transaction() as transaction:
        for record in records:
            transaction.put(record)


@pytest.fixture
def state() -> State:
    return State(MemoryJournal())


@pytest.fixture
def metrics(state: State) -> ControlPlaneMetrics:
    metrics = ControlPlaneMetrics(ManualClock(100.0))
    metrics.attach(state)
    metrics.expect_requests([("ecs", "RunTask")])
    return metrics


def value(metrics: ControlPlaneMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_tasks_are_counted_by_status_and_desired(state: State, metrics: ControlPlaneMetrics) -> None:
    assert value(metrics, "homeport_tasks", status="RUNNING", desired="RUNNING") == 0
    put(state, task(1), msgspec.structs.replace(task(2), status=TaskStatus.RUNNING))
    assert value(metrics, "homeport_tasks", status="PROVISIONING", desired="RUNNING") == 1
    assert value(metrics, "homeport_tasks", status="RUNNING", desired="RUNNING") == 1
    put(state, msgspec.structs.replace(task(2), status=TaskStatus.STOPPED, desired=DesiredStatus.STOPPED))
    assert value(metrics, "homeport_tasks", status="RUNNING", desired="RUNNING") == 0
    assert value(metrics, "homeport_tasks", status="STOPPED", desired="STOPPED") == 1


def test_hosts_are_counted_by_status_and_connection(state: State, metrics: ControlPlaneMetrics) -> None:
    put(state, *(instance(number) for number in range(4)), ClusterRecord(name="default", created_at=1.0))
    ill = Condition(type="DISK", ok=False, since=1.0, reason="full")
    state.presence.put(instance(0).id, Presence(connected=True, since=1, last_seen_at=1))
    state.presence.put(instance(1).id, Presence(connected=True, since=1, last_seen_at=1, conditions=(ill,)))
    state.presence.put(instance(2).id, Presence(connected=False, since=1, last_seen_at=1, conditions=(ill,)))
    assert value(metrics, "homeport_hosts", status="ACTIVE", connection="connected") == 2
    assert value(metrics, "homeport_hosts", status="ACTIVE", connection="disconnected") == 1
    assert value(metrics, "homeport_hosts", status="ACTIVE", connection="unknown") == 1
    assert value(metrics, "homeport_hosts_impaired") == 1
    assert value(metrics, "homeport_agent_sessions") == 2
    assert value(metrics, "homeport_clusters") == 1
    assert value(metrics, "homeport_state_revision") == 1


async def test_what_happens_to_a_task_is_counted_from_the_commits(state: State, metrics: ControlPlaneMetrics) -> None:
    replace = msgspec.structs.replace
    async with asyncio.TaskGroup() as group:
        counting = group.create_task(metrics.run(state))
        await asyncio.sleep(0)
        first = task()
        placed = replace(first, status=TaskStatus.PENDING, instance_id=instance(1).id)
        running = replace(placed, status=TaskStatus.RUNNING, started_at=99.0, reported_seq=1)
        stopped = replace(running, status=TaskStatus.STOPPED, stop_code=StopCode.USER_INITIATED, reported_seq=2)
        for record in (first, placed, running, stopped):
            put(state, record)
        for _ in range(5):  # the turns of the event loop that waking a watcher takes
            await asyncio.sleep(0)
        counting.cancel()
    assert value(metrics, "homeport_task_stops_total", code="UserInitiated") == 1
    assert value(metrics, "homeport_task_placement_duration_seconds_sum") == 2.0
    assert value(metrics, "homeport_task_start_duration_seconds_sum") == 1.0
    assert value(metrics, "homeport_agent_reports_applied_total") == 2
    for status in ("PROVISIONING", "PENDING", "RUNNING", "STOPPED"):
        assert value(metrics, "homeport_task_transitions_total", status=status) == 1
    assert value(metrics, "homeport_task_transitions_total", status="STOPPING") == 0


def test_requests_are_counted_and_their_codes_are_bounded(metrics: ControlPlaneMetrics) -> None:
    assert value(metrics, "homeport_api_requests_total", service="ecs", operation="RunTask", code="200") == 0
    metrics.observe_request("ecs", "RunTask", "200", 0.25)
    assert value(metrics, "homeport_api_requests_total", service="ecs", operation="RunTask", code="200") == 1
    assert value(metrics, "homeport_api_request_duration_seconds_sum", service="ecs", operation="RunTask") == 0.25
    for number in range(1000):
        metrics.observe_request("ecs", "RunTask", f"Code{number}", 0.1)
    text = generate_latest(metrics.registry).decode()
    assert text.count("homeport_api_requests_total{") <= 101
    assert value(metrics, "homeport_api_requests_total", service="ecs", operation="RunTask", code="other") == 901


def test_commits_are_measured(metrics: ControlPlaneMetrics) -> None:
    metrics.observe_commit(0.5, 40)
    assert value(metrics, "homeport_journal_commit_duration_seconds_sum") == 0.5
    assert value(metrics, "homeport_journal_batch_commits_sum") == 40


async def test_an_event_loop_that_is_late_is_seen(state: State) -> None:
    clock = ManualClock()
    metrics = ControlPlaneMetrics(clock)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        watching = group.create_task(metrics.watch_event_loop())
        await asyncio.sleep(0)
        clock.time += 0.4
        while not value(metrics, "homeport_event_loop_delay_seconds_count"):  # noqa: ASYNC110 - plain values tell nobody
            await asyncio.sleep(0.001)
        watching.cancel()
    assert value(metrics, "homeport_event_loop_delay_seconds_bucket", le="0.3") == 0
    assert value(metrics, "homeport_event_loop_delay_seconds_bucket", le="0.5") == 1


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_to_complain_about(state: State, metrics: ControlPlaneMetrics) -> None:
    put(state, task(), instance(1))
    metrics.observe_request("ecs", "RunTask", "200", 0.25)
    metrics.observe_commit(0.5, 40)
    result = subprocess.run(
        ["promtool", "check", "metrics"], input=generate_latest(metrics.registry), capture_output=True, check=False
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, b"")
    assert b"_created" not in generate_latest(metrics.registry)


async def test_the_routes_answer_prometheus(state: State, metrics: ControlPlaneMetrics) -> None:
    put(state, instance(1, metrics_address="0.0.0.0:9100"), instance(2), instance(3, metrics_address="10.0.0.3:9100"))
    state.presence.put(instance(1).id, Presence(connected=True, since=1, last_seen_at=1, address="10.0.0.1"))
    application = web.Application()
    application.add_routes(metrics.routes(state))
    async with TestClient(TestServer(application)) as client:
        exposition = await client.get("/metrics")
        assert exposition.content_type == "text/plain"
        assert 'homeport_hosts{connection="connected",status="ACTIVE"} 1.0' in await exposition.text()
        discovery = await client.get("/sd/targets")
        groups = await discovery.json()
        reached = f"127.0.0.1:{client.server.port}"
    own, first, third = groups
    assert own["targets"] == [reached]
    assert own["labels"]["__meta_homeport_job"] == "controlplane"
    assert first["targets"] == ["10.0.0.1:9100"]
    assert first["labels"]["__meta_homeport_instance_id"] == instance(1).id
    assert first["labels"]["__meta_homeport_attribute_ecs_os_type"] == "linux"
    assert first["labels"]["__meta_homeport_attribute_rack"] == "b"
    assert third["targets"] == ["10.0.0.3:9100"]
