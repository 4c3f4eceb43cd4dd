"""The agent protocol on an aiohttp WebSocket: typed frames in and out, bounded in size."""

import contextlib
from typing import Final

import msgspec
from aiohttp import WSMsgType, web

from homeport.errors import ProtocolError
from homeport.protocol import AgentMessage, ControlMessage, Goodbye

__all__ = ["MAX_FRAME_BYTES", "PeerGone", "Wire"]

#: The largest frame taken from an agent. Agents aim at a quarter of it (`agent.framing`).
MAX_FRAME_BYTES: Final = 1024 * 1024

_encoder: Final = msgspec.json.Encoder()
_decoder: Final[msgspec.json.Decoder[AgentMessage]] = msgspec.json.Decoder(AgentMessage)
_CLOSING: Final = frozenset({WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED})


class PeerGone(Exception):
    """The connection has ended."""


class Wire:
    """One connection to an agent. Sends are whole frames, so several coroutines may send."""

    def __init__(self, request: web.BaseRequest, socket: web.WebSocketResponse) -> None:
        #: The peer's IP address, "" if unknown.
        self.peer = request.remote or ""
        self._request = request
        self._socket = socket

    async def send(self, message: ControlMessage) -> None:
        """Send a frame; waits while the peer does not read. Raises PeerGone."""
        try:
            await self._socket.send_frame(_encoder.encode(message), WSMsgType.TEXT)
        except (ConnectionError, RuntimeError) as error:
            raise PeerGone(str(error)) from error

    async def receive(self) -> AgentMessage:
        """Wait for a frame. Raises PeerGone at the end, ProtocolError for what isn't a message of the protocol."""
        frame = await self._socket.receive()
        if frame.type is WSMsgType.TEXT:
            try:
                return _decoder.decode(frame.data)
            except msgspec.MsgspecError as error:
                raise ProtocolError(f"not a message of the agent protocol: {error}") from error
        if frame.type in _CLOSING:
            raise PeerGone("closed by the peer")
        if frame.type is WSMsgType.ERROR:
            raise PeerGone(f"connection failed: {frame.data}")
        raise ProtocolError(f"only text frames are allowed, got {frame.type.name}")

    async def close(self, goodbye: Goodbye | None = None) -> None:
        """End the connection, with a reason if the peer can still take one. Never raises but on cancel."""
        if goodbye is not None:
            with contextlib.suppress(PeerGone):
                await self.send(goodbye)
        await self._socket.close()

    def abort(self) -> None:
        """Drop the connection without another word."""
        if self._request.transport is not None:
            self._request.transport.abort()
