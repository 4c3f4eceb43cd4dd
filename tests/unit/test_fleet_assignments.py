"""Assignment sets: complete ones and increments fold to the same set, whatever happens in between (invariant 5)."""

from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from controlplane.fleet.assignments import Wishes, complete_set, concerns
from controlplane.state.records import TaskRecord
from controlplane.store.api import Change, Commit
from homeport.ids import InstanceId, TaskId
from homeport.protocol import Assignment
from homeport.status import DesiredStatus, TaskStatus
from tests.fakes.agent import fold
from tests.fakes.fleet import a_context, a_task
from tests.fakes.journal import MemoryJournal

HOST = InstanceId("h1")
HOSTS = ("h1", "h1", "h2")
TASKS = tuple(f"t{number}" for number in range(6))

operations = st.lists(
    st.tuples(
        st.sampled_from(("place", "run", "stop", "stopped", "delete", "deliver", "send", "complete")),
        st.sampled_from(TASKS[:2]),
        st.sampled_from(HOSTS),
    ),
    max_size=60,
)


@dataclass
class Model:
    """A host that takes what a session sends it, and a state that changes meanwhile."""

    journal: MemoryJournal = field(default_factory=MemoryJournal)
    held: dict[TaskId, Assignment] = field(default_factory=dict)
    revision: int = -1
    delivered: int = 0
    sets: dict[int, dict[TaskId, DesiredStatus]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.context = a_context(self.journal)
        self.state = self.context.state
        self.wishes = Wishes(HOST)
        self.delivered = len(self.journal.commits)
        self.remember()
        self.send_complete()

    def change(self, action: str, task_id: str, host: str) -> None:
        task = self.state.tasks.get(task_id)
        with self.state.transaction() as transaction:
            if action == "place" and task is None:
                transaction.put(a_task(task_id, host))
            elif task is None:
                return
            elif action == "run":
                transaction.put(replace(task, status=max(task.status, TaskStatus.RUNNING)))
            elif action == "stop":
                transaction.put(replace(task, desired=DesiredStatus.STOPPED))
            elif action == "stopped":
                transaction.put(replace(task, status=TaskStatus.STOPPED, desired=DesiredStatus.STOPPED))
            elif action == "delete" and task.status is TaskStatus.STOPPED:
                transaction.delete(task)
        self.remember()

    def remember(self) -> None:
        """Keep what the host should have at this revision."""
        complete = complete_set(self.state, HOST)
        self.sets[self.state.revision] = wishes_of({entry.task_id: entry for entry in complete.put})

    def deliver(self, commits: int | None = None) -> None:
        """Hand the next commits (None: all there are) to the session, as the hub does once they are durable."""
        end = None if commits is None else self.delivered + commits
        for commit in self.journal.commits[self.delivered : end]:
            self.note(commit)
            self.delivered += 1

    def note(self, commit: Commit) -> None:
        for change in commit.changes:
            if change.kind == "task" and concerns(change) == HOST:
                new = change.new if isinstance(change.new, TaskRecord) else None
                self.wishes.note(commit.revision, TaskId(change.key), new)

    def send_increment(self) -> None:
        increment = self.wishes.increment()
        if increment is None:
            return
        assert increment.base == self.revision
        assert list(increment.put) == sorted(increment.put, key=lambda assignment: assignment.task_id)
        assert increment.revision > self.revision
        self.held = fold(self.held, increment)
        self.revision = increment.revision
        assert wishes_of(self.held) == self.sets[self.revision]

    def send_complete(self) -> None:
        complete = complete_set(self.state, HOST)
        self.wishes.restart(complete)
        self.held = fold(self.held, complete)
        self.revision = complete.revision


def wishes_of(held: dict[TaskId, Assignment]) -> dict[TaskId, DesiredStatus]:
    return {task_id: held[task_id].desired for task_id in sorted(held)}


@settings(max_examples=100, deadline=None)
@given(operations)
@example([(action, "t0", "h1") for action in ("place", "stop", "complete", "deliver", "send")])
def test_complete_sets_and_increments_fold_to_the_same_set(script: list[tuple[str, str, str]]) -> None:
    model = Model()
    for action, task_id, host in script:
        if action == "deliver":
            model.deliver(1)
        elif action == "send":
            model.send_increment()
        elif action == "complete":
            model.send_complete()
        else:
            model.change(action, task_id, host)
    model.deliver()
    model.send_increment()
    complete = complete_set(model.state, HOST)
    assert wishes_of(model.held) == wishes_of({entry.task_id: entry for entry in complete.put})
    assert model.wishes.increment() is None


def test_equal_states_give_equal_sets() -> None:
    one, other = a_context(), a_context()
    for context, order in ((one, TASKS), (other, tuple(reversed(TASKS)))):
        with context.state.transaction() as transaction:
            for task_id in order:
                transaction.put(a_task(task_id, HOST))
            transaction.put(replace(a_task(TASKS[2], HOST), status=TaskStatus.RUNNING))
    assert complete_set(one.state, HOST) == complete_set(other.state, HOST)
    assert [entry.task_id for entry in complete_set(one.state, HOST).put] == list(TASKS)


def test_a_complete_set_says_how_far_a_task_is_known_and_why_it_is_to_stop() -> None:
    context = a_context()
    with context.state.transaction() as transaction:
        transaction.put(
            replace(
                a_task("t1", HOST), status=TaskStatus.RUNNING, desired=DesiredStatus.STOPPED, stopped_reason="because"
            )
        )
        transaction.put(replace(a_task("t2", HOST), status=TaskStatus.STOPPED))
        transaction.put(a_task("t3", "h2"))
    (only,) = complete_set(context.state, HOST).put
    assert (only.task_id, only.known, only.stop_reason) == ("t1", TaskStatus.RUNNING, "because")


def test_what_a_host_reports_is_no_news_to_it() -> None:
    placed = a_task("t1", HOST)
    running = replace(placed, status=TaskStatus.RUNNING)
    stopped = replace(running, status=TaskStatus.STOPPED, desired=DesiredStatus.STOPPED)
    unplaced = replace(placed, instance_id=None, status=TaskStatus.PROVISIONING)
    assert concerns(Change("task", "t1", None, placed)) == HOST
    assert concerns(Change("task", "t1", unplaced, placed)) == HOST
    assert concerns(Change("task", "t1", placed, running)) is None
    assert concerns(Change("task", "t1", running, stopped)) == HOST
    assert concerns(Change("task", "t1", stopped, replace(stopped, version=9))) is None
    assert concerns(Change("task", "t1", stopped, None)) is None
    assert concerns(Change("task", "t1", running, None)) == HOST
