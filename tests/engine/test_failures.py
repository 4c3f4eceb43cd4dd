"""An Engine that is away, hangs, or is started again: calls say so, and nothing is made up."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.engine.api import EngineEvent
from agent.engine.docker import DockerEngine
from agent.engine.errors import EngineTimeout, EngineUnavailable
from agent.engine.limits import Limits
from agent.host import CONTAINER_RUNTIME, HostMonitor
from homeport.clock import SystemClock
from tests.engine.busybox import import_image
from tests.engine.conftest import DEADLINE_S, Lab
from tests.engine.dockerd import OwnEngine, own_engine

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="needs dockerd to start one of its own"),
]

IMAGE = "homeport-test/busybox:own"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnEngine]:
    """One Engine for this file: each test leaves it running."""
    with own_engine(tmp_path_factory.mktemp("engine")) as own:
        asyncio.run(_prepare(own))
        yield own


async def _prepare(own: OwnEngine) -> None:
    async with DockerEngine(own.docker_host) as engine:
        await up(engine, own)
    await import_image(IMAGE, own.docker_host)


async def up(engine: DockerEngine, own: OwnEngine) -> None:
    """Wait until an Engine answers: its first event is a `resync`."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            await anext(engine.events({}))
    except TimeoutError:
        raise AssertionError(own.log()) from None


async def next_of(events: AsyncIterator[EngineEvent], kind: str) -> EngineEvent:
    async with asyncio.timeout(DEADLINE_S):
        while (event := await anext(events)).kind != kind:
            pass
    return event


@pytest.fixture
async def lab(own: OwnEngine) -> AsyncIterator[Lab]:
    async with DockerEngine(own.docker_host, limits=Limits(events_retry_max_s=0.2)) as engine:
        lab = Lab(engine, IMAGE)
        try:
            yield lab
        finally:
            await lab.close()


@pytest.fixture
async def hasty(own: OwnEngine) -> AsyncIterator[DockerEngine]:
    """The same Engine for calls that are to time out."""
    async with DockerEngine(own.docker_host, limits=Limits(inspect_s=1, start_s=1)) as engine:
        yield engine


async def test_where_no_engine_listens_every_call_says_so(tmp_path: Path) -> None:
    async with DockerEngine(f"unix://{tmp_path}/none.sock") as engine:
        with pytest.raises(EngineUnavailable, match=r"none\.sock"):
            await engine.inspect("x")
        with pytest.raises(EngineUnavailable):
            await engine.pull("homeport-test/x:1")


async def test_a_hung_engine_times_out_and_works_again(own: OwnEngine, lab: Lab, hasty: DockerEngine) -> None:
    container_id = await lab.start()
    own.freeze()
    try:
        with pytest.raises(EngineTimeout, match="no answer from the Docker Engine within 1 s"):
            await hasty.inspect(container_id)
    finally:
        own.thaw()
    assert (await lab.inspect(container_id)).state == "running"


async def test_a_start_that_timed_out_may_have_happened_and_may_be_repeated(
    own: OwnEngine, lab: Lab, hasty: DockerEngine
) -> None:
    container_id = await lab.engine.create(lab.plan())
    own.freeze()
    try:
        with pytest.raises(EngineTimeout):
            await hasty.start(container_id)
    finally:
        own.thaw()
    await lab.engine.start(container_id)
    assert (await lab.inspect(container_id)).state == "running"


async def test_events_go_on_across_a_restart_and_no_exit_code_is_lost(own: OwnEngine, lab: Lab) -> None:
    container_id = await lab.start("sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done")
    await anext(lab.engine.logs(container_id, follow=True))  # a signal before its trap would go unheard
    pid = (await lab.inspect(container_id)).pid
    events = lab.engine.events(lab.labels)
    await next_of(events, "resync")
    own.kill()
    with pytest.raises(EngineUnavailable):
        await lab.engine.inspect(container_id)
    # It ends while nobody looks. (Its shell is the first process of its namespace: only a handled signal reaches it.)
    os.kill(pid, signal.SIGTERM)
    own.start()
    await next_of(events, "resync")
    assert (await lab.exited(container_id)).exit_code == 9
    other = await lab.start()
    assert (await next_of(events, "start")).container_id == other


async def test_a_kept_connection_that_died_is_replaced(own: OwnEngine, lab: Lab) -> None:
    container_id = await lab.start()
    own.kill()
    own.start()
    async with DockerEngine(own.docker_host) as other:
        await up(other, own)
    # The pool still holds connections to the Engine that is gone.
    assert (await lab.inspect(container_id)).state == "running"


async def test_the_monitor_says_since_when_docker_is_silent(own: OwnEngine, lab: Lab) -> None:
    monitor = HostMonitor(lab.engine, SystemClock(), probe_limit_s=1)
    await monitor.look()
    assert {condition.type: condition.ok for condition in monitor.conditions}[CONTAINER_RUNTIME]
    info = monitor.info
    own.freeze()
    try:
        await monitor.look()
    finally:
        own.thaw()
    silent = next(condition for condition in monitor.conditions if condition.type == CONTAINER_RUNTIME)
    assert not silent.ok
    assert "The Docker Engine has not answered since" in silent.reason
    assert monitor.info == info, "what it was is still known"
    await monitor.look()
    assert next(condition for condition in monitor.conditions if condition.type == CONTAINER_RUNTIME).ok
