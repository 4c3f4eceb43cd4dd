"""The decision while it is being made: the snapshot, what was changed of it so far, and the actions.

A `Draft` is the only thing in this package that changes while deciding, and lives no longer than one call of `decide`.
Each verb notes an action and shows its effect to what is decided after it.
"""

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from msgspec.structs import replace

from controlplane.events.notes import ServiceEvent
from controlplane.fleet.liveness import HostVerdict
from controlplane.services.deciding import census
from controlplane.services.deciding.backoff import next_try_at
from controlplane.services.model import (
    Action,
    Adopt,
    Decision,
    DropTaskSet,
    Host,
    Lose,
    MarkHealthy,
    PutDeployment,
    PutService,
    PutTaskSet,
    Release,
    Return,
    Say,
    Settle,
    Snapshot,
    Start,
    Stop,
)
from controlplane.state.records import TaskRecord
from controlplane.state.service_records import DeploymentRecord, ServiceRecord, TaskSetRecord
from homeport.ids import InstanceId, TaskId
from homeport.status import DesiredStatus, TaskStatus

__all__ = ["Draft"]

_R = TypeVar("_R", DeploymentRecord, TaskSetRecord)

#: What is thought of a host that the snapshot doesn't name: nothing bad, and nothing is started there.
_UNNAMED: Final = Host(id=InstanceId(""), verdict=HostVerdict.CONNECTED, open=False)


class Draft:
    """See the module. `now`: epoch seconds."""

    def __init__(self, snapshot: Snapshot, now: float) -> None:
        self.snapshot = snapshot
        self.now = now
        self.timing = snapshot.timing
        self.service: ServiceRecord = snapshot.service
        self.tasks: dict[TaskId, TaskRecord] = {task.id: task for task in snapshot.tasks}
        self.deployments: dict[str, DeploymentRecord] = {d.id: d for d in snapshot.deployments}
        self.task_sets: dict[str, TaskSetRecord] = {s.id: s for s in snapshot.task_sets}
        #: Deciding ends no task, so these don't change.
        self._present = [task.id for task in snapshot.tasks if task.status is not TaskStatus.STOPPED]
        #: Tasks whose host has returned in this decision.
        self.returned: set[TaskId] = set()
        #: When the earliest of the tasks that are settled in this decision ended: what replaces them was wanted then.
        self.dead_at: float | None = None
        self._actions: list[Action] = []
        self._wake_at: float | None = None
        self._healthy: dict[TaskId, bool] = {}
        self._grace_s = float(snapshot.service.settings.get("healthCheckGracePeriodSeconds") or 0)

    # ------------------------------------------------------------ what is seen

    @property
    def primary(self) -> DeploymentRecord | None:
        """The PRIMARY deployment."""
        return self.deployments.get(self.service.deployments[0]) if self.service.deployments else None

    def host(self, task: TaskRecord) -> Host:
        """Return the task's host."""
        return self.snapshot.hosts.get(task.instance_id, _UNNAMED) if task.instance_id else _UNNAMED

    def select(self, what: Callable[[TaskRecord], bool]) -> list[TaskRecord]:
        """Return the tasks, as they are by now, of which `what` is true."""
        return [task for task in self.tasks.values() if what(task)]

    def present(self) -> list[TaskRecord]:
        """Return the tasks, as they are by now, whose end isn't reported."""
        tasks = self.tasks
        return [tasks[task_id] for task_id in self._present]

    def healthy(self, task: TaskRecord) -> bool:
        """Whether it counts towards minimumHealthyPercent."""
        known = self._healthy.get(task.id)
        if known is None:
            known = self._healthy[task.id] = census.looks_healthy(task) and census.is_live(task)
        return known

    def healthy_of(self, owner: str) -> int:
        """Return how many healthy tasks a deployment has."""
        return len([task for task in self.present() if task.started_by == owner and self.healthy(task)])

    def unhealthy(self, task: TaskRecord) -> bool:
        """Whether its health checks have failed, and healthCheckGracePeriodSeconds is over."""
        # What is healthy is known already, and most are: asking the rest alone makes a look at thousands cheaper.
        if self.healthy(task) or not census.is_sick(task):
            return False
        return self.elapsed(task.running_at or task.created_at, self._grace_s)

    def protected(self, task: TaskRecord) -> bool:
        """Whether scale-in protection forbids to stop it. Asks to be woken when it ends."""
        if not census.is_protected(task, self.now):
            return False
        self.wake(task.protected_until)
        return True

    def elapsed(self, since: float, wait_s: float) -> bool:
        """Whether so many seconds have passed since a moment of the past. Asks to be woken when they will have.

        If that moment lies ahead, the clock was set back since: it counts as long ago, as waiting for the clock to be
        there again would take as much longer as it was set back.
        """
        self.wake(since + wait_s)
        return not since <= self.now < since + wait_s

    def backed_off(self, owner: DeploymentRecord | TaskSetRecord) -> bool:
        """Whether the owner's failures allow another start by now. Asks to be woken when they will."""
        at = next_try_at(owner, self.now)
        self.wake(at)
        return at is None

    # ------------------------------------------------------------ what is wanted

    def wake(self, at: float | None) -> None:
        """Look again at `at`, or earlier. A time that is past asks for nothing."""
        if at is not None and at > self.now and (self._wake_at is None or at < self._wake_at):
            self._wake_at = at

    def again(self) -> None:
        """Look again at once: what follows from this decision needs a new snapshot."""
        self._wake_at = self.now

    def start(self, start: Start) -> None:
        """Start tasks."""
        self._actions.append(start)

    def stop(self, task: TaskRecord, reason: str) -> None:
        """Stop a task, unless that is asked for already."""
        if task.desired is DesiredStatus.STOPPED:
            return
        self._change(replace(task, desired=DesiredStatus.STOPPED), Stop(task_id=task.id, reason=reason))

    def release(self, task: TaskRecord) -> None:
        """Let a prepared task start."""
        self._change(replace(task, desired=DesiredStatus.RUNNING), Release(task_id=task.id))

    def settle(self, task: TaskRecord) -> None:
        """The end of a task is taken into account."""
        ended = task.execution_stopped_at or task.stopped_at
        if ended is not None:
            self.dead_at = ended if self.dead_at is None else min(self.dead_at, ended)
        self._change(replace(task, settled=True), Settle(task_id=task.id))

    def mark_healthy(self, task: TaskRecord, at: float) -> None:
        """The task counts as healthy from `at` on."""
        self._change(replace(task, healthy_at=at), MarkHealthy(task_id=task.id, at=at))

    def lose(self, task: TaskRecord) -> None:
        """The task's host has been silent for too long."""
        self._change(replace(task, lost_at=self.now), Lose(task_id=task.id))

    def take_back(self, task: TaskRecord) -> None:
        """The host of a lost task has returned."""
        self.returned.add(task.id)
        self._change(replace(task, lost_at=None), Return(task_id=task.id))

    def adopt(self, task: TaskRecord, deployment: str) -> None:
        """The task belongs to another deployment from now on."""
        self._change(replace(task, started_by=deployment), Adopt(task_id=task.id, deployment=deployment))

    def say(
        self,
        event: ServiceEvent | None,
        message: str,
        *,
        instances: Iterable[str] = (),
        tasks: Iterable[str] = (),
        task_sets: Iterable[str] = (),
    ) -> None:
        """Give a service event. See Say."""
        self._actions.append(
            Say(
                message=message,
                event=event,
                instances=tuple(instances),
                tasks=tuple(tasks),
                task_sets=tuple(task_sets),
            )
        )

    def drop_task_set(self, task_set: TaskSetRecord) -> None:
        """A deleted task set is gone."""
        del self.task_sets[task_set.id]
        self._actions.append(DropTaskSet(task_set_id=task_set.id))

    def put(self, deployment: DeploymentRecord) -> None:
        """The deployment as it is from now on."""
        self.deployments[deployment.id] = deployment

    def put_service(self, service: ServiceRecord) -> None:
        """The service as it is from now on."""
        self.service = service

    def put_task_set(self, task_set: TaskSetRecord) -> None:
        """The task set as it is from now on."""
        self.task_sets[task_set.id] = task_set

    def decision(self) -> Decision:
        """Return what was decided: records first, since the other actions may name what is new in them."""
        before = {d.id: d for d in self.snapshot.deployments}
        sets_before = {s.id: s for s in self.snapshot.task_sets}
        puts: list[Action] = [
            PutDeployment(deployment=d if d.updated_at >= self.now else replace(d, updated_at=self.now))
            for d in _changed(self.deployments.values(), before)
        ]
        if self.service != self.snapshot.service:
            puts.append(PutService(service=self.service))
        puts += [PutTaskSet(task_set=s) for s in _changed(self.task_sets.values(), sets_before)]
        return Decision(actions=(*puts, *self._actions), wake_at=self._wake_at)

    def _change(self, task: TaskRecord, action: Action) -> None:
        self.tasks[task.id] = task
        self._healthy.pop(task.id, None)
        self._actions.append(action)


def _changed(now: Iterable[_R], before: dict[str, _R]) -> list[_R]:
    return [record for record in now if before.get(record.key) != record]
