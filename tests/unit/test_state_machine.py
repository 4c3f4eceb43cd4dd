"""Any sequence of transactions, of any outcome: indexes, sums, journal and watchers agree with a naive model."""

from contextlib import suppress
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from controlplane.state import table
from controlplane.state.records import ClusterRecord, InstanceRecord, Record, TaskRecord
from controlplane.state.state import State, Transaction
from controlplane.state.validate import validate, validate_commit
from controlplane.state.watch import Watch
from controlplane.store.api import Change, Commit
from homeport.errors import JournalError
from homeport.ids import InstanceId, TaskId
from homeport.protocol import HostFacts
from homeport.spec import ContainerSpec, Resources, TaskSpec
from homeport.status import DesiredStatus, TaskStatus
from tests.fakes.journal import MemoryJournal

Key = tuple[str, str]

PLENTY = Resources(cpu_units=10**6, memory_mib=10**6)
INSTANCES = tuple(InstanceId(f"{number:032x}") for number in range(3))
SPECS = tuple(
    TaskSpec(
        task_arn="arn",
        cluster="default",
        family=family,
        revision=1,
        containers=(ContainerSpec(name="c", image="busybox", container_arn="c"),),
    )
    for family in ("web", "db")
)


class Boom(Exception):
    """What a command raises in the middle of a transaction."""


@st.composite
def tasks(draw: st.DrawFn) -> TaskRecord:
    status = draw(st.sampled_from(TaskStatus))
    stopping = status > TaskStatus.RUNNING
    host = draw(st.sampled_from(INSTANCES)) if status is not TaskStatus.PROVISIONING else None
    return TaskRecord(
        id=TaskId(f"{draw(st.integers(0, 7)):032x}"),
        cluster=draw(st.sampled_from(["default", "other"])),
        spec=draw(st.sampled_from(SPECS)),
        created_at=1.0,
        launch_type=draw(st.sampled_from(["EC2", "EXTERNAL"])),
        status=status,
        desired=DesiredStatus.STOPPED if stopping else draw(st.sampled_from(DesiredStatus)),
        instance_id=host,
        resources=Resources(cpu_units=draw(st.integers(0, 5)), memory_mib=draw(st.integers(0, 5))),
        group=draw(st.sampled_from(["", "family:web"])),
        started_by=draw(st.sampled_from(["", "me"])),
        stopped_at=2.0 if status is TaskStatus.STOPPED else None,
    )


def instances() -> st.SearchStrategy[InstanceRecord]:
    return st.builds(
        InstanceRecord,
        id=st.sampled_from(INSTANCES),
        cluster=st.sampled_from(["default", "other"]),
        public_key=st.just("key"),
        registered_at=st.just(1.0),
        facts=st.just(HostFacts(hostname="node", agent_version="1", resources=PLENTY)),
        status=st.sampled_from(["ACTIVE", "DRAINING"]),
    )


RECORDS: st.SearchStrategy[Record] = st.one_of(
    tasks(),
    instances(),
    st.builds(ClusterRecord, name=st.sampled_from("ab"), created_at=st.just(1.0), status=st.sampled_from(["A", "B"])),
)
#: (put or delete, record) or a nested block of them with whether it raises.
WRITES = st.lists(st.tuples(st.booleans(), RECORDS), max_size=4)
BLOCKS = st.lists(st.tuples(st.booleans(), WRITES), max_size=3)


class StateMachine(RuleBasedStateMachine):
    """The model is a plain dict of records."""

    @initialize()
    def begin(self) -> None:
        self.journal = MemoryJournal()
        self.state = State(self.journal)
        self.model: dict[Key, Record] = {}
        self.watches: list[tuple[Watch, dict[Key, Record]]] = []
        self.broken = False

    def _apply(self, transaction: Transaction, model: dict[Key, Record], writes: list[tuple[bool, Record]]) -> None:
        for putting, record in writes:
            if putting:
                transaction.put(record)
                model[record.kind, record.key] = record
            else:
                transaction.delete(record)
                model.pop((record.kind, record.key), None)

    @rule(writes=WRITES, nested=BLOCKS, raises=st.booleans())
    def transact(self, writes: list[tuple[bool, Record]], nested: list[tuple[bool, Any]], raises: bool) -> None:
        model = dict(self.model)
        commits = len(self.journal.commits)
        with suppress(Boom, JournalError):
            with self.state.transaction() as transaction:
                self._apply(transaction, model, writes)
                for inner_raises, inner_writes in nested:
                    inner_model = dict(model)
                    with suppress(Boom), self.state.transaction() as inner:
                        self._apply(inner, inner_model, inner_writes)
                        if inner_raises:
                            raise Boom
                        model = inner_model
                if raises:
                    raise Boom
            changed = model != self.model
            self.model = model
            assert len(self.journal.commits) == commits + changed
            return
        assert raises or self.broken
        assert len(self.journal.commits) == commits

    @rule()
    def watch(self) -> None:
        self.watches.append((self.state.snapshot_and_watch(), dict(self.model)))

    @rule()
    def fail_the_journal(self) -> None:
        self.journal.fail()
        self.broken = True

    @invariant()
    def the_state_is_the_model(self) -> None:
        found = {(record.kind, record.key): record for every in self.state.tables for record in every}
        assert found == self.model
        assert self.state.revision == len(self.journal.commits)

    @invariant()
    def all_sums_and_indexes_are_right(self) -> None:
        validate(self.state)

    @invariant()
    def the_journal_folds_to_the_state(self) -> None:
        folded: dict[Key, Record] = {}
        for commit in self.journal.commits:
            fold(folded, commit)
        assert folded == self.model
        assert [commit.revision for commit in self.journal.commits] == list(range(1, len(self.journal.commits) + 1))

    @invariant()
    def every_snapshot_and_its_watch_fold_to_the_state(self) -> None:
        for watch, snapshot in self.watches:
            for commit in taken(watch):
                fold(snapshot, commit)
            assert snapshot == self.model


def taken(watch: Watch) -> list[Commit]:
    """Take what a watch holds, without an event loop: with something there, `next_batch` doesn't wait."""
    if not watch.pending:
        return []
    with pytest.raises(StopIteration) as stop:
        watch.next_batch().send(None)
    commits: list[Commit] = stop.value.value
    return commits


def fold(records: dict[Key, Record], commit: Commit) -> None:
    for change in commit.changes:
        key = (change.kind, change.key)
        assert records.get(key) == change.old
        assert change.old != change.new
        if change.new is None:
            del records[key]
        else:
            records[key] = change.new


StateMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestState = StateMachine.TestCase


def test_large_buckets_are_kept_as_well_as_small_ones() -> None:
    state = State(MemoryJournal())
    number = table.LARGE_BUCKET + 10
    with state.transaction() as transaction:
        for each in range(number):
            transaction.put(ClusterRecord(name=f"{each:06}", created_at=1.0))
            transaction.put(_task(each))
    validate(state)
    after = f"{number - 3:032x}"
    assert [task.id for task in state.tasks.page("phase", "pending", after=after)] == [
        f"{number - 2:032x}",
        f"{number - 1:032x}",
    ]
    with state.transaction() as transaction:
        for each in range(0, number, 2):
            transaction.delete(_task(each))
    validate(state)
    assert state.tasks.count("phase", "pending") == number // 2


def _task(number: int) -> TaskRecord:
    return TaskRecord(
        id=TaskId(f"{number:032x}"), cluster="default", spec=SPECS[0], created_at=1.0, launch_type="EC2",
        status=TaskStatus.PROVISIONING,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"status": TaskStatus.PENDING}, "went back"),
        ({"desired": DesiredStatus.PENDING}, "desired went back"),
        ({"instance_id": INSTANCES[1]}, "changed its host"),
        ({"spec": SPECS[1]}, "changed its identity"),
        ({"reported_seq": 0}, "old report"),
    ],
)
def test_a_commit_that_breaks_an_invariant_is_found(changes: dict[str, Any], complaint: str) -> None:
    old = msgspec.structs.replace(_task(1), status=TaskStatus.RUNNING, instance_id=INSTANCES[0], reported_seq=3)
    new = msgspec.structs.replace(old, **changes)
    with pytest.raises(AssertionError, match=complaint):
        validate_commit(Commit(1, (Change("task", old.key, old, new),)))


def test_an_over_committed_host_is_found() -> None:
    state = State(MemoryJournal())
    facts = HostFacts(hostname="node", agent_version="1", resources=Resources(cpu_units=4, memory_mib=4))
    host = InstanceRecord(id=INSTANCES[0], cluster="default", public_key="k", registered_at=1.0, facts=facts)
    fitting = msgspec.structs.replace(
        _task(1),
        status=TaskStatus.RUNNING,
        instance_id=host.id,
        resources=Resources(cpu_units=4, ports=frozenset({("tcp", 80)})),
    )
    with state.transaction() as transaction:
        transaction.put(host)
        transaction.put(fitting)
    validate(state)
    for resources, complaint in (
        (Resources(cpu_units=1), "over-committed: 5 of 4 CPU units"),
        (Resources(ports=frozenset({("tcp", 80)})), "ports given twice"),
    ):
        with state.transaction() as transaction:
            transaction.put(msgspec.structs.replace(fitting, id=TaskId("f" * 32), resources=resources))
        with pytest.raises(AssertionError, match=complaint):
            validate(state)
