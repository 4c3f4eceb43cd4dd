"""Concurrency groups (tag homeport:exclusive): what becomes of a task whose group is taken when it is asked for."""

from msgspec.structs import replace

from controlplane.api.ecs.launch import Launch, Launcher
from controlplane.api.ecs.views import failure
from controlplane.context import Context
from controlplane.standalone.act import first_turn
from controlplane.standalone.decide import taken
from controlplane.standalone.stops import asked_to_stop
from controlplane.standalone.tags import ExclusivePolicy
from controlplane.state.records import TaskRecord
from homeport.ids import InstanceId
from homeport.reasons import EXCLUSIVE_REPLACED
from homeport.status import Actor, DesiredStatus, StopCode
from homeport.story import StoryLine

__all__ = ["Admission"]


class Admission:
    """Admits the tasks of one request to its exclusive group, one after another, within the caller's transaction."""

    def __init__(self, context: Context, launch: Launch) -> None:
        self._context = context
        self._launch = launch
        self._group = launch.order.exclusive if launch.order else ""
        self._asked = 0
        #: Tasks of earlier requests make way under the policy "replace", and only once; those of this one never do.
        self._replaces = launch.exclusive_policy is ExclusivePolicy.REPLACE

    def ask(self, provider: str = "", instance: InstanceId | None = None) -> TaskRecord | dict[str, str] | None:
        """Return None if the next task may be placed now, the task if it has to wait, or why there is none.

        `provider`: the capacity provider that it shows; `instance`: the host that StartTask names.
        """
        self._asked += 1
        members = self._members() if self._group else []
        if not members:
            return None
        if self._launch.exclusive_policy is ExclusivePolicy.SKIP:
            return self._skipped(members)
        if self._replaces:
            self._replaces = False
            for member in members:
                self._stop(member)
        return self._held(members, provider, instance)

    def _members(self) -> list[TaskRecord]:
        """Return the group's tasks: the one that has a host, then those that wait, by their turns."""
        members = self._context.state.tasks.where("exclusive", (self._launch.cluster, self._group))
        return sorted(members, key=lambda task: (task.instance_id is None, task.order.turn if task.order else 0))

    def _skipped(self, members: list[TaskRecord]) -> dict[str, str]:
        holder = members[0]
        what = "waits for its turn" if holder.instance_id is None else f"is {holder.status.name}"
        detail = f"Task {holder.id} of the exclusive group {self._group} {what}; homeport:exclusive-policy is skip."
        return failure(holder.spec.task_arn, "EXCLUSIVE", detail)

    def _stop(self, task: TaskRecord) -> None:
        if task.desired is DesiredStatus.STOPPED:
            return
        now = self._context.clock.now()
        reason = EXCLUSIVE_REPLACED.format(group=self._group)
        line = StoryLine(at=now, event="stop-requested", message=reason, actor=Actor.API.value)
        with self._context.state.transaction() as transaction:
            transaction.put(asked_to_stop(task, reason, StopCode.USER_INITIATED, now))
            transaction.tell(task.id, line)

    def _held(self, members: list[TaskRecord], provider: str, instance: InstanceId | None) -> TaskRecord:
        launch = self._launch
        if launch.order is not None and instance is not None:
            launch = replace(launch, order=replace(launch.order, instance_id=instance))
        holder = members[0]
        why = taken(self._group, holder) if holder.instance_id else f"Its turn in the exclusive group {self._group}"
        with self._context.state.transaction() as transaction:
            return Launcher(self._context, launch).hold_back(
                transaction,
                turn=first_turn(self._context) + self._asked,
                why=why,
                capacity_provider=provider,
            )
