"""Clocks that tests move: one that stands still otherwise, and one that goes on with the machine's."""

from homeport.clock import SystemClock

__all__ = ["ManualClock", "MovableClock"]


class ManualClock:
    """Time that moves when a test says so. `set_by`: how far somebody has set the clock, which only `now` shows."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self.time = start
        self.set_by = 0.0

    def now(self) -> float:
        return self.time + self.set_by

    def monotonic(self) -> float:
        return self.time


class MovableClock(SystemClock):
    """The machine's clock plus an offset that tests move."""

    def __init__(self) -> None:
        self.offset_s = 0.0

    def now(self) -> float:
        return super().now() + self.offset_s

    def monotonic(self) -> float:
        return super().monotonic() + self.offset_s

    def move(self, seconds: float) -> None:
        self.offset_s += seconds
