"""AWS's cron dialect, brought to cronsim's.

AWS has six fields, minutes to years, with exactly one `?` among day-of-month and day-of-week; days of the week are 1 to
7 from Sunday. cronsim has Debian's five, Sunday is 0, and it knows L, LW, nL and n#m; so what is left to us is the
nearest weekday (nW) and the year.

Times are wall-clock times: a naive datetime in, naive datetimes out. What a zone makes of them is up to `timetable`.
"""

import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Final, NamedTuple

from cronsim import CronSim, CronSimError

__all__ = ["Cron", "parse_cron"]

_DAYS: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
#: Years that AWS takes.
_FIRST_YEAR: Final = 1970
_LAST_YEAR: Final = 2199

#: Of the months, in a leap year.
_LENGTHS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_ITEM: Final = re.compile(r"(?P<first>\*|[A-Z0-9]+)(?:-(?P<last>[A-Z0-9]+))?(?:/(?P<step>0|[1-9]\d{0,3}))?")
_NEAREST: Final = re.compile(r"(\d{1,2})W")
_NTH: Final = re.compile(r"([A-Z0-9]+)#([1-5])")
_LAST_DAY: Final = re.compile(r"([A-Z0-9]+)L")


class _Field(NamedTuple):
    name: str
    first: int
    last: int
    #: Names of the values from `first` on.
    names: tuple[str, ...] = ()


_MINUTES: Final = _Field("minutes", 0, 59)
_HOURS: Final = _Field("hours", 0, 23)
_DAY_OF_MONTH: Final = _Field("day-of-month", 1, 31)
_MONTH: Final = _Field("month", 1, 12, _MONTHS)
_DAY_OF_WEEK: Final = _Field("day-of-week", 1, 7, _DAYS)
_YEAR: Final = _Field("year", _FIRST_YEAR, _LAST_YEAR)


class Cron(NamedTuple):
    """A cron expression. Iterate its times with `after`."""

    #: Five fields in cronsim's dialect.
    fields: str
    #: The years it is limited to, ascending; None: all.
    years: tuple[int, ...] | None
    #: nW: only the weekday that is nearest to this day of the month.
    nearest: int | None

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yield the times after `moment`, ascending; all are naive."""
        start: datetime | None = moment
        while start is not None:
            again = None
            for time in _times(self.fields, start):
                if time.year > _LAST_YEAR:
                    return
                if self.years is not None and time.year not in self.years:
                    again = _before_year(next((year for year in self.years if year > time.year), None))
                    break
                if self.nearest is None or time.day == _nearest_weekday(time.date(), self.nearest):
                    yield time
            else:
                # cronsim gives up after 50 years; a year named further off is still looked at.
                limit = start.year + 50
                again = _before_year(next((year for year in self.years or () if year > limit), None))
            start = again


def parse_cron(text: str) -> Cron:
    """Read what stands between the parentheses of `cron(...)`. Raises ValueError that says what is wrong."""
    parts = text.upper().split()
    if len(parts) != 6:
        raise ValueError(
            f"a cron expression has six fields (minutes hours day-of-month month day-of-week year), not {len(parts)}"
        )
    minutes, hours, day, month, weekday, year = parts
    if (day == "?") == (weekday == "?"):
        raise ValueError("exactly one of day-of-month and day-of-week must be ?")
    days, nearest = _days_of_month(day)
    months = _numbers(month, _MONTH)
    if nearest is not None and all(nearest > _LENGTHS[number - 1] for number in months):
        raise ValueError(f"none of its months has a day {nearest}")
    years = None if year == "*" else tuple(sorted(_numbers(year, _YEAR)))
    fields = " ".join(
        (
            _plain(minutes, _MINUTES),
            _plain(hours, _HOURS),
            days,
            ",".join(map(str, sorted(months))),
            _days_of_week(weekday),
        )
    )
    try:
        CronSim(fields, datetime(2000, 1, 1))  # noqa: DTZ001 - wall-clock time
    except CronSimError as error:
        raise ValueError(f"it can't be used ({error})") from error
    return Cron(fields, years, nearest)


def _times(fields: str, start: datetime) -> Iterator[datetime]:
    try:
        yield from CronSim(fields, start)
    except OverflowError:
        return  # the end of the calendar


def _before_year(year: int | None) -> datetime | None:
    """The moment before a year begins."""
    return None if year is None else datetime(year, 1, 1) - timedelta(seconds=1)  # noqa: DTZ001 - wall-clock time


def _nearest_weekday(day: date, wanted: int) -> int:
    """Return the day of the month that nW means: the weekday nearest to day n, never in another month; 0 if none."""
    try:
        target = day.replace(day=wanted)
    except ValueError:
        return 0  # a month without such a day
    saturday, sunday = target.weekday() == 5, target.weekday() == 6
    if saturday:
        return wanted - 1 if wanted > 1 else wanted + 2
    if sunday:
        return wanted + 1 if (target + timedelta(days=1)).month == day.month else wanted - 2
    return wanted


# ---------------------------------------------------------------- fields


def _days_of_month(text: str) -> tuple[str, int | None]:
    if text == "?":
        return "*", None
    if text in ("L", "LW"):
        return text, None
    if match := _NEAREST.fullmatch(text):
        wanted = _number(match[1], _DAY_OF_MONTH)
        around = range(max(1, wanted - 2), min(31, wanted + 2) + 1)
        return ",".join(map(str, around)), wanted
    return _plain(text, _DAY_OF_MONTH), None


def _days_of_week(text: str) -> str:
    if text == "?":
        return "*"
    if text == "L":
        return "6"  # the last day of the week
    if match := _NTH.fullmatch(text):
        return f"{_number(match[1], _DAY_OF_WEEK) - 1}#{match[2]}"
    match = _LAST_DAY.fullmatch(text)
    if match and match[1] not in _DAYS:
        return f"{_number(match[1], _DAY_OF_WEEK) - 1}L"
    if match and text not in _DAYS:
        return f"{_DAYS.index(match[1])}L"
    if text == "*":
        return text
    return ",".join(str(number - 1) for number in sorted(_numbers(text, _DAY_OF_WEEK)))


def _plain(text: str, field: _Field) -> str:
    """A field that cronsim understands when its numbers are spelled out."""
    return text if text == "*" else ",".join(map(str, sorted(_numbers(text, field))))


def _numbers(text: str, field: _Field) -> set[int]:
    """Return the numbers that a list of values, ranges and steps stands for."""
    found: set[int] = set()
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None or match["step"] == "0" or (match["first"] == "*" and match["last"]):
            raise ValueError(f"'{item:.40}' can't be used in the field {field.name}")
        found.update(_range(match, field))
    return found


def _range(match: re.Match[str], field: _Field) -> Iterator[int]:
    every, step = match["first"] == "*", int(match["step"] or 1)
    first = field.first if every else _number(match["first"], field)
    last = first
    if match["last"] is not None:
        last = _number(match["last"], field)
    elif every or match["step"] is not None:
        last = field.last
    span = field.last - field.first + 1
    if last < first:
        last += span  # over the end and on from the beginning, as FRI-MON
    for number in range(first, last + 1, step):
        yield (number - field.first) % span + field.first


def _number(text: str, field: _Field) -> int:
    if text in field.names:
        return field.names.index(text) + field.first
    if not text.isdecimal() or not field.first <= int(text) <= field.last:
        raise ValueError(f"'{text:.40}' is not a value of the field {field.name} ({field.first} to {field.last})")
    return int(text)
