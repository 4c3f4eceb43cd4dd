"""Any commits, crashes and restarts: whoever follows sees each durable change once, in order, and none that is lost."""

import asyncio
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from controlplane.events.feed import JournalFeed
from controlplane.state.state import State, load_state
from homeport.status import DesiredStatus, TaskStatus
from tests.fakes.journal import MemoryJournal
from tests.fakes.records import ARNS, a_task

#: What is told of a task: its id and version.
Told = tuple[str, int]


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


class EventMachine(RuleBasedStateMachine):
    """The model: what each commit should tell, whether it became durable, and what the reader has seen."""

    @initialize()
    def begin(self) -> None:
        self.journal = MemoryJournal()
        self.state = State(self.journal)
        self.feed = JournalFeed(self.journal, ARNS)
        #: (revision, what it tells) of the commits that are not durable.
        self.pending: list[tuple[int, list[Told]]] = []
        self.durable: list[Told] = []
        self.seen: list[Told] = []
        self.cursor = 0
        self.names = 0

    # ------------------------------------------------------------ changes

    @rule(count=st.integers(1, 4), stops=st.lists(st.integers(0, 50), max_size=3), touches=st.integers(0, 2))
    def commit(self, count: int, stops: list[int], touches: int) -> None:
        """New tasks, tasks that stop, and changes that nobody can see, in one transaction."""
        tells: dict[str, int] = {}
        with self.state.transaction() as transaction:
            tasks = list(self.state.tasks)
            for place in stops:
                if tasks and (task := tasks[place % len(tasks)]).status is not TaskStatus.STOPPED:
                    stopped = replace(
                        task,
                        status=TaskStatus.STOPPED,
                        desired=DesiredStatus.STOPPED,
                        stopped_at=1.0,
                        version=task.version + 1,
                    )
                    if task.id not in tells:
                        transaction.put(stopped)
                        tells[task.id] = stopped.version
            for task in tasks[:touches]:
                if task.id not in tells:
                    transaction.put(replace(task, wanted_at=float(self.state.revision)))
            for _ in range(count):
                self.names += 1
                task = a_task(f"{self.names:06}", status=TaskStatus.PROVISIONING)
                transaction.put(task)
                tells[task.id] = task.version
        # A commit tells its changes in the order in which they were first made.
        self._committed(tells)

    @rule()
    def commit_nothing_to_be_seen(self) -> None:
        with self.state.transaction() as transaction:
            for task in list(self.state.tasks)[:1]:
                transaction.put(replace(task, wanted_at=0.5 + self.state.revision))

    @rule()
    def fail(self) -> None:
        """A transaction that raises tells nothing."""
        try:
            with self.state.transaction() as transaction:
                transaction.put(a_task("undone", status=TaskStatus.PROVISIONING))
                raise RuntimeError
        except RuntimeError:
            pass

    def _committed(self, tells: dict[str, int]) -> None:
        self.pending.append((self.state.revision, list(tells.items())))
        if not self.journal._holding:
            self._became_durable(self.state.revision)

    def _became_durable(self, revision: int) -> None:
        while self.pending and self.pending[0][0] <= revision:
            self.durable += self.pending.pop(0)[1]

    # ------------------------------------------------------------ durability

    @rule()
    def hold(self) -> None:
        self.journal.hold()

    @rule()
    def release_all(self) -> None:
        self.journal.release()
        self._became_durable(self.state.revision)

    @precondition(lambda self: self.pending)
    @rule(how_many=st.integers(1, 3))
    def release_some(self, how_many: int) -> None:
        revision = self.pending[min(how_many, len(self.pending)) - 1][0]
        self.journal.release(revision)
        self._became_durable(revision)

    @rule()
    def crash(self) -> None:
        """kill -9, and a new process on what was durable. The reader comes back with the number it had."""
        self.journal = MemoryJournal.restarted(self.journal)
        self.state = run(load_state(self.journal))
        self.feed = JournalFeed(self.journal, ARNS)
        self.pending.clear()

    # ------------------------------------------------------------ the reader

    @rule(limit=st.integers(1, 5), pages=st.integers(1, 10))
    def read(self, limit: int, pages: int) -> None:
        for _ in range(pages):
            page = run(self.feed.read(self.cursor, limit=limit))
            for number, document, _ in page:
                assert number == self.cursor + 1, "numbers count up by one"
                self.cursor = number
                detail = document["detail"]
                self.seen.append((detail["taskArn"].rpartition("/")[2], detail["version"]))

    @invariant()
    def what_was_seen_is_what_was_durable(self) -> None:
        assert self.seen == self.durable[: len(self.seen)]
        assert self.feed.last == len(self.durable)

    def teardown(self) -> None:
        """In the end the reader has everything, and a new one reads the same."""
        if hasattr(self, "feed"):
            self.read(limit=100, pages=1 + len(self.durable) // 100)
            assert self.seen == self.durable
            ids = [document["id"] for _, document, _ in run(self.feed.read(0, limit=1000))]
            assert len(set(ids)) == len(ids)


EventMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestEvents = EventMachine.TestCase
