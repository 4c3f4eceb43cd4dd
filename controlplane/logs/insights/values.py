"""What queries compute with: texts, numbers, truths (1 and 0, as Logs Insights shows them), instants, JSON; None is no
value. Pure.

Texts that read as numbers count as numbers wherever numbers are asked for, since what `parse` finds is text.
"""

import math
import re
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from controlplane.logs.insights.syntax import Period

__all__ = [
    "KEY_PART_BYTES",
    "Instant",
    "ceiling",
    "compare",
    "floor",
    "number_of",
    "same",
    "shown",
    "sort_key",
    "truth",
]

_NUMBER: Final = re.compile(r"\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)
_CHUNK: Final = re.compile(r"[0-9]+|[A-Za-z]+|[^0-9A-Za-z]+")
#: So many characters of a text are put in natural order, and about how much memory each part of a key takes.
_NATURAL_LENGTH: Final = 200
KEY_PART_BYTES: Final = 170
#: What keys of numbers begin with.
NUMBER_RANK: Final = 2
#: Floats beyond it may differ from the whole number they are shown as.
_EXACT: Final = 2.0**53
#: The times that can be shown: the years 1 to 9999.
_FIRST_MS: Final = -62_135_596_800_000
_LAST_MS: Final = 253_402_300_799_999

_FIXED_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_MONTHS: Final = {"mo": 1, "q": 3, "y": 12}
#: Weeks begin on Mondays; the epoch was a Thursday.
_MONDAY_MS: Final = 4 * 86_400_000


class Instant(int):
    """A moment: epoch milliseconds. Shown as a date and time; in arithmetic a plain number."""

    __slots__ = ()


def number_of(value: Any) -> int | float | None:
    """Return a value as a number, None if it isn't one."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        number = float(value)
        if not math.isfinite(number):
            return None
        return int(number) if number.is_integer() and abs(number) <= _EXACT else number
    return None


def shown(value: Any) -> str:
    """Return a value's text; no value is the empty text."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, Instant):
        return _date(value)
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    return msgspec.json.encode(value).decode()


def truth(value: Any) -> bool:
    """Tell whether a condition holds that has this value."""
    if isinstance(value, str):
        number = number_of(value)
        return bool(value) if number is None else bool(number)
    return bool(value)


def same(left: Any, right: Any) -> bool:
    """Tell whether two values are equal: as numbers if both are, else as texts. No value equals nothing."""
    if left is None or right is None:
        return False
    if isinstance(left, str) and isinstance(right, str) and left == right:
        return True
    a, b = number_of(left), number_of(right)
    if a is not None and b is not None:
        return a == b
    if isinstance(left, bool) or isinstance(right, bool):
        return _word(left) == _word(right)
    return shown(left) == shown(right)


def compare(left: Any, right: Any) -> int | None:
    """Return -1, 0 or 1 for less, equal, greater; None if the values have no order: one is missing, or a JSON part."""
    if left is None or right is None:
        return None
    a, b = number_of(left), number_of(right)
    if a is not None and b is not None:
        return (a > b) - (a < b)
    if isinstance(left, str) and isinstance(right, str):
        return (left > right) - (left < right)
    return None


def sort_key(value: Any) -> tuple[Any, ...]:
    """Return what a value is sorted by: missing ones, then texts in natural order, then numbers."""
    if value is None:
        return (0,)
    number = number_of(value)
    if number is not None:
        return (NUMBER_RANK, number)
    # The text itself comes last, for all that is beyond. A run of digits stands among other texts as "0" does, and is
    # ordered by its length, then by its value.
    text = shown(value)
    chunks = (("0", len(c), c) if c[0].isdigit() else (c, 0, "") for c in _CHUNK.findall(text[:_NATURAL_LENGTH]))
    return (1, *chunks, ("", 0, text))


def floor(at: float, period: Period) -> Instant | None:
    """Return the beginning of the period that a moment is in (UTC; weeks begin on Mondays)."""
    if not _FIRST_MS <= at <= _LAST_MS:
        return None
    width = _FIXED_MS.get(period.unit)
    if width is not None:
        width *= period.count
        shift = _MONDAY_MS if period.unit == "w" else 0
        return Instant((int(at) - shift) // width * width + shift)
    return _month_start(_month(at) // _months(period) * _months(period))


def ceiling(at: float, period: Period) -> Instant | None:
    """Return the first beginning of a period that isn't before a moment."""
    begin = floor(at, period)
    if begin is None or begin == at:
        return begin
    width = _FIXED_MS.get(period.unit)
    if width is not None:
        return Instant(begin + width * period.count)
    return _month_start(_month(begin) + _months(period))


def _months(period: Period) -> int:
    return _MONTHS[period.unit] * period.count


def _month(at: float) -> int:
    moment = datetime.fromtimestamp(at / 1000, UTC)
    return moment.year * 12 + moment.month - 1


def _month_start(month: int) -> Instant | None:
    if not 12 <= month < 120_000:
        return None
    return Instant(datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp() * 1000)


def _word(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else shown(value)


def _date(at: int) -> str:
    if not _FIRST_MS <= at <= _LAST_MS:
        return str(int(at))
    seconds, millis = divmod(int(at), 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{millis:03}"
