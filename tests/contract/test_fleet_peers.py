"""What the hub does with peers that lie, flood, stall or talk nonsense: it says why, parts, and serves all others."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import aiohttp
import msgspec
import pytest
from aiohttp import WSMsgType, web
from msgspec.structs import replace

from controlplane.fleet.hub import FleetHub
from controlplane.fleet.session import MAX_FRAMES_PER_PERIOD, MAX_QUEUED
from controlplane.fleet.wire import MAX_FRAME_BYTES
from homeport.ids import InstanceId
from homeport.protocol import (
    PATH_CA,
    PATH_REGISTER,
    PATH_SESSION,
    AgentMessage,
    Assignments,
    Challenge,
    ControlMessage,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    HostFacts,
    HostUpdate,
    Refusal,
    Welcome,
)
from homeport.status import TaskStatus
from tests.fakes.agent import RegistrationFailed, SimulatedHost
from tests.fakes.clock import MovableClock
from tests.fakes.fleet import FleetServer, a_context, a_task, eventually, serve_fleet
from tests.fakes.tasks import background

M = TypeVar("M")


class RawPeer:
    """A connection in the hands of a test."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, message: AgentMessage) -> None:
        await self.socket.send_str(msgspec.json.encode(message).decode())

    async def receive(self, kind: type[M]) -> M:
        """Skip to the next message of a kind."""
        while True:
            frame = await self.socket.receive(timeout=10)
            assert frame.type is WSMsgType.TEXT, f"the connection ended with {frame} instead of {kind.__name__}"
            message = msgspec.json.decode(frame.data, type=ControlMessage)
            if isinstance(message, kind):
                return message

    async def closed(self) -> None:
        """Wait for the end of the connection."""
        while (frame := await self.socket.receive(timeout=10)).type is WSMsgType.TEXT:
            pass
        assert frame.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING, WSMsgType.ERROR)


@asynccontextmanager
async def peer_of(http: aiohttp.ClientSession, server: FleetServer) -> AsyncIterator[RawPeer]:
    async with http.ws_connect(server.url + PATH_SESSION, max_msg_size=0) as socket:
        yield RawPeer(socket)


@asynccontextmanager
async def fleet(*, heartbeat_s: float = 5.0) -> AsyncIterator[tuple[FleetServer, aiohttp.ClientSession]]:
    async with serve_fleet(heartbeat_s=heartbeat_s) as server, aiohttp.ClientSession() as http:
        yield server, http


async def a_host(http: aiohttp.ClientSession, server: FleetServer, name: str = "host") -> SimulatedHost:
    host = SimulatedHost(name)
    await host.join(http, server.url, *server.activation())
    return host


async def proven(peer: RawPeer, host: SimulatedHost) -> None:
    challenge = await peer.receive(Challenge)
    await peer.send(host.hello(challenge.nonce))
    await peer.receive(Welcome)


async def refused(peer: RawPeer) -> Goodbye:
    goodbye = await peer.receive(Goodbye)
    await peer.closed()
    return goodbye


async def test_a_wrong_key_proves_nothing() -> None:
    async with fleet() as (server, http):
        host = await a_host(http, server)
        impostor = SimulatedHost("impostor")
        impostor.instance_id = host.instance_id
        await asyncio.wait_for(impostor.run(http, server.url), 10)
        assert impostor.goodbye is not None
        assert "signature" in impostor.goodbye.reason
        assert not impostor.goodbye.final
        assert not server.context.state.presence.connected(host.instance_id)


async def test_an_old_hello_cannot_be_replayed() -> None:
    async with fleet() as (server, http):
        host = await a_host(http, server)
        async with peer_of(http, server) as peer:
            challenge = await peer.receive(Challenge)
            recorded = host.hello(challenge.nonce)
            await peer.send(recorded)
            await peer.receive(Welcome)
        async with peer_of(http, server) as peer:
            again = await peer.receive(Challenge)
            assert again.nonce != challenge.nonce
            await peer.send(recorded)
            assert "signature" in (await refused(peer)).reason


async def test_who_cannot_prove_itself_yet_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.fleet.hub.MAX_STRANGERS", 1)
    monkeypatch.setattr("controlplane.fleet.hub.MAX_WAITING", 1)
    async with fleet() as (server, http):
        host = await a_host(http, server)
        async with peer_of(http, server) as silent, peer_of(http, server) as waiting:
            await silent.receive(Challenge)
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await http.ws_connect(server.url + PATH_SESSION)
            assert caught.value.status == 503
            await silent.socket.close()
            await proven(waiting, host)


async def test_an_unknown_instance_is_not_told_to_stop_its_tasks() -> None:
    async with fleet() as (server, http):
        stranger = SimulatedHost("stranger")
        stranger.instance_id = InstanceId("0" * 32)
        await asyncio.wait_for(stranger.run(http, server.url), 10)
        assert stranger.goodbye is not None
        assert not stranger.goodbye.final
        assert "does not know" in stranger.goodbye.reason


async def test_a_forged_hello_of_a_deregistered_instance_learns_nothing_final() -> None:
    async with fleet() as (server, http):
        host = await a_host(http, server)
        server.deregister(host.instance_id)
        impostor = SimulatedHost("impostor")
        impostor.instance_id = host.instance_id
        await asyncio.wait_for(impostor.run(http, server.url), 10)
        assert impostor.goodbye is not None
        assert not impostor.goodbye.final


@pytest.mark.parametrize(
    "frame", ["not json", "{}", '{"type":"Reports","tasks":3}', '{"type":"Nothing"}', '{"type":"Heartbeat"}']
)
async def test_nonsense_ends_the_session_with_the_reason(frame: str) -> None:
    async with fleet() as (server, http):
        host = await a_host(http, server)
        async with peer_of(http, server) as peer:
            await proven(peer, host)
            await peer.socket.send_str(frame)
            assert "protocol error" in (await refused(peer)).reason
        await eventually(lambda: server.hub.session_count == 0)


@pytest.mark.parametrize(
    "report",
    [
        '"seq":1000000000000000000000000000000,"status":192',
        '"seq":-1,"status":192',
        '"seq":1,"status":3',
        '"seq":1,"status":192,"started_at":1e300',
        '"seq":1,"status":192,"containers":[{"name":"main","status":192,"exit_code":99999999999}]',
        '"seq":1,"status":192,"story":[[1,{"at":-1e300,"event":"e","message":"m","actor":"agent"}]]',
    ],
)
async def test_numbers_that_could_not_be_kept_are_not_taken(report: str) -> None:
    async with fleet() as (server, http):
        host = await a_host(http, server)
        server.put(a_task("t1", host.instance_id))
        async with peer_of(http, server) as peer:
            await proven(peer, host)
            await peer.socket.send_str(f'{{"type":"Reports","tasks":[{{"task_id":"t1",{report}}}]}}')
            assert "protocol error" in (await refused(peer)).reason
        assert server.task("t1").reported_seq == 0


async def test_nonsense_instead_of_a_hello() -> None:
    async with fleet() as (server, http):
        for frame in ("x", '{"type":"Heartbeat","revision":1}'):
            async with peer_of(http, server) as peer:
                await peer.socket.send_str(frame)
                assert "protocol error" in (await refused(peer)).reason


async def test_a_second_hello_and_binary_frames_are_refused() -> None:
    async with fleet() as (server, http):
        host = await a_host(http, server)
        async with peer_of(http, server) as peer:
            await proven(peer, host)
            await peer.send(host.hello("n"))
            assert "unexpected Hello" in (await refused(peer)).reason
        async with peer_of(http, server) as peer:
            await proven(peer, host)
            await peer.socket.send_bytes(b"{}")
            assert "only text frames" in (await refused(peer)).reason


async def test_an_oversized_frame_ends_its_session_and_no_other() -> None:
    async with fleet() as (server, http):
        good, bad = await a_host(http, server, "good"), await a_host(http, server, "bad")
        async with background(good.run(http, server.url)):
            async with peer_of(http, server) as peer:
                await proven(peer, bad)
                with contextlib.suppress(ConnectionError):  # the rest of the frame is not waited for
                    await peer.socket.send_str("x" * (MAX_FRAME_BYTES + 1))
                await peer.closed()
            await eventually(lambda: server.hub.session_count == 1)
            server.put(a_task("t1", good.instance_id))
            await eventually(lambda: server.task("t1").status is TaskStatus.RUNNING)


async def test_a_flood_is_cut_off() -> None:
    async with fleet() as (server, http):
        host = await a_host(http, server)
        async with peer_of(http, server) as peer:
            await proven(peer, host)
            frame = msgspec.json.encode(HostUpdate(facts=host.facts)).decode()
            for _ in range(MAX_FRAMES_PER_PERIOD + 1):
                await peer.socket.send_str(frame)
            assert "frames within one heartbeat period" in (await refused(peer)).reason


async def test_facts_that_cannot_be_used_end_the_session() -> None:
    async with fleet() as (server, http):
        host = await a_host(http, server)
        async with peer_of(http, server) as peer:
            await proven(peer, host)
            await peer.send(HostUpdate(facts=HostFacts(hostname="", agent_version="1")))
            assert "hostname is empty" in (await refused(peer)).reason
        instance = server.context.state.instances.get(host.instance_id)
        assert instance is not None
        assert instance.facts == host.facts


async def test_a_silent_host_is_unknown_and_its_tasks_are_left_as_they_are() -> None:
    async with fleet(heartbeat_s=0.05) as (server, http):
        host = await a_host(http, server)
        server.put(a_task("t1", host.instance_id))
        async with peer_of(http, server) as peer:
            await proven(peer, host)
            await peer.receive(Assignments)
            await peer.send(Heartbeat(revision=1))
            assert "not heard of" in (await refused(peer)).reason
        presence = server.context.state.presence
        await eventually(lambda: not presence.connected(host.instance_id))
        assert presence.of(host.instance_id) is not None
        assert server.task("t1").status is TaskStatus.PENDING


async def test_a_host_that_beats_as_dictated_stays() -> None:
    async with fleet(heartbeat_s=0.05) as (server, http):
        host = await a_host(http, server)
        async with background(host.run(http, server.url)):
            await host.connected.wait()
            first = server.context.state.presence.of(host.instance_id)
            assert first is not None
            await eventually(
                lambda: (
                    (now := server.context.state.presence.of(host.instance_id))
                    and now.last_seen_at > first.last_seen_at + 0.4
                )
            )
            assert host.goodbye is None
            assert server.hub.session_count == 1


async def test_registration_over_http_refuses_in_words() -> None:
    async with fleet() as (server, http):
        with pytest.raises(RegistrationFailed) as caught:
            await SimulatedHost("h").join(http, server.url, "nobody", "nothing")
        assert (caught.value.status, caught.value.refusal.code) == (403, "InvalidActivation")
        bodies: list[tuple[bytes, int]] = [
            (b"", 400),
            (b"[]", 400),
            (b'{"activation_id":"x"}', 400),
            (b"\xff\xfe", 400),
            (b'{"activation_id":"\xed\xa0\x80"}', 400),
            (b" " * 300_000, 413),
        ]
        for body, status in bodies:
            async with http.post(server.url + PATH_REGISTER, data=body) as response:
                assert response.status == status
                assert msgspec.json.decode(await response.read(), type=Refusal).message
        assert len(server.context.state.instances) == 0


async def test_lone_surrogates_in_a_code_are_no_server_error() -> None:
    async with fleet() as (server, http):
        identifier, _ = server.activation()
        body = (
            f'{{"activation_id":"{identifier}","activation_code":"\\ud800",'
            f'"public_key":"{base64.b64encode(bytes(32)).decode()}","facts":{{"hostname":"h","agent_version":"1"}}}}'
        )
        async with http.post(server.url + PATH_REGISTER, data=body) as response:
            assert response.status in (400, 403)


async def test_without_tls_there_is_no_ca() -> None:
    async with fleet() as (server, http), http.get(server.url + PATH_CA) as response:
        assert response.status == 404
        assert msgspec.json.decode(await response.read(), type=Refusal).code == "NoTls"


async def test_a_peer_that_asks_and_never_reads_is_cut_off() -> None:
    async with fleet() as (server, http):
        host = await a_host(http, server)
        filling = {f"V{number}": "x" * 60_000 for number in range(5)}
        for number in range(50):  # more than the sockets between us hold
            task = a_task(f"t{number}", host.instance_id)
            container = replace(task.spec.containers[0], environment=filling)
            server.put(replace(task, spec=replace(task.spec, containers=(container,))))
        async with peer_of(http, server) as peer:
            await proven(peer, host)
            for _ in range(MAX_QUEUED + 50):
                await peer.send(Heartbeat(revision=0))
            await eventually(lambda: server.hub.session_count == 0)
        async with background(host.run(http, server.url)):
            await eventually(lambda: len(host.held) == 50)


async def test_a_control_plane_that_stood_still_does_not_blame_its_hosts() -> None:
    clock = MovableClock()
    async with serve_fleet(a_context(clock=clock), heartbeat_s=0.4) as server, aiohttp.ClientSession() as http:
        host = await a_host(http, server)
        async with background(host.run(http, server.url)):
            await host.connected.wait()
            presence = server.context.state.presence
            await eventually(lambda: (now := presence.of(host.instance_id)) and now.last_seen_at > now.since)
            clock.move(3600.0)  # the next look at silence comes before the host's next word
            await eventually(lambda: (now := presence.of(host.instance_id)) and now.last_seen_at > clock.now() - 1800.0)
            assert host.goodbye is None
            assert server.hub.session_count == 1


async def test_hosts_get_complete_sets_when_the_hub_falls_behind() -> None:
    async with serve_fleet(watch_capacity=2) as server, aiohttp.ClientSession() as http:
        host = await a_host(http, server)
        async with background(host.run(http, server.url)):
            await host.connected.wait()
            await eventually(lambda: host.revision >= 0)
            for number in range(20):  # in one turn, so the watch overflows
                server.put(a_task(f"t{number}", host.instance_id))
            await eventually(lambda: len(host.held) == 20)
            await eventually(lambda: all(task.status is TaskStatus.RUNNING for task in server.context.state.tasks))


async def test_sessions_are_not_begun_while_the_hub_does_not_run() -> None:
    hub = FleetHub(a_context())
    app = web.Application()
    app.add_routes(hub.routes())
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession() as http:
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await http.ws_connect(f"http://127.0.0.1:{runner.addresses[0][1]}{PATH_SESSION}")
        assert caught.value.status == 503
    finally:
        await runner.cleanup()


async def test_a_control_plane_that_stops_says_so() -> None:
    async with aiohttp.ClientSession() as http, AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve_fleet())
        host = await a_host(http, server)
        async with background(host.run(http, server.url)):
            await host.connected.wait()
            await stack.aclose()
            await eventually(lambda: host.goodbye)
        assert host.goodbye is not None
        assert (host.goodbye.reason, host.goodbye.final) == ("the control plane is stopping", False)


async def test_doubt_about_the_set_is_answered_by_a_complete_one() -> None:
    async with fleet() as (server, http):
        host = await a_host(http, server)
        async with peer_of(http, server) as peer:
            await proven(peer, host)
            complete = await peer.receive(Assignments)
            # The first heartbeat may have been on its way already when the set arrived: no second set for that.
            await peer.send(Heartbeat(revision=-1))
            await peer.receive(HeartbeatAck)
            server.put(a_task("t1", host.instance_id))
            increment = await peer.receive(Assignments)
            assert (complete.base, increment.base) == (None, complete.revision)
            # But a host that has held a set and says that it holds none gets one at once.
            await peer.send(Heartbeat(revision=increment.revision))
            await peer.send(Heartbeat(revision=-1))
            anew = await peer.receive(Assignments)
            assert (anew.base, [assignment.task_id for assignment in anew.put]) == (None, ["t1"])
