"""A host that is cut off from a real control plane's side door: what may run at most once is gone before lost-after."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.hostview import LateCgroups
from agent.identity import Identity, join
from agent.isolation import Contact
from agent.journal import Journal
from agent.uplink import Uplink
from agent.worker import Worker
from homeport.clock import SystemClock
from homeport.datadir import AgentDir
from homeport.ids import TaskId
from homeport.status import StopCode, TaskStatus
from tests.engine.conftest import Lab
from tests.fakes.fleet import FleetServer, a_task, eventually, serve_fleet
from tests.fakes.host import FakeHost, FakeShipping

pytestmark = pytest.mark.engine

#: What the control plane would make of these times: a replacement five seconds after the kill.
STOP_S, KILL_S, LOST_AFTER_S = 3.0, 5.0, 10.0


@contextlib.asynccontextmanager
async def an_agent(lab: Lab, identity: Identity, directory: Path) -> AsyncIterator[Worker]:
    """A whole agent with its session, as `agent.service` puts it together."""
    clock = SystemClock()
    journal = Journal(directory / "agent.db")
    contact = Contact(directory / "contact")
    contact.load()
    worker = Worker(
        lab.engine,
        journal,
        FakeHost(),
        LateCgroups(lab.engine, lab.engine.docker_host),
        owner=identity.instance_id,
        clock=clock,
        rng=random.Random(1),
        shipping=FakeShipping(),
        contact=contact,
    )
    uplink = Uplink(identity, worker, clock=clock, random=random.Random(2), backoff_cap_s=0.2)
    async with asyncio.TaskGroup() as group:
        loops = [group.create_task(each) for each in (journal.run(), worker.run(), uplink.run())]
        yield worker
        for loop in loops:
            loop.cancel()


def put_single(server: FleetServer, lab: Lab, identity: Identity) -> TaskId:
    """Place a task of which at most one may run."""
    task_id = lab.task_id()
    container = lab.container("main", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done", stop_timeout_s=60)
    spec = lab.task(container, isolation_stop_s=STOP_S, isolation_kill_s=KILL_S)
    server.put(replace(a_task(task_id, identity.instance_id), spec=spec))
    return task_id


async def test_it_is_killed_before_the_control_plane_gives_the_host_up_and_reported_on_its_return(
    lab: Lab, tmp_path: Path
) -> None:
    async with serve_fleet(heartbeat_s=5.0) as server:
        facts = FakeHost().facts()
        identity = await join(server.url, *server.activation(), None, facts, AgentDir(tmp_path))
        lab.owner = identity.instance_id
        async with an_agent(lab, identity, tmp_path):
            task_id = put_single(server, lab, identity)
            await eventually(lambda: server.task(task_id).status is TaskStatus.RUNNING)
            runtime_id = server.task(task_id).containers[0].runtime_id
            assert runtime_id is not None
            # It isn't stopped while heartbeats get through, though the dictated period is longer than it may be silent.
            began = asyncio.get_running_loop().time()
            await eventually(lambda: asyncio.get_running_loop().time() - began > 1.3 * STOP_S)
            assert (await lab.inspect(runtime_id)).state == "running"

            server.listen(on=False)
            seen = server.context.state.presence.of(identity.instance_id)
            assert seen is not None
            while (ended := await lab.inspect(runtime_id)).state == "running":  # noqa: ASYNC110  # no other agent is told
                await asyncio.sleep(0.05)
            assert ended.finished_at is not None
            assert ended.exit_code == 137
            assert ended.finished_at < seen.last_seen_at + LOST_AFTER_S
            assert server.task(task_id).status is TaskStatus.RUNNING, "as far as the control plane knows"

            server.listen(on=True)
            await eventually(lambda: server.task(task_id).status is TaskStatus.STOPPED)
        stopped = server.task(task_id)
        assert stopped.stop_code is StopCode.SERVICE_SCHEDULER_INITIATED
        assert stopped.stopped_reason is not None
        assert stopped.stopped_reason.startswith("The host could not reach the control plane for ")


async def test_a_host_that_returns_is_heard_out_only_once_its_new_agent_has_looked_around(
    lab: Lab, tmp_path: Path
) -> None:
    async with serve_fleet() as server:
        identity = await join(server.url, *server.activation(), None, FakeHost().facts(), AgentDir(tmp_path))
        host = lab.owner = identity.instance_id
        task_id = lab.task_id()
        server.put(replace(a_task(task_id, host), spec=lab.task(lab.container("main"))))
        presence = server.context.state.presence
        async with an_agent(lab, identity, tmp_path):
            await eventually(lambda: server.task(task_id).status is TaskStatus.RUNNING)
            await eventually(lambda: (seen := presence.of(host)) and seen.heard_out)
        # What a reboot does: the containers are gone, and the agent begins anew.
        runtime_id = server.task(task_id).containers[0].runtime_id
        assert runtime_id is not None
        await lab.engine.stop(runtime_id, 0)
        known_when_heard_out: list[TaskStatus] = []

        def note() -> None:
            if (seen := presence.of(host)) and seen.heard_out:
                known_when_heard_out.append(server.task(task_id).status)

        server.context.state.host_log.followers.append(note)
        async with an_agent(lab, identity, tmp_path):
            await eventually(lambda: known_when_heard_out)
        assert known_when_heard_out[0] is TaskStatus.STOPPED
