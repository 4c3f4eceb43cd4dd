"""Launching tasks: a checked order becomes task records on hosts, with the first lines of their stories.

RunTask and StartTask make a `Launch` of their requests, the service scheduler makes one of a deployment; a `Launcher`
works out once what its tasks have in common, so that each of them costs little. All
of it runs in one transaction: the choice of a host, the check that it fits and the record that holds the resources are
one event-loop turn, so no host is ever promised twice (invariant 4).
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from controlplane.api.ecs.capacity import launch_type_of
from controlplane.api.ecs.log_shipping import LogDefaults
from controlplane.api.ecs.settings import account_setting
from controlplane.api.ecs.task_spec import spec_of, spec_template
from controlplane.api.registry import CALLER
from controlplane.context import Context
from controlplane.scheduling.filters import SUITABILITY, first_refusal, unfit
from controlplane.scheduling.model import Candidate, Demand, Refusal, candidate_of
from controlplane.services.isolation import at_most_once
from controlplane.standalone.tags import ExclusivePolicy
from controlplane.state.records import InstanceRecord, TaskDefinitionRecord, TaskOrder, TaskRecord
from controlplane.state.state import Transaction
from homeport.ids import TaskId, new_hex_id, new_uuid
from homeport.spec import Resources, TaskSpec
from homeport.status import Actor, DesiredStatus, TaskStatus
from homeport.story import StoryLine

__all__ = ["Launch", "Launcher", "placed_line"]


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What all tasks of one order have in common."""

    operation: str
    cluster: str
    definition: TaskDefinitionRecord
    launch_type: str
    group: str
    capacity_strategy: tuple[Mapping[str, Any], ...] = ()
    started_by: str = ""
    overrides: dict[str, object] = {}
    enable_execute_command: bool = False
    tags: dict[str, str] = {}
    #: What tags ask for of a task that no service owns, kept with each task; None if they ask for nothing.
    order: TaskOrder | None = None
    #: The tasks stop by themselves in time to be replaced after this silence of their host; None: they run on.
    at_most_once_after_s: float | None = None
    exclusive_policy: ExclusivePolicy = ExclusivePolicy.WAIT


class Launcher:
    """Makes the tasks of one order, one after another, within one event-loop turn.

    Raises ApiError if the definition or the overrides can't be used.
    """

    def __init__(self, context: Context, launch: Launch) -> None:
        self._context = context
        self._launch = launch
        self._now = context.clock.now()
        #: `resources`: what each of the tasks asks of its host.
        self._template, self.resources = spec_template(
            launch.definition, launch.overrides, cluster=launch.cluster, group=launch.group, logs=_log_defaults(context)
        )
        self._accepted = _accepted_line(launch, self._now)
        if launch.at_most_once_after_s is not None:
            self._template = at_most_once(self._template, launch.at_most_once_after_s)

    def spec(self) -> TaskSpec:
        """Make the spec of one more task, under new ids."""
        source = self._context.random
        return spec_of(
            self._template,
            arns=self._context.arns,
            task_id=TaskId(new_hex_id(source)),
            container_ids=[new_uuid(source) for _ in self._template.containers],
        )

    def put_on(
        self,
        transaction: Transaction,
        demand: Demand,
        instance: InstanceRecord,
        *,
        why: str,
        capacity_provider: str = "",
        wanted_at: float | None = None,
        replaces: TaskId | None = None,
    ) -> TaskRecord | Refusal:
        """Put one more task on a host, PENDING, if it fits there as things are now; else return why not.

        `why`: for the story. A task that `replaces` another is only prepared there (desired PENDING): it holds nothing
        until that one has stopped, so it needs no room yet.
        """
        candidate = candidate_of(self._context.state, instance)
        refusal = unfit(candidate, demand) if replaces is None else first_refusal(candidate, demand, SUITABILITY)
        if refusal is not None:
            return refusal
        launch, now, spec = self._launch, self._now, self.spec()
        task = TaskRecord(
            id=TaskId(spec.task_arn.rsplit("/", 1)[-1]),
            cluster=launch.cluster,
            spec=spec,
            created_at=now,
            launch_type=launch_type_of(capacity_provider, launch.launch_type),
            capacity_provider=capacity_provider,
            instance_id=instance.id,
            desired=DesiredStatus.RUNNING if replaces is None else DesiredStatus.PENDING,
            resources=demand.resources if replaces is None else Resources(),
            group=launch.group,
            started_by=launch.started_by,
            overrides=launch.overrides,
            enable_execute_command=launch.enable_execute_command,
            wanted_at=wanted_at,
            replaces=replaces,
            tags=launch.tags,
            order=launch.order and replace(launch.order, placed_at=now),
        )
        self._put(transaction, task, placed_line(candidate, demand.resources, why, now))
        return task

    def hold_back(self, transaction: Transaction, *, turn: int, why: str, capacity_provider: str = "") -> TaskRecord:
        """Accept a task of an exclusive group that has to wait for its turn: PROVISIONING, without a host."""
        launch, now, spec = self._launch, self._now, self.spec()
        assert launch.order is not None, "without an order nothing is known about how to place it later"
        task = TaskRecord(
            id=TaskId(spec.task_arn.rsplit("/", 1)[-1]),
            cluster=launch.cluster,
            spec=spec,
            created_at=now,
            launch_type=launch_type_of(capacity_provider, launch.launch_type),
            capacity_provider=capacity_provider,
            status=TaskStatus.PROVISIONING,
            group=launch.group,
            started_by=launch.started_by,
            overrides=launch.overrides,
            enable_execute_command=launch.enable_execute_command,
            tags=launch.tags,
            order=replace(launch.order, turn=turn, waits_for=why),
        )
        waiting = StoryLine(at=now, event="waiting", message=why, actor=Actor.SCHEDULER.value)
        self._put(transaction, task, waiting)
        return task

    def _put(self, transaction: Transaction, task: TaskRecord, second: StoryLine) -> None:
        transaction.put(task)
        transaction.tell(task.id, self._accepted)
        transaction.tell(task.id, second)


def _log_defaults(context: Context) -> LogDefaults:
    mode = account_setting(context, "defaultLogDriverMode")
    return LogDefaults(collect=context.collect_logs, mode="non-blocking" if mode == "non-blocking" else "blocking")


def placed_line(candidate: Candidate, asked: Resources, why: str, now: float) -> StoryLine:
    """Return the line of a task's story that tells where it was placed and why."""
    host = candidate.instance.facts.hostname or candidate.id
    return StoryLine(
        at=now,
        event="placed",
        message=f"Placed on {host}: {why}. {_room(candidate, asked)}",
        actor=Actor.SCHEDULER.value,
        host=host,
    )


def _accepted_line(launch: Launch, now: float) -> StoryLine:
    caller = f" by {CALLER.get()}" if CALLER.get() else ""
    started_by = f", startedBy {launch.started_by}" if launch.started_by else ""
    return StoryLine(
        at=now,
        event="accepted",
        message=f"{launch.operation}{caller} of {launch.definition.name} in group {launch.group}{started_by}",
        actor=Actor.API.value,
    )


def _room(candidate: Candidate, asked: Resources) -> str:
    total, held = candidate.instance.facts.resources, candidate.load
    return (
        f"It asks for {asked.cpu_units} CPU units and {asked.memory_mib} MiB; "
        f"{total.cpu_units - held.cpu_units} and {total.memory_mib - held.memory_mib} MiB were free"
    )
