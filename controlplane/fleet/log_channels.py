"""One container's output on its way into the log store: which stream it belongs to, and what keeps it out of there."""

import asyncio
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from controlplane.context import Context
from controlplane.fleet.log_times import EventTimes
from controlplane.logs.api import (
    GroupExists,
    GroupMissing,
    LogEvent,
    LogGroup,
    LogStoreError,
    LogStream,
    Shipment,
    StoreUnavailable,
    StreamExists,
    StreamMissing,
)
from controlplane.state.records import TaskRecord
from homeport.errors import ProtocolError
from homeport.ids import InstanceId, TaskId
from homeport.protocol import LogBatch, LogKind, LogOpen
from homeport.spec import LogShipping

__all__ = ["Channel", "ChannelRefused", "Deleted", "find_channel", "write"]

#: How long an agent waits before it asks again: for a group that someone has to make, for a store that is full or away,
#: for what was deleted meanwhile.
RETRY_GROUP_S: Final = 15.0
RETRY_STORE_S: Final = 5.0
RETRY_DELETED_S: Final = 0.1
_MAX_DELETED: Final = 10_000
#: Events looked at without letting others run.
_PIECE: Final = 5000
_KINDS: Final = {int(kind): kind for kind in LogKind}


@dataclass(slots=True)
class Channel:
    """A container's output, its stream, and how far it has got."""

    task_id: TaskId
    container: str
    group: str
    stream: str
    times: EventTimes
    #: What its next event is numbered, and where its source stands.
    next: int = 1
    position: str = ""


class ChannelRefused(Exception):
    """A container's output can't be kept (now). `channel`: whose story is to tell so, if anyone's."""

    def __init__(
        self, reason: str, *, retry_after_s: float = RETRY_STORE_S, final: bool = False, channel: Channel | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.final = final
        self.channel = channel


class Deleted:
    """How far outputs had got whose streams somebody deleted: they go on there, and what was deleted stays so.

    Of the latest 10,000, in memory: a control plane that was restarted takes again what the host still has.
    """

    def __init__(self) -> None:
        self._places: OrderedDict[tuple[TaskId, str], tuple[int, str]] = OrderedDict()

    def note(self, channel: Channel) -> None:
        """Note that the stream of an open channel is gone."""
        self._places[channel.task_id, channel.container] = channel.next, channel.position
        if len(self._places) > _MAX_DELETED:
            self._places.popitem(last=False)

    def place(self, channel: Channel) -> tuple[int, str] | None:
        """Return what the next event is numbered, and where the source stands; None if nothing was deleted."""
        return self._places.get((channel.task_id, channel.container))


async def find_channel(context: Context, instance_id: InstanceId, message: LogOpen, deleted: Deleted) -> Channel:
    """Return the channel of a container of this host's; its stream is made if need be (and its group, if the
    definition says so).

    Raises ChannelRefused.
    """
    task = await _task(context, message.task_id)
    if task is None or task.instance_id != instance_id:
        raise ChannelRefused(f"this host has no task {message.task_id:.64}", final=True)
    ship_to = next((c.shipping for c in task.spec.containers if c.name == message.container), None)
    if ship_to is None:
        raise ChannelRefused(f"the output of container {message.container:.255} isn't to be shipped", final=True)
    name = ship_to.stream(message.container, message.task_id, message.runtime_id)
    times = EventTimes(int(task.created_at * 1000))
    channel = Channel(message.task_id, message.container, ship_to.group, name, times)
    if not name:
        raise ChannelRefused("the container has no Docker id yet, which its log stream is named after")
    try:
        stream = await _stream(context, channel, ship_to)
    except LogStoreError as error:
        raise _refusal(channel, error) from error
    times.go_on(stream.last_at)
    channel.next, channel.position = stream.shipped_next, stream.position
    if stream.shipped_next == 1 and not stream.position and (place := deleted.place(channel)) is not None:
        channel.next, channel.position = place
    return channel


async def write(context: Context, channel: Channel, batch: LogBatch, deleted: Deleted) -> int:
    """Write a batch; return the number behind its last event once that is durable.

    Raises ChannelRefused if it can't be kept, ProtocolError for what no agent may send.
    """
    now = int(context.clock.now() * 1000)
    events: list[LogEvent] = []
    for begin in range(0, len(batch.events), _PIECE):
        if begin:
            await asyncio.sleep(0)
        events += [_event(channel, at, kind, text, now) for at, kind, text in batch.events[begin : begin + _PIECE]]
    try:
        await context.logs.append(
            channel.group,
            channel.stream,
            events,
            ingested_at=now,
            shipment=Shipment(first=batch.first, position=batch.position, end=batch.end),
        )
    except (GroupMissing, StreamMissing) as error:
        deleted.note(channel)
        # Opened anew at once, it is made again, or the story tells why not.
        raise ChannelRefused(str(error), retry_after_s=RETRY_DELETED_S) from error
    except LogStoreError as error:
        raise _refusal(channel, error) from error
    behind = batch.first + len(events)
    if behind >= channel.next:
        channel.next, channel.position = behind, batch.position
    return behind


def _event(channel: Channel, at: int, number: int, text: str, now: int) -> LogEvent:
    kind = _KINDS.get(number)
    if kind is None:
        raise ProtocolError(f"a log event of kind {number}")
    return LogEvent(channel.times.time_of(at, kind, now), text, kind)


async def _task(context: Context, task_id: TaskId) -> TaskRecord | None:
    """Find a task, also one that has left memory: a host that was cut off for days ships late."""
    return context.state.tasks.get(task_id) or await context.state.journal.archived_task(task_id)


async def _stream(context: Context, channel: Channel, ship_to: LogShipping) -> LogStream:
    logs, now = context.logs, int(context.clock.now() * 1000)
    try:
        return await logs.stream(channel.group, channel.stream)
    except GroupMissing:
        if not ship_to.create_group:
            raise
        group = LogGroup(name=channel.group, created_at=now, retention_days=ship_to.retention_days)
        # Another container of the definition may have been faster.
        with suppress(GroupExists):
            await logs.create_group(group)
    except StreamMissing:
        pass
    with suppress(StreamExists):
        await logs.create_stream(channel.group, channel.stream, at=now)
    return await logs.stream(channel.group, channel.stream)


def _refusal(channel: Channel, error: LogStoreError) -> ChannelRefused:
    match error:
        case GroupMissing():
            reason = (
                f"there is no log group {channel.group}. Make it (aws logs create-log-group --log-group-name "
                f"{channel.group}), or set awslogs-create-group to true in the task definition"
            )
            return ChannelRefused(reason, retry_after_s=RETRY_GROUP_S, channel=channel)
        case StoreUnavailable():
            return ChannelRefused(str(error), channel=channel)
        case _:
            return ChannelRefused(str(error))
