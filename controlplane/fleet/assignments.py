"""A host's assignment set: its tasks that aren't STOPPED; complete, or as what changed since an earlier one.

What always holds (invariant 5): a complete set, and any earlier set with the increments since folded into it, hold the
same tasks with the same wishes, in the same order. `known` and the story of a wish (`stop_reason`) ride along as they
were when the assignment was sent; they are no reason to send it again.
"""

from dataclasses import dataclass, field

from controlplane.state.records import TaskRecord
from controlplane.state.state import State
from controlplane.store.api import Change
from homeport.ids import InstanceId, TaskId
from homeport.protocol import Assignment, Assignments
from homeport.status import DesiredStatus, TaskStatus

__all__ = ["Wishes", "assigned", "assignment_of", "complete_set", "concerns"]


def assigned(task: TaskRecord | None, instance_id: InstanceId) -> bool:
    """Tell whether the task belongs into the set of this host."""
    return task is not None and task.instance_id == instance_id and task.status is not TaskStatus.STOPPED


def assignment_of(task: TaskRecord) -> Assignment:
    """Render a task as its host is told of it."""
    stopping = task.desired is DesiredStatus.STOPPED
    return Assignment(
        task_id=task.id,
        desired=task.desired,
        spec=task.spec,
        known=task.status,
        stop_reason=(task.stopped_reason or "") if stopping else "",
    )


def complete_set(state: State, instance_id: InstanceId) -> Assignments:
    """Return everything this host should have at the present revision, ordered by task id.

    It must not leave the process before that revision is durable. Costs as much as the host has tasks.
    """
    where = state.tasks.where
    tasks = [task for phase in ("pending", "running") for task in where("instance_phase", (instance_id, phase))]
    tasks.sort(key=lambda task: task.id)
    return Assignments(revision=state.revision, put=tuple(assignment_of(task) for task in tasks))


def concerns(change: Change) -> InstanceId | None:
    """Return the host whose assignment set this change of a task changes, if any.

    Progress that the host itself has reported isn't news to it; only what is wished of it is, and the end of a task.
    """
    old, new = change.old, change.new
    if isinstance(new, TaskRecord):
        if new.instance_id is None:
            return None
        if isinstance(old, TaskRecord) and old.instance_id == new.instance_id:
            ended = new.status is TaskStatus.STOPPED and old.status is not TaskStatus.STOPPED
            return new.instance_id if ended or new.desired is not old.desired else None
        return new.instance_id
    return old.instance_id if isinstance(old, TaskRecord) and old.status is not TaskStatus.STOPPED else None


@dataclass(slots=True)
class Wishes:
    """What one session has told its host, and what it has yet to tell; so that only differences travel.

    Fed with durable changes only, so whatever it returns from `increment` may leave the process at once.
    """

    instance_id: InstanceId
    #: The revision of the set that the host holds once it has taken everything sent; -1 before the first.
    revision: int = -1
    _told: dict[TaskId, DesiredStatus] = field(default_factory=dict)
    _news: dict[TaskId, TaskRecord | None] = field(default_factory=dict)
    _news_revision: int = -1

    def restart(self, complete: Assignments) -> None:
        """Begin anew with a complete set that is about to be sent.

        It was read from memory, which is never behind what is durable: so all news noted until now is in it.
        """
        self.revision = complete.revision
        self._told = {assignment.task_id: assignment.desired for assignment in complete.put}
        self._news.clear()

    def note(self, revision: int, task_id: TaskId, task: TaskRecord | None) -> None:
        """Take in what a durable commit made of a task of the host's (None: it was deleted)."""
        if revision > self.revision:
            self._news[task_id] = task
            self._news_revision = revision

    @property
    def has_news(self) -> bool:
        """Whether `increment` has something to say."""
        return bool(self._news)

    def increment(self) -> Assignments | None:
        """Return what changed since the last set, ordered by task id, and count it as told; None if nothing did."""
        put: list[Assignment] = []
        remove: list[TaskId] = []
        for task_id in sorted(self._news):
            task = self._news[task_id]
            if task is not None and assigned(task, self.instance_id):
                if self._told.get(task_id) is not task.desired:
                    put.append(assignment_of(task))
                    self._told[task_id] = task.desired
            elif self._told.pop(task_id, None) is not None:
                remove.append(task_id)
        self._news.clear()
        if not put and not remove:
            return None
        base, self.revision = self.revision, self._news_revision
        return Assignments(revision=self.revision, base=base, put=tuple(put), remove=tuple(remove))
