"""The time budget of a deployment: where the seconds of its tasks went. Pure.

    schedule   from the need for a task to the choice of its host: wanted_at .. created_at
    pull       from its first image pull to the last, both included: pull_started_at .. pull_stopped_at
    start      from there until all of its containers run: pull_stopped_at .. started_at
    healthy    from there until it counts as healthy: started_at .. healthy_at
    drain      how long a replaced task took to stop: stopping_at .. stopped_at

A task that replaces another one is prepared (pulled, created) while that one still runs, and waits until it is
released: its start is counted from the release, since the wait is the drain of the other one.

`pull` and `start` are measured by the host's clock, `schedule` and `healthy` by the control plane's, and the two may
differ by any amount. So `healthy` is what is left of the time from creation (or release) to health by the control
plane's clock, less what the host has measured; it has the messages' way to the host and back in it, some milliseconds.
Only `drain`, and the start of a released task, need a time of each clock; such a difference is never negative, and that
start never more than either clock alone allows.
"""

from collections.abc import Collection, Mapping
from typing import Final

from msgspec.structs import replace

from controlplane.state.records import TaskRecord
from controlplane.state.service_records import DeploymentRecord, PhaseTimes

__all__ = ["DRAIN", "PHASES", "TO_HEALTHY", "phases_of", "with_task"]

#: What is known of a task once it is healthy, and once it has stopped; in the order in which they pass.
TO_HEALTHY: Final = ("schedule", "pull", "start", "healthy")
DRAIN: Final = ("drain",)
PHASES: Final = TO_HEALTHY + DRAIN


def phases_of(task: TaskRecord) -> dict[str, float]:
    """Return phase -> seconds of a task, in order, of those phases that have ended; none is negative."""
    begun_at = task.created_at if task.released_at is None else task.released_at
    total = _between(begun_at, task.healthy_at)
    start = _start(task, total)
    pull = _between(task.pull_started_at, task.pull_stopped_at)
    times = {
        "schedule": _between(task.wanted_at, task.created_at),
        "pull": pull,
        "start": start,
        "healthy": _healthy(task, total, pull, start),
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


def _added(budget: Mapping[str, PhaseTimes], times: Mapping[str, float]) -> dict[str, PhaseTimes]:
    known = {**budget, **{phase: budget.get(phase, PhaseTimes()).plus(seconds) for phase, seconds in times.items()}}
    return {phase: known[phase] for phase in PHASES if phase in known}


def _start(task: TaskRecord, total: float | None) -> float | None:
    by_host = _between(task.pull_stopped_at, task.started_at)
    if by_host is None or task.released_at is None:
        return by_host
    since_release = _between(task.released_at, task.started_at)
    return min(seconds for seconds in (by_host, since_release, total) if seconds is not None)


def _healthy(task: TaskRecord, total: float | None, pull: float | None, start: float | None) -> float | None:
    """What is left of the total. Without the host's own times (an older agent) its clock has to be trusted."""
    if total is None:
        return None
    if start is None:
        since_start = _between(task.started_at, task.healthy_at)
        return total if since_start is None else min(total, since_start)
    on_host = start if task.released_at is not None else start + (pull or 0.0)
    return max(0.0, total - on_host)


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else max(0.0, end - begin)
