"""One session with the control plane, from the proof of the key to whatever ends it."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, NoReturn, Protocol

import msgspec
from aiohttp import WSMessage, WSMsgType

from agent.framing import encode_reports
from agent.greeting import greet
from agent.identity import Identity
from agent.logs.server import LogServer
from agent.workload import Workload
from homeport.errors import ProtocolError
from homeport.protocol import (
    AgentMessage,
    Assignments,
    CancelLogs,
    ControlMessage,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    HostUpdate,
    LogsRequest,
    MoreLogs,
    ReportsAck,
    Welcome,
)

__all__ = ["AgentSession", "SessionEnded", "SessionLost", "SessionSocket"]

#: Heartbeat periods without a word from the control plane after which the session is given up.
SILENT_PERIODS: Final = 3

_encoder: Final = msgspec.json.Encoder()
_decoder: Final[msgspec.json.Decoder[ControlMessage]] = msgspec.json.Decoder(ControlMessage)


class SessionSocket(Protocol):
    """What a session needs of a WebSocket: aiohttp's `ClientWebSocketResponse`, or the simulator's."""

    async def send_frame(self, message: bytes, opcode: WSMsgType) -> None:
        """Send one frame; waits while the control plane does not read. Raises ConnectionError once it is closed."""
        ...

    async def receive(self) -> WSMessage:
        """Wait for a frame."""
        ...


class SessionLost(ConnectionError):
    """The session broke off; the text says how."""


class SessionEnded(Exception):
    """The control plane has ended the session; `goodbye` says why."""

    def __init__(self, goodbye: Goodbye) -> None:
        super().__init__(goodbye.reason)
        self.goodbye = goodbye


class AgentSession:
    """A session over an open WebSocket: `greet`, then `serve`. `heard` is called for each frame that arrives."""

    def __init__(
        self,
        socket: SessionSocket,
        identity: Identity,
        workload: Workload,
        heard: Callable[[], None],
    ) -> None:
        self._socket = socket
        self._identity = identity
        self._workload = workload
        self._heard = heard
        self._period_s = 5.0
        self._heartbeat_now = asyncio.Event()
        #: Held while reports that the workload has handed out are being sent.
        self._reporting = asyncio.Lock()
        self._caught_up = False
        #: Stamps of heartbeats that aren't acknowledged yet; acks come in the order of heartbeats.
        self._stamps: deque[float] = deque()

    async def greet(self) -> Welcome:
        """Prove the host's key. Raises SessionEnded if refused, SessionLost, ProtocolError."""
        stamp = 0.0

        def challenged() -> None:
            nonlocal stamp
            stamp = self._workload.contact_begins()

        welcome = await greet(self._receive, self._send, self._identity, self._workload.facts(), challenged=challenged)
        self._workload.contact_made(stamp)
        self._period_s = welcome.heartbeat_s
        return welcome

    async def serve(self) -> NoReturn:
        """Serve until the session ends, which raises, in a group: SessionEnded, SessionLost, ProtocolError.

        Whatever the workload raises comes through too. On cancel everything of the session is cancelled.
        """
        self._workload.session_began()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send_heartbeats())
            group.create_task(self._send_reports())
            group.create_task(self._tell_when_caught_up())
            group.create_task(self._send_facts())
            await self._read(LogServer(self._workload, self._send, group))
        raise AssertionError("_read returned")

    async def _read(self, logs: LogServer) -> NoReturn:
        while True:
            message = await self._receive(SILENT_PERIODS * self._period_s)
            match message:
                case Assignments():
                    await self._workload.assign(message)
                    if message.base is None or self._workload.revision == -1:
                        # Confirms a complete set; so that a -1 from here on can only mean that it was lost.
                        self._heartbeat_now.set()
                case ReportsAck():
                    await self._workload.acknowledged(message.seqs)
                case HeartbeatAck():
                    if self._stamps:
                        self._workload.contact_made(self._stamps.popleft())
                    self._period_s = message.next_s
                case LogsRequest():
                    logs.start(message)
                case MoreLogs():
                    logs.more(message)
                case CancelLogs():
                    logs.cancel(message)
                case _:
                    raise ProtocolError(f"unexpected {type(message).__name__} within a session")

    async def _send_heartbeats(self) -> NoReturn:
        """Send a heartbeat at once, then at the dictated period, and at once when there is something for one to say."""
        while True:
            self._heartbeat_now.clear()
            self._stamps.append(self._workload.contact_begins())
            await self._send(
                Heartbeat(
                    revision=self._workload.revision,
                    conditions=self._workload.conditions(),
                    caught_up=self._caught_up,
                )
            )
            try:
                async with asyncio.timeout(min(self._period_s, self._workload.heartbeat_within_s)):
                    await self._heartbeat_now.wait()
            except TimeoutError:
                pass

    async def _send_reports(self) -> NoReturn:
        while True:
            reports = await self._workload.next_reports()
            async with self._reporting:
                for frame in encode_reports(reports):
                    await self._socket.send_frame(frame, WSMsgType.TEXT)

    async def _tell_when_caught_up(self) -> None:
        """Have a heartbeat say that all has been told, behind the frames that tell it."""
        await self._workload.caught_up()
        async with self._reporting:
            self._caught_up = True
        self._heartbeat_now.set()

    async def _send_facts(self) -> NoReturn:
        while True:
            await self._send(HostUpdate(facts=await self._workload.next_facts()))

    async def _send(self, message: AgentMessage) -> None:
        await self._socket.send_frame(_encoder.encode(message), WSMsgType.TEXT)

    async def _receive(self, timeout_s: float | None = None) -> ControlMessage:
        try:
            async with asyncio.timeout(timeout_s):
                frame = await self._socket.receive()
        except TimeoutError:
            raise SessionLost(f"nothing heard from the control plane for {timeout_s:.1f} s") from None
        if frame.type is WSMsgType.ERROR:
            raise SessionLost(f"connection failed: {frame.data}")
        if frame.type is not WSMsgType.TEXT:
            raise SessionLost("the control plane closed the connection")
        self._heard()
        try:
            message = _decoder.decode(frame.data)
        except msgspec.MsgspecError as error:
            raise ProtocolError(f"not a message of the agent protocol: {error}") from error
        if isinstance(message, Goodbye):
            raise SessionEnded(message)
        return message
