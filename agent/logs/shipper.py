"""Ships what containers say to the control plane, for all tasks of this host, over a connection of its own.

What always holds:
 - the Engine's own bounded files are the spool; nothing is written twice, and containers never wait for the agent;
 - nothing that happens here ends or delays the session, other containers' output, or a task;
 - a container whose output isn't kept yet is held, within bounds; if it must go, a note of that is durable first.
"""

import asyncio
import itertools
import random as random_module
from collections.abc import Callable
from typing import Final

import aiohttp
import structlog

from agent.engine.api import Engine
from agent.identity import Identity, tls_context
from agent.logs.link import LinkEnded, LogLink
from agent.logs.metrics import LogMetrics
from agent.logs.shipping import ship, ship_note
from agent.logs.stream import LogStream
from agent.logs.unshipped import Unshipped, UnshippedNotes
from agent.task.model import TaskState
from agent.uplink import BACKOFF_CAP_S, CONNECT_TIMEOUT_S, LASTED_S, leaves, pause_s
from homeport.clock import Clock
from homeport.errors import ProtocolError
from homeport.ids import TaskId
from homeport.protocol import PATH_LOGS, Goodbye, HostFacts
from homeport.status import ContainerStatus

__all__ = ["LogShipper"]

_log: Final = structlog.get_logger(__name__)

#: Seconds after which a link over which nothing is to be shipped is closed.
_IDLE_S: Final = 10.0
#: Seconds after which a peer that says nothing is asked whether it is still there.
_PING_S: Final = 15.0
_MAX_FRAME_BYTES: Final = 1024 * 1024


class LogShipper:
    """Implements `agent.workload.Shipping`. `run` does the shipping; without it everything waits."""

    def __init__(
        self,
        identity: Identity,
        engine: Engine,
        notes: UnshippedNotes,
        *,
        facts: Callable[[], HostFacts],
        clock: Clock,
        random: random_module.Random,
        metrics: LogMetrics,
        backoff_cap_s: float = BACKOFF_CAP_S,
    ) -> None:
        self._identity = identity
        self._engine = engine
        self._notes = notes
        self._facts = facts
        self._clock = clock
        self._random = random
        self._metrics = metrics
        self._backoff_cap_s = backoff_cap_s
        self._tls = {server: tls_context(server, identity.ca_pem) for server in identity.servers}
        self._streams: dict[TaskId, dict[str, LogStream]] = {}
        #: Called when all output of a task is kept.
        self.on_shipped: Callable[[], None] = lambda: None
        self._news = asyncio.Event()
        self._attempts = 0
        self._failure = ""
        #: Since when there is no link, epoch seconds; None while there is one.
        self._parted_at: float | None = clock.now()
        metrics.watch_lag(self.lag_s)

    # ------------------------------------------------------------ the worker's side

    def look(self, state: TaskState) -> None:
        """Take note of a task as it is now."""
        for spec, container in state.pairs():
            if spec.shipping is None or container.runtime_id is None or not container.has_run:
                continue
            streams = self._streams.setdefault(state.task_id, {})
            stream = streams.get(spec.name)
            if stream is None:
                stream = LogStream(state.task_id, spec.name, container.runtime_id, spec.shipping)
                streams[spec.name] = stream
                self._news.set()
            stream.stopped = container.known is ContainerStatus.STOPPED

    def unshipped(self, task_id: TaskId) -> bool:
        """Tell whether there is output of this task that isn't kept yet."""
        return any(not stream.done for stream in self._of(task_id))

    async def give_up(self, task_id: TaskId, why: str) -> None:
        """A task's containers are about to be removed: note what isn't kept. Returns once that is durable."""
        now = self._clock.now()
        notes = [
            Unshipped(task_id=task_id, container=each.container, runtime_id=each.runtime_id, at=now, why=why)
            for each in self._of(task_id)
            if not each.done
        ]
        self.forget(task_id)
        if notes:
            await self._notes.add(notes)
            self._news.set()

    def forget(self, task_id: TaskId) -> None:
        """A task is no more; nobody is to be told of what isn't kept."""
        for stream in self._of(task_id):
            stream.done = True
        self._streams.pop(task_id, None)

    def streams(self) -> tuple[LogStream, ...]:
        """Return what is to be shipped yet."""
        return tuple(stream for task in self._streams.values() for stream in task.values() if not stream.done)

    def lag_s(self) -> float:
        """Return the age of the oldest output that isn't kept, as far as known; while there is no link, since then."""
        since = [each.behind_since or self._parted_at for each in self.streams()]
        return max((self._clock.now() - at for at in since if at is not None), default=0.0)

    def _of(self, task_id: TaskId) -> tuple[LogStream, ...]:
        return tuple(self._streams.get(task_id, {}).values())

    # ------------------------------------------------------------ the connection

    async def run(self) -> None:
        """Hold a link while there is anything to ship, for ever; returns once this host is told to stay away.

        Raises only CancelledError; on cancel the connection is closed.
        """
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as http:
            for server in itertools.cycle(self._identity.servers):
                await self._wanted()
                goodbye = await self._try(http, server)
                if goodbye is None:
                    continue
                if goodbye.final:
                    return
                await asyncio.sleep(pause_s(goodbye, self._attempts, self._backoff_cap_s, self._random))
                self._attempts += 1

    async def _wanted(self) -> None:
        while not self.streams() and not self._notes.notes:
            self._news.clear()
            await self._news.wait()

    async def _try(self, http: aiohttp.ClientSession, server: str) -> Goodbye | None:
        """Hold one link. Return how it ended; None if it was of no more use."""
        told: Goodbye | None = None
        failure = ""
        try:
            await self._hold(http, server)
            return None
        except* LinkEnded as ended:
            told = next(error.goodbye for error in leaves(ended) if isinstance(error, LinkEnded))
        except* TimeoutError:
            failure = f"no link within {CONNECT_TIMEOUT_S:.0f} s"
        except* (aiohttp.ClientError, OSError, ProtocolError) as failed:
            failure = str(next(leaves(failed))) or type(next(leaves(failed))).__name__
        except* Exception as failed:  # noqa: BLE001  # whatever it is, the host's tasks are worth more than their output
            failure = repr(next(leaves(failed)))
        finally:
            self._parted_at = self._parted_at or self._clock.now()
            self._metrics.set_connected(False)
        # See `agent.uplink`: a failure in the turn of a cancel would drop the cancel.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        goodbye = told or Goodbye(reason=failure)
        if goodbye.reason != self._failure:
            self._failure = goodbye.reason
            _log.warning("output can't be shipped to the control plane", server=server, reason=goodbye.reason)
        return goodbye

    async def _hold(self, http: aiohttp.ClientSession, server: str) -> None:
        """Connect and ship; returns once there has been nothing to ship for a while."""
        async with asyncio.timeout(CONNECT_TIMEOUT_S) as deadline:
            async with http.ws_connect(
                server + PATH_LOGS,
                ssl=self._tls[server],
                max_msg_size=_MAX_FRAME_BYTES,
                heartbeat=_PING_S,
                timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
            ) as socket:
                link = LogLink(socket, self._identity, sent=self._metrics.sent, kept=self._metrics.kept)
                await link.greet(self._facts())
                deadline.reschedule(None)
                began = self._clock.monotonic()
                self._failure, self._parted_at = "", None
                self._metrics.set_connected(True)
                try:
                    await self._serve(link)
                finally:
                    if self._clock.monotonic() - began >= LASTED_S:
                        self._attempts = 0

    async def _serve(self, link: LogLink) -> None:
        serving: set[object] = set()
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(link.read())
            while True:
                self._news.clear()
                notes, streams = self._notes.notes, self.streams()
                serving.intersection_update((*notes, *streams))
                for note in notes:
                    if note not in serving:
                        group.create_task(self._ship_note(note, link))
                for stream in streams:
                    if stream not in serving:
                        group.create_task(self._ship(stream, link))
                serving.update((*notes, *streams))
                try:
                    async with asyncio.timeout(None if serving else _IDLE_S):
                        await self._news.wait()
                except TimeoutError:
                    break
            reading.cancel()

    async def _ship(self, stream: LogStream, link: LogLink) -> None:
        await ship(stream, link, self._engine, self._clock, self._random, refused=self._metrics.refused)
        if not self.unshipped(stream.task_id):
            self.on_shipped()
        self._news.set()

    async def _ship_note(self, note: Unshipped, link: LogLink) -> None:
        await ship_note(note, link, self._random)
        await self._notes.remove(note)
        self._news.set()
