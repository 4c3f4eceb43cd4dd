"""What a new or changed timetable means for the next due time. Pure."""

from datetime import datetime

from msgspec.structs import replace

from controlplane.schedules.timetable import next_due, parse_expression
from controlplane.state.schedule_records import Timetable

__all__ = ["begun", "first_due", "resumed_due", "same_times"]


def begun(timetable: Timetable, now: float, *, at_once: bool) -> Timetable:
    """Return a timetable whose rate, if it is one, counts from now on, or from its start date.

    `at_once`: it is due at the beginning too, as EventBridge Scheduler has it; for rules only after one period.
    """
    expression = parse_expression(timetable.expression)
    anchor = now if timetable.start_at is None else timetable.start_at
    if isinstance(expression, int) and not at_once:
        anchor += expression
    return replace(timetable, anchor_at=anchor)


def first_due(timetable: Timetable, now: float) -> float | None:
    """Return the first due time of a new timetable. at(...) may be past: it then counts as missed."""
    if isinstance(parse_expression(timetable.expression), datetime):
        return next_due(timetable, float("-inf"))
    # What is due this very moment is due.
    return next_due(timetable, now - 0.001)


def resumed_due(timetable: Timetable, now: float) -> float | None:
    """Return the next due time of what was disabled: what was due meanwhile isn't."""
    return next_due(timetable, now)


def same_times(one: Timetable, other: Timetable) -> bool:
    """Tell whether two timetables are due at the same times, whatever they count from."""
    return replace(one, anchor_at=0.0, window_s=0.0) == replace(other, anchor_at=0.0, window_s=0.0)
