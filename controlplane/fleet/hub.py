"""The fleet's side door: registration and sessions of all hosts, under one watch over the state.

What always holds:
 - one watch for all: a commit costs as much as it has changes, and wakes the hosts it concerns only;
 - a host has at most one session; a new one replaces the old;
 - nothing is sent that isn't durable; presence alone isn't journaled;
 - all heartbeats together stay below `heartbeats_per_s`: the period grows with the fleet.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator
from typing import Final

import msgspec
import structlog
from aiohttp import web
from msgspec.structs import replace

from controlplane.context import Context
from controlplane.events.hosts import tell_connection
from controlplane.fleet.assignments import concerns
from controlplane.fleet.handshake import SessionRefused, greet
from controlplane.fleet.liveness import Heard, heartbeat_period, jittered, silent
from controlplane.fleet.logrelay import failed
from controlplane.fleet.registration import RegistrationRefused, register
from controlplane.fleet.report_intake import ReportIntake
from controlplane.fleet.session import Session, update_facts
from controlplane.fleet.wire import MAX_FRAME_BYTES, PeerGone, SessionWire
from controlplane.state.presence import Presence
from controlplane.state.records import InstanceRecord, TaskRecord
from controlplane.state.watch import DEFAULT_CAPACITY, Watch, WatchOverflow
from controlplane.store.api import Commit
from homeport.errors import JournalError, ProtocolError
from homeport.ids import InstanceId, TaskId
from homeport.protocol import (
    PATH_CA,
    PATH_REGISTER,
    PATH_SESSION,
    Goodbye,
    Hello,
    LogChunk,
    Refusal,
    Registered,
    Registration,
)

__all__ = ["FleetHub"]

_log: Final = structlog.get_logger(__name__)

MAX_REGISTRATION_BYTES: Final = 256 * 1024
#: Peers that may prove themselves at a time. A proof takes milliseconds, so this is room for any fleet, and it bounds
#: what strangers can make this process hold: a frame each.
MAX_STRANGERS: Final = 512
#: Peers that may wait for their turn. A fleet that comes back as one is let in one after another, each after one try:
#: turned away, it would come again and again, and cost more than its proofs.
MAX_WAITING: Final = 8192

_encoder: Final = msgspec.json.Encoder()
_registrations: Final = msgspec.json.Decoder(Registration)


class FleetHub:
    """Serves all agents. Add `routes()` to the server, and keep `run()` running.

    `heartbeat_s`: the period of a small fleet; `heartbeats_per_s` bounds the total of a large one; `ca_pem`: the CA's
    certificate as PEM if the server speaks TLS; `watch_capacity`: commits that may wait before hosts get complete sets.
    """

    def __init__(
        self,
        context: Context,
        *,
        heartbeat_s: float = 5.0,
        heartbeats_per_s: float = 500.0,
        ca_pem: bytes | None = None,
        watch_capacity: int = DEFAULT_CAPACITY,
    ) -> None:
        self._context = context
        self._heartbeat_s = heartbeat_s
        self._heartbeats_per_s = heartbeats_per_s
        self._ca_pem = ca_pem
        self._watch_capacity = watch_capacity
        self._sessions: dict[InstanceId, Session] = {}
        #: Sessions in the order in which they were last heard, longest ago first.
        self._heard: OrderedDict[InstanceId, Heard] = OrderedDict()
        #: Peers that haven't proved themselves, and the turns to do so.
        self._strangers = 0
        self._turns = asyncio.Semaphore(MAX_STRANGERS)
        self._running = False
        #: See SessionHost.
        self.reports = ReportIntake(context)

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the routes to serve. None of them is signed: a host proves itself by activation or key."""
        return [
            web.post(PATH_REGISTER, self._serve_registration),
            web.get(PATH_SESSION, self._serve_session),
            web.get(PATH_CA, self._serve_ca),
        ]

    @property
    def session_count(self) -> int:
        """How many hosts have a session."""
        return len(self._sessions)

    # ------------------------------------------------------------ what Session needs (SessionHost)

    def next_period(self) -> float:
        """See SessionHost."""
        return jittered(self._period(), self._context.random)

    def heard(self, session: Session) -> None:
        """See SessionHost."""
        if self._sessions.get(session.instance_id) is not session:
            return  # replaced; its last frames don't speak for the host any more
        now = self._context.clock.monotonic()
        self._heard[session.instance_id] = Heard(session.instance_id, now, session.period_s)
        self._heard.move_to_end(session.instance_id)

    def _period(self) -> float:
        return heartbeat_period(self._heartbeat_s, len(self._sessions), self._heartbeats_per_s)

    # ------------------------------------------------------------ loops

    async def run(self) -> None:
        """Tell hosts what changes, and part with those that are silent, until cancelled; then end all sessions.

        Sessions are served only meanwhile.
        """
        self._running = True
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_state())
                group.create_task(self._follow_silence())
                group.create_task(self.reports.run())
        finally:
            self._running = False
            for session in self._sessions.values():
                session.end(Goodbye(reason="the control plane is stopping"))

    async def _follow_state(self) -> None:
        while True:
            with self._context.state.snapshot_and_watch(capacity=self._watch_capacity) as watch:
                for session in self._sessions.values():
                    session.resynchronize()
                try:
                    await self._follow(watch)
                except WatchOverflow:
                    _log.warning("assignments fell behind the state; every host gets a complete set")

    async def _follow(self, watch: Watch) -> None:
        while True:
            batch = await watch.next_batch()
            await self._context.state.durable(batch[-1].revision)
            told: dict[Session, None] = {}
            for commit in batch:
                told.update(dict.fromkeys(self._spread(commit)))
            # One frame for each host, however many of the commits concern it.
            for session in told:
                session.tell()

    def _spread(self, commit: Commit) -> Iterator[Session]:
        """Have the sessions of hosts note what a durable commit changes for them; yield each that did."""
        for change in commit.changes:
            if change.kind == TaskRecord.kind:
                instance_id = concerns(change)
                session = None if instance_id is None else self._sessions.get(instance_id)
                if session is not None:
                    new = change.new
                    session.note(commit.revision, TaskId(change.key), new if isinstance(new, TaskRecord) else None)
                    yield session
            elif change.kind == InstanceRecord.kind:
                self._part_if_deregistered(InstanceId(change.key), change.new)

    def _part_if_deregistered(self, instance_id: InstanceId, new: object) -> None:
        if isinstance(new, InstanceRecord) and new.status != "INACTIVE":
            return
        session = self._sessions.get(instance_id)
        if session is not None:
            session.end(Goodbye(reason="the container instance was deregistered", final=True))
        else:
            self._context.state.presence.forget(instance_id)

    async def _follow_silence(self) -> None:
        """End the sessions of hosts that have missed their heartbeats."""
        clock = self._context.clock
        while True:
            interval = self._period() / 2
            slept_at = clock.monotonic()
            await asyncio.sleep(interval)
            now = clock.monotonic()
            if now - slept_at > interval + self._heartbeat_s:
                # This process stood still: it is the one that wasn't listening, so every host gets its time anew.
                self._heard = OrderedDict((key, host._replace(at=now)) for key, host in self._heard.items())
            for host in silent(self._heard.values(), now, self._heartbeat_s):
                session = self._sessions[host.instance_id]
                _log.warning("host is silent", instance=host.instance_id, silent_s=round(now - host.at, 1))
                session.end(Goodbye(reason=f"not heard of for {now - host.at:.0f} s"))

    # ------------------------------------------------------------ requests

    async def _serve_ca(self, _: web.Request) -> web.Response:
        if self._ca_pem is None:
            return _refusal(404, "NoTls", "This control plane does not speak TLS, so there is no CA to pin.")
        return web.Response(body=self._ca_pem, content_type="application/x-pem-file")

    async def _serve_registration(self, request: web.Request) -> web.Response:
        try:
            body = await _bounded_body(request)
            registered = register(self._context, _registrations.decode(body))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return _refusal(400, "InvalidRequest", f"Not a registration: {error}")
        except RegistrationRefused as refused:
            _log.warning("registration refused", code=refused.code, reason=refused.message, peer=request.remote)
            return _refusal(refused.status, refused.code, refused.message)
        await self._context.state.durable()
        _log.info("host registered", instance=registered.instance_id, cluster=registered.cluster, peer=request.remote)
        return _json(registered)

    async def _serve_session(self, request: web.Request) -> web.StreamResponse:
        if not self._running or self._strangers >= MAX_STRANGERS + MAX_WAITING:
            return _refusal(503, "Unavailable", "The control plane can't take another session now; try again soon.")
        # Compression is off: frames are small, and a compressor's window per host would cost more than it saves.
        socket = web.WebSocketResponse(max_msg_size=MAX_FRAME_BYTES, compress=False, timeout=2.0)
        await socket.prepare(request)
        await self.serve(SessionWire.of(request, socket))
        return socket

    async def serve(self, wire: SessionWire) -> None:
        """Let a peer prove itself, and serve it until its session ends; then, on cancel too, the wire is closed."""
        hello = await self._admit(wire)
        if hello is not None:
            await self._hold(wire, hello)

    async def _admit(self, wire: SessionWire) -> Hello | None:
        """Let the peer prove itself, in its turn. None, with the connection closed, if it doesn't."""
        self._strangers += 1
        try:
            async with self._turns:
                hello = await greet(self._context, wire)
            update_facts(self._context, hello.instance_id, hello.facts)
        except SessionRefused as refused:
            _log.warning("session refused", reason=str(refused))
            await wire.close(refused.goodbye)
        except ProtocolError as error:
            await wire.close(Goodbye(reason=f"protocol error: {error}", retry_after_s=60))
        except (PeerGone, TimeoutError, JournalError):
            await wire.close()
        else:
            return hello
        finally:
            self._strangers -= 1
        return None

    async def _hold(self, wire: SessionWire, hello: Hello) -> None:
        """Serve a proven host until its session ends."""
        instance_id = hello.instance_id
        presence = self._context.state.presence
        session = Session(self._context, instance_id, wire, self)
        before = self._sessions.get(instance_id)
        if before is not None:
            before.end(
                Goodbye(
                    reason="another session of this host has taken over; if its identity.json was copied to a second "
                    "machine, join that one with an activation of its own"
                )
            )
        self._sessions[instance_id] = session
        self.heard(session)
        clock = self._context.clock
        now, heard_at = clock.now(), clock.monotonic()
        presence.put(
            instance_id,
            Presence(connected=True, since=now, last_seen_at=now, heard_at=heard_at, address=wire.peer),
        )
        tell_connection(self._context, instance_id)
        _log.info("host connected", instance=instance_id, hostname=hello.facts.hostname, session=session.id)
        try:
            await session.run()
        finally:
            if self._sessions.get(instance_id) is session:
                self._forget(instance_id)
            _log.info("session ended", instance=instance_id, session=session.id, reason=session.reason)

    def _forget(self, instance_id: InstanceId) -> None:
        del self._sessions[instance_id]
        self._heard.pop(instance_id, None)
        state = self._context.state
        instance = state.instances.get(instance_id)
        known = state.presence.of(instance_id)
        if instance is None or instance.status == "INACTIVE":
            state.presence.forget(instance_id)
        elif known is not None:
            gone = replace(known, connected=False, heard_out=False, since=self._context.clock.now())
            state.presence.put(instance_id, gone)
            if self._running:  # else it is this control plane that goes: nobody will miss the hosts
                tell_connection(self._context, instance_id)

    # ------------------------------------------------------------ logs

    async def read_logs(
        self,
        task_id: TaskId,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
    ) -> AsyncGenerator[LogChunk, None]:
        """Yield a container's log, relayed over its host's session, up to a chunk with `end`.

        What can't be read ends with a chunk whose `error` says why. `tail` None: all of it; `since`: epoch seconds,
        exclusive. Closing the iterator (or cancelling) tells the host to stop.
        """
        task = self._context.state.tasks.get(task_id)
        if task is None:
            yield failed("", f"there is no task {task_id}, or it has stopped so long ago that its log is gone")
            return
        if container not in (names := [spec.name for spec in task.spec.containers]):
            yield failed("", f"the task has no container {container}; it has {', '.join(names)}")
            return
        if task.instance_id is None:
            yield failed("", "the task has no host yet")
            return
        session = self._sessions.get(task.instance_id)
        if session is None:
            yield failed("", f"{self._hostname(task.instance_id)} is not connected, and its logs are kept on it")
            return
        chunks = session.read_logs(task_id, container, follow=follow, tail=tail, since=since)
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()

    def _hostname(self, instance_id: InstanceId) -> str:
        instance = self._context.state.instances.get(instance_id)
        return f"the host {instance.facts.hostname if instance is not None else instance_id}"


async def _bounded_body(request: web.Request) -> bytes:
    body = bytearray()
    async for part in request.content.iter_any():
        body += part
        if len(body) > MAX_REGISTRATION_BYTES:
            raise RegistrationRefused(
                "TooLarge", f"A registration must be at most {MAX_REGISTRATION_BYTES} bytes.", status=413
            )
    return bytes(body)


def _json(message: Registered | Refusal, status: int = 200) -> web.Response:
    return web.Response(body=_encoder.encode(message), status=status, content_type="application/json")


def _refusal(status: int, code: str, message: str) -> web.Response:
    return _json(Refusal(code=code, message=message), status)
