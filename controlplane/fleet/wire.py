"""The agent protocol on an aiohttp WebSocket: typed frames in and out, bounded in size."""

import contextlib
import zlib
from collections.abc import Callable
from typing import Final, Generic, Protocol, Self, TypeVar

import msgspec
from aiohttp import WSMessage, WSMsgType, web

from homeport.errors import ProtocolError
from homeport.protocol import LOG_BATCH_BYTES, AgentMessage, ControlMessage, Goodbye, LogBatch, LogsDown, LogsUp

__all__ = ["MAX_FRAME_BYTES", "FrameSocket", "LogsWire", "PeerGone", "SessionWire", "Wire"]

Up = TypeVar("Up")

#: The largest frame taken from an agent. Agents aim at a quarter of it (`agent.framing`).
MAX_FRAME_BYTES: Final = 1024 * 1024

_encoder: Final = msgspec.json.Encoder()
_messages: Final[msgspec.json.Decoder[AgentMessage]] = msgspec.json.Decoder(AgentMessage)
_logs: Final[msgspec.json.Decoder[LogsUp]] = msgspec.json.Decoder(LogsUp)
_batches: Final = msgspec.json.Decoder(LogBatch)
_CLOSING: Final = frozenset({WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED})


class PeerGone(Exception):
    """The connection has ended."""


class FrameSocket(Protocol):
    """What a Wire needs of a WebSocket: aiohttp's `web.WebSocketResponse`, or the simulator's."""

    async def send_frame(self, message: bytes, opcode: WSMsgType) -> None:
        """Send one frame; waits while the peer does not read. ConnectionError or RuntimeError once it is closed."""
        ...

    async def receive(self) -> WSMessage:
        """Wait for a frame."""
        ...

    async def close(self) -> object:
        """Close the connection, telling the peer."""
        ...


class Wire(Generic[Up]):
    """One connection to an agent. Sends are whole frames, so several coroutines may send."""

    def __init__(self, socket: FrameSocket, *, peer: str, abort: Callable[[], None]) -> None:
        """`peer`: its IP address, "" if unknown. `abort` drops the connection without another word."""
        self.peer = peer
        self.abort = abort
        self._socket = socket

    @classmethod
    def of(cls, request: web.BaseRequest, socket: web.WebSocketResponse) -> Self:
        """Return the wire of an HTTP request that has become a WebSocket."""

        def abort() -> None:
            if request.transport is not None:
                request.transport.abort()

        return cls(socket, peer=request.remote or "", abort=abort)

    async def send(self, message: ControlMessage | LogsDown) -> None:
        """Send a frame; waits while the peer does not read. Raises PeerGone."""
        try:
            await self._socket.send_frame(_encoder.encode(message), WSMsgType.TEXT)
        except (ConnectionError, RuntimeError) as error:
            raise PeerGone(str(error)) from error

    async def receive(self) -> Up:
        """Wait for a frame. Raises PeerGone at the end, ProtocolError for what isn't a message of the protocol."""
        frame = await self._socket.receive()
        if frame.type in _CLOSING:
            raise PeerGone("closed by the peer")
        if frame.type is WSMsgType.ERROR:
            raise PeerGone(f"connection failed: {frame.data}")
        try:
            return self._decode(frame)
        except msgspec.MsgspecError as error:
            raise ProtocolError(f"not a message of the agent protocol: {error}") from error

    def _decode(self, frame: WSMessage) -> Up:
        raise NotImplementedError

    async def close(self, goodbye: Goodbye | None = None) -> None:
        """End the connection, with a reason if the peer can still take one. Never raises but on cancel."""
        if goodbye is not None:
            with contextlib.suppress(PeerGone):
                await self.send(goodbye)
        await self._socket.close()


class SessionWire(Wire[AgentMessage]):
    """The connection of a session: text frames."""

    def _decode(self, frame: WSMessage) -> AgentMessage:
        if frame.type is not WSMsgType.TEXT:
            raise ProtocolError(f"only text frames are allowed, got {frame.type.name}")
        return _messages.decode(frame.data)


class LogsWire(Wire[LogsUp]):
    """The connection for logs: batches in binary frames, compressed with zlib; the rest in text frames."""

    def _decode(self, frame: WSMessage) -> LogsUp:
        if frame.type is WSMsgType.TEXT:
            return _logs.decode(frame.data)
        if frame.type is not WSMsgType.BINARY:
            raise ProtocolError(f"only text and binary frames are allowed, got {frame.type.name}")
        return _batches.decode(_inflated(frame.data))


def _inflated(data: bytes) -> bytes:
    """Return what was compressed, however large it says it is, up to what a batch may be. Raises ProtocolError."""
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data, LOG_BATCH_BYTES)
    except zlib.error as error:
        raise ProtocolError(f"a batch of logs isn't compressed with zlib: {error}") from error
    if not inflater.eof:
        raise ProtocolError(f"a batch of logs is cut off, or larger than {LOG_BATCH_BYTES} bytes")
    return text
