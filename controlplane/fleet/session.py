"""One host's session: the proof of its key, then reports and heartbeats up, assignments and acks down.

What always holds:
 - one coroutine reads; another sends, and becomes a task only if it has to wait: an idle session costs one;
 - acks and complete sets are sent once what they rest on is durable; increments are made of durable commits only;
 - acks of reports are in no hurry, an agent only keeps its reports meanwhile: they go with the ack of a heartbeat;
 - whatever is held for a slow peer is bounded: its news collapses per task, acks collapse into one, and a peer that
   reads nothing while it keeps on asking is cut off.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Final, Protocol

import structlog
from msgspec.structs import replace

from controlplane.context import Context
from controlplane.eager import begin
from controlplane.fleet.assignments import Wishes, complete_set
from controlplane.fleet.facts import FactsRefused, check_facts
from controlplane.fleet.logrelay import LogRelays
from controlplane.fleet.report_intake import ReportIntake
from controlplane.fleet.wire import PeerGone, SessionWire
from controlplane.state.presence import Presence
from controlplane.state.records import InstanceRecord, TaskRecord
from homeport.errors import ProtocolError
from homeport.ids import InstanceId, TaskId, new_hex_id
from homeport.protocol import (
    AgentMessage,
    Assignments,
    ControlMessage,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    HostFacts,
    HostUpdate,
    LogChunk,
    Reports,
    ReportsAck,
    Welcome,
)

__all__ = ["Session", "SessionHost"]

_log: Final = structlog.get_logger(__name__)

#: Control messages that may wait for a peer that doesn't read.
MAX_QUEUED: Final = 256
#: Frames a host may send within one heartbeat period.
MAX_FRAMES_PER_PERIOD: Final = 10_000
#: Seconds that saying goodbye to a peer may take.
CLOSE_TIMEOUT_S: Final = 2.0


class SessionHost(Protocol):
    """What a session needs of the hub."""

    def next_period(self) -> float:
        """Return the heartbeat period to dictate now, in seconds."""
        ...

    def heard(self, session: "Session") -> None:
        """Note that the host has spoken just now."""
        ...

    @property
    def reports(self) -> ReportIntake:
        """Where reports go."""
        ...


class Session:
    """A session whose host has proved its key. `run` is its life."""

    def __init__(self, context: Context, instance_id: InstanceId, wire: SessionWire, host: SessionHost) -> None:
        self.instance_id = instance_id
        self.id = new_hex_id(context.random)
        self.period_s = host.next_period()
        self.logs = LogRelays(self.post)
        self._context = context
        self._wire = wire
        self._host = host
        self._wishes = Wishes(instance_id)
        self._queue: deque[ControlMessage] = deque()
        #: Of reports that were applied by `_acks_revision`, and of those since then.
        self._acks: dict[TaskId, int] = {}
        self._acks_revision = 0
        self._later_acks: dict[TaskId, int] = {}
        self._later_revision = 0
        self._complete_due = True
        self._set_sent_at = float("-inf")
        self._told_revision = -1
        self._heard_out = False
        self._frames = 0
        self._counting_since = float("-inf")
        self._wake: Callable[[], None] = lambda: None
        self._scope: asyncio.Timeout | None = None
        self._goodbye: Goodbye | None = None
        self._lost = "the host has gone"

    @property
    def reason(self) -> str:
        """Why the session has ended, as far as this side knows."""
        return self._lost if self._goodbye is None else self._goodbye.reason

    # ------------------------------------------------------------ life

    async def run(self) -> None:
        """Serve the host until either side ends the session; closes the connection, on cancel too.

        Raises JournalError (in a group) if what is to be sent will never be durable: then the process ends anyway.
        """
        try:
            async with asyncio.timeout(None) as self._scope:
                if self._goodbye is None:
                    await self._serve()
        except TimeoutError:
            pass  # `end` was called
        finally:
            self._scope = None
            self.logs.fail_all("the session with the host has ended; its log may go on")
            await self._say_goodbye()

    def end(self, goodbye: Goodbye) -> None:
        """End the session, saying why. The first reason counts. Returns at once; `run` sees to it."""
        if self._goodbye is not None:
            return
        self._goodbye = goodbye
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def _serve(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                sender: asyncio.Task[None] | None = None

                def wake() -> None:
                    nonlocal sender
                    if sender is None or _has_returned(sender):
                        left = begin(self._send_all())
                        sender = None if left is None else group.create_task(left)

                self._wake = wake
                await self._wire.send(Welcome(session_id=self.id, heartbeat_s=self.period_s))
                wake()
                await self._read()
        except* PeerGone as errors:
            self._lost = str(errors.exceptions[0])
        except* ProtocolError as errors:
            self.end(Goodbye(reason=f"protocol error: {errors.exceptions[0]}"))
            _log.warning("session ended: protocol error", instance=self.instance_id, error=str(errors.exceptions[0]))
        finally:
            self._wake = lambda: None

    async def _say_goodbye(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._wire.close(self._goodbye)
        except TimeoutError:
            self._wire.abort()

    # ------------------------------------------------------------ upwards

    async def _read(self) -> None:
        while True:
            message = await self._wire.receive()
            self._host.heard(self)
            self._count_frame()
            self._take(message)

    def _count_frame(self) -> None:
        now = self._context.clock.monotonic()
        if now - self._counting_since > self.period_s:
            self._counting_since = now
            self._frames = 0
        self._frames += 1
        if self._frames > MAX_FRAMES_PER_PERIOD:
            raise ProtocolError(f"more than {MAX_FRAMES_PER_PERIOD} frames within one heartbeat period")

    def _take(self, message: AgentMessage) -> None:
        if isinstance(message, Reports):
            self._host.reports.take(self, message)
            return
        self._host.reports.settle()  # what came before this frame counts before it
        match message:
            case Heartbeat():
                self._take_heartbeat(message)
            case LogChunk():
                self.logs.take(message)
            case HostUpdate():
                update_facts(self._context, self.instance_id, message.facts)
            case _:
                raise ProtocolError(f"unexpected {type(message).__name__} within a session")

    def applied(self, reports: Reports, revision: int) -> None:
        """Acknowledge these reports with the next heartbeat that finds `revision` durable."""
        for report in reports.tasks:
            self._later_acks[report.task_id] = max(report.seq, self._later_acks.get(report.task_id, 0))
        self._later_revision = revision

    def _take_heartbeat(self, heartbeat: Heartbeat) -> None:
        self._heard_out = self._heard_out or self._says_all_is_told(heartbeat)
        note_presence(self._context, self.instance_id, heartbeat, heard_out=self._heard_out)
        if self._asks_anew(heartbeat.revision):
            self._complete_due = True
        self._told_revision = heartbeat.revision
        self.period_s = self._host.next_period()
        self._acknowledge()
        self.post(HeartbeatAck(next_s=self.period_s))

    def _acknowledge(self) -> None:
        """Have what is durable acknowledged.

        What has come since then waits apart from it: a host whose heartbeats always follow on a report would never
        be acknowledged anything.
        """
        durable = self._context.state.durable_revision
        for _ in range(2):
            if self._acks and self._acks_revision <= durable:
                self._queue.append(ReportsAck(seqs=self._acks))
                self._acks = {}
            if not self._acks:
                self._acks, self._acks_revision = self._later_acks, self._later_revision
                self._later_acks = {}

    def _says_all_is_told(self, heartbeat: Heartbeat) -> bool:
        """Tell whether all that has changed in the host's absence has been reported; frames are taken in their order.

        An agent that doesn't say so has sent it with the session's beginning, before it confirms our set.
        """
        if heartbeat.caught_up is not None:
            return heartbeat.caught_up
        return heartbeat.revision == self._wishes.revision != -1

    def _asks_anew(self, revision: int) -> bool:
        """Tell whether the host needs a complete set.

        A host that loses its set says -1 at once. A first -1, or another revision than ours, may only mean that what
        was sent is still under way; if that stays so for half a period, the doubt is answered by a complete set.
        """
        if revision == self._wishes.revision:
            return False
        if revision == -1 and self._told_revision != -1:
            return True
        return self._context.clock.monotonic() - self._set_sent_at > self.period_s / 2

    # ------------------------------------------------------------ downwards

    def post(self, message: ControlMessage) -> None:
        """Send a message soon. A peer that lets MAX_QUEUED of them wait loses its session."""
        if len(self._queue) >= MAX_QUEUED:
            self.end(Goodbye(reason="the host does not read what it is sent"))
            return
        self._queue.append(message)
        self._wake()

    def note(self, revision: int, task_id: TaskId, task: TaskRecord | None) -> None:
        """Take in what a durable commit changed of the host's assignments; `tell` sends it."""
        self._wishes.note(revision, task_id, task)

    def tell(self) -> None:
        """Send the host what has been noted."""
        if self._wishes.has_news:
            self._wake()

    def resynchronize(self) -> None:
        """Send a complete set soon, since changes may have been missed."""
        self._complete_due = True
        self._wake()

    async def _send_all(self) -> None:
        """Send whatever there is to send, and end."""
        while True:
            if self._queue:
                await self._wire.send(self._queue.popleft())
            elif self._complete_due:
                await self._send_complete()
            elif self._wishes.has_news:
                await self._send_increment()
            else:
                return

    async def _send_complete(self) -> None:
        self._complete_due = False
        self._set_sent_at = self._context.clock.monotonic()
        complete = complete_set(self._context.state, self.instance_id)
        self._wishes.restart(complete)
        await self._context.state.durable(complete.revision)
        await self._send_set(complete)

    async def _send_increment(self) -> None:
        if (increment := self._wishes.increment()) is not None:
            await self._send_set(increment)

    async def _send_set(self, assignments: Assignments) -> None:
        self._set_sent_at = self._context.clock.monotonic()
        await self._wire.send(assignments)

    def read_logs(
        self, task_id: TaskId, container: str, *, follow: bool, tail: int | None, since: float | None
    ) -> AsyncGenerator[LogChunk, None]:
        """Read a container's log over this session; see LogRelays.read."""
        return self.logs.read(
            new_hex_id(self._context.random), task_id, container, follow=follow, tail=tail, since=since
        )


def _has_returned(task: asyncio.Task[None]) -> bool:
    """Tell whether the task is done and well. Where it isn't, its group is about to end, and takes no other task."""
    return task.done() and not task.cancelled() and task.exception() is None


def update_facts(context: Context, instance_id: InstanceId, facts: HostFacts) -> InstanceRecord:
    """Take over what a host tells of itself, if it is news. Raises ProtocolError for facts that can't be used."""
    try:
        check_facts(facts)
    except FactsRefused as error:
        raise ProtocolError(f"the host's facts can't be used: {error}") from error
    instance = context.state.instances.get(instance_id)
    if instance is None:
        raise ProtocolError(f"unknown container instance {instance_id}")
    if instance.facts != facts:
        instance = replace(instance, facts=facts, version=instance.version + 1)
        with context.state.transaction() as transaction:
            transaction.put(instance)
    return instance


def note_presence(context: Context, instance_id: InstanceId, heartbeat: Heartbeat, *, heard_out: bool) -> None:
    """Note that a host is well, what it says of its own health, and whether it has told all of its absence."""
    now = context.clock.now()
    before = context.state.presence.of(instance_id)
    context.state.presence.put(
        instance_id,
        Presence(
            connected=True,
            since=before.since if before is not None and before.connected else now,
            last_seen_at=now,
            heard_at=context.clock.monotonic(),
            conditions=heartbeat.conditions,
            address="" if before is None else before.address,
            heard_out=heard_out,
        ),
    )
