"""The time budget of a deployment: where the seconds of its tasks went. Pure.

    schedule   from the need for a task to the choice of its host: wanted_at .. created_at
    pull       from its first image pull to the last, both included: pull_started_at .. pull_stopped_at
    start      the rest until it runs, the messages to its host and back included: created_at .. running_at, less pull
    healthy    from there until it counts as healthy: running_at .. healthy_at
    drain      how long a replaced task took to stop: stopping_at .. stopped_at

So the first four add up to the whole time from the need to health. A task that replaces another one is prepared
(pulled, created) while that one still runs, and waits until it is released: its start is counted from the release,
since its wait is the drain of the other one.

`pull` is measured by the host's clock, all else by the control plane's, and the two may differ by any amount: they
never meet in one difference, but for a drain whose beginning or end only the host knows. Nothing is negative.
"""

from collections.abc import Collection, Mapping
from typing import Final

from msgspec.structs import replace

from controlplane.state.records import TaskRecord
from controlplane.state.service_records import DeploymentRecord, PhaseTimes

__all__ = ["DRAIN", "PHASES", "TO_HEALTHY", "phases_of", "phases_text", "summary", "with_task"]

#: What is known of a task once it is healthy, and once it has stopped; in the order in which they pass.
TO_HEALTHY: Final = ("schedule", "pull", "start", "healthy")
DRAIN: Final = ("drain",)
PHASES: Final = TO_HEALTHY + DRAIN


def phases_of(task: TaskRecord) -> dict[str, float]:
    """Return phase -> seconds of a task, in order, of those phases that have ended; none is negative."""
    times = {
        "schedule": _between(task.wanted_at, task.created_at),
        "pull": _between(task.pull_started_at, task.pull_stopped_at),
        "start": _start(task),
        "healthy": _between(task.running_at, task.healthy_at),
        "drain": _between(task.stopping_at, task.stopped_at),
    }
    return {phase: seconds for phase, seconds in times.items() if seconds is not None}


def with_task(deployment: DeploymentRecord, task: TaskRecord, phases: Collection[str]) -> DeploymentRecord:
    """Return the deployment with these phases of a task added to its budget; those not known of it are passed over.

    To be called once for each task and phase: with TO_HEALTHY when the deployment's task becomes healthy, and with
    DRAIN when a task that this deployment has replaced is STOPPED.
    """
    times = {phase: seconds for phase, seconds in phases_of(task).items() if phase in phases}
    if not times:
        return deployment
    return replace(deployment, budget=_added(deployment.budget, times))


def phases_text(task: TaskRecord) -> str:
    """Say where a task's time went until it was healthy, for its story: `schedule 0.01 s, pull 1.20 s, ...`."""
    return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in phases_of(task).items() if name in TO_HEALTHY)


def summary(deployment: DeploymentRecord) -> str:
    """Say how a deployment that is over ended, and where its time went, for its service's story."""
    seconds = (deployment.finished_at or deployment.updated_at) - deployment.created_at
    kind = "rollback" if deployment.rollback_of else "deployment"
    parts = [f"{kind} {deployment.id} ended {deployment.status.value} after {max(0.0, seconds):.1f} s"]
    for phase, times in deployment.budget.items():
        mean = times.total_s / max(1, times.count)
        parts.append(f"{phase} of {times.count} tasks: mean {mean:.2f} s, at most {times.max_s:.2f} s")
    return "; ".join(parts)


def _added(budget: Mapping[str, PhaseTimes], times: Mapping[str, float]) -> dict[str, PhaseTimes]:
    known = {**budget, **{phase: budget.get(phase, PhaseTimes()).plus(seconds) for phase, seconds in times.items()}}
    return {phase: known[phase] for phase in PHASES if phase in known}


def _start(task: TaskRecord) -> float | None:
    if task.released_at is not None:
        return _between(task.released_at, task.running_at)
    total = _between(task.created_at, task.running_at)
    pull = _between(task.pull_started_at, task.pull_stopped_at) or 0.0
    return None if total is None else max(0.0, total - pull)


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else max(0.0, end - begin)
