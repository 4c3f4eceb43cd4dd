"""What an inspected container tells: it runs, has ended (and is restarted, or stays stopped), or is gone.

A container's start and end are known from here only. Docker's answer is the truth about the container, also about what
happened while no agent ran.
"""

import signal
from typing import Final

from msgspec.structs import replace

from agent.engine.api import ContainerFacts
from agent.task.backoff import delay_s
from agent.task.messages import Inspected
from agent.task.model import ContainerState, TaskState, Verb, tell
from agent.task.restart import SHORTEST_PERIOD_S, should_restart
from homeport import reasons
from homeport.protocol import NetworkBinding
from homeport.status import ContainerStatus, HealthStatus

__all__ = ["absorb_inspected", "stop_container"]

#: Docker's `removing` and `dead` are ends, too: their process is gone.
_ENDED: Final = frozenset({"exited", "dead", "removing"})
_SIGKILLED: Final = 137


def absorb_inspected(state: TaskState, fact: Inspected, now: float) -> TaskState:
    """Return the state after a look at one container."""
    c = state.container(fact.container)
    if c.applied is Verb.INSPECT:
        # A stop that is being tried again keeps its count: looking in between is no progress.
        c = replace(c, applied=None, tries=c.tries if c.stop_asked_at is not None else 0, not_before=0.0)
    elif c.applied is not None:
        return state
    if fact.image is not None:
        c = replace(c, image_digest=c.image_digest or fact.image.digest)
    inherited, c = c.inherited, replace(c, inherited=False)
    state = state.with_container(c)
    if fact.facts is None:
        return _missing(state, c, now)
    if fact.facts.state == "created":
        return _created(state, c, fact.facts, now)
    if fact.facts.state in _ENDED:
        return _ended(state, c, fact.facts, now)
    return _running(state, c, fact.facts, now, inherited=inherited)


def stop_container(state: TaskState, c: ContainerState, reason: str | None, now: float) -> TaskState:
    """Count a container as stopped that can't be brought any further; its reason, if it has one, stays."""
    c = replace(
        c, known=ContainerStatus.STOPPED, restarting=False, needs_inspect=False, pid=0, reason=c.reason or reason
    )
    state = state.with_container(c)
    return tell(state, now, "failed", reason, c.name) if reason else state


def _missing(state: TaskState, c: ContainerState, now: float) -> TaskState:
    if c.known is ContainerStatus.STOPPED:
        return state.with_container(replace(c, zombie=False))
    if c.known < ContainerStatus.CREATED:
        # Never started, since only what is known in the journal as created is.
        return state.with_container(replace(c, runtime_id=None))
    if c.died is not None and c.known is ContainerStatus.RUNNING and not c.restarting:
        code, at = c.died
        c = replace(c, exit_code=code, finished_at=at)
    else:
        # What is known is of an earlier run, if it was restarted: how the last one ended nobody can say any more.
        c = replace(c, exit_code=None, finished_at=c.finished_at or (now if c.has_run else None))
    return stop_container(state, c, reasons.RECORD_LOST if state.unrecorded else reasons.CONTAINER_VANISHED, now)


def _created(state: TaskState, c: ContainerState, facts: ContainerFacts, now: float) -> TaskState:
    known = max(c.known, ContainerStatus.CREATED)
    found = c.known < ContainerStatus.CREATED
    state = state.with_container(replace(c, runtime_id=facts.container_id, known=known))
    if state.unrecorded and known is ContainerStatus.CREATED:
        return stop_container(state, state.container(c.name), reasons.RECORD_LOST, now)
    return tell(state, now, "created", f"Found container {facts.name}, created earlier", c.name) if found else state


def _running(state: TaskState, c: ContainerState, facts: ContainerFacts, now: float, *, inherited: bool) -> TaskState:
    if c.known is ContainerStatus.STOPPED:
        return state.with_container(replace(c, runtime_id=facts.container_id, zombie=True))
    came_up = c.known < ContainerStatus.RUNNING or c.restarting or c.started_at != facts.started_at
    has_check = state.spec.container(c.name).health_check is not None
    health = (facts.health or HealthStatus.UNKNOWN) if has_check else None
    before = c
    c = replace(
        c,
        known=ContainerStatus.RUNNING,
        runtime_id=facts.container_id,
        started_at=facts.started_at if facts.started_at is not None else now,
        finished_at=None,
        exit_code=None,
        bindings=facts.bindings,
        health=health,
        restarting=False,
        died=None,
        pid=facts.pid,
        waiting_for="",
        not_before=now + delay_s(c.tries, 0.0) if c.stop_asked_at is not None else 0.0,
    )
    state = state.with_container(c)
    if came_up:
        state = tell(state, c.started_at or now, "started", f"Started{_ports(c.bindings)}", c.name)
    if inherited or (state.unrecorded and came_up):
        state = tell(state, now, "adopted", "Found running by the restarted agent, and adopted", c.name)
    if health is not before.health and (before.health is not None or health is not HealthStatus.UNKNOWN):
        output = facts.health_output.strip()
        detail = f": {output[:200]}" if output and health is HealthStatus.UNHEALTHY else ""
        state = tell(state, now, "health", f"Health is now {health}{detail}", c.name)
    return state


def _ended(state: TaskState, c: ContainerState, facts: ContainerFacts, now: float) -> TaskState:
    if c.known is ContainerStatus.STOPPED:
        return state.with_container(replace(c, zombie=False))
    if c.restarting and facts.finished_at == c.finished_at:
        return state.with_container(c)
    spec = state.spec.container(c.name)
    c = replace(
        c,
        runtime_id=facts.container_id,
        started_at=facts.started_at if facts.started_at is not None else c.started_at,
        finished_at=facts.finished_at if facts.finished_at is not None else now,
        exit_code=facts.exit_code,
        bindings=facts.bindings or c.bindings,
        health=None if c.health is None else HealthStatus.UNKNOWN,
        pid=0,
        restarting=False,
        waiting_for="",
    )
    exited = f"Exited with code {_code(c.exit_code)}"
    if facts.oom_killed:
        exited += ": killed, since it used more memory than its limit"
    elif _was_killed(c, spec.stop_timeout_s):
        exited += f": it did not stop within its stopTimeout of {spec.stop_timeout_s} s, and was killed"
    last_start = c.restarted_at or c.started_at or now
    again, why_not = should_restart(spec.restart_policy, c.exit_code, last_start, c.finished_at or now)
    if again and not state.stopping and not state.unrecorded:
        c = replace(
            c,
            known=ContainerStatus.RUNNING,
            restarting=True,
            restart_count=c.restart_count + 1,
            restarted_at=now,
            not_before=(c.started_at or 0.0) + SHORTEST_PERIOD_S,
        )
        message = f"{exited}; restarting it (restart {c.restart_count})"
        return tell(state.with_container(c), c.finished_at or now, "restarting", message, c.name)
    if spec.restart_policy.enabled and not state.stopping:
        exited += f"; not restarted: {why_not}"
    c = replace(
        c,
        known=ContainerStatus.STOPPED,
        needs_inspect=False,
        reason=c.reason or (reasons.OUT_OF_MEMORY if facts.oom_killed else None),
    )
    return tell(state.with_container(c), c.finished_at or now, "exited", exited, c.name)


def _was_killed(c: ContainerState, stop_timeout_s: int) -> bool:
    if c.exit_code != _SIGKILLED or c.stop_asked_at is None or c.finished_at is None:
        return False
    return c.finished_at - c.stop_asked_at >= stop_timeout_s


def _code(exit_code: int | None) -> str:
    """Render an exit code; shells and Docker give 128 + the signal's number for a process that a signal ended."""
    if exit_code is None:
        return "unknown"
    try:
        return f"{exit_code} ({signal.Signals(exit_code - 128).name})"
    except ValueError:
        return str(exit_code)


def _ports(bindings: tuple[NetworkBinding, ...]) -> str:
    if not bindings:
        return ""
    shown = sorted({f"{b.host_port} -> {b.container_port}/{b.protocol}" for b in bindings})
    return f"; host ports {', '.join(shown)}"
