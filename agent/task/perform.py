"""Actions done: each becomes a few calls of the Engine, and its outcome a fact. No decision is made here.

Nothing is raised but CancelledError: what the Engine refuses, or fails to answer, is a fact as well, and so is a
mistake of the agent's own over one task's spec.
"""

import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final, Protocol

import structlog

from agent.engine.api import Engine, PullProgress
from agent.engine.errors import EngineError, EngineTimeout, EngineUnavailable, NotFound
from agent.engine.plan import container_plan, volume_plans
from agent.task.messages import (
    Action,
    CancelPull,
    Create,
    Created,
    Ensure,
    Ensured,
    EnsureFailed,
    Fact,
    Failed,
    FailureKind,
    ImageReady,
    Inspect,
    Inspected,
    Pull,
    PullBegan,
    PullMoved,
    Start,
    Started,
    Stop,
    StopReturned,
)
from agent.task.model import TaskState, Verb
from homeport.clock import Clock
from homeport.ids import InstanceId, TaskId
from homeport.spec import TaskSpec
from homeport.status import ContainerStatus

__all__ = ["Performer", "TaskCgroups", "Tell"]

_log = structlog.get_logger(__name__)

Tell = Callable[[Fact], None]

#: What can fail; cancelling can't.
Attempt = Ensure | Pull | Create | Start | Stop | Inspect

#: A pull's progress is told at most this often.
_PROGRESS_EVERY_S: Final = 5.0

_VERBS: Final[dict[type[Action], Verb]] = {
    Pull: Verb.PULL,
    Create: Verb.CREATE,
    Start: Verb.START,
    Stop: Verb.STOP,
    Inspect: Verb.INSPECT,
}


class TaskCgroups(Protocol):
    """The cgroups that hold tasks to their own cpu and memory, as `agent.cgroups` makes them."""

    async def ensure(self, task_id: TaskId, task: TaskSpec) -> str | None:
        """Make the task's cgroup with its limits; return it as Docker's CgroupParent, None if it has none."""
        ...

    async def remove(self, task_id: TaskId) -> None:
        """Remove the task's cgroup; quietly, if there is none. OSError if that fails."""
        ...


class Performer:
    """Performs the actions of all tasks of this host against one Engine."""

    def __init__(
        self,
        engine: Engine,
        cgroups: TaskCgroups,
        *,
        owner: InstanceId,
        clock: Clock,
        rng: random.Random,
        log_drivers: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        """`log_drivers` tells those the Engine has, empty while that isn't known."""
        self._engine = engine
        self._cgroups = cgroups
        self._owner = owner
        self._clock = clock
        self._rng = rng
        self._log_drivers = log_drivers
        #: Containers whose start waits for its turn.
        self._waiting: set[str] = set()

    async def perform(self, state: TaskState, action: Action, tell: Tell) -> None:
        """Do `action` for the task, and tell what came of it: exactly one outcome, unless cancelled."""
        assert not isinstance(action, CancelPull), "the runner cancels"
        try:
            await self._do(state, action, tell)
        except EngineError as error:
            tell(self._failure(action, _kind(error), str(error)))
        except Exception as error:  # noqa: BLE001  # one task that trips the agent must not take all others down
            _log.exception("an action failed in a way nobody thought of", action=action)
            tell(self._failure(action, "rejected", f"the agent failed: {type(error).__name__}: {error}"))

    def _failure(self, action: Attempt, kind: FailureKind, message: str) -> Fact:
        jitter = self._rng.random()
        if isinstance(action, Ensure):
            return EnsureFailed(action.kind, kind, message, jitter)
        return Failed(action.container, _VERBS[type(action)], kind, message, jitter)

    async def _do(self, state: TaskState, action: Attempt, tell: Tell) -> None:
        match action:
            case Ensure():
                await self._ensure(state, action, tell)
            case Pull():
                await self._pull(state, action, tell)
            case Create():
                plan = container_plan(
                    state.task_id,
                    state.spec,
                    state.spec.container(action.container),
                    owner=self._owner,
                    cgroup_parent=state.cgroup.cgroup_parent,
                    log_drivers=self._log_drivers(),
                    gpu_ids=state.gpus_of(action.container),
                )
                tell(Created(action.container, await self._engine.create(plan)))
            case Start():
                await self._start(action)
                tell(Started(action.container))
            case Stop():
                await self._engine.stop(action.runtime_id, action.timeout_s)
                tell(StopReturned(action.container))
            case Inspect():
                tell(await self._inspect(state, action))

    async def _inspect(self, state: TaskState, action: Inspect) -> Inspected:
        facts = None
        if action.runtime_id is not None:
            facts = await self._engine.inspect(action.runtime_id)
        if facts is None:
            facts = await self._engine.inspect(action.docker_name)
        image = None
        if facts is not None and state.container(action.container).known < ContainerStatus.PULLED:
            image = await self._engine.image(state.spec.container(action.container).image)
        return Inspected(action.container, facts, image)

    async def _start(self, action: Start) -> None:
        self._waiting.add(action.runtime_id)
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._engine.start_turn())
            finally:
                self._waiting.discard(action.runtime_id)
            await self._engine.start(action.runtime_id)

    def waits(self, action: Start) -> bool:
        """Tell whether a start still waits for its turn: cancelled now, it has no effect."""
        return action.runtime_id in self._waiting

    async def _pull(self, state: TaskState, action: Pull, tell: Tell) -> None:
        reference = state.spec.container(action.container).image
        image = await self._engine.image(reference)
        if image is not None:
            tell(ImageReady(action.container, image))
            return
        tell(PullBegan(action.container))
        began = self._clock.monotonic()
        progress = _Progress(action.container, self._clock, tell)
        image = await self._engine.pull(reference, progress)
        tell(ImageReady(action.container, image, self._clock.monotonic() - began, progress.total_bytes))

    async def _ensure(self, state: TaskState, action: Ensure, tell: Tell) -> None:
        if action.kind == "volumes":
            await self._ensure_volumes(state)
            tell(Ensured("volumes"))
        else:
            tell(Ensured("cgroup", await self._cgroups.ensure(state.task_id, state.spec)))

    async def _ensure_volumes(self, state: TaskState) -> None:
        for plan in volume_plans(state.task_id, state.spec, owner=self._owner):
            if plan.create:
                await self._engine.create_volume(
                    plan.name, driver=plan.driver, options=plan.options, labels=plan.labels
                )
            elif not await self._engine.volume_exists(plan.name):
                raise NotFound(f"volume {plan.volume}: no such Docker volume, and autoprovision is off")

    async def clean_up(self, state: TaskState) -> None:
        """Remove what is left of a task that is over: containers, its own volumes, its cgroup. Safe to repeat.

        Raises EngineError if the Engine fails, OSError if the cgroup can't be removed.
        """
        for container in state.containers:
            await self._engine.remove(container.docker_name)
        for plan in volume_plans(state.task_id, state.spec, owner=self._owner):
            if plan.remove_with_task:
                await self._engine.remove_volume(plan.name)
        await self._cgroups.remove(state.task_id)


class _Progress:
    """Tells a pull's progress, now and then."""

    def __init__(self, container: str, clock: Clock, tell: Tell) -> None:
        self._container = container
        self._clock = clock
        self._tell = tell
        self._told_at = clock.monotonic()
        self.total_bytes = 0

    def __call__(self, progress: PullProgress) -> None:
        self.total_bytes = max(self.total_bytes, progress.total_bytes)
        now = self._clock.monotonic()
        if progress.done_bytes and now - self._told_at >= _PROGRESS_EVERY_S:
            self._told_at = now
            self._tell(PullMoved(self._container, progress.done_bytes, progress.total_bytes))


def _kind(error: EngineError) -> FailureKind:
    if isinstance(error, EngineUnavailable):
        return "unavailable"
    if isinstance(error, EngineTimeout):
        return "timeout"
    return "missing" if isinstance(error, NotFound) else "rejected"
