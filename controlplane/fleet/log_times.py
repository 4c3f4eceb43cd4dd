"""The times of a container's events. Pure. A host's clock may be hours off, or begin in 1970; its log knows no other.

Taken as they are, lines of the past would have expired on arrival, and after lines of the future whoever reads on from
the last one would miss what comes once the clock is right.
"""

from typing import Final

from homeport.protocol import LogKind

__all__ = ["AHEAD_MS", "EventTimes"]

#: How far a host's clock may be ahead of ours, as for signed requests; its lines keep their distances within that.
AHEAD_MS: Final = 300_000


class EventTimes:
    """Puts one container's events, in their order, into the time in which they can have been. Epoch milliseconds.

    That is after its task was made and not in the future; a line isn't earlier than the line before it.
    """

    def __init__(self, made_at: int) -> None:
        self._made_at = self._last_at = made_at

    def go_on(self, last_at: int | None) -> None:
        """Note when the last event was that is kept."""
        self._last_at = max(self._last_at, last_at or 0)

    def time_of(self, at: int, kind: LogKind, now: int) -> int:
        """Return when an event was whose host says that it was at `at`. `now`: by our clock."""
        latest = now + AHEAD_MS
        if kind is LogKind.GAP:
            # It says how far it reaches, which may be beyond lines that are still to come.
            return min(max(at, self._made_at), latest)
        self._last_at = min(max(at, self._last_at), latest)
        return self._last_at
