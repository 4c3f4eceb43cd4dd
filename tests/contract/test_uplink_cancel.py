"""An agent that is told to stop in the same moment as its session breaks must stop, and not reconnect."""

import asyncio
import random
from pathlib import Path

from agent.identity import join
from agent.uplink import Uplink
from homeport.clock import SystemClock
from homeport.datadir import AgentDir
from homeport.protocol import HostFacts, TaskReport
from homeport.spec import Resources
from tests.fakes.fleet import serve_fleet
from tests.fakes.workload import FakeWorkload

FACTS = HostFacts(hostname="host-1", agent_version="1", resources=Resources(cpu_units=4096, memory_mib=8192))


class BreakingWorkload(FakeWorkload):
    """Breaks the session from inside, and has the uplink cancelled in the same event-loop turn."""

    uplink: "asyncio.Task[None]"

    async def next_reports(self) -> tuple[TaskReport, ...]:
        self.uplink.cancel()
        raise ConnectionResetError("the control plane went away")


async def test_a_cancel_that_meets_the_end_of_a_session_ends_the_uplink(tmp_path: Path) -> None:
    async with serve_fleet() as server:
        identity = await join(server.url, *server.activation(), None, FACTS, AgentDir(tmp_path))
        workload = BreakingWorkload(FACTS)
        uplink = Uplink(identity, workload, clock=SystemClock(), random=random.Random(1), backoff_cap_s=0.01)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            workload.uplink = group.create_task(uplink.run())
        assert workload.uplink.cancelled()
        assert workload.sessions == 1
