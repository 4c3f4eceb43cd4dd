"""When finished tasks are cleaned up: for a while their logs can be read, and output that isn't shipped is waited for.

`due` is pure.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from agent.task.model import TaskState
from homeport.ids import TaskId

__all__ = ["DEFAULT_CLEANUP_AFTER_S", "MAX_HELD", "MAX_KEPT", "UNSHIPPED_AFTER_S", "Due", "due"]

#: How long containers of a finished task are kept after the control plane let go of it, so that their logs can be read.
DEFAULT_CLEANUP_AFTER_S: Final = 3600.0
#: More finished tasks than this are not kept, however young.
MAX_KEPT: Final = 200
#: The same for those with output that the control plane doesn't have yet.
UNSHIPPED_AFTER_S: Final = 24 * 3600.0
MAX_HELD: Final = 5 * MAX_KEPT


class Due(NamedTuple):
    """Tasks to clean up now, and when (epoch seconds) to look again if nothing changes; None: never."""

    now: tuple[TaskId, ...]
    next_at: float | None


def due(states: Iterable[TaskState], now: float, cleanup_after_s: float, unshipped: Callable[[TaskId], bool]) -> Due:
    """Choose among tasks; those that aren't over, or that the control plane hasn't let go of, are passed over."""
    kept: list[tuple[float, TaskId]] = []
    held: list[tuple[float, TaskId]] = []
    for state in states:
        if not state.over or state.removed_at is None:
            continue
        if _called_off(state):
            kept.append((state.removed_at, state.task_id))
        elif unshipped(state.task_id):
            held.append((state.removed_at + max(cleanup_after_s, UNSHIPPED_AFTER_S), state.task_id))
        else:
            kept.append((state.removed_at + cleanup_after_s, state.task_id))
    going: list[TaskId] = []
    waits: list[float] = []
    for each, most in ((sorted(kept), MAX_KEPT), (sorted(held), MAX_HELD)):
        surplus = len(each) - most
        going += [task_id for position, (at, task_id) in enumerate(each) if at <= now or position < surplus]
        waits += [at for position, (at, _) in enumerate(each) if at > now and position >= surplus][:1]
    return Due(tuple(going), min(waits, default=None))


def _called_off(state: TaskState) -> bool:
    """Whether it was called off before any of it ran, so that it has no logs."""
    return state.stop_code is None and not any(c.has_run for c in state.containers)
