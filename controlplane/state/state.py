"""The state: tables in memory under one revision counter, changed only in transactions.

What always holds:
 - a transaction is one event-loop turn: no await inside, so nobody sees half of one; if it raises, nothing of it stays;
 - each transaction that changes something makes one revision and hands one Commit to the journal and the watchers;
 - reads see memory at once; whoever lets something *leave* the process awaits `durable(revision)` first (invariant 1);
 - putting a record that equals the stored one changes nothing (reconciling twice writes nothing, invariant 8).
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, NamedTuple, cast

from controlplane.events.notes import CustomFacts, EventKind, Note, ServiceFacts
from controlplane.events.noting import note_events
from controlplane.state.delivery_records import ApiDestinationRecord, ConnectionRecord, DeliveryRecord
from controlplane.state.hostlog import HostLog
from controlplane.state.load import LoadBook
from controlplane.state.presence import PresenceBook
from controlplane.state.records import (
    ActivationRecord,
    ClusterRecord,
    FamilyRecord,
    IdempotencyRecord,
    InstanceRecord,
    Record,
    SettingRecord,
    TaskDefinitionRecord,
    TaskRecord,
)
from controlplane.state.schedule_records import (
    RuleRecord,
    RunOutcome,
    ScheduleGroupRecord,
    ScheduleRecord,
    ScheduleRunRecord,
)
from controlplane.state.service_records import (
    SERVICE_GROUP,
    CapacityProviderRecord,
    DeploymentRecord,
    EventRecord,
    RevisionRecord,
    ServiceRecord,
    TaskSetRecord,
)
from controlplane.state.sharing import Sharing
from controlplane.state.table import Table
from controlplane.state.watch import DEFAULT_CAPACITY, Watch
from controlplane.store.api import Change, Commit, Journal
from homeport.ids import InstanceId, TaskId
from homeport.status import DesiredStatus, TaskStatus
from homeport.story import StoryLine

__all__ = ["State", "Transaction", "load_state", "phase"]


def phase(task: TaskRecord) -> str:
    """File a task for ECS's counters: "pending" (up to ACTIVATING), "running" (not yet STOPPED) or "stopped"."""
    if task.status is TaskStatus.STOPPED:
        return "stopped"
    return "running" if task.status >= TaskStatus.RUNNING else "pending"


class _TaskIndexes(NamedTuple):
    """Under which value a task is filed in each index."""

    instance: InstanceId | None
    cluster_family: tuple[str, str]
    cluster_group: tuple[str, str]
    cluster_started_by: tuple[str, str] | None
    cluster_desired: tuple[str, DesiredStatus]
    cluster_phase: tuple[str, str]
    instance_phase: tuple[InstanceId | None, str]
    phase: str
    #: Tasks of a service that its reconciler has to look at: all but those whose end is taken into account.
    service: tuple[str, str] | None
    #: Tasks that the standalone reconciler has to look at, all under True.
    standalone: bool | None
    #: (cluster, name) of the concurrency group: who runs in it or waits for it.
    exclusive: tuple[str, str] | None
    # Only counted:
    status_desired: tuple[TaskStatus, DesiredStatus]
    cluster_phase_launch_type: tuple[str, str, str]
    #: (deployment or task set, "pending" or "running"), as ECS counts them: RUNNING is running, and what is lost isn't.
    deployment_count: tuple[str, str] | None


def _deployment_count(task: TaskRecord) -> tuple[str, str] | None:
    if task.lost_at is not None or task.status > TaskStatus.RUNNING:
        return None
    return task.started_by, "running" if task.status is TaskStatus.RUNNING else "pending"


def _standalone(task: TaskRecord) -> bool | None:
    """File a task that may still have to be stopped, placed or run again. What ended without retries needs nothing."""
    order = task.order
    if order is None or task.settled:
        return None
    return True if order.retries or task.status is not TaskStatus.STOPPED else None


def _file_task(task: TaskRecord) -> _TaskIndexes:
    cluster, instance_id, its_phase = task.cluster, task.instance_id, phase(task)
    of_service = task.group.startswith(SERVICE_GROUP)
    return _TaskIndexes(
        instance=instance_id,
        cluster_family=(cluster, task.spec.family),
        cluster_group=(cluster, task.group),
        cluster_started_by=(cluster, task.started_by) if task.started_by else None,
        cluster_desired=(cluster, task.desired),
        cluster_phase=(cluster, its_phase),
        instance_phase=(instance_id, its_phase),
        phase=its_phase,
        service=(cluster, task.group) if of_service and not task.settled else None,
        standalone=_standalone(task),
        exclusive=task.exclusive_group,
        status_desired=(task.status, task.desired),
        cluster_phase_launch_type=(cluster, its_phase, task.launch_type),
        deployment_count=_deployment_count(task) if of_service else None,
    )


class State:
    """All tables. Read freely; write inside `transaction()`."""

    def __init__(self, journal: Journal, *, revision: int = 0) -> None:
        self.journal = journal
        self.revision = revision
        self.clusters: Table[ClusterRecord] = Table()
        self.families: Table[FamilyRecord] = Table()
        self.task_definitions: Table[TaskDefinitionRecord] = Table(
            lambda r: (r.family, r.status, (r.family, r.status)), ("family", "status", "family_status")
        )
        self.instances: Table[InstanceRecord] = Table(
            lambda r: (r.cluster, (r.cluster, r.status), r.public_key), ("cluster", "cluster_status", "public_key")
        )
        self.tasks: Table[TaskRecord] = Table(
            _file_task,
            _TaskIndexes._fields,
            tallies=("status_desired", "cluster_phase_launch_type", "deployment_count"),
        )
        self.activations: Table[ActivationRecord] = Table()
        self.idempotency: Table[IdempotencyRecord] = Table()
        self.settings: Table[SettingRecord] = Table()
        self.services: Table[ServiceRecord] = Table(
            lambda r: (r.cluster, (r.cluster, r.status)), ("cluster", "cluster_status")
        )
        self.revisions: Table[RevisionRecord] = Table(lambda r: (r.service_id,), ("service",))
        self.deployments: Table[DeploymentRecord] = Table(lambda r: (r.service_id, r.arn_id), ("service", "arn_id"))
        self.events: Table[EventRecord] = Table(lambda r: (r.service_id,), ("service",))
        self.task_sets: Table[TaskSetRecord] = Table(lambda r: (r.service_id,), ("service",))
        self.capacity_providers: Table[CapacityProviderRecord] = Table()
        self.schedules: Table[ScheduleRecord] = Table(lambda r: (r.group,), ("group",))
        self.schedule_groups: Table[ScheduleGroupRecord] = Table()
        self.rules: Table[RuleRecord] = Table()
        self.schedule_runs: Table[ScheduleRunRecord] = Table(
            lambda r: (
                r.trigger,
                r.trigger if r.outcome is RunOutcome.PENDING else None,
                True if r.expires_at is not None else None,
            ),
            ("trigger", "pending", "expiring"),
        )
        self.connections: Table[ConnectionRecord] = Table()
        self.api_destinations: Table[ApiDestinationRecord] = Table()
        self.event_deliveries: Table[DeliveryRecord] = Table()
        self.host_log = HostLog()
        self.load = LoadBook(self.host_log)
        self._sharing = Sharing()
        self.presence = PresenceBook(self.host_log)
        self._tables: dict[str, Table[Any]] = {
            ClusterRecord.kind: self.clusters,
            FamilyRecord.kind: self.families,
            TaskDefinitionRecord.kind: self.task_definitions,
            InstanceRecord.kind: self.instances,
            TaskRecord.kind: self.tasks,
            ActivationRecord.kind: self.activations,
            IdempotencyRecord.kind: self.idempotency,
            SettingRecord.kind: self.settings,
            ServiceRecord.kind: self.services,
            RevisionRecord.kind: self.revisions,
            DeploymentRecord.kind: self.deployments,
            EventRecord.kind: self.events,
            TaskSetRecord.kind: self.task_sets,
            CapacityProviderRecord.kind: self.capacity_providers,
            ScheduleRecord.kind: self.schedules,
            ScheduleGroupRecord.kind: self.schedule_groups,
            RuleRecord.kind: self.rules,
            ScheduleRunRecord.kind: self.schedule_runs,
            ConnectionRecord.kind: self.connections,
            ApiDestinationRecord.kind: self.api_destinations,
            DeliveryRecord.kind: self.event_deliveries,
        }
        #: How many watchers were cut off since this process started.
        self.watch_overflows = 0
        self._watches: list[Watch] = []
        self._open: Transaction | None = None

    @property
    def tables(self) -> tuple[Table[Any], ...]:
        """All tables."""
        return tuple(self._tables.values())

    def transaction(self) -> AbstractContextManager["Transaction"]:
        """Change the state atomically. No await inside. If the block raises, the state is as it was before.

        A transaction inside another one joins it: it is committed with the outer one, and undone alone if it raises.
        If the journal refuses the commit (JournalError, or ValueError for a record that can't be stored), it is undone.
        """
        return _Scope(self)

    @property
    def durable_revision(self) -> int:
        """The last revision that would survive kill -9."""
        return self.journal.durable_revision

    async def durable(self, revision: int | None = None) -> None:
        """Return once `revision` (default: the present one) would survive kill -9."""
        await self.journal.durable(self.revision if revision is None else revision)

    def snapshot_and_watch(self, *, capacity: int = DEFAULT_CAPACITY) -> Watch:
        """Watch from here on: what can be read in this same turn plus the watch's commits misses and repeats nothing.

        Commits are seen at once, before they are durable.
        """
        watch = Watch(capacity=capacity, on_close=self._watches.remove, on_overflow=self._count_overflow)
        self._watches.append(watch)
        return watch

    def _count_overflow(self) -> None:
        self.watch_overflows += 1

    def _fill(self, records: Iterable[Record]) -> None:
        by_kind: dict[str, list[Record]] = {kind: [] for kind in self._tables}
        for record in records:
            by_kind[record.kind].append(self._sharing.task(record, None) if isinstance(record, TaskRecord) else record)
        for kind, table in self._tables.items():
            table.fill(by_kind[kind])
        for task in self.tasks:
            self.load.change(None, task)

    def _write(self, kind: str, key: str, new: Record | None) -> Record | None:
        if isinstance(new, TaskRecord):
            new = self._sharing.task(new, self.tasks.get(key))
        old = cast("Record | None", self._tables[kind].replace(key, new))
        if kind == TaskRecord.kind:
            self.load.change(cast("TaskRecord | None", old), cast("TaskRecord | None", new))
        elif kind == InstanceRecord.kind:
            self.host_log.note(InstanceId(key))
        return old

    def _read(self, kind: str, key: str) -> Record | None:
        return cast("Record | None", self._tables[kind].get(key))

    def _commit(self, transaction: "Transaction") -> None:
        commit = transaction._close(self.revision + 1)
        if commit is None:
            return
        self.journal.append(commit)
        self.revision = commit.revision
        for watch in tuple(self._watches):
            watch.offer(commit)


class _Scope:
    """The block of a `with state.transaction()`: a class, since each command opens some and a generator costs more."""

    __slots__ = ("_outer", "_savepoint", "_state", "_transaction")

    def __init__(self, state: State) -> None:
        self._state = state

    def __enter__(self) -> "Transaction":
        self._outer = self._state._open
        self._transaction = self._outer or Transaction(self._state)
        self._savepoint = self._transaction._savepoint()
        self._state._open = self._transaction
        return self._transaction

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._state._open = self._outer
        if kind is not None:
            self._transaction._undo(self._savepoint)
        elif self._outer is None:
            try:
                self._state._commit(self._transaction)
            except BaseException:
                self._transaction._undo(self._savepoint)
                raise


class Transaction:
    """The changes of one turn. Obtained from `State.transaction()` only."""

    def __init__(self, state: State) -> None:
        self._state = state
        #: (kind, key, the record before), one for each write, in order.
        self._log: list[tuple[str, str, Record | None]] = []
        self._stories: list[tuple[TaskId, StoryLine]] = []
        self._archive: list[TaskRecord] = []
        self._emitted: list[Note] = []

    def put(self, record: Record) -> None:
        """Add or replace a record."""
        if self._state._read(record.kind, record.key) != record:
            self._write(record.kind, record.key, record)

    def delete(self, record: Record) -> None:
        """Delete a record (quietly, if it isn't there)."""
        self._write(record.kind, record.key, None)

    def tell(self, task_id: TaskId, line: StoryLine) -> None:
        """Add a line to a task's story."""
        self._stories.append((task_id, line))

    def emit(self, facts: ServiceFacts | CustomFacts) -> None:
        """Add an event that no change of a record makes by itself. It comes behind those that do."""
        kind = EventKind.SERVICE if isinstance(facts, ServiceFacts) else EventKind.CUSTOM
        self._emitted.append(Note(kind, facts))

    def archive(self, task: TaskRecord) -> None:
        """Move a stopped task from memory to the history."""
        self.delete(task)
        self._archive.append(task)

    def _write(self, kind: str, key: str, new: Record | None) -> None:
        self._log.append((kind, key, self._state._write(kind, key, new)))

    def _savepoint(self) -> tuple[int, int, int, int]:
        return len(self._log), len(self._stories), len(self._archive), len(self._emitted)

    def _undo(self, savepoint: tuple[int, int, int, int]) -> None:
        writes, stories, archived, emitted = savepoint
        while len(self._log) > writes:
            self._state._write(*self._log.pop())
        del self._stories[stories:], self._archive[archived:], self._emitted[emitted:]

    def _close(self, revision: int) -> Commit | None:
        before: dict[tuple[str, str], Record | None] = {}
        again = set()
        for kind, key, old in self._log:
            if before.setdefault((kind, key), old) is not old:
                again.add((kind, key))
        changes = tuple(
            Change(kind, key, old, new)
            for (kind, key), old in before.items()
            # What was written once differs: `put` has seen to that.
            if (new := self._state._read(kind, key)) is not old and ((kind, key) not in again or new != old)
        )
        if not (changes or self._stories or self._archive or self._emitted):
            return None
        events = (*note_events(self._state, changes), *self._emitted)
        return Commit(revision, changes, tuple(self._stories), tuple(self._archive), events)


async def load_state(journal: Journal) -> State:
    """Read everything the journal holds into a new State."""
    revision, records = await journal.load()
    state = State(journal, revision=revision)
    state._fill(records)
    return state
