"""What to do next for a task: `step(state, now) -> Step`, pure. `advance` takes facts in first and numbers the report.

`step` first settles what follows from what is known (an essential container has ended, a dependency can never be met,
nothing is left to stop), then asks each container for its next verb, at most one in flight each:

    (look, where in doubt) -> pull -> create -> start        stop, in reverse order of dependsOn

All containers are pulled and created at once; `dependsOn` gates starting. A task whose desired status is PENDING is
pulled and created, but not started. Nothing is decided about a container that is in doubt: it is inspected first.
"""

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from agent.task.absorb import absorb, stop_task
from agent.task.backoff import is_delayed
from agent.task.graph import Never, Ready, Wait, check, may_start, may_stop
from agent.task.inspected import stop_container
from agent.task.messages import Action, CancelPull, Create, Ensure, Fact, Inspect, Pull, Start, Stop
from agent.task.model import ContainerState, Provision, TaskState, Verb, tell
from agent.task.report import report_of
from homeport import reasons
from homeport.spec import ContainerSpec
from homeport.status import ContainerStatus, DesiredStatus, StopCode, TaskStatus

__all__ = ["Step", "advance", "step"]

#: What the ECS agent gives a container that never ran, since what it depends on can't be had.
_NEVER_STARTED_EXIT_CODE = 143


class Step(msgspec.Struct, frozen=True):
    """The state from here on, what to do, and when (epoch seconds) to step again even if nothing happens."""

    state: TaskState
    actions: tuple[Action, ...] = ()
    wake_at: float | None = None


class _Next(msgspec.Struct, frozen=True):
    """One container's next move."""

    container: ContainerState
    action: Action | None = None
    wake_at: float | None = None
    waits_for: str = ""


def advance(state: TaskState, facts: Iterable[Fact], now: float) -> Step:
    """Absorb facts, step, and raise the report's number if there is anything new to report."""
    after = state
    for fact in facts:
        after = absorb(after, fact, now)
    result = step(after, now)
    after = result.state
    told = bool(after.story) and after.story[-1][0] > state.seq
    changed = told or report_of(replace(after, seq=state.seq, story=())) != report_of(replace(state, story=()))
    return replace(result, state=replace(after, seq=state.seq + 1) if changed else after)


def step(state: TaskState, now: float) -> Step:
    """Decide what to do for a task. Stepping again without a fact or a change of time does nothing."""
    state, actions = _settle(state, now)
    if not state.stopping and not state.over:
        state, ensured = _ensure(state, now)
        actions += ensured
    provisions = () if state.stopping else (state.volumes, state.cgroup)
    wakes = [each.not_before for each in provisions if is_delayed(each.not_before, now)]
    for spec, container in state.pairs():
        following = _next(state, spec, container, now)
        if following.waits_for and following.waits_for != container.waiting_for:
            state = tell(state, now, "waiting", f"Waiting for {following.waits_for}", container.name)
            following = replace(following, container=replace(following.container, waiting_for=following.waits_for))
        state = state.with_container(following.container)
        if following.action is not None:
            actions.append(following.action)
            state = _told(state, following.action, now)
        if following.wake_at is not None:
            wakes.append(following.wake_at)
    if not actions and not wakes and _stuck(state):
        return step(_give_up(state, now), now)
    return Step(state, tuple(actions), min(wakes, default=None))


# ---------------------------------------------------------------- what follows from what is known


def _settle(state: TaskState, now: float) -> tuple[TaskState, list[Action]]:
    if state.over:
        return state, []
    if not state.stopping and (problem := check(state.spec)) is not None:
        reason = reasons.named(
            reasons.DEPENDENCY_ERROR,
            f"Task dependencies cannot be resolved, taskArn: {state.spec.task_arn}: {problem}",
        )
        state = stop_task(tell(state, now, "failed", reason), now, reason, StopCode.TASK_FAILED_TO_START)
    if not state.stopping:
        state = _end_if_essential_ended(state, now)
    if not state.stopping:
        state = _end_if_essential_ended(_end_dead_ends(state, now), now)
    if state.unrecorded and all(c.known >= ContainerStatus.RUNNING for c in state.containers):
        # What runs is adopted, what doesn't is lost: from here on it is a task like any other.
        state = replace(state, unrecorded=False)
    actions: list[Action] = []
    if state.stopping:
        state, actions = _stop_what_does_not_run(state)
    return _with_status(state, now), actions


def _end_dead_ends(state: TaskState, now: float) -> TaskState:
    """Count containers as stopped that can never start; one's end may be another's, hence again until none is left."""
    if state.desired is not DesiredStatus.RUNNING:
        return state
    while True:
        before = state
        for spec, c in state.pairs():
            if c.known >= ContainerStatus.RUNNING or c.applied is not None or c.needs_inspect or not spec.depends_on:
                continue
            verdict = may_start(state, spec, now)
            if isinstance(verdict, Never):
                reason = reasons.named(reasons.CANNOT_START, verdict.reason)
                state = stop_container(state, replace(c, exit_code=_NEVER_STARTED_EXIT_CODE), reason, now)
        if state is before:
            return state


def _end_if_essential_ended(state: TaskState, now: float) -> TaskState:
    for spec, c in state.pairs():
        if not spec.essential or c.known is not ContainerStatus.STOPPED:
            continue
        gone = c.reason in (reasons.CONTAINER_VANISHED, reasons.RECORD_LOST)
        if c.has_run:
            reason = c.reason if gone and c.reason else reasons.ESSENTIAL_EXITED
            state = stop_task(state, now, reason, StopCode.ESSENTIAL_CONTAINER_EXITED)
        else:
            reason = c.reason or reasons.ESSENTIAL_EXITED
            code = StopCode.ESSENTIAL_CONTAINER_EXITED if state.unrecorded else StopCode.TASK_FAILED_TO_START
            state = stop_task(state, now, reason, code)
        what = "ended" if c.has_run else "did not start"
        return tell(state, now, "stopping", f"Stopping the task, since its essential container {c.name} {what}")
    if all(c.known is ContainerStatus.STOPPED for c in state.containers):
        state = stop_task(state, now, reasons.ESSENTIAL_EXITED, StopCode.ESSENTIAL_CONTAINER_EXITED)
    return state


def _stop_what_does_not_run(state: TaskState) -> tuple[TaskState, list[Action]]:
    actions: list[Action] = []
    for c in state.containers:
        if c.known is ContainerStatus.STOPPED:
            continue
        if c.applied is Verb.PULL:
            actions.append(CancelPull(c.name))
            c = replace(c, applied=None)
        if c.applied is not None or c.needs_inspect or (c.known is ContainerStatus.RUNNING and not c.restarting):
            continue
        reason = None
        if state.pull_started_at is None and c.known is ContainerStatus.PENDING:
            reason = reasons.STOPPED_BEFORE_PULL.format(task_arn=state.spec.task_arn)
        stopped = replace(c, known=ContainerStatus.STOPPED, restarting=False, reason=c.reason or reason)
        state = state.with_container(stopped)
    return state, actions


def _with_status(state: TaskState, now: float) -> TaskState:
    known = [c.known for c in state.containers]
    if state.execution_stopped_at is None:
        ended = [
            c.finished_at or now
            for spec, c in state.pairs()
            if spec.essential and c.has_run and c.known is ContainerStatus.STOPPED
        ]
        state = replace(state, execution_stopped_at=min(ended, default=None))
    if state.started_at is None and all(
        c.known >= ContainerStatus.RUNNING and (c.has_run or not spec.essential) for spec, c in state.pairs()
    ):
        state = replace(state, started_at=max((c.started_at or 0.0 for c in state.containers), default=now))
    if all(status is ContainerStatus.STOPPED for status in known):
        state = replace(state, status=TaskStatus.STOPPED, stopped_at=now)
        return tell(state, now, "stopped", _stopped_text(state))
    if state.stopping:
        return replace(state, status=TaskStatus.STOPPING)
    if all(status >= ContainerStatus.RUNNING for status in known):
        return replace(state, status=TaskStatus.RUNNING)
    return state


def _stopped_text(state: TaskState) -> str:
    return f"Stopped: {state.stopped_reason}" if state.stopped_reason else "Stopped, as asked"


def _stuck(state: TaskState) -> bool:
    """Whether nothing is in flight, nothing runs that could still change, and yet the task isn't where it should be."""
    if state.over or state.volumes.applied or state.cgroup.applied:
        return False
    if any(c.applied is not None or c.known is ContainerStatus.RUNNING for c in state.containers):
        return False
    waits_for_word = state.desired is DesiredStatus.PENDING
    return not (waits_for_word and all(c.known >= _prepared(spec) for spec, c in state.pairs()))


def _prepared(spec: ContainerSpec) -> ContainerStatus:
    """How far a container gets before its task is to run: one with GPUs is made for certain ones, held only then."""
    return ContainerStatus.PULLED if spec.gpus else ContainerStatus.CREATED


def _give_up(state: TaskState, now: float) -> TaskState:
    reason = reasons.TASK_STATE_ERROR
    state = stop_task(tell(state, now, "failed", reason), now, reason, StopCode.TASK_FAILED_TO_START)
    for c in state.containers:
        if c.known is not ContainerStatus.STOPPED:
            state = state.with_container(replace(c, known=ContainerStatus.STOPPED, reason=c.reason or reason))
    return state


# ---------------------------------------------------------------- next verbs


def _ensure(state: TaskState, now: float) -> tuple[TaskState, list[Action]]:
    """Make what the containers need of the task, while any is still to be created or started."""
    if not any(c.known < ContainerStatus.RUNNING or c.restarting for c in state.containers):
        return state, []
    actions: list[Action] = []
    if _due(state.volumes, now):
        state = replace(state, volumes=replace(state.volumes, applied=True))
        actions.append(Ensure("volumes"))
    if _due(state.cgroup, now):
        state = replace(state, cgroup=replace(state.cgroup, applied=True))
        actions.append(Ensure("cgroup"))
    return state, actions


def _due(provision: Provision, now: float) -> bool:
    return not provision.ready and not provision.applied and not is_delayed(provision.not_before, now)


def _next(state: TaskState, spec: ContainerSpec, c: ContainerState, now: float) -> _Next:
    if c.applied is Verb.STOP and state.kill and not c.killed and c.runtime_id is not None:
        # The Engine still waits for it to stop by itself: a second stop, without delay, doesn't wait for the first.
        return _Next(replace(c, killed=True), Stop(c.name, c.runtime_id, 0))
    if c.applied is not None:
        return _Next(c)
    if not c.needs_inspect and c.known is ContainerStatus.STOPPED and not c.zombie:
        return _Next(c)
    if is_delayed(c.not_before, now):
        return _Next(c, wake_at=c.not_before)
    if c.needs_inspect:
        looking = replace(c, applied=Verb.INSPECT, needs_inspect=False)
        return _Next(looking, Inspect(c.name, c.runtime_id, c.docker_name))
    if c.zombie and c.runtime_id is not None:
        stopping = replace(c, applied=Verb.STOP, zombie=False)
        return _Next(stopping, Stop(c.name, c.runtime_id, spec.stop_timeout_s))
    if state.stopping:
        return _next_down(state, spec, c, now)
    return _next_up(state, spec, c, now)


def _next_down(state: TaskState, spec: ContainerSpec, c: ContainerState, now: float) -> _Next:
    if c.runtime_id is None or not (state.kill or may_stop(state, c.name)):
        return _Next(c)
    asked_at = now if c.stop_asked_at is None else c.stop_asked_at
    stopping = replace(c, applied=Verb.STOP, stop_asked_at=asked_at, killed=state.kill)
    return _Next(stopping, Stop(c.name, c.runtime_id, 0 if state.kill else spec.stop_timeout_s))


def _next_up(state: TaskState, spec: ContainerSpec, c: ContainerState, now: float) -> _Next:
    if c.known is ContainerStatus.PENDING:
        return _Next(replace(c, applied=Verb.PULL), Pull(c.name))
    if not (state.volumes.ready and state.cgroup.ready):
        return _Next(c)
    if c.known is ContainerStatus.PULLED:
        if state.desired is DesiredStatus.PENDING and spec.gpus:
            return _Next(c)
        return _Next(replace(c, applied=Verb.CREATE), Create(c.name))
    if c.known is ContainerStatus.RUNNING and not c.restarting:
        return _Next(c)
    if state.desired is not DesiredStatus.RUNNING or c.runtime_id is None:
        return _Next(c)
    if not c.restarting:
        verdict = may_start(state, spec, now)
        if not isinstance(verdict, Ready):
            until = verdict.until if isinstance(verdict, Wait) else None
            return _Next(c, wake_at=until, waits_for=verdict.reason)
    return _Next(replace(c, applied=Verb.START), Start(c.name, c.runtime_id))


def _told(state: TaskState, action: Action, now: float) -> TaskState:
    """Note what an action means for the record at the moment it is decided."""
    if isinstance(action, Pull) and state.pull_started_at is None:
        return replace(state, pull_started_at=now)
    return state
