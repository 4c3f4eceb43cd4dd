"""A service whose tasks keep on ending doesn't keep its hosts busy: starts are delayed ever more."""

from collections import defaultdict, deque
from typing import Final

from controlplane.services.deciding.failures import LASTED_S
from controlplane.state.records import InstanceRecord, TaskRecord
from controlplane.state.service_records import SERVICE_GROUP, ServiceRecord
from controlplane.store.api import Commit
from homeport.status import TaskStatus
from tests.simulation.checks.history import History
from tests.simulation.checks.violation import Violation

__all__ = ["PACE", "Pace"]

PACE: Final = "crash loops are delayed"

_WINDOW_S: Final = 60.0
#: Three rounds are free, and the delays of a minute, 1 + 2 + 4 ... s, let six more pass; hosts that go and people who
#: stop tasks have theirs replaced beside that.
_ROUNDS: Final = 12
_BESIDE: Final = 20


class Pace:
    """Counts the tasks that are made for each deployment or task set within a minute."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._made: defaultdict[str, deque[float]] = defaultdict(deque)
        #: Deployment -> its tasks that are known as RUNNING, and since when.
        self._running: defaultdict[str, dict[str, float]] = defaultdict(dict)

    def commit(self, commit: Commit, now: float) -> None:
        """Follow a commit made at a second of the world's."""
        for change in commit.changes:
            task = change.new
            if not isinstance(task, TaskRecord) or not task.group.startswith(SERVICE_GROUP):
                continue
            running = self._running[task.started_by]
            if any(since <= now - LASTED_S for since in running.values()):
                # One has lasted, or seemed to where events were lost: what fails after it has its free rounds again.
                self._made[task.started_by].clear()
            if task.status is not TaskStatus.RUNNING:
                running.pop(task.id, None)
            else:
                running.setdefault(task.id, now)
            if change.old is None:
                self._note(task, now)

    def _note(self, task: TaskRecord, now: float) -> None:
        made = self._made[task.started_by]
        made.append(now)
        while made[0] < now - _WINDOW_S:
            made.popleft()
        name = task.group.removeprefix(SERVICE_GROUP)
        services = [s for s in self._history.all(ServiceRecord) if s.cluster == task.cluster and s.name == name]
        places = max([s.desired_count for s in services] + [sum(1 for _ in self._history.all(InstanceRecord))])
        if len(made) > _ROUNDS * places + _BESIDE:
            raise Violation(PACE, f"{len(made)} tasks of {places} places were made for {task.started_by} in a minute")
