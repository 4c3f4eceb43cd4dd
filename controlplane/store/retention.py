"""How long stories and archived tasks are kept, and their removal in small steps.

A task that has left memory is kept, with its whole story, for the retention time from then on.
A live task keeps the beginning of its story for as long as it lives, and the rest for the retention time: a task that
has run for a year can still say where it came from, and one that restarts every minute doesn't fill the disk.
"""

import sqlite3
from typing import Final

__all__ = ["DEFAULT_RETENTION_S", "KEPT_LINES", "PERIOD_S", "prune_some"]

#: 30 days. ECS forgets a stopped task after about an hour, which its users complain about.
DEFAULT_RETENTION_S: Final = 30 * 86400.0
#: How often to prune.
PERIOD_S: Final = 3600.0
#: This many lines from the beginning of a live task's story outlive the retention time.
KEPT_LINES: Final = 100
#: Rows per transaction: a few milliseconds of the writer's time.
_CHUNK: Final = 1000

_STORY: Final = f"""
    DELETE FROM story WHERE n IN (
        SELECT n FROM story AS line WHERE at < :before
        AND NOT EXISTS (SELECT 1 FROM history WHERE task_id = line.task_id)
        AND (
            NOT EXISTS (SELECT 1 FROM objects WHERE kind = 'task' AND key = line.task_id)
            OR n > (SELECT n FROM story WHERE task_id = line.task_id ORDER BY n LIMIT 1 OFFSET {KEPT_LINES - 1})
        ) LIMIT {_CHUNK}
    )
"""
_HISTORY: Final = f"""
    DELETE FROM history WHERE task_id IN (SELECT task_id FROM history WHERE at < :before LIMIT {_CHUNK})
"""


def prune_some(connection: sqlite3.Connection, before: float) -> int:
    """Delete some of what is older than the epoch second `before`; return how many rows, 0 when nothing is left."""
    return sum(connection.execute(statement, {"before": before}).rowcount for statement in (_HISTORY, _STORY))
