"""Comparing a measurement with the last record. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from bench.hotpaths.record import Record
from bench.hotpaths.reference import REFERENCE

__all__ = ["LIMIT", "Finding", "Verdict", "compare"]

#: A path may cost so much more, or less, than at the last record, as a part of that.
LIMIT = 0.20


class Verdict(Enum):
    """What a finding means."""

    AS_BEFORE = "as before"
    CHEAPER = "cheaper"
    DEARER = "dearer"
    NEW = "not recorded yet"
    GONE = "recorded, and no longer measured"

    @property
    def fails(self) -> bool:
        """Whether somebody has to look at it before the change lands."""
        return self in (Verdict.DEARER, Verdict.NEW, Verdict.GONE)


@dataclass(frozen=True, slots=True)
class Finding:
    """What has become of one path. `step`: 0.25 for a quarter more than at the last record; None without one."""

    path: str
    verdict: Verdict
    step: float | None = None


def compare(last: Record | None, instructions: Mapping[str, int]) -> list[Finding]:
    """Return a finding for each path, measured or recorded, but the reference.

    What is compared is a path's multiple of the reference, so that another Python or processor changes it little.
    """
    recorded = {} if last is None else last.instructions
    paths = [path for path in instructions if path != REFERENCE.name]
    gone = [path for path in recorded if path not in instructions]
    return [_finding(path, recorded, instructions) for path in paths] + [Finding(path, Verdict.GONE) for path in gone]


def _finding(path: str, recorded: Mapping[str, int], measured: Mapping[str, int]) -> Finding:
    if path not in recorded:
        return Finding(path, Verdict.NEW)
    step = _multiple(path, measured) / _multiple(path, recorded) - 1
    if step > LIMIT:
        return Finding(path, Verdict.DEARER, step)
    return Finding(path, Verdict.CHEAPER if step < -LIMIT else Verdict.AS_BEFORE, step)


def _multiple(path: str, instructions: Mapping[str, int]) -> float:
    return instructions[path] / instructions[REFERENCE.name]
