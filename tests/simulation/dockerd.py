"""The life of a simulated Engine's process: it works, hangs, is slow, or is away. Timers of the loop, no tasks.

Two kinds of things happen in time: what the machine does (a container's process ends), and what the Engine does, which
waits while it hangs and is lost when it dies.
"""

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

__all__ = ["Dockerd", "Window"]

_Act = Callable[..., object]


class Window:
    """Something that holds for a while; true while it does. Those that overlap end with the last of them."""

    def __init__(self, dockerd: "Dockerd", over: Callable[[], None] | None = None) -> None:
        self._dockerd = dockerd
        self._over = over
        self._open = 0

    def __bool__(self) -> bool:
        return self._open > 0

    def open(self, seconds: float) -> None:
        """Hold for that long from now on; `over` is called at the end."""
        self._open += 1
        self._dockerd.after(seconds, self._close)

    def _close(self) -> None:
        self._open -= 1
        if not self._open and self._over is not None:
            self._over()


class Dockerd:
    """See the module. `died` and `came_back` are called as it goes and comes."""

    def __init__(self, died: Callable[[], None], came_back: Callable[[], None]) -> None:
        self._died = died
        # Whoever's turn it is when a timer is set, it runs on nobody's behalf.
        self._context = contextvars.Context()
        #: Each life has a number: what one has begun, the next knows nothing of.
        self._life = 0
        self._backlog: list[tuple[_Act, tuple[Any, ...]]] = []
        self._factors: list[float] = []
        self.away = Window(self, came_back)
        self.hung = Window(self, self._awake)

    def after(self, seconds: float, act: _Act, *arguments: Any) -> None:
        """Let the machine do something later, whatever becomes of the Engine."""
        asyncio.get_running_loop().call_later(seconds, act, *arguments, context=self._context)

    def work(self, seconds: float, act: _Act, *arguments: Any) -> None:
        """Let the Engine do something later: not while it hangs, and not if it has died by then."""
        if seconds:
            self.after(seconds * max(self._factors, default=1.0), self._do, self._life, act, arguments)
        else:
            self._do(self._life, act, arguments)

    def slow(self, factor: float, seconds: float) -> None:
        """Let whatever the Engine begins take `factor` times as long for a while."""
        self._factors.append(factor)
        self.after(seconds, self._factors.remove, factor)

    def die(self, seconds: float) -> None:
        """Go, and come back after a while."""
        was_away = bool(self.away)
        self.away.open(seconds)
        if not was_away:
            self._life += 1
            self._backlog.clear()
            self._died()

    def _do(self, life: int, act: _Act, arguments: tuple[Any, ...]) -> None:
        if life != self._life or self.away:
            return
        if self.hung:
            self._backlog.append((act, arguments))
        else:
            act(*arguments)

    def _awake(self) -> None:
        """Go on where it hung, in the order in which things came up."""
        if self.away:
            return
        backlog, self._backlog = self._backlog, []
        for act, arguments in backlog:
            self._do(self._life, act, arguments)
