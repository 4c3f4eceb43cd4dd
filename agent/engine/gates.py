"""How many starts the Engine is given at once.

More is slower: bridge starts contend for one kernel network lock, and beyond about two per core the Engine burns CPU in
retries while the time for a batch spreads widely. Where exactly the best limit lies depends on the host, so it is
climbed to: as long as callers queue, each window of completed starts is timed, and the limit goes on in the direction
that brought more of them per second.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final

import msgspec

__all__ = ["AdaptiveGate", "Climb", "climb"]

#: Changes of throughput below this are noise (it varies by 20 % by itself).
_SIGNIFICANT: Final = 0.1


class Climb(msgspec.Struct, frozen=True, kw_only=True):
    """Where the search for the best limit stands. `per_s`: throughput of the last window, 0 before the first."""

    limit: int
    low: int
    high: int
    step: int = 1
    per_s: float = 0.0

    @classmethod
    def for_cores(cls, cores: int) -> "Climb":
        """Start at two per core, between one and three."""
        cores = max(1, cores)
        return cls(limit=2 * cores, low=max(2, cores), high=3 * cores)


def climb(state: Climb, per_s: float) -> Climb:
    """Return the next state after a saturated window with `per_s` completions a second.

    Markedly worse: turn round. Markedly better: go on. Else stay: a flat top needs no wandering.
    """
    if not state.per_s:
        return msgspec.structs.replace(state, per_s=per_s)
    change = per_s / state.per_s - 1
    if abs(change) < _SIGNIFICANT:
        return state
    step = state.step if change > 0 else -state.step
    limit = min(state.high, max(state.low, state.limit + step))
    return msgspec.structs.replace(state, limit=limit, step=step, per_s=per_s)


class AdaptiveGate:
    """An `async with` that lets `limit` callers in at once, first come first served, and moves the limit by itself."""

    def __init__(self, start: Climb, monotonic: Callable[[], float]) -> None:
        self._climb = start
        self._monotonic = monotonic
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._window_began: float | None = None
        self._window_done = 0

    @property
    def limit(self) -> int:
        """How many may be inside now."""
        return self._climb.limit

    def resize(self, cores: int) -> None:
        """Begin anew for a host with that many cores."""
        self._climb = Climb.for_cores(cores)
        self._window_began = None
        self._wake()

    async def __aenter__(self) -> None:
        """Wait for a turn. On cancel the place in the queue is given up."""
        if self._running < self.limit and not self._waiting:
            self._running += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if self._window_began is None:
            self._window_began, self._window_done = self._monotonic(), 0
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # The turn had come just before the cancel: pass it on.
                self._running -= 1
                self._wake()
            else:
                # It may have been passed over and dropped already.
                with contextlib.suppress(ValueError):
                    self._waiting.remove(turn)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running -= 1
        self._measure()
        self._wake()

    def _measure(self) -> None:
        """Count a completion; at the end of a window in which there was always a queue, move the limit."""
        if self._window_began is None:
            return
        if not self._waiting:
            self._window_began = None
            return
        self._window_done += 1
        if self._window_done < 2 * self.limit:
            return
        now = self._monotonic()
        if now > self._window_began:
            self._climb = climb(self._climb, self._window_done / (now - self._window_began))
        self._window_began, self._window_done = now, 0

    def _wake(self) -> None:
        while self._waiting and self._running < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._running += 1
                turn.set_result(None)
