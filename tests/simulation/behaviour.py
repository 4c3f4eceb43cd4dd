"""How the containers of simulated Engines behave: it follows from the name of their image. Pure.

    steady                    runs until it is asked to stop
    exits-7, exits-7-after-30s    ends by itself with that code, at once or after a while
    crashes-often             fails after a random while, at most 20 s
    oom                       is killed by the kernel, for its memory
    ignores-sigterm           ends only by SIGKILL
    slow-start                its health check passes only after a while
    unhealthy-after-60s       its health check fails from then on
    flaps                     its health check passes and fails in turn
    refuses                   its program is missing, so no start succeeds
    slow-pull, needs-two-pulls    steady, once it is on the host

Whatever has no such name is in no registry. What comes before the name and behind a colon or an at sign doesn't
matter: `registry.example/team/steady:2` is steady.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

__all__ = ["Life", "Pull", "health_changes", "is_known", "life_of", "on_host_from_the_beginning", "pull_of"]

_NS: Final = 1_000_000_000
_SIGKILLED: Final = 137
_SIGTERMED: Final = 143

_EXITS: Final = re.compile(r"exits-(\d+)(?:-after-(\d+)s)?")
_UNHEALTHY: Final = re.compile(r"unhealthy-after-(\d+)s")
_NAMES: Final = frozenset(
    {
        "steady",
        "crashes-often",
        "oom",
        "ignores-sigterm",
        "slow-start",
        "flaps",
        "refuses",
        "slow-pull",
        "needs-two-pulls",
    }
)
_PULLED_ONLY: Final = ("slow-pull", "needs-two-pulls")


@dataclass(frozen=True, slots=True)
class Life:
    """What a container's process does from one start on; seconds count from there.

    `ends_after_s` None: never by itself. `stops_after_s`: how long after the stop signal it ends; None: it ignores it.
    `passes`: (second, whether a health check passes from then on), the first at 0; `period_s`: that again and again.
    `refusal`: the Engine's words if it can't be started at all.
    """

    ends_after_s: float | None = None
    exit_code: int = 0
    oom: bool = False
    stops_after_s: float | None = 0.0
    stop_code: int = _SIGTERMED
    passes: tuple[tuple[float, bool], ...] = ((0.0, True),)
    period_s: float | None = None
    refusal: str = ""

    def passes_at(self, second: float) -> bool:
        """Tell what a health check says at that moment."""
        if self.period_s is not None:
            second %= self.period_s
        return [passes for since, passes in self.passes if since <= second][-1]

    def changes_after(self, second: float) -> bool:
        """Tell whether a health check will say anything else later."""
        return self.period_s is not None or self.passes[-1][0] > second


@dataclass(frozen=True, slots=True)
class Pull:
    """How one try to pull an image goes: it takes `seconds`, and fails with `error` if that isn't empty."""

    seconds: float
    error: str = ""


def _name(image: str) -> str:
    return image.rpartition("/")[2].partition("@")[0].partition(":")[0]


def is_known(image: str) -> bool:
    """Tell whether there is such an image anywhere."""
    name = _name(image)
    return name in _NAMES or bool(_EXITS.fullmatch(name) or _UNHEALTHY.fullmatch(name))


def on_host_from_the_beginning(image: str, chance: Random) -> bool:
    """Draw whether a host has an image before anybody pulled it."""
    return is_known(image) and _name(image) not in _PULLED_ONLY and chance.random() < 0.7


def pull_of(image: str, tries: int, chance: Random) -> Pull | None:
    """Draw how the pull of an image goes on a host, the `tries`th there, from 1; None: no registry has it."""
    if not is_known(image):
        return None
    name = _name(image)
    if name == "slow-pull":
        return Pull(chance.uniform(20, 100))
    if name == "needs-two-pulls" and tries == 1:
        return Pull(chance.uniform(0.5, 3), "unexpected EOF: connection reset by peer")
    return Pull(chance.uniform(0.2, 5))


def life_of(image: str, start: int, chance: Random) -> Life:
    """Draw what a container does from its `start`th start on, from 1. `chance` is the container's own."""
    steady = Life(
        stops_after_s=chance.choice([0.0, 0.02, 0.3, chance.uniform(0.5, 4)]),
        stop_code=chance.choice([_SIGTERMED, _SIGTERMED, 0]),
    )
    name = _name(image)
    if match := _EXITS.fullmatch(name):
        seconds = float(match[2]) if match[2] else chance.choice([0.0, 0.01, chance.uniform(0.05, 2)])
        return replace(steady, ends_after_s=seconds, exit_code=int(match[1]))
    if match := _UNHEALTHY.fullmatch(name):
        return replace(steady, passes=((0.0, True), (float(match[1]), False)))
    match name:
        case "crashes-often":
            # A crash loop is quick at first, so that restart policies and breakers have something to count.
            return replace(steady, ends_after_s=chance.uniform(0, 1 if start <= 2 else 20), exit_code=1)
        case "oom":
            return replace(steady, ends_after_s=chance.uniform(0.5, 30), exit_code=_SIGKILLED, oom=True)
        case "ignores-sigterm":
            return Life(stops_after_s=None)
        case "slow-start":
            return replace(steady, passes=((0.0, False), (chance.uniform(5, 25), True)))
        case "flaps":
            well_s = chance.uniform(10, 40)
            return replace(steady, passes=((0.0, True), (well_s, False)), period_s=well_s + chance.uniform(10, 40))
        case "refuses":
            return Life(refusal='exec: "/no/such/program": stat /no/such/program: no such file or directory: unknown')
        case _:
            return steady


def health_changes(life: Life, check: dict[str, Any], *, begun_s: float = 0.0) -> Iterator[tuple[float, str]]:
    """Yield (second, status) each time that a health check changes a container's status.

    `check`: the Engine's Healthcheck (times in nanoseconds). Seconds count from when the probing began, `begun_s` after
    the start: it begins anew with an Engine that takes the container up. As with Docker: one probe per interval; a
    success makes it healthy at once, `Retries` failures in a row unhealthy; those in the start period don't count.
    """
    interval_s = check["Interval"] / _NS
    start_period_s = check.get("StartPeriod", 0) / _NS
    status, failures, at = "starting", 0, 0.0
    while True:
        at += interval_s
        passes = life.passes_at(begun_s + at)
        if passes:
            failures, now = 0, "healthy"
        else:
            failures += not (status == "starting" and at <= start_period_s)
            now = "unhealthy" if failures >= max(1, check.get("Retries", 3)) else status
        if now != status:
            status = now
            yield at, status
        if not life.changes_after(begun_s + at) and status == ("healthy" if passes else "unhealthy"):
            return
