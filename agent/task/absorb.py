"""What a fact changes in what is known of a task: `absorb(state, fact, now) -> state`, pure.

What always holds: what is known only advances; the first terminal reason wins; a call that failed because the Engine is
silent changes nothing but when to try again; a result that nobody waits for any more is passed over.
"""

from typing import Final

from msgspec.structs import replace

from agent.engine.api import EngineEvent
from agent.task.backoff import delay_s
from agent.task.inspected import absorb_inspected, stop_container
from agent.task.messages import (
    Acked,
    Created,
    Ensured,
    EnsureFailed,
    Fact,
    Failed,
    ImageReady,
    Inspected,
    Isolated,
    Observed,
    PullBegan,
    PullMoved,
    Refused,
    Removed,
    Resync,
    Started,
    StartWithdrawn,
    StopReturned,
    Wanted,
)
from agent.task.model import ContainerState, Provision, TaskState, Verb, tell
from homeport import reasons
from homeport.status import ContainerStatus, DesiredStatus, StopCode

__all__ = ["PULL_TRIES", "absorb", "stop_task"]

#: How often a pull is tried when the registry fails in a way that may pass (the ECS agent: 5).
PULL_TRIES: Final = 5
#: How often a create or start may time out before it counts as failed.
TIMEOUT_TRIES: Final = 3

#: Parts of a registry's refusals that another try won't change.
_PERMANENT_PULL_ERRORS: Final = (
    "manifest unknown",
    "not found",
    "access denied",
    "unauthorized",
    "no basic auth credentials",
    "invalid reference format",
    "no matching manifest",
    "repository does not exist",
)
_FAILURE_NAMES: Final = {
    Verb.PULL: reasons.CANNOT_PULL,
    Verb.CREATE: reasons.CANNOT_CREATE,
    Verb.START: reasons.CANNOT_START,
}


def absorb(state: TaskState, fact: Fact, now: float) -> TaskState:
    """Return the state after a fact. `now`: epoch seconds."""
    match fact:
        case Wanted():
            return _wanted(state, fact, now)
        case Refused():
            return _refused(state, fact.reason, now)
        case Isolated():
            return _isolated(state, fact, now)
        case Acked():
            acked = max(state.acked, min(fact.seq, state.seq))
            return replace(state, acked=acked, story=tuple(entry for entry in state.story if entry[0] > acked))
        case Removed():
            return state if state.removed_at is not None else replace(state, removed_at=now)
        case Resync():
            return _resync(state)
        case Ensured() | EnsureFailed():
            return _provision(state, fact, now)
        case Failed():
            return _failed(state, fact, now)
        case _:
            return _of_container(state, fact, now)


def stop_task(state: TaskState, now: float, reason: str, code: StopCode | None) -> TaskState:
    """Let the task stop; a reason and code that are there already stay."""
    if state.stopping:
        return state
    return replace(
        state, desired=DesiredStatus.STOPPED, stopping_at=now, stop_code=code, stopped_reason=reasons.trim(reason)
    )


def _wanted(state: TaskState, fact: Wanted, now: float) -> TaskState:
    if fact.desired <= state.desired:
        return state
    if fact.desired is not DesiredStatus.STOPPED:
        return replace(state, desired=fact.desired, gpu_ids=fact.gpu_ids or state.gpu_ids)
    state = replace(state, desired=DesiredStatus.STOPPED, stopping_at=now)
    return tell(state, now, "stopping", f"Asked to stop: {fact.reason}" if fact.reason else "Asked to stop")


def _refused(state: TaskState, reason: str, now: float) -> TaskState:
    if state.stopping:
        return state
    return stop_task(tell(state, now, "refused", reason), now, reason, StopCode.TASK_FAILED_TO_START)


def _isolated(state: TaskState, fact: Isolated, now: float) -> TaskState:
    if state.over:
        return state
    if fact.silent_s is None:
        reason = reasons.ISOLATED_UNKNOWN
    else:
        reason = reasons.ISOLATED.format(silent_s=round(fact.silent_s))
    if not state.stopping:
        # As if the service's scheduler had stopped it, which can't be asked: it is no failure of the task.
        state = tell(state, now, "isolated", reason)
        state = stop_task(state, now, reason, StopCode.SERVICE_SCHEDULER_INITIATED)
    if fact.kill and not state.kill:
        state = tell(
            state, now, "isolated", "Killing what still runs of the task, since its replacement may start soon"
        )
        # Whatever waits to be tried again is tried now.
        hurried = tuple(replace(c, not_before=0.0) for c in state.containers)
        state = replace(state, kill=True, containers=hurried)
    return state


def _resync(state: TaskState) -> TaskState:
    def looked_at_again(c: ContainerState) -> ContainerState:
        exists = c.runtime_id is not None or c.known >= ContainerStatus.CREATED
        # One that never ran but was made may be the late effect of a start that timed out.
        may_run = c.known is not ContainerStatus.STOPPED or (c.runtime_id is not None and not c.has_run)
        return replace(c, needs_inspect=c.needs_inspect or (exists and may_run), not_before=0.0, tries=0)

    return replace(
        state,
        containers=tuple(looked_at_again(c) for c in state.containers),
        volumes=replace(state.volumes, not_before=0.0),
        cgroup=replace(state.cgroup, not_before=0.0),
    )


def _provision(state: TaskState, fact: Ensured | EnsureFailed, now: float) -> TaskState:
    if isinstance(fact, Ensured):
        return _with_provision(
            _answered(state, now), fact.kind, Provision(ready=True, cgroup_parent=fact.cgroup_parent)
        )
    before = state.volumes if fact.kind == "volumes" else state.cgroup
    if fact.failure in ("unavailable", "timeout"):
        tries = before.tries + 1
        retry = Provision(tries=tries, not_before=now + delay_s(tries, fact.jitter))
        return _with_provision(_silent(state, fact.message, now), fact.kind, retry)
    state = _with_provision(state, fact.kind, Provision())
    name = reasons.CANNOT_CREATE_VOLUME if fact.kind == "volumes" else reasons.RESOURCE_ERROR
    reason = reasons.named(name, fact.message)
    if state.stopping:
        return state
    return stop_task(tell(state, now, "failed", reason), now, reason, StopCode.TASK_FAILED_TO_START)


def _with_provision(state: TaskState, kind: str, provision: Provision) -> TaskState:
    return replace(state, volumes=provision) if kind == "volumes" else replace(state, cgroup=provision)


def _of_container(
    state: TaskState,
    fact: PullBegan | PullMoved | ImageReady | Created | Started | StartWithdrawn | StopReturned | Inspected | Observed,
    now: float,
) -> TaskState:
    c = state.container(fact.container)
    match fact:
        case Observed():
            return state.with_container(_observed(c, fact.event))
        case Inspected():
            return absorb_inspected(_answered(state, now), fact, now)
        case PullBegan():
            image = state.spec.container(c.name).image
            return tell(state, now, "pulling", f"Pulling image {image}", c.name) if c.applied is Verb.PULL else state
        case PullMoved():
            return _pull_moved(state, fact, now) if c.applied is Verb.PULL else state
        case ImageReady():
            return _image_ready(_answered(state, now), fact, now) if c.applied is Verb.PULL else state
        case Created() if c.applied is Verb.CREATE:
            c = _done(replace(c, runtime_id=fact.runtime_id, known=max(c.known, ContainerStatus.CREATED)))
            state = _answered(state.with_container(c), now)
            return tell(state, now, "created", f"Created container {c.docker_name}", c.name)
        case Started() if c.applied is Verb.START:
            return _answered(state.with_container(replace(_done(c), needs_inspect=True)), now)
        case StartWithdrawn() if c.applied is Verb.START:
            return state.with_container(replace(c, applied=None))
        case StopReturned() if c.applied is Verb.STOP:
            # Not `_done`: should it run on, the next try must wait longer.
            c = replace(c, applied=None, tries=c.tries + 1, needs_inspect=True)
            return _answered(state.with_container(c), now)
        case _:
            return state


def _pull_moved(state: TaskState, fact: PullMoved, now: float) -> TaskState:
    image = state.spec.container(fact.container).image
    message = f"Pulling image {image}: {_megabytes(fact.done_bytes)} of {_megabytes(fact.total_bytes)}"
    return tell(state, now, "pulling", message, fact.container)


def _image_ready(state: TaskState, fact: ImageReady, now: float) -> TaskState:
    c = _done(state.container(fact.container))
    if c.known is not ContainerStatus.PENDING:
        return state.with_container(c)
    state = state.with_container(replace(c, known=ContainerStatus.PULLED, image_digest=fact.image.digest))
    image = state.spec.container(c.name).image
    digest = f" ({fact.image.digest})" if fact.image.digest else ""
    if fact.pulled_in_s is None:
        message = f"Image {image}{digest} is on the host already"
    else:
        size = f", {_megabytes(fact.pulled_bytes)}" if fact.pulled_bytes else ""
        message = f"Pulled image {image}{digest} in {fact.pulled_in_s:.1f} s{size}"
    if all(other.known >= ContainerStatus.PULLED for other in state.containers):
        state = replace(state, pull_stopped_at=state.pull_stopped_at or now)
    return tell(state, now, "pulled", message, c.name)


def _observed(c: ContainerState, event: EngineEvent) -> ContainerState:
    """What an event asks for is another look; only a death's exit code is kept, in case nothing is left to look at."""
    if c.runtime_id is not None and event.container_id and event.container_id != c.runtime_id:
        return c
    if event.kind == "die" and c.known is not ContainerStatus.STOPPED:
        died = c.died if event.exit_code is None else (event.exit_code, event.at)
        return replace(c, died=died, needs_inspect=True)
    if event.kind in ("health", "destroy") and c.known is not ContainerStatus.STOPPED:
        return replace(c, needs_inspect=True)
    unexpected = c.known is not ContainerStatus.RUNNING or c.restarting
    if event.kind == "start" and unexpected and c.applied is not Verb.START:
        return replace(c, needs_inspect=True)
    return c


def _failed(state: TaskState, fact: Failed, now: float) -> TaskState:
    c = state.container(fact.container)
    if c.applied is not fact.verb:
        return state
    # Whatever became of a create, start or stop: it may have had its effect, so look before deciding.
    looks = fact.verb is not Verb.PULL
    c = replace(c, applied=None, tries=c.tries + 1, needs_inspect=c.needs_inspect or looks)
    c = replace(c, not_before=now + delay_s(c.tries, fact.jitter), told=fact.message)
    news = fact.message != state.container(c.name).told
    if fact.failure == "unavailable":
        return _silent(state.with_container(c), fact.message, now)
    if fact.failure == "timeout" and fact.verb is not Verb.PULL:
        c = replace(c, timeouts=c.timeouts + (fact.verb is not Verb.INSPECT))
        if news:
            state = tell(state, now, "retrying", f"Docker did not answer in time ({fact.verb}): {fact.message}", c.name)
        if c.timeouts < TIMEOUT_TRIES or fact.verb is Verb.STOP:
            return state.with_container(c)
        return stop_container(state, c, reasons.named(reasons.DOCKER_TIMEOUT, fact.message), now)
    state = _answered(state, now)
    if fact.verb in (Verb.INSPECT, Verb.STOP) or (fact.verb is Verb.START and fact.failure == "missing"):
        if news and fact.failure != "missing":
            state = tell(state, now, "retrying", f"Docker refused ({fact.verb}): {fact.message}", c.name)
        return state.with_container(c)
    if fact.verb is Verb.PULL and c.tries < PULL_TRIES and _may_pass(fact):
        wait_s = c.not_before - now
        message = f"Pulling failed, trying again in {wait_s:.0f} s: {fact.message}"
        return tell(state.with_container(c), now, "retrying", message, c.name)
    name = reasons.DOCKER_TIMEOUT if fact.failure == "timeout" else _FAILURE_NAMES[fact.verb]
    return stop_container(state, replace(c, needs_inspect=False), reasons.named(name, fact.message), now)


def _may_pass(fact: Failed) -> bool:
    text = fact.message.lower()
    return fact.failure == "rejected" and not any(part in text for part in _PERMANENT_PULL_ERRORS)


def _done(c: ContainerState) -> ContainerState:
    return replace(c, applied=None, tries=0, timeouts=0, not_before=0.0)


def _silent(state: TaskState, message: str, now: float) -> TaskState:
    """Note, once, that the Engine is silent; what is known stays as it is."""
    if state.silent_since is not None:
        return state
    text = f"The Docker Engine does not answer; what is known of the task stays as it is until it does: {message}"
    return tell(replace(state, silent_since=now), now, "engine-silent", text)


def _answered(state: TaskState, now: float) -> TaskState:
    if state.silent_since is None:
        return state
    silent_s = now - state.silent_since
    text = f"The Docker Engine answers again, after {silent_s:.0f} s"
    return tell(replace(state, silent_since=None), now, "engine-back", text)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
