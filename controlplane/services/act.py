"""Carrying out what was decided for a service: placements, wishes of tasks, records, events. One transaction.

What can't be known when deciding is found here: whether a host has room (`starting`). What couldn't be placed is told
in an event, in ECS's words, and returned (`Blocked`), so that the next decision may choose another way, such as
stopping first. Where thousands of tasks are to start, what is too much for one turn is returned, too.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from controlplane.context import Context
from controlplane.events.notes import ServiceEvent, ServiceFacts
from controlplane.scheduling.filters import FITNESS, first_refusal
from controlplane.scheduling.model import candidate_of
from controlplane.services import budget, events
from controlplane.services.model import (
    Action,
    Adopt,
    Blocked,
    Decision,
    DropTaskSet,
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
from controlplane.services.starting import Starter
from controlplane.state.records import TaskRecord
from controlplane.state.state import Transaction
from homeport.ids import TaskId, new_uuid
from homeport.reasons import trim
from homeport.spec import Resources
from homeport.status import Actor, DesiredStatus, StopCode
from homeport.story import StoryLine

__all__ = ["Acted", "act"]

#: Tasks named in one event; there may be thousands.
_MAX_NAMED: Final = 10
_PUTS: Final = (PutService, PutDeployment, PutTaskSet)
#: Tasks whose ids an event in the stream carries: their ARNs are far less than EventBridge's 256 KB.
_MAX_TASKS: Final = 1000
#: Events that give no reason in ECS: their name says it all.
_PLAIN: Final = frozenset(
    {
        ServiceEvent.STEADY_STATE,
        ServiceEvent.TASK_SET_STEADY_STATE,
        ServiceEvent.TASK_START_IMPAIRED,
        ServiceEvent.TASKS_STARTED,
        ServiceEvent.TASKS_STOPPED,
    }
)


class Acted(NamedTuple):
    """What is to be known of a decision that was carried out."""

    #: What kept tasks from being placed; None if nothing did.
    blocked: Blocked | None
    #: What remains to be started, in turns to come.
    left: tuple[Start, ...] = ()


def act(context: Context, snapshot: Snapshot, decision: Decision) -> Acted:
    """Carry out a decision that was made of `snapshot` in this same turn, or what is left of it."""
    with context.state.transaction() as transaction:
        return _Act(context, snapshot, transaction).carry_out(decision)


class _Act:
    """One decision being carried out."""

    def __init__(self, context: Context, snapshot: Snapshot, transaction: Transaction) -> None:
        self._context = context
        self._state = context.state
        self._service = snapshot.service
        self._under_way = {each.id for each in snapshot.deployments if each.finished_at is None}
        self._transaction = transaction
        self._now = context.clock.now()
        self._starter = Starter(context, snapshot, transaction)
        self._stopped: list[TaskId] = []
        #: Deployment -> the phases of tasks that are to be added to its budget.
        self._times: defaultdict[str, list[tuple[TaskRecord, Sequence[str]]]] = defaultdict(list)

    def carry_out(self, decision: Decision) -> Acted:
        # Records first: what is done below adds to them.
        for action in sorted(decision.actions, key=lambda action: not isinstance(action, _PUTS)):
            self._do(action)
        self._say_which(ServiceEvent.TASKS_STARTED, "has started {count} tasks: {tasks}.", self._starter.started)
        self._say_which(ServiceEvent.TASKS_STOPPED, "has stopped {count} running tasks: {tasks}.", self._stopped)
        if (unplaced := self._starter.unplaced_event()) is not None:
            self._say(unplaced)
        self._account()
        self._tell_ends()
        return Acted(self._starter.blocked, tuple(self._starter.left))

    def _do(self, action: Action) -> None:
        match action:
            case Start():
                self._starter.start(action)
            case Stop():
                self._stop(action)
            case Release():
                self._release(action)
            case Settle():
                self._settle(self._task(action.task_id))
            case MarkHealthy():
                self._mark_healthy(self._task(action.task_id), action.at)
            case Lose():
                self._lose(self._task(action.task_id))
            case Return():
                self._return(self._task(action.task_id))
            case Adopt():
                self._put(replace(self._task(action.task_id), started_by=action.deployment))
            case PutService():
                self._service = action.service
                self._transaction.put(action.service)
            case PutDeployment():
                self._transaction.put(action.deployment)
            case PutTaskSet():
                self._transaction.put(action.task_set)
            case DropTaskSet():
                if (task_set := self._state.task_sets.get(action.task_set_id)) is not None:
                    self._transaction.delete(task_set)
            case Say():
                self._say(action)

    def _tell_ends(self) -> None:
        """Tell in the service's history how the deployments that are over now ended, and where their time went."""
        for deployment in map(self._state.deployments.get, sorted(self._under_way)):
            if deployment is not None and deployment.finished_at is not None:
                line = StoryLine(
                    at=self._now, event="deployment-ended", message=budget.summary(deployment), actor="service"
                )
                self._transaction.tell(TaskId(self._service.id), line)

    # ------------------------------------------------------------ tasks

    def _task(self, task_id: TaskId) -> TaskRecord:
        task = self._state.tasks.get(task_id)
        assert task is not None, "it was in the snapshot, in this same turn"
        return task

    def _put(self, task: TaskRecord) -> None:
        self._transaction.put(replace(task, version=task.version + 1))

    def _tell(self, task: TaskRecord, event: str, message: str) -> None:
        line = StoryLine(at=self._now, event=event, message=message, actor=Actor.SCHEDULER.value)
        self._transaction.tell(task.id, line)

    def _stop(self, action: Stop) -> None:
        task = self._task(action.task_id)
        if task.desired is DesiredStatus.STOPPED:
            return
        self._put_stopping(task, action.reason, action.stop_code)
        self._stopped.append(task.id)

    def _put_stopping(self, task: TaskRecord, reason: str, stop_code: StopCode) -> None:
        self._tell(task, "stop-requested", f"The scheduler of service {self._service.name}: {trim(reason)}")
        self._put(
            replace(
                task,
                desired=DesiredStatus.STOPPED,
                stop_code=task.stop_code or stop_code,
                stopped_reason=task.stopped_reason or trim(reason),
                stopping_at=task.stopping_at or self._now,
            )
        )

    def _release(self, action: Release) -> None:
        """Let a prepared task start if its host still has the room that the other one left."""
        task = self._task(action.task_id)
        order = self._starter.order(task.started_by)
        instance = None if task.instance_id is None else self._state.instances.get(task.instance_id)
        if order is None or instance is None:
            self._put_stopping(task, "What the task is made by is gone.", StopCode.SERVICE_SCHEDULER_INITIATED)
            return
        resources = Resources.of_task(task.spec)
        refusal = first_refusal(
            candidate_of(self._state, instance), replace(order.demand, resources=resources), FITNESS
        )
        if refusal is not None:
            reason = f"The task was prepared, but can't be started: {refusal.detail}"
            self._put_stopping(task, reason, StopCode.SERVICE_SCHEDULER_INITIATED)
            return
        self._tell(task, "released", f"The task it replaces, {task.replaces}, has stopped; this one may start")
        self._put(replace(task, desired=DesiredStatus.RUNNING, resources=resources, released_at=self._now))

    def _settle(self, task: TaskRecord) -> None:
        self._transaction.put(replace(task, settled=True))
        if task.stop_code is StopCode.SERVICE_SCHEDULER_INITIATED and self._service.deployments:
            # The time it took to go is part of the deployment that had it go.
            self._times[self._service.deployments[0]].append((task, budget.DRAIN))

    def _mark_healthy(self, task: TaskRecord, at: float) -> None:
        healthy = replace(task, healthy_at=at)
        self._transaction.put(healthy)
        self._tell(task, "healthy", f"The task counts as healthy: {budget.phases_text(healthy)}")
        self._times[task.started_by].append((healthy, budget.TO_HEALTHY))

    def _account(self) -> None:
        for deployment_id, times in self._times.items():
            deployment = self._state.deployments.get(deployment_id)
            # What completes a deployment is part of it, too.
            if deployment is not None and (deployment.finished_at is None or deployment_id in self._under_way):
                for task, phases in times:
                    deployment = budget.with_task(deployment, task, phases)
                self._transaction.put(deployment)

    def _lose(self, task: TaskRecord) -> None:
        stopped = task.spec.isolation_kill_s is not None
        meanwhile = "its host has stopped it by itself by now" if stopped else "it may be running there"
        self._tell(task, "lost", f"Its host has not been heard of for too long. The task is replaced; {meanwhile}")
        self._put(replace(task, lost_at=self._now))

    def _return(self, task: TaskRecord) -> None:
        self._tell(task, "returned", "Its host is back, and the task has run on there")
        self._put(replace(task, lost_at=None))

    # ------------------------------------------------------------ events

    def _say(self, said: Say) -> None:
        events.say(
            self._state,
            self._transaction,
            self._service,
            said.message,
            event_id=new_uuid(self._context.random),
            now=self._now,
            facts=None if said.event is None else self._facts(said, said.event),
        )
        if said.event is ServiceEvent.STEADY_STATE and (providers := self._capacity_providers()):
            steady = ServiceEvent.CAPACITY_PROVIDER_STEADY_STATE
            self._transaction.emit(ServiceFacts(event=steady, service=self._service.key, capacity_providers=providers))

    def _facts(self, said: Say, event: ServiceEvent) -> ServiceFacts:
        return ServiceFacts(
            event=event,
            service=self._service.key,
            reason=said.reason or ("" if event in _PLAIN else said.message),
            capacity_providers=self._capacity_providers() if event is ServiceEvent.TASK_PLACEMENT_FAILURE else (),
            instances=said.instances,
            tasks=said.tasks[:_MAX_TASKS],
            task_sets=said.task_sets,
        )

    def _capacity_providers(self) -> tuple[str, ...]:
        """The capacity providers that the PRIMARY deployment's tasks are placed by."""
        deployment = self._state.deployments.get(self._service.deployments[0]) if self._service.deployments else None
        revision = None if deployment is None else self._state.revisions.get(deployment.revision)
        strategy = () if revision is None else revision.document.get("capacityProviderStrategy") or ()
        return tuple(item["capacityProvider"] for item in strategy)

    def _say_which(self, event: ServiceEvent, pattern: str, task_ids: Sequence[TaskId]) -> None:
        if not task_ids:
            return
        named = " ".join(f"(task {task_id})" for task_id in task_ids[:_MAX_NAMED])
        if len(task_ids) > _MAX_NAMED:
            named += f" and {len(task_ids) - _MAX_NAMED} more"
        self._say(Say(message=pattern.format(count=len(task_ids), tasks=named), event=event, tasks=tuple(task_ids)))
