"""The journal seam: what the state needs of a durable store. `sqlite.py` is the one that comes with Homeport."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from controlplane.events.notes import Note, StoredEvent
from controlplane.state.records import Record, TaskRecord
from homeport.ids import TaskId
from homeport.story import StoryLine

__all__ = ["Change", "Commit", "Journal"]


class Change(msgspec.Struct, frozen=True, gc=False):
    """One record put (`new` set) or deleted (`new` None)."""

    kind: str
    key: str
    old: Record | None
    new: Record | None


class Commit(msgspec.Struct, frozen=True, gc=False):
    """What one transaction changed, and the revision it made."""

    revision: int
    changes: tuple[Change, ...]
    stories: tuple[tuple[TaskId, StoryLine], ...] = ()
    #: Tasks that leave memory but stay readable in the history.
    archive: tuple[TaskRecord, ...] = ()
    #: What is told of it to those who follow events.
    events: tuple[Note, ...] = ()


class Journal(Protocol):
    """A durable, ordered journal of commits."""

    async def load(self) -> tuple[int, Iterable[Record]]:
        """Return the last durable revision and every record. Called once, before `run`."""
        ...

    def append(self, commit: Commit) -> None:
        """Take a commit into the current batch. Never blocks; the batch is written by `run`."""
        ...

    @property
    def durable_revision(self) -> int:
        """The last revision that would survive kill -9."""
        ...

    async def durable(self, revision: int) -> None:
        """Return once everything up to `revision` would survive kill -9. Raises JournalError if it never will."""
        ...

    async def run(self) -> None:
        """Write batches until cancelled (then write what is pending). Raises JournalError when a write fails."""
        ...

    async def story(self, task_id: TaskId) -> tuple[StoryLine, ...]:
        """Return a task's durable story, oldest first."""
        ...

    async def archived_task(self, task_id: TaskId) -> TaskRecord | None:
        """Return a stopped task that has left memory, or None."""
        ...

    async def archived_tasks(self, prefix: str, *, limit: int) -> tuple[TaskRecord, ...]:
        """Return stopped tasks that have left memory and whose ids begin with `prefix`, by id, `limit` at most."""
        ...

    @property
    def last_event(self) -> int:
        """The number of the last durable event; 0 if there was none. Numbers count up by one."""
        ...

    async def events(self, after: int, *, limit: int) -> Sequence[StoredEvent]:
        """Return the durable events behind number `after` that are still kept, `limit` at most, in order."""
        ...

    async def event_before(self, at: float) -> int:
        """Return the number behind which the events of the epoch second `at` and later are, as far as they are kept.

        `at` -inf: the number before the first that is kept.
        """
        ...

    async def wait_event(self, after: int) -> None:
        """Return once there is a durable event behind number `after`. Raises JournalError if there never will be."""
        ...
