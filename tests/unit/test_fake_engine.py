"""The fake engine keeps the Engine Protocol's promises; else the tests that lean on it would prove nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest

from agent.engine.api import ContainerPlan, Engine, EngineEvent
from agent.engine.docker import DockerEngine
from agent.engine.errors import EngineTimeout, EngineUnavailable, NotFound
from homeport.clock import SystemClock
from homeport.status import HealthStatus
from tests.engine.cases import CASES
from tests.engine.conftest import Lab
from tests.fakes.engine import FakeEngine

LABELS = {"homeport.instance": "i", "homeport.task": "t", "homeport.container": "web"}


def plan(
    name: str = "one", *, container: str = "web", task: str = "t", host: dict[str, Any] | None = None
) -> ContainerPlan:
    return ContainerPlan(
        name=name,
        labels=LABELS | {"homeport.container": container, "homeport.task": task},
        body={"Image": "web:1", "HostConfig": host or {}},
    )


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(SystemClock(), images=["web:1"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.__name__))
async def test_it_keeps_the_seams_promises(engine: FakeEngine, case: Callable[[Lab], Awaitable[None]]) -> None:
    engine.stubborn.add("main")
    await case(Lab(cast(DockerEngine, engine), "web:1"))


async def test_it_is_an_engine(engine: FakeEngine) -> None:
    seam: Engine = engine
    assert (await seam.info()).version


async def test_a_missing_image_is_not_found_until_it_is_pulled(engine: FakeEngine) -> None:
    engine.images.clear()
    with pytest.raises(NotFound):
        await engine.create(plan())
    await engine.pull("web:1")
    await engine.create(plan())


async def test_a_call_that_times_out_may_have_had_its_effect(engine: FakeEngine) -> None:
    container_id = await engine.create(plan())
    engine.fail("start", EngineTimeout("start"), effect=True)
    with pytest.raises(EngineTimeout):
        await engine.start(container_id)
    assert engine.find("web").state == "running"
    await engine.start(container_id)


async def test_a_stubborn_container_is_killed_after_its_time(engine: FakeEngine) -> None:
    engine.stubborn.add("web")
    container_id = await engine.create(plan())
    await engine.start(container_id)
    await engine.stop(container_id, 0)
    assert engine.find("web").exit_code == 137


async def test_calls_hang_while_they_are_held(engine: FakeEngine) -> None:
    async with asyncio.TaskGroup() as group:
        with engine.held("pull") as held:
            pulling = group.create_task(engine.pull("other:1"))
            await held.arrived()
            assert not pulling.done()
        assert (await pulling).digest


async def test_events_tell_what_happens_and_a_resync_comes_first(engine: FakeEngine) -> None:
    events = engine.events({"homeport.instance": "i"})
    assert (await anext(events)).kind == "resync"
    container_id = await engine.create(plan())
    await engine.start(container_id)
    engine.set_health("web", HealthStatus.HEALTHY)
    engine.exit("web", 137, oom=True)
    seen = [await anext(events) for _ in range(5)]
    assert [event.kind for event in seen] == ["create", "start", "health", "oom", "die"]
    assert seen[-1].exit_code == 137
    assert seen[-1].labels == plan().labels
    facts = await engine.inspect(container_id)
    assert facts is not None
    assert facts.oom_killed


async def test_nothing_answers_while_it_is_down_and_a_resync_follows(engine: FakeEngine) -> None:
    container_id = await engine.create(plan())
    await engine.start(container_id)
    events = engine.events({})
    await anext(events)
    with engine.down():
        with pytest.raises(EngineUnavailable):
            await engine.inspect(container_id)
        engine.exit("web", 3)
    assert (await anext(events)).kind == "resync"
    assert engine.find("web").exit_code == 3


async def test_lost_events_are_lost(engine: FakeEngine) -> None:
    container_id = await engine.create(plan())
    await engine.start(container_id)
    events: AsyncIterator[EngineEvent] = engine.events({})
    await anext(events)
    with engine.losing_events():
        engine.exit("web", 0)
    await engine.remove(container_id)
    assert (await anext(events)).kind == "destroy"


async def test_logs_can_be_followed_until_the_container_stops(engine: FakeEngine) -> None:
    container_id = await engine.create(plan())
    await engine.start(container_id)
    engine.write_log("web", "one")
    engine.write_log("web", "two", stream="stderr")
    lines = engine.logs(container_id, follow=True, tail=1)
    assert (await anext(lines)).text == "two"
    engine.write_log("web", "three")
    engine.exit("web", 0)
    assert [line.text async for line in lines] == ["three"]
