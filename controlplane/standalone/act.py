"""Carrying out what was decided about standalone tasks: stops, placements, new attempts. One transaction.

A new attempt and the mark on the task that failed are written together, so that a failure leads to one attempt and no
second one, wherever the process dies.
"""

from collections.abc import Iterable
from typing import Final

import structlog
from msgspec.structs import replace

from controlplane.api.ecs.capacity_providers import provider_constraints
from controlplane.api.ecs.launch import Launch, Launcher, placed_line
from controlplane.api.ecs.placement import demand_of
from controlplane.api.errors import ApiError
from controlplane.context import Context
from controlplane.scheduling.filters import unfit
from controlplane.scheduling.language import QueryError
from controlplane.scheduling.model import Candidate, Demand, candidate_of
from controlplane.scheduling.sentences import counts_sentence
from controlplane.standalone.model import Decision, GiveUp, Place, Retry, Settle, Stop, Wait
from controlplane.standalone.stops import asked_to_stop
from controlplane.standalone.tags import ATTEMPT, RETRY_OF
from controlplane.state.records import TaskDefinitionRecord, TaskOrder, TaskRecord
from controlplane.state.state import Transaction
from homeport.ids import TaskId
from homeport.reasons import LOST_WHEN_ISOLATED, RETRIED_WHILE_LOST, trim
from homeport.spec import Resources
from homeport.status import Actor, DesiredStatus, StopCode, TaskStatus, check_edge
from homeport.story import StoryLine

__all__ = ["TURNS_PER_REVISION", "act", "first_turn"]

_log: Final = structlog.get_logger(__name__)

#: Turns given out at one revision of the state; RunTask starts 10 tasks at most.
TURNS_PER_REVISION: Final = 16

_DEFINITION_GONE: Final = "The task definition {name} does not exist any more"


def first_turn(context: Context) -> int:
    """Return a place in the order of arrival that is behind all given out before this turn of the event loop."""
    return context.state.revision * TURNS_PER_REVISION


def act(context: Context, decision: Decision) -> bool:
    """Carry out a decision made in this same turn. Tell whether a task that was to be placed found no host."""
    if not decision.actions:
        return False
    with context.state.transaction() as transaction:
        act = _Act(context, transaction)
        for action in decision.actions:
            match action:
                case Stop():
                    act.stop(action)
                case Place():
                    act.place(action)
                case Wait():
                    act.wait(action.task_id, action.reason)
                case Retry():
                    act.retry(action)
                case GiveUp():
                    act.give_up(action)
                case Settle():
                    act.settle(action.task_id, action.why)
        return act.blocked


class _Act:
    """The actions of one decision."""

    def __init__(self, context: Context, transaction: Transaction) -> None:
        self.blocked = False
        self._context = context
        self._state = context.state
        self._transaction = transaction
        self._now = context.clock.now()
        self._turn = first_turn(context)

    def _task(self, task_id: TaskId) -> tuple[TaskRecord, TaskOrder]:
        task = self._state.tasks.get(task_id)
        assert task is not None, "it was in the snapshot, in this same turn"
        assert task.order is not None, "only tasks with an order are decided about"
        return task, task.order

    def _tell(self, task_id: TaskId, event: str, message: str) -> None:
        line = StoryLine(at=self._now, event=event, message=trim(message), actor=Actor.SCHEDULER.value)
        self._transaction.tell(task_id, line)

    def _definition(self, task: TaskRecord) -> TaskDefinitionRecord | None:
        return self._state.task_definitions.get(f"{task.spec.family}:{task.spec.revision}")

    # ------------------------------------------------------------ stopping

    def stop(self, action: Stop) -> None:
        task, _ = self._task(action.task_id)
        self._transaction.put(asked_to_stop(task, action.reason, action.stop_code, self._now))
        self._tell(task.id, "stop-requested", action.reason)

    def give_up(self, action: GiveUp) -> None:
        """Free the task's group. It holds its resources until its host says that it has stopped."""
        task, order = self._task(action.task_id)
        reason = LOST_WHEN_ISOLATED.format(lost_after_s=order.lost_after_s)
        self._transaction.put(replace(self._wished_stopped(task, reason), lost_at=self._now, settled=True))
        self._tell(task.id, "lost", reason)

    def _wished_stopped(self, task: TaskRecord, reason: str) -> TaskRecord:
        if task.desired is DesiredStatus.STOPPED:
            return replace(task, version=task.version + 1)
        return asked_to_stop(task, reason, None, self._now)

    def settle(self, task_id: TaskId, why: str) -> None:
        task, _ = self._task(task_id)
        self._transaction.put(replace(task, settled=True))
        if why:
            self._tell(task_id, "not-retried", why)

    # ------------------------------------------------------------ waiting and placing

    def wait(self, task_id: TaskId, reason: str) -> None:
        task, order = self._task(task_id)
        if order.waits_for != reason:
            self._transaction.put(replace(task, order=replace(order, waits_for=reason)))
            self._tell(task_id, "waiting", reason)

    def place(self, action: Place) -> None:
        task, order = self._task(action.task_id)
        definition = self._definition(task)
        if definition is None:
            reason = _DEFINITION_GONE.format(name=f"{task.spec.family}:{task.spec.revision}")
            self.stop(Stop(task.id, reason, StopCode.TASK_FAILED_TO_START))
            return
        try:
            found = self._found(task, order, definition)
        except (ApiError, QueryError) as error:
            # Whoever changes what a capacity provider's hosts are may get it wrong, and mend it.
            found = f"The task can't be placed: {error}"
        if isinstance(found, str):
            self.blocked = True
            self.wait(task.id, found)
        else:
            candidate, why = found
            self._put_on(task, order, candidate, why)

    def _found(
        self, task: TaskRecord, order: TaskOrder, definition: TaskDefinitionRecord
    ) -> tuple[Candidate, str] | str:
        """Return a host for a task, and why it was chosen, or why there is none."""
        demand = replace(
            demand_of(
                definition.document,
                Resources.of_task(task.spec),
                group=task.group,
                constraints=order.constraints,
                strategy=order.strategy,
            ),
            avoid=frozenset(order.avoid),
        )
        return self._on_named_host(order, demand) if order.instance_id else self._on_any_host(task, demand)

    def _on_any_host(self, task: TaskRecord, demand: Demand) -> tuple[Candidate, str] | str:
        extra = provider_constraints(self._state, task.capacity_provider)
        demand = replace(demand, constraints=(*demand.constraints, *extra))
        placement = self._context.rankings.place(self._state, task.cluster, demand, 1, self._context.random)
        if not placement.chosen:
            return f"No host can take the task now. {counts_sentence(placement)}"
        instance = self._state.instances.get(placement.chosen[0])
        assert instance is not None, "it was a candidate in this same turn"
        strategy = ", ".join(f"{s.type} {s.field}".strip() for s in demand.strategy)
        candidate = candidate_of(self._state, instance)
        refusal = unfit(candidate, demand)
        if refusal is not None:
            return f"No host can take the task now. {refusal.detail}"
        return candidate, f"chosen by {strategy} among {placement.considered} hosts"

    def _on_named_host(self, order: TaskOrder, demand: Demand) -> tuple[Candidate, str] | str:
        instance = None if order.instance_id is None else self._state.instances.get(order.instance_id)
        if instance is None or instance.status == "INACTIVE":
            return f"The host that was named, {order.instance_id}, is not registered any more"
        candidate = candidate_of(self._state, instance)
        refusal = unfit(candidate, demand)
        if refusal is not None:
            return f"The host that was named can't take the task now: {refusal.detail}"
        return candidate, "the caller named this host"

    def _put_on(self, task: TaskRecord, order: TaskOrder, candidate: Candidate, why: str) -> None:
        resources = Resources.of_task(task.spec)
        check_edge(task.status, TaskStatus.PENDING, Actor.SCHEDULER)
        self._transaction.put(
            replace(
                task,
                status=TaskStatus.PENDING,
                instance_id=candidate.id,
                resources=resources,
                order=replace(order, placed_at=self._now, waits_for=""),
                version=task.version + 1,
            )
        )
        self._transaction.tell(task.id, placed_line(candidate, resources, why, self._now))

    # ------------------------------------------------------------ another attempt

    def retry(self, action: Retry) -> None:
        task, order = self._task(action.task_id)
        attempts = order.retries + 1
        try:
            attempt = self._next_attempt(task, order, action)
        except ApiError as error:
            self.settle(task.id, f"Attempt {order.attempt} of {attempts} failed; no other can be made: {error.message}")
            return
        self._transaction.put(attempt)
        story = (
            f"Attempt {order.attempt + 1} of {attempts}, retry of task {task.id} because {action.why}."
            f" It starts in {action.delay_s:.0f} s"
        )
        self._tell(attempt.id, "accepted", story)
        marked = replace(task, settled=True, order=replace(order, retried_as=attempt.id))
        if action.lost:
            reason = RETRIED_WHILE_LOST.format(lost_after_s=order.lost_after_s, retry=attempt.id)
            marked = replace(self._wished_stopped(marked, reason), lost_at=self._now)
        self._transaction.put(marked)
        why = f"Attempt {order.attempt} of {attempts} failed: {action.why}. It is run again as task {attempt.id}"
        self._tell(task.id, "retried", f"{why} in {action.delay_s:.0f} s")
        _log.info("task is run again", task=task.id, retry=attempt.id, attempt=order.attempt + 1, why=action.why)

    def _next_attempt(self, task: TaskRecord, order: TaskOrder, action: Retry) -> TaskRecord:
        """Make the record of the next attempt, which waits for its time. Raises ApiError if it can't be made."""
        definition = self._definition(task)
        if definition is None:
            raise ApiError(_DEFINITION_GONE.format(name=f"{task.spec.family}:{task.spec.revision}"))
        avoid: Iterable[str] = order.avoid
        if action.avoid and task.instance_id is not None:
            avoid = dict.fromkeys([*order.avoid, task.instance_id])
        self._turn += 1
        launch = Launch(
            operation=order.operation,
            cluster=task.cluster,
            definition=definition,
            launch_type=task.launch_type,
            group=task.group,
            overrides=task.overrides,
            at_most_once_after_s=order.at_most_once_after_s,
        )
        spec = Launcher(self._context, launch).spec()
        return TaskRecord(
            id=TaskId(spec.task_arn.rsplit("/", 1)[-1]),
            cluster=task.cluster,
            spec=spec,
            created_at=self._now,
            launch_type=task.launch_type,
            status=TaskStatus.PROVISIONING,
            group=task.group,
            started_by=task.started_by,
            capacity_provider=task.capacity_provider,
            overrides=task.overrides,
            enable_execute_command=task.enable_execute_command,
            tags={**task.tags, ATTEMPT: str(order.attempt + 1), RETRY_OF: task.id},
            order=replace(
                order,
                attempt=order.attempt + 1,
                retry_of=task.id,
                not_before=self._now + action.delay_s,
                avoid=tuple(avoid),
                turn=self._turn,
                waits_for="",
                placed_at=None,
            ),
        )
