"""When a host has come back: the control plane knows from when on everything of its absence has been told."""

from pathlib import Path

from controlplane.state.hostlog import HostLog
from controlplane.state.presence import Presence, PresenceBook
from homeport.ids import InstanceId
from homeport.protocol import Assignments, Heartbeat, HeartbeatAck
from homeport.status import TaskStatus
from tests.contract.test_fleet_peers import a_host, fleet, peer_of, proven
from tests.contract.test_fleet_session import FACTS, joined, running, stopped, uplink
from tests.fakes.fleet import FleetServer, a_task, eventually, serve_fleet
from tests.fakes.tasks import background
from tests.fakes.workload import FakeWorkload


class Watcher:
    """Notes how far a task was known to be whenever its host's being heard out changed."""

    def __init__(self, server: FleetServer, host: InstanceId, task: str) -> None:
        self.seen: list[tuple[bool, TaskStatus]] = []
        self._server, self._host, self._task = server, host, task
        server.context.state.host_log.followers.append(self._note)

    def _note(self) -> None:
        presence = self._server.context.state.presence.of(self._host)
        now = (presence is not None and presence.heard_out, self._server.task(self._task).status)
        if not self.seen or self.seen[-1] != now:
            self.seen.append(now)


def heard_out(server: FleetServer, host: InstanceId) -> bool:
    presence = server.context.state.presence.of(host)
    return presence is not None and presence.heard_out


def presence_of(server: FleetServer, host: InstanceId) -> Presence:
    presence = server.context.state.presence.of(host)
    assert presence is not None
    return presence


async def test_a_host_is_heard_out_once_what_happened_in_its_absence_is_applied(tmp_path: Path) -> None:
    async with serve_fleet() as server:
        identity = await joined(server, tmp_path)
        host = identity.instance_id
        server.put(a_task("t1", host))
        workload = FakeWorkload(FACTS)
        watcher = Watcher(server, host, "t1")
        workload.report(stopped("t1"))
        async with background(uplink(identity, workload).run()):
            await eventually(lambda: heard_out(server, host))
        assert next(status for told, status in watcher.seen if told) is TaskStatus.STOPPED
        await eventually(lambda: not presence_of(server, host).connected)
        assert not presence_of(server, host).heard_out


async def test_not_before_the_agent_has_looked_at_what_an_earlier_one_left(tmp_path: Path) -> None:
    async with serve_fleet(heartbeat_s=0.05) as server:
        identity = await joined(server, tmp_path)
        host = identity.instance_id
        server.put(a_task("t1", host))
        workload = FakeWorkload(FACTS)
        workload.looking = True
        async with background(uplink(identity, workload).run()):
            # Several heartbeats, a complete set and a report later it still isn't.
            await eventually(lambda: "t1" in workload.held and workload.beaten_revision != -1)
            workload.report(running("t1"))
            await eventually(lambda: not workload.unacknowledged)
            before = presence_of(server, host)
            await eventually(lambda: presence_of(server, host).last_seen_at > before.last_seen_at)
            assert not presence_of(server, host).heard_out
            workload.look()
            await eventually(lambda: heard_out(server, host))


async def test_each_session_begins_unheard(tmp_path: Path) -> None:
    async with serve_fleet() as server:
        identity = await joined(server, tmp_path)
        host = identity.instance_id
        server.put(a_task("t1", host))
        workload = FakeWorkload(FACTS)
        async with background(uplink(identity, workload).run()):
            await eventually(lambda: heard_out(server, host))
            watcher = Watcher(server, host, "t1")
            server.cut()
            workload.report(running("t1"))
            await eventually(lambda: workload.sessions == 2 and heard_out(server, host))
        assert watcher.seen[:2] == [(False, TaskStatus.PENDING), (True, TaskStatus.RUNNING)]


async def test_an_older_agent_is_heard_out_when_it_confirms_our_set() -> None:
    async with fleet() as (server, http):
        host = await a_host(http, server)
        server.put(a_task("t1", host.instance_id))
        async with peer_of(http, server) as peer:
            await proven(peer, host)
            complete = await peer.receive(Assignments)
            await peer.send(Heartbeat(revision=-1))
            await peer.receive(HeartbeatAck)
            assert not presence_of(server, host.instance_id).heard_out
            await peer.send(Heartbeat(revision=complete.revision))
            await peer.receive(HeartbeatAck)
            assert presence_of(server, host.instance_id).heard_out
            # Once it is, another doubt about the set doesn't take that back.
            await peer.send(Heartbeat(revision=-1))
            await peer.receive(HeartbeatAck)
            assert presence_of(server, host.instance_id).heard_out


def test_being_heard_out_is_news_of_a_host() -> None:
    log = HostLog()
    book = PresenceBook(log)
    host = InstanceId("h")
    book.put(host, Presence(connected=True, since=1, last_seen_at=1))
    book.put(host, Presence(connected=True, since=1, last_seen_at=2))
    known = log.last
    book.put(host, Presence(connected=True, since=1, last_seen_at=3, heard_out=True))
    assert log.since(known) == [host]
