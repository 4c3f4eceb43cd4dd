"""The network between hosts and the control plane: connections as TCP makes them, and what happens to them.

On one connection frames arrive in order, or the connection breaks and the last of them are lost; TCP lets nothing else
happen. What can be doubled or out of order is what goes over several connections: a frame of an old one behind the
first of a new one, a request that was given up and is carried out later. Only sets of assignments may be lost, doubled
or swapped within a connection, too (`Way.spoiling`), since the protocol says that it stands that (invariant 5).
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import WSMessage, WSMsgType

from tests.simulation.loop import PROCESS, VirtualLoop
from tests.simulation.process import Process

__all__ = ["Link", "Network", "Socket", "Way"]

#: What may be under way, in bytes, before a sender has to wait.
_WINDOW_BYTES: Final = 65536

#: Timers of the same moment have no order.
_BEHIND_S: Final = 1e-6

_CLOSED: Final = WSMessage(WSMsgType.CLOSED, None, None)
_SETS: Final = b'{"type":"Assignments"'

#: What serves a connection: its socket and the name of the host at the other end.
Listener = Callable[["Socket", str], Coroutine[None, None, None]]


class Way:
    """One direction between two machines."""

    def __init__(self, loop: VirtualLoop, chance: random.Random, latency_s: tuple[float, float]) -> None:
        self._loop = loop
        self._chance = chance
        self._latency_s = latency_s
        #: Added to the latency.
        self.delay_s = 0.0
        self._cut = False
        self._held: deque[Callable[[], None]] = deque()
        #: Told of each frame that is sent.
        self.watch: Callable[[bytes], None] = lambda _: None
        #: What is to happen to the next sets of assignments: "lost", "doubled", or "swapped" with what follows.
        self.spoiling: deque[str] = deque()

    def cut(self) -> None:
        """Let nothing arrive; what is sent is held back, as TCP does it, until `mend`."""
        self._cut = True

    def mend(self) -> None:
        """Let things arrive again, in the order in which they were sent."""
        self._cut = False
        while self._held:
            self._held.popleft()()

    def carry(self, deliver: Callable[[], None], *, not_before: float = 0.0) -> float:
        """Call `deliver` when it has arrived, behind what arrives at a moment; return when, if all goes well."""
        at = max(not_before + _BEHIND_S, self._loop.now + self._chance.uniform(*self._latency_s) + self.delay_s)

        def arrive() -> None:
            if self._cut or self._held:
                self._held.append(deliver)
            else:
                deliver()

        self._loop.after(at - self._loop.now, arrive, None)
        return at

    def spoilt(self) -> str:
        """Say what happens to a set of assignments: "" for nothing."""
        return self.spoiling.popleft() if self.spoiling else ""


class Link:
    """Both ways between a host and the control plane."""

    def __init__(self, loop: VirtualLoop, chance: random.Random, latency_s: tuple[float, float]) -> None:
        self.up = Way(loop, chance, latency_s)
        self.down = Way(loop, chance, latency_s)


class Socket:
    """One end of a connection, as a WebSocket. `process`: whose it is."""

    def __init__(self, process: Process, way: Way) -> None:
        self.process = process
        self.peer: Socket | None = None
        self._way = way
        self._inbox: deque[WSMessage] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._under_way_bytes = 0
        self._last_at = 0.0
        self._swapped: bytes | None = None
        self.closed = False

    async def send_frame(self, message: bytes, opcode: WSMsgType) -> None:
        """Send a frame; waits while much is under way. Raises ConnectionResetError once closed."""
        while not self.closed and self._under_way_bytes > _WINDOW_BYTES:
            self._room.clear()
            await self._room.wait()
        if self.closed:
            raise ConnectionResetError("Cannot write to closing transport")
        self._way.watch(message)
        for frame in self._spoil(message):
            self._under_way_bytes += len(frame)
            self._carry(WSMessage(opcode, frame.decode(), None))

    def _spoil(self, message: bytes) -> list[bytes]:
        """Return the frames that arrive for one that is sent."""
        swapped, self._swapped = self._swapped, None
        frames = [message] if swapped is None else [message, swapped]
        if message.startswith(_SETS):
            match self._way.spoilt():
                case "lost":
                    frames = frames[1:]
                case "doubled":
                    frames = [message, *frames]
                case "swapped":
                    self._swapped, frames = message, frames[1:]
        return frames

    def _carry(self, message: WSMessage) -> None:
        peer = self.peer
        assert peer is not None
        self._last_at = self._way.carry(lambda: peer.arrive(message), not_before=self._last_at)

    def arrive(self, message: WSMessage) -> None:
        """Something has come from the other end."""
        if not self.closed:
            self._inbox.append(message)
            self._arrived.set()

    async def receive(self) -> WSMessage:
        """Wait for a frame; CLOSED at the end, for ever."""
        while not self._inbox:
            if self.closed:
                return _CLOSED
            self._arrived.clear()
            await self._arrived.wait()
        message = self._inbox.popleft()
        if message is _CLOSED:
            self._end()
        elif self.peer is not None:
            self.peer.taken(len(message.data))
        return message

    def taken(self, size: int) -> None:
        """The other end has read so much."""
        self._under_way_bytes -= size
        self._room.set()

    async def close(self) -> None:
        """Close; the other end learns of it behind what was sent."""
        self.abort()

    def abort(self) -> None:
        """Close without a word; the other end learns of it behind what was sent, since a kernel still sends that."""
        if not self.closed:
            self._carry(_CLOSED)
            self._end()

    def vanish(self) -> None:
        """Break off: what is under way is lost, and both ends learn of it now."""
        for end in (self, self.peer):
            if end is not None and not end.closed:
                end._inbox.clear()
                end._inbox.append(_CLOSED)
                end._arrived.set()

    def _end(self) -> None:
        self.closed = True
        self._arrived.set()
        self._room.set()


class Network:
    """All links and connections. The control plane listens, hosts and clients connect.

    `latency_s`: bounds of what one way takes.
    """

    def __init__(self, loop: VirtualLoop, chance: random.Random, latency_s: tuple[float, float]) -> None:
        self._loop = loop
        self._chance = chance
        self._latency_s = latency_s
        self.links: dict[str, Link] = {}
        self._listener: tuple[Process, Listener] | None = None
        #: Ends of connections that may be open, and who they are to.
        self._sockets: dict[Socket, str] = {}

    def link(self, host: str) -> Link:
        """Return the link of a machine."""
        if host not in self.links:
            self.links[host] = Link(self._loop, self._chance, self._latency_s)
        return self.links[host]

    def listen(self, process: Process, listener: Listener) -> None:
        """Take connections until the process is over."""
        self._listener = process, listener

    @asynccontextmanager
    async def connect(self, host: str) -> AsyncIterator[Socket]:
        """Connect the current process with the control plane. ConnectionRefusedError if none listens."""
        process = PROCESS.get()
        assert process is not None
        link = self.link(host)
        await self.travel(link.up)
        listening = self._listener
        if listening is None or not listening[0].alive:
            await self.travel(link.down)
            raise ConnectionRefusedError("connection refused")
        server, listener = listening
        here, there = Socket(process, link.up), Socket(server, link.down)
        here.peer, there.peer = there, here
        self._sockets[here] = self._sockets[there] = host
        server.spawn(listener(there, host), f"session of {host}")
        try:
            await self.travel(link.down)
            yield here
        finally:
            here.abort()
            self._forget_closed()

    async def travel(self, way: Way) -> None:
        """Wait as long as a packet needs on a way."""
        arrived = asyncio.Event()
        way.carry(arrived.set)
        await arrived.wait()

    def drop(self, host: str) -> None:
        """Break the connections of a machine off."""
        for socket in [socket for socket, of in self._sockets.items() if of == host]:
            socket.vanish()

    def process_died(self, process: Process) -> None:
        """Close what a process leaves open, as its kernel does."""
        for socket in [socket for socket in self._sockets if socket.process is process]:
            socket.abort()
        self._forget_closed()

    def _forget_closed(self) -> None:
        self._sockets = {socket: host for socket, host in self._sockets.items() if not socket.closed}
