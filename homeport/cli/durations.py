"""Lengths of time and points in time as people type them: `90`, `90s`, `10m`, `2h30m`, `7d`; `2026-01-31T12:00`."""

import re
import time
from datetime import datetime
from typing import Final

import click

__all__ = ["DURATION", "MOMENT", "Duration", "Moment"]

_UNITS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_DURATION: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")


class Duration(click.ParamType[float]):
    """A length of time; gives seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read `90`, `90s`, `10m`, `2h30m` or `7d`."""
        if isinstance(value, int | float):
            return float(value)
        match = _DURATION.fullmatch(str(value).strip())
        if not match or not any(match.groups()):
            self.fail(f"'{value}' is not a length of time such as 90s, 10m, 2h or 7d", param, ctx)
        return sum(float(count) * size for count, size in zip(match.groups(), _UNITS.values(), strict=True) if count)


class Moment(click.ParamType[float]):
    """A point in time, or how long ago it was; gives epoch seconds."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a duration as that long ago, else an ISO 8601 time (without a zone: local time)."""
        if isinstance(value, int | float):
            return float(value)
        text = str(value).strip()
        if _DURATION.fullmatch(text) and text:
            return time.time() - DURATION.convert(text, param, ctx)
        try:
            return datetime.fromisoformat(text).timestamp()
        except ValueError:
            self.fail(f"'{value}' is neither a time such as 2026-01-31T12:00 nor one ago such as 10m", param, ctx)


DURATION: Final = Duration()
MOMENT: Final = Moment()
