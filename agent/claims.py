"""Who holds what of this host: an all-or-nothing claim per task, so that it is never over-committed, whoever erred.

Only tasks that are to run, or do, hold anything: one that is merely prepared doesn't, nor does one that is over.
Dynamic host ports are the Engine's business and not counted.
"""

from homeport.ids import TaskId
from homeport.spec import Resources

__all__ = ["Claims"]


class Claims:
    """The claims of all tasks of this host."""

    def __init__(self) -> None:
        self._held: dict[TaskId, Resources] = {}

    def hold(self, task_id: TaskId, asked: Resources) -> None:
        """Claim without asking whether it fits: the task is there already, e.g. after a restart."""
        self._held[task_id] = asked

    def claim(self, task_id: TaskId, asked: Resources, capacity: Resources) -> str | None:
        """Claim what a new task asks for, or say why it doesn't fit. Claiming again changes nothing."""
        if task_id in self._held:
            return None
        refusals = []
        for what, unit, wanted, total, held in (
            ("cpu", "units", asked.cpu_units, capacity.cpu_units, sum(h.cpu_units for h in self._held.values())),
            ("memory", "MiB", asked.memory_mib, capacity.memory_mib, sum(h.memory_mib for h in self._held.values())),
            ("gpu", "GPUs", asked.gpus, capacity.gpus, sum(h.gpus for h in self._held.values())),
        ):
            if wanted and wanted > total - held:
                refusals.append(f"{what}: {wanted} {unit} asked, {max(total - held, 0)} of {total} free")
        taken = capacity.ports.union(*(h.ports for h in self._held.values()))
        if clash := sorted(asked.ports & taken):
            refusals.append(f"host ports taken: {', '.join(f'{port}/{protocol}' for protocol, port in clash)}")
        if refusals:
            return "; ".join(refusals)
        self._held[task_id] = asked
        return None

    def release(self, task_id: TaskId) -> None:
        """Give back what a task holds; quietly, if that is nothing."""
        self._held.pop(task_id, None)
