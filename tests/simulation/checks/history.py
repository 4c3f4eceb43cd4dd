"""Invariant 1: whatever has left the process was durable, and what is durable is a beginning of what was committed.

The history follows every commit beside the state, by its own means. When a control plane starts again, what it has
loaded must be what the history was at that revision, record by record, and no earlier than what was told to anybody.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final, TypeVar

from controlplane.state.records import Record, TaskRecord
from controlplane.state.state import State
from controlplane.store.api import Commit
from homeport.ids import TaskId
from tests.simulation.checks.violation import Violation

__all__ = ["DURABLE", "History"]

R = TypeVar("R", bound=Record)

DURABLE: Final = "durable before told (1)"


class History:
    """All records as they are after the last commit, and how they came to be so.

    The other checks read it: it doesn't depend on the state's own tables, indexes and sums.
    """

    def __init__(self) -> None:
        self.revision = 0
        #: kind -> key -> record.
        self.records: dict[str, dict[str, Record]] = defaultdict(dict)
        #: Tasks that have left memory for the journal's history.
        self.archived: dict[TaskId, TaskRecord] = {}
        self._commits: list[Commit] = []
        #: The newest revision that anybody outside was told from, and what it was told.
        self._told = 0
        self._told_what = "nothing"

    @property
    def tasks(self) -> dict[str, TaskRecord]:
        """The tasks by their id."""
        return self.records[TaskRecord.kind]  # type: ignore[return-value]

    def get(self, kind: type[R], key: str | None) -> R | None:
        """Return a record; None if there is none (any more)."""
        return None if key is None else self.records[kind.kind].get(key)  # type: ignore[return-value]

    def all(self, kind: type[R]) -> Iterator[R]:
        """Yield the records of a kind."""
        yield from self.records[kind.kind].values()  # type: ignore[misc]

    def since(self, revision: int) -> list[Commit]:
        """Return the commits behind a revision."""
        return [commit for commit in self._commits[-max(1, self.revision - revision) :] if commit.revision > revision]

    def commit(self, commit: Commit) -> None:
        """Follow a commit that has just been made."""
        if commit.revision != self.revision + 1:
            raise Violation(DURABLE, f"revision {commit.revision} follows revision {self.revision}")
        for change in commit.changes:
            before = self.records[change.kind].get(change.key)
            if before is not change.old and before != change.old:
                raise Violation(
                    DURABLE, f"revision {commit.revision} replaces a {change.kind} {change.key} unlike it is"
                )
            self._put(change.kind, change.key, change.new)
        self.revision = commit.revision
        self.archived.update((task.id, task) for task in commit.archive)
        self._commits.append(commit)

    def told(self, revision: int, what: str, durable: int) -> None:
        """Something which was derived from `revision` leaves the control plane; `durable` is the last durable one."""
        if revision > durable:
            raise Violation(DURABLE, f"{what} tells of revision {revision}, and only {durable} is durable")
        if revision > self._told:
            self._told, self._told_what = revision, what

    def acknowledged(self, seqs: Mapping[TaskId, int], durable: int) -> None:
        """Acks of reports leave the control plane: a report that would be lost now isn't repeated any more."""
        for commit in reversed(self._commits):
            if commit.revision <= durable:
                return
            for change in commit.changes:
                old = change.old.reported_seq if isinstance(change.old, TaskRecord) else 0
                if old < seqs.get(TaskId(change.key), 0):
                    raise Violation(
                        DURABLE,
                        f"report {seqs[TaskId(change.key)]} of task {change.key} is acknowledged, which made revision "
                        f"{commit.revision}, and only {durable} is durable",
                    )

    def loaded(self, state: State) -> None:
        """Compare what a starting control plane has loaded, and go back to its revision."""
        if state.revision > self.revision:
            raise Violation(DURABLE, f"revision {state.revision} was loaded, but {self.revision} was the last one made")
        if state.revision < self._told:
            raise Violation(
                DURABLE,
                f"{self._told_what} was told of revision {self._told}, but after a restart there is {state.revision}",
            )
        while self.revision > state.revision:
            self._undo(self._commits.pop())
        found = 0
        for table in state.tables:
            for record in table:
                found += 1
                if self.records[record.kind].get(record.key) != record:
                    raise Violation(DURABLE, f"a {record.kind} {record.key} was loaded unlike it was written: {record}")
        kept = sum(map(len, self.records.values()))
        if kept != found:
            raise Violation(DURABLE, f"{kept} records were written up to revision {state.revision}, {found} loaded")

    def _undo(self, commit: Commit) -> None:
        for change in commit.changes:
            self._put(change.kind, change.key, change.old)
        for task in commit.archive:
            del self.archived[task.id]
        self.revision = commit.revision - 1

    def _put(self, kind: str, key: str, record: Record | None) -> None:
        if record is None:
            self.records[kind].pop(key, None)
        else:
            self.records[kind][key] = record
