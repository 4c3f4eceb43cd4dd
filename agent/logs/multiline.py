"""Which lines begin an event, by a pattern of the task definition."""

from collections.abc import Callable
from functools import lru_cache

import structlog

__all__ = ["beginning"]

_log = structlog.get_logger(__name__)


@lru_cache(maxsize=64)
def beginning(pattern: str) -> Callable[[str], bool] | None:
    """Return what tells whether a line matches, anywhere in it; None if every line is an event.

    So it is as well, said once, with a pattern that can't be used: output counts for more than how it is cut.
    """
    if not pattern:
        return None
    try:
        # Only here: it takes some MB, and most hosts have no such task.
        import re2

        options = re2.Options()
        options.log_errors = False
        compiled = re2.compile(pattern, options)
    except Exception as error:  # noqa: BLE001  # ImportError, or whatever the library thinks of the pattern
        _log.warning("lines are shipped one by one: their pattern can't be used", pattern=pattern, error=str(error))
        return None

    def matches(line: str) -> bool:
        return compiled.search(line) is not None

    return matches
