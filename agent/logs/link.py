"""One connection over which output is shipped: channels on it, what is under way, and what has been kept."""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from typing import Final, NoReturn

import aiohttp
import msgspec
from aiohttp import WSMsgType

from agent.greeting import greet
from agent.identity import Identity
from agent.logs.batches import BATCH_BYTES, Frame
from agent.logs.pulse import Pulse
from homeport.errors import ProtocolError
from homeport.ids import TaskId
from homeport.protocol import (
    Goodbye,
    Hello,
    HostFacts,
    LogAck,
    LogOpen,
    LogOpened,
    LogRefused,
    LogsDown,
    Welcome,
)

__all__ = ["ChannelRefused", "LinkEnded", "LinkLost", "LogChannel", "LogLink"]

#: Bytes under way that aren't acknowledged, as JSON: over all channels, and over one.
_MAX_UNDER_WAY: Final = 16 * BATCH_BYTES
_MAX_OF_ONE: Final = 4 * BATCH_BYTES
#: Containers whose output is read at the same time: bounds the texts that are in memory.
_READERS: Final = 4

_encoder: Final = msgspec.json.Encoder()
_decoder: Final[msgspec.json.Decoder[LogsDown]] = msgspec.json.Decoder(LogsDown)


class LinkLost(ConnectionError):
    """The connection broke; the text says how."""


class LinkEnded(Exception):
    """The control plane has ended the connection; `goodbye` says why."""

    def __init__(self, goodbye: Goodbye) -> None:
        super().__init__(goodbye.reason)
        self.goodbye = goodbye


class ChannelRefused(Exception):
    """The control plane takes nothing more over a channel, for `retry_after_s` or (`final`) ever."""

    def __init__(self, message: LogRefused) -> None:
        super().__init__(message.reason)
        self.retry_after_s = message.retry_after_s
        self.final = message.final


class LogLink:
    """An open WebSocket: `greet`, then `read` beside whoever uses channels. `sent` and `kept` hear of each frame."""

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        identity: Identity,
        *,
        sent: Callable[[Frame], None] = lambda _: None,
        kept: Callable[[Frame], None] = lambda _: None,
    ) -> None:
        self._socket = socket
        self._identity = identity
        self._sent = sent
        self._kept = kept
        self._numbers = itertools.count(1)
        self._channels: dict[int, LogChannel] = {}
        self._under_way = 0
        self._room = asyncio.Event()
        #: At which it is looked for output.
        self.pulse = Pulse()
        #: To be held while output is read and sent.
        self.turn = asyncio.Semaphore(_READERS)

    async def greet(self, facts: HostFacts) -> Welcome:
        """Prove the host's key. Raises LinkEnded if refused, LinkLost, ProtocolError."""
        return await greet(self._receive, self._send_hello, self._identity, facts)

    async def read(self) -> NoReturn:
        """Hand out what the control plane says, until the link ends: LinkEnded, LinkLost, ProtocolError."""
        while True:
            match message := await self._receive():
                case LogOpened() | LogRefused():
                    if (channel := self._channels.get(message.channel)) is not None:
                        channel.answered(message)
                case LogAck():
                    for number, upto in message.kept.items():
                        if (channel := self._channels.get(number)) is not None:
                            channel.acknowledged(upto)
                case _:
                    raise ProtocolError(f"unexpected {type(message).__name__} on a log link")

    def channel(self) -> "LogChannel":
        """Return a new channel, to be closed."""
        number = next(self._numbers)
        channel = self._channels[number] = LogChannel(self, number)
        return channel

    def forget(self, number: int, under_way: int) -> None:
        """A channel is closed, with so many bytes under way."""
        del self._channels[number]
        self.released(under_way)

    def released(self, size: int) -> None:
        """So many bytes are no longer under way."""
        self._under_way -= size
        self._room.set()

    async def room(self) -> None:
        """Wait until more may be sent."""
        while self._under_way >= _MAX_UNDER_WAY:
            self._room.clear()
            await self._room.wait()

    def arrived(self, frame: Frame) -> None:
        """A frame is kept."""
        self._kept(frame)

    async def send_frame(self, frame: Frame) -> None:
        """Send a batch. Raises LinkLost."""
        self._under_way += frame.size
        await self._send(frame.data, WSMsgType.BINARY)
        self._sent(frame)

    async def send_open(self, message: LogOpen) -> None:
        """Ask for a channel. Raises LinkLost."""
        await self._send(_encoder.encode(message), WSMsgType.TEXT)

    async def _send_hello(self, message: Hello) -> None:
        await self._send(_encoder.encode(message), WSMsgType.TEXT)

    async def _send(self, data: bytes, kind: WSMsgType) -> None:
        try:
            await self._socket.send_frame(data, kind)
        except (aiohttp.ClientError, OSError) as error:
            raise LinkLost(f"connection failed: {error}") from error

    async def _receive(self) -> LogsDown:
        frame = await self._socket.receive()
        if frame.type is WSMsgType.ERROR:
            raise LinkLost(f"connection failed: {frame.data}")
        if frame.type is not WSMsgType.TEXT:
            raise LinkLost("the control plane closed the connection")
        try:
            message = _decoder.decode(frame.data)
        except msgspec.MsgspecError as error:
            raise ProtocolError(f"not a message of the log protocol: {error}") from error
        if isinstance(message, Goodbye):
            raise LinkEnded(message)
        return message


class LogChannel:
    """One container's output on one link: frames go out, and are remembered (without what is in them) until kept."""

    def __init__(self, link: LogLink, number: int) -> None:
        self.number = number
        self._link = link
        self._opened: LogOpened | None = None
        self._refused: LogRefused | None = None
        self._under_way: deque[Frame] = deque()
        self._size = 0
        self._news = asyncio.Event()
        #: Whether anything that was sent over it is kept.
        self.kept = False

    async def open(self, task_id: TaskId, container: str, runtime_id: str) -> LogOpened:
        """Open it for a container's output. Raises ChannelRefused, LinkLost."""
        message = LogOpen(channel=self.number, task_id=task_id, container=container, runtime_id=runtime_id)
        await self._link.send_open(message)
        while self._opened is None:
            await self._next_news()
        return self._opened

    async def room(self) -> None:
        """Wait until there is room for more under way, of this one and of all. Raises ChannelRefused."""
        while self._size >= _MAX_OF_ONE:
            await self._next_news()
        await self._link.room()
        self.check()

    async def send(self, frame: Frame) -> None:
        """Send a batch; whoever sends much waits for `room` before. Raises ChannelRefused, LinkLost."""
        self.check()
        self._under_way.append(frame._replace(data=b""))
        self._size += frame.size
        await self._link.send_frame(frame)

    async def drained(self) -> None:
        """Wait until all that was sent is kept. Raises ChannelRefused."""
        while self._under_way:
            await self._next_news()

    def check(self) -> None:
        """Raise ChannelRefused if it was."""
        if self._refused is not None:
            raise ChannelRefused(self._refused)

    @property
    def oldest(self) -> int | None:
        """The time of the oldest event under way, epoch milliseconds; None if there is none."""
        return self._under_way[0].oldest if self._under_way else None

    def close(self) -> None:
        """Let go of it; nothing is told to anyone."""
        self._link.forget(self.number, self._size)

    # ------------------------------------------------------------ the link's side

    def answered(self, message: LogOpened | LogRefused) -> None:
        """The control plane has opened it, or takes no more."""
        if isinstance(message, LogOpened):
            self._opened = message
        else:
            self._refused = message
        self._news.set()

    def acknowledged(self, upto: int) -> None:
        """What is numbered below `upto` is kept."""
        while self._under_way and self._under_way[0].next <= upto:
            frame = self._under_way.popleft()
            self.kept = True
            self._size -= frame.size
            self._link.released(frame.size)
            self._link.arrived(frame)
        self._news.set()

    async def _next_news(self) -> None:
        self.check()
        self._news.clear()
        await self._news.wait()
        self.check()
