"""This host's tasks: assignments come in, a runner per task does them, reports go out. Implements `Workload`.

What always holds:
 - what the control plane assigned is in the journal before `assign` returns; a task is never run twice;
 - a task that a complete set lacks is stopped; a container of ours that belongs to no task is removed, but only after
   a complete set has confirmed that it isn't wanted; containers of others are never touched;
 - with the control plane away everything goes on: restarts, health, and reports wait, the latest of each task;
 - a new worker on the same journal goes on where the last one was, whatever point that was killed at;
 - cancelling `run` leaves containers running.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Final

import structlog
from msgspec.structs import replace

from agent.claims import Claims
from agent.engine.api import ContainerFacts, Engine, EngineEvent
from agent.engine.errors import EngineError
from agent.engine.plan import LABEL_CONTAINER, LABEL_TASK, container_name, owner_labels
from agent.isolation import Contact, IsolationWatch
from agent.journal import Journal
from agent.logs.tail import LogTail
from agent.metrics import ContainerSample
from agent.outbox import Outbox
from agent.retention import DEFAULT_CLEANUP_AFTER_S, due
from agent.task.absorb import absorb
from agent.task.backoff import delay_s
from agent.task.messages import Acked, Observed, Refused, Removed, Resync, Wanted
from agent.task.model import TaskState, accepted, recovered
from agent.task.perform import Performer, TaskCgroups
from agent.task.report import report_of
from agent.task.runner import TaskRunner
from agent.workload import HostView, Shipping
from homeport import reasons
from homeport.clock import Clock
from homeport.ids import InstanceId, TaskId
from homeport.protocol import Assignment, Assignments, Condition, HostFacts, LogChunk, LogsRequest, TaskReport
from homeport.spec import Resources
from homeport.status import DesiredStatus

__all__ = ["Worker"]

_log = structlog.get_logger(__name__)

#: SIGTERM to SIGKILL for containers that belong to no task.
_ORPHAN_STOP_S: Final = 30
_NOT_SHIPPED: Final = "the container was removed from its host before its output could be shipped"


class Worker:
    """The tasks of one host. `run` must be running (once) for the rest to work; until then callers wait."""

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        host: HostView,
        cgroups: TaskCgroups,
        *,
        owner: InstanceId,
        clock: Clock,
        rng: random.Random,
        shipping: Shipping,
        cleanup_after_s: float = DEFAULT_CLEANUP_AFTER_S,
        contact: Contact | None = None,
    ) -> None:
        """`contact`: when the control plane was last in touch; None: begin with not knowing, and keep it nowhere."""
        self._engine = engine
        self._journal = journal
        self._host = host
        self._owner = owner
        self._clock = clock
        self._rng = rng
        self._cleanup_after_s = cleanup_after_s
        self._shipping = shipping
        self._performer = Performer(engine, cgroups, owner=owner, clock=clock, rng=rng, log_drivers=host.log_drivers)
        self._claims = Claims()
        self._outbox = Outbox()
        self._runners: dict[TaskId, TaskRunner] = {}
        #: Stops what may run at most once when the control plane is silent for too long.
        self.isolation = IsolationWatch(contact or Contact(), self._runners)
        self._revision = -1
        #: A complete set has been taken in this session.
        self._set_held = asyncio.Event()
        self._ready = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        #: A complete set has been taken, so what belongs to no task is known to be unwanted.
        self._complete = False
        self._sweep_due = asyncio.Event()
        self._clean_due = asyncio.Event()
        shipping.on_shipped = self._clean_due.set
        self._one_over = asyncio.Event()

    # ------------------------------------------------------------ life

    async def run(self) -> None:
        """Take up the tasks in the journal and run until cancelled. Raises JournalError when that fails."""
        states = await self._journal.load()
        async with asyncio.TaskGroup() as group:
            self._group = group
            for state in states:
                if not state.over and state.desired is not DesiredStatus.PENDING:
                    self._claims.hold(state.task_id, Resources.of_task(state.spec), state.gpu_ids)
                runner = self._begin(group, recovered(state), fresh=False)
                self.isolation.look(runner)
                if state.acked < state.seq:
                    self._outbox.put(report_of(state))
            self._ready.set()
            group.create_task(self._watch())
            group.create_task(self._sweep())
            group.create_task(self._clean())
            group.create_task(self.isolation.run())

    def tasks(self) -> tuple[TaskState, ...]:
        """Return what is known of every task, finished ones included."""
        return tuple(runner.state for runner in self._runners.values())

    def containers(self) -> tuple[ContainerSample, ...]:
        """Return the containers of tasks that aren't over, for metrics."""
        return tuple(
            ContainerSample(
                task_id=state.task_id,
                family=state.spec.family,
                cluster=state.spec.cluster,
                container=c.name,
                container_id=c.runtime_id,
                pid=c.pid,
                restart_count=c.restart_count,
                health=c.health,
            )
            for state in self.tasks()
            if not state.over
            for c in state.containers
            if c.runtime_id is not None
        )

    def _begin(self, group: asyncio.TaskGroup, state: TaskState, *, fresh: bool) -> TaskRunner:
        runner = TaskRunner(
            state, self._performer, save=self._journal.save, publish=self._publish, clock=self._clock, fresh=fresh
        )
        self._runners[state.task_id] = runner
        self._shipping.look(state)
        self.isolation.wake()
        group.create_task(runner.run(), name=f"task {state.task_id}")
        return runner

    def _publish(self, state: TaskState) -> None:
        self._shipping.look(state)
        if state.over:
            # Before the report: whoever hears of it may send the next task at once.
            self._claims.release(state.task_id)
            self._clean_due.set()
            self._one_over.set()
        self._outbox.put(report_of(state))

    # ------------------------------------------------------------ Workload: down

    @property
    def revision(self) -> int:
        """See Workload."""
        return self._revision

    def session_began(self) -> None:
        """See Workload."""
        self._revision = -1
        self._set_held.clear()
        for runner in self._runners.values():
            if runner.state.acked < runner.state.seq:
                self._outbox.put(report_of(runner.state))

    async def assign(self, assignments: Assignments) -> None:
        """See Workload. Raises JournalError if nothing more can be kept: the tasks' group is ending then."""
        await self._ready.wait()
        self._journal.check()
        if assignments.base is None and assignments.revision < self._revision:
            _log.warning("a set is older than the one held", revision=assignments.revision, held=self._revision)
            return
        if assignments.base is not None and assignments.base != self._revision:
            _log.warning("assignments have a gap", base=assignments.base, held=self._revision)
            self._revision = -1
            return
        taken = [self._put(assignment) for assignment in assignments.put]
        taken += [future for task_id in assignments.remove for future in self._remove(task_id)]
        if assignments.base is None:
            put = {assignment.task_id for assignment in assignments.put}
            for task_id in self._runners.keys() - put:
                taken += self._remove(task_id)
        for future in taken:
            await future
        self._revision = assignments.revision
        self._clean_due.set()
        if assignments.base is None:
            self._complete = True
            self._set_held.set()
            self._sweep_due.set()

    def _put(self, assignment: Assignment) -> asyncio.Future[None]:
        runner = self._runners.get(assignment.task_id)
        if runner is None:
            assert self._group is not None, "assign waits until run has begun"
            return self._begin(self._group, self._accept(assignment), fresh=True).deliver(None)
        if assignment.known < runner.state.status:
            # The control plane may have lost an acknowledged report (restored from a backup): it is told again.
            self._outbox.put(report_of(runner.state))
        if assignment.desired is DesiredStatus.RUNNING and runner.state.desired is DesiredStatus.PENDING:
            # A prepared task holds nothing before this.
            refusal = self._claim(assignment)
            if refusal is not None:
                return runner.deliver(refusal)
        gpu_ids = self._claims.gpus_of(assignment.task_id)
        return runner.deliver(Wanted(assignment.desired, assignment.stop_reason, gpu_ids))

    def _accept(self, assignment: Assignment) -> TaskState:
        now = self._clock.now()
        spec = assignment.spec
        names = {c.name: container_name(spec, assignment.task_id, c.name) for c in spec.containers}
        state = accepted(assignment, names, now)
        if state.unrecorded:
            self._claims.hold(state.task_id, Resources.of_task(spec))
        elif state.desired is DesiredStatus.RUNNING and (refusal := self._claim(assignment)) is not None:
            state = absorb(state, refusal, now)
        return replace(state, gpu_ids=self._claims.gpus_of(state.task_id))

    def _claim(self, assignment: Assignment) -> Refused | None:
        """Claim what a task that is to run asks for; return the refusal if the host has too little left."""
        asked = Resources.of_task(assignment.spec)
        facts = self._host.facts()
        refusal = self._claims.claim(assignment.task_id, asked, facts.resources, facts.gpu_ids)
        if refusal is None:
            return None
        return Refused(reasons.named(reasons.RESOURCE_ERROR, f"the host has too little left: {refusal}"))

    def _remove(self, task_id: TaskId) -> list[asyncio.Future[None]]:
        """Let go of a task; should it still run, stop it first."""
        runner = self._runners.get(task_id)
        if runner is None:
            return []
        stop = [] if runner.state.over else [runner.deliver(_unassigned())]
        return [*stop, runner.deliver(Removed())]

    async def deregistered(self, reason: str) -> None:
        """See Workload."""
        await self._ready.wait()
        for runner in self._runners.values():
            runner.tell(Wanted(DesiredStatus.STOPPED, reason))
        while not all(runner.state.over for runner in self._runners.values()):
            self._one_over.clear()
            await self._one_over.wait()
        # Nobody can ask for their logs any more, and nobody would ever let go of them.
        for task_id in tuple(self._runners):
            self._shipping.forget(task_id)
            try:
                await self._forget(task_id)
            except (EngineError, OSError) as error:
                _log.warning("a task of the deregistered host is left behind", task=task_id, error=str(error))

    # ------------------------------------------------------------ Workload: contact

    @property
    def heartbeat_within_s(self) -> float:
        """See Workload."""
        return self.isolation.heartbeat_within_s

    def contact_begins(self) -> float:
        """See Workload."""
        return self.isolation.contact.elapsed()

    def contact_made(self, stamp: float) -> None:
        """See Workload."""
        self.isolation.contact_made(stamp)

    # ------------------------------------------------------------ Workload: up

    async def next_reports(self) -> tuple[TaskReport, ...]:
        """See Workload."""
        return await self._outbox.take()

    async def caught_up(self) -> None:
        """See Workload."""
        await self._ready.wait()
        await self._set_held.wait()
        for runner in tuple(self._runners.values()):
            await runner.looked.wait()
        await self._outbox.emptied()

    async def acknowledged(self, seqs: Mapping[TaskId, int]) -> None:
        """See Workload."""
        for task_id, seq in seqs.items():
            if runner := self._runners.get(task_id):
                runner.tell(Acked(seq))

    async def next_facts(self) -> HostFacts:
        """See Workload."""
        return await self._host.next_facts()

    def facts(self) -> HostFacts:
        """See Workload."""
        return self._host.facts()

    def conditions(self) -> tuple[Condition, ...]:
        """See Workload."""
        return self._host.conditions()

    async def logs(self, request: LogsRequest) -> AsyncIterator[LogChunk]:
        """See Workload."""
        await self._ready.wait()
        assert self._group is not None, "ready is set by run"

        def look_up() -> TaskState | None:
            runner = self._runners.get(request.task_id)
            return runner.state if runner is not None else None

        tail = LogTail(self._engine, self._group, request, look_up)
        async with contextlib.aclosing(tail.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk

    # ------------------------------------------------------------ the Engine's side

    async def _watch(self) -> None:
        """Hand the Engine's events to the runners they are for.

        The Engine sends a `resync` every few minutes even if all is well, so that a lost event costs no more than that.
        """
        async for event in self._engine.events(owner_labels(self._owner)):
            if event.kind == "resync":
                self._resync()
            else:
                self._hand_out(event)

    def _resync(self) -> None:
        for runner in self._runners.values():
            runner.tell(Resync())
        self._sweep_due.set()
        self._clean_due.set()

    def _hand_out(self, event: EngineEvent) -> None:
        runner = self._runners.get(TaskId(event.labels.get(LABEL_TASK, "")))
        container = event.labels.get(LABEL_CONTAINER, "")
        if runner is not None and any(c.name == container for c in runner.state.containers):
            runner.tell(Observed(container, event))

    async def _sweep(self) -> None:
        """Stop and remove containers of ours that belong to no task, after each complete set and resync."""
        tries = 0
        while True:
            await self._sweep_due.wait()
            self._sweep_due.clear()
            if not self._complete:
                continue
            try:
                await self._remove_orphans(await self._engine.list(owner_labels(self._owner)))
                tries = 0
            except EngineError as error:
                tries += 1
                _log.warning("unwanted containers could not be looked for", error=str(error))
                await asyncio.sleep(delay_s(tries, self._rng.random()))
                self._sweep_due.set()

    async def _remove_orphans(self, containers: Iterable[ContainerFacts]) -> None:
        for facts in containers:
            if TaskId(facts.labels.get(LABEL_TASK, "")) in self._runners:
                continue
            _log.warning("removing a container that belongs to no task", container=facts.name, state=facts.state)
            if facts.state == "running":
                await self._engine.stop(facts.container_id, _ORPHAN_STOP_S)
            await self._engine.remove(facts.container_id)

    # ------------------------------------------------------------ retention

    async def _clean(self) -> None:
        """Remove what is left of finished tasks when their time is up, and forget them."""
        tries = 0
        while True:
            wait_s: float | None
            try:
                wait_s = await self._clean_up_due()
                tries = 0
            except (EngineError, OSError) as error:
                tries += 1
                wait_s = delay_s(tries, self._rng.random())
                _log.warning("a finished task could not be cleaned up", error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._clean_due.wait()
            self._clean_due.clear()

    async def _clean_up_due(self) -> float | None:
        """Clean up the tasks whose time has come; return the seconds until the next one's, None if there is none."""
        now = self._clock.now()
        tasks = due(self.tasks(), now, self._cleanup_after_s, self._shipping.unshipped)
        for task_id in tasks.now:
            await self._shipping.give_up(task_id, _NOT_SHIPPED)
            await self._forget(task_id)
        return None if tasks.next_at is None else tasks.next_at - now

    async def _forget(self, task_id: TaskId) -> None:
        runner = self._runners.get(task_id)
        if runner is None:
            return
        await self._performer.clean_up(runner.state)
        # From here on nobody finds the runner; what was delivered to it before is confirmed as it ends.
        self._runners.pop(task_id, None)
        runner.close()
        await self._journal.forget(task_id)
        self._outbox.drop(task_id)


def _unassigned() -> Wanted:
    return Wanted(DesiredStatus.STOPPED, reasons.NO_LONGER_ASSIGNED)
