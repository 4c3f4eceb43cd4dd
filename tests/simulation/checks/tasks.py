"""Invariants 2, 3, 7 and 10 of tasks, in each commit: they only advance, along edges that have an owner; none changes
its host; no end is invented; each has a reason and a story; none is run without having been asked for.
"""

from typing import Final

from controlplane.state.records import IdempotencyRecord, InstanceRecord, TaskRecord
from controlplane.state.service_records import ServiceRecord
from controlplane.state.validate import validate_commit, validate_task
from controlplane.store.api import Commit
from homeport.status import TASK_EDGES, DesiredStatus, TaskStatus
from tests.simulation.checks.history import History
from tests.simulation.checks.violation import Violation

__all__ = ["ADVANCE", "IDEMPOTENT", "INVENTED", "REASON", "RETRY", "Tasks"]

ADVANCE: Final = "statuses advance, hosts stay (2, 3)"
INVENTED: Final = "no end is invented (7)"
REASON: Final = "each end has a reason (10)"
IDEMPOTENT: Final = "same token, same tasks"
RETRY: Final = "retried once"


class Tasks:
    """Checks the changes of tasks. Incremental: costs as much as has changed."""

    def __init__(self, history: History) -> None:
        self._history = history
        #: `startedBy` of a request -> how many tasks it has made, other attempts left out.
        self._made: dict[str, int] = {}
        #: Task -> the attempt after it.
        self._retries: dict[str, str] = {}

    def reset(self) -> None:
        """Begin anew from the history, after a restart."""
        tasks = [*self._history.tasks.values(), *self._history.archived.values()]
        self._made = {}
        self._retries = {}
        for task in tasks:
            self._note(task)

    def commit(self, commit: Commit) -> None:
        """Check one commit. The history has followed it already."""
        try:
            validate_commit(commit)
        except AssertionError as error:
            raise Violation(ADVANCE, str(error)) from error
        told = {task_id for task_id, _ in commit.stories}
        for change in commit.changes:
            old, new = change.old, change.new
            if isinstance(new, TaskRecord):
                assert old is None or isinstance(old, TaskRecord)
                self._check(old, new)
                self._check_told(old, new, new.id in told)
                if old is None:
                    self._note(new)
            elif isinstance(old, TaskRecord):
                self._check_gone(old, commit)
            if isinstance(new, IdempotencyRecord):
                self._check_token(old, new)

    # ------------------------------------------------------------ one task

    def _check(self, old: TaskRecord | None, new: TaskRecord) -> None:
        try:
            validate_task(new)
        except AssertionError as error:
            raise Violation(ADVANCE, str(error)) from error
        if old is None:
            return
        edge = (old.status, new.status)
        if old.status is not new.status and edge not in TASK_EDGES and new.status is not TaskStatus.STOPPED:
            raise Violation(ADVANCE, f"task {new.id} went from {old.status.name} to {new.status.name}")
        if old.settled and not new.settled:
            raise Violation(ADVANCE, f"the end of task {new.id} is to be counted again")
        if new.settled and new.status is not TaskStatus.STOPPED and new.lost_at is None:
            raise Violation(ADVANCE, f"the end of task {new.id} is counted, but it is {new.status.name}")
        if new.status is TaskStatus.STOPPED:
            self._check_end(old, new)

    def _check_end(self, old: TaskRecord, new: TaskRecord) -> None:
        if not new.stopped_reason:
            raise Violation(REASON, f"task {new.id} is STOPPED without a reason")
        known = {container.name: container.exit_code for container in new.containers}
        for container in old.containers:
            if old.status is TaskStatus.STOPPED and container.exit_code not in (None, known.get(container.name)):
                raise Violation(
                    "exit codes stay (6)",
                    f"container {container.name} of task {new.id} ended with {container.exit_code}, and now with "
                    f"{known.get(container.name)}",
                )
        reported = new.reported_seq > old.reported_seq
        if old.status is TaskStatus.STOPPED or reported or old.instance_id is None:
            return
        instance = self._history.get(InstanceRecord, old.instance_id)
        if instance is not None and instance.status != "INACTIVE":
            raise Violation(INVENTED, f"task {new.id} is STOPPED, but its host {instance.id} hasn't said so")

    def _check_told(self, old: TaskRecord | None, new: TaskRecord, told: bool) -> None:
        """A task's beginning, its placement, and each wish for its end are in its story."""
        asked = new.desired is DesiredStatus.STOPPED and (old is None or old.desired is not DesiredStatus.STOPPED)
        by_itself = old is not None and new.reported_seq > old.reported_seq
        placed = old is not None and old.instance_id != new.instance_id
        if (old is None or placed or (asked and not by_itself)) and not told:
            raise Violation(REASON, f"nothing is told of task {new.id} having been made, placed or asked to stop")
        if asked and not new.stopped_reason:
            raise Violation(REASON, f"task {new.id} is to stop without a reason")

    def _check_gone(self, old: TaskRecord, commit: Commit) -> None:
        if old not in commit.archive:
            raise Violation("nothing is lost", f"task {old.id} was deleted, and is not in the history")
        if old.status is not TaskStatus.STOPPED:
            raise Violation("nothing is lost", f"task {old.id} left memory while it was {old.status.name}")

    # ------------------------------------------------------------ tasks together

    def _note(self, task: TaskRecord) -> None:
        order = task.order
        if order is not None and order.retry_of is not None:
            other = self._retries.setdefault(order.retry_of, task.id)
            if other != task.id:
                raise Violation(RETRY, f"task {order.retry_of} is run again as {other} and as {task.id}")
        elif task.started_by.startswith("run-"):
            self._made[task.started_by] = self._made.get(task.started_by, 0) + 1

    def made_by(self, started_by: str) -> int:
        """Return how many tasks have been made for a request, other attempts left out."""
        return self._made.get(started_by, 0)

    def _check_token(self, old: object, new: IdempotencyRecord) -> None:
        if not isinstance(old, IdempotencyRecord) or new.result == old.result:
            return
        active = {service.id for service in self._history.all(ServiceRecord) if service.status == "ACTIVE"}
        # A service that was deleted may be created again under its token, as it may under its name.
        if new.operation != "CreateService" or active.intersection(old.result):
            raise Violation(IDEMPOTENT, f"{new.key} made {old.result}, and now {new.result}")
