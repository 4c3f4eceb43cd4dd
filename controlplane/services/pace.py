"""How soon a service is looked at again: looks must leave most of the time to everything else.

A look costs as much as the service has tasks, and while a fleet starts or comes back there is news of each all the
time. So every look owes a pause in proportion to the service's tasks, and the pauses of different services follow one
upon another: a fleet that comes back concerns all. A service of a few tasks needn't wait for those of thousands: its
own looks cost next to nothing.
"""

from collections import Counter
from typing import Final

import structlog

__all__ = ["Pace"]

_log: Final = structlog.get_logger(__name__)

#: Seconds that are owed for each task looked at. A look at 5,000 takes some 40 ms: so a sixth of the time goes into
#: looks at most, and what happens to the only busy service waits 0.25 s at most.
_PAUSE_PER_TASK_S: Final = 5e-5
#: How many times as long as by itself a service may have to wait for others.
_MOST_TIMES: Final = 20
#: Small services wait for less than they owe, so that what is owed may grow: it is forgotten beyond this.
_MOST_OWED_S: Final = 5.0
#: A service that is looked at more often than this within a second would never rest: a bug, which is slowed down.
_MAX_LOOKS_PER_S: Final = 500
_CALM_DOWN_S: Final = 1.0


class Pace:
    """What is owed, in seconds of the event loop's time."""

    def __init__(self) -> None:
        #: When all that is owed will have been kept.
        self._owed_until = 0.0
        #: Looks at each service since the second given.
        self._looks: Counter[str] = Counter()
        self._looks_since = 0.0

    def pause(self, service: str, tasks: int, now: float) -> float:
        """Return for how many seconds a service of so many tasks, looked at now, is not to be looked at again."""
        own = tasks * _PAUSE_PER_TASK_S
        self._owed_until = min(max(now, self._owed_until) + own, now + _MOST_OWED_S)
        if now - self._looks_since > 1:
            self._looks.clear()
            self._looks_since = now
        self._looks[service] += 1
        if self._looks[service] > _MAX_LOOKS_PER_S:
            _log.error("a service finds no rest", service=service)
            return _CALM_DOWN_S
        return min(self._owed_until - now, own * _MOST_TIMES)
