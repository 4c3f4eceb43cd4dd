"""The loop that owns one task's state: facts come in, `advance` decides, the journal keeps, actions go out.

What always holds: a task is in the journal before anything is done for it, and a state before it is reported and before
a container is started or stopped because of it; at most one loop owns a task. What may be repeated without harm (a
look, a pull, a create under the name that is kept) goes out while the disk is still busy. With nothing to do the loop
only waits for its inbox; nothing here polls.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from agent.task.messages import Action, CancelPull, Create, Ensure, Fact, Inspect, Pull, Start, StartWithdrawn
from agent.task.model import TaskState, settled
from agent.task.perform import Performer
from agent.task.step import Step, advance
from homeport.clock import Clock

__all__ = ["TaskRunner"]

#: What may be done before its decision is durable: done again by another agent, it has the same effect.
_REPEATABLE: Final = (Inspect, Pull, Ensure, Create)

_log = structlog.get_logger(__name__)

Save = Callable[[TaskState], Awaitable[None]]
Publish = Callable[[TaskState], None]


class TaskRunner:
    """Runs one task. `save` returns once the state is durable; `publish` hears of each state that is worth reporting.

    `state` is the last one that is durable (in flight aside); others may read it.
    """

    def __init__(
        self, state: TaskState, performer: Performer, *, save: Save, publish: Publish, clock: Clock, fresh: bool = False
    ) -> None:
        """`fresh`: the state isn't in the journal yet."""
        self.state = state
        #: Set once every container that an earlier agent may have left has been looked at.
        self.looked = asyncio.Event()
        self._performer = performer
        self._save = save
        self._publish = publish
        self._clock = clock
        self._saved: TaskState | None = None if fresh else settled(state)
        self._inbox: asyncio.Queue[tuple[Fact | None, asyncio.Future[None] | None]] = asyncio.Queue()
        self._taken: list[asyncio.Future[None]] = []
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._starts: dict[str, tuple[Start, asyncio.Task[None]]] = {}
        self._closed = False

    def tell(self, fact: Fact) -> None:
        """Put a fact into the inbox. Never blocks."""
        self._inbox.put_nowait((fact, None))

    def deliver(self, fact: Fact | None) -> asyncio.Future[None]:
        """Put a fact (or none) into the inbox; the future is done once what follows from it is durable.

        To a closed runner nothing matters any more: the future is done at once.
        """
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._closed:
            taken.set_result(None)
            return taken
        self._inbox.put_nowait((fact, taken))
        return taken

    def close(self) -> None:
        """Let `run` return at its next turn, and drop what comes after. For a task that has been cleaned up."""
        self._closed = True
        self._inbox.put_nowait((None, None))

    async def run(self) -> None:
        """Run until closed or cancelled. Cancelling leaves containers as they are: it is not a stop."""
        with structlog.contextvars.bound_contextvars(task=self.state.task_id):
            async with asyncio.TaskGroup() as group:
                facts: list[Fact] = []
                while not self._closed:
                    step = advance(self.state, facts, self._clock.now())
                    early: list[Action] = [a for a in step.actions if self._known and isinstance(a, _REPEATABLE)]
                    late = [a for a in step.actions if a not in early]
                    for action in early:
                        self._act(group, step.state, action)
                    await self._take(step)
                    self._confirm()
                    for action in late:
                        self._act(group, step.state, action)
                    if self.state.stopping:
                        self._withdraw_starts()
                    facts = await self._next_facts(step.wake_at)
                self._drain()
                self._confirm()

    def _confirm(self) -> None:
        for taken in self._taken:
            if not taken.done():
                taken.set_result(None)
        self._taken.clear()

    async def _take(self, step: Step) -> None:
        """Make a step's state durable, then let others see it."""
        before, after = self.state, step.state
        durable = settled(after)
        if durable != self._saved:
            await self._save(durable)
            self._saved = durable
        self.state = after
        for seq, line in after.story:
            if seq > before.seq:
                _log.info(line.message, event_kind=line.event, container=line.container)
        if after.seq > before.seq:
            self._publish(after)
        if after.over or not (after.unrecorded or any(c.inherited for c in after.containers)):
            self.looked.set()

    @property
    def _known(self) -> bool:
        """Whether the task is in the journal, its containers' names with it."""
        return self._saved is not None

    def _act(self, group: asyncio.TaskGroup, state: TaskState, action: Action) -> None:
        if isinstance(action, CancelPull):
            if pull := self._pulls.pop(action.container, None):
                pull.cancel()
            return
        work = group.create_task(self._performer.perform(state, action, self.tell))
        if isinstance(action, Pull):
            self._pulls[action.container] = work
        elif isinstance(action, Start):
            self._starts[action.container] = action, work

    def _withdraw_starts(self) -> None:
        """Give up starts that nobody wants any more and that still wait for their turn; in a burst that can be long."""
        for start, work in self._starts.values():
            if self._performer.waits(start):
                work.cancel()
                self.tell(StartWithdrawn(start.container))
        self._starts.clear()

    async def _next_facts(self, wake_at: float | None) -> list[Fact]:
        """Wait for a fact, or until `wake_at`; return all facts that are there."""
        delay = None if wake_at is None else max(0.0, wake_at - self._clock.now())
        first: list[Fact] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                first = self._sort(await self._inbox.get())
        return [*first, *self._drain()]

    def _drain(self) -> list[Fact]:
        """Take all facts that are in the inbox."""
        facts: list[Fact] = []
        while not self._inbox.empty():
            facts += self._sort(self._inbox.get_nowait())
        return facts

    def _sort(self, item: tuple[Fact | None, asyncio.Future[None] | None]) -> list[Fact]:
        """Return an item's fact, if there is one, and note who waits for it to be taken."""
        fact, taken = item
        if taken is not None:
            self._taken.append(taken)
        return [] if fact is None else [fact]
