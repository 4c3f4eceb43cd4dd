"""When a schedule is due: cron, rate and at expressions in a time zone, between a start and an end. Pure.

Daylight saving is as EventBridge Scheduler documents it: a cron time that the clocks skip in spring is skipped, one
that comes twice in autumn is taken once (the first time). A rate counts elapsed time; its day is 24 hours whatever the
clocks do. A one-time schedule is never lost: a time that doesn't exist is taken as if the clocks hadn't changed yet.
"""

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo

from controlplane.schedules.cron import Cron, parse_cron
from controlplane.state.schedule_records import Timetable

__all__ = [
    "Expression",
    "due_times",
    "fires_at",
    "next_due",
    "parse_expression",
    "parse_zone",
    "upcoming",
]

_FORM: Final = re.compile(r"(?P<kind>cron|rate|at)\((?P<inside>.*)\)", re.DOTALL)
_RATE: Final = re.compile(r"(?P<value>[1-9]\d{0,8})\s+(?P<unit>minute|hour|day)(?P<plural>s?)")
_AT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_UNITS: Final = {"minute": 60, "hour": 3600, "day": 86400}

#: A cron expression, a rate in seconds, or the wall-clock time of at(...).
Expression = Cron | int | datetime


@lru_cache(maxsize=4096)
def parse_expression(text: str, *, strict_plural: bool = False) -> Expression:
    """Read a schedule expression. `strict_plural`: `1 minute` and `2 minutes` only, as EventBridge rules have it.

    Raises ValueError that says what is wrong.
    """
    form = _FORM.fullmatch(text.strip())
    if form is None:
        raise ValueError("it must be cron(...), rate(...) or at(...)")
    inside = form["inside"].strip()
    if form["kind"] == "cron":
        return parse_cron(inside)
    if form["kind"] == "rate":
        rate = _RATE.fullmatch(inside)
        if rate is None:
            raise ValueError("a rate is a positive number and minutes, hours or days")
        value = int(rate["value"])
        if strict_plural and (value == 1) == bool(rate["plural"]):
            raise ValueError("a rate has minute, hour or day after 1, and minutes, hours or days after other numbers")
        return value * _UNITS[rate["unit"]]
    if not _AT.fullmatch(inside):
        raise ValueError("at has a time of the form yyyy-mm-ddThh:mm:ss")
    return datetime.fromisoformat(inside)


@lru_cache(maxsize=1024)
def parse_zone(name: str) -> ZoneInfo:
    """Return the time zone of an IANA name. Raises ValueError if there is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"'{name:.50}' is not the name of a time zone") from error


def next_due(timetable: Timetable, after: float) -> float | None:
    """Return the first due time after `after` (epoch seconds, as all times here); None if there is none."""
    return next(due_times(timetable, after), None)


def upcoming(timetable: Timetable, after: float, count: int) -> list[float]:
    """Return the next `count` due times after `after`."""
    return list(islice(due_times(timetable, after), count))


def fires_at(timetable: Timetable, key: str, due: float) -> float:
    """Return when, in the flexible window, an occurrence of the schedule `key` runs.

    By chance, but always the same: no restart of the control plane may move it.
    """
    if not timetable.window_s:
        return due
    digest = hashlib.sha256(f"{key} {due}".encode()).digest()
    return due + timetable.window_s * int.from_bytes(digest[:4]) / 2**32


def due_times(timetable: Timetable, after: float) -> Iterator[float]:
    """Yield the due times after `after`, ascending. Without end, but for at(...), an end date, or named years."""
    expression, zone = parse_expression(timetable.expression), parse_zone(timetable.timezone)
    if isinstance(expression, datetime):
        due = expression.replace(tzinfo=zone).timestamp()
        yield from [due] if due > after else []
        return
    start, end = timetable.start_at, timetable.end_at
    times = (
        _rate_times(timetable, expression, after)
        if isinstance(expression, int)
        else _cron_times(expression, zone, after if start is None else max(after, start - 1))
    )
    for due in times:
        if end is not None and due > end:
            return
        if start is None or due >= start:
            yield due


def _rate_times(timetable: Timetable, period_s: int, after: float) -> Iterator[float]:
    anchor = timetable.anchor_at
    count = max(0, int((after - anchor) // period_s)) if after >= anchor else 0
    while True:
        due = anchor + count * period_s
        if due > after:
            yield due
        count += 1


def _cron_times(cron: Cron, zone: ZoneInfo, after: float) -> Iterator[float]:
    begin = datetime.fromtimestamp(after, zone).replace(tzinfo=None)
    for wall in cron.after(begin):
        local = wall.replace(tzinfo=zone)
        if local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != wall:
            continue  # the clocks skip it
        due = local.timestamp()
        if due > after:
            yield due
