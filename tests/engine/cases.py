"""What every Engine promises, the real one, the fake and the simulated: each case runs against each of them.

A case is handed a Lab whose image ignores the stop signal and never ends by itself.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import msgspec
import pytest

from agent.engine.api import EngineEvent
from agent.engine.errors import Conflict, NotFound, Rejected
from homeport.spec import PortMapping
from tests.engine.conftest import DEADLINE_S, Lab

__all__ = ["CASES", "collect"]


async def collect(events: AsyncIterator[EngineEvent], *kinds: str, within_s: float = DEADLINE_S) -> list[EngineEvent]:
    """Read events until each of `kinds` has come, in that order; others in between don't matter."""
    found = []
    async with asyncio.timeout(within_s):
        for kind in kinds:
            while (event := await anext(events)).kind != kind:
                pass
            found.append(event)
    return found


async def the_whole_life_of_a_container(lab: Lab) -> None:
    plan = lab.plan()
    container_id = await lab.engine.create(plan)
    created = await lab.inspect(plan.name)
    assert (created.container_id, created.state, created.exit_code) == (container_id, "created", None)
    assert created.labels.items() >= plan.labels.items()
    await lab.engine.start(container_id)
    running = await lab.inspect(container_id)
    assert running.state == "running"
    assert running.pid > 0
    assert running.started_at is not None
    assert running.finished_at is None
    await lab.engine.stop(container_id, 0)
    stopped = await lab.inspect(container_id)
    assert (stopped.state, stopped.exit_code) == ("exited", 137)
    assert stopped.finished_at is not None
    assert stopped.finished_at >= running.started_at
    await lab.engine.remove(container_id)
    assert await lab.engine.inspect(container_id) is None


async def verbs_may_be_repeated(lab: Lab) -> None:
    plan = lab.plan()
    container_id = await lab.engine.create(plan)
    assert await lab.engine.create(plan) == container_id
    for _ in range(2):
        await lab.engine.start(container_id)
    for _ in range(2):
        await lab.engine.stop(container_id, 0)
    for _ in range(2):
        await lab.engine.remove(container_id)


async def creating_one_name_from_several_sides_gives_one_container(lab: Lab) -> None:
    plan = lab.plan()
    ids = await asyncio.gather(*(lab.engine.create(plan) for _ in range(6)))
    assert len(set(ids)) == 1
    assert len(await lab.engine.list(lab.labels)) == 1


async def removing_one_container_from_several_sides_is_quiet(lab: Lab) -> None:
    container_id = await lab.start()
    await asyncio.gather(*(lab.engine.remove(container_id) for _ in range(4)))
    assert await lab.engine.inspect(container_id) is None


async def a_name_that_is_anothers_is_a_conflict_and_stays_untouched(lab: Lab) -> None:
    plan = lab.plan()
    theirs = await lab.engine.create(plan)
    ours = msgspec.structs.replace(plan, labels=plan.labels | {"homeport.task": "another"})
    with pytest.raises(Conflict, match="already in use"):
        await lab.engine.create(ours)
    assert (await lab.inspect(theirs)).labels["homeport.task"] == plan.labels["homeport.task"]


async def what_is_missing_is_said(lab: Lab) -> None:
    missing = "f" * 64
    with pytest.raises(NotFound, match="No such container"):
        await lab.engine.start(missing)
    with pytest.raises(NotFound):
        await lab.engine.stop(missing, 1)
    with pytest.raises(NotFound):
        await anext(aiter(lab.engine.logs(missing)))
    with pytest.raises(NotFound, match="No such image"):
        await lab.engine.create(lab.plan(image="homeport-test/no-such:1"))
    assert await lab.engine.image("homeport-test/no-such:1") is None


async def list_gives_what_carries_all_labels_running_or_not(lab: Lab) -> None:
    running = await lab.start()
    created = await lab.engine.create(lab.plan())
    found = {facts.container_id: facts.state for facts in await lab.engine.list(lab.labels)}
    assert found == {running: "running", created: "created"}
    assert await lab.engine.list(lab.labels | {"homeport.task": "another"}) == ()


async def a_container_that_ignores_the_signal_is_killed_after_the_timeout(lab: Lab) -> None:
    container_id = await lab.start()
    began = asyncio.get_running_loop().time()
    await lab.engine.stop(container_id, 1)
    assert asyncio.get_running_loop().time() - began >= 1
    assert (await lab.inspect(container_id)).exit_code == 137


async def events_tell_a_life_in_order(lab: Lab) -> None:
    events = lab.engine.events(lab.labels)
    assert (await anext(events)).kind == "resync"
    container_id = await lab.start()
    await lab.engine.stop(container_id, 0)
    found = await collect(events, "create", "start", "die")
    await lab.engine.remove(container_id)
    found += await collect(events, "destroy")
    assert {event.container_id for event in found} == {container_id}
    assert [event.exit_code for event in found] == [None, None, 137, None]
    assert all(event.labels.items() >= lab.labels.items() for event in found)
    assert [event.at for event in found] == sorted(event.at for event in found)


async def events_of_others_are_not_read(lab: Lab) -> None:
    other = Lab(lab.engine, lab.image)
    events = lab.engine.events(lab.labels)
    await anext(events)
    await lab.engine.create(other.plan())
    await other.close()
    ours = await lab.engine.create(lab.plan())
    async with asyncio.timeout(DEADLINE_S):
        assert (await anext(events)).container_id == ours


async def ports_are_bound_as_asked(lab: Lab) -> None:
    ports = (PortMapping(container_port=80), PortMapping(container_port=53, protocol="udp"))
    container_id = await lab.start(ports=ports, task={"network_mode": "bridge"})
    bindings = (await lab.inspect(container_id)).bindings
    assert {(binding.container_port, binding.protocol) for binding in bindings} == {(80, "tcp"), (53, "udp")}
    dynamic = next(binding.host_port for binding in bindings if binding.protocol == "tcp")
    assert dynamic > 0
    taken = (PortMapping(container_port=81, host_port=dynamic),)
    second = await lab.engine.create(lab.plan(ports=taken, task={"network_mode": "bridge"}))
    with pytest.raises(Rejected, match="port is already allocated"):
        await lab.engine.start(second)
    await lab.engine.remove(container_id)
    await lab.engine.start(second)
    assert {binding.host_port for binding in (await lab.inspect(second)).bindings} == {dynamic}


async def a_container_in_the_hosts_network_has_no_bindings_and_runs(lab: Lab) -> None:
    container_id = await lab.start(ports=(PortMapping(container_port=80),), task={"network_mode": "host"})
    facts = await lab.inspect(container_id)
    assert (facts.state, facts.bindings) == ("running", ())


CASES: Final[tuple[Callable[[Lab], Awaitable[None]], ...]] = (
    the_whole_life_of_a_container,
    verbs_may_be_repeated,
    creating_one_name_from_several_sides_gives_one_container,
    removing_one_container_from_several_sides_is_quiet,
    a_name_that_is_anothers_is_a_conflict_and_stays_untouched,
    what_is_missing_is_said,
    list_gives_what_carries_all_labels_running_or_not,
    a_container_that_ignores_the_signal_is_killed_after_the_timeout,
    events_tell_a_life_in_order,
    events_of_others_are_not_read,
    ports_are_bound_as_asked,
    a_container_in_the_hosts_network_has_no_bindings_and_runs,
)
