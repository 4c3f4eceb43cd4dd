"""The host as the worker sees it while Docker is away, comes up, and changes."""

import asyncio

import pytest

from agent.engine.errors import EngineUnavailable
from agent.host import HostMonitor, HostSettings, Readings
from agent.hostview import Host, LateCgroups
from homeport.clock import SystemClock
from homeport.ids import TaskId
from tests.fakes.agent_host import spec_of
from tests.fakes.engine import FakeEngine

READINGS = Readings(
    hostname="box",
    cores=2,
    memory_bytes=1 << 30,
    memory_available_bytes=1 << 29,
    disk_bytes=1 << 40,
    disk_free_bytes=1 << 39,
)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(SystemClock())


def parts(engine: FakeEngine) -> tuple[HostMonitor, LateCgroups, Host]:
    monitor = HostMonitor(engine, SystemClock(), read=lambda _: READINGS)
    cgroups = LateCgroups(engine, "tcp://elsewhere:2375")
    settings = HostSettings(reserved_memory_mib=24, availability_zone="z1")
    return monitor, cgroups, Host(monitor, settings, cgroups, read=lambda _: READINGS)


async def test_facts_are_there_without_docker_and_follow_when_it_comes(engine: FakeEngine) -> None:
    monitor, _, host = parts(engine)
    with engine.down():
        await host.start()
        facts = host.facts()
        assert facts.docker_version == ""
        assert facts.resources.memory_mib == 1000
        assert host.log_drivers() == ()
        assert [c.type for c in host.conditions() if not c.ok] == ["CONTAINER_RUNTIME"]
    async with asyncio.TaskGroup() as group:
        running = group.create_task(host.run())
        await monitor.look()
        changed = await host.next_facts()
        assert changed.docker_version == "28.0.0"
        assert changed.attributes["ecs.os-type"] == "linux"
        assert "json-file" in host.log_drivers()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await host.next_facts()
        running.cancel()


async def test_cgroups_wait_for_the_engine_only_if_a_task_needs_one(engine: FakeEngine) -> None:
    _, cgroups, _ = parts(engine)
    with engine.down():
        assert await cgroups.ensure(TaskId("t"), spec_of()) is None
        with pytest.raises(EngineUnavailable):
            await cgroups.ensure(TaskId("t"), spec_of(memory_mib=64))
    assert cgroups.reason == ""
    assert await cgroups.ensure(TaskId("t"), spec_of(memory_mib=64)) is None
    assert "tcp" in cgroups.reason
