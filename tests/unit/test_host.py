"""What a host says of itself, and when it is not well."""

import asyncio
from typing import Any

import pytest

from agent.engine.api import EngineInfo
from agent.engine.errors import EngineUnavailable
from agent.host import (
    CONTAINER_RUNTIME,
    DISK,
    MEMORY,
    HostMonitor,
    HostSettings,
    Readings,
    attributes_of,
    host_facts,
    judge_disk,
    judge_memory,
    judge_runtime,
    read_facts,
    read_host,
)
from homeport.clock import SystemClock
from homeport.protocol import Condition
from homeport.spec import Resources
from tests.fakes.engine import FakeEngine

GIB = 1024**3
INFO = EngineInfo(
    version="28.0.1",
    os_type="linux",
    architecture="aarch64",
    cgroup_version="2",
    cgroup_driver="systemd",
    root_dir="/var/lib/docker",
    live_restore=True,
    log_drivers=("json-file", "journald"),
    api_version="1.19",
)


def readings(**members: Any) -> Readings:
    defaults: dict[str, Any] = {
        "hostname": "box",
        "cores": 4,
        "memory_bytes": 8 * GIB,
        "memory_available_bytes": 4 * GIB,
        "disk_bytes": 100 * GIB,
        "disk_free_bytes": 50 * GIB,
    }
    return Readings(**(defaults | members))


def test_capacity_is_what_is_there_less_the_reserve() -> None:
    settings = HostSettings(
        reserved_memory_mib=512,
        reserved_cpu_units=96,
        reserved_ports=frozenset({("tcp", 22)}),
        metrics_address="10.0.0.1:9101",
    )
    facts = host_facts(INFO, readings(), settings, agent_version="1", task_limits=True)
    assert facts.resources == Resources(cpu_units=4000, memory_mib=7680, ports=frozenset({("tcp", 22)}))
    assert (facts.hostname, facts.docker_version, facts.disk_mib) == ("box", "28.0.1", 102_400)
    assert facts.metrics_address == "10.0.0.1:9101"


def test_attributes_carry_ecs_names() -> None:
    found = attributes_of(INFO, HostSettings(availability_zone="attic"), task_limits=True)
    assert found["ecs.os-type"] == "linux"
    assert found["ecs.cpu-architecture"] == "arm64"
    assert found["ecs.availability-zone"] == "attic"
    for name in (
        "ecs.capability.external",
        "ecs.capability.task-cpu-mem-limit",
        "com.amazonaws.ecs.capability.logging-driver.journald",
        "com.amazonaws.ecs.capability.logging-driver.none",
        "com.amazonaws.ecs.capability.docker-remote-api.1.17",
        "com.amazonaws.ecs.capability.docker-remote-api.1.19",
    ):
        assert found[name] == ""
    assert "com.amazonaws.ecs.capability.docker-remote-api.1.20" not in found


def test_configured_attributes_win_and_are_all_there_is_without_an_engine() -> None:
    settings = HostSettings(attributes={"rack": "7", "ecs.os-type": "mine"})
    assert attributes_of(INFO, settings, task_limits=True)["ecs.os-type"] == "mine"
    assert attributes_of(None, settings, task_limits=True) == {"rack": "7", "ecs.os-type": "mine"}


def test_without_task_cgroups_the_capability_is_not_claimed() -> None:
    assert "ecs.capability.task-cpu-mem-limit" not in attributes_of(INFO, HostSettings(), task_limits=False)


async def test_facts_are_read_from_this_machine() -> None:
    facts = await read_facts(None, HostSettings(), agent_version="1")
    assert facts.resources.cpu_units >= 1024
    assert facts.resources.memory_mib > 0
    assert facts.disk_mib > 0
    assert read_host("/no/such/directory").disk_bytes == read_host("/").disk_bytes


def test_a_silent_engine_is_told_with_the_time_it_fell_silent() -> None:
    well = judge_runtime(None, None, 100.0)
    assert (well.type, well.ok, well.since, well.reason) == (CONTAINER_RUNTIME, True, 100.0, "")
    silent = judge_runtime(well, "connection refused", 200.0)
    assert (silent.ok, silent.since) == (False, 200.0)
    assert silent.reason == "The Docker Engine has not answered since 1970-01-01T00:03:20+00:00: connection refused"
    assert judge_runtime(silent, "something else", 300.0) == silent
    again = judge_runtime(silent, None, 400.0)
    assert (again.ok, again.since, again.reason) == (True, 400.0, "")


@pytest.mark.parametrize(
    ("was_ok", "free", "inodes", "ok", "word"),
    [
        (True, 0.11, 1.0, True, ""),
        (True, 0.10, 1.0, False, "space"),
        (False, 0.14, 1.0, False, "space"),
        (False, 0.15, 1.0, True, ""),
        (True, 0.9, 0.05, False, "inodes"),
        (True, 0.0, 1.0, False, "space"),
    ],
)
def test_disk_pressure_has_two_marks(was_ok: bool, free: float, inodes: float, ok: bool, word: str) -> None:
    before = Condition(type=DISK, ok=was_ok, since=1.0, reason="" if was_ok else "space")
    after = judge_disk(before, readings(disk_free_bytes=int(100 * GIB * free), inodes_free=inodes), 2.0)
    assert after.ok is ok
    assert word in after.reason
    assert after.since == (1.0 if was_ok is ok else 2.0)


def test_a_host_without_memory_says_so() -> None:
    found = judge_memory(None, readings(memory_available_bytes=0), 1.0)
    assert (found.type, found.ok) == (MEMORY, False)
    assert found.reason == "No more than 5% of memory was free; well again at 10%"


async def test_the_monitor_tells_of_changes_only() -> None:
    engine = FakeEngine(SystemClock())
    monitor = HostMonitor(engine, SystemClock(), read=lambda _path: readings())
    await monitor.look()
    first = await monitor.changed((None, ()))
    assert first[0] is not None
    assert [condition.ok for condition in first[1]] == [True, True, True]
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(monitor.changed(first))
        await monitor.look()
        await asyncio.sleep(0)
        assert not waiting.done()
        engine.fail("info", EngineUnavailable("gone"))
        await monitor.look()
    info, conditions = waiting.result()
    assert info == first[0]
    assert [condition.type for condition in conditions if not condition.ok] == [CONTAINER_RUNTIME]


async def test_an_engine_that_hangs_is_silent_after_the_probes_limit() -> None:
    engine = FakeEngine(SystemClock())
    monitor = HostMonitor(engine, SystemClock(), probe_limit_s=0.05, read=lambda _path: readings())
    with engine.held("info"):
        await monitor.look()
    assert "no answer within 0.05 s" in monitor.conditions[0].reason


async def test_the_monitor_runs_until_it_is_cancelled() -> None:
    engine = FakeEngine(SystemClock())
    monitor = HostMonitor(engine, SystemClock(), period_s=0.001, read=lambda _path: readings())
    async with asyncio.TaskGroup() as group:
        running = group.create_task(monitor.run())
        async with asyncio.timeout(5):
            while engine.count("info") < 3:  # noqa: ASYNC110 - the loop under test sleeps for real
                await asyncio.sleep(0.001)
        running.cancel()
    assert monitor.conditions
