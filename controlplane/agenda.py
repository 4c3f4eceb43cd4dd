"""What a reconciler has to look at: now, or at a moment to come. Its loops differ only in what they mark and look at.

What always holds:
 - nothing is polled: `run` sleeps until something is marked, a moment comes, or it is woken. Moments are epoch seconds;
   every minute the clock is asked again, since it may have been set meanwhile. If it was set back, everything with a
   moment is looked at, since that was meant to come sooner;
 - however often a thing is marked before its turn, it is looked at once;
 - what goes wrong with one thing stops no other: it is logged, and that thing is looked at again after a while.
"""

import asyncio
import heapq
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from itertools import count
from typing import Final, Generic, TypeVar

import structlog

from homeport.clock import Clock

__all__ = ["AFTER_FAILURE_S", "Agenda"]

_log: Final = structlog.get_logger(__name__)

K = TypeVar("K", bound=Hashable)

#: A thing whose look has failed, which is a bug, is looked at again after this time.
AFTER_FAILURE_S: Final = 30.0
#: The longest wait before the clock is asked again.
_MAX_WAIT_S: Final = 60.0
#: A clock that is slower than the monotonic one by this, between two looks at it, was set back.
_SET_BACK_S: Final = 10.0


class Agenda(Generic[K]):
    """The agenda of one reconciler. `what`: for the log; `refresh`: called before each choice of what to look at."""

    def __init__(self, clock: Clock, what: str, *, refresh: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self._what = what
        self._refresh = refresh
        self._wake = asyncio.Event()
        #: What to look at. A dict, for its order.
        self._marked: dict[K, None] = {}
        #: (moment, a number that no other entry has, key), and the moment of each key that counts.
        self._moments: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._numbers = count()
        #: How far the clock was ahead of the monotonic one when it was last asked.
        self._ahead_s = clock.now() - clock.monotonic()
        #: Before when a key isn't looked at again, by the event loop's time.
        self._not_before: dict[K, float] = {}

    # ------------------------------------------------------------ noting

    def wake(self) -> None:
        """Choose anew what to look at: something has changed, or the clock was set."""
        self._wake.set()

    def mark(self, keys: Iterable[K]) -> None:
        """Have these looked at."""
        marked = dict.fromkeys(keys)
        if marked:
            self._marked.update(marked)
            self._wake.set()

    def schedule(self, key: K, at: float | None) -> None:
        """Have a thing looked at at this moment, in place of an earlier plan; None: at none."""
        if at is None:
            self._due.pop(key, None)
        elif self._due.get(key) != at:
            self._due[key] = at
            heapq.heappush(self._moments, (at, next(self._numbers), key))
            self._wake.set()

    def hasten(self, key: K, at: float) -> None:
        """Have a thing looked at at this moment, unless an earlier one is planned."""
        if self._due.get(key, at + 1) > at:
            self.schedule(key, at)

    def put_off(self, key: K, seconds: float) -> None:
        """Don't look at a thing again for so long, whatever happens to it."""
        self._not_before[key] = asyncio.get_running_loop().time() + seconds

    def forget(self, key: K) -> None:
        """Drop all that is noted of a thing that is gone."""
        for book in (self._marked, self._due, self._not_before):
            book.pop(key, None)

    @property
    def busy(self) -> bool:
        """Whether there is something to look at now."""
        due = bool(self._moments) and self._moments[0][0] <= self._clock.now()
        return due or bool(self._marked) or self._wake.is_set()

    # ------------------------------------------------------------ looking

    async def run(self, look: Callable[[K], None], *, at_once: int) -> None:
        """Look at what there is to look at until cancelled, `at_once` things in one event-loop turn at most."""
        while True:
            for number, key in enumerate(await self._next(), start=1):
                self._marked.pop(key, None)
                self._look(look, key)
                if number % at_once == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)

    def _look(self, look: Callable[[K], None], key: K) -> None:
        try:
            look(key)
        except Exception:  # noqa: BLE001 - whatever it is, it is logged, and the look is repeated
            _log.exception(f"a {self._what} could not be reconciled", key=str(key))
            self.schedule(key, self._clock.now() + AFTER_FAILURE_S)

    async def _next(self) -> list[K]:
        """Wait until there is something to look at, and return it."""
        while True:
            self._wake.clear()
            self._refresh()
            self._take_moments()
            now = asyncio.get_running_loop().time()
            ready = [key for key in self._marked if self._not_before.get(key, 0.0) <= now]
            if ready:
                return ready
            waits = [_MAX_WAIT_S, *(self._not_before[key] - now for key in self._marked)]
            if self._moments:
                waits.append(self._moments[0][0] - self._clock.now())
            await asyncio.sleep(0)  # whatever `refresh` does, others have their turn
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(waits))):
                    await self._wake.wait()

    def _take_moments(self) -> None:
        now = self._clock.now()
        before_s, self._ahead_s = self._ahead_s, now - self._clock.monotonic()
        if before_s - self._ahead_s > _SET_BACK_S:
            self._marked.update(dict.fromkeys(self._due))
            self._due.clear()
            self._moments.clear()
        while self._moments and self._moments[0][0] <= now:
            at, _, key = heapq.heappop(self._moments)
            if self._due.get(key) == at:
                del self._due[key]
                self._marked[key] = None
