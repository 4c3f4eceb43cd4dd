"""What the tasks of each host hold of it, kept current with each change so that nobody has to sum tasks up."""

from collections import defaultdict
from typing import Any

import msgspec

from controlplane.state.hostlog import HostLog
from controlplane.state.records import TaskRecord
from homeport.ids import InstanceId
from homeport.spec import Protocol, Resources
from homeport.status import DesiredStatus, TaskStatus

__all__ = ["HostLoad", "LoadBook"]


def _counts() -> defaultdict[Any, int]:
    """A Counter would do; but this is copied in one step, and placement copies many."""
    return defaultdict(int)


class HostLoad(msgspec.Struct, gc=False):
    """The sum over a host's tasks that aren't STOPPED."""

    cpu_units: int = 0
    memory_mib: int = 0
    gpus: int = 0
    ports: defaultdict[tuple[Protocol, int], int] = msgspec.field(default_factory=_counts)
    tasks: int = 0
    #: Tasks by their group, less those that are to stop: placement goes by what should be running, as ECS's does.
    groups: defaultdict[str, int] = msgspec.field(default_factory=_counts)

    def add(self, resources: Resources, sign: int) -> None:
        """Add (sign 1) or take away (-1) what one task holds."""
        self.cpu_units += sign * resources.cpu_units
        self.memory_mib += sign * resources.memory_mib
        self.gpus += sign * resources.gpus
        self.tasks += sign
        for port in resources.ports:
            self.ports[port] += sign
            if not self.ports[port]:
                del self.ports[port]

    def copy(self) -> "HostLoad":
        """Return a load of its own with the same content."""
        return msgspec.structs.replace(self, ports=self.ports.copy(), groups=self.groups.copy())

    def add_to_group(self, group: str, sign: int) -> None:
        """Add (sign 1) or take away (-1) one task that should be running."""
        self.groups[group] += sign
        if not self.groups[group]:
            del self.groups[group]


_NOTHING = HostLoad()


class LoadBook:
    """instance -> HostLoad. Hosts whose load changes are noted in `log`."""

    def __init__(self, log: HostLog) -> None:
        self._log = log
        self._loads: dict[InstanceId, HostLoad] = {}

    def of(self, instance_id: InstanceId) -> HostLoad:
        """Return a host's load; do not change it."""
        return self._loads.get(instance_id, _NOTHING)

    def change(self, old: TaskRecord | None, new: TaskRecord | None) -> None:
        """Follow a change of a task. For `State` alone."""
        if old is not None and new is not None and _holds(old) == _holds(new):
            return  # most changes are a task's progress, which moves nothing here
        for record, sign in ((old, -1), (new, 1)):
            if record is None or record.instance_id is None or record.status is TaskStatus.STOPPED:
                continue
            load = self._loads.setdefault(record.instance_id, HostLoad())
            load.add(record.resources, sign)
            if record.desired is not DesiredStatus.STOPPED:
                load.add_to_group(record.group, sign)
            if not load.tasks:
                del self._loads[record.instance_id]
            self._log.note(record.instance_id)


def _holds(task: TaskRecord) -> tuple[object, ...]:
    """What of a task its host's load is made of."""
    stopped, to_stop = task.status is TaskStatus.STOPPED, task.desired is DesiredStatus.STOPPED
    return task.instance_id, stopped, to_stop, task.group, task.resources
