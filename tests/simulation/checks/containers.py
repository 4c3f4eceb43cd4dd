"""Invariants 6, 7 and 9, where it counts: on the machines. Agents' reports are held against the Engine's own ledger.

What runs was asked for, and runs once; what isn't Homeport's is left alone; who is reported as ended has ended, with
the code that it ended with; and what runs on a machine together fits there.
"""

from collections import defaultdict
from typing import Final

from agent.engine.plan import LABEL_CONTAINER, LABEL_INSTANCE, LABEL_TASK
from agent.framing import STORY_LINES
from controlplane.state.records import InstanceRecord, TaskRecord
from homeport.ids import InstanceId, TaskId
from homeport.protocol import ContainerReport, TaskReport
from homeport.reasons import CONTAINER_VANISHED, DOCKER_TIMEOUT, RECORD_LOST, TASK_STATE_ERROR
from homeport.status import ContainerStatus, DesiredStatus, TaskStatus
from tests.simulation.checks.assignments import Sets
from tests.simulation.checks.history import History
from tests.simulation.checks.violation import Violation
from tests.simulation.ledger import ContainerLedgerEntry

__all__ = ["EXIT_CODES", "FITS", "FOREIGN", "INVENTED", "ONCE", "REPORTS", "UNASKED", "Containers", "touched"]

EXIT_CODES: Final = "no exit code is lost (6)"
FITS: Final = "what runs on a machine fits there (4)"
FOREIGN: Final = "what isn't ours is left alone (9)"
INVENTED: Final = "no end is invented (7)"
ONCE: Final = "no task runs twice"
REPORTS: Final = "reports advance (2)"
UNASKED: Final = "nothing runs without an assignment (9)"

#: Said of a container or a task whose true end nobody can know, or that the Engine never ended.
_UNKNOWN_ENDS: Final = (DOCKER_TIMEOUT, CONTAINER_VANISHED, RECORD_LOST, TASK_STATE_ERROR)

_Box = tuple[TaskId, str]


class Containers:
    """Checks each change of a container, and each report that leaves an agent."""

    def __init__(self, history: History, sets: Sets) -> None:
        self._history = history
        self._sets = sets
        #: (task, container) -> what was ever made for it.
        self._made: dict[_Box, list[ContainerLedgerEntry]] = defaultdict(list)
        #: Ledger entry -> how many of its starts have been looked at.
        self._starts: dict[str, int] = {}
        self._running: dict[InstanceId, dict[str, TaskId]] = defaultdict(dict)
        #: Task -> the last report that left its agent.
        self.reports: dict[TaskId, TaskReport] = {}

    # ------------------------------------------------------------ the Engine

    def engine(self, host: str, entry: ContainerLedgerEntry) -> None:
        """Look at a container that has changed."""
        if entry.foreign:
            if touched(entry):
                raise Violation(FOREIGN, f"{entry.asked[-1].verb} was asked of {entry.name} on {host}")
            return
        instance_id = InstanceId(entry.labels[LABEL_INSTANCE])
        task_id, name = TaskId(entry.labels[LABEL_TASK]), entry.labels[LABEL_CONTAINER]
        if entry.id not in self._starts:
            self._starts[entry.id] = 0
            self._made[task_id, name].append(entry)
            if not self._sets.ever_told(instance_id, task_id):
                raise Violation(UNASKED, f"container {entry.name} was made on {host}, which was never told of its task")
        running = self._running[instance_id]
        if not entry.running:
            running.pop(entry.id, None)
        else:
            running[entry.id] = task_id
        if len(entry.starts) > self._starts[entry.id]:
            self._starts[entry.id] = len(entry.starts)
            self._check_start(host, instance_id, (task_id, name), entry)

    def _check_start(self, host: str, instance_id: InstanceId, box: _Box, entry: ContainerLedgerEntry) -> None:
        task_id, name = box
        if DesiredStatus.RUNNING not in self._sets.ever_told(instance_id, task_id):
            raise Violation(UNASKED, f"{entry.name} was started on {host}, which was never told to run its task")
        others = [other.id for other in self._made[box] if other.starts and other is not entry]
        if others:
            raise Violation(
                ONCE, f"{name} of task {task_id} was started in {others[0][:12]}, and now in {entry.id[:12]}"
            )
        task = self.task(task_id)
        if task is None:
            return
        if len(entry.starts) > 1 and not task.spec.container(name).restart_policy.enabled:
            raise Violation(ONCE, f"{name} of task {task_id} was started again on {host} without a restart policy")
        self._check_room(instance_id)

    def _check_room(self, instance_id: InstanceId) -> None:
        """What runs there, and isn't known to be over, fits together."""
        instance = self._history.get(InstanceRecord, instance_id)
        if instance is None:
            return
        has = instance.facts.resources
        tasks = [self.task(task_id) for task_id in set(self._running[instance_id].values())]
        held = [task.resources for task in tasks if task is not None and task.status is not TaskStatus.STOPPED]
        memory, cpu = sum(r.memory_mib for r in held), sum(r.cpu_units for r in held)
        if memory > has.memory_mib or cpu > has.cpu_units:
            raise Violation(
                FITS,
                f"on host {instance_id} run tasks of {memory} of {has.memory_mib} MiB and {cpu} of {has.cpu_units} CPU "
                "units",
            )

    def task(self, task_id: TaskId) -> TaskRecord | None:
        """Return a task, wherever its record is."""
        return self._history.tasks.get(task_id) or self._history.archived.get(task_id)

    def made_for(self, task_id: TaskId, name: str) -> list[ContainerLedgerEntry]:
        """Return what was ever made for a container of a task."""
        return self._made.get((task_id, name), [])

    def all(self) -> dict[_Box, list[ContainerLedgerEntry]]:
        """Return every container of Homeport's that ever was."""
        return self._made

    # ------------------------------------------------------------ reports

    def report(self, host: str, report: TaskReport) -> None:
        """Look at a report that leaves an agent."""
        last = self.reports.get(report.task_id)
        if last is not None:
            if report.seq < last.seq and len(report.story) >= STORY_LINES:
                return  # a part of a long story, told again since it wasn't acknowledged
            if report.seq < last.seq:
                raise Violation(REPORTS, f"{host} reports {report.seq} of task {report.task_id} after {last.seq}")
            if report.status < last.status:
                raise Violation(
                    REPORTS, f"{host} reports task {report.task_id} as {report.status.name} after {last.status.name}"
                )
        self.reports[report.task_id] = report
        for container in report.containers:
            self._check_container(host, report, container)
        if report.status is TaskStatus.STOPPED:
            self._check_over(host, report)

    def _check_container(self, host: str, report: TaskReport, container: ContainerReport) -> None:
        made = self.made_for(report.task_id, container.name)
        entry = next((entry for entry in made if entry.id == container.runtime_id), None)
        what = f"{container.name} of task {report.task_id} on {host}"
        if container.status is ContainerStatus.RUNNING and (entry is None or not entry.starts):
            raise Violation(REPORTS, f"{what} is reported RUNNING and was never started")
        if container.status is not ContainerStatus.STOPPED or entry is None or not entry.starts:
            return
        codes = [end.exit_code for end in entry.ends]
        if container.exit_code is not None and container.exit_code not in codes:
            raise Violation(EXIT_CODES, f"{what} is reported with {container.exit_code}, and ended with {codes}")
        if container.exit_code is None and not _unknown(report, container) and entry.exists:
            raise Violation(
                EXIT_CODES, f"{what} is reported without a code, and ended with {codes}: {container.reason}"
            )

    def _check_over(self, host: str, report: TaskReport) -> None:
        for container in report.containers:
            if _unknown(report, container):
                continue
            running = [entry for entry in self.made_for(report.task_id, container.name) if entry.running]
            if running:
                raise Violation(
                    INVENTED, f"{host} reports task {report.task_id} STOPPED while {running[0].name} runs: {report}"
                )


def touched(entry: ContainerLedgerEntry) -> bool:
    """Whether anybody has asked anything of a foreign container since whoever owns it started it."""
    return len(entry.asked) > 1 or not entry.exists


def _unknown(report: TaskReport, container: ContainerReport) -> bool:
    """Whether the report itself says that nobody can know how the container ended."""
    said = (container.reason or "") + (report.stopped_reason or "")
    return any(reason.partition(":")[0] in said for reason in _UNKNOWN_ENDS)
