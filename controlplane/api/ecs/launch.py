"""Launching tasks: a checked order becomes task records on hosts, with the first lines of their stories.

RunTask and StartTask make a `Launch` of their requests and hand it over; a service scheduler can do the same. All
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
from controlplane.api.ecs.task_spec import build_spec
from controlplane.api.registry import CALLER
from controlplane.context import Context
from controlplane.scheduling.filters import FITNESS, SUITABILITY, first_refusal
from controlplane.scheduling.model import Candidate, Demand, Refusal, candidate_of
from controlplane.services.isolation import at_most_once
from controlplane.standalone.tags import ExclusivePolicy
from controlplane.state.records import InstanceRecord, TaskDefinitionRecord, TaskOrder, TaskRecord
from controlplane.state.state import Transaction
from homeport.ids import TaskId, new_hex_id, new_uuid
from homeport.spec import Resources, TaskSpec
from homeport.status import Actor, DesiredStatus, TaskStatus
from homeport.story import StoryLine

__all__ = ["Launch", "hold_back", "launch_on", "make_spec", "placed_line"]


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
    exclusive_policy: ExclusivePolicy = ExclusivePolicy.WAIT


def make_spec(context: Context, launch: Launch) -> TaskSpec:
    """Make the spec of one more task, under new ids. Raises ApiError if the definition or overrides can't be used."""
    spec = build_spec(
        launch.definition,
        launch.overrides,
        arns=context.arns,
        cluster=launch.cluster,
        task_id=TaskId(new_hex_id(context.random)),
        group=launch.group,
        container_ids=[new_uuid(context.random) for _ in launch.definition.document["containerDefinitions"]],
        logs=_log_defaults(context),
    )
    if launch.order is not None and launch.order.stop_when_isolated:
        return at_most_once(spec, launch.order.lost_after_s)
    return spec


def _log_defaults(context: Context) -> LogDefaults:
    mode = account_setting(context, "defaultLogDriverMode")
    return LogDefaults(collect=context.collect_logs, mode="non-blocking" if mode == "non-blocking" else "blocking")


def launch_on(
    context: Context,
    transaction: Transaction,
    launch: Launch,
    demand: Demand,
    instance: InstanceRecord,
    spec: TaskSpec,
    *,
    why: str,
    capacity_provider: str = "",
    wanted_at: float | None = None,
    replaces: TaskId | None = None,
) -> TaskRecord | Refusal:
    """Put a task on a host, PENDING, if it fits there as things are now; else return why not. `why`: for the story.

    A task that `replaces` another is only prepared there (desired PENDING): it holds nothing until that one has
    stopped, so it needs no room yet.
    """
    candidate = candidate_of(context.state, instance)
    refusal = first_refusal(candidate, demand, FITNESS if replaces is None else SUITABILITY)
    if refusal is not None:
        return refusal
    now = context.clock.now()
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
    transaction.put(task)
    for line in _first_lines(launch, placed_line(candidate, demand.resources, why, now), now):
        transaction.tell(task.id, line)
    return task


def hold_back(
    context: Context,
    transaction: Transaction,
    launch: Launch,
    spec: TaskSpec,
    *,
    turn: int,
    why: str,
    capacity_provider: str = "",
) -> TaskRecord:
    """Accept a task of an exclusive group that has to wait for its turn: PROVISIONING, without a host."""
    assert launch.order is not None, "without an order nothing is known about how to place it later"
    now = context.clock.now()
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
    transaction.put(task)
    waiting = StoryLine(at=now, event="waiting", message=why, actor=Actor.SCHEDULER.value)
    for line in _first_lines(launch, waiting, now):
        transaction.tell(task.id, line)
    return task


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


def _first_lines(launch: Launch, second: StoryLine, now: float) -> list[StoryLine]:
    caller = f" by {CALLER.get()}" if CALLER.get() else ""
    started_by = f", startedBy {launch.started_by}" if launch.started_by else ""
    return [
        StoryLine(
            at=now,
            event="accepted",
            message=f"{launch.operation}{caller} of {launch.definition.name} in group {launch.group}{started_by}",
            actor=Actor.API.value,
        ),
        second,
    ]


def _room(candidate: Candidate, asked: Resources) -> str:
    total, held = candidate.instance.facts.resources, candidate.load
    return (
        f"It asks for {asked.cpu_units} CPU units and {asked.memory_mib} MiB; "
        f"{total.cpu_units - held.cpu_units} and {total.memory_mib - held.memory_mib} MiB were free"
    )
