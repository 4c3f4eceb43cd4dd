"""Transactions: whole or not at all, one revision each, nothing written where nothing changes."""

from contextlib import suppress

import msgspec
import pytest

from controlplane.state.records import ClusterRecord, TaskRecord
from controlplane.state.state import State
from controlplane.store.api import Change
from homeport.errors import JournalError
from homeport.ids import TaskId
from homeport.spec import ContainerSpec, TaskSpec
from homeport.story import StoryLine
from tests.fakes.journal import MemoryJournal


class Boom(Exception):
    """What a command raises in the middle of a transaction."""


LINE = StoryLine(at=1.0, event="placed", message="Placed on a host", actor="scheduler")


def cluster(name: str, **changes: object) -> ClusterRecord:
    return ClusterRecord(name=name, created_at=1.0, **changes)  # type: ignore[arg-type]


def task(number: int) -> TaskRecord:
    container = ContainerSpec(name="web", image="busybox", container_arn="c")
    spec = TaskSpec(task_arn="arn", cluster="default", family="web", revision=1, containers=(container,))
    return TaskRecord(id=TaskId(f"{number:032x}"), cluster="default", spec=spec, created_at=1.0, launch_type="EC2")


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
def state(journal: MemoryJournal) -> State:
    return State(journal)


def names(state: State) -> list[str]:
    return [record.name for record in state.clusters]


def test_a_transaction_makes_one_commit_of_first_and_last_state(state: State, journal: MemoryJournal) -> None:
    with state.transaction() as transaction:
        transaction.put(cluster("a"))
        transaction.put(cluster("a", status="INACTIVE"))
        transaction.put(cluster("b"))
        transaction.delete(cluster("b"))
        transaction.tell(task(1).id, LINE)
    (commit,) = journal.commits
    assert commit.revision == state.revision == 1
    assert commit.changes == (Change("cluster", "a", None, cluster("a", status="INACTIVE")),)
    assert commit.stories == ((task(1).id, LINE),)


def test_an_exception_undoes_everything(state: State, journal: MemoryJournal) -> None:
    with state.transaction() as transaction:
        transaction.put(cluster("a"))
        transaction.put(cluster("b"))
    with suppress(Boom), state.transaction() as transaction:
        transaction.put(cluster("a", status="INACTIVE"))
        transaction.delete(cluster("b"))
        transaction.put(cluster("c"))
        transaction.put(task(1))
        transaction.tell(task(1).id, LINE)
        raise Boom
    assert list(state.clusters) == [cluster("a"), cluster("b")]
    assert len(state.tasks) == 0
    assert state.revision == 1
    with state.transaction():
        pass
    assert len(journal.commits) == 1


def test_a_nested_transaction_joins_the_outer_one(state: State, journal: MemoryJournal) -> None:
    with state.transaction() as outer:
        outer.put(cluster("a"))
        with state.transaction() as inner:
            inner.put(cluster("b"))
        assert journal.commits == []
    assert [change.key for change in journal.commits[0].changes] == ["a", "b"]


def test_a_nested_transaction_that_raises_is_undone_alone(state: State, journal: MemoryJournal) -> None:
    with state.transaction() as outer:
        outer.put(cluster("a"))
        outer.tell(task(1).id, LINE)
        with suppress(Boom), state.transaction() as inner:
            inner.put(cluster("a", status="INACTIVE"))
            inner.put(cluster("b"))
            inner.tell(task(2).id, LINE)
            inner.archive(task(2))
            raise Boom
        outer.put(cluster("c"))
    assert list(state.clusters) == [cluster("a"), cluster("c")]
    (commit,) = journal.commits
    assert commit.stories == ((task(1).id, LINE),)
    assert commit.archive == ()


def test_an_outer_transaction_that_raises_undoes_the_nested_one(state: State) -> None:
    with suppress(Boom), state.transaction():
        with state.transaction() as inner:
            inner.put(cluster("b"))
        raise Boom
    assert names(state) == []


def test_what_changes_nothing_writes_nothing(state: State, journal: MemoryJournal) -> None:
    with state.transaction() as transaction:
        transaction.put(cluster("a"))
    with state.transaction() as transaction:
        transaction.put(cluster("a"))
        transaction.delete(cluster("never there"))
        transaction.put(cluster("a", status="INACTIVE"))
        transaction.put(cluster("a"))
    assert len(journal.commits) == 1
    assert state.revision == 1


def test_archiving_a_task_that_is_not_in_memory_is_kept(state: State, journal: MemoryJournal) -> None:
    with state.transaction() as transaction:
        transaction.archive(task(1))
    assert journal.commits[0].archive == (task(1),)


def test_a_journal_that_refuses_undoes_the_transaction(state: State, journal: MemoryJournal) -> None:
    with state.transaction() as transaction:
        transaction.put(cluster("a"))
    journal.fail("disk full")
    with state.snapshot_and_watch() as watch:
        with pytest.raises(JournalError), state.transaction() as transaction:
            transaction.put(cluster("b"))
        assert watch.pending == 0
    assert names(state) == ["a"]
    assert state.revision == 1


def test_after_an_exception_the_next_transaction_is_independent(state: State, journal: MemoryJournal) -> None:
    with suppress(Boom), state.transaction() as transaction:
        transaction.put(cluster("a"))
        raise Boom
    with state.transaction() as transaction:
        transaction.put(cluster("b"))
    assert [change.key for change in journal.commits[0].changes] == ["b"]


def test_a_task_is_counted_by_status_without_a_scan(state: State) -> None:
    record = task(1)
    with state.transaction() as transaction:
        transaction.put(record)
        transaction.put(task(2))
    assert state.tasks.tally("status_desired") == {(record.status, record.desired): 2}
    with state.transaction() as transaction:
        transaction.delete(record)
        transaction.put(msgspec.structs.replace(task(2), tags={"a": "b"}))
    assert state.tasks.tally("status_desired") == {(record.status, record.desired): 1}
    with state.transaction() as transaction:
        transaction.delete(task(2))
    assert state.tasks.tally("status_desired") == {}
