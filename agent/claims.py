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
        self._gpus: dict[TaskId, tuple[str, ...]] = {}

    def hold(self, task_id: TaskId, asked: Resources, gpu_ids: tuple[str, ...] = ()) -> None:
        """Claim without asking whether it fits: the task is there already, e.g. after a restart."""
        self._held[task_id] = asked
        self._gpus[task_id] = gpu_ids

    def gpus_of(self, task_id: TaskId) -> tuple[str, ...]:
        """Return the ids of the GPUs that a task holds."""
        return self._gpus.get(task_id, ())

    def claim(
        self, task_id: TaskId, asked: Resources, capacity: Resources, gpu_ids: tuple[str, ...] = ()
    ) -> str | None:
        """Claim what a new task asks for, or say why it doesn't fit. Claiming again changes nothing.

        `gpu_ids`: the host's GPUs; a task gets the first ones that no other task holds.
        """
        if task_id in self._held:
            return None
        refusals = []
        for what, unit, wanted, total, held in (
            ("cpu", "units", asked.cpu_units, capacity.cpu_units, sum(h.cpu_units for h in self._held.values())),
            ("memory", "MiB", asked.memory_mib, capacity.memory_mib, sum(h.memory_mib for h in self._held.values())),
            ("gpu", "GPUs", asked.gpus, len(gpu_ids), len(gpu_ids) - len(self._free(gpu_ids))),
        ):
            if wanted and wanted > total - held:
                refusals.append(f"{what}: {wanted} {unit} asked, {max(total - held, 0)} of {total} free")
        taken = capacity.ports.union(*(h.ports for h in self._held.values()))
        if clash := sorted(asked.ports & taken):
            refusals.append(f"host ports taken: {', '.join(f'{port}/{protocol}' for protocol, port in clash)}")
        if refusals:
            return "; ".join(refusals)
        self.hold(task_id, asked, self._free(gpu_ids)[: asked.gpus])
        return None

    def _free(self, gpu_ids: tuple[str, ...]) -> tuple[str, ...]:
        taken = {gpu_id for held in self._gpus.values() for gpu_id in held}
        # Of tasks whose record was lost only the number is known: any of the GPUs may be theirs.
        unknown = sum(held.gpus - len(self._gpus[task_id]) for task_id, held in self._held.items())
        return tuple(gpu_id for gpu_id in gpu_ids if gpu_id not in taken)[unknown:]

    def release(self, task_id: TaskId) -> None:
        """Give back what a task holds; quietly, if that is nothing."""
        self._held.pop(task_id, None)
        self._gpus.pop(task_id, None)
