"""How long stories, archived tasks and events are kept, and their removal in small steps.

A task that has left memory is kept, with its whole story, for the retention time from then on. A live task keeps the
beginning of its story for as long as it lives, and the rest for the retention time: a task that has run for a year can
still say where it came from, and one that restarts every minute doesn't fill the disk. Events are kept for the
retention time, and never more than MAX_EVENTS of them.
"""

import sqlite3
from typing import Final

__all__ = [
    "DEFAULT_RETENTION_S",
    "KEPT_ROWS",
    "MAX_EVENTS",
    "PERIOD_S",
    "prune_history",
    "prune_stories",
]

#: 30 days. ECS forgets a stopped task after about an hour, which its users complain about.
DEFAULT_RETENTION_S: Final = 30 * 86400.0
#: How often to prune.
PERIOD_S: Final = 3600.0
#: This many rows from the beginning of a live task's story outlive the retention time; each is a line or some more.
KEPT_ROWS: Final = 100
#: So many of the last events are kept. Written one by one they take about 700 bytes each, many at once 100.
MAX_EVENTS: Final = 500_000
#: Rows looked at in one step: a few milliseconds of the writer's time, so that commits hardly wait.
_STEP_ROWS: Final = 1000

_HISTORY: Final = f"""
    DELETE FROM history WHERE task_id IN (SELECT task_id FROM history WHERE at < :before LIMIT {_STEP_ROWS})
"""
_WINDOW: Final = f"""
    SELECT max(n), min(at) FROM (SELECT n, at FROM story WHERE n > :after ORDER BY n LIMIT {_STEP_ROWS})
"""
_STORIES: Final = f"""
    DELETE FROM story WHERE n IN (
        SELECT n FROM story AS line WHERE n > :after AND n <= :last AND at < :before
        AND NOT EXISTS (SELECT 1 FROM history WHERE task_id = line.task_id)
        AND (
            NOT EXISTS (SELECT 1 FROM objects WHERE kind = 'task' AND key = line.task_id)
            OR n > (SELECT n FROM story WHERE task_id = line.task_id ORDER BY n LIMIT 1 OFFSET {KEPT_ROWS - 1})
        )
    )
"""


def prune_history(connection: sqlite3.Connection, before: float) -> int:
    """Delete some archived tasks older than the epoch second `before`; return how many, 0 when none is left."""
    return connection.execute(_HISTORY, {"before": before}).rowcount


def prune_stories(connection: sqlite3.Connection, before: float, after: int) -> tuple[int, int | None]:
    """Delete what is older than `before` in the next step's lines behind number `after` (0: from the beginning).

    Return how many, and where to go on; None at the end. Lines are numbered in the order of time, so the end is where
    nothing is old any more.
    """
    last, oldest = connection.execute(_WINDOW, {"after": after}).fetchone()
    if last is None or oldest >= before:
        return 0, None
    removed = connection.execute(_STORIES, {"after": after, "last": last, "before": before}).rowcount
    return removed, last
