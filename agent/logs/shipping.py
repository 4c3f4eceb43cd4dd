"""One container's output over one link: read on from what the control plane has, made into events, numbered, sent.

Nothing of how far it has come is kept here: whatever breaks, the channel is opened again, and goes on from the control
plane's answer. What can't be had any more becomes an event of kind GAP.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final

import structlog

from agent.engine.api import Engine
from agent.engine.errors import EngineError, NotFound
from agent.engine.output import Lost, Mark, OutputReader
from agent.logs.batches import BATCH_BYTES, Frame, frames
from agent.logs.disk import NO_ROOM
from agent.logs.events import Event, EventMaker, gap
from agent.logs.link import ChannelRefused, LinkLost, LogChannel, LogLink
from agent.logs.multiline import beginning
from agent.logs.stream import LogStream, PendingGap
from agent.logs.unshipped import Unshipped
from agent.task.backoff import delay_s
from homeport.clock import Clock
from homeport.protocol import LogOpened

__all__ = ["ship", "ship_note"]

_log = structlog.get_logger(__name__)

#: Between two batches of one container that aren't full.
_PACE_S: Final = 1.0
#: Read at a time.
_READ_BYTES: Final = BATCH_BYTES // 2
#: The longest wait that the control plane may ask for.
_RETRY_AFTER_CAP_S: Final = 600.0

#: More events than this are encoded beside the event loop.
_MANY: Final = 200

_GONE: Final = "the container was removed before its output could be shipped"


async def ship(
    stream: LogStream,
    link: LogLink,
    engine: Engine,
    clock: Clock,
    rng: random.Random,
    *,
    refused: Callable[[], None] = lambda: None,
) -> None:
    """Ship a container's output until all of it is kept (`stream.done`), or never can be.

    Raises LinkLost; anything else that fails is tried again. On cancel nothing is lost.
    """
    tries = 0
    while not stream.done:
        channel = link.channel()
        try:
            await _Shipping(stream, channel, link, engine, clock).run()
            stream.done = True
        except LinkLost:
            raise
        except ChannelRefused as refusal:
            refused()
            stream.done = refusal.final
            trouble, pause_s = str(refusal), _pause_s(refusal, rng)
        except Exception as error:  # noqa: BLE001  # what one container's output does to the agent must not stop others
            tries = 1 if channel.kept else tries + 1
            trouble = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
            pause_s = delay_s(tries, rng.random())
        finally:
            channel.close()
        if not stream.done:
            _tell(stream, trouble, anew=channel.kept)
            await asyncio.sleep(pause_s)


async def ship_note(note: Unshipped, link: LogLink, rng: random.Random) -> None:
    """Tell that a container's output is lost. Return once that is kept (or there is nobody to keep it).

    Raises LinkLost.
    """
    at_ns = int(note.at * 1e9)
    event = gap(Lost(0, note.why, sure=False), at_ns, Mark(at_ns))
    while True:
        channel = link.channel()
        try:
            opened = await channel.open(note.task_id, note.container, note.runtime_id)
            if opened.position == str(event.mark):
                return  # it was told, and the note outlived that
            for frame in frames(channel.number, opened.next, [event], position=opened.position, end=True):
                await channel.send(frame)
            await channel.drained()
            return
        except ChannelRefused as refusal:
            if refusal.final:
                return
            pause_s = _pause_s(refusal, rng)
        finally:
            channel.close()
        await asyncio.sleep(pause_s)


def _pause_s(refusal: ChannelRefused, rng: random.Random) -> float:
    return min(refusal.retry_after_s, _RETRY_AFTER_CAP_S) * rng.uniform(1.0, 1.25)


def _tell(stream: LogStream, trouble: str, *, anew: bool) -> None:
    """Say once why output is held up, and once more if some was kept meanwhile."""
    if trouble != stream.told or anew:
        stream.told = trouble
        _log.warning("output is not shipped for now", task=stream.task_id, container=stream.container, reason=trouble)


class _Shipping:
    """One attempt over one channel."""

    def __init__(self, stream: LogStream, channel: LogChannel, link: LogLink, engine: Engine, clock: Clock) -> None:
        self._stream = stream
        self._channel = channel
        self._link = link
        self._engine = engine
        self._clock = clock
        self._maker = EventMaker(beginning(stream.shipping.multiline_pattern))
        #: Events that are made and not sent: behind them is no mark yet.
        self._events: list[Event] = []
        self._next = 1
        self._position = ""
        self._sent_at = float("-inf")
        self._unread_since: float | None = None

    async def run(self) -> None:
        """Ship to the end. Raises ChannelRefused, LinkLost, EngineErrors."""
        stream = self._stream
        opened = await self._channel.open(stream.task_id, stream.container, stream.runtime_id)
        self._next, self._position = opened.next, opened.position
        self._gaps_since(opened)
        try:
            async with self._engine.output(stream.runtime_id, opened.position) as reader:
                await self._ship(reader)
        except NotFound:
            if not stream.stopped:
                raise
            await self._finish(Lost(_at_ns(self._position), _GONE, sure=False))

    def _gaps_since(self, opened: LogOpened) -> None:
        """Drop the gaps that the control plane has been told; tell the others anew."""
        gaps = self._stream.gaps
        gaps[:] = [each for each in gaps if each.number is None or each.number >= opened.next]
        for each in gaps:
            each.number = None

    async def _ship(self, reader: OutputReader) -> None:
        stream = self._stream
        while not stream.done:
            # Asked first: what is read after a container has stopped is all there is.
            stopped = stream.stopped
            await self._channel.room()
            async with self._link.turn:
                items = await reader.read(_READ_BYTES)
                self._unread_since = None
                self._events += self._maker.feed(items, self._clock.monotonic())
                if not items and (stopped or self._is_due()):
                    self._events += self._maker.flush()
                await self._send()
                self._note_backlog(reader.waiting())
            if not items and stopped:
                await self._finish(reader.missing())
                return
            if not stopped and (not items or reader.waiting() < _READ_BYTES):
                await self._link.pulse.until(lambda: self._has_work(reader))

    def _is_due(self) -> bool:
        return self._maker.due is not None and self._maker.due <= self._clock.monotonic()

    def _has_work(self, reader: OutputReader) -> bool:
        """Tell whether there is something to do: at once for a lone line, at a pace while there are more.

        Raises ChannelRefused: what was sent before may be what the control plane doesn't take.
        """
        self._channel.check()
        waiting = reader.waiting()
        self._note_backlog(waiting)
        if self._stream.stopped or self._is_due() or self._untold():
            return True
        return waiting >= _READ_BYTES or (waiting > 0 and self._clock.monotonic() >= self._sent_at + _PACE_S)

    def _note_backlog(self, waiting: int) -> None:
        """Note how old the oldest output is that isn't kept: under way, or unread since it was first seen."""
        if not waiting and self._maker.due is None:
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = self._clock.now()
        oldest = self._channel.oldest
        times = (None if oldest is None else oldest / 1000, self._unread_since)
        self._stream.behind_since = min((at for at in times if at is not None), default=None)

    # ------------------------------------------------------------ sending

    async def _send(self) -> None:
        """Send the events up to the last one that has a mark, and the gaps that only the agent knows of."""
        ready = next((n for n in range(len(self._events), 0, -1) if self._events[n - 1].mark is not None), 0)
        events, self._events = self._events[:ready], self._events[ready:]
        for pending in self._untold():
            pending.number = self._next + len(events)
            events.append(gap(pending.lost, pending.until_ns, self._mark(events)))
        if not events:
            return
        for frame in await self._frames(events, end=False):
            await self._send_frame(frame)
        self._sent_at = self._clock.monotonic()

    def _untold(self) -> list[PendingGap]:
        return [each for each in self._stream.gaps if each.number is None]

    def _mark(self, events: list[Event]) -> Mark:
        """Return where the source stands behind these events, or behind what was sent before."""
        if events and events[-1].mark is not None:
            return events[-1].mark
        try:
            return Mark.parse(self._position)
        except ValueError:
            return Mark(0)

    async def _frames(self, events: list[Event], *, end: bool) -> list[Frame]:
        def make() -> list[Frame]:
            return list(frames(self._channel.number, self._next, events, position=self._position, end=end))

        # A large batch takes milliseconds, most of them in zlib, which lets others run.
        made = await asyncio.to_thread(make) if len(events) > _MANY else make()
        self._next += len(events)
        if events:
            self._position = str(events[-1].mark)
        return made

    async def _send_frame(self, frame: Frame) -> None:
        if frame.lines and self._stream.behind_since is None:
            self._stream.behind_since = frame.oldest / 1000
        await self._channel.send(frame)

    async def _finish(self, lost: Lost | None) -> None:
        """Say that this is all, and wait until it is kept."""
        now_ns = int(self._clock.now() * 1e9)
        stream = self._stream
        events = [gap(each.lost, each.until_ns, self._mark([])) for each in self._untold()]
        if stream.no_room_since_ns is not None:
            events.append(gap(Lost(stream.no_room_since_ns, NO_ROOM, sure=False), now_ns, self._mark([])))
        if lost is not None:
            events.append(gap(lost, now_ns, Mark(now_ns)))
        await self._channel.drained()
        for frame in await self._frames(events, end=True):
            await self._send_frame(frame)
        await self._channel.drained()
        stream.behind_since = None


def _at_ns(position: str) -> int:
    try:
        return Mark.parse(position).at_ns
    except ValueError:
        return 0
