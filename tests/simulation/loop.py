"""An event loop on virtual time: when nothing is ready, time jumps to the next timer.

Every run from the same start is the same: no clock, thread, socket or signal has a say in what comes next, and tasks
have numbers for hashes, so that sets of them (a TaskGroup's, when it cancels) have an order that repeats.

Tasks belong to a Process, which they hand on to the tasks they make. Steps of a dead process are not carried out: that
is what `kill -9` is here, no `finally` runs. A process has its machine's clock, and so have its timers.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVarTuple, Unpack

if TYPE_CHECKING:
    from tests.simulation.process import Process

__all__ = ["PROCESS", "Livelock", "Offload", "VirtualLoop"]

Ts = TypeVarTuple("Ts")

#: The process whose step is being carried out; None outside of all.
PROCESS: Final[ContextVar["Process | None"]] = ContextVar("process", default=None)

#: What the shortest wait takes.
_MOMENT_S: Final = 1e-6
#: Steps without time passing, and in all, that no honest program takes.
_MOST_STEPS_AT_ONCE: Final = 200_000
_MOST_STEPS: Final = 3_000_000


class Livelock(Exception):
    """Steps go on and on, and time stands still."""


class Offload(Protocol):
    """What carries out calls that would go to a thread."""

    def submit(self, executor: Executor | None, call: Callable[[], object]) -> "asyncio.Future[Any]":
        """Return a future of the call's result."""
        ...


class _Step(asyncio.Handle):
    """A callback that is carried out only while its process lives."""

    __slots__ = ()

    def _run(self) -> None:
        if _may_step(self._context):  # type: ignore[attr-defined]
            super()._run()


class _Timer(asyncio.TimerHandle):
    """The same, at a time."""

    __slots__ = ()

    def _run(self) -> None:
        if _may_step(self._context):  # type: ignore[attr-defined]
            super()._run()


def _may_step(context: Context) -> bool:
    process = context.get(PROCESS)
    return process is None or process.step()


class _Task(asyncio.Task[Any]):
    """A task with a number."""

    numbers = itertools.count()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.number = next(self.numbers)
        super().__init__(*args, **kwargs)
        process = PROCESS.get()
        if process is not None:
            process.tasks[self.number] = self
            self.add_done_callback(process.forget)

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module. `now` is the time outside of all machines, in seconds since the loop's beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.steps = 0
        self._steps_at_once = 0
        _Task.numbers = itertools.count()
        self.set_task_factory(_make_task)  # type: ignore[arg-type]

    def time(self) -> float:
        """Return the monotonic time of the current process's machine."""
        process = PROCESS.get()
        return self.now if process is None else process.clock.local(self.now)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio. `when` is in the current process's time."""
        process = PROCESS.get()
        moment = when if process is None else process.clock.moment(when)
        # Something always takes a moment, or rounding of times would let a loop turn for ever just before one.
        timer = _Timer(max(moment, self.now + _MOMENT_S), callback, args, self, context)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def after(self, delay_s: float, call: Callable[[], object], process: "Process | None") -> asyncio.TimerHandle:
        """Call in so many seconds outside of all machines, as a step of `process`, if it lives then."""
        context = Context() if process is None else process.context()
        timer = _Timer(self.now + delay_s, call, (), self, context)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], object], *args: *Ts
    ) -> "asyncio.Future[Any]":
        """Have the current process's disk carry out the call; outside of all processes at once."""
        process = PROCESS.get()

        def call() -> object:
            return func(*args)

        if process is not None and process.offload is not None:
            return process.offload.submit(executor, call)
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(call())
        except Exception as error:  # noqa: BLE001 - the caller's, as from a thread
            future.set_exception(error)
        return future

    def abandon(self) -> None:
        """Close the loop with all that is under way left as it is, as what a kill has left behind."""
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self.close()

    # ------------------------------------------------------------ what BaseEventLoop asks of a loop

    def _call_soon(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None) -> _Step:
        step = _Step(callback, args, self, context)
        self._ready.append(step)  # type: ignore[attr-defined]
        return step

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        if not ready:
            while scheduled and scheduled[0]._cancelled:
                heapq.heappop(scheduled)._scheduled = False
            if not scheduled:
                raise Livelock("nothing is left to happen, and something is waited for")
            if scheduled[0].when() > self.now:
                self.now = scheduled[0].when()
                self._steps_at_once = 0
        while scheduled and (scheduled[0].when() <= self.now or scheduled[0]._cancelled):
            timer = heapq.heappop(scheduled)
            timer._scheduled = False
            if not timer._cancelled:
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                self.steps += 1
                self._steps_at_once += 1
                handle._run()
        if self._steps_at_once > _MOST_STEPS_AT_ONCE:
            raise Livelock(f"{self._steps_at_once} steps, and no time has passed")
        if self.steps > _MOST_STEPS:
            raise Livelock(f"{self.steps} steps, and hardly any time has passed")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer stays until its time has come."""

    def _process_events(self, event_list: object) -> None:
        raise NotImplementedError("there are no sockets")

    def _write_to_self(self) -> None:
        """Nothing waits in another thread."""


def _make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
) -> "asyncio.Task[Any]":
    return _Task(coroutine, loop=loop, **options)
