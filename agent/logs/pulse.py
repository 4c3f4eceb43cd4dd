"""Looking for output at a steady pace, for all containers at once: a timer and a wake-up each would cost far more."""

import asyncio
from collections.abc import Callable
from typing import Final

__all__ = ["Pulse"]

#: How often it is looked whether there is something to read. One stat a container, cheaper than any way of being told.
_PERIOD_S: Final = 0.2


class Pulse:
    """Whoever waits is asked at each beat whether there is something to do. Without anybody waiting there is none."""

    def __init__(self, period_s: float | None = None) -> None:
        self._period_s = period_s or _PERIOD_S
        self._waiting: dict[asyncio.Future[None], Callable[[], bool]] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait for the first beat at which `ready` is true; it mustn't wait. Raises what that raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting[future] = ready
        if self._timer is None:
            self._timer = loop.call_later(self._period_s, self._beat)
        try:
            await future
        finally:
            del self._waiting[future]

    def _beat(self) -> None:
        self._timer = None
        for future, ready in self._waiting.items():
            if future.done():
                continue
            try:
                if ready():
                    future.set_result(None)
            except Exception as error:  # noqa: BLE001  # it is for the one who waits
                future.set_exception(error)
        if not all(future.done() for future in self._waiting):
            self._timer = asyncio.get_running_loop().call_later(self._period_s, self._beat)
