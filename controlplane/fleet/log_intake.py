"""Where agents' log links end: what hosts ship of their containers' output is written into the log store.

    GET PATH_LOGS (WebSocket)    proof as for a session; then LogOpen, LogBatch up, LogOpened, LogAck, LogRefused down

What always holds:
 - a host writes only to the streams of its own tasks, and which those are is decided here, from the task's record;
 - an ack is sent once its events are durable; what is repeated is passed over by the store;
 - a log store that is full or away refuses single channels for a while; it never ends a session or stops a task;
 - batches of different channels are written at the same time, those of one channel one after the other.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

import structlog
from aiohttp import web

from controlplane.context import Context
from controlplane.fleet.handshake import SessionRefused, greet
from controlplane.fleet.log_channels import Channel, ChannelRefused, Deleted, find_channel, write
from controlplane.fleet.wire import MAX_FRAME_BYTES, LogsWire, PeerGone
from homeport.errors import JournalError, ProtocolError
from homeport.ids import InstanceId, TaskId, new_hex_id
from homeport.protocol import (
    PATH_LOGS,
    Goodbye,
    Hello,
    LogAck,
    LogBatch,
    LogOpen,
    LogOpened,
    LogRefused,
    LogsUp,
    Welcome,
)
from homeport.story import StoryLine

__all__ = ["LogIntake"]

_log: Final = structlog.get_logger(__name__)

#: Messages read ahead of the store, per host. An agent keeps as much under way; a batch may take some 15 MiB unpacked.
MAX_WAITING: Final = 16
#: Containers whose output one host may ship at a time.
MAX_CHANNELS: Final = 10_000
#: Seconds after which a peer that says nothing is asked whether it is still there.
_PING_S: Final = 30.0
#: Peers that are connected and haven't proved themselves.
_MAX_STRANGERS: Final = 512
#: Refusals that were told in a task's story; beyond, the oldest may be told again.
_MAX_TOLD: Final = 10_000


class LogIntake:
    """Serves all agents' log links, while `run()` runs. Add `routes()` to the server."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._links: dict[InstanceId, LogLink] = {}
        self._strangers = 0
        self._running = False
        self._told: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._deleted = Deleted()

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the route. It isn't signed: a host proves itself by its key."""
        return [web.get(PATH_LOGS, self._serve)]

    @property
    def link_count(self) -> int:
        """How many hosts have a log link."""
        return len(self._links)

    async def run(self) -> None:
        """Serve until cancelled; then end all links."""
        self._running = True
        try:
            await asyncio.Event().wait()
        finally:
            self._running = False
            for link in self._links.values():
                link.end(Goodbye(reason="the control plane is stopping"))

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if not self._running or self._strangers >= _MAX_STRANGERS:
            raise web.HTTPServiceUnavailable
        socket = web.WebSocketResponse(max_msg_size=MAX_FRAME_BYTES, compress=False, timeout=2.0, heartbeat=_PING_S)
        await socket.prepare(request)
        wire = LogsWire.of(request, socket)
        hello = await self._admit(wire)
        if hello is not None:
            await self._hold(LogLink(self._context, hello.instance_id, wire, self._tell, self._deleted))
        return socket

    async def _admit(self, wire: LogsWire) -> Hello | None:
        """Let the peer prove itself. None, with the connection closed, if it doesn't."""
        self._strangers += 1
        try:
            return await greet(self._context, wire)
        except SessionRefused as refused:
            await wire.close(refused.goodbye)
        except ProtocolError as error:
            await wire.close(Goodbye(reason=f"protocol error: {error}", retry_after_s=60))
        except (PeerGone, TimeoutError, JournalError):
            await wire.close()
        finally:
            self._strangers -= 1
        return None

    async def _hold(self, link: "LogLink") -> None:
        before = self._links.get(link.instance_id)
        if before is not None:
            before.end(Goodbye(reason="another log link of this host has taken over"))
        self._links[link.instance_id] = link
        try:
            await link.run()
        finally:
            if self._links.get(link.instance_id) is link:
                del self._links[link.instance_id]

    def _tell(self, channel: Channel, reason: str) -> None:
        """Say in the task's story why a container's output isn't kept, once per reason, and when it is again."""
        name = (channel.task_id, channel.container)
        if self._told.get(name, "") == reason:
            return
        if reason:
            self._told[name] = reason
            if len(self._told) > _MAX_TOLD:
                self._told.popitem(last=False)
            event, message = "logs-held", f"The container's output stays on its host for now: {reason}"
        else:
            del self._told[name]
            event, message = "logs-kept", f"The container's output is kept again, in log group {channel.group}"
        line = StoryLine(at=self._context.clock.now(), event=event, message=message, actor="fleet", container=name[1])
        with self._context.state.transaction() as transaction:
            transaction.tell(channel.task_id, line)


#: Takes why a channel's output isn't kept; "" if it is.
Tell = Callable[[Channel, str], None]


class LogLink:
    """One host's link, whose key is proved. `run` is its life."""

    def __init__(self, context: Context, instance_id: InstanceId, wire: LogsWire, tell: Tell, deleted: Deleted) -> None:
        self.instance_id = instance_id
        self._context = context
        self._wire = wire
        self._tell = tell
        self._deleted = deleted
        self._channels: dict[int, Channel] = {}
        self._numbers: dict[tuple[TaskId, str], int] = {}
        self._waiting: asyncio.Queue[LogOpen | LogBatch] = asyncio.Queue(MAX_WAITING)
        self._scope: asyncio.Timeout | None = None
        self._goodbye: Goodbye | None = None

    async def run(self) -> None:
        """Serve until either side ends the link; closes the connection, on cancel too."""
        try:
            async with asyncio.timeout(None) as self._scope:
                if self._goodbye is None:
                    await self._serve()
        except TimeoutError:
            pass  # `end` was called
        finally:
            self._scope = None
            await self._wire.close(self._goodbye)

    def end(self, goodbye: Goodbye) -> None:
        """End the link, saying why. Returns at once; `run` sees to it."""
        self._goodbye = self._goodbye or goodbye
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def _serve(self) -> None:
        try:
            await self._wire.send(Welcome(session_id=new_hex_id(self._context.random), heartbeat_s=_PING_S))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._work())
                await self._read()
        except* PeerGone:
            pass
        except* ProtocolError as errors:
            reason = f"protocol error: {_leaf(errors)}"
            self._goodbye = self._goodbye or Goodbye(reason=reason, retry_after_s=60)
            _log.warning("log link ended", instance=self.instance_id, reason=reason)

    async def _read(self) -> None:
        while True:
            message: LogsUp = await self._wire.receive()
            if not isinstance(message, LogOpen | LogBatch):
                raise ProtocolError(f"unexpected {type(message).__name__} on a log link")
            await self._waiting.put(message)

    async def _work(self) -> None:
        """Do what has been read: whatever waits at a time, channel by channel, all channels at once."""
        while True:
            work = [await self._waiting.get()]
            while not self._waiting.empty():
                work.append(self._waiting.get_nowait())
            by_channel: dict[int, list[LogOpen | LogBatch]] = {}
            for message in work:
                by_channel.setdefault(message.channel, []).append(message)
            kept: dict[int, int] = {}
            async with asyncio.TaskGroup() as group:
                for messages in by_channel.values():
                    group.create_task(self._do(messages, kept))
            if kept:
                await self._wire.send(LogAck(kept=kept))

    async def _do(self, messages: Iterable[LogOpen | LogBatch], kept: dict[int, int]) -> None:
        """Do what there is for one channel, in order; note in `kept` how far it has come."""
        for message in messages:
            try:
                if isinstance(message, LogOpen):
                    await self._open(message)
                elif (channel := self._channels.get(message.channel)) is not None:
                    kept[message.channel] = await write(self._context, channel, message, self._deleted)
                    self._tell(channel, "")
                    if message.end:
                        self._close(message.channel)
            except ChannelRefused as refused:
                self._close(message.channel)
                kept.pop(message.channel, None)
                if refused.channel is not None:
                    self._tell(refused.channel, refused.reason)
                await self._wire.send(
                    LogRefused(
                        channel=message.channel,
                        reason=refused.reason,
                        retry_after_s=refused.retry_after_s,
                        final=refused.final,
                    )
                )

    async def _open(self, message: LogOpen) -> None:
        # An agent that tries again has let go of the channel that it had.
        if (before := self._numbers.get((message.task_id, message.container))) is not None:
            self._close(before)
        if len(self._channels) >= MAX_CHANNELS:
            raise ProtocolError(f"more than {MAX_CHANNELS} log channels")
        channel = await find_channel(self._context, self.instance_id, message, self._deleted)
        self._channels[message.channel] = channel
        self._numbers[channel.task_id, channel.container] = message.channel
        await self._wire.send(LogOpened(channel=message.channel, next=channel.next, position=channel.position))

    def _close(self, number: int) -> None:
        channel = self._channels.pop(number, None)
        if channel is not None:
            self._numbers.pop((channel.task_id, channel.container), None)


def _leaf(error: BaseException) -> BaseException:
    """Return the first error within groups of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
