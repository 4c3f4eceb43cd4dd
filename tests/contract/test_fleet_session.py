"""The real uplink against the real hub over real sockets: what must hold however the connection behaves."""

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path

from aiohttp import WSMsgType, web
from msgspec.structs import replace

from agent.identity import Identity, join
from agent.uplink import Uplink
from controlplane.events.feed import JournalFeed
from controlplane.state.records import InstanceRecord
from controlplane.state.state import load_state
from homeport.clock import SystemClock
from homeport.datadir import AgentDir
from homeport.ids import InstanceId, TaskId
from homeport.protocol import PATH_SESSION, HostFacts, TaskReport
from homeport.spec import Resources
from homeport.status import DesiredStatus, TaskStatus
from homeport.story import StoryLine
from tests.fakes.fleet import FleetServer, a_context, a_task, eventually, serve_fleet
from tests.fakes.journal import MemoryJournal
from tests.fakes.tasks import background
from tests.fakes.workload import FakeWorkload

FACTS = HostFacts(hostname="host-1", agent_version="1", resources=Resources(cpu_units=4096, memory_mib=8192))


async def joined(server: FleetServer, directory: Path) -> Identity:
    return await join(server.url, *server.activation(), None, FACTS, AgentDir(directory))


def uplink(identity: Identity, workload: FakeWorkload) -> Uplink:
    return Uplink(identity, workload, clock=SystemClock(), random=random.Random(3), backoff_cap_s=0.2)


def running(task_id: str, seq: int = 1) -> TaskReport:
    line = StoryLine(at=1.0, event="started", message=f"{task_id} started", actor="agent")
    return TaskReport(task_id=TaskId(task_id), seq=seq, status=TaskStatus.RUNNING, story=((seq, line),))


def stopped(task_id: str, seq: int = 2) -> TaskReport:
    return TaskReport(task_id=TaskId(task_id), seq=seq, status=TaskStatus.STOPPED)


async def test_a_host_gets_its_tasks_and_its_reports_arrive(tmp_path: Path) -> None:
    async with serve_fleet() as server:
        identity = await joined(server, tmp_path)
        workload = FakeWorkload(FACTS)
        presence = server.context.state.presence
        server.put(a_task("t1", identity.instance_id))
        async with background(uplink(identity, workload).run()):
            await eventually(lambda: "t1" in workload.held)
            server.put(a_task("t2", identity.instance_id))
            await eventually(lambda: "t2" in workload.held)
            assert [taken.base is None for taken in workload.taken] == [True, False]
            workload.report(running("t1"))
            await eventually(lambda: not workload.unacknowledged)
            assert server.task("t1").status is TaskStatus.RUNNING
            server.stop_task("t1")
            await eventually(lambda: workload.held[TaskId("t1")].desired is DesiredStatus.STOPPED)
            assert workload.held[TaskId("t1")].stop_reason == "Task stopped by user"
            workload.report(stopped("t1"))
            await eventually(lambda: "t1" not in workload.held)
            assert presence.connected(identity.instance_id)
            await eventually(lambda: (known := presence.of(identity.instance_id)) and known.conditions)
        await eventually(lambda: not presence.connected(identity.instance_id))


async def test_nothing_is_sent_before_it_is_durable(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with serve_fleet(a_context(journal)) as server:
        identity = await joined(server, tmp_path)
        workload = FakeWorkload(FACTS)
        server.put(a_task("t1", identity.instance_id))
        async with background(uplink(identity, workload).run()):
            await eventually(lambda: "t1" in workload.held)
            journal.hold()
            server.put(a_task("t2", identity.instance_id))
            workload.report(running("t1"))
            await eventually(lambda: server.task("t1").status is TaskStatus.RUNNING)
            taken, contacts = len(workload.taken), len(workload.contacts)
            # The hub waits with the increment, the session with the ack; heartbeats go on meanwhile.
            await eventually(lambda: journal.waiting == 1 and len(workload.contacts) >= contacts + 2)
            assert (len(workload.taken), workload.acks) == (taken, [])
            journal.release()
            await eventually(lambda: "t2" in workload.held and workload.acks == [{"t1": 1}])


async def test_reports_are_acknowledged_together_with_a_heartbeat(tmp_path: Path) -> None:
    async with serve_fleet(heartbeat_s=60.0) as server:
        identity = await joined(server, tmp_path)
        workload = FakeWorkload(FACTS)
        server.put(a_task("t1", identity.instance_id), a_task("t2", identity.instance_id))
        async with background(uplink(identity, workload).run()):
            await eventually(lambda: len(workload.held) == 2)
            # No heartbeat is under way any more, and the next one is far.
            await eventually(lambda: workload.beaten_revision >= 0 and len(workload.contacts) == workload.stamps)
            workload.report(running("t1", seq=1))
            await eventually(lambda: server.task("t1").reported_seq == 1)
            workload.report(running("t2", seq=2))
            await eventually(lambda: server.task("t2").reported_seq == 2)
            server.put(a_task("t3", identity.instance_id))
            await eventually(lambda: "t3" in workload.held)
            assert workload.acks == []
            workload.lose_set()
            server.put(a_task("t4", identity.instance_id))  # a gap, which a heartbeat tells
            await eventually(lambda: workload.acks == [{"t1": 1, "t2": 2}])


async def test_a_complete_set_waits_for_durability_too(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with serve_fleet(a_context(journal)) as server:
        identity = await joined(server, tmp_path)
        workload = FakeWorkload(FACTS)
        journal.hold()
        server.put(a_task("t1", identity.instance_id))
        async with background(uplink(identity, workload).run()):
            await eventually(lambda: workload.sessions == 1 and journal.waiting == 2)
            assert workload.taken == []
            journal.release()
            await eventually(lambda: "t1" in workload.held)
            assert len(workload.taken) == 1


async def test_a_connection_cut_in_the_middle_of_a_report_loses_and_doubles_nothing(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with serve_fleet(a_context(journal)) as server:
        identity = await joined(server, tmp_path)
        workload = FakeWorkload(FACTS)
        server.put(a_task("t1", identity.instance_id), a_task("t2", identity.instance_id))
        async with background(uplink(identity, workload).run()):
            await eventually(lambda: len(workload.held) == 2)
            journal.hold()
            workload.report(running("t1"))
            await eventually(lambda: server.task("t1").reported_seq == 1)
            server.cut()  # applied, not yet durable: the ack is lost with the connection
            workload.report(running("t2"))
            await eventually(lambda: workload.sessions == 2)
            journal.release()
            await eventually(lambda: not workload.unacknowledged)
        assert [server.task(name).status for name in ("t1", "t2")] == [TaskStatus.RUNNING] * 2
        assert [line.message for line in await journal.story(TaskId("t1"))] == ["t1 started"]
        assert [line.message for line in await journal.story(TaskId("t2"))] == ["t2 started"]
        assert server.task("t1").version == 2


async def test_many_cuts_while_tasks_come_and_go_end_in_the_same_state(tmp_path: Path) -> None:
    source = random.Random(11)
    async with serve_fleet() as server:
        identity = await joined(server, tmp_path)
        workload = FakeWorkload(FACTS)
        async with background(uplink(identity, workload).run()):
            for number in range(60):
                server.put(a_task(f"t{number:03}", identity.instance_id))
                if source.random() < 0.3:
                    server.cut()
                if source.random() < 0.5:
                    await asyncio.sleep(0)
                if workload.held and source.random() < 0.7:
                    chosen = source.choice(sorted(workload.held))
                    workload.report(stopped(chosen))
            await eventually(lambda: not workload.unacknowledged)
            alive = [task.id for task in server.context.state.tasks if task.status is not TaskStatus.STOPPED]
            await eventually(lambda: sorted(workload.held) == alive)


async def test_a_control_plane_that_restarts_finds_its_hosts_again(tmp_path: Path) -> None:
    journal = MemoryJournal()
    workload = FakeWorkload(FACTS)
    async with AsyncExitStack() as first:
        server = await first.enter_async_context(serve_fleet(a_context(journal)))
        identity = await joined(server, tmp_path)
        server.put(a_task("t1", identity.instance_id), a_task("t2", identity.instance_id))
        link = uplink(identity, workload)
        async with background(link.run()):
            await eventually(lambda: len(workload.held) == 2)
            await first.aclose()
            await eventually(lambda: not link.connected)
            workload.report(stopped("t1"))
            assert len(workload.held) == 2
            state = await load_state(MemoryJournal.restarted(journal))
            async with serve_fleet(a_context(state=state), port=server.port) as again:
                await eventually(lambda: sorted(workload.held) == ["t2"])
                assert again.task("t1").status is TaskStatus.STOPPED
                assert workload.unacknowledged == {}


async def test_the_second_session_of_a_host_replaces_the_first(tmp_path: Path) -> None:
    async with serve_fleet() as server:
        identity = await joined(server, tmp_path)
        first, second = FakeWorkload(FACTS), FakeWorkload(FACTS)
        server.put(a_task("t1", identity.instance_id))
        old = Uplink(identity, first, clock=SystemClock(), random=_Latest(), backoff_cap_s=60.0)
        async with background(old.run()):
            await eventually(lambda: "t1" in first.held)
            async with background(uplink(identity, second).run()):
                await eventually(lambda: "t1" in second.held and not old.connected)
                assert "taken over" in old.failure
                assert server.hub.session_count == 1
                assert server.context.state.presence.connected(identity.instance_id)
                server.put(a_task("t2", identity.instance_id))
                await eventually(lambda: "t2" in second.held)


class _Latest(random.Random):
    """The longest wait each time, so that an uplink that lost its session stays away."""

    def uniform(self, a: float, b: float) -> float:
        return b * 600


async def test_a_deregistered_host_is_told_to_stop_for_good(tmp_path: Path) -> None:
    async with serve_fleet() as server:
        identity = await joined(server, tmp_path)
        workload = FakeWorkload(FACTS)
        async with asyncio.TaskGroup() as group:
            run = group.create_task(uplink(identity, workload).run())
            await eventually(lambda: workload.taken)
            server.deregister(identity.instance_id)
            await asyncio.wait_for(run, 10)
        assert workload.ended == "the container instance was deregistered"
        await eventually(lambda: server.context.state.presence.of(identity.instance_id) is None)
        # One that was away then is told when it comes back.
        late = FakeWorkload(FACTS)
        await asyncio.wait_for(uplink(identity, late).run(), 10)
        assert late.ended is not None


async def test_a_host_that_loses_its_set_gets_a_complete_one(tmp_path: Path) -> None:
    async with serve_fleet(heartbeat_s=0.05) as server:
        identity = await joined(server, tmp_path)
        workload = FakeWorkload(FACTS)
        server.put(a_task("t1", identity.instance_id))
        async with background(uplink(identity, workload).run()):
            await eventually(lambda: workload.revision >= 0)
            await eventually(lambda: server.context.state.presence.connected(identity.instance_id))
            workload.lose_set()
            await eventually(lambda: workload.revision >= 0)
            assert [taken.base for taken in workload.taken] == [None, None]
            assert workload.sessions == 1


async def test_a_gap_is_closed_at_once(tmp_path: Path) -> None:
    async with serve_fleet(heartbeat_s=60.0) as server:
        identity = await joined(server, tmp_path)
        workload = FakeWorkload(FACTS)
        async with background(uplink(identity, workload).run()):
            await eventually(lambda: workload.beaten_revision >= 0)
            workload.lose_set()
            server.put(a_task("t1", identity.instance_id))  # an increment of a set that is no longer held
            await eventually(lambda: "t1" in workload.held)
            assert [taken.base is None for taken in workload.taken] == [True, False, True]
            assert workload.sessions == 1


async def test_facts_are_taken_over_once(tmp_path: Path) -> None:
    async with serve_fleet() as server:
        identity = await joined(server, tmp_path)
        workload = FakeWorkload(FACTS)
        journal = server.context.state.journal
        assert isinstance(journal, MemoryJournal)

        def taken_over() -> list[str]:
            changes = (change for commit in journal.commits for change in commit.changes)
            records = ((change.old, change.new) for change in changes)
            return [
                new.facts.docker_version
                for old, new in records
                if isinstance(old, InstanceRecord) and isinstance(new, InstanceRecord) and old.facts != new.facts
            ]

        async with background(uplink(identity, workload).run()):
            await eventually(lambda: workload.taken)
            assert taken_over() == []
            workload.change_facts(replace(FACTS, docker_version="20.10"))
            await eventually(taken_over)
            server.cut()
            await eventually(lambda: workload.sessions == 2)
            assert taken_over() == ["20.10"]


async def test_each_session_is_an_event_when_it_begins_and_when_it_ends(tmp_path: Path) -> None:
    async with AsyncExitStack() as serving:
        server = await serving.enter_async_context(serve_fleet())
        identity = await joined(server, tmp_path)
        workload = FakeWorkload(FACTS)
        async with background(uplink(identity, workload).run()):
            await eventually(lambda: workload.sessions == 1)
            server.cut()
            await eventually(lambda: workload.sessions == 2)
        await eventually(lambda: not server.context.state.presence.connected(identity.instance_id))
        async with background(uplink(identity, workload).run()):
            await eventually(lambda: workload.sessions == 3)
            await serving.aclose()  # the control plane's own end is no session's: nobody has gone
    feed = JournalFeed(server.context.state.journal, server.context.arns)
    told = [event.document["detail"] for event in await feed.read(0, limit=100)]
    assert [detail["agentConnected"] for detail in told] == [False, True, False, True, False, True]
    assert [detail["version"] for detail in told] == [1, 2, 3, 4, 5, 6]


async def test_a_report_on_another_hosts_task_is_refused_but_acknowledged(tmp_path: Path) -> None:
    async with serve_fleet() as server:
        identity = await joined(server, tmp_path)
        workload = FakeWorkload(FACTS)
        server.put(a_task("foreign", InstanceId("another")))
        async with background(uplink(identity, workload).run()):
            workload.report(stopped("foreign"))
            workload.report(stopped("unknown"))
            await eventually(lambda: not workload.unacknowledged)
        assert server.task("foreign").status is TaskStatus.PENDING


async def test_a_control_plane_that_falls_silent_is_left(tmp_path: Path) -> None:
    async with serve_fleet() as server:
        identity = await joined(server, tmp_path)

    async def welcome_and_say_nothing(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"type": "Challenge", "nonce": "n"})
        await socket.receive()
        await socket.send_json({"type": "Welcome", "session_id": "s", "heartbeat_s": 0.05})
        while (await socket.receive()).type is WSMsgType.TEXT:
            pass
        return socket

    app = web.Application()
    app.add_routes([web.get(PATH_SESSION, welcome_and_say_nothing)])
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        workload = FakeWorkload(FACTS)
        link = uplink(replace(identity, servers=(url,)), workload)
        async with background(link.run()):
            await eventually(lambda: workload.sessions == 2)
        assert link.last_contact_at is not None
    finally:
        await runner.cleanup()
