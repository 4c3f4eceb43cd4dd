"""Processes that can be killed at any step, and the clocks of the machines they run on."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final

from tests.simulation.loop import PROCESS, Offload, VirtualLoop

__all__ = ["EPOCH_S", "MachineClock", "Process"]

#: When a simulation begins, epoch seconds.
EPOCH_S: Final = 1_800_000_000.0


class MachineClock:
    """A machine's clock: it may jump (`now`), and drift (`now` and `monotonic`). See homeport.clock.Clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._offset_s = EPOCH_S
        self._rate = 1.0
        #: The drift began at this moment, which was this time here.
        self._since = self._local_since = 0.0

    def now(self) -> float:
        """See Clock."""
        return self._offset_s + self.monotonic()

    def monotonic(self) -> float:
        """See Clock."""
        return self.local(self._loop.now)

    def local(self, moment: float) -> float:
        """Return the monotonic time here at a moment of the loop."""
        return self._local_since + (moment - self._since) * self._rate

    def moment(self, local: float) -> float:
        """Return the loop's moment of a monotonic time here."""
        return self._since + (local - self._local_since) / self._rate

    def jump(self, seconds: float) -> None:
        """Someone sets the clock."""
        self._offset_s += seconds

    def drift(self, rate: float) -> None:
        """Run so many times as fast from now on."""
        self._local_since, self._since = self.local(self._loop.now), self._loop.now
        self._rate = rate


class Process:
    """One process on a machine. `spawn` its main coroutine; it is over when that ends, or when it is killed."""

    def __init__(
        self,
        loop: VirtualLoop,
        name: str,
        clock: MachineClock,
        *,
        offload: Offload | None = None,
        on_death: Callable[["Process"], None] = lambda _: None,
    ) -> None:
        """`offload` takes what goes to threads, None: done at once. `on_death` is called when it is killed."""
        self.name = name
        self.clock = clock
        self.offload = offload
        self.alive = True
        self.steps = 0
        #: Tasks that aren't done. Those of a dead process stay, so that nothing of it is ever cleaned up.
        self.tasks: dict[int, asyncio.Task[Any]] = {}
        self._loop = loop
        self._on_death = on_death
        self._kill_at: int | None = None
        self._context = Context()
        self._context.run(PROCESS.set, self)

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str = "") -> "asyncio.Task[Any]":
        """Run a coroutine as a task of this process."""
        return self.context().run(lambda: self._loop.create_task(coroutine, name=name or None))

    def context(self) -> Context:
        """Return a context in which steps are this process's."""
        return self._context.copy()

    def forget(self, task: "asyncio.Task[Any]") -> None:
        """A task is done."""
        self.tasks.pop(hash(task), None)

    def step(self) -> bool:
        """Count a step that is about to be taken; tell whether it may be."""
        if not self.alive:
            return False
        self.steps += 1
        if self.steps == self._kill_at:
            self.kill()
        return self.alive

    def kill_after(self, steps: int) -> None:
        """Kill it before its `steps`th step from now on, between any two awaits."""
        self._kill_at = self.steps + max(1, steps)

    def spare(self) -> None:
        """Don't kill it after all."""
        self._kill_at = None

    def over(self) -> None:
        """It has ended by itself; what is left of it is never carried out."""
        self.alive = False

    def kill(self) -> None:
        """End it now: nothing of it is ever carried out again."""
        if self.alive:
            self.alive = False
            self._on_death(self)
