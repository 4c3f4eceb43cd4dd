"""A simulated host: it speaks the real protocol over a real WebSocket, and runs nothing. Thousands fit into a process.

    host = SimulatedHost("host-1")
    await host.join(http, url, activation.id, code)
    await host.run(http, url)            # until cancelled, or deregistered

What it reports for an assignment is decided by a script, `Behaviour`; the default one runs and stops what it is told.
"""

import asyncio
import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import aiohttp
import msgspec
from aiohttp import WSMsgType
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homeport.ids import InstanceId, TaskId
from homeport.protocol import (
    PATH_REGISTER,
    PATH_SESSION,
    AgentMessage,
    Assignment,
    Assignments,
    Challenge,
    Condition,
    ContainerReport,
    ControlMessage,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    Hello,
    HostFacts,
    Refusal,
    Registered,
    Registration,
    Reports,
    ReportsAck,
    TaskReport,
    Welcome,
    signed_hello,
)
from homeport.spec import Resources
from homeport.status import ContainerStatus, DesiredStatus, StopCode, TaskStatus

__all__ = ["Behaviour", "RegistrationFailed", "SimulatedHost", "fold", "obey", "prepared_report", "simple_report"]

#: assignment -> the reports to send for it, in order; `seq` is filled in by the host.
Behaviour = Callable[[Assignment], Sequence[TaskReport]]

RESOURCES: Final = Resources(cpu_units=4096, memory_mib=8192)

_encoder: Final = msgspec.json.Encoder()
_decoder: Final[msgspec.json.Decoder[ControlMessage]] = msgspec.json.Decoder(ControlMessage)


class RegistrationFailed(Exception):
    """The control plane refused; `refusal` says why."""

    def __init__(self, status: int, refusal: Refusal) -> None:
        super().__init__(f"{status} {refusal.code}: {refusal.message}")
        self.status = status
        self.refusal = refusal


def simple_report(assignment: Assignment, status: TaskStatus) -> TaskReport:
    """Report all containers of a task as running, or as ended by SIGTERM."""
    stopped = status is TaskStatus.STOPPED
    containers = tuple(
        ContainerReport(
            name=container.name,
            status=ContainerStatus.STOPPED if stopped else ContainerStatus.RUNNING,
            runtime_id=f"{assignment.task_id}-{container.name}",
            exit_code=143 if stopped else None,
        )
        for container in assignment.spec.containers
    )
    return TaskReport(
        task_id=assignment.task_id,
        seq=0,
        status=status,
        containers=containers,
        started_at=1.0,
        stopped_at=2.0 if stopped else None,
        stop_code=StopCode.ESSENTIAL_CONTAINER_EXITED if stopped else None,
        stopped_reason="Essential container in task exited" if stopped else None,
    )


def prepared_report(assignment: Assignment) -> TaskReport:
    """Report all containers of a task as created."""
    report = simple_report(assignment, TaskStatus.PENDING)
    created = tuple(msgspec.structs.replace(c, status=ContainerStatus.CREATED) for c in report.containers)
    return msgspec.structs.replace(report, containers=created, started_at=None)


def obey(assignment: Assignment) -> Sequence[TaskReport]:
    """Run what is to run, prepare what is only to be prepared, stop what is to stop, at once."""
    if assignment.desired is DesiredStatus.STOPPED:
        return (simple_report(assignment, TaskStatus.STOPPED),)
    if assignment.desired is DesiredStatus.PENDING:
        return (prepared_report(assignment),)
    if assignment.known < TaskStatus.RUNNING:
        return (simple_report(assignment, TaskStatus.RUNNING),)
    return ()


def fold(held: Mapping[TaskId, Assignment], assignments: Assignments) -> dict[TaskId, Assignment]:
    """Return the set a host holds after taking `assignments`."""
    folded = dict(held) if assignments.base is not None else {}
    for task_id in assignments.remove:
        folded.pop(task_id, None)
    for assignment in assignments.put:
        folded[assignment.task_id] = assignment
    return folded


class SimulatedHost:
    """One host. Its attributes tell what it has seen; change `behaviour` and `conditions` at will."""

    def __init__(
        self,
        hostname: str = "simulated",
        *,
        resources: Resources = RESOURCES,
        attributes: dict[str, str] | None = None,
        behaviour: Behaviour = obey,
    ) -> None:
        self.facts = HostFacts(
            hostname=hostname, agent_version="0", resources=resources, attributes=attributes or {"ecs.os-type": "linux"}
        )
        self.behaviour = behaviour
        self.conditions: tuple[Condition, ...] = ()
        self.instance_id = InstanceId("")
        self.held: dict[TaskId, Assignment] = {}
        self.revision = -1
        self.goodbye: Goodbye | None = None
        #: task -> seq of its last report; kept until the control plane has acknowledged it.
        self.unacknowledged: dict[TaskId, TaskReport] = {}
        self.connected = asyncio.Event()
        self._seqs: dict[TaskId, int] = {}
        self._key = Ed25519PrivateKey.generate()

    @property
    def public_key(self) -> str:
        """Raw, base64."""
        return base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    async def join(
        self, http: aiohttp.ClientSession, server: str, activation_id: str, code: str, *, cluster: str = ""
    ) -> Registered:
        """Register. Raises RegistrationFailed."""
        registration = Registration(
            activation_id=activation_id,
            activation_code=code,
            public_key=self.public_key,
            facts=self.facts,
            cluster=cluster,
        )
        async with http.post(server + PATH_REGISTER, data=_encoder.encode(registration)) as response:
            body = await response.read()
            if response.status != 200:
                raise RegistrationFailed(response.status, msgspec.json.decode(body, type=Refusal))
        registered = msgspec.json.decode(body, type=Registered)
        self.instance_id = registered.instance_id
        return registered

    async def run(self, http: aiohttp.ClientSession, server: str) -> None:
        """Hold one session until either side ends it. `goodbye` then says why, if the control plane did."""
        async with http.ws_connect(server + PATH_SESSION, max_msg_size=0) as socket:
            try:
                await self._serve(socket)
            finally:
                self.connected.clear()

    async def _serve(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        loop = asyncio.get_running_loop()
        self.revision = -1
        period_s = 5.0
        beat_at = loop.time() + 3600.0
        while True:
            try:
                async with asyncio.timeout_at(beat_at):
                    frame = await socket.receive()
            except TimeoutError:
                await _send(socket, self.heartbeat())
                beat_at = loop.time() + period_s
                continue
            if frame.type is not WSMsgType.TEXT:
                return
            match _decoder.decode(frame.data):
                case Challenge(nonce=nonce):
                    await _send(socket, self.hello(nonce))
                case Welcome(heartbeat_s=period_s):
                    beat_at = loop.time()
                    self.connected.set()
                    await self._report(socket, tuple(self.unacknowledged.values()))
                case Assignments() as assignments:
                    await self._take(socket, assignments)
                case HeartbeatAck(next_s=next_s):
                    period_s = next_s
                    beat_at = loop.time() + period_s
                case ReportsAck(seqs=seqs):
                    for task_id, seq in seqs.items():
                        waiting = self.unacknowledged.get(task_id)
                        if waiting is not None and waiting.seq <= seq:
                            del self.unacknowledged[task_id]
                case Goodbye() as goodbye:
                    self.goodbye = goodbye
                    return
                case _:
                    pass

    def heartbeat(self) -> Heartbeat:
        """Return a heartbeat; the first comes behind the reports that weren't acknowledged in earlier sessions."""
        return Heartbeat(revision=self.revision, conditions=self.conditions, caught_up=True)

    def hello(self, nonce: str) -> Hello:
        """Return the proof for a nonce."""
        signature = base64.b64encode(self._key.sign(signed_hello(nonce, self.instance_id))).decode()
        return Hello(instance_id=self.instance_id, signature=signature, facts=self.facts)

    async def _take(self, socket: aiohttp.ClientWebSocketResponse, assignments: Assignments) -> None:
        if assignments.base is not None and assignments.base != self.revision:
            raise AssertionError(f"a gap: increment of {assignments.base}, held {self.revision}")
        self.held = fold(self.held, assignments)
        self.revision = assignments.revision
        reports = []
        for assignment in assignments.put:
            for report in self.behaviour(assignment):
                seq = self._seqs[assignment.task_id] = self._seqs.get(assignment.task_id, 0) + 1
                report = msgspec.structs.replace(report, seq=seq)
                self.unacknowledged[assignment.task_id] = report
                reports.append(report)
        await self._report(socket, tuple(reports))

    async def _report(self, socket: aiohttp.ClientWebSocketResponse, reports: tuple[TaskReport, ...]) -> None:
        if reports:
            await _send(socket, Reports(tasks=reports))


async def _send(socket: aiohttp.ClientWebSocketResponse, message: AgentMessage) -> None:
    await socket.send_frame(_encoder.encode(message), WSMsgType.TEXT)
