"""At rest, when every fault has ended: all are connected and agree, each Engine runs exactly what is assigned, nothing
is left half done, and looking at it all once more writes nothing (8).

It is asked again and again until it holds, or the time for it is over. So it may say no to what is only under way.
"""

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from controlplane.state.records import InstanceRecord, TaskRecord
from controlplane.state.service_records import DeploymentRecord, EventRecord
from controlplane.store.api import Commit
from homeport.ids import InstanceId, TaskId
from homeport.status import ContainerStatus, DesiredStatus, TaskStatus
from tests.simulation.checks.assignments import Sets
from tests.simulation.checks.containers import EXIT_CODES, FOREIGN, UNASKED, Containers, touched
from tests.simulation.checks.convergence import check_services, check_standalone
from tests.simulation.checks.history import History
from tests.simulation.checks.services import Services
from tests.simulation.checks.violation import Violation

if TYPE_CHECKING:
    from tests.simulation.machine import SimulatedMachine
    from tests.simulation.world import World

__all__ = ["AGREE", "CONNECTED", "ENDED", "IDLE", "Rest"]

AGREE: Final = "at rest agents and control plane agree (5)"
CONNECTED: Final = "at rest all are connected (7)"
ENDED: Final = "at rest nothing is half done"
IDLE: Final = "reconciling twice writes nothing (8)"

#: So often it has to be found changed by what tasks do before that is taken for their nature.
_PATIENT_LOOKS: Final = 6
#: Three of the longest heartbeats.
_NEW_S: Final = 30.0


class Rest:
    """Checks a world that should be at rest."""

    def __init__(self, history: History, sets: Sets, containers: Containers, services: Services) -> None:
        self._history = history
        self._sets = sets
        self._containers = containers
        self._services = services
        #: At the last look: the revision, and the sum of all that tasks had reported.
        self._seen = (-1, -1)
        self._looks = 0
        #: Task -> the last report that its agent had made, and had acknowledged, at the last look and the one before.
        self._reported: dict[TaskId, tuple[int, int]] = {}
        self._before: dict[TaskId, tuple[int, int]] = {}

    def check(self, world: "World") -> None:
        """Raise Violation for whatever isn't as it should be."""
        self._looks += 1
        seen, self._seen = self._seen, (self._history.revision, self._progress())
        self._before, self._reported = self._reported, _reported(world)
        for name in ("controlplane", *world.machines):
            self._check_alive(world, name)
        for machine in world.machines.values():
            instance = self._history.get(InstanceRecord, machine.identity.instance_id)
            if instance is not None and instance.status != "INACTIVE":
                self._check_connected(world, instance)
                self._check_agreement(machine, instance.id)
            self._check_foreign(machine)
        self._check_tasks()
        self._check_engines(world)
        check_services(self._services, self._history, world.controlplane.context)
        check_standalone(self._history, world.controlplane.context)
        # What tasks do by themselves goes on for ever, if they crash.
        of_itself = seen[1] != self._seen[1] and self._looks >= _PATIENT_LOOKS
        # So do the warnings of a deployment that has no room.
        of_itself = of_itself or all(map(_warns, self._history.since(seen[0])))
        if seen != self._seen and not of_itself:
            raise Violation(IDLE, f"revision {seen[0]} has become {self._seen[0]}")

    def _progress(self) -> int:
        return sum(task.reported_seq for task in self._history.tasks.values())

    def _check_alive(self, world: "World", name: str) -> None:
        machine = world.machines.get(name)
        if machine is not None:
            instance = self._history.get(InstanceRecord, machine.identity.instance_id)
            if instance is not None and instance.status == "INACTIVE":
                return
        process = world.processes.get(name)
        if process is None or not process.alive:
            raise Violation(CONNECTED, f"{name} isn't running")
        if machine is None and not world.controlplane.up.is_set():
            raise Violation(CONNECTED, f"{name} has yet to read its journal")

    def _check_connected(self, world: "World", instance: InstanceRecord) -> None:
        presence = world.controlplane.state.presence.of(instance.id)
        if presence is None or not presence.connected or not presence.heard_out:
            raise Violation(CONNECTED, f"host {instance.facts.hostname} is {presence}")
        if presence.impaired:
            raise Violation(CONNECTED, f"host {instance.facts.hostname} is impaired: {presence.impaired}")

    def _check_agreement(self, machine: "SimulatedMachine", instance_id: InstanceId) -> None:
        """The agent has taken the set that is wished of it, and all that it has to say is heard."""
        assert machine.worker is not None, "it is connected"
        known = {state.task_id: state for state in machine.worker.tasks()}
        wished = self._sets.wished(instance_id)
        for task_id, wish in wished.items():
            state = known.get(task_id)
            if state is None:
                raise Violation(AGREE, f"{machine.name} doesn't know task {task_id}, which is wished {wish.name} there")
            if state.desired < wish:
                raise Violation(AGREE, f"{machine.name} has task {task_id} {state.desired.name}, not {wish.name}")
        for task_id, state in known.items():
            if task_id not in wished and not state.over:
                raise Violation(AGREE, f"{machine.name} still has task {task_id}, which isn't assigned to it")
            if task_id not in wished and state.removed_at is None:
                raise Violation(AGREE, f"{machine.name} will never clean up after task {task_id}")
            if self._moves(task_id):
                continue
            task = self._containers.task(task_id)
            if state.acked < state.seq and not self._young(machine, state.seq):
                raise Violation(AGREE, f"{machine.name} has reported {state.seq} of task {task_id}, unacknowledged")
            if task is None or task.reported_seq != state.seq or task.status is not state.status:
                raise Violation(
                    AGREE, f"{machine.name} has task {task_id} {state.status.name}, the control plane {task}"
                )

    @staticmethod
    def _young(machine: "SimulatedMachine", seq: int) -> bool:
        """Whether a task is so new that its first reports may wait for a heartbeat to be acknowledged with.

        Its reports are numbered from the millisecond on in which it came.
        """
        return machine.clock.now() - seq / 1000 < _NEW_S

    def _moves(self, task_id: TaskId) -> bool:
        """Whether a task goes on by itself, as one that crashes and restarts does, and is heard doing so."""
        if self._looks < _PATIENT_LOOKS or task_id not in self._before or task_id not in self._reported:
            return False
        (seq, acked), (seq_before, acked_before) = self._reported[task_id], self._before[task_id]
        return seq > seq_before and acked > acked_before

    def _check_foreign(self, machine: "SimulatedMachine") -> None:
        for entry in machine.engine.ledger:
            if entry.foreign and touched(entry):
                raise Violation(FOREIGN, f"{entry.name} on {machine.name} was touched")

    # ------------------------------------------------------------ tasks and their containers

    def _check_tasks(self) -> None:
        for task in self._history.tasks.values():
            if task.desired is DesiredStatus.STOPPED and task.status is not TaskStatus.STOPPED:
                raise Violation(ENDED, f"task {task.id} is to stop, and is {task.status.name}")
            if task.status is TaskStatus.STOPPED:
                self._check_end(task)
            if task.lost_at is not None and task.status is not TaskStatus.STOPPED:
                raise Violation(ENDED, f"task {task.id} is given up as lost, though its host is there")

    def _check_end(self, task: TaskRecord) -> None:
        """The control plane has the exit codes of the Engine's own ledger, as far as its agent could see them."""
        report = self._containers.reports.get(task.id)
        if report is None or report.seq != task.reported_seq:
            return
        for container in task.containers:
            entry = next(
                (e for e in self._containers.made_for(task.id, container.name) if e.id == container.runtime_id), None
            )
            if entry is None or container.exit_code is None or not entry.ends:
                continue
            if container.exit_code != entry.ends[-1].exit_code:
                raise Violation(
                    EXIT_CODES,
                    f"{container.name} of task {task.id} ended with {entry.ends[-1].exit_code}, and the control plane "
                    f"has {container.exit_code}",
                )

    def _check_engines(self, world: "World") -> None:
        """What runs is what should: each container of a task that is RUNNING, and no other."""
        runs = {
            entry.id: (task_id, name)
            for (task_id, name), made in self._containers.all().items()
            for entry in made
            if entry.running
        }
        for task_id, name in runs.values():
            task = self._containers.task(task_id)
            if task is None or task.status is TaskStatus.STOPPED or task.desired is not DesiredStatus.RUNNING:
                raise Violation(UNASKED, f"{name} of task {task_id} runs, and the task is {task}")
        for task in self._history.tasks.values():
            if task.status is not TaskStatus.RUNNING or self._moves(task.id):
                continue
            for container in task.containers:
                if container.status is ContainerStatus.RUNNING and container.runtime_id not in runs:
                    raise Violation(AGREE, f"{container.name} of task {task.id} is shown RUNNING, and doesn't run")


def _warns(commit: Commit) -> bool:
    """Whether a commit says once more that a deployment doesn't get on, and does nothing else."""
    return all(
        isinstance(change.new, EventRecord)
        or (
            isinstance(change.new, DeploymentRecord)
            and isinstance(change.old, DeploymentRecord)
            and replace(change.new, updated_at=change.old.updated_at, warned_at=change.old.warned_at) == change.old
        )
        for change in commit.changes
    )


def _reported(world: "World") -> dict[TaskId, tuple[int, int]]:
    workers = [machine.worker for machine in world.machines.values() if machine.worker is not None]
    return {state.task_id: (state.seq, state.acked) for worker in workers for state in worker.tasks()}
