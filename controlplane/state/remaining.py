"""What a host has left for new tasks."""

from typing import TYPE_CHECKING

from controlplane.state.records import InstanceRecord
from homeport.spec import Resources

if TYPE_CHECKING:
    from controlplane.state.state import State

__all__ = ["free_gpus", "remaining"]


def remaining(state: "State", instance: InstanceRecord) -> Resources:
    """Return what is left of a host; like ECS, `ports` are those that are taken."""
    total, held = instance.facts.resources, state.load.of(instance.id)
    return Resources(
        cpu_units=max(total.cpu_units - held.cpu_units, 0),
        memory_mib=max(total.memory_mib - held.memory_mib, 0),
        gpus=max(total.gpus - held.gpus, 0),
        ports=total.ports | frozenset(held.ports),
    )


def free_gpus(state: "State", instance: InstanceRecord) -> tuple[str, ...]:
    """Return the GPUs that no task holds. Which ones a task has been given its host tells with the first report."""
    if not instance.facts.gpu_ids:
        return ()
    taken = {
        gpu_id
        for phase in ("pending", "running")
        for task in state.tasks.where("instance_phase", (instance.id, phase))
        for report in task.containers
        for gpu_id in report.gpu_ids
    }
    free = [gpu_id for gpu_id in instance.facts.gpu_ids if gpu_id not in taken]
    return tuple(free[: max(len(instance.facts.gpu_ids) - state.load.of(instance.id).gpus, 0)])
