"""Acknowledgements of reports: none before it is durable, and none that never comes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from controlplane.context import Context
from controlplane.fleet.report_intake import ReportIntake
from controlplane.fleet.session import Session
from controlplane.fleet.wire import PeerGone
from homeport.ids import TaskId
from homeport.protocol import AgentMessage, ControlMessage, Goodbye, Heartbeat, Reports, ReportsAck, TaskReport
from homeport.status import TaskStatus
from tests.fakes.journal import MemoryJournal
from tests.fakes.records import a_context, a_task, an_instance, put


class _Wire:
    """A host's end of a session, played by a test."""

    def __init__(self) -> None:
        self.up: asyncio.Queue[AgentMessage | None] = asyncio.Queue()
        self.down: list[ControlMessage] = []

    async def send(self, message: ControlMessage) -> None:
        self.down.append(message)

    async def receive(self) -> AgentMessage:
        message = await self.up.get()
        if message is None:
            raise PeerGone("the test is over")
        return message

    async def close(self, goodbye: Goodbye | None = None) -> None: ...

    def abort(self) -> None: ...

    @property
    def acknowledged(self) -> list[dict[TaskId, int]]:
        return [message.seqs for message in self.down if isinstance(message, ReportsAck)]


class _Host:
    """What a session needs of the hub."""

    def __init__(self, context: Context) -> None:
        self.reports = ReportIntake(context)

    def next_period(self) -> float:
        return 5.0

    def heard(self, session: Session) -> None: ...


class _Bench:
    """A session of host h1 that has the task t1, over a journal that a test holds and releases."""

    def __init__(self) -> None:
        self.context = a_context()
        put(self.context, an_instance("h1"), a_task("t1", instance_id="h1"))
        self.wire = _Wire()
        self._seq = 0

    @property
    def journal(self) -> MemoryJournal:
        journal = self.context.state.journal
        assert isinstance(journal, MemoryJournal)
        return journal

    def report(self) -> None:
        """Something has changed, and the host says so."""
        self._seq += 1
        status = TaskStatus.RUNNING
        self.wire.up.put_nowait(Reports(tasks=(TaskReport(task_id=TaskId("t1"), seq=self._seq, status=status),)))

    async def beat(self) -> None:
        """The host sends a heartbeat, and everything is taken."""
        self.wire.up.put_nowait(Heartbeat(revision=self.context.state.revision))
        for _ in range(20):
            await asyncio.sleep(0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        session = Session(self.context, an_instance("h1").id, self.wire, _Host(self.context))  # type: ignore[arg-type]
        async with asyncio.TaskGroup() as group:
            group.create_task(session.run())
            yield
            self.wire.up.put_nowait(None)


@pytest.fixture
async def bench() -> AsyncIterator[_Bench]:
    bench = _Bench()
    async with bench.running():
        yield bench


async def test_reports_are_acknowledged_once_they_are_durable_and_not_before(bench: _Bench) -> None:
    bench.journal.hold()
    bench.report()
    await bench.beat()
    await bench.beat()
    assert bench.wire.acknowledged == []
    bench.journal.release()
    await bench.beat()
    await bench.beat()
    assert bench.wire.acknowledged == [{"t1": 1}]


async def test_a_host_whose_heartbeats_always_follow_on_a_report_is_acknowledged_too(bench: _Bench) -> None:
    """On a slow disk the latest report is never durable when a heartbeat comes; those before it are."""
    bench.journal.hold()
    for _ in range(10):
        before = bench.context.state.revision
        bench.report()
        await bench.beat()
        bench.journal.release(before)
        bench.journal.hold()
    assert bench.wire.acknowledged, "nothing was acknowledged in ten heartbeats"
    assert max(acks[TaskId("t1")] for acks in bench.wire.acknowledged) > 5
