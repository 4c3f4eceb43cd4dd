"""Invariant 4, and where tasks may be put: no host holds more than it has, none is given tasks while it drains or is
gone, and of an exclusive group one task at most has a host.

Sums are made anew from the tasks that a host holds, not by the state's own LoadBook.
"""

from collections import Counter, defaultdict
from typing import Final

from controlplane.state.records import InstanceRecord, TaskRecord
from controlplane.store.api import Commit
from homeport.ids import InstanceId
from homeport.status import DesiredStatus, TaskStatus
from tests.simulation.checks.history import History
from tests.simulation.checks.violation import Violation

__all__ = ["CAPACITY", "EXCLUSIVE", "PLACED", "Hosts"]

CAPACITY: Final = "no host is over-committed (4)"
PLACED: Final = "tasks go to ACTIVE hosts only"
EXCLUSIVE: Final = "one of an exclusive group has a host"


class Hosts:
    """Checks what tasks hold on hosts. Incremental: costs as much as the hosts that a commit concerns hold."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._held: dict[InstanceId, dict[str, TaskRecord]] = defaultdict(dict)
        #: (cluster, group) -> tasks of it that have a host and haven't ended.
        self._groups: dict[tuple[str, str], set[str]] = defaultdict(set)

    def reset(self) -> None:
        """Begin anew from the history, after a restart."""
        self._held.clear()
        self._groups.clear()
        for task in self._history.tasks.values():
            self._follow(None, task)

    def commit(self, commit: Commit) -> None:
        """Check one commit. The history has followed it already."""
        grown: set[InstanceId] = set()
        for change in commit.changes:
            old, new = change.old, change.new
            if not isinstance(old, TaskRecord | None) or not isinstance(new, TaskRecord | None):
                continue
            self._follow(old, new)
            if new is None or new.instance_id is None or new.status is TaskStatus.STOPPED:
                continue
            placed = old is None or old.instance_id is None
            if placed or (old is not None and old.resources != new.resources):
                grown.add(new.instance_id)
            if placed:
                self._check_open(new, waited=old is not None)
        for instance_id in grown:
            self._check_capacity(instance_id)
        self._check_groups(commit)

    def _follow(self, old: TaskRecord | None, new: TaskRecord | None) -> None:
        task = new or old
        assert task is not None
        if old is not None and old.instance_id is not None:
            self._held[old.instance_id].pop(task.id, None)
        holds = new is not None and new.instance_id is not None and new.status is not TaskStatus.STOPPED
        if new is not None and holds and new.instance_id is not None:
            self._held[new.instance_id][task.id] = new
        if task.order is not None and task.order.exclusive:
            # A lost one that its host has stopped by itself, cut off as it is, holds the group no more.
            given_up = task.lost_at is not None and task.order.stop_when_isolated
            group = self._groups[task.cluster, task.order.exclusive]
            (group.add if holds and not given_up else group.discard)(task.id)

    def _check_open(self, task: TaskRecord, *, waited: bool) -> None:
        instance = self._history.get(InstanceRecord, task.instance_id)
        if instance is None or instance.status != "ACTIVE":
            status = "gone" if instance is None else instance.status
            raise Violation(PLACED, f"task {task.id} was put on host {task.instance_id}, which is {status}")
        # Of one RunTask of several that replace each other in their group, all but the last are to stop from the first.
        if waited and task.desired is DesiredStatus.STOPPED:
            raise Violation(PLACED, f"task {task.id} was put on a host though it is to stop")

    def _check_capacity(self, instance_id: InstanceId) -> None:
        instance = self._history.get(InstanceRecord, instance_id)
        assert instance is not None, "a task was just put there"
        has = instance.facts.resources
        held = [task.resources for task in self._held[instance_id].values()]
        for what, sum_of, total in (
            ("CPU units", sum(r.cpu_units for r in held), has.cpu_units),
            ("MiB of memory", sum(r.memory_mib for r in held), has.memory_mib),
            ("GPUs", sum(r.gpus for r in held), has.gpus),
        ):
            if sum_of > total:
                raise Violation(CAPACITY, f"host {instance_id} holds {sum_of} of {total} {what}")
        ports = Counter(port for resources in held for port in resources.ports)
        doubled = sorted(port for port, holders in ports.items() if holders > 1 or port in has.ports)
        if doubled:
            raise Violation(CAPACITY, f"host {instance_id} has ports given twice: {doubled}")

    def _check_groups(self, commit: Commit) -> None:
        for change in commit.changes:
            new = change.new
            if isinstance(new, TaskRecord) and new.order is not None and new.order.exclusive:
                holders = self._groups[new.cluster, new.order.exclusive]
                if len(holders) > 1 and new.id in holders:
                    raise Violation(EXCLUSIVE, f"of group {new.order.exclusive}: {sorted(holders)}")
