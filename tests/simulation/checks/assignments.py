"""Invariant 5: complete assignment sets and increments fold to the same set, which is what the control plane wants.

Each frame that leaves is folded as an agent folds it, and held against what the history says is wished of the host at
that frame's revision. Beside it: what a host was ever told, so that nothing runs anywhere which nobody asked for (9),
and that no host is told to run what may run once, after it was given up there.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from controlplane.fleet.assignments import assigned
from controlplane.state.records import TaskRecord
from controlplane.store.api import Commit
from homeport.ids import InstanceId, TaskId
from homeport.protocol import Assignments
from homeport.status import DesiredStatus
from tests.simulation.checks.history import DURABLE, History
from tests.simulation.checks.violation import Violation

__all__ = ["FOLD", "GIVEN_UP", "Sets"]

FOLD: Final = "sets and increments fold to the same (5)"
GIVEN_UP: Final = "what may run once isn't wanted where it was given up"

_Wish = DesiredStatus | None


@dataclass
class _Host:
    """One host: how its wishes changed, and what it was told."""

    #: (revision, task, wish; None: not assigned any more), in order.
    changes: list[tuple[int, TaskId, _Wish]] = field(default_factory=list)
    #: The set as wished at the revision of the last frame, and how many of the changes are in it.
    wished: dict[TaskId, DesiredStatus] = field(default_factory=dict)
    taken: int = 0
    #: The set as the host has it if nothing is lost, and its revision.
    folded: dict[TaskId, DesiredStatus] = field(default_factory=dict)
    revision: int = -1
    #: The most that it was ever told to do with a task.
    ever: dict[TaskId, set[DesiredStatus]] = field(default_factory=lambda: defaultdict(set))

    def wished_at(self, revision: int) -> dict[TaskId, DesiredStatus]:
        """Return the set wished at a revision. Cheap as long as revisions grow."""
        if self.taken and self.changes[self.taken - 1][0] > revision:
            self.taken, self.wished = 0, {}
        while self.taken < len(self.changes) and self.changes[self.taken][0] <= revision:
            _, task_id, wish = self.changes[self.taken]
            if wish is None:
                self.wished.pop(task_id, None)
            else:
                self.wished[task_id] = wish
            self.taken += 1
        return self.wished


class Sets:
    """Checks the assignment sets that leave the control plane."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._hosts: dict[InstanceId, _Host] = defaultdict(_Host)
        #: Tasks that stop when isolated and were lost -> the revision by which they were.
        self._given_up: dict[TaskId, int] = {}

    def reset(self) -> None:
        """Go back to the history's revision, after a restart. What hosts were told stays told."""
        for host in self._hosts.values():
            while host.changes and host.changes[-1][0] > self._history.revision:
                host.changes.pop()
            host.taken, host.wished = 0, {}
            host.folded, host.revision = {}, -1
        self._given_up = {
            task_id: revision for task_id, revision in self._given_up.items() if revision <= self._history.revision
        }

    def commit(self, commit: Commit) -> None:
        """Follow what a commit changes of the hosts' sets."""
        for change in commit.changes:
            old, new = change.old, change.new
            if not isinstance(old, TaskRecord | None) or not isinstance(new, TaskRecord | None):
                continue
            if old is not None and old.instance_id is not None and not assigned(new, old.instance_id):
                self._hosts[old.instance_id].changes.append((commit.revision, old.id, None))
            if new is not None and new.instance_id is not None and assigned(new, new.instance_id):
                self._hosts[new.instance_id].changes.append((commit.revision, new.id, new.desired))
            if new is not None and new.lost_at is not None and new.spec.isolation_kill_s is not None:
                self._given_up.setdefault(new.id, commit.revision)

    def frame(self, instance_id: InstanceId, frame: Assignments) -> None:
        """Check a set or increment that leaves the control plane."""
        host = self._hosts[instance_id]
        if frame.revision > self._history.revision:
            raise Violation(
                DURABLE, f"a set of revision {frame.revision} was sent; {self._history.revision} is the last"
            )
        if frame.base is None:
            host.folded = {}
        elif frame.base != host.revision:
            raise Violation(FOLD, f"an increment on {frame.base} was sent to a host that has {host.revision}")
        for assignment in frame.put:
            host.folded[assignment.task_id] = assignment.desired
            host.ever[assignment.task_id].add(assignment.desired)
            given_up = self._given_up.get(assignment.task_id, frame.revision + 1) <= frame.revision
            if given_up and assignment.desired is DesiredStatus.RUNNING:
                raise Violation(
                    GIVEN_UP, f"host {instance_id} is told to run task {assignment.task_id}, which was lost with it"
                )
        for task_id in frame.remove:
            host.folded.pop(task_id, None)
        host.revision = frame.revision
        if host.folded != host.wished_at(frame.revision):
            raise Violation(
                FOLD,
                f"at revision {frame.revision} host {instance_id} is told {_shown(host.folded)}, "
                f"but the state wishes {_shown(host.wished)}",
            )

    def ever_told(self, instance_id: InstanceId, task_id: TaskId) -> set[DesiredStatus]:
        """Return what a host was ever told to do with a task; empty if it was never told of it."""
        return self._hosts[instance_id].ever.get(task_id, set())

    def wished(self, instance_id: InstanceId) -> dict[TaskId, DesiredStatus]:
        """Return the set that is wished of a host now."""
        return dict(self._hosts[instance_id].wished_at(self._history.revision))


def _shown(wishes: dict[TaskId, DesiredStatus]) -> str:
    return ", ".join(f"{task_id[:8]} {wish.name}" for task_id, wish in sorted(wishes.items())) or "nothing"
