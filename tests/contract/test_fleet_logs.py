"""Logs over the session: read, followed, cancelled, held back; and what a reader is told when there is nothing."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from agent.identity import join
from agent.uplink import Uplink
from controlplane.fleet.logrelay import LOG_WINDOW, MAX_READERS
from homeport.clock import SystemClock
from homeport.datadir import AgentDir
from homeport.ids import TaskId
from homeport.protocol import HostFacts, LogChunk
from tests.fakes.fleet import FleetServer, a_task, eventually, serve_fleet
from tests.fakes.tasks import background
from tests.fakes.workload import FakeWorkload

FACTS = HostFacts(hostname="host-1", agent_version="1")
TASK = TaskId("t1")


@asynccontextmanager
async def connected(directory: Path) -> AsyncIterator[tuple[FleetServer, FakeWorkload]]:
    async with serve_fleet() as server:
        identity = await join(server.url, *server.activation(), None, FACTS, AgentDir(directory))
        server.put(a_task(TASK, identity.instance_id))
        workload = FakeWorkload(FACTS)
        async with background(
            Uplink(identity, workload, clock=SystemClock(), random=random.Random(1), backoff_cap_s=0.1).run()
        ):
            await eventually(lambda: workload.taken)
            yield server, workload


def texts(chunks: list[LogChunk]) -> list[str]:
    return [text for chunk in chunks for _, _, text in chunk.lines]


async def test_a_log_is_read_to_its_end(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, workload):
        workload.log_lines = 100  # several windows
        chunks = [chunk async for chunk in server.hub.read_logs(TASK, "main")]
        assert texts(chunks) == [f"line {number}" for number in range(100)]
        assert (chunks[-1].end, chunks[-1].error) == (True, "")
        await eventually(lambda: workload.open_logs == 0)


async def test_a_followed_log_goes_on_until_its_reader_leaves(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, workload):
        async with aclosing(server.hub.read_logs(TASK, "main", follow=True)) as chunks:
            seen = [await anext(chunks) for _ in range(workload.log_lines)]
            assert texts(seen) == ["line 0", "line 1", "line 2"]
            assert workload.open_logs == 1
        await eventually(lambda: workload.open_logs == 0)
        assert workload.sessions == 1


async def test_a_cancelled_reader_stops_the_host(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, workload):

        async def follow() -> None:
            async for _ in server.hub.read_logs(TASK, "main", follow=True):
                pass

        async with background(follow()):
            await eventually(lambda: workload.open_logs == 1)
        await eventually(lambda: workload.open_logs == 0)


async def test_a_slow_reader_holds_the_host_back(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, workload):
        workload.log_lines = 10 * LOG_WINDOW
        async with aclosing(server.hub.read_logs(TASK, "main")) as chunks:
            await anext(chunks)
            # A second log is read to its end meanwhile, so the first has had every chance to run ahead.
            other = [chunk async for chunk in server.hub.read_logs(TASK, "main")]
            assert len(texts(other)) == 10 * LOG_WINDOW
            # What the reader has taken, the window, and the one that waits for room.
            assert min(workload.log_chunks_made.values()) <= 1 + LOG_WINDOW + 1
            rest = [chunk async for chunk in chunks]
        assert texts(rest) == [f"line {number}" for number in range(1, 10 * LOG_WINDOW)]


async def test_a_reader_is_told_when_the_host_goes(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, workload):
        async with aclosing(server.hub.read_logs(TASK, "main", follow=True)) as chunks:
            for _ in range(workload.log_lines):
                await anext(chunks)
            server.cut()
            last = await anext(chunks)
        assert last.end
        assert "session with the host has ended" in last.error
        await eventually(lambda: workload.sessions == 2 and workload.open_logs == 0)


async def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    async def error(task_id: str, container: str) -> str:
        chunks = [chunk async for chunk in server.hub.read_logs(TaskId(task_id), container)]
        assert [chunk.end for chunk in chunks] == [True]
        return chunks[0].error

    async with connected(tmp_path) as (server, workload):
        assert "there is no task nothing" in await error("nothing", "main")
        assert "no container side; it has main" in await error(TASK, "side")
        server.put(a_task("homeless"), a_task("elsewhere", "another-host"))
        assert "has no host yet" in await error("homeless", "main")
        assert "another-host is not connected" in await error("elsewhere", "main")
        workload.logs_fail = True
        assert await error(TASK, "main") == "the Engine does not answer"
        assert workload.sessions == 1


async def test_readers_of_one_host_are_bounded(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, workload):
        async with asyncio.TaskGroup() as group:

            async def follow() -> None:
                async for _ in server.hub.read_logs(TASK, "main", follow=True):
                    pass

            readers = [group.create_task(follow()) for _ in range(MAX_READERS)]
            await eventually(lambda: workload.open_logs == MAX_READERS)
            refused = [chunk async for chunk in server.hub.read_logs(TASK, "main")]
            assert "close one of them" in refused[-1].error
            for reader in readers:
                reader.cancel()
        await eventually(lambda: workload.open_logs == 0)
