"""A journal in memory, behind the same seam as SQLite's. What it has taken is durable at once, unless a test holds it.

journal = MemoryJournal()
state = State(journal)
journal.hold()            # from here on commits are taken, but not durable
journal.release()         # everything held becomes durable; whoever waits goes on
journal.release(7)        # only up to revision 7
journal.fail()            # what is held never becomes durable: waiters and `run` get a JournalError
MemoryJournal.restarted(journal)  # what a new process would find: the durable commits alone
"""

import asyncio
from collections.abc import Iterable, Sequence

from controlplane.events.notes import StoredEvent
from controlplane.state.records import Record, TaskRecord
from controlplane.store.api import Commit
from controlplane.store.documents import encode
from homeport.clock import Clock, SystemClock
from homeport.errors import JournalError
from homeport.ids import TaskId
from homeport.story import StoryLine

__all__ = ["MemoryJournal"]


class MemoryJournal:
    """See the module. Constructed with what `load` is to return; the clock tells when events are."""

    def __init__(self, records: Iterable[Record] = (), *, revision: int = 0, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.last_event = 0
        self._events: list[StoredEvent] = []
        self._news = asyncio.Event()
        self.commits: list[Commit] = []
        self.durable_revision = revision
        self._records: dict[tuple[str, str], Record] = {(record.kind, record.key): record for record in records}
        self._stories: dict[TaskId, list[StoryLine]] = {}
        self._archive: dict[TaskId, TaskRecord] = {}
        self._holding = False
        self._held: list[Commit] = []
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._failure: JournalError | None = None
        self._failed = asyncio.Event()

    @classmethod
    def restarted(cls, other: "MemoryJournal") -> "MemoryJournal":
        """Return the journal that a process finds after the one with `other` was killed."""
        journal = cls(other._records.values(), revision=other.durable_revision, clock=other.clock)
        journal._events, journal.last_event = list(other._events), other.last_event
        journal._stories = {task_id: list(lines) for task_id, lines in other._stories.items()}
        journal._archive = dict(other._archive)
        return journal

    # ------------------------------------------------------------ the seam

    async def load(self) -> tuple[int, Iterable[Record]]:
        """See Journal."""
        return self.durable_revision, tuple(self._records.values())

    def append(self, commit: Commit) -> None:
        """See Journal."""
        if self._failure is not None:
            raise self._failure
        self.commits.append(commit)
        self._held.append(commit)
        if not self._holding:
            self.release()

    async def durable(self, revision: int) -> None:
        """See Journal."""
        if revision <= self.durable_revision:
            return
        if self._failure is not None:
            raise self._failure
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append((revision, waiter))
        await waiter

    async def run(self) -> None:
        """See Journal."""
        await self._failed.wait()
        assert self._failure is not None
        raise self._failure

    async def story(self, task_id: TaskId) -> tuple[StoryLine, ...]:
        """See Journal."""
        return tuple(self._stories.get(task_id, ()))

    async def archived_task(self, task_id: TaskId) -> TaskRecord | None:
        """See Journal."""
        return self._archive.get(task_id)

    async def archived_tasks(self, prefix: str, *, limit: int) -> tuple[TaskRecord, ...]:
        """See Journal."""
        found = sorted(task_id for task_id in self._archive if task_id.startswith(prefix))
        return tuple(self._archive[task_id] for task_id in found[:limit])

    async def events(self, after: int, *, limit: int) -> Sequence[StoredEvent]:
        """See Journal."""
        return [event for event in self._events if event.number > after][:limit]

    async def event_before(self, at: float) -> int:
        """See Journal."""
        return next((event.number - 1 for event in self._events if event.at >= at), self.last_event)

    async def wait_event(self, after: int) -> None:
        """See Journal."""
        while self.last_event <= after:
            if self._failure is not None:
                raise self._failure
            await self._news.wait()

    # ------------------------------------------------------------ what a test does

    def forget_events(self, through: int) -> None:
        """Forget the events up to a number, as retention does."""
        self._events = [event for event in self._events if event.number > through]

    @property
    def waiting(self) -> int:
        """How many callers of `durable` are waiting."""
        return sum(not waiter.done() for _, waiter in self._waiters)

    def hold(self) -> None:
        """Take commits from here on without making them durable."""
        self._holding = True

    def release(self, revision: int | None = None) -> None:
        """Make what is held durable, up to `revision` or, with None, all of it; the latter also ends `hold`."""
        if revision is None:
            self._holding = False
        while self._held and (revision is None or self._held[0].revision <= revision):
            self._store(self._held.pop(0))
        waiting, self._waiters = self._waiters, []
        for wanted, waiter in waiting:
            if wanted > self.durable_revision:
                self._waiters.append((wanted, waiter))
            elif not waiter.done():
                waiter.set_result(None)

    def fail(self, message: str = "disk I/O error") -> None:
        """Fail every write from here on, and what is held."""
        self._failure = JournalError(message)
        self._failed.set()
        self._news.set()
        for _, waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(self._failure)
        self._waiters.clear()

    def _store(self, commit: Commit) -> None:
        for change in commit.changes:
            if change.new is None:
                self._records.pop((change.kind, change.key), None)
            else:
                self._records[change.kind, change.key] = change.new
        for task_id, line in commit.stories:
            self._stories.setdefault(task_id, []).append(line)
        for task in commit.archive:
            self._archive[task.id] = task
        for note in commit.events:
            self.last_event += 1
            record = None if note.change is None else commit.changes[note.change].new
            body = b"" if record is None else encode(record)
            event = StoredEvent(self.last_event, self.clock.now(), note.kind.value, body, encode(note.facts))
            self._events.append(event)
        if commit.events:
            self._news.set()
            self._news = asyncio.Event()
        self.durable_revision = commit.revision
