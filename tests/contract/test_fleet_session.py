"""The real uplink against the real hub over real sockets: what must hold however the connection behaves."""

import random
from pathlib import Path

from agent.identity import Identity, join
from agent.uplink import Uplink
from homeport.clock import SystemClock
from homeport.datadir import AgentDir
from homeport.ids import TaskId
from homeport.protocol import HostFacts, TaskReport
from homeport.spec import Resources
from homeport.status import DesiredStatus, TaskStatus
from tests.fakes.fleet import FleetServer, a_task, eventually, serve_fleet
from tests.fakes.tasks import background
from tests.fakes.workload import FakeWorkload

FACTS = HostFacts(hostname="host-1", agent_version="1", resources=Resources(cpu_units=4096, memory_mib=8192))


async def joined(server: FleetServer, directory: Path) -> Identity:
    return await join(server.url, *server.activation(), None, FACTS, AgentDir(directory))


def uplink(identity: Identity, workload: FakeWorkload) -> Uplink:
    return Uplink(identity, workload, clock=SystemClock(), random=random.Random(3), backoff_cap_s=0.2)


async def test_a_host_gets_its_tasks_and_its_reports_arrive(tmp_path: Path) -> None:
    async with serve_fleet() as server:
        identity = await joined(server, tmp_path)
        workload = FakeWorkload(FACTS)
        server.put(a_task("t1", identity.instance_id))
        async with background(uplink(identity, workload).run()):
            await eventually(lambda: "t1" in workload.held)
            server.put(a_task("t2", identity.instance_id))
            await eventually(lambda: "t2" in workload.held)
            assert [taken.base is None for taken in workload.taken] == [True, False]
            workload.report(TaskReport(task_id=TaskId("t1"), seq=1, status=TaskStatus.RUNNING))
            await eventually(lambda: not workload.unacknowledged)
            assert server.task("t1").status is TaskStatus.RUNNING
            server.stop_task("t1")
            await eventually(lambda: workload.held[TaskId("t1")].desired is DesiredStatus.STOPPED)
            workload.report(TaskReport(task_id=TaskId("t1"), seq=2, status=TaskStatus.STOPPED))
            await eventually(lambda: "t1" not in workload.held)
            assert server.context.state.presence.connected(identity.instance_id)
        await eventually(lambda: not server.context.state.presence.connected(identity.instance_id))
