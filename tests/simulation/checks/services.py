"""What holds of services and deployments, in each commit: the bounds of maximumPercent and minimumHealthyPercent at the
moment of our own starts and stops, deployments that end once and with a reason, failures counted once, silence that
lasted long enough before a task was replaced.

The words for tasks (live, healthy, occupying) and the bounds are the product's own (`census`, `bounds`), so that there
is one meaning of them; who is counted, and when, is found here by other means.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Final

from msgspec.structs import replace

from controlplane.services.deciding import census
from controlplane.services.deciding.bounds import bounds_of
from controlplane.services.timing import timing_of
from controlplane.state.records import InstanceRecord, TaskRecord
from controlplane.state.service_records import SERVICE_GROUP, DeploymentRecord, RolloutState, ServiceRecord
from controlplane.state.state import State
from controlplane.state.validate import validate_service
from controlplane.store.api import Change, Commit
from homeport.status import DesiredStatus, StopCode
from tests.simulation.checks.history import History
from tests.simulation.checks.violation import Violation

__all__ = ["BOUNDS", "COUNTED_ONCE", "DEPLOYMENT", "GRACE", "ONE_PER_HOST", "SERVICE", "Services"]

BOUNDS: Final = "starts and stops keep within the bounds"
COUNTED_ONCE: Final = "failures are counted once"
DEPLOYMENT: Final = "a deployment ends once, with a reason"
GRACE: Final = "tasks are replaced after a grace (7)"
ONE_PER_HOST: Final = "a DAEMON has one task on a host"
SERVICE: Final = "what a service names is there"

_Key = tuple[str, str]


class Services:
    """Checks services, their deployments and their tasks. Incremental: looks at the services that a commit concerns."""

    def __init__(self, history: History, monotonic: Callable[[], float]) -> None:
        self._history = history
        self._monotonic = monotonic
        self._tasks: dict[_Key, dict[str, TaskRecord]] = defaultdict(dict)
        self._state: State | None = None

    def reset(self, state: State) -> None:
        """Begin anew from the history, after a restart. `state`: of the new process."""
        self._state = state
        self._tasks.clear()
        for task in self._history.tasks.values():
            self._follow(task)

    def commit(self, commit: Commit) -> None:
        """Check one commit. The history has followed it already."""
        touched: dict[_Key, list[tuple[TaskRecord | None, TaskRecord]]] = defaultdict(list)
        named = set()
        for change in commit.changes:
            old, new = change.old, change.new
            if isinstance(new, TaskRecord) and new.group.startswith(SERVICE_GROUP):
                assert old is None or isinstance(old, TaskRecord)
                self._follow(new)
                touched[new.cluster, new.group].append((old, new))
                if new.lost_at is not None and (old is None or old.lost_at is None):
                    self._check_grace(new)
            elif isinstance(old, TaskRecord):
                self._tasks[old.cluster, old.group].pop(old.id, None)
            elif isinstance(new, DeploymentRecord):
                named.add(new.service)
                self._check_deployment(change, new, commit)
            elif isinstance(new, ServiceRecord):
                named.add(new.key)
        for key in named:
            self._check_names(key)
        for (cluster, group), changes in touched.items():
            service = self._history.get(ServiceRecord, f"{cluster}/{group.removeprefix(SERVICE_GROUP)}")
            self._check_tasks(service, (cluster, group), changes)

    def tasks_of(self, service: ServiceRecord) -> Iterable[TaskRecord]:
        """Return the service's tasks whose end isn't settled."""
        return self._tasks[service.cluster, service.group].values()

    def _follow(self, task: TaskRecord) -> None:
        if not task.group.startswith(SERVICE_GROUP):
            return
        tasks = self._tasks[task.cluster, task.group]
        if task.settled:
            tasks.pop(task.id, None)
        else:
            tasks[task.id] = task

    # ------------------------------------------------------------ starts and stops

    def _check_tasks(
        self, service: ServiceRecord | None, key: _Key, changes: list[tuple[TaskRecord | None, TaskRecord]]
    ) -> None:
        started = [new for old, new in changes if _starts(old, new)]
        made = [new for old, new in changes if old is None]
        if made and (service is None or service.status != "ACTIVE"):
            raise Violation(SERVICE, f"task {made[0].id} was made for {key[1]}, which isn't ACTIVE")
        if service is None:
            return
        for task in made:
            if task.started_by not in service.deployments:
                raise Violation(
                    SERVICE, f"task {task.id} of {service.name} belongs to {task.started_by}, not a live one"
                )
        if service.scheduling_strategy == "DAEMON":
            self._check_daemons(service, started)
            return
        stopped = [(old, new) for old, new in changes if old is not None and _stops(old, new)]
        bounds = bounds_of(service, service.desired_count)
        if started:
            occupied = sum(census.occupies(task) and not _only_prepared(task) for task in self.tasks_of(service))
            if occupied > bounds.upper:
                raise Violation(
                    BOUNDS, f"{service.name} starts {len(started)} tasks and then has {occupied} of {bounds.upper}"
                )
        if stopped and service.status == "ACTIVE":
            self._check_lower(service, bounds.lower, stopped)

    def _check_lower(self, service: ServiceRecord, lower: int, stopped: list[tuple[TaskRecord, TaskRecord]]) -> None:
        if "minimumHealthyPercent" not in service.given:
            # A default gives way by one where the service's own tasks are in the way of their successors.
            lower = min(lower, max(0, service.desired_count - 1))
        wanted = [replace(new, desired=old.desired) for old, new in stopped]
        counted = [task for task in wanted if _counts(task)]
        forced = sum(map(self._is_forced, counted))
        left = sum(map(_counts, self.tasks_of(service)))
        if len(counted) > forced and left < min(lower, left + len(counted) - forced):
            raise Violation(
                BOUNDS,
                f"{service.name} stops {len(counted)} healthy tasks, {forced} by force, and is left with {left}, "
                f"but has to keep {lower}",
            )

    def _is_forced(self, task: TaskRecord) -> bool:
        """Whether the time for it to leave its draining host is over, whatever the bounds."""
        instance = self._history.get(InstanceRecord, task.instance_id)
        return instance is not None and instance.status == "DRAINING" and instance.drain_deadline_at is not None

    def _check_daemons(self, service: ServiceRecord, started: list[TaskRecord]) -> None:
        start_first = service.deployment_configuration.get("maximumPercent", 100) > 100
        on_hosts = Counter(task.instance_id for task in self.tasks_of(service) if census.occupies(task))
        for task in started:
            if on_hosts[task.instance_id] > (2 if start_first else 1):
                raise Violation(
                    ONE_PER_HOST, f"{service.name} has {on_hosts[task.instance_id]} tasks on {task.instance_id}"
                )

    def _check_grace(self, task: TaskRecord) -> None:
        """A lost task's host has been silent for at least the time that its service gives it."""
        assert self._state is not None
        assert task.lost_at is not None
        assert task.instance_id is not None
        service = self._history.get(ServiceRecord, f"{task.cluster}/{task.group.removeprefix(SERVICE_GROUP)}")
        instance = self._history.get(InstanceRecord, task.instance_id)
        if service is None or instance is None or instance.status == "INACTIVE":
            return
        presence = self._state.presence.of(task.instance_id)
        if presence is None:
            return  # not since this process started, which has waited as long as for any other
        silent_s = self._monotonic() - presence.heard_at
        if presence.connected or silent_s < timing_of(service.tags).lost_after_s:
            raise Violation(GRACE, f"task {task.id} is replaced after {silent_s:.1f} s of its host's silence")

    # ------------------------------------------------------------ services and deployments

    def _check_names(self, key: str) -> None:
        assert self._state is not None
        service = self._history.get(ServiceRecord, key)
        if service is None:
            return
        try:
            validate_service(self._state, service)
        except AssertionError as error:
            raise Violation(SERVICE, str(error)) from error

    def _check_deployment(self, change: Change, new: DeploymentRecord, commit: Commit) -> None:
        over = new.rollout is not RolloutState.IN_PROGRESS
        if new.rollout is RolloutState.FAILED and not new.rollout_reason:
            raise Violation(DEPLOYMENT, f"{new.id} FAILED without a reason")
        if over and new.finished_at is None and new.rollback_at is None:
            raise Violation(DEPLOYMENT, f"{new.id} is {new.rollout} and yet has no end")
        old = change.old
        if not isinstance(old, DeploymentRecord):
            return
        if old.rollout is not new.rollout and old.rollout is not RolloutState.IN_PROGRESS:
            raise Violation(DEPLOYMENT, f"{new.id} was {old.rollout} and is {new.rollout}")
        ends = sum(
            isinstance(each.new, TaskRecord)
            and each.new.settled
            and not (isinstance(each.old, TaskRecord) and each.old.settled)
            and each.new.started_by == new.id
            for each in commit.changes
        )
        if new.failed_tasks - old.failed_tasks > ends:
            raise Violation(
                COUNTED_ONCE, f"{new.id} counts {old.failed_tasks}, then {new.failed_tasks} failures, at {ends} ends"
            )


def _only_prepared(task: TaskRecord) -> bool:
    """Whether nothing of it ever ran or will: it was made to take another's place, and wasn't released."""
    return task.replaces is not None and task.released_at is None


def _starts(old: TaskRecord | None, new: TaskRecord) -> bool:
    """Whether a task is let run by this change."""
    return new.desired is DesiredStatus.RUNNING and (old is None or old.desired is DesiredStatus.PENDING)


def _stops(old: TaskRecord, new: TaskRecord) -> bool:
    """Whether the service's reconciler asks for the task's end by this change."""
    return (
        old.desired is not DesiredStatus.STOPPED
        and new.desired is DesiredStatus.STOPPED
        and new.stop_code is StopCode.SERVICE_SCHEDULER_INITIATED
        and new.reported_seq == old.reported_seq
    )


def _counts(task: TaskRecord) -> bool:
    """Whether it counts towards minimumHealthyPercent."""
    return census.is_live(task) and census.looks_healthy(task)
