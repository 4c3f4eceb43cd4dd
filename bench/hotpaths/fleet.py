"""The paths between control plane and hosts: a commit until its frames are sent, a report until its ack is."""

import asyncio
import base64
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from aiohttp import WSMessage, WSMsgType
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.framing import encode_reports
from bench.hotpaths.model import Path, Round
from controlplane.context import Context
from controlplane.fleet.hub import FleetHub
from controlplane.fleet.wire import SessionWire
from homeport.ids import InstanceId, TaskId
from homeport.protocol import (
    Assignments,
    Challenge,
    ContainerReport,
    ControlMessage,
    Heartbeat,
    Hello,
    HostFacts,
    ReportsAck,
    TaskReport,
    signed_hello,
)
from homeport.status import ContainerStatus, TaskStatus
from homeport.story import StoryLine
from tests.fakes.fleet import a_context, a_task
from tests.fakes.records import an_instance, put

__all__ = ["ASSIGN", "REPORT"]

_HOSTS = 50
_TASKS_OF_A_HOST = 10

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[ControlMessage] = msgspec.json.Decoder(ControlMessage)

_HEARTBEAT = _encoder.encode(Heartbeat(revision=-1))


class _Frames:
    """How many frames of a kind are still to be sent, to all hosts together."""

    def __init__(self) -> None:
        self._tag = b""
        self._left = 0
        self._all_sent = asyncio.Event()

    def expect(self, kind: type[ControlMessage], count: int) -> None:
        self._tag = b'"type":"%s"' % kind.__name__.encode()
        self._left = count
        self._all_sent.clear()

    def sent(self, frame: bytes) -> None:
        self._left -= self._tag in frame
        if self._left == 0:
            self._all_sent.set()

    async def wait(self) -> None:
        await self._all_sent.wait()


class _Socket:
    """A host's end of its WebSocket. It answers the challenge; what else it is sent is counted."""

    def __init__(self, instance_id: InstanceId, key: Ed25519PrivateKey, facts: HostFacts, frames: _Frames) -> None:
        self.instance_id = instance_id
        self._frames = frames
        self._hello = (key, facts)
        self._greeted = False
        self._up: asyncio.Queue[WSMessage] = asyncio.Queue()

    def say(self, frame: bytes) -> None:
        self._up.put_nowait(WSMessage(WSMsgType.TEXT, frame.decode(), None))

    async def send_frame(self, message: bytes, opcode: WSMsgType) -> None:
        assert opcode is WSMsgType.TEXT
        if not self._greeted:
            self._greeted = True
            self._greet(message)
        self._frames.sent(message)

    def _greet(self, challenge: bytes) -> None:
        message = _decoder.decode(challenge)
        assert isinstance(message, Challenge)
        key, facts = self._hello
        signature = base64.b64encode(key.sign(signed_hello(message.nonce, self.instance_id))).decode()
        hello = Hello(instance_id=self.instance_id, signature=signature, facts=facts)
        self.say(_encoder.encode(hello))

    async def receive(self) -> WSMessage:
        return await self._up.get()

    async def close(self) -> object:
        return None


class _Fleet:
    """A hub with connected hosts."""

    def __init__(self, context: Context, sockets: list[_Socket], frames: _Frames) -> None:
        self.context = context
        self.sockets = sockets
        self.frames = frames
        self._numbers = itertools.count()

    async def assign(self) -> list[TaskId]:
        """Put tasks on each host, a transaction for each host, and wait until all are told; return them by host."""
        made: list[TaskId] = []
        self.frames.expect(Assignments, len(self.sockets))
        for socket in self.sockets:
            tasks = [a_task(f"{next(self._numbers):032x}", socket.instance_id) for _ in range(_TASKS_OF_A_HOST)]
            put(self.context, *tasks)
            made += [task.id for task in tasks]
        await self.frames.wait()
        return made

    async def report(self, frames: list[list[bytes]]) -> None:
        """Send each host's frames and a heartbeat, with which an ack may travel; wait until all are acknowledged."""
        self.frames.expect(ReportsAck, len(self.sockets))
        for socket, own in zip(self.sockets, frames, strict=True):
            for frame in own:
                socket.say(frame)
            socket.say(_HEARTBEAT)
        await self.frames.wait()


@asynccontextmanager
async def _fleet() -> AsyncIterator[_Fleet]:
    context = a_context()
    hub = FleetHub(context, heartbeat_s=3600.0)
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    hosts = [an_instance(f"{number:032x}", cpu=10**6, memory=10**7, public_key=public) for number in range(_HOSTS)]
    put(context, *hosts)
    frames = _Frames()
    frames.expect(Assignments, len(hosts))
    sockets = [_Socket(host.id, key, host.facts, frames) for host in hosts]
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(hub.run())]
        await asyncio.sleep(0)
        for socket in sockets:
            wire = SessionWire(socket, peer="10.0.0.1", abort=lambda: None)
            running.append(group.create_task(hub.serve(wire)))
        await frames.wait()
        try:
            yield _Fleet(context, sockets, frames)
        finally:
            for each in running:
                each.cancel()


@asynccontextmanager
async def _assign() -> AsyncIterator[Round]:
    async with _fleet() as fleet:

        async def once() -> None:
            await fleet.assign()

        yield once


ASSIGN = Path("commit a task until its host's frame is sent", _HOSTS * _TASKS_OF_A_HOST, _assign)


#: As many as will be asked for, at most: a task begins to run once.
_ROUNDS = 10


def _running(task_id: TaskId) -> TaskReport:
    story = tuple(
        (1, StoryLine(at=1.0, event=event, message="It is.", actor="AGENT")) for event in ("created", "started")
    )
    container = ContainerReport(name="main", status=ContainerStatus.RUNNING, runtime_id="a" * 64, started_at=1.0)
    return TaskReport(
        task_id=task_id, seq=1, status=TaskStatus.RUNNING, containers=(container,), started_at=1.0, story=story
    )


def _frames(tasks: list[TaskId]) -> list[list[bytes]]:
    """Return, for each host, the frames with which it reports that its tasks run."""
    hosts = range(0, len(tasks), _TASKS_OF_A_HOST)
    return [list(encode_reports(map(_running, tasks[host : host + _TASKS_OF_A_HOST]))) for host in hosts]


@asynccontextmanager
async def _report() -> AsyncIterator[Round]:
    async with _fleet() as fleet:
        rounds = [_frames(await fleet.assign()) for _ in range(_ROUNDS)]

        async def once() -> None:
            await fleet.report(rounds.pop())

        yield once


REPORT = Path("a task's report until its ack is sent", _HOSTS * _TASKS_OF_A_HOST, _report)
