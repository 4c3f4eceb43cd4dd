"""The control plane's end of the log link, on a loopback port, over what it keeps in memory: for tests of the agent.

    async with serve_intake() as intake: ...
    intake.kept["t1", "web"].events       # (milliseconds, kind, text) in the order of their numbers

It checks what the real one relies on: that events of a stream are numbered without holes.
"""

import asyncio
import base64
import random
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
from aiohttp import WSMsgType, web

from homeport.protocol import (
    LOG_BATCH_BYTES,
    PATH_LOGS,
    Challenge,
    Goodbye,
    Hello,
    LogAck,
    LogBatch,
    LogKind,
    LogOpen,
    LogOpened,
    LogRefused,
    LogsDown,
    LogsUp,
    Welcome,
)

__all__ = ["Kept", "LogIntake", "serve_intake"]

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[LogsUp] = msgspec.json.Decoder(LogsUp)


@dataclass
class Kept:
    """One stream."""

    events: list[tuple[int, int, str]] = field(default_factory=list)
    position: str = ""
    ended: bool = False
    batches: int = 0

    @property
    def lines(self) -> list[str]:
        return [text for _, kind, text in self.events if kind != LogKind.GAP]

    @property
    def gaps(self) -> list[str]:
        return [text for _, kind, text in self.events if kind == LogKind.GAP]


@dataclass
class LogIntake:
    """What is kept, and how it behaves."""

    url: str = ""
    kept: dict[tuple[str, str], Kept] = field(default_factory=dict)
    opened: list[LogOpen] = field(default_factory=list)
    hellos: list[Hello] = field(default_factory=list)
    #: Answers every open and every batch of a container; None: as usual.
    refuse: Callable[[str], LogRefused | None] = lambda _: None
    #: Ends each connection after the greeting.
    goodbye: Goodbye | None = None
    #: Breaks the connection with this chance at each batch, before or after keeping it.
    break_chance: float = 0.0
    #: Keeps no batch, and says nothing, until set.
    going: asyncio.Event = field(default_factory=asyncio.Event)
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    #: Batches that wait for `going`.
    waiting: int = 0
    #: What an agent did that it mustn't.
    problems: list[str] = field(default_factory=list)
    connections: int = 0
    _sockets: dict[web.WebSocketResponse, asyncio.Transport] = field(default_factory=dict)
    _channels: dict[web.WebSocketResponse, dict[int, LogOpen]] = field(default_factory=dict)

    def of(self, task_id: str, container: str = "web") -> Kept:
        return self.kept.setdefault((task_id, container), Kept())

    def cut(self) -> None:
        """Break every connection without a word."""
        for socket in tuple(self._sockets):
            self._abort(socket)

    @property
    def connected(self) -> bool:
        return bool(self._sockets)

    # ------------------------------------------------------------ the wire

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=LOG_BATCH_BYTES + 1024, compress=False, timeout=0.2)
        await socket.prepare(request)
        await self._send(socket, Challenge(nonce=base64.b64encode(b"nonce").decode()))
        hello = await self._receive(socket)
        assert isinstance(hello, Hello)
        self.hellos.append(hello)
        if self.goodbye is not None:
            await self._send(socket, self.goodbye)
            return socket
        await self._send(socket, Welcome(session_id="s", heartbeat_s=5.0))
        self.connections += 1
        assert isinstance(request.transport, asyncio.Transport)
        self._sockets[socket] = request.transport
        self._channels[socket] = {}
        try:
            while (message := await self._receive(socket)) is not None:
                await self._take(socket, message)
        except ConnectionError:
            pass
        finally:
            self._sockets.pop(socket, None)
        return socket

    async def _take(self, socket: web.WebSocketResponse, message: LogsUp) -> None:
        channels = self._channels[socket]
        if isinstance(message, LogOpen):
            self.opened.append(message)
            if (refusal := self.refuse(message.container)) is not None:
                await self._send(socket, msgspec.structs.replace(refusal, channel=message.channel))
                return
            channels[message.channel] = message
            kept = self.of(message.task_id, message.container)
            await self._send(
                socket, LogOpened(channel=message.channel, next=len(kept.events) + 1, position=kept.position)
            )
            return
        assert isinstance(message, LogBatch)
        self.waiting += 1
        await self.going.wait()
        self.waiting -= 1
        if self.rng.random() < self.break_chance / 2:
            self._abort(socket)
            raise ConnectionError
        opened = channels.get(message.channel)
        if opened is None:
            return
        if (refusal := self.refuse(opened.container)) is not None:
            del channels[message.channel]
            await self._send(socket, msgspec.structs.replace(refusal, channel=message.channel))
            return
        upto = self._keep(opened, message)
        if self.rng.random() < self.break_chance / 2:
            self._abort(socket)
            raise ConnectionError
        await self._send(socket, LogAck(kept={message.channel: upto}))

    def _keep(self, opened: LogOpen, batch: LogBatch) -> int:
        kept = self.of(opened.task_id, opened.container)
        following = len(kept.events) + 1
        if batch.first > following:
            self.problems.append(f"{opened.container}: events up to {batch.first} are missing behind {following}")
        kept.batches += 1
        kept.events += batch.events[max(following - batch.first, 0) :]
        kept.position = batch.position
        kept.ended = kept.ended or batch.end
        return batch.first + len(batch.events)

    def _abort(self, socket: web.WebSocketResponse) -> None:
        if (transport := self._sockets.pop(socket, None)) is not None:
            transport.abort()

    async def _send(self, socket: web.WebSocketResponse, message: LogsDown) -> None:
        await socket.send_frame(_encoder.encode(message), WSMsgType.TEXT)

    async def _receive(self, socket: web.WebSocketResponse) -> LogsUp | None:
        frame = await socket.receive()
        if frame.type is WSMsgType.BINARY:
            body = zlib.decompress(frame.data)
            if len(body) > LOG_BATCH_BYTES:
                self.problems.append(f"a batch of {len(body)} bytes")
            return _decoder.decode(body)
        return _decoder.decode(frame.data) if frame.type is WSMsgType.TEXT else None


@asynccontextmanager
async def serve_intake(**how: object) -> AsyncIterator[LogIntake]:
    """Serve on a loopback port."""
    intake = LogIntake(**how)  # type: ignore[arg-type]
    intake.going.set()
    app = web.Application()
    app.router.add_get(PATH_LOGS, intake.serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        intake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield intake
    finally:
        intake.cut()
        await runner.cleanup()
