"""`dependsOn`: whether a container may start, must wait, or can never start; and who may stop before whom.

The rules are those of the ECS agent. START stays satisfied when the dependency later stops. `startTimeout` of the
dependency bounds the wait for its COMPLETE, SUCCESS or HEALTHY, counted from its start. Shutdown runs in reverse: a
container stops only after all that depend on it have stopped. Other than at the ECS agent that holds through containers
that have ended by themselves: where web waited for a migration that needed db, db stops after web.
"""

from collections.abc import Mapping

import msgspec

from agent.task.model import ContainerState, TaskState
from homeport.spec import ContainerSpec, Dependency, TaskSpec
from homeport.status import ContainerStatus, HealthStatus

__all__ = ["Never", "Ready", "Verdict", "Wait", "check", "may_start", "may_stop"]


class Ready(msgspec.Struct, frozen=True):
    """Every dependency is as it should be."""


class Wait(msgspec.Struct, frozen=True):
    """Not yet. `until` (epoch seconds): when a startTimeout makes it `Never`, if one does."""

    reason: str
    until: float | None = None


class Never(msgspec.Struct, frozen=True):
    """A dependency has ended, or timed out, in a way that can't become what is asked."""

    reason: str


Verdict = Ready | Wait | Never


def check(spec: TaskSpec) -> str | None:
    """Say why the dependencies of a task can't be resolved at all (unknown name, cycle, no health check); else None."""
    by_name = {container.name: container for container in spec.containers}
    for container in spec.containers:
        for dependency in container.depends_on:
            target = by_name.get(dependency.container)
            if target is None:
                return f"{container.name} depends on {dependency.container}, which the task doesn't have"
            if dependency.condition == "HEALTHY" and target.health_check is None:
                return f"{container.name} waits for {target.name} to be HEALTHY, but that has no health check"
    resolved: set[str] = set()
    while len(resolved) < len(by_name):
        free = {
            name
            for name, container in by_name.items()
            if name not in resolved and all(d.container in resolved for d in container.depends_on)
        }
        if not free:
            return f"the containers {', '.join(sorted(by_name.keys() - resolved))} depend on each other in a circle"
        resolved |= free
    return None


def may_start(state: TaskState, spec: ContainerSpec, now: float) -> Verdict:
    """Judge whether the container may start; `Never` outweighs `Wait`, which outweighs `Ready`."""
    states: Mapping[str, ContainerState] = {container.name: container for container in state.containers}
    waits: list[Wait] = []
    for dependency in spec.depends_on:
        target = state.spec.container(dependency.container)
        verdict = _judge(dependency, target, states[dependency.container], now)
        if isinstance(verdict, Never):
            return verdict
        if isinstance(verdict, Wait):
            waits.append(verdict)
    if not waits:
        return Ready()
    deadlines = [wait.until for wait in waits if wait.until is not None]
    return Wait("; ".join(wait.reason for wait in waits), min(deadlines, default=None))


def may_stop(state: TaskState, name: str) -> bool:
    """Tell whether all containers that depend on this one, directly or through others, have stopped."""
    dependents = {name}
    while True:
        further = {
            spec.name
            for spec in state.spec.containers
            if any(dependency.container in dependents for dependency in spec.depends_on)
        }
        if further <= dependents:
            break
        dependents |= further
    return all(c.known is ContainerStatus.STOPPED for c in state.containers if c.name in dependents - {name})


def _judge(dependency: Dependency, spec: ContainerSpec, target: ContainerState, now: float) -> Verdict:
    stopped = target.known is ContainerStatus.STOPPED
    if stopped and not target.has_run:
        return Never(f"dependency {target.name} did not start")
    match dependency.condition:
        case "START":
            return Ready() if target.known >= ContainerStatus.RUNNING else Wait(f"{target.name} to start")
        case "COMPLETE":
            wanted, met, missed = "complete", stopped, False
        case "SUCCESS":
            wanted, met, missed = "exit with code 0", stopped and target.exit_code == 0, stopped
        case "HEALTHY":
            met = target.health is HealthStatus.HEALTHY and not stopped and not target.restarting
            wanted, missed = "become healthy", stopped
    if met:
        return Ready()
    if missed:
        return Never(f"dependency {target.name} did not {wanted}: it exited with code {target.exit_code}")
    deadline = None
    if spec.start_timeout_s and target.started_at is not None:
        deadline = target.started_at + spec.start_timeout_s
        if now >= deadline:
            return Never(
                f"dependency {target.name} did not {wanted} within its startTimeout of {spec.start_timeout_s} s"
            )
    return Wait(f"{target.name} to {wanted}", deadline)
