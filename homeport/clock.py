"""Time as a thing that is handed in, so that tests and the simulator can move it.

Decisions take `now` as an argument. Whoever needs to ask takes a Clock. Waiting is asyncio's own (`asyncio.sleep`,
`asyncio.timeout`), which a virtual-time event loop moves by itself.
"""

import time
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "SystemClock", "is_ahead", "iso_time"]


class Clock(Protocol):
    """Where the time comes from."""

    def now(self) -> float:
        """Seconds since the epoch, UTC. For what is shown or stored; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start. For intervals and deadlines; never goes back."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """See Clock."""
        return time.time()

    def monotonic(self) -> float:
        """See Clock."""
        return time.monotonic()


def is_ahead(moment: float, now: float, *, longest_s: float) -> bool:
    """Whether a moment that was waited for is still to come, where no wait is longer than `longest_s`.

    If it lies further ahead than that, the clock was set back since: the wait counts as over.
    """
    return now < moment <= now + longest_s


def iso_time(epoch_s: float, *, millis: bool = False) -> str:
    """Render a time as AWS does, `2026-01-31T12:00:00Z`; with `millis` `2026-01-31T12:00:00.000Z`. What is less is cut.

    Raises ValueError or OverflowError for what no calendar has.
    """
    moment = datetime.fromtimestamp(epoch_s, UTC)
    return moment.isoformat(timespec="milliseconds" if millis else "seconds").replace("+00:00", "Z")
