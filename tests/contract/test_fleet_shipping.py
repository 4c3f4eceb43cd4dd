"""An agent's shipper and the control plane's intake: what containers say is in the log store, once and in order."""

from pathlib import Path

from msgspec.structs import replace

from agent.identity import Identity, join
from controlplane.logs.api import StoredEvent
from homeport.clock import SystemClock
from homeport.datadir import AgentDir
from homeport.protocol import HostFacts
from homeport.spec import LogShipping
from tests.fakes.engine import FakeEngine
from tests.fakes.fleet import FleetServer, a_context, a_task, eventually, serve_fleet
from tests.fakes.log_store import MemoryLogStore
from tests.fakes.shipping import Shipyard, a_container, a_state

GROUP = "/shop/web"


async def host_with_a_task(server: FleetServer, directory: Path) -> Identity:
    facts = HostFacts(hostname="host-1", agent_version="1")
    identity = await join(server.url, *server.activation(), None, facts, AgentDir(directory))
    task = a_task("t1", identity.instance_id)
    (container,) = task.spec.containers
    container = replace(
        container, name="web", shipping=LogShipping(group=GROUP, stream_prefix="ecs", create_group=True)
    )
    server.put(replace(task, spec=replace(task.spec, containers=(container,))))
    return identity


async def test_output_is_kept_over_restarts_of_everything_and_a_store_that_is_full(tmp_path: Path) -> None:
    context = a_context()
    store = context.logs
    assert isinstance(store, MemoryLogStore)
    engine = FakeEngine(SystemClock(), images=["web:1"], log_dir=tmp_path)
    runtime_id = await a_container(engine)
    kept: list[StoredEvent] = []

    async def texts() -> list[str]:
        kept[:] = await store.read(GROUP, "ecs/web/t1")
        return [event.text for event in kept]

    async with serve_fleet(context) as server:
        identity = await host_with_a_task(server, tmp_path)
        yard = Shipyard(engine, None, tmp_path, identity=identity)
        port = server.port
        engine.write_log("web", "before")
        async with yard.running(a_state(runtime_id)):
            await eventually(lambda: yard.metric("events_total") == 1)
        assert await texts() == ["before"]
        engine.write_log("web", "between", stream="stderr")
    async with yard.running(a_state(runtime_id)):
        async with serve_fleet(context, port=port):
            await eventually(lambda: yard.metric("events_total") == 1)
            store.problem = "the store is full"
            engine.write_log("web", "held")
            await eventually(lambda: yard.metric("refused_total") == 1)
        store.problem = ""
        async with serve_fleet(context, port=port):
            await eventually(lambda: yard.metric("events_total") == 2)
    async with serve_fleet(context, port=port), yard.running(a_state(runtime_id, stopped=True)) as shipper:
        await eventually(lambda: not shipper.streams())
    assert await texts() == ["before", "between", "held"]
    assert [event.number for event in kept] == [1, 2, 3]
    assert (await store.stream(GROUP, "ecs/web/t1")).ended
